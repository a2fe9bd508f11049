//! A transport for tests, in which each operation completes in a step of the test, and the clock is a number.
//!
//! Nothing is read before [`step_read`](Connection::step_read), nothing is written before
//! [`accept`](Connection::accept), and no deadline passes before [`expire`](Connection::expire). So a test determines
//! the order of events, which is the same in each run. The [operations](Connection::operations) of the transport are
//! recorded.
//!
//! To test a handler of your own, connect it to a client:
//!
//! ```
//! use anyloop::prelude::*;
//! use anyloop::transport::stepping::{self, Client, Server};
//! use std::sync::mpsc;
//! use std::time::Duration;
//!
//! /// The handler under test: once a minute it sends the number of greetings.
//! struct Counter(u32);
//!
//! const MINUTE: Duration = Duration::from_secs(60);
//!
//! impl Counter {
//!     fn report(&mut self, context: &mut Context<'_, Self>) {
//!         _ = context.send(format!("{} greetings", self.0).as_str());
//!         context.set_timer(MINUTE, Self::report);
//!     }
//! }
//!
//! impl Handler for Counter {
//!     fn open(&mut self, context: &mut Context<'_, Self>) {
//!         context.set_timer(MINUTE, Self::report);
//!     }
//!
//!     fn message(&mut self, _: Message<'_>, _: &mut Context<'_, Self>) {
//!         self.0 += 1;
//!     }
//! }
//!
//! let config = ServerConfig::new(OriginPolicy::Any);
//! let mut server = Server::with_factory(config, || Counter(0)).connection();
//!
//! let (sender, received) = mpsc::channel();
//! let mut client = Client::new(ClientConfig::new());
//! client.on_message(move |message, _| sender.send(message.as_bytes().to_vec()).unwrap());
//! let mut client = client.connection("ws://localhost/")?;
//! client.start();
//! stepping::exchange(&mut client, &mut server);
//!
//! client.handle().send("hello")?;
//! client.handle().send("hello again")?;
//! stepping::exchange(&mut client, &mut server);
//! assert_eq!(server.handler().0, 2);
//!
//! stepping::exchange_for(&mut client, &mut server, MINUTE); // takes no time
//! assert_eq!(received.try_recv()?, b"2 greetings");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;
use std::time::Duration;

use anyloop_proto::handshake::{RequestError, Target, UriError};
use anyloop_proto::{Instant, Shutdown, State, Statistics, TransportError};

use crate::endpoint::{
    self, ClientConfig, ClientCore, Handle, Handler, HandlerFactory, Handlers, ServerConfig,
    ServerCore, Session,
};
use crate::stream::{Buffers, Driver, Peer, Transport};

/// The transport of one connection.
struct SteppingTransport {
    written: Vec<u8>,
    /// The number of bytes that writes still take.
    free: usize,
    /// The error of the next write.
    write_error: Option<TransportError>,
    /// The last write was short, so the driver waits for `handle_writable`.
    was_short: bool,
    deadline: Option<Instant>,
    reading: bool,
    last_shutdown: Option<Shutdown>,
    record: Arc<Record>,
    secure: bool,
    remote_endpoint: String,
}

/// The initial settings of the connections of an endpoint.
struct Settings {
    secure: bool,
    remote_endpoint: String,
    now: Instant,
}

/// A server whose connections a test drives.
pub struct Server<F: HandlerFactory = Handlers> {
    core: Arc<ServerCore<F>>,
    settings: Settings,
}

/// A client whose connections a test drives.
pub struct Client<F: HandlerFactory = Handlers> {
    core: Arc<ClientCore<F>>,
    settings: Settings,
}

endpoint::server_methods!(Server);
endpoint::client_methods!(Client);
#[cfg(feature = "tls-core")]
endpoint::over_tls!(Server, Client);
endpoint::constructors!(Server, ServerConfig, Handlers, "server");
endpoint::constructors!(Client, ClientConfig, Handlers, "client");

/// The setters of the initial settings.
macro_rules! setters {
    ($endpoint:ident) => {
        impl<F: HandlerFactory> $endpoint<F> {
            /// Sets whether the transport counts as secure. By default false. Applies to connections made afterwards.
            pub fn set_secure(&mut self, secure: bool) -> &mut Self {
                self.settings.secure = secure;
                self
            }

            /// Sets the name of the peer, for logs. By default "stepping transport". Applies to connections made
            /// afterwards.
            pub fn set_remote_endpoint(&mut self, name: impl Into<String>) -> &mut Self {
                self.settings.remote_endpoint = name.into();
                self
            }

            /// Sets the start time of connections made afterwards. By default zero.
            pub fn set_now(&mut self, now: Instant) -> &mut Self {
                self.settings.now = now;
                self
            }
        }
    };
}

