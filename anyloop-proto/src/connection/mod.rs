//! An open connection.

mod keepalive;
mod receiver;
mod sender;
mod timer;

use alloc::boxed::Box;
use alloc::sync::Arc;

pub use keepalive::SendQueue;
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
/// A connection uses no socket, clock or thread. The code that reads and writes the byte stream (the *transport*)
/// passes in bytes and the time, through four kinds of calls:
///
/// - **input**: [`Receiver::next`] takes received bytes and returns events until it returns `None`;
///   [`handle_eof`](Self::handle_eof) and [`handle_error`](Self::handle_error) report the end of
///   the byte stream; [`handle_writable`](Self::handle_writable) reports that the peer reads again;
/// - **time**: [`handle_timeout`](Self::handle_timeout), at or after the instant that
///   [`poll_timeout`](Self::poll_timeout) returns. Any call on this type or on [`Sender`] can
///   change that instant, so poll it again after each call. Instants should not go backwards from
///   call to call. If one does, deadlines move by the same amount; there is no other harm;
/// - **application**: the methods of [`Sender`];
/// - **getters**, which change nothing.
///
/// Every call that can produce output takes an [`Output`] and appends to it. After any call, a
/// transport writes what was appended and then does what [`shutdown`](Self::shutdown) says. The
/// transport has no other duty: the connection answers pings, completes closing handshakes, fails on protocol
/// errors with the right close code, and enforces limits and timeouts.
///
/// The halves are fields so that both can be borrowed at once: an event borrows the receiver while
/// the sender sends. Neither half works without the other.
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

/// What the transport does with the byte stream once the appended output is written.
///
/// ```
/// # use anyloop_proto::*;
/// # let now = Instant::from_nanos(0);
/// # let mut out = Vec::new();
/// let mut server = Connection::new(Role::Server, Config::default().into(), now);
/// server.sender.close(CloseCode::NORMAL, "", now, &mut out)?;
/// assert_eq!(server.shutdown(), Shutdown::None); // the peer's Close is still to come
///
/// let mut bytes = *b"\x88\x82\0\0\0\0\x03\xe8";
/// let Connection { receiver, sender } = &mut server;
/// _ = receiver.next(sender, &mut Input::new(&mut bytes), now, &mut out)?;
/// assert_eq!(server.shutdown(), Shutdown::HalfClose); // for a client: `Linger`
/// server.handle_eof()?;
/// assert_eq!(server.shutdown(), Shutdown::Close);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
#[non_exhaustive]
pub enum Shutdown {
    /// Nothing: the transport continues to read and write.
    None,
    /// The transport continues to read, because the peer ends the stream first (RFC 6455 §7.1.1: the
    /// server does). Input is still passed in, or discarded. The close timeout bounds this state. The socket option
    /// `SO_LINGER` is not involved.
    Linger,
    /// The transport shuts down the sending direction, then reads and discards until the peer ends
    /// the stream (RFC 6455 §7.1.1). Closing at once, with input unread or on its way, can make the
    /// peer lose output that it has not read yet. The close timeout bounds this state.
    HalfClose,
    /// The transport closes the stream after it has written the output.
    Close,
    /// The transport closes the stream and does not wait for unwritten output.
    Abort,
}

/// How a connection ended, or is about to end.
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
/// # Ok::<(), Refused>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ending<'c> {
    /// The [party](Failure::party) of the failure, if there was one; otherwise the party that sent the first Close.
    pub by: Party,
    /// Whether both Close frames were exchanged and nothing failed (RFC 6455 §7.1.4). The value can
    /// change until the byte stream has ended, because our Close can still be lost
    /// ([`Cause::OutputLost`]).
    pub clean: bool,
    /// The Close that we sent. It was appended to the output and may have been lost there.
    pub sent: Option<&'c CloseFrame>,
    /// The Close that the peer sent.
    pub received: Option<&'c CloseFrame>,
    /// The first failure, if there was one.
    pub failure: Option<Failure>,
    /// The counters of the connection.
    pub statistics: Statistics,
}

