//! Handles of a loop, which do not keep the loop alive.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::clock::now;
use super::control::{Command, LoopControl};
use super::timer::{Repeating, Timer};
use super::timers::{Aborted, OnCancel, TimerKey};

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
    control: Arc<LoopControl>,
}

/// The loop is gone: its last owner was dropped.
///
/// See the example of [`LoopHandle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event loop is gone")]
#[expect(clippy::exhaustive_structs, reason = "there is nothing more to say")]
pub struct LoopGone;

impl LoopHandle {
    pub(super) const fn new(control: Arc<LoopControl>) -> Self {
        Self { control }
    }

    /// Queues a function, like [`EventLoop::post`](super::EventLoop::post).
    ///
    /// # Errors
    ///
    /// The loop is gone; the function is dropped.
    pub fn post(&self, f: impl FnOnce() + Send + 'static) -> Result<(), LoopGone> {
        self.control.send(Command::Post(Box::new(f))).map_err(|_| LoopGone)
    }

    /// Calls a function at once if this thread is inside a run call of the loop, and posts it otherwise.
    ///
    /// # Errors
    ///
    /// As [`post`](Self::post).
    pub fn dispatch(&self, f: impl FnOnce() + Send + 'static) -> Result<(), LoopGone> {
        if self.control.running_in_this_thread() {
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
        f: impl FnOnce() + Send + 'static,
    ) -> Result<Timer, LoopGone> {
        self.set_boxed_timer(delay, OnCancel::Drop, Box::new(|_| f()))
    }

    /// Sets a timer, like [`EventLoop::set_timer_then`](super::EventLoop::set_timer_then).
    ///
    /// # Errors
    ///
    /// The loop is gone; the function is dropped.
    pub fn set_timer_then(
        &self,
        delay: Duration,
        f: impl FnOnce(Result<(), Aborted>) + Send + 'static,
    ) -> Result<Timer, LoopGone> {
        self.set_boxed_timer(delay, OnCancel::Call, Box::new(f))
    }

    fn set_boxed_timer(
        &self,
        delay: Duration,
        on_cancel: OnCancel,
        f: Box<dyn FnOnce(Result<(), Aborted>) + Send>,
    ) -> Result<Timer, LoopGone> {
        let key = TimerKey { due: now() + delay, number: self.control.new_timer_number() };
        self.control.send(Command::SetTimer(key, f)).map_err(|_| LoopGone)?;
        Ok(Timer::new(self.control.clone(), key, on_cancel))
    }

    /// Calls a function again and again, like [`EventLoop::every`](super::EventLoop::every).
    ///
    /// # Errors
    ///
    /// The loop is gone; the function is dropped.
    pub fn every(
        &self,
        period: Duration,
        f: impl FnMut() + Send + 'static,
    ) -> Result<Timer, LoopGone> {
        let repeating = Repeating::new(self.control.clone(), period);
        let timer = repeating.timer();
        repeat(&self.control, repeating, f).map_err(|_| LoopGone)?;
        Ok(timer)
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
        self.control.stop();
        Ok(())
    }

    /// Returns a guard: until it is dropped, the loop is not out of work. The loop itself can still be dropped.
    ///
    /// # Errors
    ///
    /// The loop is gone.
    pub fn keep_alive(&self) -> Result<WorkGuard, LoopGone> {
        if self.is_gone() {
            return Err(LoopGone);
        }
        Ok(WorkGuard::new(self.control.clone()))
    }

    /// Whether the last owner of the loop was dropped.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.control.is_closed()
    }
}

fn repeat(
    control: &Arc<LoopControl>,
    mut repeating: Repeating,
    mut f: impl FnMut() + Send + 'static,
) -> Result<(), Command> {
    let (key, timer) = (repeating.schedule_next(), repeating.timer());
    let again = Arc::downgrade(control);
    let call = move |_| {
        if repeating.is_cancelled() {
            return;
        }
        f();
        if let Some(control) = again.upgrade().filter(|_| !repeating.is_cancelled()) {
            let _ = repeat(&control, repeating, f); // a loop that is gone calls nothing
        }
    };
    control.send(Command::SetTimer(key, Box::new(call)))?;
    timer.remove_if_cancelled();
    Ok(())
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
pub struct WorkGuard {
    control: Arc<LoopControl>,
}

impl WorkGuard {
    pub(crate) fn new(control: Arc<LoopControl>) -> Self {
        control.add_work();
        Self { control }
    }
}

impl Drop for WorkGuard {
    fn drop(&mut self) {
        self.control.finish_work();
    }
}

impl fmt::Debug for WorkGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkGuard").finish_non_exhaustive()
    }
}
