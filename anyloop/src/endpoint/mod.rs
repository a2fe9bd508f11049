//! Endpoints: servers and clients, over any transport.

mod client;
mod closures;
mod config;
mod core;
mod head;
#[cfg(feature = "tls-core")]
mod over_tls;
mod server;
mod settings;
#[cfg(feature = "net")]
mod sockets;

pub use client::Client;
pub use config::{ClientConfig, ServerConfig};
#[cfg(feature = "tls-core")]
pub use over_tls::{ClientOverTls, OverTlsError, ServerOverTls};
pub use server::Server;

// The parts of connections.
pub use crate::session::{
    Answer, AnyHandle, AsMessage, Body, BodyWriter, ConnectionConfig, ConnectionId, Context,
    Counters, EndpointHandle, Handle, Handler, HandlerFactory, Handlers, HandshakeInfo,
    LocalHandlers, MessageWriter, Overflow, SendError, Sent, Session, TimerId,
};
pub use crate::stream::{Completion, Unsent};
pub use crate::threading::{Local, Threads};

// For transports of this crate.
#[cfg(feature = "net")]
pub(crate) use self::core::{ClientCore, ServerCore, handler_options};
pub(crate) use head::request_head;
#[cfg(feature = "net")]
pub(crate) use sockets::{ConnectOptions, ListenOptions};
