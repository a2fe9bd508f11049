//! A client's connection before it has a byte stream: name resolution, connection attempts, and the tunnel through a
//! proxy.

use std::any::Any;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::panic::resume_unwind;
#[cfg(unix)]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyloop_proto::Instant;
use anyloop_proto::handshake::Target;

use super::error::{ConnectError, Error, Stage};
use super::eyeballs::Attempts;
use super::hooks::Hooks;
use super::layer::{LayeredStream, TlsLayer};
use super::proxy::{ProxyLayer, Route, lookup_host};
use super::resolver::{Lookup, Resolver};
use super::serves_connections::ServesConnections;
use crate::endpoint::{ClientConfig, ConnectOptions, HandlerFactory, Session};
use crate::event_loop::{Events, Next, Socket, SocketTransport, Source, Turn, now};
use crate::sync::unmodelled::Mutex;
use crate::transport::{Buffers, Driver, Peer};

pub(super) use self::redirects::Redirects;
use self::tunnel::Tunnel;

mod redirects;
mod socket;
mod steps;
mod tunnel;

/// The time after which connecting to a Unix socket with a full queue is tried again.
#[cfg(unix)]
const UNIX_RETRY_DELAY: Duration = Duration::from_millis(20);

/// Where to connect to.
pub(super) enum Destination {
    /// The host of the first hop. The resolver is used unless the host is an address.
    Host(Arc<Resolver>),
    /// One of these addresses.
    Addresses(Vec<SocketAddr>),
    /// A Unix socket.
    #[cfg(unix)]
    Unix(PathBuf),
}

/// A connection that has no byte stream yet, or that a redirect may still lead to another server. It becomes a
/// [`StreamSource`](crate::event_loop::StreamSource) in the same slot.
#[expect(
    unnameable_types,
    missing_debug_implementations,
    reason = "`MakeSources` needs it to be `pub`"
)]
pub struct Connecting<F: HandlerFactory> {
    pub(super) driver: Option<Driver<Session<F::Handler>>>,
    pub(super) tls_layer: TlsLayer,
    /// Present if redirects are followed.
    pub(super) redirects: Option<Box<Redirects>>,
    /// The stream, during a handshake that may end in a redirect. Then there is no `driver`.
    pub(super) stream: Option<LayeredStream<F::Handler>>,
    pub(super) first_hop: FirstHop,
    pub(super) options: ConnectOptions,
    pub(super) hooks: Arc<Hooks>,
    pub(super) nodelay: bool,
    pub(super) started: Instant,
    pub(super) step: Step,
    pub(super) marker: PhantomData<fn() -> F>,
}

/// What the socket is connected to: the server, or a proxy.
pub(super) struct FirstHop {
    /// The host; the path of a Unix socket; or the proxy. For errors.
    display_name: String,
    host: String,
    port: u16,
    /// The proxy, and the target behind it.
    proxy_route: Option<Route>,
}

impl FirstHop {
    /// The first hop on the way to `target`. If the application has set a `destination`, no proxy is used. Fails if TLS
    /// with the proxy cannot be used.
    pub(super) fn new(
        target: Target,
        destination: Option<&Destination>,
        config: &ClientConfig,
    ) -> Result<Self, Error> {
        let proxy = config.proxies.shared_proxy_for(&target).filter(|_| destination.is_none());
        if let Some(proxy) = proxy {
            let (display_name, host) = (format!("proxy {proxy}"), proxy.host().to_string());
            let proxy_route = Some(Route::new(proxy.clone(), target)?);
            return Ok(Self { display_name, host, port: proxy.port(), proxy_route });
        }
        let host = lookup_host(&target);
        let display_name = match destination {
            #[cfg(unix)]
            Some(Destination::Unix(path)) => format!("unix:{}", path.display()),
            _ => host.clone(),
        };
        Ok(Self { display_name, host, port: target.port(), proxy_route: None })
    }
}

/// The step that connecting is at.
pub(super) enum Step {
    /// Nothing was done yet, except that the target of a tunnel may have been looked up.
    Begin(Destination),
    /// Waits for the result of a look-up.
    Resolve(Resolution),
    /// Waits until one of several TCP connection attempts succeeds.
    ConnectTcp(TcpAttempts),
    /// Waits until a Unix socket is connected.
    #[cfg(unix)]
    ConnectUnix(UnixAttempt),
    /// Waits for the answers of the proxy.
    Tunnel(Box<Tunnel>),
    /// None: connecting is over, or the step is being taken.
    None,
}

