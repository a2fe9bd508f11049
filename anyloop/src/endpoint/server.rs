//! The server's endpoint.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use anyloop_proto::{CloseCode, Config, Instant, Prepared};

use super::handle::Handle;
use super::handler::Factory;
use super::handlers::Handlers;
use super::registry::Registry;
use super::session::Session;
use super::settings::{Common, ServerSettings};
use crate::transport::Transport;

/// Makes the server's ends of connections over a transport `T`, each with a handler from `F`.
///
/// ```
/// use anyloop::proto::handshake::{OriginPolicy, ServerOptions};
/// use anyloop::transport::stub::Stub;
/// use anyloop::{Handler, Server};
///
/// struct Counter(u64);
///
/// impl Handler for Counter {
///     fn message(
///         &mut self,
///         _: anyloop::proto::Message<'_>,
///         context: &mut anyloop::endpoint::Context<'_, Self>,
///     ) {
///         self.0 += 1;
///         let _ = context.send(format!("message {}", self.0).as_str());
///     }
/// }
///
/// let options = ServerOptions::new(OriginPolicy::Any);
/// let server: Server<Stub, _> = Server::with_factory(options, || Counter(0));
/// ```
pub struct Server<T: Transport, F: Factory = Handlers> {
    settings: ServerSettings,
    common: Arc<Common>,
    factory: F,
    registry: Registry<F::Handler>,
    shutting_down: AtomicBool,
    transport: T::Endpoint,
}

impl<T: Transport> Server<T> {
    /// A server whose handlers are closures, to be set.
    #[must_use]
    pub fn new(settings: impl Into<ServerSettings>) -> Self {
        Self::with_factory(settings, Handlers::new())
    }
}

impl<T: Transport, F: Factory> Server<T, F> {
    /// A server whose connections get their handlers from `factory`.
    ///
    /// Pings are answered as [`Handler::ping`](super::Handler::ping) says, whatever
    /// [`auto_pong`](Config::auto_pong) says.
    #[must_use]
    pub fn with_factory(settings: impl Into<ServerSettings>, factory: F) -> Self {
        let mut settings = settings.into();
        let handshake = Arc::make_mut(&mut settings.handshake);
        handshake.connection = handlers_answer_pings(&handshake.connection);
        let common = Common { limits: settings.backlog, keep_handshake: settings.keep_handshake };
        let (common, registry) = (Arc::new(common), Registry::default());
        let (shutting_down, transport) = (AtomicBool::new(false), T::Endpoint::default());
        Self { settings, common, factory, registry, shutting_down, transport }
    }

    /// The server's end of a byte stream that begins at `now`, for a transport to drive. `waker` is
    /// the transport's own.
    #[must_use]
    pub fn session(&self, waker: &Waker, now: Instant) -> Session<F::Handler> {
        self.session_with(self.factory.make(), waker, now)
    }

    /// The same with a handler of its own.
    #[must_use]
    pub fn session_with(
        &self,
        handler: F::Handler,
        waker: &Waker,
        now: Instant,
    ) -> Session<F::Handler> {
        let (handshake, common) = (self.settings.handshake.clone(), self.common.clone());
        let mut session = Session::server(handler, handshake, common, now);
        self.registry.enter(&session.handle(waker));
        if self.is_shutting_down() {
            session.give_up(now);
        }
        session
    }

    /// Begins to shut down gracefully: open connections are closed with 1001, handshakes are given up,
    /// and so are those of connections that are made from now on (which are over when they are
    /// [started](Session::start), an iostream's when it is made). It is done when
    /// [`connections`](Self::connections) is empty, which takes no longer than the
    /// [`close_timeout`](Config::close_timeout) where the transports are driven meanwhile.
    pub fn shut_down(&self) {
        self.shutting_down.store(true, Ordering::Release);
        self.close_all(CloseCode::GOING_AWAY, "the server shuts down");
    }

    /// Whether [`shut_down`](Self::shut_down) was called.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Acquire)
    }

    /// The connections that are not over.
    #[must_use]
    pub fn connections(&self) -> Vec<Handle<F::Handler>> {
        self.registry.handles()
    }

    /// Sends a message to all open connections, encoded once. Returns to how many: not to those whose
    /// backlog is full.
    pub fn broadcast(&self, message: &Prepared) -> usize {
        self.registry.broadcast(message)
    }

    /// Begins to close all connections, or gives up their handshakes. Returns how many.
    pub fn close_all(&self, code: CloseCode, reason: &str) -> usize {
        self.registry.close_all(code, reason)
    }

    /// The settings.
    #[must_use]
    pub const fn settings(&self) -> &ServerSettings {
        &self.settings
    }

    /// What the transport keeps for all connections of this endpoint.
    #[must_use]
    pub const fn transport(&self) -> &T::Endpoint {
        &self.transport
    }

    /// The same, to change.
    #[must_use]
    pub const fn transport_mut(&mut self) -> &mut T::Endpoint {
        &mut self.transport
    }

    /// What makes the handlers.
    #[must_use]
    pub const fn factory(&self) -> &F {
        &self.factory
    }

    /// The same, to change: for connections made afterwards.
    #[must_use]
    pub const fn factory_mut(&mut self) -> &mut F {
        &mut self.factory
    }
}

impl<T: Transport, F: Factory> fmt::Debug for Server<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The same settings, with pings left to the handler.
pub(super) fn handlers_answer_pings(config: &Arc<Config>) -> Arc<Config> {
    let mut config = Config::clone(config);
    config.auto_pong = false;
    Arc::new(config)
}
