//! The first bytes of what is not HTTP.

use core::fmt;

/// The most bytes that are kept: with more, [`Failure`](super::Failure) would be larger.
const MAX: usize = 6;

/// The first bytes that a peer has sent, at most 6: fewer if fewer had arrived when they were seen not to be HTTP.
///
/// It is displayed as an escaped string in quotes, which is ASCII without control characters.
///
/// ```
/// # use anyloop_proto::*;
/// # use anyloop_proto::handshake::*;
/// # let now = Instant::from_nanos(0);
/// # let mut out = Vec::new();
/// # let target = "ws://a/".parse().expect("it is valid");
/// # let mut client = ClientHandshake::new(&target, ClientOptions::default().into(), now, &mut out).unwrap();
/// let mut answer = *b"SSH-2.0-OpenSSH_9.2\r\n"; // this is the port of another server
/// let failure = client.next(&mut Input::new(&mut answer), now, &mut out).unwrap_err();
/// let Cause::Handshake(HandshakeError::NotHttp { peer: Role::Server, first_bytes }) = failure.cause() else {
///     panic!("{failure}");
/// };
/// assert_eq!(first_bytes.as_bytes(), b"SSH-2.");
/// assert!(!first_bytes.is_tls());
/// assert_eq!(
///     failure.cause().to_string(),
///     "not an HTTP response: the first bytes are \"SSH-2.\""
/// );
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct FirstBytes {
    /// Zeros after the first `len`.
    bytes: [u8; MAX],
    len: u8,
}

impl FirstBytes {
    /// The first of these bytes.
    #[cfg(feature = "std")]
    pub(crate) fn of(all: &[u8]) -> Self {
        let len = all.len().min(MAX);
        let mut bytes = [0; MAX];
        bytes[..len].copy_from_slice(&all[..len]);
        Self { bytes, len: len as u8 }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Whether they begin a TLS record (RFC 8446 §5.1): the peer expects TLS, and this side has none. An unencrypted
    /// client of a TLS server gets an alert; a server without TLS gets the handshake of a client with `wss`.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self.as_bytes(), [20..=23, 3, ..])
    }
}

impl fmt::Display for FirstBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

impl fmt::Debug for FirstBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
