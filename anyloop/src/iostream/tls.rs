//! Connections over TLS whose bytes the program carries.

use std::sync::Arc;

use anyloop_proto::handshake::{Target, UriError};

use super::outputs::Outputs;
use super::{Client, Connection, ConnectionWaker, Server};
use crate::endpoint::{ClientOverTls, HandlerFactory, OverTlsError, ServerOverTls};
use crate::tls::{OptionalTls, TlsConfigError};

impl<F: HandlerFactory, K: Outputs> ServerOverTls<'_, Server<F, K>> {
    /// As `connection` of the [server](Server), over TLS: the program carries records.
    ///
    /// # Errors
    ///
    /// [`TlsConfigError::Rustls`]: there is no randomness, for example.
    pub fn connection(&self) -> Result<Connection<F::Handler, K>, TlsConfigError> {
        let waker = Arc::new(ConnectionWaker::default());
        let settings = &self.server.settings;
        let driver = self.driver(&waker.clone().into(), (settings.clock)())?;
        let driver = driver.map(|tls| OptionalTls::Tls(Box::new(tls)));
        let connection = Connection::new(driver, settings, waker);
        let _ = connection.start(); // as without TLS
        Ok(connection)
    }
}

impl<F: HandlerFactory, K: Outputs> ClientOverTls<'_, Client<F, K>> {
    /// As `connection` of the [client](Client), over TLS: the program carries records. The server's certificate
    /// must be valid for the host of `target`.
    ///
    /// # Errors
    ///
    /// [`OverTlsError`].
    pub fn connection<U>(&self, target: U) -> Result<Connection<F::Handler, K>, OverTlsError>
    where
        U: TryInto<Target>,
        UriError: From<U::Error>,
    {
        let waker = Arc::new(ConnectionWaker::default());
        let settings = &self.client.settings;
        let driver = self.driver(target, &waker.clone().into(), (settings.clock)())?;
        let driver = driver.map(|tls| OptionalTls::Tls(Box::new(tls)));
        Ok(Connection::new(driver, settings, waker))
    }
}
