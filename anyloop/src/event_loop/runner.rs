//! A thread inside a run call.

use std::any::Any;
use std::hint::cold_path;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::time::Duration;

use anyloop_proto::{Input, Instant};

use super::clock::{CoarseTime, coarse_time, now};
use super::core::{Core, TASK, Task};
use super::engine::{Engine, Guard};
use super::events::{Events, Token};
use super::kind::Sealed;
use super::lock::Lock;
use super::reactor::{Happened, Reactor, Room};
use super::remote::Inside;
use super::socket::SocketTransport;
use super::source::{Buffers, FastPath, Next, ReadBuffer, Source, Turn, Visit};
use super::timers::Aborted;
use crate::stream::Buffers as StreamBuffers;
use crate::stream::{Budget, Progress, WriteGuard};
use crate::sync::TryMutexGuard;

/// Bytes that are read at a time: half a mebibyte and more than the 14 bytes of the longest header, so that a
/// message of that size is read with it at once, and not copied, and the read is seen to be short. Memory that
/// no read has reached is not the process's yet.
const READ: usize = if cfg!(loom) { 0 } else { 512 * 1024 + 16 };

/// Who has waited at the sockets for less than this has hardly slept. In a build that is slow everything
/// takes longer.
const BRIEF: Duration = Duration::from_micros(if cfg!(debug_assertions) { 1000 } else { 5 });

/// So many jobs may go by the same look at the clock.
const SAME_TIME: u32 = 16;

/// Where a source goes that has more to do.
enum Queue {
    Ring,
    Later,
}

/// What comes of a look at the sockets, before it is made.
enum Look<'g, K: Sealed> {
    /// Somebody else looks, or has; or there was something else to do first. Whether the call goes on.
    Over(Guard<'g, K>, bool),
    /// This thread looks, unless the alarm has the reactor, and waits there for so long.
    Wait { reactor: Option<TryMutexGuard<'g, Reactor>>, timeout: Option<Duration> },
    /// The same, but it does not wait.
    Glance(Option<TryMutexGuard<'g, Reactor>>),
}

/// How long a run call goes on.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// At most so many handlers.
    pub(super) handlers: u64,
    /// No handler is begun after this.
    pub(super) until: Option<std::time::Instant>,
    pub(super) wait: Wait,
}

/// Whether a run call waits for what is not ready yet.
#[derive(Clone, Copy)]
pub(super) enum Wait {
    No,
    Until(std::time::Instant),
    Forever,
}

pub(super) type Panic = Box<dyn Any + Send>;

/// A thread inside a run call.
pub(super) struct Runner<'e, K: Sealed> {
    engine: &'e Engine<K>,
    pub(super) buffers: Option<Buffers>,
    now: Instant,
    /// So many jobs have gone by this `now`.
    age: u32,
    /// What is due by this `now` was not looked for yet.
    is_new: bool,
    /// What the coarse clock has said then.
    coarse_time: CoarseTime,
    /// The sockets were looked at in this call.
    has_looked: bool,
    /// At the last look something had happened already, so it is likely that it has at the next: a look
    /// that cannot sleep needs no preparation.
    is_busy: bool,
    _inside: Inside,
}

impl<'e, K: Sealed> Runner<'e, K> {
    #[inline(never)]
    pub(super) fn enter(engine: &'e Engine<K>) -> Self {
        let buffers = engine.free_buffers().pop();
        let buffers = buffers.unwrap_or_else(|| {
            let mut stream = StreamBuffers::default();
            stream.budget = Budget::until_stopped(engine.remote.stop_flag().clone());
            Buffers { read: ReadBuffer::new(READ), stream }
        });
        let mut core = engine.lock();
        if core.runners == 0 {
            engine.remote.set_asleep(false);
        }
        core.runners += 1;
        drop(core);
        let _inside = engine.remote.enter();
        Self {
            engine,
            buffers: Some(buffers),
            now: now(),
            age: 0,
            is_new: true,
            coarse_time: coarse_time(),
            has_looked: false,
            is_busy: false,
            _inside,
        }
    }

