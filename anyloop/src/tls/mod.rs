//! TLS in both roles, with [rustls].
//!
//! [`ServerTls`] has the certificates and settings of a server, [`ClientTls`] those of a client. A server of `net`
//! listens with [`over_tls`](crate::transport::Server::over_tls), and a client of `net` connects to `wss` URIs. Over
//! other transports `over_tls` makes connections whose input and output are TLS records:
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
//! let client = client.over_tls(&tls).connection("wss://localhost/")?;
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
//! | `tls` | `tls-aws-lc-rs` and `tls-platform-verifier`: what most applications want |
//! | `tls-aws-lc-rs`, `tls-ring` | the cryptography provider; `tls-aws-lc-rs` is used if both are enabled |
//! | `tls-platform-verifier` | clients trust what the operating system trusts |
//! | `tls-webpki-roots` | clients can trust Mozilla's roots, which are compiled in |
//! | `tls-core` | none of these: for configurations of the application's own |
//!
//! The provider is always passed to rustls explicitly: the process-wide default of rustls is not used.
//!
//! # Bounds
//!
//! The timeout of the opening handshake includes the TLS handshake. A connection keeps no memory for input or output
//! while none waits. During its handshake it keeps at most some 128 KiB of input. An event loop serves few TLS
//! handshakes between two polls, so that they do not delay the open connections.

mod client;
mod error;
mod info;
mod optional;
mod pem;
mod provider;
#[cfg(feature = "net")]
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
#[cfg(feature = "net")]
pub(crate) use proxy::ProxyTls;
pub(crate) use records::Records;
pub use rustls;
pub use server::{ServerTls, ServerTlsBuilder};
pub use stream::TlsStream;
