//! The rest of a session's state: all but its protocol and its handler.

use std::any::Any;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyloop_proto::handshake::http::Response;
use anyloop_proto::handshake::{Request, Target};
use anyloop_proto::{CloseCode, Instant};

use super::body::Body;
use super::counters::AtomicCounters;
use super::deferred::{Deferred, NextDeferred, OutgoingMessage};
use super::erased::ErasedFn;
use super::flags::Flags;
use super::limits::SendBufferLimits;
use super::phase::Phase;
use super::pieces::{MessageProgress, Piece, Pieces};
use super::registry::Registry;
#[cfg(feature = "router")]
use super::route::MatchedRoute;
use super::shared::Shared;
use super::timers::{TimerId, Timers};
use crate::stream::Peer;
use crate::sync::unmodelled::OnceLock;

/// The reason of a Close when the endpoint shuts down.
const SHUTTING_DOWN: &str = "shutting down";

/// The state that all sessions of an endpoint share.
pub(crate) struct EndpointState {
    pub(crate) limits: SendBufferLimits,
    /// Whether open connections keep their handshake.
    pub(crate) keep_handshake: bool,
    pub(crate) counters: AtomicCounters,
    pub(crate) registry: Registry,
    shutting_down: AtomicBool,
    /// Closes the listeners of a server.
    stop_listening: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// What the module that owns this client (`net`) needs to connect; opaque here.
    connector: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl EndpointState {
    pub(crate) fn new(limits: SendBufferLimits, keep_handshake: bool) -> Arc<Self> {
        let (counters, registry) = (AtomicCounters::default(), Registry::new(limits));
        let (stop_listening, connector) = (OnceLock::new(), OnceLock::new());
        let shutting_down = AtomicBool::new(false);
        Arc::new(Self {
            limits,
            keep_handshake,
            counters,
            registry,
            shutting_down,
            stop_listening,
            connector,
        })
    }

    /// Sets the function that closes the listeners at shutdown. Only the first call has an effect.
    pub(crate) fn on_shut_down(&self, stop_listening: impl Fn() + Send + Sync + 'static) {
        self.stop_listening.get_or_init(|| Box::new(stop_listening));
    }

    /// Sets what is needed to connect. Only the first call has an effect.
    pub(crate) fn set_connector(&self, connector: Box<dyn Any + Send + Sync>) {
        self.connector.get_or_init(|| connector);
    }

    pub(crate) fn connector(&self) -> Option<&(dyn Any + Send + Sync)> {
        self.connector.get().map(|connector| &**connector)
    }

    pub(crate) fn shut_down(&self) {
        self.shutting_down.store(true, Ordering::Release);
        // After the flag is set, so that no listener can be added.
        if let Some(stop_listening) = self.stop_listening.get() {
            stop_listening();
        }
        self.registry.close_all(Some(CloseCode::GOING_AWAY), SHUTTING_DOWN);
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Acquire)
    }
}

/// The rest of a session's state: 24 bytes, and a box for rare data.
pub(super) struct SessionState {
    pub(super) endpoint: Arc<EndpointState>,
    pub(super) rare: Option<Box<Rare>>,
    /// The index of the connection in the registry; `UNREGISTERED` while it is not there.
    pub(super) index: u32,
    pub(super) flags: Flags,
    /// The phase that [`publish`](Self::publish) was last called with; `Connecting` before, and `Ended` after
    /// [`end`](Self::end).
    pub(super) phase: Phase,
}

const UNREGISTERED: u32 = u32::MAX;

/// The data that an idle connection without a kept handshake does not need. Made on demand. By default every open
/// connection has it, for the kept handshake.
#[derive(Default)]
pub(super) struct Rare {
    /// The state that the connection shares with its handles.
    pub(super) shared: Option<Arc<Shared>>,
    pub(super) handshake: Option<Box<HandshakeInfo>>,
    /// The route that the path of the request has matched.
    #[cfg(feature = "router")]
    pub(super) route: Option<Box<MatchedRoute>>,
    /// The peer, as the transport has reported it.
    pub(super) peer: Option<Box<Peer>>,
    /// The error that ended the connection, for [`Context::error`](super::Context::error).
    pub(super) error: Option<Box<dyn Error + Send + Sync>>,
    pub(super) timers: Timers<Box<ErasedFn>>,
    /// What the opening handshake still has to send.
    pub(super) handshake_output: Option<Box<HandshakeOutput>>,
    pub(super) deferred: Option<Box<Deferred>>,
}

/// What an opening handshake still has to send. One field for client and server, to keep [`Rare`] small.
pub(super) enum HandshakeOutput {
    /// A client's request, which is sent when the stream exists.
    Request(ClientRequest),
    /// The body of a server's response.
    Body(Body),
}

