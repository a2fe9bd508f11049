//! The TLS of `anyloop serve`.

use std::net::IpAddr;
use std::path::PathBuf;

use anyloop::tls::rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use anyloop::tls::{ServerTls, TlsConfigError};
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
    /// printed on standard error.
    #[arg(long, conflicts_with = "tls_cert")]
    tls_self_signed: bool,
    /// Accept only clients that have a certificate of an authority in this file (PEM).
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,
}

impl Options {
    /// The TLS of the server, if it has any.
    pub(super) fn tls(&self, listen: &[Listen]) -> Result<Option<ServerTls>, CliError> {
        let builder = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => {
                ServerTls::builder().certificate_files(certificate, key)
            }
            _ if self.tls_self_signed => {
                let (certificate, key) = self_signed(listen)?;
                ServerTls::builder().certificate_pem(certificate, key)
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

/// Reads the files again, and reports the result.
#[cfg(unix)]
pub(super) fn reload(tls: &ServerTls) {
    match tls.reload() {
        Ok(()) => stdio::report("the certificate was read again"),
        Err(TlsConfigError::NotFromFiles) => {
            stdio::report(
                "the certificate was made at the start: there are no files to read again",
            );
        }
        Err(error) => {
            stdio::report(&format!("the certificate stays as it was: {}", chain(&error)));
        }
    }
}

/// A certificate and its key, in PEM.
fn self_signed(listen: &[Listen]) -> Result<(String, String), CliError> {
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
    stdio::report(&format!("self-signed certificate for {shown}; its SHA-256 is {fingerprint}"));
    Ok((certificate.pem(), key.serialize_pem()))
}

/// The SHA-256 of a certificate, as browsers and openssl show it.
fn fingerprint(certificate: &[u8]) -> String {
    let suite = TLS13_AES_128_GCM_SHA256.tls13();
    let hash = suite.map(|suite| suite.common.hash_provider.hash(certificate));
    let bytes = hash.as_ref().map_or(&[][..], AsRef::as_ref);
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}
