//! The side of a loop that any thread may touch.

use std::cell::RefCell;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError};
use std::task::{Wake, Waker};

use super::events::{Events, Token};
use super::reactor::Doorbell;
use super::timers::{Aborted, Key};
#[cfg(loom)]
use crate::sync::WithBorrow as _;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Flag, Mutex, MutexGuard, SharedBool, thread_local};

/// What comes from other threads, or from handlers.
pub(super) enum Mail {
    Run(Box<dyn FnOnce() + Send>),
    Wake(Token),
    WakeAll(Vec<Token>),
    /// What the alarm has seen in the host's stead.
    Ready(Token, Events),
    SetTimer(Key, Box<dyn FnOnce(Result<(), Aborted>) + Send>),
    CancelTimer(Key),
}

/// The side of a loop that any thread may touch: an inbox, and flags.
pub(crate) struct Remote {
    /// No other loop of this process has it.
    id: u64,
    inbox: Mutex<Inbox>,
    /// The inbox is not empty.
    has_mail: AtomicBool,
    /// Nobody would look into the inbox if the doorbell were not rung: the thread that waits for
    /// events sleeps, or no thread is inside a run call.
    asleep: AtomicBool,
    doorbell: Doorbell,
    stopped: Flag,
    /// What keeps the loop running.
    work: AtomicUsize,
    timers: AtomicU64,
}

#[derive(Default)]
struct Inbox {
    mail: Vec<Mail>,
    /// The loop is no more.
    closed: bool,
}

thread_local! {
    /// The loops that this thread runs, the innermost last.
    static RUNNING: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// This thread runs a loop until this is dropped.
pub(super) struct Inside;

impl Drop for Inside {
    fn drop(&mut self) {
        RUNNING.with_borrow_mut(|running| running.pop());
    }
}

impl Remote {
    pub(super) fn new(doorbell: Doorbell) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            inbox: Mutex::default(),
            has_mail: AtomicBool::new(false),
            asleep: AtomicBool::new(true),
            doorbell,
            stopped: Flag::default(),
            work: AtomicUsize::new(0),
            timers: AtomicU64::new(0),
        }
    }

    // For any thread.

    /// Puts something into the inbox. Gives it back if the loop is no more.
    pub(super) fn mail(&self, mail: Mail) -> Result<(), Mail> {
        let mut inbox = self.inbox();
        if inbox.closed {
            return Err(mail);
        }
        // Whatever calls program code keeps the loop running until it has.
        if matches!(mail, Mail::Run(_) | Mail::SetTimer(..)) {
            self.add_work();
        }
        inbox.mail.push(mail);
        self.has_mail.store(true, Ordering::SeqCst);
        drop(inbox);
        self.ring();
        Ok(())
    }

    /// Has a source called. One that is no more needs no call.
    pub(crate) fn wake(&self, token: Token) {
        let _ = self.mail(Mail::Wake(token));
    }

    /// Has these sources called.
    pub(crate) fn wake_all(&self, tokens: Vec<Token>) {
        let _ = self.mail(Mail::WakeAll(tokens));
    }

    /// Rings the doorbell, unless somebody looks into the inbox anyway.
    pub(super) fn ring(&self) {
        // Only one of many needs to.
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.doorbell.ring();
        }
    }

    /// Rings the doorbell for whoever waits at the sockets.
    pub(super) fn ring_anyway(&self) {
        self.doorbell.ring();
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.ring();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    pub(super) fn unstop(&self) {
        self.stopped.store(false, Ordering::SeqCst);
    }

    pub(super) fn stop_flag(&self) -> &SharedBool {
        &self.stopped
    }

    pub(crate) fn add_work(&self) {
        self.work.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn finish_work(&self) {
        if self.work.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.ring(); // who sleeps has nothing to wait for
        }
    }

    pub(super) fn has_work(&self) -> bool {
        self.work.load(Ordering::SeqCst) > 0
    }

    pub(super) fn is_closed(&self) -> bool {
        self.inbox().closed
    }

    /// A number for a timer.
    pub(super) fn number_timer(&self) -> u64 {
        self.timers.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether this thread is inside a run call of this loop.
    pub(super) fn is_inside(&self) -> bool {
        RUNNING.with_borrow(|running| running.contains(&self.id))
    }

    // For the loop.

    pub(super) fn enter(&self) -> Inside {
        RUNNING.with_borrow_mut(|running| running.push(self.id));
        Inside
    }

    pub(super) fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::SeqCst)
    }

    /// Moves what has come to the end of `mail`.
    pub(super) fn take_mail(&self, mail: &mut Vec<Mail>) {
        let mut inbox = self.inbox();
        self.has_mail.store(false, Ordering::SeqCst);
        mail.append(&mut inbox.mail);
    }

    /// From now on the doorbell is needed, or is not.
    pub(super) fn set_asleep(&self, asleep: bool) {
        self.asleep.store(asleep, Ordering::SeqCst);
    }

    pub(super) fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::SeqCst)
    }

    /// The loop is no more: what has come is given back, to be dropped.
    pub(super) fn close(&self) -> Vec<Mail> {
        let mut inbox = self.inbox();
        inbox.closed = true;
        core::mem::take(&mut inbox.mail)
    }

    #[cfg(all(test, loom))]
    pub(super) const fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }

    /// A panic elsewhere leaves the inbox as it was: each change is one push or one swap.
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes one source of a loop.
struct Rouse {
    remote: Arc<Remote>,
    token: Token,
}

impl Wake for Rouse {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.remote.wake(self.token);
    }
}

/// What wakes this source, from any thread.
pub(crate) fn waker(remote: &Arc<Remote>, token: Token) -> Waker {
    Arc::new(Rouse { remote: remote.clone(), token }).into()
}
