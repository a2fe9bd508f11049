//! The server's endpoint.

use std::sync::Arc;
use std::task::Waker;

use anyloop_proto::Instant;

use super::core::{ServerCore, endpoint};
use super::settings::{ServerSettings, TransportEndpoint};
use crate::session::{HandlerFactory, Handlers, Session};
use crate::stream::Driver;

/// Makes the server's ends of connections over a transport `T`, each with a handler from `F`.
///
/// ```
/// use anyloop::proto::handshake::{OriginPolicy, ServerOptions};
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
/// let server: Server<(), _> = Server::with_factory(options, || Counter(0));
/// ```
pub struct Server<T: TransportEndpoint, F: HandlerFactory = Handlers> {
    core: Arc<ServerCore<F>>,
    transport: T,
}

endpoint!(Server, ServerCore, ServerSettings, "Server");

impl<T: TransportEndpoint> Server<T> {
    /// A server whose handlers are closures, to be set.
    #[must_use]
    pub fn new(settings: impl Into<ServerSettings>) -> Self {
        Self::with_factory(settings, Handlers::new())
    }
}

impl<T: TransportEndpoint, F: HandlerFactory> Server<T, F> {
    /// A server whose connections get their handlers from `factory`.
    ///
    /// Pings are answered as [`Handler::ping`](super::Handler::ping) says, whatever
    /// [`auto_pong`](anyloop_proto::Config::auto_pong) says.
    #[must_use]
    pub fn with_factory(settings: impl Into<ServerSettings>, factory: F) -> Self {
        let core = ServerCore::new(settings.into(), factory);
        Self { core, transport: T::default() }
    }

    /// The server's end of a byte stream that begins at `now`. `waker` is woken, from any thread, when a
    /// [handle](super::Handle) asks for something; then call [`Driver::handle_wake`].
    ///
    /// The example of [`Transport`](crate::transport::Transport) drives one.
    #[must_use]
    pub fn driver(&self, waker: &Waker, now: Instant) -> Driver<Session<F::Handler>> {
        self.driver_with(self.core.make_handler(), waker, now)
    }

    /// The same with a handler of its own.
    #[must_use]
    pub fn driver_with(
        &self,
        handler: F::Handler,
        waker: &Waker,
        now: Instant,
    ) -> Driver<Session<F::Handler>> {
        let mut session = self.core.session(handler, now);
        session.enter_with_waker(waker);
        if self.is_shutting_down() {
            session.give_up(now); // since it was made, perhaps
        }
        Driver::new(session)
    }

    /// Begins to shut down gracefully: listeners are closed, open connections are closed with 1001, and
    /// handshakes are given up. So are those of connections that are made from now on, which are over
    /// when they are [started](Driver::start) (an iostream's when it is made). It is done when
    /// [`connections`](Self::connections) is empty, which takes no longer than the
    /// [`close_timeout`](anyloop_proto::Config::close_timeout) where the transports are driven
    /// meanwhile. It is final: over the network the server neither listens nor accepts any more
    /// (`net::Error::ShutDown`).
    pub fn shut_down(&self) {
        self.core.shut_down(); // first: nobody can listen anew once this is known
        self.transport.stop_listening();
    }

    /// Whether [`shut_down`](Self::shut_down) was called.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.core.is_shutting_down()
    }
}
