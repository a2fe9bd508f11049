//! Waiting: for a condition, for a thread that waits itself, or for time that must pass.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
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

/// A thread that others can wait for until it sleeps: in a run call that waits for events, say.
///
/// On Linux the kernel is asked. Elsewhere some time passes, which makes tests sharper, not sounder.
#[derive(Clone, Debug)]
pub struct ThreadProbe(Option<PathBuf>);

impl ThreadProbe {
    /// The thread that calls this.
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
    /// If it does neither within [`PATIENCE`].
    #[track_caller]
    pub fn until_asleep(&self) {
        let Some(stat) = &self.0 else {
            return let_time_pass(Duration::from_millis(20), "the thread goes to sleep");
        };
        // Twice in a row, since a thread may wait for a lock for a moment.
        let mut looks = 0;
        eventually("the thread goes to sleep", || {
            looks = if is_asleep(stat) { looks + 1 } else { 0 };
            looks == 2
        });
    }
}

/// The state is the first field behind the name, which is in parentheses (proc_pid_stat(5)).
fn is_asleep(stat: &Path) -> bool {
    match fs::read_to_string(stat) {
        Ok(stat) => stat.rsplit(") ").next().is_some_and(|fields| fields.starts_with('S')),
        Err(_) => true, // it has ended
    }
}

/// A thread of [`spawn`].
#[derive(Debug)]
pub struct Spawned<T> {
    thread: JoinHandle<T>,
    probe: ThreadProbe,
}

/// Spawns a thread that others can wait for until it sleeps.
///
/// # Panics
///
/// If the system has no thread left.
pub fn spawn<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Spawned<T> {
    let (tell, told) = channel();
    let thread = thread::spawn(move || {
        let _ = tell.send(ThreadProbe::current());
        f()
    });
    Spawned { thread, probe: told.recv().expect("the thread begins") }
}

impl<T> Spawned<T> {
    /// Waits until the thread sleeps, or has ended: see [`ThreadProbe::until_asleep`].
    ///
    /// # Panics
    ///
    /// If it does neither within [`PATIENCE`].
    #[track_caller]
    pub fn until_asleep(&self) {
        self.probe.until_asleep();
    }

    /// Waits until the thread has ended.
    ///
    /// # Errors
    ///
    /// It has panicked.
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
    fn a_condition_is_looked_at_until_it_holds() {
        let mut looks = 0;
        eventually("the third look", || {
            looks += 1;
            looks == 3
        });
        assert_eq!(looks, 3);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_is_seen_asleep() {
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
    #[should_panic(expected = "waited in vain for 3ms: nothing")]
    fn a_condition_that_does_not_hold_fails_the_test() {
        eventually_within(Duration::from_millis(3), "nothing", || false);
    }
}
