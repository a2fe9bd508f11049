//! Why something was not sent.

use anyloop_proto::SendError as Refused;

/// Why something was not sent.
///
/// The example of [`Overflow`](super::Overflow) meets one, that of [`Handle`](super::Handle)
/// another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// So much is waiting already that the message would exceed the cap.
    #[error("{waiting} bytes are waiting, and {message} more would exceed the cap of {cap}")]
    BacklogFull {
        /// Bytes that wait for the peer.
        waiting: usize,
        /// Bytes of the message.
        message: usize,
        /// The most that may wait.
        cap: usize,
    },
    /// The connection is closing: no message can follow a Close.
    #[error("the connection is closing")]
    Closing,
    /// The connection is over.
    #[error("the connection is over")]
    Gone,
    /// The state machine refuses it.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// What has become of a message that was given to send.
///
/// The example of [`Overflow`](super::Overflow) meets three of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no other thing that could become of it")]
pub enum Sent {
    /// Nothing waits: it is written with this batch.
    Sent,
    /// It waits: for the peer to read, for the connection to be open, or for the end of a message in pieces.
    Buffered,
    /// It waits for the peer to read, and the backlog is above its high-water mark: better wait for
    /// [`drained`](super::Handler::drained).
    Backpressure,
    /// There was no room for it, and it was [to be dropped](super::Overflow::Drop).
    Dropped,
}

impl Sent {
    /// Whether it was not dropped.
    #[must_use]
    pub fn is_on_its_way(self) -> bool {
        self != Self::Dropped
    }
}
