//! Connecting, in the loop: look-up, then one address after the other, then the connection.

use std::io::{self, ErrorKind};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
#[cfg(unix)]
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyloop_proto::{Instant, TransportError};
use mio::net::TcpStream;
use socket2::{Domain, SockRef, Type};

use super::endpoint::{ConnectOptions, Hooks};
use super::error::{ConnectError, Stage, readable};
use super::eyeballs::Attempts;
use super::host::literal;
use super::resolver::{Lookup, Resolver};
use super::serves::Serves;
use crate::endpoint::{HandlerFactory, Session};
use crate::event_loop::{
    Events, Kind, Next, Socket, SocketTransport, Source, StreamSource, Turn, now, waker,
};
use crate::sync::unmodelled::Mutex;
use crate::transport::Driver;

/// What an attempt has failed with then.
const PANICKED: &str = "the program's function for the socket has panicked";

/// After this time a Unix socket is tried again that had no room for a connection.
#[cfg(unix)]
const BUSY: Duration = Duration::from_millis(20);

/// Where a connection goes.
pub(super) enum Via {
    /// To a host that is looked up, unless it is an address.
    Host(Arc<Resolver>),
    /// To one of these.
    Addresses(Vec<SocketAddr>),
    #[cfg(unix)]
    Unix(PathBuf),
}

/// A connection that is still without a byte stream.
#[expect(unnameable_types, reason = "of `Admits`")]
pub struct Connecting<F: HandlerFactory> {
    pub(super) driver: Option<Driver<Session<F::Handler>>>,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) options: ConnectOptions,
    pub(super) hooks: Arc<Hooks>,
    pub(super) nodelay: bool,
    pub(super) begun: Instant,
    pub(super) step: Step,
    pub(super) factory: PhantomData<fn() -> F>,
}

pub(super) enum Step {
    Begin(Via),
    /// Its host is looked up, since then.
    Resolving {
        since: Instant,
        answer: Arc<Mutex<Option<Answer>>>,
        _lookup: (Lookup, Arc<Resolver>),
    },
    /// Its addresses are tried, since then.
    Trying {
        since: Instant,
        attempts: Attempts,
        sockets: Vec<(SocketAddr, Socket)>,
    },
    /// A Unix socket does not answer at once.
    /// And tried again, where the other side has no room for it.
    #[cfg(unix)]
    Unix {
        since: Instant,
        path: PathBuf,
        stream: Option<Socket>,
    },
    /// The handler is to be told.
    Over,
}

type Answer = io::Result<Vec<SocketAddr>>;

/// What came of a step.
enum Outcome {
    Waiting,
    Connected(Socket),
    Failed(TransportError, ConnectError),
}

impl<K: Serves<F>, F: HandlerFactory> Source<K> for Connecting<F> {
    fn run(&mut self, turn: &mut Turn<'_, K>) -> Next<K> {
        turn.visit.now = now(); // others may have taken their time since the loop looked at it
        self.serve_driver(turn);
        let open = self.driver.as_ref().is_some_and(|driver| !driver.is_closed());
        if open && !matches!(self.step, Step::Over) {
            match self.go_on(turn) {
                Outcome::Waiting => {}
                Outcome::Connected(socket) => {
                    let Some(driver) = self.driver.take() else { return Next::Done };
                    // What came with the end of connecting will not be reported again.
                    turn.visit.kept = Events::READABLE | turn.visit.events.only(Events::CLOSED);
                    return Next::Become(K::connection(StreamSource::new(driver, socket)));
                }
                Outcome::Failed(kind, error) => self.report(kind, error, turn),
            }
        }
        let Some(driver) = &self.driver else { return Next::Done };
        let deadlines = [driver.next_timeout(), self.deadline()];
        turn.visit.deadline = deadlines.into_iter().flatten().min();
        match () {
            () if driver.is_closed() => Next::Done,
            () if driver.wants_resume() => Next::Again,
            () => Next::Wait,
        }
    }
}

