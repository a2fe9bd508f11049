//! The result of a successful handshake.

use alloc::string::String;
use core::fmt;

use crate::connection::Connection;

/// The result of a successful opening handshake, for either role.
///
/// ```
/// # use anyloop_proto::*;
/// # use anyloop_proto::handshake::*;
/// # let now = Instant::from_nanos(0);
/// # let mut request = *b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
/// #     Sec-WebSocket-Protocol: chat\r\n\r\n\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
/// # let options = ServerOptions::new(OriginPolicy::Any);
/// # let mut handshake = ServerHandshake::new(options.into(), now);
/// # let mut out = Vec::new();
/// let mut input = Input::new(&mut request); // the request, and "Hello" right behind it
/// handshake.next(&mut input, now, &mut out)?;
/// let opened = handshake.accept(Accept::new().with_subprotocol("chat"), now, &mut out)?;
/// assert_eq!(opened.subprotocol.as_deref(), Some("chat"));
/// assert_eq!(opened.response.status(), 101);
///
/// let Connection { mut receiver, mut sender } = opened.connection;
/// let event = receiver.next(&mut sender, &mut input, now, &mut out)?;
/// assert!(matches!(event, Some(Event::Message(message)) if message == "Hello".into()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[non_exhaustive]
pub struct Opened {
    /// The open connection. The bytes after the handshake are its first input.
    pub connection: Connection,
    /// The response that the client received or the server sent.
    pub response: http::Response<()>,
    /// The negotiated subprotocol (RFC 6455 §1.9).
    pub subprotocol: Option<String>,
    /// The negotiated extension, with its parameters, as in the response.
    pub extension: Option<String>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("response", &self.response)
            .field("subprotocol", &self.subprotocol)
            .field("extension", &self.extension)
            .finish_non_exhaustive()
    }
}