    /// Runs what is ready, within these bounds.
    ///
    /// The system calls of a busy loop, to wait, to receive and to send, are made in this function and not
    /// in one that it calls. After a system call the processor has forgotten where functions return to, or
    /// guesses wrong; on some processors, with what kernels do there against speculation, one wrong
    /// guess for each message costs 7 % of what an echo costs in all, and two are not much worse than one.
    #[inline(always)]
    pub(super) fn run(&mut self, bounds: Bounds) -> Result<(), Panic> {
        let engine = self.engine;
        let Some(mut buffers) = self.buffers.take() else { return Ok(()) };
        buffers.stream.budget.set(bounds.handlers, bounds.until);
        let visit = Visit::new(Token::NOBODY, Events::NONE, self.now);
        let mut turn = Turn { engine, visit, buffers: &mut buffers, read: None };
        let mut core = engine.lock();
        let result = loop {
            if !engine.remote.has_work() {
                engine.remote.stop();
            }
            #[cfg(loom)]
            engine.remote.is_stopped(); // so that loom sees that the budget looks at it
            if turn.buffers.stream.budget.is_spent() {
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
                let goes_on;
                let mut room = Room::new();
                let look = self.prepare_look(core, bounds.wait, &mut turn.buffers.stream);
                (core, goes_on) = match look {
                    Look::Glance(mut reactor) => {
                        let happened = reactor
                            .as_mut()
                            .map(|reactor| reactor.wait(Some(Duration::ZERO), &mut room));
                        self.finish_glance(happened)
                    }
                    Look::Wait { mut reactor, timeout } => {
                        let happened =
                            reactor.as_mut().map(|reactor| reactor.wait(timeout, &mut room));
                        self.finish_wait(happened, bounds.wait)
                    }
                    Look::Over(core, goes_on) => (core, goes_on),
                };
                if !goes_on {
                    break Ok(());
                }
                continue;
            };
            core.before_look = core.before_look.saturating_sub(1);
            core.hand_on(&engine.parked);
            let panicked;
            if index == TASK {
                (core, panicked) = self.run_task(core, turn.buffers);
            } else {
                let Some((token, mut source, events)) = core.slots.check_out(index) else {
                    continue;
                };
                drop(core);
                self.prepare_visit(&mut turn.visit, token, events);
                let Some(next) = Self::visit(&mut source, &mut turn) else {
                    core = engine.lock();
                    if core.slots.check_in(index, source, Events::NONE, false) {
                        core.ring.push_back(index);
                    }
                    continue;
                };
                (core, panicked) = self.finish_visit(source, &turn.visit, next);
            }
            if let Err(panic) = panicked {
                break Err(panic);
            }
        };
        if !self.has_looked {
            // A host that is told of edges was told already.
            match core.has_leader {
                true => core.left_to_leader = true,
                false => core.look_again = true,
            }
        }
        drop(core);
        self.buffers = Some(buffers);
        result
    }

    /// What a source is told in its turn.
    #[inline(always)]
    fn prepare_visit(&mut self, visit: &mut Visit, token: Token, events: Events) {
        self.age += 1;
        let socket = Events::READABLE | Events::WRITABLE;
        if self.age >= SAME_TIME || events.without(socket) != Events::NONE {
            self.refresh();
        }
        *visit = Visit::new(token, events, self.now);
    }

