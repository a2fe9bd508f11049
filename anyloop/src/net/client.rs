//! Clients in the loop.

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::Path;
use std::sync::{Arc, Weak};

use anyloop_proto::Instant;
use anyloop_proto::handshake::{Target, UriError};

use super::connecting::{Connecting, Destination, FirstHop, Redirects, Step};
use super::error::Error;
use super::layer::Layer;
use super::registry::key;
use super::supports::Supports;
use super::transport::{Net, SharedHooks};
use crate::endpoint::{
    Client, ClientConfig, ClientCore, EndpointHandle, Handle, Handler, HandlerFactory, Session,
};
use crate::event_loop::{Engine, Threads, now};
use crate::transport::Driver;

/// A request for a connection, with its settings.
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
pub struct ConnectRequest<'c, K: Supports<F>, F: HandlerFactory> {
    pub(super) client: &'c Client<Net<K>, F>,
    target: Target,
    config: Option<ClientConfig>,
    handler: Option<F::Handler>,
    destination: Option<Destination>,
}

/// Connecting.
impl<K: Supports<F>, F: HandlerFactory> Client<Net<K>, F> {
    /// Connects to a URI: looks up the host, connects to the first of its addresses that answers (RFC 8305), and
    /// performs the opening handshake, all in run calls. The result is reported to the handler: by
    /// [`open`](crate::Handler::open), or by [`fail`](crate::Handler::fail), where
    /// [`Context::error`](crate::endpoint::Context::error) is the reason if there is no byte stream. The handle can
    /// close the connection at any time. With a [proxy](ClientConfig::proxy) it connects to that.
    ///
    /// # Errors
    ///
    /// [`Error::Uri`], [`Error::Request`], [`Error::ShutDown`]: connecting was not started.
    pub fn connect<U>(&self, uri: U) -> Result<Handle<F::Handler>, Error>
    where
        U: TryInto<Target> + ToString,
        UriError: From<U::Error>,
    {
        self.request(uri)?.connect()
    }

    /// A request for a connection to a URI. Change its settings, and then call [`connect`](ConnectRequest::connect).
    ///
    /// # Errors
    ///
    /// [`Error::Uri`].
    pub fn request<U>(&self, uri: U) -> Result<ConnectRequest<'_, K, F>, Error>
    where
        U: TryInto<Target> + ToString,
        UriError: From<U::Error>,
    {
        let target = parse(uri)?;
        Ok(ConnectRequest { client: self, target, config: None, handler: None, destination: None })
    }
}

impl<K: Supports<F>, F: HandlerFactory> fmt::Debug for ConnectRequest<'_, K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectRequest")
            .field("target", &self.target)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl<K: Supports<F>, F: HandlerFactory> ConnectRequest<'_, K, F> {
    /// Changes the configuration of this connection, which is at first that of the client.
    /// [`keep_handshake`](ClientConfig::keep_handshake) is the same for all connections of a client: to change it here is
    /// an error when connecting ([`Error::NotPerConnection`]).
    pub fn configure(mut self, change: impl FnOnce(ClientConfig) -> ClientConfig) -> Self {
        let config = self.config.take().unwrap_or_else(|| self.client.config().clone());
        self.config = Some(change(config));
        self
    }

    /// Sets the handler of this connection.
    pub fn with_handler(mut self, handler: F::Handler) -> Self {
        self.handler = Some(handler);
        self
    }

    /// Connects to one of these addresses, instead of looking the host up. No [proxy](ClientConfig::proxy) is used.
    pub fn to_addresses(mut self, addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.destination = Some(Destination::Addresses(addresses.into_iter().collect()));
        self
    }

    /// Connects to a Unix socket, instead of looking the host up. No [proxy](ClientConfig::proxy) is used.
    #[cfg(unix)]
    pub fn to_unix(mut self, path: impl AsRef<Path>) -> Self {
        self.destination = Some(Destination::Unix(path.as_ref().to_path_buf()));
        self
    }

    /// Begins to connect, as [`Client::connect`].
    ///
    /// # Errors
    ///
    /// [`Error::Request`], [`Error::ShutDown`], [`Error::NotPerConnection`]: connecting was not started.
    pub fn connect(self) -> Result<Handle<F::Handler>, Error> {
        let Self { client, target, config, handler, destination } = self;
        let net = &client.transport;
        let settings = ConnectSettings { target, config, handler, destination };
        connect(client.core(), net.engine(), &net.hooks, settings)
    }

    /// Whether the socket of the connection gets `TCP_NODELAY`.
    pub(super) fn nodelay(&self) -> bool {
        self.config.as_ref().unwrap_or_else(|| self.client.config()).nodelay
    }

    /// The session of the connection, and its TLS.
    pub(super) fn into_session(self) -> Result<(Session<F::Handler>, Layer), Error> {
        let Self { client, target, config, handler, destination } = self;
        ConnectSettings { target, config, handler, destination }.session(client.core(), now())
    }
}

/// The target and the settings of a connection.
struct ConnectSettings<H> {
    target: Target,
    /// By default the client's.
    config: Option<ClientConfig>,
    /// By default one of the client's factory.
    handler: Option<H>,
    /// By default the target's host.
    destination: Option<Destination>,
}

