//! Logging: `tracing` where the feature is on, and nothing at all where it is off.

#[cfg(feature = "tracing")]
pub(crate) use tracing::{debug, error};

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
}

#[cfg(not(feature = "tracing"))]
pub(crate) use off::{debug, error};
