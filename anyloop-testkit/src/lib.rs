//! What tests of WebSocket code share.
//!
//! - [`frames`] builds frames and parses them.
//! - [`requests`] has the two heads of an opening handshake, and changes them.
//! - [`peer`] is the other end of a connection: a plain TCP or Unix socket.
//! - [`wait`] waits for a condition, and names the places where time must pass.
//! - [`watchdog`] fails a test that hangs.
//!
//! Frames and heads are built and parsed here by hand, so that the code under test does not judge itself.
//! Everything here panics where a test is to fail.
#![forbid(unsafe_code)]

pub mod frames;
pub mod peer;
pub mod requests;
pub mod wait;
pub mod watchdog;
