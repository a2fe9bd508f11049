//! The budget of handler calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How many handlers one call of the driver may still call. It can also have an end time and a stop flag.
///
/// A session checks it before each call of a handler. A handler that the budget does not allow is called later, when
/// the driver [resumes](super::Driver::resume). Completions of messages are not counted: they are part of writing.
///
/// ```
/// use anyloop::transport::Budget;
///
/// let mut budget = Budget::unlimited();
/// budget.set(2, None);
/// assert!(budget.try_spend() && budget.try_spend());
/// assert!(!budget.try_spend());
/// assert_eq!(budget.spent(), 2);
/// ```
#[derive(Debug)]
pub struct Budget {
    left: u64,
    stop: Option<Arc<AtomicBool>>,
    until: Option<Instant>,
    /// The initial value of `left`.
    granted: u64,
}

impl Budget {
    /// A budget without a limit.
    #[must_use]
    pub const fn unlimited() -> Self {
        Self { left: u64::MAX, stop: None, until: None, granted: u64::MAX }
    }

    /// A budget that is spent once `stop` is true. It has no other limit before [`set`](Self::set).
    #[must_use]
    pub const fn until_stopped(stop: Arc<AtomicBool>) -> Self {
        Self { left: u64::MAX, stop: Some(stop), until: None, granted: u64::MAX }
    }

    /// Allows `handlers` calls of handlers from now on, and none that would begin at `until` or later.
    pub const fn set(&mut self, handlers: u64, until: Option<Instant>) {
        (self.left, self.granted, self.until) = (handlers, handlers, until);
    }

    /// The number of calls since [`set`](Self::set), or since the budget was created.
    #[must_use]
    pub const fn spent(&self) -> u64 {
        self.granted - self.left
    }

    /// Counts one call if the budget allows it. Returns whether it does.
    #[inline]
    pub fn try_spend(&mut self) -> bool {
        let allowed = !self.is_spent();
        if allowed {
            self.spend();
        }
        allowed
    }

    /// Whether no handler may be called any more. The clock is read only if there is an end time.
    #[inline]
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.left == 0
            || self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Acquire))
            || self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// Counts one call after [`is_spent`](Self::is_spent) has returned false. A protocol must check before it takes an
    /// event, since the handler of an event that was taken must be called.
    #[inline]
    pub const fn spend(&mut self) {
        self.left = self.left.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_bound_it_counts_and_is_never_spent() {
        let mut budget = Budget::unlimited();
        assert!((0..1000).all(|_| budget.try_spend()));
        assert_eq!(budget.spent(), 1000);
    }

    #[test]
    fn it_is_spent_when_the_calls_are_made() {
        let mut budget = Budget::unlimited();
        budget.set(2, None);
        assert!(budget.try_spend() && budget.try_spend());
        assert!(!budget.try_spend() && budget.is_spent());
        assert_eq!(budget.spent(), 2);
        budget.set(1, None);
        assert_eq!(budget.spent(), 0);
        assert!(budget.try_spend() && !budget.try_spend());
    }

    #[test]
    fn it_is_spent_when_it_is_stopped() {
        let stop = Arc::new(AtomicBool::new(false));
        let mut budget = Budget::until_stopped(stop.clone());
        assert!(budget.try_spend());
        stop.store(true, Ordering::Release);
        assert!(!budget.try_spend());
        budget.set(7, None); // a new call is stopped as well
        assert!(!budget.try_spend());
    }

    #[test]
    fn it_is_spent_when_the_time_is_up() {
        let mut budget = Budget::unlimited();
        let now = Instant::now();
        budget.set(5, Some(now + std::time::Duration::from_secs(1000)));
        assert!(budget.try_spend());
        budget.set(5, Some(now));
        assert!(!budget.try_spend());
    }
}