/// A look-up that is under way.
pub(super) struct Resolution {
    started: Instant,
    /// The host, or the proxy, for errors.
    display_name: String,
    /// Whether the host is the target of a tunnel.
    is_target: bool,
    result: Arc<Mutex<Option<LookupResult>>>,
    /// Dropping it cancels the look-up.
    _lookup: Lookup,
    /// Kept, since dropping it cancels the look-up: the client that has it may be dropped.
    resolver: Arc<Resolver>,
}

type LookupResult = io::Result<Vec<SocketAddr>>;

/// TCP connection attempts that are under way (RFC 8305).
pub(super) struct TcpAttempts {
    started: Instant,
    attempts: Attempts,
    sockets: Vec<(SocketAddr, Socket)>,
}

/// A connection attempt to a Unix socket.
#[cfg(unix)]
pub(super) struct UnixAttempt {
    started: Instant,
    path: PathBuf,
    /// The stream, or the error. Absent before the first attempt, and while the listener's queue is full.
    stream: Option<io::Result<Socket>>,
}

/// A byte stream to the server.
struct Connected {
    socket: Socket,
    /// The other end of the socket: the server, or a proxy.
    peer: Peer,
    /// The TLS with an `https` proxy; otherwise it leaves bytes as they are.
    proxy_layer: ProxyLayer,
    /// What the server has sent already.
    received: Vec<u8>,
}

impl Connected {
    /// A byte stream without a proxy.
    fn directly(socket: Socket, peer: Peer) -> Self {
        Self { socket, peer, proxy_layer: ProxyLayer::default(), received: Vec::new() }
    }
}

/// The outcome of one step.
enum StepOutcome {
    /// The next step can be taken at once.
    Advance(Step),
    /// The step waits for an event or a deadline.
    Pending(Step),
    Connected(Connected),
    Failed(ConnectError),
    /// A hook of the application has panicked. The panic is resumed when the step is stored.
    Panicked(Step, Box<dyn Any + Send>),
}

/// The outcome of all steps that can be taken now.
enum Outcome {
    Pending,
    Connected(Connected),
    Failed(ConnectError),
}

impl<K: ServesConnections<F::Handler>, F: HandlerFactory> Source<K> for Connecting<F> {
    fn run(&mut self, turn: &mut Turn<'_, K>) -> Next<K> {
        turn.state.now = now(); // the loop's reading of the clock may be older
        if let Some(next) = self.run_opening_stream(turn) {
            return next;
        }
        self.run_driver(turn);
        let is_open = self.driver.as_ref().is_some_and(|driver| !driver.is_closed());
        if is_open && !matches!(self.step, Step::None) {
            match self.advance(turn) {
                Outcome::Pending => {}
                Outcome::Connected(connected) => return self.become_connection(connected, turn),
                Outcome::Failed(error) => self.fail(error, turn),
            }
        }
        self.next(turn)
    }
}

