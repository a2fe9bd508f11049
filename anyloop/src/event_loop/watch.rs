//! Watches: the loop calls a function when a descriptor of the application's is ready.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::control::LoopControl;
use super::engine::Engine;
use super::events::{Events, Token};
use super::kind::Kind;
use super::source::{Next, Source, Turn};

/// The directions of a descriptor that are watched.
///
/// See [`EventLoop::watch`](super::EventLoop::watch).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third direction")]
pub enum WatchMode {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Reading and writing.
    ReadWrite,
}

/// The directions in which a descriptor is ready.
///
/// See [`EventLoop::watch`](super::EventLoop::watch).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Readiness {
    /// A read would not block. It may find the end of the stream, or an error.
    pub readable: bool,
    /// A write would not block.
    pub writable: bool,
    /// The other end is closed or sends nothing more, or the descriptor has failed: a read or a write says which.
    pub closed: bool,
}

/// A handle of a watch. Dropping the handle does not end the watch.
///
/// ```
/// use anyloop::EventLoop;
/// use anyloop::event_loop::WatchMode;
/// use std::io::{Read, Write};
/// use std::ops::ControlFlow;
/// use std::os::unix::net::UnixStream;
///
/// let (near, mut far) = UnixStream::pair()?;
/// far.write_all(b"hi")?;
/// let event_loop = EventLoop::new()?;
/// event_loop.watch(near, WatchMode::Read, |near, readiness| {
///     assert!(readiness.readable);
///     let mut byte = [0];
///     near.read_exact(&mut byte).unwrap();
///     match byte[0] {
///         b'i' => ControlFlow::Break(()),
///         _ => ControlFlow::Continue(()), // and is called again for the next byte
///     }
/// })?;
/// assert_eq!(event_loop.run(), 2);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Watch {
    control: Arc<LoopControl>,
    token: Token,
    cancelled: Arc<AtomicBool>,
}

impl Watch {
    /// Ends the watch: the loop drops the descriptor and the function. A call that is under way is the last one. If
    /// another thread was about to call, one more call may begin.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.control.wake(self.token);
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// Begins to watch a descriptor. `make` returns the source: the descriptor with its function.
pub(super) fn begin<K: Kind, S: AsFd>(
    engine: &Engine<K>,
    mut descriptor: S,
    mode: WatchMode,
    make: impl FnOnce(S, Arc<AtomicBool>) -> Box<K::DynSource>,
) -> io::Result<Watch> {
    let cancelled = Arc::<AtomicBool>::default();
    let token = engine.insert(|token| {
        engine.registry().register(&mut descriptor, token, mode.interest())?;
        Ok::<_, io::Error>(make(descriptor, cancelled.clone()))
    })?;
    Ok(Watch { control: engine.control().clone(), token, cancelled })
}

impl WatchMode {
    fn interest(self) -> Events {
        match self {
            Self::Read => Events::READABLE,
            Self::Write => Events::WRITABLE,
            Self::ReadWrite => Events::READABLE | Events::WRITABLE,
        }
    }
}

/// A watched descriptor, and the function to call.
pub(super) struct Watched<S, F> {
    pub(super) descriptor: S,
    pub(super) mode: WatchMode,
    pub(super) f: F,
    pub(super) cancelled: Arc<AtomicBool>,
}

impl<K: Kind, S: AsFd, F: FnMut(&mut S, Readiness) -> ControlFlow<()>> Source<K> for Watched<S, F> {
    fn run(&mut self, turn: &mut Turn<'_, K>) -> Next<K> {
        let registry = turn.engine.registry();
        if self.cancelled.load(Ordering::Acquire) {
            let _ = registry.deregister(&mut self.descriptor);
            return Next::Done;
        }
        let events = turn.state.events;
        let readiness = Readiness {
            readable: events.contains(Events::READABLE),
            writable: events.contains(Events::WRITABLE),
            closed: events.contains(Events::CLOSED),
        };
        if readiness.readable || readiness.writable || readiness.closed {
            if !turn.buffers.for_driver.budget.try_spend() {
                turn.state.unconsumed = events;
                return Next::Again;
            }
            if (self.f)(&mut self.descriptor, readiness).is_break() {
                let _ = registry.deregister(&mut self.descriptor);
                return Next::Done;
            }
        }
        // The registration is renewed, so that events that are still present are reported again, also after a panic.
        // Events that came while `f` ran are dropped: `f` may have handled them.
        turn.engine
            .clear_events(turn.state.token, Events::READABLE | Events::WRITABLE | Events::CLOSED);
        match registry.reregister(&mut self.descriptor, turn.state.token, self.mode.interest()) {
            Ok(()) => Next::Wait,
            Err(_) => Next::Done, // the function has closed the descriptor
        }
    }
}
