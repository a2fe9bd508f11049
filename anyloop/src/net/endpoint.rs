//! What an endpoint has beside its handlers: its loop, its sockets, and how they are made.

use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use socket2::{SockRef, Socket};

use super::error::Error;
use super::eyeballs;
use super::listener::Listeners;
use super::resolver::{LookUpFn, Resolver};
use crate::endpoint::TransportEndpoint;
use crate::event_loop::{Engine, KeepAlive, Kind, Running};
use crate::sync::unmodelled::{Mutex, MutexGuard, OnceLock};

/// What an endpoint on [`Net`](super::Net) has beside its handlers: how its sockets are made.
///
/// ```
/// use anyloop::Server;
/// use anyloop::net::Net;
/// # use anyloop::proto::handshake::{OriginPolicy, ServerOptions};
///
/// let mut server = Server::<Net>::new(ServerOptions::new(OriginPolicy::Any));
/// let net = server.transport_mut();
/// net.listen.reuse_port = true;
/// net.on_accept_error(|error| eprintln!("cannot accept: {error}"));
/// server.listen("127.0.0.1:0")?;
/// # Ok::<(), anyloop::net::Error>(())
/// ```
pub struct Endpoint<K: Kind> {
    /// How listeners are made.
    pub listen: ListenOptions,
    /// How connections are made.
    pub connect: ConnectOptions,
    /// Sends small messages at once (`TCP_NODELAY`) instead of waiting for more. By default true.
    pub nodelay: bool,
    pub(super) hooks: Arc<Hooks>,
    pub(super) listeners: Listeners,
    event_loop: OnceLock<K::Loop>,
    perpetual: Mutex<Option<KeepAlive>>,
    resolver: OnceLock<Arc<Resolver>>,
    look_up: Option<Arc<LookUpFn>>,
}

/// How listeners are made.
///
/// The example of [`Endpoint`] sets one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenOptions {
    /// So many connections may wait to be accepted; the operating system has a limit of its own. By
    /// default 4096.
    pub backlog: u32,
    /// Takes an address of which a former process still has connections (`SO_REUSEADDR`). By default
    /// true, but for Windows, where it means something else.
    pub reuse_address: bool,
    /// Takes an address together with other sockets that also have this set, among which the operating
    /// system distributes connections (`SO_REUSEPORT`; Unix). By default false.
    pub reuse_port: bool,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { backlog: 4096, reuse_address: cfg!(unix), reuse_port: false }
    }
}

/// How connections are made: the time that each stage may take. The opening handshake has a time of its
/// own, in [`ClientOptions`](anyloop_proto::handshake::ClientOptions).
///
/// ```
/// use anyloop::Client;
/// use anyloop::endpoint::ClientSettings;
/// use anyloop::net::Net;
/// use std::time::Duration;
///
/// let mut client = Client::<Net>::new(ClientSettings::default());
/// client.transport_mut().connect.connect_timeout = Some(Duration::from_secs(3));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// For looking up the host. By default 10 s; `None`: as long as the resolver takes.
    pub resolve_timeout: Option<Duration>,
    /// For connecting to one of its addresses. By default 10 s; `None`: as long as the operating system
    /// takes.
    pub connect_timeout: Option<Duration>,
    /// For everything, up to the open connection. By default there is none but those of the stages.
    pub total_timeout: Option<Duration>,
    /// After this time another address is tried beside those that have not answered (RFC 8305 §5). By
    /// default 250 ms.
    pub attempt_delay: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            resolve_timeout: Some(Duration::from_secs(10)),
            connect_timeout: Some(Duration::from_secs(10)),
            total_timeout: None,
            attempt_delay: eyeballs::ATTEMPT_DELAY,
        }
    }
}

