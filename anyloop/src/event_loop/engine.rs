//! The loop itself: what is ready, who runs it, who waits.
//!
//! One lock guards what is shared, and is never held while program code runs. A runner takes a source
//! out of its slot, runs it, and puts it back: having it is the right to run it. When the ring has run
//! dry, one runner, the leader, looks at the sockets and may sleep there; the others sleep until there
//! is more to do than the leader can, or until the leader's place is free.

use std::any::Any;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::hint::cold_path;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyloop_proto::Instant;

use super::kind::Kind;
use super::reactor::Reactor;
use super::remote::{Inside, Mail, Remote};
use super::slots::Slots;
use super::source::{Buffers, Events, Next, Source, Token, Turn};
use super::timers::{Aborted, Key, Timers};
use super::wheel::Wheel;
use crate::endpoint::{Gate, Scratch};

/// Bytes that are read at a time. Memory that no read has reached is not the process's yet.
const READ: usize = 512 * 1024;

/// Room for so many jobs is kept when there are none.
const KEPT: usize = 4096;

/// So many jobs may go by the same look at the clock.
const SAME_TIME: u32 = 16;

/// The state of a loop.
#[expect(unnameable_types, reason = "of `Sealed`")]
pub struct Engine<K: Kind> {
    core: Mutex<Core<K>>,
    /// Where runners sleep that are not the leader.
    parked: Condvar,
    /// Held by the leader.
    reactor: Mutex<Reactor>,
    registry: mio::Registry,
    remote: Arc<Remote>,
    /// For runners to take, and nested ones others.
    buffers: Mutex<Vec<Buffers>>,
}

struct Core<K: Kind> {
    slots: Slots<K>,
    /// What is ready, by its slot; or `TASK`. It outlives every run call: an edge is not reported twice.
    ring: VecDeque<u32>,
    /// What else is to be done: one for each `TASK` in the ring, in that order.
    tasks: VecDeque<Task<K>>,
    /// What is ready when the sockets were looked at once more.
    later: Vec<u32>,
    /// So many jobs of the ring come before the sockets are looked at again.
    before_look: usize,
    timers: Timers<K>,
    /// Deadlines of sources: far ones coarsely, near ones exactly.
    wheel: Wheel,
    near: BinaryHeap<Reverse<(Instant, u32, u16)>>,
    /// A runner looks at the sockets, or sleeps there.
    has_leader: bool,
    /// Until when it sleeps; `None`: until it is woken.
    leader_until: Option<Instant>,
    parked: usize,
    runners: usize,
    /// Kept for its memory.
    mail: Vec<Mail>,
    expired: Vec<u32>,
}

/// Stands in the ring for the next of the tasks. No slot has this number.
const TASK: u32 = u32::MAX;

/// Something of the program's to be done.
enum Task<K: Kind> {
    Posted(Box<K::Task>),
    Due(Box<K::OnTimer>),
    Cancelled(Box<K::OnTimer>),
}

/// Where a source goes that has more to do.
enum Queue {
    Ring,
    Later,
}

/// How long a run call goes on.
#[derive(Clone, Copy)]
struct Bounds {
    /// At most so many handlers.
    handlers: u64,
    /// No handler is begun after this.
    until: Option<std::time::Instant>,
    wait: Wait,
}

/// Whether a run call waits for what is not ready yet.
#[derive(Clone, Copy)]
enum Wait {
    No,
    Until(std::time::Instant),
    Forever,
}

type Panic = Box<dyn Any + Send>;

