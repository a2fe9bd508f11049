//! Whether a connection speaks TLS. Without the feature `tls-core` none does.

use anyloop_proto::handshake::Target;

use super::error::Error;
use super::proxy::ProxyLayer;
use super::serves_connections::ServesConnections;
use crate::endpoint::{ClientConfig, Handler, Session};
use crate::event_loop::{Next, Socket, Source as _, StreamSource, Turn};
use crate::transport::Driver;

#[cfg(feature = "tls-core")]
use crate::tls::{ProxyTls, Records, ServerTls, TlsStream};

/// How the connections of a listener speak TLS, if they do.
#[derive(Clone, Default)]
pub(super) struct ListenerTls {
    #[cfg(feature = "tls-core")]
    pub(super) tls: Option<ServerTls>,
}

/// The TLS of one connection, if it has any.
#[derive(Default)]
pub(super) struct TlsLayer {
    #[cfg(feature = "tls-core")]
    records: Option<Records>,
    /// The TLS with a proxy, whose records contain the connection, and what was received from its tunnel.
    #[cfg(feature = "tls-core")]
    proxy: Option<(Box<ProxyTls>, Vec<u8>)>,
}

impl ListenerTls {
    /// The TLS layer of a connection that was accepted.
    #[cfg_attr(not(feature = "tls-core"), expect(clippy::unused_self, clippy::unnecessary_wraps))]
    pub(super) fn new_layer(&self) -> Result<TlsLayer, Error> {
        Ok(TlsLayer {
            #[cfg(feature = "tls-core")]
            records: match &self.tls {
                Some(tls) => Some(tls.new_records()?),
                None => None,
            },
            #[cfg(feature = "tls-core")]
            proxy: None,
        })
    }
}

impl TlsLayer {
    /// The TLS layer of a connection to `target`.
    #[cfg_attr(not(feature = "tls-core"), expect(clippy::unnecessary_wraps))]
    pub(super) fn for_client(target: &Target, config: &ClientConfig) -> Result<Self, Error> {
        let _ = (target, config);
        Ok(Self {
            #[cfg(feature = "tls-core")]
            records: match target.secure() {
                true => Some(config.tls.new_records(target.host())?),
                false => None,
            },
            #[cfg(feature = "tls-core")]
            proxy: None,
        })
    }

    /// Adds the TLS with a proxy, if there is any, and with it `received`, the bytes from the tunnel. If there is none,
    /// returns `received`, and otherwise nothing.
    #[cfg_attr(not(feature = "tls-core"), expect(clippy::unused_self))]
    pub(super) fn put_behind_proxy(
        &mut self,
        proxy_layer: ProxyLayer,
        received: Vec<u8>,
    ) -> Vec<u8> {
        #[cfg(feature = "tls-core")]
        if let Some(tls) = proxy_layer.into_tls() {
            self.proxy = Some((tls, received));
            return Vec::new();
        }
        let _ = proxy_layer;
        received
    }

    /// The source of the connection.
    pub(super) fn source<K: ServesConnections<H>, H: Handler>(
        self,
        driver: Driver<Session<H>>,
        socket: Socket,
    ) -> Box<K::DynSource> {
        self.stream(driver, socket).into_source::<K>()
    }

    /// The stream of the connection.
    pub(super) fn stream<H: Handler>(
        self,
        driver: Driver<Session<H>>,
        socket: Socket,
    ) -> LayeredStream<H> {
        #[cfg(feature = "tls-core")]
        {
            let driver = match (self.records, self.proxy) {
                (None, None) => return LayeredStream::Plain(StreamSource::new(driver, socket)),
                (Some(records), None) => driver.map(|session| TlsStream::new(session, records)),
                (Some(records), Some((proxy, received))) => driver
                    .map(|session| TlsStream::through_proxy(session, records, *proxy, received)),
                (None, Some((proxy, received))) => {
                    driver.map(|session| TlsStream::plain_through_proxy(session, *proxy, &received))
                }
            };
            LayeredStream::Tls(StreamSource::new(driver, socket))
        }
        #[cfg(not(feature = "tls-core"))]
        LayeredStream::Plain(StreamSource::new(driver, socket))
    }
}

/// A stream with TLS or without.
pub(super) enum LayeredStream<H: Handler> {
    Plain(StreamSource<Session<H>>),
    #[cfg(feature = "tls-core")]
    Tls(StreamSource<TlsStream<Session<H>>>),
}

impl<H: Handler> LayeredStream<H> {
    /// Runs the stream as a source of the loop.
    pub(super) fn run<K: ServesConnections<H>>(&mut self, turn: &mut Turn<'_, K>) -> Next<K> {
        match self {
            Self::Plain(stream) => stream.run(turn),
            #[cfg(feature = "tls-core")]
            Self::Tls(stream) => stream.run(turn),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.driver().is_closed(),
            #[cfg(feature = "tls-core")]
            Self::Tls(stream) => stream.driver().is_closed(),
        }
    }

    pub(super) fn session(&self) -> &Session<H> {
        match self {
            Self::Plain(stream) => &stream.driver().protocol,
            #[cfg(feature = "tls-core")]
            Self::Tls(stream) => stream.driver().protocol.inner(),
        }
    }

    /// The session. The socket is closed.
    pub(super) fn into_session(self) -> Session<H> {
        match self {
            Self::Plain(stream) => stream.into_driver().protocol,
            #[cfg(feature = "tls-core")]
            Self::Tls(stream) => stream.into_driver().protocol.into_inner(),
        }
    }

    pub(super) fn into_source<K: ServesConnections<H>>(self) -> Box<K::DynSource> {
        match self {
            Self::Plain(stream) => K::connection(stream),
            #[cfg(feature = "tls-core")]
            Self::Tls(stream) => K::tls_connection(stream),
        }
    }
}
