//! The loop inside another loop: what its host calls, and how the host is woken. The transitions and their reasons
//! are in [`wakeup`](super::wakeup).

use std::io;
use std::time::Duration;

use super::clock::now;
use super::core::Core;
use super::engine::Engine;
use super::reactor::EventBuffer;
use super::types::LoopTypes;
use super::wakeup::{Action, WakeupThreadState};
use super::wakeup_thread::WakeupThread;
use crate::sync::thread;

impl<K: LoopTypes> Engine<K> {
    /// Time until the next deadline; zero if something is ready; `None` if there is no deadline or the loop is stopped.
    /// The loop remembers the deadline, and wakes the host for an earlier one. A wake-up thread, if there is one, waits
    /// in place of the host.
    pub(super) fn next_timeout(&self) -> Option<Duration> {
        let wakeup_thread = self.wakeup_thread();
        let mut core = self.lock();
        core.note_reported_deadline(&self.control, wakeup_thread.is_some());
        self.timeout_of(&core)
    }

    fn timeout_of(&self, core: &Core<K>) -> Option<Duration> {
        if self.control.is_stopped() {
            return None;
        }
        if core.is_anything_ready(&self.control) {
            return Some(Duration::ZERO);
        }
        core.next_deadline().map(|deadline| deadline - now())
    }

    /// Starts a thread that calls `wake` when there is something to do, in place of the former one.
    pub(super) fn set_wakeup(&self, wake: impl Fn() + Send + Sync + 'static) -> io::Result<()> {
        // Locked until the new thread is stored: a runner that leaves meanwhile arms the new thread.
        let mut current = self.wakeup_thread();
        let mut core = self.lock();
        core.wakeups.forget_report();
        let state = match core.wakeups.has_runners() {
            true => WakeupThreadState::Disarmed, // the last of them arms it
            false => {
                let timeout = self.timeout_of(&core);
                WakeupThreadState::Armed { deadline: timeout.map(|timeout| now() + timeout) }
            }
        };
        drop(core);
        let thread = WakeupThread::new(state, self.control.clone(), wake);
        let result = thread.clone().start(self.reactor.clone());
        let unused = match result {
            Ok(()) => current.replace(thread),
            Err(_) => Some(thread),
        };
        drop(current);
        if let Some(unused) = unused {
            unused.end();
        }
        result
    }

    /// Ends the thread that [`set_wakeup`](Self::set_wakeup) has started.
    pub(super) fn clear_wakeup(&self) {
        let former = self.wakeup_thread().take();
        if let Some(former) = former {
            former.end();
        }
    }

    /// A run call has returned, or the loop was reset: if there are no runners, the wake-up thread waits in place of
    /// the host.
    pub(super) fn arm_wakeup(&self) {
        let current = self.wakeup_thread();
        let Some(thread) = &*current else { return };
        let core = self.lock();
        if core.wakeups.has_runners() {
            return; // the last of them arms it
        }
        let deadline = self.timeout_of(&core).map(|timeout| now() + timeout);
        drop(core);
        // A runner that is about to wait calls `disarm_wakeup`, which waits for the lock that `current` holds.
        thread.arm(deadline);
    }

    /// A runner is about to wait in the reactor: the wake-up thread leaves it.
    pub(super) fn disarm_wakeup(&self) {
        if let Some(thread) = &*self.wakeup_thread() {
            thread.disarm();
        }
    }

    /// A run call of a stopped loop. It keeps the reactor's events for later, so that a host that watches the
    /// descriptor is not woken for them again and again.
    pub(super) fn run_stopped(&self) {
        let mut core = self.lock();
        if core.wakeups.has_runners() || !self.control.is_stopped() {
            return; // the last runner notifies the host, or `reset` has done so if there is something to do
        }
        if let Some(mut reactor) = self.try_lock_reactor() {
            let mut buffer = EventBuffer::new();
            core.apply_events_and_resign(Some(
                reactor.poll(Some(Duration::ZERO), &mut buffer).iter(),
            ));
        }
        core.apply_commands(&self.control);
        let thread = thread::current().id();
        let action = core.wakeups.note_stop_found(thread, self.control.notifier());
        drop(core);
        self.idle_buffers().clear(); // runners do this when they leave, but there may have been none at the stop
        let is_armed = self.wakeup_thread().as_ref().is_some_and(|thread| thread.is_armed());
        if is_armed || action == Action::Notify {
            self.control.notify();
        }
    }

    /// Makes the loop ready to run again. Returns false, and does nothing, if it has runners.
    pub(crate) fn reset(&self) -> bool {
        let mut core = self.lock();
        if core.wakeups.has_runners() {
            return false;
        }
        if self.control.is_stopped() {
            self.control.clear_stopped();
            core.wakeups.reset(self.control.notifier());
            // The host may last have got `None`, no deadline, from `next_timeout`.
            if core.is_anything_ready(&self.control) || core.next_deadline().is_some() {
                self.control.notify();
            }
            drop(core);
            self.arm_wakeup();
        }
        true
    }
}
