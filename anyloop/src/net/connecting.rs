//! A client's connection before it has a byte stream: name resolution, then connection attempts.

use std::any::Any;
use std::io::{self, ErrorKind};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
#[cfg(unix)]
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyloop_proto::{Instant, TransportError};

use self::socket::{connect_tcp, connected_peer};
use super::error::{ConnectError, Stage, readable};
use super::eyeballs::Attempts;
use super::hooks::Hooks;
use super::host::literal;
use super::hosts_connections::HostsConnections;
use super::layer::Layer;
use super::resolver::{Lookup, Resolver};
use crate::endpoint::{ConnectOptions, HandlerFactory, Session};
use crate::event_loop::{Events, Next, Socket, SocketTransport, Source, Turn, now, waker};
use crate::sync::unmodelled::Mutex;
use crate::transport::{Buffers, Driver, Peer};

mod socket;

/// The error of a connection attempt whose socket hook has panicked.
const HOOK_PANICKED: &str = "the program's function for the socket has panicked";

/// The time after which connecting to a Unix socket with a full queue is tried again.
#[cfg(unix)]
const UNIX_RETRY_DELAY: Duration = Duration::from_millis(20);

/// Where to connect to.
pub(super) enum Destination {
    /// The request's host. The resolver is used unless the host is an address.
    Host(Arc<Resolver>),
    /// One of these addresses.
    Addresses(Vec<SocketAddr>),
    /// A Unix socket.
    #[cfg(unix)]
    Unix(PathBuf),
}

/// A connection that has no byte stream yet. It becomes a [`StreamSource`] in the same slot.
#[expect(unnameable_types, reason = "of `MakeSources`")]
pub struct Connecting<F: HandlerFactory> {
    pub(super) driver: Option<Driver<Session<F::Handler>>>,
    pub(super) layer: Layer,
    /// The host, or the path of the Unix socket, for errors.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) options: ConnectOptions,
    pub(super) hooks: Arc<Hooks>,
    pub(super) nodelay: bool,
    pub(super) started: Instant,
    pub(super) step: Step,
    pub(super) marker: PhantomData<fn() -> F>,
}

/// The step that connecting is at.
pub(super) enum Step {
    /// Nothing was done yet.
    Begin(Destination),
    /// The result of a look-up.
    Resolve(Resolution),
    /// One of several TCP connection attempts.
    ConnectTcp(TcpAttempts),
    /// A Unix socket.
    #[cfg(unix)]
    ConnectUnix(UnixAttempt),
    /// Nothing: connecting is over.
    Done,
}

/// A look-up that is under way.
pub(super) struct Resolution {
    since: Instant,
    result: Arc<Mutex<Option<LookupResult>>>,
    /// Dropping it cancels the look-up. The resolver is kept, since its client may be dropped.
    _lookup: (Lookup, Arc<Resolver>),
}

type LookupResult = io::Result<Vec<SocketAddr>>;

/// TCP connection attempts that are under way (RFC 8305).
pub(super) struct TcpAttempts {
    since: Instant,
    attempts: Attempts,
    sockets: Vec<(SocketAddr, Socket)>,
}

/// A connection attempt to a Unix socket.
#[cfg(unix)]
pub(super) struct UnixAttempt {
    since: Instant,
    path: PathBuf,
    /// The stream, or the error. Absent while the listener's queue is full.
    stream: Option<io::Result<Socket>>,
}

/// The outcome of one step.
enum Progress {
    /// The next step can be taken at once.
    Advance(Step),
    /// The step waits for an event or a deadline.
    Pending(Step),
    Connected(Socket, Peer),
    Failed(TransportError, ConnectError),
    /// A hook of the program has panicked. The panic is resumed when the step is stored.
    Panicked(Step, Box<dyn Any + Send>),
}

/// The outcome of all steps that can be taken now.
enum Outcome {
    Pending,
    Connected(Socket, Peer),
    Failed(TransportError, ConnectError),
}

