//! The client's endpoint.

use std::fmt;
use std::sync::Arc;
use std::task::Waker;

use anyloop_proto::handshake::{RequestError, Target};
use anyloop_proto::{CloseCode, Instant, Prepared};

use super::handle::Handle;
use super::handler::Factory;
use super::handlers::Handlers;
use super::registry::Registry;
use super::server::handlers_answer_pings;
use super::session::Session;
use super::settings::{ClientSettings, Common};
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
    settings: ClientSettings,
    common: Arc<Common>,
    factory: F,
    registry: Registry<F::Handler>,
    transport: T::Endpoint,
}

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
        let mut settings = settings.into();
        let handshake = Arc::make_mut(&mut settings.handshake);
        handshake.connection = handlers_answer_pings(&handshake.connection);
        let common = Common { limits: settings.backlog, keep_handshake: settings.keep_handshake };
        let (common, registry) = (Arc::new(common), Registry::default());
        Self { settings, common, factory, registry, transport: T::Endpoint::default() }
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
        self.session_with(self.factory.make(), target, waker, now)
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
        let (handshake, common) = (self.settings.handshake.clone(), self.common.clone());
        let mut session = Session::client(handler, target, handshake, common, now)?;
        self.registry.enter(&session.handle(waker));
        Ok(session)
    }

    /// The connections that are not over.
    #[must_use]
    pub fn connections(&self) -> Vec<Handle<F::Handler>> {
        self.registry.handles()
    }

    /// Sends a message to all open connections. Returns to how many: not to those whose backlog is full.
    pub fn broadcast(&self, message: &Prepared) -> usize {
        self.registry.broadcast(message)
    }

    /// Begins to close all connections, or gives up their handshakes. Returns how many.
    pub fn close_all(&self, code: CloseCode, reason: &str) -> usize {
        self.registry.close_all(code, reason)
    }

    /// The settings.
    #[must_use]
    pub const fn settings(&self) -> &ClientSettings {
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

impl<T: Transport, F: Factory> fmt::Debug for Client<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("settings", &self.settings).finish_non_exhaustive()
    }
}
