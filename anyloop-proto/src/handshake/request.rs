//! Requests as a server receives them, and the checks on them.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Deref;

use http::{Method, Uri, Version};

use super::body::Framing;
use super::extensions::{self, Extension};
use super::fields::Fields;
use super::key;
use super::options::ServerOptions;
use super::uri::Authority;
use crate::error::{Field, HandshakeError};

/// A request that has passed the checks of the handshake. Dereferences to its [`http::Request`], including
/// the body. Host has been checked, and in a WebSocket request the fields of RFC 6455 §4.2.1.
///
/// ```
/// # use anyloop_proto::*;
/// # use anyloop_proto::handshake::*;
/// # let now = Instant::from_nanos(0);
/// # let options = ServerOptions::new(OriginPolicy::Any);
/// # let mut handshake = ServerHandshake::new(options.into(), now);
/// # let mut out = Vec::new();
/// let mut bytes = *b"POST /log?level=1 HTTP/1.1\r\nHost: example.com\r\n\
///     Content-Length: 5\r\n\r\nhello";
/// match handshake.next(&mut Input::new(&mut bytes), now, &mut out)? {
///     Some(Incoming::Http(request)) => {
///         assert!(!request.is_upgrade());
///         assert_eq!(request.host(), Some("example.com"));
///         assert_eq!(request.uri().query(), Some("level=1")); // as of an `http::Request`
///         assert_eq!(request.body(), b"hello");
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Failure>(())
/// ```
#[derive(Debug)]
pub struct Request {
    http: http::Request<Vec<u8>>,
    upgrade: Option<Upgrade>,
}

/// The parameters of a WebSocket request.
#[derive(Debug)]
pub(super) struct Upgrade {
    /// The value of Sec-WebSocket-Accept for its key.
    pub(super) accept: key::AcceptValue,
    pub(super) subprotocols: Vec<String>,
    pub(super) offers: Vec<Extension>,
}

impl Request {
    /// The subprotocols that the client requests, in its order of preference (RFC 6455 §11.3.4).
    #[must_use]
    pub fn subprotocols(&self) -> &[String] {
        self.upgrade.as_ref().map_or(&[], |upgrade| &upgrade.subprotocols)
    }

    /// The value of the Origin field: the origin of the web page that makes the request, if a browser sends the request
    /// (RFC 6454 §7). For a WebSocket request the [`OriginPolicy`](super::OriginPolicy) has allowed it. `None` if the
    /// field is absent; in a plain request, also if its value is not printable ASCII.
    #[must_use]
    pub fn origin(&self) -> Option<&str> {
        self.http.headers().get(http::header::ORIGIN)?.to_str().ok()
    }

    /// The host that the client addresses, with the port if one is given: the authority of the request target, which
    /// takes precedence (RFC 9112 §3.2.2), or the Host field. `None` only for HTTP/1.0.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        if let Some(authority) = self.http.uri().authority() {
            return Some(authority.as_str());
        }
        self.http.headers().get(http::header::HOST)?.to_str().ok()
    }

    /// Whether this is a WebSocket request.
    #[must_use]
    pub const fn is_upgrade(&self) -> bool {
        self.upgrade.is_some()
    }

    /// The request as the type of the `http` crate.
    #[must_use]
    pub fn into_http(self) -> http::Request<Vec<u8>> {
        self.http
    }

    pub(super) const fn upgrade(&self) -> Option<&Upgrade> {
        self.upgrade.as_ref()
    }

    pub(super) fn set_body(&mut self, body: Vec<u8>) {
        *self.http.body_mut() = body;
    }
}

impl Deref for Request {
    type Target = http::Request<Vec<u8>>;

    fn deref(&self) -> &Self::Target {
        &self.http
    }
}

/// A request that passed the checks of its head.
pub(super) struct Checked {
    pub(super) request: Request,
    pub(super) framing: Framing,
    /// The client waits for 100 (Continue) before it sends the body (RFC 9110 §10.1.1).
    pub(super) expects_continue: bool,
}

