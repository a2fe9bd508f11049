//! Servers and clients in an event loop, over real sockets on the loopback interface.
//!
//! [`setup`] makes endpoints, and the addresses and sockets that they need. The other end is a plain
//! socket: `anyloop_testkit::peer`.

#[path = "../endpoints/record.rs"]
#[allow(dead_code, reason = "shared")]
mod record;

mod setup;

mod accepting;
mod connecting;
mod deadlines;
mod descriptors;
mod failing;
mod forking;
mod keep_alive;
mod listening;
mod modes;
mod plain_http;
mod proxy;
mod redirects;
mod registry;
mod resolving;
#[cfg(feature = "tls-core")]
mod tls;
mod traffic;
mod unix;
