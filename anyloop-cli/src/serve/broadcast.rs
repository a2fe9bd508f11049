//! `/broadcast`: every message goes to all subscribers, its sender included.
//!
//! Whoever publishes faster than a subscriber reads is not read from until the subscriber has caught
//! up, so that prompt readers are never closed, however many publish. A subscriber that does not catch
//! up in time is not waited for any longer, and closed with 1008 if it falls too far behind.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyloop::endpoint::{ConnectionId, Context, Handle, Sent};
use anyloop::proto::{CloseCode, Message, Prepared};

use super::visitor::Visitor;

/// Publishers wait this long for a subscriber that is behind.
const PATIENCE: Duration = Duration::from_secs(2);

/// The subscribers.
pub(super) struct Broadcast {
    /// A subscriber that is not waited for is closed beyond this many bytes.
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    subscribers: HashMap<ConnectionId, Subscriber>,
    /// Subscribers above the high-water mark that are waited for, and since when.
    behind: HashMap<ConnectionId, Instant>,
    /// Publishers that wait for them.
    waiting: Vec<Handle<Visitor>>,
}

struct Subscriber {
    handle: Handle<Visitor>,
    /// It did not catch up in time, and is not waited for until it has.
    lagging: bool,
}

impl Broadcast {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default() }
    }

    pub(super) fn subscribe(&self, context: &mut Context<'_, Visitor>) {
        let handle = context.handle();
        let subscriber = Subscriber { handle: handle.clone(), lagging: false };
        self.state().subscribers.insert(handle.id(), subscriber);
    }

    pub(super) fn unsubscribe(&self, context: &mut Context<'_, Visitor>) {
        let handle = context.handle();
        let mut state = self.state();
        state.subscribers.remove(&handle.id());
        state.waiting.retain(|publisher| *publisher != handle);
        state.stop_waiting_for(handle.id());
    }

    /// Sends a message to all, and stops reading from its publisher if a subscriber is behind.
    pub(super) fn publish(&self, message: Message<'_>, context: &mut Context<'_, Visitor>) {
        let message = Prepared::new(message);
        // Under the lock, so that all receive the same order.
        let mut state = self.state();
        let State { subscribers, behind, waiting } = &mut *state;
        subscribers.retain(|id, subscriber| {
            if subscriber.lagging && self.has_no_room(subscriber, &message) {
                let _ = subscriber.handle.close(CloseCode::POLICY_VIOLATION, "too slow to read");
                return false;
            }
            let sent = subscriber.handle.send_prepared(&message);
            if sent == Ok(Sent::Backpressure) && !subscriber.lagging && !behind.contains_key(id) {
                behind.insert(*id, Instant::now());
                // If the subscriber has gone, it unsubscribes.
                let _ = subscriber.handle.set_timer(PATIENCE, |visitor, context| {
                    visitor.lose_patience(context);
                });
            }
            true
        });
        if !behind.is_empty() {
            waiting.push(context.handle());
            context.pause_reading();
        }
    }

    /// The subscriber's backlog has fallen to the low-water mark.
    pub(super) fn catch_up(&self, id: ConnectionId) {
        let mut state = self.state();
        if let Some(subscriber) = state.subscribers.get_mut(&id) {
            subscriber.lagging = false;
        }
        state.stop_waiting_for(id);
    }

    /// A subscriber was behind, and may be still. A timer of an earlier time does nothing.
    pub(super) fn lose_patience(&self, id: ConnectionId) {
        let mut state = self.state();
        if state.behind.get(&id).is_some_and(|since| since.elapsed() >= PATIENCE) {
            if let Some(subscriber) = state.subscribers.get_mut(&id) {
                subscriber.lagging = true;
            }
            state.stop_waiting_for(id);
        }
    }

    fn has_no_room(&self, subscriber: &Subscriber, message: &Prepared) -> bool {
        let waiting = subscriber.handle.buffered_amount();
        waiting.saturating_add(message.message().as_bytes().len()) > self.limit
    }

    /// A panic elsewhere leaves the state as it was.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
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
