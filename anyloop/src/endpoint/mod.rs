//! What servers and clients have in common over any transport, and the types of their connections.
//!
//! An *endpoint* is a server or a client: it has a configuration, and makes the handlers of its connections.

mod client;
mod closures;
mod config;
mod core;
mod head;
mod methods;
#[cfg(feature = "tls-core")]
mod over_tls;
pub(crate) mod sealed;
mod server;
mod settings;
#[cfg(feature = "net")]
mod sockets;

pub use client::Client;
pub use config::{ClientConfig, ServerConfig};
#[cfg(feature = "tls-core")]
pub use over_tls::{ClientOverTls, OverTlsError, ServerOverTls};
pub use server::Server;

// The types of connections.
pub use crate::session::{
    Answer, AnyHandle, AsMessage, Body, BodyWriter, ConnectionConfig, ConnectionId, Context,
    Counters, EndpointHandle, Handle, Handler, HandlerFactory, Handlers, HandshakeInfo,
    LocalHandlers, MessageWriter, Overflow, SendError, Sent, Session, TimerId,
};
pub use crate::stream::{Completion, Unsent};
pub use crate::threading::{Local, Threads};

// For the transports of this crate.
#[cfg(feature = "net")]
pub(crate) use self::core::options_without_auto_pong;
pub(crate) use self::core::{ClientCore, ServerCore};
pub(crate) use client::client_methods;
pub(crate) use closures::{closure_setter, closure_setters};
pub(crate) use head::encode_request_head;
pub(crate) use methods::{constructors, endpoint_methods, local_endpoint};
#[cfg(feature = "tls-core")]
pub(crate) use over_tls::over_tls;
pub(crate) use server::server_methods;
#[cfg(feature = "net")]
pub(crate) use sockets::{ConnectOptions, ListenOptions};
