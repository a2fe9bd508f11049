//! Servers and clients that do their own networking, in an [`EventLoop`](crate::EventLoop).
//!
//! An echo server, and a client that talks to it, both in one loop:
//!
//! ```
//! use anyloop::net::{Client, Server};
//! use anyloop::prelude::*;
//!
//! let event_loop = EventLoop::new()?;
//!
//! let mut server = Server::on(&event_loop, ServerConfig::new(OriginPolicy::Any));
//! server.on_message(|message, context| _ = context.send(message));
//! let address = server.listen("127.0.0.1:0")?;
//! server.start_accept()?;
//!
//! let mut client = Client::on(&event_loop, ClientConfig::new());
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
//! An endpoint that is created by `new` or `with_factory` has an event loop of its own. Other endpoints can share it.

mod acceptor;
mod adopt;
mod client;
mod connecting;
mod connector;
mod error;
mod eyeballs;
mod hooks;
mod host;
mod layer;
mod listener;
mod proxy;
mod registry;
mod resolver;
mod run;
mod server;
mod serves_connections;
mod supports;
#[cfg(feature = "tls-core")]
mod tls;
mod transport;

use std::sync::Arc;

use crate::endpoint::{
    self, ClientCore, HandlerFactory, Handlers, Local, LocalHandlers, ServerCore, Threads,
};
use crate::event_loop::Kind;

pub use crate::proxy::{Proxy, ProxyError, ProxyRules};
pub use adopt::Stream;
pub use client::ConnectRequest;
pub use error::{
    ConnectError, Error, ProxyAnswerError, RedirectError, SocksError, SocksReply, Stage,
};
pub use listener::LocalAddress;
pub use server::{AsAddress, Listening};
pub use supports::Supports;
use transport::Net;

/// A server with sockets, in an [`EventLoop`](crate::EventLoop). Its connections get their handlers from `F`.
///
/// The example of the [module](self) has one.
pub struct Server<F: HandlerFactory = Handlers, K: Kind = Threads> {
    core: Arc<ServerCore<F>>,
    net: Net<K>,
}

/// A client with sockets, in an [`EventLoop`](crate::EventLoop). Its connections get their handlers from `F`.
///
/// The example of the [module](self) has one.
pub struct Client<F: HandlerFactory = Handlers, K: Kind = Threads> {
    core: Arc<ClientCore<F>>,
    net: Net<K>,
}

/// A server in a [`LocalEventLoop`](crate::LocalEventLoop): its handlers need not be [`Send`].
///
/// It has all methods of [`Server`], some by dereferencing to it.
///
/// ```
/// use anyloop::net::LocalServer;
/// use anyloop::prelude::*;
/// use std::cell::Cell;
/// use std::rc::Rc;
///
/// let mut server = LocalServer::new(ServerConfig::new(OriginPolicy::Any))?;
/// let visits = Rc::new(Cell::new(0));
/// let counter = visits.clone();
/// server.on_open(move |_| counter.set(counter.get() + 1));
/// server.listen("127.0.0.1:0")?;
/// server.start_accept()?;
/// server.poll(); // nobody has connected
/// assert_eq!(visits.get(), 0);
/// # Ok::<(), anyloop::net::Error>(())
/// ```
pub struct LocalServer<F: HandlerFactory = LocalHandlers> {
    server: Server<F, Local>,
}

/// A client in a [`LocalEventLoop`](crate::LocalEventLoop): its handlers need not be [`Send`].
///
/// It has all methods of [`Client`], some by dereferencing to it.
pub struct LocalClient<F: HandlerFactory = LocalHandlers> {
    client: Client<F, Local>,
}

endpoint::server_methods!(Server, K: Kind);
endpoint::client_methods!(Client, K: Kind);
endpoint::server_methods!(LocalServer);
endpoint::client_methods!(LocalClient);
#[cfg(feature = "tls-core")]
endpoint::over_tls!(Server, Client, K: Kind);
run::constructors!(
    Server (net), ServerConfig, EventLoop, Handlers, [<Handler: Send> + Send + Sync + 'static]
);
run::constructors!(
    Client (net), ClientConfig, EventLoop, Handlers, [<Handler: Send> + Send + Sync + 'static]
);
run::constructors!(
    LocalServer (server.net), ServerConfig, LocalEventLoop, LocalHandlers, [+ 'static]
);
run::constructors!(
    LocalClient (client.net), ClientConfig, LocalEventLoop, LocalHandlers, [+ 'static]
);
endpoint::local_endpoint!(LocalServer.server: Server);
endpoint::local_endpoint!(LocalClient.client: Client);
