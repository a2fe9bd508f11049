//! Whether a connection speaks TLS. Without the feature `tls-core` none does.

use anyloop_proto::handshake::Target;

use super::error::Error;
use super::hosts_connections::HostsConnections;
use crate::endpoint::{ClientConfig, Handler, Session};
use crate::event_loop::{Socket, StreamSource};
use crate::transport::Driver;

#[cfg(feature = "tls-core")]
use crate::tls::{Records, ServerTls, TlsStream};

/// How the connections of a listener speak TLS, if they do.
#[derive(Clone, Default)]
pub(super) struct ListenerLayer {
    #[cfg(feature = "tls-core")]
    pub(super) tls: Option<ServerTls>,
}

/// The TLS of one connection, if it has any.
#[derive(Default)]
pub(super) struct Layer {
    #[cfg(feature = "tls-core")]
    records: Option<Records>,
}

impl ListenerLayer {
    /// The TLS of a connection that was accepted.
    #[cfg_attr(not(feature = "tls-core"), expect(clippy::unused_self, clippy::unnecessary_wraps))]
    pub(super) fn accept(&self) -> Result<Layer, Error> {
        Ok(Layer {
            #[cfg(feature = "tls-core")]
            records: match &self.tls {
                Some(tls) => Some(tls.records()?),
                None => None,
            },
        })
    }
}

impl Layer {
    /// The TLS of a connection to `target`.
    #[cfg_attr(not(feature = "tls-core"), expect(clippy::unnecessary_wraps))]
    pub(super) fn connect(target: &Target, config: &ClientConfig) -> Result<Self, Error> {
        let _ = (target, config);
        Ok(Self {
            #[cfg(feature = "tls-core")]
            records: match target.secure() {
                true => Some(config.tls.records(target.host())?),
                false => None,
            },
        })
    }

    /// The source of the connection.
    pub(super) fn source<K: HostsConnections<H>, H: Handler>(
        self,
        driver: Driver<Session<H>>,
        socket: Socket,
    ) -> Box<K::DynSource> {
        #[cfg(feature = "tls-core")]
        if let Some(records) = self.records {
            let driver = driver.map(|session| TlsStream::new(session, records));
            return K::tls_connection(StreamSource::new(driver, socket));
        }
        K::connection(StreamSource::new(driver, socket))
    }
}