/// Checks the rules for every request, and the additional ones for a WebSocket request.
pub(super) fn check(
    http: http::Request<Vec<u8>>,
    options: &ServerOptions,
) -> Result<Checked, HandshakeError> {
    let (fields, version) = (Fields::of(http.headers()), http.version());
    check_target(http.method(), http.uri())?;
    check_host(&fields, version)?;
    let framing = Framing::of_request(&fields, version)?;

    // RFC 9110 §7.8: Upgrade in an HTTP/1.0 request is to be ignored.
    let upgrade = (version == Version::HTTP_11 && fields.has_token(Field::Upgrade, "websocket"))
        .then(|| check_upgrade(http.method(), &fields, framing, options))
        .transpose()?;

    let expects_continue = expects_continue(&fields)? && version == Version::HTTP_11;
    Ok(Checked { request: Request { http, upgrade }, framing, expects_continue })
}

/// Checks the form of the request target (RFC 9112 §3.2): an authority for CONNECT; otherwise a path or
/// an absolute URI, or an asterisk if the method is OPTIONS. User information in an authority is an error (RFC 9110
/// §4.2.4).
fn check_target(method: &Method, uri: &Uri) -> Result<(), HandshakeError> {
    let authority_form = uri.scheme().is_none() && uri.authority().is_some();
    let asterisk_form = uri.authority().is_none() && uri.path() == "*";
    let has_userinfo = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    let fits = authority_form == (*method == Method::CONNECT)
        && (!asterisk_form || *method == Method::OPTIONS)
        && !has_userinfo;
    if fits { Ok(()) } else { Err(HandshakeError::Target) }
}

/// RFC 9112 §3.2: a missing, repeated or invalid Host gets 400. HTTP/1.0 does not require it.
fn check_host(fields: &Fields<'_>, version: Version) -> Result<(), HandshakeError> {
    let host = match fields.at_most_one(Field::Host)? {
        Some(host) => host,
        None if version == Version::HTTP_10 => return Ok(()),
        None => return Err(HandshakeError::Missing(Field::Host)),
    };
    let authority = host.to_str().ok().and_then(|host| Authority::parse(host).ok());
    authority.map(|_| ()).ok_or(HandshakeError::Invalid(Field::Host))
}

/// Whether the client expects 100 (Continue). Refuses any other expectation, since none is defined (RFC 9110 §10.1.1).
fn expects_continue(fields: &Fields<'_>) -> Result<bool, HandshakeError> {
    let mut expects = false;
    for expectation in fields.elements(Field::Expect) {
        if !expectation.eq_ignore_ascii_case(b"100-continue") {
            return Err(HandshakeError::Unsupported(Field::Expect));
        }
        expects = true;
    }
    Ok(expects)
}

/// Checks the rules of RFC 6455 §4.2.1 for a WebSocket request.
fn check_upgrade(
    method: &Method,
    fields: &Fields<'_>,
    framing: Framing,
    options: &ServerOptions,
) -> Result<Upgrade, HandshakeError> {
    if *method != Method::GET {
        return Err(HandshakeError::Method);
    }
    if !fields.has_token(Field::Connection, "Upgrade") {
        return Err(match fields.has(Field::Connection) {
            true => HandshakeError::Invalid(Field::Connection),
            false => HandshakeError::Missing(Field::Connection),
        });
    }
    // An upgrade request must have no body, which would be read as frames. `Content-Length: 0` declares none.
    match framing {
        Framing::Length(0) => {}
        Framing::Chunked => return Err(HandshakeError::Invalid(Field::TransferEncoding)),
        _ => return Err(HandshakeError::Invalid(Field::ContentLength)),
    }
    // The version is checked before the key, because other versions may have other rules (RFC 6455 §4.4).
    if fields.exactly_one(Field::SecWebSocketVersion)?.as_bytes() != b"13" {
        return Err(HandshakeError::Version);
    }
    let key = fields.exactly_one(Field::SecWebSocketKey)?.as_bytes();
    if !key::is_valid(key) {
        return Err(HandshakeError::Invalid(Field::SecWebSocketKey));
    }
    check_origin(fields, options)?;
    Ok(Upgrade {
        accept: key::accept_value(key),
        subprotocols: fields.unique_tokens(Field::SecWebSocketProtocol)?,
        offers: extensions::parse(fields, !options.extensions.is_empty())?,
    })
}

/// Checks the Origin field, if there is one (RFC 6455 §4.2.2, step 4, and §10.2).
fn check_origin(fields: &Fields<'_>, options: &ServerOptions) -> Result<(), HandshakeError> {
    let Some(origin) = fields.at_most_one(Field::Origin)? else { return Ok(()) };
    let origin = origin.to_str().map_err(|_| HandshakeError::Invalid(Field::Origin))?;
    if options.origins.allows(origin) { Ok(()) } else { Err(HandshakeError::OriginRefused) }
}
