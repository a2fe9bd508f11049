//! The context of a call of a handler.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;

use anyloop_proto::handshake::Request;
use anyloop_proto::handshake::http::Response;
use anyloop_proto::{
    CloseCode, Instant, Kind, Prepared, Receiver, Refused, Sender, State, Statistics, check_close,
};

use super::Handler;
use crate::cold::cold_path;
use crate::session::as_message::AsMessage;
use crate::session::deferred::{NextDeferred, OutgoingMessage, OutgoingPayload};
use crate::session::error::{SendError, Sent};
use crate::session::flags::Flags;
use crate::session::limits::{Overflow, TOO_SLOW};
use crate::session::phase::Phase;
use crate::session::shared::Command;
use crate::session::state::{HandshakeInfo, SessionState};
use crate::stream::{Completion, OwnedPayloadOutput, Peer, Unsent, WriteBuffer};

/// The connection, as its handler sees it during a call.
///
/// Messages sent here are written together at the end of the present *batch*, or when 64 KiB have gathered. A batch is
/// what one call of the [driver](crate::transport::Driver) handles: the input of one read, the commands of handles, or
/// what is due.
///
/// It exists during the call alone, on the thread of the call. To use the connection from another thread, take a
/// [handle](Self::handle) and move that:
///
/// ```
/// # use anyloop::iostream::Server;
/// # use anyloop::prelude::*;
/// # let mut server = Server::new(ServerConfig::new(OriginPolicy::Any));
/// server.on_message(|message, context| {
///     let (handle, question) = (context.handle(), message.as_bytes().to_vec());
///     std::thread::spawn(move || handle.send(question.len().to_string()));
/// });
/// ```
///
/// The context itself does not go there: the compiler says that `dyn UseContextHandleInOtherThreads` cannot be sent.
///
/// ```compile_fail,E0277
/// # use anyloop::iostream::Server;
/// # use anyloop::prelude::*;
/// # let mut server = Server::new(ServerConfig::new(OriginPolicy::Any));
/// server.on_open(|context| {
///     std::thread::spawn(move || context.send("later"));
/// });
/// ```
///
/// A message that is sent at once, and another after a second, by a clock that the application controls:
///
/// ```
/// # use anyloop::iostream::Server;
/// # use anyloop::prelude::*;
/// # use anyloop::proto::Instant;
/// # use std::sync::Arc;
/// # use std::sync::atomic::{AtomicU64, Ordering};
/// # use std::sync::mpsc;
/// use std::time::Duration;
///
/// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// # let mut server = Server::new(ServerConfig::new(OriginPolicy::Any));
/// # let nanos = Arc::new(AtomicU64::new(0));
/// # let clock = nanos.clone();
/// # server.set_clock(move || Instant::from_nanos(clock.load(Ordering::Relaxed)));
/// server.on_open(|context| {
///     _ = context.send("now");
///     context.set_timer(Duration::from_secs(1), |_, context| _ = context.send("then"));
/// });
/// let connection = server.connection();
/// # let (to_client, at_client) = mpsc::channel();
/// # connection.set_write_handler(move |bytes| Ok(to_client.send(bytes.to_vec()).unwrap()));
/// connection.read_all(REQUEST)?;
/// assert!(at_client.try_recv()?.ends_with(b"\r\n\r\n\x81\x03now")); // the response, and this
///
/// # nanos.store(999_999_999, Ordering::Relaxed);
/// connection.handle_timeout()?; // too early by a nanosecond
/// assert!(at_client.try_recv().is_err());
/// # nanos.store(1_000_000_000, Ordering::Relaxed);
/// connection.handle_timeout()?;
/// assert_eq!(at_client.try_recv()?, b"\x81\x04then");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Context<'c, H: Handler> {
    /// The first field that is not `Send`, and so the first that the compiler names.
    pub(in crate::session) marker: PhantomData<&'c mut (dyn UseContextHandleInOtherThreads + 'c)>,
    /// Absent before the connection is open and after it is over.
    pub(in crate::session) sender: Option<&'c mut Sender>,
    /// Absent in the same cases, and while an event borrows from it.
    pub(in crate::session) receiver: Option<&'c Receiver>,
    pub(in crate::session) out: WriteBuffer<'c>,
    /// The session without its protocol and handler. Not the state of the connection, which [`state`](Self::state)
    /// returns.
    pub(in crate::session) state: &'c mut SessionState,
    pub(in crate::session) now: Instant,
    /// The commands of the present batch that have not run, if the call is made for one.
    pub(in crate::session) unrun: Option<&'c mut VecDeque<Command>>,
    /// The handler that replaces the present one after its call.
    pub(in crate::session) new_handler: Option<H>,
}

