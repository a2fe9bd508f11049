//! The wake-up thread: it waits in the reactor in place of a host that cannot watch a descriptor, and calls a
//! function of the host's.
//!
//! The state machine in [`wakeup`](super::wakeup) decides when it waits, and when it calls.

use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyloop_proto::Instant;

use super::clock::now;
use super::control::{Command, LoopControl};
use super::reactor::{EventBuffer, Reactor};
use super::wakeup::{ThreadWait, WakeupThreadState};
use crate::sync::thread;
use crate::sync::{Condvar, Mutex, MutexGuard, TryMutex};

/// A thread that calls a function of the host's when there is something to do: once each time it is armed.
pub(super) struct WakeupThread {
    state: Mutex<WakeupThreadState>,
    changed: Condvar,
    wake: Box<dyn Fn() + Send + Sync>,
    control: Arc<LoopControl>,
}

impl WakeupThread {
    pub(super) fn new(
        state: WakeupThreadState,
        control: Arc<LoopControl>,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (state, changed) = (Mutex::new(state), Condvar::new());
        Arc::new(Self { state, changed, wake: Box::new(wake), control })
    }

    /// Starts the thread. It ends by itself after [`end`](Self::end).
    ///
    /// # Errors
    ///
    /// The operating system cannot start a thread.
    pub(super) fn start(self: Arc<Self>, reactor: Arc<TryMutex<Reactor>>) -> io::Result<()> {
        let builder = thread::Builder::new().name("anyloop wake-up".to_string());
        builder.spawn(move || self.run(&reactor)).map(drop)
    }

    /// The host has polled: call it when something happens, or at this time.
    pub(super) fn arm(&self, deadline: Option<Instant>) {
        let wait = self.state().arm(deadline);
        self.changed.notify_one();
        self.end_wait(wait);
    }

    /// A runner is about to wait in the reactor.
    pub(super) fn disarm(&self) {
        let wait = self.state().disarm();
        self.end_wait(wait);
    }

    /// Whether the host is to be called when something happens.
    pub(super) fn is_armed(&self) -> bool {
        self.state().is_armed()
    }

    /// Ends the thread, which does not call the host any more. A call that is under way continues.
    pub(super) fn end(&self) {
        *self.state() = WakeupThreadState::Ended;
        self.changed.notify_one();
        self.end_wait(ThreadWait::Ends);
    }

    fn end_wait(&self, wait: ThreadWait) {
        if wait == ThreadWait::Ends {
            self.control.notifier().wake();
        }
    }

    fn run(&self, reactor: &TryMutex<Reactor>) {
        while self.await_armed() {
            let Some(has_event) = self.wait(reactor) else { continue };
            let mut state = self.state();
            let is_notified = !self.control.notifier().is_needed();
            if *state == WakeupThreadState::Ended && is_notified {
                // This thread may have consumed the wake-up for the thread that waits in its place now.
                self.control.notifier().wake();
            }
            if state.fire(has_event || is_notified, now()) {
                drop(state);
                (self.wake)();
            }
        }
    }

    /// Waits until it is armed. Returns false if it has ended.
    fn await_armed(&self) -> bool {
        let mut state = self.state();
        while *state == WakeupThreadState::Disarmed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        *state != WakeupThreadState::Ended
    }

    /// Waits in the reactor until something happens, the deadline comes, or the wait is ended. Passes on the events,
    /// which the host cannot see any more. Returns whether there were any, or `None` if it is not armed any more.
    fn wait(&self, reactor: &TryMutex<Reactor>) -> Option<bool> {
        let mut reactor = reactor.lock().unwrap_or_else(PoisonError::into_inner);
        // A change of the state after this ends the wait.
        let WakeupThreadState::Armed { deadline } = *self.state() else { return None };
        let timeout = match self.control.notifier().is_needed() {
            true => deadline.map(|deadline| deadline - now()),
            // A wake-up was sent, and another wake-up thread may have consumed it.
            false => Some(Duration::ZERO),
        };
        let mut buffer = EventBuffer::new();
        let mut has_event = false;
        for (token, events) in reactor.poll(timeout, &mut buffer).iter() {
            has_event = true;
            let _ = self.control.send(Command::Events(token, events)); // unless the loop is gone
        }
        Some(has_event)
    }

    /// Locks the state, even after a panic under the lock: no step leaves the state half changed.
    fn state(&self) -> MutexGuard<'_, WakeupThreadState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for WakeupThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WakeupThread").finish_non_exhaustive()
    }
}
