//! Sockets that the application has accepted or connected itself.

use std::io;
use std::net::TcpStream;
#[cfg(unix)]
use std::os::unix::net::UnixStream;

use anyloop_proto::handshake::http;

use super::Server;
use super::error::Error;
use super::layer::TlsLayer;
use super::listener::{Nodelay, set_up};
use super::registry::key;
use super::serves_connections::ServesConnections;
use super::supports::Supports;
use super::transport::SharedHooks;
use crate::endpoint::{Handle, Handler, HandlerFactory, Session, encode_request_head};
use crate::event_loop::{Engine, Socket, now};
use crate::session::EndpointState;
use crate::transport::Driver;

/// A connected socket of the application's own.
///
/// Created from a [`TcpStream`] or a [`UnixStream`], also by `into`.
#[derive(Debug)]
#[non_exhaustive]
pub enum Stream {
    /// A TCP socket.
    Tcp(TcpStream),
    /// A Unix stream socket.
    #[cfg(unix)]
    Unix(UnixStream),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

#[cfg(unix)]
impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

impl Stream {
    fn into_socket(self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                Socket::Tcp(mio::net::TcpStream::from_std(stream))
            }
            #[cfg(unix)]
            Self::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Socket::Unix(mio::net::UnixStream::from_std(stream))
            }
        })
    }
}

/// Connections over sockets of the application's own.
impl<F: HandlerFactory, K: Supports<F>> Server<F, K> {
    /// Serves a connection that the application has accepted. `received` are the bytes that the application has read
    /// from the socket already; the first of them begins the request. The socket becomes non-blocking, and gets the
    /// options of accepted sockets.
    ///
    /// ```
    /// use anyloop::net::Server;
    /// use anyloop::prelude::*;
    /// use std::io::{Read, Write};
    /// use std::net::{TcpListener, TcpStream};
    ///
    /// let mut server = Server::new(ServerConfig::new(OriginPolicy::Any))?;
    /// server.on_open(|context| _ = context.close(None, ""));
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let mut client = TcpStream::connect(listener.local_addr()?)?;
    /// client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    ///     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")?;
    ///
    /// let (mut stream, _) = listener.accept()?;
    /// let mut received = vec![0; 10];
    /// stream.read_exact(&mut received)?; // to detect the protocol
    /// assert!(received.starts_with(b"GET / HTTP"));
    /// server.adopt(stream, &received)?;
    /// # client.write_all(b"\x88\x80\0\0\0\0")?;
    /// # client.shutdown(std::net::Shutdown::Write)?;
    /// server.run(); // until the connection is over
    /// let mut answer = Vec::new();
    /// client.read_to_end(&mut answer)?;
    /// assert!(answer.starts_with(b"HTTP/1.1 101 ") && answer.ends_with(b"\x88\0"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Adopt`]: the socket cannot be served. [`Error::ShutDown`].
    pub fn adopt(
        &self,
        stream: impl Into<Stream>,
        received: &[u8],
    ) -> Result<Handle<F::Handler>, Error> {
        self.adopt_with(stream.into(), received, TlsLayer::default())
    }

    /// Serves a connection whose request another HTTP server has read: `request` is the head of the request, and
    /// `received` are the bytes that the other server has read after the head.
    ///
    /// The answer, a 101 or a refusal, is written to the stream; the other server must not have answered.
    ///
    /// # Errors
    ///
    /// As [`adopt`](Self::adopt).
    pub fn upgrade<B>(
        &self,
        stream: impl Into<Stream>,
        request: &http::Request<B>,
        received: &[u8],
    ) -> Result<Handle<F::Handler>, Error> {
        let mut bytes = encode_request_head(request);
        bytes.extend_from_slice(received);
        self.adopt(stream, &bytes)
    }

    pub(super) fn adopt_with(
        &self,
        stream: Stream,
        received: &[u8],
        tls_layer: TlsLayer,
    ) -> Result<Handle<F::Handler>, Error> {
        if self.is_shutting_down() {
            return Err(Error::ShutDown);
        }
        let core = &self.core;
        let session = core.new_session(core.make_handler(), now());
        let options = AdoptOptions { nodelay: self.config().nodelay, received };
        let net = &self.net;
        insert_connection(
            net.engine(),
            &net.hooks,
            &core.state,
            session,
            stream,
            options,
            tls_layer,
        )
    }
}

/// How a stream is adopted.
pub(super) struct AdoptOptions<'b> {
    /// The value of `TCP_NODELAY` for the socket.
    pub(super) nodelay: bool,
    /// The bytes that were read from the stream before.
    pub(super) received: &'b [u8],
}

/// Inserts a connection over a stream into the loop.
pub(super) fn insert_connection<K: ServesConnections<H>, H: Handler>(
    engine: &Engine<K>,
    hooks: &SharedHooks,
    endpoint: &EndpointState,
    mut session: Session<H>,
    stream: Stream,
    options: AdoptOptions<'_>,
    tls_layer: TlsLayer,
) -> Result<Handle<H>, Error> {
    let mut socket = stream.into_socket().map_err(Error::Adopt)?;
    set_up(&socket, &hooks.current(), Nodelay::Set(options.nodelay)).map_err(Error::Adopt)?;
    session.set_peer(socket.peer());
    let inserted = engine.insert(|token| {
        socket.register(engine.registry(), token).map_err(Error::Adopt)?;
        session.register(key(token));
        if endpoint.is_shutting_down() {
            return Err(Error::ShutDown); // the shutdown may have missed the session: it was not registered before
        }
        let mut driver = Driver::new(session);
        driver.keep(options.received);
        Ok(tls_layer.source::<K, _>(driver, socket))
    });
    inserted.map(|token| endpoint.registry.handle(key(token)))
}
