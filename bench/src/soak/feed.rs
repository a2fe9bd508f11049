//! The messages that the server sends to a connection from threads outside of the loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use anyloop::endpoint::{Handle, SendError, Sent, Unsent};
use anyloop::proto::CloseCode;
use anyloop_testkit::wait::let_time_pass;

use crate::numbered::STREAMS;
use crate::peer::Peer;
use crate::serve::{Fault, Shared};

/// So many threads push, each a stream of its own.
pub(crate) const PUSHERS: usize = 2;

/// The code of a Close by the last pusher that is done.
const DONE: u16 = 4001;

/// So many messages a connection gets at a time.
const BURST: usize = 16;

/// A fault that is done once is done with the message of this number; see [`Fault`].
const FAULTY: u64 = 5;

/// How much is pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Much {
    /// This many messages of each pusher. The last pusher closes, with the number of accepted messages.
    Exactly(u64),
    /// As much as the peer reads, until it closes.
    AsRead,
    /// The same, but it ignores back-pressure until it is reported.
    ToPressure,
    /// More than that: until a message is refused since the backlog is full, and again whenever it is not.
    Beyond,
}

/// A connection that gets messages from pushers.
pub(crate) struct Feed {
    pub(crate) connection: u64,
    shared: Arc<Shared>,
    much: Much,
    handle: Handle<Peer>,
    streams: [Stream; STREAMS],
    /// How many pushers are not done.
    busy: AtomicUsize,
    over: AtomicBool,
    pressed: AtomicBool,
}

/// What has become of the messages of a stream.
#[derive(Default)]
pub(crate) struct Stream {
    /// The number of the next one: so many were accepted.
    pub(crate) next: AtomicU64,
    /// So many were refused at once.
    pub(crate) refused: AtomicU64,
    /// So many the transport has taken.
    pub(crate) sent: AtomicU64,
    /// So many it has not, with those that were refused.
    pub(crate) unsent: AtomicU64,
    is_done: AtomicBool,
}

impl Stream {
    /// The completion of a message.
    fn completion(
        feed: &Arc<Feed>,
        stream: usize,
    ) -> impl FnOnce(Result<(), Unsent>) + Send + use<> {
        let feed = feed.clone();
        move |result| {
            let stream = &feed.streams[stream];
            let count = if result.is_ok() { &stream.sent } else { &stream.unsent };
            count.fetch_add(1, SeqCst);
        }
    }
}

impl Feed {
    pub(crate) fn new(
        connection: u64,
        shared: Arc<Shared>,
        much: Much,
        handle: Handle<Peer>,
    ) -> Arc<Self> {
        shared.pushed.begun.fetch_add(1, SeqCst);
        Arc::new(Self {
            connection,
            shared,
            much,
            handle,
            streams: Default::default(),
            busy: AtomicUsize::new(PUSHERS),
            over: AtomicBool::new(false),
            pressed: AtomicBool::new(false),
        })
    }

    /// Has the pushers leave it alone.
    pub(crate) fn end(&self) {
        self.over.store(true, SeqCst);
    }

    /// Whether the backlog is as full as intended: a message was refused, or nearly.
    pub(crate) fn is_pressed(&self) -> bool {
        self.pressed.load(SeqCst)
    }

    pub(crate) fn stream(&self, stream: usize) -> &Stream {
        &self.streams[stream]
    }

    /// One number of each stream.
    pub(crate) fn each(&self, number: impl Fn(&Stream) -> u64) -> [u64; STREAMS] {
        self.streams.each_ref().map(number)
    }

    /// Sends the next message of a stream, by `send`. Returns whether to go on.
    pub(crate) fn send(
        self: &Arc<Self>,
        stream: usize,
        payload: &mut Vec<u8>,
        send: impl FnOnce(&[u8], Box<dyn FnOnce(Result<(), Unsent>) + Send>) -> Result<Sent, SendError>,
    ) -> bool {
        let of = self.stream(stream);
        let number = of.next.load(SeqCst);
        self.shared.numbered.put(payload, self.connection, stream, number);
        match send(payload, Box::new(Stream::completion(self, stream))) {
            Ok(sent) => {
                of.next.fetch_add(1, SeqCst);
                if sent == Sent::Backpressure && self.much == Much::ToPressure {
                    self.pressed.store(true, SeqCst);
                }
                sent != Sent::Backpressure || self.much == Much::Beyond
            }
            Err(error) => {
                of.refused.fetch_add(1, SeqCst);
                if matches!(error, SendError::BacklogFull { .. }) {
                    self.pressed.store(true, SeqCst);
                }
                false
            }
        }
    }

