//! Frames (RFC 6455 §5.2): headers and masking.
//!
//! A [`Connection`](crate::Connection) handles frames by itself. These items are public for tools:
//! load generators, fuzzers, protocol analysers.

mod header;
mod mask;

pub(crate) use header::{DecodedHeader, HeaderRules};
pub use header::{FrameHeader, MAX_HEADER_SIZE, Opcode, Rsv};
pub(crate) use mask::mask_small;
pub use mask::{mask, rotate_key};

/// The largest payload of a control frame, in bytes (RFC 6455 §5.5).
pub const MAX_CONTROL_PAYLOAD: usize = 125;
