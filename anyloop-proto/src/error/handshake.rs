//! Errors of opening handshakes.

use core::fmt;

use super::{FirstBytes, Party};
use crate::config::Role;

/// Why an opening handshake failed (RFC 6455 §4).
///
/// ```
/// # use anyloop_proto::*;
/// # use anyloop_proto::handshake::*;
/// # let now = Instant::from_nanos(0);
/// # let mut out = Vec::new();
/// # let options = ServerOptions::new(OriginPolicy::Any);
/// # let mut handshake = ServerHandshake::new(options.into(), now);
/// let mut request = *b"GET / HTTP/1.1\r\n\r\n";
/// let failure = handshake.next(&mut Input::new(&mut request), now, &mut out).unwrap_err();
/// let error = HandshakeError::Missing(Field::Host);
/// assert_eq!(failure.cause(), Cause::Handshake(error));
/// assert_eq!(error.to_string(), "missing header field Host");
/// assert!(out.starts_with(b"HTTP/1.1 400 Bad Request\r\n")); // the response to the client
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The application abandoned the handshake before it was complete.
    Abandoned,
    /// Sec-WebSocket-Accept in the response does not match the key.
    AcceptMismatch,
    /// The body of a request is larger than the limit, or has too many bytes beside its content (such as trailers).
    BodyTooBig,
    /// A field that may appear once appears more than once, or a list has an element twice.
    Duplicate(Field),
    /// The head of a request or response is larger than the limit.
    HeadTooBig,
    /// An HTTP version other than 1.0 and 1.1, or a 101 response with another version than 1.1.
    HttpVersion,
    /// A field has an invalid value.
    Invalid(Field),
    /// The head is not valid HTTP, although the peer speaks it: the first line is nearly that of a request or a
    /// response, or an interim response (1xx) came before.
    Malformed,
    /// The body violates its transfer coding (RFC 9112 §7.1).
    MalformedBody,
    /// A WebSocket request with a method other than GET (RFC 6455 §4.1).
    Method,
    /// A field is missing.
    Missing(Field),
    /// What the peer sends first does not resemble an HTTP request or response (RFC 9112 §3, §4): the peer speaks
    /// another protocol, or TLS.
    NotHttp {
        /// The peer's role: a server should have sent a response, a client a request. An HTTP proxy counts as a server.
        peer: Role,
        /// What it has sent, without empty lines before it.
        first_bytes: FirstBytes,
    },
    /// The target is a `wss` URI, and the byte stream is not secure.
    NotSecure,
    /// The `OriginPolicy` does not allow the origin (RFC 6455 §10.2).
    OriginRefused,
    /// The application refused the request with this status (servers only).
    Refused(u16),
    /// The server answered with a status other than 101, or a proxy with one other than 2xx; the response can be read.
    Rejected(u16),
    /// The request target is invalid, has user information (RFC 9110 §4.2.4), or its form does not fit the method
    /// (RFC 9112 §3.2).
    Target,
    /// The request line is larger than the limit, or the request target has more than 65,534 bytes.
    TargetTooLong,
    /// More header fields than the limit.
    TooManyFields,
    /// More than 16 interim responses (1xx).
    TooManyInterim,
    /// A field has a value that is not supported, such as an unknown transfer coding.
    Unsupported(Field),
    /// A WebSocket version other than 13.
    Version,
}

impl HandshakeError {
    /// Which side caused the failure.
    #[must_use]
    pub const fn party(self) -> Party {
        match self {
            Self::Abandoned | Self::NotSecure | Self::Refused(_) => Party::Local,
            _ => Party::Peer,
        }
    }

    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Abandoned => "opening handshake abandoned",
            Self::AcceptMismatch => "Sec-WebSocket-Accept does not fit the key",
            Self::BodyTooBig => "body of the request too big",
            Self::Duplicate(_) => "header field given twice",
            Self::HeadTooBig => "header section too big",
            Self::HttpVersion => "unsupported HTTP version",
            Self::Invalid(_) => "invalid header field",
            Self::Malformed => "malformed HTTP",
            Self::MalformedBody => "malformed body",
            Self::Method => "method not allowed for an upgrade",
            Self::Missing(_) => "missing header field",
            Self::NotHttp { peer: Role::Client, .. } => "not an HTTP request",
            Self::NotHttp { peer: Role::Server, .. } => "not an HTTP response",
            Self::NotSecure => "wss:// needs TLS, and this byte stream has none",
            Self::OriginRefused => "origin not allowed",
            Self::Refused(_) => "request refused with status",
            Self::Rejected(_) => "handshake rejected with status",
            Self::Target => "invalid request target",
            Self::TargetTooLong => "request line too long",
            Self::TooManyFields => "too many header fields",
            Self::TooManyInterim => "too many interim responses",
            Self::Unsupported(_) => "unsupported value of header field",
            Self::Version => "unsupported WebSocket version",
        }
    }

    pub(super) fn fmt_detail(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate(field)
            | Self::Invalid(field)
            | Self::Missing(field)
            | Self::Unsupported(field) => write!(f, " {field}"),
            Self::NotHttp { first_bytes, .. } => {
                write!(f, ": the first bytes are {first_bytes}")?;
                f.write_str(if first_bytes.is_tls() { ", a TLS record" } else { "" })
            }
            Self::Rejected(status) | Self::Refused(status) => write!(f, " {status}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())?;
        self.fmt_detail(f)
    }
}

impl core::error::Error for HandshakeError {}

/// The header fields that an opening handshake depends on.
///
/// The example of [`HandshakeError`] names one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is the header field of its name")]
pub enum Field {
    Connection,
    ContentLength,
    Expect,
    Host,
    Origin,
    SecWebSocketAccept,
    SecWebSocketExtensions,
    SecWebSocketKey,
    SecWebSocketProtocol,
    SecWebSocketVersion,
    TransferEncoding,
    Upgrade,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "Connection",
            Self::ContentLength => "Content-Length",
            Self::Expect => "Expect",
            Self::Host => "Host",
            Self::Origin => "Origin",
            Self::SecWebSocketAccept => "Sec-WebSocket-Accept",
            Self::SecWebSocketExtensions => "Sec-WebSocket-Extensions",
            Self::SecWebSocketKey => "Sec-WebSocket-Key",
            Self::SecWebSocketProtocol => "Sec-WebSocket-Protocol",
            Self::SecWebSocketVersion => "Sec-WebSocket-Version",
            Self::TransferEncoding => "Transfer-Encoding",
            Self::Upgrade => "Upgrade",
        })
    }
}
