//! Wake-ups: a state machine that decides which thread is woken when something changes.
//!
//! A loop has *runners* (threads in run calls), and a *host* if it is embedded in another loop. One of the runners,
//! the *leader*, polls the reactor; while it does, the others (*followers*) wait on a condition variable. A thread
//! that changes something (a command, a deadline, a stop) must wake the thread that would otherwise notice it too late,
//! and no other. Three types hold the state:
//!
//! - [`Notifier`]: the flag *wake-up needed*, and the descriptor that ends a poll. Any thread uses it.
//! - [`WakeupState`]: runners, the leader, and what the host knows. The lock of the loop's core guards it.
//! - [`WakeupThreadState`]: whether the thread of [`wakeup_thread`](super::wakeup_thread) is to call the host.
//!
//! # States of a loop
//!
//! | state | runners | a change is noticed by | wake-up needed |
//! |---|---|---|---|
//! | unattended | none | the host, by the loop's descriptor, or the wake-up thread | yes, until one is sent |
//! | running | some; no leader, or the leader makes a non-blocking poll | a runner, before it next waits | no |
//! | waiting | some; the leader waits in the reactor | the leader | yes, until one is sent |
//!
//! # Transitions
//!
//! | state | event | new state | action |
//! |---|---|---|---|
//! | unattended | [`enter`]: a run call begins | running | a wake-up is not needed |
//! | running | [`lead`]: a runner makes a non-blocking poll | running, with a leader | *poll needed* is reset |
//! | running | [`begin_wait`]: a runner is about to wait in the reactor | waiting | *poll needed* is reset; a wake-up is needed; the wake-up thread is disarmed |
//! | waiting | [`set_deadline`]: a deadline before the leader's timeout | waiting | notify |
//! | waiting | [`add_after_poll`]: a source is to run after the next poll | waiting | notify |
//! | waiting | the wait ends | running, with a leader | a wake-up is not needed |
//! | running | [`resign`]: the poll's events are applied | running, no leader | *poll needed* is set if the poll was full, or was skipped by another runner meanwhile |
//! | any | [`note_skipped_poll`]: a run call ends without a poll, or leaves the poll to the leader | same | *poll needed* is set; if there is a leader, at the end of its poll |
//! | any | [`notify`]: a command, a stop, the end of the last work | same | if a wake-up is needed: send it, and it is not needed any more |
//! | running, waiting | [`leave`], and other runners remain | same | stopped: wake all followers, and notify; else wake a follower if needed, and notify if something is ready |
//! | running | [`leave`], the last runner | unattended | a wake-up is needed; [`become_unattended`]: notify if something is ready, the loop is stopped or out of work, or the reported deadline is too late; arm the wake-up thread |
//! | unattended | [`note_reported_deadline`]: the host asks for the time until the next deadline | unattended | keep it as the *reported deadline*; notify if the loop is stopped and this thread was not informed |
//! | unattended | [`note_stop_found`]: a run call of a loop that is stopped | unattended | a wake-up is needed; this thread is *informed* of the stop; notify the host if this thread or the host's was not informed before |
//! | unattended | [`reset`] | unattended | no thread is informed any more; a wake-up is needed; notify if something is ready or there is a deadline; arm the wake-up thread |
//!
//! The order of two steps matters. *Wake-up needed* is set first, and then the loop's flags are read (stopped,
//! commands, work). A thread that changes such a flag does so first, and then reads *wake-up needed*. So at
//! least one of the two sees the other's change.
//!
//! A host that waits for edges of the loop's descriptor has consumed the edge when it calls [`poll`]. Therefore a
//! call that does not poll the reactor sets *poll needed*, which counts as something that is ready.
//!
//! # States of the wake-up thread
//!
//! | state | event | new state | action |
//! |---|---|---|---|
//! | disarmed | `arm(deadline)` | armed | start to wait in the reactor |
//! | armed | `arm(deadline)` | armed | end the wait if this deadline is earlier |
//! | armed | `disarm` | disarmed | end the wait: a leader is to have the reactor |
//! | armed | `fire`: an event, a wake-up, or the deadline | disarmed | call the host |
//! | disarmed, armed | `end` | ended | end the wait; the thread ends |
//!
//! [`enter`]: WakeupState::enter
//! [`lead`]: WakeupState::lead
//! [`begin_wait`]: WakeupState::begin_wait
//! [`resign`]: WakeupState::resign
//! [`note_skipped_poll`]: WakeupState::note_skipped_poll
//! [`set_deadline`]: WakeupState::set_deadline
//! [`add_after_poll`]: WakeupState::add_after_poll
//! [`notify`]: Notifier::notify
//! [`leave`]: WakeupState::leave
//! [`become_unattended`]: WakeupState::become_unattended
//! [`note_reported_deadline`]: WakeupState::note_reported_deadline
//! [`note_stop_found`]: WakeupState::note_stop_found
//! [`reset`]: WakeupState::reset
//! [`poll`]: super::EventLoop::poll

