//! One connection: the protocol, and the application's handler.
//!
//! A [`Session`] keeps the contract of [`StreamProtocol`], and knows no transport. `opening` has the
//! opening handshake, `receive` the input and the timers of a session, `commands` the commands of handles, and
//! `ending` the end.

mod any_handle;
mod as_message;
mod body;
mod body_writer;
mod closing;
mod commands;
mod connection_config;
mod counters;
mod deferred;
mod ending;
mod endpoint_handle;
mod erased;
mod error;
mod flags;
mod handle;
mod handler;
mod handlers;
mod limits;
#[cfg(all(test, loom))]
mod models;
mod opening;
mod phase;
mod pieces;
mod receive;
mod redirecting;
mod registry;
mod responding;
#[cfg(feature = "router")]
mod route;
mod shared;
mod state;
#[cfg(test)]
mod tests;
mod timers;
mod writer;

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::Waker;

use anyloop_proto::handshake::{ClientOptions, RequestError, ServerOptions, Target};
use anyloop_proto::{
    CloseFrame, Connection, Input, Instant, Protocol, Role, SendQueue, State, Statistics,
    TransportError,
};

use crate::cold::cold_path;
use crate::stream::{Budget, Driver, Peer, Progress, StreamProtocol, Wants, WriteBuffer};
#[cfg(feature = "tls-core")]
use crate::tls::{OptionalTls, TlsStream};

pub use any_handle::AnyHandle;
pub use as_message::AsMessage;
pub use body::Body;
pub use body_writer::BodyWriter;
pub use connection_config::ConnectionConfig;
pub use counters::Counters;
pub use endpoint_handle::EndpointHandle;
use erased::{ErasedFn, Untyped};
pub use error::{SendError, Sent};
use flags::Flags;
pub use handle::Handle;
#[cfg(feature = "router")]
pub(crate) use handler::AnyHandler;
pub use handler::{Answer, Context, Handler, HandlerFactory};
pub(crate) use handlers::with_closure_list;
pub use handlers::{Handlers, LocalHandlers};
pub use limits::Overflow;
pub(crate) use limits::SendBufferLimits;
use phase::Phase;
pub(crate) use registry::{Key, WakeConnections};
#[cfg(feature = "router")]
pub(crate) use route::MatchedRoute;
use shared::Command;
pub use shared::ConnectionId;
pub(crate) use state::EndpointState;
pub use state::HandshakeInfo;
use state::{ClientRequest, HandshakeOutput, SessionState};
pub use timers::TimerId;
pub use writer::MessageWriter;

/// One connection, from the first byte of its handshake to the end of its byte stream: the protocol,
/// and the application's handler.
///
/// A [`Driver`] connects it to a transport. Programs only name it in the type of a driver.
pub struct Session<H: Handler> {
    protocol: Protocol,
    handler: H,
    state: SessionState,
}

impl<H: Handler> Session<H> {
    /// The server's side of a byte stream that begins at `now`.
    pub(crate) fn server(
        handler: H,
        options: Arc<ServerOptions>,
        endpoint: Arc<EndpointState>,
        now: Instant,
    ) -> Self {
        endpoint.counters.started.add(1);
        let protocol = Protocol::server(options, now);
        Self { protocol, handler, state: SessionState::new(endpoint) }
    }

    /// The client's side of a byte stream to `target`.
    pub(crate) fn client(
        handler: H,
        target: &Target,
        options: Arc<ClientOptions>,
        limits: Option<SendBufferLimits>,
        endpoint: Arc<EndpointState>,
        now: Instant,
    ) -> Result<Self, RequestError> {
        let mut bytes = Vec::new();
        let protocol = Protocol::client(target, options, now, &mut bytes)?;
        endpoint.counters.started.add(1);
        let mut state = SessionState::new(endpoint);
        let info = HandshakeInfo { target: Some(target.clone()), ..HandshakeInfo::default() };
        state.rare_mut().handshake = Some(Box::new(info));
        let request = ClientRequest { bytes, secure: target.secure(), limits };
        state.rare_mut().handshake_output = Some(Box::new(HandshakeOutput::Request(request)));
        state.flags.set(Flags::REQUEST_UNSENT, true);
        Ok(Self { protocol, handler, state })
    }

    /// Adds the connection to the registry of its endpoint, which identifies it by its slot in the loop.
    pub(crate) fn register(&mut self, key: Key) {
        self.state.endpoint.registry.register(key);
        self.state.index = key.index;
        self.apply_limits();
    }