setters!(Server);
setters!(Client);

impl Default for Settings {
    fn default() -> Self {
        Self {
            secure: false,
            remote_endpoint: "stepping transport".to_string(),
            now: Instant::default(),
        }
    }
}

/// An operation of the transport of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// A write.
    Write {
        /// The number of bytes offered.
        offered: usize,
        /// The number of bytes taken.
        taken: usize,
    },
    /// A write that failed because of [`fail_write`](Connection::fail_write).
    FailedWrite,
    /// The stream, or one direction of it, was ended.
    Shutdown(Shutdown),
    /// The deadline was set or removed.
    Deadline(Option<Instant>),
    /// Reading was resumed (`true`) or paused.
    Reading(bool),
    /// The waker of the connection was called, by any thread.
    Wake,
}

/// The error of a write that a test [makes fail](Connection::fail_write).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot write: {0}")]
pub struct WriteError(pub TransportError);

/// The recorded operations. This is also the waker of the connection.
#[derive(Default)]
struct Record {
    operations: Mutex<Vec<Operation>>,
    woken: AtomicBool,
}

impl Record {
    /// A panic elsewhere leaves the record consistent, since each change is one push.
    fn operations(&self) -> MutexGuard<'_, Vec<Operation>> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, operation: Operation) {
        self.operations().push(operation);
    }
}

impl Wake for Record {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.add(Operation::Wake);
    }
}

/// A connection that a test drives in steps.
///
/// | event | method |
/// |---|---|
/// | bytes arrive | [`receive`](Self::receive), and then [`step_read`](Self::step_read) or [`read_all`](Self::read_all) |
/// | the peer ends its direction | [`eof`](Self::eof) |
/// | the stream breaks | [`fail`](Self::fail), or [`fail_write`](Self::fail_write) at the next write |
/// | the peer reads | [`accept`](Self::accept) |
/// | time passes | [`advance`](Self::advance); or [`set_now`](Self::set_now), which handles no deadline |
/// | the deadline comes | [`expire`](Self::expire) |
/// | commands of handles run | [`drain`](Self::drain) |
///
/// A connection starts at the time that its endpoint has set. At first writes take nothing.
pub struct Connection<H: Handler> {
    driver: Driver<Session<H>>,
    transport: SteppingTransport,
    buffers: Buffers,
    /// Input that was not taken, one entry for each [`receive`](Connection::receive).
    unread: VecDeque<Vec<u8>>,
    /// The peer has ended its direction.
    eof: bool,
    now: Instant,
}

impl<F: HandlerFactory> Server<F> {
    fn build(config: ServerConfig, factory: F) -> Self {
        Self { core: ServerCore::new(config, factory), settings: Settings::default() }
    }

    /// The server's end of a byte stream that begins now.
    #[must_use]
    pub fn connection(&self) -> Connection<F::Handler> {
        let record = Arc::new(Record::default());
        let driver = self.driver(&record.clone().into(), self.settings.now);
        let mut connection = Connection::new(driver, &self.settings, record);
        connection.start(); // it has no output yet, but a deadline
        connection
    }
}

impl<F: HandlerFactory> Client<F> {
    fn build(config: ClientConfig, factory: F) -> Self {
        Self { core: ClientCore::new(config, factory), settings: Settings::default() }
    }

    /// The client's end of a byte stream to `target`, a URI or a [`Target`], that begins now. It sends its request when
    /// it is [started](Connection::start).
    ///
    /// # Errors
    ///
    /// The URI is invalid, or the options would make an invalid request.
    pub fn connection<U>(&self, target: U) -> Result<Connection<F::Handler>, RequestError>
    where
        U: TryInto<Target>,
        UriError: From<U::Error>,
    {
        let record = Arc::new(Record::default());
        let driver = self.driver(target, &record.clone().into(), self.settings.now)?;
        Ok(Connection::new(driver, &self.settings, record))
    }
}

impl<H: Handler> Connection<H> {
    fn new(driver: Driver<Session<H>>, settings: &Settings, record: Arc<Record>) -> Self {
        let transport = SteppingTransport {
            written: Vec::new(),
            free: 0,
            write_error: None,
            was_short: false,
            deadline: None,
            reading: true,
            last_shutdown: None,
            record,
            secure: settings.secure,
            remote_endpoint: settings.remote_endpoint.clone(),
        };
        let (buffers, unread) = (Buffers::default(), VecDeque::new());
        Self { driver, transport, buffers, unread, eof: false, now: settings.now }
    }

