//! `/broadcast`: every message goes to all subscribers, its sender included.
//!
//! Two rules keep publishers from filling the backlogs of subscribers that read:
//!
//! - Publishing is divided into rounds of [`ROUND`] bytes. A publisher whose message exceeds the round pauses until
//!   its next turn. The subscribers, which the message has woken, usually have theirs before.
//! - While a subscriber is above the high-water mark, every publisher pauses after its next message.
//!
//! Publishers wait for a subscriber for at most [`MAX_WAIT`]. After that it is closed with 1008 when its
//! backlog reaches the cap.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyloop::endpoint::{ConnectionId, Context, Handle};
use anyloop::proto::{Message, Prepared};

use super::route::{RouteHandler, RouteServer};

/// Publishers wait at most this long for a subscriber that is behind.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// The size of a round: payload bytes, and 64 for each message.
const ROUND: usize = 256 * 1024;

/// The state that the connections of `/broadcast` share.
#[derive(Default)]
pub(super) struct Broadcast(Mutex<State>);

#[derive(Default)]
struct State {
    /// Subscribers above the high-water mark for which publishers wait, and since when.
    behind: HashMap<ConnectionId, Instant>,
    /// Paused publishers.
    waiting: HashMap<ConnectionId, Handle<RouteHandler>>,
    /// Payload bytes published in this round, and 64 for each message.
    published: usize,
    /// The first publisher that filled this round. Its next turn begins another.
    filled_by: Option<ConnectionId>,
}

impl Broadcast {
    /// Sends a message to all subscribers, and pauses its publisher if one of them is behind or the round
    /// is full.
    pub(super) fn publish(
        &self,
        message: Message<'_>,
        server: &RouteServer,
        context: &mut Context<'_, RouteHandler>,
    ) {
        let subscribes = |handler: &RouteHandler| handler.subscribes();
        let message = Prepared::new(message);
        server.broadcast_where(&message, subscribes);
        let mut state = self.state();
        state.published += message.message().as_bytes().len() + 64; // empty messages are work as well
        if !state.behind.is_empty() {
            let handle = context.handle();
            state.waiting.insert(handle.id(), handle);
            context.pause_reading();
        } else if state.published > ROUND {
            // The subscribers were woken first, so their turns usually come before the posted function.
            let handle = context.handle();
            state.filled_by.get_or_insert_with(|| handle.id());
            context.pause_reading();
            let _ = handle.post(|handler, context| handler.end_round(context)); // it is open
        }
    }

    /// Handles the next turn of a publisher that was paused by a full round: it resumes reading. The
    /// publisher that filled the round lets the others go first.
    pub(super) fn end_round(&self, context: &mut Context<'_, RouteHandler>) {
        let handle = context.handle();
        if self.state().begin_round(handle.id()) {
            let _ = handle.post(|_, context| context.resume_reading()); // it is open
        } else {
            context.resume_reading();
        }
    }

    /// Handles a subscriber that has risen above the high-water mark.
    pub(super) fn fall_behind(&self, context: &mut Context<'_, RouteHandler>) {
        self.state().behind.insert(context.handle().id(), Instant::now());
        context.set_timer(MAX_WAIT, |handler, context| handler.stop_waiting(context));
    }

    /// Stops waiting for a subscriber that is still behind when its time is up. The timer of an earlier
    /// wait does nothing.
    pub(super) fn stop_waiting(&self, id: ConnectionId) {
        let mut state = self.state();
        if state.behind.get(&id).is_some_and(|since| since.elapsed() >= MAX_WAIT) {
            state.stop_waiting_for(id);
        }
    }

    /// Handles the end of a connection.
    pub(super) fn leave(&self, id: ConnectionId) {
        self.state().waiting.remove(&id);
        self.catch_up(id);
    }

    /// Handles a subscriber that has fallen to the low-water mark.
    pub(super) fn catch_up(&self, id: ConnectionId) {
        let mut state = self.state();
        state.stop_waiting_for(id);
        state.begin_round(id);
    }

    /// A panic of another thread leaves the state consistent, so a poisoned lock is used.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Begins another round if this publisher filled the present one. Returns whether it did.
    fn begin_round(&mut self, id: ConnectionId) -> bool {
        let begins = self.filled_by == Some(id);
        if begins {
            (self.filled_by, self.published) = (None, 0);
        }
        begins
    }

    /// Removes a subscriber from those behind. When none is left, all publishers resume reading.
    fn stop_waiting_for(&mut self, id: ConnectionId) {
        self.behind.remove(&id);
        if self.behind.is_empty() {
            for (_, publisher) in self.waiting.drain() {
                let _ = publisher.resume_reading(); // it may have ended
            }
        }
    }
}
