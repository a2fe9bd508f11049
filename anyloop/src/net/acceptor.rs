//! Accepting connections in the loop.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use super::hooks::Hooks;
use super::listener::{Backoff, Listener, Nodelay, set_up};
use super::registry::key;
use super::serves_connections::ServesConnections;
use crate::endpoint::{HandlerFactory, ServerCore};
use crate::event_loop::{Events, Next, Socket, Source, Turn, now};
use crate::transport::{Driver, Peer};

/// The largest number of connections that are accepted in one turn.
const MAX_PER_TURN: usize = 128;

/// Accepts connections from a listener and inserts them into the loop.
#[expect(unnameable_types, reason = "`MakeSources` needs it to be `pub`")]
pub struct Acceptor<F: HandlerFactory> {
    pub(super) core: Arc<ServerCore<F>>,
    pub(super) listener: Arc<Listener>,
    pub(super) hooks: Arc<Hooks>,
    pub(super) nodelay: Nodelay,
    pub(super) backoff: Backoff,
}

impl<K: ServesConnections<F::Handler>, F: HandlerFactory> Source<K> for Acceptor<F> {
    fn run(&mut self, turn: &mut Turn<'_, K>) -> Next<K> {
        if self.backoff.is_active() && turn.state.events == Events::READABLE {
            return Next::Wait; // until the deadline of the back-off
        }
        turn.state.unconsumed = Events::READABLE; // until the socket has reported `WouldBlock`
        for _ in 0..MAX_PER_TURN {
            if turn.buffers.for_driver.budget.is_spent() {
                // The events may include the deadline of a back-off.
                turn.state.unconsumed = turn.state.events | Events::READABLE;
                return Next::Again;
            }
            let Some(accepted) = self.accept() else { return Next::Done };
            match accepted {
                Ok((socket, peer)) => {
                    self.backoff.reset();
                    if let Err(error) = self.insert(socket, peer, turn) {
                        return self.back_off(&error, turn);
                    }
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => {
                        turn.state.unconsumed = Events::NONE;
                        return Next::Wait;
                    }
                    // Only this attempt to accept has failed.
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    _ => return self.back_off(&error, turn),
                },
            }
        }
        Next::AfterPoll
    }
}

impl<F: HandlerFactory> Acceptor<F> {
    /// Accepts a connection and sets its options; `None` if the listener is closed.
    fn accept(&mut self) -> Option<io::Result<(Socket, Peer)>> {
        let accepted = self.listener.accept()?;
        let is_drained =
            accepted.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        if is_drained && matches!(self.nodelay, Nodelay::SetUntilDrained(_)) {
            self.nodelay = Nodelay::Inherited;
        }
        Some(accepted.and_then(|(socket, peer)| {
            // A socket whose options cannot be set fails alone: the peer may have reset it.
            set_up(&socket, &self.hooks, self.nodelay).map_err(|_| ErrorKind::ConnectionAborted)?;
            Ok((socket, peer))
        }))
    }

    /// Inserts a connection into the loop.
    fn insert<K: ServesConnections<F::Handler>>(
        &self,
        mut socket: Socket,
        peer: Peer,
        turn: &Turn<'_, K>,
    ) -> io::Result<()> {
        let tls_layer = self.listener.tls().new_layer().map_err(io::Error::other)?;
        let handler = self.core.make_handler();
        let (engine, now) = (turn.engine, now()); // the timeout of the handshake starts here
        let inserted = engine.insert(|token| {
            socket.register(engine.registry(), token)?;
            let mut session = self.core.new_session(handler, now);
            session.set_peer(peer);
            session.register(key(token));
            if self.core.state.is_shutting_down() {
                session.abandon(now); // the shutdown may have read the registry before
            }
            Ok(tls_layer.source::<K, _>(Driver::new(session), socket))
        });
        inserted.map(|_| ())
    }

    /// Reports an error that the next connection would get as well, and waits: descriptors or memory may become free
    /// when other connections end.
    fn back_off<K: ServesConnections<F::Handler>>(
        &mut self,
        error: &io::Error,
        turn: &mut Turn<'_, K>,
    ) -> Next<K> {
        crate::log::error!("cannot accept on {}: {error}", self.listener.address());
        turn.state.deadline = Some(turn.state.now + self.backoff.next_delay());
        if let Some(report) = &self.hooks.accept_error {
            turn.buffers.for_driver.budget.spend();
            report(error);
        }
        Next::Wait
    }
}