    /// Like [`register`](Self::register), for a connection that `waker` wakes. The state that it shares with
    /// its handles is made now, not on demand.
    pub(crate) fn register_with_waker(&mut self, waker: &Waker) {
        let (index, shared) = self.state.endpoint.registry.register_with_waker(waker);
        self.state.index = index;
        self.state.rare_mut().shared = Some(shared);
        self.apply_limits();
    }

    /// Applies the limits of a client's connection that has its own.
    fn apply_limits(&mut self) {
        let output = self.state.rare.as_deref().and_then(|rare| rare.handshake_output.as_deref());
        if let Some(HandshakeOutput::Request(ClientRequest { limits: Some(limits), .. })) = output {
            self.state.set_limits(*limits);
        }
    }

    /// Stores the peer, since the transport may not know it any more when the handler asks.
    pub(crate) fn set_peer(&mut self, peer: Peer) {
        self.state.rare_mut().peer = Some(Box::new(peer));
    }

    /// Abandons the handshake before it has begun. The driver, once started, ends the stream at once,
    /// and a client sends no request.
    pub(crate) fn abandon(&mut self, now: Instant) {
        let mut nothing = Vec::new(); // there is nothing to answer yet
        match &mut self.protocol {
            Protocol::Server(handshake) => _ = handshake.abandon(now, &mut nothing),
            Protocol::Client(handshake) => _ = handshake.abandon(now, &mut nothing),
            Protocol::Open(_) | Protocol::Closed => {}
        }
    }

    /// Sets a time at which the handshake of a client times out at the latest.
    pub(crate) fn expire_by(&mut self, latest: Instant) {
        if let Protocol::Client(handshake) = &mut self.protocol {
            handshake.expire_by(latest);
        }
    }

    /// A handle of this connection.
    pub(crate) fn handle(&mut self) -> Handle<H> {
        let phase = self.phase();
        let handle = Handle::new(self.state.get_or_create_shared(0, phase));
        self.publish_held_up();
        handle
    }

    /// Publishes to the handles whether a message in pieces is in progress, or messages are deferred.
    fn publish_held_up(&self) {
        if let Protocol::Open(connection) = &self.protocol {
            self.state.publish_held_up(connection.sender.is_message_begun());
        }
    }

    /// The phase of the connection.
    const fn phase(&self) -> Phase {
        match &self.protocol {
            Protocol::Open(connection) => Phase::of(connection.state()),
            Protocol::Closed => self.state.phase,
            // Published when the request arrived, since it depends on the method.
            Protocol::Server(handshake) if handshake.awaits_answer() => self.state.phase,
            Protocol::Server(handshake) if handshake.discards_input() => Phase::WillNotOpen,
            _ => Phase::Connecting,
        }
    }