    /// Reports an event to the driver, and records what the driver wants afterwards.
    fn report<R>(
        &mut self,
        f: impl FnOnce(&mut Driver<Session<H>>, &mut SteppingTransport, &mut Buffers, Instant) -> R,
    ) -> R {
        let Self { driver, transport, buffers, now, .. } = self;
        let result = catch_unwind(AssertUnwindSafe(|| {
            let result = f(driver, transport, buffers, *now);
            // The body of a response is sent in several turns.
            while driver.wants_resume() {
                driver.resume(transport, buffers, *now);
            }
            result
        }));
        if !driver.is_closed() {
            let reading = driver.takes_input() || driver.discards_input();
            if std::mem::replace(&mut transport.reading, reading) != reading {
                transport.record.add(Operation::Reading(reading));
            }
            let deadline = driver.next_timeout();
            if std::mem::replace(&mut transport.deadline, deadline) != deadline {
                transport.record.add(Operation::Deadline(deadline));
            }
        }
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Starts the connection: a client writes its request, as far as writes take it. A server's end is started when it
    /// is created.
    pub fn start(&mut self) {
        self.report(|driver, transport, buffers, now| driver.start(transport, buffers, now));
    }

    // Input.

    /// Makes bytes arrive. They wait to be read.
    pub fn receive(&mut self, bytes: impl Into<Vec<u8>>) {
        self.unread.push_back(bytes.into());
    }

    /// Reads the bytes of one [`receive`](Self::receive), and returns the number of bytes taken. The rest stays unread,
    /// unless input is discarded.
    pub fn step_read(&mut self) -> usize {
        let Some(mut bytes) = self.unread.pop_front() else { return 0 };
        let taken = self.report(|driver, transport, buffers, now| {
            driver.receive_some(transport, buffers, &mut bytes, now)
        });
        bytes.drain(..taken);
        if !bytes.is_empty() {
            self.unread.push_front(bytes);
        }
        if self.driver.discards_input() {
            self.unread.clear();
        }
        taken
    }

    /// Reads until nothing is unread, or nothing more is taken. Returns the number of bytes taken.
    pub fn read_all(&mut self) -> usize {
        let mut taken = 0;
        while let Some(next) = self.unread.front() {
            let empty = next.is_empty();
            match self.step_read() {
                0 if !empty => break,
                n => taken += n,
            }
        }
        taken
    }

    /// The number of bytes that have arrived and were not taken.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.unread.iter().map(Vec::len).sum()
    }

    /// Whether the connection wants input. If not, reading is paused, or an answer is awaited.
    #[must_use]
    pub const fn is_reading(&self) -> bool {
        self.transport.reading
    }

    /// Ends the direction of the peer. The connection sees the end at once, before bytes that wait to be read.
    pub fn eof(&mut self) {
        self.eof = true;
        self.report(|driver, transport, buffers, now| driver.handle_eof(transport, buffers, now));
    }

    /// Breaks the stream with this error.
    pub fn fail(&mut self, error: TransportError) {
        self.report(|driver, transport, buffers, now| {
            driver.handle_error(transport, buffers, error, now)
        });
    }

    // Output.

    /// Lets writes take this number of bytes more: first of the send buffer, then of later output. With `usize::MAX`
    /// there is no limit.
    pub fn accept(&mut self, bytes: usize) {
        self.transport.free = self.transport.free.saturating_add(bytes);
        if self.transport.was_short && self.transport.free > 0 {
            self.report(|driver, transport, buffers, now| {
                driver.handle_writable(transport, buffers, now)
            });
        }
    }

    /// Lets writes take nothing until [`accept`](Self::accept).
    pub const fn refuse(&mut self) {
        self.transport.free = 0;
    }

    /// Makes the next write fail.
    pub const fn fail_write(&mut self, error: TransportError) {
        self.transport.write_error = Some(error);
    }

