//! The configurations of servers and clients.

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "deflate")]
use anyloop_proto::deflate::Deflate;
use anyloop_proto::handshake::http::{HeaderMap, HeaderValue, header};
use anyloop_proto::handshake::{
    ClientOptions, Negotiator, OriginPolicy, RequestError, ServerOptions,
};
use anyloop_proto::{Config, Random};

#[cfg(feature = "net")]
use super::sockets::{ConnectOptions, ListenOptions};
#[cfg(feature = "net")]
use crate::proxy::{ProxyError, ProxyRules};
use crate::session::{Overflow, SendBufferLimits};

/// The configuration of a server and of its connections.
///
/// Each method changes one setting and returns the configuration. The defaults are:
///
/// | setting | default | turned off by |
/// |---|---|---|
/// | [`new`](Self::new): the web pages that may connect | none: it is required | [`OriginPolicy::Any`] |
/// | [`max_message_size`](Self::max_message_size) | 16 MiB | `u64::MAX` |
/// | [`streaming`](Self::streaming) | `false` | |
/// | [`ping_interval`](Self::ping_interval), [`pong_timeout`](Self::pong_timeout) | 20 s each | `None` |
/// | [`idle_timeout`](Self::idle_timeout), [`data_idle_timeout`](Self::data_idle_timeout) | none | `None` |
/// | [`close_timeout`](Self::close_timeout) | 5 s | `None` |
/// | [`open_timeout`](Self::open_timeout) | 5 s | `None` |
/// | [`answer_timeout`](Self::answer_timeout) | 10 s | `None` |
/// | [`response_timeout`](Self::response_timeout) | 30 s | `None` |
/// | [`max_head_size`](Self::max_head_size) | 16 KiB | `usize::MAX` |
/// | [`max_fields`](Self::max_fields) | 100 | `usize::MAX`: up to 24,576 |
/// | [`max_body_size`](Self::max_body_size) | 64 KiB | `usize::MAX` |
/// | [`high_water_mark`](Self::high_water_mark), [`low_water_mark`](Self::low_water_mark) | 1 MiB, 64 KiB | |
/// | [`max_send_buffer`](Self::max_send_buffer) | 16 MiB | `usize::MAX` |
/// | [`overflow`](Self::overflow) | [`Overflow::Error`] | |
/// | [`keep_handshake`](Self::keep_handshake) | `true` | `false` |
/// | [`extension`](Self::extension), `deflate` | none | |
/// | [`random`](Self::random) | the operating system's | |
///
/// and with the feature `net`, for servers that have sockets:
///
/// | setting | default |
/// |---|---|
/// | `tcp_nodelay` | `true` |
/// | `listen_backlog` | 4096 connections |
/// | `reuse_address` | `true`, except on Windows |
/// | `reuse_port` | `false` |
///
/// ```
/// use anyloop::prelude::*;
/// use std::time::Duration;
///
/// let config = ServerConfig::new(OriginPolicy::only(["https://chat.example"]))
///     .max_message_size(64 << 10)
///     .ping_interval(Duration::from_secs(5))
///     .idle_timeout(None);
/// assert_eq!(config.get_max_message_size(), 64 << 10); // each setting can be read
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ServerConfig {
    pub(crate) handshake: Arc<ServerOptions>,
    pub(crate) send_buffer: SendBufferLimits,
    pub(crate) keep_handshake: bool,
    #[cfg(feature = "net")]
    pub(crate) nodelay: bool,
    #[cfg(feature = "net")]
    pub(crate) listen: ListenOptions,
}

