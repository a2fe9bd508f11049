//! A global allocator that counts, for each thread by itself.
//!
//! Tests run on threads of their own, so what [`measure`] finds is what the measured code did.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

/// What a piece of code did to the heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Calls that allocate or grow.
    pub(crate) allocations: u64,
    /// Bytes that those calls asked for, all together: growing a block counts its whole new size,
    /// for it may be copied.
    pub(crate) requested: u64,
    /// Bytes held at the end, more than at the beginning; negative if less.
    pub(crate) kept: i64,
    /// The most that was held at any time, more than at the beginning.
    pub(crate) peak: i64,
}

thread_local! {
    // Constant and without a destructor: reading it neither allocates nor registers anything.
    static USAGE: Cell<Usage> = const {
        Cell::new(Usage { allocations: 0, requested: 0, kept: 0, peak: 0 })
    };
}

/// Runs `code` and says what it did to the heap.
pub(crate) fn measure<R>(code: impl FnOnce() -> R) -> (R, Usage) {
    let before = USAGE.replace(Usage::default());
    let result = code();
    let usage = USAGE.replace(before);
    (result, usage)
}

fn count(grown_from: usize, to: usize) {
    USAGE.with(|cell| {
        let mut usage = cell.get();
        usage.allocations += 1;
        usage.requested += to as u64;
        usage.kept += to as i64 - grown_from as i64;
        usage.peak = usage.peak.max(usage.kept);
        cell.set(usage);
    });
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(0, layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        USAGE.with(|cell| {
            let mut usage = cell.get();
            usage.kept -= layout.size() as i64;
            cell.set(usage);
        });
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), size);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[test]
fn measuring_sees_what_is_allocated_and_freed() {
    let (block, usage) = measure(|| {
        drop(Vec::<u8>::with_capacity(1000));
        Vec::<u8>::with_capacity(300)
    });
    drop(block);
    assert_eq!(usage, Usage { allocations: 2, requested: 1300, kept: 300, peak: 1000 });
    assert_eq!(measure(|| 7).1, Usage::default());
}
