//! The queues of a stream: its output, its input, and the end of the input.

use std::any::Any;
use std::error::Error;

use anyloop_proto::TransportError;

use super::send_buffer::SendBuffer;

/// The queues of one stream, which are allocated only while something waits.
#[derive(Default)]
pub(crate) struct Queued {
    /// Output that the transport did not take.
    pub(super) output: SendBuffer,
    /// Input that the protocol did not take.
    pub(super) input: Unread,
    /// The end of the input, which is reported after `input`.
    pub(super) end: Option<End>,
    /// A panic of application code, until the end of the call resumes it.
    pub(super) panic: Option<Box<dyn Any + Send>>,
    /// Of the steps that the budget held back, the one that comes first when the driver resumes: an index of `STEPS`.
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
        !self.output.is_blocked()
            && self.input.is_empty()
            && self.end.is_none()
            && self.panic.is_none()
            && self.next_step == 0
    }
}

/// Received bytes that were not taken. A cursor makes it cheap to take them in many small steps.
#[derive(Default)]
pub(crate) struct Unread {
    bytes: Vec<u8>,
    /// The bytes before this were taken.
    cursor: usize,
}

impl Unread {
    pub(crate) fn is_empty(&self) -> bool {
        self.cursor >= self.bytes.len()
    }

    /// The bytes that were not taken.
    pub(crate) fn rest(&mut self) -> &mut [u8] {
        &mut self.bytes[self.cursor..]
    }

    #[cfg(test)]
    pub(super) fn position(&self) -> (*const u8, usize) {
        (self.bytes.as_ptr(), self.cursor)
    }

    /// Appends received bytes. Taken bytes are removed only when they are more than half of all. So fewer bytes are
    /// moved than were taken.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.cursor > self.bytes.len() / 2 {
            self.bytes.drain(..self.cursor);
            self.cursor = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Keeps the last `left` bytes: all others were taken.
    pub(crate) fn keep_last(&mut self, left: usize) {
        self.cursor = self.bytes.len() - left;
        if left == 0 {
            *self = Self::default();
        }
    }
}
