//! The configuration of an endpoint: what its connections have in common.

use std::sync::Arc;
use std::time::Duration;

use anyloop_proto::handshake::http::{HeaderMap, HeaderName, HeaderValue};
use anyloop_proto::handshake::{ClientOptions, Negotiator, OriginPolicy, ServerOptions};
use anyloop_proto::{Config, Random};

#[cfg(feature = "net")]
use super::sockets::{ConnectOptions, ListenOptions};
use crate::session::{BacklogLimits, Overflow};

/// The configuration of a server and of its connections.
///
/// Each method sets one thing and returns the configuration. What is not set has its default:
///
/// | setting | default | turned off by |
/// |---|---|---|
/// | [`new`](Self::new): the web pages that may connect | none: choose | [`OriginPolicy::Any`] |
/// | [`max_message_size`](Self::max_message_size) | 16 MiB | `u64::MAX` |
/// | [`streaming`](Self::streaming) | `false` | |
/// | [`ping_interval`](Self::ping_interval), [`pong_timeout`](Self::pong_timeout) | 20 s each | `None` |
/// | [`idle_timeout`](Self::idle_timeout), [`data_idle_timeout`](Self::data_idle_timeout) | none | `None` |
/// | [`close_timeout`](Self::close_timeout) | 5 s | `None` |
/// | [`open_timeout`](Self::open_timeout) | 5 s | `None` |
/// | [`verdict_timeout`](Self::verdict_timeout) | 10 s | `None` |
/// | [`max_head_size`](Self::max_head_size), [`max_fields`](Self::max_fields) | 16 KiB, 100 | `usize::MAX` |
/// | [`max_body_size`](Self::max_body_size) | 64 KiB | `usize::MAX` |
/// | [`high_water_mark`](Self::high_water_mark), [`low_water_mark`](Self::low_water_mark) | 1 MiB, 64 KiB | |
/// | [`max_backlog`](Self::max_backlog) | 16 MiB | `usize::MAX` |
/// | [`overflow`](Self::overflow) | [`Overflow::Error`] | |
/// | [`keep_handshake`](Self::keep_handshake) | `true` | `false` |
/// | [`extension`](Self::extension) | none | |
///
/// and with the feature `net`, for servers that have sockets:
///
/// | setting | default |
/// |---|---|
/// | [`tcp_nodelay`](Self::tcp_nodelay) | `true` |
/// | [`listen_backlog`](Self::listen_backlog) | 4096 connections |
/// | [`reuse_address`](Self::reuse_address) | `true`, but for Windows |
/// | [`reuse_port`](Self::reuse_port) | `false` |
///
/// ```
/// use anyloop::prelude::*;
/// use std::time::Duration;
///
/// let config = ServerConfig::new(OriginPolicy::only(["https://chat.example"]))
///     .max_message_size(64 << 10)
///     .ping_interval(Duration::from_secs(5))
///     .idle_timeout(None);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ServerConfig {
    pub(crate) handshake: Arc<ServerOptions>,
    pub(crate) backlog: BacklogLimits,
    pub(crate) keep_handshake: bool,
    #[cfg(feature = "net")]
    pub(crate) nodelay: bool,
    #[cfg(feature = "net")]
    pub(crate) listen: ListenOptions,
}

/// The configuration of a client and of its connections.
///
/// Each method sets one thing and returns the configuration. What is not set has its default:
///
/// | setting | default | turned off by |
/// |---|---|---|
/// | [`max_message_size`](Self::max_message_size) | 16 MiB | `u64::MAX` |
/// | [`streaming`](Self::streaming) | `false` | |
/// | [`ping_interval`](Self::ping_interval), [`pong_timeout`](Self::pong_timeout) | 20 s each | `None` |
/// | [`idle_timeout`](Self::idle_timeout), [`data_idle_timeout`](Self::data_idle_timeout) | none | `None` |
/// | [`close_timeout`](Self::close_timeout) | 5 s | `None` |
/// | [`open_timeout`](Self::open_timeout) | 5 s | `None` |
/// | [`subprotocol`](Self::subprotocol), [`header`](Self::header), [`origin`](Self::origin) | none | |
/// | [`extension`](Self::extension) | none | |
/// | [`max_head_size`](Self::max_head_size), [`max_fields`](Self::max_fields) | 16 KiB, 100 | `usize::MAX` |
/// | [`max_body_size`](Self::max_body_size) | 64 KiB | |
/// | [`high_water_mark`](Self::high_water_mark), [`low_water_mark`](Self::low_water_mark) | 1 MiB, 64 KiB | |
/// | [`max_backlog`](Self::max_backlog) | 16 MiB | `usize::MAX` |
/// | [`overflow`](Self::overflow) | [`Overflow::Error`] | |
/// | [`keep_handshake`](Self::keep_handshake) | `true` | `false` |
///
/// and with the feature `net`, for clients that connect sockets:
///
/// | setting | default | turned off by |
/// |---|---|---|
/// | [`tcp_nodelay`](Self::tcp_nodelay) | `true` | `false` |
/// | [`resolve_timeout`](Self::resolve_timeout) | 10 s | `None` |
/// | [`connect_timeout`](Self::connect_timeout) | 10 s | `None` |
/// | [`total_timeout`](Self::total_timeout) | none | `None` |
/// | [`attempt_delay`](Self::attempt_delay) | 250 ms | |
///
/// ```
/// use anyloop::prelude::*;
/// use std::time::Duration;
///
/// let config = ClientConfig::new()
///     .subprotocol("chat.v2")
///     .subprotocol("chat.v1")
///     .pong_timeout(Duration::from_secs(3));
/// ```
///
/// A client can have another configuration for one connection:
/// `net::ConnectRequest::configure`.
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientConfig {
    pub(crate) handshake: Arc<ClientOptions>,
    pub(crate) backlog: BacklogLimits,
    pub(crate) keep_handshake: bool,
    #[cfg(feature = "net")]
    pub(crate) nodelay: bool,
    #[cfg(feature = "net")]
    pub(crate) connect: ConnectOptions,
}