    /// Gives a source its turn. Returns `None` if it only waits for what happens next, as it nearly always
    /// does.
    #[inline(always)] // for the sake of its system calls
    fn visit(
        source: &mut Box<K::Source>,
        turn: &mut Turn<'_, K>,
    ) -> Option<Result<Next<K>, Panic>> {
        let Some(fast_path) = source.fast_path(turn.visit.events) else {
            return Some(Self::run_source(source, turn, None));
        };
        #[cfg_attr(not(feature = "tracing"), expect(clippy::let_unit_value))]
        let _span = crate::log::in_connection(turn.visit.token.index);
        let FastPath { socket, queued, protocol } = fast_path;
        let Buffers { read, stream } = &mut *turn.buffers;
        let (now, woken) = (turn.visit.now, turn.visit.events.contains(Events::WOKEN));
        let mut received = 0;
        if !woken {
            match socket.read(read) {
                Ok(n @ 1..) if n < read.len() => received = n,
                other => return Some(Self::run_source(source, turn, Some(other))),
            }
        }
        let StreamBuffers { cork, pool, budget, .. } = stream;
        let mut input = Input::with_pool(&mut read[..received], pool);
        let mut transport = SocketTransport { socket, visit: &mut turn.visit };
        let mut out = WriteGuard::new(cork, queued, &mut transport);
        let progress = caught(|| match woken {
            false => protocol.receive(&mut input, &mut out.buffer(), budget, now),
            true => protocol.run_commands(&mut out.buffer(), budget, now),
        });
        let left = input.len();
        let mut panic = None;
        if matches!(progress, Ok(Progress::Idle)) && left == 0 && out.is_simple() {
            if out.corked().is_empty() {
                return None;
            }
            let written = out.transport.socket.write(out.corked());
            if matches!(written, Ok(n) if n == out.corked().len()) {
                out.wrote_all();
                return None;
            }
            cold_path();
            let written = out.transport.judge_write(written);
            out.wrote(written);
        } else {
            cold_path();
            let flushed = caught(|| out.flush()); // completions may panic as well
            panic = progress.err().or_else(|| flushed.err());
        }
        drop(out);
        Some(caught(|| source.end_fast_path(turn, received - left..received, panic)))
    }

    /// The turn of a source that is not on the fast path, or for which the loop has read this.
    #[inline(never)]
    fn run_source(
        source: &mut Box<K::Source>,
        turn: &mut Turn<'_, K>,
        read: Option<io::Result<usize>>,
    ) -> Result<Next<K>, Panic> {
        turn.read = read;
        caught(|| source.run(turn))
    }

