//! What most programs need, in addition to the server and the client of the module that carries the bytes.
//!
//! ```
//! use anyloop::iostream::{Client, Server}; // or `anyloop::net`
//! use anyloop::prelude::*;
//! ```

#[cfg(feature = "deflate")]
pub use anyloop_proto::deflate::Deflate;
pub use anyloop_proto::handshake::{Accept, OriginPolicy, Request, Target};
pub use anyloop_proto::{
    Chunk, CloseCode, Ending, Failure, Kind, Message, Payload, Prepared, State, Uncompressed,
};

pub use crate::endpoint::{
    Answer, Body, ClientConfig, ConnectionConfig, Context, EndpointHandle, Handle, Handler,
    HandlerFactory, Handlers, LocalHandlers, MessageWriter, Overflow, SendError, Sent,
    ServerConfig,
};
#[cfg(feature = "net")]
pub use crate::event_loop::{EventLoop, LocalEventLoop};
#[cfg(feature = "router")]
pub use crate::router::Router;
