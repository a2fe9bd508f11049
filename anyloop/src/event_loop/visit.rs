//! What a source is told in its turn, and what it replies.

use anyloop_proto::Instant;

use super::events::{Events, Token};

/// What a source is told in its turn, and what it replies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visit {
    pub(crate) token: Token,
    /// The events since the last turn.
    pub(crate) events: Events,
    /// The reply: the events that the source has not used. Its next turn has them again.
    pub(crate) kept: Events,
    /// The reply: the time of the next turn if there are no events before. It is not set on the fast path, where
    /// deadlines only move to later times.
    pub(crate) deadline: Option<Instant>,
    /// The clock as the runner has last read it. It is behind by the time of at most 16 turns of sources.
    pub(crate) now: Instant,
}

impl Visit {
    /// A turn without a reply.
    #[inline]
    pub(super) const fn new(token: Token, events: Events, now: Instant) -> Self {
        Self { token, events, kept: Events::NONE, deadline: None, now }
    }
}
