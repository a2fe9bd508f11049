//! The TLS of clients.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::error::TlsConfigError;
use super::pem::PemSource;
use super::provider;
use super::records::Records;
use super::self_signed::ReportsSelfSigned;
use super::server::{ALPN, offers_http2, read_certified_key, read_roots};

/// The authorities that a client trusts, and its own certificate if it has one, for connections to `wss` URIs.
///
/// By default, servers are verified by what the operating system trusts (feature `tls-platform-verifier`), otherwise by
/// Mozilla's roots (feature `tls-webpki-roots`). The certificate must be valid for the host of the URI: a name, which
/// is sent to the server (RFC 6066 §3), or an address. A connection can resume the TLS session of any other connection
/// with the same `ClientTls`.
///
/// Clones share their configuration and their TLS sessions. It can be used from any thread.
///
/// ```no_run
/// use anyloop::net::Client;
/// use anyloop::prelude::*;
/// use anyloop::tls::ClientTls;
///
/// let tls = ClientTls::builder().ca_file("our-ca.pem").build()?;
/// let mut client = Client::new(ClientConfig::new().tls(tls))?;
/// client.on_open(|context| _ = context.send("hello"));
/// client.connect("wss://chat.example/")?;
/// client.run();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct ClientTls {
    /// The default configuration is made for the first connection; until then this is empty.
    config: Arc<OnceLock<Arc<ClientConfig>>>,
}

impl ClientTls {
    /// The default. The call that makes the first connection reads the roots; if they cannot be read, that call fails.
    /// To read them at once, use [`builder`](Self::builder).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses a configuration of the application's own. If it has no ALPN protocols, none is offered (RFC 7301); if it
    /// has `h2`, only `http/1.1` is offered. Early data is not sent.
    #[must_use]
    pub fn from_config(mut config: Arc<ClientConfig>) -> Self {
        if offers_http2(&config.alpn_protocols) {
            Arc::make_mut(&mut config).alpn_protocols = vec![ALPN.to_vec()];
        }
        Self { config: Arc::new(OnceLock::from(config)) }
    }

    /// A builder, for other roots, a client certificate, or no verification.
    pub fn builder() -> ClientTlsBuilder {
        ClientTlsBuilder::default()
    }

    /// The TLS of a new connection to `host`: a name or an IP address, which may be in brackets.
    pub(crate) fn new_records(&self, host: &str) -> Result<Records, TlsConfigError> {
        let name =
            server_name(host).ok_or_else(|| TlsConfigError::Host { host: host.to_string() })?;
        Records::client(self.config()?, name).map_err(TlsConfigError::Rustls)
    }

    fn config(&self) -> Result<Arc<ClientConfig>, TlsConfigError> {
        if let Some(config) = self.config.get() {
            return Ok(config.clone());
        }
        let config = ClientTlsBuilder::default().config()?;
        Ok(self.config.get_or_init(|| config).clone())
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

/// The name or address that the certificate must be valid for. A final dot is not part of a name (RFC 6066 §3).
fn server_name(host: &str) -> Option<ServerName<'static>> {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = inner.unwrap_or_else(|| host.strip_suffix('.').unwrap_or(host));
    ServerName::try_from(host.to_string()).ok()
}

/// Makes a [`ClientTls`]. Files are read by [`build`](Self::build).
///
/// ```no_run
/// use anyloop::tls::ClientTls;
///
/// let tls = ClientTls::builder()
///     .ca_file("our-ca.pem") // beside what is trusted by default
///     .certificate_files("client.pem", "client.key")
///     .build()?;
/// # Ok::<(), anyloop::tls::TlsConfigError>(())
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct ClientTlsBuilder {
    roots: Roots,
    cas: Vec<PemSource>,
    /// The client's own certificate, and its key.
    identity: Option<(PemSource, PemSource)>,
    accepts_any: bool,
}

/// The roots that are trusted beside the CAs that the application adds.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Roots {
    /// Those of the operating system if the feature is enabled (on Android: and no CA was added), otherwise Mozilla's.
    #[default]
    Default,
    #[cfg(feature = "tls-webpki-roots")]
    Webpki,
    None,
}

impl ClientTlsBuilder {
    /// Trusts the authorities in this file, too. A self-signed certificate is its own authority.
    pub fn ca_file(mut self, path: impl AsRef<Path>) -> Self {
        self.cas.push(PemSource::file(path));
        self
    }