/// The request of a client.
pub(super) struct ClientRequest {
    pub(super) bytes: Vec<u8>,
    /// Whether it may only be sent over a secure stream.
    pub(super) secure: bool,
    /// The limits of the send buffer, if this connection overrides the endpoint's.
    pub(super) limits: Option<SendBufferLimits>,
}

impl Rare {
    /// Frees the handshake, the peer and the route.
    pub(super) fn forget_handshake(&mut self) {
        (self.handshake, self.peer) = (None, None);
        #[cfg(feature = "router")]
        {
            self.route = None;
        }
    }

    const fn has_route(&self) -> bool {
        #[cfg(feature = "router")]
        return self.route.is_some();
        #[cfg(not(feature = "router"))]
        false
    }

    fn is_empty(&self) -> bool {
        self.shared.is_none()
            && self.handshake.is_none()
            && !self.has_route()
            && self.peer.is_none()
            && self.error.is_none()
            && self.timers.are_unused()
            && self.handshake_output.is_none()
            && self.deferred.as_deref().is_none_or(Deferred::is_unused)
    }
}

/// What was exchanged in the opening handshake.
///
/// ```
/// # use anyloop::iostream::Server;
/// # use anyloop::prelude::*;
/// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// # let mut server = Server::new(ServerConfig::new(OriginPolicy::Any));
/// server.on_message(|_, context| {
///     let info = context.handshake_info().expect("it is kept by default");
///     assert_eq!(info.request.as_ref().map(|request| request.uri().path()), Some("/"));
///     assert_eq!(info.response.as_ref().map(|response| response.status().as_u16()), Some(101));
///     assert_eq!(info.subprotocol, None); // none was requested
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
pub struct HandshakeInfo {
    /// What a client connects to.
    pub target: Option<Target>,
    /// The request, as a server received it.
    pub request: Option<Request>,
    /// The response: as a server sent it, and `None` if the handshake failed; as a client received it, with its body
    /// if the status is not 101.
    pub response: Option<Response<Vec<u8>>>,
    /// The subprotocol that was agreed on.
    pub subprotocol: Option<String>,
    /// The extension that was agreed on, with its parameters.
    pub extension: Option<String>,
    /// Whether the code that drives this connection follows redirects. Meaningful during the handshake only.
    pub(super) follows_redirects: bool,
}

impl SessionState {
    pub(super) const fn new(endpoint: Arc<EndpointState>) -> Self {
        Self {
            endpoint,
            rare: None,
            index: UNREGISTERED,
            flags: Flags::NONE,
            phase: Phase::Connecting,
        }
    }

    /// Asks the driver to call [`resume`](crate::stream::StreamProtocol::resume): something is left to do, for example
    /// because the budget of handler calls is spent.
    #[cold]
    pub(super) const fn request_resume(&mut self) {
        self.flags.set(Flags::RESUME, true);
    }

    pub(super) const fn is_resume_requested(&self) -> bool {
        self.flags.has(Flags::RESUME)
    }

    pub(super) const fn set_paused(&mut self, paused: bool) {
        self.flags.set(Flags::PAUSED, paused);
        self.flags.set(Flags::WANTS_CHANGED, true);
    }

    /// The rare data. Makes the box if there is none, and sets [`Flags::WANTS_CHANGED`].
    pub(super) fn rare_mut(&mut self) -> &mut Rare {
        self.flags.set(Flags::WANTS_CHANGED, true);
        self.rare.get_or_insert_default()
    }

    /// The deferred messages. Makes no box if there is none; otherwise sets [`Flags::WANTS_CHANGED`].
    fn existing_deferred(&mut self) -> Option<&mut Deferred> {
        let deferred = self.rare.as_deref_mut()?.deferred.as_deref_mut()?;
        self.flags.set(Flags::WANTS_CHANGED, true);
        Some(deferred)
    }

    /// Sets the body of the response.
    pub(super) fn set_body(&mut self, body: Body) {
        self.rare_mut().handshake_output = Some(Box::new(HandshakeOutput::Body(body)));
    }

    /// The body of the response, while it is being sent.
    pub(super) fn body(&mut self) -> Option<&mut Body> {
        match self.rare.as_deref_mut()?.handshake_output.as_deref_mut()? {
            HandshakeOutput::Body(body) => Some(body),
            HandshakeOutput::Request(_) => None,
        }
    }

    /// Takes what the opening handshake still has to send: the request or the body.
    pub(super) fn take_handshake_output(&mut self) -> Option<Box<HandshakeOutput>> {
        self.rare.as_deref_mut()?.handshake_output.take()
    }

    /// Takes the request of a client. A body is left.
    pub(super) fn take_request(&mut self) -> Option<ClientRequest> {
        let is_request = |output: &mut Box<_>| matches!(**output, HandshakeOutput::Request(_));
        match *self.rare.as_deref_mut()?.handshake_output.take_if(is_request)? {
            HandshakeOutput::Request(request) => Some(request),
            HandshakeOutput::Body(_) => None,
        }
    }

