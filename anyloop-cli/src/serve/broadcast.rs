//! `/broadcast`: every message goes to all subscribers, its sender included.
//!
//! Two rules keep publishers from filling the send buffers of subscribers that read:
//!
//! - Publishing is divided into rounds of [`ROUND`] bytes. When a round is full, each publisher pauses after its next
//!   message, until the thread of each subscriber has taken the round's last message from the queue. So a subscriber
//!   whose thread is not running is not flooded by other threads.
//! - While a subscriber is above the high-water mark, every publisher pauses after its next message.
//!
//! Publishers wait for a subscriber for at most [`MAX_WAIT`]. After that they go on, and a subscriber whose send buffer
//! becomes full is closed with 1008.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyloop::Handler;
use anyloop::endpoint::{AnyHandle, ConnectionId, Context};
use anyloop::proto::{Message, Prepared};

/// Publishers wait at most this long for a subscriber that is behind.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// The size of a round: payload bytes, and 64 for each message.
const ROUND: usize = 256 * 1024;

/// A handler whose connection may receive broadcasts.
pub(super) trait Subscriber: Handler {
    /// The broadcast that its connection receives and publishes to, if any.
    fn subscription(&self) -> Option<&Broadcast>;

    /// Logs a message that its connection is about to be sent.
    fn log_sent(&self, message: Message<'_>);
}

/// The state that the connections of `/broadcast` share.
#[derive(Default)]
pub(super) struct Broadcast(Mutex<State>);

#[derive(Default)]
struct State {
    /// Subscribers above the high-water mark for which publishers wait, and since when.
    behind: HashMap<ConnectionId, Instant>,
    /// Paused publishers.
    waiting: HashMap<ConnectionId, AnyHandle>,
    /// Payload bytes published in this round, and 64 for each message.
    published: usize,
    /// The round is full, and not all subscribers have taken its last message.
    is_full: bool,
}

impl Broadcast {
    /// Sends a message to all subscribers, and pauses its publisher if one of them is behind or the round
    /// is full. If messages are logged, each subscriber logs it.
    pub(super) fn publish<S: Subscriber>(
        self: &Arc<Self>,
        message: Message<'_>,
        is_logged: bool,
        context: &mut Context<'_, S>,
    ) {
        let mut state = self.state();
        state.published += message.as_bytes().len() + 64; // empty messages are work as well
        let fills = state.published > ROUND && !state.is_full;
        state.is_full |= fills;
        if state.must_wait() {
            let handle = context.handle();
            state.waiting.insert(handle.id(), handle.erase());
            context.pause_reading();
        }
        drop(state);
        let (message, server) = (Prepared::new(message), context.endpoint());
        let logged = is_logged.then(|| message.clone());
        // It is called on the strand of each connection, right before the message is sent.
        let subscribes = move |handler: &S| {
            let subscribes = handler.subscription().is_some();
            if let (true, Some(message)) = (subscribes, &logged) {
                handler.log_sent(message.message());
            }
            subscribes
        };
        if fills {
            server.broadcast_then(message, subscribes, self.next_round());
        } else {
            server.broadcast_where(message, subscribes);
        }
    }

    /// A function that begins the next round. It does not keep this state alive.
    fn next_round(self: &Arc<Self>) -> impl FnOnce() + Send + 'static {
        let broadcast = Arc::downgrade(self);
        move || {
            if let Some(broadcast) = broadcast.upgrade() {
                broadcast.state().begin_round();
            }
        }
    }

    /// Handles a subscriber that has risen above the high-water mark.
    pub(super) fn fall_behind<S: Subscriber>(&self, context: &mut Context<'_, S>) {
        self.state().behind.insert(context.handle().id(), Instant::now());
        context.set_timer(MAX_WAIT, |handler, context| {
            if let Some(broadcast) = handler.subscription() {
                broadcast.stop_waiting(context.handle().id());
            }
        });
    }

    /// Stops waiting for a subscriber that is still behind when its time is up. The timer of an earlier
    /// wait does nothing.
    fn stop_waiting(&self, id: ConnectionId) {
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
        self.state().stop_waiting_for(id);
    }

    /// A panic of another thread leaves the state consistent, so a poisoned lock is used.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether publishers wait.
    fn must_wait(&self) -> bool {
        self.is_full || !self.behind.is_empty()
    }

    fn begin_round(&mut self) {
        (self.is_full, self.published) = (false, 0);
        self.resume();
    }

    /// Removes a subscriber from those behind.
    fn stop_waiting_for(&mut self, id: ConnectionId) {
        self.behind.remove(&id);
        self.resume();
    }

    /// Lets all publishers read again, unless they have to wait for something else.
    fn resume(&mut self) {
        if !self.must_wait() {
            for (_, publisher) in self.waiting.drain() {
                let _ = publisher.resume_reading(); // it may have ended
            }
        }
    }
}
