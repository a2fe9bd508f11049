//! The options of TLS of the commands that connect.

use std::path::PathBuf;

use anyloop::tls::ClientTls;

use crate::error::CliError;
use crate::stdio;

#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Options {
    /// For wss://: trust the authorities in this file, too (PEM; repeatable). A self-signed certificate is its own
    /// authority.
    #[arg(long, value_name = "FILE")]
    ca: Vec<PathBuf>,
    /// For wss://: accept any certificate. Whoever is on the way to the server can then read and change everything.
    #[arg(long)]
    insecure: bool,
    /// For wss://: present the certificate in this file to the server (PEM).
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// The private key of that certificate (PEM: PKCS #8, PKCS #1 or SEC 1; not encrypted).
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
}

impl Options {
    /// The TLS of the connection; `None` if the URL is not `wss` and no option of TLS was given. `may_follow` is
    /// whether redirects are followed, which may lead from `ws` to `wss`.
    pub(crate) fn tls(
        &self,
        secure: bool,
        may_follow: bool,
    ) -> Result<Option<ClientTls>, CliError> {
        match self.first() {
            Some(option) if !secure && !may_follow => {
                return Err(CliError::usage(format!("{option} is for wss:// URLs")));
            }
            None if !secure => return Ok(None),
            _ => {}
        }
        let mut builder = ClientTls::builder();
        for path in &self.ca {
            builder = builder.ca_file(path);
        }
        if let (Some(certificate), Some(key)) = (&self.client_cert, &self.client_key) {
            builder = builder.certificate_files(certificate, key);
        }
        if self.insecure {
            stdio::report(
                "WARNING: --insecure: the certificate is not verified, so this may be anybody's server",
            );
            builder = builder.danger_accept_any_certificate();
        }
        builder.build().map(Some).map_err(|error| CliError::tls(&error))
    }

    /// The first of these options that was given.
    fn first(&self) -> Option<&'static str> {
        match self {
            Self { ca, .. } if !ca.is_empty() => Some("--ca"),
            Self { insecure: true, .. } => Some("--insecure"),
            Self { client_cert: Some(_), .. } => Some("--client-cert"),
            _ => None,
        }
    }
}
