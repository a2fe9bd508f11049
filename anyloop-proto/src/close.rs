//! Close frames (RFC 6455 §5.5.1).

use alloc::string::String;

use crate::close_code::CloseCode;
use crate::error::{Cause, Refused};
use crate::frame::MAX_CONTROL_PAYLOAD;

/// The longest reason that fits a Close frame, in bytes of UTF-8.
pub const MAX_REASON: usize = MAX_CONTROL_PAYLOAD - 2;

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

/// Checks whether a Close frame can have this code and reason. It can if the reason has at most 123 bytes, and is empty
/// when there is no code.
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
