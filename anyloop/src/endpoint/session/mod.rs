//! One connection at work: the state machine, the application's handler, and what lies between them
//! and the transport.
//!
//! What is called from outside stands here; `work` does what comes of it, `settle` what is to be done
//! when that is done, and `proceed` what had to be left.

mod proceed;
mod settle;
#[cfg(test)]
mod tests;
mod work;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::task::Waker;

use anyloop_proto::handshake::{
    ClientHandshake, ClientOptions, RequestError, ServerHandshake, ServerOptions, Target,
};
use anyloop_proto::{Connection, Instant, Shutdown, State, Statistics, TransportError};

use super::core::Common;
use super::handle::{Handle, Seat};
use super::handler::Handler;
use super::io::{Deadline, End, Facts, Io, Scratch};
use crate::transport::Transport;

/// One connection, from the first byte of its handshake to the end of its byte stream.
///
/// A session belongs to its transport, which tells it what happens (the table in [`Transport`]) and
/// passes itself along, so that the session can write. Each of these calls does everything that comes
/// of it before it returns: handlers are called, what they send is written in one piece, the stream is
/// ended when it is time to, and the deadline is set anew.
///
/// The example of [`Transport`] drives one.
pub struct Session<H: Handler> {
    machine: Machine,
    handler: H,
    io: Io<H>,
}

enum Machine {
    Server(Box<ServerHandshake>),
    Client(Box<ClientHandshake>),
    Open(Connection),
    Over,
}

impl<H: Handler> Session<H> {
    pub(super) fn server(
        handler: H,
        options: Arc<ServerOptions>,
        common: Arc<Common<H>>,
        now: Instant,
    ) -> Self {
        common.counting.made.add(1);
        let machine = Machine::Server(Box::new(ServerHandshake::new(options, now)));
        Self { machine, handler, io: Io::new(common) }
    }

    pub(super) fn client(
        handler: H,
        target: &Target,
        options: Arc<ClientOptions>,
        common: Arc<Common<H>>,
        now: Instant,
    ) -> Result<Self, RequestError> {
        let mut request = Vec::new();
        let handshake = ClientHandshake::new(target, options, now, &mut request)?;
        common.counting.made.add(1);
        let mut io = Io::new(common);
        io.extras().needs_security = target.secure();
        let facts = Facts { target: Some(target.clone()), ..Facts::default() };
        io.extras().facts = Some(Box::new(facts));
        let mut backlog = Box::<super::backlog::Backlog>::default();
        backlog.push(&request);
        io.put_backlog(Some(backlog));
        Ok(Self { machine: Machine::Client(Box::new(handshake)), handler, io })
    }

    /// Gives the handshake up before it has begun; the stream ends when it is started.
    pub(crate) fn give_up(&mut self, now: Instant) {
        if let Machine::Server(handshake) = &mut self.machine {
            handshake.abandon(now, &mut Vec::new()); // there is nothing to answer yet
        }
    }

    /// The stream is there: a client sends its request. Where the target is a `wss` URI and the
    /// transport is not [secure](Transport::is_secure), it sends nothing and fails.
    pub fn start<T: Transport>(&mut self, transport: &mut T, scratch: &mut Scratch, now: Instant) {
        self.io.started = true;
        if T::LAZY_DEADLINES {
            self.io.forget_deadline(); // what was told may have been about another transport
        }
        if let Machine::Client(handshake) = &mut self.machine {
            handshake.begin(now);
            let needs_security = std::mem::take(&mut self.io.extras().needs_security);
            if needs_security && !transport.is_secure() {
                drop(self.io.take_backlog());
                handshake.handle_insecure();
            }
        }
        self.handle_writable(transport, scratch, now);
    }

    /// A client's handshake must be over by then.
    pub(crate) fn expire_by(&mut self, latest: Instant) {
        if let Machine::Client(handshake) = &mut self.machine {
            handshake.expire_by(latest);
        }
    }

    /// Whether [`start`](Self::start) was called.
    #[must_use]
    pub const fn has_started(&self) -> bool {
        self.io.started
    }

