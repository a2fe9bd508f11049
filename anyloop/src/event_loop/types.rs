//! The types that differ between the two kinds of loops.

use super::lock::Lock;
use super::timers::Aborted;

/// The types that differ between the two kinds of loops. Where any thread may run the loop, what it calls must be
/// [`Send`]. Where one thread runs it, its state needs no lock.
///
/// The loop's state is generic over these types. The state depends neither on how a source is run, nor on the types
/// that applications use for a loop. Both are in another trait, [`LoopKind`](super::kind::LoopKind).
#[expect(unnameable_types, reason = "sealed: there are no other kinds")]
pub trait LoopTypes: Sized + 'static {
    /// A source, as a trait object.
    type DynSource: ?Sized;
    /// A posted function.
    type PostedFn: ?Sized + FnOnce();
    /// The function of a timer.
    type TimerFn: ?Sized + FnOnce(Result<(), Aborted>);

    /// The lock of the state that runners share.
    type Lock<T: 'static>: Lock<T>;

    /// Converts a function that another thread has posted.
    fn posted_fn(f: Box<dyn FnOnce() + Send>) -> Box<Self::PostedFn>;

    /// Converts the function of a timer that another thread has set.
    fn timer_fn(f: Box<dyn FnOnce(Result<(), Aborted>) + Send>) -> Box<Self::TimerFn>;
}
