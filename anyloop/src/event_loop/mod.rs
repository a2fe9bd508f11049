//! The application's loop: sockets, timers, and functions of the application's own.

mod buffers;
mod clock;
mod control;
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
mod run;
mod runner;
mod send_queue;
mod slots;
mod socket;
mod source;
mod stream_source;
mod timer;
mod timers;
mod turn_state;
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

pub(crate) use crate::threading::{Local, Threads};
pub(crate) use clock::now;
pub(crate) use control::{IdleListener, LoopControl, waker};
pub(crate) use engine::Engine;
pub(crate) use events::{Events, Token};
pub use handle::{LoopGone, LoopHandle, WorkGuard};
pub use kind::Kind;
pub(crate) use reactor::Registry;
pub(crate) use socket::{Socket, SocketTransport, tcp_peer};
pub(crate) use source::{Next, Source, Turn};
pub(crate) use stream_source::StreamSource;
use timer::Repeating;
pub use timer::Timer;
pub use timers::Aborted;
use timers::{OnCancel, TimerKey};
#[cfg(unix)]
pub use watch::{Readiness, Watch, WatchMode};

/// The application's loop: it serves sockets, timers, and functions of the application's own, and calls their handlers.
///
/// A value of this type is a reference to the loop: its clones are the same loop, and the loop exists until the last
/// of them is dropped (endpoints hold one). Then the functions that were posted, and those of timers and watches, are
/// dropped without a call, and open sockets are closed. Handlers, and threads that should not keep the loop alive, hold
/// a [`LoopHandle`].
///
/// # Running
///
/// | call | runs | waits | returns |
/// |---|---|---|---|
/// | [`run`](Self::run) | all handlers | yes | when stopped, or out of work |
/// | [`run_one`](Self::run_one) | one handler | yes | after it, or as `run` |
/// | [`run_for`](Self::run_for), [`run_until`](Self::run_until) | all handlers | until the time | at the time, or as `run` |
/// | [`poll`](Self::poll) | the handlers that are ready | no | when none is ready |
/// | [`poll_one`](Self::poll_one) | one handler that is ready | no | after it, or when none is ready |
/// | [`poll_budget`](Self::poll_budget) | the handlers that are ready, within bounds | no | as `poll`, or at the bounds |
///
/// Each call returns the number of handlers that it has called. A *handler* is one callback into application code: a
/// method of [`Handler`](crate::Handler), overridden or not; a function that was posted; a timer; a watch;
/// [`on_accept_error`](crate::net::Server::on_accept_error). If a thousand messages came in one read, `poll_one`
/// delivers the first. What needs none of these (accepting, TLS, pongs, writing buffered data) is done as well, and not
/// counted; nor are other hooks, completions and filters. Any number of threads may be inside these calls at
/// a time. The handlers of one connection are called in order, and never two at a time.
///
/// A handler may itself make one of these calls. It must not wait there for an event of its own connection: the event
/// is delivered after the handler has returned.
///
/// # Work
///
/// A run call ends when the loop is *out of work*. Work is: every listener that accepts; every connection, from the
/// call that begins it until its descriptor is closed; every look-up and every attempt to connect; every timer,
/// watch and posted function of the application's; every [guard](Self::keep_alive). Timeouts of the protocol are not
/// work by themselves.
///
/// # Stopped
///
/// A loop becomes *stopped* by [`stop`](Self::stop), or when a run call finds it out of work, and remains so until
/// [`reset`](Self::reset). Run calls that are under way return after their current handler, and others return 0 at
/// once. Nothing is lost: what was ready runs after the reset. A `poll` of a loop without work stops it, as in Asio;
/// a [guard](Self::keep_alive) prevents that.
///
/// # Panics of handlers
///
/// A panic of a handler unwinds out of the run call. If it was a handler of a connection, that connection fails with
/// 1011. The loop remains usable: call `run` again.
///
/// # Inside another loop
///
/// The *host* is the application's other loop. It does the following in turn:
///
/// 1. It waits until the [descriptor](Self::as_fd) is readable, and for no longer than
///    [`next_timeout`](Self::next_timeout).
/// 2. It calls [`poll`](Self::poll) or [`poll_budget`](Self::poll_budget).
/// 3. It ends if the loop is [stopped](Self::stopped).
///
/// The descriptor is readable as long as anything is ready. A deadline that has come does not make it readable:
/// `next_timeout` is zero then. The descriptor becomes readable when another thread posts, sends, sets an earlier
/// timer, or stops the loop, and when the loop runs out of work. It may be readable once when nothing is ready. A host
/// whose watch is edge-triggered must poll until `next_timeout` is not zero before it waits.
///
/// A host that cannot watch a descriptor sets a function to be [called](Self::set_wakeup) instead. While it is set, the
/// descriptor is of no use to the host.
///
/// Other threads may be inside run calls beside the host. When the last of them returns, the host is woken for what
/// is ready then. While one of them is in a handler, a host that watches the descriptor is woken for sockets, but not
/// for what is posted, sent or set meanwhile; a host with a function is not woken. What came meanwhile is served when
/// the handler returns, or when the host polls.
///
/// ```
/// use anyloop::EventLoop;
/// use std::time::Duration;
///
/// let event_loop = EventLoop::new()?;
/// event_loop.post(|| println!("first"));
/// event_loop.set_timer(Duration::from_millis(5), || println!("last"));
/// assert_eq!(event_loop.run(), 2);
/// assert!(event_loop.stopped()); // there was no more work
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct EventLoop {
    engine: Arc<Engine<Threads>>,
}

