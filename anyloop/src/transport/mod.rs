//! What carries a connection's bytes, and the trait that it implements.

pub mod iostream;
pub mod stepping;
pub mod stub;

use std::error::Error;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::task::Waker;

use anyloop_proto::{Instant, Shutdown, TransportError};

/// The lower side of one connection: whatever carries its bytes.
///
/// This trait is what a [`Session`](crate::endpoint::Session) asks of a transport. The other
/// direction, what a transport tells its session, are the session's methods:
///
/// | it happened | say |
/// |---|---|
/// | the stream is there | [`start`](crate::endpoint::Session::start) |
/// | bytes have arrived | [`feed`](crate::endpoint::Session::feed) |
/// | the peer has ended its direction | [`handle_eof`](crate::endpoint::Session::handle_eof) |
/// | the stream has failed | [`handle_error`](crate::endpoint::Session::handle_error), or [`handle_error_with`](crate::endpoint::Session::handle_error_with) where it is known with what |
/// | it can be written again | [`handle_writable`](crate::endpoint::Session::handle_writable) |
/// | the deadline has come | [`handle_timeout`](crate::endpoint::Session::handle_timeout) |
/// | it was woken | [`drain`](crate::endpoint::Session::drain) |
///
/// The memory that a session is lent, [`Scratch`](crate::endpoint::Scratch), is
/// [trimmed](crate::endpoint::Scratch::trim) when there is nothing else to do.
///
/// No method here may call its session: they are called from within it. None may block. The source of
/// [`stub`] is a transport with everything left out, and the place to begin one's own.
///
/// A transport to a peer that is a `Vec`, as in a test, and a session that it drives:
///
/// ```
/// use std::convert::Infallible;
/// use std::io::IoSlice;
/// use std::task::Waker;
/// use anyloop::endpoint::Scratch;
/// use anyloop::proto::{Instant, Shutdown, TransportError};
/// use anyloop::transport::Transport;
/// # use anyloop::Server;
/// # use anyloop::proto::handshake::{OriginPolicy, ServerOptions};
/// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
///
/// #[derive(Default)]
/// struct Memory {
///     written: Vec<u8>,
///     shutdown: Option<Shutdown>,
///     deadline: Option<Instant>,
/// }
///
/// impl Transport for Memory {
///     type Error = Infallible;
///     type Endpoint = ();
///
///     fn write(&mut self, slices: &[IoSlice<'_>]) -> Result<usize, Infallible> {
///         let before = self.written.len();
///         slices.iter().for_each(|slice| self.written.extend_from_slice(slice));
///         Ok(self.written.len() - before)
///     }
///
///     fn shutdown(&mut self, how: Shutdown) -> Result<(), Infallible> {
///         self.shutdown = Some(how);
///         Ok(())
///     }
///
///     fn set_deadline(&mut self, deadline: Option<Instant>) {
///         self.deadline = deadline;
///     }
///
///     fn waker(&self) -> Waker {
///         Waker::noop().clone()
///     }
///
///     fn classify(error: &Infallible) -> TransportError {
///         match *error {}
///     }
///
///     fn is_secure(&self) -> bool {
///         true
///     }
///
///     fn remote_endpoint(&self) -> String {
///         "memory".into()
///     }
/// }
///
/// let mut server = Server::<Memory>::new(ServerOptions::new(OriginPolicy::Any));
/// server.on_message(|message, context| _ = context.send(message));
/// let (mut memory, mut scratch) = (Memory::default(), Scratch::default());
/// let now = Instant::from_nanos(0);
/// let mut session = server.session(&memory.waker(), now);
/// session.start(&mut memory, &mut scratch, now);
/// assert!(memory.deadline.is_some()); // a request must come in time
///
/// let mut received = [REQUEST, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"].concat();
/// let taken = session.feed(&mut memory, &mut scratch, &mut received, now);
/// assert_eq!(taken, received.len());
/// assert!(memory.written.ends_with(b"\r\n\r\n\x81\x05Hello"));
///
/// session.handle_eof(&mut memory, &mut scratch, now);
/// assert!(session.is_over() && memory.shutdown == Some(Shutdown::Abort));
/// ```
pub trait Transport {
    /// What its operations fail with.
    type Error: Error + Send + Sync + 'static;

