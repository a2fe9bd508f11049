//! What is ready, what is due, and where the sources are: all that lies under the loop's lock.

use std::collections::VecDeque;

use anyloop_proto::Instant;

use super::deadlines::Deadlines;
use super::events::{Events, Token};
use super::reactor;
use super::remote::{Mail, Remote};
use super::slots::Slots;
use super::timers::Timers;
use super::types::Types;
use crate::sync::Condvar;
use crate::sync::thread::{self, ThreadId};

/// Room for so many jobs is kept when there are none.
const KEPT: usize = 4096;

/// So many threads are known to have found the loop stopped: of more, some are told again.
const MOST_AWARE: usize = 64;

/// What runners share. Nobody holds its lock while program code runs.
pub(super) struct Core<K: Types> {
    pub(super) slots: Slots<K>,
    /// What is ready, by its slot; or `TASK`. It outlives every run call: an edge is not reported twice.
    pub(super) ring: VecDeque<u32>,
    /// What else is to be done: one for each `TASK` in the ring, in that order.
    pub(super) tasks: VecDeque<Task<K>>,
    /// What is ready when the sockets were looked at once more.
    pub(super) later: Vec<u32>,
    /// So many jobs of the ring come before the sockets are looked at again.
    pub(super) before_look: usize,
    /// The last look may have left something: it took all that it can at a time. Or somebody was to look,
    /// and has not.
    pub(super) look_again: bool,
    /// Somebody has left it to the leader, which may have looked before.
    pub(super) left_to_leader: bool,
    pub(super) timers: Timers<K::OnTimer>,
    /// The deadlines of sources.
    deadlines: Deadlines,
    /// When memory is to be trimmed that no runner has in use.
    trim_at: Option<Instant>,
    /// A runner looks at the sockets, or sleeps there.
    pub(super) has_leader: bool,
    /// Until when it sleeps; `None`: until it is woken.
    pub(super) leader_until: Option<Instant>,
    pub(super) parked: usize,
    pub(super) runners: usize,
    /// What a host was told that has asked.
    told: Option<Told>,
    /// Threads that have found the loop stopped, since it is.
    aware: Vec<ThreadId>,
    /// Kept for its memory.
    pub(super) mail: Vec<Mail>,
    pub(super) expired: Vec<u32>,
}

/// Stands in the ring for the next of the tasks. No slot has this number.
pub(super) const TASK: u32 = u32::MAX;

/// Something of the program's to be done.
pub(super) enum Task<K: Types> {
    Posted(Box<K::Task>),
    Due(Box<K::OnTimer>),
    Cancelled(Box<K::OnTimer>),
}

/// What a host was told.
struct Told {
    /// Until when there is nothing to do.
    until: Option<Instant>,
    /// The one that has asked.
    thread: ThreadId,
}

