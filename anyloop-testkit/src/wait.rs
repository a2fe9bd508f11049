//! Waiting: for a condition, or for time that must pass.

use std::thread;
use std::time::Duration;

/// How long [`eventually`] and a [`Peer`](crate::peer::Peer) wait for what must happen. Only a test that
/// fails waits so long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait before a condition is looked at again.
const STEP: Duration = Duration::from_millis(1);

/// Waits until the condition holds, for what other threads do and no event reports.
///
/// # Panics
///
/// If it does not hold within [`PATIENCE`]. `what` says what was waited for.
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    eventually_within(PATIENCE, what, condition);
}

/// [`eventually`] with another deadline. It is measured in steps of a millisecond, not by the clock: a
/// process that was stopped for a while has not missed it.
///
/// # Panics
///
/// If the condition does not hold by then.
#[track_caller]
pub fn eventually_within(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let steps = deadline.as_nanos() / STEP.as_nanos();
    for _ in 0..steps {
        if condition() {
            return;
        }
        thread::sleep(STEP);
    }
    assert!(condition(), "waited in vain for {deadline:?}: {what}");
}

/// Lets time pass where a test needs that, and not an event: something must not happen earlier, or a
/// deadline must be over. `reason` says which.
///
/// # Panics
///
/// If there is no reason.
#[track_caller]
pub fn let_time_pass(time: Duration, reason: &str) {
    assert!(!reason.is_empty(), "time passes without a reason");
    thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_looked_at_until_it_holds() {
        let mut looks = 0;
        eventually("the third look", || {
            looks += 1;
            looks == 3
        });
        assert_eq!(looks, 3);
    }

    #[test]
    #[should_panic(expected = "waited in vain for 3ms: nothing")]
    fn a_condition_that_does_not_hold_fails_the_test() {
        eventually_within(Duration::from_millis(3), "nothing", || false);
    }
}
