//! WebSockets for programs that already have a loop, or want one.
//!
//! An *endpoint* ([`Server`], [`Client`]) holds configuration and makes connections; what the
//! application says to what happens on a connection is a [`Handler`], or a few closures
//! ([`Handlers`]); what carries the bytes is a [`Transport`](transport::Transport). The protocol
//! itself is in [`proto`], which all of this drives.
//!
//! ```
//! use anyloop::proto::handshake::{OriginPolicy, ServerOptions};
//! use anyloop::transport::iostream::IoStream;
//! use anyloop::Server;
//!
//! let mut server = Server::<IoStream>::new(ServerOptions::new(OriginPolicy::Any));
//! server.on_message(|message, context| {
//!     let _ = context.send(message); // an echo
//! });
//! let connection = server.connection();
//! connection.register_output(std::io::stdout());
//! // ... and `connection.read_from(&mut std::io::stdin())` until `connection.is_over()`
//! ```
#![forbid(unsafe_code)]

mod cold;
pub mod endpoint;
pub mod event_loop;
mod log;
pub mod net;
mod session;
mod stream;
mod sync;
pub mod transport;

pub use anyloop_proto as proto;
pub use endpoint::{Client, Handler, Handlers, Server};
pub use event_loop::{EventLoop, LocalEventLoop};

/// Compiles and runs what README.md shows.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles and runs what the guide shows.
#[cfg(doctest)]
#[doc = include_str!("../docs/io-strategy.md")]
struct IoStrategy;
