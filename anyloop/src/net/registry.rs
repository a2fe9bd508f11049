//! How the registry of an endpoint wakes its connections in the loop.

use std::sync::Arc;
use std::task::Waker;

use crate::event_loop::{LoopControl, Token, waker};
use crate::session::{Key, WakeConnections};

/// Wakes the sources of a loop.
pub(super) struct WakeSources(pub(super) Arc<LoopControl>);

impl WakeConnections for WakeSources {
    fn wake(&self, keys: Vec<Key>) {
        self.0.wake_all(keys.into_iter().map(token).collect());
    }

    fn waker(&self, key: Key) -> Waker {
        waker(&self.0, token(key))
    }
}

/// The key of the connection in the slot of this token.
pub(super) const fn key(token: Token) -> Key {
    Key { index: token.index, generation: token.generation }
}

const fn token(key: Key) -> Token {
    Token { index: key.index, generation: key.generation }
}
