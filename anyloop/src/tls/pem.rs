//! Certificates and keys in PEM.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{Error as PemError, PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::error::TlsConfigError;

/// Where the PEM text comes from.
#[derive(Clone, Debug)]
pub(super) enum PemSource {
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl PemSource {
    pub(super) fn file(path: impl AsRef<Path>) -> Self {
        Self::File(path.as_ref().to_path_buf())
    }

    pub(super) fn to_path_buf(&self) -> Option<PathBuf> {
        match self {
            Self::File(path) => Some(path.clone()),
            Self::Bytes(_) => None,
        }
    }

    fn read(&self) -> Result<Vec<u8>, TlsConfigError> {
        match self {
            Self::File(path) => std::fs::read(path)
                .map_err(|source| TlsConfigError::Read { path: path.clone(), source }),
            Self::Bytes(bytes) => Ok(bytes.clone()),
        }
    }

    /// Reads all certificates, at least one.
    pub(super) fn read_certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
        let bytes = self.read()?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        let certificates = certificates.map_err(|error| self.invalid(&error))?;
        match certificates.is_empty() {
            true => Err(TlsConfigError::NoCertificate { path: self.to_path_buf() }),
            false => Ok(certificates),
        }
    }

    /// Reads the first private key: PKCS #8, PKCS #1 (RSA) or SEC 1 (elliptic curves).
    pub(super) fn read_key(&self) -> Result<PrivateKeyDer<'static>, TlsConfigError> {
        let bytes = self.read()?;
        match PrivateKeyDer::from_pem_slice(&bytes) {
            Ok(key) => Ok(key),
            Err(PemError::NoItemsFound) => {
                Err(TlsConfigError::NoKey { path: self.to_path_buf(), reason: why_no_key(&bytes) })
            }
            Err(error) => Err(self.invalid(&error)),
        }
    }

    pub(super) fn unusable(&self, error: impl ToString) -> TlsConfigError {
        TlsConfigError::Unusable { path: self.to_path_buf(), reason: error.to_string() }
    }

    fn invalid(&self, error: &PemError) -> TlsConfigError {
        let reason = match error {
            PemError::MissingSectionEnd { end_marker } => {
                let kind = String::from_utf8_lossy(end_marker);
                format!("the line \"-----END {}-----\" is missing", kind.trim())
            }
            PemError::IllegalSectionStart { line } => {
                format!("the line {:?} is not a valid BEGIN line", String::from_utf8_lossy(line))
            }
            PemError::Base64Decode(error) => format!("its base64 is broken: {error}"),
            error => error.to_string(),
        };
        TlsConfigError::Pem { path: self.to_path_buf(), reason }
    }
}

/// Why a file has no private key that can be used: what it has instead.
fn why_no_key(bytes: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(bytes);
    let has = |kind: SectionKind| {
        <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes)
            .any(|section| section.is_ok_and(|(found, _)| found == kind))
    };
    match () {
        () if text.contains("ENCRYPTED") => {
            "the private key is encrypted: decrypt it first (openssl pkey -in FILE -out FILE)"
        }
        () if has(SectionKind::Certificate) => {
            "there is a certificate in it, and no private key: were the two files swapped?"
        }
        () if text.contains("-----BEGIN") => "there is no private key in it (BEGIN PRIVATE KEY)",
        () => "it is not PEM: there is no line BEGIN PRIVATE KEY in it",
    }
}
