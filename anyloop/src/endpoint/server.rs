//! The server's endpoint.

use std::sync::Arc;
use std::task::Waker;

use anyloop_proto::Instant;

use super::core::{ServerCore, endpoint};
use super::handler::Factory;
use super::handlers::Handlers;
use super::session::Session;
use super::settings::ServerSettings;
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
    core: Arc<ServerCore<F>>,
    transport: T::Endpoint,
}

endpoint!(Server, ServerCore, ServerSettings, "Server");

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
    /// [`auto_pong`](anyloop_proto::Config::auto_pong) says.
    #[must_use]
    pub fn with_factory(settings: impl Into<ServerSettings>, factory: F) -> Self {
        let core = ServerCore::new(settings.into(), factory);
        Self { core, transport: T::Endpoint::default() }
    }

    /// The server's end of a byte stream that begins at `now`, for a transport to drive. `waker` is
    /// the transport's own.
    #[must_use]
    pub fn session(&self, waker: &Waker, now: Instant) -> Session<F::Handler> {
        self.session_with(self.core.make_handler(), waker, now)
    }

    /// The same with a handler of its own.
    #[must_use]
    pub fn session_with(
        &self,
        handler: F::Handler,
        waker: &Waker,
        now: Instant,
    ) -> Session<F::Handler> {
        let mut session = self.core.session(handler, now);
        self.core.common.registry.enter(&session.handle(waker));
        if self.is_shutting_down() {
            session.give_up(now); // since it was made, perhaps
        }
        session
    }

    /// Begins to shut down gracefully: listeners are closed, open connections are closed with 1001, handshakes are given up,
    /// and so are those of connections that are made from now on (which are over when they are
    /// [started](Session::start), an iostream's when it is made). It is done when
    /// [`connections`](Self::connections) is empty, which takes no longer than the
    /// [`close_timeout`](anyloop_proto::Config::close_timeout) where the transports are driven
    /// meanwhile.
    pub fn shut_down(&self) {
        T::stop_listening(&self.transport);
        self.core.shut_down();
    }

    /// Whether [`shut_down`](Self::shut_down) was called.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.core.is_shutting_down()
    }
}
