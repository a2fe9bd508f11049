//! `/broadcast`: every message goes to all subscribers, its sender included.
//!
//! Publishers take turns with subscribers: what was published is taken before much more is. While a
//! subscriber is above the high-water mark, publishers are not read from, so that prompt readers
//! are never closed, however many publish. A subscriber that has not caught up after two seconds is not
//! waited for any longer, and closed with 1008 if it falls too far behind.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyloop::endpoint::{ConnectionId, Context, Handle};
use anyloop::proto::{Message, Prepared};

use super::visitor::{Visitor, VisitorServer};

/// Publishers wait this long for a subscriber that is behind.
const PATIENCE: Duration = Duration::from_secs(2);

/// So many bytes are published before the subscribers have their turn.
const ROUND: usize = 256 * 1024;

/// What is known of the subscribers of a server.
#[derive(Default)]
pub(super) struct Broadcast(Mutex<State>);

#[derive(Default)]
struct State {
    /// Subscribers above the high-water mark that are waited for, and since when.
    behind: HashMap<ConnectionId, Instant>,
    /// Publishers that wait for them.
    waiting: Vec<Handle<Visitor>>,
    /// Bytes published in this round.
    published: usize,
    /// The publisher whose next turn begins another round: the first that has filled this one.
    filled_by: Option<ConnectionId>,
}

impl Broadcast {
    /// Sends a message to all, and stops reading from its publisher if a subscriber is behind.
    pub(super) fn publish(
        &self,
        message: Message<'_>,
        server: &VisitorServer,
        context: &mut Context<'_, Visitor>,
    ) {
        let subscribes = |visitor: &Visitor| visitor.subscribes();
        let message = Prepared::new(message);
        server.broadcast_where(&message, subscribes);
        let mut state = self.state();
        state.published += message.message().as_bytes().len();
        if !state.behind.is_empty() {
            state.waiting.push(context.handle());
            context.pause_reading();
        } else if state.published > ROUND {
            // The subscribers were woken before, so their turns come before the next one of ours.
            let handle = context.handle();
            state.filled_by.get_or_insert_with(|| handle.id());
            context.pause_reading();
            let _ = handle.post(|visitor, context| visitor.end_round(context)); // it is not over
        }
    }

    /// A publisher that was not read from has its next turn. The one that has filled the round lets the
    /// others go first.
    pub(super) fn end_round(&self, context: &mut Context<'_, Visitor>) {
        let handle = context.handle();
        if self.state().begin_round(handle.id()) {
            let _ = handle.post(|_, context| context.resume_reading()); // it is not over
        } else {
            context.resume_reading();
        }
    }

    /// A subscriber has risen above the high-water mark.
    pub(super) fn fall_behind(&self, context: &mut Context<'_, Visitor>) {
        self.state().behind.insert(context.handle().id(), Instant::now());
        context.set_timer(PATIENCE, |visitor, context| visitor.lose_patience(context));
    }

    /// A subscriber was behind, and may be still. A timer of an earlier time does nothing.
    pub(super) fn lose_patience(&self, id: ConnectionId) {
        let mut state = self.state();
        if state.behind.get(&id).is_some_and(|since| since.elapsed() >= PATIENCE) {
            state.stop_waiting_for(id);
        }
    }

    /// A subscriber has fallen to the low-water mark, or is over.
    pub(super) fn catch_up(&self, id: ConnectionId) {
        let mut state = self.state();
        state.stop_waiting_for(id);
        state.begin_round(id);
    }

    /// A panic elsewhere leaves the state whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Begins another round, if this publisher has filled the present one. Returns whether it has.
    fn begin_round(&mut self, id: ConnectionId) -> bool {
        let begins = self.filled_by == Some(id);
        if begins {
            (self.filled_by, self.published) = (None, 0);
        }
        begins
    }

    /// If it was the last one that is behind, all publishers go on.
    fn stop_waiting_for(&mut self, id: ConnectionId) {
        self.behind.remove(&id);
        if self.behind.is_empty() {
            for publisher in self.waiting.drain(..) {
                let _ = publisher.resume_reading(); // it may have gone
            }
        }
    }
}
