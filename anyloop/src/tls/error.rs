//! Errors of TLS.

use std::path::{Path, PathBuf};

use anyloop_proto::Role;
use rustls::{AlertDescription, CertificateError, Error};

/// Why the TLS of a connection failed. [`Context::error`] returns it in [`Handler::fail`] and [`Handler::close`]; the
/// failure itself has the cause [`TransportError::Tls`](crate::proto::TransportError::Tls).
///
/// ```
/// # use anyloop::iostream::Client;
/// # use anyloop::prelude::*;
/// # use anyloop::tls::ClientTls;
/// use anyloop::tls::TlsError;
///
/// # let mut client = Client::new(ClientConfig::new());
/// # let (sender, errors) = std::sync::mpsc::channel();
/// client.on_fail(move |_, context| {
///     let error = context.error().and_then(|error| error.downcast_ref::<TlsError>());
///     assert!(matches!(error, Some(TlsError::NotTls)));
/// #   sender.send(error.unwrap().to_string()).unwrap();
/// });
/// # let tls = ClientTls::builder().danger_accept_any_certificate().build()?;
/// let connection = client.over_tls(&tls).connection(&"wss://localhost/".parse()?)?;
/// # connection.register_output(std::io::sink());
/// connection.start()?;
/// connection.read_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?; // of a server without TLS
/// # assert_eq!(errors.try_recv()?, "the peer does not speak TLS: is it a plain port? Then use ws://");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`Context::error`]: crate::endpoint::Context::error
/// [`Handler::fail`]: crate::Handler::fail
/// [`Handler::close`]: crate::Handler::close
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The peer has ended TLS with this alert: it refuses our certificate, for example (RFC 8446 §6.2).
    #[error("the peer has refused TLS with the alert {}{}", name_of(*.0), advice_on_alert(*.0))]
    Alert(AlertDescription),
    /// The certificate of a client was refused.
    #[error("the client's certificate was refused: {}{}", description(.0), advice(.0))]
    ClientCertificate(CertificateError),
    /// The first byte of a client is neither of TLS nor of HTTP. The client was not answered.
    #[error("the client does not speak TLS, and this port does: it must use wss://")]
    ClientNotTls,
    /// The peer has ended the stream inside the handshake.
    #[error("the peer has ended the stream inside the TLS handshake")]
    Cut,
    /// The client has sent no certificate, and the server requires one.
    #[error("the client has sent no certificate, and this server requires one")]
    NoClientCertificate,
    /// The first byte of a server is not of TLS.
    #[error("the peer does not speak TLS: is it a plain port? Then use ws://")]
    NotTls,
    /// A client has sent plain HTTP to a server that speaks TLS. The answer was 400 (Bad Request).
    #[error("the client has sent plain HTTP, and this port speaks TLS: it must use wss://")]
    PlainHttp,
    /// Anything else, in the words of rustls.
    #[error("TLS failed: {0}")]
    Protocol(Error),
    /// The certificate of the server was refused.
    #[error("the server's certificate was refused: {}{}", description(.0), advice(.0))]
    ServerCertificate(CertificateError),
    /// The stream has ended without a close_notify: what the peer has sent last may be lost, or was cut off on the way
    /// (RFC 8446 §6.1).
    #[error("the stream was cut off: it has ended without TLS's close_notify")]
    Truncated,
}

impl TlsError {
    /// The error of a connection with this role.
    pub(super) fn new(error: Error, role: Role) -> Self {
        match error {
            Error::AlertReceived(alert) => Self::Alert(alert),
            Error::InvalidCertificate(error) => match role {
                Role::Client => Self::ServerCertificate(error),
                Role::Server => Self::ClientCertificate(error),
            },
            Error::NoCertificatesPresented => Self::NoClientCertificate,
            error => Self::Protocol(error),
        }
    }
}

/// Why a certificate in the configuration of this end cannot be used.
pub(super) fn reason(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => format!("{}{}", description(error), advice(error)),
        error => error.to_string(),
    }
}

