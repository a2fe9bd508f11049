//! The application's side of a connection: its handler, and answers to requests.

use std::time::Duration;

use anyloop_proto::handshake::http::{Response, StatusCode, header};
use anyloop_proto::handshake::{Accept, Request};
use anyloop_proto::{Chunk, Ending, Failure, Message};

use super::body::Body;
use super::connection_config::ConnectionConfig;

mod any;
mod context;

pub(crate) use any::AnyHandler;
pub use context::Context;

/// The application's side of one connection.
///
/// There is one value for each connection, made by a [`HandlerFactory`], and its methods are never called
/// two at a time. The state of a connection belongs in fields, and needs no lock. All methods have defaults.
///
/// Each connection ends in one of three ways:
///
/// - [`open`](Self::open) is called once, and later [`close`](Self::close), once.
/// - The opening handshake fails: [`fail`](Self::fail) is called once, and nothing after it.
/// - On a server, the request is plain HTTP: [`http`](Self::http) is called. If the response is sent whole, nothing is
///   called after the answer; otherwise [`fail`](Self::fail) is.
///
/// If the program itself drops a connection before its end, `close` and `fail` are not called.
///
/// A panic in a method passes on to the caller of the driver or of the loop. An open connection fails with 1011, and
/// [`close`](Self::close) is still called. Before that a server answers 503, and [`fail`](Self::fail) is called.
///
/// A handler that adds up what it receives:
///
/// ```
/// use anyloop::iostream::Server;
/// use anyloop::prelude::*;
/// use anyloop::proto::handshake::http::StatusCode;
/// # use std::sync::mpsc;
/// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
///
/// #[derive(Default)]
/// struct Sum(u64);
///
/// impl Handler for Sum {
///     fn validate(&mut self, request: &Request, _: &mut Context<'_, Self>) -> Answer {
///         match request.uri().path() {
///             "/" => Answer::Accept(Default::default()),
///             _ => Answer::status(StatusCode::NOT_FOUND, "sums are at /"),
///         }
///     }
///
///     fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
///         self.0 += message.as_bytes().iter().map(|&byte| u64::from(byte)).sum::<u64>();
///         _ = context.send(self.0.to_string().as_str());
///     }
/// }
///
/// let config = ServerConfig::new(OriginPolicy::Any);
/// let server = Server::with_factory(config, Sum::default);
/// let connection = server.connection();
/// # let (to_client, at_client) = mpsc::channel();
/// # connection.set_write_handler(move |bytes| Ok(to_client.send(bytes.to_vec()).unwrap()));
/// connection.read_all(REQUEST)?; // its path is /
/// # at_client.try_recv()?;
/// connection.read_all(b"\x82\x82\0\0\0\0\x01\x02\x82\x81\0\0\0\0\x04")?; // 1 and 2, and then 4
/// assert_eq!(at_client.try_recv()?, b"\x81\x013\x81\x017");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler of connections",
    label = "it does not implement `Handler`",
    note = "implement `Handler` for it: all methods have defaults; or set closures: `server.on_message(..)`"
)]
pub trait Handler: Sized + 'static {
    /// A client has sent a WebSocket request (servers only). By default it is accepted, without a subprotocol.
    fn validate(&mut self, request: &Request, context: &mut Context<'_, Self>) -> Answer {
        let _ = (request, context);
        Answer::Accept(Accept::new())
    }

    /// A client has sent a plain HTTP request (servers only). The request includes its body. By default the answer is
    /// 426. [`Answer::Accept`] does not apply to it, and is answered with 500. The response may have a [`Body`] of any
    /// size.
    fn http(&mut self, request: &Request, context: &mut Context<'_, Self>) -> Answer {
        let _ = (request, context);
        Answer::upgrade_required()
    }

    /// The connection is open. Messages sent from here are written at the end of the present [batch](Context).
    fn open(&mut self, context: &mut Context<'_, Self>) {
        let _ = context;
    }

    /// A message has arrived. It is borrowed: copy what must outlive the call. To send it back, pass it to
    /// [`Context::send`].
    fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
        let _ = (message, context);
    }

    /// A part of a message has arrived. Called instead of [`message`](Self::message) on connections that
    /// [stream](anyloop_proto::Config::streaming). By default it is dropped: each such message is
    /// counted in [`Counters::messages_unhandled`](super::Counters::messages_unhandled), and a warning is logged for it
    /// (feature `tracing`).
    fn chunk(&mut self, chunk: Chunk<'_>, context: &mut Context<'_, Self>) {
        context.drop_chunk(&chunk);
    }

    /// A ping has arrived. Returns whether to answer it with a pong; by default it is.
    fn ping(&mut self, payload: &[u8], context: &mut Context<'_, Self>) -> bool {
        let _ = (payload, context);
        true
    }

    /// A pong has arrived. If it answers a keep-alive ping, `round_trip` is the time since that ping.
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

    /// [`Handle::interrupt`](super::Handle::interrupt) was called.
    fn interrupt(&mut self, context: &mut Context<'_, Self>) {
        let _ = context;
    }

    /// The send buffer has risen above its high-water mark. [`drained`](Self::drained) follows when the peer
    /// has read enough of it.
    fn backpressure(&mut self, context: &mut Context<'_, Self>) {
        let _ = context;
    }

    /// The send buffer has fallen to its low-water mark, after it was above the high one.
    fn drained(&mut self, context: &mut Context<'_, Self>) {
        let _ = context;
    }

    /// The connection was open and is over: its byte stream has ended as well.
    fn close(&mut self, ending: &Ending<'_>, context: &mut Context<'_, Self>) {
        let _ = (ending, context);
    }

    /// The opening handshake has failed; or the [response](Answer::Respond) to a plain request was not sent whole,
    /// because of its [body](Body), or because the client has left or read nothing for the
    /// [`response_timeout`](crate::ServerConfig::response_timeout). [`Context::error`] may have more.
    fn fail(&mut self, failure: &Failure, context: &mut Context<'_, Self>) {
        let _ = (failure, context);
    }

    /// The handler that this one delegates to. Functions that were posted for its type are called with it.
    #[doc(hidden)]
    fn delegate(&self) -> Option<&dyn AnyHandler> {
        None
    }

    /// As [`delegate`](Self::delegate).
    #[doc(hidden)]
    fn delegate_mut(&mut self) -> Option<&mut dyn AnyHandler> {
        None
    }
}

