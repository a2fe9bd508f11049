//! Waking a host that cannot watch a descriptor: a thread that only waits.

use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyloop_proto::Instant;

use super::clock::now;
use super::reactor::{Reactor, Room};
use super::remote::{Mail, Remote};
use crate::sync::thread;
use crate::sync::{Condvar, Mutex, MutexGuard, TryMutex};

/// Calls a function of the host's when there is something to do, once for each time that it is armed.
pub(super) struct Alarm {
    state: Mutex<State>,
    changed: Condvar,
    wake: Box<dyn Fn() + Send + Sync>,
}

struct State {
    /// The host has polled since it was called last.
    armed: bool,
    /// When there is something to do if nothing happens.
    deadline: Option<Instant>,
    /// The loop is no more, or has another alarm.
    ended: bool,
}

impl Alarm {
    /// It is `armed` where no run call is under way, whose end would arm it.
    pub(super) fn new(
        armed: bool,
        deadline: Option<Instant>,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        let state = Mutex::new(State { armed, deadline, ended: false });
        Arc::new(Self { state, changed: Condvar::new(), wake: Box::new(wake) })
    }

    /// Begins the thread that waits for it. It ends by itself.
    pub(super) fn start(
        self: Arc<Self>,
        reactor: Arc<TryMutex<Reactor>>,
        remote: Arc<Remote>,
    ) -> io::Result<()> {
        let builder = thread::Builder::new().name("anyloop alarm".to_string());
        builder.spawn(move || self.wait(&reactor, &remote)).map(drop)
    }

    /// The host has polled: it is called again when something happens, or at this time. Returns whether
    /// the thread may wait for a later time, and must be woken.
    pub(super) fn arm(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.state();
        let was_armed = std::mem::replace(&mut state.armed, true);
        let before = std::mem::replace(&mut state.deadline, deadline);
        drop(state);
        self.changed.notify_one();
        let earlier =
            deadline.is_some_and(|deadline| before.is_none_or(|before| deadline < before));
        was_armed && earlier
    }

    /// The host waits by itself. Returns whether the thread waits in its place, and must be woken.
    pub(super) fn disarm(&self) -> bool {
        std::mem::replace(&mut self.state().armed, false)
    }

    /// Whether the host has polled since it was called last.
    pub(super) fn is_armed(&self) -> bool {
        self.state().armed
    }

    /// It is not called any more; the thread is to be woken.
    pub(super) fn end(&self) {
        self.state().ended = true;
        self.changed.notify_one();
    }

    fn wait(&self, reactor: &TryMutex<Reactor>, remote: &Remote) {
        loop {
            let mut state = self.state();
            while !(state.armed || state.ended) {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.ended {
                return;
            }
            drop(state);
            let mut reactor = reactor.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever changes this from now on ends the wait.
            let state = self.state();
            let (armed, deadline) = (state.armed && !state.ended, state.deadline);
            drop(state);
            if !armed {
                continue;
            }
            // If somebody has rung, a former alarm may have heard it in this one's stead.
            let timeout = match remote.is_asleep() {
                true => deadline.map(|deadline| deadline - now()),
                false => Some(Duration::ZERO),
            };
            let mut room = Room::new();
            // What was seen here will not be seen by the host.
            let mut seen = false;
            for (token, events) in reactor.wait(timeout, &mut room).iter() {
                seen = true;
                let _ = remote.mail(Mail::Ready(token, events)); // gone is gone
            }
            drop(reactor);
            let mut state = self.state();
            if state.ended && !remote.is_asleep() {
                remote.ring_anyway(); // this one has heard it in the stead of whoever waits now
            }
            let due = state.deadline.is_some_and(|deadline| deadline <= now());
            // Whoever rings for the host finds it asleep, and leaves it awake.
            if state.armed && !state.ended && (seen || due || !remote.is_asleep()) {
                state.armed = false;
                drop(state);
                (self.wake)();
            }
        }
    }

    /// A panic elsewhere leaves the state as it was.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm").finish_non_exhaustive()
    }
}
