//! The server's side of the opening handshake (RFC 6455 §4.2).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use http::StatusCode;

use super::accept::{self, Accept};
use super::body::Body;
use super::head::{Head, Message};
use super::opened::Opened;
use super::options::ServerOptions;
use super::parse;
use super::request::{self, Checked, Request};
use super::response::{self, AnswerError};
use super::write::HeadWriter;
use crate::connection::{Shutdown, Timer};
use crate::error::{Cause, Failure, HandshakeError, State, TransportError};
use crate::input::Input;
use crate::output::Output;
use crate::time::Instant;

/// The server's side of an opening handshake, and of a single exchange of plain HTTP.
///
/// 1. [`next`](Self::next) takes received bytes until it lends a request. A request that breaks the
///    rules it answers itself, and fails.
/// 2. The application answers, now or later: [`accept`](Self::accept) makes a connection of a
///    WebSocket request; [`respond`](Self::respond) ends the matter.
///
/// In between, input is not taken: what follows a WebSocket request is frames, and what follows a
/// plain request is ignored, as each byte stream serves one request. Every response other than 101
/// says `Connection: close`.
///
/// [`poll_timeout`](Self::poll_timeout) and [`shutdown`](Self::shutdown) are asked after any call, as
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
/// # let _ = opened.connection;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ServerHandshake {
    options: Arc<ServerOptions>,
    step: Step,
    request: Option<Request>,
    deadline: Option<Instant>,
    failure: Option<Failure>,
    /// The request is a HEAD: whatever the response, it has no body.
    is_head_request: bool,
    /// The peer has shut down its sending direction.
    eof: bool,
}

/// A request, lent to the application. It stays readable as
/// [`ServerHandshake::request`].
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

/// How far it has come.
enum Step {
    Head(Head),
    Body(Body, Box<Request>),
    /// The application has the request.
    Awaiting,
    /// A connection was made.
    Opened,
    /// All is said; the peer is to read it. Whether there may be more to read from it.
    Closing {
        unread: bool,
    },
    /// Nothing is left to be done.
    Ended,
}

impl ServerHandshake {
    /// A handshake for a byte stream that begins at `now`. Owns no memory before the first byte.
    #[must_use]
    pub fn new(options: Arc<ServerOptions>, now: Instant) -> Self {
        let step =
            Step::Head(Head::new(Message::Request, options.max_head_size, options.max_fields));
        let deadline = options.open_timeout.map(|timeout| now + timeout);
        let (request, failure) = (None, None);
        Self { options, step, request, deadline, failure, is_head_request: false, eof: false }
    }