impl<K: HostsConnections<F::Handler>, F: HandlerFactory> Source<K> for Connecting<F> {
    fn run(&mut self, turn: &mut Turn<'_, K>) -> Next<K> {
        turn.state.now = now(); // the loop's reading of the clock may be older
        self.run_driver(turn);
        let is_open = self.driver.as_ref().is_some_and(|driver| !driver.is_closed());
        if is_open && !matches!(self.step, Step::Done) {
            match self.advance(turn) {
                Outcome::Pending => {}
                Outcome::Connected(socket, peer) => {
                    return self.become_connection(socket, peer, turn);
                }
                Outcome::Failed(kind, error) => self.fail(kind, error, turn),
            }
        }
        self.next(turn)
    }
}

/// The calls of the driver.
impl<F: HandlerFactory> Connecting<F> {
    /// Serves what needs no stream: commands, calls that the budget has held back, and timers.
    fn run_driver<K: HostsConnections<F::Handler>>(&mut self, turn: &mut Turn<'_, K>) {
        let (events, now) = (turn.state.events, turn.state.now);
        let is_first = matches!(self.step, Step::Begin(_)); // the handle exists since before this turn
        self.with_driver(turn, |driver, transport, buffers| {
            if is_first || events.contains(Events::WOKEN) {
                driver.handle_wake(transport, buffers, now);
            }
            if driver.wants_resume() {
                driver.resume(transport, buffers, now);
            }
            if events.contains(Events::DEADLINE) {
                driver.handle_timeout(transport, buffers, now);
            }
        });
    }

    /// Reports that there will be no stream.
    fn fail<K: HostsConnections<F::Handler>>(
        &mut self,
        kind: TransportError,
        error: ConnectError,
        turn: &mut Turn<'_, K>,
    ) {
        self.step = Step::Done;
        let now = turn.state.now;
        self.with_driver(turn, |driver, transport, buffers| {
            driver.handle_error_with(transport, buffers, kind, Box::new(error), now);
        });
    }

    /// Hands the driver over to the connection.
    fn become_connection<K: HostsConnections<F::Handler>>(
        &mut self,
        socket: Socket,
        peer: Peer,
        turn: &mut Turn<'_, K>,
    ) -> Next<K> {
        let Some(mut driver) = self.driver.take() else { return Next::Done };
        driver.session.set_peer(peer); // the system forgets it when the stream is reset
        // The edges that came with the end of connecting are not reported again.
        turn.state.unconsumed = Events::READABLE | turn.state.events.only(Events::CLOSED);
        Next::Become(std::mem::take(&mut self.layer).source::<K, _>(driver, socket))
    }

    /// The result of a turn that did not connect.
    fn next<K: HostsConnections<F::Handler>>(&self, turn: &mut Turn<'_, K>) -> Next<K> {
        let Some(driver) = self.driver.as_ref().filter(|driver| !driver.is_closed()) else {
            return Next::Done;
        };
        let deadlines = [driver.next_timeout(), self.deadline()];
        turn.state.deadline = deadlines.into_iter().flatten().min();
        // Calls that the budget has stopped: posted functions, or the failure.
        if driver.wants_resume() { Next::Again } else { Next::Wait }
    }

    /// Calls `f` with the driver, and with a socket that is closed.
    fn with_driver<K: HostsConnections<F::Handler>>(
        &mut self,
        turn: &mut Turn<'_, K>,
        f: impl FnOnce(&mut Driver<Session<F::Handler>>, &mut SocketTransport<'_>, &mut Buffers),
    ) {
        if let Some(driver) = &mut self.driver {
            let (mut socket, mut state) = (Socket::Closed, turn.state);
            let mut transport = SocketTransport::new(&mut socket, &mut state);
            f(driver, &mut transport, &mut turn.buffers.stream);
        }
    }
}

/// The steps.
impl<F: HandlerFactory> Connecting<F> {
    /// Takes all steps that can be taken now.
    fn advance<K: HostsConnections<F::Handler>>(&mut self, turn: &Turn<'_, K>) -> Outcome {
        loop {
            let is_late = self.expiry().is_some_and(|expiry| expiry <= turn.state.now);
            let progress = match std::mem::replace(&mut self.step, Step::Done) {
                Step::Begin(destination) => self.begin(destination, turn),
                Step::Resolve(resolution) => self.resolve(resolution, is_late, turn.state.now),
                Step::ConnectTcp(attempts) => self.connect_tcp(attempts, is_late, turn),
                #[cfg(unix)]
                Step::ConnectUnix(attempt) => self.connect_unix(attempt, is_late, turn),
                Step::Done => Progress::Pending(Step::Done),
            };
            match progress {
                Progress::Advance(step) => self.step = step,
                Progress::Pending(step) => {
                    self.step = step;
                    return Outcome::Pending;
                }
                Progress::Connected(socket, peer) => return Outcome::Connected(socket, peer),
                Progress::Failed(kind, error) => return Outcome::Failed(kind, error),
                Progress::Panicked(step, panic) => {
                    self.step = step;
                    resume_unwind(panic);
                }
            }
        }
    }

