//! Errors that end the command, and their exit statuses.

use std::error::Error;

use anyloop::tls::TlsConfigError;

use crate::stdio;

/// A message for standard error, and the exit status.
#[derive(Debug)]
pub(crate) struct CliError {
    status: u8,
    why: String,
}

impl CliError {
    /// The command or its connection failed.
    pub(crate) fn failed(why: impl Into<String>) -> Self {
        Self { status: 1, why: why.into() }
    }

    /// The arguments are wrong.
    pub(crate) fn usage(why: impl Into<String>) -> Self {
        Self { status: 2, why: why.into() }
    }

    /// TLS cannot be configured: the arguments are wrong if they name a file that cannot be used.
    pub(crate) fn tls(error: &TlsConfigError) -> Self {
        match error {
            TlsConfigError::Read { .. }
            | TlsConfigError::Pem { .. }
            | TlsConfigError::NoCertificate { .. }
            | TlsConfigError::NoKey { .. }
            | TlsConfigError::Unusable { .. } => Self::usage(chain(error)),
            _ => Self::failed(chain(error)),
        }
    }

    /// There is no connection to the server.
    pub(crate) fn unreachable(why: impl Into<String>) -> Self {
        Self { status: 3, why: why.into() }
    }

    /// The opening handshake failed.
    pub(crate) fn refused(why: impl Into<String>) -> Self {
        Self { status: 4, why: why.into() }
    }

    /// The same error, whose message goes on with this text.
    pub(crate) fn and(self, more: &str) -> Self {
        Self { why: self.why + more, ..self }
    }

    /// The message.
    pub(crate) fn why(&self) -> &str {
        &self.why
    }

    /// Prints the message, and returns the status.
    pub(crate) fn report(&self) -> u8 {
        stdio::report(&self.why);
        self.status
    }
}

impl<E: Error> From<E> for CliError {
    fn from(error: E) -> Self {
        Self::failed(chain(&error))
    }
}

/// An error and its sources.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
