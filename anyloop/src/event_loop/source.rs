//! The sources that a loop runs.

use std::any::Any;
use std::io;

use super::buffers::RunnerBuffers;
use super::engine::Engine;
use super::events::Events;
use super::socket::Socket;
use super::turn_state::TurnState;
use super::types::LoopTypes;
use crate::stream::{Queued, StreamProtocol};

/// Something that the loop runs when it is ready: a connection, a listener, a watch.
///
/// A thread takes it out of its slot to run it, so only one thread runs it at a time: it is a strand. Events that
/// come meanwhile are added to the slot, and it runs again.
#[expect(unnameable_types, reason = "of the interface of the sealed `LoopKind`")]
pub trait Source<K: LoopTypes> {
    /// Handles the events of [`TurnState::events`]. Leaves its results, `unconsumed` and `deadline`, in `turn.state`.
    fn run(&mut self, turn: &mut Turn<'_, K>) -> Next<K>;

    /// Lends the loop what it needs to serve these events on its fast path. There the loop itself receives, passes the
    /// input to the protocol, and sends the output. `None` if anything else may have to be done.
    fn fast_path(&mut self, _events: Events) -> Option<FastPath<'_>> {
        None
    }

    /// Completes a turn that the fast path could not complete: the protocol did not take the bytes `left` of the read
    /// buffer, or something else has to be done, or a handler has panicked.
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

/// The parts of a stream that the loop needs to receive and to send by itself.
#[expect(unnameable_types, reason = "of the interface of `Source`")]
pub struct FastPath<'s> {
    pub(crate) socket: &'s mut Socket,
    pub(crate) queued: &'s mut Option<Box<Queued>>,
    pub(crate) protocol: &'s mut dyn StreamProtocol,
}

/// What the loop does with a source after its turn.
#[expect(unnameable_types, reason = "of the interface of the sealed `LoopKind`")]
pub enum Next<K: LoopTypes> {
    /// It waits for the next event.
    Wait,
    /// It has more to do, after the other sources that are ready.
    Again,
    /// It has more to do, after the next poll.
    AfterPoll,
    /// It is replaced by this source, which has its first turn.
    Become(Box<K::DynSource>),
    /// It is over, and is dropped.
    Done,
}

/// One turn of a source: what it is passed.
#[expect(unnameable_types, reason = "of the interface of the sealed `LoopKind`")]
pub struct Turn<'t, K: LoopTypes> {
    pub(crate) engine: &'t Engine<K>,
    pub(crate) state: TurnState,
    pub(crate) buffers: &'t mut RunnerBuffers,
    /// The result of a read that the loop has made on the [fast path](Source::fast_path).
    pub(crate) read_result: Option<io::Result<usize>>,
}