use anyloop_proto::Instant;

use super::reactor::Waker;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread::ThreadId;

/// The largest number of threads that are remembered as informed of a stop. Beyond it, the host is notified again.
const MAX_INFORMED: usize = 64;

/// Sends wake-ups to the thread that waits in the reactor, or for its descriptor.
pub(super) struct Notifier {
    /// No thread would notice a change without a wake-up.
    needed: AtomicBool,
    waker: Waker,
}

impl Notifier {
    /// The notifier of a loop that is unattended.
    pub(super) fn new(waker: Waker) -> Self {
        Self { needed: AtomicBool::new(true), waker }
    }

    /// Sends a wake-up if one is needed. Of several threads that do this at a time, one sends it.
    pub(super) fn notify(&self) {
        if self.needed.load(Ordering::SeqCst) && self.needed.swap(false, Ordering::SeqCst) {
            self.waker.wake();
        }
    }

    /// Ends the poll of the reactor that is under way, or the next one.
    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// Sets whether a wake-up is needed.
    pub(super) fn set_needed(&self, needed: bool) {
        self.needed.store(needed, Ordering::SeqCst);
    }

    /// Whether a wake-up is needed. After it was set, false means that a wake-up was sent.
    pub(super) fn is_needed(&self) -> bool {
        self.needed.load(Ordering::SeqCst)
    }

    #[cfg(all(test, loom))]
    pub(super) const fn waker(&self) -> &Waker {
        &self.waker
    }
}

/// What the caller does after a transition.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    /// [`Notifier::notify`].
    Notify,
}

impl Action {
    fn notify_if(condition: bool) -> Self {
        if condition { Self::Notify } else { Self::Nothing }
    }
}

/// The runners of a loop, and what its host knows.
#[derive(Default)]
pub(super) struct WakeupState {
    runners: usize,
    leader: Leader,
    followers: usize,
    /// The last poll may have left events, or a call has not polled.
    poll_needed: bool,
    /// A call has left its poll to the leader, whose poll may have returned before that call.
    poll_skipped: bool,
    reported: Option<Report>,
    /// The threads that know that the loop is stopped.
    informed: Vec<ThreadId>,
}

/// The runner that polls the reactor.
#[derive(Clone, Copy, Default)]
enum Leader {
    #[default]
    None,
    Polling,
    /// It waits until this time; `None`: until it is woken.
    Waiting {
        until: Option<Instant>,
    },
}

/// The last result of `next_timeout`.
struct Report {
    deadline: Option<Instant>,
    /// The thread that has called `next_timeout`.
    thread: ThreadId,
}

/// What remains when a runner has left.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remaining {
    /// No runner: the loop [becomes unattended](WakeupState::become_unattended).
    NoRunner,
    Runners,
}

/// The state of the loop that the last runner leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnattendedState {
    /// It is stopped, or out of work.
    pub(super) should_return: bool,
    pub(super) is_anything_ready: bool,
    /// The next deadline of a source or a timer.
    pub(super) next_deadline_without_trim: Option<Instant>,
    /// The thread of the runner.
    pub(super) thread: ThreadId,
}

impl WakeupState {
    pub(super) const fn has_runners(&self) -> bool {
        self.runners > 0
    }

    #[inline]
    pub(super) const fn has_leader(&self) -> bool {
        !matches!(self.leader, Leader::None)
    }

