//! Servers and clients, and the constructors of their connections.

use std::sync::Arc;

use anyloop_proto::handshake::{RequestError, Target, UriError};

use super::outputs::Outputs;
use super::{Connection, ConnectionWaker, plain};
use crate::endpoint::{
    self, ClientConfig, ClientCore, HandlerFactory, Handlers, LocalHandlers, ServerConfig,
    ServerCore,
};
use crate::threading::{Local, Threads};

/// The initial settings of all connections of an endpoint.
pub(super) struct EndpointSettings<K: Outputs> {
    pub(super) secure: bool,
    pub(super) remote_endpoint: String,
    pub(super) clock: Arc<K::Clock>,
}

/// A server whose connections the application drives: it passes in received bytes, and gets the bytes to send. The
/// connections get their handlers from `F`. The example of the [module](super) has one.
pub struct Server<F: HandlerFactory = Handlers, K: Outputs = Threads> {
    core: Arc<ServerCore<F>>,
    pub(super) settings: EndpointSettings<K>,
}

/// A client whose connections the application drives: it passes in received bytes, and gets the bytes to send. The
/// connections get their handlers from `F`.
///
/// ```
/// # use anyloop::iostream::Client;
/// # use anyloop::prelude::*;
/// # use anyloop::proto::Instant;
/// let mut client = Client::new(ClientConfig::new());
/// client.set_secure(true); // a pipe to a child process, for example
/// client.set_clock(|| Instant::from_nanos(17)); // the time does not advance
///
/// let connection = client.connection("wss://localhost/")?;
/// connection.register_output(std::io::sink());
/// connection.start()?; // without `set_secure` it would fail, and send nothing
/// assert!(!connection.has_ended());
/// let timeout = connection.next_timeout().expect("the response must come in time");
/// assert_eq!(timeout - Instant::from_nanos(17), std::time::Duration::from_secs(5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Client<F: HandlerFactory = Handlers, K: Outputs = Threads> {
    core: Arc<ClientCore<F>>,
    pub(super) settings: EndpointSettings<K>,
}

/// A server whose connections stay on one thread: outputs, handlers and the clock need not be [`Send`].
///
/// It has all methods of [`Server`], some by dereferencing to it.
///
/// ```
/// use anyloop::iostream::LocalServer;
/// use anyloop::prelude::*;
/// use std::cell::RefCell;
/// use std::rc::Rc;
/// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
///
/// let mut server = LocalServer::new(ServerConfig::new(OriginPolicy::Any));
/// server.on_message(|message, context| _ = context.send(message));
/// let connection = server.connection();
///
/// let output = Rc::new(RefCell::new(Vec::new()));
/// let writer = output.clone();
/// connection.set_write_handler(move |bytes| Ok(writer.borrow_mut().extend_from_slice(bytes)));
/// connection.read_all(REQUEST)?;
/// output.borrow_mut().clear(); // the response
/// connection.read_all(b"\x81\x82\0\0\0\0hi")?;
/// assert_eq!(*output.borrow(), b"\x81\x02hi");
/// # Ok::<(), anyloop::iostream::CallError>(())
/// ```
pub struct LocalServer<F: HandlerFactory = LocalHandlers> {
    pub(super) server: Server<F, Local>,
}

/// A client whose connections stay on one thread: outputs, handlers and the clock need not be [`Send`].
///
/// It has all methods of [`Client`], some by dereferencing to it.
pub struct LocalClient<F: HandlerFactory = LocalHandlers> {
    pub(super) client: Client<F, Local>,
}

endpoint::server_methods!(Server, K: Outputs);
endpoint::client_methods!(Client, K: Outputs);
endpoint::server_methods!(LocalServer);
endpoint::client_methods!(LocalClient);
#[cfg(feature = "tls-core")]
endpoint::over_tls!(Server, Client, K: Outputs);
endpoint::local_endpoint!(LocalServer.server: Server);
endpoint::local_endpoint!(LocalClient.client: Client);
endpoint::constructors!(Server, ServerConfig, Handlers, "server");
endpoint::constructors!(Client, ClientConfig, Handlers, "client");
endpoint::constructors!(LocalServer, ServerConfig, LocalHandlers, "server");
endpoint::constructors!(LocalClient, ClientConfig, LocalHandlers, "client");

impl<F: HandlerFactory> LocalServer<F> {
    fn build(config: ServerConfig, factory: F) -> Self {
        Self { server: Server::build(config, factory) }
    }
}

impl<F: HandlerFactory> LocalClient<F> {
    fn build(config: ClientConfig, factory: F) -> Self {
        Self { client: Client::build(config, factory) }
    }
}