/// Counters of messages and payload bytes.
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
    /// Whole messages received.
    pub messages_received: u64,
    /// Payload bytes of messages received, as the application sees them: decompressed, for example.
    pub bytes_received: u64,
    /// Whole messages sent.
    pub messages_sent: u64,
    /// Payload bytes of messages sent, as the application gave them: before compression, for example.
    pub bytes_sent: u64,
}

impl Statistics {
    /// The counters of the connection that has these halves.
    #[must_use]
    pub const fn of(receiver: &Receiver, sender: &Sender) -> Self {
        let (messages_received, bytes_received) = receiver.received_counts();
        let (messages_sent, bytes_sent) = sender.sent_counts();
        Self { messages_received, bytes_received, messages_sent, bytes_sent }
    }
}

impl core::fmt::Debug for Connection {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Connection")
            .field("role", &self.role())
            .field("state", &self.state())
            .finish_non_exhaustive()
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

    /// Applies a negotiated extension to the messages of both directions.
    #[must_use]
    pub fn with_extension(mut self, decoder: Box<dyn Decoder>, encoder: Box<dyn Encoder>) -> Self {
        self.sender.set_extension(decoder, encoder);
        self
    }

    /// Reports that the byte stream has ended: the peer sends nothing more.
    ///
    /// After a closing handshake or a failure, [`shutdown`](Self::shutdown) then returns [`Close`](Shutdown::Close),
    /// because our Close may still be unwritten. In any other state it returns [`Abort`](Shutdown::Abort).
    ///
    /// # Errors
    ///
    /// [`Cause::EndOfStream`] if the state was [`Open`](State::Open) or [`CloseSent`](State::CloseSent).
    pub fn handle_eof(&mut self) -> Result<(), Failure> {
        if matches!(self.sender.state(), State::Closed | State::Failed) {
            self.sender.closing_or_insert().eof = true;
            return Ok(());
        }
        self.end(Cause::EndOfStream)
    }

    /// Reports that the byte stream has failed.
    ///
    /// # Errors
    ///
    /// [`Cause::Transport`] if the state was [`Open`](State::Open) or [`CloseSent`](State::CloseSent). A reset after
    /// the closing handshake is no failure. If our Close was not written yet, the transport calls
    /// [`handle_lost_output`](Self::handle_lost_output).
    pub fn handle_error(&mut self, error: TransportError) -> Result<(), Failure> {
        self.end(Cause::Transport(error))
    }

    /// Ends the connection at once, without a closing handshake: the transport [aborts](Shutdown::Abort) the byte
    /// stream, and output that was not written is lost. The peer reports 1006.
    ///
    /// # Errors
    ///
    /// [`Cause::Terminated`] if the state was [`Open`](State::Open) or [`CloseSent`](State::CloseSent).
    pub fn terminate(&mut self) -> Result<(), Failure> {
        self.end(Cause::Terminated)
    }

    /// Reports that a part of the appended output will never be written, because the byte stream is
    /// closed, has failed, or was aborted. A transport calls this before it reads the
    /// [`ending`](Self::ending), so that a closing handshake with an unwritten Close is not
    /// reported as clean. [`handle_timeout`](Self::handle_timeout) does the same if, after the closing handshake, the
    /// close timeout passes while the output [is blocked](Output::is_blocked).
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
    /// [`Cause::OutputLost`] if the state was [`Open`](State::Open) or [`CloseSent`](State::CloseSent), and in other
    /// states if nothing had failed before; reported once.
    pub fn handle_lost_output(&mut self) -> Result<(), Failure> {
        let state = self.sender.state();
        if matches!(state, State::Open | State::CloseSent) {
            return self.end(Cause::OutputLost);
        }
        self.receiver.stop();
        self.sender.set_state(State::Ended);
        let failure = self.receiver.new_failure(Cause::OutputLost, state);
        match &mut self.sender.closing_or_insert().failure {
            Some(_) => Ok(()),
            none => Err(*none.insert(failure)),
        }
    }

    /// Fails the connection with 1011 because the application cannot go on. Returns the failure;
    /// does nothing and returns `None` if both Close frames were exchanged, or the connection has already failed or
    /// ended.
    pub fn handle_application_failure(
        &mut self,
        now: Instant,
        out: &mut impl Output,
    ) -> Option<Failure> {
        let state = self.sender.state();
        if !matches!(state, State::Open | State::CloseSent) {
            return None;
        }
        let failure = self.receiver.new_failure(Cause::Application, state);
        self.receiver.stop();
        self.sender.fail(failure, now, out);
        Some(failure)
    }

