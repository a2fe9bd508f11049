//! The part of a loop that any thread may use.

use std::sync::atomic::{AtomicU64, AtomicUsize as UnmodelledUsize};
use std::sync::{Arc, PoisonError};
use std::task::{Wake, Waker};

use super::events::{Events, Token};
use super::reactor;
use super::timers::{Aborted, OnCancel, TimerKey};
use super::wakeup::Notifier;
use crate::running::{self, RunningMark};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Flag, Mutex, MutexGuard, SharedBool};

/// The capacity, in entries, that an empty queue keeps.
pub(super) const KEPT_CAPACITY: usize = 4096;

/// A request of another thread, or of a handler, to the loop.
pub(super) enum Command {
    /// Calls a function of the application's.
    Post(Box<dyn FnOnce() + Send>),
    Wake(Token),
    WakeAll(Vec<Token>),
    /// Adds events that the wake-up thread has received from the reactor for this source.
    Events(Token, Events),
    SetTimer(TimerKey, Box<dyn FnOnce(Result<(), Aborted>) + Send>),
    CancelTimer(TimerKey, OnCancel),
}

/// The part of a loop that any thread may use: a queue of commands, the count of work, and flags.
pub(crate) struct LoopControl {
    /// Unique among the loops of this process.
    id: u64,
    commands: Mutex<CommandQueue>,
    /// The queue of commands is not empty.
    has_commands: AtomicBool,
    notifier: Notifier,
    stopped: Flag,
    /// Run calls end when this is zero.
    work: AtomicUsize,
    /// The number of [`IdleListener`]s. Only a warning depends on it, so it is not modelled.
    idle_listeners: UnmodelledUsize,
    /// The number of the next timer.
    next_timer: AtomicU64,
}

#[derive(Default)]
struct CommandQueue {
    commands: Vec<Command>,
    /// The loop is gone.
    closed: bool,
}

impl LoopControl {
    pub(super) fn new(waker: reactor::Waker) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            commands: Mutex::default(),
            has_commands: AtomicBool::new(false),
            notifier: Notifier::new(waker),
            stopped: Flag::default(),
            work: AtomicUsize::new(0),
            idle_listeners: UnmodelledUsize::new(0),
            next_timer: AtomicU64::new(0),
        }
    }

    // For any thread.

    /// Queues a command. Returns it if the loop is gone.
    pub(super) fn send(&self, command: Command) -> Result<(), Command> {
        let mut queue = self.queue();
        if queue.closed {
            return Err(command);
        }
        // A command that calls the application's code is work until it is done.
        if matches!(command, Command::Post(_) | Command::SetTimer(..)) {
            self.add_work();
        }
        queue.commands.push(command);
        self.has_commands.store(true, Ordering::SeqCst);
        drop(queue);
        self.notify();
        Ok(())
    }

    /// Wakes a source. Does nothing if the source is gone.
    pub(crate) fn wake(&self, token: Token) {
        let _ = self.send(Command::Wake(token));
    }

    /// Wakes these sources.
    pub(crate) fn wake_all(&self, tokens: Vec<Token>) {
        let _ = self.send(Command::WakeAll(tokens));
    }

    /// Wakes the thread that would otherwise not notice a change: see [`wakeup`](super::wakeup).
    pub(super) fn notify(&self) {
        self.notifier.notify();
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.notify();
    }

    /// Stops the loop if it is out of work. Logs a warning then if a listener does not accept, which may be why.
    pub(super) fn stop_if_out_of_work(&self) {
        if self.has_work() {
            return;
        }
        let was_stopped = self.stopped.swap(true, Ordering::SeqCst);
        if !was_stopped && self.idle_listeners.load(Ordering::Relaxed) > 0 {
            crate::log::warn!(
                "the event loop is out of work, but a server listens and does not accept: call start_accept"
            );
        }
        self.notify();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    pub(super) fn clear_stopped(&self) {
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
            self.notify(); // run calls that wait must return
        }
    }

    pub(super) fn has_work(&self) -> bool {
        self.work.load(Ordering::SeqCst) > 0
    }

    /// Whether run calls should return: the loop is stopped, or out of work.
    pub(super) fn should_return(&self) -> bool {
        self.is_stopped() || !self.has_work()
    }

    /// Whether the loop is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.queue().closed
    }

    /// Takes a number for a timer: no other timer of this loop has it.
    pub(super) fn new_timer_number(&self) -> u64 {
        self.next_timer.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether this thread is inside a run call of this loop.
    pub(super) fn running_in_this_thread(&self) -> bool {
        running::runs(self.id)
    }

    // For the loop.

    pub(super) const fn notifier(&self) -> &Notifier {
        &self.notifier
    }

    /// This thread begins a run call, which ends when the mark is dropped.
    pub(super) fn mark_running(&self) -> RunningMark {
        RunningMark::new(self.id)
    }

    pub(super) fn has_commands(&self) -> bool {
        self.has_commands.load(Ordering::SeqCst)
    }

    /// Appends the queued commands to `commands`. The memory of a burst is not kept.
    pub(super) fn take_commands(&self, commands: &mut Vec<Command>) {
        let mut queue = self.queue();
        self.has_commands.store(false, Ordering::SeqCst);
        commands.append(&mut queue.commands);
        queue.commands.shrink_to(KEPT_CAPACITY);
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn capacity(&self) -> usize {
        self.queue().commands.capacity()
    }

    /// The loop is gone. Returns the queued commands, which the caller drops where it holds no lock.
    pub(super) fn close(&self) -> Vec<Command> {
        let mut queue = self.queue();
        queue.closed = true;
        core::mem::take(&mut queue.commands)
    }

    /// Locks the queue, even after a panic under the lock: each step leaves the queue valid.
    fn queue(&self) -> MutexGuard<'_, CommandQueue> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A listener that does not accept: it is no work of the loop. While there is one, a loop that stops because it is out
/// of work logs a warning.
pub(crate) struct IdleListener(Arc<LoopControl>);

impl IdleListener {
    pub(crate) fn new(control: Arc<LoopControl>) -> Self {
        control.idle_listeners.fetch_add(1, Ordering::Relaxed);
        Self(control)
    }
}

impl Drop for IdleListener {
    fn drop(&mut self) {
        self.0.idle_listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Wakes one source of a loop.
struct SourceWaker {
    control: Arc<LoopControl>,
    token: Token,
}

impl Wake for SourceWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.control.wake(self.token);
    }
}

/// The waker of a source, for any thread.
pub(crate) fn waker(control: &Arc<LoopControl>, token: Token) -> Waker {
    Arc::new(SourceWaker { control: control.clone(), token }).into()
}