impl<F: HandlerFactory> Connecting<F> {
    /// Serves what does not need a stream: handles, and timers of the program.
    fn serve_driver<K: Kind>(&mut self, turn: &mut Turn<'_, K>) {
        let Some(driver) = &mut self.driver else { return };
        let (mut nothing, mut visit) = (Socket::Closed, turn.visit);
        let mut transport = SocketTransport::new(&mut nothing, &mut visit);
        let (buffers, now) = (&mut turn.buffers.stream, turn.visit.now);
        if turn.visit.events.contains(Events::WOKEN) || matches!(self.step, Step::Begin(_)) {
            driver.handle_wake(&mut transport, buffers, now);
        }
        if driver.wants_resume() {
            driver.resume(&mut transport, buffers, now);
        }
        if turn.visit.events.contains(Events::DEADLINE) {
            driver.handle_timeout(&mut transport, buffers, now);
        }
    }

    /// There will be no stream: the handler is told why.
    fn report<K: Kind>(
        &mut self,
        kind: TransportError,
        error: ConnectError,
        turn: &mut Turn<'_, K>,
    ) {
        self.step = Step::Over;
        let Some(driver) = &mut self.driver else { return };
        let (mut nothing, mut visit) = (Socket::Closed, turn.visit);
        let mut transport = SocketTransport::new(&mut nothing, &mut visit);
        let buffers = &mut turn.buffers.stream;
        driver.handle_error_with(&mut transport, buffers, kind, Box::new(error), turn.visit.now);
    }