    /// Reports that the peer has read some of the waiting output. Sends the pong and the ping that
    /// were held back, if the output is no longer blocked. If it still is, and a ping is held back, the pong timeout
    /// starts anew.
    pub fn handle_writable(&mut self, now: Instant, out: &mut impl Output) {
        self.sender.send_held_pong(out);
        self.sender.send_held_ping(now, out);
    }

    /// Reports that the transport stops reading, or reads again.
    ///
    /// While it does not read, it cannot see frames that show the peer to be alive. Keep-alive and
    /// idle timeouts therefore stop, and start anew when reading resumes. The close timeout keeps
    /// running. The connection fails with [`Cause::PongTimeout`] if output waits and the peer reads none of it for the
    /// ping interval plus the pong timeout.
    pub fn set_reading(&mut self, reading: bool, now: Instant) {
        if reading == self.sender.is_suspended() {
            self.sender.set_keepalive_suspended(!reading, now);
            self.receiver.restart_idle_timeouts(now);
        }
    }

    /// The instant at which to call [`handle_timeout`](Self::handle_timeout) next. `None` if no
    /// timer runs; only another call can start one.
    #[inline]
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        // Transports poll after each read, when usually only the ping timer runs.
        let due = if self.sender.runs_ping_timer_only() {
            self.sender.ping_due(self.receiver.last_frame)
        } else {
            self.first_deadline()
        };
        debug_assert_eq!(due, TIMERS.iter().filter_map(|&timer| self.deadline(timer)).min());
        due
    }

    /// The earliest [deadline](Self::deadline) of all timers. This is faster than to compute the minimum of all.
    fn first_deadline(&self) -> Option<Instant> {
        let Self { receiver, sender } = self;
        if sender.state() != State::Open {
            return self.deadline(Timer::Close);
        }
        let ping = sender.ping_due(receiver.last_frame);
        let pong = sender.pong_deadline(receiver.last_data);
        if sender.is_suspended() {
            return earlier(ping, pong);
        }
        let idle = sender.config.idle_timeout.map(|timeout| receiver.last_frame + timeout);
        let data_idle = sender.config.data_idle_timeout.map(|timeout| receiver.last_data + timeout);
        earlier(earlier(ping, pong), earlier(idle, data_idle))
    }

    /// Reports how much of the written output the peer's machine has acknowledged. A transport that knows it calls this
    /// before [`handle_timeout`](Self::handle_timeout). `queue` is called only if a pong is late at `now`.
    ///
    /// A ping behind a large message leaves late. The pong timeout therefore starts anew if more output than the ping
    /// waits, and then at each call that finds more of this output acknowledged, up to its end.
    ///
    /// ```
    /// # use anyloop_proto::*;
    /// # use std::time::Duration;
    /// # let start = Instant::from_nanos(0);
    /// # let mut out = Vec::new();
    /// let mut connection = Connection::new(Role::Server, Config::default().into(), start);
    /// connection.sender.send(&[0_u8; 1000], &mut out)?;
    /// let ping = start + Duration::from_secs(20);
    /// connection.handle_timeout(ping, &mut out)?;
    ///
    /// let mut late = ping + Duration::from_secs(20);
    /// for acknowledged in [300, 700, 1010] {
    ///     let queue = SendQueue { acknowledged, waiting: 1010 - acknowledged as usize };
    ///     connection.note_send_queue(|| Some(queue), late);
    ///     assert_eq!(connection.handle_timeout(late, &mut out)?, None);
    ///     late = late + Duration::from_secs(20);
    /// }
    /// connection.note_send_queue(|| Some(SendQueue { acknowledged: 1010, waiting: 0 }), late);
    /// assert!(connection.handle_timeout(late, &mut out).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn note_send_queue(&mut self, queue: impl FnOnce() -> Option<SendQueue>, now: Instant) {
        if self.deadline(Timer::Pong).is_some_and(|deadline| deadline <= now) {
            if let Some(queue) = queue() {
                self.sender.postpone_pong_deadline(queue, now);
            }
        }
    }

    /// Performs one action that is due at `now` and returns its timer; `None` if nothing is due.
    /// Call it until it returns `None`.
    ///
    /// After [`Timer::Ping`] a ping was sent, or is held because the output is blocked; while the transport does not
    /// read, none is sent. After [`Timer::Idle`] and [`Timer::DataIdle`] the closing handshake has begun. After
    /// [`Timer::Close`] the time for ending the byte stream has passed. A call before the first
    /// deadline does nothing.
    ///
    /// # Errors
    ///
    /// [`Cause::PongTimeout`] and [`Cause::CloseTimeout`], once. [`Cause::OutputLost`], once, if
    /// the close timeout passes after the closing handshake while the output is still blocked.
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
                self.receiver.stop();
                self.sender.set_state(State::Ended);
            }
            Timer::Pong => {
                let failure = self.receiver.new_failure(Cause::PongTimeout, self.sender.state());
                self.receiver.stop();
                self.sender.fail(failure, now, out);
                return Err(failure);
            }
            Timer::Idle | Timer::DataIdle => {
                let cause =
                    if timer == Timer::Idle { Cause::IdleTimeout } else { Cause::DataIdleTimeout };
                let failure = self.receiver.new_failure(cause, self.sender.state());
                if let Some(code) = cause.close_code() {
                    // Idle timers run only while the connection is open, so `close` succeeds.
                    let _ = self.sender.close(code, cause.reason(), now, out);
                }
                self.sender.closing_or_insert().failure.get_or_insert(failure);
            }
            Timer::Ping => self.sender.send_or_hold_ping(now, out),
        }
        Ok(Some(timer))
    }

    /// What the transport does with the byte stream.
    #[inline]
    pub fn shutdown(&self) -> Shutdown {
        match self.sender.state() {
            State::Open => Shutdown::None,
            _ => self.shutdown_of_ending(),
        }
    }

    #[cold]
    fn shutdown_of_ending(&self) -> Shutdown {
        let eof = self.sender.closing().is_some_and(|closing| closing.eof);
        match (self.sender.state(), self.sender.role) {
            (State::Connecting | State::Open | State::CloseSent, _) => Shutdown::None,
            (State::Closed | State::Failed, _) if eof => Shutdown::Close,
            (State::Closed, Role::Client) => Shutdown::Linger,
            // Input that follows the peer's Close must be read: see `HalfClose`.
            (State::Closed, Role::Server) | (State::Failed, _) => Shutdown::HalfClose,
            (State::Ended, _) => Shutdown::Abort,
        }
    }

    /// The state of the connection.
    #[inline]
    #[must_use]
    pub const fn state(&self) -> State {
        self.sender.state()
    }

    /// The role of this end.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.sender.role
    }

    /// How the connection ended; `None` if it has not begun to end.
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

    /// The counters of the connection so far.
    #[must_use]
    pub const fn statistics(&self) -> Statistics {
        Statistics::of(&self.receiver, &self.sender)
    }

    /// The deadline of `timer`; `None` if it does not run.
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
            (Timer::Pong, State::Open) => sender.pong_deadline(receiver.last_data),
            _ => None,
        }
    }

    /// Ends the connection at once. Fails with `cause`, unless both Close frames were exchanged or it has failed
    /// before.
    fn end(&mut self, cause: Cause) -> Result<(), Failure> {
        let state = self.sender.state();
        self.receiver.stop();
        self.sender.set_state(State::Ended);
        match state {
            State::Closed | State::Failed | State::Ended => Ok(()),
            State::Connecting | State::Open | State::CloseSent => {
                let failure = self.receiver.new_failure(cause, state);
                self.sender.closing_or_insert().failure.get_or_insert(failure);
                Err(failure)
            }
        }
    }
}

/// The earlier of two deadlines, each of which may be absent.
fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// The timers of an open connection, in order of priority.
const TIMERS: [Timer; 5] = [Timer::Close, Timer::Pong, Timer::Idle, Timer::DataIdle, Timer::Ping];
