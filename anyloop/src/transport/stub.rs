//! A transport with everything left out: the place to begin one's own.
//!
//! Every operation fails, so a connection over it can be made, and ends as soon as it has something to
//! say. To write a transport:
//!
//! 1. Copy this file. Put what carries the bytes into the struct.
//! 2. Give both methods of [`Transport`] their meaning. Begin with [`write`](Transport::write): write
//!    what can be written at once, return how much that was, and remember that the driver waits if it
//!    was not all. Override the others where the defaults are wrong.
//! 3. Where a stream comes to exist, make a driver ([`Server::driver`](crate::Server::driver),
//!    [`Client::driver`](crate::Client::driver)), and call its [`start`](super::Driver::start).
//! 4. When something happens, call what the table in [`Transport`] says, each time with the present
//!    instant, and then ask the driver what to do [next](super::Driver#what-to-do-next). To bound how many
//!    handlers are called before other connections are served, set a
//!    [budget](super::Driver#bounded-handlers) first.
//!
//! `tests/endpoints/toy.rs` in the repository is a transport that was written by these steps.

use std::io::{self, ErrorKind, IoSlice};

use anyloop_proto::Shutdown;

use super::Transport;

/// The transport that carries nothing.
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
    // Write what can be written at once. A socket would be non-blocking, and "would block" Ok(0).
    fn write(&mut self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(io::Error::new(ErrorKind::Unsupported, "write is not implemented"))
    }

    // Half-close, close or abort. If the sending direction cannot be shut down alone, override
    // `can_half_close`.
    fn shutdown(&mut self, _: Shutdown) -> io::Result<()> {
        Err(io::Error::new(ErrorKind::Unsupported, "shutdown is not implemented"))
    }
}
