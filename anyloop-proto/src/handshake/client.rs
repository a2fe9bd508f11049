//! The client's side of the opening handshake (RFC 6455 §4.1).

use alloc::sync::Arc;
use alloc::vec::Vec;

use http::StatusCode;

use super::body::{Body, Framing};
use super::client_request::{self, RequestError};
use super::head::{Head, HeadKind};
use super::key;
use super::opened::Opened;
use super::options::ClientOptions;
use super::parse;
use super::uri::Target;
use super::verify::{Verified, verify};
use crate::config::Role;
use crate::connection::{Connection, Shutdown, Timer};
use crate::error::{Cause, Failure, HandshakeError, State, TransportError};
use crate::input::Input;
use crate::output::Output;
use crate::time::Instant;

/// The number of interim responses (RFC 9110 §15.2) that are skipped. Some servers send a few 103.
const MAX_INTERIM: u8 = 16;

/// The client's side of an opening handshake.
///
/// [`new`](Self::new) writes the request. [`next`](Self::next) takes received bytes until the
/// response is complete, and verifies it. If it does not open a connection,
/// [`response`](Self::response) returns it.
///
/// After any call, poll [`poll_timeout`](Self::poll_timeout) and [`shutdown`](Self::shutdown), as
/// with a [`Connection`].
///
/// ```
/// use std::sync::Arc;
/// use anyloop_proto::handshake::{ClientHandshake, ClientOptions, Target};
/// use anyloop_proto::{Cause, HandshakeError, Input, Instant};
///
/// let now = Instant::from_nanos(0);
/// let target: Target = "ws://server.example.com/chat".parse()?;
/// let mut out = Vec::new();
/// let mut handshake =
///     ClientHandshake::new(&target, Arc::new(ClientOptions::default()), now, &mut out)?;
/// assert!(out.starts_with(b"GET /chat HTTP/1.1\r\nHost: server.example.com\r\n"));
///
/// let mut bytes = *b"HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\nnot you\n";
/// let failure = handshake.next(&mut Input::new(&mut bytes), now, &mut out).unwrap_err();
/// assert_eq!(failure.cause(), Cause::Handshake(HandshakeError::Rejected(403)));
/// assert_eq!(handshake.response().expect("it was refused").body(), b"not you\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ClientHandshake {
    options: Arc<ClientOptions>,
    /// The expected value of Sec-WebSocket-Accept.
    accept: key::AcceptValue,
    step: Step,
    /// Bytes of heads so far, including those of interim responses.
    head_size: usize,
    interim_count: u8,
    response: Option<http::Response<Vec<u8>>>,
    deadline: Option<Instant>,
    /// The latest instant for the response, set by [`expire_by`](Self::expire_by).
    latest: Option<Instant>,
    failure: Option<Failure>,
}

/// The progress of the handshake.
enum Step {
    Head(Head),
    /// The body of a response with this status, which is not 101.
    Body(Body, StatusCode),
    /// The connection is open.
    Opened,
    /// The handshake failed.
    Failed,
    /// The handshake failed, and the byte stream has ended.
    Ended,
}

impl core::fmt::Debug for ClientHandshake {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ClientHandshake")
            .field("shutdown", &self.shutdown())
            .finish_non_exhaustive()
    }
}