impl<H: Handler> ConnectSettings<H> {
    /// The session of the connection, which begins now, with the request's handler or one of the factory; and its TLS.
    fn session<F: HandlerFactory<Handler = H>>(
        &mut self,
        core: &ClientCore<F>,
        now: Instant,
    ) -> Result<(Session<H>, Layer), Error> {
        if core.state.is_shutting_down() {
            return Err(Error::ShutDown);
        }
        if let Some(config) = &self.config {
            if config.keep_handshake != core.config.keep_handshake {
                return Err(Error::NotPerConnection);
            }
        }
        let layer = Layer::connect(&self.target, self.config.as_ref().unwrap_or(&core.config))?;
        let handler = self.handler.take().unwrap_or_else(|| core.make_handler());
        let mut session = match &self.config {
            Some(config) => core.session_with(handler, &self.target, config, now),
            None => core.session(handler, &self.target, now),
        }?;
        let config = self.config.as_ref().unwrap_or(&core.config);
        if let Some(total) = config.connect.total_timeout {
            session.expire_by(now + total);
        }
        Ok((session, layer))
    }
}

/// Begins to connect.
fn connect<K: Supports<F>, F: HandlerFactory>(
    core: &Arc<ClientCore<F>>,
    engine: &Arc<Engine<K>>,
    hooks: &SharedHooks,
    mut settings: ConnectSettings<F::Handler>,
) -> Result<Handle<F::Handler>, Error> {
    let started = now();
    let (mut session, layer) = settings.session(core, started)?;
    let ConnectSettings { target, config, destination, .. } = settings;
    let config = config.as_ref().unwrap_or(&core.config);
    let redirects = Redirects::of(&target, destination.as_ref(), config, || hooks.resolver());
    if redirects.is_some() {
        session.set_follows_redirects(true);
    }
    let first_hop = FirstHop::new(target, destination.as_ref(), config)?;
    let step = Step::Begin(destination.unwrap_or_else(|| Destination::Host(hooks.resolver())));
    let connecting = |driver| Connecting {
        driver: Some(driver),
        layer,
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
            return Err(Error::ShutDown); // the shutdown may have read the registry before
        }
        Ok(K::connecting(connecting(Driver::new(session))))
    })?;
    // Another thread may already have run the connection to its end: then the handle reports that.
    Ok(core.state.registry.handle(key(token)))
}

/// What a handle of a client needs to connect. It does not keep the client or its loop alive.
struct Connector<F: HandlerFactory> {
    core: Weak<ClientCore<F>>,
    engine: Weak<Engine<Threads>>,
    hooks: Arc<SharedHooks>,
}

impl<F: HandlerFactory<Handler: Send> + Send + Sync + 'static> Client<Net<Threads>, F> {
    /// Lets handles of the client connect.
    pub(super) fn set_connector(&self) {
        let net = &self.transport;
        let (core, engine) = (Arc::downgrade(self.core()), Arc::downgrade(net.engine()));
        let connector: Box<dyn Connect<F::Handler>> =
            Box::new(Connector { core, engine, hooks: net.hooks.clone() });
        self.core().state.set_connector(Box::new(connector));
    }
}

/// A [`Connector`] for handlers of this type, with any factory.
trait Connect<H: Handler>: Send + Sync {
    fn connect(&self, target: Target) -> Result<Handle<H>, Error>;
}

impl<F: HandlerFactory<Handler: Send> + Send + Sync + 'static> Connect<F::Handler>
    for Connector<F>
{
    fn connect(&self, target: Target) -> Result<Handle<F::Handler>, Error> {
        let dropped = || Error::EndpointDropped;
        let core = self.core.upgrade().ok_or_else(dropped)?;
        let engine = self.engine.upgrade().ok_or_else(dropped)?;
        let settings = ConnectSettings { target, config: None, handler: None, destination: None };
        connect(&core, &engine, &self.hooks, settings)
    }
}

impl<H: Handler + 'static> EndpointHandle<H> {
    /// Connects to a URI, as [`Client::connect`]: a client whose connection has closed can connect again from
    /// [`close`](Handler::close).
    ///
    /// ```no_run
    /// use anyloop::net::Client;
    /// use anyloop::prelude::*;
    /// use std::time::Duration;
    ///
    /// const URI: &str = "ws://chat.example/room";
    ///
    /// let mut client = Client::new(ClientConfig::new())?;
    /// let handle = client.handle();
    /// let event_loop = client.event_loop().handle();
    /// client.on_close(move |_, _| {
    ///     let handle = handle.clone();
    ///     let again = move || _ = handle.connect(URI);
    ///     let _ = event_loop.set_timer(Duration::from_secs(1), again);
    /// });
    /// client.connect(URI)?;
    /// client.run();
    /// # Ok::<(), anyloop::net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Uri`], [`Error::Request`], [`Error::ShutDown`]. [`Error::EndpointDropped`]: the client or its loop is
    /// gone. [`Error::NotAClient`]: a server, or a client in a [`LocalEventLoop`](crate::LocalEventLoop).
    pub fn connect<U>(&self, uri: U) -> Result<Handle<H>, Error>
    where
        U: TryInto<Target> + ToString,
        UriError: From<U::Error>,
    {
        let target = parse(uri)?;
        let state = self.state().ok_or(Error::EndpointDropped)?;
        let connector = state.connector().and_then(|any| any.downcast_ref::<Box<dyn Connect<H>>>());
        connector.ok_or(Error::NotAClient)?.connect(target)
    }
}

fn parse<U>(uri: U) -> Result<Target, Error>
where
    U: TryInto<Target> + ToString,
    UriError: From<U::Error>,
{
    let text = uri.to_string();
    uri.try_into().map_err(|source: U::Error| Error::Uri { uri: text, source: source.into() })
}
