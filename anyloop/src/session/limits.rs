//! The limits of the send buffer of a peer that reads slowly.

/// The reason of a Close for a peer that reads too slowly.
pub(super) const TOO_SLOW: &str = "too slow to read";

/// The limits of the send buffer of a peer that reads slowly, in bytes. The configuration of an endpoint documents
/// each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SendBufferLimits {
    pub(crate) low_water_mark: usize,
    pub(crate) high_water_mark: usize,
    pub(crate) max_send_buffer: usize,
    pub(crate) overflow: Overflow,
}

impl Default for SendBufferLimits {
    fn default() -> Self {
        Self {
            low_water_mark: 64 << 10,
            high_water_mark: 1 << 20,
            max_send_buffer: 16 << 20,
            overflow: Overflow::Error,
        }
    }
}

/// The policy for a message that would exceed the [limit of the send buffer](crate::ServerConfig::max_send_buffer).
///
/// ```
/// # use anyloop::iostream::Server;
/// # use anyloop::prelude::*;
/// # use std::io::{self, ErrorKind, Write};
/// # use std::sync::{Arc, Mutex};
/// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// /// A pipe that takes nothing once the handshake is through.
/// struct Full(bool);
///
/// impl Write for Full {
///     fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
///         match std::mem::replace(&mut self.0, true) {
///             true => Err(ErrorKind::WouldBlock.into()),
///             false => Ok(bytes.len()),
///         }
///     }
/// #   fn flush(&mut self) -> io::Result<()> {
/// #       Ok(())
/// #   }
/// }
///
/// let config = ServerConfig::new(OriginPolicy::Any).high_water_mark(1_000).max_send_buffer(2_000);
/// let mut server = Server::new(config);
/// let results = Arc::new(Mutex::new(Vec::new()));
/// # let seen = results.clone();
/// server.on_message(move |_, context| seen.lock().unwrap().push(context.send(&[7; 900][..])));
/// let connection = server.connection();
/// connection.register_output(Full(false));
/// connection.read_all(REQUEST)?;
/// for _ in 0..4 {
///     connection.read_all(b"\x81\x80\0\0\0\0")?; // a message each
/// }
///
/// // Each `send` is judged by what waits from the calls before.
/// let full = SendError::SendBufferFull { waiting: 1808, message: 900, limit: 2_000, closes: false };
/// let results = results.lock().unwrap();
/// assert_eq!(results[..2], [Ok(Sent::Sent), Ok(Sent::Buffered)]);
/// assert_eq!(results[2..], [Err(full.clone()), Err(full)]); // `Overflow::Error` is the default
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
/// Messages may be dropped if the next one supersedes them:
///
/// ```
/// # use anyloop::iostream::Server;
/// # use anyloop::prelude::*;
/// let config = ServerConfig::new(OriginPolicy::Any).max_send_buffer(10).overflow(Overflow::Drop);
/// let server = Server::new(config);
///
/// let connection = server.connection(); // not driven, so messages wait
/// let handle = connection.handle();
/// assert_ne!(handle.send("twelve bytes")?, Sent::Dropped); // the first may exceed the limit
/// assert_eq!(handle.send("more")?, Sent::Dropped);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// It is not sent, and sending returns an error.
    #[default]
    Error,
    /// It is not sent, and sending returns [`Sent::Dropped`](super::Sent::Dropped): for messages that the next one
    /// supersedes.
    Drop,
    /// The connection is closed with 1008, and sending returns an error whose `closes` is true; sends that follow
    /// return [`SendError::Closing`](super::SendError::Closing). In [`close`](super::Handler::close) and
    /// [`fail`](super::Handler::fail), [`Context::overflowed`](super::Context::overflowed) is true, and
    /// [`Counters::overflowed`](super::Counters::overflowed) counts it. A message that waits for the last piece of a
    /// [`MessageWriter`](super::MessageWriter) only gets the error: the peer is not to blame.
    Close,
}
