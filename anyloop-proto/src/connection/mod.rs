//! An open connection.

mod keepalive;
mod receiver;
mod sender;
mod timer;

use alloc::boxed::Box;
use alloc::sync::Arc;

pub use receiver::Receiver;
pub use sender::Sender;
pub use timer::Timer;

use crate::close::CloseFrame;
use crate::config::{Config, Role};
use crate::error::{Cause, Failure, Party, State, TransportError};
use crate::extension::{Decoder, Encoder};
use crate::output::Output;
use crate::time::Instant;

/// One end of an open WebSocket connection, without the byte stream below it.
///
/// It knows of no socket, clock or thread. Whoever drives it (the *transport*) carries bytes and
/// time, through four kinds of calls:
///
/// - **input**: [`Receiver::next`] takes received bytes and lends events, until it returns `None`;
///   [`handle_eof`](Self::handle_eof) and [`handle_error`](Self::handle_error) report the end of
///   the byte stream; [`handle_writable`](Self::handle_writable) reports that the peer reads again;
/// - **time**: [`handle_timeout`](Self::handle_timeout), at or after the instant that
///   [`poll_timeout`](Self::poll_timeout) names. Each call that can change it is one of those here
///   or of [`Sender`]; ask again after any of them. Instants are expected not to go backwards from
///   call to call; one that does moves deadlines by as much, and does no other harm;
/// - **application**: the methods of [`Sender`];
/// - **getters**, which change nothing.
///
/// Every call that may have something to say names an [`Output`] and appends to it. After any call:
/// write what was appended, then do what [`shutdown`](Self::shutdown) says. These two are the whole
/// duty of a transport: pings are answered, closing handshakes answered and ended, bad peers told
/// off with the right code, and limits and time kept without its help.
///
/// The halves are fields so that both can be borrowed at once: an event borrows the receiver while
/// the sender sends. Neither is of use without the other.
///
/// An idle connection without extensions owns no heap memory.
///
/// ```
/// use std::sync::Arc;
/// use anyloop_proto::{Config, Connection, Event, Input, Instant, Role};
///
/// let now = Instant::from_nanos(0);
/// let mut connection = Connection::new(Role::Server, Arc::new(Config::default()), now);
/// let Connection { receiver, sender } = &mut connection;
///
/// // RFC 6455 §5.7: a single-frame masked text message, "Hello".
/// let mut bytes = *b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
/// let mut input = Input::new(&mut bytes);
/// let mut out = Vec::new();
/// while let Some(event) = receiver.next(sender, &mut input, now, &mut out)? {
///     if let Event::Message(message) = event {
///         sender.send(message, &mut out).expect("the connection is open");
///     }
/// }
/// assert_eq!(out, b"\x81\x05Hello");
/// # Ok::<(), anyloop_proto::Failure>(())
/// ```
pub struct Connection {
    /// The receiving half.
    pub receiver: Receiver,
    /// The sending half.
    pub sender: Sender,
}

/// What is to become of the byte stream, once what was appended to the output is written.
///
/// ```
/// # use anyloop_proto::*;
/// # let now = Instant::from_nanos(0);
/// # let mut out = Vec::new();
/// let mut server = Connection::new(Role::Server, Config::default().into(), now);
/// server.sender.close(CloseCode::NORMAL, "", now, &mut out)?;
/// assert_eq!(server.shutdown(), Shutdown::Open); // the peer's Close is still to come
///
/// let mut bytes = *b"\x88\x82\0\0\0\0\x03\xe8";
/// let Connection { receiver, sender } = &mut server;
/// let _ = receiver.next(sender, &mut Input::new(&mut bytes), now, &mut out)?;
/// assert_eq!(server.shutdown(), Shutdown::HalfClose); // a client would be told to `Linger`
/// server.handle_eof()?;
/// assert_eq!(server.shutdown(), Shutdown::Close);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
#[non_exhaustive]
pub enum Shutdown {
    /// Nothing: go on reading and writing.
    Open,
    /// Go on reading, for the peer is to end the stream first (RFC 6455 §7.1.1: the server does).
    /// The input is still passed on, or discarded. Bounded by the close timeout.
    Linger,
    /// Shut down the sending direction, then read and discard until the peer ends the stream, as
    /// RFC 6455 §7.1.1 advises: to close at once, with input unread or still to come, would destroy
    /// what the peer has not read yet. Bounded by the close timeout.
    HalfClose,
    /// Close the stream, after what was appended is written.
    Close,
    /// Close the stream, and do not wait for anything to be written.
    Abort,
}

