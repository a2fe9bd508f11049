//! Servers and clients in an event loop, over real sockets on the loopback interface.
//!
//! [`scene`] makes endpoints, and the addresses and sockets that they need. The other end is a plain
//! socket: `anyloop_testkit::peer`.

#[path = "../endpoints/record.rs"]
#[allow(dead_code, reason = "shared")]
mod record;

mod scene;

mod accepting;
mod connecting;
mod deadlines;
mod descriptors;
mod failing;
mod forking;
mod keeping;
mod listening;
mod modes;
mod resolving;
mod roster;
mod traffic;
mod unix;