/// The certificate is self-signed, and not trusted.
#[derive(Debug, thiserror::Error)]
#[error("it is self-signed")]
pub(super) struct SelfSigned;

/// Whether the error is that the signature algorithm of a certificate is not supported.
#[expect(deprecated, reason = "a verifier of the application's own may return it")]
pub(super) const fn is_unsupported_signature(error: &CertificateError) -> bool {
    use CertificateError as E;
    matches!(
        error,
        E::UnsupportedSignatureAlgorithm
            | E::UnsupportedSignatureAlgorithmContext { .. }
            | E::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
    )
}

/// What is wrong with a certificate. Errors that are not listed here have the text of the verifier.
fn description(error: &CertificateError) -> String {
    match error {
        CertificateError::BadEncoding => "it is not a valid X.509 certificate".to_string(),
        CertificateError::BadSignature => {
            "its signature, or one that was made with its key, is wrong".to_string()
        }
        error if is_unsupported_signature(error) => {
            "it is signed by an algorithm that is not supported here".to_string()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<_> = presented.iter().map(|name| plain_name(name)).collect();
            match &*names.join(", ") {
                "" => format!("it is not valid for {}, nor for any other name", expected.to_str()),
                names => format!("it is valid for {names}, not for {}", expected.to_str()),
            }
        }
        CertificateError::Other(error) => match error.0.to_string().as_str() {
            "UnsupportedCertVersion" => "it is an X.509 certificate of an old version".to_string(),
            error => error.to_string(),
        },
        error => error.to_string(),
    }
}

/// A name of a certificate, without the Rust around it: rustls has it as `DnsName("a.example")`.
fn plain_name(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, inner)| inner.strip_suffix(')'));
    inner.map_or(name, |inner| inner.trim_matches('"'))
}

/// What can be done about a certificate that was refused.
fn advice(error: &CertificateError) -> &'static str {
    use CertificateError as E;
    match error {
        E::Expired | E::ExpiredContext { .. } => {
            "; renew it, unless the clock of this machine is wrong"
        }
        E::NotValidYet | E::NotValidYetContext { .. } => "; is the clock of this machine right?",
        E::NotValidForName | E::NotValidForNameContext { .. } => {
            "; connect by a name that it has, or issue it for this one"
        }
        E::UnknownIssuer => {
            "; its authority is not trusted here: add the certificate of that authority to trust it"
        }
        E::BadEncoding => "; it is damaged, or not a certificate: issue it anew",
        E::BadSignature => {
            "; it was changed, or its authority has the name but not the key of a trusted one, or its key is too weak \
             (RSA needs 2048 bits)"
        }
        error if is_unsupported_signature(error) => {
            "; issue it with ECDSA P-256, or with RSA of 2048 bits or more, and SHA-256"
        }
        E::Other(other) if other.0.to_string() == "UnsupportedCertVersion" => {
            "; issue it with version 3, which has the names of the server"
        }
        E::Revoked => "; its owner must replace it",
        E::Other(other) if other.0.is::<SelfSigned>() => "; add it as an authority to trust it",
        // `openssl req -x509` makes such a certificate. The error's type is of a crate that rustls does not export.
        E::Other(other) if other.0.to_string() == "CaUsedAsEndEntity" => {
            ": it is the certificate of an authority; a server needs one with basicConstraints CA:FALSE"
        }
        _ => "",
    }
}

/// The name of an alert, for the message.
fn name_of(alert: AlertDescription) -> String {
    format!("{alert:?}")
}

