//! Makes ThreadSanitizer understand `Arc`. The last owner synchronizes with the others by a fence, which
//! the sanitizer does not know. A standard library that is built for the sanitizer loads the counter
//! instead. So does this wrapper, which the linker inserts (`--wrap`).

use std::ffi::c_int;
use std::sync::atomic::AtomicU64;

/// `morder`, of the sanitizer's `tsan_interface_atomic.h`.
const ACQUIRE: c_int = 2;
const RELEASE: c_int = 3;

unsafe extern "C" {
    fn __real___tsan_atomic64_fetch_sub(at: *const AtomicU64, value: u64, order: c_int) -> u64;
    fn __tsan_atomic64_load(at: *const AtomicU64, order: c_int) -> u64;
}

/// Called for each `fetch_sub` on 64 bits.
///
/// # Safety
///
/// `at` is valid until this returns.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap___tsan_atomic64_fetch_sub(
    at: *const AtomicU64,
    value: u64,
    order: c_int,
) -> u64 {
    // SAFETY: the caller keeps the contract. This is the function that it called.
    let before = unsafe { __real___tsan_atomic64_fetch_sub(at, value, order) };
    if order == RELEASE && before == value {
        // SAFETY: the counter is zero, so this thread frees it, later.
        unsafe { __tsan_atomic64_load(at, ACQUIRE) };
    }
    before
}
