//! What a session has beside its machine and its handler.

use std::any::Any;
use std::sync::Arc;
use std::task::Waker;

use anyloop_proto::handshake::Request;
use anyloop_proto::handshake::http::Response;
use anyloop_proto::{BufferPool, Instant, State};

use super::backlog::Backlog;
use super::handle::Seat;
use super::handler::Handler;
use super::settings::Common;
use super::timers::Timers;

/// All that a session has beside its machine and its handler.
pub(super) struct Io<H: Handler> {
    pub(super) common: Arc<Common>,
    pub(super) seat: Option<Arc<Seat<H>>>,
    pub(super) backlog: Option<Box<Backlog>>,
    pub(super) rare: Option<Box<Rare<H>>>,
    /// As the transport knows it.
    pub(super) deadline: Option<Instant>,
    /// Of the machine, where it is not open.
    pub(super) state: State,
    pub(super) paused: bool,
    /// As the transport knows it.
    pub(super) reading: bool,
    /// The backlog was above the high-water mark, and not at the low one since.
    pub(super) high: bool,
    pub(super) half_closed: bool,
    pub(super) started: bool,
    pub(super) needs_security: bool,
}

/// What few connections have.
pub(super) struct Rare<H: Handler> {
    pub(super) facts: Option<Facts>,
    pub(super) timers: Timers<H>,
    pub(super) successor: Option<H>,
    /// What program code has panicked with.
    pub(super) panic: Option<Box<dyn Any + Send>>,
}

/// What was said in the opening handshake.
///
/// ```
/// # use anyloop::Server;
/// # use anyloop::proto::handshake::{OriginPolicy, ServerOptions};
/// # use anyloop::transport::iostream::IoStream;
/// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// # let mut server = Server::<IoStream>::new(ServerOptions::new(OriginPolicy::Any));
/// server.on_message(|_, context| {
///     let facts = context.facts().expect("they are kept by default");
///     assert_eq!(facts.request.as_ref().map(|request| request.uri().path()), Some("/"));
///     assert_eq!(facts.response.as_ref().map(|response| response.status().as_u16()), Some(101));
///     assert_eq!(facts.subprotocol, None); // none was asked for
/// });
/// # let connection = server.connection();
/// # connection.register_output(std::io::sink());
/// # connection.read_all(REQUEST)?;
/// # connection.read_all(b"\x81\x80\0\0\0\0")?;
/// # assert_eq!(connection.statistics().map(|statistics| statistics.messages_received), Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Facts {
    /// The request, as a server received it.
    pub request: Option<Request>,
    /// The response: as sent by a server; as received by a client, with its body if it refuses.
    pub response: Option<Response<Vec<u8>>>,
    /// The subprotocol agreed on.
    pub subprotocol: Option<String>,
    /// The extension agreed on, with its parameters.
    pub extension: Option<String>,
}

/// Memory that belongs to whoever runs sessions, and is lent to the one at work: one for each thread
/// is enough for any number of connections.
///
/// The example of [`Transport`](crate::transport::Transport) lends one.
#[derive(Debug)]
pub struct Scratch {
    pub(super) cork: Vec<u8>,
    pub(super) pool: BufferPool,
}

impl Scratch {
    /// Memory that keeps at most `most` bytes for messages that arrive in parts.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self { cork: Vec::new(), pool: BufferPool::new(most) }
    }
}

impl Default for Scratch {
    /// Keeps up to 8 MiB.
    fn default() -> Self {
        Self::new(8 << 20)
    }
}
impl<H: Handler> Io<H> {
    pub(super) fn new(common: Arc<Common>) -> Self {
        Self {
            common,
            seat: None,
            backlog: None,
            rare: None,
            deadline: None,
            state: State::Connecting,
            paused: false,
            reading: true,
            high: false,
            half_closed: false,
            started: false,
            needs_security: false,
        }
    }

    pub(super) fn seat(&mut self, waker: impl FnOnce() -> Waker, state: State) -> &Arc<Seat<H>> {
        let limits = self.common.limits;
        self.seat.get_or_insert_with(|| Arc::new(Seat::new(waker(), limits, state)))
    }

    pub(super) fn facts(&self) -> Option<&Facts> {
        self.rare.as_deref()?.facts.as_ref()
    }

    /// Tells the handles how things are.
    pub(super) fn publish(&self, backlog: usize, state: State) {
        if let Some(seat) = &self.seat {
            seat.publish(backlog, state);
        }
    }

    /// Whether program code has panicked, and nobody has been told of it.
    pub(super) fn has_panicked(&self) -> bool {
        self.rare.as_deref().is_some_and(|rare| rare.panic.is_some())
    }

    /// What program code has panicked with, and nobody has been told of.
    pub(super) fn take_panic(&mut self) -> Option<Box<dyn Any + Send>> {
        self.rare.as_deref_mut()?.panic.take()
    }

    pub(super) fn timers(&mut self) -> &mut Timers<H> {
        &mut self.rare().timers
    }

    pub(super) fn rare(&mut self) -> &mut Rare<H> {
        self.rare.get_or_insert_with(|| {
            Box::new(Rare { facts: None, timers: Timers::default(), successor: None, panic: None })
        })
    }

    pub(super) fn has_successor(&self) -> bool {
        self.rare.as_deref().is_some_and(|rare| rare.successor.is_some())
    }

    /// Lets go of memory that nothing needs.
    pub(super) fn tidy(&mut self) {
        if let Some(rare) = self.rare.as_deref()
            && rare.facts.is_none()
            && rare.successor.is_none()
            && rare.timers.are_unused()
            && rare.panic.is_none()
        {
            self.rare = None;
        }
    }
}

impl<H: Handler> Drop for Io<H> {
    /// A transport that is dropped takes its connection along; handles must learn of it.
    fn drop(&mut self) {
        if let Some(seat) = &self.seat {
            seat.leave();
        }
    }
}
