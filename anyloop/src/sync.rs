//! Locks, atomics and threads: the standard library's. Under `cfg(loom)` they are loom's, which runs a model under
//! every relevant schedule. Under `cfg(anyloop_tsan)` the locks are [`traced`].
//!
//! [`Arc`](std::sync::Arc) is always the standard library's, since loom's lacks `Weak` and `Wake`.

#[cfg(anyloop_tsan)]
#[expect(
    unnameable_types,
    missing_debug_implementations,
    reason = "of the interface of the sealed `LoopKind`"
)]
mod traced;

/// Locks that no loom model shares between threads: the standard library's, which loom does not replace.
pub(crate) mod unmodelled {
    #[cfg(anyloop_tsan)]
    pub(crate) use super::traced::{Condvar, Mutex, MutexGuard, OnceLock};
    #[cfg(not(anyloop_tsan))]
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
}

#[cfg(not(loom))]
pub(crate) use std::{thread, thread_local};
#[cfg(not(loom))]
pub(crate) use unmodelled::{Condvar, Mutex, MutexGuard};
// Loom's own `try_lock` may wait, so the mutexes that need the method have a name of their own.
#[cfg(not(loom))]
pub(crate) use unmodelled::{Mutex as TryMutex, MutexGuard as TryMutexGuard};

#[cfg(loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(loom)]
pub(crate) use loom::thread;
#[cfg(loom)]
pub(crate) use modelled::{TryMutex, TryMutexGuard, WithBorrow, thread_local};

pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::Ordering;

    #[cfg(not(loom))]
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};

    #[cfg(loom)]
    pub(crate) use super::modelled::{AtomicBool, AtomicUsize};
    #[cfg(loom)]
    pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU64};
}

/// A flag of the standard library, for code that is not modelled.
pub(crate) type SharedBool = std::sync::Arc<std::sync::atomic::AtomicBool>;

/// A flag that modelled code and other code share.
#[cfg(not(loom))]
pub(crate) type Flag = SharedBool;
#[cfg(loom)]
pub(crate) use modelled::Flag;

