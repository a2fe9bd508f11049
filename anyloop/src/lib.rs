//! WebSockets for programs that already have a loop, or want one.
//!
//! Endpoints and transports will live here. Today this crate only passes on the state machine,
//! [`proto`].

pub use anyloop_proto as proto;
