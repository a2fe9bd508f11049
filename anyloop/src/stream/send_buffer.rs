//! The send buffer: output that the transport did not take.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;

use anyloop_proto::TransportError;
use bytes::Bytes;

use super::completion::{Completion, call_all, report_unsent};

/// A block that has reached this size is full: further bytes begin a new one.
const BLOCK_SIZE: usize = 64 * 1024;

/// The largest number of slices in one write.
const MAX_SLICES: usize = 32;

/// Bytes that wait for the transport, in order, and the error with which the transport failed.
#[derive(Default)]
pub(super) struct SendBuffer {
    blocks: VecDeque<Block>,
    /// The number of bytes of the first block that were written.
    head_written: usize,
    /// The number of bytes that wait.
    len: usize,
    /// The number of bytes that were written since the send buffer was created.
    written: u64,
    /// Completions, each with the value of `written` at which it is called.
    completions: VecDeque<(u64, Completion)>,
    /// The error with which the transport has failed, until it is reported.
    error: Option<io::Error>,
    /// The kind of that error, for good: a transport that has failed is not written to any more.
    failure: Option<TransportError>,
}

/// A part of the waiting bytes.
enum Block {
    Owned(Vec<u8>),
    /// A frame that many connections send.
    Shared(Arc<[u8]>),
    /// The payload of a message that owns it.
    Payload(Bytes),
}

impl Block {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes) => bytes,
            Self::Payload(bytes) => bytes,
        }
    }
}

impl SendBuffer {
    /// The number of bytes that wait.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Whether new output cannot be written now: bytes wait, or the transport has failed.
    pub(super) const fn is_blocked(&self) -> bool {
        self.len > 0 || self.has_failed()
    }

    /// Handles the error of a write: unless it is `WouldBlock`, the transport has failed, and nothing is written any
    /// more. The first error is kept.
    pub(super) fn handle_error(&mut self, error: io::Error) {
        if error.kind() == ErrorKind::WouldBlock {
            return;
        }
        self.failure.get_or_insert_with(|| TransportError::from(&error));
        self.error.get_or_insert(error);
    }

    pub(super) const fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// The kind of error with which the transport has failed, if it has.
    pub(super) const fn failure(&self) -> Option<TransportError> {
        self.failure
    }

    /// Takes the error with which the transport has failed, to report it once.
    pub(super) const fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    /// Appends a copy of `bytes`.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.len += bytes.len();
        match self.blocks.back_mut() {
            // A block is freed when all of it was written, so it must not grow without bound.
            Some(Block::Owned(last)) if last.len() < BLOCK_SIZE => last.extend_from_slice(bytes),
            _ => self.blocks.push_back(Block::Owned(bytes.to_vec())),
        }
    }

    /// Appends `bytes` by reference. The first `written` of them were written already.
    pub(super) fn push_shared(&mut self, bytes: &Arc<[u8]>, written: usize) {
        if self.blocks.is_empty() {
            self.head_written = written;
            self.len += bytes.len() - written;
            self.blocks.push_back(Block::Shared(bytes.clone()));
        } else {
            debug_assert_eq!(written, 0, "only the first frame can be written in part");
            self.len += bytes.len();
            self.blocks.push_back(Block::Shared(bytes.clone()));
        }
    }

    /// Appends `bytes` by reference.
    pub(super) fn push_payload(&mut self, bytes: Bytes) {
        self.len += bytes.len();
        self.blocks.push_back(Block::Payload(bytes));
    }

    /// Calls `completion` when the bytes that wait now were written, except for the last `trailing` of them.
    pub(super) fn push_completion(&mut self, trailing: usize, completion: Completion) {
        let at = self.written + (self.len - trailing.min(self.len)) as u64;
        self.completions.push_back((at, completion));
    }

    /// Calls `write` until all bytes are written, or a write is short or fails, and then the completions that are due.
    pub(super) fn write(&mut self, mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>) {
        while self.len > 0 && !self.has_failed() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut offered = 0;
            let mut skip = self.head_written;
            let mut count = 0;
            for (slice, block) in slices.iter_mut().zip(&self.blocks) {
                let bytes = &block.bytes()[skip..];
                *slice = IoSlice::new(bytes);
                offered += bytes.len();
                skip = 0;
                count += 1;
            }
            let taken = match write(&slices[..count]) {
                Ok(taken) => taken.min(offered),
                Err(error) => {
                    self.handle_error(error);
                    0
                }
            };
            self.consume(taken);
            if taken < offered {
                break;
            }
        }
        let due = self.completions.partition_point(|(at, _)| *at <= self.written);
        if due > 0 {
            call_all(self.completions.drain(..due).map(|(_, completion)| (completion, Ok(()))));
        }
    }

    /// Removes the first `taken` bytes.
    fn consume(&mut self, taken: usize) {
        self.len -= taken;
        self.written += taken as u64;
        self.head_written += taken;
        while let Some(first) = self.blocks.front().map(|block| block.bytes().len()) {
            if self.head_written < first {
                break;
            }
            self.head_written -= first;
            self.blocks.pop_front();
        }
    }
}

