//! The transport that does its own networking, in an [`EventLoop`](crate::EventLoop).
//!
//! An echo server, and a client that talks to it, both in one loop:
//!
//! ```
//! use anyloop::endpoint::ClientSettings;
//! use anyloop::net::Net;
//! use anyloop::proto::CloseCode;
//! use anyloop::proto::handshake::{OriginPolicy, ServerOptions};
//! use anyloop::{Client, EventLoop, Server};
//!
//! let event_loop = EventLoop::new()?;
//!
//! let mut server = Server::<Net>::new(ServerOptions::new(OriginPolicy::Any));
//! server.set_event_loop(&event_loop)?;
//! server.on_message(|message, context| _ = context.send(message));
//! let address = server.listen("127.0.0.1:0")?;
//! server.start_accept()?;
//!
//! let mut client = Client::<Net>::new(ClientSettings::default());
//! client.set_event_loop(&event_loop)?;
//! client.on_open(|context| _ = context.send("hello"));
//! client.on_message(|message, context| {
//!     assert_eq!(message.as_bytes(), b"hello");
//!     let _ = context.close(CloseCode::NORMAL, "");
//! });
//! let stop = event_loop.handle();
//! client.on_close(move |ending, _| {
//!     assert!(ending.clean);
//!     stop.stop().unwrap();
//! });
//! client.connect(format!("ws://{address}/").as_str())?;
//!
//! event_loop.run();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Without [`set_event_loop`](crate::Server::set_event_loop), an endpoint makes a loop of its own when
//! it needs one.

mod acceptor;
mod carries;
mod client;
mod connecting;
mod endpoint;
mod error;
mod eyeballs;
mod host;
mod listener;
mod options;
mod registry;
mod resolver;
mod server;
mod serves;
mod transport;

pub use client::ConnectRequest;
pub use endpoint::Endpoint;
pub use error::{ConnectError, Error, Stage};
pub use listener::LocalAddress;
pub use options::{ConnectOptions, ListenOptions};
pub use server::{AsAddress, Listening};
pub use serves::Serves;
pub use transport::{LocalNet, Net};
