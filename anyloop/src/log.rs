//! Logging: `tracing` where the feature is on, and nothing at all where it is off.
//!
//! Connections that open, end or fail are told at the level of debug; what the program did wrong, such
//! as an answer that cannot be given, at that of error. What the loop does for a connection is in a span
//! at the level of debug, `connection`, with the number of its slot.

#[cfg(feature = "tracing")]
pub(crate) use on::{describe, in_connection};
#[cfg(feature = "tracing")]
pub(crate) use tracing::{debug, error, warn};

#[cfg(not(feature = "tracing"))]
pub(crate) use off::{debug, describe, error, in_connection, warn};

#[cfg(feature = "tracing")]
mod on {
    /// The subject of a log line, if the line is enabled.
    pub(crate) fn describe(who: impl FnOnce() -> String) -> String {
        if tracing::enabled!(tracing::Level::DEBUG) { who() } else { String::new() }
    }

    /// Everything is about the connection in this slot until what is returned is dropped.
    pub(crate) fn in_connection(slot: u32) -> tracing::span::EnteredSpan {
        tracing::debug_span!("connection", slot).entered()
    }
}

#[cfg(not(feature = "tracing"))]
mod off {
    /// Says nothing, but keeps what it is given in use.
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

    /// As long as nobody hears of it, it need not be said.
    pub(crate) const fn in_connection(slot: u32) {
        let _ = slot;
    }

    /// Nobody is asked.
    pub(crate) fn describe(_: impl FnOnce() -> String) -> &'static str {
        ""
    }
}
