//! What guards the core of a loop: a lock, or in a loop that is bound to one thread, nothing but a look
//! at whether it is borrowed.

use std::cell::{RefCell, RefMut};
use std::ops::DerefMut;
use std::sync::PoisonError;
use std::time::Duration;

use crate::sync::{Condvar, Mutex, MutexGuard};

/// Lends what is in it to one at a time. Nobody calls program code meanwhile, so a panic elsewhere leaves it
/// as it was, and nobody asks for it who has it.
#[expect(unnameable_types, reason = "of `Sealed`")]
pub trait Lock<T> {
    type Guard<'l>: DerefMut<Target = T>
    where
        Self: 'l;

    fn new(value: T) -> Self;
    fn lock(&self) -> Self::Guard<'_>;
    fn get_mut(&mut self) -> &mut T;

    /// Sleeps until somebody has changed something, or for no longer than this.
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

    /// There is no other thread that could be waited for.
    fn wait<'l>(
        guard: Self::Guard<'l>,
        _changed: &Condvar,
        _timeout: Option<Duration>,
    ) -> Self::Guard<'l> {
        guard
    }
}