/// How a connection ended, or is about to.
///
/// ```
/// # use anyloop_proto::*;
/// # let now = Instant::from_nanos(0);
/// # let mut out = Vec::new();
/// let mut client = Connection::new(Role::Client, Config::default().into(), now);
/// client.sender.close(CloseCode::NORMAL, "", now, &mut out)?;
/// assert!(client.handle_eof().is_err()); // the server has not answered
///
/// let ending = client.ending().expect("it is ending");
/// assert!(!ending.clean && ending.received.is_none());
/// assert_eq!(ending.by, Party::Peer);
/// assert_eq!(ending.sent.and_then(|frame| frame.code), Some(CloseCode::NORMAL));
/// assert_eq!(ending.failure.map(|failure| failure.cause()), Some(Cause::EndOfStream));
/// # Ok::<(), SendError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ending<'c> {
    /// Who ended it: sent the first Close, broke the rules, or let the time pass.
    pub by: Party,
    /// Both Close frames were exchanged and nothing failed (RFC 6455 §7.1.4). Not final before the
    /// byte stream has ended: our Close may still be lost ([`Cause::OutputLost`]).
    pub clean: bool,
    /// The Close that we sent; it was appended to the output, and may have been lost there.
    pub sent: Option<&'c CloseFrame>,
    /// The Close that the peer sent.
    pub received: Option<&'c CloseFrame>,
    /// What failed first, if anything did.
    pub failure: Option<Failure>,
    /// What has passed through.
    pub statistics: Statistics,
}

/// What has passed through a connection. Bytes are payload, as received and as given to send.
///
/// ```
/// # use anyloop_proto::*;
/// # let now = Instant::from_nanos(0);
/// # let mut out = Vec::new();
/// # let mut connection = Connection::new(Role::Client, Config::default().into(), now);
/// let Connection { receiver, sender } = &mut connection;
/// sender.send("a question", &mut out)?;
/// let mut bytes = *b"\x81\x06answer\x81\x04mo"; // and half of another
/// let mut input = Input::new(&mut bytes);
/// while receiver.next(sender, &mut input, now, &mut out)?.is_some() {}
///
/// let statistics = connection.statistics();
/// assert_eq!((statistics.messages_sent, statistics.bytes_sent), (1, 10));
/// assert_eq!((statistics.messages_received, statistics.bytes_received), (1, 8));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Messages received whole.
    pub messages_received: u64,
    /// Payload bytes of data frames received; encoded, if an extension encodes.
    pub bytes_received: u64,
    /// Messages sent whole.
    pub messages_sent: u64,
    /// Payload bytes of data frames sent, before an extension encodes.
    pub bytes_sent: u64,
}

impl Statistics {
    /// What has passed through the connection of these halves.
    #[must_use]
    pub const fn of(receiver: &Receiver, sender: &Sender) -> Self {
        let (messages_received, bytes_received) = receiver.received();
        let (messages_sent, bytes_sent) = sender.sent();
        Self { messages_received, bytes_received, messages_sent, bytes_sent }
    }
}

impl Connection {
    /// An open connection, right after the opening handshake.
    #[must_use]
    pub fn new(role: Role, config: Arc<Config>, now: Instant) -> Self {
        Self {
            receiver: Receiver::new(config.streaming, now),
            sender: Sender::new(role, config, now),
        }
    }

    /// Puts an extension, as negotiated, into the way of messages.
    #[must_use]
    pub fn with_extension(mut self, decoder: Box<dyn Decoder>, encoder: Box<dyn Encoder>) -> Self {
        self.sender.set_extension(decoder, encoder);
        self
    }

    /// The byte stream has ended: the peer sends nothing more.
    ///
    /// After a closing handshake or a failure our Close may still be waiting to be written:
    /// [`shutdown`](Self::shutdown) then says [`Close`](Shutdown::Close). Otherwise there is nobody
    /// left to talk to, and it says [`Abort`](Shutdown::Abort).
    ///
    /// # Errors
    ///
    /// [`Cause::EndOfStream`] where the closing handshake was not done; reported once.
    pub fn handle_eof(&mut self) -> Result<(), Failure> {
        if matches!(self.sender.state(), State::Closed | State::Failed) {
            self.sender.cold().closing.eof = true;
            return Ok(());
        }
        self.end(Cause::EndOfStream)
    }

    /// The byte stream has failed.
    ///
    /// # Errors
    ///
    /// [`Cause::Transport`] where the closing handshake was not done; reported once. A reset after
    /// it is no failure: each side has said all. If our Close was not written yet, see
    /// [`handle_lost_output`](Self::handle_lost_output).
    pub fn handle_error(&mut self, error: TransportError) -> Result<(), Failure> {
        self.end(Cause::Transport(error))
    }

