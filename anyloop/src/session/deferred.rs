//! Messages of handles that wait until the connection can send them.

use std::collections::VecDeque;

use super::handler::Handler;
use super::shared::Command;

/// Messages of handles that wait until the connection is open, or until the message that is being sent in pieces is
/// complete. Completions of messages that are dropped are called with an error.
pub(super) struct Deferred<H: Handler> {
    queue: VecDeque<Command<H>>,
    bytes: usize,
}

impl<H: Handler> Deferred<H> {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Payload bytes of the messages.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, command: Command<H>) {
        self.bytes += command.len();
        self.queue.push_back(command);
    }

    pub(super) fn pop(&mut self) -> Option<Command<H>> {
        let command = self.queue.pop_front()?;
        self.bytes -= command.len();
        Some(command)
    }
}

impl<H: Handler> Default for Deferred<H> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), bytes: 0 }
    }
}

impl<H: Handler> Drop for Deferred<H> {
    fn drop(&mut self) {
        while let Some(command) = self.pop() {
            command.unsent();
        }
    }
}
