//! What the two roles can be told.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::extensions::Negotiator;
use crate::config::Config;

/// The largest head, in bytes, unless told otherwise.
const MAX_HEAD_SIZE: usize = 16 * 1024;
/// The most header fields, unless told otherwise.
const MAX_FIELDS: usize = 100;
/// The largest body, in bytes, unless told otherwise.
const MAX_BODY_SIZE: usize = 64 * 1024;
/// How long a handshake may take, unless told otherwise.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an application may think about a request, unless told otherwise.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(10);

/// Which web pages may connect, by the Origin field that browsers send (RFC 6455 §10.2).
///
/// A browser lets a page of *any* site open a WebSocket to any server, and sends the cookies of that
/// server along. A server that trusts cookies, a client's address or the network that it is in, and
/// does not look at Origin, can be used by any page that one of its users happens to visit, in that
/// user's name: cross-site WebSocket hijacking. So a server has to decide.
///
/// A request without Origin is not from a browser and passes; other clients can send any Origin they
/// like, so this is no authentication of clients.
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
    /// Pages of any site: right where every client is treated as a stranger anyway.
    Any,
    /// Pages of these origins only, each as a browser writes it (RFC 6454 §6.2): scheme, `://`, host,
    /// and `:` with the port unless it is the default, without a slash at the end. Case does not
    /// matter, nor does a default port. `null` (a sandboxed page, a local file) matches only itself.
    Only(Vec<String>),
}

impl OriginPolicy {
    /// Pages of these origins only.
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
/// | `max_fields` | 100 | |
/// | `max_body_size` | 64 KiB | `usize::MAX` |
/// | `open_timeout` | 5 s | `None` |
/// | `verdict_timeout` | 10 s | `None` |
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
    /// Which web pages may connect. Refused ones are answered with 403.
    pub origins: OriginPolicy,
    /// The largest head of a request, in bytes, with all line ends. Beyond it 431 is answered, or 414
    /// within the request line.
    pub max_head_size: usize,
    /// The most header fields in a request; beyond it 431 is answered. More than 24,000 or so do not
    /// fit the header map and get 431 in any case.
    pub max_fields: usize,
    /// The largest body of a plain request, in bytes; beyond it 413 is answered.
    pub max_body_size: usize,
    /// How long a request may take to arrive, head and body, counted from when the handshake was
    /// made.
    pub open_timeout: Option<Duration>,
    /// How long the application may take to answer, counted from when the request was lent.
    pub verdict_timeout: Option<Duration>,
    /// The extensions that clients may use.
    pub extensions: Vec<Arc<dyn Negotiator>>,
    /// Settings of the connection that comes out. Its `close_timeout` also bounds how long the client
    /// may take to read a refusal.
    pub connection: Arc<Config>,
}

impl ServerOptions {
    /// The defaults. What there is no default for is who may connect.
    #[must_use]
    pub fn new(origins: OriginPolicy) -> Self {
        Self {
            origins,
            max_head_size: MAX_HEAD_SIZE,
            max_fields: MAX_FIELDS,
            max_body_size: MAX_BODY_SIZE,
            open_timeout: Some(OPEN_TIMEOUT),
            verdict_timeout: Some(VERDICT_TIMEOUT),
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
            .field("verdict_timeout", &self.verdict_timeout)
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
/// | `max_fields` | 100 | |
/// | `max_body_size` | 64 KiB | |
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
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    /// The largest head of a response, in bytes, with all line ends; interim responses (1xx) count
    /// towards it together with the final one.
    pub max_head_size: usize,
    /// The most header fields in a response.
    pub max_fields: usize,
    /// How much of the body of a refusing response is kept, in bytes. The rest is cut off, which is no
    /// error.
    pub max_body_size: usize,
    /// How long the handshake may take, counted from when it was made.
    pub open_timeout: Option<Duration>,
    /// Subprotocols to ask for, in order of preference: tokens, each once. The server picks one, or
    /// none.
    pub subprotocols: Vec<String>,
    /// The extensions to offer, in order of preference.
    pub extensions: Vec<Arc<dyn Negotiator>>,
    /// Further header fields of the request. The fields of the handshake itself are refused. Host
    /// replaces what the target says.
    pub headers: HeaderMap,
    /// The Origin field (RFC 6454 §7), for a client that runs web pages, or passes for one.
    pub origin: Option<HeaderValue>,
    /// Settings of the connection that comes out; also where the nonce of the handshake comes from.
    pub connection: Arc<Config>,
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