/// The configuration of a client and of its connections.
///
/// Each method changes one setting and returns the configuration. The defaults are:
///
/// | setting | default | turned off by |
/// |---|---|---|
/// | [`max_message_size`](Self::max_message_size) | 16 MiB | `u64::MAX` |
/// | [`streaming`](Self::streaming) | `false` | |
/// | [`ping_interval`](Self::ping_interval), [`pong_timeout`](Self::pong_timeout) | 20 s each | `None` |
/// | [`idle_timeout`](Self::idle_timeout), [`data_idle_timeout`](Self::data_idle_timeout) | none | `None` |
/// | [`close_timeout`](Self::close_timeout) | 5 s | `None` |
/// | [`open_timeout`](Self::open_timeout) | 5 s | `None` |
/// | [`subprotocol`](Self::subprotocol), [`header`](Self::header) | none | |
/// | [`origin`](Self::origin) | none | [`without_origin`](Self::without_origin) |
/// | [`extension`](Self::extension), `deflate` | none | |
/// | [`max_head_size`](Self::max_head_size) | 16 KiB | `usize::MAX` |
/// | [`max_fields`](Self::max_fields) | 100 | `usize::MAX`: up to 24,576 |
/// | [`max_body_size`](Self::max_body_size) | 64 KiB | `usize::MAX` |
/// | [`high_water_mark`](Self::high_water_mark), [`low_water_mark`](Self::low_water_mark) | 1 MiB, 64 KiB | |
/// | [`max_send_buffer`](Self::max_send_buffer) | 16 MiB | `usize::MAX` |
/// | [`overflow`](Self::overflow) | [`Overflow::Error`] | |
/// | [`keep_handshake`](Self::keep_handshake) | `true` | `false` |
/// | [`random`](Self::random) | the operating system's | |
///
/// and with the feature `net`, for clients that connect sockets:
///
/// | setting | default | turned off by |
/// |---|---|---|
/// | `tcp_nodelay` | `true` | `false` |
/// | `resolve_timeout` | 10 s | `None` |
/// | `connect_timeout` | 10 s | `None` |
/// | `total_timeout` | none | `None` |
/// | `attempt_delay` | 250 ms | |
/// | `proxy` | none | `None` |
/// | `redirects` | 0 | 0 |
/// | `tls`, with the feature `tls-core` | the default roots, no client certificate | |
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
    /// Why a field could not be added: the first error. It is reported when connecting.
    pub(crate) invalid_header: Option<RequestError>,
    /// The origin is invalid. This is reported when connecting.
    pub(crate) invalid_origin: bool,
    pub(crate) send_buffer: SendBufferLimits,
    pub(crate) keep_handshake: bool,
    #[cfg(feature = "net")]
    pub(crate) nodelay: bool,
    #[cfg(feature = "net")]
    pub(crate) connect: ConnectOptions,
    #[cfg(feature = "net")]
    pub(crate) proxies: ProxyRules,
    #[cfg(feature = "net")]
    pub(crate) redirects: u32,
    #[cfg(all(feature = "net", feature = "tls-core"))]
    pub(crate) tls: crate::tls::ClientTls,
}

impl ServerConfig {
    /// The defaults, and the web pages that may connect: a server that trusts cookies, addresses or its network must
    /// restrict these. See [`OriginPolicy`].
    pub fn new(origins: OriginPolicy) -> Self {
        Self {
            handshake: Arc::new(ServerOptions::new(origins)),
            send_buffer: SendBufferLimits::default(),
            keep_handshake: true,
            #[cfg(feature = "net")]
            nodelay: true,
            #[cfg(feature = "net")]
            listen: ListenOptions::default(),
        }
    }

    /// The time in which the application must answer a request that [`validate`](crate::Handler::validate) or
    /// [`http`](crate::Handler::http) has deferred. After it the request gets 503. `None`: no limit.
    pub fn answer_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.handshake_mut().answer_timeout = timeout.into();
        self
    }

    /// The time in which the client must read more of an HTTP response, while a part of the response waits. If the
    /// client reads nothing in this time, the connection is aborted, and [`fail`](crate::Handler::fail) is called with
    /// [`Cause::ResponseTimeout`](crate::proto::Cause::ResponseTimeout). The time begins anew whenever the client has
    /// read something. So a client that reads slowly is never cut off, however large the body is. Over sockets, only
    /// the operating system knows what was read, and it may take twice this time. When the whole response is written,
    /// the [`close_timeout`](Self::close_timeout) begins. `None`: no limit.
    pub fn response_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.handshake_mut().response_timeout = timeout.into();
        self
    }

    /// Adds an extension that clients may use.
    pub fn extension(mut self, extension: Arc<dyn Negotiator>) -> Self {
        self.handshake_mut().extensions.push(extension);
        self
    }

    /// The largest body of a plain HTTP request, in bytes; a larger one gets 413.
    pub fn max_body_size(mut self, bytes: usize) -> Self {
        self.handshake_mut().max_body_size = bytes;
        self
    }
}