impl ServerConfig {
    /// The defaults. Which web pages may connect has no default, since a server that trusts cookies, addresses or its
    /// network must know them: see [`OriginPolicy`].
    pub fn new(origins: OriginPolicy) -> Self {
        Self {
            handshake: Arc::new(ServerOptions::new(origins)),
            backlog: BacklogLimits::default(),
            keep_handshake: true,
            #[cfg(feature = "net")]
            nodelay: true,
            #[cfg(feature = "net")]
            listen: ListenOptions::default(),
        }
    }

    /// The time for the answer to a request that [`validate`](crate::Handler::validate) or
    /// [`http`](crate::Handler::http) has deferred; then the request gets 503.
    pub fn verdict_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.handshake().verdict_timeout = timeout.into();
        self
    }

    /// Adds an extension that clients may use.
    pub fn extension(mut self, extension: Arc<dyn Negotiator>) -> Self {
        self.handshake().extensions.push(extension);
        self
    }

    /// The largest body of a plain HTTP request, in bytes; a larger one gets 413.
    pub fn max_body_size(mut self, bytes: usize) -> Self {
        self.handshake().max_body_size = bytes;
        self
    }
}

#[cfg(feature = "net")]
impl ServerConfig {
    /// How many connections may wait to be accepted. The operating system has a limit of its own.
    pub fn listen_backlog(mut self, connections: u32) -> Self {
        self.listen.backlog = connections;
        self
    }

    /// Listens on an address of which a former process still has connections (`SO_REUSEADDR`).
    pub fn reuse_address(mut self, reuse: bool) -> Self {
        self.listen.reuse_address = reuse;
        self
    }

    /// Listens on an address together with other sockets that also have this set, among which the operating system
    /// distributes connections (`SO_REUSEPORT`; Unix).
    pub fn reuse_port(mut self, reuse: bool) -> Self {
        self.listen.reuse_port = reuse;
        self
    }
}

impl ClientConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            handshake: Arc::default(),
            backlog: BacklogLimits::default(),
            keep_handshake: true,
            #[cfg(feature = "net")]
            nodelay: true,
            #[cfg(feature = "net")]
            connect: ConnectOptions::default(),
        }
    }

    /// Adds a subprotocol to ask for, behind those that are preferred to it: distinct tokens. The server chooses one
    /// or none.
    pub fn subprotocol(mut self, name: impl Into<String>) -> Self {
        self.handshake().subprotocols.push(name.into());
        self
    }

    /// Replaces the subprotocols to ask for, in order of preference.
    pub fn subprotocols<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.handshake().subprotocols = names.into_iter().map(Into::into).collect();
        self
    }

    /// Adds an extension to offer, behind those that are preferred to it.
    pub fn extension(mut self, extension: Arc<dyn Negotiator>) -> Self {
        self.handshake().extensions.push(extension);
        self
    }

    /// Adds a field to the request. Fields of the handshake itself are refused when connecting. `Host` replaces the
    /// host of the URI.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.handshake().headers.append(name, value);
        self
    }

    /// Replaces all fields that were added to the request.
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        self.handshake().headers = headers;
        self
    }

    /// The Origin field (RFC 6454 §7), for a client that runs web pages or imitates a browser.
    pub fn origin(mut self, origin: impl Into<Option<HeaderValue>>) -> Self {
        self.handshake().origin = origin.into();
        self
    }

    /// How much of the body of a response other than 101 is kept, in bytes. The rest is cut off without an error.
    pub fn max_body_size(mut self, bytes: usize) -> Self {
        self.handshake().max_body_size = bytes;
        self
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "net")]
impl ClientConfig {
    /// The time for looking up the host. `None`: as long as the resolver takes.
    pub fn resolve_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.connect.resolve_timeout = timeout.into();
        self
    }

    /// The time for connecting to one of the addresses of the host. `None`: as long as the operating system takes.
    pub fn connect_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.connect.connect_timeout = timeout.into();
        self
    }

    /// The time for everything up to the open connection, beside the times of the stages.
    pub fn total_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.connect.total_timeout = timeout.into();
        self
    }

    /// After this time another address is tried beside those that have not answered (RFC 8305 §5).
    pub fn attempt_delay(mut self, delay: Duration) -> Self {
        self.connect.attempt_delay = delay;
        self
    }
}