    fn go_on<K: Serves<F>>(&mut self, turn: &Turn<'_, K>) -> Outcome {
        let now = turn.visit.now;
        loop {
            let late = self.is_late(now);
            match &mut self.step {
                Step::Begin(via) => {
                    let via = std::mem::replace(via, Via::Addresses(Vec::new()));
                    match self.begin(via, turn) {
                        Ok(step) => self.step = step,
                        Err(outcome) => return outcome,
                    }
                }
                Step::Resolving { since, answer, .. } => {
                    let since = *since;
                    let answer = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
                    match answer {
                        Some(Ok(addresses)) => self.step = self.try_addresses(addresses, now),
                        Some(Err(source)) => {
                            let host = self.host.clone();
                            let error = ConnectError::Resolve { host, source };
                            return Outcome::Failed(TransportError::NotFound, error);
                        }
                        None if late => return self.timed_out(Stage::Resolve, since, Vec::new()),
                        None => return Outcome::Waiting,
                    }
                }
                Step::Trying { since, attempts, sockets } => {
                    let since = *since;
                    if let Some(stream) = look(attempts, sockets, now) {
                        return Outcome::Connected(stream);
                    }
                    while let Some(address) = attempts.next(now) {
                        let opened = catch_unwind(AssertUnwindSafe(|| {
                            open(address, turn, &self.hooks, self.nodelay)
                        }));
                        match opened {
                            Ok(Ok(stream)) => sockets.push((address, stream)),
                            Ok(Err(error)) => attempts.failed(address, error, now),
                            Err(panic) => {
                                attempts.failed(address, io::Error::other(PANICKED), now);
                                resume_unwind(panic);
                            }
                        }
                    }
                    let exhausted = attempts.is_exhausted();
                    if !(exhausted || late) {
                        return Outcome::Waiting;
                    }
                    let Step::Trying { attempts, .. } =
                        std::mem::replace(&mut self.step, Step::Over)
                    else {
                        return Outcome::Waiting;
                    };
                    let errors = attempts.into_errors();
                    if !exhausted {
                        return self.timed_out(Stage::Connect, since, readable(errors));
                    }
                    let kind = errors.last().map_or(TransportError::Other, |(_, e)| e.into());
                    let (host, attempts) = (self.host.clone(), readable(errors));
                    return Outcome::Failed(kind, ConnectError::Connect { host, attempts });
                }
                #[cfg(unix)]
                Step::Unix { since, path, stream } => {
                    let since = *since;
                    let mut panicked = None;
                    let tried = match stream.take() {
                        Some(stream) => Ok(stream),
                        None => {
                            let open = || open_unix(path, turn, &self.hooks);
                            catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|panic| {
                                panicked = Some(panic);
                                Err(io::Error::other(PANICKED))
                            })
                        }
                    };
                    if let Some(panic) = panicked {
                        self.step = self.try_addresses(Vec::new(), now); // it fails at its next turn
                        resume_unwind(panic);
                    }
                    let connected = tried.and_then(|tried| Ok((is_connected(&tried)?, tried)));
                    match connected {
                        Ok((true, stream)) => return Outcome::Connected(stream),
                        Ok((false, _)) if late => {
                            return self.timed_out(Stage::Connect, since, Vec::new());
                        }
                        Ok((false, tried)) => {
                            *stream = Some(tried);
                            return Outcome::Waiting;
                        }
                        // Its queue is full.
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            if late {
                                return self.timed_out(Stage::Connect, since, Vec::new());
                            }
                            return Outcome::Waiting;
                        }
                        Err(error) => return self.unix_failed(error),
                    }
                }
                Step::Over => return Outcome::Waiting,
            }
        }
    }

    fn begin<K: Serves<F>>(&self, via: Via, turn: &Turn<'_, K>) -> Result<Step, Outcome> {
        let since = turn.visit.now;
        match via {
            Via::Addresses(addresses) => Ok(self.try_addresses(addresses, since)),
            Via::Host(resolver) => {
                if let Some(address) = literal(&self.host, self.port) {
                    return Ok(self.try_addresses(vec![address], since));
                }
                let answer = Arc::<Mutex<Option<Answer>>>::default();
                let (place, waker) =
                    (answer.clone(), waker(turn.engine.remote(), turn.visit.token));
                let done = Box::new(move |found| {
                    *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
                    waker.wake();
                });
                // The resolver of a client that is dropped meanwhile goes on.
                let _lookup = (resolver.resolve(&self.host, self.port, done), resolver);
                Ok(Step::Resolving { since, answer, _lookup })
            }
            #[cfg(unix)]
            Via::Unix(path) => Ok(Step::Unix { since, path, stream: None }),
        }
    }

    fn try_addresses(&self, addresses: Vec<SocketAddr>, since: Instant) -> Step {
        let attempts = Attempts::new(addresses, self.options.attempt_delay, since);
        Step::Trying { since, attempts, sockets: Vec::new() }
    }

    #[cfg(unix)]
    fn unix_failed(&self, error: io::Error) -> Outcome {
        let (host, kind) = (self.host.clone(), TransportError::from(&error));
        let attempts = vec![(host.clone(), error)];
        Outcome::Failed(kind, ConnectError::Connect { host, attempts })
    }

    /// The time for a stage that has begun `since`, or for everything, is up.
    fn timed_out(
        &self,
        stage: Stage,
        since: Instant,
        attempts: Vec<(String, io::Error)>,
    ) -> Outcome {
        let of_stage = match stage {
            Stage::Resolve => self.options.resolve_timeout,
            Stage::Connect => self.options.connect_timeout,
        };
        // Counted from the beginning of what has lasted too long.
        let of_stage = of_stage.map(|timeout| (since + timeout, timeout));
        let total = self.options.total_timeout.map(|timeout| (self.begun + timeout, timeout));
        let first = [of_stage, total].into_iter().flatten().min();
        let after = first.map_or(Duration::ZERO, |(_, timeout)| timeout);
        let host = self.host.clone();
        let error = ConnectError::TimedOut { host, stage, after, attempts };
        Outcome::Failed(TransportError::TimedOut, error)
    }

    fn is_late(&self, now: Instant) -> bool {
        self.end().is_some_and(|end| end <= now)
    }

    /// When this step must have come to its end.
    fn end(&self) -> Option<Instant> {
        let (since, timeout) = match &self.step {
            Step::Begin(_) | Step::Over => return None,
            Step::Resolving { since, .. } => (*since, self.options.resolve_timeout),
            Step::Trying { since, .. } => (*since, self.options.connect_timeout),
            #[cfg(unix)]
            Step::Unix { since, .. } => (*since, self.options.connect_timeout),
        };
        let of_stage = timeout.map(|timeout| since + timeout);
        let total = self.options.total_timeout.map(|timeout| self.begun + timeout);
        [of_stage, total].into_iter().flatten().min()
    }

    /// When there will be something to do if nothing happens.
    fn deadline(&self) -> Option<Instant> {
        let next = match &self.step {
            Step::Trying { attempts, .. } => attempts.deadline(),
            #[cfg(unix)]
            Step::Unix { stream: None, .. } => Some(now() + BUSY),
            _ => None,
        };
        [self.end(), next].into_iter().flatten().min()
    }
}

