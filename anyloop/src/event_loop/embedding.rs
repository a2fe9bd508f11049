//! The loop inside another loop: what its host asks, and how the host is woken.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::alarm::Alarm;
use super::clock::now;
use super::core::Core;
use super::engine::Engine;
use super::reactor::Room;
use super::types::Types;
use crate::sync::MutexGuard;

impl<K: Types> Engine<K> {
    /// Has the host woken by a call, from a thread of its own.
    pub(super) fn set_alarm(&self, wake: impl Fn() + Send + Sync + 'static) -> io::Result<()> {
        // Until the new one is there, so that whoever leaves meanwhile arms that.
        let mut place = self.alarm();
        let mut core = self.lock();
        core.forget_told();
        let (is_armed, timeout) = (core.runners == 0, self.timeout_of(&core));
        drop(core);
        let alarm = Alarm::new(is_armed, timeout.map(|timeout| now() + timeout), wake);
        let result = alarm.clone().start(self.reactor.clone(), self.remote.clone());
        let other = match result {
            Ok(()) => place.replace(alarm),
            Err(_) => Some(alarm),
        };
        drop(place);
        self.end(other);
        result
    }

    /// The host wakes by itself again.
    pub(super) fn end_alarm(&self) {
        let former = self.alarm().take();
        self.end(former);
    }

    /// Ends one that has left its place, and drops what is the program's of it.
    fn end(&self, alarm: Option<Arc<Alarm>>) {
        if let Some(alarm) = alarm {
            alarm.end();
            self.remote.ring_anyway();
        }
    }

    /// The core may be locked under this lock, not the other way round. Nothing of the program's is called
    /// under it.
    fn alarm(&self) -> MutexGuard<'_, Option<Arc<Alarm>>> {
        self.alarm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A runner is about to wait at the sockets, so the alarm does not.
    pub(super) fn disarm(&self) {
        if self.alarm().as_ref().is_some_and(|alarm| alarm.disarm()) {
            self.remote.ring_anyway();
        }
    }

    /// A run call has returned, or the loop was reset: if nobody is inside, the alarm waits for the host.
    pub(super) fn arm(&self) {
        let place = self.alarm();
        let Some(alarm) = &*place else { return };
        let core = self.lock();
        if core.runners > 0 {
            return; // it would be in their way: the last of them arms it
        }
        let deadline = self.timeout_of(&core).map(|timeout| now() + timeout);
        drop(core); // whoever enters now disarms it, and waits for the place to do so
        if alarm.arm(deadline) {
            self.remote.ring_anyway();
        }
    }

    /// Makes the loop ready to run again.
    pub(crate) fn reset(&self) -> bool {
        let mut core = self.lock();
        if core.runners > 0 {
            return false;
        }
        if self.remote.is_stopped() {
            core.forget_stop();
            self.remote.unstop();
            self.remote.set_asleep(true);
            // A host was told that there is no deadline.
            if core.is_ready(&self.remote) || core.next_deadline().is_some() {
                self.remote.ring();
            }
            drop(core);
            self.arm();
        }
        true
    }

    /// How long nothing is to be done, as far as is known; `None`: for ever.
    pub(super) fn next_timeout(&self) -> Option<Duration> {
        let alarm = self.alarm();
        let mut core = self.lock();
        core.tell(&self.remote, alarm.is_some());
        self.timeout_of(&core)
    }

    fn timeout_of(&self, core: &Core<K>) -> Option<Duration> {
        if self.remote.is_stopped() {
            return None;
        }
        if core.is_ready(&self.remote) {
            return Some(Duration::ZERO);
        }
        core.next_deadline().map(|deadline| deadline - now())
    }

    /// A loop that is stopped keeps what has happened for later; a host that watches its descriptor is
    /// not told of it again and again.
    pub(super) fn take_note(&self) {
        let mut core = self.lock();
        if core.runners > 0 || !self.remote.is_stopped() {
            return; // they do; or it was reset, and somebody was called who will
        }
        if let Some(mut reactor) = self.free_reactor() {
            core.note(reactor.wait(Some(Duration::ZERO), &mut Room::new()).iter());
        }
        core.take_mail(&self.remote);
        self.remote.set_asleep(true);
        let host_is_to_know = core.find_stopped();
        drop(core);
        self.free_buffers().clear(); // it may have been stopped while nobody was inside
        if host_is_to_know || self.alarm().as_ref().is_some_and(|alarm| alarm.is_armed()) {
            self.remote.ring();
        }
    }
}
