//! The client's endpoint.

use std::sync::Arc;
use std::task::Waker;

use anyloop_proto::Instant;
use anyloop_proto::handshake::{RequestError, Target};

use super::core::{ClientCore, endpoint};
use super::settings::{ClientSettings, TransportEndpoint};
use crate::session::{HandlerFactory, Handlers, Session};
use crate::stream::Driver;

/// Makes the client's ends of connections over a transport `T`, each with a handler from `F`.
///
/// ```
/// use anyloop::endpoint::ClientSettings;
/// use anyloop::Client;
///
/// let mut client = Client::<()>::new(ClientSettings::default());
/// client.on_open(|context| _ = context.send("hello"));
/// ```
pub struct Client<T: TransportEndpoint, F: HandlerFactory = Handlers> {
    core: Arc<ClientCore<F>>,
    transport: T,
}

endpoint!(Client, ClientCore, ClientSettings, "Client");

impl<T: TransportEndpoint> Client<T> {
    /// A client whose handlers are closures, to be set.
    #[must_use]
    pub fn new(settings: impl Into<ClientSettings>) -> Self {
        Self::with_factory(settings, Handlers::new())
    }
}

impl<T: TransportEndpoint, F: HandlerFactory> Client<T, F> {
    /// A client whose connections get their handlers from `factory`.
    ///
    /// Pings are answered as [`Handler::ping`](super::Handler::ping) says, whatever
    /// [`auto_pong`](anyloop_proto::Config::auto_pong) says.
    #[must_use]
    pub fn with_factory(settings: impl Into<ClientSettings>, factory: F) -> Self {
        let core = ClientCore::new(settings.into(), factory);
        Self { core, transport: T::default() }
    }

    /// The client's end of a byte stream to `target` that begins at `now`. `waker` is woken, from any
    /// thread, when a [handle](super::Handle) asks for something; then call [`Driver::handle_wake`].
    ///
    /// # Errors
    ///
    /// The options would make an invalid request.
    pub fn driver(
        &self,
        target: &Target,
        waker: &Waker,
        now: Instant,
    ) -> Result<Driver<Session<F::Handler>>, RequestError> {
        self.driver_with(self.core.make_handler(), target, waker, now)
    }

    /// The same with a handler of its own.
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
        let mut session = self.core.session(handler, target, now)?;
        session.enter_with_waker(waker);
        Ok(Driver::new(session))
    }
}
