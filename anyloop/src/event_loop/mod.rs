//! The program's loop: sockets, timers, and functions of the program's own.

mod clock;
mod core;
mod deadlines;
mod embedding;
mod engine;
mod events;
mod handle;
mod kind;
mod lock;
#[cfg(all(test, loom))]
pub(crate) mod models;
#[cfg_attr(loom, path = "reactor_loom.rs")]
#[cfg_attr(
    all(any(target_os = "linux", target_os = "android"), not(any(loom, anyloop_mio))),
    path = "reactor_epoll.rs"
)]
mod reactor;
mod remote;
mod run;
mod runner;
mod slots;
mod socket;
mod source;
mod stream_source;
mod timers;
mod types;
mod wakeup;
mod wakeup_thread;
#[cfg(unix)]
mod watch;

use std::fmt;
use std::io;
#[cfg(unix)]
use std::ops::ControlFlow;
#[cfg(unix)]
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use clock::now;
pub(crate) use engine::Engine;
pub(crate) use events::{Events, Token};
pub use handle::{KeepAlive, LoopGone, LoopHandle, Timer};
pub(crate) use kind::Sealed;
pub use kind::{Kind, Local, Threads};
pub(crate) use reactor::Registry;
pub(crate) use remote::{Remote, waker};
pub(crate) use socket::{Socket, SocketTransport, tcp_peer};
pub(crate) use source::{Next, Source, Turn};
pub(crate) use stream_source::StreamSource;
pub use timers::Aborted;
#[cfg(unix)]
pub use watch::{Readiness, Watch, WatchMode};

/// The program's loop: it serves sockets, timers, and functions of the program's own, and calls what
/// the program has to say to them.
///
/// It is a handle: clones are the same loop, and the loop is there until the last of them is dropped
/// (endpoints hold one). What is still queued is dropped then, un-run, and open sockets are closed.
/// Handlers, and threads that should not keep the loop alive, hold a [`LoopHandle`].
///
/// # Running
///
/// | call | runs | waits | returns |
/// |---|---|---|---|
/// | [`run`](Self::run) | all handlers | yes | when stopped, or out of work |
/// | [`run_one`](Self::run_one) | one handler | yes | after it, or as `run` |
/// | [`run_for`](Self::run_for), [`run_until`](Self::run_until) | all handlers | so long | then, or as `run` |
/// | [`poll`](Self::poll) | what is ready | no | when nothing is ready |
/// | [`poll_one`](Self::poll_one) | one handler that is ready | no | after it |
/// | [`poll_budget`](Self::poll_budget) | what is ready, within bounds | no | as `poll`, or at the bounds |
///
/// Each returns how many handlers it has called. A *handler* is one callback into program code: a
/// method of [`Handler`](crate::Handler), overridden or not; a function that was posted; a timer; a
/// watch. One means one: if a thousand messages came in one read, `poll_one` hands out the first. Work
/// without a callback (accepting, handshakes, pongs, writing what waits) is done on the way and not
/// counted. Any number of threads may be inside these calls at a time; the handlers of one connection
/// are never called two at a time, and in order.
///
/// A handler may call any of them. It must not wait for an event of its own connection there: that
/// comes when the handler has returned.
///
/// # Work
///
/// A run call ends when the loop is *out of work*. Work is: every listener that accepts; every
/// connection, from when it is begun until its descriptor is closed; every look-up and connect that is
/// under way; every timer, watch and posted function of the program's; every
/// [guard](Self::keep_alive). Timeouts of the protocol are not work by themselves.
///
/// # Stopped
///
/// [`stop`](Self::stop), and running out of work, latch the loop as *stopped*: run calls that are
/// under way return after the handler that they are in, and others return 0 at once, until
/// [`reset`](Self::reset). Nothing is lost: what was ready runs after the reset. Note that
/// a `poll` of a loop without work latches it, as in Asio; a guard prevents that.
///
/// # Panics of handlers
///
/// A panic leaves the run call that it happened in. If it came from a handler of a connection, that
/// connection fails with 1011. The loop goes on: call `run` again.
///
/// # Inside another loop
///
/// Watch the [descriptor](Self::as_fd) for reading, wake up after [`next_timeout`](Self::next_timeout)
/// at the latest, and then call [`poll`](Self::poll), or [`poll_budget`](Self::poll_budget); and ask
/// `next_timeout` anew, and whether the loop is [stopped](Self::stopped). As long as anything is ready the
/// descriptor is readable; and it becomes readable when another thread posts, sends, sets an earlier timer, or
/// stops the loop, and when the loop runs out of work. It may be readable once when there is nothing. A host
/// that is told of edges only polls until `next_timeout` is not zero before it waits for the next. Where no
/// descriptor can be watched, have a function [called](Self::set_wakeup); one loop does one or the other.
///
/// Other threads may be in run calls beside the host, which is woken for what they have left when the last
/// of them returns. While one of them is in a handler, a host that watches the descriptor is woken for sockets,
/// but not for what is posted, sent or set meanwhile, and one that is called for nothing: that waits
/// until the handler returns, or the host polls.
///
/// ```
/// use anyloop::EventLoop;
/// use std::time::Duration;
///
/// let event_loop = EventLoop::new()?;
/// event_loop.post(|| println!("first"));
/// event_loop.set_timer(Duration::from_millis(5), |result| println!("last: {result:?}"));
/// assert_eq!(event_loop.run(), 2);
/// assert!(event_loop.stopped()); // there was no more work
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct EventLoop {
    engine: Arc<Engine<Threads>>,
}

