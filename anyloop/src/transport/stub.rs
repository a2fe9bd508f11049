//! A transport with everything left out: the place to begin one's own.
//!
//! Every operation fails with [`NotImplemented`], so an endpoint over it can be built, configured and
//! tested up to the point where bytes would move. To write a transport:
//!
//! 1. Copy this file. Put what carries the bytes into the struct.
//! 2. Give every method of [`Transport`] its meaning. Begin with [`write`](Transport::write): write
//!    what goes at once, return how much that was, and remember that the session waits for you if it
//!    was not all.
//! 3. Where the stream comes to be, make a [`Session`](crate::endpoint::Session) from an endpoint
//!    ([`Server::session`](crate::endpoint::Server::session),
//!    [`Client::session`](crate::endpoint::Client::session)) and call its `start`.
//! 4. Where things happen, call what the table in [`Transport`] says, each time with the present
//!    instant, until [`Session::is_over`](crate::endpoint::Session::is_over).
//!
//! `tests/endpoints/toy.rs` in the repository is a transport written by these steps.

use std::io::IoSlice;
use std::task::Waker;

use anyloop_proto::{Instant, Shutdown, TransportError};

use super::Transport;

/// The transport that carries nothing.
///
/// ```
/// use std::io::IoSlice;
/// use anyloop::transport::{Transport, stub::{NotImplemented, Stub}};
///
/// assert_eq!(Stub.write(&[IoSlice::new(b"bytes")]), Err(NotImplemented("write")));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Stub;

/// The operation named is not implemented.
///
/// The example of [`Stub`] meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not implemented")]
pub struct NotImplemented(pub &'static str);

impl Transport for Stub {
    type Error = NotImplemented;

    // What all connections of an endpoint have in common.
    type Endpoint = ();

    // Write what can be written at once. A socket would be set non-blocking, and "would block"
    // would be Ok(0).
    fn write(&mut self, _: &[IoSlice<'_>]) -> Result<usize, NotImplemented> {
        Err(NotImplemented("write"))
    }

    // Half-close, close or abort. For a stream without halves, have `has_halves` say so.
    fn shutdown(&mut self, _: Shutdown) -> Result<(), NotImplemented> {
        Err(NotImplemented("shutdown"))
    }

    // Keep the deadline where your clock looks at it. A transport that does nothing here has no
    // timeouts: a silent peer keeps its connection for ever.
    fn set_deadline(&mut self, _: Option<Instant>) {}

    // Wake the thread that drives the session, so that it calls `drain`. With `Waker::noop()` what
    // other threads ask for waits until something else happens.
    fn waker(&self) -> Waker {
        Waker::noop().clone()
    }

    // Say whether the peer is gone, or something else went wrong.
    fn classify(_: &NotImplemented) -> TransportError {
        TransportError::Other
    }

    fn is_secure(&self) -> bool {
        false
    }

    fn remote_endpoint(&self) -> String {
        "nobody (stub transport)".to_string()
    }
}
