//! The standard library's locks, with atomics that show their order to ThreadSanitizer.
//!
//! The standard library is not instrumented: where a thread has to wait for a lock, the sanitizer misses what the lock
//! orders. So each lock here has an atomic of its own. A thread stores to it before it releases the lock, and loads
//! from it after it has acquired the lock. This orders exactly what the lock orders.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{self, LockResult, PoisonError, TryLockError, TryLockResult, WaitTimeoutResult};
use std::thread;
use std::time::{Duration, Instant};

/// A happens-before edge: what a thread did before `release` is visible to a thread that calls `acquire` after it.
#[derive(Debug, Default)]
struct Edge(AtomicBool);

impl Edge {
    fn release(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn acquire(&self) {
        self.0.load(Ordering::Acquire);
    }
}

/// As [`std::sync::Mutex`].
#[derive(Debug, Default)]
pub struct Mutex<T> {
    edge: Edge,
    inner: sync::Mutex<T>,
}

pub struct MutexGuard<'l, T> {
    edge: &'l Edge,
    /// Present until the guard is dropped, or waits.
    inner: Option<sync::MutexGuard<'l, T>>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { edge: Edge(AtomicBool::new(false)), inner: sync::Mutex::new(value) }
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        guard(&self.edge, self.inner.lock())
    }

    pub(crate) fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        match self.inner.try_lock() {
            Ok(inner) => Ok(MutexGuard::new(&self.edge, inner)),
            Err(TryLockError::Poisoned(inner)) => {
                let guard = MutexGuard::new(&self.edge, inner.into_inner());
                Err(TryLockError::Poisoned(PoisonError::new(guard)))
            }
            Err(TryLockError::WouldBlock) => Err(TryLockError::WouldBlock),
        }
    }

    pub(crate) fn get_mut(&mut self) -> LockResult<&mut T> {
        self.inner.get_mut()
    }
}

fn guard<'l, T>(
    edge: &'l Edge,
    inner: LockResult<sync::MutexGuard<'l, T>>,
) -> LockResult<MutexGuard<'l, T>> {
    match inner {
        Ok(inner) => Ok(MutexGuard::new(edge, inner)),
        Err(inner) => Err(PoisonError::new(MutexGuard::new(edge, inner.into_inner()))),
    }
}

impl<'l, T> MutexGuard<'l, T> {
    /// The guard of a lock that was just acquired.
    fn new(edge: &'l Edge, inner: sync::MutexGuard<'l, T>) -> Self {
        edge.acquire();
        Self { edge, inner: Some(inner) }
    }

    /// Takes the guard apart for a wait, which releases the lock.
    fn release_to_wait(mut self) -> (&'l Edge, sync::MutexGuard<'l, T>) {
        self.edge.release();
        (self.edge, self.inner.take().expect("the guard is present until it is dropped"))
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        if self.inner.is_some() {
            self.edge.release();
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.inner.as_ref().expect("the guard is present until it is dropped")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("the guard is present until it is dropped")
    }
}

/// As [`std::sync::Condvar`]. It orders nothing by itself, but a wait releases its lock and acquires it again.
#[derive(Debug, Default)]
pub struct Condvar(sync::Condvar);

impl Condvar {
    pub(crate) const fn new() -> Self {
        Self(sync::Condvar::new())
    }

    pub(crate) fn wait<'l, T>(&self, lock: MutexGuard<'l, T>) -> LockResult<MutexGuard<'l, T>> {
        let (edge, inner) = lock.release_to_wait();
        guard(edge, self.0.wait(inner))
    }

    pub(crate) fn wait_timeout<'l, T>(
        &self,
        lock: MutexGuard<'l, T>,
        timeout: Duration,
    ) -> Waited<MutexGuard<'l, T>> {
        let (edge, inner) = lock.release_to_wait();
        waited(edge, self.0.wait_timeout(inner, timeout))
    }

    /// A loop of its own: the standard library's evaluates the condition under locks that are not traced.
    pub(crate) fn wait_timeout_while<'l, T>(
        &self,
        mut lock: MutexGuard<'l, T>,
        timeout: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'l, T>, TimedOut)> {
        let start = Instant::now();
        while condition(&mut lock) {
            let rest = timeout.saturating_sub(start.elapsed());
            if rest.is_zero() {
                return Ok((lock, TimedOut(true)));
            }
            lock = self.wait_timeout(lock, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok((lock, TimedOut(false)))
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// As [`WaitTimeoutResult`], which only the standard library can create.
pub(crate) struct TimedOut(bool);

impl TimedOut {
    pub(crate) const fn timed_out(&self) -> bool {
        self.0
    }
}

type Waited<G> = LockResult<(G, WaitTimeoutResult)>;

fn waited<'l, T>(
    edge: &'l Edge,
    result: Waited<sync::MutexGuard<'l, T>>,
) -> Waited<MutexGuard<'l, T>> {
    match result {
        Ok((inner, result)) => Ok((MutexGuard::new(edge, inner), result)),
        Err(poisoned) => {
            let (inner, result) = poisoned.into_inner();
            Err(PoisonError::new((MutexGuard::new(edge, inner), result)))
        }
    }
}

/// As [`std::sync::OnceLock`].
#[derive(Debug, Default)]
pub(crate) struct OnceLock<T> {
    /// The value is set. Read before `inner`, which ThreadSanitizer cannot trace.
    is_set: AtomicBool,
    inner: sync::OnceLock<T>,
}

impl<T> OnceLock<T> {
    pub(crate) const fn new() -> Self {
        Self { is_set: AtomicBool::new(false), inner: sync::OnceLock::new() }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        match self.is_set.load(Ordering::Acquire) {
            true => self.inner.get(),
            false => None,
        }
    }

    pub(crate) fn get_or_init(&self, f: impl FnOnce() -> T) -> &T {
        let mut has_set = false;
        let value = self.inner.get_or_init(|| {
            has_set = true;
            f()
        });
        self.publish_and_wait(has_set);
        value
    }

    /// The thread that has set the value publishes that; the others wait for it.
    fn publish_and_wait(&self, has_set: bool) {
        if has_set {
            self.is_set.store(true, Ordering::Release);
        }
        while !self.is_set.load(Ordering::Acquire) {
            thread::yield_now();
        }
    }
}
