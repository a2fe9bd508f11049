//! The opening handshake (RFC 6455 §4), for both roles.
//!
//! The handshake of either role is a state machine that precedes a
//! [`Connection`](crate::Connection) and has the same contract. It takes received bytes and the
//! time, appends to an output, and ends in a connection, a plain HTTP response or a failure. After
//! any call, write the appended output, do what `shutdown` says, and poll `poll_timeout` again.
//!
//! A handshake that opens a connection takes only its own bytes from the [`Input`](crate::Input).
//! The bytes after it are frames; pass the same input to the connection.
//!
//! - [`ServerHandshake`] reads a request and returns it to the application, which answers at any
//!   time: with [`accept`](ServerHandshake::accept), or with another response by
//!   [`respond`](ServerHandshake::respond). Plain HTTP requests are returned in the same way. The
//!   handshake answers invalid requests itself. A body can be sent in pieces:
//!   [`respond_head`](ServerHandshake::respond_head).
//! - [`ClientHandshake`] writes a request and verifies the response. A response other than 101 can
//!   be read with its body.
//! - [`TunnelHandshake`] asks an HTTP proxy for a byte stream to the server. It has no timeout and no
//!   `shutdown`.
//!
//! Both roles in memory:
//!
//! ```
//! use std::sync::Arc;
//! use anyloop_proto::handshake::{
//!     Accept, ClientHandshake, ClientOptions, Incoming, OriginPolicy, ServerHandshake,
//!     ServerOptions, Target,
//! };
//! use anyloop_proto::{Input, Instant};
//!
//! let now = Instant::from_nanos(0);
//! let target: Target = "ws://localhost:9002/chat".parse()?;
//! let mut options = ClientOptions::default();
//! options.subprotocols = vec!["chat".into()];
//!
//! let mut request = Vec::new();
//! let mut client = ClientHandshake::new(&target, Arc::new(options), now, &mut request)?;
//!
//! let options = Arc::new(ServerOptions::new(OriginPolicy::Any));
//! let mut server = ServerHandshake::new(options, now);
//! let mut response = Vec::new();
//! match server.next(&mut Input::new(&mut request), now, &mut response)? {
//!     Some(Incoming::Upgrade(request)) => {
//!         assert_eq!(request.uri().path(), "/chat");
//!         assert_eq!(request.subprotocols(), ["chat"]);
//!     }
//!     _ => panic!("a whole WebSocket request was sent"),
//! }
//! let accepted = server.accept(Accept::new().with_subprotocol("chat"), now, &mut response)?;
//!
//! let opened = client.next(&mut Input::new(&mut response), now, &mut request)?;
//! let opened = opened.expect("a whole response was sent");
//! assert_eq!(opened.subprotocol, accepted.subprotocol);
//! let (client, server) = (opened.connection, accepted.connection);
//! # _ = (client, server);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod accept;
mod body;
mod client;
mod client_request;
mod extensions;
mod fields;
mod head;
mod key;
mod opened;
mod options;
mod parse;
mod redirect;
mod request;
mod responding;
mod response;
mod server;
mod tunnel;
mod uri;
mod verify;
mod write;

pub use accept::Accept;
pub use client::ClientHandshake;
pub use client_request::RequestError;
pub use extensions::{Codec, Negotiator, Params};
/// The crate that defines the types of requests, responses and their parts.
pub use http;
pub use opened::Opened;
pub use options::{ClientOptions, OriginPolicy, ServerOptions};
pub use request::Request;
pub use response::{AnswerError, check_response};
pub use server::{Incoming, ServerHandshake};
pub use tunnel::TunnelHandshake;
pub use uri::{Target, UriError};
