//! The server's side of the opening handshake (RFC 6455 §4.2).

use alloc::boxed::Box;
use alloc::sync::Arc;

use http::StatusCode;

use super::accept::{self, Accept};
use super::body::Body;
use super::head::{Head, HeadKind};
use super::opened::Opened;
use super::options::ServerOptions;
use super::parse;
use super::request::{self, Checked, Request};
use super::responding::Sending;
use super::response::{self, AnswerError, SentFraming};
use super::write::HeadWriter;
use crate::config::Config;
use crate::connection::{Shutdown, Timer};
use crate::error::{Cause, Failure, HandshakeError, State, TransportError};
use crate::input::Input;
use crate::output::Output;
use crate::time::Instant;

/// The server's side of an opening handshake, or of a single exchange of plain HTTP.
///
/// 1. [`next`](Self::next) takes received bytes until it returns a request. It answers an invalid
///    request itself, and fails.
/// 2. The application answers, at once or later: [`accept`](Self::accept) opens the connection of a
///    WebSocket request; [`respond`](Self::respond) sends another response and ends the exchange, or
///    [`respond_head`](Self::respond_head) begins one whose body follows in pieces.
///
/// Between these two steps, no input is taken. The bytes after a WebSocket request are frames. The bytes
/// after a plain request are ignored, because each byte stream serves one request. Every response
/// other than 100 and 101 has `close` in its Connection field.
///
/// After any call, poll [`poll_timeout`](Self::poll_timeout) and [`shutdown`](Self::shutdown), as
/// with a [`Connection`](crate::Connection).
///
/// ```
/// use std::sync::Arc;
/// use anyloop_proto::handshake::{Accept, Incoming, OriginPolicy, ServerHandshake, ServerOptions};
/// use anyloop_proto::{Input, Instant};
///
/// let now = Instant::from_nanos(0);
/// let options = Arc::new(ServerOptions::new(OriginPolicy::Any));
/// let mut handshake = ServerHandshake::new(options, now);
///
/// let mut bytes = *b"GET /chat HTTP/1.1\r\n\
///     Host: server.example.com\r\n\
///     Upgrade: websocket\r\n\
///     Connection: Upgrade\r\n\
///     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
///     Sec-WebSocket-Version: 13\r\n\r\n";
/// let mut out = Vec::new();
/// let incoming = handshake.next(&mut Input::new(&mut bytes), now, &mut out)?;
/// assert!(matches!(incoming, Some(Incoming::Upgrade(request)) if request.uri() == "/chat"));
///
/// let opened = handshake.accept(Accept::new(), now, &mut out)?;
/// assert!(out.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
/// # _ = opened.connection;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ServerHandshake {
    pub(super) options: Arc<ServerOptions>,
    pub(super) step: Step,
    request: Option<Request>,
    pub(super) deadline: Option<Instant>,
    failure: Option<Failure>,
    /// The application's response, or the 500 in its place, once it has begun. Refusals by the handshake are not
    /// counted.
    pub(super) sending: Option<Sending>,
    /// The method of the request is HEAD.
    pub(super) is_head_request: bool,
    /// The peer has shut down its sending direction.
    pub(super) eof: bool,
}

/// A request for the application. [`ServerHandshake::request`] returns it again later.
///
/// The examples of [`ServerHandshake`] and [`Request`] show one of each.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_enums, reason = "a request is either")]
pub enum Incoming<'r> {
    /// A valid WebSocket request: [`accept`](ServerHandshake::accept) it, or
    /// [`respond`](ServerHandshake::respond) with a refusal.
    Upgrade(&'r Request),
    /// Any other request, with its body: [`respond`](ServerHandshake::respond).
    Http(&'r Request),
}

/// The progress of the handshake.
pub(super) enum Step {
    Head(Head),
    Body(Body, Box<Request>),
    /// The application has the request.
    Awaiting,
    /// The connection is open.
    Opened,
    /// The head of the response is appended, and its body is to follow.
    Responding(SentFraming),
    /// The response is appended, unless no byte of a request had arrived, and the peer has to read it. `drain`: input
    /// that the peer may still send has to be read and discarded.
    Closing {
        drain: bool,
    },
    /// The exchange is over.
    Ended,
}

impl core::fmt::Debug for ServerHandshake {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ServerHandshake")
            .field("shutdown", &self.shutdown())
            .finish_non_exhaustive()
    }
}

