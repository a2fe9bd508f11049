//! Errors: the cause, the party, and the state.

use core::fmt;

use crate::close_code::CloseCode;

mod first_bytes;
mod handshake;
mod response;

pub use first_bytes::FirstBytes;
pub use handshake::{Field, HandshakeError};
pub use response::ResponseError;

/// Why a connection failed. `Copy`, 32 bytes.
///
/// After a failure, only output that was already appended is sent, such as a Close frame or the response to a request.
/// [`Connection::shutdown`](crate::Connection::shutdown) says what to do with the byte stream.
///
/// ```
/// # use anyloop_proto::*;
/// # let now = Instant::from_nanos(0);
/// # let mut out = Vec::new();
/// # let mut connection = Connection::new(Role::Client, Config::default().into(), now);
/// let Connection { receiver, sender } = &mut connection;
/// let mut bytes = *b"\x81\x02ok\x83\x00"; // a message, and opcode 3
/// let mut input = Input::new(&mut bytes);
/// assert!(matches!(receiver.next(sender, &mut input, now, &mut out), Ok(Some(Event::Message(_)))));
///
/// let failure = receiver.next(sender, &mut input, now, &mut out).unwrap_err();
/// assert_eq!((failure.cause(), failure.party()), (Cause::ReservedOpcode(3), Party::Peer));
/// assert_eq!((failure.state(), failure.messages_before()), (State::Open, 1));
/// assert_eq!(failure.close_code(), Some(CloseCode::PROTOCOL_ERROR));
/// assert_eq!(
///     failure.to_string(),
///     "peer: reserved opcode 0x3 (connection open, after 1 message)"
/// );
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    cause: Cause,
    state: State,
    messages: u64,
}

impl Failure {
    pub(crate) const fn new(cause: Cause, state: State, messages: u64) -> Self {
        Self { cause, state, messages }
    }

    /// The cause.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        self.cause
    }

    /// The party that caused it.
    #[must_use]
    pub const fn party(&self) -> Party {
        self.cause.party()
    }

    /// The state of the connection when it failed.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// The number of whole messages received before the failure.
    #[must_use]
    pub const fn messages_before(&self) -> u64 {
        self.messages
    }

    /// The code of the Close frame for this failure, unless we had sent a Close before; `None` if no Close frame is
    /// sent for it.
    #[must_use]
    pub const fn close_code(&self) -> Option<CloseCode> {
        self.cause.close_code()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cause, state, messages } = self;
        write!(f, "{}: {cause} (connection {state}", cause.party())?;
        match *state {
            State::Connecting => f.write_str(")"),
            _ => {
                let plural = if *messages == 1 { "" } else { "s" };
                write!(f, ", after {messages} message{plural})")
            }
        }
    }
}

impl core::error::Error for Failure {}

/// The party that caused an ending.
///
/// ```
/// use anyloop_proto::{Cause, Party, TransportError};
///
/// assert_eq!(Cause::UnmaskedFrame.party(), Party::Peer);
/// assert_eq!(Cause::PongTimeout.party(), Party::Timer);
/// assert_eq!(Cause::Transport(TransportError::Reset).party(), Party::Transport);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Party {
    /// This side: the application, which did not answer a request in time, for example, or this library on its behalf.
    Local,
    /// The other side, by what it sent or by ending the stream.
    Peer,
    /// A deadline that passed, other than that for the application's answer.
    Timer,
    /// The byte stream between the two.
    Transport,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Peer => "peer",
            Self::Timer => "timer",
            Self::Transport => "transport",
        })
    }
}

/// The state of a connection.
///
/// ```
/// # use anyloop_proto::*;
/// # let now = Instant::from_nanos(0);
/// # let mut out = Vec::new();
/// let mut connection = Connection::new(Role::Client, Config::default().into(), now);
/// assert_eq!(connection.state(), State::Open);
/// connection.sender.close(CloseCode::NORMAL, "", now, &mut out)?;
/// assert_eq!(connection.state(), State::CloseSent);
///
/// let Connection { receiver, sender } = &mut connection;
/// let mut bytes = *b"\x81\x04last\x88\x02\x03\xe8"; // a message may come before the Close
/// let mut input = Input::new(&mut bytes);
/// while receiver.next(sender, &mut input, now, &mut out)?.is_some() {}
/// assert_eq!(connection.state(), State::Closed);
/// connection.handle_eof()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// The opening handshake is under way (RFC 6455 §4).
    Connecting,
    /// Messages can be sent and received.
    Open,
    /// We sent a Close and wait for the peer's; messages may still arrive (RFC 6455 §7.1.2).
    CloseSent,
    /// Both Close frames were exchanged; the byte stream has not ended yet.
    Closed,
    /// The connection has failed (RFC 6455 §7.1.7); input is ignored.
    Failed,
    /// The byte stream has ended, or has failed, or the transport [aborts](crate::Shutdown::Abort) it.
    Ended,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting",
            Self::Open => "open",
            Self::CloseSent => "waiting for the peer's Close",
            Self::Closed => "closed",
            Self::Failed => "failed",
            Self::Ended => "ended",
        })
    }
}

