//! The connections of an endpoint.

use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use anyloop_proto::{CloseCode, Prepared, State};

use super::error::Sent;
use super::handle::{Handle, Seat};
use super::handler::Handler;

/// Who is there. Those who have left are forgotten when their number has grown to that of the others.
pub(super) struct Registry<H: Handler> {
    seats: Mutex<Seats<H>>,
}

struct Seats<H: Handler> {
    all: Vec<Weak<Seat<H>>>,
    /// At this number it is worth looking for those who have left.
    tidy_at: usize,
}

impl<H: Handler> Default for Registry<H> {
    fn default() -> Self {
        Self { seats: Mutex::new(Seats { all: Vec::new(), tidy_at: 16 }) }
    }
}

impl<H: Handler> Registry<H> {
    pub(super) fn enter(&self, handle: &Handle<H>) {
        let mut seats = self.seats();
        if seats.all.len() >= seats.tidy_at {
            seats.all.retain(|seat| seat.upgrade().is_some_and(|seat| !seat.is_gone()));
            seats.tidy_at = (2 * seats.all.len()).max(16);
        }
        seats.all.push(handle.downgrade());
    }

    /// Handles of those who are there.
    pub(super) fn handles(&self) -> Vec<Handle<H>> {
        let seats = self.seats();
        let there = seats.all.iter().filter_map(Weak::upgrade).filter(|seat| !seat.is_gone());
        there.map(Handle::new).collect()
    }

    /// Sends to all that are open. Returns to how many.
    pub(super) fn broadcast(&self, message: &Prepared) -> usize {
        let handles = self.handles();
        let open = handles.iter().filter(|handle| handle.state() == State::Open);
        open.filter(|handle| handle.send_prepared(message).is_ok_and(Sent::is_on_its_way)).count()
    }

    /// Closes all. Returns how many.
    pub(super) fn close_all(&self, code: CloseCode, reason: &str) -> usize {
        self.handles().iter().filter(|handle| handle.close(code, reason).is_ok()).count()
    }

    /// A panic elsewhere leaves the list as it was.
    fn seats(&self) -> MutexGuard<'_, Seats<H>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
