//! What the loop serves.

use std::any::Any;
use std::io;

use super::buffers::Buffers;
use super::engine::Engine;
use super::events::Events;
use super::socket::Socket;
use super::types::Types;
use super::visit::Visit;
use crate::stream::{Queued, StreamProtocol};

/// Something that the loop serves when it is ready: a connection, a listener, a watch.
///
/// A thread takes it out of its slot to run it, so only one thread runs it at a time: it is a strand. Events that
/// come meanwhile are added to the slot, and it runs again.
#[expect(unnameable_types, reason = "of `Sealed`")]
pub trait Source<K: Types> {
    /// Handles the events of [`Visit::events`].
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
    /// It has more to do, after the next poll.
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
