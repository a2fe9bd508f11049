//! Finding a handler by its type.

use std::any::{Any, TypeId};

use super::Handler;

/// The handler of a session, and those that it delegates to: a router may select a router.
#[expect(unnameable_types, reason = "only the hidden methods of `Handler` use it")]
pub trait AnyHandler {
    /// The innermost handler of this type.
    fn find(&self, wanted: TypeId) -> Option<&dyn Any>;

    /// The innermost handler of this type.
    fn find_mut(&mut self, wanted: TypeId) -> Option<&mut dyn Any>;
}

impl<H: Handler> AnyHandler for H {
    fn find(&self, wanted: TypeId) -> Option<&dyn Any> {
        let inner = self.delegate().and_then(|delegate| delegate.find(wanted));
        inner.or_else(|| (TypeId::of::<H>() == wanted).then_some(self as &dyn Any))
    }

    fn find_mut(&mut self, wanted: TypeId) -> Option<&mut dyn Any> {
        // `find` is asked first: had `find_mut` returned `None`, the compiler would still see `self` as borrowed.
        if self.delegate().is_some_and(|delegate| delegate.find(wanted).is_some()) {
            return self.delegate_mut()?.find_mut(wanted);
        }
        (TypeId::of::<H>() == wanted).then_some(self as &mut dyn Any)
    }
}