    fn begin<K: HostsConnections<F::Handler>>(
        &self,
        destination: Destination,
        turn: &Turn<'_, K>,
    ) -> Progress {
        let since = turn.state.now;
        let resolver = match destination {
            Destination::Host(resolver) => resolver,
            Destination::Addresses(addresses) => return self.try_addresses(addresses, since),
            #[cfg(unix)]
            Destination::Unix(path) => {
                let attempt = UnixAttempt { since, path, stream: None };
                return Progress::Advance(Step::ConnectUnix(attempt));
            }
        };
        if let Some(address) = literal(&self.host, self.port) {
            return self.try_addresses(vec![address], since);
        }
        let result = Arc::<Mutex<Option<LookupResult>>>::default();
        let (shared, waker) = (result.clone(), waker(turn.engine.control(), turn.state.token));
        let callback = Box::new(move |addresses| {
            *shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(addresses);
            waker.wake();
        });
        let _lookup = (resolver.resolve(&self.host, self.port, callback), resolver);
        Progress::Advance(Step::Resolve(Resolution { since, result, _lookup }))
    }

    fn try_addresses(&self, addresses: Vec<SocketAddr>, since: Instant) -> Progress {
        let attempts = Attempts::new(addresses, self.options.attempt_delay, since);
        Progress::Advance(Step::ConnectTcp(TcpAttempts { since, attempts, sockets: Vec::new() }))
    }

    fn resolve(&self, resolution: Resolution, is_late: bool, now: Instant) -> Progress {
        let result = resolution.result.lock().unwrap_or_else(PoisonError::into_inner).take();
        match result {
            Some(Ok(addresses)) => self.try_addresses(addresses, now),
            Some(Err(source)) => {
                let host = self.host.clone();
                let error = ConnectError::Resolve { host, source };
                Progress::Failed(TransportError::NotFound, error)
            }
            None if is_late => self.timed_out(Stage::Resolve, resolution.since, Vec::new()),
            None => Progress::Pending(Step::Resolve(resolution)),
        }
    }

    fn connect_tcp<K: HostsConnections<F::Handler>>(
        &self,
        mut tcp: TcpAttempts,
        is_late: bool,
        turn: &Turn<'_, K>,
    ) -> Progress {
        let now = turn.state.now;
        if let Some((socket, peer)) = tcp.take_connected(now) {
            return Progress::Connected(socket, peer);
        }
        while let Some(address) = tcp.attempts.next(now) {
            let (registry, token) = (turn.engine.registry(), turn.state.token);
            let connect = || connect_tcp(address, &self.hooks, self.nodelay, registry, token);
            match catch_unwind(AssertUnwindSafe(connect)) {
                Ok(Ok(stream)) => tcp.sockets.push((address, stream)),
                Ok(Err(error)) => tcp.attempts.failed(address, error, now),
                Err(panic) => {
                    tcp.attempts.failed(address, io::Error::other(HOOK_PANICKED), now);
                    return Progress::Panicked(Step::ConnectTcp(tcp), panic);
                }
            }
        }
        if tcp.attempts.is_exhausted() {
            let errors = tcp.attempts.into_errors();
            let kind = errors.last().map_or(TransportError::Other, |(_, error)| error.into());
            let (host, attempts) = (self.host.clone(), readable(errors));
            Progress::Failed(kind, ConnectError::Connect { host, attempts })
        } else if is_late {
            let errors = readable(tcp.attempts.into_errors());
            self.timed_out(Stage::Connect, tcp.since, errors)
        } else {
            Progress::Pending(Step::ConnectTcp(tcp))
        }
    }

