//! Servers and clients, and their connections.

use std::fmt;
use std::sync::Arc;

use anyloop_proto::handshake::{RequestError, Target};

use super::outputs::Outputs;
use super::{Connection, ConnectionWaker, plain};
use crate::endpoint::{self, ClientConfig, HandlerFactory, Handlers, LocalHandlers, ServerConfig};
use crate::threading::{Local, Threads};

/// The transport whose bytes the program moves, with the initial settings of all connections of an endpoint.
///
/// See [`Connection`].
///
/// ```
/// # use anyloop::iostream::Client;
/// # use anyloop::prelude::*;
/// # use anyloop::proto::Instant;
/// let mut client = Client::new(ClientConfig::new());
/// client.set_secure(true); // a pipe to a child process, for example
/// client.set_clock(|| Instant::from_nanos(17)); // the time does not advance
///
/// let connection = client.connection(&"wss://localhost/".parse()?)?;
/// connection.register_output(std::io::sink());
/// connection.start()?; // without `secure` it would fail, and send nothing
/// assert!(!connection.has_ended());
/// let timeout = connection.next_timeout().expect("the response must come in time");
/// assert_eq!(timeout - Instant::from_nanos(17), std::time::Duration::from_secs(5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct IoStream<K: Outputs = Threads> {
    pub(super) secure: bool,
    pub(super) remote_endpoint: String,
    pub(super) clock: Arc<K::Clock>,
}

/// A server whose connections the program drives by hand.
pub type Server<F = Handlers> = endpoint::Server<IoStream, F>;

/// A client whose connections the program drives by hand.
pub type Client<F = Handlers> = endpoint::Client<IoStream, F>;

/// A server whose connections stay on one thread: outputs, handlers and the clock need not be [`Send`].
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
pub type LocalServer<F = LocalHandlers> = endpoint::Server<IoStream<Local>, F>;

/// A client whose connections stay on one thread: outputs, handlers and the clock need not be [`Send`].
pub type LocalClient<F = LocalHandlers> = endpoint::Client<IoStream<Local>, F>;

/// The initial settings of all connections of an endpoint.
macro_rules! setters {
    ($endpoint:ident) => {
        impl<K: Outputs, F: HandlerFactory> endpoint::$endpoint<IoStream<K>, F> {
            /// Whether the bytes are confidential: a pipe to a child process, or TLS around them. Otherwise a client of
            /// a `wss` URI fails, and sends nothing. By default false. Applies to connections made afterwards.
            pub fn set_secure(&mut self, secure: bool) -> &mut Self {
                self.backend.secure = secure;
                self
            }

            /// The name of the peer, for logs. By default "iostream transport". Applies to connections made
            /// afterwards.
            pub fn set_remote_endpoint(&mut self, name: impl Into<String>) -> &mut Self {
                self.backend.remote_endpoint = name.into();
                self
            }
        }
    };
}

setters!(Server);
setters!(Client);

/// The constructors of an endpoint on one thread.
macro_rules! constructors {
    ($endpoint:ident, $config:ident) => {
        impl endpoint::$endpoint<IoStream<Local>, LocalHandlers> {
            /// An endpoint whose handlers are closures, which are set afterwards.
            #[must_use]
            pub fn new(config: $config) -> Self {
                Self::with_factory(config, LocalHandlers::new())
            }
        }

        impl<F: HandlerFactory> endpoint::$endpoint<IoStream<Local>, F> {
            /// An endpoint whose connections get their handlers from `factory`.
            #[must_use]
            pub fn with_factory(config: $config, factory: F) -> Self {
                Self::with_backend(IoStream::new(), config, factory)
            }
        }
    };
}

constructors!(Server, ServerConfig);
constructors!(Client, ClientConfig);

impl<K: Outputs> IoStream<K> {
    fn new() -> Self {
        Self {
            secure: false,
            remote_endpoint: "iostream transport".to_string(),
            clock: K::system_clock(),
        }
    }
}

impl Default for IoStream {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Outputs> fmt::Debug for IoStream<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoStream")
            .field("secure", &self.secure)
            .field("remote_endpoint", &self.remote_endpoint)
            .finish_non_exhaustive()
    }
}

impl<K: Outputs, F: HandlerFactory> endpoint::Server<IoStream<K>, F> {
    /// The server's end of a byte stream that begins now.
    #[must_use]
    pub fn connection(&self) -> Connection<F::Handler, K> {
        self.connection_with(self.core().make_handler())
    }

    /// The same with a handler of its own.
    #[must_use]
    pub fn connection_with(&self, handler: F::Handler) -> Connection<F::Handler, K> {
        let waker = Arc::new(ConnectionWaker::default());
        let now = (self.backend.clock)();
        let driver = self.driver_with(handler, &waker.clone().into(), now);
        let connection = Connection::new(plain(driver), &self.backend, waker);
        // It has no output yet, but a deadline. No other thread has access to it yet.
        let _ = connection.start();
        connection
    }
}

impl<K: Outputs, F: HandlerFactory> endpoint::Client<IoStream<K>, F> {
    /// The client's end of a byte stream to `target` that begins now. It sends its request when it is
    /// [started](Connection::start).
    ///
    /// # Errors
    ///
    /// The options would make an invalid request.
    pub fn connection(&self, target: &Target) -> Result<Connection<F::Handler, K>, RequestError> {
        self.connection_with(self.core().make_handler(), target)
    }

    /// The same with another configuration for this connection: `change` gets that of the client.
    /// [`keep_handshake`](ClientConfig::keep_handshake) remains that of the client.
    ///
    /// ```
    /// use anyloop::iostream::Client;
    /// use anyloop::prelude::*;
    ///
    /// let client = Client::new(ClientConfig::new().subprotocol("chat"));
    /// let target = "ws://localhost/".parse()?;
    /// let large = |config: ClientConfig| config.max_message_size(1 << 30).ping_interval(None);
    /// let connection = client.connection_configured(&target, large)?;
    /// # connection.register_output(std::io::sink());
    /// # connection.start()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`connection`](Self::connection).
    pub fn connection_configured(
        &self,
        target: &Target,
        change: impl FnOnce(ClientConfig) -> ClientConfig,
    ) -> Result<Connection<F::Handler, K>, RequestError> {
        let waker = Arc::new(ConnectionWaker::default());
        let now = (self.backend.clock)();
        let driver = self.driver_configured(change, target, &waker.clone().into(), now)?;
        Ok(Connection::new(plain(driver), &self.backend, waker))
    }

    /// The same with a handler of its own.
    ///
    /// # Errors
    ///
    /// As [`connection`](Self::connection).
    pub fn connection_with(
        &self,
        handler: F::Handler,
        target: &Target,
    ) -> Result<Connection<F::Handler, K>, RequestError> {
        let waker = Arc::new(ConnectionWaker::default());
        let now = (self.backend.clock)();
        let driver = self.driver_with(handler, target, &waker.clone().into(), now)?;
        Ok(Connection::new(plain(driver), &self.backend, waker))
    }
}
