//! WebSocket URIs: `ws` and `wss` (RFC 6455 §3).

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::net::Ipv6Addr;
use core::str::FromStr;

use http::HeaderValue;

use super::fields::is_token_char;
use super::key;

/// A parsed `ws://` or `wss://` URI.
///
/// ```
/// use anyloop_proto::handshake::Target;
///
/// let target: Target = "wss://[2001:db8::17]:9443/chat?room=1".parse()?;
/// assert!(target.secure());
/// assert_eq!((target.host(), target.port()), ("2001:db8::17", 9443));
/// assert_eq!(target.host_header(), "[2001:db8::17]:9443");
/// assert_eq!(target.path_and_query(), "/chat?room=1");
///
/// let target: Target = "ws://[fe80::1%25eth0]/".parse()?; // RFC 6874
/// assert_eq!((target.host(), target.zone()), ("fe80::1", Some("eth0")));
/// assert_eq!(target.host_header(), "[fe80::1]");
/// # Ok::<(), anyloop_proto::handshake::UriError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    secure: bool,
    host: String,
    zone: Option<String>,
    port: u16,
    host_header: String,
    path_and_query: String,
    authorization: Option<HeaderValue>,
}

impl Target {
    /// Whether the scheme is `wss`: the byte stream must be TLS.
    #[must_use]
    pub const fn secure(&self) -> bool {
        self.secure
    }

    /// The host to look up or connect to; an IPv6 address without brackets and without its
    /// [zone](Self::zone).
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The zone identifier of an IPv6 address (RFC 6874), decoded: the name or number of the network
    /// interface on this machine. To connect, `host` and `zone` are joined by `%`.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// The port: 80 for `ws` and 443 for `wss` unless the URI says otherwise.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The value of the Host field: an IPv6 address in brackets and without a zone (RFC 6874 §3), the
    /// port only if it is not the scheme's default (RFC 6455 §4.1).
    #[must_use]
    pub fn host_header(&self) -> &str {
        &self.host_header
    }

    /// The request target: path and query, `/` if both are empty (RFC 6455 §3).
    #[must_use]
    pub fn path_and_query(&self) -> &str {
        &self.path_and_query
    }

    /// The value of the Authorization field (RFC 7617) for the user and password in the URI; `None` if it has neither.
    #[must_use]
    pub const fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }
}

