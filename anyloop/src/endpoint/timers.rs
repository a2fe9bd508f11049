//! Timers that the application sets on a connection.

use anyloop_proto::Instant;

use super::handle::Posted;
use super::handler::Handler;

/// A timer of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId(u64);

/// The timers of one connection, by when they are due; those due together in the order in which they
/// were set. A connection has few.
pub(super) struct Timers<H: Handler> {
    due: Vec<(Instant, TimerId, Box<Posted<H>>)>,
    next: u64,
}

impl<H: Handler> Default for Timers<H> {
    fn default() -> Self {
        Self { due: Vec::new(), next: 0 }
    }
}

impl<H: Handler> Timers<H> {
    pub(super) fn set(&mut self, at: Instant, f: Box<Posted<H>>) -> TimerId {
        let id = TimerId(self.next);
        self.next += 1;
        let place = self.due.partition_point(|(other, ..)| *other <= at);
        self.due.insert(place, (at, id, f));
        id
    }

    pub(super) fn cancel(&mut self, timer: TimerId) -> bool {
        let place = self.due.iter().position(|(_, id, _)| *id == timer);
        place.map(|place| self.due.remove(place)).is_some()
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, ..)| *at)
    }

    /// Takes the first timer that is due at `now`.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Box<Posted<H>>> {
        (self.next_due()? <= now).then(|| self.due.remove(0).2)
    }
}
