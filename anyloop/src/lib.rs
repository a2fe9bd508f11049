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
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `net` | yes | sockets, and the event loop that serves them: the modules `net` and `event_loop`. They need `mio` and `socket2`, on Unix `libc`, and on Linux `rustix` |
//! | `tracing` | no | logging to [`tracing`](https://docs.rs/tracing): connections and errors |
//!
//! A feature adds API and changes nothing else. Without `net`, a program carries the bytes itself: with
//! [`iostream`](transport::iostream), or over a [transport](transport::stub) of its own.
#![deny(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
// Other layers have items that only the event loop uses. They are not gated one by one.
#![cfg_attr(not(feature = "net"), allow(dead_code, unused_imports))]

mod cold;
pub mod endpoint;
#[cfg(feature = "net")]
pub mod event_loop;
mod log;
#[cfg(feature = "net")]
pub mod net;
mod session;
mod stream;
mod sync;
pub mod transport;

pub use anyloop_proto as proto;
pub use endpoint::{Client, Handler, Handlers, Server};
#[cfg(feature = "net")]
pub use event_loop::{EventLoop, LocalEventLoop};

/// Compiles and runs what README.md shows.
#[cfg(all(doctest, feature = "net"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles and runs what the guide shows.
#[cfg(all(doctest, feature = "net"))]
#[doc = include_str!("../docs/io-strategy.md")]
struct IoStrategy;
