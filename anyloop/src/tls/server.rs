//! The TLS of servers.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig};

use super::error::{TlsConfigError, reason};
use super::pem::PemSource;
use super::provider;
use super::records::Records;
use super::server_name::CapturesServerName;

/// The ALPN protocol ID of HTTP/1.1 (RFC 7301), in which each WebSocket connection begins.
pub(super) const ALPN: &[u8] = b"http/1.1";

/// The name of the default identity, which is for the clients that no other identity is for.
const ANY_NAME: Option<&str> = None;

/// The certificates and the settings with which a server speaks TLS.
///
/// Clones share one configuration: [`reload`](Self::reload) and [`replace`](Self::replace) change it for all listeners
/// that use it, and for the connections that are made afterwards. It can be used from any thread.
///
/// ```no_run
/// use anyloop::net::Server;
/// use anyloop::prelude::*;
/// use anyloop::tls::ServerTls;
///
/// let tls = ServerTls::from_pem_files("/etc/ssl/chat.example.pem", "/etc/ssl/chat.example.key")?;
/// let mut server = Server::new(ServerConfig::new(OriginPolicy::Any))?;
/// server.on_message(|message, context| _ = context.send(message));
/// server.over_tls(&tls).listen("0.0.0.0:443")?; // wss://
/// server.listen("127.0.0.1:8080")?; // ws://, for this machine
/// server.start_accept()?;
/// server.run();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`from_config`](Self::from_config) takes any configuration of rustls. Otherwise a server speaks TLS 1.2 and 1.3. It
/// never accepts early data (RFC 8446 §2.3), because a request in early data could be replayed.
#[derive(Clone)]
pub struct ServerTls {
    shared: Arc<RwLock<Shared>>,
}

struct Shared {
    config: Arc<ServerConfig>,
    /// The builder that has made `config`, if it has files: [`ServerTls::reload`] reads them again.
    builder: Option<Arc<ServerTlsBuilder>>,
}