impl<K: Kind> Engine<K> {
    pub(crate) fn new() -> io::Result<Self> {
        let (reactor, registry, doorbell) = Reactor::new()?;
        let core = Core {
            slots: Slots::new(),
            ring: VecDeque::new(),
            tasks: VecDeque::new(),
            later: Vec::new(),
            before_look: 0,
            timers: Timers::new(),
            wheel: Wheel::new(now()),
            near: BinaryHeap::new(),
            has_leader: false,
            leader_until: None,
            parked: 0,
            runners: 0,
            mail: Vec::new(),
            expired: Vec::new(),
        };
        Ok(Self {
            core: Mutex::new(core),
            parked: Condvar::new(),
            reactor: Mutex::new(reactor),
            registry,
            remote: Arc::new(Remote::new(doorbell)),
            buffers: Mutex::default(),
        })
    }

    pub(crate) const fn remote(&self) -> &Arc<Remote> {
        &self.remote
    }

    /// Where sources are registered, under their token.
    pub(crate) const fn registry(&self) -> &mio::Registry {
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

    /// Makes the loop ready to run again.
    pub(crate) fn reset(&self) -> bool {
        let core = self.lock();
        let possible = core.runners == 0;
        if possible {
            self.remote.unstop();
            if core.is_ready(&self.remote) {
                self.remote.ring();
            }
        }
        possible
    }

    /// How long nothing is to be done, as far as is known; `None`: for ever.
    pub(super) fn next_timeout(&self) -> Option<Duration> {
        let core = self.lock();
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
        if self.remote.is_stopped() {
            return 0;
        }
        if !self.remote.has_work() {
            self.remote.stop();
            return 0;
        }
        let mut runner = Runner::enter(self);
        let panic = runner.run(bounds).err();
        let called = runner.buffers.as_ref().map_or(0, |buffers| buffers.scratch.gate.called());
        drop(runner);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        usize::try_from(called).unwrap_or(usize::MAX)
    }

    /// A panic elsewhere leaves the core as it was: no program code runs under this lock.
    fn lock(&self) -> MutexGuard<'_, Core<K>> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread inside a run call.
struct Runner<'e, K: Kind> {
    engine: &'e Engine<K>,
    buffers: Option<Buffers>,
    now: Instant,
    /// So many jobs have gone by this `now`.
    age: u32,
    /// The sockets were looked at in this call.
    has_looked: bool,
    _inside: Inside,
}

impl<'e, K: Kind> Runner<'e, K> {
    #[inline(never)]
    fn enter(engine: &'e Engine<K>) -> Self {
        let buffers = engine.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let buffers = buffers.unwrap_or_else(|| {
            let mut scratch = Scratch::default();
            scratch.gate = Gate::new(engine.remote.stop_flag().clone());
            Buffers { read: vec![0; READ], scratch }
        });
        let mut core = engine.lock();
        if core.runners == 0 {
            engine.remote.set_asleep(false);
        }
        core.runners += 1;
        drop(core);
        let _inside = engine.remote.enter();
        let (now, age) = (now(), 0);
        Self { engine, buffers: Some(buffers), now, age, has_looked: false, _inside }
    }

    fn run(&mut self, bounds: Bounds) -> Result<(), Panic> {
        let engine = self.engine;
        let Some(mut buffers) = self.buffers.take() else { return Ok(()) };
        buffers.scratch.gate.set(bounds.handlers, bounds.until);
        let mut core = engine.lock();
        let result = loop {
            if !buffers.scratch.gate.is_open() {
                break Ok(());
            }
            if !engine.remote.has_work() {
                engine.remote.stop();
                break Ok(());
            }
            core.take_mail(&engine.remote);
            let may_look = !(self.has_looked && matches!(bounds.wait, Wait::No));
            let next = match core.before_look > 0 || !may_look {
                true => core.ring.pop_front(),
                false => None,
            };
            let Some(index) = next else {
                if !may_look {
                    break Ok(());
                }
                match self.look(core, bounds.wait) {
                    (guard, true) => core = guard,
                    (guard, false) => {
                        core = guard;
                        break Ok(());
                    }
                }
                continue;
            };
            core.before_look = core.before_look.saturating_sub(1);
            core.hand_on(engine);
            let panicked;
            (core, panicked) = match index {
                TASK => self.run_task(core, &mut buffers),
                index => self.run_source(core, &mut buffers, index),
            };
            if let Err(panic) = panicked {
                break Err(panic);
            }
        };
        drop(core);
        self.buffers = Some(buffers);
        result
    }

