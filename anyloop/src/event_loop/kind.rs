//! The two kinds of loops: shared by threads, or bound to one.

use std::cell::RefCell;
use std::sync::Arc;

use super::engine::Engine;
use super::source::Source;
use super::timers::Aborted;
use super::types::Types;
use super::{EventLoop, LocalEventLoop};
use crate::sync::Mutex;
use crate::threading::{Local, Threads};

/// A kind of loop: [`Threads`] or [`Local`].
pub trait Kind: Sealed {}

/// The loop's [`Types`], and the type that programs use for the loop.
#[expect(unnameable_types, reason = "there are no other kinds")]
pub trait Sealed: Types<Source: Source<Self>> {
    /// The loop, as the program has it.
    type Loop: Clone;

    /// The program's loop of this engine.
    fn event_loop(engine: Arc<Engine<Self>>) -> Self::Loop;

    /// The engine of a program's loop.
    fn engine(event_loop: &Self::Loop) -> &Arc<Engine<Self>>;
}

impl Kind for Threads {}

impl Types for Threads {
    type Source = dyn Source<Self> + Send;
    type Task = dyn FnOnce() + Send;
    type OnTimer = dyn FnOnce(Result<(), Aborted>) + Send;

    type Lock<T: 'static> = Mutex<T>;

    fn task(task: Box<dyn FnOnce() + Send>) -> Box<Self::Task> {
        task
    }

    fn on_timer(f: Box<dyn FnOnce(Result<(), Aborted>) + Send>) -> Box<Self::OnTimer> {
        f
    }
}

impl Sealed for Threads {
    type Loop = EventLoop;

    fn event_loop(engine: Arc<Engine<Self>>) -> EventLoop {
        EventLoop { engine }
    }

    fn engine(event_loop: &EventLoop) -> &Arc<Engine<Self>> {
        &event_loop.engine
    }
}

impl Kind for Local {}

impl Types for Local {
    type Source = dyn Source<Self>;
    type Task = dyn FnOnce();
    type OnTimer = dyn FnOnce(Result<(), Aborted>);

    type Lock<T: 'static> = RefCell<T>;

    fn task(task: Box<dyn FnOnce() + Send>) -> Box<Self::Task> {
        task
    }

    fn on_timer(f: Box<dyn FnOnce(Result<(), Aborted>) + Send>) -> Box<Self::OnTimer> {
        f
    }
}

impl Sealed for Local {
    type Loop = LocalEventLoop;

    fn event_loop(engine: Arc<Engine<Self>>) -> LocalEventLoop {
        LocalEventLoop { engine }
    }

    fn engine(event_loop: &LocalEventLoop) -> &Arc<Engine<Self>> {
        &event_loop.engine
    }
}