/// The first of the sockets that is connected. Those that have failed are noted.
fn look(
    attempts: &mut Attempts,
    sockets: &mut Vec<(SocketAddr, Socket)>,
    now: Instant,
) -> Option<Socket> {
    let mut place = 0;
    while place < sockets.len() {
        match is_connected(&sockets[place].1) {
            Ok(true) => return Some(sockets.swap_remove(place).1),
            Ok(false) => place += 1,
            Err(error) => {
                let (address, _) = sockets.swap_remove(place);
                attempts.failed(address, error, now);
            }
        }
    }
    None
}

fn is_connected(stream: &Socket) -> io::Result<bool> {
    let (error, peer) = match stream {
        Socket::Tcp(stream) => (stream.take_error()?, stream.peer_addr().map(|_| ())),
        #[cfg(unix)]
        Socket::Unix(stream) => (stream.take_error()?, stream.peer_addr().map(|_| ())),
        Socket::Closed => return Err(ErrorKind::NotConnected.into()),
    };
    match (error, peer) {
        (Some(error), _) => Err(error),
        (None, Ok(())) => Ok(true),
        (None, Err(error)) if error.kind() == ErrorKind::NotConnected => Ok(false),
        // Some systems say this before they are connected.
        (None, Err(error)) if error.kind() == ErrorKind::InvalidInput => Ok(false),
        (None, Err(error)) => Err(error),
    }
}

fn open<K: Serves<F>, F: HandlerFactory>(
    address: SocketAddr,
    turn: &Turn<'_, K>,
    hooks: &Hooks,
    nodelay: bool,
) -> io::Result<Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(nodelay)?;
    hooks.set_up(&SockRef::from(&socket))?;
    begin(socket.connect(&address.into()))?;
    let mut stream = Socket::Tcp(TcpStream::from_std(socket.into()));
    stream.register(turn.engine.registry(), turn.visit.token)?;
    Ok(stream)
}

#[cfg(unix)]
fn open_unix<K: Serves<F>, F: HandlerFactory>(
    path: &std::path::Path,
    turn: &Turn<'_, K>,
    hooks: &Hooks,
) -> io::Result<Socket> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    hooks.set_up(&SockRef::from(&socket))?;
    let address = socket2::SockAddr::unix(path)?;
    match socket.connect(&address) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(error),
        begun => begin(begun)?,
    }
    let socket = std::os::fd::OwnedFd::from(socket);
    let mut stream = Socket::Unix(mio::net::UnixStream::from_std(socket.into()));
    stream.register(turn.engine.registry(), turn.visit.token)?;
    Ok(stream)
}

/// To connect takes a while.
fn begin(connected: io::Result<()>) -> io::Result<()> {
    match connected {
        Err(error) if is_under_way(&error) => Ok(()),
        connected => connected,
    }
}

fn is_under_way(error: &io::Error) -> bool {
    #[cfg(unix)]
    if error.raw_os_error() == Some(libc::EINPROGRESS) {
        return true;
    }
    error.kind() == ErrorKind::WouldBlock
}
