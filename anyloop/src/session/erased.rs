//! Functions for a handler, stored without the type of the handler.
//!
//! So the state of a session does not depend on the type of its handler. A handler that delegates to another handler,
//! as a router does, can lend the session to that one.

use std::any::TypeId;
use std::sync::Arc;

use super::handler::{AnyHandler, Context, Handler};

/// The handler type of a context and of a handle that serve handlers of any type.
pub(super) struct Untyped;

impl Handler for Untyped {}

/// A function that was posted, or that a timer calls. It runs on the strand of the connection, with a handler of any
/// type.
pub(super) type ErasedFn = dyn FnOnce(&mut dyn AnyHandler, &mut Context<'_, Untyped>) + Send;

/// A function that is called with the handler of type `H`, or dropped uncalled if the connection has none.
pub(super) fn erased_fn<H: Handler>(
    f: impl FnOnce(&mut H, &mut Context<'_, H>) + Send + 'static,
) -> Box<ErasedFn> {
    Box::new(move |handler, context| {
        let found = handler.find_mut(TypeId::of::<H>());
        match found.and_then(|handler| handler.downcast_mut()) {
            Some(handler) => context.call(handler, f),
            None => crate::log::debug!(
                "a function is dropped uncalled: the connection has no handler of its type"
            ),
        }
    })
}

/// A function that is called whatever the type of the handler is.
pub(super) fn erased_fn_for_any(
    f: impl FnOnce(&mut Context<'_, Untyped>) + Send + 'static,
) -> Box<ErasedFn> {
    Box::new(move |_, context| f(context))
}

/// Selects the handlers that receive a broadcast.
pub(crate) type Filter = Arc<dyn Fn(&dyn AnyHandler) -> bool + Send + Sync>;

/// A filter that accepts the handlers of type `H` that `accepts` accepts, and no others.
pub(super) fn erased_filter<H: Handler>(
    accepts: impl Fn(&H) -> bool + Send + Sync + 'static,
) -> Filter {
    Arc::new(move |handler| {
        let found = handler.find(TypeId::of::<H>());
        found.and_then(|handler| handler.downcast_ref()).is_some_and(&accepts)
    })
}
