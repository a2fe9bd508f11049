//! What is known of a message, or a frame, that does not arrive whole.

use crate::assembly::Assembly;
use crate::error::Cause;
use crate::frame::{MAX_HEADER_SIZE, Opcode, rotated};
use crate::message::Kind;
use crate::utf8::Utf8;

/// A fragment is charged as this many bytes against the size limit of messages, but apart from the
/// payload: honest fragments of any size pass, endless empty ones do not.
const FRAGMENT_CHARGE: u64 = 16;

/// The number of fragments that is always allowed, whatever the size limit.
const MIN_FRAGMENT_LIMIT: u64 = 1 << 16;

/// From this much outstanding payload on, in bytes, memory is lent to receive it into.
const MIN_DIRECT_READ: usize = 4096;

/// All that a receiver knows in the middle of a message or a frame, in one box of its own, so that
/// an idle connection does without. Control frames may stand between the parts of a message, in
/// parts themselves.
#[derive(Default)]
pub(crate) struct Partial {
    pub(crate) position: Position,
    pub(crate) message: Option<MessageState>,
    pub(crate) assembly: Assembly,
    /// An event borrows the assembly until the next call.
    pub(crate) borrowed: bool,
}

impl Partial {
    /// Bytes of the payload that have not come yet.
    pub(crate) const fn outstanding(&self) -> u64 {
        match self.position {
            Position::Payload { remaining, .. } => {
                remaining.saturating_sub(self.assembly.raw() as u64)
            }
            Position::Header { .. } => 0,
        }
    }

    /// Memory to receive the outstanding payload into, if it is large.
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

/// Where in the stream of frames the next byte stands.
#[derive(Clone, Copy)]
pub(crate) enum Position {
    /// In a header, of which `len` bytes are known; or before it.
    Header { bytes: [u8; MAX_HEADER_SIZE], len: u8 },
    /// In a payload.
    Payload { remaining: u64, key: [u8; 4], opcode: Opcode, fin: bool },
}

impl Position {
    /// Between two frames.
    pub(crate) const BETWEEN: Self = Self::Header { bytes: [0; MAX_HEADER_SIZE], len: 0 };

    /// In a payload after `taken` bytes more, of which `remaining` are still to come; `key` is what
    /// applied to the first of the bytes taken.
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
        Self::Payload { remaining, key: rotated(key, taken), opcode, fin }
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
    /// Streaming: no chunk has been lent yet.
    pub(crate) first: bool,
    /// Payload bytes so far, as they came: encoded if an extension encodes.
    pub(crate) size: u64,
    pub(crate) fragments: u32,
    pub(crate) utf8: Utf8,
}

impl MessageState {
    pub(crate) fn new(kind: Kind, encoded: bool) -> Self {
        Self { kind, encoded, first: true, size: 0, fragments: 0, utf8: Utf8::default() }
    }

    /// Whether the message may have `len` bytes more. Nothing is reserved for them.
    pub(crate) fn check_size(&self, len: u64, limit: u64, streaming: bool) -> Result<(), Cause> {
        // What an encoded message becomes is limited where it is decoded. That it does not shrink
        // by much is all that can be said before.
        let most = if self.encoded { limit.saturating_add(limit / 16 + 1024) } else { limit };
        let size = self.size.checked_add(len).filter(|&size| size <= most);
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

    /// Checks the next part of the message, if it is a text that comes as it is.
    pub(crate) fn check_part(&mut self, bytes: &[u8], last: bool) -> Result<(), Cause> {
        match self.kind {
            Kind::Binary => Ok(()),
            Kind::Text => check_text(&mut self.utf8, bytes, self.size, last),
        }
    }
}

/// Checks a part of a text, which `before` bytes went before.
pub(crate) fn check_text(
    utf8: &mut Utf8,
    bytes: &[u8],
    before: u64,
    last: bool,
) -> Result<(), Cause> {
    let at = match utf8.check(bytes) {
        Err(error) => error.valid,
        Ok(()) if last && !utf8.is_complete() => bytes.len(),
        Ok(()) => return Ok(()),
    };
    Err(Cause::InvalidUtf8 { at: before + at as u64 })
}
