//! What the loop serves.

use core::ops::{Deref, DerefMut};
use std::any::Any;
use std::io;

use anyloop_proto::Instant;

use super::engine::Engine;
use super::events::{Events, Token};
use super::socket::Socket;
use super::types::Types;
use crate::stream::{Queued, StreamProtocol};

/// Something that the loop serves when it is ready: a connection, a listener, a watch.
///
/// It is taken out of its slot while it runs, by the thread that runs it: this is what makes a strand
/// of it. What happens meanwhile is noted in the slot, and it runs again.
#[expect(unnameable_types, reason = "of `Sealed`")]
pub trait Source<K: Types> {
    /// Something has happened to it: [`Turn::events`].
    fn run(&mut self, turn: &mut Turn<'_, K>) -> Next<K>;

    /// What the loop needs to serve these events itself, on its fast path: it receives, has the protocol
    /// take the input, and sends what that appends. `None` if there may be anything else to do.
    fn fast_path(&mut self, _events: Events) -> Option<FastPath<'_>> {
        None
    }

    /// Completes a turn that began on the fast path: of what the loop received, the protocol did not
    /// take the bytes `left`; or there is more to do than to receive; or a handler has panicked.
    #[cold]
    fn end_fast_path(
        &mut self,
        _turn: &mut Turn<'_, K>,
        _left: std::ops::Range<usize>,
        _panic: Option<Box<dyn Any + Send>>,
    ) -> Next<K> {
        Next::Wait
    }
}

/// A stream that the loop receives from and sends to by itself.
#[expect(unnameable_types, reason = "of `Source`")]
pub struct FastPath<'s> {
    pub(crate) socket: &'s mut Socket,
    pub(crate) queued: &'s mut Option<Box<Queued>>,
    pub(crate) protocol: &'s mut dyn StreamProtocol,
}

/// What becomes of a source after its turn.
#[expect(unnameable_types, reason = "of `Sealed`")]
pub enum Next<K: Types> {
    /// It waits for what happens next.
    Wait,
    /// It has more to do, when the others have had their turn.
    Again,
    /// The same, but the sockets are to be looked at before.
    Later,
    /// Another takes its place, and has its first turn.
    Become(Box<K::Source>),
    /// It is over.
    Done,
}

/// One call of a source.
#[expect(unnameable_types, reason = "of `Sealed`")]
pub struct Turn<'t, K: Types> {
    pub(crate) engine: &'t Engine<K>,
    pub(crate) visit: Visit,
    pub(crate) buffers: &'t mut Buffers,
    /// What the loop has read for it, on the [fast path](Source::fast_path).
    pub(crate) read: Option<io::Result<usize>>,
}

/// What a source is told in its turn, and what it says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visit {
    pub(crate) token: Token,
    /// What has happened since the last turn.
    pub(crate) events: Events,
    /// Of the events, those that the source has not made use of: it is told again at its next turn.
    pub(crate) kept: Events,
    /// When it is to have a turn at the latest, if nothing happens before. Not reported on the fast
    /// path, where deadlines only move to later times.
    pub(crate) deadline: Option<Instant>,
    /// About now: as old as the last look at the sockets, or by a few milliseconds older, and as what
    /// other sources have taken since.
    pub(crate) now: Instant,
}

impl Visit {
    /// What is said at first.
    #[inline]
    pub(super) const fn new(token: Token, events: Events, now: Instant) -> Self {
        Self { token, events, kept: Events::NONE, deadline: None, now }
    }
}

/// Memory that belongs to a thread inside a run call.
pub(crate) struct Buffers {
    /// Where sources read to.
    pub(crate) read: ReadBuffer,
    pub(crate) stream: crate::stream::Buffers,
}

/// Bytes that do not begin near the beginning of a page: where they do, some processors take several times
/// as long to copy into them, or out of them, what begins near the beginning of one of the kernel's.
pub(crate) struct ReadBuffer(Vec<u8>);

impl ReadBuffer {
    /// Large memory begins at a page, or a little behind.
    const START: usize = 256;

    pub(super) fn new(size: usize) -> Self {
        Self(vec![0; Self::START + size])
    }
}

impl Deref for ReadBuffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0[Self::START..]
    }
}

impl DerefMut for ReadBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0[Self::START..]
    }
}
