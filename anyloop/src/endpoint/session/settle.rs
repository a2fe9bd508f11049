//! The one way out: what becomes of the stream when the work is done, and who is told.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use anyloop_proto::{Failure, Instant, Shutdown, State};

use super::super::handler::Handler;
use super::super::io::{Deadline, Facts, Scratch, Surroundings};
use super::super::line::{Line, TransportRear};
use super::{Machine, Session};
use crate::transport::Transport;

impl<H: Handler> Session<H> {
    /// Does what is to be done when the work is done: tells of a drained backlog, ends the stream if
    /// it is time to, and tells the transport and the handles how things are now.
    #[inline]
    pub(super) fn settle<T: Transport>(
        &mut self,
        transport: &mut T,
        scratch: &mut Scratch,
        now: Instant,
    ) {
        if self.is_plain() {
            self.settle_plain(transport);
        } else {
            self.settle_all(transport, scratch, now);
        }
    }

    /// The same for a session that [is plain](Self::is_plain).
    #[inline]
    pub(super) fn settle_plain<T: Transport>(&mut self, transport: &mut T) {
        // What an open connection receives only moves its deadlines to later times, but for a pong,
        // which is restless; whatever else moves them is not done here.
        let known = T::LAZY_DEADLINES && self.io.deadline().is_some();
        if cfg!(test) && known {
            assert!(self.next_deadline() >= Deadline::new(self.io.deadline()));
        }
        if !known {
            self.tell_deadline(transport);
        }
    }

    #[inline(never)]
    pub(super) fn settle_all<T: Transport>(
        &mut self,
        transport: &mut T,
        scratch: &mut Scratch,
        now: Instant,
    ) {
        self.tell_drained(transport, scratch, now);
        let panic = self.io.take_panic();
        if panic.is_some() {
            let now = transport.now().unwrap_or(now); // the handler has taken its time
            self.work(transport, &mut scratch.cork, |session, line| session.give_in(line, now));
        }
        self.end_input();
        let flushed = !self.io.has_backlog();
        let mut how = self.shutdown();
        let half_closes = how == Shutdown::HalfClose && flushed && self.io.surroundings().is_none();
        if half_closes && !transport.has_halves() {
            how = Shutdown::Close;
        } else if half_closes {
            let surroundings = Surroundings {
                remote_endpoint: transport.remote_endpoint(),
                peer_addr: transport.peer_addr(),
            };
            self.io.extras().half_closed = Some(Box::new(surroundings));
            report(transport.shutdown(how));
        }
        let mut ended = None;
        let ends = how == Shutdown::Abort || (how == Shutdown::Close && flushed);
        if ends && self.may_finish(scratch) {
            report(transport.shutdown(how));
            ended = self.finish(transport, scratch, now);
        }
        self.tell(transport, now);
        self.io.tidy();
        self.io.restless = !self.io.is_calm();
        if let Some(panic) = panic.or(ended).or_else(|| self.io.take_panic()) {
            resume_unwind(panic);
        }
    }

    /// Tells the handler if the backlog has fallen to where it is to know.
    fn tell_drained<T: Transport>(
        &mut self,
        transport: &mut T,
        scratch: &mut Scratch,
        now: Instant,
    ) {
        loop {
            let waiting = self.buffered_amount();
            if waiting > self.io.common.limits.high {
                self.io.high = true;
            } else if self.may_tell_drained(waiting) {
                if !scratch.gate.pass() {
                    return self.io.interrupt();
                }
                self.io.high = false;
                self.work(transport, &mut scratch.cork, |session, line| {
                    session.call(line, now, Handler::drained);
                });
                continue;
            }
            return;
        }
    }

    /// Whether the backlog has fallen to where the handler is told, and the handler can be.
    fn may_tell_drained(&self, waiting: usize) -> bool {
        let low = waiting <= self.io.common.limits.low;
        let able = self.state() == State::Open && !self.io.owes_open && !self.io.has_panicked();
        self.io.high && low && able
    }

    /// Program code has panicked while it had this connection: fails it, with 1011 or 503.
    fn give_in(&mut self, line: &mut Line<'_>, now: Instant) {
        match &mut self.machine {
            Machine::Open(connection) => _ = connection.handle_application_failure(now, line),
            Machine::Server(handshake) => _ = handshake.abandon(now, line),
            Machine::Client(handshake) => _ = handshake.abandon(now, line),
            Machine::Over => {}
        }
    }