    /// Puts a source back, and sees to what its turn has left.
    #[cold]
    #[inline(never)]
    fn finish_visit<'g>(
        &self,
        mut source: Box<K::Source>,
        visit: &Visit,
        next: Result<Next<K>, Panic>,
    ) -> (Guard<'g, K>, Result<(), Panic>)
    where
        'e: 'g,
    {
        let &Visit { token, kept, deadline, .. } = visit;
        let mut panicked = Ok(());
        let queue = match next {
            Ok(Next::Wait) => None,
            Ok(Next::Again) => Some(Queue::Ring),
            Ok(Next::Later) => Some(Queue::Later),
            Ok(Next::Become(other)) => {
                panicked = drop_caught(std::mem::replace(&mut source, other));
                Some(Queue::Ring)
            }
            Ok(Next::Done) => return self.bury(token.index, source),
            // It has a turn to find out what the panic has made of it.
            Err(panic) => {
                panicked = Err(panic);
                Some(Queue::Ring)
            }
        };
        let mut core = self.engine.lock();
        if core.slots.check_in(token.index, source, kept, queue.is_some()) {
            match queue {
                Some(Queue::Later) => core.put_off(token.index, &self.engine.remote),
                _ => core.ring.push_back(token.index),
            }
        }
        if let Some(deadline) = deadline {
            core.set_deadline(token.index, deadline, &self.engine.remote);
        }
        (core, panicked)
    }

    /// A source is over: closes it, and drops what belongs to the program.
    fn bury<'g>(&self, index: u32, source: Box<K::Source>) -> (Guard<'g, K>, Result<(), Panic>)
    where
        'e: 'g,
    {
        let panicked = drop_caught(source);
        let mut core = self.engine.lock();
        core.release(index);
        self.engine.remote.finish_work();
        (core, panicked)
    }

    #[cold]
    fn run_task<'g>(
        &mut self,
        mut core: Guard<'g, K>,
        buffers: &mut Buffers,
    ) -> (Guard<'g, K>, Result<(), Panic>)
    where
        'e: 'g,
    {
        let Some(task) = core.tasks.pop_front() else { return (core, Ok(())) };
        drop(core);
        buffers.stream.budget.spend(); // also where it was closed just now: this is its turn
        let panicked = caught(|| match task {
            Task::Posted(f) => f(),
            Task::Due(f) => f(Ok(())),
            Task::Cancelled(f) => f(Err(Aborted)),
        });
        self.age = SAME_TIME; // it may have taken any time
        // Only now, so that what it has begun keeps the loop running.
        self.engine.remote.finish_work();
        (self.engine.lock(), panicked)
    }

    /// Sees who looks at the sockets, and how long that may take. In a busy loop it is this thread, and
    /// takes no time.
    #[inline(always)]
    fn prepare_look<'g>(
        &mut self,
        mut core: Guard<'g, K>,
        wait: Wait,
        buffers: &mut StreamBuffers,
    ) -> Look<'g, K>
    where
        'e: 'g,
    {
        if self.is_busy && !core.has_leader && matches!(wait, Wait::Forever) {
            (core.has_leader, core.look_again) = (true, false);
            drop(core);
            return Look::Glance(self.engine.free_reactor());
        }
        cold_path();
        self.prepare_other_look(core, wait, buffers)
    }

    #[inline(never)]
    fn prepare_other_look<'g>(
        &mut self,
        mut core: Guard<'g, K>,
        wait: Wait,
        buffers: &mut StreamBuffers,
    ) -> Look<'g, K>
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
                    return Look::Over(core, false);
                }
                Some(rest)
            }
        };
        if buffers.needs_trim(self.now) || core.is_to_trim(self.now) {
            drop(core);
            buffers.trim(self.now);
            engine.trim(self.now);
            return Look::Over(engine.lock(), true);
        }
        if core.has_leader {
            // What the leader has not seen is not ready.
            core.before_look = core.ring.len();
            if core.before_look > 0 || rest == Some(Duration::ZERO) {
                self.has_looked = true;
                core.left_to_leader = true;
                let more = core.before_look > 0;
                return Look::Over(core, more);
            }
            core.parked += 1;
            let timeout = cut(rest, buffers.next_trim(), self.now);
            core = K::Lock::wait(core, &engine.parked, timeout);
            core.parked -= 1;
            self.refresh(); // it may have slept for any time
            return Look::Over(core, true);
        }
        core.has_leader = true;
        core.look_again = false;
        if self.is_busy && rest != Some(Duration::ZERO) {
            drop(core);
            return Look::Glance(engine.free_reactor());
        }
        let mut timeout = rest;
        if timeout != Some(Duration::ZERO) {
            // Whoever changes something after this rings; what was changed before is seen here.
            engine.remote.set_asleep(true);
            self.refresh();
            let remote = &engine.remote;
            let is_over = remote.is_stopped() || !remote.has_work();
            timeout = match is_over || core.is_ready(remote) {
                true => Some(Duration::ZERO),
                false => {
                    let next = core.next_deadline().into_iter().chain(buffers.next_trim()).min();
                    cut(timeout, next, self.now)
                }
            };
            core.leader_until = timeout.map(|timeout| self.now + timeout);
        }
        drop(core);
        let reactor = match timeout {
            Some(Duration::ZERO) => engine.free_reactor(),
            _ => {
                engine.disarm();
                let reactor = engine.reactor.lock().unwrap_or_else(PoisonError::into_inner);
                if !engine.remote.is_asleep() {
                    timeout = Some(Duration::ZERO); // somebody has rung, and the alarm has heard it
                }
                Some(reactor)
            }
        };
        Look::Wait { reactor, timeout }
    }

    /// The leader has waited, or not. Returns whether the call goes on.
    #[inline(never)]
    fn finish_wait<'g>(
        &mut self,
        happened: Option<Happened<'_>>,
        wait: Wait,
    ) -> (Guard<'g, K>, bool)
    where
        'e: 'g,
    {
        self.engine.remote.set_asleep(false);
        let before = self.now;
        self.refresh();
        self.has_looked = true;
        let core = self.see(happened);
        self.is_busy = core.before_look > 0 && self.now - before < BRIEF;
        let goes_on = core.before_look > 0 || !matches!(wait, Wait::No);
        (core, goes_on)
    }

    /// The same for a look that could not sleep. The clock is read where it is time to, or where handlers
    /// have taken some. If there was nothing, the next look can sleep.
    #[inline(never)]
    fn finish_glance<'g>(&mut self, happened: Option<Happened<'_>>) -> (Guard<'g, K>, bool)
    where
        'e: 'g,
    {
        if self.age >= SAME_TIME || self.coarse_time != coarse_time() {
            self.refresh();
        }
        let core = self.see(happened);
        self.is_busy = core.before_look > 0;
        (core, true)
    }

    /// Sorts what the leader has seen, and gives up its place.
    fn see<'g>(&mut self, happened: Option<Happened<'_>>) -> Guard<'g, K>
    where
        'e: 'g,
    {
        let mut core = self.engine.lock();
        core.has_leader = false;
        core.take_mail(&self.engine.remote);
        if let Some(happened) = happened {
            core.note(happened.iter());
        }
        core.look_again |= std::mem::take(&mut core.left_to_leader);
        if std::mem::take(&mut self.is_new) {
            core.expire(self.now);
        }
        if !core.later.is_empty() {
            let Core { ring, later, .. } = &mut *core;
            ring.extend(later.drain(..));
        }
        core.before_look = core.ring.len();
        core.shrink();
        core
    }

    #[inline(never)]
    fn refresh(&mut self) {
        (self.now, self.age, self.is_new) = (now(), 0, true);
        self.coarse_time = coarse_time();
    }
}

