//! A simple interface to the state machine, for tests, foreign languages and WebAssembly.
//!
//! A [`WebSocket`] owns its buffers, and its events own their bytes. It is easier to hold than a
//! [`Connection`], at the cost of a copy in each direction.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use crate::close::CloseFrame;
use crate::close_code::CloseCode;
use crate::connection::{Connection, Shutdown, Timer};
use crate::error::{Failure, Refused, State, TransportError};
use crate::handshake::{
    Accept, AnswerError, ClientHandshake, ClientOptions, Incoming, Opened, Request, RequestError,
    ServerHandshake, ServerOptions, Target, http,
};
use crate::input::Input;
use crate::kind::Kind;
use crate::message::{self, Message};
use crate::output::Output;
use crate::time::Instant;

/// One end of a WebSocket, from the first byte of its handshake to the end of its byte stream.
///
/// After an input ([`receive`](Self::receive), [`receive_eof`](Self::receive_eof),
/// [`handle_timeout`](Self::handle_timeout), or a call of the application), drain
/// [`poll_event`](Self::poll_event) and [`poll_output`](Self::poll_output) until both return
/// `None`. Then do what [`shutdown`](Self::shutdown) says, and wait at most until
/// [`poll_timeout`](Self::poll_timeout).
///
/// ```
/// use anyloop_proto::handshake::{Accept, ClientOptions, OriginPolicy, ServerOptions};
/// use anyloop_proto::owned::{Event, WebSocket};
/// use anyloop_proto::Instant;
///
/// let now = Instant::from_nanos(0);
/// let target = "ws://localhost:9002/".parse()?;
/// let mut client = WebSocket::client(&target, ClientOptions::default().into(), now)?;
/// let mut server = WebSocket::server(ServerOptions::new(OriginPolicy::Any).into(), now);
///
/// server.receive(&client.poll_output().unwrap_or_default(), now);
/// assert!(matches!(server.poll_event(), Some(Event::Upgrade)));
/// server.accept(Accept::new(), now)?;
///
/// client.receive(&server.poll_output().unwrap_or_default(), now);
/// assert!(matches!(client.poll_event(), Some(Event::Open { .. })));
/// client.send("hello")?;
///
/// server.receive(&client.poll_output().unwrap_or_default(), now);
/// assert!(matches!(server.poll_event(), Some(Event::Open { .. })));
/// assert!(matches!(server.poll_event(), Some(Event::Text(text)) if text == "hello"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct WebSocket {
    phase: Phase,
    /// Received bytes that are not processed yet.
    input: Vec<u8>,
    output: OutputBuffer,
    events: VecDeque<Event>,
}

/// The output, and whether earlier output still waits for the peer to read.
#[derive(Debug, Default)]
struct OutputBuffer {
    bytes: Vec<u8>,
    blocked: bool,
}

impl Output for OutputBuffer {
    fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    fn is_blocked(&self) -> bool {
        self.blocked
    }
}

enum Phase {
    Server(Box<ServerHandshake>),
    Client(Box<ClientHandshake>),
    Open(Box<Connection>),
}

/// An event of a [`WebSocket`].
///
/// The example of [`WebSocket`] shows some of them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A binary message.
    Binary(Vec<u8>),
    /// A part of a message, in [streaming](crate::Config::streaming) mode.
    #[expect(missing_docs, reason = "the fields are those of `anyloop_proto::Chunk`")]
    Chunk { kind: Kind, payload: Vec<u8>, first: bool, last: bool },
    /// The peer's Close frame. It has been answered, unless we sent a Close first; nothing more will be received.
    Close(CloseFrame),
    /// The handshake or the connection failed. No other event follows.
    Failed(Failure),
    /// A client sent a plain HTTP request. [`WebSocket::respond`] answers the
    /// [`WebSocket::request`].
    Http,
    /// The opening handshake is done.
    Open {
        /// The negotiated subprotocol.
        subprotocol: Option<String>,
        /// The negotiated extension, with its parameters.
        extension: Option<String>,
    },
    /// A ping.
    Ping(Vec<u8>),
    /// A pong.
    Pong {
        /// The payload.
        payload: Vec<u8>,
        /// The time since the ping, if this answers a keep-alive ping.
        round_trip: Option<Duration>,
    },
    /// A text message.
    Text(String),
    /// A client sent a WebSocket request. [`WebSocket::accept`] or [`WebSocket::respond`] answers
    /// the [`WebSocket::request`]. Until then no [input is wanted](WebSocket::wants_input).
    Upgrade,
}