    /// What it keeps for all connections of an endpoint: listeners, say, or what they begin with.
    type Endpoint: Default;

    /// Whether a deadline that has moved to a later time need not be told, nor one that is gone: the
    /// transport then calls [`handle_timeout`](crate::endpoint::Session::handle_timeout) at the earlier
    /// one, and is told the new one there. Most deadlines move with each message, and never come.
    const LAZY_DEADLINES: bool = false;

    /// The server of this endpoint [shuts down](crate::Server::shut_down): no further connections are to
    /// be made for it. By default it does nothing, for transports that make none by themselves.
    fn stop_listening(endpoint: &Self::Endpoint) {
        let _ = endpoint;
    }

    /// Writes as much of `slices`, in order, as can be written at once, and returns how many bytes
    /// that was. If it was not all, the session keeps the rest and writes nothing more until
    /// [`handle_writable`](crate::endpoint::Session::handle_writable), which the transport then
    /// owes it.
    ///
    /// # Errors
    ///
    /// The stream is broken. The session ends; nothing but [`shutdown`](Self::shutdown), `is_secure` and
    /// `remote_endpoint` is called after this.
    fn write(&mut self, slices: &[IoSlice<'_>]) -> Result<usize, Self::Error>;

    /// Ends the stream, in part or whole; all that was written before has been taken.
    ///
    /// - [`Shutdown::HalfClose`]: shuts down the sending direction. Input goes on being fed.
    /// - [`Shutdown::Close`]: closes. Nothing but `is_secure` and `remote_endpoint` is called after
    ///   this.
    /// - [`Shutdown::Abort`]: closes, and drops what the transport itself may still hold. The same holds.
    ///
    /// # Errors
    ///
    /// They are logged, and change nothing: the stream is over.
    fn shutdown(&mut self, how: Shutdown) -> Result<(), Self::Error>;

    /// Whether the sending direction can be shut down alone. A stream without halves is closed where it
    /// would be [half-closed](Shutdown::HalfClose): its peer could not learn otherwise that it has
    /// ended, and would wait for it until the close timeout.
    fn has_halves(&self) -> bool {
        true
    }

    /// Asks for [`handle_timeout`](crate::endpoint::Session::handle_timeout) at or after this
    /// instant, in place of what was asked before; `None`: not at all.
    fn set_deadline(&mut self, deadline: Option<Instant>);

    /// Stops or resumes reading: while reading is stopped, [`feed`](crate::endpoint::Session::feed)
    /// takes nothing. What was received and not taken is to be fed when reading resumes. By default it
    /// does nothing, for transports whose input comes by itself.
    fn set_reading(&mut self, reading: bool) {
        let _ = reading;
    }

    /// What another thread calls when there is something to [drain](crate::endpoint::Session::drain).
    fn waker(&self) -> Waker;

    /// Which kind of failure this is.
    fn classify(error: &Self::Error) -> TransportError;

    /// Whether nobody can read along (TLS, or something as good).
    fn is_secure(&self) -> bool;

    /// Who is at the other end, for people to read.
    fn remote_endpoint(&self) -> String;

    /// The address of the other end, for transports that have such addresses.
    fn peer_addr(&self) -> Option<SocketAddr> {
        None
    }

    /// The number under which the transport itself knows this connection; one that keeps no list of
    /// its own needs none.
    fn key(&self) -> u64 {
        0
    }

    /// The present, where the transport knows it more exactly than by the instant that it named in the
    /// present call. Timers that a handler sets count from here.
    fn now(&self) -> Option<Instant> {
        None
    }
}