/// The calls of the driver.
impl<F: HandlerFactory> Connecting<F> {
    /// Serves what needs no stream: commands, calls that the budget has held back, and timers.
    fn run_driver<K: ServesConnections<F::Handler>>(&mut self, turn: &mut Turn<'_, K>) {
        let (events, now) = (turn.state.events, turn.state.now);
        // The handle is older, so commands may wait without an event.
        let is_first = matches!(self.step, Step::Begin(_));
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
    fn fail<K: ServesConnections<F::Handler>>(
        &mut self,
        error: ConnectError,
        turn: &mut Turn<'_, K>,
    ) {
        self.step = Step::None;
        let (kind, now) = (error.kind(), turn.state.now);
        self.with_driver(turn, |driver, transport, buffers| {
            driver.handle_error_with(transport, buffers, kind, Box::new(error), now);
        });
    }

    /// Hands the driver over to the connection.
    fn become_connection<K: ServesConnections<F::Handler>>(
        &mut self,
        connected: Connected,
        turn: &mut Turn<'_, K>,
    ) -> Next<K> {
        let Some(mut driver) = self.driver.take() else { return Next::Done };
        let Connected { socket, peer, proxy_layer, received } = connected;
        driver.protocol.set_peer(peer); // the system forgets it when the stream is reset
        let mut tls_layer = std::mem::take(&mut self.tls_layer);
        driver.keep(&tls_layer.put_behind_proxy(proxy_layer, received));
        // The edges that this turn has seen are not reported again, so they are passed on to the new source.
        turn.state.unconsumed = Events::READABLE | turn.state.events.only(Events::CLOSED);
        if self.redirects.is_some() {
            self.stream = Some(tls_layer.stream(driver, socket));
            return Next::Again;
        }
        Next::Become(tls_layer.source::<K, _>(driver, socket))
    }

    /// The result of a turn that did not connect.
    fn next<K: ServesConnections<F::Handler>>(&self, turn: &mut Turn<'_, K>) -> Next<K> {
        let Some(driver) = self.driver.as_ref().filter(|driver| !driver.is_closed()) else {
            return Next::Done;
        };
        let deadlines = [driver.next_timeout(), self.deadline()];
        turn.state.deadline = deadlines.into_iter().flatten().min();
        // Calls that the budget has held back: of commands, timers, or the failure.
        if driver.wants_resume() { Next::Again } else { Next::Wait }
    }

    /// Calls `f` with the driver, and with a socket that is closed.
    fn with_driver<K: ServesConnections<F::Handler>>(
        &mut self,
        turn: &mut Turn<'_, K>,
        f: impl FnOnce(&mut Driver<Session<F::Handler>>, &mut SocketTransport<'_>, &mut Buffers),
    ) {
        if let Some(driver) = &mut self.driver {
            let (mut socket, mut state) = (Socket::Closed, turn.state);
            let mut transport = SocketTransport::new(&mut socket, &mut state);
            f(driver, &mut transport, &mut turn.buffers.for_driver);
        }
    }
}

/// The steps. `has_expired`: the step's timeout has passed, so it fails if it cannot complete now.
impl<F: HandlerFactory> Connecting<F> {
    /// Takes all steps that can be taken now.
    fn advance<K: ServesConnections<F::Handler>>(&mut self, turn: &mut Turn<'_, K>) -> Outcome {
        loop {
            let has_expired = self.expiry().is_some_and(|expiry| expiry <= turn.state.now);
            let outcome = match std::mem::replace(&mut self.step, Step::None) {
                Step::Begin(destination) => self.begin(destination, turn),
                Step::Resolve(resolution) => {
                    self.finish_look_up(resolution, has_expired, turn.state.now)
                }
                Step::ConnectTcp(attempts) => self.advance_tcp(attempts, has_expired, turn),
                #[cfg(unix)]
                Step::ConnectUnix(attempt) => self.advance_unix(attempt, has_expired, turn),
                Step::Tunnel(tunnel) => self.open_tunnel(tunnel, has_expired, turn),
                Step::None => StepOutcome::Pending(Step::None),
            };
            match outcome {
                StepOutcome::Advance(step) => self.step = step,
                StepOutcome::Pending(step) => {
                    self.step = step;
                    return Outcome::Pending;
                }
                StepOutcome::Connected(connected) => return Outcome::Connected(connected),
                StepOutcome::Failed(error) => return Outcome::Failed(error),
                StepOutcome::Panicked(step, panic) => {
                    self.step = step;
                    resume_unwind(panic);
                }
            }
        }
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

    /// When the timeout of the current step expires.
    fn expiry(&self) -> Option<Instant> {
        let (stage, started) = match &self.step {
            Step::Begin(_) | Step::None => return None,
            Step::Resolve(resolution) => (Stage::Resolve, resolution.started),
            Step::ConnectTcp(tcp) => (Stage::Connect, tcp.started),
            #[cfg(unix)]
            Step::ConnectUnix(unix) => (Stage::Connect, unix.started),
            Step::Tunnel(tunnel) => (Stage::Proxy, tunnel.started),
        };
        self.timeout(stage, started).map(|(expiry, _)| expiry)
    }

    /// The timeout that expires first for a stage that has begun at `started`: its own or the total one.
    /// Returns the time when it expires, and its duration.
    fn timeout(&self, stage: Stage, started: Instant) -> Option<(Instant, Duration)> {
        let own = match stage {
            Stage::Resolve => self.options.resolve_timeout,
            Stage::Connect | Stage::Proxy => self.options.connect_timeout,
        };
        let own = own.map(|timeout| (started + timeout, timeout));
        let total = self.options.total_timeout.map(|timeout| (self.started + timeout, timeout));
        [own, total].into_iter().flatten().min()
    }

    fn timed_out(
        &self,
        host: &str,
        stage: Stage,
        started: Instant,
        attempts: Vec<(String, io::Error)>,
    ) -> StepOutcome {
        let after = self.timeout(stage, started).map_or(Duration::ZERO, |(_, timeout)| timeout);
        StepOutcome::Failed(ConnectError::TimedOut {
            host: host.to_string(),
            stage,
            after,
            attempts,
        })
    }
}