/// The cause of a failure.
///
/// ```
/// use anyloop_proto::{Cause, CloseCode};
///
/// let cause = Cause::InvalidUtf8 { at: 17 };
/// assert_eq!(cause.close_code(), Some(CloseCode::INVALID_PAYLOAD));
/// assert_eq!(cause.reason(), "text is not UTF-8"); // in the Close frame
/// assert_eq!(cause.to_string(), "text is not UTF-8 at byte 17"); // in a log
/// assert_eq!(Cause::EndOfStream.close_code(), None); // the stream is gone, so none can be sent
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The application failed; for example, a handler panicked.
    Application,
    /// A Close frame with a code that must not be sent (RFC 6455 §7.4).
    CloseCode(u16),
    /// A Close frame with a payload of one byte (RFC 6455 §5.5.1).
    CloseLength,
    /// A Close frame whose reason is not UTF-8 (RFC 6455 §5.5.1).
    CloseReason,
    /// The closing handshake did not end in time (RFC 6455 §7.1.1).
    CloseTimeout,
    /// A control frame of more than 125 bytes (RFC 6455 §5.5).
    ControlTooLong,
    /// No data frame in the time that the configuration allows.
    DataIdleTimeout,
    /// The byte stream ended without a closing handshake (RFC 6455 §7.1.5, code 1006), or before the opening handshake
    /// was complete.
    EndOfStream,
    /// A new message began inside a fragmented one (RFC 6455 §5.4).
    ExpectedContinuation,
    /// An extension could not decode a message.
    Extension(ExtensionError),
    /// A fragmented control frame (RFC 6455 §5.5).
    FragmentedControl,
    /// The opening handshake failed.
    Handshake(HandshakeError),
    /// No frame in the time that the configuration allows.
    IdleTimeout,
    /// Text that is not UTF-8 (RFC 6455 §8.1).
    InvalidUtf8 {
        /// The offset of the first invalid byte in the message; the length of the message if it
        /// ended inside a character.
        at: u64,
    },
    /// The length of a frame with its highest bit set (RFC 6455 §5.2), or that of a message that this machine cannot
    /// address.
    LengthOverflow,
    /// A server sent a masked frame (RFC 6455 §5.1).
    MaskedFrame,
    /// A message larger than the limit.
    MessageTooBig {
        /// The limit, in bytes.
        limit: u64,
    },
    /// A length that was not given in its shortest form (RFC 6455 §5.2).
    NonMinimalLength,
    /// A continuation frame outside a fragmented message (RFC 6455 §5.4).
    NothingToContinue,
    /// The opening handshake did not end in time.
    OpenTimeout,
    /// The byte stream ended before all output, including our Close, was written: the peer did not
    /// read it in time, or the stream failed.
    OutputLost,
    /// The peer did not answer a keep-alive ping in time.
    PongTimeout,
    /// Reserved bits that no extension uses (RFC 6455 §5.2), as they stand in the first byte of the frame: 0x40, 0x20
    /// and 0x10.
    ReservedBits(u8),
    /// A reserved opcode (RFC 6455 §5.2).
    ReservedOpcode(u8),
    /// The application's response to a request could not be sent whole.
    Response(ResponseError),
    /// The peer has read no more of a response in the time that the options allow.
    ResponseTimeout,
    /// The application [terminated](crate::Connection::terminate) the connection.
    Terminated,
    /// A message has too many fragments: at 16 bytes for each after the first, they exceed its size limit, or 1 MiB if
    /// that is more.
    TooManyFragments,
    /// The transport failed.
    Transport(TransportError),
    /// A client sent an unmasked frame (RFC 6455 §5.1).
    UnmaskedFrame,
    /// The application did not answer a request in time.
    AnswerTimeout,
}

