//! Endpoints over TLS.

use std::fmt;
use std::task::Waker;

use anyloop_proto::Instant;
use anyloop_proto::handshake::{RequestError, Target, UriError};

use super::client::Client;
use super::server::Server;
use crate::session::{HandlerFactory, Session};
use crate::stream::Driver;
use crate::tls::{ClientTls, Records, ServerTls, TlsConfigError, TlsStream};

/// A view of a server that makes connections over TLS. The server's method `over_tls` returns it. The examples of
/// [`tls`](crate::tls) and of [`ServerTls`] use one.
pub struct ServerOverTls<'e, S> {
    pub(crate) server: &'e S,
    pub(crate) tls: &'e ServerTls,
}

/// A view of a client that makes connections over TLS. The client's method `over_tls` returns it. The example of
/// [`tls`](crate::tls) uses one.
pub struct ClientOverTls<'e, C> {
    pub(crate) client: &'e C,
    pub(crate) tls: &'e ClientTls,
}

/// A client could not make a connection over TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OverTlsError {
    /// The URI is invalid, or the configuration makes an invalid request.
    #[error("cannot make the request")]
    Request(#[from] RequestError),
    /// TLS cannot be used: there are no roots, for example, or the host cannot be verified.
    #[error("cannot use TLS")]
    Tls(#[from] TlsConfigError),
}

/// The method of a server and of a client that adds TLS.
macro_rules! over_tls {
    ($server:ident, $client:ident $(, $kind:ident: $kind_trait:ident)?) => {
        impl<F: crate::endpoint::HandlerFactory $(, $kind: $kind_trait)?> $server<F $(, $kind)?> {
            /// A view of this server that makes connections over TLS. The server itself still makes connections without
            /// TLS.
            #[must_use]
            pub const fn over_tls<'e>(
                &'e self,
                tls: &'e crate::tls::ServerTls,
            ) -> crate::endpoint::ServerOverTls<'e, Self> {
                crate::endpoint::ServerOverTls { server: self, tls }
            }
        }

        impl<F: crate::endpoint::HandlerFactory $(, $kind: $kind_trait)?> $client<F $(, $kind)?> {
            /// A view of this client that makes connections over TLS, for byte streams that the application carries.
            /// The client of `net` does not need this: it connects to a `wss` URI over TLS by itself.
            #[must_use]
            pub const fn over_tls<'e>(
                &'e self,
                tls: &'e crate::tls::ClientTls,
            ) -> crate::endpoint::ClientOverTls<'e, Self> {
                crate::endpoint::ClientOverTls { client: self, tls }
            }
        }
    };
}
pub(crate) use over_tls;

impl<F: HandlerFactory, S: Server<Factory = F>> ServerOverTls<'_, S> {
    /// As [`Server::driver`], over TLS.
    ///
    /// # Errors
    ///
    /// [`TlsConfigError::Rustls`]: there is no randomness, for example.
    pub fn driver(
        &self,
        waker: &Waker,
        now: Instant,
    ) -> Result<Driver<TlsStream<Session<F::Handler>>>, TlsConfigError> {
        let records = self.tls.new_records()?;
        Ok(driver_over_tls(self.server.driver(waker, now), records))
    }
}

impl<F: HandlerFactory, C: Client<Factory = F>> ClientOverTls<'_, C> {
    /// As [`Client::driver`], over TLS. The server's certificate must be valid for the host of `target`.
    ///
    /// # Errors
    ///
    /// [`OverTlsError`].
    pub fn driver<U>(
        &self,
        target: U,
        waker: &Waker,
        now: Instant,
    ) -> Result<Driver<TlsStream<Session<F::Handler>>>, OverTlsError>
    where
        U: TryInto<Target>,
        UriError: From<U::Error>,
    {
        let target = target.try_into().map_err(|error| RequestError::Uri(error.into()))?;
        let records = self.tls.new_records(target.host())?;
        Ok(driver_over_tls(self.client.driver(&target, waker, now)?, records))
    }
}

fn driver_over_tls<S: crate::stream::StreamProtocol>(
    driver: Driver<S>,
    records: Records,
) -> Driver<TlsStream<S>> {
    driver.map(|session| TlsStream::new(session, records))
}

impl<S> fmt::Debug for ServerOverTls<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerOverTls").field("tls", self.tls).finish_non_exhaustive()
    }
}

impl<C> fmt::Debug for ClientOverTls<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOverTls").field("tls", self.tls).finish_non_exhaustive()
    }
}
