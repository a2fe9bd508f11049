//! The CPU time of the server.

use std::fs;
use std::io;
use std::ops::{AddAssign, Sub};
use std::thread;
use std::time::Duration;

/// The scheduling times of all threads of a process, in total or within an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    /// The time on a processor, in user space and in the kernel.
    pub(crate) cpu: Duration,
    /// The time in which they were ready to run but did not run.
    pub(crate) wait: Duration,
}

impl AddAssign for Times {
    fn add_assign(&mut self, other: Self) {
        self.cpu += other.cpu;
        self.wait += other.wait;
    }
}

impl Sub for Times {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            wait: self.wait.saturating_sub(earlier.wait),
        }
    }
}

/// The times of all threads of a process so far.
///
/// They are the first two fields of `/proc/PID/task/*/schedstat`, in nanoseconds. While a thread runs, the kernel
/// updates them only at each tick (some milliseconds); while it sleeps, they are exact. Threads that have ended are
/// not included.
pub(crate) fn times(pid: u32) -> io::Result<Times> {
    let mut times = Times::default();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // The thread may have ended.
        let Ok(schedstat) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        times += parse(&schedstat)
            .ok_or_else(|| io::Error::other(format!("schedstat of {pid}: {schedstat:?}")))?;
    }
    Ok(times)
}

/// [`times`] when they no longer change, since the server sleeps. After 50 ms the current times are returned, for a
/// server that never sleeps.
pub(crate) fn times_at_rest(pid: u32) -> io::Result<Times> {
    let mut before = times(pid)?;
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(5));
        let now = times(pid)?;
        if now == before {
            break;
        }
        before = now;
    }
    Ok(before)
}

fn parse(schedstat: &str) -> Option<Times> {
    let mut fields = schedstat.split_whitespace().map(str::parse);
    let mut next = || Some(Duration::from_nanos(fields.next()?.ok()?));
    Some(Times { cpu: next()?, wait: next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_uses_cpu_time() {
        let pid = std::process::id();
        let before = times(pid).unwrap();
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        assert!(times(pid).unwrap().cpu > before.cpu);
    }

    #[test]
    fn fields_of_schedstat() {
        let times = Times { cpu: Duration::from_nanos(5), wait: Duration::from_nanos(7) };
        assert_eq!(parse("5 7 1\n"), Some(times));
        assert_eq!(parse("5\n"), None);
    }

    #[test]
    fn no_such_process() {
        assert!(times(u32::MAX).is_err());
    }
}