/// Its name is what the compiler says of a context that is moved to another thread.
pub(in crate::session) trait UseContextHandleInOtherThreads {}

impl<H: Handler> fmt::Debug for Context<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl<H: Handler> Context<'_, H> {
    /// Sends a message, which may be the one that was passed to the handler. If the message of a
    /// [`MessageWriter`](crate::endpoint::MessageWriter) is in progress, this one is deferred until that is complete.
    ///
    /// # Errors
    ///
    /// - [`SendError::NotOpen`] before the connection is open
    /// - [`SendError::Closing`] after a Close
    /// - [`SendError::Gone`] after the end
    /// - [`SendError::Refused`] while the handler has a message in pieces [begun](Self::begin)
    /// - [`SendError::SendBufferFull`] if the send buffer has no room, except with [`Overflow::Drop`]
    #[inline(always)] // an echo server spends much of its own time here
    pub fn send(&mut self, message: impl AsMessage) -> Result<Sent, SendError> {
        let (compressible, message) = (message.is_compressible(), message.as_message());
        if self.out.queued() > 0 {
            if let Some(dropped) = self.apply_send_buffer_limit(message.as_bytes().len())? {
                return Ok(dropped);
            }
        }
        match &mut self.sender {
            Some(sender) => {
                let sent = match compressible {
                    true => sender.send(message, &mut self.out),
                    false => sender.send_uncompressed(message, &mut self.out),
                };
                if let Err(refused) = sent {
                    let owned = move || OutgoingPayload::new(message, compressible);
                    return self.defer_refused(refused, owned, None);
                }
            }
            None => return Err(self.not_open()),
        }
        Ok(self.sent())
    }

    /// Sends a message, and calls `completion`: with `Ok` when the transport has taken all of it, and with [`Unsent`]
    /// if the message was dropped or the connection has ended before that. On an error `completion` is dropped.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_then(
        &mut self,
        message: impl AsMessage,
        completion: impl FnOnce(Result<(), Unsent>) + Send + 'static,
    ) -> Result<Sent, SendError> {
        if self.state.has_message_writer() && self.is_blocked() {
            let payload = || OutgoingPayload::new(message.as_message(), message.is_compressible());
            let completion = Some(Box::new(completion) as Completion);
            return self.defer_refused(Refused::MessageUnfinished, payload, completion);
        }
        let sent = self.send(message)?;
        self.register_completion(sent, Box::new(completion));
        Ok(sent)
    }

    /// Sends a message that was encoded for many connections.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_prepared(&mut self, message: &Prepared) -> Result<Sent, SendError> {
        if self.out.queued() > 0 {
            if let Some(dropped) =
                self.apply_send_buffer_limit(message.message().as_bytes().len())?
            {
                return Ok(dropped);
            }
        }
        match &mut self.sender {
            Some(sender) => {
                if let Err(refused) = sender.send_prepared(message, &mut self.out) {
                    return self.defer_refused(
                        refused,
                        || OutgoingPayload::Prepared(message.clone()),
                        None,
                    );
                }
            }
            None => return Err(self.not_open()),
        }
        Ok(self.sent())
    }

    /// Begins a message that is sent in pieces, one frame each.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), except [`SendError::SendBufferFull`], which does not occur. [`SendError::Refused`] also
    /// while a [`MessageWriter`](crate::endpoint::MessageWriter) sends a message.
    pub fn begin(&mut self, kind: Kind) -> Result<(), SendError> {
        match &mut self.sender {
            Some(sender) => sender.begin(kind)?,
            None => return Err(self.not_open()),
        }
        self.state.publish_held_up(true); // to the handles, whose messages wait from now on
        Ok(())
    }

    /// Begins a message that is sent in pieces, and that extensions do not compress.
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin).
    pub fn begin_uncompressed(&mut self, kind: Kind) -> Result<(), SendError> {
        match &mut self.sender {
            Some(sender) => sender.begin_uncompressed(kind)?,
            None => return Err(self.not_open()),
        }
        self.state.publish_held_up(true);
        Ok(())
    }

    /// Sends the next piece of the message begun, one fragment (RFC 6455 §5.4), and with `last` ends it. The payload is
    /// text or bytes of any type. The pieces of a text are not checked. Together they must be UTF-8; a single piece may
    /// end inside a character.
    ///
    /// ```
    /// # use anyloop::iostream::Server;
    /// # use anyloop::prelude::*;
    /// # let mut server = Server::new(ServerConfig::new(OriginPolicy::Any));
    /// server.on_message(|message, context| {
    ///     let _ = context.begin(Kind::Text);
    ///     let _ = context.piece("you said: ", false);
    ///     let _ = context.piece(message, true);
    /// });
    /// ```
    ///
    /// # Errors
    ///
    /// - [`SendError::Refused`] with [`Refused::NoMessageBegun`] if the handler has begun no message, also while a
    ///   [`MessageWriter`](crate::endpoint::MessageWriter) sends one
    /// - [`SendError::NotOpen`], [`SendError::Closing`], [`SendError::Gone`]
    /// - [`SendError::SendBufferFull`]: the piece is not sent. The message stays in progress unless [`Overflow::Close`]
    ///   closes the connection. It occurs even with [`Overflow::Drop`], since one piece cannot be dropped.
    pub fn piece(&mut self, payload: impl AsRef<[u8]>, last: bool) -> Result<Sent, SendError> {
        let payload = payload.as_ref();
        if self.out.queued() > 0 && self.apply_send_buffer_limit(payload.len())?.is_some() {
            return Err(self.full(payload.len(), false));
        }
        match &mut self.sender {
            // The message in progress belongs to a `MessageWriter`, not to the handler.
            Some(_) if self.state.has_message_writer() => {
                return Err(Refused::NoMessageBegun.into());
            }
            Some(sender) => sender.piece(payload, last, &mut self.out)?,
            None => return Err(self.not_open()),
        }
        if last {
            // If deferred messages are sent now, or were sent in this batch (which sets `WANTS_CHANGED`), the handles
            // are told later: `Session::handle_written` first publishes the size of the send buffer.
            if self.state.flags.has(Flags::DEFERRED) {
                self.send_deferred();
            } else if !self.state.flags.has(Flags::WANTS_CHANGED) {
                self.state.publish_held_up(false);
            }
        }
        Ok(self.sent())
    }

    /// Sends a ping of at most 125 bytes, in addition to keep-alive pings.
    ///
    /// # Errors
    ///
    /// [`SendError::Refused`] for a longer one; [`SendError::NotOpen`], [`SendError::Closing`], [`SendError::Gone`].
    pub fn ping(&mut self, payload: impl AsRef<[u8]>) -> Result<(), SendError> {
        match &mut self.sender {
            Some(sender) => Ok(sender.ping(payload.as_ref(), &mut self.out)?),
            None => Err(self.not_open()),
        }
    }

    /// Sends a pong of at most 125 bytes: an unsolicited one, or the later answer to a ping for which
    /// [`Handler::ping`] has returned `false`.
    ///
    /// # Errors
    ///
    /// As [`ping`](Self::ping).
    pub fn pong(&mut self, payload: impl AsRef<[u8]>) -> Result<(), SendError> {
        match &mut self.sender {
            Some(sender) => Ok(sender.pong(payload.as_ref(), &mut self.out)?),
            None => Err(self.not_open()),
        }
    }

    /// Begins the closing handshake. Messages that handles and broadcasts have sent before are sent first, as
    /// [`Sent`] says, and so are pings and pongs of handles; other commands of handles run afterwards. `reason` has at
    /// most 123 bytes; see [`truncate_reason`](anyloop_proto::truncate_reason). Without a code (`None`) the Close frame
    /// is empty.
    ///
    /// # Errors
    ///
    /// - [`SendError::Refused`] for a reason of more than 123 bytes, or one without a code
    /// - [`SendError::NotOpen`] before the connection is open: to refuse a handshake, return an
    ///   [`Answer`](super::Answer), or use a [`Handle`](crate::endpoint::Handle)
    /// - [`SendError::Closing`], [`SendError::Gone`]
    pub fn close(
        &mut self,
        code: impl Into<Option<CloseCode>>,
        reason: &str,
    ) -> Result<(), SendError> {
        let code = code.into();
        if self.sender.is_none() || self.state() != State::Open {
            return Err(self.not_open());
        }
        check_close(code, reason)?;
        self.send_accepted();
        if let Some(sender) = &mut self.sender {
            // The close timeout begins now, not at the start of the batch.
            let now = self.out.now().unwrap_or(self.now);
            sender.close(code, reason, now, &mut self.out)?;
        }
        // What is left fails: nothing follows a Close.
        if self.state.flags.has(Flags::DEFERRED) {
            self.send_deferred();
        }
        Ok(())
    }

    /// Stops reading: no further message is passed to the handler. Messages received already are held back too.
    pub const fn pause_reading(&mut self) {
        self.state.set_paused(true);
    }

    /// Resumes reading. Without a pause it does nothing.
    pub const fn resume_reading(&mut self) {
        self.state.set_paused(false);
    }

    /// Ends the connection when the present call is over, as [`Handle::terminate`](crate::Handle::terminate). After
    /// this call the next handler method is [`close`](Handler::close) or [`fail`](Handler::fail).
    pub const fn terminate(&mut self) {
        self.state.flags.set(Flags::TERMINATED, true);
    }

    /// Replaces the handler when the present call is over.
    pub fn set_handler(&mut self, handler: H) {
        self.new_handler = Some(handler);
    }

    /// The request and response of the opening handshake. In [`open`](Handler::open) and [`fail`](Handler::fail) it is
    /// always `Some`, with what was exchanged up to then, except that `fail` on a server has no response; after `open`
    /// only if it is [kept](crate::ServerConfig::keep_handshake).
    #[must_use]
    pub fn handshake_info(&self) -> Option<&HandshakeInfo> {
        self.state.handshake_info()
    }

    /// The request, on a server: part of the [`handshake_info`](Self::handshake_info).
    #[must_use]
    pub fn request(&self) -> Option<&Request> {
        self.handshake_info()?.request.as_ref()
    }

    /// The response, as a server sent it or a client received it: part of the
    /// [`handshake_info`](Self::handshake_info). `None` in [`fail`](Handler::fail) on a server.
    #[must_use]
    pub fn response(&self) -> Option<&Response<Vec<u8>>> {
        self.handshake_info()?.response.as_ref()
    }

    /// The subprotocol that was agreed on: part of the [`handshake_info`](Self::handshake_info).
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.handshake_info()?.subprotocol.as_deref()
    }

    /// The error that ended the connection: the transport's, that of reading the [body](crate::Body) of a response, or
    /// that of an invalid [answer](super::Answer). The [`Failure`](anyloop_proto::Failure) passed to
    /// [`close`](Handler::close) and [`fail`](Handler::fail) has only its kind.
    #[must_use]
    pub fn error(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.state.error()
    }

    /// Whether the connection was closed under [`Overflow::Close`](crate::endpoint::Overflow::Close). Use it in
    /// [`close`](Handler::close) and [`fail`](Handler::fail) to distinguish this from other closes with 1008.
    #[must_use]
    pub fn overflowed(&self) -> bool {
        self.state.overflowed()
    }

    /// The peer's name for logs: its address or path.
    #[must_use]
    pub fn remote_endpoint(&self) -> String {
        self.peer().to_string()
    }

    /// The address of the peer, if the transport has addresses.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer().addr()
    }

    /// The peer.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.state.peer().map_or_else(|| self.out.peer(), Peer::clone)
    }

    /// The statistics of an open connection. `None` in handlers that borrow received data
    /// ([`message`](Handler::message), `chunk`, `ping`, `pong`): ask in a timer or a posted function. The
    /// [ending](anyloop_proto::Ending) has the final ones.
    #[must_use]
    pub fn statistics(&self) -> Option<Statistics> {
        Some(Statistics::of(self.receiver?, self.sender.as_deref()?))
    }

    /// Whether the stream is confidential: by TLS, or because the transport is
    /// [secure](crate::transport::Transport::is_secure).
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.out.is_secure()
    }

    /// What TLS has agreed on; `None` without TLS, and with TLS that the transport does itself.
    ///
    /// ```
    /// # use anyloop::prelude::*;
    /// # let mut server = anyloop::iostream::Server::new(ServerConfig::new(OriginPolicy::Any));
    /// server.on_open(|context| {
    ///     let Some(tls) = context.tls() else { return };
    ///     println!("{:?}, for {:?}", tls.protocol_version(), tls.server_name());
    /// });
    /// ```
    #[cfg(feature = "tls-core")]
    #[must_use]
    pub fn tls(&self) -> Option<crate::tls::TlsInfo<'_>> {
        self.out.encryption_state()?.downcast_ref().map(crate::tls::TlsInfo::new)
    }

    /// The number of bytes that were sent and that the transport has not taken, plus the payloads of the messages that
    /// wait for the connection to open or for the end of a message in pieces. Unlike
    /// [`Handle::buffered_amount`](crate::Handle::buffered_amount), it excludes the queue of commands.
    #[must_use]
    pub fn buffered_amount(&self) -> usize {
        self.out.buffered().saturating_add(self.state.deferred_bytes())
    }

    /// The state of the connection.
    #[must_use]
    pub fn state(&self) -> State {
        match &self.sender {
            Some(sender) => sender.state(),
            None => self.state.phase.state(),
        }
    }

    /// The time of the present [batch](Self): the instant that was passed to the driver for it.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Calls `f` with a handler of another type, and this connection as its context. If `f` calls
    /// [`set_handler`](Self::set_handler), `handler` is replaced.
    pub(crate) fn call<I: Handler, R>(
        &mut self,
        handler: &mut I,
        f: impl FnOnce(&mut I, &mut Context<'_, I>) -> R,
    ) -> R {
        let mut context = Context {
            marker: PhantomData,
            sender: self.sender.as_deref_mut(),
            receiver: self.receiver,
            out: self.out.reborrow(),
            state: self.state,
            now: self.now,
            unrun: self.unrun.as_deref_mut(),
            new_handler: None,
        };
        let result = f(handler, &mut context);
        if let Some(new_handler) = context.new_handler {
            *handler = new_handler;
        }
        result
    }

    /// Sends a message that a handle has accepted, or defers it until the connection is open and no message in pieces
    /// is in progress.
    pub(in crate::session) fn send_or_defer(&mut self, message: OutgoingMessage) {
        if self.must_defer() {
            self.state.defer(message);
        } else {
            self.send_outgoing(message);
        }
    }

    /// Sends the messages that were deferred.
    #[cold]
    pub(in crate::session) fn send_deferred(&mut self) {
        if self.send_deferred_messages() {
            self.send_deferred_close();
        }
    }

    /// Sends the messages that were deferred, but no Close. Returns false if some must still wait.
    pub(in crate::session) fn send_deferred_messages(&mut self) -> bool {
        while !self.is_blocked() {
            match self.state.take_deferred() {
                Some(NextDeferred::Message(message)) => self.send_outgoing(message),
                Some(NextDeferred::Pieces(progress, pieces)) => self.send_pieces(&progress, pieces),
                None => return true,
            }
        }
        false
    }

    /// If a close was requested before the connection was open, begins it now. The messages sent before the request are
    /// already out.
    fn send_deferred_close(&mut self) {
        let Some((code, reason)) = self.state.take_deferred_close() else { return };
        // The connection may be closing already.
        let _: Result<(), SendError> = self.close(code, &reason);
    }

    /// Whether messages of handles must be deferred: sending is blocked, or earlier ones are deferred and come first.
    pub(in crate::session) fn must_defer(&self) -> bool {
        self.state.flags.has(Flags::DEFERRED) || self.is_blocked()
    }

    /// Whether no message can be sent yet: the connection is not open, or a fragmented message is in progress. False on
    /// a connection that is closing, where a message fails at once.
    fn is_blocked(&self) -> bool {
        match &self.sender {
            Some(sender) => sender.state() == State::Open && sender.is_message_begun(),
            None => self.state() == State::Connecting,
        }
    }

    /// Defers a message that was refused because a [`MessageWriter`]'s message is in progress; the handler does not see
    /// this refusal. Other refusals are returned.
    ///
    /// [`MessageWriter`]: crate::endpoint::MessageWriter
    #[cold]
    fn defer_refused(
        &mut self,
        refused: Refused,
        payload: impl FnOnce() -> OutgoingPayload,
        completion: Option<Completion>,
    ) -> Result<Sent, SendError> {
        if refused != Refused::MessageUnfinished || !self.state.has_message_writer() {
            return Err(refused.into());
        }
        let payload = payload();
        if self.out.queued() + self.state.deferred_bytes() > 0 {
            if let Some(dropped) = self.apply_send_buffer_limit(payload.len())? {
                completion.into_iter().for_each(|completion| completion(Err(Unsent)));
                return Ok(dropped);
            }
        }
        self.state.defer(OutgoingMessage { payload, completion });
        Ok(Sent::Buffered)
    }

    /// Sends a message that is accepted already, so that no limit applies: that of a handle or of a broadcast, or a
    /// deferred one of the handler. Registers its completion, or calls it with `Unsent`.
    fn send_outgoing(&mut self, message: OutgoingMessage) {
        let OutgoingMessage { payload, completion } = message;
        let result = match (&mut self.sender, &payload) {
            (Some(sender), OutgoingPayload::Payload(payload)) => {
                let message = payload.message();
                let mut out =
                    OwnedPayloadOutput { out: &mut self.out, payload: payload.as_bytes() };
                let sent = match payload.is_compressible() {
                    true => sender.send(message, &mut out),
                    false => sender.send_uncompressed(message, &mut out),
                };
                sent.map_err(SendError::from)
            }
            (Some(sender), OutgoingPayload::Prepared(prepared)) => {
                sender.send_prepared(prepared, &mut self.out).map_err(SendError::from)
            }
            (None, _) => Err(self.not_open()),
        };
        self.out.flush_if_large();
        if let Err(error) = &result {
            crate::log::debug!("not sent: {error}");
        }
        match completion {
            Some(completion) if result.is_ok() => self.out.push_completion(completion),
            Some(completion) => completion(Err(Unsent)),
            None => {}
        }
    }

    /// Registers the completion of the message just sent, or calls it with `Unsent` if the message was dropped.
    pub(in crate::session) fn register_completion(&mut self, sent: Sent, completion: Completion) {
        match sent {
            Sent::Dropped => completion(Err(Unsent)),
            _ => self.out.push_completion(completion),
        }
    }

    /// If `len` more bytes would exceed the limit, applies the overflow policy: `Ok(Some(Dropped))`, or an error (after
    /// a Close, with `Overflow::Close`). Otherwise `Ok(None)`.
    #[cold]
    fn apply_send_buffer_limit(&mut self, len: usize) -> Result<Option<Sent>, SendError> {
        let limits = self.state.limits();
        if self.state() != State::Open {
            return Ok(None); // the sender reports that it cannot be sent
        }
        if self.waiting().saturating_add(len) <= limits.max_send_buffer {
            return Ok(None);
        }
        if limits.overflow == Overflow::Drop {
            return Ok(Some(Sent::Dropped));
        }
        // If messages wait for a `MessageWriter` of this program, the peer is not at fault.
        let closes = limits.overflow == Overflow::Close && !self.state.has_message_writer();
        let full = self.full(len, closes); // computed now: after `close`, `waiting` would include the Close frame
        if closes {
            self.state.note_overflow(self.out.queued(), Phase::Open);
            let _: Result<(), SendError> = self.close(CloseCode::POLICY_VIOLATION, TOO_SLOW);
        }
        Err(full)
    }

    /// The bytes that count against the limit of the send buffer. Deferred messages count only if they wait for a
    /// `MessageWriter`. Those that wait for the handler's own message do not: they would use up the room that its last
    /// pieces need.
    fn waiting(&self) -> usize {
        let deferred =
            if self.state.has_message_writer() { self.state.deferred_bytes() } else { 0 };
        self.out.buffered().saturating_add(deferred)
    }

    fn full(&self, message: usize, closes: bool) -> SendError {
        let (waiting, limit) = (self.waiting(), self.state.limits().max_send_buffer);
        SendError::SendBufferFull { waiting, message, limit, closes }
    }

    #[inline]
    fn sent(&mut self) -> Sent {
        self.out.flush_if_large();
        match self.out.queued() {
            0 => Sent::Sent,
            queued => {
                cold_path();
                match queued > self.state.limits().high_water_mark {
                    true => Sent::Backpressure,
                    false => Sent::Buffered,
                }
            }
        }
    }

    #[cold]
    fn not_open(&self) -> SendError {
        SendError::from(Refused::NotOpen(self.state()))
    }
}