/// A loop that stays on one thread, and whose handlers need not be [`Send`]: they may own a GUI's
/// widgets, or [`Rc`](std::rc::Rc)s.
///
/// It is an [`EventLoop`] in everything else. Its [`LoopHandle`] can be used from other threads.
///
/// ```
/// use anyloop::LocalEventLoop;
/// use std::cell::Cell;
/// use std::rc::Rc;
///
/// let event_loop = LocalEventLoop::new()?;
/// let clicks = Rc::new(Cell::new(0));
/// let counted = clicks.clone();
/// event_loop.post(move || counted.set(counted.get() + 1));
/// event_loop.run();
/// assert_eq!(clicks.get(), 1);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct LocalEventLoop {
    engine: Arc<Engine<Local>>,
}

/// [`EventLoop::reset`] was called while a thread was inside a run call.
///
/// ```
/// use anyloop::EventLoop;
///
/// let event_loop = EventLoop::new()?;
/// let inside = event_loop.clone();
/// event_loop.post(move || assert!(inside.reset().is_err()));
/// event_loop.run();
/// assert!(event_loop.reset().is_ok());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a thread is inside a run call")]
#[expect(clippy::exhaustive_structs, reason = "there is nothing more to say")]
pub struct Running;

/// The loop's methods, for both types.
macro_rules! methods {
    ($type:ident $(, $send:ident)?) => {
        impl $type {
        /// A loop with nothing to do.
            ///
            /// # Errors
            ///
            /// The operating system has no descriptors left for it: it takes three.
            pub fn new() -> io::Result<Self> {
                Ok(Self { engine: Arc::new(Engine::new()?) })
            }

            /// Calls handlers, and waits for them to become ready, until the loop is stopped or out of work.
            pub fn run(&self) -> usize {
                self.engine.run()
            }

            /// Waits until one handler is ready, and calls it: returns 1. Returns 0 if the loop is stopped or
            /// out of work.
            pub fn run_one(&self) -> usize {
                self.engine.run_one()
            }

            /// As [`run`](Self::run), for so long at most: no wait goes beyond that, but a handler may.
            pub fn run_for(&self, time: Duration) -> usize {
                self.engine.run_for(time)
            }

            /// As [`run`](Self::run), until then at most: no wait goes beyond that, but a handler may.
            pub fn run_until(&self, end: Instant) -> usize {
                self.engine.run_until(end)
            }

            /// Calls the handlers that are ready, and those that become ready by what they post. The sockets
            /// are looked at once, unless another thread looks at them now.
            ///
            /// A function that posts itself anew keeps it from returning; [`poll_budget`](Self::poll_budget)
            /// does not let it.
            pub fn poll(&self) -> usize {
                self.engine.poll()
            }

            /// Calls one handler, if one is ready.
            pub fn poll_one(&self) -> usize {
                self.engine.poll_one()
            }

            /// As [`poll`](Self::poll), with at most so many handlers, and none that begins after `until`: for
            /// the frame of a game or a GUI. Where that leaves it nothing to call, it does not look at the sockets
            /// either, and [`next_timeout`](Self::next_timeout) is zero, since something may be ready.
            ///
            /// ```
            /// # use anyloop::EventLoop;
            /// use std::time::{Duration, Instant};
            ///
            /// # let event_loop = EventLoop::new()?;
            /// # let guard = event_loop.keep_alive();
            /// for _frame in 0..60 {
            ///     event_loop.poll_budget(1_000, Some(Instant::now() + Duration::from_millis(2)));
            ///     // ... draw
            /// }
            /// # Ok::<(), std::io::Error>(())
            /// ```
            pub fn poll_budget(&self, handlers: u64, until: Option<Instant>) -> usize {
                self.engine.poll_budget(handlers, until)
            }

            /// Has all run calls return, each after the handler that it is in. Nothing is closed or lost.
            pub fn stop(&self) {
                self.engine.remote().stop();
            }

            /// Whether the loop was stopped, or has run out of work, since the last [`reset`](Self::reset).
            #[must_use]
            pub fn stopped(&self) -> bool {
                self.engine.remote().is_stopped()
            }

            /// Makes the loop ready to run again. If it is not stopped this does nothing.
            ///
            /// # Errors
            ///
            /// A thread is inside a run call.
            pub fn reset(&self) -> Result<(), Running> {
                if self.engine.reset() { Ok(()) } else { Err(Running) }
            }

            /// Keeps run calls from running out of work, until the guard is dropped.
            pub fn keep_alive(&self) -> KeepAlive {
                KeepAlive::new(self.engine.remote().clone())
            }

            /// The loop, for those who should not keep it alive: handlers, and other threads.
            #[must_use]
            pub fn handle(&self) -> LoopHandle {
                LoopHandle::new(self.engine.remote().clone())
            }

            /// Has `wake` called when there is something to do, by a thread that only waits for it: for
            /// hosts that cannot watch a descriptor, but can be sent an event (winit's proxy, SDL's user
            /// events, `PostMessage`). `wake` is to have the host call [`poll`](Self::poll) on its own
            /// thread, and is not called again before a run call has returned and nobody is in one. It may
            /// be called when there is nothing. When the loop is stopped it is called once more, and then not
            /// before the [reset](Self::reset): ask whether it is [stopped](Self::stopped) after each poll.
            ///
            /// `wake` must not panic. Where it owns the loop, that lives until
            /// [`clear_wakeup`](Self::clear_wakeup). A former one is called no more, unless its thread is in
            /// that call now. Any thread may call this at any time, also `wake`.
            ///
            /// # Errors
            ///
            /// No thread could be started: things are as before.
            pub fn set_wakeup(&self, wake: impl Fn() + Send + Sync + 'static) -> io::Result<()> {
                self.engine.set_wakeup(wake)
            }

            /// Ends what [`set_wakeup`](Self::set_wakeup) has begun.
            pub fn clear_wakeup(&self) {
                self.engine.clear_wakeup();
            }

            /// How long nothing is to be done if nothing happens: for a loop that waits for this one. Zero:
            /// something is ready, or due, if only for another thread in a run call. `None`: nothing will be
            /// due, neither a timer nor a timeout of the protocol, nor is there memory to let go of that large
            /// messages have needed; or the loop is stopped.
            #[must_use]
            pub fn next_timeout(&self) -> Option<Duration> {
                self.engine.next_timeout()
            }

            fn timer(&self, delay: Duration, set: impl FnOnce(timers::Key)) -> Timer {
                let key = (now() + delay, self.engine.remote().next_timer_number());
                set(key);
                Timer::new(self.engine.remote().clone(), key)
            }

            /// Queues a function. It is never called from within this. Functions are called in the order in
            /// which they were posted.
            pub fn post(&self, f: impl FnOnce() $(+ $send)? + 'static) {
                self.engine.post(Box::new(f));
            }

            /// Calls a function at once if this thread is inside a run call of this loop; else posts it.
            pub fn dispatch(&self, f: impl FnOnce() $(+ $send)? + 'static) {
                match self.engine.remote().is_inside() {
                    true => f(),
                    false => self.post(f),
                }
            }

            /// Calls a function after `delay`; or when the timer is [cancelled](Timer::cancel), with
            /// [`Aborted`]. Timers that are due together are called in the order in which they were set.
            pub fn set_timer(
                &self,
                delay: Duration,
                f: impl FnOnce(Result<(), Aborted>) $(+ $send)? + 'static,
            ) -> Timer {
                self.timer(delay, |key| self.engine.set_timer(key, Box::new(f)))
            }

            /// Calls `f` whenever `source` is ready, and again while it is: it need not read or write all that
            /// it can. The watch ends when `f` says [`Break`](ControlFlow::Break), or it is
            /// [cancelled](Watch::cancel), and drops the source.
            ///
            /// Whether the source is non-blocking is left as it is. Do not watch standard input or output:
            /// others share them; let a thread read and [post](Self::post).
            ///
            /// With several threads in run calls it may be called once when there is nothing: the source
            /// is better non-blocking then. The example of [`Watch`] watches a socket.
            ///
            /// # Errors
            ///
            /// The operating system cannot watch it (a regular file, for example), or watches it already.
            #[cfg(unix)]
            pub fn watch<S: AsFd $(+ $send)? + 'static>(
                &self,
                source: S,
                mode: WatchMode,
                f: impl FnMut(&mut S, Readiness) -> ControlFlow<()> $(+ $send)? + 'static,
            ) -> io::Result<Watch> {
                watch::begin(&self.engine, source, mode, |source, cancelled| {
                    Box::new(watch::Watched { source, mode, f, cancelled })
                })
            }
        }

        /// Readable when something is ready; see *Inside another loop*.
        #[cfg(unix)]
        impl AsFd for $type {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.engine.registry().as_fd()
            }
        }

        #[cfg(unix)]
        impl AsRawFd for $type {
            fn as_raw_fd(&self) -> RawFd {
                self.as_fd().as_raw_fd()
            }
        }

        /// Clones are the same loop.
        impl Clone for $type {
            fn clone(&self) -> Self {
                Self { engine: self.engine.clone() }
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let stopped = self.stopped();
                f.debug_struct(stringify!($type)).field("stopped", &stopped).finish_non_exhaustive()
            }
        }
    };
}

methods!(EventLoop, Send);
methods!(LocalEventLoop);
