//! The application's timers.

use std::collections::BTreeMap;

use anyloop_proto::Instant;

/// The timer was cancelled.
///
/// See [`EventLoop::set_timer_then`](super::EventLoop::set_timer_then).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the timer was cancelled")]
#[expect(clippy::exhaustive_structs, reason = "there is nothing more to say")]
pub struct Aborted;

/// What becomes of the function of a timer that is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnCancel {
    /// It is called with [`Aborted`].
    Call,
    Drop,
}

/// Identifies a timer, and orders timers by the time when they are due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TimerKey {
    pub(super) due: Instant,
    /// Unique among the timers of the loop, and larger for timers that are set later.
    pub(super) number: u64,
}

/// The timers of a loop, ordered by the time when they are due, and then as they were set.
pub(super) struct Timers<F: ?Sized>(BTreeMap<TimerKey, Box<F>>);

impl<F: ?Sized> Timers<F> {
    pub(super) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    pub(super) fn set(&mut self, key: TimerKey, f: Box<F>) {
        self.0.insert(key, f);
    }

    pub(super) fn take(&mut self, key: TimerKey) -> Option<Box<F>> {
        self.0.remove(&key)
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.0.first_key_value().map(|(key, _)| key.due)
    }

    pub(super) fn take_due(&mut self, now: Instant) -> Option<Box<F>> {
        let first = self.0.first_entry()?;
        (first.key().due <= now).then(|| first.remove())
    }

    /// Takes all functions. The caller drops them where it holds no lock.
    pub(super) fn take_all(&mut self) -> Vec<Box<F>> {
        core::mem::take(&mut self.0).into_values().collect()
    }
}
