//! TLS in both roles, with [rustls].
//!
//! [`ServerTls`] is what a server speaks TLS with, and [`ClientTls`] what a client trusts. A server of `net` listens
//! with [`over_tls`](crate::transport::Server::over_tls), and a client of `net` connects to `wss` URIs. Over other
//! transports `over_tls` makes connections whose bytes are records:
//!
//! ```
//! use anyloop::iostream::{Client, Server};
//! use anyloop::prelude::*;
//! use anyloop::tls::{ClientTls, ServerTls};
//! # use anyloop_testkit::tls::Authority;
//! # let identity = Authority::shared().issue(&["localhost"]);
//! # let (certificate, key, ca) = (identity.certificate, identity.key, Authority::shared().pem());
//!
//! let mut server = Server::new(ServerConfig::new(OriginPolicy::Any));
//! server.on_message(|message, context| _ = context.send(message));
//! let mut client = Client::new(ClientConfig::new());
//! client.on_open(|context| _ = context.send("hello"));
//! client.on_message(|message, context| {
//!     assert_eq!(message.as_bytes(), b"hello");
//!     assert!(context.tls().is_some_and(|tls| tls.peer_certificates().is_some()));
//! });
//!
//! let tls = ServerTls::from_pem(certificate, key)?;
//! let server = server.over_tls(&tls).connection()?;
//! let tls = ClientTls::builder().ca_pem(ca).build()?;
//! let client = client.over_tls(&tls).connection(&"wss://localhost/".parse()?)?;
//! server.collect_output();
//! client.collect_output();
//! client.start()?;
//! let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
//! while client.wants_output() || server.wants_output() {
//!     client.take_output(&mut to_server)?;
//!     server.read_all(&std::mem::take(&mut to_server))?; // over a network, for example
//!     server.take_output(&mut to_client)?;
//!     client.read_all(&std::mem::take(&mut to_client))?;
//! }
//! assert_eq!(client.statistics().map(|statistics| statistics.messages_received), Some(1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `tls` | `tls-aws-lc-rs` and `tls-platform-verifier`: what most programs want |
//! | `tls-aws-lc-rs`, `tls-ring` | the cryptography provider; the first if both are there |
//! | `tls-platform-verifier` | clients trust what the operating system trusts |
//! | `tls-webpki-roots` | clients can trust Mozilla's roots, which are compiled in |
//! | `tls-core` | none of these: for configurations of the program's own |
//!
//! The provider is always passed to rustls explicitly: its process-wide default is neither needed nor used.
//!
//! # Bounds
//!
//! The time for the opening handshake includes the handshake of TLS. A connection keeps no memory for input or output
//! while nothing waits; what a peer can make it keep before its handshake is bounded by 128 KiB. An event loop serves
//! few handshakes between two polls, so that open connections have their turn.

mod client;
mod error;
mod info;
mod optional;
mod pem;
mod provider;
mod proxy;
mod records;
mod self_signed;
mod server;
mod server_name;
mod stream;

pub use client::{ClientTls, ClientTlsBuilder};
pub use error::{TlsConfigError, TlsError};
pub use info::TlsInfo;
pub(crate) use optional::OptionalTls;
pub(crate) use proxy::ProxyTls;
pub(crate) use records::Records;
pub use rustls;
pub use server::{ServerTls, ServerTlsBuilder};
pub use stream::TlsStream;
