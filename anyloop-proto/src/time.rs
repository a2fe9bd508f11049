//! Time as a number: the state machine never reads a clock.

use core::ops::{Add, Sub};
use core::time::Duration;

/// A point in time, in nanoseconds from an arbitrary zero that the caller chooses.
///
/// The state machine only compares, adds and subtracts, so any monotonic clock will do: the operating
/// system's (see the `From<std::time::Instant>` implementation), a tick counter of a device, or a
/// virtual clock in a test. Arithmetic saturates; the range is 584 years.
///
/// ```
/// use anyloop_proto::Instant;
/// use core::time::Duration;
///
/// let start = Instant::from_nanos(0);
/// let later = start + Duration::from_secs(5);
/// assert_eq!(later - start, Duration::from_secs(5));
/// assert_eq!(start - later, Duration::ZERO);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The instant `nanos` nanoseconds after zero.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since zero.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Adds, saturating at the end of the range.
    #[inline]
    fn add(self, duration: Duration) -> Self {
        let seconds = duration.as_secs().saturating_mul(1_000_000_000);
        let nanos = seconds.saturating_add(u64::from(duration.subsec_nanos()));
        Self(self.0.saturating_add(nanos))
    }
}

impl Sub for Instant {
    type Output = Duration;

    /// The time from `earlier` to `self`; zero if `earlier` is later than `self`.
    #[inline]
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(feature = "std")]
impl From<std::time::Instant> for Instant {
    /// Counts from the first conversion in this process, whose number is 2^62 (146 years), so that earlier instants
    /// have a number too.
    fn from(instant: std::time::Instant) -> Self {
        use std::sync::OnceLock;

        static FIRST: OnceLock<std::time::Instant> = OnceLock::new();
        const OF_FIRST: Instant = Instant(1 << 62);

        let first = *FIRST.get_or_init(|| instant);
        match instant.checked_duration_since(first) {
            Some(after) => OF_FIRST + after,
            None => {
                Self((OF_FIRST - Self::default()).saturating_sub(first - instant).as_nanos() as u64)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        let end = Instant::from_nanos(u64::MAX);
        assert_eq!(end + Duration::from_secs(1), end);
        assert_eq!(Instant::default() + Duration::MAX, end);
        assert_eq!(Instant::default() - end, Duration::ZERO);
    }

    #[cfg(feature = "std")]
    #[test]
    fn std_instants_keep_their_distances() {
        let base = std::time::Instant::now();
        let distance = Duration::from_millis(1500);
        let (a, b) = (Instant::from(base), Instant::from(base + distance));
        assert_eq!(b - a, distance);
        if let Some(before) = base.checked_sub(distance) {
            assert_eq!(a - Instant::from(before), distance);
        }
    }
}