impl Drop for SendBuffer {
    fn drop(&mut self) {
        report_unsent(self.completions.drain(..).map(|(_, completion)| completion));
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::super::completion::Unsent;
    use super::*;

    fn take(send_buffer: &mut SendBuffer, mut most: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        send_buffer.write(|slices| {
            let mut taken = 0;
            for slice in slices {
                let n = slice.len().min(most);
                bytes.extend_from_slice(&slice[..n]);
                (taken, most) = (taken + n, most - n);
            }
            Ok(taken)
        });
        bytes
    }

    #[test]
    fn bytes_are_written_in_order_with_writes_of_any_size() {
        for most in 1..20 {
            let mut send_buffer = SendBuffer::default();
            send_buffer.push_shared(&Arc::from(&b"0123"[..]), 2);
            send_buffer.push(b"45");
            send_buffer.push(b"6");
            send_buffer.push_shared(&Arc::from(&b"789"[..]), 0);
            send_buffer.push(b"ab");
            send_buffer.push_payload(Bytes::from_static(b"cde"));
            send_buffer.push(b"f");
            assert_eq!(send_buffer.len(), 14);
            let mut bytes = Vec::new();
            while send_buffer.is_blocked() {
                bytes.extend(take(&mut send_buffer, most));
            }
            assert_eq!(bytes, b"23456789abcdef", "{most} at a time");
        }
    }

    /// The peer keeps up, but the send buffer is never empty.
    #[test]
    fn written_blocks_are_freed_while_bytes_wait() {
        let mut send_buffer = SendBuffer::default();
        send_buffer.push(&[0; 1000]);
        for _ in 0..10_000 {
            send_buffer.push(&[0; 1000]);
            take(&mut send_buffer, 1000);
        }
        assert_eq!(send_buffer.len(), 1000);
        let kept: usize = send_buffer.blocks.iter().map(|block| block.bytes().len()).sum();
        assert!(kept < 3 * BLOCK_SIZE, "{kept} bytes are kept");
    }

    #[test]
    fn completions_are_called_when_their_bytes_were_written() {
        let (result_sender, results) = std::sync::mpsc::channel();
        let completion = |name: &'static str| -> Completion {
            let sender = result_sender.clone();
            Box::new(move |result| sender.send((name, result)).expect("the test listens"))
        };
        let mut send_buffer = SendBuffer::default();
        send_buffer.push(b"one");
        send_buffer.push_completion(0, completion("one"));
        send_buffer.push(b"two");
        send_buffer.push_completion(0, completion("two"));
        take(&mut send_buffer, 2);
        assert!(results.try_recv().is_err());
        take(&mut send_buffer, 2);
        assert_eq!(results.try_recv(), Ok(("one", Ok(()))));
        assert!(results.try_recv().is_err());
        drop(send_buffer);
        assert_eq!(results.try_recv(), Ok(("two", Err(Unsent))));
    }

    #[test]
    fn a_panic_of_a_completion_keeps_no_other_from_being_called() {
        for (written, expected) in [(4, Ok(())), (0, Err(Unsent))] {
            let (result_sender, results) = std::sync::mpsc::channel();
            let mut send_buffer = SendBuffer::default();
            send_buffer.push(b"four");
            send_buffer.push_completion(0, Box::new(|_| panic!("deliberate")));
            send_buffer
                .push_completion(0, Box::new(move |result| result_sender.send(result).unwrap()));
            let call = AssertUnwindSafe(|| {
                take(&mut send_buffer, written);
                drop(send_buffer);
            });
            assert!(catch_unwind(call).is_err());
            assert_eq!(results.try_recv(), Ok(expected));
        }
    }
}