impl Target {
    /// What somebody who wrote this text may have meant, for an error message: `ws://` for `http://`, `wws://`, `ws//`
    /// or `ws:`, or where there is no scheme; this machine for a port alone; and the inner one of two schemes. `None`
    /// if nothing is similar, or nothing but the text itself.
    ///
    /// ```
    /// use anyloop_proto::handshake::Target;
    ///
    /// let suggestion = Target::suggestion("https://example.com/chat");
    /// assert_eq!(suggestion.as_deref(), Some("wss://example.com/chat"));
    /// assert_eq!(Target::suggestion("localhost:9002").as_deref(), Some("ws://localhost:9002"));
    /// assert_eq!(Target::suggestion("ws//localhost:9002").as_deref(), Some("ws://localhost:9002"));
    /// assert_eq!(Target::suggestion(":9002").as_deref(), Some("ws://127.0.0.1:9002"));
    /// assert_eq!(Target::suggestion("ws://https://a.example").as_deref(), Some("wss://a.example"));
    /// assert_eq!(Target::suggestion("ftp://example.com/"), None);
    /// ```
    #[must_use]
    pub fn suggestion(text: &str) -> Option<String> {
        let (mut secure, rest) = split_scheme(text)?;
        let mut rest = rest.to_string();
        if rest.contains("://") {
            if let Some((inner, after)) = split_scheme(&rest).filter(|(_, after)| *after != rest) {
                (secure, rest) = (secure || inner, after.to_string());
            }
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let port = rest[..end].strip_prefix(':').unwrap_or(&rest[..end]);
        let is_uri = text.parse::<Self>().is_ok();
        if !is_uri && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) {
            rest = format!("127.0.0.1:{port}{}", &rest[end..]);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let host = rest[..end].rsplit_once('@').map_or(&rest[..end], |(_, host)| host);
        let is_usual = |byte| is_unreserved(byte) || matches!(byte, b'[' | b']' | b':' | b'%');
        if host.ends_with(':') || !host.bytes().all(is_usual) {
            return None; // a URI that nobody would type
        }
        let suggestion = format!("{}://{rest}", if secure { "wss" } else { "ws" });
        let is_new = !suggestion.eq_ignore_ascii_case(text);
        (is_new && suggestion.parse::<Self>().is_ok()).then_some(suggestion)
    }
}

/// Whether the scheme of a text is that of TLS, and what follows the scheme. A text without a scheme is returned whole.
/// `None` for the scheme of another protocol than WebSocket or HTTP.
fn split_scheme(text: &str) -> Option<(bool, &str)> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c));
    let (scheme, after) = text.split_at(end.unwrap_or(text.len()));
    // Doubled letters are one: `wws` or `httpp` is mistyped.
    let mut letters: Vec<u8> = scheme.to_ascii_lowercase().into();
    letters.dedup();
    let secure = match letters.as_slice() {
        b"ws" => scheme.len() > 2 && scheme.to_ascii_lowercase().ends_with("ss"),
        b"htp" => false,
        b"htps" => true,
        _ if after.starts_with("://") => return None,
        _ => return Some((false, text)),
    };
    let separators = ["://", ";//", "//", ":/", ":"];
    let rest = separators.into_iter().find_map(|separator| after.strip_prefix(separator));
    // `ws:9002` is a host and its port.
    let is_port = |rest: &str| after.starts_with(':') && rest.bytes().all(|b| b.is_ascii_digit());
    Some(match rest.filter(|rest| !is_port(rest)) {
        Some(rest) => (secure, rest),
        None => (false, text),
    })
}

impl Target {
    /// The same target with another path and query, which must begin with a slash.
    pub(super) fn with_path(&self, path_and_query: String) -> Self {
        Self { path_and_query, ..self.clone() }
    }

    /// Takes over the user and the password of `other`, unless this target has its own.
    pub(super) fn inherit_authorization(&mut self, other: &Self) {
        if self.authorization.is_none() {
            self.authorization.clone_from(&other.authorization);
        }
    }
}

impl FromStr for Target {
    type Err = UriError;

    fn from_str(uri: &str) -> Result<Self, UriError> {
        // RFC 3986 §2: characters beyond printable ASCII are percent-encoded. CR and LF would end up in
        // the request (RFC 9112 §11.1).
        if let Some(other) = uri.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(UriError::Character(other));
        }
        if uri.contains('#') {
            return Err(UriError::Fragment);
        }
        let (scheme, rest) = uri.split_once("://").ok_or(UriError::Scheme)?;
        let secure = match scheme {
            _ if scheme.eq_ignore_ascii_case("ws") => false,
            _ if scheme.eq_ignore_ascii_case("wss") => true,
            _ => return Err(UriError::Scheme),
        };
        let path_start = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path_and_query) = rest.split_at(path_start);
        let (userinfo, host_and_port) = match authority.rsplit_once('@') {
            Some((userinfo, _)) if !userinfo.bytes().all(is_userinfo_char) => {
                return Err(UriError::UserInfo);
            }
            Some((userinfo, rest)) => (Some(userinfo), rest),
            None => (None, authority),
        };

        let (zone, without_zone) = split_zone(host_and_port)?;
        let Authority { host, port } = Authority::parse(&without_zone)?;
        let default_port = if secure { 443 } else { 80 };
        let port = match port {
            Some(0) => return Err(UriError::Port),
            port => port.unwrap_or(default_port),
        };
        let bracketed = match host {
            Host::V6(address) => format!("[{address}]"),
            // A host name for a lookup is not percent-encoded.
            Host::Name(name) if name.contains('%') => return Err(UriError::Host),
            Host::Name(name) => name.into(),
        };
        Ok(Self {
            secure,
            host: match host {
                Host::Name(host) | Host::V6(host) => host.into(),
            },
            zone,
            port,
            host_header: if port == default_port {
                bracketed
            } else {
                format!("{bracketed}:{port}")
            },
            path_and_query: match path_and_query.strip_prefix('/') {
                Some(_) => path_and_query.into(),
                None => format!("/{path_and_query}"),
            },
            authorization: userinfo.map(basic_authorization).transpose()?.flatten(),
        })
    }
}

