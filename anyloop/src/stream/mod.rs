//! Byte streams, and the contract between them and what speaks a protocol over them.
//!
//! Nothing here knows what the protocol is, and only a [`Transport`] knows what carries the bytes.
//!
//! ```text
//!   StreamProtocol    takes input, calls handlers, appends output; no I/O    (session::Session)
//!        ^ v
//!   Driver            writes the output, ends the stream, keeps what waits
//!        ^ v
//!   Transport         writes and shuts down, without blocking                (sockets, iostream, yours)
//! ```

mod backlog;
mod budget;
mod buffers;
mod driver;
mod protocol;
mod queued;
mod transport;
mod write_buffer;

pub use backlog::{Completion, Unsent};
pub use budget::Budget;
pub use buffers::Buffers;
pub use driver::Driver;
pub use protocol::{Progress, StreamProtocol, Wants};
pub(crate) use queued::Queued;
pub use transport::{Peer, Transport};
pub use write_buffer::WriteBuffer;
pub(crate) use write_buffer::WriteGuard;
