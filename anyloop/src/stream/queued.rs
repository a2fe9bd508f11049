//! What waits on a stream, in either direction.

use std::any::Any;
use std::error::Error;

use anyloop_proto::TransportError;

use super::backlog::Backlog;

/// What waits on one stream. A stream on which nothing waits has none.
#[derive(Default)]
pub(crate) struct Queued {
    /// Output that the transport did not take.
    pub(super) output: Backlog,
    /// Input that the protocol did not take.
    pub(super) input: Unread,
    /// The end of the input, which is reported behind `input`.
    pub(super) end: Option<End>,
    /// What program code panicked with, until the call passes it on.
    pub(super) panic: Option<Box<dyn Any + Send>>,
    /// Which of those that the budget held back comes first the next time.
    pub(super) next_step: u8,
}

/// How the input ended.
pub(super) enum End {
    Eof,
    Error(TransportError, Option<Box<dyn Error + Send + Sync>>),
}

impl Queued {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.output.is_empty()
            && self.input.is_empty()
            && self.end.is_none()
            && self.panic.is_none()
            && self.next_step == 0
    }
}

/// Received bytes behind a cursor, so that many small steps over one read cost as much as one large
/// step.
#[derive(Default)]
pub(super) struct Unread {
    bytes: Vec<u8>,
    /// The bytes before this were taken.
    cursor: usize,
}

impl Unread {
    pub(super) fn is_empty(&self) -> bool {
        self.cursor >= self.bytes.len()
    }

    /// What was not taken.
    pub(super) fn rest(&mut self) -> &mut [u8] {
        &mut self.bytes[self.cursor..]
    }

    #[cfg(test)]
    pub(super) fn position(&self) -> (*const u8, usize) {
        (self.bytes.as_ptr(), self.cursor)
    }

    /// Adds what was received next. What was taken is dropped only when it is most of the memory, so
    /// that each byte moves once or twice.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.cursor > self.bytes.len() / 2 {
            self.bytes.drain(..self.cursor);
            self.cursor = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// All but the last `left` bytes were taken.
    pub(super) fn keep(&mut self, left: usize) {
        self.cursor = self.bytes.len() - left;
        if left == 0 {
            *self = Self::default();
        }
    }
}
