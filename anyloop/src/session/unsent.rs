//! Messages that will not be sent.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

use crate::stream::{Completion, Unsent};

/// Calls the completions of messages that will not be sent. After a panic of one, the others are called, and then the
/// panic is resumed, unless the thread is panicking already.
pub(super) fn report_unsent(completions: impl Iterator<Item = Completion>) {
    let mut panic = None;
    for completion in completions {
        let called = catch_unwind(AssertUnwindSafe(|| completion(Err(Unsent))));
        if let Err(first) = called {
            panic.get_or_insert(first);
        }
    }
    if let Some(panic) = panic.filter(|_| !thread::panicking()) {
        resume_unwind(panic);
    }
}
