//! Servers in the loop, over TLS.

use std::net::{SocketAddr, SocketAddrV6, ToSocketAddrs};
#[cfg(unix)]
use std::path::Path;

use super::Server;
use super::adopt::Stream;
use super::error::Error;
use super::layer::ListenerTls;
use super::listener::{Listener, LocalAddress};
use super::server::{AsAddress, Listening};
use super::supports::Supports;
use crate::endpoint::{Handle, HandlerFactory, ServerOverTls};

/// Listening. Connections are accepted when `start_accept` of the [server](Server) is called.
impl<F: HandlerFactory, K: Supports<F>> ServerOverTls<'_, Server<F, K>> {
    /// As `listen` of the server: for `wss` URIs.
    ///
    /// # Errors
    ///
    /// As without TLS.
    pub fn listen(&self, address: impl ToSocketAddrs + AsAddress) -> Result<SocketAddr, Error> {
        self.server.listen_with(address, &self.listener_tls())
    }

    /// As `listen_each` of the server.
    ///
    /// # Errors
    ///
    /// As without TLS.
    pub fn listen_each(&self, address: impl ToSocketAddrs + AsAddress) -> Result<Listening, Error> {
        self.server.listen_each_with(address, &self.listener_tls())
    }

    /// As `listen_port` of the server.
    ///
    /// # Errors
    ///
    /// As without TLS.
    pub fn listen_port(&self, port: u16) -> Result<u16, Error> {
        self.server.listen_port_with(port, self.listener_tls())
    }

    /// As `listen_only_v6` of the server.
    ///
    /// # Errors
    ///
    /// As without TLS.
    pub fn listen_only_v6(&self, address: SocketAddrV6) -> Result<SocketAddr, Error> {
        self.server.listen_only_v6_with(address, self.listener_tls())
    }

    /// As `listen_unix` of the server.
    ///
    /// # Errors
    ///
    /// As without TLS.
    #[cfg(unix)]
    pub fn listen_unix(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        self.server.listen_unix_with(path.as_ref(), self.listener_tls())
    }

    /// As `listen_on` of the server.
    ///
    /// # Errors
    ///
    /// As without TLS.
    pub fn listen_on(&self, socket: std::net::TcpListener) -> Result<LocalAddress, Error> {
        self.server.take_over(Listener::from_tcp(socket), self.listener_tls())
    }

    /// As `listen_on_unix` of the server.
    ///
    /// # Errors
    ///
    /// As without TLS.
    #[cfg(unix)]
    pub fn listen_on_unix(
        &self,
        socket: std::os::unix::net::UnixListener,
    ) -> Result<LocalAddress, Error> {
        self.server.take_over(Listener::from_unix(socket), self.listener_tls())
    }

    /// As `adopt` of the server. `received` is what the application has read from the socket already, beginning with
    /// the first record.
    ///
    /// # Errors
    ///
    /// As without TLS, and [`Error::Tls`].
    pub fn adopt(
        &self,
        stream: impl Into<Stream>,
        received: &[u8],
    ) -> Result<Handle<F::Handler>, Error> {
        self.server.adopt_with(stream.into(), received, self.listener_tls().new_layer()?)
    }

    fn listener_tls(&self) -> ListenerTls {
        ListenerTls { tls: Some(self.tls.clone()) }
    }
}
