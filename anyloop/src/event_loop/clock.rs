//! The clocks of the loop.

use anyloop_proto::Instant;

/// A reading of a clock that is cheap to read and advances every few milliseconds: (seconds, nanoseconds). Readings are
/// compared for equality only.
pub(super) type CoarseTime = (i64, i64);

#[cfg(all(any(target_os = "linux", target_os = "android"), not(loom)))]
pub(super) fn coarse_time() -> CoarseTime {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    (time.tv_sec as i64, time.tv_nsec as i64)
}

/// Elsewhere, and under loom, this is the same clock as [`now`].
#[cfg(any(loom, not(any(target_os = "linux", target_os = "android"))))]
pub(super) fn coarse_time() -> CoarseTime {
    (0, now().as_nanos() as i64)
}

/// The current time.
#[cfg(loom)]
pub(crate) fn now() -> Instant {
    super::reactor::now()
}

/// The current time.
#[cfg(not(loom))]
pub(crate) fn now() -> Instant {
    std::time::Instant::now().into()
}
