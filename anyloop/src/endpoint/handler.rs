//! What an application says to what happens on a connection.

use std::time::Duration;

use anyloop_proto::handshake::http::{Response, StatusCode, header};
use anyloop_proto::handshake::{Accept, Request};
use anyloop_proto::{Chunk, Ending, Failure, Message};

use super::context::Context;

/// The application's side of one connection.
///
/// There is one value for each connection, made by a [`Factory`], and its methods are never called
/// two at a time: state of a connection belongs in fields, and needs no lock. All methods have a
/// default.
///
/// For each connection exactly one of three things happens: [`open`](Self::open), and after it
/// [`close`](Self::close), once; or [`fail`](Self::fail), once, and nothing after it; or, on a server,
/// [`http`](Self::http) whose answer was sent, and nothing after it.
pub trait Handler: Sized + 'static {
    /// A client asks for a WebSocket (servers only). By default it is accepted, without a
    /// subprotocol.
    fn validate(&mut self, request: &Request, context: &mut Context<'_, Self>) -> Verdict {
        let _ = (request, context);
        Verdict::Accept(Accept::new())
    }

    /// A client asks for something else (servers only); the request's body is there. By default the
    /// answer is 426. [`Verdict::Accept`] is no answer to this, and becomes 500.
    fn http(&mut self, request: &Request, context: &mut Context<'_, Self>) -> Verdict {
        let _ = (request, context);
        Verdict::upgrade_required()
    }

    /// The connection is open. What is sent from here leaves when this returns.
    fn open(&mut self, context: &mut Context<'_, Self>) {
        let _ = context;
    }

    /// A message has arrived. It is lent: what is to outlive the call must be copied. It can be sent
    /// back, or on, from where it lies.
    fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
        let _ = (message, context);
    }

    /// A part of a message has arrived, on connections that are set to
    /// [stream](anyloop_proto::Config::streaming).
    fn chunk(&mut self, chunk: Chunk<'_>, context: &mut Context<'_, Self>) {
        let _ = (chunk, context);
    }

    /// A ping has arrived. Returns whether to answer it with a pong; by default it is.
    fn ping(&mut self, payload: &[u8], context: &mut Context<'_, Self>) -> bool {
        let _ = (payload, context);
        true
    }

    /// A pong has arrived; with the time since the ping, if it answers one of the keep-alive.
    fn pong(
        &mut self,
        payload: &[u8],
        round_trip: Option<Duration>,
        context: &mut Context<'_, Self>,
    ) {
        let _ = (payload, round_trip, context);
    }

    /// No pong came in time. The connection has failed; [`close`](Self::close) will follow.
    fn pong_timeout(&mut self, context: &mut Context<'_, Self>) {
        let _ = context;
    }

    /// Somebody called [`Handle::interrupt`](super::Handle::interrupt).
    fn interrupt(&mut self, context: &mut Context<'_, Self>) {
        let _ = context;
    }

    /// The backlog has fallen to its low-water mark, after it was above the high one.
    fn drained(&mut self, context: &mut Context<'_, Self>) {
        let _ = context;
    }

    /// The connection was open and is over: its byte stream has ended as well.
    fn close(&mut self, ending: &Ending<'_>, context: &mut Context<'_, Self>) {
        let _ = (ending, context);
    }

    /// There will be no connection: the opening handshake did not come to its end.
    fn fail(&mut self, failure: &Failure, context: &mut Context<'_, Self>) {
        let _ = (failure, context);
    }
}

/// Makes the handler of each connection. Functions that return a handler are factories, and so is
/// [`Handlers`](super::Handlers).
pub trait Factory {
    /// What it makes.
    type Handler: Handler;

    /// A handler for a connection that is about to be.
    fn make(&self) -> Self::Handler;
}

impl<H: Handler, F: Fn() -> H> Factory for F {
    type Handler = H;

    fn make(&self) -> H {
        self()
    }
}

/// An application's answer to a request.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "yes, no, or not yet")]
pub enum Verdict {
    /// Opens the connection.
    Accept(Accept),
    /// Later: by [`Handle::accept`](super::Handle::accept) or
    /// [`Handle::respond`](super::Handle::respond), from any thread, before the
    /// [`verdict_timeout`](anyloop_proto::handshake::ServerOptions::verdict_timeout).
    Defer,
    /// Answers with this, and ends the connection.
    Respond(Response<Vec<u8>>),
}

impl Verdict {
    /// Answers with a status, and a line of text.
    #[must_use]
    pub fn status(status: StatusCode, text: &str) -> Self {
        let mut response = Response::new(format!("{text}\n").into_bytes());
        *response.status_mut() = status;
        let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        Self::Respond(response)
    }

    /// Answers 426: nothing but WebSockets is served here.
    #[must_use]
    pub fn upgrade_required() -> Self {
        let mut verdict = Self::status(StatusCode::UPGRADE_REQUIRED, "WebSockets only");
        if let Self::Respond(response) = &mut verdict {
            let websocket = header::HeaderValue::from_static("websocket");
            response.headers_mut().insert(header::UPGRADE, websocket);
        }
        verdict
    }
}

impl From<Accept> for Verdict {
    fn from(accept: Accept) -> Self {
        Self::Accept(accept)
    }
}
