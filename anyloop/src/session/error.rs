//! The results of sending.

use anyloop_proto::handshake::AnswerError;
use anyloop_proto::{Refused, State};

/// Why a message or another command was refused.
///
/// Where nothing is to be done about it, `_ = context.send(..)` drops it. That is right for [`Closing`](Self::Closing),
/// [`Gone`](Self::Gone) and [`NotAwaiting`](Self::NotAwaiting): the connection or the request is over, and the end of
/// a connection is reported by [`close`](super::Handler::close) or [`fail`](super::Handler::fail). It is right for
/// [`SendBufferFull`](Self::SendBufferFull) with [`Overflow::Close`](super::Overflow::Close), which `close` reports as
/// well; otherwise this message is missing, and later ones are sent. The other errors are mistakes of the program.
///
/// The examples of [`Overflow`](super::Overflow) and [`Handle`](super::Handle) get such errors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// With this message, the send buffer would exceed its limit.
    #[error(
        "{waiting} bytes are waiting, and {message} more would exceed the limit of {limit}{}",
        closing_note(*closes)
    )]
    SendBufferFull {
        /// The bytes that wait already: for the peer, for the connection to be open, or for the end of a message in
        /// pieces.
        waiting: usize,
        /// Bytes of the message.
        message: usize,
        /// The limit of the send buffer.
        limit: usize,
        /// Whether the connection is closed for this, as [`Overflow::Close`](super::Overflow::Close) requires.
        /// Later sends return [`Closing`](Self::Closing).
        closes: bool,
    },
    /// The connection is closing: no message can follow a Close, or the response to a request that was not accepted.
    #[error("the connection is closing")]
    Closing,
    /// The connection is over.
    #[error("the connection is over")]
    Gone,
    /// The response cannot be sent. Its length, status or fields are wrong.
    #[error("the response cannot be sent: {0}")]
    InvalidResponse(AnswerError),
    /// No request of the connection waits for an answer: none has arrived, it was answered, or its time is over.
    #[error("no request waits for an answer")]
    NotAwaiting,
    /// The connection is not open yet.
    #[error("the connection is not open yet")]
    NotOpen,
    /// The protocol refuses it.
    #[error(transparent)]
    Refused(Refused),
}

impl From<AnswerError> for SendError {
    fn from(error: AnswerError) -> Self {
        Self::InvalidResponse(error)
    }
}

const fn closing_note(closes: bool) -> &'static str {
    if closes { ": the connection is closed, since the peer is too slow to read" } else { "" }
}

impl From<Refused> for SendError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotOpen(State::Connecting) => Self::NotOpen,
            Refused::NotOpen(State::Ended) => Self::Gone,
            Refused::NotOpen(_) => Self::Closing,
            refused => Self::Refused(refused),
        }
    }
}

/// The result of sending a message.
///
/// Unless it is [`Dropped`](Self::Dropped), the message is accepted. An accepted message is sent, in its order, also if
/// this side closes the connection later: a handler, a handle or a shutdown. It is lost only if
///
/// - the connection ends before its turn: it fails, never opens or is [terminated](super::Handle::terminate), or its
///   handler or a completion panics. A shutdown does not wait for connections that are not open yet.
/// - the peer's Close arrives before its turn: nothing follows the answer to it (RFC 6455 §5.5.1).
/// - it waits for the last piece of a message that is in progress, and the connection closes without it: no other
///   message may come within (§5.4). A message in pieces that is not in progress yet is not sent at all if its last
///   piece was not accepted before the close.
/// - it is a broadcast with a [filter](super::EndpointHandle::broadcast_where), and the handler of the connection
///   closes before its turn: the filter cannot be called within a call of the handler.
///
/// [`send_then`](super::Handle::send_then) reports a message that is lost. Whether the peer has received one that was
/// sent, only the peer can say.
///
/// `_ = context.send(..)` drops it together with a [`SendError`]. [`Backpressure`](Self::Backpressure) matters to
/// programs that can send less, and [`Dropped`](Self::Dropped) to those that count what was sent.
///
/// The examples of [`Overflow`](super::Overflow) get three results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a message is sent, waits, or is dropped")]
pub enum Sent {
    /// No output waits for the peer. From a handler, the message is written with the present [batch](super::Context);
    /// from a handle, it is queued, and written with a batch of the connection that is to follow.
    Sent,
    /// It waits: for the peer to read, for the connection to be open, or for the end of a message in pieces.
    Buffered,
    /// It waits, and what waits in all exceeds the high-water mark: send no more until
    /// [`drained`](super::Handler::drained).
    Backpressure,
    /// The send buffer was full, and the message was dropped, as [`Overflow::Drop`](super::Overflow::Drop) requires.
    Dropped,
}

impl Sent {
    /// Whether the message is sent or waits: it was not dropped.
    #[must_use]
    pub fn is_on_its_way(self) -> bool {
        self != Self::Dropped
    }
}
