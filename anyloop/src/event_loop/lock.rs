//! The lock of a loop's core: a mutex, or a `RefCell` if the loop is bound to one thread.

use std::cell::{RefCell, RefMut};
use std::ops::DerefMut;
use std::sync::PoisonError;
use std::time::Duration;

use crate::sync::{Condvar, Mutex, MutexGuard};

/// Exclusive access to a value. No application code runs while it is locked: so no thread locks it twice, and no panic
/// leaves the value half changed.
// Not `expect`: Rust 1.85 does not see that the trait is reachable, and reports the second instead of the first.
#[allow(unnameable_types, unreachable_pub, reason = "of the interface of the sealed `LoopKind`")]
pub trait Lock<T> {
    type Guard<'l>: DerefMut<Target = T>
    where
        Self: 'l;

    fn new(value: T) -> Self;
    fn lock(&self) -> Self::Guard<'_>;
    fn get_mut(&mut self) -> &mut T;

    /// Unlocks the value, and locks it again after a notification of `changed`, or after `timeout`. It may also
    /// return earlier.
    fn wait<'l>(
        guard: Self::Guard<'l>,
        changed: &Condvar,
        timeout: Option<Duration>,
    ) -> Self::Guard<'l>;
}

impl<T: 'static> Lock<T> for Mutex<T> {
    type Guard<'l> = MutexGuard<'l, T>;

    fn new(value: T) -> Self {
        Self::new(value)
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get_mut(&mut self) -> &mut T {
        self.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'l>(
        guard: Self::Guard<'l>,
        changed: &Condvar,
        timeout: Option<Duration>,
    ) -> Self::Guard<'l> {
        match timeout {
            None => changed.wait(guard).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                changed.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }
}

impl<T: 'static> Lock<T> for RefCell<T> {
    type Guard<'l> = RefMut<'l, T>;

    fn new(value: T) -> Self {
        Self::new(value)
    }

    #[inline]
    fn lock(&self) -> RefMut<'_, T> {
        self.borrow_mut()
    }

    fn get_mut(&mut self) -> &mut T {
        self.get_mut()
    }

    /// Returns at once, since no other thread could send a notification.
    fn wait<'l>(
        guard: Self::Guard<'l>,
        _changed: &Condvar,
        _timeout: Option<Duration>,
    ) -> Self::Guard<'l> {
        guard
    }
}