    /// Like [`ca_file`](Self::ca_file), with the content of the file.
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.cas.push(PemSource::Bytes(pem.into()));
        self
    }

    /// Trusts no other authorities than those of [`ca_file`](Self::ca_file) and [`ca_pem`](Self::ca_pem).
    pub fn only_these_cas(mut self) -> Self {
        self.roots = Roots::None;
        self
    }

    /// Trusts Mozilla's roots, which are compiled in, instead of those of the operating system.
    #[cfg(feature = "tls-webpki-roots")]
    pub fn webpki_roots(mut self) -> Self {
        self.roots = Roots::Webpki;
        self
    }

    /// Presents this certificate to servers that ask for one. The form of the files is that of
    /// [`ServerTls::from_pem_files`](super::ServerTls::from_pem_files).
    pub fn certificate_files(
        mut self,
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Self {
        self.identity = Some((PemSource::file(certificate), PemSource::file(key)));
        self
    }

    /// Like [`certificate_files`](Self::certificate_files), with the content of the files.
    pub fn certificate_pem(
        mut self,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.identity = Some((PemSource::Bytes(certificate.into()), PemSource::Bytes(key.into())));
        self
    }

    /// Accepts any certificate. Everyone on the way to the server can then read and change everything. For tests.
    pub fn danger_accept_any_certificate(mut self) -> Self {
        self.accepts_any = true;
        self
    }

    /// Reads the files.
    ///
    /// # Errors
    ///
    /// A file cannot be read, is not PEM, or has something else in it; a key does not belong to its certificate;
    /// [`TlsConfigError::NoProvider`], [`TlsConfigError::NoRoots`].
    pub fn build(self) -> Result<ClientTls, TlsConfigError> {
        Ok(ClientTls::from_config(self.config()?))
    }

    fn config(&self) -> Result<Arc<ClientConfig>, TlsConfigError> {
        let provider = provider::provider()?;
        let verifier = Arc::new(ReportsSelfSigned(self.verifier(&provider)?));
        let builder = ClientConfig::builder_with_provider(provider.clone());
        let builder =
            builder.with_safe_default_protocol_versions().map_err(TlsConfigError::Rustls)?;
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = read_certified_key(certificate, key, &provider)?;
                let resolver = rustls::sign::SingleCertAndKey::from(key);
                builder.with_client_cert_resolver(Arc::new(resolver))
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Arc::new(config))
    }

    fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, TlsConfigError> {
        if self.accepts_any {
            return Ok(Arc::new(AcceptsAnyCertificate(provider.clone())));
        }
        match self.roots {
            #[cfg(all(feature = "tls-platform-verifier", not(target_os = "android")))]
            Roots::Default => {
                use rustls_platform_verifier::Verifier;

                read_roots(&self.cas)?; // its errors name the file
                let mut cas = Vec::new();
                for source in &self.cas {
                    cas.extend(source.read_certificates()?);
                }
                let verifier = Verifier::new_with_extra_roots(cas, provider.clone());
                Ok(Arc::new(verifier.map_err(platform_error)?))
            }
            #[cfg(all(feature = "tls-platform-verifier", target_os = "android"))]
            Roots::Default if self.cas.is_empty() => {
                let verifier = rustls_platform_verifier::Verifier::new(provider.clone());
                Ok(Arc::new(verifier.map_err(platform_error)?))
            }
            _ => {
                let mut store = read_roots(&self.cas)?;
                self.add_webpki_roots(&mut store);
                if store.is_empty() {
                    return Err(TlsConfigError::NoRoots);
                }
                let verifier =
                    WebPkiServerVerifier::builder_with_provider(store.into(), provider.clone());
                let verifier = verifier.build();
                Ok(verifier
                    .map_err(|error| TlsConfigError::Rustls(Error::General(error.to_string())))?)
            }
        }
    }

    #[cfg(feature = "tls-webpki-roots")]
    fn add_webpki_roots(&self, store: &mut RootCertStore) {
        if self.roots != Roots::None {
            store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
    }

    #[cfg(not(feature = "tls-webpki-roots"))]
    #[expect(clippy::unused_self, reason = "the signature is the same as with the feature")]
    const fn add_webpki_roots(&self, _: &mut RootCertStore) {}
}

#[cfg(feature = "tls-platform-verifier")]
fn platform_error(error: Error) -> TlsConfigError {
    match error {
        Error::General(reason) if reason.starts_with("No CA certificates") => {
            TlsConfigError::NoRoots
        }
        error => TlsConfigError::Rustls(error),
    }
}

impl fmt::Debug for ClientTlsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cas: Vec<_> = self.cas.iter().map(PemSource::to_path_buf).collect();
        f.debug_struct("ClientTlsBuilder")
            .field("cas", &cas)
            .field("accepts_any", &self.accepts_any)
            .finish_non_exhaustive()
    }
}

/// Accepts any certificate, if the server proves that it has the key.
#[derive(Debug)]
struct AcceptsAnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptsAnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
