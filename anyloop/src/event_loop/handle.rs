//! Handles of a loop, which do not keep the loop alive.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::clock::now;
use super::remote::{Command, Remote};
use super::timers::{Aborted, TimerKey};

/// A handle of a loop for handlers and other threads. It is cheap to clone, and does not keep the loop alive.
///
/// ```
/// use anyloop::EventLoop;
/// use anyloop::event_loop::LoopGone;
///
/// let event_loop = EventLoop::new()?;
/// let guard = event_loop.keep_alive();
/// let handle = event_loop.handle();
/// let elsewhere = std::thread::spawn(move || {
///     handle.post(|| println!("on the loop's thread"))?;
///     handle.stop()?;
///     Ok::<_, LoopGone>(handle)
/// });
/// event_loop.run();
/// let handle = elsewhere.join().expect("no panic")?;
///
/// drop((guard, event_loop));
/// assert_eq!(handle.post(|| unreachable!()), Err(LoopGone));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct LoopHandle {
    remote: Arc<Remote>,
}

/// The loop is gone: its last owner was dropped.
///
/// See the example of [`LoopHandle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event loop is gone")]
#[expect(clippy::exhaustive_structs, reason = "there is nothing more to say")]
pub struct LoopGone;

impl LoopHandle {
    pub(super) const fn new(remote: Arc<Remote>) -> Self {
        Self { remote }
    }

    /// Queues a function, like [`EventLoop::post`](super::EventLoop::post).
    ///
    /// # Errors
    ///
    /// The loop is gone; the function is dropped.
    pub fn post(&self, f: impl FnOnce() + Send + 'static) -> Result<(), LoopGone> {
        self.remote.send(Command::Run(Box::new(f))).map_err(|_| LoopGone)
    }

    /// Calls a function at once if this thread is inside a run call of the loop, and posts it otherwise.
    ///
    /// # Errors
    ///
    /// As [`post`](Self::post).
    pub fn dispatch(&self, f: impl FnOnce() + Send + 'static) -> Result<(), LoopGone> {
        if self.remote.is_inside() {
            f();
            return Ok(());
        }
        self.post(f)
    }

    /// Sets a timer, like [`EventLoop::set_timer`](super::EventLoop::set_timer).
    ///
    /// # Errors
    ///
    /// The loop is gone; the function is dropped.
    pub fn set_timer(
        &self,
        delay: Duration,
        f: impl FnOnce(Result<(), Aborted>) + Send + 'static,
    ) -> Result<Timer, LoopGone> {
        let key = (now() + delay, self.remote.next_timer_number());
        self.remote.send(Command::SetTimer(key, Box::new(f))).map_err(|_| LoopGone)?;
        Ok(Timer::new(self.remote.clone(), key))
    }

    /// Stops the loop, like [`EventLoop::stop`](super::EventLoop::stop).
    ///
    /// # Errors
    ///
    /// The loop is gone.
    pub fn stop(&self) -> Result<(), LoopGone> {
        if self.is_gone() {
            return Err(LoopGone);
        }
        self.remote.stop();
        Ok(())
    }

    /// Returns a guard: until it is dropped, the loop is not out of work. The loop itself can still be dropped.
    ///
    /// # Errors
    ///
    /// The loop is gone.
    pub fn keep_alive(&self) -> Result<KeepAlive, LoopGone> {
        if self.is_gone() {
            return Err(LoopGone);
        }
        Ok(KeepAlive::new(self.remote.clone()))
    }

    /// Whether the last owner of the loop was dropped.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.remote.is_closed()
    }
}

impl fmt::Debug for LoopHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopHandle").finish_non_exhaustive()
    }
}

/// A unit of work: while it exists, the loop is not out of work.
///
/// ```
/// use anyloop::EventLoop;
///
/// let event_loop = EventLoop::new()?;
/// let guard = event_loop.keep_alive();
/// event_loop.poll();
/// assert!(!event_loop.stopped()); // there might be work yet
/// drop(guard);
/// event_loop.poll();
/// assert!(event_loop.stopped());
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "it has no effect once it is dropped"]
pub struct KeepAlive {
    remote: Arc<Remote>,
}

impl KeepAlive {
    pub(crate) fn new(remote: Arc<Remote>) -> Self {
        remote.add_work();
        Self { remote }
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        self.remote.finish_work();
    }
}

impl fmt::Debug for KeepAlive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeepAlive").finish_non_exhaustive()
    }
}

/// A timer of a loop. Dropping it does not cancel the timer.
///
/// ```
/// use anyloop::EventLoop;
/// use anyloop::event_loop::Aborted;
/// use std::time::Duration;
///
/// let event_loop = EventLoop::new()?;
/// let hour = Duration::from_secs(3600);
/// let timer = event_loop.set_timer(hour, |result| assert_eq!(result, Err(Aborted)));
/// timer.cancel();
/// assert_eq!(event_loop.run(), 1); // at once
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Timer {
    remote: Arc<Remote>,
    key: TimerKey,
    cancelled: Arc<AtomicBool>,
}

impl Timer {
    pub(super) fn new(remote: Arc<Remote>, key: TimerKey) -> Self {
        Self { remote, key, cancelled: Arc::default() }
    }

    /// Cancels the timer: the loop calls its function as soon as possible, with [`Aborted`]. Does nothing if the
    /// function was called, or is about to be, so the function may get `Ok(())` after this.
    pub fn cancel(&self) {
        if !self.cancelled.swap(true, Ordering::Relaxed) {
            let _ = self.remote.send(Command::CancelTimer(self.key)); // a loop that is gone has dropped the function
        }
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").finish_non_exhaustive()
    }
}
