//! Waits for a condition, for a thread that sleeps, or for time to pass.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long [`eventually`] and a [`Peer`](crate::peer::Peer) wait before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The time between two evaluations of a condition.
const STEP: Duration = Duration::from_millis(1);

/// Waits until the condition holds. For effects of other threads that no event reports.
///
/// # Panics
///
/// If it does not hold within [`PATIENCE`]. The message has `what`, a description of the condition.
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    eventually_within(PATIENCE, what, condition);
}

/// [`eventually`] with another limit. It is counted in sleeps of one millisecond and not by the clock, so that
/// the condition has as many evaluations if the process is stopped for a while.
///
/// # Panics
///
/// If the condition does not hold within the limit.
#[track_caller]
pub fn eventually_within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let steps = limit.as_nanos() / STEP.as_nanos();
    for _ in 0..steps {
        if condition() {
            return;
        }
        thread::sleep(STEP);
    }
    assert!(condition(), "not reached within {limit:?}: {what}");
}

/// Sleeps. For tests that cannot wait for an event, since something must not happen meanwhile or a deadline must
/// pass; `reason` states which.
///
/// # Panics
///
/// If the reason is empty.
#[track_caller]
pub fn let_time_pass(time: Duration, reason: &str) {
    assert!(!reason.is_empty(), "a sleep in a test needs a reason");
    thread::sleep(time);
}

/// A thread on which another can wait until it sleeps, for example in a call that waits for events.
///
/// On Linux, the state of the thread is read from `/proc`. Elsewhere [`until_asleep`](Self::until_asleep) sleeps for
/// a fixed time: tests must not depend on it to succeed, since the thread may not be asleep then.
#[derive(Clone, Debug)]
pub struct ThreadProbe(Option<PathBuf>);

impl ThreadProbe {
    /// The current thread.
    #[must_use]
    pub fn current() -> Self {
        let thread = fs::read_link("/proc/thread-self").ok();
        Self(thread.map(|thread| Path::new("/proc").join(thread).join("stat")))
    }

    /// The main thread of another process.
    #[must_use]
    pub fn main_of(process: u32) -> Self {
        let stat = Path::new("/proc").join(process.to_string()).join("stat");
        Self(stat.exists().then_some(stat))
    }

    /// Waits until the thread sleeps, or has ended.
    ///
    /// # Panics
    ///
    /// If neither happens within [`PATIENCE`].
    #[track_caller]
    pub fn until_asleep(&self) {
        let Some(stat) = &self.0 else {
            return let_time_pass(Duration::from_millis(20), "the thread sleeps");
        };
        // In two successive evaluations, since a thread may sleep briefly in a lock.
        let mut evaluations = 0;
        eventually("the thread sleeps", || {
            evaluations = if is_asleep(stat) { evaluations + 1 } else { 0 };
            evaluations == 2
        });
    }
}

/// The state is the first field after the name, which is in parentheses (proc_pid_stat(5)).
fn is_asleep(stat: &Path) -> bool {
    match fs::read_to_string(stat) {
        Ok(stat) => stat.rsplit(") ").next().is_some_and(|fields| fields.starts_with('S')),
        Err(_) => true, // the thread has ended
    }
}

/// A thread of [`spawn`].
#[derive(Debug)]
pub struct Spawned<T> {
    thread: JoinHandle<T>,
    probe: ThreadProbe,
}

/// Spawns a thread on which others can wait until it sleeps.
///
/// # Panics
///
/// If the system cannot create a thread.
pub fn spawn<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Spawned<T> {
    let (sender, receiver) = channel();
    let thread = thread::spawn(move || {
        let _ = sender.send(ThreadProbe::current());
        f()
    });
    Spawned { thread, probe: receiver.recv().expect("the thread starts") }
}

impl<T> Spawned<T> {
    /// Waits until the thread sleeps, or has ended: see [`ThreadProbe::until_asleep`].
    ///
    /// # Panics
    ///
    /// If neither happens within [`PATIENCE`].
    #[track_caller]
    pub fn until_asleep(&self) {
        self.probe.until_asleep();
    }

    /// Waits until the thread has ended.
    ///
    /// # Errors
    ///
    /// The payload of its panic.
    pub fn join(self) -> thread::Result<T> {
        self.thread.join()
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_condition_is_evaluated_until_it_holds() {
        let mut evaluations = 0;
        eventually("the third evaluation", || {
            evaluations += 1;
            evaluations == 3
        });
        assert_eq!(evaluations, 3);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_sleeping_thread_is_detected() {
        let (busy, (end, ended)) = (Arc::new(AtomicBool::new(true)), channel::<()>());
        let is_busy = busy.clone();
        let thread = spawn(move || {
            while is_busy.load(Ordering::Relaxed) {}
            ended.recv()
        });
        assert!(!is_asleep(thread.probe.0.as_ref().unwrap()));
        busy.store(false, Ordering::Relaxed);
        thread.until_asleep();
        assert!(!thread.is_finished());
        drop(end);
        assert!(thread.join().unwrap().is_err());
        let ended = spawn(|| 7);
        ended.until_asleep();
        assert_eq!(ended.join().unwrap(), 7);
    }

    #[test]
    #[should_panic(expected = "not reached within 3ms: nothing")]
    fn a_condition_that_does_not_hold_fails_the_test() {
        eventually_within(Duration::from_millis(3), "nothing", || false);
    }
}
