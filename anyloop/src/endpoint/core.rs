//! The core of an endpoint, without its transport.

use std::sync::{Arc, PoisonError};

use anyloop_proto::handshake::{ClientOptions, RequestError, Target};
use anyloop_proto::{Config, Instant};

use super::config::{ClientConfig, ServerConfig};
use crate::session::{EndpointState, HandlerFactory, SendBufferLimits, Session};
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
        let factory = self.factory().clone();
        factory.make()
    }

    /// Sets the factory of connections that are created afterwards.
    pub(super) fn set_factory(&self, factory: F) {
        let replaced = std::mem::replace(&mut *self.factory(), Arc::new(factory));
        drop(replaced); // application code, so not under the lock
    }

    /// Changes the handler factory. Needs exclusive access to the endpoint: two changes at a time would
    /// lose one.
    pub(super) fn change_factory(&self, change: impl FnOnce(&mut F))
    where
        F: Clone,
    {
        let mut factory = F::clone(&*self.factory().clone());
        change(&mut factory);
        self.set_factory(factory);
    }

    /// A panic elsewhere leaves the factory consistent, so poisoning is ignored.
    fn factory(&self) -> MutexGuard<'_, Arc<F>> {
        self.factory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: HandlerFactory> ServerCore<F> {
    pub(super) fn new(mut config: ServerConfig, factory: F) -> Arc<Self> {
        let handshake = Arc::make_mut(&mut config.handshake);
        handshake.connection = handlers_answer_pings(&handshake.connection);
        let state = EndpointState::new(config.send_buffer, config.keep_handshake);
        Self::with_state(config, factory, state)
    }

    /// Creates the server side of a connection whose byte stream began at `now`. The session is not registered yet. If
    /// the server is shutting down, its handshake is abandoned; the caller must check again after registering it.
    pub(crate) fn session(&self, handler: F::Handler, now: Instant) -> Session<F::Handler> {
        let (options, state) = (self.config.handshake.clone(), self.state.clone());
        let mut session = Session::server(handler, options, state, now);
        if self.state.is_shutting_down() {
            session.abandon(now);
        }
        session
    }
}

impl<F: HandlerFactory> ClientCore<F> {
    pub(super) fn new(mut config: ClientConfig, factory: F) -> Arc<Self> {
        let handshake = Arc::make_mut(&mut config.handshake);
        handshake.connection = handlers_answer_pings(&handshake.connection);
        let state = EndpointState::new(config.send_buffer, config.keep_handshake);
        Self::with_state(config, factory, state)
    }

    /// Creates the client side of a connection to `target` whose byte stream began at `now`. The session is not
    /// registered yet. If the client is shutting down, its handshake is abandoned; the caller must check again after
    /// registering it.
    pub(crate) fn session(
        &self,
        handler: F::Handler,
        target: &Target,
        now: Instant,
    ) -> Result<Session<F::Handler>, RequestError> {
        self.client_session(handler, target, self.config.handshake.clone(), None, now)
    }

    /// Like [`session`](Self::session), with another configuration.
    pub(crate) fn session_with(
        &self,
        handler: F::Handler,
        target: &Target,
        config: &ClientConfig,
        now: Instant,
    ) -> Result<Session<F::Handler>, RequestError> {
        self.client_session(handler, target, handler_options(config), Some(config.send_buffer), now)
    }

