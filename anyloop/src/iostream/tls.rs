//! Connections over TLS whose bytes the program carries.

use std::sync::Arc;

use anyloop_proto::handshake::Target;

use super::outputs::Outputs;
use super::{Connection, ConnectionWaker, IoStream};
use crate::endpoint::{ClientOverTls, HandlerFactory, OverTlsError, ServerOverTls};
use crate::tls::{OptionalTls, TlsConfigError};

impl<K: Outputs, F: HandlerFactory> ServerOverTls<'_, IoStream<K>, F> {
    /// As `connection` of the [server](super::Server), over TLS: the program carries records.
    ///
    /// # Errors
    ///
    /// [`TlsConfigError::Rustls`]: there is no randomness, for example.
    pub fn connection(&self) -> Result<Connection<F::Handler, K>, TlsConfigError> {
        let waker = Arc::new(ConnectionWaker::default());
        let backend = &self.server.backend;
        let driver = self.driver(&waker.clone().into(), (backend.clock)())?;
        let driver = driver.map(|tls| OptionalTls::Tls(Box::new(tls)));
        let connection = Connection::new(driver, backend, waker);
        let _ = connection.start(); // as without TLS
        Ok(connection)
    }
}

impl<K: Outputs, F: HandlerFactory> ClientOverTls<'_, IoStream<K>, F> {
    /// As `connection` of the [client](super::Client), over TLS: the program carries records. The server's certificate
    /// must be valid for the host of `target`.
    ///
    /// # Errors
    ///
    /// [`OverTlsError`].
    pub fn connection(&self, target: &Target) -> Result<Connection<F::Handler, K>, OverTlsError> {
        let waker = Arc::new(ConnectionWaker::default());
        let backend = &self.client.backend;
        let driver = self.driver(target, &waker.clone().into(), (backend.clock)())?;
        let driver = driver.map(|tls| OptionalTls::Tls(Box::new(tls)));
        Ok(Connection::new(driver, backend, waker))
    }
}
