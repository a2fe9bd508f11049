//! The options of both roles.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::client_request::RequestError;
use super::extensions::Negotiator;
use super::fields::{InvalidHeader, parse_header};
use crate::config::Config;

/// The default limit for a head, in bytes.
const MAX_HEAD_SIZE: usize = 16 * 1024;
/// The default limit for the number of header fields.
const MAX_FIELDS: usize = 100;
/// The default limit for a body, in bytes.
const MAX_BODY_SIZE: usize = 64 * 1024;
/// The default time for a handshake.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// The default time for the application's answer to a request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The default time for the peer to read more of a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Which web pages may connect, by the Origin field that browsers send (RFC 6455 §10.2).
///
/// A browser lets a page of *any* site open a WebSocket to any server, and sends the cookies of
/// that server along. If a server trusts cookies, the client's address or its network and ignores
/// Origin, any page that a user visits can act in that user's name (cross-site WebSocket
/// hijacking). A server must therefore choose a policy.
///
/// A request without Origin does not come from a browser and is allowed. Other clients can send any
/// Origin, so the policy does not authenticate clients.
///
/// ```
/// use anyloop_proto::handshake::OriginPolicy;
///
/// let policy = OriginPolicy::only(["https://example.com", "https://www.example.com"]);
/// assert!(policy.allows("https://example.com"));
/// assert!(!policy.allows("https://example.com.evil.example"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OriginPolicy {
    /// Pages of any site, for servers that trust neither cookies nor the address or network of a client.
    Any,
    /// Only pages of these origins, each as a browser writes it (RFC 6454 §6.2): scheme, `://`,
    /// host, and `:` with the port unless it is the default, without a slash at the end. Case and a
    /// default port are ignored. `null` (a sandboxed page, a local file) matches only itself.
    Only(Vec<String>),
}

impl OriginPolicy {
    /// Only pages of these origins.
    #[must_use]
    pub fn only<O: Into<String>>(origins: impl IntoIterator<Item = O>) -> Self {
        Self::Only(origins.into_iter().map(Into::into).collect())
    }

    /// Whether a page of this origin may connect.
    #[must_use]
    pub fn allows(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(origins) => origins.iter().any(|listed| {
                without_default_port(listed).eq_ignore_ascii_case(without_default_port(origin))
            }),
        }
    }
}

fn without_default_port(origin: &str) -> &str {
    let default = match origin.split_once("://") {
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => ":443",
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") => ":80",
        _ => return origin,
    };
    origin.strip_suffix(default).unwrap_or(origin)
}

/// Settings of the server's side. One value, behind an `Arc`, serves all connections of a listener.
///
/// | setting | default | turned off by |
/// |---|---|---|
/// | `origins` | none: [decide](OriginPolicy) | [`OriginPolicy::Any`] |
/// | `max_head_size` | 16 KiB | `usize::MAX` |
/// | `max_fields` | 100 | `usize::MAX`: up to 24,576 |
/// | `max_body_size` | 64 KiB | `usize::MAX` |
/// | `open_timeout` | 5 s | `None` |
/// | `answer_timeout` | 10 s | `None` |
/// | `response_timeout` | 30 s | `None` |
/// | `extensions` | none | |
/// | `connection` | the defaults of [`Config`] | |
///
/// ```
/// use std::time::Duration;
/// use anyloop_proto::handshake::{OriginPolicy, ServerOptions};
///
/// let mut options = ServerOptions::new(OriginPolicy::only(["https://example.com"]));
/// options.open_timeout = Some(Duration::from_secs(2));
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct ServerOptions {
    /// Which web pages may connect. Other pages get 403.
    pub origins: OriginPolicy,
    /// The largest head of a request, in bytes, including line ends. A larger head gets 431, or 414
    /// if the request line exceeds the limit.
    pub max_head_size: usize,
    /// The most header fields in a request; more get 431. The header map holds about 24,000 fields;
    /// more get 431 in any case.
    pub max_fields: usize,
    /// The largest body of a plain request, in bytes; a larger one gets 413.
    pub max_body_size: usize,
    /// Time for a request to arrive, head and body, counted from the creation of the handshake.
    pub open_timeout: Option<Duration>,
    /// Time for the application's answer, counted from when the request was returned.
    pub answer_timeout: Option<Duration>,
    /// Time for the client to read some more of a response other than 101, while a part of the response waits. It
    /// begins anew each time the client reads: see [`handle_written`](super::ServerHandshake::handle_written).
    pub response_timeout: Option<Duration>,
    /// The extensions that clients may use.
    pub extensions: Vec<Arc<dyn Negotiator>>,
    /// Settings of the resulting connection. Its `close_timeout` also bounds the time in which the
    /// client ends the byte stream after a response other than 101 was written.
    pub connection: Arc<Config>,
}

