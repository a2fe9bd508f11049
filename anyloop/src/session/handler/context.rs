//! What a handler may do.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use anyloop_proto::{
    CloseCode, Instant, Kind, Prepared, Receiver, SendError as Refused, Sender, State, Statistics,
};

use super::Handler;
use crate::cold::cold_path;
use crate::session::as_message::AsMessage;
use crate::session::error::{SendError, Sent};
use crate::session::limits::{Overflow, TOO_SLOW};
use crate::session::state::{HandshakeInfo, SessionState};
use crate::session::timers::TimerId;
use crate::stream::{Completion, Peer, Unsent, WriteBuffer};

/// The connection, as its handler sees it during a call.
///
/// What is sent here leaves in one write when the batch of input is done, or when much has gathered.
///
/// A message that is sent twice: at once, and after a second of a clock that the program holds.
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
///     let _ = context.send("now");
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
    /// Absent before the connection is open and after it is over.
    pub(in crate::session) sender: Option<&'c mut Sender>,
    /// Absent, too, while it lends what has arrived.
    pub(in crate::session) receiver: Option<&'c Receiver>,
    pub(in crate::session) out: WriteBuffer<'c>,
    pub(in crate::session) state: &'c mut SessionState<H>,
    pub(in crate::session) now: Instant,
}

