//! Handles of timers, for the application.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyloop_proto::Instant;

use super::clock::now;
use super::control::{Command, LoopControl};
use super::timers::{OnCancel, TimerKey};
use crate::sync::unmodelled::Mutex;

/// A handle of a timer. Dropping the handle does not cancel the timer.
///
/// ```
/// use anyloop::EventLoop;
/// use anyloop::event_loop::Aborted;
/// use std::time::Duration;
///
/// let event_loop = EventLoop::new()?;
/// let hour = Duration::from_secs(3600);
/// let timer = event_loop.set_timer_then(hour, |result| assert_eq!(result, Err(Aborted)));
/// timer.cancel();
/// assert_eq!(event_loop.run(), 1); // at once
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Timer {
    control: Arc<LoopControl>,
    state: Arc<TimerState>,
}

struct TimerState {
    /// The key of the timer in the loop. That of a repeating timer changes with each call of its function.
    key: Mutex<TimerKey>,
    on_cancel: OnCancel,
    cancelled: AtomicBool,
}

impl Timer {
    pub(super) fn new(control: Arc<LoopControl>, key: TimerKey, on_cancel: OnCancel) -> Self {
        let (key, cancelled) = (Mutex::new(key), AtomicBool::new(false));
        let state = TimerState { key, on_cancel, cancelled };
        Self { control, state: Arc::new(state) }
    }

    /// Cancels the timer: the loop drops its function as soon as possible. A function that was set by `set_timer_then`
    /// is called with [`Aborted`](super::Aborted) instead. A call that is about to be made may still be made, with
    /// `Ok`, as the last one. Does nothing if a timer that does not repeat has called its function.
    pub fn cancel(&self) {
        if !self.state.cancelled.swap(true, Ordering::Relaxed) {
            self.remove();
        }
    }

    /// Removes the timer from the loop if it was cancelled while it was set again.
    pub(super) fn remove_if_cancelled(&self) {
        if self.state.cancelled.load(Ordering::Relaxed) {
            self.remove();
        }
    }

    fn remove(&self) {
        let command = Command::CancelTimer(self.key(), self.state.on_cancel);
        let _ = self.control.send(command); // a loop that was dropped has no timers
    }

    fn key(&self) -> TimerKey {
        *self.state.key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").finish_non_exhaustive()
    }
}

/// The shortest period of a repeating timer.
const SHORTEST_PERIOD: Duration = Duration::from_millis(1);

/// The schedule of a function that is called periodically.
pub(super) struct Repeating {
    timer: Timer,
    due: Instant,
    period: Duration,
}

impl Repeating {
    pub(super) fn new(control: Arc<LoopControl>, period: Duration) -> Self {
        let due = now();
        let timer = Timer::new(control, TimerKey { due, number: 0 }, OnCancel::Drop);
        Self { timer, due, period: period.max(SHORTEST_PERIOD) }
    }

    pub(super) fn timer(&self) -> Timer {
        self.timer.clone()
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.timer.state.cancelled.load(Ordering::Relaxed)
    }

    /// Moves the timer to the next call. Calls that were missed are skipped.
    pub(super) fn schedule_next(&mut self) -> TimerKey {
        let now = now();
        self.due = self.due + self.period;
        if self.due < now {
            let missed = (now - self.due).as_nanos() / self.period.as_nanos() + 1;
            let missed = u32::try_from(missed).unwrap_or(u32::MAX);
            self.due = self.due + self.period.saturating_mul(missed);
        }
        let number = self.timer.control.new_timer_number();
        let key = TimerKey { due: self.due, number };
        *self.timer.state.key.lock().unwrap_or_else(PoisonError::into_inner) = key;
        key
    }
}
