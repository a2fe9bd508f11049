//! Clients: requests for connections, and connecting.

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::Path;
use std::sync::Arc;

use anyloop_proto::Instant;
use anyloop_proto::handshake::{Target, UriError};

use super::adopt::Stream;
use super::connecting::{Connecting, Destination, FirstHop, Redirects, Step};
use super::error::Error;
use super::layer::TlsLayer;
use super::registry::key;
use super::supports::Supports;
use super::transport::SharedHooks;
use crate::endpoint::{ClientConfig, ClientCore, Handle, Handler, HandlerFactory, Session};
use crate::event_loop::{Engine, now};
use crate::transport::Driver;

/// A request for a connection, with its settings. [`Client::request`](super::Client::request) and the
/// [handle](crate::endpoint::EndpointHandle::request) of a client return one.
///
/// ```
/// use anyloop::net::Client;
/// use anyloop::prelude::*;
///
/// let mut client = Client::new(ClientConfig::new())?;
/// client.on_fail(|_, context| println!("{}", context.error().expect("nobody is there")));
/// let request = client.request("ws://chat.example/room")?;
/// let request = request.configure(|config| config.subprotocol("chat"));
/// # let unused = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
/// let handle = request.to_addresses([unused]).connect()?; // instead of those of the host
/// client.run();
/// assert!(handle.send("hello").is_err()); // it has failed
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "it does nothing before `connect` or `adopt`"]
pub struct ConnectRequest<'c, H: Handler> {
    client: Box<dyn Connects<H> + 'c>,
    settings: ConnectSettings<H>,
}

impl<H: Handler> fmt::Debug for ConnectRequest<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectRequest")
            .field("target", &self.settings.target)
            .field("config", &self.settings.config)
            .finish_non_exhaustive()
    }
}

impl<'c, H: Handler> ConnectRequest<'c, H> {
    pub(super) fn new(client: Box<dyn Connects<H> + 'c>, target: Target) -> Self {
        let settings = ConnectSettings { target, config: None, handler: None, destination: None };
        Self { client, settings }
    }

    /// Changes the configuration of this connection. `change` gets the client's configuration, or the result of the
    /// previous call. [`keep_handshake`](ClientConfig::keep_handshake) is the same for all connections of a client: if
    /// it is changed here, connecting returns [`Error::NotPerConnection`].
    pub fn configure(mut self, change: impl FnOnce(ClientConfig) -> ClientConfig) -> Self {
        let config = self.settings.config.take().unwrap_or_else(|| self.client.config().clone());
        self.settings.config = Some(change(config));
        self
    }

    /// Sets the handler of this connection.
    pub fn with_handler(mut self, handler: H) -> Self {
        self.settings.handler = Some(handler);
        self
    }

    /// Connects to one of these addresses, instead of looking the host up. No [proxy](ClientConfig::proxy) is used, and
    /// no [redirects](ClientConfig::redirects) are followed.
    pub fn to_addresses(mut self, addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.settings.destination = Some(Destination::Addresses(addresses.into_iter().collect()));
        self
    }

    /// Connects to a Unix socket, instead of looking the host up. No [proxy](ClientConfig::proxy) is used, and no
    /// [redirects](ClientConfig::redirects) are followed.
    #[cfg(unix)]
    pub fn to_unix(mut self, path: impl AsRef<Path>) -> Self {
        self.settings.destination = Some(Destination::Unix(path.as_ref().to_path_buf()));
        self
    }

    /// Begins to connect, as [`Client::connect`](super::Client::connect).
    ///
    /// # Errors
    ///
    /// [`Error::Request`], [`Error::ShutDown`], [`Error::NotPerConnection`], `Error::Tls`: connecting was not started.
    pub fn connect(self) -> Result<Handle<H>, Error> {
        self.client.connect(self.settings)
    }

    /// Makes the connection over a stream that is connected to the server already, or to a proxy that has agreed to
    /// pass the bytes on. [`to_addresses`](Self::to_addresses), [`to_unix`](Self::to_unix) and the configuration's
    /// [proxy](ClientConfig::proxy) and [redirects](ClientConfig::redirects) have no effect.
    ///
    /// # Errors
    ///
    /// [`Error::Adopt`]: the socket cannot be used. [`Error::Request`], [`Error::ShutDown`],
    /// [`Error::NotPerConnection`], `Error::Tls`.
    pub fn adopt(self, stream: impl Into<Stream>) -> Result<Handle<H>, Error> {
        self.client.adopt(self.settings, stream.into())
    }
}

