//! A runner: a thread inside a run call. The head of [`core`](super::core) explains the terms.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::time::Duration;

use anyloop_proto::{Input, Instant, Shutdown};

use super::buffers::{ReadBuffer, RunnerBuffers};
use super::clock::{CoarseTime, coarse_time, now};
use super::core::{CALLBACK_ENTRY, Callback};
use super::engine::{Engine, Guard};
use super::events::{Events, Token};
use super::kind::LoopKind;
use super::lock::Lock;
use super::reactor::{EventBuffer, PolledEvents, Reactor};
use super::socket::SocketTransport;
use super::source::{FastPath, Next, Source, Turn};
use super::timers::Aborted;
use super::turn_state::TurnState;
use super::wakeup::Remaining;
use crate::cold::cold_path;
use crate::running::RunningMark;
use crate::stream::{Budget, Buffers, Progress, Transport, WriteGuard};
use crate::sync::TryMutexGuard;

/// The size of the read buffer: 512 KiB, plus room for the longest header (14 bytes). A message of 512 KiB thus fills
/// less than the buffer, which shows that the socket is empty: no second read is needed. Pages that were never written
/// take no memory.
const READ_BUFFER_SIZE: usize = if cfg!(loom) { 0 } else { 512 * 1024 + 16 };

/// A poll that took less time than this counts as one that did not wait. A debug build is slower.
const BRIEF_POLL: Duration = Duration::from_micros(if cfg!(debug_assertions) { 1000 } else { 5 });

/// The clock is read again after this number of turns, or earlier.
const TURNS_PER_CLOCK_READ: u32 = 16;

/// The queue for a source that has more to do.
enum Queue {
    Run,
    AfterPoll,
}