    fn run_source<'g>(
        &mut self,
        mut core: MutexGuard<'g, Core<K>>,
        buffers: &mut Buffers,
        index: u32,
    ) -> (MutexGuard<'g, Core<K>>, Result<(), Panic>)
    where
        'e: 'g,
    {
        let engine = self.engine;
        let Some((token, mut source, events)) = core.slots.check_out(index) else {
            return (core, Ok(()));
        };
        drop(core);
        self.age += 1;
        let socket = Events::READABLE | Events::WRITABLE;
        if self.age >= SAME_TIME || events.without(socket) != Events::NONE {
            self.refresh();
        }
        let (now, kept) = (self.now, Events::NONE);
        let mut turn = Turn { engine, token, events, kept, deadline: None, now, buffers };
        let next = catch_unwind(AssertUnwindSafe(|| source.run(&mut turn)));
        let (kept, deadline) = (turn.kept, turn.deadline);
        let mut panicked = Ok(());
        let queue = match next {
            Ok(Next::Wait) => None,
            Ok(Next::Again) => Some(Queue::Ring),
            Ok(Next::Later) => Some(Queue::Later),
            Ok(Next::Become(other)) => {
                cold_path();
                panicked = drop_caught(core::mem::replace(&mut source, other));
                Some(Queue::Ring)
            }
            Ok(Next::Done) => return self.bury(index, source),
            // It has a turn to find out what the panic has made of it.
            Err(panic) => {
                cold_path();
                panicked = Err(panic);
                Some(Queue::Ring)
            }
        };
        let mut core = engine.lock();
        if core.slots.check_in(index, source, kept, queue.is_some()) {
            match queue {
                Some(Queue::Later) => core.put_off(index, &engine.remote),
                _ => core.ring.push_back(index),
            }
        }
        if let Some(deadline) = deadline {
            cold_path();
            core.schedule(token, deadline, &engine.remote);
        }
        (core, panicked)
    }

    /// A source is over: closes it, and drops what belongs to the program.
    #[cold]
    fn bury<'g>(
        &self,
        index: u32,
        source: Box<K::Source>,
    ) -> (MutexGuard<'g, Core<K>>, Result<(), Panic>)
    where
        'e: 'g,
    {
        let panicked = drop_caught(source);
        let mut core = self.engine.lock();
        let Core { slots, wheel, .. } = &mut *core;
        wheel.remove(slots, index);
        slots.release(index);
        self.engine.remote.finish_work();
        (core, panicked)
    }

    #[cold]
    fn run_task<'g>(
        &self,
        mut core: MutexGuard<'g, Core<K>>,
        buffers: &mut Buffers,
    ) -> (MutexGuard<'g, Core<K>>, Result<(), Panic>)
    where
        'e: 'g,
    {
        let Some(task) = core.tasks.pop_front() else { return (core, Ok(())) };
        drop(core);
        buffers.scratch.gate.take(); // also where it was closed just now: this is its turn
        let panicked = catch_unwind(AssertUnwindSafe(|| match task {
            Task::Posted(f) => f(),
            Task::Due(f) => f(Ok(())),
            Task::Cancelled(f) => f(Err(Aborted)),
        }));
        // Only now, so that what it has begun keeps the loop running.
        self.engine.remote.finish_work();
        (self.engine.lock(), panicked)
    }

    /// Looks at the sockets, or waits until somebody else has seen something there. Returns whether
    /// the call goes on.
    #[inline(never)]
    fn look<'g>(
        &mut self,
        mut core: MutexGuard<'g, Core<K>>,
        wait: Wait,
    ) -> (MutexGuard<'g, Core<K>>, bool)
    where
        'e: 'g,
    {
        let engine = self.engine;
        let rest = match wait {
            Wait::No => Some(Duration::ZERO),
            Wait::Forever => None,
            Wait::Until(end) => {
                let rest = end.saturating_duration_since(std::time::Instant::now());
                if rest.is_zero() && self.has_looked {
                    return (core, false);
                }
                Some(rest)
            }
        };
        if core.has_leader {
            // What the leader has not seen is not ready.
            core.before_look = core.ring.len();
            if core.before_look > 0 || rest == Some(Duration::ZERO) {
                self.has_looked = true;
                let more = core.before_look > 0;
                return (core, more);
            }
            core.parked += 1;
            core = match rest {
                None => engine.parked.wait(core).unwrap_or_else(PoisonError::into_inner),
                Some(rest) => {
                    let waited = engine.parked.wait_timeout(core, rest);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            core.parked -= 1;
            return (core, true);
        }
        core.has_leader = true;
        let mut timeout = rest;
        if timeout != Some(Duration::ZERO) {
            // Whoever changes something after this rings; what was changed before is seen here.
            engine.remote.set_asleep(true);
            let remote = &engine.remote;
            let is_over = remote.is_stopped() || !remote.has_work();
            timeout = match core.next_deadline() {
                _ if is_over || core.is_ready(remote) => Some(Duration::ZERO),
                None => timeout,
                Some(deadline) => {
                    let until = deadline - now();
                    Some(timeout.map_or(until, |timeout| timeout.min(until)))
                }
            };
            core.leader_until = timeout.map(|timeout| now() + timeout);
        }
        drop(core);
        let mut reactor = engine.reactor.lock().unwrap_or_else(PoisonError::into_inner);
        reactor.wait(timeout);
        engine.remote.set_asleep(false);
        self.refresh();
        self.has_looked = true;
        let mut core = engine.lock();
        core.has_leader = false;
        core.note(reactor.events());
        drop(reactor);
        core.expire(self.now);
        let Core { ring, later, .. } = &mut *core;
        ring.extend(later.drain(..));
        core.before_look = core.ring.len();
        core.shrink();
        let more = core.before_look > 0 || !matches!(wait, Wait::No);
        (core, more)
    }

    #[inline(never)]
    fn refresh(&mut self) {
        (self.now, self.age) = (now(), 0);
    }
}

impl<K: Kind> Drop for Runner<'_, K> {
    fn drop(&mut self) {
        let engine = self.engine;
        if let Some(buffers) = self.buffers.take() {
            engine.buffers.lock().unwrap_or_else(PoisonError::into_inner).push(buffers);
        }
        let mut core = engine.lock();
        core.runners -= 1;
        if core.runners == 0 {
            engine.remote.set_asleep(true);
            if core.is_ready(&engine.remote) && !engine.remote.is_stopped() {
                engine.remote.ring(); // a host that watches the descriptor calls again
            }
        } else if engine.remote.is_stopped() {
            engine.parked.notify_all();
            drop(core);
            engine.remote.ring();
        } else {
            core.hand_on(engine);
            if core.is_ready(&engine.remote) {
                engine.remote.ring(); // the leader may sleep
            }
        }
    }
}

impl<K: Kind> Core<K> {
    fn queue(&mut self, task: Task<K>) {
        self.tasks.push_back(task);
        self.ring.push_back(TASK);
    }

    /// Sorts what came from elsewhere.
    #[inline]
    fn take_mail(&mut self, remote: &Remote) {
        if remote.has_mail() {
            self.sort_mail(remote);
        }
    }

    #[cold]
    fn sort_mail(&mut self, remote: &Remote) {
        let mut mail = core::mem::take(&mut self.mail);
        remote.take_mail(&mut mail);
        for mail in mail.drain(..) {
            match mail {
                Mail::Run(task) => self.queue(Task::Posted(K::task(task))),
                Mail::Wake(token) => self.notify(token, Events::WOKEN),
                Mail::SetTimer(key, f) => self.timers.set(key, K::on_timer(f)),
                Mail::CancelTimer(key) => {
                    if let Some(f) = self.timers.take(key) {
                        self.queue(Task::Cancelled(f));
                    }
                }
            }
        }
        self.mail = mail;
    }

    /// Who is about to be busy wakes another, for what is left to do or for the leader's place; and that
    /// one the next.
    #[inline]
    fn hand_on(&self, engine: &Engine<K>) {
        if self.parked > 0 && (!self.ring.is_empty() || !self.has_leader) {
            engine.parked.notify_one();
        }
    }

    /// Gives back what a great many deadlines at once have needed.
    fn shrink(&mut self) {
        if self.ring.is_empty() && self.ring.capacity() > KEPT {
            self.ring.shrink_to(KEPT);
            self.expired.shrink_to(KEPT);
        }
        if self.near.len() < KEPT && self.near.capacity() > 4 * KEPT {
            self.near.shrink_to(KEPT);
        }
    }

    /// Whether there is something to do now.
    fn is_ready(&self, remote: &Remote) -> bool {
        !self.ring.is_empty() || !self.later.is_empty() || remote.has_mail()
    }

    #[inline]
    fn notify(&mut self, token: Token, events: Events) {
        if self.slots.notify(token, events) {
            self.ring.push_back(token.index);
        }
    }

    fn note(&mut self, events: impl Iterator<Item = (Token, Events)>) {
        for (token, events) in events {
            self.notify(token, events);
        }
    }

    /// Has a source called at this time, or before.
    #[cold]
    fn schedule(&mut self, token: Token, deadline: Instant, remote: &Remote) {
        let Self { wheel, slots, near, .. } = self;
        if !wheel.insert(slots, token.index, deadline) {
            near.push(Reverse((deadline, token.index, token.generation)));
        }
        if self.has_leader && self.leader_until.is_none_or(|until| deadline < until) {
            remote.ring(); // it knows only of those that were there before
        }
    }

    /// Queues a source behind the next look at the sockets.
    fn put_off(&mut self, index: u32, remote: &Remote) {
        self.later.push(index);
        if self.has_leader {
            remote.ring(); // it is only looked at when somebody looks
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let near = self.near.peek().map(|Reverse((deadline, ..))| *deadline);
        [self.timers.next_due(), self.wheel.next(), near].into_iter().flatten().min()
    }

    /// What is due becomes ready, behind what has arrived: a pong that came in time counts.
    #[inline(never)]
    fn expire(&mut self, now: Instant) {
        let Self { slots, wheel, expired, ring, .. } = self;
        wheel.expire(slots, now, expired);
        for index in expired.drain(..) {
            if slots.notify_slot(index, Events::DEADLINE) {
                ring.push_back(index);
            }
        }
        while let Some(&Reverse((deadline, index, generation))) = self.near.peek()
            && deadline <= now
        {
            self.near.pop();
            self.notify(Token { index, generation }, Events::DEADLINE);
        }
        while let Some(f) = self.timers.take_due(now) {
            self.queue(Task::Due(f));
        }
    }
}

impl<K: Kind> Drop for Engine<K> {
    /// Drops what is queued un-run, where no lock is held: it may call the loop's handles.
    fn drop(&mut self) {
        let mail = self.remote.close();
        let core = self.core.get_mut().unwrap_or_else(PoisonError::into_inner);
        let (tasks, timers) = (core::mem::take(&mut core.tasks), core.timers.take_all());
        let sources = core.slots.take_all();
        drop((mail, tasks, timers, sources));
    }
}

/// Drops what belongs to the program.
fn drop_caught<T: ?Sized>(source: Box<T>) -> Result<(), Panic> {
    catch_unwind(AssertUnwindSafe(|| drop(source)))
}

/// The present.
pub(crate) fn now() -> Instant {
    std::time::Instant::now().into()
}