/// A client as a [`ConnectRequest`] uses it: of its type parameters only the handlers' type is known.
pub(super) trait Connects<H: Handler> {
    /// The client's configuration.
    fn config(&self) -> &ClientConfig;

    /// Begins to connect.
    fn connect(&self, settings: ConnectSettings<H>) -> Result<Handle<H>, Error>;

    /// Makes a connection over a socket that is connected.
    fn adopt(&self, settings: ConnectSettings<H>, stream: Stream) -> Result<Handle<H>, Error>;
}

/// The target and the settings of a connection.
pub(super) struct ConnectSettings<H> {
    target: Target,
    /// `None`: the client's.
    config: Option<ClientConfig>,
    /// `None`: the client's factory makes one.
    handler: Option<H>,
    /// `None`: the target's host.
    destination: Option<Destination>,
}

impl<H: Handler> ConnectSettings<H> {
    /// The configuration of the connection.
    pub(super) fn config<'s>(&'s self, client: &'s ClientConfig) -> &'s ClientConfig {
        self.config.as_ref().unwrap_or(client)
    }

    /// Creates the session of the connection, which begins at `now`, and its TLS layer. Takes the request's handler,
    /// if there is one; otherwise the factory makes a handler.
    pub(super) fn new_session<F: HandlerFactory<Handler = H>>(
        &mut self,
        core: &ClientCore<F>,
        now: Instant,
    ) -> Result<(Session<H>, TlsLayer), Error> {
        if core.state.is_shutting_down() {
            return Err(Error::ShutDown);
        }
        if let Some(config) = &self.config {
            if config.keep_handshake != core.config.keep_handshake {
                return Err(Error::NotPerConnection);
            }
        }
        let tls_layer = TlsLayer::for_client(&self.target, self.config(&core.config))?;
        let handler = self.handler.take().unwrap_or_else(|| core.make_handler());
        let mut session = match &self.config {
            Some(config) => core.new_session_configured(handler, &self.target, config, now),
            None => core.new_session(handler, &self.target, now),
        }?;
        if let Some(total) = self.config(&core.config).connect.total_timeout {
            session.expire_by(now + total);
        }
        Ok((session, tls_layer))
    }
}

/// Begins to connect.
pub(super) fn connect<K: Supports<F>, F: HandlerFactory>(
    core: &Arc<ClientCore<F>>,
    engine: &Arc<Engine<K>>,
    hooks: &SharedHooks,
    mut settings: ConnectSettings<F::Handler>,
) -> Result<Handle<F::Handler>, Error> {
    let started = now();
    let (mut session, tls_layer) = settings.new_session(core, started)?;
    let ConnectSettings { target, config, destination, .. } = settings;
    let config = config.as_ref().unwrap_or(&core.config);
    let redirects =
        Redirects::of(&target, destination.as_ref(), config, || hooks.get_or_create_resolver());
    if redirects.is_some() {
        session.set_follows_redirects(true);
    }
    let first_hop = FirstHop::new(target, destination.as_ref(), config)?;
    let step = Step::Begin(
        destination.unwrap_or_else(|| Destination::Host(hooks.get_or_create_resolver())),
    );
    let connecting = |driver| Connecting {
        driver: Some(driver),
        tls_layer,
        redirects,
        stream: None,
        first_hop,
        options: config.connect.clone(),
        hooks: hooks.current(),
        nodelay: config.nodelay,
        started,
        step,
        marker: PhantomData,
    };
    let token = engine.insert(|token| {
        session.register(key(token));
        if core.state.is_shutting_down() {
            return Err(Error::ShutDown); // the shutdown may have missed the session: it was not registered before
        }
        Ok(K::connecting(connecting(Driver::new(session))))
    })?;
    // Another thread may already have run the connection to its end. Then the handle is that of an ended connection.
    Ok(core.state.registry.handle(key(token)))
}

/// Parses the URI to connect to.
pub(super) fn parse_uri<U>(uri: U) -> Result<Target, Error>
where
    U: TryInto<Target> + ToString,
    UriError: From<U::Error>,
{
    let text = uri.to_string();
    uri.try_into().map_err(|source: U::Error| Error::Uri { uri: text, source: source.into() })
}
