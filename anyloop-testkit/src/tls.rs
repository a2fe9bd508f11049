//! Certificates, and the other end of a TLS connection.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::cipher::{MessageEncrypter, OutboundPlainMessage};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, Connection, ConnectionTrafficSecrets, ContentType,
    ProtocolVersion, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion,
};

use crate::wait::PATIENCE;

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The key, in PKCS #8.
    pub key: String,
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Validity {
    /// Now.
    #[default]
    Valid,
    /// In the year 2020.
    Expired,
    /// From the year 2200 on.
    NotYet,
}

/// An authority that issues certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// A new authority, which nobody trusts yet.
    ///
    /// # Panics
    ///
    /// If the system has no random numbers.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("random numbers");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("valid parameters") }
    }

    /// An authority that all tests of this process share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Authority> = OnceLock::new();
        SHARED.get_or_init(|| Self::new("anyloop test CA"))
    }

    /// The authority's own certificate and its key. A server must not use them.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity { certificate: self.pem(), key: self.issuer.key().serialize_pem() }
    }

    /// Its own certificate, in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for these names and addresses, for a server or a client.
    ///
    /// # Panics
    ///
    /// If a name is invalid.
    #[must_use]
    pub fn issue(&self, names: &[&str]) -> Identity {
        self.issue_with(names, Validity::Valid)
    }

    /// Like [`issue`](Self::issue), valid at another time.
    ///
    /// # Panics
    ///
    /// If a name is invalid.
    #[must_use]
    pub fn issue_with(&self, names: &[&str], validity: Validity) -> Identity {
        let (params, key) = leaf(names, validity);
        let certificate = params.signed_by(&key, &self.issuer).expect("valid parameters");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// A self-signed certificate.
///
/// # Panics
///
/// If a name is invalid.
#[must_use]
pub fn self_signed(names: &[&str]) -> Identity {
    let (params, key) = leaf(names, Validity::Valid);
    let certificate = params.self_signed(&key).expect("valid parameters");
    Identity { certificate: certificate.pem(), key: key.serialize_pem() }
}

fn leaf(names: &[&str], validity: Validity) -> (CertificateParams, KeyPair) {
    let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut params = CertificateParams::new(names).expect("valid names");
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = match validity {
        Validity::Valid => (date_time_ymd(2020, 1, 1), date_time_ymd(2200, 1, 1)),
        Validity::Expired => (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1)),
        Validity::NotYet => (date_time_ymd(2200, 1, 1), date_time_ymd(2201, 1, 1)),
    };
    (params, KeyPair::generate().expect("random numbers"))
}

/// The certificate in DER.
///
/// # Panics
///
/// If it is not PEM.
#[must_use]
pub fn der(identity: &Identity) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(identity.certificate.as_bytes()).expect("a certificate")
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn chain_and_key(identity: &Identity) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes());
    (vec![der(identity)], key.expect("a key"))
}

fn roots(authority: &Authority) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.issuer.der().clone()).expect("a valid authority");
    Arc::new(roots)
}

/// The configuration of a client that trusts the authority, and presents a certificate if it has one.
///
/// # Panics
///
/// If a certificate is invalid.
#[must_use]
pub fn client_config(
    authority: &Authority,
    identity: Option<&Identity>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(authority), provider());
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .expect("versions")
        .with_webpki_verifier(verifier.build().expect("roots"));
    Arc::new(match identity.map(chain_and_key) {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).expect("a valid key"),
        None => builder.with_no_client_auth(),
    })
}

/// The configuration of a server with this certificate. If there is an authority for `clients`, it requires a
/// certificate of that authority from each client.
///
/// # Panics
///
/// If a certificate is invalid.
#[must_use]
pub fn server_config(identity: &Identity, clients: Option<&Authority>) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match clients {
        Some(authority) => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots(authority), provider());
            builder.with_client_cert_verifier(verifier.build().expect("roots"))
        }
        None => builder.with_no_client_auth(),
    };
    let (chain, key) = chain_and_key(identity);
    Arc::new(builder.with_single_cert(chain, key).expect("a valid key"))
}

/// A blocking client on a socket, before its handshake.
///
/// # Panics
///
/// If the connection is refused, or the host is no name.
#[track_caller]
#[must_use]
pub fn connect(
    address: SocketAddr,
    host: &'static str,
    config: Arc<ClientConfig>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the peer connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("the timeout is not zero");
    stream.set_write_timeout(Some(PATIENCE)).expect("the timeout is not zero");
    stream.set_nodelay(true).expect("a TCP socket has this option");
    let name = ServerName::try_from(host).expect("a host name");
    StreamOwned::new(ClientConnection::new(config, name).expect("a valid configuration"), stream)
}

