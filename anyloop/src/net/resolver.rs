//! Name resolution on a pool of threads: a look-up blocks, and the loop must not.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::{Arc, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use super::host::{literal_address, unbracket_zoned};
use crate::sync::unmodelled::{Condvar, Mutex, MutexGuard};

#[cfg(test)]
mod tests;

/// The largest number of threads. A look-up that takes a minute to fail occupies one of them.
const MAX_THREADS: usize = 16;

/// A thread without a look-up for this long ends.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Looks up a host and a port. It may block.
pub(crate) type LookUpFn = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Receives the result of a look-up: at least one address, or an error.
pub(crate) type Callback = Box<dyn FnOnce(io::Result<Vec<SocketAddr>>) + Send>;

/// Looks up names on a pool of threads, which start on demand and end when they are idle.
///
/// Dropping it cancels all look-ups. It does not wait for threads: each ends when its current
/// look-up returns.
///
/// A fork copies the pool without its threads, so a child process starts a pool of its own. Look-ups that
/// are under way at the fork do not end in the child.
pub(crate) struct Resolver {
    /// The threads of the pool do not lock it, so none of them can hold the lock during a fork.
    pool: Mutex<Arc<Pool>>,
}

struct Pool {
    /// The process that its threads belong to.
    process: u32,
    look_up: Arc<LookUpFn>,
    spawn: fn(Arc<Self>) -> io::Result<()>,
    idle_timeout: Duration,
    state: Mutex<State>,
    /// Notified when a job is queued and when the resolver is dropped.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    running: Vec<Arc<Completion>>,
    threads: usize,
    /// The number of threads that wait for a job. A notified thread counts until it wakes, and its job is in `queue`
    /// until then. So no thread is free for another job if `queue` has as many jobs.
    idle: usize,
    is_closed: bool,
}

struct Job {
    host: String,
    port: u16,
    completion: Arc<Completion>,
}

/// The callback of a look-up. Completion and cancellation both take it, so only one of them happens.
struct Completion(Mutex<Option<Callback>>);

impl Completion {
    fn take(&self) -> Option<Callback> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A look-up. Dropping it cancels the look-up: the callback is dropped uncalled, unless its call has
/// begun.
#[must_use = "dropping it cancels the look-up"]
pub(crate) struct Lookup {
    completion: Arc<Completion>,
    pool: Weak<Pool>,
}

impl Resolver {
    /// Uses the operating system's resolver (`getaddrinfo`).
    pub(crate) fn system() -> Self {
        Self::new(Arc::new(|host, port| Ok((host, port).to_socket_addrs()?.collect())))
    }

    /// Uses `look_up`, which is called on several threads at once. If it panics, that look-up fails.
    pub(crate) fn new(look_up: Arc<LookUpFn>) -> Self {
        Self::with(look_up, spawn, IDLE_TIMEOUT)
    }

    fn with(
        look_up: Arc<LookUpFn>,
        spawn: fn(Arc<Pool>) -> io::Result<()>,
        idle_timeout: Duration,
    ) -> Self {
        Self { pool: Mutex::new(Pool::new(look_up, spawn, idle_timeout)) }
    }

    /// The pool of this process.
    fn pool(&self) -> Arc<Pool> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if !pool.has_threads_here() {
            *pool = Pool::new(Arc::clone(&pool.look_up), pool.spawn, pool.idle_timeout);
        }
        Arc::clone(&pool)
    }