    /// What was appended to the output is given up before all of it was written: the byte stream is
    /// closed, has failed, or is not waited for any longer. A transport calls this before it asks for
    /// the [`ending`](Self::ending), so that a closing handshake whose Close never left is not called
    /// clean. Where the close timeout passes while the output [is blocked](Output::is_blocked),
    /// [`handle_timeout`](Self::handle_timeout) does it.
    ///
    /// ```
    /// # use anyloop_proto::*;
    /// # let now = Instant::from_nanos(0);
    /// # let mut connection = Connection::new(Role::Server, Config::default().into(), now);
    /// let Connection { receiver, sender } = &mut connection;
    /// let (mut bytes, mut out) = (*b"\x88\x80\0\0\0\0", Vec::new());
    /// receiver.next(sender, &mut Input::new(&mut bytes), now, &mut out)?;
    /// assert_eq!(out, b"\x88\x00"); // our Close, which is not written
    /// connection.handle_error(TransportError::Reset)?;
    ///
    /// let failure = connection.handle_lost_output().unwrap_err();
    /// assert_eq!(failure.cause(), Cause::OutputLost);
    /// assert!(connection.ending().is_some_and(|ending| !ending.clean));
    /// # Ok::<(), Failure>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Cause::OutputLost`] where nothing else had failed; reported once.
    pub fn handle_lost_output(&mut self) -> Result<(), Failure> {
        let state = self.sender.state();
        if matches!(state, State::Open | State::CloseSent) {
            return self.end(Cause::OutputLost);
        }
        self.receiver.finish();
        self.sender.set_state(State::Ended);
        let failure = self.receiver.failure(Cause::OutputLost, state);
        match &mut self.sender.cold().closing.failure {
            Some(_) => Ok(()),
            none => Err(*none.insert(failure)),
        }
    }

    /// The application has failed, and cannot go on with this connection: fails it with 1011. Does
    /// nothing where both Close frames were exchanged, or it has failed already. Returns the failure.
    pub fn handle_application_failure(
        &mut self,
        now: Instant,
        out: &mut impl Output,
    ) -> Option<Failure> {
        let state = self.sender.state();
        if !matches!(state, State::Open | State::CloseSent) {
            return None;
        }
        let failure = self.receiver.failure(Cause::Application, state);
        self.receiver.finish();
        self.sender.fail(failure, now, out);
        Some(failure)
    }

    /// The peer has read some of what was waiting: sends what was held back, if the output is no
    /// longer blocked.
    pub fn handle_writable(&mut self, now: Instant, out: &mut impl Output) {
        self.sender.release_pong(out);
        self.sender.release_ping(now, out);
    }

    /// The transport stops reading, or reads again.
    ///
    /// While it does not, what the peer sends is not seen, pongs among it, and says nothing about the
    /// peer: keep-alive and idle timeouts stand still, and begin anew when reading goes on. The close
    /// timeout runs.
    pub fn set_reading(&mut self, reading: bool, now: Instant) {
        if reading == self.sender.is_suspended() {
            self.sender.suspend_ping(!reading, now);
            self.receiver.renew(now);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next; `None`: not before
    /// another call.
    #[inline]
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        // A transport asks after each read, and then nearly always nothing but a ping can be due.
        let due = if self.sender.waits_for_ping_only() {
            self.sender.ping_due(self.receiver.last_frame)
        } else {
            self.first_deadline()
        };
        debug_assert_eq!(due, TIMERS.iter().filter_map(|&timer| self.deadline(timer)).min());
        due
    }

    /// The earliest of the deadlines in the table, without going through it.
    fn first_deadline(&self) -> Option<Instant> {
        let Self { receiver, sender } = self;
        if sender.state() != State::Open {
            return self.deadline(Timer::Close);
        }
        if sender.is_suspended() {
            return None;
        }
        let ping = sender.ping_due(receiver.last_frame);
        let pong = sender.pong_due(receiver.last_data);
        let idle = sender.config.idle_timeout.map(|timeout| receiver.last_frame + timeout);
        let data_idle = sender.config.data_idle_timeout.map(|timeout| receiver.last_data + timeout);
        earlier(earlier(ping, pong), earlier(idle, data_idle))
    }

    /// Does what is due at `now`, and says what it was: one thing a call, until `None`.
    ///
    /// [`Timer::Ping`]: a ping was sent, or is held while the output is blocked. [`Timer::Idle`] and [`Timer::DataIdle`]: the closing
    /// handshake has begun. [`Timer::Close`]: the time for ending the byte stream is up. A call
    /// before anything is due does nothing.
    ///
    /// # Errors
    ///
    /// [`Cause::PongTimeout`] and [`Cause::CloseTimeout`], once. [`Cause::OutputLost`], once, where the
    /// close timeout passes after the closing handshake and the output is still blocked.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<Option<Timer>, Failure> {
        let due = |timer: &&Timer| self.deadline(**timer).is_some_and(|deadline| deadline <= now);
        let Some(&timer) = TIMERS.iter().find(due) else { return Ok(None) };
        match timer {
            Timer::Close if self.sender.state() == State::CloseSent => {
                self.end(Cause::CloseTimeout)?;
            }
            Timer::Close if self.sender.state() == State::Closed && out.is_blocked() => {
                self.handle_lost_output()?;
            }
            Timer::Close => {
                self.receiver.finish();
                self.sender.set_state(State::Ended);
            }
            Timer::Pong => {
                let failure = self.receiver.failure(Cause::PongTimeout, self.sender.state());
                self.receiver.finish();
                self.sender.fail(failure, now, out);
                return Err(failure);
            }
            Timer::Idle | Timer::DataIdle => {
                let cause =
                    if timer == Timer::Idle { Cause::IdleTimeout } else { Cause::DataIdleTimeout };
                let failure = self.receiver.failure(cause, self.sender.state());
                if let Some(code) = cause.close_code() {
                    // Only a connection that is open can be idle, so the Close goes out.
                    let _ = self.sender.close(code, cause.reason(), now, out);
                }
                self.sender.cold().closing.failure.get_or_insert(failure);
            }
            _ => self.sender.keepalive_ping(now, out),
        }
        Ok(Some(timer))
    }