/// The other end of TLS, whose bytes the test carries.
#[derive(Debug)]
pub struct Far {
    connection: Connection,
    /// Its close_notify was sent.
    closed: bool,
}

impl Far {
    /// A client for a server with a certificate for `localhost`. The configuration decides which authority it trusts.
    ///
    /// # Panics
    ///
    /// If the configuration is invalid.
    #[must_use]
    pub fn client(config: Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from("localhost").expect("a host name");
        let connection = ClientConnection::new(config, name).expect("a valid configuration");
        Self { connection: connection.into(), closed: false }
    }

    /// A server.
    ///
    /// # Panics
    ///
    /// If the configuration is invalid.
    #[must_use]
    pub fn server(config: Arc<ServerConfig>) -> Self {
        let connection = ServerConnection::new(config).expect("a valid configuration");
        Self { connection: connection.into(), closed: false }
    }

    /// Whether the handshake is under way.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// The protocol that was agreed on (RFC 7301).
    #[must_use]
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// Takes received records. Returns their content, and whether the other end has sent a close_notify.
    ///
    /// # Errors
    ///
    /// The error of TLS.
    pub fn receive(&mut self, mut records: &[u8]) -> Result<(Vec<u8>, bool), rustls::Error> {
        let (mut plain, mut closed) = (Vec::new(), false);
        loop {
            while !records.is_empty() && self.connection.wants_read() {
                let _ = self.connection.read_tls(&mut records).expect("memory can be read");
                let state = self.connection.process_new_packets()?;
                closed |= state.peer_has_closed();
                self.read(&mut plain);
            }
            closed |= self.read(&mut plain);
            if records.is_empty() || closed {
                return Ok((plain, closed));
            }
        }
    }

    /// Reads what was decrypted. Returns whether the other end has sent a close_notify.
    fn read(&mut self, plain: &mut Vec<u8>) -> bool {
        match self.connection.reader().read_to_end(plain) {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Seals bytes, after what the handshake has to send. During the handshake they wait.
    ///
    /// # Panics
    ///
    /// If the connection was closed.
    #[must_use]
    pub fn send(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut records = Vec::new();
        for chunk in bytes.chunks(16 << 10) {
            self.connection.writer().write_all(chunk).expect("memory can be written");
            self.take(&mut records);
        }
        self.take(&mut records);
        records
    }

    /// A close_notify, once.
    #[must_use]
    pub fn close(&mut self) -> Vec<u8> {
        if !std::mem::replace(&mut self.closed, true) {
            self.connection.send_close_notify();
        }
        self.send(&[])
    }

    /// Replaces its keys, and asks the other end for the same (RFC 8446 §4.6.3).
    ///
    /// # Panics
    ///
    /// If the version is not 1.3.
    #[must_use]
    pub fn update_keys(&mut self) -> Vec<u8> {
        self.connection.refresh_traffic_keys().expect("TLS 1.3");
        self.send(&[])
    }

    /// What seals records of any type from now on. The configuration must allow it (`enable_secret_extraction`).
    ///
    /// # Panics
    ///
    /// If the configuration does not allow it, the handshake is not complete, or the version is not 1.3.
    #[must_use]
    pub fn into_raw(self) -> Raw {
        let suite = self.connection.negotiated_cipher_suite().expect("the handshake is complete");
        let suite = suite.tls13().expect("TLS 1.3");
        let secrets =
            self.connection.dangerous_extract_secrets().expect("the configuration allows it");
        let (sequence, secrets) = secrets.tx;
        let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = secrets
        else {
            panic!("another cipher suite");
        };
        let mut raw = Raw { encrypter: suite.aead_alg.encrypter(key, iv), sequence: 0 };
        for _ in 0..sequence {
            let _ = raw.seal(ContentType::ApplicationData, &[]); // the cipher must count from 0
        }
        raw
    }

    fn take(&mut self, records: &mut Vec<u8>) {
        while self.connection.wants_write() {
            let written: io::Result<usize> = self.connection.write_tls(records);
            let _ = written.expect("memory can be written");
        }
    }
}

/// Seals records of any type.
pub struct Raw {
    encrypter: Box<dyn MessageEncrypter>,
    sequence: u64,
}

impl std::fmt::Debug for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Raw").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Raw {
    /// A record with this content.
    ///
    /// # Panics
    ///
    /// If it is longer than a record can be.
    pub fn seal(&mut self, typ: ContentType, content: &[u8]) -> Vec<u8> {
        let message = OutboundPlainMessage {
            typ,
            version: ProtocolVersion::TLSv1_2,
            payload: content.into(),
        };
        let sealed = self.encrypter.encrypt(message, self.sequence).expect("not too long");
        self.sequence += 1;
        sealed.encode()
    }
}