    /// The last poll may have left events in the reactor, or a call has not polled.
    pub(super) const fn is_poll_needed(&self) -> bool {
        self.poll_needed
    }

    /// Whether a runner that is about to be busy must wake a follower: to run other entries of the run queue
    /// (`is_ready`), or to become the leader. A follower that is woken wakes the next one in turn.
    #[inline]
    pub(super) const fn needs_follower(&self, is_ready: bool) -> bool {
        self.followers > 0 && (is_ready || !self.has_leader())
    }

    /// A follower is about to wait.
    pub(super) const fn add_follower(&mut self) {
        self.followers += 1;
    }

    /// A follower has waited.
    pub(super) const fn remove_follower(&mut self) {
        self.followers -= 1;
    }

    // Runners.

    /// A run call begins.
    pub(super) fn enter(&mut self, notifier: &Notifier) {
        if self.runners == 0 {
            notifier.set_needed(false);
        }
        self.runners += 1;
    }

    /// A runner becomes the leader, for a poll that does not wait.
    #[inline]
    pub(super) const fn lead(&mut self) {
        self.leader = Leader::Polling;
        self.poll_needed = false;
    }

    /// A runner becomes the leader, for a poll that may wait. The caller then reads the loop's flags, and says with
    /// [`wait_until`](Self::wait_until) how long the leader waits.
    pub(super) fn begin_wait(&mut self, notifier: &Notifier) {
        self.lead();
        notifier.set_needed(true);
    }

    /// The leader waits until this time; `None`: until it is woken.
    pub(super) const fn wait_until(&mut self, until: Option<Instant>) {
        self.leader = Leader::Waiting { until };
    }

    /// The leader has polled, and is not the leader any more. A poll that `is_full` may have left events. If the leader
    /// has waited, it has [cleared](Notifier::set_needed) *wake-up needed* before.
    pub(super) const fn resign(&mut self, is_full: bool) {
        self.leader = Leader::None;
        self.poll_needed = is_full || self.poll_skipped;
        self.poll_skipped = false;
    }

    /// A call does not poll the reactor: it has done something else, or there is a leader.
    pub(super) const fn note_skipped_poll(&mut self) {
        match self.leader {
            Leader::None => self.poll_needed = true,
            _ => self.poll_skipped = true,
        }
    }

    /// A deadline was set. A leader that would wait beyond it is notified.
    pub(super) fn set_deadline(&self, deadline: Instant) -> Action {
        Action::notify_if(match self.leader {
            Leader::Waiting { until } => until.is_none_or(|until| deadline < until),
            _ => false,
        })
    }

    /// A source is to run after the next poll.
    pub(super) fn add_after_poll(&self) -> Action {
        Action::notify_if(matches!(self.leader, Leader::Waiting { .. }))
    }

    /// A run call ends.
    pub(super) fn leave(&mut self, notifier: &Notifier) -> Remaining {
        self.runners -= 1;
        if self.runners > 0 {
            return Remaining::Runners;
        }
        notifier.set_needed(true);
        Remaining::NoRunner
    }

    /// The last runner has left; `state` was read after that. The host is also notified of changes that its own run
    /// call has made, since it cannot be known which thread is the host.
    pub(super) fn become_unattended(&mut self, state: UnattendedState) -> Action {
        let is_outdated = self.host_sleeps_beyond(state.next_deadline_without_trim);
        if is_outdated && self.reported_to(state.thread) {
            // This thread may be a host that does not call `next_timeout` after each poll: it is notified once.
            self.reported = None;
        }
        Action::notify_if(
            is_outdated || state.should_return || state.is_anything_ready || self.poll_needed,
        )
    }

    /// Whether the host would sleep beyond this time.
    fn host_sleeps_beyond(&self, next_deadline: Option<Instant>) -> bool {
        let Some(Report { deadline, .. }) = self.reported else { return false };
        next_deadline.is_some_and(|due| deadline.is_none_or(|deadline| due < deadline))
    }

    fn reported_to(&self, thread: ThreadId) -> bool {
        self.reported.as_ref().is_some_and(|report| report.thread == thread)
    }

    // The host.

