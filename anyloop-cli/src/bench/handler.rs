//! The handler of one connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyloop::Handler;
use anyloop::endpoint::{Context, HandlerFactory, Sent};
use anyloop::proto::{CloseCode, Ending, Failure, Message};

use super::options::Pace;
use super::round::{Participant, Round};
use crate::error::{CliError, chain};
use crate::peer;

/// At a rate, a connection sends fewer messages than this before the loop serves others.
const TURN: u32 = 64;

/// How long answers are awaited after the end of the sending time.
const GRACE: Duration = Duration::from_secs(5);

pub(super) struct BenchHandler {
    round: Arc<Round<Self>>,
    /// The number of its thread.
    thread: usize,
    /// The number of this connection.
    number: u32,
    /// When sending begins, and when it ends.
    sending: Option<(Instant, Instant)>,
    /// The number of messages that were sent.
    sent: u64,
    /// For each message without an answer, the oldest first: the instant from which its latency counts.
    waiting: VecDeque<Instant>,
    /// The send buffer is above its high-water mark, or the connection is closing.
    blocked: bool,
    /// A timer for the next message is set.
    timed: bool,
    /// It sends no more.
    finished: bool,
}

/// Makes handlers that are not used: each connection is given its own.
pub(super) struct BenchFactory(pub(super) Arc<Round<BenchHandler>>);

impl HandlerFactory for BenchFactory {
    type Handler = BenchHandler;

    fn make(&self) -> BenchHandler {
        BenchHandler::new(self.0.clone(), 0, 0)
    }
}

impl BenchHandler {
    pub(super) fn new(round: Arc<Round<Self>>, thread: usize, number: u32) -> Self {
        Self {
            round,
            thread,
            number,
            sending: None,
            sent: 0,
            waiting: VecDeque::new(),
            blocked: false,
            timed: false,
            finished: false,
        }
    }

    /// Sends the next message, whose latency counts from `since`.
    fn send(&mut self, since: Instant, context: &mut Context<'_, Self>) {
        let number = self.number_of(self.sent);
        let mut tally = self.round.tally(self.thread);
        match context.send(tally.payload.numbered(number)) {
            Ok(sent) => {
                tally.counts.sent += 1;
                self.sent += 1;
                self.waiting.push_back(since);
                self.blocked = sent == Sent::Backpressure;
            }
            Err(_) => self.blocked = true, // the connection is closing, and `close` reports why
        }
    }

    /// Sends all messages that are due, unless the peer does not read. Their latencies count from when they were due.
    fn send_due(&mut self, context: &mut Context<'_, Self>) {
        let Some((begin, end)) = self.sending else { return };
        let mut turn = TURN;
        while !self.blocked && !self.finished {
            let (due, now) = (begin + self.due(), Instant::now());
            if due >= end || now >= end {
                return;
            }
            let wait = due.saturating_duration_since(now);
            turn -= 1;
            // If the rate exceeds what this machine can do, answers are read between two turns.
            if !wait.is_zero() || turn == 0 {
                if !std::mem::replace(&mut self.timed, true) {
                    context.set_timer(wait, |handler, context| {
                        handler.timed = false;
                        handler.send_due(context);
                    });
                }
                return;
            }
            self.send(due, context);
        }
    }

    /// When the next message is due, after the beginning. The connections take turns.
    fn due(&self) -> Duration {
        let Pace::Rate(rate) = self.round.pace else { return Duration::ZERO };
        let before = self.sent as f64 * f64::from(self.round.connections) + f64::from(self.number);
        Duration::try_from_secs_f64(before / rate).unwrap_or(Duration::MAX / 4)
    }

    /// The number of a message among those of all connections.
    fn number_of(&self, index: u64) -> u64 {
        u64::from(self.number) << 40 | index
    }
}

impl Participant for BenchHandler {
    fn begin(&mut self, begin: Instant, end: Instant, context: &mut Context<'_, Self>) {
        self.sending = Some((begin, end));
        let time = end.saturating_duration_since(Instant::now());
        context.set_timer(time, |handler, context| handler.finish(context));
        match self.round.pace {
            Pace::Depth(depth) => (0..depth).for_each(|_| self.send(Instant::now(), context)),
            Pace::Rate(_) => self.send_due(context),
        }
    }

    fn finish(&mut self, context: &mut Context<'_, Self>) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        match self.waiting.is_empty() {
            true => _ = context.close(CloseCode::NORMAL, ""), // refused if it is closing already
            false => _ = context.set_timer(GRACE, |_, context| context.terminate()),
        }
    }
}

impl Handler for BenchHandler {
    fn open(&mut self, context: &mut Context<'_, Self>) {
        let info = context.handshake_info();
        self.round.opened(info.and_then(|info| info.extension.as_deref()));
    }

    fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
        let now = Instant::now();
        let number = self.number_of(self.sent - self.waiting.len() as u64);
        let since = self.waiting.pop_front();
        let in_time = !self.finished && self.sending.is_some_and(|(_, end)| now < end);
        {
            let mut tally = self.round.tally(self.thread);
            match since {
                Some(since) if tally.payload.is(message, number) => {
                    tally.counts.in_time += u64::from(in_time);
                    tally.counts.record(now - since);
                }
                _ => tally.counts.wrong += 1,
            }
        }
        if self.finished {
            if self.waiting.is_empty() {
                let _ = context.close(CloseCode::NORMAL, ""); // refused if it is closing already
            }
        } else if let (Pace::Depth(_), Some(_), true) = (self.round.pace, since, in_time) {
            self.send(now, context);
        }
    }

    fn drained(&mut self, context: &mut Context<'_, Self>) {
        self.blocked = false;
        if let Pace::Rate(_) = self.round.pace {
            self.send_due(context);
        }
    }

    fn close(&mut self, ending: &Ending<'_>, context: &mut Context<'_, Self>) {
        self.round.tally(self.thread).counts.unanswered += self.waiting.len() as u64;
        if !self.finished {
            let why = match (ending.failure, &ending.received) {
                (Some(failure), _) => failure.to_string(),
                (None, Some(frame)) => peer::closed_with(frame),
                (None, None) => "the peer did not close the connection".to_string(),
            };
            let why = match context.error() {
                Some(error) => format!("{why}: {}", chain(error)),
                None => why,
            };
            self.round.fail(CliError::failed(format!("a connection ended before its time: {why}")));
        }
        self.round.ended();
    }

    fn fail(&mut self, failure: &Failure, context: &mut Context<'_, Self>) {
        self.round.fail(peer::not_opened(failure, false, context));
        self.round.ended();
    }
}