/// A loop that is bound to one thread. Its handlers need not be [`Send`]: they may own the widgets of a GUI, or
/// [`Rc`](std::rc::Rc)s.
///
/// In everything else it is like [`EventLoop`]. Its [`LoopHandle`] can be used from other threads.
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
#[error("cannot reset the event loop: a thread is inside a run call")]
#[expect(clippy::exhaustive_structs, reason = "there is nothing more to say")]
pub struct Running;

/// The loop's methods, for both types.
macro_rules! methods {
    ($type:ident, $kind:ident $(, $send:ident)?) => {
        impl $type {
            /// Creates a loop without work.
            ///
            /// # Errors
            ///
            /// The operating system cannot create its descriptors.
            pub fn new() -> io::Result<Self> {
                Ok(Self { engine: Arc::new(Engine::new()?) })
            }

            /// Calls handlers, and waits for them to become ready, until the loop is stopped or out of work. Returns
            /// the number of handlers that it has called.
            ///
            /// A server that listens and [does not accept](crate::net::Server::start_accept) is no work. If the loop is
            /// out of work while there is one, this and the other run calls log a warning (feature `tracing`).
            pub fn run(&self) -> usize {
                self.engine.run()
            }

            /// Waits until one handler is ready, calls it, and returns 1. Returns 0 if the loop is stopped or out of
            /// work.
            pub fn run_one(&self) -> usize {
                self.engine.run_one()
            }

            /// Like [`run`](Self::run), for at most this time. This bounds the waits only: handlers that were ready
            /// before the time is over are still called.
            pub fn run_for(&self, time: Duration) -> usize {
                self.engine.run_for(time)
            }

            /// Like [`run`](Self::run), until this time at most. This bounds the waits only: handlers that were ready
            /// before this time are still called.
            pub fn run_until(&self, end: Instant) -> usize {
                self.engine.run_until(end)
            }

            /// Calls the handlers that are ready, and the functions that they post. Polls the operating system once,
            /// unless another thread does so now.
            ///
            /// A function that posts itself again each time keeps this call from returning.
            /// [`poll_budget`](Self::poll_budget) returns in any case.
            pub fn poll(&self) -> usize {
                self.engine.poll()
            }

            /// Calls one handler, if one is ready.
            pub fn poll_one(&self) -> usize {
                self.engine.poll_one()
            }

            /// Like [`poll`](Self::poll), with at most `handlers` handlers, and none that begins after `until`: for
            /// one frame of a game or a GUI. If these bounds allow no handler, it does not poll the operating system
            /// either. Then [`next_timeout`](Self::next_timeout) is zero, since something may be ready.
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

            /// Stops the loop: all run calls return, each after its current handler. Nothing is closed or lost.
            pub fn stop(&self) {
                self.engine.control().stop();
            }

            /// Whether the loop was stopped, or was found out of work, since the last [`reset`](Self::reset).
            #[must_use]
            pub fn stopped(&self) -> bool {
                self.engine.control().is_stopped()
            }

            /// Makes a stopped loop ready to run again. Does nothing if the loop is not stopped.
            ///
            /// # Errors
            ///
            /// A thread is inside a run call.
            pub fn reset(&self) -> Result<(), Running> {
                if self.engine.reset() { Ok(()) } else { Err(Running) }
            }

            /// Returns a guard: until it is dropped, the loop is not out of work.
            pub fn keep_alive(&self) -> WorkGuard {
                WorkGuard::new(self.engine.control().clone())
            }

            /// A handle for handlers and other threads, which does not keep the loop alive.
            #[must_use]
            pub fn handle(&self) -> LoopHandle {
                LoopHandle::new(self.engine.control().clone())
            }

            /// Starts a thread that calls `wake` when there is something to do. This is for hosts that cannot watch
            /// a descriptor, but can be sent an event (winit's proxy, SDL's user events, `PostMessage`).
            ///
            /// `wake` makes the host call [`poll`](Self::poll) on the host's own thread. It is called again only
            /// after a run call has returned, while no thread is inside one. It may be called when there is nothing
            /// to do. When the loop is stopped it is called once more, and then not before the
            /// [reset](Self::reset), so the host checks after each poll whether the loop is
            /// [stopped](Self::stopped).
            ///
            /// `wake` must not panic. If it owns the loop, the loop exists until `wake` is replaced or
            /// [cleared](Self::clear_wakeup). It replaces a former `wake`, which is not called any more; a call that
            /// is under way continues. Any thread may call this at any time, also `wake` itself.
            ///
            /// # Errors
            ///
            /// The operating system cannot start a thread. Then nothing has changed.
            pub fn set_wakeup(&self, wake: impl Fn() + Send + Sync + 'static) -> io::Result<()> {
                self.engine.set_wakeup(wake)
            }

            /// Ends the thread that [`set_wakeup`](Self::set_wakeup) has started.
            pub fn clear_wakeup(&self) {
                self.engine.clear_wakeup();
            }

            /// Time until the next deadline; zero if something is ready; `None` if there is no deadline or the loop
            /// is stopped. A host waits no longer than this before it polls again.
            ///
            /// Deadlines are those of timers, of connections, of attempts to connect or accept that are to be made, and
            /// of buffers that large messages have needed and that are to be freed. What is ready may be served by
            /// another thread that is inside a run call.
            #[must_use]
            pub fn next_timeout(&self) -> Option<Duration> {
                self.engine.next_timeout()
            }

            fn new_timer(
                &self,
                delay: Duration,
                on_cancel: OnCancel,
                set: impl FnOnce(TimerKey),
            ) -> Timer {
                let number = self.engine.control().new_timer_number();
                let key = TimerKey { due: now() + delay, number };
                set(key);
                Timer::new(self.engine.control().clone(), key, on_cancel)
            }

            /// Queues a function. A run call calls it; this call never does. Functions are called in the order in
            /// which they were posted.
            pub fn post(&self, f: impl FnOnce() $(+ $send)? + 'static) {
                self.engine.post(Box::new(f));
            }

            /// Calls a function at once if this thread is inside a run call of this loop, and posts it otherwise.
            pub fn dispatch(&self, f: impl FnOnce() $(+ $send)? + 'static) {
                match self.engine.control().running_in_this_thread() {
                    true => f(),
                    false => self.post(f),
                }
            }

            /// Calls a function after `delay`, unless the timer is [cancelled](Timer::cancel) before: then the
            /// function is dropped. Timers that are due at the same time are called in the order in which they were
            /// set.
            pub fn set_timer(&self, delay: Duration, f: impl FnOnce() $(+ $send)? + 'static) -> Timer {
                self.new_timer(delay, OnCancel::Drop, |key| self.engine.set_timer(key, Box::new(|_| f())))
            }

            /// Calls a function after `delay`, with `Ok`; or when the timer is [cancelled](Timer::cancel), with
            /// [`Aborted`].
            pub fn set_timer_then(
                &self,
                delay: Duration,
                f: impl FnOnce(Result<(), Aborted>) $(+ $send)? + 'static,
            ) -> Timer {
                self.new_timer(delay, OnCancel::Call, |key| self.engine.set_timer(key, Box::new(f)))
            }

            /// Calls a function after each `period`, until the timer is [cancelled](Timer::cancel) or the function
            /// panics. Calls that are missed, because the loop was busy or not run, are skipped. A period of less than
            /// a millisecond is raised to a millisecond.
            ///
            /// ```
            /// # use anyloop::EventLoop;
            /// use std::time::Duration;
            ///
            /// let event_loop = EventLoop::new()?;
            /// let stop = event_loop.handle();
            /// let mut ticks = 0;
            /// event_loop.every(Duration::from_millis(2), move || {
            ///     ticks += 1;
            ///     if ticks == 3 {
            ///         _ = stop.stop();
            ///     }
            /// });
            /// assert_eq!(event_loop.run(), 3);
            /// # Ok::<(), std::io::Error>(())
            /// ```
            pub fn every(&self, period: Duration, f: impl FnMut() $(+ $send)? + 'static) -> Timer {
                let repeating = Repeating::new(self.engine.control().clone(), period);
                let timer = repeating.timer();
                Self::repeat(&self.engine, repeating, f);
                timer
            }

            fn repeat(
                engine: &Arc<Engine<$kind>>,
                mut repeating: Repeating,
                mut f: impl FnMut() $(+ $send)? + 'static,
            ) {
                let (key, timer) = (repeating.schedule_next(), repeating.timer());
                let weak = Arc::downgrade(engine);
                engine.set_timer(key, Box::new(move |_| {
                    if repeating.is_cancelled() {
                        return;
                    }
                    f();
                    if let Some(engine) = weak.upgrade().filter(|_| !repeating.is_cancelled()) {
                        Self::repeat(&engine, repeating, f);
                    }
                }));
                timer.remove_if_cancelled();
            }

            /// Calls `f` as long as `descriptor` is ready (level-triggered): `f` need not read or write all that it
            /// can. The watch ends when `f` returns [`Break`](ControlFlow::Break), when it is
            /// [cancelled](Watch::cancel), or when `f` has closed the descriptor. Then the descriptor is dropped.
            ///
            /// The descriptor may be blocking or non-blocking. With several threads inside run calls, `f` may be
            /// called once when the descriptor is not ready, so the descriptor should be non-blocking then. Do not
            /// watch standard input or output, which other processes share: use them in a thread that
            /// [posts](Self::post). See the example of [`Watch`].
            ///
            /// # Errors
            ///
            /// The operating system cannot watch the descriptor (of a regular file, for example), or the loop watches
            /// it already.
            #[cfg(unix)]
            pub fn watch<S: AsFd $(+ $send)? + 'static>(
                &self,
                descriptor: S,
                mode: WatchMode,
                f: impl FnMut(&mut S, Readiness) -> ControlFlow<()> $(+ $send)? + 'static,
            ) -> io::Result<Watch> {
                watch::begin(&self.engine, descriptor, mode, |descriptor, cancelled| {
                    Box::new(watch::Watched { descriptor, mode, f, cancelled })
                })
            }
        }

        /// The descriptor is readable when something is ready: see *Inside another loop*.
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

        /// A clone is the same loop.
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

methods!(EventLoop, Threads, Send);
methods!(LocalEventLoop, Local);