/// What a runner does when the run queue is empty, or when it is time to poll.
enum PollPlan<'g, K: LoopKind> {
    /// Do not poll: another thread is the leader, or this call may not wait and has polled already, or buffers were
    /// trimmed this time. `continues`: the run call goes on.
    Skip { core: Guard<'g, K>, continues: bool },
    /// Poll, and wait for at most `timeout`, which may be zero. The call continues if there is more to do, or if it may
    /// wait. `reactor` is `None` while the wake-up thread uses it.
    Poll { reactor: Option<TryMutexGuard<'g, Reactor>>, timeout: Option<Duration> },
    /// Poll without waiting, as events are probably there. The call, which may wait, continues in any case.
    BusyPoll(Option<TryMutexGuard<'g, Reactor>>),
}

/// The bounds of a run call.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// The largest number of handlers that are called.
    pub(super) max_calls: u64,
    /// No handler begins after this.
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

impl Wait {
    /// The time that is left to wait; `None`: no limit.
    fn rest(self) -> Option<Duration> {
        match self {
            Self::No => Some(Duration::ZERO),
            Self::Forever => None,
            Self::Until(end) => Some(end.saturating_duration_since(std::time::Instant::now())),
        }
    }
}

/// The payload of a panic.
pub(super) type Panic = Box<dyn Any + Send>;

/// A thread inside a run call.
pub(super) struct Runner<'e, K: LoopKind> {
    engine: &'e Engine<K>,
    pub(super) buffers: Option<RunnerBuffers>,
    /// The time when the clock was last read.
    now: Instant,
    /// The coarse clock at `now`.
    coarse_time: CoarseTime,
    /// The number of turns since the clock was read.
    turns: u32,
    /// Timers and deadlines that are due at `now` have yet to be queued.
    must_expire: bool,
    /// A poll was made (other than `BusyPoll`), or left to the leader. After that, a call that may not wait ends when
    /// the run queue is empty.
    has_polled: bool,
    /// The last poll returned at once, with something to run. So the next one is made without waiting.
    is_busy: bool,
    _mark: RunningMark,
}

impl<'e, K: LoopKind> Runner<'e, K> {
    #[inline(never)]
    pub(super) fn enter(engine: &'e Engine<K>) -> Self {
        let buffers = engine.idle_buffers().pop();
        let buffers = buffers.unwrap_or_else(|| {
            let mut for_driver = Buffers::default();
            for_driver.budget = Budget::until_stopped(engine.control.stop_flag().clone());
            RunnerBuffers { read: ReadBuffer::new(READ_BUFFER_SIZE), for_driver }
        });
        engine.lock().wakeups.enter(engine.control.notifier());
        Self {
            engine,
            buffers: Some(buffers),
            now: now(),
            coarse_time: coarse_time(),
            turns: 0,
            must_expire: true,
            has_polled: false,
            is_busy: false,
            _mark: engine.control.mark_running(),
        }
    }

    /// Runs what is ready, within these bounds.
    ///
    /// After a system call, some processors mispredict every return to an earlier caller. So waiting, receiving and
    /// sending are inlined here: one such return for each message costs an echo server 7 % of its throughput.
    #[inline(always)]
    pub(super) fn run(&mut self, bounds: Bounds) -> Result<(), Panic> {
        let engine = self.engine;
        let Some(mut buffers) = self.buffers.take() else { return Ok(()) };
        buffers.for_driver.budget.set(bounds.max_calls, bounds.until);
        let state = TurnState::new(Token::NONE, Events::NONE, self.now);
        let mut turn = Turn { engine, state, buffers: &mut buffers, read_result: None };
        let mut core = engine.lock();
        let result = loop {
            engine.control.stop_if_out_of_work();
            #[cfg(loom)]
            engine.control.is_stopped(); // so that loom sees that the budget reads it
            if turn.buffers.for_driver.budget.is_spent() {
                break Ok(());
            }
            core.apply_commands(&engine.control);
            let may_poll = !(self.has_polled && matches!(bounds.wait, Wait::No));
            let Some(index) = core.pop_entry(may_poll) else {
                let continues = may_poll && {
                    let continues;
                    (core, continues) = self.poll(core, bounds.wait, &mut turn.buffers.for_driver);
                    continues
                };
                if !continues {
                    break Ok(());
                }
                continue;
            };
            core.wake_follower(&engine.followers);
            let outcome;
            if index == CALLBACK_ENTRY {
                (core, outcome) = self.run_callback(core, turn.buffers);
            } else {
                let Some((token, mut source, events)) = core.slots.check_out(index) else {
                    continue;
                };
                drop(core);
                self.begin_turn(&mut turn.state, token, events);
                let Some(next) = Self::take_turn(&mut source, &mut turn) else {
                    core = engine.lock();
                    let again = false;
                    if core.slots.check_in(index, source, Events::NONE, again) {
                        core.queue_source(index);
                    }
                    continue;
                };
                (core, outcome) = self.finish_turn(source, &turn.state, next);
            }
            if let Err(panic) = outcome {
                break Err(panic);
            }
        };
        if !self.has_polled {
            core.wakeups.note_skipped_poll();
        }
        drop(core);
        self.buffers = Some(buffers);
        result
    }

    /// Sets the inputs of a source's turn.
    #[inline(always)]
    fn begin_turn(&mut self, state: &mut TurnState, token: Token, events: Events) {
        self.turns += 1;
        let socket_events = Events::READABLE | Events::WRITABLE;
        if self.turns >= TURNS_PER_CLOCK_READ || events.without(socket_events) != Events::NONE {
            self.read_clock();
        }
        *state = TurnState::new(token, events, self.now);
    }

    /// Runs a source. Returns `None`, as is usual, if the fast path has completed the turn and the source waits for
    /// the next event.
    #[inline(always)] // so that its system calls are a part of `run`
    fn take_turn(
        source: &mut Box<K::DynSource>,
        turn: &mut Turn<'_, K>,
    ) -> Option<Result<Next<K>, Panic>> {
        let Some(fast_path) = source.fast_path(turn.state.events) else {
            return Some(Self::run_source(source, turn, None));
        };
        let FastPath { socket, queued, protocol } = fast_path;
        let RunnerBuffers { read, for_driver } = &mut *turn.buffers;
        let (now, woken) = (turn.state.now, turn.state.events.contains(Events::WOKEN));
        let mut received = 0;
        if !woken {
            match socket.read(read) {
                Ok(n @ 1..) if n < read.len() => received = n,
                other => return Some(Self::run_source(source, turn, Some(other))),
            }
        }
        // Not before the read: `Source::run`, which is called above, enters the span itself.
        #[cfg_attr(not(feature = "tracing"), expect(clippy::let_unit_value))]
        let _span = crate::log::enter_connection_span(turn.state.token.index);
        let Buffers { cork, pool, budget, .. } = for_driver;
        let mut input = Input::with_pool(&mut read[..received], pool);
        let mut transport = SocketTransport::new(socket, &mut turn.state);
        let mut out = WriteGuard::new(cork, queued);
        let progress = catch_panic(|| match woken {
            false => protocol.receive(&mut input, &mut out.buffer(&mut transport), budget, now),
            true => protocol.run_commands(&mut out.buffer(&mut transport), budget, now),
        });
        let left = input.len();
        let mut panic = None;
        if matches!(progress, Ok(Progress::SameWants)) && left == 0 && out.is_all_corked() {
            if out.corked().is_empty() {
                return None;
            }
            let written = transport.socket.write(out.corked());
            if matches!(written, Ok(n) if n == out.corked().len()) {
                out.wrote_all();
                return None;
            }
            cold_path();
            let written = transport.classify_write(written);
            out.wrote(written);
        } else {
            cold_path();
            if protocol.wants().shutdown == Shutdown::HalfClose {
                transport.expect_half_close();
            }
            let flushed = catch_panic(|| out.buffer(&mut transport).flush()); // completions may panic as well
            panic = progress.err().or_else(|| flushed.err());
        }
        drop(out);
        Some(catch_panic(|| source.end_fast_path(turn, received - left..received, panic)))
    }

    /// Runs a source that is not on the fast path, or whose fast path ended with this result of a read.
    #[inline(never)]
    fn run_source(
        source: &mut Box<K::DynSource>,
        turn: &mut Turn<'_, K>,
        read_result: Option<io::Result<usize>>,
    ) -> Result<Next<K>, Panic> {
        turn.read_result = read_result;
        catch_panic(|| source.run(turn))
    }

    /// Puts a source back after its turn, queues it if it has more to do, and lowers its deadline.
    #[cold]
    #[inline(never)]
    fn finish_turn<'g>(
        &self,
        mut source: Box<K::DynSource>,
        state: &TurnState,
        next: Result<Next<K>, Panic>,
    ) -> (Guard<'g, K>, Result<(), Panic>)
    where
        'e: 'g,
    {
        let &TurnState { token, unconsumed, deadline, .. } = state;
        let mut outcome = Ok(());
        let queue = match next {
            Ok(Next::Wait) => None,
            Ok(Next::Again) => Some(Queue::Run),
            Ok(Next::AfterPoll) => Some(Queue::AfterPoll),
            Ok(Next::Become(other)) => {
                outcome = drop_catching_panic(std::mem::replace(&mut source, other));
                Some(Queue::Run)
            }
            Ok(Next::Done) => return self.remove_source(token.index, source),
            // The source has another turn, in which it handles the state that the panic has left.
            Err(panic) => {
                outcome = Err(panic);
                Some(Queue::Run)
            }
        };
        let mut core = self.engine.lock();
        if core.slots.check_in(token.index, source, unconsumed, queue.is_some()) {
            match queue {
                Some(Queue::AfterPoll) => core.add_after_poll(token.index, &self.engine.control),
                _ => core.queue_source(token.index),
            }
        }
        if let Some(deadline) = deadline {
            core.lower_deadline(token.index, deadline, &self.engine.control);
        }
        (core, outcome)
    }

    /// Drops a source that is done, which closes it, and frees its slot.
    fn remove_source<'g>(
        &self,
        index: u32,
        source: Box<K::DynSource>,
    ) -> (Guard<'g, K>, Result<(), Panic>)
    where
        'e: 'g,
    {
        let outcome = drop_catching_panic(source);
        let mut core = self.engine.lock();
        core.release(index);
        self.engine.control.finish_work();
        (core, outcome)
    }

    #[cold]
    fn run_callback<'g>(
        &mut self,
        mut core: Guard<'g, K>,
        buffers: &mut RunnerBuffers,
    ) -> (Guard<'g, K>, Result<(), Panic>)
    where
        'e: 'g,
    {
        let Some(callback) = core.callbacks.pop_front() else { return (core, Ok(())) };
        drop(core);
        if !matches!(callback, Callback::Dropped(_)) {
            buffers.for_driver.budget.spend(); // the callback was taken, so it is called even if the time is up now
        }
        let outcome = catch_panic(|| match callback {
            Callback::Posted(f) => f(),
            Callback::Due(f) => f(Ok(())),
            Callback::Cancelled(f) => f(Err(Aborted)),
            Callback::Dropped(f) => drop(f),
        });
        self.turns = TURNS_PER_CLOCK_READ; // so that the clock is read: the function may have taken any time
        // After the call: work that the function has begun keeps the loop running.
        self.engine.control.finish_work();
        (self.engine.lock(), outcome)
    }

    /// Polls the reactor, or leaves that to the leader. Returns whether the run call continues.
    #[inline(always)] // so that its system call is a part of `run`
    fn poll<'g>(
        &mut self,
        core: Guard<'g, K>,
        wait: Wait,
        buffers: &mut Buffers,
    ) -> (Guard<'g, K>, bool)
    where
        'e: 'g,
    {
        let mut buffer = EventBuffer::new();
        buffers.costly_turns = 0; // a new round: more turns with costly input (handshakes) may run
        match self.plan_poll(core, wait, buffers) {
            PollPlan::BusyPoll(mut reactor) => {
                let events =
                    reactor.as_mut().map(|reactor| reactor.poll(Some(Duration::ZERO), &mut buffer));
                (self.finish_busy_poll(events), true)
            }
            PollPlan::Poll { mut reactor, timeout } => {
                let events = reactor.as_mut().map(|reactor| reactor.poll(timeout, &mut buffer));
                self.finish_poll(events, wait)
            }
            PollPlan::Skip { core, continues } => (core, continues),
        }
    }

    /// Decides which thread polls the reactor, and how long it may wait. In a busy loop this thread polls without
    /// waiting.
    #[inline(always)]
    fn plan_poll<'g>(
        &mut self,
        mut core: Guard<'g, K>,
        wait: Wait,
        buffers: &mut Buffers,
    ) -> PollPlan<'g, K>
    where
        'e: 'g,
    {
        if self.is_busy && !core.wakeups.has_leader() && matches!(wait, Wait::Forever) {
            core.wakeups.lead();
            drop(core);
            return PollPlan::BusyPoll(self.engine.try_lock_reactor());
        }
        cold_path();
        self.plan_other_poll(core, wait, buffers)
    }

    /// [`plan_poll`](Self::plan_poll) if this thread is not busy, there is a leader, or the call has a time limit: ends
    /// the call, trims buffers, follows the leader, or becomes the leader.
    #[inline(never)]
    fn plan_other_poll<'g>(
        &mut self,
        mut core: Guard<'g, K>,
        wait: Wait,
        buffers: &mut Buffers,
    ) -> PollPlan<'g, K>
    where
        'e: 'g,
    {
        let engine = self.engine;
        let rest = wait.rest();
        let may_wait = rest != Some(Duration::ZERO);
        if !may_wait && self.has_polled {
            return PollPlan::Skip { core, continues: false };
        }
        if buffers.needs_trim(self.now) || core.is_trim_due(self.now) {
            drop(core);
            buffers.trim(self.now);
            engine.trim(self.now);
            return PollPlan::Skip { core: engine.lock(), continues: true };
        }
        if core.wakeups.has_leader() {
            return self.follow(core, rest, buffers.next_trim());
        }
        if may_wait && !self.is_busy {
            return self.plan_wait(core, rest, buffers.next_trim());
        }
        core.wakeups.lead();
        drop(core);
        let reactor = engine.try_lock_reactor();
        // Neither waits. They differ afterwards: `Poll` sets `has_polled`, so the call ends when nothing is ready;
        // `BusyPoll` lets it go on.
        match may_wait {
            true => PollPlan::BusyPoll(reactor),
            false => PollPlan::Poll { reactor, timeout: Some(Duration::ZERO) },
        }
    }

    /// Leaves the poll to the leader. If the run queue is empty, waits until this thread is needed or buffers are to be
    /// trimmed, but for no longer than `rest`.
    fn follow<'g>(
        &mut self,
        mut core: Guard<'g, K>,
        rest: Option<Duration>,
        next_trim: Option<Instant>,
    ) -> PollPlan<'g, K>
    where
        'e: 'g,
    {
        // Events that the leader has not received do not count as ready.
        core.set_entries_until_poll();
        if core.entries_until_poll > 0 || rest == Some(Duration::ZERO) {
            self.has_polled = true;
            core.wakeups.note_skipped_poll();
            let continues = core.entries_until_poll > 0;
            return PollPlan::Skip { core, continues };
        }
        core.wakeups.add_follower();
        let timeout = time_until(rest, next_trim, self.now);
        core = K::Lock::wait(core, &self.engine.followers, timeout);
        core.wakeups.remove_follower();
        self.read_clock(); // it may have waited for any time
        PollPlan::Skip { core, continues: true }
    }

    /// Becomes the leader, which may wait in the reactor: until the next deadline, and for no longer than `rest`.
    fn plan_wait<'g>(
        &mut self,
        mut core: Guard<'g, K>,
        rest: Option<Duration>,
        next_trim: Option<Instant>,
    ) -> PollPlan<'g, K>
    where
        'e: 'g,
    {
        let engine = self.engine;
        let control = &engine.control;
        // A change before this call is seen below; a change after it sends a wake-up.
        core.wakeups.begin_wait(control.notifier());
        self.read_clock();
        let mut timeout = match control.should_return() || core.is_anything_ready(control) {
            true => Some(Duration::ZERO),
            false => {
                let next = core.next_deadline().into_iter().chain(next_trim).min();
                time_until(rest, next, self.now)
            }
        };
        core.wakeups.wait_until(timeout.map(|timeout| self.now + timeout));
        drop(core);
        if timeout == Some(Duration::ZERO) {
            return PollPlan::Poll { reactor: engine.try_lock_reactor(), timeout };
        }
        engine.disarm_wakeup();
        let reactor = engine.reactor.lock().unwrap_or_else(PoisonError::into_inner);
        if !control.notifier().is_needed() {
            timeout = Some(Duration::ZERO); // a wake-up was sent, and the wake-up thread may have consumed it
        }
        PollPlan::Poll { reactor: Some(reactor), timeout }
    }

    /// The leader has polled, and may have waited. Returns whether the run call continues.
    #[inline(never)]
    fn finish_poll<'g>(
        &mut self,
        events: Option<PolledEvents<'_>>,
        wait: Wait,
    ) -> (Guard<'g, K>, bool)
    where
        'e: 'g,
    {
        self.engine.control.notifier().set_needed(false);
        let before = self.now;
        self.read_clock();
        self.has_polled = true;
        let core = self.end_poll(events);
        self.is_busy = core.entries_until_poll > 0 && self.now - before < BRIEF_POLL;
        let continues = core.entries_until_poll > 0 || !matches!(wait, Wait::No);
        (core, continues)
    }

    /// The leader has polled as a busy loop does. If there were no events, the next poll may wait. The clock is read
    /// only after enough turns, or if the coarse clock has advanced.
    #[inline(never)]
    fn finish_busy_poll<'g>(&mut self, events: Option<PolledEvents<'_>>) -> Guard<'g, K>
    where
        'e: 'g,
    {
        if self.turns >= TURNS_PER_CLOCK_READ || self.coarse_time != coarse_time() {
            self.read_clock();
        }
        let core = self.end_poll(events);
        self.is_busy = core.entries_until_poll > 0;
        core
    }

    /// Queues the sources that have events, gives up the lead, and then queues what is due.
    ///
    /// If a signal ended the poll, deadlines are left until the next poll. The process may have been stopped (SIGSTOP)
    /// past them, while data arrived in time and is still unread.
    fn end_poll<'g>(&mut self, events: Option<PolledEvents<'_>>) -> Guard<'g, K>
    where
        'e: 'g,
    {
        let mut core = self.engine.lock();
        core.apply_commands(&self.engine.control);
        core.apply_events_and_resign(events.as_ref().map(PolledEvents::iter));
        let by_signal = events.as_ref().is_some_and(PolledEvents::ended_by_signal);
        if self.must_expire && !by_signal {
            self.must_expire = false;
            core.expire(self.now);
        }
        core.move_after_poll_to_run_queue();
        core.shrink();
        core
    }

    #[inline(never)]
    fn read_clock(&mut self) {
        (self.now, self.coarse_time) = (now(), coarse_time());
        (self.turns, self.must_expire) = (0, true);
    }

    /// Returns the buffers to the loop, for the next runner; frees all idle buffers if the loop is stopped. The result
    /// is the time to trim the buffers, if they need it.
    fn return_buffers(&mut self) -> Option<Instant> {
        let mut buffers = self.buffers.take()?;
        if self.engine.control.is_stopped() {
            self.engine.idle_buffers().clear(); // a runner after a reset allocates others
            return None;
        }
        buffers.for_driver.trim(self.now);
        let next_trim = buffers.for_driver.next_trim();
        self.engine.idle_buffers().push(buffers);
        next_trim
    }
}

impl<K: LoopKind> Drop for Runner<'_, K> {
    fn drop(&mut self) {
        let Self { engine, .. } = *self;
        let next_trim = self.return_buffers();
        let mut core = engine.lock();
        if let Some(next_trim) = next_trim {
            core.schedule_trim(next_trim, &engine.control);
        }
        if core.end_run(&engine.control, &engine.followers) == Remaining::NoRunner {
            drop(core);
            engine.arm_wakeup();
        }
    }
}

/// The time until `end`, but no more than `most`; `None` means no limit.
fn time_until(most: Option<Duration>, end: Option<Instant>, now: Instant) -> Option<Duration> {
    most.into_iter().chain(end.map(|end| end - now)).min()
}

/// Drops a source, whose destructor may be application code.
fn drop_catching_panic<T: ?Sized>(source: Box<T>) -> Result<(), Panic> {
    catch_panic(|| drop(source))
}

/// Calls a function that may run application code. A source whose turn panics has another turn or is dropped.
#[inline(always)]
fn catch_panic<R>(f: impl FnOnce() -> R) -> Result<R, Panic> {
    catch_unwind(AssertUnwindSafe(f))
}