    fn client_session(
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
}

/// The options of a client's handshake, but handlers decide whether pings are answered.
pub(crate) fn handler_options(config: &ClientConfig) -> Arc<ClientOptions> {
    let mut options = ClientOptions::clone(&config.handshake);
    options.connection = handlers_answer_pings(&options.connection);
    Arc::new(options)
}

/// The same settings, but handlers decide whether pings are answered.
fn handlers_answer_pings(config: &Arc<Config>) -> Arc<Config> {
    let mut config = Config::clone(config);
    config.auto_pong = false;
    Arc::new(config)
}

/// The methods that servers and clients have in common.
macro_rules! endpoint {
    ($endpoint:ident, $core:ident, $config:ident, $name:literal) => {
        impl<B, F: crate::session::HandlerFactory> $endpoint<B, F> {
            /// The connections that are not over, in no particular order.
            #[must_use]
            pub fn connections(&self) -> Vec<super::Handle<F::Handler>> {
                self.core.state.registry.handles()
            }

            /// Sends a message to all open connections. Returns how many connections will get it, if they do not end
            /// first. One whose send buffer is full does not get it and is not counted;
            /// [`Overflow::Close`](super::Overflow::Close) closes it. The message is encoded once and queued once, and
            /// each connection takes it on its own strand. The queue takes no message that would make it
            /// exceed [`max_send_buffer`](super::$config::max_send_buffer) bytes, unless the policy is
            /// `Overflow::Close`.
            pub fn broadcast(&self, message: impl Into<anyloop_proto::Prepared>) -> usize {
                self.handle().broadcast(message)
            }

            /// Like [`broadcast`](Self::broadcast), to connections whose handler `filter` accepts. The filter runs
            /// later, on the strand of each connection, so the result counts connections before filtering.
            pub fn broadcast_where(
                &self,
                message: impl Into<anyloop_proto::Prepared>,
                filter: impl Fn(&F::Handler) -> bool + Send + Sync + 'static,
            ) -> usize {
                self.handle().broadcast_where(message, filter)
            }

            /// Like [`broadcast_where`](Self::broadcast_where), and calls `completion` when every open connection has
            /// dequeued the message (including those that `filter` rejects) or has ended. The message may still wait
            /// for the peer to read. `completion` is called on the thread that serves the last
            /// connection, or within this call if there is none. A publisher paces itself by it.
            ///
            /// ```
            /// use anyloop::iostream::Server;
            /// use anyloop::prelude::*;
            /// use std::sync::mpsc;
            /// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            /// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
            ///
            /// let server = Server::new(ServerConfig::new(OriginPolicy::Any));
            /// let connection = server.connection();
            /// # connection.register_output(std::io::sink());
            /// # connection.read_all(REQUEST)?;
            /// let (taken, is_taken) = mpsc::channel();
            /// assert_eq!(server.broadcast_then("news", |_| true, move || taken.send(()).unwrap()), 1);
            /// assert!(is_taken.try_recv().is_err());
            /// connection.drive()?; // over the network, the loop does this
            /// is_taken.try_recv()?;
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub fn broadcast_then(
                &self,
                message: impl Into<anyloop_proto::Prepared>,
                filter: impl Fn(&F::Handler) -> bool + Send + Sync + 'static,
                completion: impl FnOnce() + Send + 'static,
            ) -> usize {
                self.handle().broadcast_then(message, filter, completion)
            }

            /// Begins to close all connections. Returns how many. A handshake that is under way fails with
            /// [`Abandoned`](anyloop_proto::HandshakeError::Abandoned); a server answers 503 if any part of
            /// the request has arrived. But if messages wait until a client's connection is open, its handshake goes
            /// on, and the Close follows them.
            ///
            /// # Errors
            ///
            /// [`SendError::Refused`](super::SendError::Refused) for a reason of more than 123 bytes, or one without a
            /// code.
            pub fn close_all(
                &self,
                code: impl Into<Option<anyloop_proto::CloseCode>>,
                reason: &str,
            ) -> Result<usize, super::SendError> {
                self.handle().close_all(code, reason)
            }

            /// A handle of the endpoint, for handlers and other threads. It does not keep the endpoint alive.
            #[must_use]
            pub fn handle(&self) -> super::EndpointHandle<F::Handler> {
                super::EndpointHandle::new(&self.core.state)
            }

            /// Begins to shut down gracefully: listeners are closed, open connections are closed with 1001, and
            /// handshakes fail, on a server with 503. Handshakes of connections that are created later fail when they
            /// are [started](crate::transport::Driver::start). The shutdown is complete when
            /// [`connections`](Self::connections) is empty. If the transports are driven meanwhile, this takes no
            /// longer than the [`close_timeout`](super::$config::close_timeout). It is final: over the network the
            /// endpoint does not listen, accept or connect any more (`net::Error::ShutDown`).
            pub fn shut_down(&self) {
                self.core.state.shut_down();
            }

            /// Like [`shut_down`](Self::shut_down). Connections that are not over after `time` are
            /// [terminated](super::Handle::terminate). Each connection has its own timer for this, which does not keep
            /// run calls alive.
            pub fn shut_down_within(&self, time: std::time::Duration) {
                self.handle().shut_down_within(time);
            }

            /// Whether [`shut_down`](Self::shut_down) was called.
            #[must_use]
            pub fn is_shutting_down(&self) -> bool {
                self.core.state.is_shutting_down()
            }

            /// The counters of the endpoint.
            #[must_use]
            pub fn counters(&self) -> super::Counters {
                self.core.state.counters.snapshot()
            }

            /// The configuration.
            pub fn config(&self) -> &super::config::$config {
                &self.core.config
            }

            /// Sets the factory of the handlers of connections that are created afterwards.
            pub fn set_factory(&mut self, factory: F) {
                self.core.set_factory(factory);
            }

            /// The endpoint without its transport, which creates sessions.
            pub(crate) const fn core(&self) -> &std::sync::Arc<super::core::$core<F>> {
                &self.core
            }
        }

        impl<B, F: crate::session::HandlerFactory> std::fmt::Debug for $endpoint<B, F> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct($name).field("config", &self.core.config).finish_non_exhaustive()
            }
        }
    };
}
pub(super) use endpoint;