    /// The host asks for the next deadline, and waits until then, unless the wake-up thread does so in its place.
    pub(super) fn note_reported_deadline(
        &mut self,
        deadline: Option<Instant>,
        thread: ThreadId,
        is_stopped: bool,
        has_wakeup_thread: bool,
    ) -> Action {
        self.reported = (!has_wakeup_thread).then_some(Report { deadline, thread });
        // `None` does not distinguish a stopped loop from one without a deadline.
        Action::notify_if(is_stopped && !self.informed.contains(&thread))
    }

    /// The wake-up thread waits in the host's place.
    pub(super) fn forget_report(&mut self) {
        self.reported = None;
    }

    /// A run call finds the loop stopped. It may have consumed the wake-up that was meant for a host on another thread.
    /// So the host is notified again: by the first such call of each thread, and by every such call until one was made
    /// on the host's own thread.
    pub(super) fn note_stop_found(&mut self, thread: ThreadId, notifier: &Notifier) -> Action {
        notifier.set_needed(true);
        let is_new = !self.informed.contains(&thread);
        if is_new {
            self.informed.truncate(MAX_INFORMED - 1);
            self.informed.push(thread);
        }
        let host = self.reported.as_ref().map(|report| report.thread);
        Action::notify_if(host.is_some_and(|host| is_new || !self.informed.contains(&host)))
    }

    /// The loop is not stopped any more. The host still waits without a deadline.
    pub(super) fn reset(&mut self, notifier: &Notifier) {
        self.informed.clear();
        notifier.set_needed(true);
    }
}

/// Whether the wake-up thread is to call the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WakeupThreadState {
    /// The host was called and has not polled since, or there are runners, the last of which arms the thread.
    Disarmed,
    /// The host has polled. It is called when something happens, or at the deadline.
    Armed { deadline: Option<Instant> },
    /// The loop is gone, or its callback was replaced or cleared.
    Ended,
}

/// Whether the wake-up thread must be made to end its wait.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ThreadWait {
    Continues,
    Ends,
}

impl WakeupThreadState {
    pub(super) fn arm(&mut self, deadline: Option<Instant>) -> ThreadWait {
        let before = match *self {
            Self::Ended => return ThreadWait::Continues,
            Self::Disarmed => None,
            Self::Armed { deadline } => Some(deadline),
        };
        *self = Self::Armed { deadline };
        let is_earlier = before.is_some_and(|before| {
            deadline.is_some_and(|deadline| before.is_none_or(|before| deadline < before))
        });
        if is_earlier { ThreadWait::Ends } else { ThreadWait::Continues }
    }

    pub(super) fn disarm(&mut self) -> ThreadWait {
        match self {
            Self::Armed { .. } => {
                *self = Self::Disarmed;
                ThreadWait::Ends
            }
            Self::Disarmed | Self::Ended => ThreadWait::Continues,
        }
    }

    /// The wait is over. Returns whether the host is to be called: if there was an event or a wake-up (`has_happened`),
    /// or the deadline has come.
    pub(super) fn fire(&mut self, has_happened: bool, now: Instant) -> bool {
        let Self::Armed { deadline } = *self else { return false };
        let fires = has_happened || deadline.is_some_and(|deadline| deadline <= now);
        if fires {
            *self = Self::Disarmed;
        }
        fires
    }