impl<H: Handler> Context<'_, H> {
    /// Sends a message, which may be the one that was passed to the handler.
    ///
    /// # Errors
    ///
    /// [`SendError::Refused`] before the connection is open and after a Close;
    /// [`SendError::BacklogFull`].
    #[inline(always)] // an echo server spends much of its own time here
    pub fn send(&mut self, message: impl AsMessage) -> Result<Sent, SendError> {
        let message = message.as_message();
        if self.out.waiting() > 0 {
            if let Some(dropped) = self.check_room(message.as_bytes().len())? {
                return Ok(dropped);
            }
        }
        match &mut self.sender {
            Some(sender) => sender.send(message, &mut self.out)?,
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
        let sent = self.send(message)?;
        self.complete(sent, Box::new(completion));
        Ok(sent)
    }

    /// Sends a message that was encoded for many connections.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_prepared(&mut self, message: &Prepared) -> Result<Sent, SendError> {
        if self.out.waiting() > 0 {
            if let Some(dropped) = self.check_room(message.message().as_bytes().len())? {
                return Ok(dropped);
            }
        }
        match &mut self.sender {
            Some(sender) => sender.send_prepared(message, &mut self.out)?,
            None => return Err(self.not_open()),
        }
        Ok(self.sent())
    }

    /// Begins a message that is sent in pieces, one frame each.
    ///
    /// # Errors
    ///
    /// [`SendError::Refused`].
    pub fn begin(&mut self, kind: Kind) -> Result<(), SendError> {
        match &mut self.sender {
            Some(sender) => Ok(sender.begin(kind)?),
            None => Err(self.not_open()),
        }
    }

    /// Sends the next piece of the message begun, and with `last` ends it.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send). Where a piece has no room the message stays begun, so with
    /// [`Overflow::Drop`] a piece is refused by [`SendError::BacklogFull`] too.
    pub fn piece(&mut self, payload: &[u8], last: bool) -> Result<Sent, SendError> {
        if self.out.waiting() > 0 && self.check_room(payload.len())?.is_some() {
            return Err(self.full(payload.len()));
        }
        match &mut self.sender {
            Some(sender) => sender.piece(payload, last, &mut self.out)?,
            None => return Err(self.not_open()),
        }
        Ok(self.sent())
    }

    /// Sends a ping of the application's own, of at most 125 bytes.
    ///
    /// # Errors
    ///
    /// [`SendError::Refused`].
    pub fn ping(&mut self, payload: &[u8]) -> Result<(), SendError> {
        match &mut self.sender {
            Some(sender) => Ok(sender.ping(payload, &mut self.out)?),
            None => Err(self.not_open()),
        }
    }

    /// Sends a pong: one that nobody asked for, or the late answer to a ping for which
    /// [`Handler::ping`] has returned `false`. At most 125 bytes.
    ///
    /// # Errors
    ///
    /// [`SendError::Refused`].
    pub fn pong(&mut self, payload: &[u8]) -> Result<(), SendError> {
        match &mut self.sender {
            Some(sender) => Ok(sender.pong(payload, &mut self.out)?),
            None => Err(self.not_open()),
        }
    }

    /// Begins the closing handshake. `reason` has at most 123 bytes; see
    /// [`truncate_reason`](anyloop_proto::truncate_reason). Without a code (`None`) the Close frame is empty.
    ///
    /// # Errors
    ///
    /// [`SendError::Refused`], also before the connection is open: there a
    /// [verdict](super::Verdict) does it, or a [`Handle`](crate::endpoint::Handle).
    pub fn close(
        &mut self,
        code: impl Into<Option<CloseCode>>,
        reason: &str,
    ) -> Result<(), SendError> {
        match &mut self.sender {
            Some(sender) => {
                // Its time begins now, however long the handlers before have taken.
                let now = self.out.now().unwrap_or(self.now);
                Ok(sender.close(code, reason, now, &mut self.out)?)
            }
            None => Err(self.not_open()),
        }
    }

    /// Stops reading: no further message is handed out, also of those that were received already.
    pub const fn pause_reading(&mut self) {
        self.state.set_paused(true);
    }

    /// Resumes reading. Without a pause it does nothing.
    pub const fn resume_reading(&mut self) {
        self.state.set_paused(false);
    }

    /// Runs `f` after `delay`, unless the connection ends before. It is dropped then, and when it is
    /// cancelled.
    pub fn set_timer(
        &mut self,
        delay: Duration,
        f: impl FnOnce(&mut H, &mut Context<'_, H>) + Send + 'static,
    ) -> TimerId {
        let now = self.out.now().unwrap_or(self.now);
        self.state.timers().set(now + delay, Box::new(f))
    }

    /// Cancels a timer. Returns whether it was still to run.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.state.timers().cancel(timer)
    }

    /// Puts another handler in the place of this one, when the present call is over.
    pub fn set_handler(&mut self, handler: H) {
        self.state.rare().successor = Some(handler);
    }

    /// What was said in the opening handshake, where it is
    /// [kept](crate::ServerConfig::keep_handshake). In [`open`](Handler::open) and
    /// [`fail`](Handler::fail) it is there as far as it came.
    #[must_use]
    pub fn handshake_info(&self) -> Option<&HandshakeInfo> {
        self.state.handshake_info()
    }

    /// What the transport failed with, where it says. It is there in [`close`](Handler::close) and
    /// [`fail`](Handler::fail), whose failure has its kind.
    #[must_use]
    pub fn error(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.state.error()
    }

    /// Who is at the other end, for people to read.
    #[must_use]
    pub fn remote_endpoint(&self) -> String {
        self.peer().to_string()
    }

    /// The address of the other end, where the transport has one.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer().addr()
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.state.peer().map_or_else(|| self.out.peer(), Peer::clone)
    }

    /// What has passed through the connection, while it is open; but `None` in what is called for
    /// something that has arrived ([`message`](Handler::message), `chunk`, `ping`, `pong`). Ask in a
    /// timer or a posted function, or wait for the [ending](anyloop_proto::Ending), which says it.
    #[must_use]
    pub fn statistics(&self) -> Option<Statistics> {
        Some(Statistics::of(self.receiver?, self.sender.as_deref()?))
    }

    /// Whether nobody can read along.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.out.is_secure()
    }

    /// Bytes that were sent and that the transport has not taken.
    #[must_use]
    pub fn buffered_amount(&self) -> usize {
        self.out.buffered()
    }

    /// How far the connection has come.
    #[must_use]
    pub fn state(&self) -> State {
        self.sender.as_ref().map_or(self.state.phase, |sender| sender.state())
    }

    /// The present, as the transport sees it.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Sends a message that a handle has accepted, and calls `completion` in any case. There was room for
    /// it when it was accepted.
    pub(in crate::session) fn send_accepted(
        &mut self,
        send: impl FnOnce(&mut Sender, &mut WriteBuffer<'_>) -> Result<(), Refused>,
        completion: Option<Completion>,
    ) -> Result<(), SendError> {
        let result = match &mut self.sender {
            Some(sender) => send(sender, &mut self.out).map_err(SendError::from),
            None => Err(self.not_open()),
        };
        self.out.flush_if_large();
        match completion {
            Some(completion) if result.is_ok() => self.out.complete(completion),
            Some(completion) => completion(Err(Unsent)),
            None => {}
        }
        result
    }

    /// Registers the completion of what was just sent.
    pub(in crate::session) fn complete(&mut self, sent: Sent, completion: Completion) {
        match sent {
            Sent::Dropped => completion(Err(Unsent)),
            _ => self.out.complete(completion),
        }
    }

    /// Whether the backlog has room for `len` bytes more.
    #[cold]
    fn check_room(&mut self, len: usize) -> Result<Option<Sent>, SendError> {
        let limits = self.state.endpoint.limits;
        if self.state() != State::Open {
            return Ok(None); // that it is not sent will be said for this reason
        }
        if self.out.buffered().saturating_add(len) <= limits.cap {
            return Ok(None);
        }
        match limits.overflow {
            Overflow::Drop => return Ok(Some(Sent::Dropped)),
            // If it is closing already, that is as well.
            Overflow::Close => _ = self.close(CloseCode::POLICY_VIOLATION, TOO_SLOW),
            Overflow::Error => {}
        }
        Err(self.full(len))
    }

    fn full(&self, message: usize) -> SendError {
        let waiting = self.out.buffered();
        SendError::BacklogFull { waiting, message, cap: self.state.endpoint.limits.cap }
    }

    #[inline]
    fn sent(&mut self) -> Sent {
        self.out.flush_if_large();
        match self.out.waiting() {
            0 => Sent::Sent,
            waiting => {
                cold_path();
                match waiting > self.state.endpoint.limits.high {
                    true => Sent::Backpressure,
                    false => Sent::Buffered,
                }
            }
        }
    }

    #[cold]
    const fn not_open(&self) -> SendError {
        SendError::Refused(Refused::NotOpen(self.state.phase))
    }
}
