//! The server's handler of a connection.

use std::fs::File;
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use anyloop::Handler;
use anyloop::endpoint::{Answer, Context};
use anyloop::proto::handshake::http::StatusCode;
use anyloop::proto::handshake::{Accept, Request};
use anyloop::proto::{CloseCode, Ending, Failure, Message, State};

use crate::feed::{Feed, Much, PUSHERS};
use crate::serve::{Fault, Record, Shared};

/// The code of a Close that the client requests by a message.
const ASKED: u16 = 4000;

/// The period of the timer that sends a message.
const TICK: Duration = Duration::from_millis(3);

/// The number of handler calls, by kind.
#[derive(Default)]
pub(crate) struct Calls {
    /// The number of all calls.
    pub(crate) all: AtomicU64,
    pub(crate) opens: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) closes: AtomicU64,
    pub(crate) fails: AtomicU64,
}

/// The job of a connection, from its path: `/echo/ID`, `/push/ID/N`, `/flow/ID`, `/brim/ID`, `/flood/ID`
/// or `/control/0`.
///
/// The client chooses the number `ID`. It uses it to query the [record](Record) of the connection after its end.
/// There is no record for 0.
#[derive(Clone, Copy)]
enum Job {
    /// Echoes messages. At the message `bye`, closes the connection.
    Echo,
    Feed(Much),
    /// Answers questions about other connections.
    Control,
}

pub(crate) struct Peer {
    pub(crate) shared: Arc<Shared>,
    number: u64,
    job: Job,
    received: u64,
    echoed: u64,
    feed: Option<Arc<Feed>>,
}

impl Peer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, number: 0, job: Job::Echo, received: 0, echoed: 0, feed: None }
    }

    fn parse(&mut self, path: &str) -> Option<()> {
        let mut words = path.strip_prefix('/')?.split('/');
        let job = words.next()?;
        self.number = words.next()?.parse().ok()?;
        self.job = match job {
            "echo" => Job::Echo,
            "push" => Job::Feed(Much::Exactly(words.next()?.parse().ok()?)),
            "flow" => Job::Feed(Much::AsRead),
            "brim" => Job::Feed(Much::ToPressure),
            "flood" => Job::Feed(Much::Beyond),
            "control" => Job::Control,
            _ => return None,
        };
        words.next().is_none().then_some(())
    }

    /// Sends a message from a timer, and sets the next timer.
    fn tick(&mut self, context: &mut Context<'_, Self>) {
        self.shared.called();
        let Some(feed) = &self.feed else { return };
        if context.state() != State::Open {
            return;
        }
        if context.buffered_amount() == 0 {
            let send = |bytes: &[u8], completion: Box<dyn FnOnce(Result<(), _>) + Send>| {
                context.send_then(bytes, completion)
            };
            feed.send(PUSHERS, &mut Vec::new(), send);
        }
        // A timer that is canceled at once, besides the one that runs.
        let cancelled =
            context.set_timer(TICK, |peer, _| peer.shared.fail("a cancelled timer ran"));
        context.set_timer(TICK, Self::tick);
        if !context.cancel_timer(cancelled) {
            self.shared.fail("a timer was not there to be cancelled");
        }
    }

    fn answer(&self, question: &str) -> Option<String> {
        let (verb, number) = question.split_once(' ')?;
        let number = number.parse().ok()?;
        match verb {
            // The record of a connection that has ended, once.
            "take" => Some(match self.shared.take_record(number) {
                Some(record) => record.to_string(),
                None => "wait".to_owned(),
            }),
            // Whether its send buffer is as full as intended.
            "pressed" => {
                let feeds = self.shared.feeds();
                let feed = feeds.iter().find(|feed| feed.connection == number);
                let is_pressed = feed.is_some_and(|feed| feed.is_pressed());
                Some(if is_pressed { "yes" } else { "no" }.to_owned())
            }
            _ => None,
        }
    }
}

impl Handler for Peer {
    fn validate(&mut self, request: &Request, _: &mut Context<'_, Self>) -> Answer {
        self.shared.called();
        match self.parse(request.uri().path()) {
            Some(()) => Accept::new().into(),
            None => Answer::status(StatusCode::NOT_FOUND, "nothing is served there"),
        }
    }

    fn http(&mut self, _: &Request, _: &mut Context<'_, Self>) -> Answer {
        self.shared.called();
        Answer::upgrade_required()
    }

    fn open(&mut self, context: &mut Context<'_, Self>) {
        self.shared.called();
        let opens = self.shared.calls.opens.fetch_add(1, SeqCst);
        if opens.is_multiple_of(64)
            && self.shared.commits(Fault::Descriptor)
            && let Ok(file) = File::open("/dev/null")
        {
            let _ = file.into_raw_fd(); // never closed
        }
        let Job::Feed(much) = self.job else { return };
        let feed = Feed::new(self.number, self.shared.clone(), much, context.handle());
        self.feed = Some(feed.clone());
        self.shared.add_feed(feed);
        if much == Much::AsRead {
            context.set_timer(TICK, Self::tick);
        }
    }

    fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
        self.shared.called();
        let messages = self.shared.calls.messages.fetch_add(1, SeqCst);
        self.received += 1;
        let sent = match self.job {
            Job::Feed(_) => return,
            Job::Control => {
                let question = String::from_utf8_lossy(message.as_bytes()).into_owned();
                let answer = self.answer(&question);
                context.send(answer.as_deref().unwrap_or("what?")).map(|_| ())
            }
            Job::Echo if message.as_bytes() == b"bye" => {
                let code = CloseCode::new(ASKED).expect("4000 may be sent");
                context.close(code, &self.echoed.to_string())
            }
            Job::Echo => {
                self.echoed += 1;
                if messages >= 100 && self.shared.commits(Fault::Byte) {
                    context.send(message.as_bytes().get(1..).unwrap_or(b"!")).map(|_| ())
                } else {
                    context.send(message).map(|_| ())
                }
            }
        };
        if let Err(error) = sent {
            self.shared.fail(&format!("an answer was not sent: {error}"));
        }
    }

    fn ping(&mut self, _: &[u8], _: &mut Context<'_, Self>) -> bool {
        self.shared.called();
        true
    }

    fn pong(&mut self, _: &[u8], _: Option<Duration>, _: &mut Context<'_, Self>) {
        self.shared.called();
    }

    fn pong_timeout(&mut self, _: &mut Context<'_, Self>) {
        self.shared.called();
    }

    fn drained(&mut self, _: &mut Context<'_, Self>) {
        self.shared.called();
    }

    fn close(&mut self, ending: &Ending<'_>, _: &mut Context<'_, Self>) {
        self.shared.called();
        self.shared.calls.closes.fetch_add(1, SeqCst);
        if self.shared.commits(Fault::Memory) {
            // Compilers may leave out an allocation that nothing reads.
            std::hint::black_box(Vec::leak(vec![1_u8; 100]));
        }
        let feed = self.feed.take();
        if let Some(feed) = &feed {
            self.shared.remove_feed(feed);
        }
        if self.number > 0 {
            let record = Record {
                is_clean: ending.clean,
                received: self.received,
                echoed: self.echoed,
                feed,
            };
            self.shared.add_record(self.number, record);
        }
    }

    fn fail(&mut self, _: &Failure, _: &mut Context<'_, Self>) {
        self.shared.called();
        self.shared.calls.fails.fetch_add(1, SeqCst);
    }
}
