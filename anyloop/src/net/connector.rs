//! Connecting, by a client or by a handle of the client.

use std::any::Any;
use std::cell::RefCell;
use std::sync::{Arc, Weak};

use anyloop_proto::handshake::{Target, UriError};

use super::Client;
use super::adopt::{AdoptOptions, Stream, insert_connection};
use super::client::{ConnectRequest, ConnectSettings, Connects, connect, parse_uri};
use super::error::Error;
use super::supports::Supports;
use super::transport::SharedHooks;
use crate::endpoint::{ClientConfig, ClientCore, EndpointHandle, Handle, Handler, HandlerFactory};
use crate::event_loop::{Engine, Kind, Local, now};
use crate::session::EndpointState;

/// The parts of a client that connecting needs.
pub(super) struct Connector<K: Kind, F: HandlerFactory> {
    core: Arc<ClientCore<F>>,
    engine: Arc<Engine<K>>,
    hooks: Arc<SharedHooks>,
}

impl<K: Kind, F: HandlerFactory> Connector<K, F> {
    pub(super) fn new(
        core: &Arc<ClientCore<F>>,
        engine: &Arc<Engine<K>>,
        hooks: &Arc<SharedHooks>,
    ) -> Self {
        Self { core: core.clone(), engine: engine.clone(), hooks: hooks.clone() }
    }
}

impl<K: Supports<F>, F: HandlerFactory> Connects<F::Handler> for Connector<K, F> {
    fn config(&self) -> &ClientConfig {
        &self.core.config
    }

    fn connect(&self, settings: ConnectSettings<F::Handler>) -> Result<Handle<F::Handler>, Error> {
        connect(&self.core, &self.engine, &self.hooks, settings)
    }

    fn adopt(
        &self,
        mut settings: ConnectSettings<F::Handler>,
        stream: Stream,
    ) -> Result<Handle<F::Handler>, Error> {
        let nodelay = settings.config(&self.core.config).nodelay;
        let (session, tls_layer) = settings.new_session(&self.core, now())?;
        let (engine, hooks, state) = (&self.engine, &self.hooks, &self.core.state);
        let options = AdoptOptions { nodelay, received: &[] };
        insert_connection(engine, hooks, state, session, stream, options, tls_layer)
    }
}

/// Connecting.
impl<F: HandlerFactory, K: Supports<F>> Client<F, K> {
    /// Connects to a URI: looks up the host, connects to the first of its addresses that answers (RFC 8305), and
    /// performs the opening handshake. This function returns before that: run calls of the loop do the work. The
    /// handler's [`open`](crate::Handler::open) or [`fail`](crate::Handler::fail) reports the result. If there is no
    /// byte stream, [`Context::error`](crate::endpoint::Context::error) tells `fail` why. The handle can close the
    /// connection at any time. With a [proxy](ClientConfig::proxy), the client connects to the proxy.
    ///
    /// # Errors
    ///
    /// [`Error::Uri`], [`Error::Request`], [`Error::ShutDown`], `Error::Tls`: connecting was not started.
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
    pub fn request<U>(&self, uri: U) -> Result<ConnectRequest<'_, F::Handler>, Error>
    where
        U: TryInto<Target> + ToString,
        UriError: From<U::Error>,
    {
        let target = parse_uri(uri)?;
        let net = &self.net;
        let connector = Connector::new(&self.core, net.engine(), &net.hooks);
        Ok(ConnectRequest::new(Box::new(connector), target))
    }
}

/// The [`Connector`] that the handles of a client have. It does not keep the client or its loop alive.
struct WeakConnector<K: Kind, F: HandlerFactory> {
    core: Weak<ClientCore<F>>,
    engine: Weak<Engine<K>>,
    /// Weak as well: what the hooks have captured must not outlive the client.
    hooks: Weak<SharedHooks>,
}

/// A [`WeakConnector`] for handlers of this type: its other type parameters are erased.
trait WeakConnects<H: Handler> {
    /// The [`Connector`]; `None` if the client or its loop was dropped.
    fn upgrade(&self) -> Option<Box<dyn Connects<H>>>;
}

impl<K: Supports<F>, F: HandlerFactory + 'static> WeakConnects<F::Handler> for WeakConnector<K, F> {
    fn upgrade(&self) -> Option<Box<dyn Connects<F::Handler>>> {
        let (core, engine) = (self.core.upgrade()?, self.engine.upgrade()?);
        Some(Box::new(Connector { core, engine, hooks: self.hooks.upgrade()? }))
    }
}

/// The connector of a client whose handles connect from any thread. It is stored in the [`EndpointState`].
type ThreadSafeConnector<H> = Box<dyn WeakConnects<H> + Send + Sync>;

/// Stored in the [`EndpointState`] of a client whose handles connect only on the thread of its loop. The connector is
/// in [`LOCAL_CONNECTORS`] of that thread.
struct InLocalConnectors;

/// The connector of a client in a loop that is bound to this thread.
struct LocalConnector {
    endpoint: Weak<EndpointState>,
    /// A `Box<dyn WeakConnects<H>>`, for the `H` of the client's handlers.
    connector: Box<dyn Any>,
}

thread_local! {
    /// Connectors of dropped clients are removed when another is added.
    static LOCAL_CONNECTORS: RefCell<Vec<LocalConnector>> = const { RefCell::new(Vec::new()) };
}

