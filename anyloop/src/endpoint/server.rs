//! The server's endpoint.

use std::sync::Arc;
use std::task::Waker;

use anyloop_proto::Instant;

use super::config::ServerConfig;
use super::core::{ServerCore, endpoint};
use crate::session::{HandlerFactory, Handlers, Session};
use crate::stream::Driver;

/// A server: it creates connections, each with a handler from `F`.
///
/// `B` is what carries the bytes: `net::Net`, [`IoStream`](crate::iostream::IoStream), or `()` if the
/// application drives a [`Transport`](crate::transport::Transport) itself.
///
/// ```
/// use anyloop::transport::Server;
/// use anyloop::prelude::*;
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
/// let config = ServerConfig::new(OriginPolicy::Any);
/// let server: Server<_> = Server::with_factory(config, || Counter(0));
/// ```
pub struct Server<B, F: HandlerFactory = Handlers> {
    core: Arc<ServerCore<F>>,
    pub(crate) backend: B,
}

endpoint!(Server, ServerCore, ServerConfig, "Server");

impl<B: Default> Server<B> {
    /// A server whose handlers are closures, which are set afterwards.
    #[must_use]
    pub fn new(config: ServerConfig) -> Self {
        Self::with_factory(config, Handlers::new())
    }
}

impl<B: Default, F: HandlerFactory> Server<B, F> {
    /// A server whose connections get their handlers from `factory`.
    #[must_use]
    pub fn with_factory(config: ServerConfig, factory: F) -> Self {
        Self::with_backend(B::default(), config, factory)
    }
}

impl<B, F: HandlerFactory> Server<B, F> {
    /// A server over this backend. Its connections get their handlers from `factory`.
    pub(crate) fn with_backend(backend: B, config: ServerConfig, factory: F) -> Self {
        Self { core: ServerCore::new(config, factory), backend }
    }

    /// Creates the server side of a connection whose byte stream began at `now`. The [`Driver`] is the state machine of
    /// one connection, which the caller drives. `waker` is woken, from any thread, when a [handle](super::Handle)
    /// queues a command; then call [`Driver::handle_wake`]. If the server is shutting down, the handshake fails when
    /// the driver is [started](Driver::start).
    ///
    /// The example of [`Transport`](crate::transport::Transport) drives one.
    #[must_use]
    pub fn driver(&self, waker: &Waker, now: Instant) -> Driver<Session<F::Handler>> {
        self.driver_with(self.core.make_handler(), waker, now)
    }

    /// Like [`driver`](Self::driver), with this handler.
    #[must_use]
    pub fn driver_with(
        &self,
        handler: F::Handler,
        waker: &Waker,
        now: Instant,
    ) -> Driver<Session<F::Handler>> {
        let mut session = self.core.session(handler, now);
        session.register_with_waker(waker);
        if self.core.state.is_shutting_down() {
            session.abandon(now); // the shutdown may have begun after the session was made
        }
        Driver::new(session)
    }
}
