//! Endpoints: servers and clients, whatever carries the bytes.

mod client;
mod closures;
mod core;
mod server;
mod settings;

pub use client::Client;
pub use server::Server;
pub use settings::{ClientSettings, ServerSettings, TransportEndpoint};

// What an endpoint's connections are made of.
pub use crate::session::{
    BacklogLimits, ConnectionId, Context, Counters, Handle, Handler, HandlerFactory, Handlers,
    HandshakeInfo, LocalHandlers, Overflow, SendError, Sent, Session, TimerId, Verdict,
};
pub use crate::stream::{Completion, Unsent};

// For transports of this crate.
pub(crate) use self::core::ServerCore;
