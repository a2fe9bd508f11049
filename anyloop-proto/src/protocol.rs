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

/// An opening handshake of either role, or the open connection that follows it.
///
/// The methods work in every phase. Input is passed to the `next` method of the variant.
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
#[expect(clippy::exhaustive_enums, reason = "a transport has to handle each variant")]
pub enum Protocol {
    /// The opening handshake of a server. Boxed because it is large and short-lived.
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
    /// The options make an invalid request.
    pub fn client(
        target: &Target,
        options: Arc<ClientOptions>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<Self, RequestError> {
        Ok(Self::Client(Box::new(ClientHandshake::new(target, options, now, out)?)))
    }

    /// The state of the connection. A handshake is [`State::Connecting`], even after it failed.
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

    /// What the transport does with the byte stream once the output is written.
    #[inline]
    pub fn shutdown(&self) -> Shutdown {
        match self {
            Self::Server(handshake) => handshake.shutdown(),
            Self::Client(handshake) => handshake.shutdown(),
            Self::Open(connection) => connection.shutdown(),
            Self::Closed => Shutdown::Abort,
        }
    }

    /// Whether input is ignored: the peer's Close has arrived, an HTTP request was answered, or the handshake or the
    /// connection has failed. A transport then reads only to see the end of the stream.
    #[inline]
    #[must_use]
    pub fn discards_input(&self) -> bool {
        match self {
            Self::Open(connection) => !matches!(connection.state(), State::Open | State::CloseSent),
            Self::Server(handshake) => handshake.discards_input(),
            Self::Client(_) | Self::Closed => self.shutdown() != Shutdown::None,
        }
    }

    /// Whether a request waits for the application's answer. Input is not read meanwhile.
    #[must_use]
    pub const fn awaits_answer(&self) -> bool {
        match self {
            Self::Server(handshake) => handshake.awaits_answer(),
            _ => false,
        }
    }

    /// The instant at which to call [`handle_timeout`](Self::handle_timeout) next. `None` if no
    /// timer runs.
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

    /// Performs one action that is due at `now` and returns its timer; `None` if nothing is due.
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

    /// Reports that the peer sends nothing more. [`failure`](Self::failure) returns a failure that
    /// results.
    pub fn handle_eof(&mut self) {
        let _: Result<(), Failure> = match self {
            Self::Server(handshake) => handshake.handle_eof(),
            Self::Client(handshake) => handshake.handle_eof(),
            Self::Open(connection) => connection.handle_eof(),
            Self::Closed => Ok(()),
        };
    }

    /// Reports that the byte stream has failed. [`failure`](Self::failure) returns the failure.
    pub fn handle_error(&mut self, error: TransportError) {
        let _: Result<(), Failure> = match self {
            Self::Server(handshake) => handshake.handle_error(error),
            Self::Client(handshake) => handshake.handle_error(error),
            Self::Open(connection) => connection.handle_error(error),
            Self::Closed => Ok(()),
        };
    }

    /// Reports that output of the connection will never be written: see [`Connection::handle_lost_output`].
    /// [`failure`](Self::failure) returns a failure that results. Does nothing during a handshake.
    pub fn handle_lost_output(&mut self) {
        if let Self::Open(connection) = self {
            let _: Result<(), Failure> = connection.handle_lost_output();
        }
    }

    /// Ends the connection or the handshake at once; the transport aborts the byte stream. [`failure`](Self::failure)
    /// returns the failure.
    pub fn terminate(&mut self) {
        let _: Result<(), Failure> = match self {
            Self::Server(handshake) => handshake.terminate(),
            Self::Client(handshake) => handshake.terminate(),
            Self::Open(connection) => connection.terminate(),
            Self::Closed => Ok(()),
        };
    }

    /// Reports that the application cannot go on. An open connection fails with 1011; a handshake
    /// is abandoned (a server answers 503, or aborts a response that is being sent).
    pub fn handle_application_failure(&mut self, now: Instant, out: &mut impl Output) {
        match self {
            Self::Open(connection) => _ = connection.handle_application_failure(now, out),
            Self::Server(handshake) => _ = handshake.handle_application_failure(now, out),
            Self::Client(handshake) => _ = handshake.abandon(now, out),
            Self::Closed => {}
        }
    }

    /// Why the handshake or the connection failed; `None` if it has not, and in [`Closed`](Self::Closed).
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        match self {
            Self::Server(handshake) => handshake.failure(),
            Self::Client(handshake) => handshake.failure(),
            Self::Open(connection) => connection.ending()?.failure,
            Self::Closed => None,
        }
    }

    /// The counters of the connection; zero during the handshake, and in [`Closed`](Self::Closed).
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
