//! The proxies that a client connects through. The client's configuration has them, and `net` uses them.

mod error;
mod exceptions;
mod rules;

use std::fmt;
use std::str::FromStr;

use anyloop_proto::handshake::{Target, UriError};
use percent_encoding::percent_decode_str;

#[cfg(feature = "tls-core")]
use crate::tls::ClientTls;

pub use error::ProxyError;
pub use rules::ProxyRules;

/// The port of a proxy whose URI has none, as in curl.
const DEFAULT_PORT: u16 = 1080;

/// The same for an `https` proxy.
const DEFAULT_HTTPS_PORT: u16 = 443;

/// The longest user and the longest password in SOCKS5, in bytes (RFC 1929 §2).
const MAX_SOCKS_CREDENTIAL: usize = 255;

/// A proxy: where it is, what it speaks, and the user and password for it.
///
/// | URI | how a client connects through it |
/// |---|---|
/// | `http://host:port`, `host:port` | by an HTTP tunnel (CONNECT, RFC 9110 §9.3.6), for `ws` too |
/// | `https://host:port` | the same, over TLS with the proxy (feature `tls-core`) |
/// | `socks5://host:port` | by SOCKS5 (RFC 1928), to an address that the client has looked up |
/// | `socks5h://host:port` | by SOCKS5; the proxy looks the host up |
///
/// A user and a password, percent-encoded, stand before the host: `http://user:secret@host:port`. They are sent
/// only to the proxy: by Basic (RFC 7617), or with SOCKS5 as RFC 1929 says. They are encrypted only if the proxy is an
/// `https` one. The default port is 1080, and 443 for `https`, as in curl.
///
/// The text of a proxy (`Display`, `Debug`) has neither user nor password.
///
/// ```
/// use anyloop::net::Proxy;
///
/// let proxy = Proxy::parse("http://alice:s%40fe@proxy.example:3128")?;
/// assert_eq!((proxy.host(), proxy.port()), ("proxy.example", 3128));
/// assert_eq!(proxy.to_string(), "http://proxy.example:3128");
///
/// let same = Proxy::http("proxy.example", 3128).with_credentials("alice", "s@fe")?;
/// assert_eq!(same.to_string(), proxy.to_string());
/// # Ok::<(), anyloop::net::ProxyError>(())
/// ```
#[derive(Clone)]
pub struct Proxy {
    protocol: ProxyProtocol,
    /// An IPv6 address has no brackets, and may have a zone.
    host: String,
    port: u16,
    credentials: Option<Credentials>,
    /// For the TLS with an `https` proxy.
    #[cfg(feature = "tls-core")]
    tls: ClientTls,
}

/// The protocol between a client and a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyProtocol {
    Http,
    #[cfg_attr(not(feature = "tls-core"), expect(dead_code, reason = "it needs TLS"))]
    Https,
    Socks5 {
        /// The proxy looks the host up.
        remote_names: bool,
    },
}

/// A user, which has no colon, and a password.
#[derive(Clone, PartialEq, Eq)]
struct Credentials {
    user: Vec<u8>,
    password: Vec<u8>,
}

impl Proxy {
    /// The proxy with this URI. Without a scheme it is an HTTP proxy.
    ///
    /// # Errors
    ///
    /// [`ProxyError`]. It does not repeat the URI, which may have a password.
    pub fn parse(uri: &str) -> Result<Self, ProxyError> {
        // Text before `://` that is no scheme may be part of a password: no error repeats it.
        let split = uri.split_once("://").filter(|(scheme, _)| is_scheme(scheme));
        let (protocol, rest) = match split {
            Some((scheme, rest)) => (ProxyProtocol::parse(scheme)?, rest),
            None => (ProxyProtocol::Http, uri),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err(ProxyError::Path);
        }
        // The host, the port and the user follow the rules of a WebSocket URI.
        let target: Target = format!("ws://{rest}").parse()?;
        let (userinfo, authority) = match rest.rsplit_once('@') {
            Some((userinfo, authority)) => (userinfo, authority),
            None => ("", rest),
        };
        let names_port = authority.rsplit_once(':').is_some_and(|(_, port)| {
            !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
        });
        let host = match target.zone() {
            Some(zone) => format!("{}%{zone}", target.host()),
            None => target.host().to_string(),
        };
        let port = match protocol {
            _ if names_port => target.port(),
            ProxyProtocol::Https => DEFAULT_HTTPS_PORT,
            ProxyProtocol::Http | ProxyProtocol::Socks5 { .. } => DEFAULT_PORT,
        };
        let proxy = Self::new(protocol, host, port);
        if userinfo.is_empty() {
            return Ok(proxy);
        }
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        let decoded = |text| percent_decode_str(text).collect::<Vec<_>>();
        proxy.with_credentials(decoded(user), decoded(password))
    }

