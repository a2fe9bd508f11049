//! Utilities for tests of WebSocket code.
//!
//! - [`frames`] builds frames and parses them.
//! - [`requests`] has requests and responses of an opening handshake, and modifies them.
//! - [`peer`] is the other end of a connection: a blocking TCP or Unix socket.
//! - `tls` issues certificates, and is the other end of TLS (feature `tls`).
//! - [`wait`] waits for a condition, for a thread that sleeps, or for time to pass.
//! - [`watchdog`] fails a test that hangs.
//!
//! Frames and heads are built and parsed without the code under test, so that its errors are found.
//! Functions panic if the test must fail.
#![forbid(unsafe_code)]

pub mod frames;
pub mod peer;
pub mod requests;
#[cfg(feature = "tls")]
pub mod tls;
pub mod wait;
pub mod watchdog;
