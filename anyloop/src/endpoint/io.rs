//! What a session has beside its machine and its handler.

use std::any::Any;
use std::error::Error;
use std::hint::cold_path;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use anyloop_proto::handshake::http::Response;
use anyloop_proto::handshake::{Request, Target};
use anyloop_proto::{BufferPool, Instant, State, TransportError};

use super::backlog::Backlog;
use super::core::Common;
use super::gate::Gate;
use super::handle::Seat;
use super::handler::Handler;
use super::line::Rear;
use super::timers::Timers;

/// All that a session has beside its machine and its handler: 32 bytes where nothing rare is in them.
pub(super) struct Io<H: Handler> {
    pub(super) common: Arc<Common<H>>,
    pub(super) extras: Option<Box<Extras<H>>>,
    told: Deadline,
    /// Of the machine, where it is not open.
    pub(super) state: State,
    pub(super) paused: bool,
    /// As the transport knows it.
    pub(super) reading: bool,
    /// The backlog was above the high-water mark, and not at the low one since.
    pub(super) high: bool,
    pub(super) started: bool,
    /// The gate has stopped something that is to go on.
    pub(super) interrupted: bool,
    /// The connection is open, and the handler was not told.
    pub(super) owes_open: bool,
    /// Something here may have changed since it was found [calm](Self::is_calm).
    pub(super) restless: bool,
}

/// A deadline in one word. At the end of all time nobody waits, so that is none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Deadline(u64);

impl Deadline {
    pub(super) const NONE: Self = Self(u64::MAX);

    #[inline]
    pub(super) const fn new(at: Option<Instant>) -> Self {
        match at {
            Some(at) => Self(at.as_nanos()),
            None => Self::NONE,
        }
    }

    pub(super) const fn get(self) -> Option<Instant> {
        match self.0 {
            u64::MAX => None,
            nanos => Some(Instant::from_nanos(nanos)),
        }
    }
}

/// What few connections have.
pub(super) struct Extras<H: Handler> {
    seat: Option<Arc<Seat<H>>>,
    backlog: Option<Box<Backlog>>,
    pub(super) facts: Option<Box<Facts>>,
    mishap: Option<Box<Mishap>>,
    pub(super) unread: Unread,
    pub(super) timers: Timers<H>,
    pub(super) successor: Option<H>,
    /// The end of the stream, which was told while something before it was left.
    pub(super) end: Option<End>,
    /// Whose turn is next of those who were stopped.
    pub(super) turn: u8,
    /// Who was there when our direction was shut down: once both are, the system may not know it.
    pub(super) half_closed: Option<Box<Surroundings>>,
    pub(super) needs_security: bool,
}

/// Who is at the other end.
pub(super) struct Surroundings {
    pub(super) remote_endpoint: String,
    pub(super) peer_addr: Option<SocketAddr>,
}

/// How the stream has ended.
#[derive(Clone, Copy)]
pub(super) enum End {
    Eof,
    Error(TransportError),
}

/// What went wrong, beyond what the machine knows.
#[derive(Default)]
struct Mishap {
    /// What program code has panicked with.
    panic: Option<Box<dyn Any + Send>>,
    /// What the transport failed with.
    error: Option<Box<dyn Error + Send + Sync>>,
}

/// Input that was received and could not be taken in yet.
#[derive(Default)]
pub(super) struct Unread {
    pub(super) bytes: Vec<u8>,
    /// Those before this were taken.
    pub(super) at: usize,
}

impl Unread {
    pub(super) const fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// Adds what came behind it. What was taken is only let go of where it is most of it, so that many
    /// steps over one read move each byte once or twice.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.at > self.bytes.len() / 2 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// All but the last `left` bytes were taken.
    pub(super) fn keep(&mut self, left: usize) {
        self.at = self.bytes.len() - left;
        if left == 0 {
            *self = Self::default();
        }
    }
}

