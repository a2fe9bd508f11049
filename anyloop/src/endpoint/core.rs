//! What an endpoint shares with its sessions, and with whatever makes them for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use anyloop_proto::handshake::{ClientOptions, RequestError, Target};
use anyloop_proto::{CloseCode, Config, Instant};

use super::settings::{ClientSettings, ServerSettings};
use crate::session::{EndpointState, HandlerFactory, Session};
use crate::sync::unmodelled::{Mutex, MutexGuard};

/// An endpoint without its transport: all that it takes to make a session, from any thread.
pub(crate) struct Core<S, F: HandlerFactory> {
    pub(super) settings: S,
    factory: Mutex<Arc<F>>,
    pub(crate) state: Arc<EndpointState<F::Handler>>,
    /// Of a server.
    shutting_down: AtomicBool,
}

pub(crate) type ServerCore<F> = Core<ServerSettings, F>;
pub(crate) type ClientCore<F> = Core<ClientSettings, F>;

impl<S, F: HandlerFactory> Core<S, F> {
    fn with_state(settings: S, factory: F, state: Arc<EndpointState<F::Handler>>) -> Arc<Self> {
        let (factory, shutting_down) = (Mutex::new(Arc::new(factory)), AtomicBool::new(false));
        Arc::new(Self { settings, factory, state, shutting_down })
    }

    /// A handler for a connection that is about to be. The factory is program code, so it is not asked
    /// under the lock.
    pub(crate) fn make_handler(&self) -> F::Handler {
        let factory = self.factory().clone();
        factory.make()
    }

    /// For connections made afterwards.
    pub(super) fn set_factory(&self, factory: F) {
        let replaced = std::mem::replace(&mut *self.factory(), Arc::new(factory));
        drop(replaced); // program code, so not under the lock
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

    /// A panic elsewhere leaves it as it was.
    fn factory(&self) -> MutexGuard<'_, Arc<F>> {
        self.factory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: HandlerFactory> ServerCore<F> {
    pub(super) fn new(mut settings: ServerSettings, factory: F) -> Arc<Self> {
        let handshake = Arc::make_mut(&mut settings.handshake);
        handshake.connection = handlers_answer_pings(&handshake.connection);
        let state = EndpointState::new(settings.backlog, settings.keep_handshake);
        Self::with_state(settings, factory, state)
    }

    /// The server's end of a byte stream that begins at `now`. It is not in the registry yet. While the
    /// server shuts down it is given up; the caller asks again when it has entered it.
    pub(crate) fn session(&self, handler: F::Handler, now: Instant) -> Session<F::Handler> {
        let (options, state) = (self.settings.handshake.clone(), self.state.clone());
        let mut session = Session::server(handler, options, state, now);
        if self.is_shutting_down() {
            session.give_up(now);
        }
        session
    }

    pub(super) fn shut_down(&self) {
        self.shutting_down.store(true, Ordering::Release);
        self.state.registry.close_all(CloseCode::GOING_AWAY, "the server shuts down");
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Acquire)
    }
}

impl<F: HandlerFactory> ClientCore<F> {
    pub(super) fn new(mut settings: ClientSettings, factory: F) -> Arc<Self> {
        let handshake = Arc::make_mut(&mut settings.handshake);
        handshake.connection = handlers_answer_pings(&handshake.connection);
        let state = EndpointState::new(settings.backlog, settings.keep_handshake);
        Self::with_state(settings, factory, state)
    }

    /// The client's end of a byte stream to `target` that begins at `now`. It is not in the registry yet.
    pub(crate) fn session(
        &self,
        handler: F::Handler,
        target: &Target,
        now: Instant,
    ) -> Result<Session<F::Handler>, RequestError> {
        let (options, state) = (self.settings.handshake.clone(), self.state.clone());
        Session::client(handler, target, options, state, now)
    }

    /// The same with options of its own.
    pub(crate) fn session_with(
        &self,
        handler: F::Handler,
        target: &Target,
        mut options: ClientOptions,
        now: Instant,
    ) -> Result<Session<F::Handler>, RequestError> {
        options.connection = handlers_answer_pings(&options.connection);
        let state = self.state.clone();
        Session::client(handler, target, Arc::new(options), state, now)
    }
}

/// The same settings, with pings left to the handler.
fn handlers_answer_pings(config: &Arc<Config>) -> Arc<Config> {
    let mut config = Config::clone(config);
    config.auto_pong = false;
    Arc::new(config)
}

/// What servers and clients have in common: an endpoint over a transport, beside its core.
macro_rules! endpoint {
    ($endpoint:ident, $core:ident, $settings:ident, $name:literal) => {
        impl<T: super::TransportEndpoint, F: crate::session::HandlerFactory> $endpoint<T, F> {
            /// The connections that are not over, in no particular order.
            #[must_use]
            pub fn connections(&self) -> Vec<super::Handle<F::Handler>> {
                self.core.state.registry.handles()
            }

            /// Sends a message to all open connections, encoded once. Returns how many these are, without
            /// those whose backlog is full. It is queued once; each connection takes it on its own
            /// strand. A queue of more than [`BacklogLimits::cap`](super::BacklogLimits::cap) bytes takes no
            /// further message, unless the policy is [`Overflow::Close`](super::Overflow::Close).
            pub fn broadcast(&self, message: &anyloop_proto::Prepared) -> usize {
                self.core.state.registry.broadcast(message, None)
            }

            /// The same, to those connections whose handler `filter` accepts. It is asked when the message is
            /// sent, on the strand of each connection; the number that is returned is as without it.
            pub fn broadcast_where(
                &self,
                message: &anyloop_proto::Prepared,
                filter: impl Fn(&F::Handler) -> bool + Send + Sync + 'static,
            ) -> usize {
                self.core.state.registry.broadcast(message, Some(std::sync::Arc::new(filter)))
            }

            /// Begins to close all connections, or gives up their handshakes. Returns how many.
            pub fn close_all(&self, code: anyloop_proto::CloseCode, reason: &str) -> usize {
                self.core.state.registry.close_all(code, reason)
            }

            /// What has become of the connections so far.
            #[must_use]
            pub fn counters(&self) -> super::Counters {
                self.core.state.counters.snapshot()
            }

            /// The settings.
            #[must_use]
            pub fn settings(&self) -> &super::settings::$settings {
                &self.core.settings
            }

            /// What the transport keeps for all connections of this endpoint.
            #[must_use]
            pub const fn transport(&self) -> &T {
                &self.transport
            }

            /// The same, to change.
            #[must_use]
            pub const fn transport_mut(&mut self) -> &mut T {
                &mut self.transport
            }

            /// Sets what makes the handlers of connections that are made afterwards.
            pub fn set_factory(&mut self, factory: F) {
                self.core.set_factory(factory);
            }

            /// All but the transport, for others to make sessions.
            pub(crate) const fn core(&self) -> &std::sync::Arc<super::core::$core<F>> {
                &self.core
            }
        }

        impl<T: super::TransportEndpoint, F: crate::session::HandlerFactory> std::fmt::Debug
            for $endpoint<T, F>
        {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct($name).field("settings", &self.core.settings).finish_non_exhaustive()
            }
        }
    };
}
pub(super) use endpoint;