/// RFC 3986 §3.2.1. Parsers differ about other characters, such as a backslash: one may read a user
/// where another reads the host.
const fn is_userinfo_char(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(byte, b'%' | b':')
        || matches!(
            byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        )
}

impl TryFrom<&String> for Target {
    type Error = UriError;

    fn try_from(uri: &String) -> Result<Self, UriError> {
        uri.parse()
    }
}

impl TryFrom<String> for Target {
    type Error = UriError;

    fn try_from(uri: String) -> Result<Self, UriError> {
        uri.parse()
    }
}

impl From<&Self> for Target {
    fn from(target: &Self) -> Self {
        target.clone()
    }
}

impl TryFrom<&str> for Target {
    type Error = UriError;

    fn try_from(uri: &str) -> Result<Self, UriError> {
        uri.parse()
    }
}

impl fmt::Display for Target {
    /// As a URI, without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "wss" } else { "ws" };
        write!(f, "{scheme}://")?;
        match (&self.zone, self.host_header.split_once(']')) {
            (Some(zone), Some((address, port))) => {
                write!(f, "{address}%25{}]{port}", percent_encoded(zone))?;
            }
            _ => f.write_str(&self.host_header)?,
        }
        f.write_str(&self.path_and_query)
    }
}

impl fmt::Debug for Target {
    /// As a URI, without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.to_string()).finish()
    }
}

/// Why a URI is not a valid target.
///
/// ```
/// use anyloop_proto::handshake::{Target, UriError};
///
/// let error = |uri: &str| uri.parse::<Target>().unwrap_err();
/// assert_eq!(error("http://example.com/"), UriError::Scheme);
/// assert_eq!(error("ws://example.com/#top"), UriError::Fragment);
/// assert_eq!(error("ws://example.com/\r\nCookie: x"), UriError::Character('\r'));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UriError {
    /// A character that a URI cannot have: a space, a control character, or one beyond ASCII, which
    /// is written in percent-encoding (in a host name, in Punycode).
    Character(char),
    /// A fragment (`#`), which RFC 6455 §3 forbids.
    Fragment,
    /// A host that is neither a name nor an IP address, or an IPv6 address with an invalid zone. A zone follows `%25`,
    /// and is percent-encoded (RFC 6874).
    Host,
    /// There is no host.
    MissingHost,
    /// A port that is not a number from 1 to 65535.
    Port,
    /// A scheme that is neither `ws` nor `wss`, or none.
    Scheme,
    /// A user or password with characters that a URI cannot have there (RFC 3986 §3.2.1), or that a Basic authorization
    /// cannot carry (RFC 7617 §2).
    UserInfo,
}

/// For conversions from [`Target`] itself.
impl From<core::convert::Infallible> for UriError {
    fn from(never: core::convert::Infallible) -> Self {
        match never {}
    }
}

impl fmt::Display for UriError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Character(c) => write!(f, "a URI cannot contain the character {c:?}"),
            Self::Fragment => f.write_str("a WebSocket URI has no fragment"),
            Self::Host => f.write_str("invalid host"),
            Self::MissingHost => f.write_str("missing host"),
            Self::Port => f.write_str("invalid port"),
            Self::Scheme => f.write_str("scheme is neither ws nor wss"),
            Self::UserInfo => f.write_str("invalid user or password"),
        }
    }
}

