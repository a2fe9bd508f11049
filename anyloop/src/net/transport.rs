//! The transport's side of a connection.

use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::task::Waker;

use anyloop_proto::{Instant, Shutdown, TransportError};

use super::endpoint::Endpoint;
use super::peer::Peer;
use crate::event_loop::{Engine, Events, Kind, Local, Stream, Threads, Visit, now, waker};
use crate::transport::Transport;

/// The transport that does its own networking, in an [`EventLoop`](crate::EventLoop).
///
/// See [the module](super).
pub type Net<K = Threads> = Socket<'static, K>;

/// The same in a [`LocalEventLoop`](crate::LocalEventLoop), whose handlers need not be [`Send`].
///
/// ```
/// use anyloop::endpoint::LocalHandlers;
/// use anyloop::net::LocalNet;
/// use anyloop::proto::handshake::{OriginPolicy, ServerOptions};
/// use anyloop::{LocalEventLoop, Server};
/// use std::cell::Cell;
/// use std::rc::Rc;
///
/// let visitors = Rc::new(Cell::new(0));
/// let mut handlers = LocalHandlers::new();
/// handlers.on_open({
///     let visitors = visitors.clone();
///     move |_| visitors.set(visitors.get() + 1)
/// });
/// let options = ServerOptions::new(OriginPolicy::Any);
/// let server = Server::<LocalNet, _>::with_factory(options, handlers);
/// server.set_event_loop(&LocalEventLoop::new()?)?;
/// server.listen("127.0.0.1:0")?;
/// server.start_accept()?;
/// server.poll()?; // nobody is there
/// assert_eq!(visitors.get(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type LocalNet = Net<Local>;

/// The socket of a connection, while its session is at work.
///
/// A program only names it, as [`Net`].
pub struct Socket<'t, K: Kind> {
    pub(super) stream: &'t mut Stream,
    /// What the stream is known to be ready for is kept in it, and the earliest deadline that the session
    /// has asked for.
    pub(super) visit: &'t mut Visit,
    pub(super) engine: &'t Engine<K>,
    /// Who was at the other end, where the stream is closed in this turn.
    pub(super) peer: Option<Peer>,
}

impl<K: Kind> Socket<'_, K> {
    /// What a write says of the stream: not to have room is not to fail.
    pub(super) fn end_write(&mut self, written: io::Result<usize>) -> io::Result<usize> {
        match written {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.visit.kept = self.visit.kept.without(Events::WRITABLE); // an edge will come
                Ok(0)
            }
            result => result,
        }
    }
}

impl<K: Kind> Transport for Socket<'_, K> {
    type Error = io::Error;
    type Endpoint = Endpoint<K>;

    const LAZY_DEADLINES: bool = true;

    fn stop_listening(endpoint: &Endpoint<K>) {
        endpoint.listeners.close();
    }

    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = match slices {
            [slice] => self.stream.write(slice),
            slices => self.stream.write_vectored(slices),
        };
        self.end_write(written)
    }

    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        match how {
            Shutdown::HalfClose => self.stream.half_close(),
            Shutdown::Close | Shutdown::Abort => {
                // The handler is about to be told, and may ask.
                self.peer = Some(Peer::of(self.stream));
                *self.stream = Stream::Closed;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.visit.deadline = deadline.or(self.visit.deadline);
    }

    fn waker(&self) -> Waker {
        waker(self.engine.remote(), self.visit.token)
    }

    fn classify(error: &io::Error) -> TransportError {
        error.into()
    }

    fn is_secure(&self) -> bool {
        false
    }

    fn remote_endpoint(&self) -> String {
        self.peer.as_ref().map_or_else(|| Peer::of(self.stream), Peer::clone).to_string()
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        match &self.peer {
            Some(Peer::Tcp(address)) => Some(*address),
            Some(_) => None,
            None => self.stream.peer_addr(),
        }
    }

    fn key(&self) -> u64 {
        self.visit.token.number() as u64
    }

    fn now(&self) -> Option<Instant> {
        Some(now())
    }
}
