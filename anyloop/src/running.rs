//! The loops that the current thread runs.

use std::cell::RefCell;

#[cfg(loom)]
use crate::sync::WithBorrow as _;
use crate::sync::thread_local;

thread_local! {
    /// The ids of the loops, the innermost last.
    static RUNNING: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Marks this thread as running a loop, until it is dropped.
pub(crate) struct RunningMark(());

impl RunningMark {
    pub(crate) fn new(id: u64) -> Self {
        RUNNING.with_borrow_mut(|running| running.push(id));
        Self(())
    }
}

impl Drop for RunningMark {
    fn drop(&mut self) {
        RUNNING.with_borrow_mut(|running| running.pop());
    }
}

/// Whether this thread is inside a run call of this loop.
pub(crate) fn runs(id: u64) -> bool {
    RUNNING.with_borrow(|running| running.contains(&id))
}

/// Whether this thread is inside a run call of any loop.
pub(crate) fn is_in_run_call() -> bool {
    RUNNING.with_borrow(|running| !running.is_empty())
}