    /// Takes received bytes, and lends the request once it is whole: once, and then never again.
    ///
    /// # Errors
    ///
    /// [`Cause::Handshake`] for a request that breaks the rules, once. The response that says so has
    /// been appended. What arrives later is discarded.
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
                self.close(now);
                Err(self.fail(Cause::Handshake(error)))
            }
        }
    }

    /// Accepts the WebSocket request that was lent: appends the response and makes a connection.
    ///
    /// # Errors
    ///
    /// Nothing was appended, and the request still waits for its answer.
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

    /// Answers the request that was lent with a response of any status from 200 to 599, and ends the
    /// byte stream: a plain request is served, or a WebSocket request turned down
    /// ([`HandshakeError::TurnedDown`] is then the [`failure`](Self::failure)).
    ///
    /// Connection, Content-Length and Transfer-Encoding are the machine's to write. The body is left
    /// out where HTTP has none: after HEAD, and for 204, 205 and 304. There is no Date, for there is
    /// no clock here.
    ///
    /// # Errors
    ///
    /// Nothing was appended, and the request still waits for its answer.
    pub fn respond(
        &mut self,
        response: &http::Response<Vec<u8>>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), AnswerError> {
        let request = self.awaiting()?;
        let turned_down = request.is_upgrade();
        response::respond(request.method(), response, out.buffer())?;
        self.close(now);
        if turned_down {
            let error = HandshakeError::TurnedDown(response.status().as_u16());
            self.fail(Cause::Handshake(error));
        }
        Ok(())
    }

    /// The peer sends nothing more.
    ///
    /// A client may do so after a plain request and still read the response.
    ///
    /// # Errors
    ///
    /// [`Cause::EndOfStream`] if that leaves the handshake without a client; once.
    pub fn handle_eof(&mut self) -> Result<(), Failure> {
        self.eof = true;
        match &mut self.step {
            Step::Awaiting if self.request.as_ref().is_some_and(|r| !r.is_upgrade()) => Ok(()),
            Step::Head(_) | Step::Body(..) | Step::Awaiting => self.end(Cause::EndOfStream),
            Step::Closing { unread } => {
                *unread = false;
                Ok(())
            }
            Step::Opened | Step::Ended => Ok(()),
        }
    }

    /// The byte stream has failed.
    ///
    /// # Errors
    ///
    /// [`Cause::Transport`] if the handshake was not over; once.
    pub fn handle_error(&mut self, error: TransportError) -> Result<(), Failure> {
        match self.step {
            Step::Head(_) | Step::Body(..) | Step::Awaiting => self.end(Cause::Transport(error)),
            Step::Closing { .. } | Step::Ended => {
                (self.step, self.deadline) = (Step::Ended, None);
                Ok(())
            }
            Step::Opened => Ok(()),
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next; `None`: not before
    /// another call.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Does what is due at `now`, and says what it was. [`Timer::Close`]: the time for reading our
    /// response is up. A call before anything is due does nothing.
    ///
    /// # Errors
    ///
    /// [`Cause::OpenTimeout`], answered with 408 if a part of a request has arrived, and
    /// [`Cause::VerdictTimeout`], answered with 503; once.
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
            Step::Awaiting => (Cause::VerdictTimeout, StatusCode::SERVICE_UNAVAILABLE),
            Step::Closing { .. } => {
                (self.step, self.deadline) = (Step::Ended, None);
                return Ok(Some(Timer::Close));
            }
            Step::Opened | Step::Ended => return Ok(None),
        };
        Err(self.give_up(cause, status, now, out))
    }

    /// Gives the handshake up, as far as it has come: answers 503 if any of a request has arrived.
    /// Returns the failure, [`HandshakeError::Abandoned`]; `None` if the handshake was over already.
    pub fn abandon(&mut self, now: Instant, out: &mut impl Output) -> Option<Failure> {
        let cause = Cause::Handshake(HandshakeError::Abandoned);
        match self.step {
            Step::Head(_) | Step::Body(..) | Step::Awaiting => {
                Some(self.give_up(cause, StatusCode::SERVICE_UNAVAILABLE, now, out))
            }
            Step::Closing { .. } | Step::Opened | Step::Ended => None,
        }
    }

    /// What is to become of the byte stream.
    pub const fn shutdown(&self) -> Shutdown {
        match self.step {
            Step::Head(_) | Step::Body(..) | Step::Awaiting | Step::Opened => Shutdown::Open,
            Step::Closing { unread: true } => Shutdown::HalfClose,
            Step::Closing { unread: false } => Shutdown::Close,
            Step::Ended => Shutdown::Abort,
        }
    }

    /// The request, from when it is lent, also after it was answered.
    #[must_use]
    pub const fn request(&self) -> Option<&Request> {
        self.request.as_ref()
    }

    /// The same, to keep.
    #[must_use]
    pub fn into_request(self) -> Option<Request> {
        self.request
    }

    /// Why there is no connection, once that is so. Plain HTTP that was answered is no failure.
    #[must_use]
    pub const fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// Reads on. Returns whether the request has become whole.
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
                    return Err(HandshakeError::BodyTooBig);
                }
                // RFC 9110 §10.1.1: not if some of the body is here already.
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
            Step::Closing { .. } | Step::Ended => {
                input.discard();
                Ok(false)
            }
        }
    }

    fn read_body(&mut self, input: &mut Input<'_>) -> Result<bool, HandshakeError> {
        let Step::Body(body, _) = &mut self.step else { return Ok(false) };
        if !body.read(input)? {
            // A chunk that is too large is refused when it begins.
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

    fn deliver_request(&mut self, now: Instant) -> Option<Incoming<'_>> {
        self.step = Step::Awaiting;
        self.deadline = self.options.verdict_timeout.map(|timeout| now + timeout);
        let request = self.request.as_ref()?;
        Some(match request.is_upgrade() {
            true => Incoming::Upgrade(request),
            false => Incoming::Http(request),
        })
    }

    fn awaiting(&self) -> Result<&Request, AnswerError> {
        match (&self.step, &self.request) {
            (Step::Awaiting, Some(request)) => Ok(request),
            _ => Err(AnswerError::NotAwaiting),
        }
    }

    /// Ends the exchange with a status of the server's own, if there is anything to answer.
    fn give_up(
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
            self.step = Step::Closing { unread: false };
        }
        self.fail(cause)
    }

    /// What was said last is on its way. To close with input unread would destroy it.
    fn close(&mut self, now: Instant) {
        self.step = Step::Closing { unread: !self.eof };
        self.deadline = self.options.connection.close_timeout.map(|timeout| now + timeout);
    }

    fn end(&mut self, cause: Cause) -> Result<(), Failure> {
        (self.step, self.deadline) = (Step::Ended, None);
        Err(self.fail(cause))
    }

    fn fail(&mut self, cause: Cause) -> Failure {
        *self.failure.insert(Failure::new(cause, State::Connecting, 0))
    }
}