    /// Bytes have arrived. Returns how many of them were taken: all, unless reading is paused, a
    /// verdict is awaited, or the peer's Close was among them. What was not taken is to be fed again
    /// when [`wants_input`](Self::wants_input) says so, or thrown away when
    /// [`discards_input`](Self::discards_input) does.
    pub fn feed<T: Transport>(
        &mut self,
        transport: &mut T,
        scratch: &mut Scratch,
        bytes: &mut [u8],
        now: Instant,
    ) -> usize {
        if !self.wants_input() {
            return 0;
        }
        let left = self.take_in(transport, scratch, bytes, now);
        self.settle(transport, scratch, now);
        bytes.len() - left
    }

    /// The peer has ended its direction of the stream.
    pub fn handle_eof<T: Transport>(
        &mut self,
        transport: &mut T,
        scratch: &mut Scratch,
        now: Instant,
    ) {
        if self.is_over() {
            return;
        }
        if self.io.interrupted || self.io.has_unread() {
            self.io.extras().end = Some(End::Eof); // what came before it comes first
        } else {
            self.end_of_stream();
        }
        self.settle(transport, scratch, now);
    }

    /// The stream has failed.
    pub fn handle_error<T: Transport>(
        &mut self,
        transport: &mut T,
        scratch: &mut Scratch,
        error: TransportError,
        now: Instant,
    ) {
        if self.wants_to_proceed() {
            self.io.extras().end = Some(End::Error(error)); // as above
        } else {
            self.transport_failed(error);
        }
        self.settle(transport, scratch, now);
    }

    /// The stream has failed, and with this: a handler that is told of the end can
    /// [ask for it](super::Context::error).
    pub fn handle_error_with<T: Transport>(
        &mut self,
        transport: &mut T,
        scratch: &mut Scratch,
        kind: TransportError,
        error: Box<dyn Error + Send + Sync>,
        now: Instant,
    ) {
        if !self.is_over() {
            self.io.put_error(error);
        }
        self.handle_error(transport, scratch, kind, now);
    }

    /// The stream can take more.
    pub fn handle_writable<T: Transport>(
        &mut self,
        transport: &mut T,
        scratch: &mut Scratch,
        now: Instant,
    ) {
        if !self.io.started {
            return;
        }
        self.work(transport, &mut scratch.cork, |session, line| {
            let before = line.backlog();
            line.write_backlog();
            // Only a peer that has read something has a claim to more time.
            let progress = before == 0 || line.backlog() < before;
            if let Machine::Open(connection) = &mut session.machine
                && progress
            {
                connection.handle_writable(now, line);
            }
        });
        self.settle(transport, scratch, now);
    }

    /// A deadline may have come: does what is due.
    pub fn handle_timeout<T: Transport>(
        &mut self,
        transport: &mut T,
        scratch: &mut Scratch,
        now: Instant,
    ) {
        if T::LAZY_DEADLINES {
            self.io.forget_deadline(); // it is told anew
        }
        let Scratch { cork, gate, .. } = scratch;
        self.work(transport, cork, |session, line| session.run_timers(gate, line, now));
        self.settle(transport, scratch, now);
    }

    /// The transport was woken: does what [handles](Handle) have asked for.
    pub fn drain<T: Transport>(&mut self, transport: &mut T, scratch: &mut Scratch, now: Instant) {
        if !self.has_seat() {
            return;
        }
        let Scratch { cork, gate, .. } = scratch;
        self.work(transport, cork, |session, line| session.obey_all(gate, line, now));
        self.settle(transport, scratch, now);
    }

    /// Lends memory to receive a large payload into; see [`anyloop_proto::Receiver::want`]. Follow
    /// it with [`filled`](Self::filled) and [`feed`](Self::feed), with no bytes or those that come
    /// after.
    pub fn want(&mut self) -> Option<&mut [u8]> {
        match &mut self.machine {
            Machine::Open(connection) if !self.io.paused && !self.io.has_unread() => {
                connection.receiver.want()
            }
            _ => None,
        }
    }

    /// How much of a frame is still to come; see [`anyloop_proto::Receiver::outstanding`].
    pub fn outstanding(&self) -> u64 {
        match &self.machine {
            Machine::Open(connection) => connection.receiver.outstanding(),
            _ => 0,
        }
    }

    /// Says how much of what was lent was filled.
    pub fn filled(&mut self, n: usize) {
        if let Machine::Open(connection) = &mut self.machine {
            connection.receiver.filled(n);
        }
    }

    /// The connection, for others to reach it. `waker` is the transport's.
    pub fn handle(&mut self, waker: &Waker) -> Handle<H> {
        let state = self.state();
        Handle::new(self.io.own_seat(waker, state).clone())
    }

