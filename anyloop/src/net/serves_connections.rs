//! Which kinds of loops can have connections with which handlers.

use crate::endpoint::{Handler, Session};
use crate::event_loop::{Kind, Local, StreamSource, Threads};
#[cfg(feature = "tls-core")]
use crate::tls::TlsStream;

/// A kind of loop that can have connections with handlers `H`: makes their sources.
#[expect(unnameable_types, reason = "there are no other kinds")]
pub trait ServesConnections<H: Handler>: Kind {
    /// The source for a connection.
    fn connection(connection: StreamSource<Session<H>>) -> Box<Self::DynSource>;

    /// The source for a connection over TLS.
    #[cfg(feature = "tls-core")]
    fn tls_connection(connection: StreamSource<TlsStream<Session<H>>>) -> Box<Self::DynSource>;
}

impl<H: Handler + Send + 'static> ServesConnections<H> for Threads {
    fn connection(connection: StreamSource<Session<H>>) -> Box<Self::DynSource> {
        Box::new(connection)
    }

    #[cfg(feature = "tls-core")]
    fn tls_connection(connection: StreamSource<TlsStream<Session<H>>>) -> Box<Self::DynSource> {
        Box::new(connection)
    }
}

impl<H: Handler + 'static> ServesConnections<H> for Local {
    fn connection(connection: StreamSource<Session<H>>) -> Box<Self::DynSource> {
        Box::new(connection)
    }

    #[cfg(feature = "tls-core")]
    fn tls_connection(connection: StreamSource<TlsStream<Session<H>>>) -> Box<Self::DynSource> {
        Box::new(connection)
    }
}