/// Makes the handler of each connection. Functions that return a handler are factories, and so is
/// [`Handlers`](super::Handlers).
///
/// A factory that numbers the connections:
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use anyloop::iostream::Server;
/// use anyloop::prelude::*;
/// use anyloop::endpoint::HandlerFactory;
/// # use std::sync::mpsc;
/// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
///
/// struct Numbered(u64);
///
/// impl Handler for Numbered {
///     fn open(&mut self, context: &mut Context<'_, Self>) {
///         _ = context.send(format!("you are number {}", self.0).as_str());
///     }
/// }
///
/// #[derive(Default)]
/// struct Numbers(AtomicU64);
///
/// impl HandlerFactory for Numbers {
///     type Handler = Numbered;
///
///     fn make(&self) -> Numbered {
///         Numbered(1 + self.0.fetch_add(1, Ordering::Relaxed))
///     }
/// }
///
/// let config = ServerConfig::new(OriginPolicy::Any);
/// let server = Server::with_factory(config, Numbers::default());
/// let (_first, second) = (server.connection(), server.connection());
/// # let (to_client, at_client) = mpsc::channel();
/// # second.set_write_handler(move |bytes| Ok(to_client.send(bytes.to_vec()).unwrap()));
/// second.read_all(REQUEST)?;
/// assert!(at_client.try_recv()?.ends_with(b"you are number 2"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait HandlerFactory {
    /// The type of the handlers.
    type Handler: Handler;

    /// Makes the handler of a new connection.
    fn make(&self) -> Self::Handler;
}

