//! The engine: a loop without its run calls.
//!
//! One lock guards the [`Core`], and no application code runs under it. A runner takes a source out of its slot, runs
//! it, and puts it back, so a source runs on one thread at a time. When the run queue is empty, one runner, the
//! leader, polls the reactor and may wait there. The others wait until the run queue has an entry for them, or until
//! there is no leader. [`wakeup`](super::wakeup) decides which thread is woken.
//! [`core`](super::core) explains source, leader and host.

use std::io;
use std::panic::RefUnwindSafe;
use std::sync::{Arc, PoisonError, TryLockError};

use anyloop_proto::Instant;

use super::buffers::RunnerBuffers;
use super::clock::now;
use super::control::LoopControl;
use super::core::{Callback, Core};
use super::events::{Events, Token};
use super::lock::Lock;
use super::reactor::{Reactor, Registry};
use super::timers::TimerKey;
use super::types::LoopTypes;
use super::wakeup_thread::WakeupThread;
use crate::sync::{Condvar, Mutex, MutexGuard, TryMutex, TryMutexGuard};

/// Exclusive access to the [`Core`].
pub(super) type Guard<'l, K> = <<K as LoopTypes>::Lock<Core<K>> as Lock<Core<K>>>::Guard<'l>;

/// The object that the clones of an [`EventLoop`](super::EventLoop) and its runners share: the core, the reactor and
/// the idle buffers, each with its lock, and what needs none.
#[expect(
    unnameable_types,
    missing_debug_implementations,
    reason = "of the interface of the sealed `LoopKind`"
)]
pub struct Engine<K: LoopTypes> {
    core: K::Lock<Core<K>>,
    /// Where followers wait.
    pub(super) followers: Condvar,
    /// Locked by the leader while it polls, or by the wake-up thread while it waits in place of the host.
    pub(super) reactor: Arc<TryMutex<Reactor>>,
    wakeup_thread: Mutex<Option<Arc<WakeupThread>>>,
    registry: Registry,
    pub(super) control: Arc<LoopControl>,
    /// The buffers that no runner uses.
    buffers: Mutex<Vec<RunnerBuffers>>,
}

impl<K: LoopTypes> Engine<K> {
    pub(crate) fn new() -> io::Result<Self> {
        let (reactor, registry, waker) = Reactor::new()?;
        let core = Core::new(now());
        Ok(Self {
            core: K::Lock::new(core),
            followers: Condvar::new(),
            reactor: Arc::new(TryMutex::new(reactor)),
            wakeup_thread: Mutex::default(),
            registry,
            control: Arc::new(LoopControl::new(waker)),
            buffers: Mutex::default(),
        })
    }

    pub(crate) const fn control(&self) -> &Arc<LoopControl> {
        &self.control
    }

    /// Where `make` of [`insert`](Self::insert) registers a source, with its token.
    pub(crate) const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Adds the source that `make` returns, and queues its first turn. `make` is passed the token, with which it
    /// registers the source. Until the source is over, it counts as outstanding work, which keeps `run` from returning.
    pub(crate) fn insert<E>(
        &self,
        make: impl FnOnce(Token) -> Result<Box<K::DynSource>, E>,
    ) -> Result<Token, E> {
        let token = self.lock().slots.reserve();
        match make(token) {
            Ok(source) => {
                self.control.add_work();
                let mut core = self.lock();
                let again = true; // the first turn
                if core.slots.check_in(token.index, source, Events::NONE, again) {
                    core.queue_source(token.index);
                }
                drop(core);
                self.control.notify();
                Ok(token)
            }
            Err(error) => {
                self.lock().slots.release(token.index);
                Err(error)
            }
        }
    }

    /// Removes these events if they were added to the source since its present turn began.
    #[cfg(unix)]
    pub(super) fn clear_events(&self, token: Token, events: Events) {
        self.lock().slots.clear_events(token.index, events);
    }

    /// Queues a function of the application, after those that were posted before.
    pub(super) fn post(&self, f: Box<K::PostedFn>) {
        self.control.add_work();
        let mut core = self.lock();
        core.apply_commands(&self.control); // functions that other threads have posted before come first
        core.queue_callback(Callback::Posted(f));
        drop(core);
        self.control.notify();
    }

    pub(super) fn set_timer(&self, key: TimerKey, f: Box<K::TimerFn>) {
        self.control.add_work();
        self.lock().timers.set(key, f);
        self.control.notify();
    }

    /// Trims the buffers that no runner uses, and drops those that need no further trim.
    pub(super) fn trim(&self, now: Instant) {
        let mut buffers = self.idle_buffers();
        buffers.iter_mut().for_each(|buffers| buffers.for_driver.trim(now));
        buffers.retain(|buffers| buffers.for_driver.next_trim().is_some());
        // Still under the lock of the buffers: otherwise a runner could return buffers with an earlier trim in between,
        // and this would overwrite it.
        self.lock().set_trim(buffers.iter().filter_map(|it| it.for_driver.next_trim()).min());
    }

    /// The buffers that no runner uses. The core may be locked under this lock, not the other way round.
    pub(super) fn idle_buffers(&self) -> MutexGuard<'_, Vec<RunnerBuffers>> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reactor, unless the wake-up thread waits in it, which then receives all events.
    pub(super) fn try_lock_reactor(&self) -> Option<TryMutexGuard<'_, Reactor>> {
        match self.reactor.try_lock() {
            Ok(reactor) => Some(reactor),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The thread that wakes the host, if the application has asked for one. The core may be locked under this lock,
    /// not the other way round. No application code runs under it.
    pub(super) fn wakeup_thread(&self) -> MutexGuard<'_, Option<Arc<WakeupThread>>> {
        self.wakeup_thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the core. No application code runs under this lock.
    #[inline]
    pub(super) fn lock(&self) -> Guard<'_, K> {
        self.core.lock()
    }
}

/// Its core is locked or borrowed only where no application code runs, so a panic does not leave it half changed.
impl<K: LoopTypes> RefUnwindSafe for Engine<K> {}

impl<K: LoopTypes> Drop for Engine<K> {
    /// Drops functions and sources while no lock is held, since their destructors may use handles of the loop.
    fn drop(&mut self) {
        let wakeup_thread = self.wakeup_thread().take();
        if let Some(thread) = wakeup_thread {
            thread.end();
        }
        let commands = self.control.close();
        let core = self.core.get_mut();
        let (callbacks, timers) = (core::mem::take(&mut core.callbacks), core.timers.take_all());
        let sources = core.slots.take_all();
        drop((commands, callbacks, timers, sources));
    }
}
