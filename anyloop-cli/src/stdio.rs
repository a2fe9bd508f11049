//! Standard input, output and error, which wait where they would block.
//!
//! A process that shares a descriptor may have set `O_NONBLOCK`: the flag belongs to the open file, so
//! it is left as it is. Nothing is buffered here, so nothing is lost when the process ends.

#[cfg(unix)]
mod waiting;

#[cfg(not(unix))]
use std::io;
#[cfg(not(unix))]
pub(crate) use std::io::Stdout as Output;
use std::io::Write;

#[cfg(unix)]
use self::waiting::error;
#[cfg(unix)]
pub(crate) use self::waiting::{Output, input, output};

use crate::escape;

/// Says to standard error what went wrong. Control characters are escaped, since some of it may be a
/// peer's words.
pub(crate) fn report(why: &str) {
    say(&format!("anyloop: {}", escape::text(why)));
}

/// Writes a line to standard error. Where that fails, there is no one to tell.
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
fn error() -> io::Stderr {
    io::stderr()
}