    /// A turn of a pusher. Returns whether anything was sent.
    fn push(self: &Arc<Self>, pusher: usize, payload: &mut Vec<u8>) -> bool {
        let shared = &self.shared;
        let of = self.stream(pusher);
        let room = match self.much {
            Much::Beyond => usize::MAX,
            Much::ToPressure => shared.high,
            Much::AsRead | Much::Exactly(_) => shared.high / 2,
        };
        let mut pushed = false;
        for _ in 0..BURST {
            let waits = self.handle.buffered_amount() > room;
            if waits && self.much == Much::ToPressure {
                // Frame heads count towards the backlog, but are not reported to the sender.
                self.pressed.store(true, SeqCst);
            }
            if waits || self.over.load(SeqCst) || of.is_done.load(SeqCst) {
                break;
            }
            let number = of.next.load(SeqCst);
            if self.much == Much::Exactly(number) {
                self.finish(of);
                return true;
            }
            let is_last = self.much == Much::Exactly(number + 1);
            if number == FAULTY && shared.commits(Fault::Gap)
                || is_last && shared.commits(Fault::Tail)
            {
                of.next.fetch_add(1, SeqCst);
                of.sent.fetch_add(1, SeqCst);
                continue;
            }
            if number == FAULTY && shared.commits(Fault::Twice) {
                shared.numbered.put(payload, self.connection, pusher, number);
                let _ = self.handle.send(&payload[..]);
            }
            let sent = |bytes: &[u8], completion| self.handle.send_then(bytes, completion);
            if !self.send(pusher, payload, sent) {
                break;
            }
            pushed = true;
            if number.is_multiple_of(64) {
                // Not done any more where the connection ends before.
                let _ = self.handle.post(|peer, _| peer.shared.called());
                let _ = self.handle.ping(b"soak");
            }
        }
        pushed
    }

    fn finish(&self, of: &Stream) {
        of.is_done.store(true, SeqCst);
        if self.busy.fetch_sub(1, SeqCst) == 1 {
            let accepted = self.each(|stream| stream.next.load(SeqCst));
            let reason = accepted.map(|n| n.to_string()).join(" ");
            // Where the connection is gone already, its record says so.
            let _ = self.handle.close(CloseCode::new(DONE).expect("a code of ours"), &reason);
        }
    }
}

/// Counts the feed as finished: no pusher uses it any more.
impl Drop for Feed {
    fn drop(&mut self) {
        let sum = |number: fn(&Stream) -> &AtomicU64| -> u64 {
            self.each(|stream| number(stream).load(SeqCst)).iter().sum()
        };
        let (accepted, refused) = (sum(|it| &it.next), sum(|it| &it.refused));
        let (sent, unsent) = (sum(|it| &it.sent), sum(|it| &it.unsent));
        let pushed = &self.shared.pushed;
        pushed.over.fetch_add(1, SeqCst);
        pushed.sent.fetch_add(sent, SeqCst);
        if accepted + refused != sent + unsent {
            self.shared.fail(&format!(
                "connection {}: {accepted} messages accepted and {refused} refused, but {sent} \
                 completed and {unsent} given up",
                self.connection
            ));
        }
    }
}

/// A thread that pushes, until the server stops.
pub(crate) fn run_pusher(shared: &Shared, pusher: usize) {
    let mut payload = Vec::new();
    while !shared.is_stopping() {
        let feeds = shared.feeds();
        let mut pushed = false;
        for feed in &feeds {
            pushed |= feed.push(pusher, &mut payload);
        }
        if !pushed {
            let_time_pass(Duration::from_millis(1), "peers read");
        }
    }
}
