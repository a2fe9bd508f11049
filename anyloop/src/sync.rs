//! What threads share: the standard library's. Under `cfg(loom)` it is loom's, which runs a model under
//! every schedule that matters. Under `cfg(anyloop_tsan)` the locks are [`traced`].
//!
//! [`Arc`](std::sync::Arc) is the standard library's in both, for the sake of `Weak` and `Wake`.

#[cfg(anyloop_tsan)]
#[expect(unnameable_types, reason = "of `Lock`")]
mod traced;

/// What no model of loom's shares between threads.
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
/// Those that are also tried.
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
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize};

    #[cfg(loom)]
    pub(crate) use super::modelled::{AtomicBool, AtomicUsize};
    #[cfg(loom)]
    pub(crate) use loom::sync::atomic::AtomicU8;
}

/// What those have of a flag who know nothing of loom.
pub(crate) type SharedBool = std::sync::Arc<std::sync::atomic::AtomicBool>;

/// A flag that is given to them as well.
#[cfg(not(loom))]
pub(crate) type Flag = SharedBool;
#[cfg(loom)]
pub(crate) use modelled::Flag;

/// What loom lacks.
#[cfg(loom)]
mod modelled {
    use std::cell::RefCell;
    use std::ops::{Deref, DerefMut};
    use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};

    use super::SharedBool;
    use super::atomic::Ordering;
    use loom::sync::{Condvar, Mutex, atomic};
    use loom::thread::LocalKey;

    /// As loom's, but for `SeqCst`. Loom takes such loads and stores for acquire and release, under which
    /// two threads may each miss what the other has just stored. It keeps one order of all
    /// read-modify-writes, so that is what they are here.
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

    /// The same for a number.
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

    /// The standard library's flag, with a number that loom watches: each access here goes to both.
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

    /// A lock that can be tried: in loom's own, who tries may have to wait.
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
            self.value.as_ref().expect("it is there until it is dropped")
        }
    }

    impl<T> DerefMut for TryMutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.value.as_mut().expect("it is there until it is dropped")
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

    /// A thread of loom's is not one of the operating system's.
    macro_rules! modelled_thread_local {
        ($(#[$attr:meta])* static $name:ident: $type:ty = const { $init:expr };) => {
            loom::thread_local! {
                $(#[$attr])*
                static $name: $type = $init;
            }
        };
    }
    pub(crate) use modelled_thread_local as thread_local;

    /// What the standard library's keys can do.
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