impl ServerHandshake {
    /// A handshake for a byte stream that begins at `now`. Owns no memory before the first byte.
    #[must_use]
    pub fn new(options: Arc<ServerOptions>, now: Instant) -> Self {
        let step =
            Step::Head(Head::new(HeadKind::Request, options.max_head_size, options.max_fields));
        let deadline = options.open_timeout.map(|timeout| now + timeout);
        let (request, failure, sending) = (None, None, None);
        let (is_head_request, eof) = (false, false);
        Self { options, step, request, deadline, failure, sending, is_head_request, eof }
    }

    /// Takes received bytes, and returns the request once, when it is complete.
    ///
    /// # Errors
    ///
    /// [`Cause::Handshake`] for an invalid request, once. The response was appended. Later input is
    /// discarded.
    pub fn next(
        &mut self,
        input: &mut Input<'_>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<Option<Incoming<'_>>, Failure> {
        match self.read(input, out) {
            Ok(true) => Ok(self.deliver_request(now)),
            Ok(false) => Ok(None),
            Err(error) => {
                input.discard();
                response::refuse(error, !self.is_head_request, out.buffer());
                let step = std::mem::replace(&mut self.step, Step::Ended);
                if let (HandshakeError::BodyTooBig, Step::Body(_, request)) = (error, step) {
                    self.request = Some(*request); // its head is valid, so a log can name it
                }
                self.close(now);
                Err(self.fail(Cause::Handshake(error)))
            }
        }
    }

    /// Changes the settings of this connection alone, which are at first
    /// [those of the server](ServerOptions::connection). Call it before [`accept`](Self::accept).
    ///
    /// ```
    /// # use anyloop_proto::*;
    /// # use anyloop_proto::handshake::*;
    /// # let now = Instant::from_nanos(0);
    /// # let mut request = *b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    /// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    /// # let options = ServerOptions::new(OriginPolicy::Any);
    /// # let mut handshake = ServerHandshake::new(options.into(), now);
    /// # let mut out = Vec::new();
    /// # handshake.next(&mut Input::new(&mut request), now, &mut out)?;
    /// handshake.configure(|config| config.max_message_size = 4);
    /// let Connection { mut receiver, mut sender } =
    ///     handshake.accept(Accept::new(), now, &mut out)?.connection;
    ///
    /// let mut bytes = *b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"; // "Hello"
    /// let failure = receiver.next(&mut sender, &mut Input::new(&mut bytes), now, &mut out).err();
    /// assert_eq!(failure.map(|failure| failure.close_code()), Some(Some(CloseCode::MESSAGE_TOO_BIG)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn configure(&mut self, change: impl FnOnce(&mut Config)) {
        let options = Arc::make_mut(&mut self.options);
        change(Arc::make_mut(&mut options.connection));
    }