/// What can be done about an alert.
const fn advice_on_alert(alert: AlertDescription) -> &'static str {
    use AlertDescription as A;
    match alert {
        A::CertificateRequired | A::NoCertificate => {
            ": it requires a client certificate, and none was given"
        }
        A::BadCertificate
        | A::UnsupportedCertificate
        | A::CertificateRevoked
        | A::CertificateExpired
        | A::CertificateUnknown => ": it does not accept our certificate",
        A::UnknownCA => ": it does not trust the authority of our certificate",
        A::ProtocolVersion => ": it speaks other versions of TLS",
        A::HandshakeFailure | A::InsufficientSecurity => {
            ": perhaps there is no cipher suite that both ends accept"
        }
        A::UnrecognisedName => ": it has no certificate for this host",
        A::NoApplicationProtocol => ": it does not speak HTTP/1.1",
        _ => "",
    }
}

/// Why a [`ServerTls`](super::ServerTls) or a [`ClientTls`](super::ClientTls) could not be made.
///
/// ```
/// use anyloop::tls::{ServerTls, TlsConfigError};
///
/// let error = ServerTls::from_pem_files("missing.pem", "key.pem").unwrap_err();
/// assert!(matches!(error, TlsConfigError::Read { .. }));
/// assert_eq!(error.to_string(), "cannot read missing.pem");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsConfigError {
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The PEM text of a file, or that the application has passed, has an error.
    #[error("{}: not valid PEM: {reason}", pem_name(path.as_deref()))]
    Pem {
        /// The file; `None` if the application has passed the bytes.
        path: Option<PathBuf>,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no certificate in the PEM text of a file, or in that which the application has passed.
    #[error("{}: there is no certificate in it (BEGIN CERTIFICATE)", pem_name(path.as_deref()))]
    NoCertificate {
        /// The file; `None` if the application has passed the bytes.
        path: Option<PathBuf>,
    },
    /// There is no private key that can be used in the PEM text of a file, or in that which the application has passed.
    #[error("{}: {reason}", pem_name(path.as_deref()))]
    NoKey {
        /// The file; `None` if the application has passed the bytes.
        path: Option<PathBuf>,
        /// What it has instead.
        reason: &'static str,
    },
    /// The certificate or the key cannot be used.
    #[error("{}: {reason}", pem_name(path.as_deref()))]
    Unusable {
        /// The file; `None` if the application has passed the bytes.
        path: Option<PathBuf>,
        /// Why.
        reason: String,
    },
    /// Two certificates were set for the same clients. One of them would never be used.
    #[error("two certificates for {}: set one, or give the other another host name", describe_clients(host.as_deref()))]
    DuplicateCertificate {
        /// The host name that both are for; `None` if neither has one.
        host: Option<String>,
    },
    /// No certificate was set for the server.
    #[error("a TLS server needs a certificate and its key")]
    NoServerCertificate,
    /// No cryptography provider is compiled in.
    #[error("no cryptography provider: enable the feature tls-aws-lc-rs or tls-ring of anyloop")]
    NoProvider,
    /// A client has nothing to verify servers with.
    #[error("no roots to verify servers with: {}", NO_ROOTS)]
    NoRoots,
    /// The configuration cannot be used, or the verifier of the platform has failed.
    #[error("TLS cannot be configured: {0}")]
    Rustls(Error),
    /// The configuration was not read from files.
    #[error("there are no files to read again")]
    NotFromFiles,
    /// The host is neither a DNS name nor an IP address: no certificate can be valid for it.
    #[error("{host:?} is neither a DNS name nor an IP address, so no certificate is valid for it")]
    Host {
        /// The host.
        host: String,
    },
}

#[cfg(feature = "tls-platform-verifier")]
const NO_ROOTS: &str = "this system has no CA certificates: install them (often the package ca-certificates), or add \
    a CA (ca_file; --ca of the command anyloop)";
#[cfg(not(feature = "tls-platform-verifier"))]
const NO_ROOTS: &str = "enable the feature tls-platform-verifier or tls-webpki-roots of anyloop, or add a CA (ca_file)";

fn describe_clients(host: Option<&str>) -> String {
    host.map_or_else(|| "clients that ask for no name".to_string(), |host| format!("{host:?}"))
}

fn pem_name(path: Option<&Path>) -> String {
    path.map_or_else(|| "the PEM".to_string(), |path| path.display().to_string())
}