    /// An HTTP proxy. `host` is a name or an IP address.
    #[must_use]
    pub fn http(host: impl Into<String>, port: u16) -> Self {
        Self::new(ProxyProtocol::Http, host.into(), port)
    }

    /// An HTTP proxy that speaks TLS itself. `host` is a name or an IP address, and its certificate must be valid for
    /// it.
    #[cfg(feature = "tls-core")]
    #[must_use]
    pub fn https(host: impl Into<String>, port: u16) -> Self {
        Self::new(ProxyProtocol::Https, host.into(), port)
    }

    /// A SOCKS5 proxy; the client looks hosts up. `host` is a name or an IP address.
    #[must_use]
    pub fn socks5(host: impl Into<String>, port: u16) -> Self {
        Self::new(ProxyProtocol::Socks5 { remote_names: false }, host.into(), port)
    }

    /// A SOCKS5 proxy that looks hosts up. `host` is a name or an IP address.
    #[must_use]
    pub fn socks5h(host: impl Into<String>, port: u16) -> Self {
        Self::new(ProxyProtocol::Socks5 { remote_names: true }, host.into(), port)
    }

    fn new(protocol: ProxyProtocol, mut host: String, port: u16) -> Self {
        if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            host = inner.to_string();
        }
        Self {
            protocol,
            host,
            port,
            credentials: None,
            #[cfg(feature = "tls-core")]
            tls: ClientTls::new(),
        }
    }

    /// Sets how an `https` proxy is verified, and the client certificate that it gets. By default it is
    /// [`ClientTls::new`]; the client's configuration for servers has no effect on proxies.
    #[cfg(feature = "tls-core")]
    #[must_use]
    pub fn with_tls(mut self, tls: ClientTls) -> Self {
        self.tls = tls;
        self
    }

    /// The same proxy with a user and a password, which are not percent-encoded.
    ///
    /// # Errors
    ///
    /// [`ProxyError::Credentials`]: the user has a colon (RFC 7617 §2). For SOCKS5 also: the user is empty, or the user
    /// or the password has more than 255 bytes (RFC 1929 §2).
    pub fn with_credentials(
        mut self,
        user: impl Into<Vec<u8>>,
        password: impl Into<Vec<u8>>,
    ) -> Result<Self, ProxyError> {
        let (user, password) = (user.into(), password.into());
        let fits = match self.protocol {
            ProxyProtocol::Http | ProxyProtocol::Https => true,
            ProxyProtocol::Socks5 { .. } => {
                (1..=MAX_SOCKS_CREDENTIAL).contains(&user.len())
                    && password.len() <= MAX_SOCKS_CREDENTIAL
            }
        };
        if user.contains(&b':') || !fits {
            return Err(ProxyError::Credentials);
        }
        self.credentials = Some(Credentials { user, password });
        Ok(self)
    }

    /// The host: a name, or an IP address. An IPv6 address has no brackets, and may have a zone (`fe80::1%eth0`).
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) const fn protocol(&self) -> ProxyProtocol {
        self.protocol
    }

    #[cfg(feature = "tls-core")]
    pub(crate) const fn tls(&self) -> &ClientTls {
        &self.tls
    }

    /// The user and the password.
    pub(crate) fn credentials(&self) -> Option<(&[u8], &[u8])> {
        self.credentials.as_ref().map(|both| (&*both.user, &*both.password))
    }
}

/// Whether a text has only characters of a scheme (RFC 3986 §3.1), or none.
fn is_scheme(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

impl ProxyProtocol {
    fn parse(scheme: &str) -> Result<Self, ProxyError> {
        let is = |name: &str| scheme.eq_ignore_ascii_case(name);
        match () {
            () if is("http") => Ok(Self::Http),
            () if is("socks5") => Ok(Self::Socks5 { remote_names: false }),
            () if is("socks5h") => Ok(Self::Socks5 { remote_names: true }),
            #[cfg(feature = "tls-core")]
            () if is("https") => Ok(Self::Https),
            #[cfg(not(feature = "tls-core"))]
            () if is("https") => Err(ProxyError::Https),
            () => Err(ProxyError::Scheme { scheme: scheme.to_string() }),
        }
    }

    const fn scheme(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Socks5 { remote_names: false } => "socks5",
            Self::Socks5 { remote_names: true } => "socks5h",
        }
    }
}

impl FromStr for Proxy {
    type Err = ProxyError;