    /// Accepts the WebSocket request: appends the response and returns the connection.
    ///
    /// # Errors
    ///
    /// Nothing was appended. The request still waits for an answer, except after [`AnswerError::NotAwaiting`].
    pub fn accept(
        &mut self,
        accept: Accept,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<Opened, AnswerError> {
        let upgrade = self.awaiting()?.upgrade().ok_or(AnswerError::NotAnUpgrade)?;
        let opened = accept::open(&self.options, upgrade, accept, now, out.buffer())?;
        (self.step, self.deadline) = (Step::Opened, None);
        Ok(opened)
    }

    /// Reports that the peer sends nothing more.
    ///
    /// A client may end its direction after a plain request and still read the response.
    ///
    /// # Errors
    ///
    /// [`Cause::EndOfStream`] if the request is not complete, or is a WebSocket request that waits for an answer; once.
    pub fn handle_eof(&mut self) -> Result<(), Failure> {
        self.eof = true;
        match &mut self.step {
            Step::Awaiting if self.request.as_ref().is_some_and(|r| !r.is_upgrade()) => Ok(()),
            Step::Head(_) | Step::Body(..) | Step::Awaiting => self.end(Cause::EndOfStream),
            Step::Closing { drain } => {
                *drain = false;
                Ok(())
            }
            Step::Opened | Step::Responding(_) | Step::Ended => Ok(()),
        }
    }

    /// Reports that the byte stream has failed.
    ///
    /// # Errors
    ///
    /// [`Cause::Transport`] if the handshake was not over, or its response was not written; once. A handshake that has
    /// failed, and whose response was appended whole, does not fail again.
    pub fn handle_error(&mut self, error: TransportError) -> Result<(), Failure> {
        self.stop(Cause::Transport(error))
    }

    /// Ends the handshake at once, without an answer: the transport [aborts](Shutdown::Abort) the byte stream.
    ///
    /// # Errors
    ///
    /// As [`handle_error`](Self::handle_error), with [`Cause::Terminated`].
    pub fn terminate(&mut self) -> Result<(), Failure> {
        self.stop(Cause::Terminated)
    }

    /// Ends the handshake at once. Fails with `cause`, unless the handshake was over and its response is written or its
    /// failure known.
    fn stop(&mut self, cause: Cause) -> Result<(), Failure> {
        match self.step {
            Step::Head(_) | Step::Body(..) | Step::Awaiting | Step::Responding(_) => {
                self.end(cause)
            }
            Step::Closing { .. } if self.can_be_lost() && self.failure.is_none() => self.end(cause),
            Step::Closing { .. } | Step::Ended => {
                (self.step, self.deadline) = (Step::Ended, None);
                Ok(())
            }
            Step::Opened => Ok(()),
        }
    }

    /// The instant at which to call [`handle_timeout`](Self::handle_timeout) next. `None` if no
    /// timer runs.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Handles a timeout that is due at `now` and returns its timer. [`Timer::Close`] means that the client has not
    /// ended the byte stream in time after the response. A call before the deadline does nothing.
    ///
    /// # Errors
    ///
    /// [`Cause::OpenTimeout`], answered with 408 if a part of a request has arrived;
    /// [`Cause::AnswerTimeout`], answered with 503; [`Cause::ResponseTimeout`]; once.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<Option<Timer>, Failure> {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return Ok(None);
        }
        let (cause, status) = match self.step {
            Step::Head(_) | Step::Body(..) => (Cause::OpenTimeout, StatusCode::REQUEST_TIMEOUT),
            Step::Awaiting => (Cause::AnswerTimeout, StatusCode::SERVICE_UNAVAILABLE),
            Step::Responding(_) | Step::Closing { .. } if self.is_unread() => {
                return self.end(Cause::ResponseTimeout).map(|()| None);
            }
            Step::Responding(_) => return Ok(None),
            Step::Closing { .. } => {
                (self.step, self.deadline) = (Step::Ended, None);
                return Ok(Some(Timer::Close));
            }
            Step::Opened | Step::Ended => return Ok(None),
        };
        Err(self.fail_handshake(cause, status, now, out))
    }

    /// Abandons the handshake; answers 503 if any part of a request has arrived. Returns the
    /// failure, [`HandshakeError::Abandoned`]; `None` if the request was answered or the handshake was already over. A
    /// response that is being sent goes on.
    pub fn abandon(&mut self, now: Instant, out: &mut impl Output) -> Option<Failure> {
        let cause = Cause::Handshake(HandshakeError::Abandoned);
        match self.step {
            Step::Head(_) | Step::Body(..) | Step::Awaiting => {
                Some(self.fail_handshake(cause, StatusCode::SERVICE_UNAVAILABLE, now, out))
            }
            Step::Responding(_) | Step::Closing { .. } | Step::Opened | Step::Ended => None,
        }
    }

    /// Reports that the application cannot go on: [abandons](Self::abandon) the handshake, or fails with
    /// [`Cause::Application`] within the body of a response, which aborts the byte stream. Returns the failure, if
    /// there is one.
    pub fn handle_application_failure(
        &mut self,
        now: Instant,
        out: &mut impl Output,
    ) -> Option<Failure> {
        match self.is_responding() {
            true => self.end(Cause::Application).err(),
            false => self.abandon(now, out),
        }
    }

    /// What the transport has to do with the byte stream.
    pub const fn shutdown(&self) -> Shutdown {
        match self.step {
            Step::Head(_)
            | Step::Body(..)
            | Step::Awaiting
            | Step::Opened
            | Step::Responding(_) => Shutdown::None,
            Step::Closing { drain: true } => Shutdown::HalfClose,
            Step::Closing { drain: false } => Shutdown::Close,
            Step::Ended => Shutdown::Abort,
        }
    }

    /// Whether the request waits for the application's answer. Input is not read meanwhile.
    #[must_use]
    pub const fn awaits_answer(&self) -> bool {
        matches!(self.step, Step::Awaiting)
    }

    /// Whether input is ignored: the request was answered with another response than 101, or the handshake has failed.
    /// Read on only to see the end of the byte stream.
    #[must_use]
    pub const fn discards_input(&self) -> bool {
        matches!(self.step, Step::Responding(_) | Step::Closing { .. } | Step::Ended)
    }

    /// The request, once [`next`](Self::next) has returned it, even after it was answered; or, without its body, if
    /// that was too big.
    #[must_use]
    pub const fn request(&self) -> Option<&Request> {
        self.request.as_ref()
    }

    /// The same request, owned.
    #[must_use]
    pub fn into_request(self) -> Option<Request> {
        self.request
    }

    /// Why the handshake failed; `None` if it has not. An answered plain request is no failure.
    #[must_use]
    pub const fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// Reads input. Returns whether the request is complete.
    fn read(
        &mut self,
        input: &mut Input<'_>,
        out: &mut impl Output,
    ) -> Result<bool, HandshakeError> {
        match &mut self.step {
            Step::Head(head) => {
                let whole = head.read(input);
                self.is_head_request = head.is_head_request();
                if !whole? {
                    return Ok(false);
                }
                let http = parse::request(head)?;
                let Checked { request, framing, expects_continue } =
                    request::check(http, &self.options)?;
                let body = Body::new(framing, self.options.max_body_size);
                if body.declares_too_much() {
                    self.step = Step::Body(body, Box::new(request));
                    return Err(HandshakeError::BodyTooBig);
                }
                // RFC 9110 §10.1.1: no 100 (Continue) if a part of the body has already arrived.
                if expects_continue && !body.is_whole() && input.is_empty() {
                    HeadWriter::response(StatusCode::CONTINUE, out.buffer()).end();
                }
                if body.is_whole() {
                    self.step = Step::Awaiting;
                    self.request = Some(request);
                    return Ok(true);
                }
                self.step = Step::Body(body, Box::new(request));
                self.read_body(input)
            }
            Step::Body(..) => self.read_body(input),
            Step::Awaiting | Step::Opened => Ok(false),
            Step::Responding(_) | Step::Closing { .. } | Step::Ended => {
                input.discard();
                Ok(false)
            }
        }
    }

    fn read_body(&mut self, input: &mut Input<'_>) -> Result<bool, HandshakeError> {
        let Step::Body(body, _) = &mut self.step else { return Ok(false) };
        if !body.read(input)? {
            // A chunk that is too large is refused as soon as it begins.
            let too_big = body.declares_too_much();
            return if too_big { Err(HandshakeError::BodyTooBig) } else { Ok(false) };
        }
        let body = body.take();
        if let Step::Body(_, mut request) = std::mem::replace(&mut self.step, Step::Awaiting) {
            request.set_body(body);
            self.request = Some(*request);
        }
        Ok(true)
    }

    /// Returns the request to the application, and starts the answer timeout.
    fn deliver_request(&mut self, now: Instant) -> Option<Incoming<'_>> {
        self.step = Step::Awaiting;
        self.deadline = self.options.answer_timeout.map(|timeout| now + timeout);
        let request = self.request.as_ref()?;
        Some(match request.is_upgrade() {
            true => Incoming::Upgrade(request),
            false => Incoming::Http(request),
        })
    }

    /// The request, if it waits for the application's answer.
    pub(super) fn awaiting(&self) -> Result<&Request, AnswerError> {
        match (&self.step, &self.request) {
            (Step::Awaiting, Some(request)) => Ok(request),
            _ => Err(AnswerError::NotAwaiting),
        }
    }

    /// Fails the handshake, and responds with `status` if any part of a request has arrived.
    fn fail_handshake(
        &mut self,
        cause: Cause,
        status: StatusCode,
        now: Instant,
        out: &mut impl Output,
    ) -> Failure {
        let begun = !matches!(&self.step, Step::Head(head) if !head.has_begun());
        if begun {
            response::write_error(status, cause.reason(), !self.is_head_request, out.buffer());
        }
        self.close(now);
        if !begun {
            self.step = Step::Closing { drain: false };
        }
        self.fail(cause)
    }

    /// Begins to wait until the peer has read a response of the handshake itself. Closing with unread input can destroy
    /// the response.
    fn close(&mut self, now: Instant) {
        self.step = Step::Closing { drain: !self.eof };
        self.deadline = self.close_deadline(now);
    }

    /// Fails, and ends the byte stream at once. Always returns the failure.
    pub(super) fn end(&mut self, cause: Cause) -> Result<(), Failure> {
        (self.step, self.deadline) = (Step::Ended, None);
        Err(self.fail(cause))
    }

    /// Records the failure, and returns it. The step does not change.
    pub(super) fn fail(&mut self, cause: Cause) -> Failure {
        *self.failure.insert(Failure::new(cause, State::Connecting, 0))
    }
}