impl<K: Sealed> Drop for Runner<'_, K> {
    fn drop(&mut self) {
        let engine = self.engine;
        let next_trim = self.buffers.take().and_then(|mut buffers| {
            if engine.remote.is_stopped() {
                engine.free_buffers().clear(); // who runs it again makes others
                return None;
            }
            buffers.stream.trim(self.now);
            let next_trim = buffers.stream.next_trim();
            engine.free_buffers().push(buffers);
            next_trim
        });
        let mut core = engine.lock();
        if let Some(next_trim) = next_trim {
            core.add_trim(next_trim, &engine.remote);
        }
        core.runners -= 1;
        if core.runners == 0 {
            let remote = &engine.remote;
            remote.set_asleep(true);
            // A host that was not inside cannot know any of this. One that was is told as well.
            let is_over = remote.is_stopped() || !remote.has_work();
            if core.misleads() || is_over || core.is_ready(remote) {
                remote.ring();
            }
            drop(core);
            engine.arm();
        } else if engine.remote.is_stopped() {
            engine.parked.notify_all();
            drop(core);
            engine.remote.ring();
        } else {
            core.hand_on(&engine.parked);
            if core.is_ready(&engine.remote) {
                engine.remote.ring(); // the leader may sleep
            }
        }
    }
}

/// This timeout, or the time until `end` if that is shorter.
fn cut(timeout: Option<Duration>, end: Option<Instant>, now: Instant) -> Option<Duration> {
    timeout.into_iter().chain(end.map(|end| end - now)).min()
}

/// Drops what belongs to the program.
fn drop_caught<T: ?Sized>(source: Box<T>) -> Result<(), Panic> {
    caught(|| drop(source))
}

/// Calls what may be the program's. Whatever a panic leaves half done is dropped, or finds out.
#[inline(always)]
fn caught<R>(f: impl FnOnce() -> R) -> Result<R, Panic> {
    catch_unwind(AssertUnwindSafe(f))
}