    /// Looks up `host`, which must not be a [`literal_address`].
    ///
    /// `callback` is called once, on a thread of the pool, unless the look-up is cancelled before. If the pool has no
    /// thread and cannot start one, it is called with the error on this thread, before this function returns.
    pub(crate) fn resolve(&self, host: &str, port: u16, callback: Callback) -> Lookup {
        debug_assert!(literal_address(host, port).is_none(), "{host} needs no look-up");
        let completion = Arc::new(Completion(Mutex::new(Some(callback))));
        let host = unbracket_zoned(host).to_owned();
        let job = Job { host, port, completion: Arc::clone(&completion) };
        let pool = self.pool();
        if let Err(error) = pool.submit(job) {
            if let Some(callback) = completion.take() {
                callback(Err(error));
            }
        }
        Lookup { completion, pool: Arc::downgrade(&pool) }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        let pool = self.pool.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !pool.has_threads_here() {
            return; // its lock may be held for ever by a thread of the parent process
        }
        let mut state = pool.lock();
        state.is_closed = true;
        let queue = std::mem::take(&mut state.queue);
        let running = std::mem::take(&mut state.running);
        drop(state);
        pool.changed.notify_all();
        // The lock is released first: a callback may own a `Lookup`, whose drop takes it.
        for completion in queue.into_iter().map(|job| job.completion).chain(running) {
            drop(completion.take());
        }
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        if self.completion.take().is_none() {
            return;
        }
        // A job that is still queued is removed, so that no thread has to skip it.
        if let Some(pool) = self.pool.upgrade().filter(|pool| pool.has_threads_here()) {
            let queue = &mut pool.lock().queue;
            let is_own = |job: &Job| Arc::ptr_eq(&job.completion, &self.completion);
            if let Some(index) = queue.iter().position(is_own) {
                queue.remove(index);
            }
        }
    }
}

impl Pool {
    fn new(
        look_up: Arc<LookUpFn>,
        spawn: fn(Arc<Self>) -> io::Result<()>,
        idle_timeout: Duration,
    ) -> Arc<Self> {
        let (process, state, changed) = (process::id(), Mutex::default(), Condvar::new());
        Arc::new(Self { process, look_up, spawn, idle_timeout, state, changed })
    }

    /// Whether this is the process that the threads belong to, and not one that it has forked.
    fn has_threads_here(&self) -> bool {
        self.process == process::id()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job. Fails if there is no thread and none can be started.
    fn submit(self: &Arc<Self>, job: Job) -> io::Result<()> {
        let mut state = self.lock();
        if state.queue.len() >= state.idle && state.threads < MAX_THREADS {
            match (self.spawn)(Arc::clone(self)) {
                Ok(()) => state.threads += 1,
                Err(error) if state.threads == 0 => return Err(error),
                Err(_) => {} // an existing thread takes the job later
            }
        }
        state.queue.push_back(job);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// The main function of a thread. Returns when it was idle for too long or the resolver is dropped.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                state.running.push(Arc::clone(&job.completion));
                drop(state);
                self.run(&job);
                state = self.lock();
                state.running.retain(|running| !Arc::ptr_eq(running, &job.completion));
                continue;
            }
            if state.is_closed {
                break;
            }
            state.idle += 1;
            let has_nothing_to_do = |state: &mut State| state.queue.is_empty() && !state.is_closed;
            let waited =
                self.changed.wait_timeout_while(state, self.idle_timeout, has_nothing_to_do);
            let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.idle -= 1;
            if timeout.timed_out() {
                break;
            }
        }
        state.threads -= 1;
    }

    /// Runs a look-up and calls its callback. Panics are caught: the thread must reach the end of
    /// [`work`](Self::work), where it is no longer counted.
    fn run(&self, job: &Job) {
        let look_up = || (self.look_up)(&job.host, job.port);
        let result = catch_unwind(AssertUnwindSafe(look_up))
            .unwrap_or_else(|_| Err(io::Error::other("the look-up panicked")))
            .and_then(|addresses| {
                let none = || io::Error::new(ErrorKind::NotFound, "the host has no address");
                if addresses.is_empty() { Err(none()) } else { Ok(addresses) }
            });
        if let Some(callback) = job.completion.take() {
            _ = catch_unwind(AssertUnwindSafe(|| callback(result)));
        }
    }
}

fn spawn(pool: Arc<Pool>) -> io::Result<()> {
    // Linux keeps 15 bytes of a name.
    let builder = thread::Builder::new().name("anyloop-resolve".to_owned());
    builder.spawn(move || pool.work()).map(drop)
}