impl From<message::Event<'_>> for Event {
    fn from(event: message::Event<'_>) -> Self {
        match event {
            message::Event::Chunk(chunk) => Self::Chunk {
                kind: chunk.kind,
                payload: chunk.payload.to_vec(),
                first: chunk.first,
                last: chunk.last,
            },
            message::Event::Close(frame) => Self::Close(frame.to_owned()),
            message::Event::Message(Message::Binary(bytes)) => Self::Binary(bytes.to_vec()),
            message::Event::Message(Message::Text(text)) => Self::Text(text.as_str().to_string()),
            message::Event::Ping(payload) => Self::Ping(payload.to_vec()),
            message::Event::Pong { payload, round_trip } => {
                Self::Pong { payload: payload.to_vec(), round_trip }
            }
        }
    }
}

impl core::fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("WebSocket").finish_non_exhaustive()
    }
}

impl WebSocket {
    /// The server's end of a byte stream that begins at `now`.
    #[must_use]
    pub fn server(options: Arc<ServerOptions>, now: Instant) -> Self {
        Self::new(
            Phase::Server(Box::new(ServerHandshake::new(options, now))),
            OutputBuffer::default(),
        )
    }

    /// The client's end of a byte stream to `target`. The request is the first output.
    ///
    /// # Errors
    ///
    /// As [`ClientHandshake::new`].
    pub fn client(
        target: &Target,
        options: Arc<ClientOptions>,
        now: Instant,
    ) -> Result<Self, RequestError> {
        let mut output = OutputBuffer::default();
        let handshake = ClientHandshake::new(target, options, now, &mut output)?;
        Ok(Self::new(Phase::Client(Box::new(handshake)), output))
    }

    fn new(phase: Phase, output: OutputBuffer) -> Self {
        Self { phase, input: Vec::new(), output, events: VecDeque::new() }
    }

    /// Takes received bytes. While a request waits for its answer, they are not processed: see
    /// [`wants_input`](Self::wants_input).
    pub fn receive(&mut self, bytes: &[u8], now: Instant) {
        if self.wants_input() {
            self.input.extend_from_slice(bytes);
            self.process(now);
        } else if self.awaits_frames() {
            self.input.extend_from_slice(bytes);
        }
    }

