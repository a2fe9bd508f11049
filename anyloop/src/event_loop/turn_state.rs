//! The inputs and the results of one turn of a source.

use anyloop_proto::Instant;

use super::events::{Events, Token};

/// The inputs of one turn of a source, and the results that it leaves here for the loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TurnState {
    pub(crate) token: Token,
    /// The events since the last turn began, and those that the last turn has left unconsumed.
    pub(crate) events: Events,
    /// A result: the events that the source has not consumed. Its next turn has them again.
    pub(crate) unconsumed: Events,
    /// A result: the time of the next turn, unless an event comes before. Not set on the fast path, where deadlines
    /// only move to later times.
    pub(crate) deadline: Option<Instant>,
    /// The runner's last reading of the clock. It lags by the time of at most 16 turns of sources.
    pub(crate) now: Instant,
}

impl TurnState {
    /// The inputs, without results.
    #[inline]
    pub(super) const fn new(token: Token, events: Events, now: Instant) -> Self {
        Self { token, events, unconsumed: Events::NONE, deadline: None, now }
    }
}
