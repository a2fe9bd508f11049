//! The state of a loop that its runners share.
//!
//! - A *source* is what the loop runs: a connection, a listener, a watch (a function for a descriptor of the
//!   application's). It is not mio's `Source`.
//! - A *runner* is a thread in a run call. One of them, the *leader*, polls the reactor; meanwhile the *followers* wait
//!   for work or to become the leader, as in the leader/followers pattern.
//! - The *host* is the outer loop that embeds this one. A loop without runners is *unattended*: only the host, or the
//!   wake-up thread in its place, notices a change. [`wakeup`](super::wakeup) has the states.
//! - The *run queue* is `ready` and `woken` of [`Core`] together.

use std::collections::VecDeque;

use anyloop_proto::Instant;

use super::control::{Command, KEPT_CAPACITY, LoopControl};
use super::deadlines::Deadlines;
use super::events::{Events, Token};
use super::reactor;
use super::slots::{QueueEntry, Slots};
use super::timers::{OnCancel, Timers};
use super::types::LoopTypes;
use super::wakeup::{Action, Remaining, UnattendedState, WakeupState};
use crate::sync::Condvar;
use crate::sync::thread;

/// The state of a loop that its runners share. No application code runs under its lock, which is `Engine::core`.
pub(super) struct Core<K: LoopTypes> {
    pub(super) slots: Slots<K>,
    /// The slots of sources that are ready, and a [`CALLBACK_ENTRY`] for each callback. Kept between run calls: the
    /// reactor reports an edge only once.
    ready: VecDeque<u32>,
    /// Slots of sources that a command has woken, mostly to send. A source may be in `ready` as well: the entry popped
    /// first runs it, and the other is then stale. A slot has at most one entry in each of the two.
    woken: VecDeque<u32>,
    /// How many entries of `woken` may run before the next entry of `ready`. Set to `woken.len()` at the first pop
    /// after an entry of `ready`: what is woken later waits for the next round, so `ready` is not starved.
    woken_quota: usize,
    /// The last entry that was popped was one of `ready`.
    last_was_ready: bool,
    /// A callback for each [`CALLBACK_ENTRY`] of `ready`, in the same order.
    pub(super) callbacks: VecDeque<Callback<K>>,
    /// Slots that enter the run queue after the next poll.
    after_poll: Vec<u32>,
    /// The number of entries of the run queue that are popped before the next poll.
    pub(super) entries_until_poll: usize,
    pub(super) timers: Timers<K::TimerFn>,
    /// The deadlines of sources.
    deadlines: Deadlines,
    /// When to trim the buffers that no runner uses (`Engine::buffers`).
    trim_at: Option<Instant>,
    pub(super) wakeups: WakeupState,
    /// Empty; kept for its capacity.
    commands: Vec<Command>,
    /// Empty; kept for its capacity.
    expired: Vec<u32>,
}

/// The entry of `ready` that stands for the next callback. No slot has this index.
pub(super) const CALLBACK_ENTRY: u32 = u32::MAX;

/// A function of the application that is to be called, or dropped, outside the lock.
pub(super) enum Callback<K: LoopTypes> {
    Posted(Box<K::PostedFn>),
    Due(Box<K::TimerFn>),
    Cancelled(Box<K::TimerFn>),
    /// To be dropped without a call.
    Dropped(Box<K::TimerFn>),
}

