//! The reactor of the loom models, in place of the operating system's: no sockets, a waker that loom sees, and
//! a clock that advances only when a thread waits for a timeout.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyloop_proto::Instant;

use super::events::{Events, Token};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// The largest number of events of one poll, with that of the waker.
pub(super) const CAPACITY: usize = 3;

/// A shorter timeout elapses immediately. With any other, a poll ends only by an event.
const SOON: Duration = Duration::from_secs(1);

std::thread_local! {
    /// Loom runs all threads of a model on one OS thread, so the model shares this.
    static CLOCK: Cell<Instant> = const { Cell::new(Instant::from_nanos(0)) };
}

/// The present.
pub(super) fn now() -> Instant {
    CLOCK.get()
}

/// What can be registered with a reactor.
pub(crate) trait Pollable: AsFd {}
impl<S: AsFd> Pollable for S {}

/// Registers nothing: models report events themselves. The descriptor is any valid one, for `as_fd`.
pub(crate) struct Registry(io::Stdin);

pub(super) struct Reactor(Arc<Queue>);

pub(super) struct EventBuffer(Vec<(Token, Events)>);

pub(super) struct PolledEvents<'r>(&'r [(Token, Events)]);

#[derive(Clone)]
pub(super) struct Waker(Arc<Queue>);

/// The events that the reactor has not returned yet.
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    woken: bool,
    /// An unconsumed edge, for hosts that watch the descriptor edge-triggered.
    has_edge: bool,
    /// The number of calls of [`Waker::wake`].
    wakes: usize,
    events: Vec<(Token, Events)>,
}

impl Reactor {
    /// Creates the reactor, and resets the clock of the model.
    pub(super) fn new() -> io::Result<(Self, Registry, Waker)> {
        // Where `Instant::from` places the first reading of the system's clock.
        CLOCK.set(Instant::from_nanos(1 << 62));
        let queue = Arc::new(Queue { state: Mutex::default(), changed: Condvar::new() });
        Ok((Self(queue.clone()), Registry(io::stdin()), Waker(queue)))
    }

    pub(super) fn poll<'r>(
        &'r mut self,
        timeout: Option<Duration>,
        buffer: &'r mut EventBuffer,
    ) -> PolledEvents<'r> {
        let mut state = self.0.await_readable(timeout);
        let count = CAPACITY - usize::from(std::mem::take(&mut state.woken));
        let count = count.min(state.events.len());
        buffer.0.extend(state.events.drain(..count));
        PolledEvents(&buffer.0)
    }
}

impl EventBuffer {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }
}

impl PolledEvents<'_> {
    /// There are no signals.
    pub(super) const fn ended_by_signal(&self) -> bool {
        false
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Token, Events)> {
        self.0.iter().copied()
    }
}

impl Registry {
    pub(crate) fn register(&self, _: &mut impl Pollable, _: Token, _: Events) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn reregister(&self, _: &mut impl Pollable, _: Token, _: Events) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn deregister(&self, _: &mut impl Pollable) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Registry {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Waker {
    pub(super) fn wake(&self) {
        let mut state = self.0.state();
        (state.woken, state.has_edge) = (true, true);
        state.wakes += 1;
        self.0.changed.notify_all();
    }
}

impl Queue {
    /// Waits until an event is queued, or the waker is woken. A timeout below [`SOON`] ends the wait at once, and
    /// advances the clock.
    fn await_readable(&self, timeout: Option<Duration>) -> MutexGuard<'_, State> {
        let mut state = self.state();
        while !state.is_readable() {
            match timeout {
                Some(timeout) if timeout < SOON => {
                    CLOCK.set(now() + timeout);
                    break;
                }
                _ => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
        state
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_readable(&self) -> bool {
        self.woken || !self.events.is_empty()
    }
}

/// What models call.
#[cfg(test)]
impl Waker {
    /// Queues an event of a socket.
    pub(super) fn report(&self, token: Token, events: Events) {
        let mut state = self.0.state();
        state.has_edge = true;
        state.events.push((token, events));
        drop(state);
        self.0.changed.notify_all();
    }

    /// Waits for an edge of the reactor's descriptor, and consumes it, as a host does that waits for edges.
    pub(super) fn await_edge(&self) {
        let mut state = self.0.state();
        while !(std::mem::take(&mut state.has_edge) && state.is_readable()) {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until the reactor's descriptor is readable, as a host does that waits for levels.
    pub(super) fn await_readable(&self, timeout: Option<Duration>) {
        drop(self.0.await_readable(timeout));
    }

    pub(super) fn is_readable(&self) -> bool {
        self.0.state().is_readable()
    }

    pub(super) fn wake_count(&self) -> usize {
        self.0.state().wakes
    }
}