    /// Whether input is processed now. While a WebSocket request waits for its answer, input is only buffered. While a
    /// plain HTTP request waits for its answer, input is dropped. The caller should not read meanwhile.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        match &self.phase {
            Phase::Server(handshake) => {
                handshake.request().is_none() || handshake.shutdown() != Shutdown::None
            }
            Phase::Client(_) | Phase::Open(_) => true,
        }
    }

    /// Reports that the peer sends nothing more.
    pub fn receive_eof(&mut self) {
        let result = match &mut self.phase {
            Phase::Server(handshake) => handshake.handle_eof(),
            Phase::Client(handshake) => handshake.handle_eof(),
            Phase::Open(connection) => connection.handle_eof(),
        };
        self.report(result);
    }

    /// Reports that the byte stream has failed.
    pub fn receive_error(&mut self, error: TransportError) {
        let result = match &mut self.phase {
            Phase::Server(handshake) => handshake.handle_error(error),
            Phase::Client(handshake) => handshake.handle_error(error),
            Phase::Open(connection) => connection.handle_error(error),
        };
        self.report(result);
        if self.output.blocked || !self.output.bytes.is_empty() {
            self.handle_lost_output();
        }
    }

    /// Reports that output taken by [`poll_output`](Self::poll_output) will not be written: see
    /// [`Connection::handle_lost_output`].
    pub fn handle_lost_output(&mut self) {
        if let Phase::Open(connection) = &mut self.phase {
            let result = connection.handle_lost_output();
            self.report(result);
        }
    }

    /// Reports whether output taken by [`poll_output`](Self::poll_output) still waits for the peer
    /// to read. If so, the newest pong and the newest keep-alive ping are held back.
    pub fn set_blocked(&mut self, blocked: bool, now: Instant) {
        self.output.blocked = blocked;
        match &mut self.phase {
            Phase::Open(connection) => connection.handle_writable(now, &mut self.output),
            // How much waits is not known here. The response timeout begins when output begins to wait.
            Phase::Server(handshake) => handshake.handle_written(usize::from(blocked), now),
            Phase::Client(_) => {}
        }
    }

    /// The next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// All bytes that are ready to send; `None` if there are none.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Vec<u8>> {
        let output = core::mem::take(&mut self.output.bytes);
        (!output.is_empty()).then_some(output)
    }

    /// The instant at which to call [`handle_timeout`](Self::handle_timeout) next. `None` if no
    /// timer runs.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Server(handshake) => handshake.poll_timeout(),
            Phase::Client(handshake) => handshake.poll_timeout(),
            Phase::Open(connection) => connection.poll_timeout(),
        }
    }

    /// Handles everything that is due at `now`. An idle timeout begins the closing handshake; the
    /// [ending](Connection::ending) records the cause.
    pub fn handle_timeout(&mut self, now: Instant) {
        loop {
            let due: Result<Option<Timer>, Failure> = match &mut self.phase {
                Phase::Server(handshake) => handshake.handle_timeout(now, &mut self.output),
                Phase::Client(handshake) => handshake.handle_timeout(now, &mut self.output),
                Phase::Open(connection) => connection.handle_timeout(now, &mut self.output),
            };
            match due {
                Ok(None) => return,
                Ok(Some(_)) => {}
                Err(failure) => self.report(Err(failure)),
            }
        }
    }

    /// What the transport does with the byte stream.
    pub fn shutdown(&self) -> Shutdown {
        match &self.phase {
            Phase::Server(handshake) => handshake.shutdown(),
            Phase::Client(handshake) => handshake.shutdown(),
            Phase::Open(connection) => connection.shutdown(),
        }
    }

    /// The request that the server received, until it is accepted.
    #[must_use]
    pub fn request(&self) -> Option<&Request> {
        match &self.phase {
            Phase::Server(handshake) => handshake.request(),
            _ => None,
        }
    }

    /// The response that refused the client.
    #[must_use]
    pub fn response(&self) -> Option<&http::Response<Vec<u8>>> {
        match &self.phase {
            Phase::Client(handshake) => handshake.response(),
            _ => None,
        }
    }

    /// Accepts the WebSocket request, and processes the input received after it.
    ///
    /// # Errors
    ///
    /// As [`ServerHandshake::accept`].
    pub fn accept(&mut self, accept: Accept, now: Instant) -> Result<(), AnswerError> {
        let Phase::Server(handshake) = &mut self.phase else {
            return Err(AnswerError::NotAwaiting);
        };
        let opened = handshake.accept(accept, now, &mut self.output)?;
        self.open(opened);
        self.process(now);
        Ok(())
    }

    /// Answers a plain request, or refuses a WebSocket request.
    ///
    /// # Errors
    ///
    /// As [`ServerHandshake::respond`].
    pub fn respond(
        &mut self,
        response: &http::Response<Vec<u8>>,
        now: Instant,
    ) -> Result<(), AnswerError> {
        match &mut self.phase {
            Phase::Server(handshake) => {
                handshake.respond(response, now, &mut self.output)?;
                handshake.handle_written(usize::from(self.output.blocked), now);
                Ok(())
            }
            _ => Err(AnswerError::NotAwaiting),
        }
    }

    /// Sends a whole message.
    ///
    /// # Errors
    ///
    /// As [`Sender::send`](crate::Sender::send); [`Refused::NotOpen`] before the connection is
    /// open.
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> Result<(), Refused> {
        let Self { phase, output, .. } = self;
        open_connection(phase)?.sender.send(message, output)
    }

    /// Sends a ping.
    ///
    /// # Errors
    ///
    /// As [`Sender::ping`](crate::Sender::ping); [`Refused::NotOpen`] before the connection is
    /// open.
    pub fn ping(&mut self, payload: &[u8]) -> Result<(), Refused> {
        let Self { phase, output, .. } = self;
        open_connection(phase)?.sender.ping(payload, output)
    }

    /// Begins the closing handshake, or abandons the opening handshake.
    ///
    /// # Errors
    ///
    /// As [`Sender::close`](crate::Sender::close); [`Refused::NotOpen`] if the opening handshake
    /// has failed.
    pub fn close(&mut self, code: CloseCode, reason: &str, now: Instant) -> Result<(), Refused> {
        let failure = match &mut self.phase {
            Phase::Open(connection) => {
                return connection.sender.close(code, reason, now, &mut self.output);
            }
            Phase::Server(handshake) => handshake.abandon(now, &mut self.output),
            Phase::Client(handshake) => handshake.abandon(now, &mut self.output),
        };
        let failure = failure.ok_or(Refused::NotOpen(State::Ended))?;
        self.report(Err(failure));
        Ok(())
    }

    /// The connection and its output, for everything that has no method here. `None` until the connection is open.
    #[must_use]
    pub fn parts(&mut self) -> Option<(&mut Connection, &mut impl Output)> {
        let Self { phase, output, .. } = self;
        open_connection(phase).ok().map(|connection| (connection, output))
    }

    /// Processes the buffered input, in the handshake and after it.
    fn process(&mut self, now: Instant) {
        let mut bytes = core::mem::take(&mut self.input);
        let mut input = Input::new(&mut bytes);
        loop {
            let result = match &mut self.phase {
                Phase::Server(handshake) => {
                    let incoming = handshake.next(&mut input, now, &mut self.output);
                    incoming.map(|incoming| {
                        self.events.extend(incoming.map(|incoming| match incoming {
                            Incoming::Upgrade(_) => Event::Upgrade,
                            Incoming::Http(_) => Event::Http,
                        }));
                    })
                }
                Phase::Client(handshake) => {
                    match handshake.next(&mut input, now, &mut self.output) {
                        Ok(Some(opened)) => {
                            self.open(opened);
                            continue; // the bytes after the response are frames
                        }
                        Ok(None) => Ok(()),
                        Err(failure) => Err(failure),
                    }
                }
                Phase::Open(connection) => {
                    let Connection { receiver, sender } = &mut **connection;
                    loop {
                        match receiver.next(sender, &mut input, now, &mut self.output) {
                            Ok(Some(event)) => self.events.push_back(event.into()),
                            Ok(None) => break Ok(()),
                            Err(failure) => break Err(failure),
                        }
                    }
                }
            };
            self.report(result);
            break;
        }
        // The bytes after a WebSocket request are frames, kept until it is accepted. Bytes after a
        // plain request or a Close are dropped.
        let left = if self.awaits_frames() { input.len() } else { 0 };
        bytes.drain(..bytes.len() - left);
        self.input = bytes;
    }

    fn awaits_frames(&self) -> bool {
        !self.wants_input() && self.request().is_some_and(Request::is_upgrade)
    }

    fn open(&mut self, opened: Opened) {
        let Opened { connection, subprotocol, extension, .. } = opened;
        self.phase = Phase::Open(Box::new(connection));
        self.events.push_back(Event::Open { subprotocol, extension });
    }

    fn report(&mut self, result: Result<(), Failure>) {
        if let Err(failure) = result {
            self.events.push_back(Event::Failed(failure));
        }
    }
}

fn open_connection(phase: &mut Phase) -> Result<&mut Connection, Refused> {
    match phase {
        Phase::Open(connection) => Ok(connection),
        _ => Err(Refused::NotOpen(State::Connecting)),
    }
}