impl Cause {
    /// The party that caused it.
    #[must_use]
    pub const fn party(self) -> Party {
        match self {
            Self::CloseTimeout
            | Self::DataIdleTimeout
            | Self::IdleTimeout
            | Self::OpenTimeout
            | Self::PongTimeout
            | Self::ResponseTimeout => Party::Timer,
            Self::Application | Self::Response(_) | Self::Terminated | Self::AnswerTimeout => {
                Party::Local
            }
            Self::Handshake(error) => error.party(),
            Self::Extension(ExtensionError::Internal) => Party::Local,
            Self::OutputLost | Self::Transport(_) => Party::Transport,
            _ => Party::Peer,
        }
    }

    /// The code of the Close frame that is sent for this cause, unless we have sent a Close before. `None` if no Close
    /// frame is sent for this cause.
    #[must_use]
    pub const fn close_code(self) -> Option<CloseCode> {
        Some(match self {
            Self::CloseTimeout
            | Self::EndOfStream
            | Self::Handshake(_)
            | Self::OpenTimeout
            | Self::OutputLost
            | Self::Response(_)
            | Self::ResponseTimeout
            | Self::Terminated
            | Self::Transport(_)
            | Self::AnswerTimeout => return None,
            Self::InvalidUtf8 { .. } | Self::CloseReason => CloseCode::INVALID_PAYLOAD,
            Self::MessageTooBig { .. } | Self::TooManyFragments => CloseCode::MESSAGE_TOO_BIG,
            Self::Application | Self::PongTimeout => CloseCode::INTERNAL_ERROR,
            Self::IdleTimeout | Self::DataIdleTimeout => CloseCode::GOING_AWAY,
            Self::Extension(error) => error.close_code(),
            _ => CloseCode::PROTOCOL_ERROR,
        })
    }

    /// A short description. The Close frame, if one is sent, has it as its reason.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Application => "the application failed",
            Self::CloseCode(_) => "invalid close code",
            Self::CloseLength => "close frame of one byte",
            Self::CloseReason => "close reason is not UTF-8",
            Self::CloseTimeout => "closing handshake timed out",
            Self::ControlTooLong => "control frame too long",
            Self::DataIdleTimeout => "no data in time",
            Self::EndOfStream => "stream ended without a closing handshake",
            Self::ExpectedContinuation => "expected a continuation frame",
            Self::Extension(error) => error.reason(),
            Self::FragmentedControl => "fragmented control frame",
            Self::Handshake(error) => error.reason(),
            Self::IdleTimeout => "no frame in time",
            Self::InvalidUtf8 { .. } => "text is not UTF-8",
            Self::LengthOverflow => "length out of range",
            Self::MaskedFrame => "frame from a server is masked",
            Self::MessageTooBig { .. } => "message too big",
            Self::NonMinimalLength => "frame length not in its shortest form",
            Self::NothingToContinue => "continuation frame outside a message",
            Self::OpenTimeout => "opening handshake timed out",
            Self::OutputLost => "stream ended before our Close was written",
            Self::PongTimeout => "keep-alive ping not answered in time",
            Self::ReservedBits(_) => "reserved bits set",
            Self::ReservedOpcode(_) => "reserved opcode",
            Self::Response(error) => error.reason(),
            Self::ResponseTimeout => "response not read in time",
            Self::Terminated => "connection terminated by the application",
            Self::TooManyFragments => "message in too many fragments",
            Self::Transport(error) => error.reason(),
            Self::UnmaskedFrame => "frame from a client is not masked",
            Self::AnswerTimeout => "request not answered in time",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())?;
        match *self {
            Self::CloseCode(code) => write!(f, " {code}"),
            Self::ReservedBits(bits) => write!(f, " {bits:#04x}"),
            Self::ReservedOpcode(opcode) => write!(f, " {opcode:#x}"),
            Self::InvalidUtf8 { at } => write!(f, " at byte {at}"),
            Self::MessageTooBig { limit } => write!(f, ": more than {limit} bytes"),
            Self::Handshake(error) => error.fmt_detail(f),
            Self::Response(error) => error.fmt_detail(f),
            _ => Ok(()),
        }
    }
}

/// Why an extension failed to decode a message.
///
/// The example of [`Decoder`](crate::extension::Decoder) returns one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExtensionError {
    /// The payload cannot be decoded: 1007.
    Corrupt,
    /// The extension itself failed: 1011.
    Internal,
    /// The payload breaks the extension's protocol: 1002.
    Protocol,
    /// The decoded message is larger than the limit: 1009.
    TooBig,
}

impl ExtensionError {
    const fn close_code(self) -> CloseCode {
        match self {
            Self::Corrupt => CloseCode::INVALID_PAYLOAD,
            Self::Internal => CloseCode::INTERNAL_ERROR,
            Self::Protocol => CloseCode::PROTOCOL_ERROR,
            Self::TooBig => CloseCode::MESSAGE_TOO_BIG,
        }
    }

