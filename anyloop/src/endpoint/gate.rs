//! How much of the program may still be called in one drive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How many handlers, or other functions of the program, may still be called in this drive, and
/// whether somebody said stop.
///
/// Whoever runs sessions sets its bounds in the [`Scratch`](super::Scratch) that it lends them. A session
/// takes a place before each call; where the gate is closed the call is left for
/// [`Session::proceed`](super::Session::proceed). Completions of messages are not counted and not
/// bounded: they are part of writing.
#[derive(Debug)]
pub(crate) struct Gate {
    left: u64,
    stop: Option<Arc<AtomicBool>>,
    until: Option<Instant>,
    /// What `left` was at first.
    granted: u64,
}

impl Gate {
    /// No bound at all.
    pub(crate) const fn open() -> Self {
        Self { left: u64::MAX, stop: None, until: None, granted: u64::MAX }
    }

    /// Closes when `stop` is true, and has no other bound yet.
    pub(crate) const fn new(stop: Arc<AtomicBool>) -> Self {
        Self { left: u64::MAX, stop: Some(stop), until: None, granted: u64::MAX }
    }

    /// Sets the bounds of one drive, which begins now.
    pub(crate) const fn set(&mut self, left: u64, until: Option<Instant>) {
        (self.left, self.granted, self.until) = (left, left, until);
    }

    /// How many calls there were since the bounds were set.
    pub(crate) const fn called(&self) -> u64 {
        self.granted - self.left
    }

    /// Takes a place for one call, if there is one.
    #[inline]
    pub(crate) fn pass(&mut self) -> bool {
        let open = self.is_open();
        if open {
            self.take();
        }
        open
    }

    /// Whether there is a place. The clock is only read where there is a bound in time.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.left > 0
            && self.stop.as_ref().is_none_or(|stop| !stop.load(Ordering::Acquire))
            && self.until.is_none_or(|until| Instant::now() < until)
    }

    /// Takes a place, of which it was asked whether it is there: what happens is only known once it has
    /// happened, and then it must be told.
    #[inline]
    pub(crate) const fn take(&mut self) {
        self.left -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_gate_counts_and_never_closes() {
        let mut gate = Gate::open();
        assert!((0..1000).all(|_| gate.pass()));
        assert_eq!(gate.called(), 1000);
    }

    #[test]
    fn it_closes_when_the_places_are_taken() {
        let mut gate = Gate::open();
        gate.set(2, None);
        assert!(gate.pass() && gate.pass());
        assert!(!gate.pass() && !gate.is_open());
        assert_eq!(gate.called(), 2);
        gate.set(1, None);
        assert_eq!(gate.called(), 0);
        assert!(gate.pass() && !gate.pass());
    }

    #[test]
    fn it_closes_when_somebody_says_stop() {
        let stop = Arc::new(AtomicBool::new(false));
        let mut gate = Gate::new(stop.clone());
        assert!(gate.pass());
        stop.store(true, Ordering::Release);
        assert!(!gate.pass());
        gate.set(7, None); // a new drive is stopped as well
        assert!(!gate.pass());
    }

    #[test]
    fn it_closes_when_the_time_is_up() {
        let mut gate = Gate::open();
        let now = Instant::now();
        gate.set(5, Some(now + std::time::Duration::from_secs(1000)));
        assert!(gate.pass());
        gate.set(5, Some(now));
        assert!(!gate.pass());
    }
}
