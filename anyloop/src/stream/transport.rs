//! Transports: the byte streams under connections.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyloop_proto::{Instant, SendQueue, Shutdown};

/// The byte stream of one connection, as a [`Driver`](super::Driver) uses it.
///
/// The owner of the transport reads from it, and reports events to the driver:
///
/// | event | method of the driver |
/// |---|---|
/// | the stream exists | [`start`](super::Driver::start) |
/// | bytes were received | [`receive`](super::Driver::receive) |
/// | the peer has ended its direction | [`handle_eof`](super::Driver::handle_eof) |
/// | the stream has failed | [`handle_error`](super::Driver::handle_error) |
/// | the stream takes more output | [`handle_writable`](super::Driver::handle_writable) |
/// | the deadline has passed | [`handle_timeout`](super::Driver::handle_timeout) |
/// | the waker was woken | [`handle_wake`](super::Driver::handle_wake) |
///
/// After each of these calls the owner asks the driver [what to do next](super::Driver#what-to-do-next).
///
/// No method may block, or call the driver. The source of [`stub`](crate::transport::stub) is a template for
/// transports.
///
/// A transport that writes to a `Vec`, for a test:
///
/// ```
/// use std::io::{self, IoSlice};
/// use std::task::Waker;
/// use anyloop::transport::Server;
/// use anyloop::prelude::*;
/// use anyloop::proto::{Instant, Shutdown};
/// use anyloop::transport::{Buffers, Transport};
/// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
///
/// #[derive(Default)]
/// struct Memory {
///     written: Vec<u8>,
///     shutdown: Option<Shutdown>,
/// }
///
/// impl Transport for Memory {
///     fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
///         let before = self.written.len();
///         slices.iter().for_each(|slice| self.written.extend_from_slice(slice));
///         Ok(self.written.len() - before)
///     }
///
///     fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
///         self.shutdown = Some(how);
///         Ok(())
///     }
/// }
///
/// let mut server = Server::new(ServerConfig::new(OriginPolicy::Any));
/// server.on_message(|message, context| _ = context.send(message));
/// let (mut memory, mut buffers) = (Memory::default(), Buffers::default());
/// let now = Instant::from_nanos(0);
/// let mut driver = server.driver(Waker::noop(), now);
/// driver.start(&mut memory, &mut buffers, now);
/// assert!(driver.next_timeout().is_some()); // the request must arrive in time
///
/// let mut received = [REQUEST, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"].concat();
/// driver.receive(&mut memory, &mut buffers, &mut received, now);
/// assert!(memory.written.ends_with(b"\r\n\r\n\x81\x05Hello"));
///
/// driver.handle_eof(&mut memory, &mut buffers, now);
/// assert!(driver.is_closed() && memory.shutdown == Some(Shutdown::Abort));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a transport",
    note = "implement `Transport` for it: `write` and `shutdown` are required"
)]
pub trait Transport {
    /// Writes as much of `slices`, in order, as can be written without blocking, and returns how many
    /// bytes that was. After a short write the driver keeps the rest, and writes nothing more until the owner of the
    /// transport calls [`handle_writable`](super::Driver::handle_writable).
    ///
    /// # Errors
    ///
    /// The stream is broken, and the connection ends: nothing is written any more. If the write would block, return
    /// `Ok(0)`.
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Ends one direction of the stream, or the stream.
    ///
    /// - [`Shutdown::HalfClose`]: shuts down the sending direction. All output was written before. The driver still
    ///   waits for input.
    /// - [`Shutdown::Close`]: closes the stream. All output was written before.
    /// - [`Shutdown::Abort`]: closes the stream, and drops what the transport itself still holds.
    ///
    /// After `Close` and `Abort` the driver writes nothing. Handlers may still cause calls of [`peer`](Self::peer),
    /// [`now`](Self::now) and [`is_secure`](Self::is_secure).
    ///
    /// # Errors
    ///
    /// Errors are logged, and have no other effect.
    fn shutdown(&mut self, how: Shutdown) -> io::Result<()>;

    /// Tells the transport that [`Shutdown::HalfClose`] follows the next write, if that write takes all bytes. The
    /// transport may hold the bytes back until then, to send them together with the end of the stream. By default this
    /// does nothing.
    fn expect_half_close(&mut self) {}

    /// Whether the sending direction can be shut down alone. If not, the stream is closed instead of
    /// [half-closed](Shutdown::HalfClose). By default true.
    fn can_half_close(&self) -> bool {
        true
    }

    /// Whether the stream is confidential: TLS, or a stream that does not leave the machine. Over any other stream, a
    /// client of a `wss` URI fails and sends nothing. By default false.
    fn is_secure(&self) -> bool {
        false
    }

    /// The peer. By default [`Peer::Unknown`].
    fn peer(&self) -> Peer {
        Peer::Unknown
    }

    /// How much of the written output the peer's machine has acknowledged; `None`, the default, if the transport does
    /// not know. Called when a deadline has passed: a ping that was queued behind a large message leaves late.
    fn send_queue(&self) -> Option<SendQueue> {
        None
    }

    /// The present time, if the transport knows it more exactly than the instant that was passed to
    /// the driver. Timers that a handler sets count from this time. By default `None`.
    fn now(&self) -> Option<Instant> {
        None
    }
}

impl<T: Transport + ?Sized> Transport for &mut T {
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        (**self).write(slices)
    }

    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        (**self).shutdown(how)
    }

    fn expect_half_close(&mut self) {
        (**self).expect_half_close();
    }

    fn can_half_close(&self) -> bool {
        (**self).can_half_close()
    }

    fn is_secure(&self) -> bool {
        (**self).is_secure()
    }

    fn peer(&self) -> Peer {
        (**self).peer()
    }

    fn send_queue(&self) -> Option<SendQueue> {
        (**self).send_queue()
    }

    fn now(&self) -> Option<Instant> {
        (**self).now()
    }
}

/// The peer of a stream. Its `Display` is for logs.
///
/// ```
/// use anyloop::transport::Peer;
///
/// let peer = Peer::Tcp("192.0.2.1:9002".parse()?);
/// assert_eq!(peer.to_string(), "192.0.2.1:9002");
/// assert_eq!(peer.addr(), Some("192.0.2.1:9002".parse()?));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket; without a path if it has none.
    Unix(Option<PathBuf>),
    /// Another kind of peer, with a name for logs.
    Named(String),
    /// The peer is not known: the stream was reset before the address was queried, for example.
    #[default]
    Unknown,
}

impl Peer {
    /// The address, for a TCP peer.
    #[must_use]
    pub const fn addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            _ => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(Some(path)) => {
                // The peer has chosen the path, which must not forge a line of a log.
                write!(f, "unix:{}", path.display().to_string().escape_debug())
            }
            Self::Unix(None) => f.write_str("unix socket"),
            Self::Named(name) => f.write_str(name),
            Self::Unknown => f.write_str("unknown peer"),
        }
    }
}