    fn from_str(uri: &str) -> Result<Self, ProxyError> {
        Self::parse(uri)
    }
}

impl TryFrom<&str> for Proxy {
    type Error = ProxyError;

    fn try_from(uri: &str) -> Result<Self, ProxyError> {
        Self::parse(uri)
    }
}

impl fmt::Display for Proxy {
    /// As a URI, without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, host, port, .. } = self;
        match host.contains(':') {
            true => write!(f, "{}://[{host}]:{port}", protocol.scheme()),
            false => write!(f, "{}://{host}:{port}", protocol.scheme()),
        }
    }
}

impl fmt::Debug for Proxy {
    /// As a URI, without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Proxy").field(&self.to_string()).finish()
    }
}

impl From<UriError> for ProxyError {
    fn from(error: UriError) -> Self {
        match error {
            UriError::UserInfo => Self::Credentials,
            error => Self::Uri(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(uri: &str) -> String {
        Proxy::parse(uri).unwrap_or_else(|error| panic!("{uri}: {error}")).to_string()
    }

    #[test]
    fn uris() {
        assert_eq!(parsed("http://proxy.example:3128"), "http://proxy.example:3128");
        assert_eq!(parsed("HTTP://proxy.example:80/"), "http://proxy.example:80");
        assert_eq!(parsed("proxy.example:3128"), "http://proxy.example:3128");
        assert_eq!(parsed("proxy.example"), "http://proxy.example:1080");
        assert_eq!(parsed("socks5://10.0.0.1"), "socks5://10.0.0.1:1080");
        assert_eq!(parsed("socks5h://[::1]:9050"), "socks5h://[::1]:9050");
        assert_eq!(parsed("socks5h://[::1]"), "socks5h://[::1]:1080");
        assert_eq!(parsed("http://[fe80::1%25eth0]:80"), "http://[fe80::1%eth0]:80");
        #[cfg(feature = "tls-core")]
        assert_eq!(parsed("https://proxy.example"), "https://proxy.example:443");
        assert_eq!(parsed("http://user:p%3Aw@proxy.example:80"), "http://proxy.example:80");
        let bracketed = Proxy::http("[::1]", 80);
        assert_eq!((bracketed.host(), bracketed.to_string().as_str()), ("::1", "http://[::1]:80"));
    }

    #[test]
    fn users_and_passwords_are_decoded_and_hidden() {
        let credentials = |uri: &str| {
            let proxy = Proxy::parse(uri).unwrap();
            assert!(!format!("{proxy:?}{proxy}").contains("pass"));
            proxy.credentials().map(|(user, password)| {
                (String::from_utf8_lossy(user).into(), String::from_utf8_lossy(password).into())
            })
        };
        let both = |user: &str, password: &str| Some((user.to_string(), password.to_string()));
        assert_eq!(credentials("http://a:pass%40%2Fx@p:1"), both("a", "pass@/x"));
        assert_eq!(credentials("a:pass:word@p:1"), both("a", "pass:word"));
        assert_eq!(credentials("socks5://a@p:1"), both("a", ""));
        assert_eq!(credentials("http://@p:1"), None);
        assert_eq!(credentials("http://p:1"), None);
    }

    #[test]
    fn what_is_no_proxy_is_an_error_without_the_uri() {
        let error = |uri: &str| Proxy::parse(uri).unwrap_err();
        assert!(
            matches!(error("socks4://p:1"), ProxyError::Scheme { scheme } if scheme == "socks4")
        );
        #[cfg(not(feature = "tls-core"))]
        assert!(matches!(error("https://p:1"), ProxyError::Https));
        assert!(matches!(error("http://p:1/path"), ProxyError::Path));
        assert!(matches!(error(""), ProxyError::Uri(UriError::MissingHost)));
        assert!(matches!(error("http://p:x"), ProxyError::Uri(UriError::Port)));
        assert!(matches!(error("http://p:0"), ProxyError::Uri(UriError::Port)));
        assert!(matches!(error("http://a b:1"), ProxyError::Uri(UriError::Character(' '))));
        assert!(matches!(error("a:secret://@p:1"), ProxyError::Path));
        let secrets = ["http://a:secret%@p:1", "http://a%3Ab:secret@p:1", "socks5://:secret@p:1"];
        for uri in secrets {
            let error = error(uri);
            assert!(matches!(error, ProxyError::Credentials), "{error:?}");
            assert!(!error.to_string().contains("secret"));
        }
        let long = format!("socks5://a:{}@p:1", "b".repeat(256));
        assert!(matches!(error(&long), ProxyError::Credentials));
    }
}