/// What was said in the opening handshake.
///
/// ```
/// # use anyloop::Server;
/// # use anyloop::proto::handshake::{OriginPolicy, ServerOptions};
/// # use anyloop::transport::iostream::IoStream;
/// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// # let mut server = Server::<IoStream>::new(ServerOptions::new(OriginPolicy::Any));
/// server.on_message(|_, context| {
///     let facts = context.facts().expect("they are kept by default");
///     assert_eq!(facts.request.as_ref().map(|request| request.uri().path()), Some("/"));
///     assert_eq!(facts.response.as_ref().map(|response| response.status().as_u16()), Some(101));
///     assert_eq!(facts.subprotocol, None); // none was asked for
/// });
/// # let connection = server.connection();
/// # connection.register_output(std::io::sink());
/// # connection.read_all(REQUEST)?;
/// # connection.read_all(b"\x81\x80\0\0\0\0")?;
/// # assert_eq!(connection.statistics().map(|statistics| statistics.messages_received), Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Facts {
    /// What a client connects to.
    pub target: Option<Target>,
    /// The request, as a server received it.
    pub request: Option<Request>,
    /// The response: as sent by a server; as received by a client, with its body if it refuses.
    pub response: Option<Response<Vec<u8>>>,
    /// The subprotocol agreed on.
    pub subprotocol: Option<String>,
    /// The extension agreed on, with its parameters.
    pub extension: Option<String>,
}

/// Memory that belongs to whoever runs sessions, and is lent to the one at work: one for each thread
/// is enough for any number of connections.
///
/// The example of [`Transport`](crate::transport::Transport) lends one.
#[derive(Debug)]
pub struct Scratch {
    pub(super) cork: Vec<u8>,
    pub(super) pool: BufferPool,
    /// When memory that was not needed was let go of last.
    trimmed: Instant,
    /// How much of the program may be called. By default there is no bound.
    pub(crate) gate: Gate,
}

impl Scratch {
    /// Memory that keeps at most `most` bytes for messages that arrive in parts.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        let trimmed = Instant::from_nanos(0);
        Self { cork: Vec::new(), pool: BufferPool::new(most), trimmed, gate: Gate::open() }
    }

    /// Lets go of memory for messages in parts that none has needed since it did so last. Within a second of
    /// that it does nothing.
    ///
    /// A loop calls this before it waits, and wakes for it at [`next_trim`](Self::next_trim). Then what is not
    /// needed any more is kept for no longer than two seconds, and what is needed again within one is kept.
    pub fn trim(&mut self, now: Instant) {
        if self.is_to_trim(now) {
            self.pool.trim();
            self.trimmed = now;
        }
    }

    /// When to call [`trim`](Self::trim), though nothing else has happened; `None` where no more than 64 KiB
    /// are kept, for which it is not worth waking up.
    ///
    /// ```
    /// # use anyloop::endpoint::Scratch;
    /// assert_eq!(Scratch::default().next_trim(), None); // it holds nothing
    /// ```
    #[must_use]
    pub fn next_trim(&self) -> Option<Instant> {
        (self.pool.held() > LITTLE).then(|| self.trimmed + LATELY)
    }

    /// Whether a trim would do anything now.
    #[inline]
    pub(crate) fn is_to_trim(&self, now: Instant) -> bool {
        self.pool.held() > 0 && now - self.trimmed >= LATELY
    }

    /// What is still to be written for the session that was at work last.
    #[inline]
    pub(crate) fn corked(&self) -> &[u8] {
        &self.cork
    }

    /// It was written, or never will be.
    #[inline]
    pub(crate) fn uncork(&mut self) {
        self.cork.clear();
    }
}

/// Memory is kept for so long at least, for a message to need it.
const LATELY: Duration = Duration::from_secs(1);

/// It is not worth waking up to let go of as much as this.
const LITTLE: usize = 64 * 1024;

impl Default for Scratch {
    /// Keeps up to 8 MiB.
    fn default() -> Self {
        Self::new(8 << 20)
    }
}

impl<H: Handler> Io<H> {
    pub(super) const fn new(common: Arc<Common<H>>) -> Self {
        Self {
            common,
            extras: None,
            told: Deadline::NONE,
            state: State::Connecting,
            paused: false,
            reading: true,
            high: false,
            started: false,
            interrupted: false,
            owes_open: false,
            restless: true,
        }
    }

