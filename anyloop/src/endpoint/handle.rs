//! Reaching a connection from elsewhere.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use anyloop_proto::handshake::Accept;
use anyloop_proto::handshake::http::Response;
use anyloop_proto::{CloseCode, MAX_REASON, Message, Prepared, SendError as Refused, State};

use super::backlog::{Completion, Unsent};
use super::context::{Context, TOO_SLOW};
use super::error::{SendError, Sent};
use super::handler::Handler;
use super::settings::{BacklogLimits, Overflow};
use super::timers::TimerId;
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard};

#[cfg(all(test, loom))]
#[path = "../event_loop/models/mailbox.rs"]
mod models;

/// A connection, seen from elsewhere: cheap to clone, and usable from any thread.
///
/// What is asked for here is done on the connection's own thread, in order; its transport is woken
/// for it. Whether a message could still go out is decided there: after a Close it does not. Once the
/// connection is over, every call says [`SendError::Gone`].
///
/// ```
/// # use anyloop::Server;
/// # use anyloop::endpoint::SendError;
/// # use anyloop::proto::CloseCode;
/// # use anyloop::proto::handshake::{OriginPolicy, ServerOptions};
/// # use anyloop::transport::iostream::IoStream;
/// # use std::sync::mpsc;
/// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// # let server = Server::<IoStream>::new(ServerOptions::new(OriginPolicy::Any));
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
    seat: Arc<Seat<H>>,
}

/// The number of a connection: no other of this process has it, nor will have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a connection and its handles share.
pub(crate) struct Seat<H: Handler> {
    id: ConnectionId,
    mailbox: Mutex<Mailbox<H>>,
    waker: Waker,
    limits: BacklogLimits,
    /// Bytes that wait: those in the backlog as of the last batch, and those of messages that were
    /// accepted since. One number, for who is to judge by it must not find a message in neither place.
    waiting: AtomicUsize,
    /// How many of them are the connection's: in the backlog as of the last batch, or taken from the
    /// mailbox in this one. Only the connection changes it.
    held: AtomicUsize,
    /// Whether there was a backlog as of the last batch.
    backlogged: AtomicBool,
    state: AtomicU8,
}

/// What was asked for and is not done yet.
struct Mailbox<H: Handler> {
    commands: VecDeque<Command<H>>,
    /// Somebody was told of back-pressure.
    pressed: bool,
    gone: bool,
}

/// Commands on their way from the mailbox. Who waits for one that is not done is told so.
pub(super) struct Commands<'s, H: Handler> {
    seat: &'s Seat<H>,
    queue: VecDeque<Command<H>>,
}

impl<H: Handler> Commands<'_, H> {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether the next one calls into the program.
    pub(super) fn next_calls(&self) -> bool {
        matches!(self.queue.front(), Some(Command::Interrupt | Command::Post(_)))
    }

    /// Puts those that were not reached back, before what has come meanwhile. Nobody is woken for
    /// them.
    pub(super) fn put_back(mut self) {
        let mut mailbox = self.seat.mailbox();
        if !mailbox.gone {
            self.queue.append(&mut mailbox.commands);
            std::mem::swap(&mut self.queue, &mut mailbox.commands);
        }
    }
}

impl<H: Handler> Iterator for Commands<'_, H> {
    type Item = Command<H>;

    fn next(&mut self) -> Option<Command<H>> {
        let command = self.queue.pop_front()?;
        // It goes on being counted as waiting until it is known what has become of it.
        self.seat.held.fetch_add(command.len(), Ordering::Relaxed);
        Some(command)
    }
}

impl<H: Handler> Drop for Commands<'_, H> {
    fn drop(&mut self) {
        self.for_each(Command::unsent);
    }
}

/// Something to be done on the connection's own thread.
pub(super) enum Command<H: Handler> {
    Accept(Accept),
    Cancel(TimerId),
    Close(CloseCode, String),
    Interrupt,
    Pause,
    Ping(Vec<u8>),
    Post(Box<Posted<H>>),
    Respond(Response<Vec<u8>>),
    Resume,
    Send { message: Owned, completion: Option<Completion> },
    SendPrepared { message: Prepared, completion: Option<Completion> },
}

