//! A global allocator that counts the bytes that all threads use.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

/// Bytes that were allocated and are not freed.
pub(crate) fn in_use() -> usize {
    IN_USE.load(Relaxed)
}

/// All bytes that were ever allocated.
#[allow(dead_code, reason = "the benchmarks share this file")]
pub(crate) fn allocated() -> usize {
    ALLOCATED.load(Relaxed)
}

fn count(size: usize) {
    IN_USE.fetch_add(size, Relaxed);
    ALLOCATED.fetch_add(size, Relaxed);
}

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        IN_USE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(block, layout, size) }
    }
}