impl<H: Handler> Context<'_, H> {
    /// Drops a chunk that no handler takes. A program that enables streaming and handles only whole messages would
    /// otherwise not notice, so the message is counted and logged.
    pub(super) fn drop_chunk(&self, chunk: &Chunk<'_>) {
        if chunk.first {
            self.state.endpoint.counters.messages_unhandled.add(1);
            crate::log::warn!(
                "a message is dropped: the connection streams, and no chunk handler is set"
            );
        }
    }
}

impl<H: Handler, F: Fn() -> H> HandlerFactory for F {
    type Handler = H;

    fn make(&self) -> H {
        self()
    }
}

/// An application's answer to a request.
///
/// Later, by a handle:
///
/// ```
/// # use anyloop::iostream::Server;
/// # use anyloop::prelude::*;
/// # use std::sync::mpsc;
/// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// # let mut server = Server::new(ServerConfig::new(OriginPolicy::Any));
/// server.on_validate(|_, _| Answer::Defer);
/// let connection = server.connection();
/// # let (to_client, at_client) = mpsc::channel();
/// # connection.set_write_handler(move |bytes| Ok(to_client.send(bytes.to_vec()).unwrap()));
/// connection.read_all(REQUEST)?;
/// assert!(at_client.try_recv().is_err()); // no answer yet
///
/// connection.handle().accept(Accept::new())?; // from any thread
/// connection.drive()?;
/// assert!(at_client.try_recv()?.starts_with(b"HTTP/1.1 101 "));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "yes, no, or not yet")]
pub enum Answer {
    /// Opens the connection.
    Accept(Accept),
    /// Opens the connection, with settings of its own.
    AcceptWith(Accept, ConnectionConfig),
    /// Answers later, by [`Handle::accept`](super::Handle::accept), [`Handle::accept_with`](super::Handle::accept_with)
    /// or [`Handle::respond`](super::Handle::respond), from any thread, before the
    /// [`answer_timeout`](crate::ServerConfig::answer_timeout). If the client of a WebSocket request leaves before
    /// that, [`fail`](Handler::fail) is called.
    Defer,
    /// Answers with this response, and ends the connection when the peer has read it.
    Respond(Response<Body>),
}

impl Answer {
    /// Opens the connection, without a subprotocol or header fields of the application's.
    #[must_use]
    pub fn accept() -> Self {
        Self::Accept(Accept::new())
    }

    /// Answers with this response: its body is anything that a [`Body`] is made from.
    ///
    /// ```
    /// use anyloop::http::Response;
    /// use anyloop::prelude::*;
    ///
    /// let answer = Answer::respond(Response::new("hello\n"));
    /// assert!(matches!(answer, Answer::Respond(response) if response.status() == 200));
    /// let answer: Answer = Response::new(vec![1, 2, 3]).into(); // the same
    /// ```
    #[must_use]
    pub fn respond(response: Response<impl Into<Body>>) -> Self {
        Self::Respond(response.map(Into::into))
    }

    /// Answers with a status, and a line of text.
    #[must_use]
    pub fn status(status: StatusCode, text: &str) -> Self {
        let mut response = Response::new(Body::from(format!("{text}\n")));
        *response.status_mut() = status;
        let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        Self::Respond(response)
    }

    /// Answers 426: only WebSocket requests are served.
    #[must_use]
    pub fn upgrade_required() -> Self {
        let mut answer = Self::status(StatusCode::UPGRADE_REQUIRED, "WebSockets only");
        if let Self::Respond(response) = &mut answer {
            let websocket = header::HeaderValue::from_static("websocket");
            response.headers_mut().insert(header::UPGRADE, websocket);
        }
        answer
    }
}

impl<B: Into<Body>> From<Response<B>> for Answer {
    fn from(response: Response<B>) -> Self {
        Self::respond(response)
    }
}

impl From<Accept> for Answer {
    fn from(accept: Accept) -> Self {
        Self::Accept(accept)
    }
}
