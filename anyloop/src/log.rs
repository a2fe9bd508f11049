//! Logging: `tracing` where the feature is on, and nothing at all where it is off.
//!
//! Connections that open, end or fail are told at the level of debug; what the program did wrong, such
//! as an answer that cannot be given, at that of error.

#[cfg(feature = "tracing")]
pub(crate) use on::describe;
#[cfg(feature = "tracing")]
pub(crate) use tracing::{debug, error};

#[cfg(not(feature = "tracing"))]
pub(crate) use off::{debug, describe, error};

#[cfg(feature = "tracing")]
mod on {
    /// Who a line is about, if anybody reads it.
    pub(crate) fn describe(who: impl FnOnce() -> String) -> String {
        if tracing::enabled!(tracing::Level::DEBUG) { who() } else { String::new() }
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

    /// Nobody is asked.
    pub(crate) fn describe(_: impl FnOnce() -> String) -> &'static str {
        ""
    }
}
