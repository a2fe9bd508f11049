//! Running a loop until a condition holds, and the log of handlers.

use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyloop::prelude::*;
use anyloop_testkit::wait::PATIENCE;
use mio::unix::SourceFd;

/// A time that no test lets pass.
pub(crate) const FAR: Duration = Duration::from_secs(3600);

/// Runs the loop until the condition holds. Returns how many handlers ran.
#[track_caller]
pub(crate) fn drive(event_loop: &EventLoop, what: &str, mut is_so: impl FnMut() -> bool) -> usize {
    let (begun, mut ran) = (Instant::now(), 0);
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "ran in vain: {what}");
        ran += event_loop.run_for(Duration::from_millis(1));
        assert!(!event_loop.stopped() || is_so(), "the loop has stopped before: {what}");
    }
    ran
}

/// Whether the descriptor becomes readable in this time.
pub(crate) fn is_readable(source: &impl AsFd, timeout: Duration) -> bool {
    let mut poll = mio::Poll::new().unwrap();
    let fd = source.as_fd().as_raw_fd();
    poll.registry().register(&mut SourceFd(&fd), mio::Token(0), mio::Interest::READABLE).unwrap();
    let mut events = mio::Events::with_capacity(1);
    let end = Instant::now() + timeout;
    loop {
        match poll.poll(&mut events, Some(end.saturating_duration_since(Instant::now()))) {
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::Interrupted),
            Ok(()) if !events.is_empty() => return true,
            Ok(()) if Instant::now() >= end => return false,
            Ok(()) => {}
        }
    }
}

/// Waits until something has arrived for the loop, which does not run.
#[track_caller]
pub(crate) fn await_readable(source: &impl AsFd) {
    assert!(is_readable(source, PATIENCE), "nothing has arrived");
}

/// Runs `f`, which must panic with `message`.
#[track_caller]
pub(crate) fn panics<R>(message: &str, f: impl FnOnce() -> R) {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => panic!("it did not panic with {message:?}"),
        Err(panic) => {
            let said = panic.downcast_ref::<&str>().copied();
            let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            assert_eq!(said, Some(message));
        }
    }
}

/// What has happened, in order.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, entry: impl Into<String>) {
        self.0.lock().unwrap().push(entry.into());
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// All of it, which is then forgotten.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub(crate) fn has(&self, entry: &str) -> bool {
        self.count(entry) > 0
    }

    /// How many entries are exactly this.
    pub(crate) fn count(&self, entry: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|it| *it == entry).count()
    }

    /// How many entries begin so.
    pub(crate) fn count_of(&self, beginning: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|it| it.starts_with(beginning)).count()
    }
}

/// Counts how many of it were dropped.
#[derive(Clone, Default)]
pub(crate) struct Drops(Arc<AtomicUsize>);

/// Something whose drop is counted.
pub(crate) struct Counted(Drops);

impl Drops {
    pub(crate) fn one(&self) -> Counted {
        Counted(self.clone())
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A number that handlers count up.
#[derive(Clone, Default)]
pub(crate) struct Count(Arc<AtomicUsize>);

impl Count {
    pub(crate) fn add(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}
