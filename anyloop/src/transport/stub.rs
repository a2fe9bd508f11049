//! A template for transports.
//!
//! Every operation fails, so a connection over it can be created, and ends with its first output. To write a transport:
//!
//! 1. Copy this file. Put the byte stream into the struct.
//! 2. Implement both methods of [`Transport`]. Begin with [`write`](Transport::write): write what can be written
//!    without blocking, and return its length. After a short write, remember to report when the stream takes more.
//!    Override the other methods where the defaults are wrong.
//! 3. When a stream is connected, create a driver ([`Server::driver`](crate::transport::Server::driver),
//!    [`Client::driver`](crate::transport::Client::driver)), and call its [`start`](super::Driver::start).
//! 4. Report each event by the method in the table of [`Transport`], with the current instant, and then ask the driver
//!    what to do [next](super::Driver#what-to-do-next). To bound the number of handlers that run before other
//!    connections are served, set a [budget](super::Driver#bounded-handlers) first.
//!
//! `tests/endpoints/toy.rs` in the repository is a transport that was written by these steps.

use std::io::{self, ErrorKind, IoSlice};

use anyloop_proto::Shutdown;

use super::Transport;

/// A transport that fails.
///
/// ```
/// use std::io::{ErrorKind, IoSlice};
/// use anyloop::transport::{Transport, stub::Stub};
///
/// let error = Stub.write(&[IoSlice::new(b"bytes")]).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Unsupported);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Stub;

impl Transport for Stub {
    // Write what can be written without blocking. If a non-blocking socket would block, return Ok(0).
    fn write(&mut self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(io::Error::new(ErrorKind::Unsupported, "write is not implemented"))
    }

    // Half-close, close or abort. If the sending direction cannot be shut down alone, override
    // `can_half_close`.
    fn shutdown(&mut self, _: Shutdown) -> io::Result<()> {
        Err(io::Error::new(ErrorKind::Unsupported, "shutdown is not implemented"))
    }
}
