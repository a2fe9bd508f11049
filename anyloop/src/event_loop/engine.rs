//! The loop itself: what is ready, who runs it, who waits.
//!
//! One lock guards what is shared, and is never held while program code runs. A runner takes a source
//! out of its slot, runs it, and puts it back: having it is the right to run it. When the ring has run
//! dry, one runner, the leader, looks at the sockets and may sleep there; the others sleep until there
//! is more to do than the leader can, or until the leader's place is free.

use std::io;
use std::panic::RefUnwindSafe;
use std::sync::{Arc, PoisonError, TryLockError};

use anyloop_proto::Instant;

use super::alarm::Alarm;
use super::clock::now;
use super::core::{Core, Task};
use super::events::{Events, Token};
use super::lock::Lock;
use super::reactor::{Reactor, Registry};
use super::remote::Remote;
use super::source::Buffers;
use super::timers::Key;
use super::types::Types;
use crate::sync::{Condvar, Mutex, MutexGuard, TryMutex, TryMutexGuard};

/// Has what runners share to itself.
pub(super) type Guard<'l, K> = <<K as Types>::Lock<Core<K>> as Lock<Core<K>>>::Guard<'l>;

/// The state of a loop.
#[expect(unnameable_types, reason = "of `Sealed`")]
pub struct Engine<K: Types> {
    pub(super) core: K::Lock<Core<K>>,
    /// Where runners sleep that are not the leader.
    pub(super) parked: Condvar,
    /// Held by the leader; or by the alarm, which then waits in its stead.
    pub(super) reactor: Arc<TryMutex<Reactor>>,
    pub(super) alarm: Mutex<Option<Arc<Alarm>>>,
    pub(super) registry: Registry,
    pub(super) remote: Arc<Remote>,
    /// For runners to take, and nested ones others.
    pub(super) buffers: Mutex<Vec<Buffers>>,
}

impl<K: Types> Engine<K> {
    pub(crate) fn new() -> io::Result<Self> {
        let (reactor, registry, doorbell) = Reactor::new()?;
        let core = Core::new(now());
        Ok(Self {
            core: K::Lock::new(core),
            parked: Condvar::new(),
            reactor: Arc::new(TryMutex::new(reactor)),
            alarm: Mutex::default(),
            registry,
            remote: Arc::new(Remote::new(doorbell)),
            buffers: Mutex::default(),
        })
    }

    pub(crate) const fn remote(&self) -> &Arc<Remote> {
        &self.remote
    }

    /// Where sources are registered, under their token.
    pub(crate) const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Puts a source into the loop, which has `work` to do until the source is over. `make` gets the
    /// token that it is to be registered under.
    pub(crate) fn insert<E>(
        &self,
        make: impl FnOnce(Token) -> Result<Box<K::Source>, E>,
    ) -> Result<Token, E> {
        let token = self.lock().slots.reserve();
        match make(token) {
            Ok(source) => {
                self.remote.add_work();
                let mut core = self.lock();
                // It has a first turn in any case.
                if core.slots.check_in(token.index, source, Events::NONE, true) {
                    core.ring.push_back(token.index);
                }
                drop(core);
                self.remote.ring();
                Ok(token)
            }
            Err(error) => {
                self.lock().slots.release(token.index);
                Err(error)
            }
        }
    }

    /// Forgets what has been noted of the sockets of a source that runs now.
    #[cfg(unix)]
    pub(super) fn forget(&self, token: Token, events: Events) {
        self.lock().slots.forget(token.index, events);
    }

    /// Queues a function of the program's, behind what is queued already.
    pub(super) fn post(&self, task: Box<K::Task>) {
        self.remote.add_work();
        let mut core = self.lock();
        core.take_mail(&self.remote); // what was posted before comes before
        core.queue(Task::Posted(task));
        drop(core);
        self.remote.ring();
    }

    pub(super) fn set_timer(&self, key: Key, f: Box<K::OnTimer>) {
        self.remote.add_work();
        self.lock().timers.set(key, f);
        self.remote.ring();
    }

    /// Lets go of memory that was not needed, of what no runner has in use.
    pub(super) fn trim(&self, now: Instant) {
        let mut buffers = self.free_buffers();
        buffers.iter_mut().for_each(|buffers| buffers.stream.trim(now));
        buffers.retain(|buffers| buffers.stream.next_trim().is_some());
        // Under that lock, so that who brings others adds them after this.
        self.lock().set_trim(buffers.iter().filter_map(|it| it.stream.next_trim()).min());
    }

    /// The core may be locked under this lock, not the other way round.
    pub(super) fn free_buffers(&self) -> MutexGuard<'_, Vec<Buffers>> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reactor, unless the alarm waits there: then that sees everything.
    pub(super) fn free_reactor(&self) -> Option<TryMutexGuard<'_, Reactor>> {
        match self.reactor.try_lock() {
            Ok(reactor) => Some(reactor),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// No program code runs under this lock.
    #[inline]
    pub(super) fn lock(&self) -> Guard<'_, K> {
        self.core.lock()
    }
}

/// Its core is locked or borrowed only where no program code runs, so a panic finds it whole.
impl<K: Types> RefUnwindSafe for Engine<K> {}

impl<K: Types> Drop for Engine<K> {
    /// Drops what is queued un-run, where no lock is held: it may call the loop's handles.
    fn drop(&mut self) {
        self.end_alarm();
        let mail = self.remote.close();
        let core = self.core.get_mut();
        let (tasks, timers) = (core::mem::take(&mut core.tasks), core.timers.take_all());
        let sources = core.slots.take_all();
        drop((mail, tasks, timers, sources));
    }
}
