//! What is wrong with a connection.

use std::fmt;

use rustix::io::Errno;

/// An error of a connection.
#[derive(Debug, PartialEq)]
pub(crate) enum Fault {
    /// A byte of a reply (counted from 0) is wrong.
    Differs { reply: u64, byte: usize, expected: u8, came: u8 },
    /// A compressed reply (counted from 0) is wrong.
    Reply { reply: u64, what: &'static str },
    /// There were more replies than messages.
    Unexpected,
    /// The server has closed the connection.
    Closed,
    /// A system call has failed.
    System(Errno),
    /// TLS has failed.
    Tls(rustls::Error),
    /// TLS has more content than records.
    TooMuch,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Differs { reply, byte, expected, came } => {
                write!(f, "reply {reply}, byte {byte}: {came:#04x} came, not {expected:#04x}")
            }
            Self::Reply { reply, what } => write!(f, "reply {reply} {what}"),
            Self::Unexpected => f.write_str("more came than was asked for"),
            Self::Closed => f.write_str("closed by the server"),
            Self::System(errno) => errno.fmt(f),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::TooMuch => f.write_str("TLS: more content than its records can have"),
        }
    }
}

impl std::error::Error for Fault {}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

/// The number of bytes, 0 if the socket would block.
pub(crate) fn unless_blocked(outcome: rustix::io::Result<usize>) -> Result<usize, Fault> {
    match outcome {
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        Err(Errno::PIPE | Errno::CONNRESET) => Err(Fault::Closed),
        outcome => Ok(outcome?),
    }
}