impl ClientHandshake {
    /// Writes the request for `target`.
    ///
    /// # Errors
    ///
    /// The options make an invalid request. Nothing was appended.
    pub fn new(
        target: &Target,
        options: Arc<ClientOptions>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<Self, RequestError> {
        let key = key::generate(&*options.connection.random);
        client_request::write(target, &options, &key, out.buffer())?;
        Ok(Self {
            accept: key::accept_value(key.as_bytes()),
            step: Step::Head(Head::new(
                HeadKind::Response,
                options.max_head_size,
                options.max_fields,
            )),
            head_size: 0,
            interim_count: 0,
            response: None,
            deadline: options.open_timeout.map(|timeout| now + timeout),
            latest: None,
            failure: None,
            options,
        })
    }

    /// Restarts [`open_timeout`](ClientOptions::open_timeout) at `now`, for a byte stream that was
    /// established after the request was written.
    pub fn restart_open_timeout(&mut self, now: Instant) {
        if matches!(self.step, Step::Head(_) | Step::Body(..)) {
            let timeout = self.options.open_timeout.map(|timeout| now + timeout);
            self.deadline = [timeout, self.latest].into_iter().flatten().min();
        }
    }

    /// Sets a latest instant for the response, in addition to
    /// [`open_timeout`](ClientOptions::open_timeout). Does nothing if the handshake is over.
    pub fn expire_by(&mut self, latest: Instant) {
        if matches!(self.step, Step::Head(_) | Step::Body(..)) {
            self.latest = Some(latest);
            self.deadline = Some(self.deadline.map_or(latest, |deadline| deadline.min(latest)));
        }
    }

    /// Takes received bytes. Returns the connection once the response is complete and valid; bytes
    /// after the response stay in the input. Interim responses (1xx other than 101) are skipped.
    ///
    /// # Errors
    ///
    /// Reported once. [`HandshakeError::Rejected`] when a response with a status other than 101 is
    /// complete, is cut off at the limit for its body, or has an invalid body; other
    /// [`HandshakeError`]s for an invalid response. Later input is discarded.
    pub fn next(
        &mut self,
        input: &mut Input<'_>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<Option<Opened>, Failure> {
        let _ = out; // unused; both roles have the same interface
        self.read(input, now).map_err(|error| {
            input.discard();
            self.fail(Cause::Handshake(error))
        })
    }

    /// Reports that the byte stream has ended: the peer sends nothing more. The body of a response
    /// may end this way (RFC 9112 §6.3).
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Rejected`] within the body of a response other than 101:
    /// [`response`](Self::response) has the part that arrived. [`Cause::EndOfStream`] before the body.
    /// Reported once.
    pub fn handle_eof(&mut self) -> Result<(), Failure> {
        self.end(Cause::EndOfStream)
    }

    /// Reports that the byte stream has failed.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Rejected`] within the body of a response other than 101:
    /// [`response`](Self::response) has the part that arrived. [`Cause::Transport`] before the body.
    /// Reported once.
    pub fn handle_error(&mut self, error: TransportError) -> Result<(), Failure> {
        self.end(Cause::Transport(error))
    }

    /// Ends the handshake at once.
    ///
    /// # Errors
    ///
    /// As [`handle_error`](Self::handle_error), with [`Cause::Terminated`].
    pub fn terminate(&mut self) -> Result<(), Failure> {
        self.end(Cause::Terminated)
    }

