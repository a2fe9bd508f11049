//! Tests of the opening handshake through its public interface, on a virtual clock.
#![cfg(feature = "std")]

mod client_refused;
mod client_request;
mod client_response;
#[cfg(feature = "deflate")]
mod deflate;
mod drive;
mod extensions;
#[path = "../protocol/heap.rs"]
mod heap;
mod limits;
mod memory;
mod origin;
mod pair;
mod properties;
mod server_answers;
mod server_bodies;
mod server_heads;
mod server_responses;
mod server_upgrades;
mod target;
mod time;
mod tunnel;
