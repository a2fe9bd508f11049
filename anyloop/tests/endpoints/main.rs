//! Endpoints, tested from outside: the same tests over each transport.
//!
//! [`transports`] makes one trait of iostream and the stepping transport; [`toy`] is a third transport, written for
//! these tests, which can bound how many handlers are called in a turn; [`net`] is the one with an event loop, over TCP
//! and Unix sockets, where no clock can be moved; `tls` puts TLS over some of them. [`subject`] is one end under test,
//! or two joined. [`record`] logs the events that handlers get. [`wire`] builds and reads frames by hand.

#[cfg(feature = "net")]
mod net;
mod record;
mod subject;
#[cfg(feature = "tls-core")]
mod tls;
mod toy;
mod transports;
mod wire;

mod bodies;
mod closing;
#[cfg(feature = "deflate")]
mod compression;
mod configuring;
mod endings;
mod events;
mod factories;
mod failures;
mod handles;
#[cfg(feature = "tls-core")]
mod held_back;
mod iostream;
mod opening;
mod pieces;
mod races;
mod reading;
mod registry;
#[cfg(feature = "router")]
mod router;
mod send_buffer;
mod sending;
mod stepping;
mod timers;