impl<H: Handler> Command<H> {
    /// Bytes of the message in it.
    fn len(&self) -> usize {
        match self {
            Self::Send { message, .. } => message.message().as_bytes().len(),
            Self::SendPrepared { message, .. } => message.message().as_bytes().len(),
            _ => 0,
        }
    }

    /// It will not be done: tells who waits for it.
    fn unsent(self) {
        if let Self::Send { completion: Some(completion), .. }
        | Self::SendPrepared { completion: Some(completion), .. } = self
        {
            completion(Err(Unsent));
        }
    }
}

/// A message on its way to the connection's own thread.
pub(super) enum Owned {
    Binary(Vec<u8>),
    Text(String),
}

impl Owned {
    pub(super) fn message(&self) -> Message<'_> {
        match self {
            Self::Binary(bytes) => bytes.as_slice().into(),
            Self::Text(text) => text.as_str().into(),
        }
    }
}

impl From<Message<'_>> for Owned {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Message::Text(text) => Self::Text(text.as_str().to_string()),
        }
    }
}

/// A function to be run on the connection's own thread.
pub(super) type Posted<H> = dyn FnOnce(&mut H, &mut Context<'_, H>) + Send;

impl<H: Handler> Handle<H> {
    pub(crate) const fn new(seat: Arc<Seat<H>>) -> Self {
        Self { seat }
    }

    pub(super) fn downgrade(&self) -> Weak<Seat<H>> {
        Arc::downgrade(&self.seat)
    }

    /// Whether the connection is over.
    pub(super) fn is_gone(&self) -> bool {
        self.seat.is_gone()
    }

    /// Sends a message.
    ///
    /// The answer is judged by [`buffered_amount`](Self::buffered_amount). A message that meets a
    /// connection which is not open yet, or closing, is dropped; [`send_then`](Self::send_then) tells.
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`], [`SendError::BacklogFull`].
    pub fn send<'m>(&self, message: impl Into<Message<'m>>) -> Result<Sent, SendError> {
        self.send_owned(message.into(), None)
    }

    /// Sends a message, and tells `completion` what has become of it: on the connection's own
    /// thread, or on this one if it cannot be sent at all.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_then<'m>(
        &self,
        message: impl Into<Message<'m>>,
        completion: impl FnOnce(Result<(), Unsent>) + Send + 'static,
    ) -> Result<Sent, SendError> {
        self.send_owned(message.into(), Some(Box::new(completion)))
    }

    /// Sends a message that was encoded for many connections.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_prepared(&self, message: &Prepared) -> Result<Sent, SendError> {
        let len = message.message().as_bytes().len();
        let message = message.clone();
        self.mail(len, Command::SendPrepared { message, completion: None })
    }

    /// Sends a ping of the application's own.
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`]; [`SendError::Refused`] for more than 125 bytes.
    pub fn ping(&self, payload: &[u8]) -> Result<(), SendError> {
        if payload.len() > anyloop_proto::frame::MAX_CONTROL_PAYLOAD {
            return Err(Refused::ControlTooLong(payload.len()).into());
        }
        self.command(Command::Ping(payload.to_vec()))
    }

    /// Begins the closing handshake, or gives up the opening one.
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`]; [`SendError::Refused`] for a reason of more than 123 bytes.
    pub fn close(&self, code: CloseCode, reason: &str) -> Result<(), SendError> {
        if reason.len() > MAX_REASON {
            return Err(Refused::ReasonTooLong(reason.len()).into());
        }
        self.command(Command::Close(code, reason.to_string()))
    }

    /// Has [`Handler::interrupt`] called.
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`].
    pub fn interrupt(&self) -> Result<(), SendError> {
        self.command(Command::Interrupt)
    }

    /// Stops reading: no message is handed out from the next one on, also of those that were
    /// received already. To pause twice is to pause once.
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`].
    pub fn pause_reading(&self) -> Result<(), SendError> {
        self.command(Command::Pause)
    }

    /// Resumes reading. Without a pause it does nothing.
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`].
    pub fn resume_reading(&self) -> Result<(), SendError> {
        self.command(Command::Resume)
    }

    /// Runs `f` with the handler, on the connection's own thread, between two of its events.
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`]; `f` is dropped. It is also dropped if the connection ends before its turn.
    pub fn post(
        &self,
        f: impl FnOnce(&mut H, &mut Context<'_, H>) + Send + 'static,
    ) -> Result<(), SendError> {
        self.command(Command::Post(Box::new(f)))
    }

    /// Runs `f` like [`post`](Self::post), after `delay`. One that is to be cancelled is set with
    /// [`Context::set_timer`].
    ///
    /// # Errors
    ///
    /// As [`post`](Self::post).
    pub fn set_timer(
        &self,
        delay: Duration,
        f: impl FnOnce(&mut H, &mut Context<'_, H>) + Send + 'static,
    ) -> Result<(), SendError> {
        self.post(move |_, context| {
            context.set_timer(delay, f);
        })
    }

    /// Cancels a timer that was set with [`Context::set_timer`]. One that has run already, or does not
    /// exist, is nothing to cancel.
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`].
    pub fn cancel_timer(&self, timer: TimerId) -> Result<(), SendError> {
        self.command(Command::Cancel(timer))
    }

    /// Accepts a request whose verdict was [deferred](super::Verdict::Defer). If it cannot be accepted
    /// like this, it is answered with 500.
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`].
    pub fn accept(&self, accept: Accept) -> Result<(), SendError> {
        self.command(Command::Accept(accept))
    }

    /// Answers a request whose verdict was [deferred](super::Verdict::Defer). If it cannot be answered
    /// like this, it is answered with 500.
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`].
    pub fn respond(&self, response: Response<Vec<u8>>) -> Result<(), SendError> {
        self.command(Command::Respond(response))
    }

    /// Bytes that were given to send and that the transport has not taken, with those that the
    /// connection itself has not seen yet.
    #[must_use]
    pub fn buffered_amount(&self) -> usize {
        self.seat.buffered()
    }

    /// The number of the connection, for maps and logs.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.seat.id
    }

    /// How far the connection has come, as of its last batch.
    #[must_use]
    pub fn state(&self) -> State {
        self.seat.state()
    }

    fn send_owned(
        &self,
        message: Message<'_>,
        completion: Option<Completion>,
    ) -> Result<Sent, SendError> {
        let len = message.as_bytes().len();
        self.mail(len, Command::Send { message: message.into(), completion })
    }

    /// Puts a message into the mailbox, if the backlog has room for it.
    fn mail(&self, len: usize, command: Command<H>) -> Result<Sent, SendError> {
        let seat = &*self.seat;
        let limits = seat.limits;
        // Counted before it can be seen, and only if it fits: two senders cannot have the same room.
        let charge = |waiting: usize| {
            let sum = waiting.saturating_add(len);
            (waiting == 0 || sum <= limits.cap).then_some(sum)
        };
        let charged = seat.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, charge);
        if let Err(waiting) = charged {
            command.unsent();
            match limits.overflow {
                Overflow::Drop => return Ok(Sent::Dropped),
                Overflow::Error => {}
                Overflow::Close => self.close(CloseCode::POLICY_VIOLATION, TOO_SLOW)?,
            }
            return Err(SendError::BacklogFull { waiting, message: len, cap: limits.cap });
        }
        let waiting = charged.map_or(0, |before| before + len);
        let sent = match seat.backlogged.load(Ordering::Relaxed) {
            _ if waiting > limits.high => Sent::Backpressure,
            false => Sent::Sent,
            true => Sent::Buffered,
        };
        self.push(command, sent == Sent::Backpressure).inspect_err(|_| {
            seat.waiting.fetch_sub(len, Ordering::Relaxed);
        })?;
        Ok(sent)
    }

    fn command(&self, command: Command<H>) -> Result<(), SendError> {
        self.push(command, false)
    }

    /// Puts a command into the mailbox. `pressed` says that its sender was told of back-pressure, and
    /// now waits to be told that it is over.
    fn push(&self, command: Command<H>, pressed: bool) -> Result<(), SendError> {
        let mut mailbox = self.seat.mailbox();
        if mailbox.gone {
            drop(mailbox);
            command.unsent();
            return Err(SendError::Gone);
        }
        mailbox.pressed |= pressed;
        mailbox.commands.push_back(command);
        let first = mailbox.commands.len() == 1;
        drop(mailbox);
        if first {
            self.seat.waker.wake_by_ref();
        }
        Ok(())
    }
}

