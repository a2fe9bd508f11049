//! The client's endpoint.

use std::sync::Arc;
use std::task::Waker;

use anyloop_proto::Instant;
use anyloop_proto::handshake::{RequestError, Target};

use super::core::{ClientCore, endpoint};
use super::handler::Factory;
use super::handlers::Handlers;
use super::session::Session;
use super::settings::ClientSettings;
use crate::transport::Transport;

/// Makes the client's ends of connections over a transport `T`, each with a handler from `F`.
///
/// ```
/// use anyloop::endpoint::ClientSettings;
/// use anyloop::transport::stub::Stub;
/// use anyloop::Client;
///
/// let mut client = Client::<Stub>::new(ClientSettings::default());
/// client.on_open(|context| _ = context.send("hello"));
/// ```
pub struct Client<T: Transport, F: Factory = Handlers> {
    core: Arc<ClientCore<F>>,
    transport: T::Endpoint,
}

endpoint!(Client, ClientCore, ClientSettings, "Client");

impl<T: Transport> Client<T> {
    /// A client whose handlers are closures, to be set.
    #[must_use]
    pub fn new(settings: impl Into<ClientSettings>) -> Self {
        Self::with_factory(settings, Handlers::new())
    }
}

impl<T: Transport, F: Factory> Client<T, F> {
    /// A client whose connections get their handlers from `factory`.
    ///
    /// Pings are answered as [`Handler::ping`](super::Handler::ping) says, whatever
    /// [`auto_pong`](anyloop_proto::Config::auto_pong) says.
    #[must_use]
    pub fn with_factory(settings: impl Into<ClientSettings>, factory: F) -> Self {
        let core = ClientCore::new(settings.into(), factory);
        Self { core, transport: T::Endpoint::default() }
    }

    /// The client's end of a byte stream to `target` that begins at `now`, for a transport to drive.
    /// `waker` is the transport's own.
    ///
    /// # Errors
    ///
    /// The options would make an invalid request.
    pub fn session(
        &self,
        target: &Target,
        waker: &Waker,
        now: Instant,
    ) -> Result<Session<F::Handler>, RequestError> {
        self.session_with(self.core.make_handler(), target, waker, now)
    }

    /// The same with a handler of its own.
    ///
    /// # Errors
    ///
    /// As [`session`](Self::session).
    pub fn session_with(
        &self,
        handler: F::Handler,
        target: &Target,
        waker: &Waker,
        now: Instant,
    ) -> Result<Session<F::Handler>, RequestError> {
        let mut session = self.core.session(handler, target, now)?;
        self.core.common.registry.enter(&session.handle(waker));
        Ok(session)
    }
}
