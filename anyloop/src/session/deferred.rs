//! Messages that wait until the connection can send them.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

use anyloop_proto::{Payload, Prepared};

use crate::stream::{Completion, Unsent};

/// A message that a handle has accepted.
pub(super) struct Accepted {
    pub(super) message: Outgoing,
    pub(super) completion: Option<Completion>,
}

pub(super) enum Outgoing {
    Payload(Payload),
    Prepared(Prepared),
}

impl Outgoing {
    /// Bytes of the payload.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Payload(payload) => payload.message().as_bytes().len(),
            Self::Prepared(prepared) => prepared.message().as_bytes().len(),
        }
    }
}

/// Messages of handles that wait until the connection is open, or until the message that is being sent in pieces is
/// complete. Completions of messages that are dropped are called with an error.
#[derive(Default)]
pub(super) struct Deferred {
    queue: VecDeque<Accepted>,
    bytes: usize,
}

impl Deferred {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The number of messages.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Payload bytes of the messages.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, accepted: Accepted) {
        self.bytes += accepted.message.len();
        self.queue.push_back(accepted);
    }

    pub(super) fn pop(&mut self) -> Option<Accepted> {
        let accepted = self.queue.pop_front()?;
        self.bytes -= accepted.message.len();
        Some(accepted)
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        report_unsent(self.queue.drain(..).filter_map(|accepted| accepted.completion));
    }
}

/// Calls the completions of messages that will not be sent. A panic of one does not keep the others from being called.
pub(super) fn report_unsent(completions: impl Iterator<Item = Completion>) {
    let mut panic = None;
    for completion in completions {
        let called = catch_unwind(AssertUnwindSafe(|| completion(Err(Unsent))));
        if let Err(first) = called {
            panic.get_or_insert(first);
        }
    }
    if let Some(panic) = panic.filter(|_| !thread::panicking()) {
        resume_unwind(panic);
    }
}
