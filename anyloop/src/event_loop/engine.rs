//! The loop itself: what is ready, who runs it, who waits.
//!
//! One lock guards what is shared, and is never held while program code runs. A runner takes a source
//! out of its slot, runs it, and puts it back: having it is the right to run it. When the ring has run
//! dry, one runner, the leader, looks at the sockets and may sleep there; the others sleep until there
//! is more to do than the leader can, or until the leader's place is free.

use std::io;
use std::panic::{RefUnwindSafe, resume_unwind};
use std::sync::{Arc, PoisonError, TryLockError};
use std::time::Duration;

use anyloop_proto::Instant;

use super::alarm::Alarm;
use super::clock::now;
use super::core::{Core, Task};
use super::events::{Events, Token};
use super::kind::{Kind, Sealed};
use super::lock::Lock;
use super::reactor::{Reactor, Registry, Room};
use super::remote::Remote;
use super::runner::{Bounds, Runner, Wait};
use super::source::Buffers;
use super::timers::Key;
use crate::sync::{Condvar, Mutex, MutexGuard, TryMutex, TryMutexGuard};

/// Has what runners share to itself.
pub(super) type Guard<'l, K> = <<K as Sealed>::Lock<Core<K>> as Lock<Core<K>>>::Guard<'l>;

/// The state of a loop.
#[expect(unnameable_types, reason = "of `Sealed`")]
pub struct Engine<K: Kind> {
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

impl<K: Kind> Engine<K> {
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

    pub(crate) fn run(&self) -> usize {
        self.drive(Bounds { handlers: u64::MAX, until: None, wait: Wait::Forever })
    }

    pub(crate) fn run_one(&self) -> usize {
        self.drive(Bounds { handlers: 1, until: None, wait: Wait::Forever })
    }

    pub(crate) fn run_until(&self, end: std::time::Instant) -> usize {
        self.drive(Bounds { handlers: u64::MAX, until: None, wait: Wait::Until(end) })
    }

    pub(crate) fn run_for(&self, time: Duration) -> usize {
        match std::time::Instant::now().checked_add(time) {
            Some(end) => self.run_until(end),
            None => self.run(), // centuries
        }
    }

    pub(crate) fn poll(&self) -> usize {
        self.poll_budget(u64::MAX, None)
    }

    pub(crate) fn poll_one(&self) -> usize {
        self.poll_budget(1, None)
    }

    pub(crate) fn poll_budget(&self, handlers: u64, until: Option<std::time::Instant>) -> usize {
        self.drive(Bounds { handlers, until, wait: Wait::No })
    }

    /// Runs what is ready, within these bounds. Returns how many handlers ran.
    fn drive(&self, bounds: Bounds) -> usize {
        if !self.remote.has_work() {
            self.remote.stop();
        }
        if self.remote.is_stopped() {
            self.take_note();
            return 0;
        }
        let mut runner = Runner::enter(self);
        let panic = runner.run(bounds).err();
        let called = runner.buffers.as_ref().map_or(0, |buffers| buffers.stream.budget.spent());
        drop(runner);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        usize::try_from(called).unwrap_or(usize::MAX)
    }

    /// A loop that is stopped keeps what has happened for later; a host that watches its descriptor is
    /// not told of it again and again.
    fn take_note(&self) {
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
impl<K: Kind> RefUnwindSafe for Engine<K> {}

impl<K: Kind> Drop for Engine<K> {
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
