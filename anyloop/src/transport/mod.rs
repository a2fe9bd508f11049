//! The [`Transport`] trait and its [`Driver`], for transports of the program's own.

use std::sync::Arc;

use crate::endpoint::{
    self, ClientConfig, ClientCore, HandlerFactory, Handlers, ServerConfig, ServerCore,
};

pub mod stepping;
pub mod stub;

pub use crate::stream::{
    Budget, Buffers, Driver, Peer, Progress, StreamProtocol, Transport, Wants, WriteBuffer,
};

/// A server that creates [drivers](Self::driver) for transports of the program's own. Its connections get their
/// handlers from `F`.
///
/// ```
/// use anyloop::transport::Server;
/// use anyloop::prelude::*;
///
/// struct Counter(u64);
///
/// impl Handler for Counter {
///     fn message(
///         &mut self,
///         _: anyloop::proto::Message<'_>,
///         context: &mut anyloop::endpoint::Context<'_, Self>,
///     ) {
///         self.0 += 1;
///         _ = context.send(format!("message {}", self.0).as_str());
///     }
/// }
///
/// let config = ServerConfig::new(OriginPolicy::Any);
/// let server: Server<_> = Server::with_factory(config, || Counter(0));
/// ```
pub struct Server<F: HandlerFactory = Handlers> {
    pub(crate) core: Arc<ServerCore<F>>,
}

/// A client that creates [drivers](Self::driver) for transports of the program's own. Its connections get their
/// handlers from `F`.
///
/// ```
/// use anyloop::transport::Client;
/// use anyloop::prelude::*;
///
/// let mut client = Client::new(ClientConfig::new());
/// client.on_open(|context| _ = context.send("hello"));
/// ```
pub struct Client<F: HandlerFactory = Handlers> {
    pub(crate) core: Arc<ClientCore<F>>,
}

endpoint::server_methods!(Server);
endpoint::client_methods!(Client);
#[cfg(feature = "tls-core")]
endpoint::over_tls!(Server, Client);
endpoint::constructors!(Server, ServerConfig, Handlers, "server");
endpoint::constructors!(Client, ClientConfig, Handlers, "client");

impl<F: HandlerFactory> Server<F> {
    fn build(config: ServerConfig, factory: F) -> Self {
        Self { core: ServerCore::new(config, factory) }
    }
}

impl<F: HandlerFactory> Client<F> {
    fn build(config: ClientConfig, factory: F) -> Self {
        Self { core: ClientCore::new(config, factory) }
    }
}