impl<F: HandlerFactory, K: Kind> Client<F, K> {
    fn weak_connector(&self) -> WeakConnector<K, F> {
        let net = &self.net;
        let (core, engine) = (Arc::downgrade(&self.core), Arc::downgrade(net.engine()));
        WeakConnector { core, engine, hooks: Arc::downgrade(&net.hooks) }
    }
}

impl<F: HandlerFactory<Handler: Send> + Send + Sync + 'static> Client<F> {
    /// Lets handles of the client connect.
    pub(super) fn let_handles_connect(&self) {
        let connector: ThreadSafeConnector<F::Handler> = Box::new(self.weak_connector());
        self.core.state.set_connector(Box::new(connector));
    }
}

impl<F: HandlerFactory + 'static> Client<F, Local> {
    /// Lets handles of the client connect on this thread.
    pub(super) fn let_handles_connect(&self) {
        let state = &self.core.state;
        let connector: Box<dyn WeakConnects<F::Handler>> = Box::new(self.weak_connector());
        let (endpoint, connector) = (Arc::downgrade(state), Box::new(connector));
        LOCAL_CONNECTORS.with_borrow_mut(|all| {
            all.retain(|entry| entry.endpoint.strong_count() > 0);
            all.push(LocalConnector { endpoint, connector });
        });
        state.set_connector(Box::new(InLocalConnectors));
    }
}

/// The connector of the client with this state, from [`LOCAL_CONNECTORS`] of this thread.
///
/// # Errors
///
/// [`Error::OtherThread`]: this thread has no connector of the client. [`Error::EndpointDropped`].
fn local_connector<H: Handler>(state: &Arc<EndpointState>) -> Result<Box<dyn Connects<H>>, Error> {
    let find = |all: &RefCell<Vec<LocalConnector>>| {
        let all = all.borrow();
        let is_of_client =
            |entry: &&LocalConnector| std::ptr::eq(entry.endpoint.as_ptr(), Arc::as_ptr(state));
        let connector = &all.iter().find(is_of_client)?.connector;
        let connector = connector.downcast_ref::<Box<dyn WeakConnects<H>>>()?;
        Some(connector.upgrade().ok_or(Error::EndpointDropped))
    };
    // While the thread ends, it has no connectors.
    LOCAL_CONNECTORS.try_with(find).ok().flatten().unwrap_or(Err(Error::OtherThread))
}

impl<H: Handler> EndpointHandle<H> {
    /// Connects to a URI, as [`Client::connect`]. A handler can call this, for example to connect again from
    /// [`close`](Handler::close). The handle of a client in a [`LocalEventLoop`](crate::LocalEventLoop) can connect
    /// only on the thread of the loop; elsewhere this returns [`Error::OtherThread`].
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
    ///     let connect_again = move || _ = handle.connect(URI);
    ///     _ = event_loop.set_timer(Duration::from_secs(1), connect_again);
    /// });
    /// client.connect(URI)?;
    /// client.run();
    /// # Ok::<(), anyloop::net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`request`](Self::request). [`Error::Request`], [`Error::ShutDown`], `Error::Tls`: connecting was not
    /// started.
    pub fn connect<U>(&self, uri: U) -> Result<Handle<H>, Error>
    where
        U: TryInto<Target> + ToString,
        UriError: From<U::Error>,
    {
        self.request(uri)?.connect()
    }

    /// A request for a connection to a URI, as [`Client::request`]. The connection can have its own settings and
    /// handler.
    ///
    /// A client that connects again after a second, with another subprotocol:
    ///
    /// ```no_run
    /// use anyloop::net::Client;
    /// use anyloop::prelude::*;
    /// use std::time::Duration;
    ///
    /// const URI: &str = "ws://chat.example/room";
    ///
    /// let mut client = Client::new(ClientConfig::new())?;
    /// let event_loop = client.event_loop().handle();
    /// client.on_close(move |_, context| {
    ///     let client = context.endpoint();
    ///     let _ = event_loop.set_timer(Duration::from_secs(1), move || {
    ///         let resume = |config: ClientConfig| config.subprotocol("resume");
    ///         let request = client.request(URI);
    ///         if let Err(error) = request.and_then(|request| request.configure(resume).connect()) {
    ///             eprintln!("cannot connect again: {error}");
    ///         }
    ///     });
    /// });
    /// client.connect(URI)?;
    /// client.run();
    /// # Ok::<(), anyloop::net::Error>(())
    /// ```
    ///
    /// The request keeps the client's loop alive.
    ///
    /// # Errors
    ///
    /// [`Error::Uri`]. [`Error::EndpointDropped`]: the client or its loop was dropped. [`Error::NotAClient`].
    /// [`Error::OtherThread`]: the client is in a [`LocalEventLoop`](crate::LocalEventLoop) of another thread.
    pub fn request<U>(&self, uri: U) -> Result<ConnectRequest<'static, H>, Error>
    where
        U: TryInto<Target> + ToString,
        UriError: From<U::Error>,
    {
        let target = parse_uri(uri)?;
        let state = self.state().ok_or(Error::EndpointDropped)?;
        let connector = state.connector().ok_or(Error::NotAClient)?;
        let client = match connector.downcast_ref::<ThreadSafeConnector<H>>() {
            Some(connector) => connector.upgrade().ok_or(Error::EndpointDropped)?,
            None if connector.is::<InLocalConnectors>() => local_connector(&state)?,
            None => return Err(Error::NotAClient),
        };
        Ok(ConnectRequest::new(client, target))
    }
}
