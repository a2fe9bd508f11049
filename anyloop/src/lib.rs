//! WebSockets for programs that already have a loop, or want one.
//!
//! An *endpoint* is a server or a client. It has a configuration, and creates connections. Each connection has a
//! [`Handler`] of the application, or a few closures ([`Handlers`]). The program chooses what carries the bytes:
//!
//! | module | who does the input and output |
//! |---|---|
//! | `net` | an `EventLoop`: it listens, looks up, connects, receives and sends. The program runs it, or embeds it in a loop of its own |
//! | [`iostream`] | the program, which passes bytes in and gets bytes out |
//! | [`transport`] | the program's own implementation of the trait `Transport` |
//!
//! An echo server:
//!
#![cfg_attr(feature = "net", doc = "```no_run")]
#![cfg_attr(not(feature = "net"), doc = "```ignore")]
//! use anyloop::net::Server;
//! use anyloop::prelude::*;
//!
//! let mut server = Server::new(ServerConfig::new(OriginPolicy::Any))?;
//! server.on_message(|message, context| _ = context.send(message));
//! server.listen("127.0.0.1:9002")?;
//! server.start_accept()?;
//! server.run();
//! # Ok::<(), anyloop::net::Error>(())
//! ```
//!
//! The protocol itself, without handlers, is in [`proto`].
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `net` | yes | sockets, and the event loop that serves them: the modules `net` and `event_loop`. They need `mio`, `percent-encoding` and `socket2`, on Unix `libc`, and on Linux `rustix` |
//! | `router` | yes | handlers by the path of the request: `Router`. It needs `matchit` and `percent-encoding` |
//! | `deflate` | no | permessage-deflate (RFC 7692): compressed messages. It needs `zlib-rs` |
//! | `tls` | no | TLS in both roles, with rustls and aws-lc-rs; clients trust the authorities that the operating system trusts. It is the sum of `tls-aws-lc-rs` and `tls-platform-verifier`. The module `tls` describes these features and the alternatives: `tls-core`, `tls-aws-lc-rs`, `tls-ring`, `tls-platform-verifier`, `tls-webpki-roots` |
//! | `tracing` | no | logging to [`tracing`](https://docs.rs/tracing): connections and errors |
//!
//! A feature adds API and changes nothing else. Without `net`, a program carries the bytes itself: with
//! [`iostream`], or over a [transport](transport::stub) of its own.
#![deny(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

// Some items of other modules serve only the loop or TLS. They are compiled without these features as well, so those
// modules allow dead code.
mod cold;
pub mod endpoint;
#[cfg(feature = "net")]
pub mod event_loop;
#[cfg(all(doctest, feature = "net"))]
mod guide;
pub mod iostream;
#[cfg_attr(
    not(feature = "net"),
    allow(dead_code, unused_imports, reason = "some items serve only the loop")
)]
mod log;
#[cfg(feature = "net")]
pub mod net;
pub mod prelude;
#[cfg(feature = "net")]
mod proxy;
#[cfg(feature = "router")]
pub mod router;
#[cfg_attr(not(feature = "net"), allow(dead_code, reason = "some items serve only the loop"))]
mod running;
#[cfg_attr(
    not(feature = "net"),
    allow(dead_code, unused_imports, reason = "some items serve only the loop")
)]
mod session;
#[cfg_attr(
    not(all(feature = "net", feature = "tls-core")),
    allow(dead_code, unused_imports, reason = "some items serve only the loop and TLS")
)]
mod stream;
#[cfg_attr(
    not(feature = "net"),
    allow(dead_code, unused_imports, reason = "some items serve only the loop")
)]
mod sync;
mod threading;
#[cfg(feature = "tls-core")]
pub mod tls;
pub mod transport;

pub use anyloop_proto as proto;
#[doc(no_inline)]
pub use anyloop_proto::handshake::http;
#[doc(no_inline)]
pub use bytes;
pub use endpoint::{Body, ClientConfig, Context, Handle, Handler, Handlers, ServerConfig};
#[cfg(feature = "net")]
pub use event_loop::{EventLoop, LocalEventLoop};
#[cfg(feature = "router")]
pub use router::Router;

/// Compiles what README.md shows.
#[cfg(all(doctest, feature = "net"))]
#[doc = include_str!("../README.md")]
struct Readme;
