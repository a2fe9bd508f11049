//! Pieces of the messages that handles send in pieces.

use std::collections::VecDeque;
use std::mem;
use std::sync::PoisonError;

use anyloop_proto::Kind;
use bytes::Bytes;

use super::unsent::report_unsent;
use crate::stream::Completion;
use crate::sync::{Mutex, MutexGuard};

/// A piece of a message.
pub(super) struct Piece {
    pub(super) payload: Bytes,
    /// Of the first piece: whether the message may be compressed.
    pub(super) compressible: bool,
    pub(super) last: bool,
    pub(super) completion: Option<Completion>,
}

impl Piece {
    /// Calls the completion with an error.
    pub(super) fn unsent(self) {
        report_unsent(self.completion.into_iter());
    }
}

/// What a [`MessageWriter`](crate::endpoint::MessageWriter) and the connection share. Only the connection changes it.
pub(super) struct Writer {
    pub(super) kind: Kind,
    progress: Mutex<Progress>,
}

pub(super) enum Progress {
    /// The message waits, with its pieces. Without any, none has reached the connection.
    Waiting(VecDeque<Piece>),
    /// The message is under way: its pieces are sent at once.
    UnderWay,
    /// The message is complete, or never will be.
    Over,
}

impl Writer {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, progress: Mutex::new(Progress::Waiting(VecDeque::new())) }
    }

    pub(super) fn is_under_way(&self) -> bool {
        matches!(*self.progress(), Progress::UnderWay)
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(*self.progress(), Progress::Over)
    }

    /// Keeps a piece of a message that is not under way. Returns whether it is the first.
    pub(super) fn wait(&self, piece: Piece) -> bool {
        match &mut *self.progress() {
            Progress::Waiting(pieces) => {
                pieces.push_back(piece);
                pieces.len() == 1
            }
            Progress::UnderWay | Progress::Over => false,
        }
    }

    /// Whether pieces wait.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(&*self.progress(), Progress::Waiting(pieces) if !pieces.is_empty())
    }

    /// Takes the pieces that wait.
    pub(super) fn take_waiting(&self) -> VecDeque<Piece> {
        match &mut *self.progress() {
            Progress::Waiting(pieces) => mem::take(pieces),
            Progress::UnderWay | Progress::Over => VecDeque::new(),
        }
    }

    pub(super) fn set(&self, progress: Progress) {
        let before = mem::replace(&mut *self.progress(), progress);
        drop(before); // completions are application code, so not under the lock
    }

    /// A panic elsewhere leaves the progress consistent, so poisoning is ignored.
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