    /// Defers a message until it can be sent.
    pub(super) fn defer(&mut self, message: OutgoingMessage) {
        self.flags.set(Flags::DEFERRED, true);
        self.deferred_mut().push(message);
        self.publish_deferred();
    }

    /// Defers a piece until its message is in progress.
    pub(super) fn defer_piece(&mut self, progress: &Arc<MessageProgress>, piece: Piece) {
        self.flags.set(Flags::DEFERRED, true);
        self.deferred_mut().push_piece(progress, piece);
        self.publish_deferred();
    }

    /// Takes the next deferred message.
    pub(super) fn take_deferred(&mut self) -> Option<NextDeferred> {
        let next = self.existing_deferred().and_then(Deferred::pop);
        self.flags.set(Flags::DEFERRED, next.is_some());
        self.publish_deferred();
        next
    }

    /// Takes the pieces of a message that waits.
    pub(super) fn take_pieces(&mut self, progress: &MessageProgress) -> Pieces {
        let Some(deferred) = self.existing_deferred() else { return Pieces::default() };
        let pieces = deferred.take_pieces(progress);
        self.publish_deferred();
        pieces
    }

    /// Takes the Close that follows the deferred messages.
    pub(super) fn take_deferred_close(&mut self) -> Option<(Option<CloseCode>, String)> {
        self.rare.as_deref_mut()?.deferred.as_deref_mut()?.close.take()
    }

    /// Sets the message in progress, if it is that of a [`MessageWriter`](super::MessageWriter).
    pub(super) fn set_writer_message(&mut self, message: Option<Arc<MessageProgress>>) {
        match message {
            Some(message) => self.deferred_mut().writer_message = Some(message),
            None => {
                if let Some(deferred) = self.existing_deferred() {
                    deferred.writer_message = None;
                }
            }
        }
    }

    /// Whether the message of a handle's [`MessageWriter`](super::MessageWriter) is in progress.
    pub(super) fn has_message_writer(&self) -> bool {
        let rare = self.rare.as_deref();
        rare.and_then(|rare| rare.deferred.as_deref()).is_some_and(|it| it.writer_message.is_some())
    }

    pub(super) fn deferred_mut(&mut self) -> &mut Deferred {
        self.rare_mut().deferred.get_or_insert_default()
    }

    fn publish_deferred(&self) {
        let rare = self.rare.as_deref();
        if let Some(Rare { shared: Some(shared), deferred: Some(deferred), .. }) = rare {
            shared.publish_deferred(deferred.len(), deferred.bytes());
        }
    }

    /// Publishes whether messages are *held up* (head-of-line blocking behind a message in pieces): one is in progress
    /// (`is_begun`), or messages are deferred. When it ends, publish the send buffer first: a handle that sees
    /// `false` must also see the smaller size.
    pub(super) fn publish_held_up(&self, is_begun: bool) {
        if let Some(shared) = self.shared() {
            shared.publish_held_up(is_begun || self.flags.has(Flags::DEFERRED));
        }
    }

    /// The payload bytes of deferred messages.
    pub(super) fn deferred_bytes(&self) -> usize {
        let rare = self.rare.as_deref();
        rare.and_then(|rare| rare.deferred.as_deref()).map_or(0, Deferred::bytes)
    }

    /// The bytes that the connection holds for its peer: those of the send buffer (`queued`), and of deferred messages.
    fn held(&self, queued: usize) -> usize {
        queued + self.deferred_bytes()
    }

    /// Frees the shared state if no handle needs it, and then the box of rare data if it is empty.
    pub(super) fn free_unused(&mut self) {
        if self.shared().is_some_and(|shared| shared.is_unused())
            && self.endpoint.registry.free_shared(self.index)
        {
            self.rare_mut().shared = None;
        }
        if self.rare.as_deref().is_some_and(Rare::is_empty) {
            self.rare = None;
        }
    }

    /// Frees the rare data of a connection that is over, except for the state that handles share.
    pub(super) fn free_all_but_shared(&mut self) {
        let shared = self.rare.take().and_then(|rare| rare.shared);
        if shared.is_some() {
            self.rare_mut().shared = shared;
        }
    }

    // Handles.

    /// The state that the connection shares with its handles, if there is one.
    #[inline]
    pub(super) fn shared(&self) -> Option<&Arc<Shared>> {
        self.rare.as_deref()?.shared.as_ref()
    }

