//! Errors of responses.

use core::fmt;

/// Why a response could not be sent whole. After [`Invalid`](Self::Invalid), the client gets the response 500. In all
/// other cases the byte stream is aborted, so that the client does not take a part for the whole.
///
/// ```
/// use anyloop_proto::{Cause, Party, ResponseError};
///
/// let cause = Cause::Response(ResponseError::TooShort { missing: 7 });
/// assert_eq!(cause.to_string(), "body is shorter than its Content-Length: 7 bytes are missing");
/// assert_eq!(cause.party(), Party::Local);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResponseError {
    /// The application has abandoned the body before its end.
    Abandoned,
    /// The application's answer cannot be sent: it was replaced by 500.
    Invalid,
    /// The body has more bytes than its Content-Length says.
    TooLong {
        /// The Content-Length, in bytes.
        length: u64,
    },
    /// The body has ended before its Content-Length.
    TooShort {
        /// The bytes that are missing.
        missing: u64,
    },
    /// The application could not read the body.
    Unreadable,
}

impl ResponseError {
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Abandoned => "body was not finished",
            Self::Invalid => "answer cannot be sent",
            Self::TooLong { .. } => "body is longer than its Content-Length",
            Self::TooShort { .. } => "body is shorter than its Content-Length",
            Self::Unreadable => "body cannot be read",
        }
    }

    pub(super) fn fmt_detail(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { length } => write!(f, " of {length} bytes"),
            Self::TooShort { missing } => write!(f, ": {missing} bytes are missing"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())?;
        self.fmt_detail(f)
    }
}

impl core::error::Error for ResponseError {}
