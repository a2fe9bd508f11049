//! What carries the bytes of one stream.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyloop_proto::{Instant, Shutdown};

/// What carries the bytes of one connection: all that a [`Driver`](super::Driver) asks of it.
///
/// Reading is up to the transport's owner, who reports what happens to the driver:
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
/// and after each of these asks what the driver [waits for](super::Driver#what-to-do-next).
///
/// No method may block, or call the driver. The source of [`stub`](crate::transport::stub) is a
/// transport with everything left out, and the place to begin one's own.
///
/// A transport to a peer that is a `Vec`, as in a test:
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
pub trait Transport {
    /// Writes as much of `slices`, in order, as can be written without blocking, and returns how many
    /// bytes that was. If it was not all, the driver keeps the rest, and writes nothing more until
    /// [`handle_writable`](super::Driver::handle_writable), which the transport's owner then owes it.
    ///
    /// # Errors
    ///
    /// The stream is broken, and the connection ends. Only [`shutdown`](Self::shutdown) is called
    /// after this. An error of the kind `WouldBlock` is not one: return 0.
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Ends the stream, in part or whole; all that was written before has been taken.
    ///
    /// - [`Shutdown::HalfClose`]: shuts down the sending direction. The driver still waits for input.
    /// - [`Shutdown::Close`]: closes the stream. Nothing else is called after this.
    /// - [`Shutdown::Abort`]: closes the stream, and drops what the transport itself still holds.
    ///   Nothing else is called after this.
    ///
    /// # Errors
    ///
    /// They are logged, and change nothing: the stream is over.
    fn shutdown(&mut self, how: Shutdown) -> io::Result<()>;

    /// Whether the sending direction can be shut down alone. A stream without that is closed where it
    /// would be [half-closed](Shutdown::HalfClose). By default true.
    fn can_half_close(&self) -> bool {
        true
    }

    /// Whether nobody can read along: TLS, or a stream that does not leave the machine. A client of a
    /// `wss` URI sends nothing over any other. By default false.
    fn is_secure(&self) -> bool {
        false
    }

    /// Who is at the other end. By default [`Peer::Unknown`].
    fn peer(&self) -> Peer {
        Peer::Unknown
    }

    /// How many of the bytes that were written have not left this machine, if the transport knows. Asked only when a
    /// pong is late: a ping behind a large message leaves late. By default 0.
    fn unsent(&self) -> usize {
        0
    }

    /// The present time, if the transport knows it more exactly than the instant that was passed to
    /// the driver. Timers that a handler sets count from here. By default `None`.
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

    fn can_half_close(&self) -> bool {
        (**self).can_half_close()
    }

    fn is_secure(&self) -> bool {
        (**self).is_secure()
    }

    fn peer(&self) -> Peer {
        (**self).peer()
    }

    fn unsent(&self) -> usize {
        (**self).unsent()
    }

    fn now(&self) -> Option<Instant> {
        (**self).now()
    }
}

/// Who is at the other end of a stream. Its `Display` is for people to read.
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
    /// Something else, by a name for people to read.
    Named(String),
    /// Nothing is known; the stream was reset before anybody asked, for example.
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
            Self::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            Self::Unix(None) => f.write_str("unix socket"),
            Self::Named(name) => f.write_str(name),
            Self::Unknown => f.write_str("unknown peer"),
        }
    }
}
