//! A test that hangs fails, and its name is known.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// A test that takes longer hangs. It is longer than what a test waits for one event.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Watches a test until it is dropped: see [`watchdog`].
#[derive(Debug)]
#[must_use]
pub struct Watchdog(#[expect(dead_code, reason = "its end is the message")] Sender<()>);

/// Ends the process, and with it all tests, if this test takes longer than [`LIMIT`]. For tests that
/// borrow, or must stay on their thread. The name is the one of the thread.
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

/// Runs a test on a thread of its own, and fails only this test if it takes longer than [`LIMIT`].
///
/// # Panics
///
/// As the test does, or because it hangs.
#[track_caller]
pub fn within_time(test: impl FnOnce() + Send + 'static) {
    within(LIMIT, test);
}

/// [`within_time`] with another limit.
///
/// # Panics
///
/// As the test does, or because it hangs.
#[track_caller]
pub fn within(limit: Duration, test: impl FnOnce() + Send + 'static) {
    let (done, is_done) = channel();
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let builder = thread::Builder::new().name(name.clone());
    let thread = builder.spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(test));
        let _ = done.send(()); // nobody waits any more if it hung
        if let Err(panic) = result {
            resume_unwind(panic);
        }
    });
    let thread = thread.expect("the system has a thread left");
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
    #[should_panic(expected = "of its own")]
    fn a_panic_is_passed_on() {
        within_time(|| panic!("of its own"));
    }

    #[test]
    fn a_test_that_ends_is_left_alone() {
        let _watchdog = watchdog();
        within_time(|| ());
    }
}
