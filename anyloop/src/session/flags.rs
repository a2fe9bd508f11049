//! States of a session, and what it has to do.

/// States of a session, and what it has to do besides receiving messages. If any is set, the fast path does not apply.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Flags(u8);

impl Flags {
    pub(super) const NONE: Self = Self(0);
    /// The application has paused reading.
    pub(super) const PAUSED: Self = Self(1);
    /// Something is left to do, for example because the budget was spent: the driver is to call
    /// [`resume`](crate::stream::StreamProtocol::resume).
    pub(super) const RESUME: Self = Self(2);
    /// The connection is open, and the handler is to be notified of it.
    pub(super) const NOTIFY_OPEN: Self = Self(4);
    /// The handler or a handle was told that the send buffer is above the high-water mark, and the send buffer has not
    /// fallen to the low-water mark since.
    pub(super) const HIGH: Self = Self(8);
    /// Something has changed that [`Wants`](crate::stream::Wants) reports to the driver.
    pub(super) const WANTS_CHANGED: Self = Self(16);
    /// A client's request was not sent: there is no stream yet.
    pub(super) const REQUEST_UNSENT: Self = Self(32);
    /// Messages of handles, of broadcasts or of the handler wait until they may be sent: see `deferred.rs`. No relation
    /// to `Answer::Defer`.
    pub(super) const DEFERRED: Self = Self(64);
    /// The application has terminated the connection.
    pub(super) const TERMINATED: Self = Self(128);

    #[inline]
    pub(super) const fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    #[inline]
    pub(super) const fn has_any(self, one: Self, other: Self) -> bool {
        self.0 & (one.0 | other.0) != 0
    }

    #[inline]
    pub(super) const fn set(&mut self, flag: Self, on: bool) {
        self.0 = if on { self.0 | flag.0 } else { self.0 & !flag.0 };
    }
}
