//! Why the command ends otherwise than it should, and the status that says so.

use std::error::Error;
use std::process::ExitCode;

use crate::stdio;

/// The words for standard error, and the exit status.
#[derive(Debug)]
pub(crate) struct Stop {
    status: u8,
    why: String,
}

impl Stop {
    /// It failed, or a connection did not end as it should.
    pub(crate) fn failed(why: impl Into<String>) -> Self {
        Self { status: 1, why: why.into() }
    }

    /// The command was called wrongly.
    pub(crate) fn usage(why: impl Into<String>) -> Self {
        Self { status: 2, why: why.into() }
    }

    /// The server could not be connected to.
    pub(crate) fn unreachable(why: impl Into<String>) -> Self {
        Self { status: 3, why: why.into() }
    }

    /// The opening handshake failed.
    pub(crate) fn refused(why: impl Into<String>) -> Self {
        Self { status: 4, why: why.into() }
    }

    /// Says it.
    pub(crate) fn report(&self) -> ExitCode {
        stdio::report(&self.why);
        ExitCode::from(self.status)
    }
}

impl<E: Error> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::failed(error.to_string())
    }
}