type PreBind = dyn Fn(&Socket) -> io::Result<()> + Send + Sync;
type OnSocket = dyn Fn(&SockRef<'_>) -> io::Result<()> + Send + Sync;
type OnError = dyn Fn(&io::Error) + Send + Sync;

/// What the program does with sockets.
#[derive(Clone, Default)]
pub(super) struct Hooks {
    pub(super) tcp_pre_bind: Option<Arc<PreBind>>,
    pub(super) socket_init: Option<Arc<OnSocket>>,
    pub(super) accept_error: Option<Arc<OnError>>,
}

impl Hooks {
    /// Sets the program's options of a connection's socket.
    pub(super) fn set_up(&self, socket: &SockRef<'_>) -> io::Result<()> {
        self.socket_init.as_ref().map_or(Ok(()), |hook| hook(socket))
    }
}

impl<K: Kind> Endpoint<K> {
    /// Calls `f` with each socket before it is bound to an address to listen on. If it fails, so does
    /// listening.
    pub fn on_tcp_pre_bind(
        &mut self,
        f: impl Fn(&Socket) -> io::Result<()> + Send + Sync + 'static,
    ) -> &mut Self {
        Arc::make_mut(&mut self.hooks).tcp_pre_bind = Some(Arc::new(f));
        self
    }

    /// Calls `f` with the socket of each connection, when it was accepted, or before it is connected,
    /// to set options. If it fails, there will be no connection.
    pub fn on_socket_init(
        &mut self,
        f: impl Fn(&SockRef<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> &mut Self {
        Arc::make_mut(&mut self.hooks).socket_init = Some(Arc::new(f));
        self
    }

    /// Calls `f` when a connection cannot be accepted: there are no descriptors left, for example. The
    /// server goes on with the connections that it has, and tries again after a while.
    pub fn on_accept_error(&mut self, f: impl Fn(&io::Error) + Send + Sync + 'static) -> &mut Self {
        Arc::make_mut(&mut self.hooks).accept_error = Some(Arc::new(f));
        self
    }

    /// Looks up hosts with `f`, which may block: it is called on the client's own threads, on several at
    /// once. By default the operating system is asked. Call it before the first connection.
    ///
    /// After a fork, a child process looks up on threads of its own. Look-ups that were under way at the
    /// fork do not end in the child: they fail there after
    /// [`resolve_timeout`](ConnectOptions::resolve_timeout).
    pub fn set_look_up(
        &mut self,
        f: impl Fn(&str, u16) -> io::Result<Vec<std::net::SocketAddr>> + Send + Sync + 'static,
    ) -> &mut Self {
        self.look_up = Some(Arc::new(f));
        self.resolver = OnceLock::new();
        self
    }

    pub(super) fn resolver(&self) -> Arc<Resolver> {
        let make = || match &self.look_up {
            Some(look_up) => Resolver::new(look_up.clone()),
            None => Resolver::system(),
        };
        self.resolver.get_or_init(|| Arc::new(make())).clone()
    }

    /// The loop, which is made now if there is none.
    pub(super) fn event_loop(&self) -> Result<&K::Loop, Error> {
        if let Some(event_loop) = self.event_loop.get() {
            return Ok(event_loop);
        }
        let engine = Engine::new().map_err(Error::EventLoop)?;
        // Where two threads have made one, the first has it.
        Ok(self.event_loop.get_or_init(|| K::event_loop(Arc::new(engine))))
    }

    pub(super) fn share(&self, event_loop: &K::Loop) -> Result<(), Error> {
        self.event_loop.set(event_loop.clone()).map_err(|_| Error::HasEventLoop)
    }

    pub(super) fn engine(&self) -> Result<&Arc<Engine<K>>, Error> {
        Ok(K::engine(self.event_loop()?))
    }

    pub(super) fn set_perpetual(&self, perpetual: bool) -> Result<(), Error> {
        let remote = self.engine()?.remote();
        let mut guard = self.perpetual();
        match perpetual {
            true if guard.is_none() => *guard = Some(KeepAlive::new(remote.clone())),
            true => {}
            false => {
                let ended = guard.take();
                drop(guard);
                drop(ended);
            }
        }
        Ok(())
    }

    pub(super) fn reset(&self) -> Result<(), Error> {
        if self.engine()?.reset() { Ok(()) } else { Err(Running.into()) }
    }

    fn perpetual(&self) -> MutexGuard<'_, Option<KeepAlive>> {
        self.perpetual.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Kind> TransportEndpoint for Endpoint<K> {
    fn stop_listening(&self) {
        self.listeners.close();
    }
}

impl<K: Kind> Default for Endpoint<K> {
    fn default() -> Self {
        Self {
            listen: ListenOptions::default(),
            connect: ConnectOptions::default(),
            nodelay: true,
            hooks: Arc::default(),
            listeners: Listeners::default(),
            event_loop: OnceLock::new(),
            perpetual: Mutex::default(),
            resolver: OnceLock::new(),
            look_up: None,
        }
    }
}

impl<K: Kind> Drop for Endpoint<K> {
    /// An endpoint that is gone accepts nothing. Its connections go on, if another has the loop.
    fn drop(&mut self) {
        self.listeners.close();
    }
}

impl<K: Kind> fmt::Debug for Endpoint<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("listen", &self.listen)
            .field("connect", &self.connect)
            .field("nodelay", &self.nodelay)
            .finish_non_exhaustive()
    }
}
