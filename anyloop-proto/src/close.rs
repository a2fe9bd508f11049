//! Close frames and their codes (RFC 6455 §5.5.1 and §7.4).

use alloc::string::String;
use core::fmt;

use crate::error::{Cause, Refused};
use crate::frame::MAX_CONTROL_PAYLOAD;

/// The longest reason that fits a Close frame, in bytes of UTF-8.
pub const MAX_REASON: usize = MAX_CONTROL_PAYLOAD - 2;

/// A code that a Close frame may carry: 1000 to 1003, 1007 to 1014, 3000 to 4999.
///
/// The codes 1005, 1006 and 1015 are never sent (RFC 6455 §7.4.1). This library reports those
/// conditions as `None` and as a [`Failure`](crate::Failure).
///
/// ```
/// use anyloop_proto::CloseCode;
///
/// assert_eq!(CloseCode::new(1000), Some(CloseCode::NORMAL));
/// assert_eq!(CloseCode::new(4001).map(CloseCode::get), Some(4001));
/// assert_eq!(CloseCode::new(1006), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: the connection has fulfilled its purpose.
    pub const NORMAL: Self = Self(1000);
    /// 1001: a server goes down or a browser leaves the page.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: the peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// 1003: this endpoint cannot accept the kind of data.
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// 1007: the data is not consistent with its kind, such as text that is not UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// 1008: a message that breaks this endpoint's policy.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// 1009: a message too big to process.
    pub const MESSAGE_TOO_BIG: Self = Self(1009);
    /// 1010: the server did not agree to an extension that the client needs.
    pub const MANDATORY_EXTENSION: Self = Self(1010);
    /// 1011: an unexpected condition at this endpoint.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// 1012: the service restarts (IANA registry).
    pub const SERVICE_RESTART: Self = Self(1012);
    /// 1013: try again later (IANA registry).
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// 1014: a gateway got an invalid response (IANA registry).
    pub const BAD_GATEWAY: Self = Self(1014);

    /// The code; `None` if a Close frame must not carry it.
    #[must_use]
    pub const fn new(code: u16) -> Option<Self> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(Self(code)),
            _ => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for CloseCode {
    type Error = InvalidCloseCode;

    fn try_from(code: u16) -> Result<Self, InvalidCloseCode> {
        Self::new(code).ok_or(InvalidCloseCode(code))
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        code.0
    }
}

/// A number that a Close frame must not carry as its code.
///
/// ```
/// use anyloop_proto::{CloseCode, InvalidCloseCode};
///
/// assert_eq!(CloseCode::try_from(4001).map(u16::from), Ok(4001));
/// assert_eq!(CloseCode::try_from(1006), Err(InvalidCloseCode(1006)));
/// assert_eq!(InvalidCloseCode(1006).to_string(), "a Close frame must not carry the code 1006");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing more to say")]
pub struct InvalidCloseCode(pub u16);

impl fmt::Display for InvalidCloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a Close frame must not carry the code {}", self.0)
    }
}

impl core::error::Error for InvalidCloseCode {}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloseCode({})", self.0)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The content of a Close frame: a code and a reason. Without a code the reason is empty.
///
/// ```
/// # use anyloop_proto::*;
/// # let now = Instant::from_nanos(0);
/// # let mut connection = Connection::new(Role::Client, Config::default().into(), now);
/// # let Connection { receiver, sender } = &mut connection;
/// # let mut out = Vec::new();
/// let mut bytes = *b"\x88\x06\x03\xe9done";
/// let event = receiver.next(sender, &mut Input::new(&mut bytes), now, &mut out)?;
/// let Some(Event::Close(frame)) = event else { panic!("a Close frame was received") };
/// assert_eq!((frame.code, frame.reason), (Some(CloseCode::GOING_AWAY), "done"));
///
/// let kept: CloseFrame = frame.to_owned(); // it was borrowed
/// assert_eq!(connection.ending().and_then(|ending| ending.received), Some(&kept));
/// # Ok::<(), Failure>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseFrame<R = String> {
    /// The code; `None` if the frame was empty (code 1005 in other libraries).
    pub code: Option<CloseCode>,
    /// The reason, for logs.
    pub reason: R,
}

impl<'p> CloseFrame<&'p str> {
    /// Reads the payload of a Close frame.
    pub(crate) fn parse(payload: &'p [u8]) -> Result<Self, Cause> {
        // RFC 6455 §5.5.1: "If there is a body, the first two bytes of the body MUST be a 2-byte
        // unsigned integer".
        let (code, reason) = match payload {
            [] => return Ok(Self { code: None, reason: "" }),
            [_] => return Err(Cause::CloseLength),
            [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        };
        let Some(code) = CloseCode::new(code) else { return Err(Cause::CloseCode(code)) };
        match core::str::from_utf8(reason) {
            Ok(reason) => Ok(Self { code: Some(code), reason }),
            Err(_) => Err(Cause::CloseReason),
        }
    }

    /// A copy that owns its reason.
    #[must_use]
    pub fn to_owned(&self) -> CloseFrame {
        CloseFrame { code: self.code, reason: self.reason.into() }
    }
}

/// Whether a Close frame can have this code and reason: at most 123 bytes, and none without a code.
///
/// # Errors
///
/// [`Refused::ReasonTooLong`], [`Refused::ReasonWithoutCode`].
pub fn check_close(code: Option<CloseCode>, reason: &str) -> Result<(), Refused> {
    match code {
        _ if reason.len() > MAX_REASON => Err(Refused::ReasonTooLong(reason.len())),
        None if !reason.is_empty() => Err(Refused::ReasonWithoutCode),
        _ => Ok(()),
    }
}

/// The longest prefix of `reason` that fits a Close frame and ends between two characters.
///
/// ```
/// let long = "é".repeat(100);
/// assert_eq!(anyloop_proto::truncate_reason(&long).len(), 122);
/// ```
#[must_use]
pub fn truncate_reason(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}
