//! The messages that the server sends to a connection from pushers: threads that do not run the event loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use anyloop::endpoint::{Handle, SendError, Sent, Unsent};
use anyloop::proto::CloseCode;
use anyloop_testkit::wait::let_time_pass;

use crate::numbered::STREAMS;
use crate::peer::Peer;
use crate::serve::{Fault, Shared};

/// The number of pusher threads. Each has its own stream of messages.
pub(crate) const PUSHERS: usize = 2;

/// The code of the Close that the last pusher to finish sends.
const DONE: u16 = 4001;

/// The maximum number of messages that a pusher sends to a connection in a turn.
const BURST: usize = 16;

/// The number of the message at which a fault that occurs once is made; see [`Fault`].
const FAULTY: u64 = 5;

/// How many messages the pushers send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Much {
    /// This many messages from each pusher. The last pusher to finish closes; the reason has the numbers of accepted
    /// messages.
    Exactly(u64),
    /// Messages as fast as the peer reads, until it closes.
    AsRead,
    /// As `AsRead`, but up to the size at which back-pressure is reported.
    ToPressure,
    /// Messages regardless of back-pressure, until one is refused; then again in the next turn.
    Beyond,
}

/// The state of a connection that gets messages from pushers.
pub(crate) struct Feed {
    pub(crate) connection: u64,
    shared: Arc<Shared>,
    much: Much,
    handle: Handle<Peer>,
    streams: [Stream; STREAMS],
    /// The number of pushers that have not finished.
    busy: AtomicUsize,
    over: AtomicBool,
    pressed: AtomicBool,
}

/// The counts of a stream's messages.
#[derive(Default)]
pub(crate) struct Stream {
    /// The number of the next message, which is also the count of accepted ones.
    pub(crate) next: AtomicU64,
    /// The count of messages that `send` refused.
    pub(crate) refused: AtomicU64,
    /// The count of messages that were completed as sent.
    pub(crate) sent: AtomicU64,
    /// The count of messages that were completed as not sent, including the refused ones.
    pub(crate) unsent: AtomicU64,
    is_done: AtomicBool,
}

impl Stream {
    /// The completion handler of a message, which counts it.
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

    /// Stops the pushers for this connection.
    pub(crate) fn end(&self) {
        self.over.store(true, SeqCst);
    }

    /// Whether the send buffer was as full as intended: back-pressure was reached, or a message was refused.
    pub(crate) fn is_pressed(&self) -> bool {
        self.pressed.load(SeqCst)
    }

    pub(crate) fn stream(&self, stream: usize) -> &Stream {
        &self.streams[stream]
    }

    /// One count of each stream.
    pub(crate) fn each(&self, number: impl Fn(&Stream) -> u64) -> [u64; STREAMS] {
        self.streams.each_ref().map(number)
    }

    /// Sends the next message of a stream by calling `send`. Returns whether to send more in this turn.
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
                if matches!(error, SendError::SendBufferFull { .. }) {
                    self.pressed.store(true, SeqCst);
                }
                false
            }
        }
    }

    /// A turn of a pusher. Returns whether it has sent a message or finished.
    fn push(self: &Arc<Self>, pusher: usize, payload: &mut Vec<u8>) -> bool {
        let shared = &self.shared;
        let of = self.stream(pusher);
        let limit = match self.much {
            Much::Beyond => usize::MAX,
            Much::ToPressure => shared.high,
            Much::AsRead | Much::Exactly(_) => shared.high / 2,
        };
        let mut pushed = false;
        for _ in 0..BURST {
            let waits = self.handle.buffered_amount() > limit;
            if waits && self.much == Much::ToPressure {
                // Frame headers count towards the send buffer, so it can exceed the limit without a report to the
                // sender.
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
                // These have no effect if the connection ends before.
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
            // If the connection has already ended, its record reports that.
            let _ = self.handle.close(CloseCode::new(DONE).expect("4001 may be sent"), &reason);
        }
    }
}

/// Adds the counts to the sums of the server, when no pusher and no completion handler uses the feed any more.
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
                 completed and {unsent} unsent",
                self.connection
            ));
        }
    }
}

/// The main function of a pusher thread: sends messages to all feeds until the server stops.
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