impl core::error::Error for UriError {}

/// Host and port, as in a URI or a Host field (RFC 3986 §3.2).
pub(super) struct Authority<'a> {
    host: Host<'a>,
    port: Option<u16>,
}

#[derive(Clone, Copy)]
enum Host<'a> {
    Name(&'a str),
    V6(&'a str),
}

impl<'a> Authority<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, UriError> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, rest) = rest.split_once(']').ok_or(UriError::Host)?;
                address.parse::<Ipv6Addr>().map_err(|_| UriError::Host)?;
                (Host::V6(address), rest)
            }
            None => {
                let end = text.find(':').unwrap_or(text.len());
                let (name, rest) = text.split_at(end);
                match name.is_empty() {
                    true => return Err(UriError::MissingHost),
                    false if !is_name(name.as_bytes()) => return Err(UriError::Host),
                    false => (Host::Name(name), rest),
                }
            }
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            None => return Err(UriError::Host),
            Some("") => None, // RFC 3986 §3.2.3 lets the number be missing
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().map_err(|_| UriError::Port)?)
            }
            Some(_) => return Err(UriError::Port),
        };
        Ok(Self { host, port })
    }
}

/// Removes the zone identifier from a bracketed IPv6 address (RFC 6874 §2). Returns the decoded
/// zone and the authority without it.
fn split_zone(authority: &str) -> Result<(Option<String>, Cow<'_, str>), UriError> {
    let literal = authority.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let split = literal.and_then(|(inner, rest)| Some((inner.split_once('%')?, rest)));
    let Some(((address, zone), rest)) = split else { return Ok((None, authority.into())) };
    let zone = zone.strip_prefix("25").filter(|zone| zone.bytes().all(is_zone_char));
    let zone = zone.and_then(percent_decoded).and_then(|zone| String::from_utf8(zone).ok());
    // Interface names have no control characters, and the system would truncate a name at a zero.
    let zone = zone.filter(|zone| !zone.is_empty() && !zone.chars().any(char::is_control));
    Ok((Some(zone.ok_or(UriError::Host)?), format!("[{address}]{rest}").into()))
}

/// RFC 6874 §2: unreserved characters, and percent-encoding.
const fn is_zone_char(byte: u8) -> bool {
    is_unreserved(byte) || byte == b'%'
}

/// RFC 3986 §2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// `reg-name` of RFC 3986 §3.2.2, which includes IPv4 addresses.
fn is_name(mut bytes: &[u8]) -> bool {
    loop {
        bytes = match bytes {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest
            }
            [b'%' | b'#' | b'^' | b'`' | b'|', ..] => return false,
            [b'(' | b')' | b',' | b';' | b'=', rest @ ..] => rest,
            [byte, rest @ ..] if is_token_char(*byte) => rest,
            _ => return false,
        }
    }
}

/// The value of the Authorization field for a percent-encoded `user:password` (RFC 7617 §2).
fn basic_authorization(userinfo: &str) -> Result<Option<HeaderValue>, UriError> {
    if userinfo.is_empty() {
        return Ok(None);
    }
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let decoded = percent_decoded(user).zip(percent_decoded(password));
    let (user, password) = decoded.ok_or(UriError::UserInfo)?;
    // The first colon ends the user, so a user that contains one cannot be represented.
    if user.contains(&b':') || user.iter().chain(&password).any(u8::is_ascii_control) {
        return Err(UriError::UserInfo);
    }
    let credentials = key::base64(&[&user[..], b":", &password].concat());
    let mut value =
        HeaderValue::try_from(format!("Basic {credentials}")).map_err(|_| UriError::UserInfo)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// `None` if a percent sign is not followed by two hexadecimal digits.
fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                (high << 4 | low) as u8
            }
            _ => byte,
        });
    }
    Some(decoded)
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            _ if is_unreserved(byte) => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