impl ServerTls {
    /// Reads the certificate from one file, and its private key from another, or from the same. The server's
    /// certificate comes first, and then the intermediate certificates, up to the root. The key is PKCS #8, PKCS #1
    /// (RSA) or SEC 1 (elliptic curves), and is not encrypted.
    ///
    /// # Errors
    ///
    /// A file cannot be read, is not PEM, or has something else in it; the key does not belong to the certificate;
    /// [`TlsConfigError::NoProvider`].
    pub fn from_pem_files(
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, TlsConfigError> {
        Self::builder().certificate_files(certificate, key).build()
    }

    /// Like [`from_pem_files`](Self::from_pem_files), with the content of the files.
    ///
    /// # Errors
    ///
    /// As [`from_pem_files`](Self::from_pem_files).
    pub fn from_pem(
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Result<Self, TlsConfigError> {
        Self::builder().certificate_pem(certificate, key).build()
    }

    /// Uses a configuration of the application's own. Its `max_early_data_size` is ignored. If it has no ALPN
    /// protocols, none is negotiated (RFC 7301); if it has `h2`, only `http/1.1` is accepted.
    ///
    /// # Errors
    ///
    /// [`TlsConfigError::Rustls`]: rustls refuses the configuration.
    pub fn from_config(config: Arc<ServerConfig>) -> Result<Self, TlsConfigError> {
        Ok(Self::new(adapted(config)?, None))
    }

    fn new(config: Arc<ServerConfig>, builder: Option<Arc<ServerTlsBuilder>>) -> Self {
        Self { shared: Arc::new(RwLock::new(Shared { config, builder })) }
    }

    /// A builder, for several certificates, and for client certificates.
    pub fn builder() -> ServerTlsBuilder {
        ServerTlsBuilder::default()
    }

    /// Reads the files again. Connections that exist are not affected. On an error nothing changes.
    ///
    /// # Errors
    ///
    /// As [`ServerTlsBuilder::build`]. [`TlsConfigError::NotFromFiles`]: there are no files. This `ServerTls` was made
    /// with [`from_config`](Self::from_config) or only from PEM bytes, or [`replace`](Self::replace) has given it
    /// another configuration, before or during this call.
    pub fn reload(&self) -> Result<(), TlsConfigError> {
        let builder = self.read().builder.clone().ok_or(TlsConfigError::NotFromFiles)?;
        let config = builder.config()?;
        let mut shared = self.write();
        // Another thread may have replaced it in the meantime.
        match &shared.builder {
            Some(current) if Arc::ptr_eq(current, &builder) => shared.config = config,
            _ => return Err(TlsConfigError::NotFromFiles),
        }
        Ok(())
    }

    /// Uses this configuration from now on, in place of files. Connections that exist are not affected. On an error
    /// nothing changes.
    ///
    /// # Errors
    ///
    /// As [`from_config`](Self::from_config).
    pub fn replace(&self, config: Arc<ServerConfig>) -> Result<(), TlsConfigError> {
        let config = adapted(config)?;
        *self.write() = Shared { config, builder: None };
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, Shared> {
        self.shared.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Shared> {
        self.shared.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The TLS of a new connection.
    pub(crate) fn new_records(&self) -> Result<Records, TlsConfigError> {
        let config = self.read().config.clone();
        Records::server(config).map_err(TlsConfigError::Rustls)
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("builder", &self.read().builder).finish_non_exhaustive()
    }
}

/// Whether a configuration offers HTTP/2, which this crate does not speak. The configuration of an HTTP server may.
pub(super) fn offers_http2(alpn_protocols: &[Vec<u8>]) -> bool {
    alpn_protocols.iter().any(|protocol| protocol == b"h2")
}

/// Changes a configuration of the application's own to what this crate needs, and checks it.
fn adapted(config: Arc<ServerConfig>) -> Result<Arc<ServerConfig>, TlsConfigError> {
    let mut config = Arc::unwrap_or_clone(config);
    config.cert_resolver = Arc::new(CapturesServerName(config.cert_resolver));
    config.max_early_data_size = 0;
    if offers_http2(&config.alpn_protocols) {
        config.alpn_protocols = vec![ALPN.to_vec()];
    }
    checked(config)
}

/// The configuration, if rustls makes connections with it.
fn checked(config: ServerConfig) -> Result<Arc<ServerConfig>, TlsConfigError> {
    let config = Arc::new(config);
    Records::server(config.clone()).map_err(TlsConfigError::Rustls)?;
    Ok(config)
}

/// Makes a [`ServerTls`]. Files are read by [`build`](Self::build).
///
/// ```no_run
/// use anyloop::tls::ServerTls;
///
/// let tls = ServerTls::builder()
///     .certificate_files("chat.pem", "chat.key")
///     .certificate_files_for("*.games.example", "games.pem", "games.key")
///     .client_ca_file("staff-ca.pem") // only clients with a certificate of that authority
///     .build()?;
/// # Ok::<(), anyloop::tls::TlsConfigError>(())
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct ServerTlsBuilder {
    identities: Vec<Identity>,
    client_cas: Vec<PemSource>,
    client_certificates_optional: bool,
}

#[derive(Clone)]
struct Identity {
    /// The host name that clients ask for; [`ANY_NAME`] for the default.
    name: Option<String>,
    certificate: PemSource,
    key: PemSource,
}

impl ServerTlsBuilder {
    /// Sets the default certificate and its key: for clients that ask for no host name, or for a name without a
    /// certificate of its own. It can be set once. If it is not set, the first of the others is the default.
    pub fn certificate_files(self, certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        self.with_identity(ANY_NAME, PemSource::file(certificate), PemSource::file(key))
    }

    /// Like [`certificate_files`](Self::certificate_files), with the content of the files.
    pub fn certificate_pem(self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.with_identity(
            ANY_NAME,
            PemSource::Bytes(certificate.into()),
            PemSource::Bytes(key.into()),
        )
    }

    /// Adds a certificate and its key for clients that ask for this host name (RFC 6066 §3). Case does not matter. `*.`
    /// at the front stands for one label. A name can have one certificate.
    pub fn certificate_files_for(
        self,
        name: &str,
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Self {
        self.with_identity(Some(name), PemSource::file(certificate), PemSource::file(key))
    }

    /// Like [`certificate_files_for`](Self::certificate_files_for), with the content of the files.
    pub fn certificate_pem_for(
        self,
        name: &str,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.with_identity(
            Some(name),
            PemSource::Bytes(certificate.into()),
            PemSource::Bytes(key.into()),
        )
    }

    fn with_identity(mut self, name: Option<&str>, certificate: PemSource, key: PemSource) -> Self {
        let name = name.map(str::to_ascii_lowercase);
        self.identities.push(Identity { name, certificate, key });
        self
    }

    /// Requires from each client a certificate that an authority in this file has issued. By default clients are not
    /// asked for a certificate.
    pub fn client_ca_file(mut self, path: impl AsRef<Path>) -> Self {
        self.client_cas.push(PemSource::file(path));
        self
    }

    /// Like [`client_ca_file`](Self::client_ca_file), with the content of the file.
    pub fn client_ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.client_cas.push(PemSource::Bytes(pem.into()));
        self
    }

    /// Accepts clients without a certificate as well; [`TlsInfo::peer_certificates`](super::TlsInfo::peer_certificates)
    /// is `None` for them. A certificate that is not valid is refused in any case.
    pub fn client_certificates_optional(mut self, optional: bool) -> Self {
        self.client_certificates_optional = optional;
        self
    }

    /// Reads the files.
    ///
    /// # Errors
    ///
    /// As [`ServerTls::from_pem_files`]. [`TlsConfigError::NoServerCertificate`],
    /// [`TlsConfigError::DuplicateCertificate`].
    pub fn build(self) -> Result<ServerTls, TlsConfigError> {
        let config = self.config()?;
        let builder = self.has_files().then(|| Arc::new(self));
        Ok(ServerTls::new(config, builder))
    }

    fn has_files(&self) -> bool {
        let identities = self.identities.iter();
        let sources = identities.flat_map(|identity| [&identity.certificate, &identity.key]);
        sources.chain(&self.client_cas).any(|source| matches!(source, PemSource::File(_)))
    }

    fn config(&self) -> Result<Arc<ServerConfig>, TlsConfigError> {
        let provider = provider::provider()?;
        let resolver = Arc::new(self.resolver(&provider)?);
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder =
            builder.with_safe_default_protocol_versions().map_err(TlsConfigError::Rustls)?;
        let builder = match self.client_cas.is_empty() {
            true => builder.with_no_client_auth(),
            false => {
                let roots = Arc::new(read_roots(&self.client_cas)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier = match self.client_certificates_optional {
                    true => verifier.allow_unauthenticated(),
                    false => verifier,
                };
                let verifier =
                    verifier.build().map_err(|error| self.client_cas[0].unusable(error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(CapturesServerName(resolver)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        if let Some(ticketer) = provider::ticketer() {
            config.ticketer = ticketer;
        }
        checked(config)
    }

    fn resolver(&self, provider: &CryptoProvider) -> Result<ByName, TlsConfigError> {
        let mut keys = Vec::new();
        let mut names = HashSet::new();
        for identity in &self.identities {
            if !names.insert(&identity.name) {
                return Err(TlsConfigError::DuplicateCertificate { host: identity.name.clone() });
            }
            let key = read_certified_key(&identity.certificate, &identity.key, provider)?;
            keys.push((identity.name.clone(), Arc::new(key)));
        }
        let unnamed = keys.iter().find(|(name, _)| name.is_none());
        let default = unnamed.or_else(|| keys.first()).map(|(_, key)| key.clone());
        let default = default.ok_or(TlsConfigError::NoServerCertificate)?;
        let named = keys.into_iter().filter_map(|(name, key)| Some((name?, key))).collect();
        Ok(ByName { default, named })
    }
}

impl fmt::Debug for ServerTlsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The keys stay secret.
        let certificates: Vec<_> =
            self.identities.iter().map(|identity| identity.certificate.to_path_buf()).collect();
        f.debug_struct("ServerTlsBuilder")
            .field("certificates", &certificates)
            .finish_non_exhaustive()
    }
}

/// Reads a certificate chain and its private key, and checks that the key belongs to the certificate.
pub(super) fn read_certified_key(
    certificate: &PemSource,
    key: &PemSource,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsConfigError> {
    let chain = certificate.read_certificates()?;
    CertifiedKey::from_der(chain, key.read_key()?, provider).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            key.unusable("the private key does not belong to the certificate")
        }
        Error::InvalidCertificate(_) => certificate.unusable(reason(&error)),
        error => key.unusable(error),
    })
}

/// Reads the certificates of authorities.
pub(super) fn read_roots(sources: &[PemSource]) -> Result<RootCertStore, TlsConfigError> {
    let mut roots = RootCertStore::empty();
    for source in sources {
        for certificate in source.read_certificates()? {
            roots.add(certificate).map_err(|error| source.unusable(reason(&error)))?;
        }
    }
    Ok(roots)
}

/// Chooses the certificate by the name that the client asks for.
#[derive(Debug)]
struct ByName {
    default: Arc<CertifiedKey>,
    /// By host name in lower case; `*.` at the front stands for one label.
    named: HashMap<String, Arc<CertifiedKey>>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = client_hello.server_name().and_then(|name| self.find(name));
        Some(named.unwrap_or(&self.default).clone())
    }
}

impl ByName {
    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        if self.named.is_empty() {
            return None;
        }
        let name = name.to_ascii_lowercase();
        let wildcard = || Some(format!("*.{}", name.split_once('.')?.1));
        self.named.get(&name).or_else(|| self.named.get(&wildcard()?))
    }
}
