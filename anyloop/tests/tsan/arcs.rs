//! The last owner of an `Arc` sees what the others did before they let go of theirs. The standard library
//! says so by a fence, which ThreadSanitizer does not know; where the library itself is built for the
//! sanitizer, it loads the counter instead. So does this, which the linker puts between (`--wrap`).

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
/// `at` is a number that nobody frees before this one has returned.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap___tsan_atomic64_fetch_sub(
    at: *const AtomicU64,
    value: u64,
    order: c_int,
) -> u64 {
    // SAFETY: as the caller says; it is the call that was to be made.
    let before = unsafe { __real___tsan_atomic64_fetch_sub(at, value, order) };
    if order == RELEASE && before == value {
        // SAFETY: who has counted down to zero is the one to free it.
        unsafe { __tsan_atomic64_load(at, ACQUIRE) };
    }
    before
}