    /// The instant at which to call [`handle_timeout`](Self::handle_timeout) next. `None` if no
    /// timer runs.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Handles a timeout that is due at `now`. A call before the deadline does nothing. It never returns a timer,
    /// because each timeout ends the handshake.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Rejected`] within the body of a response other than 101:
    /// [`response`](Self::response) has the part that arrived. [`Cause::OpenTimeout`] before the body.
    /// Reported once.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<Option<Timer>, Failure> {
        let _ = out; // as in `next`
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return Ok(None);
        }
        match self.step {
            Step::Body(_, status) => Err(self.rejected(status)),
            Step::Head(_) => Err(self.fail(Cause::OpenTimeout)),
            Step::Opened | Step::Failed | Step::Ended => Ok(None),
        }
    }

    /// Abandons the handshake. Returns the failure, [`HandshakeError::Abandoned`]; `None` if the
    /// handshake was already over.
    pub fn abandon(&mut self, now: Instant, out: &mut impl Output) -> Option<Failure> {
        let _ = (now, out); // as in `next`
        self.fail_handshake(HandshakeError::Abandoned)
    }

    /// Reports that the target needs TLS and the byte stream has none. A transport calls this and
    /// does not write the request. Returns the failure, [`HandshakeError::NotSecure`]; `None` if
    /// the handshake was already over.
    pub fn handle_insecure(&mut self) -> Option<Failure> {
        self.fail_handshake(HandshakeError::NotSecure)
    }

    /// What the transport has to do with the byte stream.
    pub const fn shutdown(&self) -> Shutdown {
        match self.step {
            Step::Head(_) | Step::Body(..) | Step::Opened => Shutdown::None,
            // A client has nothing to send after a failed handshake.
            Step::Failed | Step::Ended => Shutdown::Abort,
        }
    }

    /// The final response, if it did not open a connection: an invalid 101, or a response with
    /// another status and the part of its body that arrived.
    #[must_use]
    pub const fn response(&self) -> Option<&http::Response<Vec<u8>>> {
        match self.step {
            Step::Failed | Step::Ended => self.response.as_ref(),
            Step::Head(_) | Step::Body(..) | Step::Opened => None,
        }
    }

    /// The same response, owned.
    #[must_use]
    pub fn into_response(self) -> Option<http::Response<Vec<u8>>> {
        match self.step {
            Step::Failed | Step::Ended => self.response,
            Step::Head(_) | Step::Body(..) | Step::Opened => None,
        }
    }

    /// Why the handshake failed; `None` if it has not.
    #[must_use]
    pub const fn failure(&self) -> Option<Failure> {
        self.failure
    }

    fn fail_handshake(&mut self, error: HandshakeError) -> Option<Failure> {
        match self.step {
            Step::Head(_) | Step::Body(..) => Some(self.fail(Cause::Handshake(error))),
            Step::Opened | Step::Failed | Step::Ended => None,
        }
    }

    fn read(
        &mut self,
        input: &mut Input<'_>,
        now: Instant,
    ) -> Result<Option<Opened>, HandshakeError> {
        while let Step::Head(head) = &mut self.step {
            if !head.read(input)? {
                return Ok(None);
            }
            self.head_size += head.size();
            let response = parse::response(head)?;
            match response.status() {
                StatusCode::SWITCHING_PROTOCOLS => return self.open(response, now).map(Some),
                status if status.is_informational() => self.skip_interim()?,
                status => {
                    let framing = Framing::of_response(response.headers(), status);
                    self.step = Step::Body(Body::new(framing, self.options.max_body_size), status);
                    self.response = Some(response);
                }
            }
        }
        match &mut self.step {
            Step::Body(body, status) => match body.read(input) {
                Ok(false) => Ok(None),
                // An invalid body changes nothing: the server has refused.
                Ok(true) | Err(_) => Err(HandshakeError::Rejected(status.as_u16())),
            },
            Step::Failed | Step::Ended => {
                input.discard();
                Ok(None)
            }
            Step::Head(_) | Step::Opened => Ok(None),
        }
    }

    /// Prepares for the response after an interim one.
    fn skip_interim(&mut self) -> Result<(), HandshakeError> {
        self.interim_count += 1;
        if self.interim_count > MAX_INTERIM {
            return Err(HandshakeError::TooManyInterim);
        }
        let rest = self.options.max_head_size.saturating_sub(self.head_size);
        self.step = Step::Head(Head::new(HeadKind::NextResponse, rest, self.options.max_fields));
        Ok(())
    }

    /// Verifies a 101 response, and creates the connection.
    fn open(
        &mut self,
        response: http::Response<Vec<u8>>,
        now: Instant,
    ) -> Result<Opened, HandshakeError> {
        let response = self.response.insert(response);
        let Verified { subprotocol, extension } = verify(response, &self.accept, &self.options)?;

        (self.step, self.deadline) = (Step::Opened, None);
        let mut connection = Connection::new(Role::Client, self.options.connection.clone(), now);
        let mut agreed = None;
        if let Some((extension, codec)) = extension {
            connection = connection.with_extension(codec.decoder, codec.encoder);
            agreed = extension.to_field();
        }
        let response = core::mem::take(response).map(|_| ());
        Ok(Opened { connection, response, subprotocol, extension: agreed })
    }

    /// Ends the handshake at once. Fails with `cause`, or with the refusal whose body was being received. If the
    /// handshake was over, there is no failure.
    fn end(&mut self, cause: Cause) -> Result<(), Failure> {
        let failure = match self.step {
            Step::Opened => return Ok(()),
            Step::Head(_) => Err(self.fail(cause)),
            Step::Body(_, status) => Err(self.rejected(status)),
            Step::Failed | Step::Ended => Ok(()),
        };
        self.step = Step::Ended;
        failure
    }

    /// Fails because of a response with this status.
    fn rejected(&mut self, status: StatusCode) -> Failure {
        self.fail(Cause::Handshake(HandshakeError::Rejected(status.as_u16())))
    }

    /// Fails, and keeps the part of the body that has arrived.
    fn fail(&mut self, cause: Cause) -> Failure {
        if let (Step::Body(body, _), Some(response)) = (&mut self.step, &mut self.response) {
            *response.body_mut() = body.take();
        }
        (self.step, self.deadline) = (Step::Failed, None);
        *self.failure.insert(Failure::new(cause, State::Connecting, 0))
    }
}
