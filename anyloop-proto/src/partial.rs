//! The state of a message or a frame that has arrived in part.

use crate::assembly::Assembly;
use crate::error::Cause;
use crate::frame::{MAX_HEADER_SIZE, Opcode, rotate_key};
use crate::kind::Kind;
use crate::utf8::Utf8;

/// Each fragment is charged this many bytes against the size limit of messages, separately from the payload. A message
/// may have `limit / 16` fragments after its first, and 65,536 in any case: only messages with fragments of under 16
/// bytes on average can reach this limit first.
const FRAGMENT_CHARGE: u64 = 16;

/// The number of fragments after the first that is allowed for any size limit.
const MIN_FRAGMENT_LIMIT: u64 = 1 << 16;

/// Memory to receive into is handed out only if this many bytes of the payload are outstanding, and this many bytes of
/// the message have arrived.
const MIN_DIRECT_READ: usize = 4096;

/// The state of a receiver in the middle of a message or a frame. It is boxed, so that an idle
/// connection does without it. Control frames may come between the parts of a message, and arrive
/// in parts themselves.
#[derive(Default)]
pub(crate) struct Partial {
    pub(crate) position: Position,
    pub(crate) message: Option<MessageState>,
    pub(crate) assembly: Assembly,
    /// An event was returned that may borrow the assembly.
    pub(crate) borrowed: bool,
}

impl Partial {
    /// Bytes of the payload that have not arrived yet. `remaining` in [`Position`] also counts bytes that were received
    /// straight into the assembly and not processed yet.
    pub(crate) const fn outstanding(&self) -> u64 {
        match self.position {
            Position::Payload { remaining, .. } => {
                remaining.saturating_sub(self.assembly.unprocessed() as u64)
            }
            Position::Header { .. } => 0,
        }
    }

    /// Memory to receive the outstanding payload into; `None` if little is outstanding or has arrived, or if the
    /// payload is that of a control frame or encoded.
    pub(crate) fn receive_buffer(&mut self) -> Option<&mut [u8]> {
        let Position::Payload { opcode, fin, .. } = self.position else { return None };
        if opcode.is_control() || self.message?.encoded {
            return None;
        }
        let outstanding = usize::try_from(self.outstanding()).unwrap_or(usize::MAX);
        if outstanding < MIN_DIRECT_READ || self.assembly.message().len() < MIN_DIRECT_READ {
            return None;
        }
        Some(self.assembly.receive_buffer(outstanding, fin))
    }
}

/// The position of the next byte within the frames.
#[derive(Clone, Copy)]
pub(crate) enum Position {
    /// In a header of which `len` bytes have arrived, or before it.
    Header { bytes: [u8; MAX_HEADER_SIZE], len: u8 },
    /// In a payload, of which `remaining` bytes were not processed yet. `key` is the masking key for the first of them.
    Payload { remaining: u64, key: [u8; 4], opcode: Opcode, fin: bool },
}

impl Position {
    /// Between two frames.
    pub(crate) const BETWEEN: Self = Self::Header { bytes: [0; MAX_HEADER_SIZE], len: 0 };

    /// In a payload after another `taken` bytes, with `remaining` bytes still to come. `key` is the
    /// masking key for the first of the taken bytes.
    pub(crate) const fn payload(
        remaining: u64,
        key: [u8; 4],
        taken: usize,
        opcode: Opcode,
        fin: bool,
    ) -> Self {
        if remaining == 0 {
            return Self::BETWEEN;
        }
        Self::Payload { remaining, key: rotate_key(key, taken), opcode, fin }
    }
}

impl Default for Position {
    fn default() -> Self {
        Self::BETWEEN
    }
}

/// A message that has begun and not ended.
#[derive(Clone, Copy)]
pub(crate) struct MessageState {
    pub(crate) kind: Kind,
    pub(crate) encoded: bool,
    /// In streaming mode: no chunk was returned yet.
    pub(crate) first: bool,
    /// Payload bytes so far; with an extension, as encoded.
    pub(crate) size: u64,
    /// The number of fragments after the first.
    pub(crate) fragments: u32,
    pub(crate) utf8: Utf8,
}

impl MessageState {
    pub(crate) fn new(kind: Kind, encoded: bool) -> Self {
        Self { kind, encoded, first: true, size: 0, fragments: 0, utf8: Utf8::default() }
    }

    /// Checks whether `len` more bytes, and the present number of fragments, are within the limits. Allocates nothing.
    pub(crate) fn check_limits(&self, len: u64, limit: u64, streaming: bool) -> Result<(), Cause> {
        // The decoder enforces the limit on an encoded message. Here, only its encoded size is
        // bounded, because encoding hardly ever makes a message much larger.
        let max_size = if self.encoded { limit.saturating_add(limit / 16 + 1024) } else { limit };
        let size = self.size.checked_add(len).filter(|&size| size <= max_size);
        let Some(size) = size else { return Err(Cause::MessageTooBig { limit }) };
        if !streaming && usize::try_from(size).is_err() {
            return Err(Cause::LengthOverflow);
        }
        let charged = u64::from(self.fragments).saturating_mul(FRAGMENT_CHARGE);
        if charged > limit.max(MIN_FRAGMENT_LIMIT * FRAGMENT_CHARGE) {
            return Err(Cause::TooManyFragments);
        }
        Ok(())
    }

    /// Checks the next part of an unencoded message, if it is text.
    pub(crate) fn check_part(&mut self, bytes: &[u8], last: bool) -> Result<(), Cause> {
        match self.kind {
            Kind::Binary => Ok(()),
            Kind::Text => check_text(&mut self.utf8, bytes, self.size, last),
        }
    }
}

/// Checks the part of a text after its first `before` bytes. After the `last` part the text must be complete.
pub(crate) fn check_text(
    utf8: &mut Utf8,
    bytes: &[u8],
    before: u64,
    last: bool,
) -> Result<(), Cause> {
    let at = match utf8.check(bytes) {
        Err(error) => error.at,
        Ok(()) if last && !utf8.is_complete() => bytes.len(),
        Ok(()) => return Ok(()),
    };
    Err(Cause::InvalidUtf8 { at: before + at as u64 })
}
