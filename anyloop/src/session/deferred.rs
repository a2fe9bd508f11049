//! Messages that wait until the connection can send them.

use std::collections::VecDeque;
use std::sync::Arc;

use anyloop_proto::{CloseCode, Message, Payload, Prepared, Uncompressed};

use super::pieces::{MessageProgress, Piece, Pieces};
use crate::stream::{Completion, report_unsent};

/// A message of a handle, of a broadcast, or of a handler that has to defer it.
pub(super) struct OutgoingMessage {
    pub(super) payload: OutgoingPayload,
    pub(super) completion: Option<Completion>,
}

pub(super) enum OutgoingPayload {
    Payload(Payload),
    Prepared(Prepared),
}

impl OutgoingPayload {
    /// A copy of the message.
    pub(super) fn new(message: Message<'_>, compressible: bool) -> Self {
        Self::Payload(match compressible {
            true => message.into(),
            false => Uncompressed(message).into(),
        })
    }

    /// Bytes of the payload.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Payload(payload) => payload.message().as_bytes().len(),
            Self::Prepared(prepared) => prepared.message().as_bytes().len(),
        }
    }
}

/// What has been accepted and waits until the connection is open, or until the message in progress is complete.
/// Completions of what is dropped are called with an error.
#[derive(Default)]
pub(super) struct Deferred {
    queue: VecDeque<Waiting>,
    /// The number of messages and pieces.
    len: usize,
    bytes: usize,
    /// The Close that follows, of a client that is connecting.
    pub(super) close: Option<(Option<CloseCode>, String)>,
    /// The message in progress, if it is that of a `MessageWriter`. Its pieces need not wait; other messages wait for
    /// its last piece.
    pub(super) writer_message: Option<Arc<MessageProgress>>,
}

enum Waiting {
    Message(OutgoingMessage),
    /// The message of a `MessageWriter`, at the place of its first piece.
    Pieces(Arc<MessageProgress>),
}

/// What can be sent next.
pub(super) enum NextDeferred {
    Message(OutgoingMessage),
    /// The message of a `MessageWriter`, and those of its pieces that have been accepted.
    Pieces(Arc<MessageProgress>, Pieces),
}

impl Deferred {
    pub(super) fn is_unused(&self) -> bool {
        self.queue.is_empty() && self.close.is_none() && self.writer_message.is_none()
    }

    /// The number of messages and pieces.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Payload bytes of the messages and pieces.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, message: OutgoingMessage) {
        self.count(message.payload.len());
        self.queue.push_back(Waiting::Message(message));
    }

    /// Adds a piece of a message that is not in progress.
    pub(super) fn push_piece(&mut self, progress: &Arc<MessageProgress>, piece: Piece) {
        self.count(piece.payload.len());
        if progress.enqueue(piece) {
            self.queue.push_back(Waiting::Pieces(progress.clone()));
        }
    }

    pub(super) fn pop(&mut self) -> Option<NextDeferred> {
        let next = match self.queue.pop_front()? {
            Waiting::Message(message) => {
                self.uncount([message.payload.len()]);
                NextDeferred::Message(message)
            }
            Waiting::Pieces(progress) => {
                let pieces = self.take_pieces(&progress);
                NextDeferred::Pieces(progress, pieces)
            }
        };
        Some(next)
    }

    /// Takes the pieces of a message that is not in progress.
    pub(super) fn take_pieces(&mut self, progress: &MessageProgress) -> Pieces {
        let pieces = progress.take_queued();
        self.uncount(pieces.payload_lens());
        pieces
    }

    const fn count(&mut self, bytes: usize) {
        self.len += 1;
        self.bytes += bytes;
    }

    fn uncount(&mut self, bytes: impl IntoIterator<Item = usize>) {
        for bytes in bytes {
            self.len -= 1;
            self.bytes -= bytes;
        }
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        let completions = self.queue.drain(..).flat_map(|waiting| match waiting {
            Waiting::Message(message) => Vec::from_iter(message.completion),
            Waiting::Pieces(progress) => {
                progress.take_queued().filter_map(|piece| piece.completion).collect()
            }
        });
        report_unsent(completions);
    }
}