/// What servers and clients have in common.
macro_rules! common {
    ($config:ident, $options:ident, $head:literal) => {
        impl $config {
            /// The largest message that is accepted, in bytes of payload, inclusive; with an extension, of the decoded
            /// message. A header that announces more fails the connection with 1009.
            pub fn max_message_size(mut self, bytes: u64) -> Self {
                self.connection().max_message_size = bytes;
                self
            }

            /// Whether messages are passed on in parts as they arrive, to [`chunk`](crate::Handler::chunk) instead of
            /// [`message`](crate::Handler::message). They are never gathered then, and may have any size up to
            /// [`max_message_size`](Self::max_message_size).
            pub fn streaming(mut self, streaming: bool) -> Self {
                self.connection().streaming = streaming;
                self
            }

            /// The time without received frames after which a ping is sent; less than 1 ms counts as 1 ms.
            pub fn ping_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
                self.connection().ping_interval = interval.into();
                self
            }

            /// The time in which the peer must answer a keep-alive ping; then the connection fails with 1011. Data
            /// that arrives meanwhile restarts it, since a pong cannot overtake data, and so does output in front of
            /// the ping that has not left this machine. `None`: answers are not awaited.
            pub fn pong_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
                self.connection().pong_timeout = timeout.into();
                self
            }

            /// The time without received frames after which the connection is closed with 1001. Keep-alive pings and
            /// their pongs do not postpone it.
            pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
                self.connection().idle_timeout = timeout.into();
                self
            }

            /// The time without received data frames after which the connection is closed with 1001. Control frames do
            /// not postpone it.
            pub fn data_idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
                self.connection().data_idle_timeout = timeout.into();
                self
            }

            /// The time for the closing handshake and the end of the byte stream, from our Close on.
            pub fn close_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
                self.connection().close_timeout = timeout.into();
                self
            }

            /// The source of masking keys and nonces. By default the operating system's; any other must be as
            /// unpredictable (RFC 6455 §10.3).
            pub fn random(mut self, random: Arc<dyn Random>) -> Self {
                self.connection().random = random;
                self
            }

            /// The time for the opening handshake.
            pub fn open_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
                self.handshake().open_timeout = timeout.into();
                self
            }

            #[doc = $head]
            pub fn max_head_size(mut self, bytes: usize) -> Self {
                self.handshake().max_head_size = bytes;
                self
            }

            /// The most header fields of the peer's head.
            pub fn max_fields(mut self, fields: usize) -> Self {
                self.handshake().max_fields = fields;
                self
            }

            /// Above so many bytes that wait for a slow peer, sending reports
            /// [`Sent::Backpressure`](crate::endpoint::Sent::Backpressure), and
            /// [`backpressure`](crate::Handler::backpressure) is called.
            pub fn high_water_mark(mut self, bytes: usize) -> Self {
                self.backlog.high = bytes;
                self
            }

            /// When no more than so many bytes wait for a slow peer after more than the high-water mark did,
            /// [`drained`](crate::Handler::drained) is called. A mark above the high-water mark counts as equal to it.
            pub fn low_water_mark(mut self, bytes: usize) -> Self {
                self.backlog.low = bytes;
                self
            }

            /// The most bytes that may wait for a slow peer. A message that would make it more is treated as
            /// [`overflow`](Self::overflow) says, unless nothing waits. What a [`Handle`](crate::Handle) has accepted
            /// is not refused any more, and a handler's own messages are judged without it: at worst twice as much
            /// waits.
            ///
            /// A peer that reads at once is not slow, however fast others publish to it: in an event loop, what was sent
            /// to a connection is written before another connection's next read, which is about 600 KB at most. So
            /// leave room for that much, and for one message more.
            pub fn max_backlog(mut self, bytes: usize) -> Self {
                self.backlog.cap = bytes;
                self
            }

            /// What becomes of a message for which the backlog has no room.
            pub fn overflow(mut self, overflow: Overflow) -> Self {
                self.backlog.overflow = overflow;
                self
            }

            /// Whether connections remember their request and response while they are open. `open` and `fail` can ask
            /// for them in any case.
            pub fn keep_handshake(mut self, keep: bool) -> Self {
                self.keep_handshake = keep;
                self
            }

            /// Whether small messages are sent at once (`TCP_NODELAY`) instead of waiting for more.
            #[cfg(feature = "net")]
            pub fn tcp_nodelay(mut self, nodelay: bool) -> Self {
                self.nodelay = nodelay;
                self
            }

            fn handshake(&mut self) -> &mut $options {
                Arc::make_mut(&mut self.handshake)
            }

            fn connection(&mut self) -> &mut Config {
                Arc::make_mut(&mut self.handshake().connection)
            }
        }
    };
}

common!(
    ServerConfig,
    ServerOptions,
    "The largest head of a request, in bytes, including line ends. A larger one gets 431, or 414 if the request line \
     alone is larger."
);
common!(
    ClientConfig,
    ClientOptions,
    "The largest head of a response, in bytes, including line ends; heads of interim responses (1xx) are added to it."
);