    /// The state that the connection shares with its handles, created if there is none. `queued` and `phase` are as for
    /// [`publish`](Self::publish), and are used only for a new one.
    pub(super) fn get_or_create_shared(&mut self, queued: usize, phase: Phase) -> Arc<Shared> {
        if let Some(shared) = self.shared() {
            return shared.clone();
        }
        let shared = self.endpoint.registry.get_or_create_shared(self.index);
        if phase != Phase::Ended {
            shared.publish(self.held(queued), phase);
        }
        self.rare_mut().shared = Some(shared.clone());
        shared
    }

    /// The limits of the send buffer.
    pub(super) fn limits(&self) -> SendBufferLimits {
        self.shared().map_or(self.endpoint.limits, |shared| shared.limits())
    }

    /// Gives a connection limits of its own. They are kept in the shared state, since handles apply them too.
    pub(super) fn set_limits(&mut self, limits: SendBufferLimits) {
        if limits != self.endpoint.limits {
            self.get_or_create_shared(0, self.phase).set_limits(limits);
        }
    }

    /// Adopts a shared state that another thread may have created. Returns whether there is one: the caller must then
    /// run its commands.
    pub(super) fn adopt_shared(&mut self, queued: usize, phase: Phase) -> bool {
        if self.shared().is_some() {
            return true;
        }
        let Some(shared) = self.endpoint.registry.shared(self.index) else {
            return false;
        };
        shared.publish(self.held(queued), phase);
        self.rare_mut().shared = Some(shared);
        true
    }

    /// The handler closes: no more broadcasts are due to the connection. Adopts the shared state if there is one, or if
    /// broadcasts are due: it begins with these.
    pub(super) fn begin_close(&mut self, queued: usize) {
        if self.shared().is_some() {
            return;
        }
        if let Some(shared) = self.endpoint.registry.begin_close(self.index) {
            shared.publish(self.held(queued), Phase::Open);
            self.rare_mut().shared = Some(shared);
        }
    }

    /// Records that the connection is closed because of `Overflow::Close`, and counts it.
    pub(super) fn note_overflow(&mut self, queued: usize, phase: Phase) {
        if self.get_or_create_shared(queued, phase).note_overflow() {
            self.endpoint.counters.overflowed.add(1);
        }
    }

    /// Whether [`note_overflow`](Self::note_overflow) was called.
    pub(super) fn overflowed(&self) -> bool {
        self.shared().is_some_and(|shared| shared.overflowed())
    }

    /// Publishes changes to the handles and the registry. `queued`: bytes of the send buffer, without deferred
    /// messages.
    pub(super) fn publish(&mut self, queued: usize, phase: Phase) {
        if let Some(shared) = self.shared() {
            shared.publish(self.held(queued), phase);
        }
        if phase != self.phase {
            self.phase = phase;
            self.endpoint.registry.publish(self.index, phase);
        }
    }

    /// The connection is over: removes it from the registry, and refuses further commands.
    pub(super) fn end(&mut self) {
        self.phase = Phase::Ended;
        let deferred = self.rare.as_deref_mut().and_then(|rare| rare.deferred.take());
        let output = self.take_handshake_output();
        let index = std::mem::replace(&mut self.index, UNREGISTERED);
        if index != UNREGISTERED {
            let registered = self.endpoint.registry.deregister(index);
            match (self.shared(), registered) {
                (Some(shared), _) => shared.close(),
                (None, Some(shared)) => {
                    shared.close(); // another thread has just created it
                    self.rare_mut().shared = Some(shared);
                }
                (None, None) => {}
            }
        }
        drop((deferred, output)); // calls completions
    }

    // Other rare data.

    /// Takes the target of a client's connection out of the handshake information.
    pub(super) fn take_target(&mut self) -> Option<Target> {
        self.rare.as_deref_mut()?.handshake.as_deref_mut()?.target.take()
    }

    pub(super) fn handshake_info(&self) -> Option<&HandshakeInfo> {
        self.rare.as_deref()?.handshake.as_deref()
    }

    #[cfg(feature = "router")]
    pub(super) fn route(&self) -> Option<&MatchedRoute> {
        self.rare.as_deref()?.route.as_deref()
    }

    pub(super) fn peer(&self) -> Option<&Peer> {
        self.rare.as_deref()?.peer.as_deref()
    }

    pub(super) fn error(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.rare.as_deref()?.error.as_deref()
    }

    pub(super) fn timers_mut(&mut self) -> &mut Timers<Box<ErasedFn>> {
        &mut self.rare_mut().timers
    }

    /// Cancels a timer. Returns false if there is no such timer any more.
    pub(super) fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.flags.set(Flags::WANTS_CHANGED, true);
        self.rare.as_deref_mut().is_some_and(|rare| rare.timers.cancel(timer))
    }

    /// The time when the first of the application's timers is due.
    #[inline]
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.rare.as_deref()?.timers.next_due()
    }
}

impl Drop for SessionState {
    /// A driver may be dropped before its connection is over. Its handles must report that.
    fn drop(&mut self) {
        self.end();
    }
}