/// Types that loom lacks.
#[cfg(loom)]
mod modelled {
    use std::cell::RefCell;
    use std::ops::{Deref, DerefMut};
    use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};

    use super::SharedBool;
    use super::atomic::Ordering;
    use loom::sync::{Condvar, Mutex, atomic};
    use loom::thread::LocalKey;

    /// Loom's, with support for `SeqCst`. Loom treats `SeqCst` loads and stores as acquire and release, under which two
    /// threads may each miss the other's store. It keeps one order of all read-modify-writes, so these are used here.
    #[derive(Debug, Default)]
    pub(crate) struct AtomicBool(atomic::AtomicBool);

    impl AtomicBool {
        pub(crate) fn new(value: bool) -> Self {
            Self(atomic::AtomicBool::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> bool {
            match order {
                Ordering::SeqCst => self.0.fetch_or(false, order),
                order => self.0.load(order),
            }
        }

        pub(crate) fn store(&self, value: bool, order: Ordering) {
            match order {
                Ordering::SeqCst => drop(self.0.swap(value, order)),
                order => self.0.store(value, order),
            }
        }

        pub(crate) fn swap(&self, value: bool, order: Ordering) -> bool {
            self.0.swap(value, order)
        }
    }

    /// Like [`AtomicBool`], for a number.
    #[derive(Debug, Default)]
    pub(crate) struct AtomicUsize(atomic::AtomicUsize);

    impl AtomicUsize {
        pub(crate) fn new(value: usize) -> Self {
            Self(atomic::AtomicUsize::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> usize {
            match order {
                Ordering::SeqCst => self.0.fetch_add(0, order),
                order => self.0.load(order),
            }
        }

        pub(crate) fn fetch_add(&self, value: usize, order: Ordering) -> usize {
            self.0.fetch_add(value, order)
        }

        pub(crate) fn fetch_sub(&self, value: usize, order: Ordering) -> usize {
            self.0.fetch_sub(value, order)
        }

        pub(crate) fn fetch_update(
            &self,
            set: Ordering,
            fetch: Ordering,
            f: impl FnMut(usize) -> Option<usize>,
        ) -> Result<usize, usize> {
            self.0.fetch_update(set, fetch, f)
        }

        pub(crate) fn swap(&self, value: usize, order: Ordering) -> usize {
            self.0.swap(value, order)
        }
    }

    /// The standard library's flag, which code that is not modelled reads directly, and a number that loom watches.
    /// `load` and `store` access both.
    #[derive(Debug, Default)]
    pub(crate) struct Flag {
        watched: atomic::AtomicUsize,
        flag: SharedBool,
    }

    impl Flag {
        pub(crate) fn load(&self, order: Ordering) -> bool {
            self.watched.fetch_add(0, order);
            self.flag.load(order)
        }

        pub(crate) fn store(&self, value: bool, order: Ordering) {
            self.watched.fetch_add(1, order);
            self.flag.store(value, order);
        }
    }

    impl Deref for Flag {
        type Target = SharedBool;

        fn deref(&self) -> &Self::Target {
            &self.flag
        }
    }

    /// A mutex with `try_lock`. In loom's own, `try_lock` may have to wait.
    pub(crate) struct TryMutex<T> {
        held: Mutex<bool>,
        freed: Condvar,
        value: std::sync::Mutex<T>,
    }

    pub(crate) struct TryMutexGuard<'l, T> {
        lock: &'l TryMutex<T>,
        value: Option<std::sync::MutexGuard<'l, T>>,
    }

    impl<T> TryMutex<T> {
        pub(crate) fn new(value: T) -> Self {
            let value = std::sync::Mutex::new(value);
            Self { held: Mutex::new(false), freed: Condvar::new(), value }
        }

        pub(crate) fn lock(&self) -> LockResult<TryMutexGuard<'_, T>> {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            while *held {
                held = self.freed.wait(held).unwrap_or_else(PoisonError::into_inner);
            }
            *held = true;
            Ok(self.guard())
        }

        pub(crate) fn try_lock(&self) -> TryLockResult<TryMutexGuard<'_, T>> {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            match std::mem::replace(&mut *held, true) {
                true => Err(TryLockError::WouldBlock),
                false => Ok(self.guard()),
            }
        }

        fn guard(&self) -> TryMutexGuard<'_, T> {
            let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
            TryMutexGuard { lock: self, value: Some(value) }
        }
    }

    impl<T> Deref for TryMutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.value.as_ref().expect("the guard is present until it is dropped")
        }
    }

    impl<T> DerefMut for TryMutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.value.as_mut().expect("the guard is present until it is dropped")
        }
    }

    impl<T> Drop for TryMutexGuard<'_, T> {
        fn drop(&mut self) {
            self.value = None;
            if std::thread::panicking() {
                return; // the model has failed
            }
            *self.lock.held.lock().unwrap_or_else(PoisonError::into_inner) = false;
            self.lock.freed.notify_one();
        }
    }

    /// Thread-locals of loom's threads, which are not threads of the operating system.
    macro_rules! modelled_thread_local {
        ($(#[$attr:meta])* static $name:ident: $type:ty = const { $init:expr };) => {
            loom::thread_local! {
                $(#[$attr])*
                static $name: $type = $init;
            }
        };
    }
    pub(crate) use modelled_thread_local as thread_local;

    /// Methods of the standard library's `LocalKey`, which loom's lacks.
    pub(crate) trait WithBorrow<T> {
        fn with_borrow<R>(&'static self, f: impl FnOnce(&T) -> R) -> R;
        fn with_borrow_mut<R>(&'static self, f: impl FnOnce(&mut T) -> R) -> R;
    }

    impl<T: 'static> WithBorrow<T> for LocalKey<RefCell<T>> {
        fn with_borrow<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
            self.with(|cell| f(&cell.borrow()))
        }

        fn with_borrow_mut<R>(&'static self, f: impl FnOnce(&mut T) -> R) -> R {
            self.with(|cell| f(&mut cell.borrow_mut()))
        }
    }
}
