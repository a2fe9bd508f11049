//! Errors of the network.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyloop_proto::handshake::{RequestError, Target, UriError};

/// The error of a call of an endpoint, which had no effect.
///
/// ```
/// use anyloop::net::{Error, Server};
/// use anyloop::prelude::*;
///
/// let server = Server::new(ServerConfig::new(OriginPolicy::Any))?;
/// let first = server.listen("127.0.0.1:0")?;
/// let error = server.listen(first).unwrap_err();
/// assert!(matches!(error, Error::Listen { .. }));
/// assert_eq!(error.to_string(), format!("cannot listen on {first}"));
/// assert!(std::error::Error::source(&error).is_some()); // because it is in use
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The event loop could not be created.
    #[error("cannot make an event loop")]
    EventLoop(#[source] io::Error),
    /// The host of an address to listen on could not be looked up.
    #[error("cannot look up {address}")]
    Resolve {
        /// The text as given.
        address: String,
        /// The reason.
        source: io::Error,
    },
    /// An address cannot be listened on: it is in use, for example.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// The reason.
        source: io::Error,
    },
    /// A socket of the program's own cannot be used.
    #[error("cannot use the socket")]
    Adopt(#[source] io::Error),
    /// There is no listener to accept connections from.
    #[error("the server does not listen on any address")]
    NotListening,
    /// The endpoint [was shut down](crate::endpoint::Server::shut_down), which is final: it makes no connections.
    #[error("the endpoint was shut down: make a new one")]
    ShutDown,
    /// The endpoint or its event loop was dropped.
    #[error("the endpoint was dropped")]
    EndpointDropped,
    /// The configuration of one connection changes `keep_handshake`, which is the same for all of a client.
    #[error("keep_handshake cannot be set for one connection: set it for the client")]
    NotPerConnection,
    /// The handle is that of a server, or of a transport without sockets.
    #[error("only a client with sockets connects by its handle")]
    NotAClient,
    /// A client in a [`LocalEventLoop`](crate::LocalEventLoop) connects on its own thread alone: post there to connect.
    #[error("a client in a LocalEventLoop connects on its own thread alone: post there to connect")]
    OtherThread,
    /// The target is not a WebSocket URI.
    #[error("not a WebSocket URI: {uri}{}", did_you_mean(uri))]
    Uri {
        /// The text as given.
        uri: String,
        /// The error in it.
        source: UriError,
    },
    /// The options make an invalid request.
    #[error("cannot make the request")]
    Request(#[from] RequestError),
    /// TLS cannot be used: there are no roots to verify servers with, for example.
    #[cfg(feature = "tls-core")]
    #[error("cannot use TLS")]
    Tls(#[from] crate::tls::TlsConfigError),
}

/// The reason why a client got no byte stream to the server. [`Context::error`] returns it in [`Handler::fail`].
///
/// ```
/// use anyloop::net::{Client, ConnectError};
/// use anyloop::prelude::*;
///
/// # let unused = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
/// let mut client = Client::new(ClientConfig::new())?;
/// client.on_fail(|_, context| {
///     let error = context.error().and_then(|error| error.downcast_ref::<ConnectError>());
///     assert!(matches!(error, Some(ConnectError::Connect { .. })));
/// });
/// client.connect(format!("ws://{unused}/").as_str())?; // nobody listens there
/// assert_eq!(client.run(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`Context::error`]: crate::endpoint::Context::error
/// [`Handler::fail`]: crate::Handler::fail
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The host could not be looked up.
    Resolve {
        /// The host.
        host: String,
        /// The reason.
        source: io::Error,
    },
    /// None of the host's addresses could be connected to.
    Connect {
        /// The host, or the path of a Unix socket.
        host: String,
        /// Each address that was tried, and why it failed.
        attempts: Vec<(String, io::Error)>,
    },
    /// A timeout expired.
    TimedOut {
        /// The host, or the path of a Unix socket.
        host: String,
        /// The stage that was not complete.
        stage: Stage,
        /// The timeout.
        after: Duration,
        /// The attempts that had failed before.
        attempts: Vec<(String, io::Error)>,
    },
}

/// What was meant, perhaps.
fn did_you_mean(uri: &str) -> String {
    match Target::suggestion(uri) {
        Some(suggestion) => format!("; did you mean {suggestion}?"),
        None => String::new(),
    }
}

/// A stage of connecting.
///
/// See [`ConnectError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// The host is looked up.
    Resolve,
    /// Its addresses are connected to.
    Connect,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "looking up",
            Self::Connect => "connecting to",
        })
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, attempts: &[(String, io::Error)]| {
            attempts.iter().enumerate().try_for_each(|(i, (address, error))| {
                let comma = if i == 0 { ": " } else { ", " };
                write!(f, "{comma}{address}: {error}")
            })
        };
        match self {
            Self::Resolve { host, .. } => write!(f, "cannot look up {host}"),
            Self::Connect { host, attempts } => {
                write!(f, "cannot connect to {host}")?;
                list(f, attempts)
            }
            Self::TimedOut { host, stage, after, attempts } => {
                write!(f, "{stage} {host} took longer than {after:?}")?;
                list(f, attempts)
            }
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Resolve { source, .. } => Some(source),
            Self::Connect { .. } | Self::TimedOut { .. } => None, // the text has all of them
        }
    }
}

/// Attempts as text, for logs.
pub(super) fn readable(attempts: Vec<(SocketAddr, io::Error)>) -> Vec<(String, io::Error)> {
    attempts.into_iter().map(|(address, error)| (address.to_string(), error)).collect()
}
