//! Errors of the network.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyloop_proto::HandshakeError;
use anyloop_proto::TransportError;
use anyloop_proto::handshake::http::StatusCode;
use anyloop_proto::handshake::{RequestError, Target, UriError};

pub use self::socks::{SocksError, SocksReply};

mod socks;

/// The error of a call of an endpoint. The call had no effect, unless its documentation says otherwise.
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
    #[error("cannot create an event loop")]
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
    /// A socket of the application's own cannot be used.
    #[error("cannot use the socket")]
    Adopt(#[source] io::Error),
    /// There is no listener to accept connections from.
    #[error("the server does not listen on any address: listen first")]
    NotListening,
    /// The endpoint [was shut down](crate::net::Server::shut_down), which is final: it makes no connections.
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
    /// A client in a [`LocalEventLoop`](crate::LocalEventLoop) connects only on the thread of the loop.
    #[error(
        "a client in a LocalEventLoop connects only on its thread: post a function to the loop that connects"
    )]
    OtherThread,
    /// The target is not a WebSocket URI.
    #[error("not a WebSocket URI: {uri}{}", did_you_mean(uri))]
    Uri {
        /// The text as given.
        uri: String,
        /// The error in it.
        source: UriError,
    },
    /// The settings make an invalid request.
    #[error("cannot make the request")]
    Request(#[from] RequestError),
    /// TLS cannot be used: there are no roots to verify servers with, for example.
    #[cfg(feature = "tls-core")]
    #[error("cannot use TLS")]
    Tls(#[from] crate::tls::TlsConfigError),
}

/// The reason why a client got no byte stream to the server, or has not followed a redirect. [`Context::error`] returns
/// it in [`Handler::fail`].
///
/// A field `proxy` is the [`Proxy`](super::Proxy) as text: a URI without user and password.
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
    /// The host, or that of the proxy, could not be looked up.
    Resolve {
        /// The host; or `proxy` and the URI of the proxy.
        host: String,
        /// The reason.
        source: io::Error,
    },
    /// None of the host's addresses could be connected to.
    Connect {
        /// The host; the path of a Unix socket; or `proxy` and the URI of the proxy.
        host: String,
        /// Each address that was tried, and why it failed.
        attempts: Vec<(String, io::Error)>,
    },
    /// A timeout expired.
    TimedOut {
        /// The host; the path of a Unix socket; or `proxy` and the URI of the proxy.
        host: String,
        /// The stage that was not complete.
        stage: Stage,
        /// The timeout.
        after: Duration,
        /// The attempts that had failed before.
        attempts: Vec<(String, io::Error)>,
    },
    /// The proxy has closed or reset the connection instead of answering.
    ProxyClosed {
        /// The proxy.
        proxy: String,
        /// The error of the stream: `UnexpectedEof` if it was closed.
        source: io::Error,
    },
    /// What the proxy has answered is not of its protocol.
    ProxyAnswer {
        /// The proxy.
        proxy: String,
        /// What is wrong with it.
        source: ProxyAnswerError,
    },
    /// The proxy wants a user and a password, or does not accept those that it got.
    ProxyAuthentication {
        /// The proxy.
        proxy: String,
        /// Whether a user and a password were set.
        sent: bool,
        /// What an HTTP proxy asks for (`Proxy-Authenticate`, RFC 9110 §11.7.1).
        challenge: Option<String>,
    },
    /// An HTTP proxy has refused to open a tunnel (RFC 9110 §9.3.6).
    ProxyRefused {
        /// The proxy.
        proxy: String,
        /// The host and port of the server.
        target: String,
        /// The status: 403, or 502 if the proxy cannot connect, for example.
        status: u16,
        /// The body of the response, of which at most 4 KiB are kept.
        body: Vec<u8>,
    },
    /// TLS with an `https` proxy has failed: its certificate is not trusted, for example.
    #[cfg(feature = "tls-core")]
    ProxyTls {
        /// The proxy.
        proxy: String,
        /// The reason.
        source: crate::tls::TlsError,
    },
    /// A redirect was [not followed](crate::ClientConfig::redirects).
    Redirect {
        /// The `Location` field of the response, as the server has written it.
        location: String,
        /// The reason.
        source: RedirectError,
    },
    /// A SOCKS5 proxy has not connected (RFC 1928 §6).
    SocksRefused {
        /// The proxy.
        proxy: String,
        /// The host and port of the server.
        target: String,
        /// Why.
        reply: SocksReply,
    },
}

/// Why the answer of a proxy is invalid.
///
/// See [`ConnectError::ProxyAnswer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyAnswerError {
    /// It is no response of HTTP/1, or is too long.
    #[error("it is not HTTP: {0}")]
    Http(HandshakeError),
    /// It is not TLS, and the proxy is an `https` one.
    #[error("it is not TLS: use http:// if the proxy has a plain port")]
    NotTls,
    /// It is not SOCKS5.
    #[error(transparent)]
    Socks(SocksError),
}

/// Why a redirect was not followed.
///
/// See [`ConnectError::Redirect`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedirectError {
    /// It leads from `wss` to `ws`.
    #[error("it leads from wss to ws, where everybody on the way can read")]
    Downgrade,
    /// It leads to no WebSocket URI, or to one with a user ([`UriError::UserInfo`]), which only the application may
    /// choose.
    #[error("{}", uri(.0))]
    Uri(UriError),
    /// This number of redirects was followed before, which is the limit of the configuration.
    #[error("there were {0} redirects before, which is the limit")]
    TooMany(u32),
    /// The connection cannot be made: there are no roots to verify the server with, for example.
    #[error(transparent)]
    Connect(Box<Error>),
}

