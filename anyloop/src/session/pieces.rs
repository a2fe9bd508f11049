//! Fragmented messages that handles send: their queued fragments and progress.

use std::collections::VecDeque;
use std::mem;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool as UnmodelledBool, Ordering};

use anyloop_proto::Kind;
use bytes::Bytes;

use crate::stream::{Completion, report_unsent};
use crate::sync::{Mutex, MutexGuard};

/// A piece of a message: one fragment (RFC 6455 §5.4).
pub(super) struct Piece {
    pub(super) payload: Bytes,
    /// Whether the message may be compressed. Only the first piece's value counts.
    pub(super) compressible: bool,
    pub(super) last: bool,
    pub(super) completion: Option<Completion>,
}

impl Piece {
    /// Calls the completion with an error.
    pub(super) fn report_unsent(self) {
        report_unsent(self.completion.into_iter());
    }
}

/// Pieces that were accepted, in order. Completions of pieces that are dropped are called with an error, each of them
/// even if one panics.
#[derive(Default)]
pub(super) struct Pieces(VecDeque<Piece>);

impl Pieces {
    /// The payload bytes of each piece.
    pub(super) fn payload_lens(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|piece| piece.payload.len())
    }
}

impl Iterator for Pieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        self.0.pop_front()
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        report_unsent(self.filter_map(|piece| piece.completion));
    }
}

/// Whether a message is queued, in progress or over. Its [`MessageWriter`](crate::endpoint::MessageWriter) and the
/// connection share this. Only the connection changes the state; its lock is for threads with the writer, which read
/// it.
pub(super) struct MessageProgress {
    pub(super) kind: Kind,
    state: Mutex<MessageState>,
    /// The mailbox has accepted the last piece. The thread of the writer sets it under the lock of the mailbox, which
    /// orders the accesses, so it is not modelled.
    finished: UnmodelledBool,
}

pub(super) enum MessageState {
    /// No fragment was sent yet. Holds the pieces that have reached the connection and wait there, if any.
    Queued(Pieces),
    /// The first fragment was sent. Each later one is sent as soon as it reaches the connection, and is not queued.
    InProgress,
    /// The message is complete, or never will be.
    Over,
}

impl MessageProgress {
    pub(super) fn new(kind: Kind) -> Self {
        let state = Mutex::new(MessageState::Queued(Pieces::default()));
        Self { kind, state, finished: UnmodelledBool::new(false) }
    }

    pub(super) fn is_in_progress(&self) -> bool {
        matches!(*self.state(), MessageState::InProgress)
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(*self.state(), MessageState::Over)
    }

    /// The mailbox accepts the last piece.
    pub(super) fn set_finished(&self) {
        self.finished.store(true, Ordering::Relaxed);
    }

    /// Whether the mailbox has accepted the last piece.
    pub(super) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }

    /// Queues a piece, provided that the message is not begun (the caller checks; otherwise the piece is dropped).
    /// Returns whether it is the first that is queued.
    pub(super) fn enqueue(&self, piece: Piece) -> bool {
        match &mut *self.state() {
            MessageState::Queued(Pieces(pieces)) => {
                pieces.push_back(piece);
                pieces.len() == 1
            }
            MessageState::InProgress | MessageState::Over => false,
        }
    }

    /// Whether pieces are queued.
    pub(super) fn has_queued(&self) -> bool {
        matches!(&*self.state(), MessageState::Queued(Pieces(pieces)) if !pieces.is_empty())
    }

    /// Takes the queued pieces.
    pub(super) fn take_queued(&self) -> Pieces {
        match &mut *self.state() {
            MessageState::Queued(pieces) => mem::take(pieces),
            MessageState::InProgress | MessageState::Over => Pieces::default(),
        }
    }

    pub(super) fn set_state(&self, state: MessageState) {
        let before = mem::replace(&mut *self.state(), state);
        drop(before); // completions are application code, so not under the lock
    }

    /// A panic elsewhere leaves the state consistent, so poisoning is ignored.
    fn state(&self) -> MutexGuard<'_, MessageState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