impl ServerOptions {
    /// The defaults. The origin policy has no default.
    #[must_use]
    pub fn new(origins: OriginPolicy) -> Self {
        Self {
            origins,
            max_head_size: MAX_HEAD_SIZE,
            max_fields: MAX_FIELDS,
            max_body_size: MAX_BODY_SIZE,
            open_timeout: Some(OPEN_TIMEOUT),
            answer_timeout: Some(ANSWER_TIMEOUT),
            response_timeout: Some(RESPONSE_TIMEOUT),
            extensions: Vec::new(),
            connection: Arc::new(Config::default()),
        }
    }
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerOptions")
            .field("origins", &self.origins)
            .field("max_head_size", &self.max_head_size)
            .field("max_fields", &self.max_fields)
            .field("max_body_size", &self.max_body_size)
            .field("open_timeout", &self.open_timeout)
            .field("answer_timeout", &self.answer_timeout)
            .field("response_timeout", &self.response_timeout)
            .field("extensions", &Names(&self.extensions))
            .field("connection", &self.connection)
            .finish()
    }
}

/// Settings of the client's side. One value, behind an `Arc`, serves any number of connections.
///
/// | setting | default | turned off by |
/// |---|---|---|
/// | `max_head_size` | 16 KiB | `usize::MAX` |
/// | `max_fields` | 100 | `usize::MAX`: up to 24,576 |
/// | `max_body_size` | 64 KiB | `usize::MAX` |
/// | `open_timeout` | 5 s | `None` |
/// | `subprotocols`, `extensions`, `headers`, `origin` | none | |
/// | `connection` | the defaults of [`Config`] | |
///
/// ```
/// use anyloop_proto::handshake::ClientOptions;
/// use anyloop_proto::handshake::http::{HeaderValue, header};
///
/// let mut options = ClientOptions::default();
/// options.subprotocols = vec!["chat.v2".into(), "chat.v1".into()];
/// options.headers.insert(header::COOKIE, HeaderValue::from_static("session=17"));
/// options.add_header("X-Token", "abc")?;
/// # Ok::<(), anyloop_proto::handshake::RequestError>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    /// The largest head of a response, in bytes, including line ends. The heads of interim
    /// responses (1xx) and of the final one are added up.
    pub max_head_size: usize,
    /// The most header fields in a response.
    pub max_fields: usize,
    /// How much of the body of a response other than 101 is kept, in bytes. The rest is cut off
    /// without an error.
    pub max_body_size: usize,
    /// Time for the handshake, counted from its creation, or from a call of
    /// [`restart_open_timeout`](super::ClientHandshake::restart_open_timeout).
    pub open_timeout: Option<Duration>,
    /// Subprotocols to request, in order of preference: distinct tokens. The server chooses one or
    /// none.
    pub subprotocols: Vec<String>,
    /// The extensions to offer, in order of preference.
    pub extensions: Vec<Arc<dyn Negotiator>>,
    /// Additional header fields of the request. Host and Authorization replace those of the target. Connection,
    /// Content-Length, Expect, Origin, Transfer-Encoding, Upgrade and all `Sec-WebSocket-` fields are refused.
    pub headers: HeaderMap,
    /// The Origin field (RFC 6454 §7), for a client that runs web pages or imitates a browser.
    pub origin: Option<HeaderValue>,
    /// Settings of the resulting connection, and the random source of the handshake's key.
    pub connection: Arc<Config>,
}

impl ClientOptions {
    /// Adds a header field to [`headers`](Self::headers). The value is text or bytes, or a [`HeaderValue`]. Fields of
    /// the same name are kept.
    ///
    /// # Errors
    ///
    /// [`RequestError::InvalidHeaderName`], [`RequestError::InvalidHeaderValue`]: nothing was added.
    pub fn add_header(
        &mut self,
        name: impl AsRef<str>,
        value: impl TryInto<HeaderValue>,
    ) -> Result<(), RequestError> {
        let (name, value) = parse_header(name.as_ref(), value).map_err(|error| match error {
            InvalidHeader::Name(name) => RequestError::InvalidHeaderName(name),
            InvalidHeader::Value(name) => RequestError::InvalidHeaderValue(name),
        })?;
        self.headers.append(name, value);
        Ok(())
    }
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            max_head_size: MAX_HEAD_SIZE,
            max_fields: MAX_FIELDS,
            max_body_size: MAX_BODY_SIZE,
            open_timeout: Some(OPEN_TIMEOUT),
            subprotocols: Vec::new(),
            extensions: Vec::new(),
            headers: HeaderMap::new(),
            origin: None,
            connection: Arc::new(Config::default()),
        }
    }
}

impl fmt::Debug for ClientOptions {
    /// Names the header fields, but not their values: these may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("max_head_size", &self.max_head_size)
            .field("max_fields", &self.max_fields)
            .field("max_body_size", &self.max_body_size)
            .field("open_timeout", &self.open_timeout)
            .field("subprotocols", &self.subprotocols)
            .field("extensions", &Names(&self.extensions))
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("origin", &self.origin)
            .field("connection", &self.connection)
            .finish()
    }
}

/// Extensions by name.
struct Names<'n>(&'n [Arc<dyn Negotiator>]);

impl fmt::Debug for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|negotiator| negotiator.name())).finish()
    }
}
