//! The connections of an endpoint.

use std::sync::{Arc, PoisonError, Weak};

use anyloop_proto::State;

use super::handle::{Handle, Seat};
use super::handler::Handler;
use crate::sync::unmodelled::{Mutex, MutexGuard};

/// Who knows the connections of an endpoint, where a transport keeps them itself: its connections then
/// need no [`Seat`] before somebody wants to reach them.
pub(crate) trait Roster<H: Handler>: Send + Sync {
    /// Handles of all that are not over.
    fn handles(&self) -> Vec<Handle<H>>;

    /// A connection has begun.
    fn enter(&self, key: u64) {
        let _ = key;
    }

    /// A connection has come to this state; [`State::Ended`] is its last.
    fn publish(&self, key: u64, state: State) {
        let _ = (key, state);
    }

    /// The seat of the connection with this [key](crate::transport::Transport::key), made if there is
    /// none. Asked from within the connection's own session, which then publishes its state in it.
    fn seat(&self, key: u64) -> Arc<Seat<H>>;
}

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

    /// A panic elsewhere leaves the list as it was.
    fn seats(&self) -> MutexGuard<'_, Seats<H>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