    /// Takes its place on a seat that was made for it elsewhere, unless it has one.
    pub(crate) fn adopt(&mut self, seat: Arc<Seat<H>>) {
        let (backlog, state) = (self.buffered_amount(), self.state());
        self.io.seat_with(backlog, state, || seat);
    }

    /// Whether it is open and waits for nothing but input: there is nothing else to look at.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        match &self.machine {
            Machine::Open(connection) => connection.state() == State::Open && !self.io.restless,
            _ => false,
        }
    }

    /// The same, and nothing is kept of what has arrived: input may be received into any memory.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        match &self.machine {
            Machine::Open(connection) => self.is_plain() && connection.receiver.is_idle(),
            _ => false,
        }
    }

    /// Who knows the connections of the endpoint, if the transport does.
    pub(crate) fn roster(&self) -> Option<&Arc<dyn super::Roster<H>>> {
        self.io.common.roster.get()
    }

    /// Whether anybody could reach it by a handle.
    pub(crate) fn has_seat(&self) -> bool {
        self.io.present_seat().is_some()
    }

    /// Whether input would be taken now.
    #[must_use]
    #[inline]
    pub fn wants_input(&self) -> bool {
        match &self.machine {
            Machine::Open(_) => !self.io.paused && !self.discards_input(),
            _ => self.reads() && !self.discards_input(),
        }
    }

    /// Whether nothing more will be made of input: the peer's Close has come, or the connection has
    /// failed, and only the stream is still to end. A transport goes on reading for that, and throws
    /// away what it reads; [`feed`](Self::feed) takes none of it.
    #[must_use]
    pub fn discards_input(&self) -> bool {
        match &self.machine {
            Machine::Server(handshake) => handshake.shutdown() != Shutdown::Open,
            Machine::Client(handshake) => handshake.shutdown() != Shutdown::Open,
            Machine::Open(connection) => {
                !matches!(connection.state(), State::Open | State::CloseSent)
            }
            Machine::Over => true,
        }
    }

    /// Whether the transport is to read: not while reading is paused, nor while a request waits for
    /// its verdict.
    fn reads(&self) -> bool {
        match &self.machine {
            Machine::Server(handshake) => {
                handshake.request().is_none() || handshake.shutdown() != Shutdown::Open
            }
            Machine::Client(_) => true,
            Machine::Open(_) => !self.io.paused || self.discards_input(),
            Machine::Over => false,
        }
    }

    /// Whether all is over: the stream is closed, and the handler was told.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.machine, Machine::Over)
    }

    /// How far the connection has come.
    #[must_use]
    pub const fn state(&self) -> State {
        match &self.machine {
            Machine::Open(connection) => connection.state(),
            _ => self.io.state,
        }
    }

    /// What has passed through the connection; zeros when it is not open yet or over.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        match &self.machine {
            Machine::Open(connection) => connection.statistics(),
            _ => Statistics::default(),
        }
    }

    /// Bytes that were sent and that the transport has not taken.
    #[must_use]
    pub fn buffered_amount(&self) -> usize {
        self.io.buffered()
    }

    /// The next deadline, as the transport was told.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.io.deadline()
    }

    /// The handler.
    #[must_use]
    pub const fn handler(&self) -> &H {
        &self.handler
    }

    fn shutdown(&self) -> Shutdown {
        match &self.machine {
            Machine::Server(handshake) => handshake.shutdown(),
            Machine::Client(handshake) => handshake.shutdown(),
            Machine::Open(connection) => connection.shutdown(),
            Machine::Over => Shutdown::Open,
        }
    }

    /// When something is due, as things are now.
    #[inline]
    fn next_deadline(&self) -> Deadline {
        let machine = match &self.machine {
            Machine::Open(connection) => connection.poll_timeout(),
            Machine::Server(handshake) => handshake.poll_timeout(),
            // Until there is a stream, its coming is the transport's to wait for.
            Machine::Client(_) if !self.io.started => None,
            Machine::Client(handshake) => handshake.poll_timeout(),
            Machine::Over => None,
        };
        Deadline::new(machine).min(Deadline::new(self.io.next_due()))
    }
}

impl<H: Handler> fmt::Debug for Session<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("state", &self.state()).finish_non_exhaustive()
    }
}