#[cfg(feature = "net")]
impl ServerConfig {
    /// The number of connections that may wait to be accepted. The operating system has a limit of its own.
    pub fn listen_backlog(mut self, connections: u32) -> Self {
        self.listen.backlog = connections;
        self
    }

    /// Whether to listen on an address that connections of an earlier process still use (`SO_REUSEADDR`).
    pub fn reuse_address(mut self, reuse: bool) -> Self {
        self.listen.reuse_address = reuse;
        self
    }

    /// Whether to share an address with other sockets that also have this option. The operating system distributes
    /// connections among them (`SO_REUSEPORT`; Unix).
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
            invalid_header: None,
            invalid_origin: false,
            send_buffer: SendBufferLimits::default(),
            keep_handshake: true,
            #[cfg(feature = "net")]
            nodelay: true,
            #[cfg(feature = "net")]
            connect: ConnectOptions::default(),
            #[cfg(feature = "net")]
            proxies: ProxyRules::new(),
            #[cfg(feature = "net")]
            redirects: 0,
            #[cfg(all(feature = "net", feature = "tls-core"))]
            tls: crate::tls::ClientTls::new(),
        }
    }

    /// Fails if a header field was invalid.
    pub(super) fn check(&self) -> Result<(), RequestError> {
        match &self.invalid_header {
            Some(error) => Err(error.clone()),
            None if self.invalid_origin => Err(RequestError::InvalidHeaderValue(header::ORIGIN)),
            None => Ok(()),
        }
    }

    /// Adds a subprotocol to request, in order of preference: distinct tokens. The server chooses one or none.
    pub fn subprotocol(mut self, name: impl Into<String>) -> Self {
        self.handshake_mut().subprotocols.push(name.into());
        self
    }

    /// Replaces the subprotocols to request, in order of preference.
    pub fn subprotocols<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.handshake_mut().subprotocols = names.into_iter().map(Into::into).collect();
        self
    }

    /// Adds an extension to offer, in order of preference.
    pub fn extension(mut self, extension: Arc<dyn Negotiator>) -> Self {
        self.handshake_mut().extensions.push(extension);
        self
    }

    /// Adds a field to the request. The name is text or a `HeaderName`, the value text, bytes or a [`HeaderValue`].
    /// `Host` replaces the host of the URI.
    ///
    /// An invalid name or value, and a field of the handshake itself, are reported when connecting, as a
    /// [`RequestError`].
    ///
    /// ```
    /// use anyloop::http::{HeaderValue, header};
    /// use anyloop::iostream::Client;
    /// use anyloop::prelude::*;
    /// use anyloop::proto::handshake::RequestError;
    ///
    /// let mut secret = HeaderValue::from_static("Bearer 17");
    /// secret.set_sensitive(true); // see `redirects`
    /// let config = ClientConfig::new().header("X-Token", "abc").header(header::AUTHORIZATION, secret);
    /// # assert_eq!(config.get_headers().len(), 2);
    ///
    /// let client = Client::new(config.header("two words", "abc"));
    /// let error = client.connection("ws://localhost/").unwrap_err();
    /// assert_eq!(error, RequestError::InvalidHeaderName("two words".to_string()));
    /// ```
    pub fn header(mut self, name: impl AsRef<str>, value: impl TryInto<HeaderValue>) -> Self {
        if let Err(error) = self.handshake_mut().add_header(name, value) {
            self.invalid_header.get_or_insert(error);
        }
        self
    }

    /// Replaces all fields that were added to the request, also the invalid ones. It does not change the
    /// [origin](Self::origin).
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        self.handshake_mut().headers = headers;
        self.invalid_header = None;
        self
    }

    /// The Origin field (RFC 6454 §7), such as `https://chat.example`, for a client that runs web pages or imitates a
    /// browser. It is text, or a [`HeaderValue`]. If it is invalid, connecting reports
    /// [`RequestError::InvalidHeaderValue`]. It replaces the last origin.
    pub fn origin(mut self, origin: impl TryInto<HeaderValue>) -> Self {
        let origin = origin.try_into().ok();
        self.invalid_origin = origin.is_none();
        self.handshake_mut().origin = origin;
        self
    }

    /// Sends no Origin field: for one connection (`net::ConnectRequest::configure`) of a client that has an
    /// [`origin`](Self::origin).
    ///
    /// ```
    /// use anyloop::prelude::*;
    ///
    /// let config = ClientConfig::new().origin("https://chat.example").without_origin();
    /// assert_eq!(config.get_origin(), None);
    /// ```
    pub fn without_origin(mut self) -> Self {
        self.invalid_origin = false;
        self.handshake_mut().origin = None;
        self
    }

    /// The largest part of the body of a response other than 101 that is kept, in bytes. The rest is discarded without
    /// an error.
    pub fn max_body_size(mut self, bytes: usize) -> Self {
        self.handshake_mut().max_body_size = bytes;
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

    /// The time for connecting to any of the addresses of the host: for all attempts together, not for each. `None`: as
    /// long as the operating system takes.
    ///
    /// With a [proxy](Self::proxy) it is the time for the connection to the proxy, and then again for the tunnel.
    pub fn connect_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.connect.connect_timeout = timeout.into();
        self
    }

    /// The time for all stages up to the open connection, in addition to the timeouts of the stages.
    pub fn total_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.connect.total_timeout = timeout.into();
        self
    }

    /// The time after which the next address is tried, while earlier attempts continue (RFC 8305 §5).
    pub fn attempt_delay(mut self, delay: Duration) -> Self {
        self.connect.attempt_delay = delay;
        self
    }

    /// The proxy that connections use: a [`Proxy`](crate::net::Proxy) for all, [`ProxyRules`](crate::net::ProxyRules)
    /// for some, or `None`. By default there is none, and the environment is not read:
    /// [`proxy_from_env`](Self::proxy_from_env) does that.
    ///
    /// The proxy receives the host and the port. The request, with its fields, goes through the tunnel: with `wss` it
    /// is encrypted, and the certificate is the server's; with `ws` the proxy can read it. If the proxy opens no
    /// tunnel, the handler gets a [`ConnectError`](crate::net::ConnectError). The peer of the connection
    /// ([`Context::peer`](crate::Context::peer)) is the proxy.
    ///
    /// A connection [to addresses](crate::net::ConnectRequest::to_addresses) or to a Unix socket uses no proxy.
    ///
    /// ```no_run
    /// use anyloop::net::{Client, Proxy};
    /// use anyloop::prelude::*;
    ///
    /// let proxy = Proxy::parse("http://alice:secret@proxy.example:3128")?;
    /// let mut client = Client::new(ClientConfig::new().proxy(proxy))?;
    /// client.on_open(|context| _ = context.send("hello"));
    /// client.connect("ws://chat.example/")?;
    /// client.run();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn proxy(mut self, proxy: impl Into<ProxyRules>) -> Self {
        self.proxies = proxy.into();
        self
    }

    /// The largest number of redirects that a connection follows (301, 302, 303, 307 and 308, RFC 9110 §15.4); by
    /// default none. Each redirect makes a new byte stream, for the same handler and the same handle. Its timeouts
    /// begin anew, except the [`total_timeout`](Self::total_timeout).
    ///
    /// On another origin (scheme, host and port) the request lacks user and password of the URI, the fields
    /// `Authorization`, `Cookie`, `Proxy-Authorization` and `Host`, and others whose value
    /// [is sensitive](HeaderValue::is_sensitive); the rest is sent, also subprotocols, and a server that
    /// asks for it gets the client certificate of TLS. Cookies that a redirect sets are not sent. A redirect from `wss`
    /// to `ws` is not followed, nor one to a URI with a user (RFC 9110 §4.2.4). If a redirect cannot be followed, the
    /// handler gets [`ConnectError::Redirect`](crate::net::ConnectError::Redirect) beside the response.
    ///
    /// A connection [to addresses](crate::net::ConnectRequest::to_addresses), to a Unix socket, or over an adopted
    /// socket follows no redirects.
    ///
    /// ```no_run
    /// use anyloop::net::Client;
    /// use anyloop::prelude::*;
    ///
    /// let mut client = Client::new(ClientConfig::new().redirects(5))?;
    /// client.on_open(|context| {
    ///     let target = context.handshake_info().and_then(|info| info.target.as_ref());
    ///     println!("connected to {}", target.expect("it is kept by default"));
    /// });
    /// client.connect("wss://chat.example/")?;
    /// client.run();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn redirects(mut self, max: u32) -> Self {
        self.redirects = max;
        self
    }

    /// Uses the proxies that the environment names now, as curl reads it: `https_proxy`, `no_proxy` and so on.
    /// [`ProxyRules::from_env`](crate::net::ProxyRules::from_env) lists the variables.
    ///
    /// # Errors
    ///
    /// [`ProxyError::Variable`](crate::net::ProxyError::Variable): the value of a variable is no proxy that can be
    /// used.
    pub fn proxy_from_env(self) -> Result<Self, ProxyError> {
        Ok(self.proxy(ProxyRules::from_env()?))
    }
}

