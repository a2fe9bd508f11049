//! The core of an endpoint, without its transport.

use std::sync::{Arc, PoisonError};
use std::task::Waker;

use anyloop_proto::handshake::{ClientOptions, RequestError, Target};
use anyloop_proto::{Config, Instant};

use super::config::{ClientConfig, ServerConfig};
use crate::session::{EndpointState, HandlerFactory, SendBufferLimits, Session};
use crate::stream::Driver;
use crate::sync::unmodelled::{Mutex, MutexGuard}; // std's, also under loom

/// An endpoint without its transport. Any thread can create sessions with it.
pub(crate) struct Core<C, F: HandlerFactory> {
    pub(crate) config: C,
    factory: Mutex<Arc<F>>,
    pub(crate) state: Arc<EndpointState>,
}

pub(crate) type ServerCore<F> = Core<ServerConfig, F>;
pub(crate) type ClientCore<F> = Core<ClientConfig, F>;

impl<C, F: HandlerFactory> Core<C, F> {
    fn with_state(config: C, factory: F, state: Arc<EndpointState>) -> Arc<Self> {
        Arc::new(Self { config, factory: Mutex::new(Arc::new(factory)), state })
    }

    /// Creates the handler of a new connection. The factory is application code, so it is not called under the lock.
    pub(crate) fn make_handler(&self) -> F::Handler {
        let factory = self.lock_factory().clone();
        factory.make()
    }

    /// Sets the factory of connections that are created afterwards.
    pub(crate) fn set_factory(&self, factory: F) {
        let replaced = std::mem::replace(&mut *self.lock_factory(), Arc::new(factory));
        drop(replaced); // its destructor is application code, so not under the lock
    }

    /// Changes the handler factory. The caller must have exclusive access to the endpoint: of two concurrent changes
    /// one would be lost.
    pub(crate) fn change_factory(&self, change: impl FnOnce(&mut F))
    where
        F: Clone,
    {
        let current = self.lock_factory().clone();
        let mut factory = F::clone(&current); // application code, so not under the lock
        change(&mut factory);
        self.set_factory(factory);
    }

    /// Locks the factory. It is consistent after a panic, so poisoning is ignored.
    fn lock_factory(&self) -> MutexGuard<'_, Arc<F>> {
        self.factory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a session, and returns its driver.
    fn register(
        &self,
        mut session: Session<F::Handler>,
        waker: &Waker,
        now: Instant,
    ) -> Driver<Session<F::Handler>> {
        session.register_with_waker(waker);
        if self.state.is_shutting_down() {
            session.abandon(now); // the shutdown may have begun after the session was made
        }
        Driver::new(session)
    }
}

impl<F: HandlerFactory> ServerCore<F> {
    pub(crate) fn new(mut config: ServerConfig, factory: F) -> Arc<Self> {
        let handshake = Arc::make_mut(&mut config.handshake);
        handshake.connection = without_auto_pong(&handshake.connection);
        let state = EndpointState::new(config.send_buffer, config.keep_handshake);
        Self::with_state(config, factory, state)
    }

    /// Creates the server side of a connection whose byte stream began at `now`. The session is not registered yet.
    /// If the server is shutting down, the handshake of the session is abandoned. Check for a shutdown again after
    /// registering the session.
    pub(crate) fn new_session(&self, handler: F::Handler, now: Instant) -> Session<F::Handler> {
        let (options, state) = (self.config.handshake.clone(), self.state.clone());
        let mut session = Session::server(handler, options, state, now);
        if self.state.is_shutting_down() {
            session.abandon(now);
        }
        session
    }

    /// A driver of a connection with this handler.
    pub(crate) fn driver(
        &self,
        handler: F::Handler,
        waker: &Waker,
        now: Instant,
    ) -> Driver<Session<F::Handler>> {
        self.register(self.new_session(handler, now), waker, now)
    }
}

impl<F: HandlerFactory> ClientCore<F> {
    pub(crate) fn new(mut config: ClientConfig, factory: F) -> Arc<Self> {
        let handshake = Arc::make_mut(&mut config.handshake);
        handshake.connection = without_auto_pong(&handshake.connection);
        let state = EndpointState::new(config.send_buffer, config.keep_handshake);
        Self::with_state(config, factory, state)
    }

    /// Creates the client side of a connection to `target` whose byte stream began at `now`. The session is not
    /// registered yet. If the client is shutting down, the handshake of the session is abandoned. Check for a shutdown
    /// again after registering the session.
    pub(crate) fn new_session(
        &self,
        handler: F::Handler,
        target: &Target,
        now: Instant,
    ) -> Result<Session<F::Handler>, RequestError> {
        self.config.check()?;
        let limits = None; // those of the client
        self.new_session_with(handler, target, self.config.handshake.clone(), limits, now)
    }

    /// Like [`new_session`](Self::new_session), with another configuration.
    pub(crate) fn new_session_configured(
        &self,
        handler: F::Handler,
        target: &Target,
        config: &ClientConfig,
        now: Instant,
    ) -> Result<Session<F::Handler>, RequestError> {
        config.check()?;
        let (options, limits) = (options_without_auto_pong(config), Some(config.send_buffer));
        self.new_session_with(handler, target, options, limits, now)
    }

    fn new_session_with(
        &self,
        handler: F::Handler,
        target: &Target,
        options: Arc<ClientOptions>,
        limits: Option<SendBufferLimits>,
        now: Instant,
    ) -> Result<Session<F::Handler>, RequestError> {
        let state = self.state.clone();
        let mut session = Session::client(handler, target, options, limits, state, now)?;
        if self.state.is_shutting_down() {
            session.abandon(now);
        }
        Ok(session)
    }

    /// A driver of a connection with this handler.
    pub(crate) fn driver(
        &self,
        handler: F::Handler,
        target: &Target,
        waker: &Waker,
        now: Instant,
    ) -> Result<Driver<Session<F::Handler>>, RequestError> {
        Ok(self.register(self.new_session(handler, target, now)?, waker, now))
    }

    /// As [`driver`](Self::driver), with a handler of the factory, and with another configuration for this connection:
    /// `change` gets the client's configuration.
    pub(crate) fn driver_configured(
        &self,
        change: impl FnOnce(ClientConfig) -> ClientConfig,
        target: &Target,
        waker: &Waker,
        now: Instant,
    ) -> Result<Driver<Session<F::Handler>>, RequestError> {
        let config = change(self.config.clone());
        let session = self.new_session_configured(self.make_handler(), target, &config, now)?;
        Ok(self.register(session, waker, now))
    }
}

/// The client's handshake options without automatic pongs: handlers decide whether pings are answered.
pub(crate) fn options_without_auto_pong(config: &ClientConfig) -> Arc<ClientOptions> {
    let mut options = ClientOptions::clone(&config.handshake);
    options.connection = without_auto_pong(&options.connection);
    Arc::new(options)
}

/// The same settings without automatic pongs: handlers decide whether pings are answered.
fn without_auto_pong(config: &Arc<Config>) -> Arc<Config> {
    let mut config = Config::clone(config);
    config.auto_pong = false;
    Arc::new(config)
}
