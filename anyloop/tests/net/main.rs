//! Servers and clients in an event loop, over real sockets on the loopback interface.
//!
//! [`scene`] makes endpoints, and waits for what must come; [`peer`] is the other end as plain sockets,
//! which speak by the `wire` of the tests of the endpoints.

#[path = "../endpoints/record.rs"]
#[allow(dead_code, reason = "shared")]
mod record;
#[path = "../endpoints/wire.rs"]
#[allow(dead_code, reason = "shared")]
mod wire;

mod peer;
mod scene;

mod accepting;
mod connecting;
mod deadlines;
mod descriptors;
mod failing;
mod keeping;
mod listening;
mod modes;
mod resolving;
mod roster;
mod traffic;
mod unix;