impl<H: Handler> Clone for Handle<H> {
    fn clone(&self) -> Self {
        Self { seat: self.seat.clone() }
    }
}

/// Handles of the same connection are equal.
impl<H: Handler> PartialEq for Handle<H> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.seat, &other.seat)
    }
}

impl<H: Handler> Eq for Handle<H> {}

impl<H: Handler> fmt::Debug for Handle<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl<H: Handler> Seat<H> {
    /// `waker` is the transport's.
    pub(crate) fn new(waker: Waker, limits: BacklogLimits, state: State) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: ConnectionId(NEXT.fetch_add(1, Ordering::Relaxed)),
            mailbox: Mutex::new(Mailbox { commands: VecDeque::new(), pressed: false, gone: false }),
            waker,
            limits,
            waiting: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            backlogged: AtomicBool::new(false),
            state: AtomicU8::new(encode(state)),
        }
    }

    /// Takes what was asked for, and whether somebody waits for back-pressure to be over.
    pub(super) fn take(&self) -> (Commands<'_, H>, bool) {
        let mut mailbox = self.mailbox();
        let queue = std::mem::take(&mut mailbox.commands);
        let pressed = std::mem::take(&mut mailbox.pressed);
        drop(mailbox);
        (Commands { seat: self, queue }, pressed)
    }

    /// Says how things are. Only the connection itself does, so what is there need not be written again.
    pub(crate) fn publish(&self, backlog: usize, state: State) {
        if !self.says(backlog, state) {
            let before = self.held.swap(backlog, Ordering::Relaxed);
            match backlog.checked_sub(before) {
                Some(more) => self.waiting.fetch_add(more, Ordering::Relaxed),
                None => self.waiting.fetch_sub(before - backlog, Ordering::Relaxed),
            };
            self.backlogged.store(backlog > 0, Ordering::Relaxed);
            self.state.store(encode(state), Ordering::Release);
        }
    }

    /// The same for a connection that has not taken its seat yet.
    pub(crate) fn publish_state(&self, state: State) {
        self.state.store(encode(state), Ordering::Release);
    }

    /// Whether this is what was published.
    pub(super) fn says(&self, backlog: usize, state: State) -> bool {
        self.held.load(Ordering::Relaxed) == backlog
            && self.backlogged.load(Ordering::Relaxed) == (backlog > 0)
            && self.state.load(Ordering::Relaxed) == encode(state)
    }

    /// The connection is over: nothing can be asked for any more, and what was is dropped.
    pub(crate) fn leave(&self) {
        self.publish(0, State::Ended);
        self.mailbox().gone = true;
        drop(self.take());
        self.publish(0, State::Ended); // and what was in the mailbox waits no more
    }

    /// Whether the connection is over.
    pub(crate) fn is_gone(&self) -> bool {
        self.mailbox().gone
    }

    fn buffered(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn state(&self) -> State {
        decode(self.state.load(Ordering::Acquire))
    }

    /// A panic elsewhere leaves the mailbox as it was: each change is one push or one swap.
    fn mailbox(&self) -> MutexGuard<'_, Mailbox<H>> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const STATES: [State; 6] =
    [State::Connecting, State::Open, State::CloseSent, State::Closed, State::Failed, State::Ended];

const fn encode(state: State) -> u8 {
    match state {
        State::Connecting => 0,
        State::Open => 1,
        State::CloseSent => 2,
        State::Closed => 3,
        State::Failed => 4,
        _ => 5,
    }
}

fn decode(state: u8) -> State {
    STATES.get(usize::from(state)).copied().unwrap_or(State::Ended)
}
