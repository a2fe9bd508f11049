//! What is sent before the Close of a handler.

use std::sync::Arc;

use super::flags::Flags;
use super::handler::{Context, Handler};
use super::shared::Command;

impl<H: Handler> Context<'_, H> {
    /// The handler closes: sends what was accepted before, from handles and broadcasts, and has the rest refused.
    #[cold]
    pub(super) fn send_accepted(&mut self) {
        drop(self.state.take_deferred_close()); // the present one replaces it
        self.state.begin_close(self.out.queued());
        let shared = self.state.shared().map(Arc::clone);
        // From here on no piece is accepted, so messages without their last piece are skipped.
        let commands =
            shared.as_deref().map(|shared| shared.take_before_close(self.unrun.as_deref_mut()));
        if self.state.flags.has(Flags::DEFERRED) {
            self.send_deferred_messages();
        }
        for command in commands.into_iter().flatten() {
            match command {
                Command::Send(message, _) => self.send_or_defer(message),
                Command::Piece(progress, piece) => self.send_piece_or_defer(&progress, piece),
                // Only a connection that is over refuses them: the handle has checked the length.
                Command::Ping(payload) => _ = self.ping(&payload),
                Command::Pong(payload) => _ = self.pong(&payload),
                _ => {} // no other one is taken
            }
        }
    }
}
