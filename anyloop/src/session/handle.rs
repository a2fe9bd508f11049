//! Handles of connections, for other threads.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use anyloop_proto::handshake::http::Response;
use anyloop_proto::handshake::{Accept, check_response};
use anyloop_proto::{CloseCode, Kind, Payload, Prepared, State, check_close};

use super::body::Body;
use super::connection_config::ConnectionConfig;
use super::deferred::{OutgoingMessage, OutgoingPayload};
use super::erased::erased_fn;
use super::error::{SendError, Sent};
use super::handler::{Answer, Context, Handler};
use super::phase::Phase;
use super::shared::{Command, ConnectionId, HandleRef, Shared};
use super::timers::TimerId;
use super::writer::MessageWriter;
use crate::stream::Unsent;

/// A handle of a connection: cheap to clone, and usable from any thread.
///
/// The methods that do something queue a command. The connection is woken, and runs its commands in order, on its own
/// strand. [`Sent`] says what becomes of a message that was accepted. Once the connection is over, these methods return
/// [`SendError::Gone`], unless an argument is invalid.
///
/// ```
/// # use anyloop::iostream::Server;
/// # use anyloop::prelude::*;
/// # use std::sync::mpsc;
/// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// # let server = Server::new(ServerConfig::new(OriginPolicy::Any));
/// let connection = server.connection();
/// # let (to_client, at_client) = mpsc::channel();
/// # connection.set_write_handler(move |bytes| Ok(to_client.send(bytes.to_vec()).unwrap()));
/// connection.read_all(REQUEST)?;
/// # at_client.try_recv()?;
/// let handle = connection.handle();
/// std::thread::spawn(move || {
///     handle.send("from elsewhere")?;
///     handle.close(CloseCode::GOING_AWAY, "")
/// })
/// .join()
/// .expect("no panic")?;
/// assert!(connection.wants_drive());
/// connection.drive()?;
/// assert_eq!(at_client.try_recv()?, b"\x81\x0efrom elsewhere\x88\x02\x03\xe9");
///
/// let handle = connection.handle();
/// connection.fatal_error()?;
/// assert_eq!(handle.send("anyone?"), Err(SendError::Gone));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Handle<H: Handler> {
    shared: HandleRef,
    handler: PhantomData<fn(&mut H)>,
}

