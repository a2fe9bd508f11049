//! Fails a test that hangs, and reports its name.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// A test that takes longer counts as hanging. It exceeds [`PATIENCE`](crate::wait::PATIENCE), the limit for one
/// event.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Limits the time of a test, until this value is dropped: see [`watchdog`].
#[derive(Debug)]
#[must_use]
pub struct Watchdog(#[expect(dead_code, reason = "dropping it ends the watchdog")] Sender<()>);

/// Ends the process, and so all its tests, if this test takes longer than [`LIMIT`]. For tests that borrow from their
/// caller, or must stay on their thread; others use [`within_time`]. The reported name is that of the thread.
pub fn watchdog() -> Watchdog {
    let (alive, ended) = channel::<()>();
    let name = thread::current().name().unwrap_or("a test").to_owned();
    thread::spawn(move || {
        if ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs");
            std::process::exit(101);
        }
    });
    Watchdog(alive)
}

/// Runs a test on its own thread. Fails only this test if it takes longer than [`LIMIT`].
///
/// # Panics
///
/// If the test panics or takes longer than the limit.
#[track_caller]
pub fn within_time(test: impl FnOnce() + Send + 'static) {
    within(LIMIT, test);
}

/// [`within_time`] with another limit.
///
/// # Panics
///
/// If the test panics or takes longer than the limit.
#[track_caller]
pub fn within(limit: Duration, test: impl FnOnce() + Send + 'static) {
    let (done, is_done) = channel();
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let builder = thread::Builder::new().name(name.clone());
    let thread = builder.spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(test));
        let _ = done.send(()); // fails if the limit has passed
        if let Err(panic) = result {
            resume_unwind(panic);
        }
    });
    let thread = thread.expect("the system can create a thread");
    assert!(is_done.recv_timeout(limit).is_ok(), "{name} hangs");
    if let Err(panic) = thread.join() {
        resume_unwind(panic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "a_test_that_hangs_fails hangs")]
    fn a_test_that_hangs_fails() {
        within(Duration::from_millis(5), || {
            loop {
                thread::park();
            }
        });
    }

    #[test]
    #[should_panic(expected = "panic of the test")]
    fn a_panic_is_propagated() {
        within_time(|| panic!("panic of the test"));
    }

    #[test]
    fn a_test_that_ends_in_time_passes() {
        let _watchdog = watchdog();
        within_time(|| ());
    }
}
