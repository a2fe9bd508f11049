//! A loaded loop under ThreadSanitizer: `tests/tsan` builds and runs it.
//!
//! The sanitizer must report nothing. The tests also check that every message arrives, that every function
//! is called once, and that every connection opens and ends once. They wait for events, not for time.
//!
//! Handlers have plain fields, and counters are relaxed atomics. So the tests synchronize as little as
//! possible: the loop must do that.
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

/// A counter for all threads. It synchronizes nothing.
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

/// A value that lives as long as the process: an `Arc` would synchronize its owners.
fn leaked<T: Default>() -> &'static T {
    Box::leak(Box::default())
}

/// Waits for a condition while other threads run the loop. Under the sanitizer everything takes longer.
#[track_caller]
fn wait(what: &str, condition: impl FnMut() -> bool) {
    eventually_within(Duration::from_secs(100), what, condition);
}

/// The panic of a handler that panics on purpose.
struct OnPurpose;

fn panic_on_purpose() -> ! {
    resume_unwind(Box::new(OnPurpose))
}

/// Calls `run`, which may panic on purpose. Any other panic aborts the process, since no check would see
/// it.
fn survive(run: impl FnOnce() -> usize) -> usize {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        if !panic.is::<OnPurpose>() {
            std::process::abort(); // the message was printed
        }
        0
    })
}

/// The number of steps of each thread: the environment variable STEPS, by default `steps`.
fn steps(steps: usize) -> usize {
    std::env::var("STEPS").map_or(steps, |number| number.parse().expect("STEPS is a number"))
}

/// Pseudo-random numbers, the same in every run.
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