/// Setters of an endpoint for connections made afterwards.
macro_rules! setters {
    ($endpoint:ident $(, $kind:ident: $kind_trait:ident)?) => {
        impl<F: HandlerFactory $(, $kind: $kind_trait)?> $endpoint<F $(, $kind)?> {
            /// Sets whether the bytes are confidential: in a pipe to a child process, or in TLS of the application.
            /// Otherwise a client of a `wss` URI fails, and sends nothing. By default false. Applies to connections
            /// made afterwards.
            pub fn set_secure(&mut self, secure: bool) -> &mut Self {
                self.settings.secure = secure;
                self
            }

            /// Sets the name of the peer, for logs. By default "iostream transport". Applies to connections made
            /// afterwards.
            pub fn set_remote_endpoint(&mut self, name: impl Into<String>) -> &mut Self {
                self.settings.remote_endpoint = name.into();
                self
            }
        }
    };
}

setters!(Server, K: Outputs);
setters!(Client, K: Outputs);
setters!(LocalServer);
setters!(LocalClient);

impl<K: Outputs> Default for EndpointSettings<K> {
    fn default() -> Self {
        Self {
            secure: false,
            remote_endpoint: "iostream transport".to_string(),
            clock: K::system_clock(),
        }
    }
}

impl<F: HandlerFactory, K: Outputs> Server<F, K> {
    fn build(config: ServerConfig, factory: F) -> Self {
        Self { core: ServerCore::new(config, factory), settings: EndpointSettings::default() }
    }

    /// Creates the server side of a connection whose byte stream begins now.
    #[must_use]
    pub fn connection(&self) -> Connection<F::Handler, K> {
        self.connection_with(self.core.make_handler())
    }

    /// As [`connection`](Self::connection), with this handler.
    #[must_use]
    pub fn connection_with(&self, handler: F::Handler) -> Connection<F::Handler, K> {
        let waker = Arc::new(ConnectionWaker::default());
        let now = (self.settings.clock)();
        let driver = self.driver_with(handler, &waker.clone().into(), now);
        let connection = Connection::new(plain(driver), &self.settings, waker);
        // This sets the deadline of the handshake. It cannot fail: nothing is written, and no other call is under way.
        let _ = connection.start();
        connection
    }
}

impl<F: HandlerFactory, K: Outputs> Client<F, K> {
    fn build(config: ClientConfig, factory: F) -> Self {
        Self { core: ClientCore::new(config, factory), settings: EndpointSettings::default() }
    }

    /// Creates the client side of a connection to `target`, a URI or a [`Target`], whose byte stream begins now. The
    /// request is sent when the connection is [started](Connection::start).
    ///
    /// # Errors
    ///
    /// The URI is invalid, or the configuration makes an invalid request.
    pub fn connection<U>(&self, target: U) -> Result<Connection<F::Handler, K>, RequestError>
    where
        U: TryInto<Target>,
        UriError: From<U::Error>,
    {
        self.connection_with(self.core.make_handler(), target)
    }

    /// As [`connection`](Self::connection), with another configuration for this connection: `change` gets the client's
    /// configuration. [`keep_handshake`](ClientConfig::keep_handshake) cannot be changed here: the client's value
    /// applies.
    ///
    /// ```
    /// use anyloop::iostream::Client;
    /// use anyloop::prelude::*;
    ///
    /// let client = Client::new(ClientConfig::new().subprotocol("chat"));
    /// let large = |config: ClientConfig| config.max_message_size(1 << 30).ping_interval(None);
    /// let connection = client.connection_configured("ws://localhost/", large)?;
    /// # connection.register_output(std::io::sink());
    /// # connection.start()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`connection`](Self::connection).
    pub fn connection_configured<U>(
        &self,
        target: U,
        change: impl FnOnce(ClientConfig) -> ClientConfig,
    ) -> Result<Connection<F::Handler, K>, RequestError>
    where
        U: TryInto<Target>,
        UriError: From<U::Error>,
    {
        let waker = Arc::new(ConnectionWaker::default());
        let now = (self.settings.clock)();
        let driver = self.driver_configured(change, target, &waker.clone().into(), now)?;
        Ok(Connection::new(plain(driver), &self.settings, waker))
    }

    /// As [`connection`](Self::connection), with this handler.
    ///
    /// # Errors
    ///
    /// As [`connection`](Self::connection).
    pub fn connection_with<U>(
        &self,
        handler: F::Handler,
        target: U,
    ) -> Result<Connection<F::Handler, K>, RequestError>
    where
        U: TryInto<Target>,
        UriError: From<U::Error>,
    {
        let waker = Arc::new(ConnectionWaker::default());
        let now = (self.settings.clock)();
        let driver = self.driver_with(handler, target, &waker.clone().into(), now)?;
        Ok(Connection::new(plain(driver), &self.settings, waker))
    }
}
