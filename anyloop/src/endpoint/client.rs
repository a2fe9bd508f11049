//! The client's endpoint.

use std::sync::Arc;
use std::task::Waker;

use anyloop_proto::Instant;
use anyloop_proto::handshake::{RequestError, Target};

use super::config::ClientConfig;
use super::core::{ClientCore, endpoint};
use crate::session::{HandlerFactory, Handlers, Session};
use crate::stream::Driver;

/// A client: it creates connections, each with a handler from `F`.
///
/// `B` is what carries the bytes: `net::Net`, [`IoStream`](crate::iostream::IoStream), or `()` if the
/// application drives a [`Transport`](crate::transport::Transport) itself.
///
/// ```
/// use anyloop::transport::Client;
/// use anyloop::prelude::*;
///
/// let mut client = Client::new(ClientConfig::new());
/// client.on_open(|context| _ = context.send("hello"));
/// ```
pub struct Client<B, F: HandlerFactory = Handlers> {
    core: Arc<ClientCore<F>>,
    pub(crate) backend: B,
}

endpoint!(Client, ClientCore, ClientConfig, "Client");

impl<B: Default> Client<B> {
    /// A client whose handlers are closures, which are set afterwards.
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        Self::with_factory(config, Handlers::new())
    }
}

impl<B: Default, F: HandlerFactory> Client<B, F> {
    /// A client whose connections get their handlers from `factory`.
    #[must_use]
    pub fn with_factory(config: ClientConfig, factory: F) -> Self {
        Self::with_backend(B::default(), config, factory)
    }
}

impl<B, F: HandlerFactory> Client<B, F> {
    /// A client over this backend. Its connections get their handlers from `factory`.
    pub(crate) fn with_backend(backend: B, config: ClientConfig, factory: F) -> Self {
        Self { core: ClientCore::new(config, factory), backend }
    }

    /// Creates the client side of a connection to `target` whose byte stream began at `now`. The [`Driver`] is the
    /// state machine of one connection, which the caller drives. `waker` is woken, from any thread, when a
    /// [handle](super::Handle) queues a command; then call [`Driver::handle_wake`]. If the client is shutting down, the
    /// handshake fails when the driver is [started](Driver::start).
    ///
    /// # Errors
    ///
    /// The options make an invalid request.
    pub fn driver(
        &self,
        target: &Target,
        waker: &Waker,
        now: Instant,
    ) -> Result<Driver<Session<F::Handler>>, RequestError> {
        self.driver_with(self.core.make_handler(), target, waker, now)
    }

    /// Like [`driver`](Self::driver), with another configuration for this connection: `change` gets that of the client.
    /// [`keep_handshake`](ClientConfig::keep_handshake) remains that of the client.
    ///
    /// # Errors
    ///
    /// As [`driver`](Self::driver).
    pub fn driver_configured(
        &self,
        change: impl FnOnce(ClientConfig) -> ClientConfig,
        target: &Target,
        waker: &Waker,
        now: Instant,
    ) -> Result<Driver<Session<F::Handler>>, RequestError> {
        let config = change(self.core.config.clone());
        let handler = self.core.make_handler();
        let session = self.core.session_with(handler, target, &config, now)?;
        Ok(self.register(session, waker, now))
    }

    /// Like [`driver`](Self::driver), with this handler.
    ///
    /// # Errors
    ///
    /// As [`driver`](Self::driver).
    pub fn driver_with(
        &self,
        handler: F::Handler,
        target: &Target,
        waker: &Waker,
        now: Instant,
    ) -> Result<Driver<Session<F::Handler>>, RequestError> {
        let session = self.core.session(handler, target, now)?;
        Ok(self.register(session, waker, now))
    }

    /// Registers a session, and makes its driver.
    fn register(
        &self,
        mut session: Session<F::Handler>,
        waker: &Waker,
        now: Instant,
    ) -> Driver<Session<F::Handler>> {
        session.register_with_waker(waker);
        if self.core.state.is_shutting_down() {
            session.abandon(now); // the shutdown may have begun after the session was made
        }
        Driver::new(session)
    }
}
