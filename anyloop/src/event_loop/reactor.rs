//! The operating system's side: waiting for sockets, by mio. Of the rest of the loop only
//! `stream.rs` knows mio, whose sockets it has.

use std::io::{self, ErrorKind};
#[cfg(unix)]
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

#[cfg(not(unix))]
use mio::event::Source;
#[cfg(unix)]
use mio::unix::SourceFd;
use mio::{Interest, Poll, Waker};

use super::events::{Events, Token};

/// What can be waited for.
#[cfg(not(unix))]
pub(crate) trait Pollable: Source {}
#[cfg(not(unix))]
impl<S: Source> Pollable for S {}
/// What can be waited for.
#[cfg(unix)]
pub(crate) trait Pollable: AsFd {}
#[cfg(unix)]
impl<S: AsFd> Pollable for S {}

/// How many events are taken at a time.
pub(super) const CAPACITY: usize = 1024;

/// No token is like this.
const DOORBELL: mio::Token = mio::Token(usize::MAX);

/// Waits for sockets.
pub(super) struct Reactor {
    poll: Poll,
    events: mio::Events,
}

/// Memory of the caller's for what has happened. It is not needed here.
pub(super) struct Room;

/// What has happened.
pub(super) struct Happened<'r>(&'r mio::Events);

/// What sockets are registered with: each once, for all that it is ever to be asked. Edges are reported.
pub(crate) struct Registry(mio::Registry);

/// Ends a wait from another thread; outside of one it makes the reactor's descriptor readable.
pub(super) struct Doorbell(Waker);

impl Reactor {
    pub(super) fn new() -> io::Result<(Self, Registry, Doorbell)> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let doorbell = Doorbell(Waker::new(&registry, DOORBELL)?);
        let events = mio::Events::with_capacity(CAPACITY);
        Ok((Self { poll, events }, Registry(registry), doorbell))
    }

    /// Waits until something has happened, or for `timeout`: rounded up to a millisecond; `None`: for
    /// as long as it takes.
    pub(super) fn wait<'r>(
        &'r mut self,
        timeout: Option<Duration>,
        _: &'r mut Room,
    ) -> Happened<'r> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            // A signal: that nothing has happened is an answer as well.
            Err(error) if error.kind() == ErrorKind::Interrupted => self.events.clear(),
            Err(error) => panic!("the descriptor that events come from is broken: {error}"),
        }
        Happened(&self.events)
    }
}

impl Room {
    pub(super) const fn new() -> Self {
        Self
    }
}

impl Happened<'_> {
    pub(super) fn iter(&self) -> impl Iterator<Item = (Token, Events)> {
        let events = self.0.iter().filter(|event| event.token() != DOORBELL);
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

impl Registry {
    /// Has a source reported, under this token, with what it is asked for.
    pub(crate) fn add(
        &self,
        source: &mut impl Pollable,
        token: Token,
        asked: Events,
    ) -> io::Result<()> {
        #[cfg(unix)]
        let source = &mut SourceFd(&source.as_fd().as_raw_fd());
        self.0.register(source, token.into(), interest(asked))
    }

    /// Has one reported anew that is registered: what is so now, and then what comes to be.
    #[cfg(unix)]
    pub(super) fn renew(
        &self,
        source: &mut impl Pollable,
        token: Token,
        asked: Events,
    ) -> io::Result<()> {
        let source = &mut SourceFd(&source.as_fd().as_raw_fd());
        self.0.reregister(source, token.into(), interest(asked))
    }

    /// Has it reported no more. One that is closed need not be removed.
    #[cfg(unix)]
    pub(super) fn remove(&self, source: &mut impl Pollable) -> io::Result<()> {
        self.0.deregister(&mut SourceFd(&source.as_fd().as_raw_fd()))
    }
}

#[cfg(unix)]
impl AsFd for Registry {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Doorbell {
    pub(super) fn ring(&self) {
        // It fails only where the counter overflows, and then it has been rung.
        let _ = self.0.wake();
    }
}

impl From<Token> for mio::Token {
    fn from(token: Token) -> Self {
        Self(token.number())
    }
}

fn interest(asked: Events) -> Interest {
    let both = Interest::READABLE | Interest::WRITABLE;
    let interest = match (asked.contains(Events::READABLE), asked.contains(Events::WRITABLE)) {
        (true, false) => Interest::READABLE,
        (false, true) => Interest::WRITABLE,
        _ => both,
    };
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if asked.contains(Events::CLOSED) {
        return interest | Interest::PRIORITY;
    }
    interest
}
