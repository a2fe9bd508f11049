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

use super::connection::{Connection, take_mail};
use super::endpoint::{ConnectOptions, Hooks};
use super::error::{ConnectError, Stage, readable};
use super::eyeballs::Attempts;
use super::resolver::{Lookup, Resolver, literal};
use super::serves::Serves;
use super::transport::Socket;
use crate::endpoint::{Factory, Session};
use crate::event_loop::{Events, Next, Source, Stream, Turn, waker};
use crate::sync::unmodelled::Mutex;
use crate::transport::Transport as _;

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
pub struct Connecting<F: Factory> {
    pub(super) session: Option<Session<F::Handler>>,
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
        sockets: Vec<(SocketAddr, Stream)>,
    },
    /// A Unix socket does not answer at once.
    /// And tried again, where the other side has no room for it.
    #[cfg(unix)]
    Unix {
        since: Instant,
        path: PathBuf,
        stream: Option<Stream>,
    },
    /// The handler is to be told.
    Over,
}

type Answer = io::Result<Vec<SocketAddr>>;

/// What came of a step.
enum Outcome {
    Waiting,
    Connected(Stream),
    Failed(TransportError, ConnectError),
}

impl<K: Serves<F>, F: Factory> Source<K> for Connecting<F> {
    fn run(&mut self, turn: &mut Turn<'_, K>) -> Next<K> {
        let Some(session) = &mut self.session else { return Next::Done };
        turn.visit.now = crate::event_loop::now(); // others may have taken their time since it was looked at
        // The session has none yet, but it may have timers.
        let (mut stream, mut visit) = (Stream::Closed, turn.visit);
        let mut socket =
            Socket { stream: &mut stream, visit: &mut visit, engine: turn.engine, peer: None };
        let (scratch, now) = (&mut turn.buffers.scratch, turn.visit.now);
        // It has a handle from the beginning.
        if turn.visit.events.contains(Events::WOKEN) || matches!(self.step, Step::Begin(_)) {
            take_mail(session, &mut socket, scratch, now);
        }
        if session.wants_to_proceed() {
            session.proceed(&mut socket, scratch, now);
        }
        if turn.visit.events.contains(Events::DEADLINE) {
            session.handle_timeout(&mut socket, scratch, now);
        }
        if !session.is_over() && !matches!(self.step, Step::Over) {
            match self.go_on(turn) {
                Outcome::Waiting => {
                    let asked = self.session.as_ref().and_then(Session::deadline);
                    let deadlines = [asked, self.deadline()];
                    turn.visit.deadline = deadlines.into_iter().flatten().min();
                }
                Outcome::Connected(stream) => {
                    let Some(session) = self.session.take() else { return Next::Done };
                    // What came with the end of connecting will not be told again.
                    turn.visit.kept = Events::READABLE | turn.visit.events.only(Events::CLOSED);
                    return Next::Become(K::connection(Connection::new(session, stream)));
                }
                Outcome::Failed(kind, error) => {
                    self.step = Step::Over;
                    let Some(session) = &mut self.session else { return Next::Done };
                    let scratch = &mut turn.buffers.scratch;
                    session.handle_error_with(&mut socket, scratch, kind, Box::new(error), now);
                }
            }
        }
        let Some(session) = &mut self.session else { return Next::Done };
        if session.is_over() {
            if let Some(roster) = session.roster() {
                roster.publish(socket.key(), session.state());
            }
            return Next::Done;
        }
        // Not ready for anything but to be told again: a posted function, or the failure.
        if session.wants_to_proceed() { Next::Again } else { Next::Wait }
    }
}

impl<F: Factory> Connecting<F> {
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
            Step::Unix { stream: None, .. } => Some(crate::event_loop::now() + BUSY),
            _ => None,
        };
        [self.end(), next].into_iter().flatten().min()
    }
}

/// The first of the sockets that is connected. Those that have failed are noted.
fn look(
    attempts: &mut Attempts,
    sockets: &mut Vec<(SocketAddr, Stream)>,
    now: Instant,
) -> Option<Stream> {
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

fn is_connected(stream: &Stream) -> io::Result<bool> {
    let (error, peer) = match stream {
        Stream::Tcp(stream) => (stream.take_error()?, stream.peer_addr().map(|_| ())),
        #[cfg(unix)]
        Stream::Unix(stream) => (stream.take_error()?, stream.peer_addr().map(|_| ())),
        Stream::Closed => return Err(ErrorKind::NotConnected.into()),
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

fn open<K: Serves<F>, F: Factory>(
    address: SocketAddr,
    turn: &Turn<'_, K>,
    hooks: &Hooks,
    nodelay: bool,
) -> io::Result<Stream> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(nodelay)?;
    hooks.set_up(&SockRef::from(&socket))?;
    begin(socket.connect(&address.into()))?;
    let mut stream = Stream::Tcp(TcpStream::from_std(socket.into()));
    stream.register(turn.engine.registry(), turn.visit.token)?;
    Ok(stream)
}

#[cfg(unix)]
fn open_unix<K: Serves<F>, F: Factory>(
    path: &std::path::Path,
    turn: &Turn<'_, K>,
    hooks: &Hooks,
) -> io::Result<Stream> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    hooks.set_up(&SockRef::from(&socket))?;
    let address = socket2::SockAddr::unix(path)?;
    match socket.connect(&address) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(error),
        begun => begin(begun)?,
    }
    let socket = std::os::fd::OwnedFd::from(socket);
    let mut stream = Stream::Unix(mio::net::UnixStream::from_std(socket.into()));
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
