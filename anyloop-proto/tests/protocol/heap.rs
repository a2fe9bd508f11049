//! A global allocator that counts allocations for each thread separately.
//!
//! Each test has its own thread, so [`measure`] does not count the allocations of other tests.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

/// The use of the heap by a piece of code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// The number of calls that allocate or grow a block.
    pub(crate) allocations: u64,
    /// The sum of the sizes that those calls requested. Growing a block counts its whole new size,
    /// since the allocator may copy it.
    pub(crate) requested: u64,
    /// Bytes allocated at the end minus bytes allocated at the beginning.
    pub(crate) kept: i64,
    /// The maximum of allocated bytes minus bytes allocated at the beginning.
    pub(crate) peak: i64,
}

thread_local! {
    // A constant initializer and no destructor: access neither allocates nor registers a destructor.
    static USAGE: Cell<Usage> = const {
        Cell::new(Usage { allocations: 0, requested: 0, kept: 0, peak: 0 })
    };
}

/// Runs `code` and returns its use of the heap.
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

// SAFETY: every call is forwarded unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(0, layout.size());
        // SAFETY: the caller fulfils the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        USAGE.with(|cell| {
            let mut usage = cell.get();
            usage.kept -= layout.size() as i64;
            cell.set(usage);
        });
        // SAFETY: the caller fulfils the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), size);
        // SAFETY: the caller fulfils the contract of `realloc`.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[test]
fn allocations_and_frees_are_counted() {
    let (block, usage) = measure(|| {
        drop(Vec::<u8>::with_capacity(1000));
        Vec::<u8>::with_capacity(300)
    });
    drop(block);
    assert_eq!(usage, Usage { allocations: 2, requested: 1300, kept: 300, peak: 1000 });
    assert_eq!(measure(|| 7).1, Usage::default());
}
