//! The network of an endpoint: the loop, the listeners, and the hooks.
//!
//! A *hook* is a function of the application that endpoints call with a socket, with an error of accepting, or to look
//! up a host.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use socket2::{SockRef, Socket};

use super::hooks::Hooks;
use super::listener::Listeners;
use super::registry::WakeSources;
use super::resolver::{LookUpFn, Resolver};
use super::{Client, Server};
use crate::endpoint::HandlerFactory;
use crate::event_loop::{Engine, Kind, WorkGuard};
use crate::session::WakeConnections;
use crate::sync::unmodelled::{Mutex, MutexGuard};

/// What an endpoint has for the network: an event loop of this kind, hooks and listeners.
pub(super) struct Net<K: Kind> {
    pub(super) event_loop: K::Loop,
    pub(super) hooks: Arc<SharedHooks>,
    pub(super) listeners: Arc<Listeners>,
    /// Present from `start_perpetual` to `stop_perpetual`: it counts as work of the loop, so that run calls do not end.
    perpetual: Mutex<Option<WorkGuard>>,
}

/// The application's hooks for sockets and look-ups. They may change between two connections.
#[derive(Default)]
pub(super) struct SharedHooks {
    hooks: Mutex<Arc<Hooks>>,
    /// Created for the first connection to the host of a URI, or by `set_look_up`.
    resolver: Mutex<Option<Arc<Resolver>>>,
}

impl SharedHooks {
    /// The hooks at this time.
    pub(super) fn current(&self) -> Arc<Hooks> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change_hooks(&self, change: impl FnOnce(&mut Hooks)) {
        let mut hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut hooks));
    }

    /// The resolver; the operating system's if no other was set.
    pub(super) fn get_or_create_resolver(&self) -> Arc<Resolver> {
        let mut resolver = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
        resolver.get_or_insert_with(|| Arc::new(Resolver::system())).clone()
    }

    fn set_look_up(&self, look_up: Arc<LookUpFn>) {
        let mut resolver = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
        *resolver = Some(Arc::new(Resolver::new(look_up)));
    }
}

impl<K: Kind> Net<K> {
    pub(super) fn new(event_loop: K::Loop) -> Self {
        Self {
            event_loop,
            hooks: Arc::default(),
            listeners: Arc::default(),
            perpetual: Mutex::default(),
        }
    }

    /// For an endpoint that has a loop of its own.
    pub(super) fn with_own_loop() -> io::Result<Self> {
        Ok(Self::new(K::event_loop(Arc::new(Engine::new()?))))
    }

    pub(super) fn engine(&self) -> &Arc<Engine<K>> {
        K::engine(&self.event_loop)
    }

    /// What the registry of the endpoint uses to wake connections in the loop.
    pub(super) fn connection_waker(&self) -> Arc<dyn WakeConnections> {
        Arc::new(WakeSources(self.engine().control().clone()))
    }

    pub(super) fn set_perpetual(&self, perpetual: bool) {
        let control = self.engine().control();
        let mut guard = self.lock_perpetual();
        match perpetual {
            true if guard.is_none() => *guard = Some(WorkGuard::new(control.clone())),
            true => {}
            false => {
                let ended = guard.take();
                drop(guard);
                drop(ended); // it may wake the loop, so not under the lock
            }
        }
    }

    fn lock_perpetual(&self) -> MutexGuard<'_, Option<WorkGuard>> {
        self.perpetual.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The application's hooks for sockets.
impl<F: HandlerFactory, K: Kind> Server<F, K> {
    /// Calls `f` with each TCP socket before the socket is bound to an address to listen on. If `f` returns an error,
    /// listening fails with [`Error::Listen`](super::Error::Listen).
    pub fn on_tcp_pre_bind(
        &mut self,
        f: impl Fn(&Socket) -> io::Result<()> + Send + Sync + 'static,
    ) -> &mut Self {
        self.net.hooks.change_hooks(|hooks| hooks.tcp_pre_bind = Some(Arc::new(f)));
        self
    }

    /// Calls `f` with the socket of each connection, to set options: after the connection was accepted, or in
    /// [`adopt`](Self::adopt) and [`upgrade`](Self::upgrade). If `f` returns an error, the socket is closed; `adopt`
    /// and `upgrade` return [`Error::Adopt`](super::Error::Adopt).
    pub fn on_socket_init(
        &mut self,
        f: impl Fn(&SockRef<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> &mut Self {
        self.net.hooks.change_hooks(|hooks| hooks.socket_init = Some(Arc::new(f)));
        self
    }

    /// Calls `f` when a connection cannot be accepted: the process has no descriptors left, for example. The server
    /// continues to serve its connections, and tries to accept again after a delay.
    pub fn on_accept_error(&mut self, f: impl Fn(&io::Error) + Send + Sync + 'static) -> &mut Self {
        self.net.hooks.change_hooks(|hooks| hooks.accept_error = Some(Arc::new(f)));
        self
    }
}

/// The application's hooks for sockets and look-ups.
impl<F: HandlerFactory, K: Kind> Client<F, K> {
    /// Calls `f` with each socket before it is connected, or when it is [adopted](super::ConnectRequest::adopt), to set
    /// options. If `f` returns an error, the attempt to connect fails, or `adopt` returns
    /// [`Error::Adopt`](super::Error::Adopt).
    pub fn on_socket_init(
        &mut self,
        f: impl Fn(&SockRef<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> &mut Self {
        self.net.hooks.change_hooks(|hooks| hooks.socket_init = Some(Arc::new(f)));
        self
    }

    /// Looks up hosts with `f`, which may block: the client calls it on threads of its own, on several at once. By
    /// default the operating system's resolver is used. Call this before the first connection: earlier connections use
    /// the resolver that was set when they began to connect.
    ///
    /// After a fork, a child process looks up on threads of its own. Look-ups that were under way at the
    /// fork do not end in the child: they fail there after
    /// [`resolve_timeout`](crate::ClientConfig::resolve_timeout).
    pub fn set_look_up(
        &mut self,
        f: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> &mut Self {
        self.net.hooks.set_look_up(Arc::new(f));
        self
    }
}

impl<K: Kind> Drop for Net<K> {
    /// A dropped endpoint closes its listeners. Its connections continue if the loop has another owner.
    fn drop(&mut self) {
        self.listeners.close();
    }
}
