//! The two kinds of loops: shared by threads, or bound to one.

use std::cell::RefCell;
use std::sync::Arc;

use super::engine::Engine;
use super::source::Source;
use super::timers::Aborted;
use super::types::LoopTypes;
use super::{EventLoop, LocalEventLoop};
use crate::sync::Mutex;
use crate::threading::{Local, Threads};

/// A kind of loop: [`Threads`] or [`Local`].
pub trait Kind: LoopKind {}

/// What a [`Kind`] has in addition to its name: the loop's [`LoopTypes`], and the type that applications use for the
/// loop.
#[expect(unnameable_types, reason = "sealed: there are no other kinds")]
pub trait LoopKind: LoopTypes<DynSource: Source<Self>> {
    /// The loop, as the application has it.
    type Loop: Clone;

    /// The application's loop of this engine.
    fn event_loop(engine: Arc<Engine<Self>>) -> Self::Loop;

    /// The engine of an application's loop.
    fn engine(event_loop: &Self::Loop) -> &Arc<Engine<Self>>;
}

impl Kind for Threads {}

impl LoopTypes for Threads {
    type DynSource = dyn Source<Self> + Send;
    type PostedFn = dyn FnOnce() + Send;
    type TimerFn = dyn FnOnce(Result<(), Aborted>) + Send;

    type Lock<T: 'static> = Mutex<T>;

    fn posted_fn(f: Box<dyn FnOnce() + Send>) -> Box<Self::PostedFn> {
        f
    }

    fn timer_fn(f: Box<dyn FnOnce(Result<(), Aborted>) + Send>) -> Box<Self::TimerFn> {
        f
    }
}

impl LoopKind for Threads {
    type Loop = EventLoop;

    fn event_loop(engine: Arc<Engine<Self>>) -> EventLoop {
        EventLoop { engine }
    }

    fn engine(event_loop: &EventLoop) -> &Arc<Engine<Self>> {
        &event_loop.engine
    }
}

impl Kind for Local {}

impl LoopTypes for Local {
    type DynSource = dyn Source<Self>;
    type PostedFn = dyn FnOnce();
    type TimerFn = dyn FnOnce(Result<(), Aborted>);

    type Lock<T: 'static> = RefCell<T>;

    fn posted_fn(f: Box<dyn FnOnce() + Send>) -> Box<Self::PostedFn> {
        f
    }

    fn timer_fn(f: Box<dyn FnOnce(Result<(), Aborted>) + Send>) -> Box<Self::TimerFn> {
        f
    }
}

impl LoopKind for Local {
    type Loop = LocalEventLoop;

    fn event_loop(engine: Arc<Engine<Self>>) -> LocalEventLoop {
        LocalEventLoop { engine }
    }

    fn engine(event_loop: &LocalEventLoop) -> &Arc<Engine<Self>> {
        &event_loop.engine
    }
}
