//! What an endpoint has beside its handlers: its loop, its sockets, and how they are made.

use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError};

use socket2::{SockRef, Socket};

use super::error::Error;
use super::listener::Listeners;
use super::options::{ConnectOptions, Hooks, ListenOptions};
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