    /// The gate has stopped something.
    #[cold]
    pub(super) const fn interrupt(&mut self) {
        (self.interrupted, self.restless) = (true, true);
    }

    pub(super) const fn set_paused(&mut self, paused: bool) {
        (self.paused, self.restless) = (paused, true);
    }

    // The seat.

    /// The seat, asked for from within the session; made, or had from the roster, if there is none.
    pub(super) fn seat(&mut self, rear: &dyn Rear, backlog: usize, state: State) -> &Arc<Seat<H>> {
        let made = match (self.present_seat(), self.common.roster.get()) {
            (Some(_), _) => None,
            (None, Some(roster)) => Some(roster.seat(rear.key())),
            (None, None) => None,
        };
        let limits = self.common.limits;
        self.seat_with(backlog, state, || {
            made.unwrap_or_else(|| Arc::new(Seat::new(rear.waker(), limits, state)))
        })
    }

    /// The same asked for from elsewhere.
    pub(super) fn own_seat(&mut self, waker: &Waker, state: State) -> &Arc<Seat<H>> {
        let (limits, backlog) = (self.common.limits, self.buffered());
        self.seat_with(backlog, state, || Arc::new(Seat::new(waker.clone(), limits, state)))
    }

    /// The seat, or this one, which then learns how things are.
    pub(super) fn seat_with(
        &mut self,
        backlog: usize,
        state: State,
        make: impl FnOnce() -> Arc<Seat<H>>,
    ) -> &Arc<Seat<H>> {
        self.extras().seat.get_or_insert_with(|| {
            let seat = make();
            match state {
                State::Ended => seat.leave(),
                _ => seat.publish(backlog, state),
            }
            seat
        })
    }

    pub(super) fn present_seat(&self) -> Option<&Arc<Seat<H>>> {
        self.extras.as_deref()?.seat.as_ref()
    }

    /// Tells the handles how things are.
    pub(super) fn publish(&self, backlog: usize, state: State) {
        if let Some(seat) = self.present_seat() {
            seat.publish(backlog, state);
        }
    }

    // The deadline.

