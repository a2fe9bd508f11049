//! Standard input, output and error. On Unix, their calls block even if the descriptor is non-blocking.
//!
//! A process that shares a descriptor may have set `O_NONBLOCK`. The flag belongs to the open file, so it
//! is left unchanged. On Unix the streams have no buffers, so nothing is lost when the process ends.

#[cfg(unix)]
mod waiting;

#[cfg(not(unix))]
use std::io;
#[cfg(not(unix))]
pub(crate) use std::io::Stdout as Output;
use std::io::Write;

#[cfg(unix)]
pub(crate) use self::waiting::{Output, error, input, output};

use crate::escape;

/// Reports an error to standard error. Control characters are escaped, since the text may contain a
/// peer's.
pub(crate) fn report(why: &str) {
    say(&format!("anyloop: {}", escape::text(why)));
}

/// Writes a line to standard error, and ignores errors.
pub(crate) fn say(line: &str) {
    let _ = error().write_all(format!("{line}\n").as_bytes());
}

#[cfg(not(unix))]
pub(crate) fn input() -> io::Result<io::Stdin> {
    Ok(io::stdin())
}

#[cfg(not(unix))]
pub(crate) fn output() -> io::Result<io::Stdout> {
    Ok(io::stdout())
}

#[cfg(not(unix))]
pub(crate) fn error() -> io::Stderr {
    io::stderr()
}