    #[cfg(unix)]
    fn connect_unix<K: HostsConnections<F::Handler>>(
        &self,
        mut unix: UnixAttempt,
        is_late: bool,
        turn: &Turn<'_, K>,
    ) -> Progress {
        let stream = match unix.stream.take() {
            Some(result) => result,
            None => {
                let (registry, token) = (turn.engine.registry(), turn.state.token);
                let connect = || socket::connect_unix(&unix.path, &self.hooks, registry, token);
                match catch_unwind(AssertUnwindSafe(connect)) {
                    Ok(result) => result,
                    Err(panic) => {
                        unix.stream = Some(Err(io::Error::other(HOOK_PANICKED)));
                        return Progress::Panicked(Step::ConnectUnix(unix), panic);
                    }
                }
            }
        };
        match stream.and_then(|stream| Ok((connected_peer(&stream)?, stream))) {
            Ok((Some(peer), stream)) => return Progress::Connected(stream, peer),
            Ok((None, stream)) => unix.stream = Some(Ok(stream)),
            // The listener's queue is full.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return self.unix_failed(error),
        }
        if is_late {
            return self.timed_out(Stage::Connect, unix.since, Vec::new());
        }
        Progress::Pending(Step::ConnectUnix(unix))
    }

    #[cfg(unix)]
    fn unix_failed(&self, error: io::Error) -> Progress {
        let (host, kind) = (self.host.clone(), TransportError::from(&error));
        let attempts = vec![(host.clone(), error)];
        Progress::Failed(kind, ConnectError::Connect { host, attempts })
    }
}

/// Deadlines.
impl<F: HandlerFactory> Connecting<F> {
    /// The time of the next turn if no event comes.
    fn deadline(&self) -> Option<Instant> {
        let step = match &self.step {
            Step::ConnectTcp(tcp) => tcp.attempts.deadline(),
            #[cfg(unix)]
            Step::ConnectUnix(UnixAttempt { stream: None, .. }) => Some(now() + UNIX_RETRY_DELAY),
            _ => None,
        };
        [self.expiry(), step].into_iter().flatten().min()
    }

    /// The timeout of the current step.
    fn expiry(&self) -> Option<Instant> {
        let (stage, since) = match &self.step {
            Step::Begin(_) | Step::Done => return None,
            Step::Resolve(resolution) => (Stage::Resolve, resolution.since),
            Step::ConnectTcp(tcp) => (Stage::Connect, tcp.since),
            #[cfg(unix)]
            Step::ConnectUnix(unix) => (Stage::Connect, unix.since),
        };
        self.timeout(stage, since).map(|(expiry, _)| expiry)
    }

    /// The timeout that expires first for a stage that has begun at `since`: its own or the total one.
    /// Returns the time when it expires, and its duration.
    fn timeout(&self, stage: Stage, since: Instant) -> Option<(Instant, Duration)> {
        let own = match stage {
            Stage::Resolve => self.options.resolve_timeout,
            Stage::Connect => self.options.connect_timeout,
        };
        let own = own.map(|timeout| (since + timeout, timeout));
        let total = self.options.total_timeout.map(|timeout| (self.started + timeout, timeout));
        [own, total].into_iter().flatten().min()
    }

    fn timed_out(
        &self,
        stage: Stage,
        since: Instant,
        attempts: Vec<(String, io::Error)>,
    ) -> Progress {
        let after = self.timeout(stage, since).map_or(Duration::ZERO, |(_, timeout)| timeout);
        let error = ConnectError::TimedOut { host: self.host.clone(), stage, after, attempts };
        Progress::Failed(TransportError::TimedOut, error)
    }
}

impl TcpAttempts {
    /// Takes the first stream that is connected. Records the attempts that have failed.
    fn take_connected(&mut self, now: Instant) -> Option<(Socket, Peer)> {
        let mut index = 0;
        while index < self.sockets.len() {
            match connected_peer(&self.sockets[index].1) {
                Ok(Some(peer)) => return Some((self.sockets.swap_remove(index).1, peer)),
                Ok(None) => index += 1,
                Err(error) => {
                    let (address, _) = self.sockets.swap_remove(index);
                    self.attempts.failed(address, error, now);
                }
            }
        }
        None
    }
}