impl<K: LoopTypes> Core<K> {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            slots: Slots::new(),
            ready: VecDeque::new(),
            woken: VecDeque::new(),
            woken_quota: 0,
            last_was_ready: false,
            callbacks: VecDeque::new(),
            after_poll: Vec::new(),
            entries_until_poll: 0,
            timers: Timers::new(),
            deadlines: Deadlines::new(now),
            trim_at: None,
            wakeups: WakeupState::default(),
            commands: Vec::new(),
            expired: Vec::new(),
        }
    }

    // What is ready.

    pub(super) fn queue_callback(&mut self, callback: Callback<K>) {
        self.callbacks.push_back(callback);
        self.ready.push_back(CALLBACK_ENTRY);
    }

    /// Queues a source that must run: in `woken` if a command has woken it, else in `ready`.
    #[inline]
    pub(super) fn queue_source(&mut self, index: u32) {
        match self.slots.is_woken(index) {
            true => self.queue_woken(index),
            false => self.queue_ready(index),
        }
    }

    fn queue_ready(&mut self, index: u32) {
        if self.slots.mark_entry(index, QueueEntry::Ready) {
            self.ready.push_back(index);
        }
    }

    fn queue_woken(&mut self, index: u32) {
        if self.slots.mark_entry(index, QueueEntry::Woken) {
            self.woken.push_back(index);
        }
    }

    /// Takes the next entry of the run queue. Returns `None` if it is empty, or if it is time to poll and the caller
    /// may do that.
    ///
    /// After an entry of `ready`, first pops all entries that `woken` has then: their output is in memory, and should
    /// leave before more input is read.
    #[inline]
    pub(super) fn pop_entry(&mut self, may_poll: bool) -> Option<u32> {
        if self.entries_until_poll == 0 && may_poll {
            return None;
        }
        if std::mem::take(&mut self.last_was_ready) {
            self.woken_quota = self.woken.len();
        }
        let entry = if self.woken_quota > 0 || self.ready.is_empty() {
            self.woken_quota = self.woken_quota.saturating_sub(1);
            let index = self.woken.pop_front()?;
            self.slots.clear_entry(index, QueueEntry::Woken);
            index
        } else {
            self.last_was_ready = true;
            let entry = self.ready.pop_front()?;
            if entry != CALLBACK_ENTRY {
                self.slots.clear_entry(entry, QueueEntry::Ready);
            }
            entry
        };
        self.entries_until_poll = self.entries_until_poll.saturating_sub(1);
        Some(entry)
    }

    /// Applies the queued commands: most of them add to the run queue.
    #[inline]
    pub(super) fn apply_commands(&mut self, control: &LoopControl) {
        if control.has_commands() {
            self.apply_queued_commands(control);
        }
    }

    #[cold]
    fn apply_queued_commands(&mut self, control: &LoopControl) {
        let mut commands = core::mem::take(&mut self.commands);
        control.take_commands(&mut commands);
        for command in commands.drain(..) {
            match command {
                Command::Post(f) => self.queue_callback(Callback::Posted(K::posted_fn(f))),
                Command::Wake(token) => self.wake(token),
                Command::WakeAll(tokens) => tokens.into_iter().for_each(|token| self.wake(token)),
                Command::Events(token, events) => self.add_events(token, events),
                Command::SetTimer(key, f) => self.timers.set(key, K::timer_fn(f)),
                Command::CancelTimer(key, on_cancel) => {
                    if let Some(f) = self.timers.take(key) {
                        self.queue_callback(match on_cancel {
                            OnCancel::Call => Callback::Cancelled(f),
                            OnCancel::Drop => Callback::Dropped(f),
                        });
                    }
                }
            }
        }
        commands.shrink_to(KEPT_CAPACITY);
        self.commands = commands;
    }

    fn wake(&mut self, token: Token) {
        if self.slots.add_events(token, Events::WOKEN) || self.slots.is_queued(token) {
            self.queue_woken(token.index);
        }
    }

    /// Whether the run queue is empty.
    #[inline]
    pub(super) fn is_queue_empty(&self) -> bool {
        self.ready.is_empty() && self.woken.is_empty()
    }

    /// Adds events to a source, which becomes ready.
    #[inline]
    fn add_events(&mut self, token: Token, events: Events) {
        if self.slots.add_events(token, events) {
            self.queue_ready(token.index);
        }
    }

    /// Adds the events of a poll, and ends the calling thread's leadership. `events` is `None` if
    /// there was no poll: another thread has the reactor.
    pub(super) fn apply_events_and_resign(
        &mut self,
        events: Option<impl Iterator<Item = (Token, Events)>>,
    ) {
        let mut count = 0;
        if let Some(events) = events {
            for (token, events) in events {
                self.add_events(token, events);
                count += 1;
            }
        }
        // `count` excludes the wake-up event, so `CAPACITY - 1` may mean a full buffer: poll again.
        let is_full = count + 1 >= reactor::CAPACITY;
        self.wakeups.resign(is_full);
    }

    /// Queues a source to run after the next poll.
    pub(super) fn add_after_poll(&mut self, index: u32, control: &LoopControl) {
        self.slots.set_after_poll(index);
        self.after_poll.push(index);
        self.perform(self.wakeups.add_after_poll(), control);
    }

    /// A poll has ended: the sources that run after it enter the run queue.
    pub(super) fn move_after_poll_to_run_queue(&mut self) {
        let mut after_poll = std::mem::take(&mut self.after_poll);
        for index in after_poll.drain(..) {
            self.slots.set_queued(index);
            self.queue_source(index);
        }
        self.after_poll = after_poll;
        self.set_entries_until_poll();
    }

    /// As many entries as the run queue has now are popped before the next poll.
    pub(super) fn set_entries_until_poll(&mut self) {
        self.entries_until_poll = self.ready.len() + self.woken.len();
    }

    /// Whether there is something to do now: a queued entry or command, a source that runs after the next poll, or a
    /// poll that is needed.
    pub(super) fn is_anything_ready(&self, control: &LoopControl) -> bool {
        let is_queued = !self.is_queue_empty() || !self.after_poll.is_empty();
        is_queued || self.wakeups.is_poll_needed() || control.has_commands()
    }

    /// Frees memory of the queues and the deadlines that is not needed any more.
    pub(super) fn shrink(&mut self) {
        if self.is_queue_empty() {
            self.ready.shrink_to(KEPT_CAPACITY);
            self.woken.shrink_to(KEPT_CAPACITY);
            self.callbacks.shrink_to(KEPT_CAPACITY);
            self.after_poll.shrink_to(KEPT_CAPACITY);
            self.expired.shrink_to(KEPT_CAPACITY);
        }
        self.deadlines.shrink();
    }

    /// Frees slot `index`, whose source is over.
    pub(super) fn release(&mut self, index: u32) {
        self.deadlines.remove(&mut self.slots, index);
        self.slots.release(index);
    }

    // What is due.

    /// Sets the deadline of the source in slot `index`. Does nothing if the source has an earlier deadline. When that
    /// comes, the source is run and sets the later one itself.
    pub(super) fn lower_deadline(&mut self, index: u32, deadline: Instant, control: &LoopControl) {
        self.deadlines.set(&mut self.slots, index, deadline);
        self.perform(self.wakeups.set_deadline(deadline), control);
    }

    /// Schedules a trim of the buffers that no runner uses, unless an earlier one is scheduled.
    pub(super) fn schedule_trim(&mut self, at: Instant, control: &LoopControl) {
        self.trim_at = Some(self.trim_at.map_or(at, |other| other.min(at)));
        self.perform(self.wakeups.set_deadline(at), control);
    }

    /// Sets the time of the next trim, after one.
    pub(super) fn set_trim(&mut self, at: Option<Instant>) {
        self.trim_at = at;
    }

    pub(super) fn is_trim_due(&self, now: Instant) -> bool {
        self.trim_at.is_some_and(|at| at <= now)
    }

    /// When the loop must act at the latest, if nothing happens before: the next deadline, timer or trim.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.next_deadline_without_trim().into_iter().chain(self.trim_at).min()
    }

    /// The next deadline of a source or a timer. Trims are left out.
    fn next_deadline_without_trim(&self) -> Option<Instant> {
        [self.timers.next_due(), self.deadlines.next()].into_iter().flatten().min()
    }

    /// Queues expired sources and timers. Call it after the events of the poll are queued, so that a pong that arrived
    /// in time counts.
    #[inline(never)]
    pub(super) fn expire(&mut self, now: Instant) {
        let mut expired = std::mem::take(&mut self.expired);
        self.deadlines.expire(&mut self.slots, now, &mut expired);
        for index in expired.drain(..) {
            if self.slots.add_events_to_slot(index, Events::DEADLINE) {
                self.queue_ready(index);
            }
        }
        self.expired = expired;
        while let Some(f) = self.timers.take_due(now) {
            self.queue_callback(Callback::Due(f));
        }
    }

    // Waking threads.

    /// Wakes a follower if there is something for it to do while this runner is busy.
    #[inline]
    pub(super) fn wake_follower(&self, followers: &Condvar) {
        if self.wakeups.needs_follower(!self.is_queue_empty()) {
            followers.notify_one();
        }
    }

    /// A run call ends. If work is left, wakes another runner. If this was the last runner, wakes the host if there is
    /// work or if it would sleep past the next deadline: see [`leave` and
    /// `become_unattended`](super::wakeup#transitions).
    pub(super) fn end_run(&mut self, control: &LoopControl, followers: &Condvar) -> Remaining {
        let remaining = self.wakeups.leave(control.notifier());
        if remaining == Remaining::NoRunner {
            let state = UnattendedState {
                should_return: control.should_return(),
                is_anything_ready: self.is_anything_ready(control),
                // A trim is not urgent: the host learns of it when it calls `next_timeout`.
                next_deadline_without_trim: self.next_deadline_without_trim(),
                thread: thread::current().id(),
            };
            let action = self.wakeups.become_unattended(state);
            self.perform(action, control);
        } else if control.is_stopped() {
            followers.notify_all();
            control.notify();
        } else {
            self.wake_follower(followers);
            if self.is_anything_ready(control) {
                control.notify(); // the leader may wait
            }
        }
        remaining
    }

    /// Records the deadline that is reported to the host, unless a wake-up thread waits for it in the host's place.
    pub(super) fn note_reported_deadline(
        &mut self,
        control: &LoopControl,
        has_wakeup_thread: bool,
    ) {
        let is_stopped = control.is_stopped();
        let deadline = if is_stopped { None } else { self.next_deadline() };
        let thread = thread::current().id();
        let action =
            self.wakeups.note_reported_deadline(deadline, thread, is_stopped, has_wakeup_thread);
        self.perform(action, control);
    }

    fn perform(&self, action: Action, control: &LoopControl) {
        if action == Action::Notify {
            control.notify();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::event_loop::Threads;
    use crate::event_loop::source::{Next, Source, Turn};

    struct Waits;

    impl Source<Threads> for Waits {
        fn run(&mut self, _: &mut Turn<'_, Threads>) -> Next<Threads> {
            Next::Wait
        }
    }

    /// A loop with sources that wait.
    fn with_sources<const N: usize>() -> (Core<Threads>, [Token; N]) {
        let mut core = Core::new(Instant::from_nanos(0));
        let tokens = [(); N].map(|()| {
            let token = core.slots.reserve();
            let source: Box<<Threads as LoopTypes>::DynSource> = Box::new(Waits);
            core.slots.check_in(token.index, source, Events::NONE, false);
            token
        });
        (core, tokens)
    }

    /// Runs the next source. Returns `None` if none is queued.
    fn run_next(core: &mut Core<Threads>) -> Option<Token> {
        loop {
            let index = core.pop_entry(false)?;
            if let Some((token, source, _)) = core.slots.check_out(index) {
                core.slots.check_in(index, source, Events::NONE, false);
                return Some(token);
            }
        }
    }

    #[test]
    fn a_source_that_is_woken_while_it_is_ready_runs_as_one_that_was_woken() {
        let (mut core, [a, b, c]) = with_sources();
        for token in [a, b, c] {
            core.add_events(token, Events::READABLE);
        }
        core.wake(c);
        let order: Vec<_> = std::iter::from_fn(|| run_next(&mut core)).collect();
        assert_eq!(order, [a, c, b]);
    }

    #[test]
    fn a_source_that_was_woken_in_its_turn_runs_as_one_that_was_woken() {
        let (mut core, [a, b, c]) = with_sources();
        for token in [a, b, c] {
            core.add_events(token, Events::READABLE);
        }
        let index = core.pop_entry(false).unwrap();
        let (token, source, _) = core.slots.check_out(index).unwrap();
        assert_eq!(token, a);
        core.wake(a);
        assert!(core.slots.check_in(index, source, Events::NONE, false));
        core.queue_source(index);
        let order: Vec<_> = std::iter::from_fn(|| run_next(&mut core)).collect();
        assert_eq!(order, [a, b, c]);
    }

    #[test]
    fn a_source_that_is_to_run_after_the_poll_waits_for_it_even_if_it_is_woken() {
        let (mut core, [a, b]) = with_sources();
        core.add_events(a, Events::READABLE);
        core.wake(a); // so that an entry is left in `ready`
        let index = core.woken.pop_front().unwrap();
        core.slots.clear_entry(index, QueueEntry::Woken);
        let (_, source, _) = core.slots.check_out(index).unwrap();
        assert!(core.slots.check_in(index, source, Events::NONE, true));
        core.slots.set_after_poll(index);
        core.after_poll.push(index);
        core.add_events(b, Events::READABLE);
        core.wake(a);
        assert_eq!(run_next(&mut core), Some(b));
        assert_eq!(run_next(&mut core), None);
        core.move_after_poll_to_run_queue();
        assert_eq!(run_next(&mut core), Some(a));
        assert_eq!(run_next(&mut core), None);
    }

    #[test]
    fn the_queues_do_not_grow_with_the_number_of_events() {
        let (mut core, [a, b]) = with_sources();
        for _ in 0..100 {
            for token in [a, b] {
                core.add_events(token, Events::READABLE);
                core.wake(token);
            }
            run_next(&mut core).unwrap();
        }
        assert!(core.ready.len() <= 2 && core.woken.len() <= 2);
    }

    #[test]
    fn a_burst_of_commands_leaves_no_large_queue() {
        let (mut core, [a]) = with_sources();
        let (_reactor, _registry, waker) = reactor::Reactor::new().unwrap();
        let control = LoopControl::new(waker);
        for _ in 0..10 * KEPT_CAPACITY {
            control.wake(a);
        }
        core.apply_commands(&control);
        assert!(core.commands.capacity() <= KEPT_CAPACITY && control.capacity() <= KEPT_CAPACITY);
    }

    #[test]
    fn queues_that_are_empty_are_shrunk() {
        let mut core = Core::<Threads>::new(Instant::from_nanos(0));
        for _ in 0..10 * KEPT_CAPACITY {
            let f: Box<dyn FnOnce() + Send> = Box::new(|| {});
            core.queue_callback(Callback::Posted(f));
        }
        while core.pop_entry(false).is_some() {
            core.callbacks.pop_front().unwrap();
        }
        core.shrink();
        assert!(
            core.ready.capacity() <= 2 * KEPT_CAPACITY
                && core.callbacks.capacity() <= 2 * KEPT_CAPACITY
        );
    }
}
