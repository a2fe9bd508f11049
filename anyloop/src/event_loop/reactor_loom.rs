//! What stands for the operating system under loom: no sockets, a doorbell that loom sees, and time
//! that passes only where somebody waits for it.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyloop_proto::Instant;

use super::events::{Events, Token};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// How many events are taken at a time, the doorbell among them.
pub(super) const CAPACITY: usize = 3;

/// Who waits for less than this has waited already. What is further off never comes.
const SOON: Duration = Duration::from_secs(1);

std::thread_local! {
    /// Loom runs all threads of a model on one of the operating system's.
    static CLOCK: Cell<Instant> = const { Cell::new(Instant::from_nanos(0)) };
}

/// The present.
pub(super) fn now() -> Instant {
    CLOCK.get()
}

/// What can be waited for.
pub(crate) trait Pollable: AsFd {}
impl<S: AsFd> Pollable for S {}

/// Nothing is registered: models say what has happened.
pub(crate) struct Registry(io::Stdin);

pub(super) struct Reactor(Arc<Ports>);

pub(super) struct Room(Vec<(Token, Events)>);

pub(super) struct Happened<'r>(&'r [(Token, Events)]);

#[derive(Clone)]
pub(super) struct Doorbell(Arc<Ports>);

/// What the reactor has to tell.
struct Ports {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    rung: bool,
    /// Something has happened since a host was told of edges.
    has_edge: bool,
    /// How often it was rung.
    rings: usize,
    events: Vec<(Token, Events)>,
}

impl Reactor {
    /// Also where a model's time begins.
    pub(super) fn new() -> io::Result<(Self, Registry, Doorbell)> {
        CLOCK.set(Instant::from_nanos(1 << 62));
        let ports = Arc::new(Ports { state: Mutex::default(), changed: Condvar::new() });
        Ok((Self(ports.clone()), Registry(io::stdin()), Doorbell(ports)))
    }

    pub(super) fn wait<'r>(
        &'r mut self,
        timeout: Option<Duration>,
        room: &'r mut Room,
    ) -> Happened<'r> {
        let mut state = self.0.await_readable(timeout);
        let count = CAPACITY - usize::from(std::mem::take(&mut state.rung));
        let count = count.min(state.events.len());
        room.0.extend(state.events.drain(..count));
        Happened(&room.0)
    }
}

impl Room {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }
}

impl Happened<'_> {
    pub(super) fn iter(&self) -> impl Iterator<Item = (Token, Events)> {
        self.0.iter().copied()
    }
}

impl Registry {
    pub(crate) fn add(&self, _: &mut impl Pollable, _: Token, _: Events) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn renew(&self, _: &mut impl Pollable, _: Token, _: Events) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn remove(&self, _: &mut impl Pollable) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Registry {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Doorbell {
    pub(super) fn ring(&self) {
        let mut state = self.0.state();
        (state.rung, state.has_edge) = (true, true);
        state.rings += 1;
        self.0.changed.notify_all();
    }
}

impl Ports {
    /// What epoll does with a descriptor of its own kind as well: it is readable until somebody asks
    /// it what has happened.
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
        self.rung || !self.events.is_empty()
    }
}

/// What models do.
#[cfg(test)]
impl Doorbell {
    /// Something has happened to a socket.
    pub(super) fn report(&self, token: Token, events: Events) {
        let mut state = self.0.state();
        state.has_edge = true;
        state.events.push((token, events));
        drop(state);
        self.0.changed.notify_all();
    }

    /// As a host does that is told of edges, and takes them.
    pub(super) fn await_edge(&self) {
        let mut state = self.0.state();
        while !(std::mem::take(&mut state.has_edge) && state.is_readable()) {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// As a host does that watches the loop's descriptor.
    pub(super) fn await_readable(&self, timeout: Option<Duration>) {
        drop(self.0.await_readable(timeout));
    }

    pub(super) fn is_readable(&self) -> bool {
        self.0.state().is_readable()
    }

    pub(super) fn rings(&self) -> usize {
        self.0.state().rings
    }
}
