//! Errors in the URI of a proxy.

use anyloop_proto::handshake::UriError;

/// Why a text is not the URI of a proxy that a client can use. The text itself is not repeated, since it may have a
/// password.
///
/// ```
/// use anyloop::net::{Proxy, ProxyError};
///
/// let error = Proxy::parse("socks4://proxy.example:1080").unwrap_err();
/// assert!(matches!(error, ProxyError::Scheme { .. }));
/// assert_eq!(error.to_string(), "no proxy of scheme socks4: use http, https, socks5 or socks5h");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The user has a colon (RFC 7617 §2), or the user or the password is not percent-encoded. For SOCKS5 also: the
    /// user is empty, or one of them has more than 255 bytes (RFC 1929 §2).
    #[error(
        "invalid user or password of a proxy: write %40 for @ and so on; a user has no colon, and SOCKS5 has 255 bytes \
         for each"
    )]
    Credentials,
    /// The client is to speak TLS with the proxy itself, which needs the feature `tls-core`.
    #[error(
        "an https:// proxy needs the feature tls of anyloop: use http:// if the proxy has a plain port"
    )]
    Https,
    /// The URI has a path, a query or a fragment.
    #[error("the URI of a proxy has a path, a query or a fragment: end it after the port")]
    Path,
    /// The scheme is that of another kind of proxy.
    #[error("no proxy of scheme {scheme}: use http, https, socks5 or socks5h")]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// The host or the port is invalid.
    #[error("invalid URI of a proxy")]
    Uri(#[source] UriError),
    /// The value of an environment variable is invalid.
    #[error("the environment variable {name} names no proxy that can be used")]
    Variable {
        /// The variable.
        name: String,
        /// The error in its value.
        source: Box<Self>,
    },
}