#[cfg(all(feature = "net", feature = "tls-core"))]
impl ClientConfig {
    /// The trusted roots and the client certificate of connections to `wss` URIs. By default servers are verified by
    /// the [default roots](crate::tls::ClientTls), and no certificate is presented.
    pub fn tls(mut self, tls: crate::tls::ClientTls) -> Self {
        self.tls = tls;
        self
    }
}

/// The setters that servers and clients have in common.
macro_rules! common_setters {
    ($config:ident, $options:ident, $head:literal) => {
        impl $config {
            /// The largest message that is accepted, in bytes of payload, inclusive; with an extension, of the decoded
            /// message. A header that announces more fails the connection with 1009.
            pub fn max_message_size(mut self, bytes: u64) -> Self {
                self.connection_mut().max_message_size = bytes;
                self
            }

            /// Whether messages are passed to [`chunk`](crate::Handler::chunk) in parts as they arrive, instead of to
            /// [`message`](crate::Handler::message). A message is then never gathered in memory, and may have any size
            /// up to [`max_message_size`](Self::max_message_size).
            pub fn streaming(mut self, streaming: bool) -> Self {
                self.connection_mut().streaming = streaming;
                self
            }

            /// The time without received frames after which a ping is sent; less than 1 ms counts as 1 ms.
            /// `None`: no pings are sent.
            pub fn ping_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
                self.connection_mut().ping_interval = interval.into();
                self
            }

            /// The time in which the peer must answer a keep-alive ping; after it the connection fails with 1011.
            /// Data that arrives meanwhile restarts the time, since a pong cannot overtake data. Output that was sent
            /// before the ping and has not left this machine restarts it as well. `None`: pongs are not awaited.
            ///
            /// While reading is paused, pongs cannot be received. The connection then fails if output waits and the
            /// peer reads none of it for the sum of the ping interval and this time.
            pub fn pong_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
                self.connection_mut().pong_timeout = timeout.into();
                self
            }

            /// The time without received frames after which the connection is closed with 1001. Keep-alive pings and
            /// their pongs do not postpone it.
            pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
                self.connection_mut().idle_timeout = timeout.into();
                self
            }

            /// The time without received data frames after which the connection is closed with 1001. Control frames do
            /// not postpone it.
            pub fn data_idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
                self.connection_mut().data_idle_timeout = timeout.into();
                self
            }

            /// The time for the closing handshake and the end of the byte stream, from our Close on. After it the byte
            /// stream is aborted. `None`: no limit.
            pub fn close_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
                self.connection_mut().close_timeout = timeout.into();
                self
            }

            /// The source of masking keys and nonces. By default the operating system's; any other must be as
            /// unpredictable (RFC 6455 §10.3).
            pub fn random(mut self, random: Arc<dyn Random>) -> Self {
                self.connection_mut().random = random;
                self
            }

            /// The time for the opening handshake. `None`: no limit.
            pub fn open_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
                self.handshake_mut().open_timeout = timeout.into();
                self
            }

            #[doc = $head]
            pub fn max_head_size(mut self, bytes: usize) -> Self {
                self.handshake_mut().max_head_size = bytes;
                self
            }

            /// The largest number of header fields in the head of the peer. More than 24,576 are refused in any case.
            pub fn max_fields(mut self, fields: usize) -> Self {
                self.handshake_mut().max_fields = fields;
                self
            }

            /// The high-water mark of the send buffer, in bytes. When more bytes wait for a slow peer, sending returns
            /// [`Sent::Backpressure`](crate::endpoint::Sent::Backpressure), and
            /// [`backpressure`](crate::Handler::backpressure) is called.
            pub fn high_water_mark(mut self, bytes: usize) -> Self {
                self.send_buffer.high_water_mark = bytes;
                self
            }

            /// The low-water mark of the send buffer, in bytes. When the send buffer falls to this mark after it was
            /// above the high-water mark, [`drained`](crate::Handler::drained) is called. A low-water mark above the
            /// high-water mark counts as equal to that.
            pub fn low_water_mark(mut self, bytes: usize) -> Self {
                self.send_buffer.low_water_mark = bytes;
                self
            }

            /// The limit of the send buffer: the largest number of bytes that may wait for a slow peer. If a message
            /// would exceed it, [`overflow`](Self::overflow) applies, unless nothing waits. Messages that a
            /// [`Handle`](crate::Handle) has accepted are not refused later, and the limit for messages of the handler
            /// does not count them: in the worst case twice as many bytes wait.
            ///
            /// A peer that reads at once is not slow, however fast other connections publish to it. In an event loop,
            /// what was sent to a connection is written before the next read of another connection, and one read takes
            /// about 600 KB at most. So the limit should be at least 600 KB plus the size of one message.
            pub fn max_send_buffer(mut self, bytes: usize) -> Self {
                self.send_buffer.max_send_buffer = bytes;
                self
            }

            /// The policy for a message that would exceed the limit of the send buffer.
            pub fn overflow(mut self, overflow: Overflow) -> Self {
                self.send_buffer.overflow = overflow;
                self
            }

            /// Whether connections keep their request and response while they are open. Both are available in `open`
            /// and `fail` in any case.
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

            /// Compresses messages by permessage-deflate (RFC 7692), if the peer agrees to it.
            ///
            /// The connections of a thread share compressors and decompressors, unless the configuration is
            /// [dedicated](Deflate::dedicated). A connection of `iostream` does not share: it frees its own at most two
            /// seconds after the last message.
            ///
            /// Off by default: it costs memory and time, and can leak secrets; see
            /// [`deflate`](crate::proto::deflate). A message is exempt by [`Uncompressed`](crate::proto::Uncompressed).
            ///
            /// ```
            /// use anyloop::prelude::*;
            ///
            /// let server = ServerConfig::new(OriginPolicy::Any).deflate(Deflate::pooled());
            /// let client = ClientConfig::new().deflate(Deflate::pooled().level(1));
            /// ```
            #[cfg(feature = "deflate")]
            pub fn deflate(self, deflate: Deflate) -> Self {
                self.extension(Arc::new(deflate))
            }

            fn handshake_mut(&mut self) -> &mut $options {
                Arc::make_mut(&mut self.handshake)
            }

            fn connection_mut(&mut self) -> &mut Config {
                Arc::make_mut(&mut self.handshake_mut().connection)
            }
        }
    };
}

common_setters!(
    ServerConfig,
    ServerOptions,
    "The largest head of a request, in bytes, including line ends. A larger one gets 431, or 414 if the request line \
     alone is larger."
);
common_setters!(
    ClientConfig,
    ClientOptions,
    "The largest head of a response, in bytes, including line ends; heads of interim responses (1xx) are added to it."
);