impl<K: Types> Core<K> {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            slots: Slots::new(),
            ring: VecDeque::new(),
            tasks: VecDeque::new(),
            later: Vec::new(),
            before_look: 0,
            look_again: false,
            left_to_leader: false,
            timers: Timers::new(),
            deadlines: Deadlines::new(now),
            trim_at: None,
            has_leader: false,
            leader_until: None,
            parked: 0,
            runners: 0,
            told: None,
            aware: Vec::new(),
            mail: Vec::new(),
            expired: Vec::new(),
        }
    }

    pub(super) fn queue(&mut self, task: Task<K>) {
        self.tasks.push_back(task);
        self.ring.push_back(TASK);
    }

    /// Sorts what came from elsewhere.
    #[inline]
    pub(super) fn take_mail(&mut self, remote: &Remote) {
        if remote.has_mail() {
            self.sort_mail(remote);
        }
    }

    #[cold]
    pub(super) fn sort_mail(&mut self, remote: &Remote) {
        let mut mail = core::mem::take(&mut self.mail);
        remote.take_mail(&mut mail);
        for mail in mail.drain(..) {
            match mail {
                Mail::Run(task) => self.queue(Task::Posted(K::task(task))),
                Mail::Wake(token) => self.notify(token, Events::WOKEN),
                Mail::WakeAll(tokens) => {
                    tokens.into_iter().for_each(|token| self.notify(token, Events::WOKEN));
                }
                Mail::Ready(token, events) => self.notify(token, events),
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
    pub(super) fn hand_on(&self, parked: &Condvar) {
        if self.parked > 0 && (!self.ring.is_empty() || !self.has_leader) {
            parked.notify_one();
        }
    }

    /// Gives back what a great many deadlines at once have needed.
    pub(super) fn shrink(&mut self) {
        if self.ring.is_empty() && self.ring.capacity() > KEPT {
            self.ring.shrink_to(KEPT);
            self.expired.shrink_to(KEPT);
        }
        self.deadlines.shrink();
    }

    /// Whether there is something to do now.
    pub(super) fn is_ready(&self, remote: &Remote) -> bool {
        let queued = !self.ring.is_empty() || !self.later.is_empty();
        queued || self.look_again || remote.has_mail()
    }

    #[inline]
    pub(super) fn notify(&mut self, token: Token, events: Events) {
        if self.slots.notify(token, events) {
            self.ring.push_back(token.index);
        }
    }

    pub(super) fn note(&mut self, events: impl Iterator<Item = (Token, Events)>) {
        let mut count = 0;
        for (token, events) in events {
            self.notify(token, events);
            count += 1;
        }
        // The doorbell is not among them.
        self.look_again = count + 1 >= reactor::CAPACITY;
    }

    /// Sets the deadline of the source in slot `index`: the source is called at this time or before.
    pub(super) fn set_deadline(&mut self, index: u32, deadline: Instant, remote: &Remote) {
        self.deadlines.set(&mut self.slots, index, deadline);
        self.tell_leader(deadline, remote);
    }

    /// Frees slot `index`, whose source is over.
    pub(super) fn release(&mut self, index: u32) {
        self.deadlines.remove(&mut self.slots, index);
        self.slots.release(index);
    }

    /// It knows only of the deadlines that were there before.
    fn tell_leader(&self, deadline: Instant, remote: &Remote) {
        if self.has_leader && self.leader_until.is_none_or(|until| deadline < until) {
            remote.ring();
        }
    }

    /// Memory that no runner has in use is to be trimmed at this time.
    pub(super) fn add_trim(&mut self, at: Instant, remote: &Remote) {
        self.trim_at = Some(self.trim_at.map_or(at, |other| other.min(at)));
        self.tell_leader(at, remote);
    }

    /// It was trimmed, and this is when to do it again.
    pub(super) fn set_trim(&mut self, at: Option<Instant>) {
        self.trim_at = at;
    }

    pub(super) fn is_to_trim(&self, now: Instant) -> bool {
        self.trim_at.is_some_and(|at| at <= now)
    }

    /// Queues a source behind the next look at the sockets.
    pub(super) fn put_off(&mut self, index: u32, remote: &Remote) {
        self.later.push(index);
        if self.has_leader {
            remote.ring(); // it is only looked at when somebody looks
        }
    }

    /// When the loop has something to do at the latest.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.next_due().into_iter().chain(self.trim_at).min()
    }

    /// When something is due for a source or the program.
    fn next_due(&self) -> Option<Instant> {
        [self.timers.next_due(), self.deadlines.next()].into_iter().flatten().min()
    }

    /// A host has asked, and sleeps by what it is told, unless the alarm watches for it.
    pub(super) fn tell(&mut self, remote: &Remote, has_alarm: bool) {
        let thread = thread::current().id();
        let is_stopped = remote.is_stopped();
        let until = if is_stopped { None } else { self.next_deadline() };
        self.told = (!has_alarm).then_some(Told { until, thread });
        if is_stopped && !self.aware.contains(&thread) {
            remote.ring(); // that there is no deadline does not say why
        }
    }

    /// From now on the alarm watches.
    pub(super) fn forget_told(&mut self) {
        self.told = None;
    }

    /// Whether a host may sleep longer than it should. That is so until it asks again; but where it may be
    /// this thread that has asked, this is said once: it may have polled just now, and not ask.
    pub(super) fn misleads(&mut self) -> bool {
        let Some(told) = &self.told else { return false };
        let next = self.next_due(); // memory may wait until it asks
        let is_misled = next.is_some_and(|next| told.until.is_none_or(|until| next < until));
        if is_misled && told.thread == thread::current().id() {
            self.told = None;
        }
        is_misled
    }

    /// This thread has found the loop stopped. Returns whether a host is to be told, from which it may have
    /// taken the word of that: once for each thread, and as long as the one that has asked is not aware of it.
    pub(super) fn find_stopped(&mut self) -> bool {
        let thread = thread::current().id();
        let is_new = !self.aware.contains(&thread);
        if is_new {
            self.aware.truncate(MOST_AWARE - 1);
            self.aware.push(thread);
        }
        self.told.as_ref().is_some_and(|told| is_new || !self.aware.contains(&told.thread))
    }

    /// The loop is not stopped any more.
    pub(super) fn forget_stop(&mut self) {
        self.aware.clear();
    }

    /// What is due becomes ready, behind what has arrived: a pong that came in time counts.
    #[inline(never)]
    pub(super) fn expire(&mut self, now: Instant) {
        let Self { slots, deadlines, expired, ring, .. } = self;
        deadlines.expire(slots, now, expired);
        for index in expired.drain(..) {
            if slots.notify_slot(index, Events::DEADLINE) {
                ring.push_back(index);
            }
        }
        while let Some(f) = self.timers.take_due(now) {
            self.queue(Task::Due(f));
        }
    }
}