impl<H: Handler> Handle<H> {
    pub(super) const fn shared(&self) -> &HandleRef {
        &self.shared
    }

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared: HandleRef::new(shared), handler: PhantomData }
    }

    /// Sends a message.
    ///
    /// The result depends on [`buffered_amount`](Self::buffered_amount). A payload that is owned (`String`,
    /// `Vec<u8>`, `Bytes`, [`Payload`]) and has 16 KiB or more is not copied, also while it waits for the peer. A
    /// shorter one is copied into the output, and so is a rest that the peer does not read at once, if it is less than
    /// 16 KiB or the smaller part of the payload.
    /// Clients copy to mask (RFC 6455 §5.3), and TLS and compression make bytes of their own.
    ///
    /// Before the connection is open the message waits for the opening, and while a message is being sent
    /// [in pieces](Context::begin) it waits for the last piece. [`Sent`] says when it is lost, which
    /// [`send_then`](Self::send_then) reports.
    ///
    /// # Errors
    ///
    /// [`SendError::Closing`], also when a request was answered and not accepted, so that nothing will open;
    /// [`SendError::Gone`], [`SendError::SendBufferFull`].
    pub fn send(&self, message: impl Into<Payload>) -> Result<Sent, SendError> {
        let payload = OutgoingPayload::Payload(message.into());
        self.shared.send(OutgoingMessage { payload, completion: None })
    }

    /// Sends a message, and calls `completion` with its outcome: on the strand of the connection, or within this
    /// call if the message is dropped or refused at once.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_then(
        &self,
        message: impl Into<Payload>,
        completion: impl FnOnce(Result<(), Unsent>) + Send + 'static,
    ) -> Result<Sent, SendError> {
        let payload = OutgoingPayload::Payload(message.into());
        self.shared.send(OutgoingMessage { payload, completion: Some(Box::new(completion)) })
    }

    /// Sends a message that was encoded for many connections.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_prepared(&self, message: &Prepared) -> Result<Sent, SendError> {
        let payload = OutgoingPayload::Prepared(message.clone());
        self.shared.send(OutgoingMessage { payload, completion: None })
    }

    /// Returns a writer of one message that is sent in pieces, one frame each. The message begins with its first piece.
    pub fn begin(&self, kind: Kind) -> MessageWriter {
        MessageWriter::new(self.shared.clone(), kind)
    }

    /// Sends a ping, in addition to those of the keep-alive.
    ///
    /// # Errors
    ///
    /// [`SendError::Refused`] for more than 125 bytes; [`SendError::NotOpen`] before the connection is open, since a
    /// ping does not wait; [`SendError::Closing`], [`SendError::Gone`].
    pub fn ping(&self, payload: impl AsRef<[u8]>) -> Result<(), SendError> {
        self.shared.ping(payload.as_ref())
    }

    /// Sends a pong of at most 125 bytes: an unsolicited one (RFC 6455 §5.5.3), or the later answer to a ping for which
    /// [`Handler::ping`] has returned `false`.
    ///
    /// # Errors
    ///
    /// As [`ping`](Self::ping).
    pub fn pong(&self, payload: impl AsRef<[u8]>) -> Result<(), SendError> {
        self.shared.pong(payload.as_ref())
    }

    /// Begins the closing handshake, or abandons the opening handshake. Exception: if messages wait for a client's
    /// connection to open, and the client does not shut down, the opening handshake continues, and the messages and the
    /// Close are sent after it. Without a code (`None`) the Close frame is empty.
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`]; [`SendError::Refused`] for a reason of more than 123 bytes, or one without a code.
    pub fn close(&self, code: impl Into<Option<CloseCode>>, reason: &str) -> Result<(), SendError> {
        let code = code.into();
        check_close(code, reason)?;
        self.push(Command::Close(code, reason.to_string()))
    }

    /// Ends the connection at once, without a closing handshake: the byte stream is aborted, and what was not sent
    /// is lost. [`Handler::close`] or [`Handler::fail`] is called with
    /// [`Cause::Terminated`](anyloop_proto::Cause::Terminated).
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`].
    pub fn terminate(&self) -> Result<(), SendError> {
        self.push(Command::Terminate)
    }

    /// Requests a call of [`Handler::interrupt`] on the strand of the connection.
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`].
    pub fn interrupt(&self) -> Result<(), SendError> {
        self.push(Command::Interrupt)
    }

    /// Stops reading: no further message is passed to the handler, including those that were received already. A
    /// second pause has no effect.
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`].
    pub fn pause_reading(&self) -> Result<(), SendError> {
        self.push(Command::PauseReading)
    }

    /// Resumes reading. Without a pause it does nothing.
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`].
    pub fn resume_reading(&self) -> Result<(), SendError> {
        self.push(Command::ResumeReading)
    }

    /// Runs `f` with the handler on the strand of the connection, between two of its events.
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`]; `f` is dropped. It is also dropped if the connection ends before it runs.
    pub fn post(
        &self,
        f: impl FnOnce(&mut H, &mut Context<'_, H>) + Send + 'static,
    ) -> Result<(), SendError> {
        self.push(Command::Post(erased_fn(f)))
    }

    /// Runs `f` like [`post`](Self::post), after `delay`, which begins when the connection runs this command. The id is
    /// for [`cancel_timer`](Self::cancel_timer).
    ///
    /// # Errors
    ///
    /// As [`post`](Self::post).
    ///
    /// ```
    /// # use anyloop::iostream::Server;
    /// # use anyloop::prelude::*;
    /// # use std::time::Duration;
    /// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    /// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    /// # let server = Server::new(ServerConfig::new(OriginPolicy::Any));
    /// let connection = server.connection();
    /// # connection.register_output(std::io::sink());
    /// # connection.read_all(REQUEST)?;
    /// let handle = connection.handle();
    /// let timer = handle.set_timer(Duration::ZERO, |_, _| panic!("it was cancelled"))?;
    /// handle.cancel_timer(timer)?;
    /// connection.drive()?; // over the network, the loop does this
    /// connection.handle_timeout()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_timer(
        &self,
        delay: Duration,
        f: impl FnOnce(&mut H, &mut Context<'_, H>) + Send + 'static,
    ) -> Result<TimerId, SendError> {
        let id = TimerId::reserve();
        let f = erased_fn(f);
        self.post(move |_, context| _ = context.set_erased_timer(Some(id), delay, f))?;
        Ok(id)
    }

    /// Cancels a timer that was set with [`set_timer`](Self::set_timer) or [`Context::set_timer`]: its function is
    /// dropped. Does nothing if it has run already.
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`].
    pub fn cancel_timer(&self, timer: TimerId) -> Result<(), SendError> {
        self.push(Command::CancelTimer(timer))
    }

    /// Accepts a request whose answer was [deferred](super::Answer::Defer).
    ///
    /// If the request is not for a WebSocket, or the client has not requested the subprotocol, this call succeeds. The
    /// answer is then 500, and [`Context::error`] tells [`fail`](Handler::fail) why.
    ///
    /// # Errors
    ///
    /// [`SendError::NotAwaiting`]: no request waits for an answer. [`SendError::InvalidResponse`]: a header field is
    /// invalid or [reserved](Accept::headers), and the request still waits for an answer. [`SendError::Gone`].
    pub fn accept(&self, accept: Accept) -> Result<(), SendError> {
        self.shared.awaiting_method()?;
        accept.check()?;
        self.shared.answer(Answer::Accept(accept))
    }

    /// Accepts a request as [`accept`](Self::accept), with settings of its own for the connection.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept).
    pub fn accept_with(&self, accept: Accept, config: ConnectionConfig) -> Result<(), SendError> {
        self.shared.awaiting_method()?;
        accept.check()?;
        self.shared.answer(Answer::AcceptWith(accept, config))
    }

    /// Answers a request whose answer was [deferred](super::Answer::Defer). The body is anything that a [`Body`] is
    /// made from. The documentation of [`Body`] says when the response may have a field `Content-Length`.
    ///
    /// # Errors
    ///
    /// [`SendError::NotAwaiting`]: no request waits for an answer. [`SendError::InvalidResponse`]: the request still
    /// waits for an answer. [`SendError::Gone`].
    pub fn respond(&self, response: Response<impl Into<Body>>) -> Result<(), SendError> {
        let response = response.map(Into::into);
        let method = self.shared.awaiting_method()?;
        check_response(&method, &response, response.body().content_length())?;
        self.shared.answer(Answer::Respond(response))
    }

    /// The number of bytes that were sent and that the transport has not taken, including the payloads of messages that
    /// are still in the queue of commands, or wait for the connection to be open or for the end of a message in pieces.
    #[must_use]
    pub fn buffered_amount(&self) -> usize {
        self.shared.buffered()
    }

    /// The id of the connection, unique in this process, for maps and logs.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.shared.id()
    }

    /// The state of the connection, as of its last [batch](Context).
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.state()
    }

    fn push(&self, command: Command) -> Result<(), SendError> {
        self.shared.push(command)
    }
}

impl<H: Handler> Context<'_, H> {
    /// A handle of this connection.
    pub fn handle(&mut self) -> Handle<H> {
        let phase = match &self.sender {
            Some(sender) => Phase::of(sender.state()),
            None => self.state.phase,
        };
        let is_new = self.state.shared().is_none();
        let shared = self.state.get_or_create_shared(self.out.queued(), phase);
        if is_new {
            let is_begun = self.sender.as_ref().is_some_and(|sender| sender.is_message_begun());
            self.state.publish_held_up(is_begun);
        }
        Handle::new(shared)
    }
}

impl<H: Handler> Clone for Handle<H> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), handler: PhantomData }
    }
}

/// Handles of the same connection are equal.
impl<H: Handler> PartialEq for Handle<H> {
    fn eq(&self, other: &Self) -> bool {
        self.shared.is_same_connection(&other.shared)
    }
}

impl<H: Handler> Eq for Handle<H> {}

/// Hashes the identity of the connection. It never changes, which Clippy's `mutable_key_type` cannot know.
impl<H: Handler> Hash for Handle<H> {
    fn hash<S: Hasher>(&self, hasher: &mut S) {
        self.shared.hash_connection(hasher);
    }
}

impl<H: Handler> fmt::Debug for Handle<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("state", &self.state()).finish_non_exhaustive()
    }
}
