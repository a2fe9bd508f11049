//! The operating system's side: waiting for sockets. The only file of the loop that knows mio, but for
//! the name of a token.

use std::io::{self, ErrorKind};
use std::time::Duration;

use mio::{Poll, Registry, Waker};

use super::source::{Events, Token};

/// How many events are taken at a time.
pub(super) const CAPACITY: usize = 1024;

/// No token is like this.
const DOORBELL: mio::Token = mio::Token(usize::MAX);

/// Waits for sockets. They are registered once, for both directions, and edges are reported.
pub(super) struct Reactor {
    poll: Poll,
    events: mio::Events,
}

/// Ends a wait from another thread; outside of one it makes the reactor's descriptor readable.
pub(super) struct Doorbell(Waker);

impl Reactor {
    pub(super) fn new() -> io::Result<(Self, Registry, Doorbell)> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let doorbell = Doorbell(Waker::new(&registry, DOORBELL)?);
        Ok((Self { poll, events: mio::Events::with_capacity(CAPACITY) }, registry, doorbell))
    }

    /// Waits until something has happened, or for `timeout`: rounded up to a millisecond; `None`: for
    /// as long as it takes.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            // A signal: that nothing has happened is an answer as well.
            Err(error) if error.kind() == ErrorKind::Interrupted => self.events.clear(),
            Err(error) => panic!("the descriptor that events come from is broken: {error}"),
        }
    }

    /// What has happened.
    pub(super) fn events(&self) -> impl Iterator<Item = (Token, Events)> {
        let events = self.events.iter().filter(|event| event.token() != DOORBELL);
        events.map(|event| {
            let mut events = Events::NONE;
            if event.is_readable() {
                events |= Events::READABLE;
            }
            if event.is_writable() {
                events |= Events::WRITABLE;
            }
            let ended = event.is_read_closed() || event.is_write_closed() || event.is_error();
            if ended || event.is_priority() {
                events |= Events::READABLE | Events::CLOSED;
            }
            (Token::from_number(event.token().0), events)
        })
    }
}

impl Doorbell {
    pub(super) fn ring(&self) {
        // It fails only where the counter overflows, and then it has been rung.
        let _ = self.0.wake();
    }
}