fn uri(error: &UriError) -> String {
    match error {
        UriError::UserInfo => "its URI has a user, or an invalid one".to_string(),
        error => error.to_string(),
    }
}

impl ConnectError {
    /// The kind of the failure, as the session gets it.
    pub(super) fn kind(&self) -> TransportError {
        match self {
            Self::Resolve { .. } => TransportError::NotFound,
            Self::Connect { attempts, .. } => {
                attempts.last().map_or(TransportError::Other, |(_, error)| error.into())
            }
            Self::TimedOut { .. } => TransportError::TimedOut,
            Self::ProxyClosed { source, .. } => source.into(),
            Self::SocksRefused { reply, .. } => match reply {
                SocksReply::NetworkUnreachable | SocksReply::HostUnreachable => {
                    TransportError::Unreachable
                }
                SocksReply::ConnectionRefused => TransportError::Refused,
                SocksReply::TtlExpired => TransportError::TimedOut,
                _ => TransportError::Other,
            },
            #[cfg(feature = "tls-core")]
            Self::ProxyTls { .. } => TransportError::Tls,
            Self::Redirect { .. }
            | Self::ProxyAnswer { .. }
            | Self::ProxyAuthentication { .. }
            | Self::ProxyRefused { .. } => TransportError::Other,
        }
    }
}

/// A question to append to an error: whether a similar URI was meant. Empty if none is similar.
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
    /// The proxy is asked for a tunnel.
    Proxy,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "looking up",
            Self::Connect => "connecting to",
            Self::Proxy => "opening a tunnel through",
        })
    }
}

/// Shows text of a peer escaped and cut, so that it can neither control a terminal nor fill a log.
struct Excerpt<'t>(&'t str);

impl Excerpt<'_> {
    /// The number of characters that are shown.
    const LEN: usize = 200;
}

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars().take(Self::LEN) {
            match c {
                '"' | '\'' | '\\' => write!(f, "{c}")?,
                _ => write!(f, "{}", c.escape_debug())?,
            }
        }
        f.write_str(if self.0.chars().nth(Self::LEN).is_some() { "…" } else { "" })
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A Unix socket has one address, which is its host as well.
        let list = |f: &mut fmt::Formatter<'_>, host: &str, attempts: &[(String, io::Error)]| {
            attempts.iter().enumerate().try_for_each(|(i, (address, error))| {
                let comma = if i == 0 { ": " } else { ", " };
                match address == host {
                    true => write!(f, "{comma}{error}"),
                    false => write!(f, "{comma}{address}: {error}"),
                }
            })
        };
        match self {
            Self::Resolve { host, .. } => write!(f, "cannot look up {host}"),
            Self::Connect { host, attempts } => {
                write!(f, "cannot connect to {host}")?;
                list(f, host, attempts)
            }
            Self::TimedOut { host, stage, after, attempts } => {
                write!(f, "{stage} {host} took longer than {after:?}")?;
                list(f, host, attempts)
            }
            Self::ProxyClosed { proxy, .. } => write!(f, "proxy {proxy} has closed the connection"),
            Self::ProxyAnswer { proxy, .. } => write!(f, "the answer of proxy {proxy} is invalid"),
            Self::ProxyAuthentication { proxy, sent, challenge } => {
                match sent {
                    true => write!(f, "proxy {proxy} does not accept this user and password")?,
                    false => write!(f, "proxy {proxy} wants a user and a password")?,
                }
                match challenge {
                    Some(challenge) => write!(f, " ({})", Excerpt(challenge)),
                    None => Ok(()),
                }
            }
            Self::ProxyRefused { proxy, target, status, .. } => {
                let known = StatusCode::from_u16(*status).ok();
                let reason = known.and_then(|status| status.canonical_reason()).unwrap_or_default();
                let answer = format!("{status} {reason}");
                write!(f, "proxy {proxy} refused a tunnel to {target}: {}", answer.trim_end())
            }
            #[cfg(feature = "tls-core")]
            Self::ProxyTls { proxy, .. } => write!(f, "TLS with proxy {proxy} has failed"),
            Self::Redirect { location, .. } => {
                write!(f, "the redirect to {} is not followed", Excerpt(location))
            }
            Self::SocksRefused { proxy, target, reply } => {
                write!(f, "proxy {proxy} has not connected to {target}: {reply}")
            }
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Resolve { source, .. } => Some(source),
            Self::Redirect { source, .. } => Some(source),
            Self::ProxyClosed { source, .. } => Some(source),
            Self::ProxyAnswer { source, .. } => Some(source),
            #[cfg(feature = "tls-core")]
            Self::ProxyTls { source, .. } => Some(source),
            Self::ProxyAuthentication { .. }
            | Self::ProxyRefused { .. }
            | Self::SocksRefused { .. } => None,
            Self::Connect { .. } | Self::TimedOut { .. } => None, // the text has all of them
        }
    }
}

/// The errors of attempts, with their addresses as text.
pub(super) fn describe_errors(attempts: Vec<(SocketAddr, io::Error)>) -> Vec<(String, io::Error)> {
    attempts.into_iter().map(|(address, error)| (address.to_string(), error)).collect()
}