    const fn reason(self) -> &'static str {
        match self {
            Self::Corrupt => "extension cannot decode the message",
            Self::Internal => "extension failed",
            Self::Protocol => "extension protocol error",
            Self::TooBig => "decoded message too big",
        }
    }
}

impl fmt::Display for ExtensionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl core::error::Error for ExtensionError {}

/// How the byte stream failed.
///
/// ```
/// use std::io::{Error, ErrorKind};
/// use anyloop_proto::TransportError;
///
/// let error = Error::from(ErrorKind::ConnectionReset);
/// assert_eq!(TransportError::from(&error), TransportError::Reset);
/// assert_eq!(TransportError::from(&Error::other("no more paper")), TransportError::Other);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransportError {
    /// The host name could not be resolved.
    NotFound,
    /// Anything else.
    Other,
    /// The peer refused the connection: nothing listens there.
    Refused,
    /// The peer, or something on the way to it, reset the stream.
    Reset,
    /// The peer did not respond before the timeout of the transport.
    TimedOut,
    /// TLS failed: the certificate of the peer was refused, for example, or a record was not authentic.
    Tls,
    /// There is no route to the peer.
    Unreachable,
}

impl TransportError {
    const fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "host not found",
            Self::Other => "transport failed",
            Self::Refused => "connection refused",
            Self::Reset => "connection reset",
            Self::TimedOut => "transport timed out",
            Self::Tls => "TLS failed",
            Self::Unreachable => "host unreachable",
        }
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl core::error::Error for TransportError {}

#[cfg(feature = "std")]
impl From<&std::io::Error> for TransportError {
    fn from(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;

        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
                Self::Reset
            }
            // A socket with its own timeout reports one or the other, depending on the system.
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::TimedOut,
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::AddrNotAvailable => Self::Unreachable,
            _ => Self::Other,
        }
    }
}

/// Why the protocol refuses to send. Nothing was appended to the output.
///
/// ```
/// # use anyloop_proto::*;
/// # let now = Instant::from_nanos(0);
/// # let mut connection = Connection::new(Role::Server, Config::default().into(), now);
/// let sender = &mut connection.sender;
/// let mut out = Vec::new();
/// assert_eq!(sender.ping(&[0; 126], &mut out), Err(Refused::ControlTooLong(126)));
/// assert_eq!(out, b"");
///
/// sender.close(CloseCode::NORMAL, "", now, &mut out)?;
/// let error = sender.send("too late", &mut out).unwrap_err();
/// assert_eq!(error, Refused::NotOpen(State::CloseSent));
/// assert_eq!(out, b"\x88\x02\x03\xe8");
/// # Ok::<(), Refused>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// A control frame of this many bytes; the limit is 125 (RFC 6455 §5.5).
    ControlTooLong(usize),
    /// The message that was begun in pieces must be finished first (RFC 6455 §5.4).
    MessageUnfinished,
    /// A piece was sent without a message begun.
    NoMessageBegun,
    /// The connection is not open; the state says why. An endpoint sends no data after its Close (RFC 6455
    /// §5.5.1).
    NotOpen(State),
    /// A close reason of this many bytes; the limit is 123 (RFC 6455 §5.5).
    ReasonTooLong(usize),
    /// A close reason without a code (RFC 6455 §5.5.1).
    ReasonWithoutCode,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ControlTooLong(len) => write!(f, "control frame of {len} bytes, limit 125"),
            Self::MessageUnfinished => {
                f.write_str("cannot send: a message begun in pieces must be finished first")
            }
            Self::NoMessageBegun => f.write_str("cannot send a piece: no message was begun"),
            Self::NotOpen(state) => write!(f, "cannot send: connection {state}"),
            Self::ReasonTooLong(len) => write!(f, "close reason of {len} bytes, limit 123"),
            Self::ReasonWithoutCode => f.write_str("a close reason needs a code"),
        }
    }
}

impl core::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_failure_says_who_what_and_where_in_40_bytes() {
        assert!(size_of::<Failure>() <= 40, "{} bytes", size_of::<Failure>());
        let failure = Failure::new(Cause::InvalidUtf8 { at: 17 }, State::Open, 3);
        assert_eq!(
            failure.to_string(),
            "peer: text is not UTF-8 at byte 17 (connection open, after 3 messages)"
        );
        let cause = Cause::Handshake(HandshakeError::Missing(Field::Host));
        assert_eq!(
            Failure::new(cause, State::Connecting, 0).to_string(),
            "peer: missing header field Host (connection connecting)"
        );
    }
}
