//! The TLS of `anyloop serve`.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use anyloop::tls::ServerTls;
use anyloop::tls::rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rcgen::{CertificateParams, DnType, KeyPair};

use super::listen::Listen;
use crate::error::{CliError, chain};
use crate::stdio;

#[derive(clap::Args)]
#[group(skip)]
pub(super) struct Options {
    /// Speak TLS on all sockets, with the certificate in this file (PEM): wss:// instead of ws://.
    ///
    /// The certificate comes first, and then those of the authorities that lead to a root. SIGHUP reads the files
    /// again, and does not end the command; open connections are not affected.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate (PEM: PKCS #8, PKCS #1 or SEC 1; not encrypted).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Speak TLS with a certificate that is made now, for localhost and the hosts of --listen. Its fingerprint is
    /// printed on standard error. With =FILE it is written to this file (PEM), for clients to trust: connect --ca FILE.
    ///
    /// The file is written when the server listens, and an existing one is overwritten. The private key is not in it:
    /// each start makes another certificate.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, conflicts_with = "tls_cert")]
    tls_self_signed: Option<Option<PathBuf>>,
    /// Accept only clients that have a certificate of an authority in this file (PEM).
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,
}

/// A certificate that is made at the start, and the file of the option.
pub(super) struct SelfSigned {
    /// In PEM, as the key.
    certificate: String,
    key: String,
    /// What is said about it.
    description: String,
    file: Option<PathBuf>,
}

impl Options {
    /// Whether the certificate is in files, which can be read again.
    #[cfg(unix)]
    pub(super) fn has_files(&self) -> bool {
        self.tls_cert.is_some()
    }

    /// The certificate of `--tls-self-signed`.
    pub(super) fn self_signed(&self, listen: &[Listen]) -> Result<Option<SelfSigned>, CliError> {
        let Some(file) = &self.tls_self_signed else { return Ok(None) };
        SelfSigned::new(listen, file.clone()).map(Some)
    }

    /// The TLS of the server, if it has any.
    pub(super) fn tls(
        &self,
        self_signed: Option<&SelfSigned>,
    ) -> Result<Option<ServerTls>, CliError> {
        let builder = match (&self.tls_cert, &self.tls_key, self_signed) {
            (Some(certificate), Some(key), _) => {
                ServerTls::builder().certificate_files(certificate, key)
            }
            (.., Some(made)) => {
                ServerTls::builder().certificate_pem(made.certificate.as_str(), made.key.as_str())
            }
            _ if self.tls_client_ca.is_some() => {
                return Err(CliError::usage(
                    "--tls-client-ca needs a certificate: --tls-cert and --tls-key, or --tls-self-signed",
                ));
            }
            _ => return Ok(None),
        };
        let builder = match &self.tls_client_ca {
            Some(path) => builder.client_ca_file(path),
            None => builder,
        };
        builder.build().map(Some).map_err(|error| CliError::tls(&error))
    }
}

impl SelfSigned {
    fn new(listen: &[Listen], file: Option<PathBuf>) -> Result<Self, CliError> {
        let mut names = vec!["localhost".to_string(), "127.0.0.1".to_string(), "::1".to_string()];
        for host in listen.iter().filter_map(Listen::host) {
            let is_any = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
            if !is_any && !host.contains('%') && !names.contains(&host) {
                names.push(host);
            }
        }
        let shown = names.join(", ");
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "anyloop serve, self-signed");
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let fingerprint = fingerprint(certificate.der());
        let description =
            format!("self-signed certificate for {shown}; its SHA-256 is {fingerprint}");
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem(), description, file })
    }

    /// The server listens. Writes the certificate to its file, if it has one, and tells what it is.
    pub(super) fn announce(self) -> Result<(), CliError> {
        let Self { certificate, mut description, file, .. } = self;
        if let Some(file) = file {
            let name = file.display();
            fs::write(&file, certificate).map_err(|error| {
                CliError::usage(format!("--tls-self-signed: cannot write to {name}: {error}"))
            })?;
            description += &format!("; it is in {name}");
        }
        stdio::report(&description);
        Ok(())
    }
}

/// Reads the files again, and reports the result.
#[cfg(unix)]
pub(super) fn reload(tls: &ServerTls) {
    match tls.reload() {
        Ok(()) => stdio::report("the certificate was read again"),
        Err(error) => {
            stdio::report(&format!("the certificate stays as it was: {}", chain(&error)));
        }
    }
}

/// The SHA-256 of a certificate, as browsers and openssl show it.
fn fingerprint(certificate: &[u8]) -> String {
    let suite = TLS13_AES_128_GCM_SHA256.tls13();
    let hash = suite.map(|suite| suite.common.hash_provider.hash(certificate));
    let bytes = hash.as_ref().map_or(&[][..], AsRef::as_ref);
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}