    /// What is to become of the byte stream.
    #[inline]
    pub fn shutdown(&self) -> Shutdown {
        match self.sender.state() {
            State::Open => Shutdown::Open,
            _ => self.shutdown_of_ending(),
        }
    }

    #[cold]
    fn shutdown_of_ending(&self) -> Shutdown {
        let eof = self.sender.closing().is_some_and(|closing| closing.eof);
        match (self.sender.state(), self.sender.role) {
            (State::Connecting | State::Open | State::CloseSent, _) => Shutdown::Open,
            (State::Closed | State::Failed, _) if eof => Shutdown::Close,
            (State::Closed, Role::Client) => Shutdown::Linger,
            // Whatever the peer may still send behind its Close, it must be read: see `HalfClose`.
            (State::Closed, Role::Server) | (State::Failed, _) => Shutdown::HalfClose,
            (State::Ended, _) => Shutdown::Abort,
        }
    }

    /// How far the connection has come.
    #[inline]
    #[must_use]
    pub const fn state(&self) -> State {
        self.sender.state()
    }

    /// Which end this is.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.sender.role
    }

    /// How the connection ended; `None` while nothing has begun to end it.
    #[must_use]
    pub fn ending(&self) -> Option<Ending<'_>> {
        let closing = self.sender.closing()?;
        if closing.sent.is_none() && closing.failure.is_none() {
            return None;
        }
        let (sent, received) = (closing.sent.as_ref(), closing.received.as_ref());
        let by = match closing.failure {
            Some(failure) => failure.party(),
            None if closing.received_first => Party::Peer,
            None => Party::Local,
        };
        let clean = sent.is_some() && received.is_some() && closing.failure.is_none();
        let statistics = self.statistics();
        Some(Ending { by, clean, sent, received, failure: closing.failure, statistics })
    }

    /// What has passed through so far.
    #[must_use]
    pub const fn statistics(&self) -> Statistics {
        Statistics::of(&self.receiver, &self.sender)
    }

    /// The table of timers: when each is due, if it runs.
    fn deadline(&self, timer: Timer) -> Option<Instant> {
        let Self { receiver, sender } = self;
        let config = &sender.config;
        match (timer, sender.state()) {
            (Timer::Close, State::CloseSent | State::Closed | State::Failed) => {
                sender.closing()?.deadline
            }
            (Timer::Idle | Timer::DataIdle, State::Open) if sender.is_suspended() => None,
            (Timer::Idle, State::Open) => Some(receiver.last_frame + config.idle_timeout?),
            (Timer::DataIdle, State::Open) => Some(receiver.last_data + config.data_idle_timeout?),
            (Timer::Ping, State::Open) => sender.ping_due(receiver.last_frame),
            (Timer::Pong, State::Open) => sender.pong_due(receiver.last_data),
            _ => None,
        }
    }

    fn end(&mut self, cause: Cause) -> Result<(), Failure> {
        let state = self.sender.state();
        self.receiver.finish();
        self.sender.set_state(State::Ended);
        match state {
            State::Closed | State::Failed | State::Ended => Ok(()),
            State::Connecting | State::Open | State::CloseSent => {
                let failure = self.receiver.failure(cause, state);
                self.sender.cold().closing.failure.get_or_insert(failure);
                Err(failure)
            }
        }
    }
}

/// The earlier of two deadlines, either of which may not run.
fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// The timers of an open connection, in the order in which they are served.
const TIMERS: [Timer; 5] = [Timer::Close, Timer::Pong, Timer::Idle, Timer::DataIdle, Timer::Ping];
