//! A loaded loop, for ThreadSanitizer to watch: `tests/tsan` builds and runs it.
//!
//! What counts is that nothing is reported; that every message arrives, every function is called once, and
//! every connection has one beginning and one end is checked as well. Nothing here waits for a time to
//! pass.
//!
//! Handlers keep what they know in plain fields, and what is counted is counted with relaxed atomics, so
//! that the program orders as little as possible by itself: the loop is to do that.
#![cfg(anyloop_tsan)]

mod arcs;
mod crowd;
mod fleeting;
mod hosted;
mod loaded;
mod seeded;
mod steady;
#[path = "../../src/sync/traced.rs"]
#[expect(dead_code, unreachable_pub, reason = "of the library, which uses all of it")]
mod traced;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyloop_testkit::wait::eventually_within;

/// A number that any thread adds to. It orders nothing.
#[derive(Debug, Default)]
struct Count(AtomicUsize);

impl Count {
    fn add(&self, number: usize) -> usize {
        self.0.fetch_add(number, Ordering::Relaxed) + number
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Lives as long as the process: to count the owners of something is to order what they do.
fn for_ever<T: Default>() -> &'static T {
    Box::leak(Box::default())
}

/// Waits until it is so, while other threads run the loop. Under the sanitizer all takes longer.
#[track_caller]
fn wait(what: &str, is_so: impl FnMut() -> bool) {
    eventually_within(Duration::from_secs(100), what, is_so);
}

/// The panic of a handler that panics on purpose.
struct OnPurpose;

fn panic_on_purpose() -> ! {
    resume_unwind(Box::new(OnPurpose))
}

/// Runs the loop, or goes on with it; any other panic is the end of everything, since no check would
/// see it.
fn survive(run: impl FnOnce() -> usize) -> usize {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        if !panic.is::<OnPurpose>() {
            std::process::abort(); // the message is out
        }
        0
    })
}

/// How long a test goes on: steps of each thread, by default `steps`.
fn steps(steps: usize) -> usize {
    std::env::var("STEPS").map_or(steps, |number| number.parse().expect("STEPS is a number"))
}

/// Numbers without any order to speak of, the same in every run.
struct Dice(u64);

impl Dice {
    const fn new(seed: usize) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ ((seed as u64) << 17 | 1))
    }

    /// Less than `below`.
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % below as u64) as usize
    }
}
