//! Logging by `tracing`, if the feature is enabled.
//!
//! | level | what |
//! |---|---|
//! | error | a listener that cannot accept; an invalid answer of the application to a request |
//! | warn | an address that a server cannot listen on; a loop without work while a server does not accept; a message that no handler takes; the body of a response that cannot be read |
//! | debug | connections that open, end, fail or are redirected; what is not sent; functions that are dropped; errors of writing and of ending the stream |
//!
//! The turns of a connection in a loop are in a debug span `connection` with the index of its slot.

#[cfg(feature = "tracing")]
pub(crate) use on::{describe, enter_connection_span};
#[cfg(feature = "tracing")]
pub(crate) use tracing::{debug, error, warn};

#[cfg(not(feature = "tracing"))]
pub(crate) use off::{debug, describe, enter_connection_span, error, warn};

#[cfg(feature = "tracing")]
mod on {
    use tracing::Level;
    use tracing::level_filters::{LevelFilter, STATIC_MAX_LEVEL};
    use tracing::span::EnteredSpan;

    /// The text that `subject` returns, if a subscriber may want it; otherwise an empty one.
    pub(crate) fn describe(subject: impl FnOnce() -> String) -> String {
        if has_debug_level() { subject() } else { String::new() }
    }

    /// Enters the span of the connection in this slot, until the result is dropped. Every turn does, so what is
    /// returned without a subscriber is a null pointer: a disabled span costs a message 3 % of its instructions.
    #[inline(always)]
    pub(crate) fn enter_connection_span(slot: u32) -> Option<Box<EnteredSpan>> {
        if has_debug_level() { enter(slot) } else { None }
    }

    #[cold]
    fn enter(slot: u32) -> Option<Box<EnteredSpan>> {
        let span = tracing::debug_span!("connection", slot);
        (!span.is_disabled()).then(|| Box::new(span.entered()))
    }

    /// Whether a subscriber has the debug level, for this crate or another: one load and one comparison.
    #[inline(always)]
    fn has_debug_level() -> bool {
        Level::DEBUG <= STATIC_MAX_LEVEL && Level::DEBUG <= LevelFilter::current()
    }
}

#[cfg(not(feature = "tracing"))]
mod off {
    /// Logs nothing, but counts as a use of its arguments.
    macro_rules! silent {
        ($($words:tt)*) => {
            if false {
                let _ = format_args!($($words)*);
            }
        };
    }
    pub(crate) use silent as debug;
    pub(crate) use silent as error;
    pub(crate) use silent as warn;

    /// Does nothing.
    pub(crate) const fn enter_connection_span(slot: u32) {
        let _ = slot;
    }

    /// Does not call the function.
    pub(crate) fn describe(_: impl FnOnce() -> String) -> &'static str {
        ""
    }
}