    /// Calls the handler.
    fn call<R>(
        &mut self,
        out: &mut WriteBuffer<'_>,
        now: Instant,
        f: impl FnOnce(&mut H, &mut Context<'_, H>) -> R,
    ) -> R {
        self.call_within(None, out, now, f)
    }

    /// Calls the handler within a batch of commands, of which `unrun` have not run.
    fn call_within<R>(
        &mut self,
        unrun: Option<&mut VecDeque<Command>>,
        out: &mut WriteBuffer<'_>,
        now: Instant,
        f: impl FnOnce(&mut H, &mut Context<'_, H>) -> R,
    ) -> R {
        let Self { protocol, handler, state } = self;
        let (sender, receiver) = match protocol {
            Protocol::Open(Connection { sender, receiver }) => (Some(sender), Some(&*receiver)),
            _ => (None, None),
        };
        let out = out.reborrow();
        let mut context = Context {
            marker: PhantomData,
            sender,
            receiver,
            out,
            state,
            now,
            unrun,
            new_handler: None,
        };
        let result = f(handler, &mut context);
        if let Some(new_handler) = context.new_handler {
            *handler = new_handler;
        }
        self.terminate_if_asked();
        result
    }

    /// Calls a function that was stored without the type of the handler.
    fn call_erased(
        &mut self,
        unrun: Option<&mut VecDeque<Command>>,
        out: &mut WriteBuffer<'_>,
        now: Instant,
        f: Box<ErasedFn>,
    ) {
        self.call_within(unrun, out, now, |handler, context| {
            context.call(&mut Untyped, |_, context| f(handler, context))
        });
    }

    /// Ends the connection, if the program has asked for that.
    fn terminate_if_asked(&mut self) {
        if self.state.flags.has(Flags::TERMINATED) {
            cold_path();
            self.protocol.terminate();
        }
    }

    /// Whether reading is paused or an answer is awaited. Input that is to be discarded is received even then.
    const fn is_input_held_back(&self) -> bool {
        match &self.protocol {
            Protocol::Open(_) => self.state.flags.has(Flags::PAUSED),
            _ => self.protocol.awaits_answer(),
        }
    }
}

impl<H: Handler> StreamProtocol for Session<H> {
    fn start(&mut self, secure: bool, out: &mut WriteBuffer<'_>, now: Instant) {
        self.begin_handshake(secure, out, now);
    }

    #[inline]
    fn receive(
        &mut self,
        input: &mut Input<'_>,
        out: &mut WriteBuffer<'_>,
        budget: &mut Budget,
        now: Instant,
    ) -> Progress {
        let progress = self.receive_input(input, out, budget, now);
        self.terminate_if_asked();
        progress
    }

    fn receive_buffer(&mut self) -> Option<&mut [u8]> {
        match &mut self.protocol {
            Protocol::Open(connection) if !self.state.flags.has(Flags::PAUSED) => {
                connection.receiver.receive_buffer()
            }
            _ => None,
        }
    }

    fn filled(&mut self, n: usize) {
        if let Protocol::Open(connection) = &mut self.protocol {
            connection.receiver.filled(n);
        }
    }

    fn outstanding(&self) -> u64 {
        match &self.protocol {
            Protocol::Open(connection) => connection.receiver.outstanding(),
            _ => 0,
        }
    }

    fn handle_eof(&mut self) {
        self.protocol.handle_eof();
    }

    fn is_terminated(&self) -> bool {
        self.state.flags.has(Flags::TERMINATED)
    }

    fn handle_error(&mut self, kind: TransportError, error: Option<Box<dyn Error + Send + Sync>>) {
        if let Some(error) = error {
            self.state.rare_mut().error.get_or_insert(error);
        }
        self.protocol.handle_error(kind);
    }

    fn handle_lost_output(&mut self, bytes: usize, error: Option<TransportError>) {
        let Protocol::Open(connection) = &self.protocol else { return };
        let ending = connection.ending();
        let our_close = ending.and_then(|ending| ending.received.and(ending.sent));
        // If the peer resets after its Close, losing only our Close is no failure; losing messages before it is.
        let is_unwanted = error == Some(TransportError::Reset)
            && our_close.is_some_and(|close| bytes <= frame_len(close, connection.role()));
        if !is_unwanted {
            self.protocol.handle_lost_output();
        }
    }

    fn handle_writable(&mut self, out: &mut WriteBuffer<'_>, now: Instant) {
        match &mut self.protocol {
            Protocol::Open(connection) => connection.handle_writable(now, out),
            Protocol::Server(_) => self.resume_body(out),
            Protocol::Client(_) | Protocol::Closed => {}
        }
    }

    fn handle_timeout(&mut self, out: &mut WriteBuffer<'_>, budget: &mut Budget, now: Instant) {
        self.run_timers(out, budget, now);
    }

    fn run_commands(
        &mut self,
        out: &mut WriteBuffer<'_>,
        budget: &mut Budget,
        now: Instant,
    ) -> Progress {
        let progress = self.run_all_commands(out, budget, now);
        self.send_body(out, budget, now);
        progress
    }

    fn resume(&mut self, out: &mut WriteBuffer<'_>, budget: &mut Budget, now: Instant) {
        self.state.flags.set(Flags::RESUME, false);
        self.notify_open(None, out, budget, now);
        self.send_body(out, budget, now);
    }

    fn handle_panic(&mut self, out: &mut WriteBuffer<'_>, now: Instant) {
        self.protocol.handle_application_failure(now, out);
    }

    fn handle_written(&mut self, send_buffer_len: usize) -> bool {
        let phase = self.phase();
        let high = self.state.flags.has(Flags::HIGH);
        if send_buffer_len > 0 || self.state.deferred_bytes() > 0 {
            // So that a handle that is created later reports how much waits.
            self.state.get_or_create_shared(send_buffer_len, phase);
        }
        self.state.publish(send_buffer_len, phase);
        self.publish_held_up();
        if send_buffer_len == 0 && !high {
            return false;
        }
        let limits = self.state.limits();
        // A low-water mark above the high one counts as equal to it.
        let low = limits.low_water_mark.min(limits.high_water_mark);
        let crossed =
            if high { send_buffer_len <= low } else { send_buffer_len > limits.high_water_mark };
        crossed && phase == Phase::Open && !self.state.flags.has(Flags::NOTIFY_OPEN)
    }

    fn report_send_buffer(&mut self, out: &mut WriteBuffer<'_>, budget: &mut Budget, now: Instant) {
        if !budget.try_spend() {
            return self.state.request_resume();
        }
        let high = self.state.flags.has(Flags::HIGH);
        self.state.flags.set(Flags::HIGH, !high);
        self.call(out, now, if high { Handler::drained } else { Handler::backpressure });
    }

    fn note_peer(&mut self, peer: &mut dyn FnMut() -> Peer) {
        if self.state.peer().is_none() {
            self.set_peer(peer());
        }
    }

    fn note_send_queue(&mut self, queue: &mut dyn FnMut() -> Option<SendQueue>, now: Instant) {
        match &mut self.protocol {
            Protocol::Open(connection) => connection.note_send_queue(queue, now),
            Protocol::Server(handshake) => handshake.note_send_queue(queue, now),
            Protocol::Client(_) | Protocol::Closed => {}
        }
    }

    fn prepare_close(&mut self, budget: &mut Budget) -> bool {
        self.prepare_end(budget)
    }

    fn handle_closed(&mut self, out: &mut WriteBuffer<'_>, now: Instant) {
        self.notify_end(out, now);
    }

    fn wants(&self) -> Wants {
        let flags = self.state.flags;
        let mut wants = Wants::new(self.protocol.shutdown());
        wants.discard = self.protocol.discards_input();
        wants.read = !wants.discard && !self.is_input_held_back();
        wants.end = self.protocol.awaits_answer();
        wants.again = flags.has(Flags::RESUME);
        wants.slow_path = match &self.protocol {
            Protocol::Open(connection) => !connection.receiver.is_on_fast_path(),
            _ => true, // nothing but an open connection between two messages is on the fast path
        };
        wants
    }

    #[inline]
    fn deadline(&self) -> Option<Instant> {
        // Until the stream exists, the transport has timeouts of its own.
        let protocol = match self.state.flags.has(Flags::REQUEST_UNSENT) {
            true => None,
            false => self.protocol.poll_timeout(),
        };
        match (protocol, self.state.next_due()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    fn end_call(&mut self, send_buffer_len: usize, now: Instant) {
        let reading = self.protocol.discards_input() || !self.is_input_held_back();
        match &mut self.protocol {
            Protocol::Open(connection) => connection.set_reading(reading, now),
            Protocol::Server(handshake) => {
                handshake.handle_written(send_buffer_len, now);
                self.report_unsent_to_writer(send_buffer_len);
            }
            Protocol::Client(_) | Protocol::Closed => {}
        }
        self.state.free_unused();
        self.state.flags.set(Flags::WANTS_CHANGED, false);
    }
}

/// The methods of a driver that concern its session.
macro_rules! session_methods {
    ($protocol:ty, $driver:ident => $session:expr, $session_mut:expr) => {
        impl<H: Handler> Driver<$protocol> {
            /// A handle of this connection, for any thread.
            #[must_use]
            pub fn handle(&mut self) -> Handle<H> {
                let $driver = self;
                $session_mut.handle()
            }

            /// The handler.
            #[must_use]
            pub const fn handler(&self) -> &H {
                let $driver = self;
                &$session.handler
            }

            /// The state of the connection.
            #[must_use]
            pub const fn state(&self) -> State {
                let $driver = self;
                $session.phase().state()
            }

            /// The statistics of the connection; zeros before it is open, and after it is over.
            #[must_use]
            pub fn statistics(&self) -> Statistics {
                let $driver = self;
                $session.protocol.statistics()
            }
        }
    };
}

session_methods!(Session<H>, driver => &driver.protocol, &mut driver.protocol);
#[cfg(feature = "tls-core")]
session_methods!(TlsStream<Session<H>>, driver => driver.protocol.inner(), driver.protocol.inner_mut());
/// For iostream.
#[cfg(feature = "tls-core")]
impl<H: Handler> Driver<OptionalTls<Session<H>>> {
    pub(crate) fn handle(&mut self) -> Handle<H> {
        self.protocol.inner_mut().handle()
    }

    pub(crate) const fn state(&self) -> State {
        self.protocol.inner().phase().state()
    }

    pub(crate) fn statistics(&self) -> Statistics {
        self.protocol.inner().protocol.statistics()
    }
}

impl<H: Handler> fmt::Debug for Session<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("state", &self.phase().state()).finish_non_exhaustive()
    }
}

/// The length of the frame of a Close, in bytes (RFC 6455 §5.2).
fn frame_len(close: &CloseFrame, sender: Role) -> usize {
    let key = if sender == Role::Client { 4 } else { 0 };
    2 + key + close.code.map_or(0, |_| 2 + close.reason.len())
}
