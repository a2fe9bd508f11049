//! A connection from the first byte of its handshake to the end of its byte stream.

use alloc::boxed::Box;
use alloc::sync::Arc;

use crate::connection::{Connection, Shutdown, Statistics, Timer};
use crate::error::{Failure, State, TransportError};
use crate::handshake::{
    ClientHandshake, ClientOptions, RequestError, ServerHandshake, ServerOptions, Target,
};
use crate::output::Output;
use crate::time::Instant;

/// An opening handshake of either role, or the open connection that it led to.
///
/// Everything that does not depend on how far the connection has come is asked of this type. What
/// arrives is passed to the variant: each of them has a `next`.
///
/// ```
/// # use anyloop_proto::*;
/// # use anyloop_proto::handshake::*;
/// # let now = Instant::from_nanos(0);
/// let mut protocol = Protocol::server(ServerOptions::new(OriginPolicy::Any).into(), now);
/// assert_eq!(protocol.state(), State::Connecting);
/// assert!(protocol.poll_timeout().is_some()); // the request must arrive in time
///
/// protocol.handle_error(TransportError::Reset);
/// assert_eq!(protocol.shutdown(), Shutdown::Abort);
/// assert!(protocol.failure().is_some());
/// ```
#[derive(Default)]
#[expect(clippy::exhaustive_enums, reason = "a driver has to handle each of them")]
pub enum Protocol {
    /// The opening handshake of a server. Boxed: it is large and does not last.
    Server(Box<ServerHandshake>),
    /// The opening handshake of a client.
    Client(Box<ClientHandshake>),
    /// An open connection.
    Open(Connection),
    /// The byte stream is closed.
    #[default]
    Closed,
}

impl Protocol {
    /// The server's side of a byte stream that begins at `now`.
    #[must_use]
    pub fn server(options: Arc<ServerOptions>, now: Instant) -> Self {
        Self::Server(Box::new(ServerHandshake::new(options, now)))
    }

    /// The client's side. Appends the request to `out`.
    ///
    /// # Errors
    ///
    /// The options would make an invalid request.
    pub fn client(
        target: &Target,
        options: Arc<ClientOptions>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<Self, RequestError> {
        Ok(Self::Client(Box::new(ClientHandshake::new(target, options, now, out)?)))
    }

    /// How far the connection has come. A handshake is [`State::Connecting`], also one that failed.
    #[inline]
    #[must_use]
    pub const fn state(&self) -> State {
        match self {
            Self::Server(_) | Self::Client(_) => State::Connecting,
            Self::Open(connection) => connection.state(),
            Self::Closed => State::Ended,
        }
    }

    /// Whether the connection is open: neither end has begun to close it.
    #[inline]
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open(connection) if connection.state() == State::Open)
    }

    /// What is to become of the byte stream, once the output is written.
    #[inline]
    pub fn shutdown(&self) -> Shutdown {
        match self {
            Self::Server(handshake) => handshake.shutdown(),
            Self::Client(handshake) => handshake.shutdown(),
            Self::Open(connection) => connection.shutdown(),
            Self::Closed => Shutdown::Abort,
        }
    }

    /// Whether input leads to nothing any more: the peer's Close has arrived, or the connection has
    /// failed. A driver then reads only to see the end of the stream.
    #[inline]
    #[must_use]
    pub fn discards_input(&self) -> bool {
        match self {
            Self::Open(connection) => !matches!(connection.state(), State::Open | State::CloseSent),
            Self::Server(_) | Self::Client(_) | Self::Closed => self.shutdown() != Shutdown::Open,
        }
    }

    /// Whether a request waits for the application's verdict. Input is not read meanwhile.
    #[must_use]
    pub fn awaits_verdict(&self) -> bool {
        match self {
            Self::Server(handshake) => {
                handshake.request().is_some() && handshake.shutdown() == Shutdown::Open
            }
            _ => false,
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next; `None`: not before
    /// another call.
    #[inline]
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Server(handshake) => handshake.poll_timeout(),
            Self::Client(handshake) => handshake.poll_timeout(),
            Self::Open(connection) => connection.poll_timeout(),
            Self::Closed => None,
        }
    }

    /// Does one thing that is due at `now`, and returns what it was; `None` when nothing is due.
    ///
    /// # Errors
    ///
    /// The failure of the connection, once.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<Option<Timer>, Failure> {
        match self {
            Self::Server(handshake) => handshake.handle_timeout(now, out),
            Self::Client(handshake) => handshake.handle_timeout(now, out),
            Self::Open(connection) => connection.handle_timeout(now, out),
            Self::Closed => Ok(None),
        }
    }

    /// The peer sends nothing more. A failure that follows from it is kept; see
    /// [`failure`](Self::failure).
    pub fn handle_eof(&mut self) {
        let _: Result<(), Failure> = match self {
            Self::Server(handshake) => handshake.handle_eof(),
            Self::Client(handshake) => handshake.handle_eof(),
            Self::Open(connection) => connection.handle_eof(),
            Self::Closed => Ok(()),
        };
    }

    /// The byte stream has failed. The failure is kept.
    pub fn handle_error(&mut self, error: TransportError) {
        let _: Result<(), Failure> = match self {
            Self::Server(handshake) => handshake.handle_error(error),
            Self::Client(handshake) => handshake.handle_error(error),
            Self::Open(connection) => connection.handle_error(error),
            Self::Closed => Ok(()),
        };
    }

    /// The application cannot go on. Fails with 1011; before the connection is open, gives the
    /// handshake up (a server answers 503).
    pub fn handle_application_failure(&mut self, now: Instant, out: &mut impl Output) {
        match self {
            Self::Open(connection) => _ = connection.handle_application_failure(now, out),
            Self::Server(handshake) => _ = handshake.abandon(now, out),
            Self::Client(handshake) => _ = handshake.abandon(now, out),
            Self::Closed => {}
        }
    }

    /// Why there is no connection, or none any more; `None` while nothing has gone wrong.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        match self {
            Self::Server(handshake) => handshake.failure(),
            Self::Client(handshake) => handshake.failure(),
            Self::Open(connection) => connection.ending()?.failure,
            Self::Closed => None,
        }
    }

    /// What has passed through; zeros unless the connection is open.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        match self {
            Self::Open(connection) => connection.statistics(),
            _ => Statistics::default(),
        }
    }
}

impl core::fmt::Debug for Protocol {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Protocol").field("state", &self.state()).finish_non_exhaustive()
    }
}
