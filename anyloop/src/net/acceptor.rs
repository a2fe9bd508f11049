//! Accepting connections, in the loop.

use std::io::ErrorKind;
use std::sync::Arc;

use super::endpoint::Hooks;
use super::listener::{Listener, Rest};
use super::registry::key;
use super::serves::Serves;
use crate::endpoint::{HandlerFactory, ServerCore};
use crate::event_loop::{Events, Next, Socket, Source, StreamSource, Turn, now};
use crate::transport::{Driver, Peer};

/// So many connections are accepted in a turn; then the others have theirs.
const BATCH: usize = 128;

/// Accepts connections from a listener, and puts them into the loop.
#[expect(unnameable_types, reason = "of `Admits`")]
pub struct Acceptor<F: HandlerFactory> {
    pub(super) core: Arc<ServerCore<F>>,
    pub(super) listener: Arc<Listener>,
    pub(super) hooks: Arc<Hooks>,
    pub(super) nodelay: bool,
    pub(super) rest: Rest,
}

impl<K: Serves<F>, F: HandlerFactory> Source<K> for Acceptor<F> {
    fn run(&mut self, turn: &mut Turn<'_, K>) -> Next<K> {
        if self.rest.is_on() && turn.visit.events == Events::READABLE {
            return Next::Wait; // the timer will come
        }
        turn.visit.kept = Events::READABLE; // until the socket says otherwise, whatever happens here
        for _ in 0..BATCH {
            if turn.buffers.stream.budget.is_spent() {
                turn.visit.kept = turn.visit.events | Events::READABLE; // the end of a rest as well
                return Next::Again;
            }
            match self.listener.accept(&self.hooks, self.nodelay) {
                None => return Next::Done,
                Some(Ok((socket, peer))) => {
                    self.rest.end();
                    if let Err(error) = self.admit(socket, peer, turn) {
                        return self.rest(&error, turn);
                    }
                }
                Some(Err(error)) => match error.kind() {
                    ErrorKind::WouldBlock => {
                        turn.visit.kept = Events::NONE;
                        return Next::Wait;
                    }
                    // That one has gone; there may be others.
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    _ => return self.rest(&error, turn),
                },
            }
        }
        Next::Later
    }
}

impl<F: HandlerFactory> Acceptor<F> {
    fn admit<K: Serves<F>>(
        &self,
        mut socket: Socket,
        peer: Peer,
        turn: &Turn<'_, K>,
    ) -> std::io::Result<()> {
        let handler = self.core.make_handler();
        let (engine, now) = (turn.engine, now()); // its time begins here
        let begun = engine.insert(|token| {
            socket.register(engine.registry(), token)?;
            let mut session = self.core.session(handler, now);
            session.set_peer(peer);
            session.enter(key(token));
            if self.core.is_shutting_down() {
                session.give_up(now); // the shutdown may not have seen it in the registry
            }
            Ok(K::connection(StreamSource::new(Driver::new(session), socket)))
        });
        begun.map(|_| ())
    }

    /// There are no descriptors, or no memory: the connections that are there go on, and some of them
    /// will end.
    fn rest<K: Serves<F>>(&mut self, error: &std::io::Error, turn: &mut Turn<'_, K>) -> Next<K> {
        crate::log::error!("cannot accept on {}: {error}", self.listener.address());
        turn.visit.deadline = Some(turn.visit.now + self.rest.next());
        if let Some(tell) = &self.hooks.accept_error {
            turn.buffers.stream.budget.spend();
            tell(error);
        }
        Next::Wait
    }
}