    /// The bytes written so far.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        &self.transport.written
    }

    /// The bytes written since the last call.
    pub fn take_written(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.transport.written)
    }

    /// The last shutdown that the connection has requested, if any: a half-close, or the end of the stream.
    #[must_use]
    pub const fn last_shutdown(&self) -> Option<Shutdown> {
        self.transport.last_shutdown
    }

    // Time.

    /// The time of this connection.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Sets the clock, without handling deadlines.
    pub const fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// The deadline, if there is one.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.transport.deadline
    }

    /// Moves the clock to the deadline, unless it is later already, and handles the deadline. Returns false if there is
    /// none.
    pub fn expire(&mut self) -> bool {
        let Some(deadline) = self.transport.deadline else { return false };
        self.now = self.now.max(deadline);
        self.report(|driver, transport, buffers, now| {
            driver.handle_timeout(transport, buffers, now)
        });
        true
    }

    /// Advances the clock, and handles each deadline when it is due.
    pub fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        while self.transport.deadline.is_some_and(|deadline| deadline <= end) {
            self.expire();
        }
        self.now = end;
    }

    // Handles.

    /// Whether the connection was woken since the last call of [`drain`](Self::drain).
    #[must_use]
    pub fn is_woken(&self) -> bool {
        self.transport.record.woken.load(Ordering::Acquire)
    }

    /// Runs the commands of handles.
    pub fn drain(&mut self) {
        self.transport.record.woken.store(false, Ordering::Release);
        self.report(|driver, transport, buffers, now| driver.handle_wake(transport, buffers, now));
    }

    /// A handle of the connection.
    pub fn handle(&mut self) -> Handle<H> {
        self.driver.handle()
    }

    // Getters.

    /// A copy of the operations of the transport so far.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        self.transport.record.operations().clone()
    }

    /// The operations of the transport since the last call.
    pub fn take_operations(&mut self) -> Vec<Operation> {
        std::mem::take(&mut self.transport.record.operations())
    }

    /// The number of bytes that were sent and not taken by a write.
    #[must_use]
    pub fn buffered_amount(&self) -> usize {
        self.driver.buffered_amount()
    }

    /// The handler.
    #[must_use]
    pub const fn handler(&self) -> &H {
        self.driver.handler()
    }

    /// Whether the stream has ended, and the handler was notified: the state is [`State::Ended`].
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.driver.is_closed()
    }

    /// The state of the connection.
    #[must_use]
    pub const fn state(&self) -> State {
        self.driver.state()
    }

    /// The statistics of the connection; zeros before it is open and after it is over.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.driver.statistics()
    }
}

/// Carries bytes between two connections until both are idle: each reads what the other writes, and then the end of the
/// other's stream. Commands of handles run. No time passes.
pub fn exchange<A: Handler, B: Handler>(a: &mut Connection<A>, b: &mut Connection<B>) {
    while carry(a, b) | carry(b, a) {}
}

/// Like [`exchange`], while time passes for both: deadlines are handled when they are due, and keep-alive pings are
/// answered.
pub fn exchange_for<A: Handler, B: Handler>(
    a: &mut Connection<A>,
    b: &mut Connection<B>,
    time: Duration,
) {
    let mut left = time;
    loop {
        exchange(a, b);
        let due = [a.deadline().map(|at| at - a.now), b.deadline().map(|at| at - b.now)];
        let next = due.into_iter().flatten().min().unwrap_or(left).min(left);
        a.advance(next);
        b.advance(next);
        if next == left {
            return exchange(a, b);
        }
        left -= next;
    }
}

/// Moves bytes in one direction. Returns whether anything has happened.
fn carry<A: Handler, B: Handler>(from: &mut Connection<A>, to: &mut Connection<B>) -> bool {
    let woken = from.is_woken();
    if woken {
        from.drain();
    }
    from.accept(usize::MAX);
    let bytes = from.take_written();
    let written = !bytes.is_empty();
    if written {
        to.receive(bytes);
    }
    let read = to.read_all() > 0;
    // The end is reported only after all input was read.
    let ended = from.last_shutdown().is_some() && to.unread() == 0 && !to.eof;
    if ended {
        to.eof();
    }
    woken || written || read || ended
}

impl<H: Handler> fmt::Debug for Connection<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl Transport for SteppingTransport {
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if let Some(error) = self.write_error.take() {
            self.record.add(Operation::FailedWrite);
            return Err(io::Error::new(kind_of(error), WriteError(error)));
        }
        let offered = slices.iter().map(|slice| slice.len()).sum();
        let taken = self.free.min(offered);
        let mut left = taken;
        for slice in slices {
            let n = left.min(slice.len());
            self.written.extend_from_slice(&slice[..n]);
            left -= n;
        }
        if self.free < usize::MAX {
            self.free -= taken;
        }
        self.was_short = taken < offered;
        self.record.add(Operation::Write { offered, taken });
        Ok(taken)
    }

    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        self.last_shutdown = Some(how);
        if how != Shutdown::HalfClose {
            (self.deadline, self.was_short) = (None, false);
        }
        self.record.add(Operation::Shutdown(how));
        Ok(())
    }

    fn is_secure(&self) -> bool {
        self.secure
    }

    fn peer(&self) -> Peer {
        Peer::Named(self.remote_endpoint.clone())
    }
}

/// An error kind that [`TransportError::from`] maps to `error`; to `Other` for those that no write reports.
fn kind_of(error: TransportError) -> ErrorKind {
    match error {
        TransportError::NotFound => ErrorKind::NotFound,
        TransportError::Refused => ErrorKind::ConnectionRefused,
        TransportError::Reset => ErrorKind::ConnectionReset,
        TransportError::TimedOut => ErrorKind::TimedOut,
        TransportError::Unreachable => ErrorKind::HostUnreachable,
        _ => ErrorKind::Other,
    }
}
