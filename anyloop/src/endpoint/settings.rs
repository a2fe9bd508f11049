//! What connections of an endpoint have in common.

use std::sync::Arc;

use anyloop_proto::handshake::{ClientOptions, ServerOptions};

use crate::session::BacklogLimits;

/// Settings of the connections of a [`Server`](super::Server).
///
/// ```
/// # use anyloop::endpoint::ServerSettings;
/// # use anyloop::proto::handshake::{OriginPolicy, ServerOptions};
/// # use anyloop::Server;
/// # use anyloop::transport::iostream::IoStream;
/// # use std::sync::Arc;
/// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// let mut settings = ServerSettings::from(ServerOptions::new(OriginPolicy::Any));
/// settings.keep_handshake = false; // a connection of its own has little else to remember
/// let mut server = Server::<IoStream>::new(settings);
/// server.on_open(|context| assert!(context.handshake_info().is_some())); // here it is always there
/// server.on_message(|_, context| assert!(context.handshake_info().is_none()));
/// let connection = server.connection();
/// connection.register_output(std::io::sink());
/// connection.read_all(REQUEST)?;
/// connection.read_all(b"\x81\x80\0\0\0\0")?;
/// assert_eq!(connection.statistics().map(|statistics| statistics.messages_received), Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerSettings {
    /// The opening handshake, and the connection that comes out of it.
    pub handshake: Arc<ServerOptions>,
    /// How much may wait for a peer that reads slowly.
    pub backlog: BacklogLimits,
    /// Whether a connection remembers its request and response after they were exchanged. By default
    /// it does; a server with very many connections may not want it to.
    pub keep_handshake: bool,
}

impl From<ServerOptions> for ServerSettings {
    fn from(options: ServerOptions) -> Self {
        let backlog = BacklogLimits::default();
        Self { handshake: Arc::new(options), backlog, keep_handshake: true }
    }
}

/// Settings of the connections of a [`Client`](super::Client).
///
/// ```
/// # use anyloop::Client;
/// # use anyloop::endpoint::ClientSettings;
/// # use anyloop::proto::handshake::ClientOptions;
/// # use anyloop::transport::iostream::IoStream;
/// # use std::sync::mpsc;
/// let mut options = ClientOptions::default();
/// options.subprotocols = vec!["chat".into()];
/// let mut settings = ClientSettings::from(options);
/// settings.backlog.cap = 1 << 20;
/// let client = Client::<IoStream>::new(settings);
///
/// let connection = client.connection(&"ws://localhost/".parse()?)?;
/// # let (to_server, at_server) = mpsc::channel();
/// # connection.set_write_handler(move |bytes| Ok(to_server.send(bytes.to_vec()).unwrap()));
/// connection.start()?;
/// let request = String::from_utf8(at_server.try_recv()?)?;
/// assert!(request.contains("\r\nSec-WebSocket-Protocol: chat\r\n"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientSettings {
    /// The opening handshake, and the connection that comes out of it.
    pub handshake: Arc<ClientOptions>,
    /// How much may wait for a peer that reads slowly.
    pub backlog: BacklogLimits,
    /// Whether a connection remembers its response after it was received.
    pub keep_handshake: bool,
}

impl From<ClientOptions> for ClientSettings {
    fn from(options: ClientOptions) -> Self {
        let backlog = BacklogLimits::default();
        Self { handshake: Arc::new(options), backlog, keep_handshake: true }
    }
}

impl Default for ClientSettings {
    fn default() -> Self {
        ClientOptions::default().into()
    }
}

/// What an endpoint keeps for all its connections over one kind of transport: listeners, or how a
/// connection begins. `()` keeps nothing.
///
/// ```
/// use anyloop::Server;
/// use anyloop::endpoint::TransportEndpoint;
/// use anyloop::proto::handshake::{OriginPolicy, ServerOptions};
///
/// /// Serial ports.
/// #[derive(Default)]
/// struct Ports {
///     baud: u32,
/// }
///
/// impl TransportEndpoint for Ports {}
///
/// let mut server = Server::<Ports>::new(ServerOptions::new(OriginPolicy::Any));
/// server.transport_mut().baud = 115_200;
/// ```
pub trait TransportEndpoint: Default {
    /// The server [shuts down](super::Server::shut_down): no further connections are to be made for it.
    /// By default it does nothing, for transports that make none by themselves.
    fn stop_listening(&self) {}
}

impl TransportEndpoint for () {}