    pub(super) const fn is_armed(self) -> bool {
        matches!(self, Self::Armed { .. })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::reactor::Reactor;
    use super::*;
    use std::thread;

    const NOW: Instant = Instant::from_nanos(1 << 62);
    const SOON: Instant = Instant::from_nanos((1 << 62) + 1_000);
    const LATER: Instant = Instant::from_nanos((1 << 62) + 2_000);

    // Arguments of `note_reported_deadline`, `resign` and `fire`.
    const STOPPED: bool = true;
    const NOT_STOPPED: bool = false;
    const WITH_WAKEUP_THREAD: bool = true;
    const NO_WAKEUP_THREAD: bool = false;
    const FULL: bool = true;
    const NOT_FULL: bool = false;
    const HAPPENED: bool = true;
    const NOT_HAPPENED: bool = false;

    fn this_thread() -> ThreadId {
        thread::current().id()
    }

    fn another_thread() -> ThreadId {
        thread::spawn(this_thread).join().unwrap()
    }

    fn notifier() -> (Notifier, Reactor) {
        let (reactor, _, waker) = Reactor::new().unwrap();
        (Notifier::new(waker), reactor)
    }

    /// Nothing to do for the runner that leaves on this thread.
    fn nothing_to_do() -> UnattendedState {
        UnattendedState {
            should_return: false,
            is_anything_ready: false,
            next_deadline_without_trim: None,
            thread: this_thread(),
        }
    }

    #[test]
    fn a_wakeup_is_needed_where_nobody_else_would_notice() {
        let (notifier, _reactor) = notifier();
        let mut state = WakeupState::default();
        assert!(notifier.is_needed(), "unattended");
        state.enter(&notifier);
        assert!(!notifier.is_needed(), "running");
        state.begin_wait(&notifier);
        assert!(notifier.is_needed(), "waiting");
        state.enter(&notifier);
        assert!(notifier.is_needed(), "another runner does not change that");
        notifier.notify();
        assert!(!notifier.is_needed(), "sent");
        state.resign(NOT_FULL);
        assert_eq!(state.leave(&notifier), Remaining::Runners);
        assert!(!notifier.is_needed());
        assert_eq!(state.leave(&notifier), Remaining::NoRunner);
        assert!(notifier.is_needed(), "unattended again");
    }

    #[test]
    fn only_a_leader_that_waits_is_notified_of_an_earlier_deadline() {
        let (notifier, _reactor) = notifier();
        let mut state = WakeupState::default();
        state.enter(&notifier);
        assert_eq!(state.set_deadline(SOON), Action::Nothing);
        state.lead();
        assert_eq!(state.set_deadline(SOON), Action::Nothing);
        state.resign(NOT_FULL);
        state.begin_wait(&notifier);
        state.wait_until(Some(LATER));
        assert_eq!(state.set_deadline(SOON), Action::Notify);
        assert_eq!(state.set_deadline(LATER), Action::Nothing);
        assert_eq!(state.add_after_poll(), Action::Notify);
        state.wait_until(None);
        assert_eq!(state.set_deadline(LATER), Action::Notify);
    }

    #[test]
    fn a_poll_that_was_skipped_is_needed() {
        let mut state = WakeupState::default();
        state.note_skipped_poll();
        assert!(state.is_poll_needed());
        state.lead();
        assert!(!state.is_poll_needed());
        state.note_skipped_poll(); // left to the leader
        assert!(!state.is_poll_needed());
        state.resign(NOT_FULL);
        assert!(state.is_poll_needed());
        state.lead();
        state.resign(FULL);
        assert!(state.is_poll_needed(), "the poll was full");
    }

    #[test]
    fn a_follower_is_woken_for_work_or_to_lead() {
        let mut state = WakeupState::default();
        assert!(!state.needs_follower(true), "there is none");
        state.lead();
        state.add_follower();
        assert!(state.needs_follower(true));
        assert!(!state.needs_follower(false));
        state.resign(NOT_FULL);
        assert!(state.needs_follower(false));
    }

    #[test]
    fn the_host_is_notified_of_what_is_left() {
        let mut state = WakeupState::default();
        assert_eq!(state.become_unattended(nothing_to_do()), Action::Nothing);
        assert_eq!(
            state.become_unattended(UnattendedState { should_return: true, ..nothing_to_do() }),
            Action::Notify
        );
        assert_eq!(
            state.become_unattended(UnattendedState { is_anything_ready: true, ..nothing_to_do() }),
            Action::Notify
        );
        let due = UnattendedState { next_deadline_without_trim: Some(SOON), ..nothing_to_do() };
        assert_eq!(state.become_unattended(due), Action::Nothing, "nobody waits for it");
        state.note_skipped_poll();
        assert_eq!(state.become_unattended(nothing_to_do()), Action::Notify);
    }

    #[test]
    fn a_host_on_another_thread_is_notified_until_it_asks_again() {
        let (mut state, host) = (WakeupState::default(), another_thread());
        assert_eq!(
            state.note_reported_deadline(Some(LATER), host, NOT_STOPPED, NO_WAKEUP_THREAD),
            Action::Nothing
        );
        let due = UnattendedState { next_deadline_without_trim: Some(SOON), ..nothing_to_do() };
        assert_eq!(state.become_unattended(due), Action::Notify);
        assert_eq!(state.become_unattended(due), Action::Notify);
        assert_eq!(
            state.note_reported_deadline(Some(SOON), host, NOT_STOPPED, NO_WAKEUP_THREAD),
            Action::Nothing
        );
        assert_eq!(state.become_unattended(due), Action::Nothing);
    }

    #[test]
    fn a_host_on_the_same_thread_is_notified_once() {
        let mut state = WakeupState::default();
        assert_eq!(
            state.note_reported_deadline(None, this_thread(), NOT_STOPPED, NO_WAKEUP_THREAD),
            Action::Nothing
        );
        let due = UnattendedState { next_deadline_without_trim: Some(SOON), ..nothing_to_do() };
        assert_eq!(state.become_unattended(due), Action::Notify);
        assert_eq!(state.become_unattended(due), Action::Nothing);
    }

    #[test]
    fn a_host_with_a_wakeup_thread_does_not_wait_by_itself() {
        let mut state = WakeupState::default();
        assert_eq!(
            state.note_reported_deadline(None, another_thread(), NOT_STOPPED, WITH_WAKEUP_THREAD),
            Action::Nothing
        );
        let due = UnattendedState { next_deadline_without_trim: Some(SOON), ..nothing_to_do() };
        assert_eq!(state.become_unattended(due), Action::Nothing);
    }

    #[test]
    fn a_host_is_notified_of_a_stop_until_it_finds_it() {
        let (notifier, _reactor) = notifier();
        let (mut state, host) = (WakeupState::default(), another_thread());
        assert_eq!(
            state.note_reported_deadline(None, host, STOPPED, NO_WAKEUP_THREAD),
            Action::Notify
        );
        for _ in 0..2 {
            assert_eq!(state.note_stop_found(this_thread(), &notifier), Action::Notify);
        }
        assert_eq!(state.note_stop_found(host, &notifier), Action::Notify, "once for each thread");
        assert_eq!(state.note_stop_found(host, &notifier), Action::Nothing);
        assert_eq!(state.note_stop_found(this_thread(), &notifier), Action::Nothing);
        assert_eq!(
            state.note_reported_deadline(None, host, STOPPED, NO_WAKEUP_THREAD),
            Action::Nothing
        );
        state.reset(&notifier);
        assert_eq!(
            state.note_reported_deadline(None, host, STOPPED, NO_WAKEUP_THREAD),
            Action::Notify,
            "another stop"
        );
    }

    #[test]
    fn the_callback_fires_once_each_time_it_is_armed() {
        let mut state = WakeupThreadState::Disarmed;
        assert!(!state.fire(HAPPENED, NOW));
        assert_eq!(state.arm(None), ThreadWait::Continues);
        assert!(!state.fire(NOT_HAPPENED, NOW));
        assert!(state.fire(HAPPENED, NOW));
        assert!(!state.fire(HAPPENED, NOW));
        assert_eq!(state.arm(Some(SOON)), ThreadWait::Continues);
        assert!(!state.fire(NOT_HAPPENED, NOW));
        assert!(state.fire(NOT_HAPPENED, SOON), "the deadline");
    }

    #[test]
    fn the_wakeup_thread_ends_its_wait_where_it_would_be_too_long() {
        let mut state = WakeupThreadState::Armed { deadline: None };
        assert_eq!(state.arm(Some(LATER)), ThreadWait::Ends);
        assert_eq!(state.arm(Some(LATER)), ThreadWait::Continues);
        assert_eq!(state.arm(None), ThreadWait::Continues);
        assert_eq!(state.arm(Some(SOON)), ThreadWait::Ends);
        assert_eq!(state.disarm(), ThreadWait::Ends);
        assert_eq!(state.disarm(), ThreadWait::Continues);
        state = WakeupThreadState::Ended;
        assert_eq!(state.arm(Some(SOON)), ThreadWait::Continues);
        assert_eq!(state.disarm(), ThreadWait::Continues);
        assert!(!state.fire(HAPPENED, LATER), "it is not called any more");
    }
}