    /// Tells the transport and the handles what has changed.
    fn tell<T: Transport>(&mut self, transport: &mut T, now: Instant) {
        if self.is_over() {
            return;
        }
        self.io.publish(self.buffered_amount(), self.state());
        let reading = self.reads();
        if reading != self.io.reading {
            self.io.reading = reading;
            transport.set_reading(reading);
        }
        if let Machine::Open(connection) = &mut self.machine {
            connection.set_reading(reading, now);
        }
        self.tell_deadline(transport);
    }

    #[inline]
    fn tell_deadline<T: Transport>(&mut self, transport: &mut T) {
        let deadline = self.next_deadline();
        if self.io.move_deadline(deadline, T::LAZY_DEADLINES) {
            transport.set_deadline(deadline.get());
        }
    }

    /// Whether the end can be told: after all that was left, and if the gate lets it.
    fn may_finish(&mut self, scratch: &mut Scratch) -> bool {
        if self.io.interrupted {
            return false;
        }
        let tells = match &self.machine {
            Machine::Open(_) => true,
            Machine::Server(handshake) => handshake.failure().is_some(),
            Machine::Client(handshake) => handshake.failure().is_some(),
            Machine::Over => return false,
        };
        if tells && !scratch.gate.pass() {
            self.io.interrupt();
        }
        !self.io.interrupted
    }

    /// The stream is closed: tells the handler, once, and lets everything go. Returns what program code
    /// has panicked with on the way.
    fn finish<T: Transport>(
        &mut self,
        transport: &mut T,
        scratch: &mut Scratch,
        now: Instant,
    ) -> Option<Box<dyn Any + Send>> {
        let who = crate::log::describe(|| match self.io.surroundings() {
            Some(surroundings) => surroundings.remote_endpoint.clone(),
            None => transport.remote_endpoint(),
        });
        let machine = std::mem::replace(&mut self.machine, Machine::Over);
        self.io.state = State::Ended;
        // Those who wait for it are told, and so are those whose messages are in the mailbox. Their
        // panics must not keep the handler from being told.
        let backlog = self.io.take_backlog();
        let untold = catch_unwind(AssertUnwindSafe(|| drop(backlog)));
        let left = catch_unwind(AssertUnwindSafe(|| self.io.leave()));
        let mut rear = TransportRear::new(transport, None);
        let mut waiting = 0;
        let mut line = Line::new(&mut scratch.cork, &mut rear, &mut waiting);
        let told = catch_unwind(AssertUnwindSafe(|| match machine {
            Machine::Open(connection) => {
                let counting = &self.io.common.counting;
                counting.close(connection.statistics());
                if let Some(ending) = connection.ending() {
                    match ending.failure {
                        None => crate::log::debug!("{who}: closed, first by {}", ending.by),
                        Some(failure) => crate::log::debug!("{who}: {failure}"),
                    }
                    self.call(&mut line, now, |handler, context| handler.close(&ending, context));
                }
            }
            Machine::Server(handshake) => {
                let failure = handshake.failure();
                if let Some(failure) = failure {
                    crate::log::debug!("{who}: {failure}");
                } else {
                    self.io.common.counting.http.add(1);
                }
                let facts = Facts { request: handshake.into_request(), ..Facts::default() };
                self.tell_failure(failure, facts, &mut line, now);
            }
            Machine::Client(handshake) => {
                let failure = handshake.failure();
                if let Some(failure) = failure {
                    crate::log::debug!("{who}: {failure}");
                }
                let (target, response) = (self.io.take_target(), handshake.into_response());
                let facts = Facts { target, response, ..Facts::default() };
                self.tell_failure(failure, facts, &mut line, now);
            }
            Machine::Over => {}
        }));
        self.io.let_go();
        untold.and(left).and(told).err()
    }

    /// Plain HTTP that was answered has not failed.
    fn tell_failure(
        &mut self,
        failure: Option<Failure>,
        facts: Facts,
        line: &mut Line<'_>,
        now: Instant,
    ) {
        if let Some(failure) = failure {
            self.io.common.counting.failed.add(1);
            self.io.extras().facts = Some(Box::new(facts));
            self.call(line, now, |handler, context| handler.fail(&failure, context));
        }
    }
}

fn report<E: std::error::Error>(result: Result<(), E>) {
    if let Err(error) = result {
        crate::log::debug!("ending the stream: {error}");
    }
}
