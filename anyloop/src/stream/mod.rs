//! Byte streams, and the contract between them and the protocols over them.
//!
//! Nothing here depends on which protocol it is, and only a [`Transport`] depends on the kind of the byte stream.
//!
//! ```text
//!   StreamProtocol    takes input, calls handlers, appends output; no I/O    (session::Session, tls::TlsStream)
//!        ^ v
//!   Driver            writes the output, ends the stream, keeps the queues
//!        ^ v
//!   Transport         writes and shuts down, without blocking                (sockets, iostream, yours)
//! ```

mod budget;
mod buffers;
mod completion;
mod cork;
mod driver;
mod layer;
mod protocol;
mod queued;
mod seal;
mod send_buffer;
mod transport;
mod write_buffer;

pub use budget::Budget;
pub use buffers::Buffers;
pub(crate) use completion::report_unsent;
pub use completion::{Completion, Unsent};
#[cfg(feature = "tls-core")]
pub(crate) use cork::Scratch;
pub use driver::Driver;
#[cfg(feature = "tls-core")]
pub(crate) use layer::LayerGuard;
pub use protocol::{Progress, StreamProtocol, Wants};
pub(crate) use queued::{Queued, Unread};
#[cfg(feature = "tls-core")]
pub(crate) use seal::{MAX_RECORD_PLAINTEXT, Seal};
pub use transport::{Peer, Transport};
pub use write_buffer::WriteBuffer;
pub(crate) use write_buffer::{OwnedPayloadOutput, WriteGuard};