    /// As the transport knows it.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.told.get()
    }

    /// The deadline is this now. Returns whether the transport must know; one that is `lazy` need not
    /// where it has moved to a later time.
    #[inline]
    pub(super) fn move_deadline(&mut self, deadline: Deadline, lazy: bool) -> bool {
        let tell = if lazy { deadline < self.told } else { deadline != self.told };
        if tell {
            self.told = deadline;
        }
        tell
    }

    /// The deadline that the transport knew has come.
    pub(super) const fn forget_deadline(&mut self) {
        self.told = Deadline::NONE;
    }

    // What few have.

    /// What few have, to change.
    pub(super) fn extras(&mut self) -> &mut Extras<H> {
        self.restless = true;
        self.extras.get_or_insert_with(|| {
            Box::new(Extras {
                seat: None,
                backlog: None,
                facts: None,
                mishap: None,
                unread: Unread::default(),
                timers: Timers::default(),
                successor: None,
                end: None,
                turn: 0,
                half_closed: None,
                needs_security: false,
            })
        })
    }

    /// The connection is over: nothing can be asked of it any more.
    pub(super) fn leave(&self) {
        if let Some(seat) = self.present_seat() {
            seat.leave();
        }
    }

    /// The connection is over, and the handler was told: nothing but the seat is needed any more.
    pub(super) fn let_go(&mut self) {
        let seat = self.extras.take().and_then(|extras| extras.seat);
        if seat.is_some() {
            self.extras().seat = seat;
        }
    }

    /// Lets go of memory that nothing needs.
    pub(super) fn tidy(&mut self) {
        if self.extras.as_deref().is_some_and(Extras::is_empty) {
            self.extras = None;
        }
    }

    /// Whether nothing here has to be looked at when the work is done, where the connection is open: all
    /// is as the transport, the handles and the handler know it.
    pub(super) fn is_calm(&self) -> bool {
        let quiet = self.reading && !(self.paused | self.high | self.interrupted | self.owes_open);
        quiet && self.extras.as_deref().is_none_or(Extras::is_calm)
    }

    /// What a client connects to, on its way into other facts.
    pub(super) fn take_target(&mut self) -> Option<Target> {
        self.extras.as_deref_mut()?.facts.as_deref_mut()?.target.take()
    }

    pub(super) fn facts(&self) -> Option<&Facts> {
        self.extras.as_deref()?.facts.as_deref()
    }

    /// Who was at the other end, where our direction was shut down.
    pub(super) fn surroundings(&self) -> Option<&Surroundings> {
        self.extras.as_deref()?.half_closed.as_deref()
    }

    pub(super) fn timers(&mut self) -> &mut Timers<H> {
        &mut self.extras().timers
    }

    /// When the first of the application's timers is due.
    #[inline]
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.extras.as_deref()?.timers.next_due()
    }

    #[inline]
    pub(super) fn take_successor(&mut self) -> Option<H> {
        let extras = self.extras.as_deref_mut()?;
        cold_path();
        extras.successor.take()
    }

    pub(super) fn has_unread(&self) -> bool {
        self.extras.as_deref().is_some_and(|extras| !extras.unread.is_empty())
    }

    // The backlog.

    /// Bytes that wait for the transport.
    pub(super) fn buffered(&self) -> usize {
        let backlog = self.extras.as_deref().and_then(|extras| extras.backlog.as_deref());
        backlog.map_or(0, Backlog::len)
    }

    pub(super) fn has_backlog(&self) -> bool {
        self.extras.as_deref().is_some_and(|extras| extras.backlog.is_some())
    }

    #[inline]
    pub(super) fn take_backlog(&mut self) -> Option<Box<Backlog>> {
        self.extras.as_deref_mut()?.backlog.take()
    }

    #[inline]
    pub(super) fn put_backlog(&mut self, backlog: Option<Box<Backlog>>) {
        if let Some(backlog) = backlog {
            self.keep_backlog(backlog);
        }
    }

    #[cold]
    fn keep_backlog(&mut self, backlog: Box<Backlog>) {
        self.extras().backlog = Some(backlog);
    }

    // What went wrong.

    /// Whether program code has panicked, and nobody has been told of it.
    pub(super) fn has_panicked(&self) -> bool {
        self.mishap().is_some_and(|mishap| mishap.panic.is_some())
    }

    /// What program code has panicked with, and nobody has been told of.
    pub(super) fn take_panic(&mut self) -> Option<Box<dyn Any + Send>> {
        self.extras.as_deref_mut()?.mishap.as_deref_mut()?.panic.take()
    }

    /// Program code has panicked. The first is told.
    pub(super) fn put_panic(&mut self, panic: Box<dyn Any + Send>) {
        self.extras().mishap.get_or_insert_default().panic.get_or_insert(panic);
    }

    /// What the transport failed with.
    pub(super) fn error(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.mishap()?.error.as_deref()
    }

    /// The transport has failed. The first failure is what it failed with.
    pub(super) fn put_error(&mut self, error: Box<dyn Error + Send + Sync>) {
        self.extras().mishap.get_or_insert_default().error.get_or_insert(error);
    }

    fn mishap(&self) -> Option<&Mishap> {
        self.extras.as_deref()?.mishap.as_deref()
    }
}

impl<H: Handler> Extras<H> {
    fn is_empty(&self) -> bool {
        self.seat.is_none()
            && self.facts.is_none()
            && self.backlog.is_none()
            && self.timers.are_unused()
            && self.mishap.is_none()
            && self.unread.is_empty()
            && self.successor.is_none()
            && self.end.is_none()
            && self.half_closed.is_none()
            && !self.needs_security
    }

    /// See [`Io::is_calm`].
    fn is_calm(&self) -> bool {
        self.backlog.is_none()
            && self.mishap.is_none()
            && self.end.is_none()
            && self.unread.bytes.is_empty()
            && self.seat.as_deref().is_none_or(|seat| seat.says(0, State::Open))
    }
}

impl<H: Handler> Drop for Io<H> {
    /// A transport that is dropped takes its connection along; handles must learn of it.
    fn drop(&mut self) {
        self.leave();
    }
}
