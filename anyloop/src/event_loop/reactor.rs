//! The reactor: it waits for events of sockets, by mio. `reactor_epoll.rs` replaces it on Linux and Android, and
//! `reactor_loom.rs` in models.

use std::io::{self, ErrorKind};
#[cfg(unix)]
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

#[cfg(not(unix))]
use mio::event::Source;
#[cfg(unix)]
use mio::unix::SourceFd;
use mio::{Interest, Poll};

use super::events::{Events, Token};

/// What can be registered with a reactor.
#[cfg(not(unix))]
pub(crate) trait Pollable: Source {}
#[cfg(not(unix))]
impl<S: Source> Pollable for S {}
/// What can be registered with a reactor.
#[cfg(unix)]
pub(crate) trait Pollable: AsFd {}
#[cfg(unix)]
impl<S: AsFd> Pollable for S {}

/// The largest number of events of one poll.
pub(super) const CAPACITY: usize = 1024;

/// The token of the waker. No source has it.
const WAKER: mio::Token = mio::Token(usize::MAX);

/// Waits for events of sockets.
pub(super) struct Reactor {
    poll: Poll,
    events: mio::Events,
}

/// The caller's memory for the events of a poll. This reactor does not need it.
pub(super) struct EventBuffer;

/// The events of one poll, or `None` if a signal ended it.
pub(super) struct PolledEvents<'r>(Option<&'r mio::Events>);

/// Registers descriptors with the reactor, which reports edges. A socket is registered once, with all events that it
/// will ever need. The descriptor of a watch is registered again after each turn.
pub(crate) struct Registry(mio::Registry);

/// Ends a poll from another thread. If no poll is under way, it makes the reactor's descriptor readable.
pub(super) struct Waker(mio::Waker);

impl Reactor {
    pub(super) fn new() -> io::Result<(Self, Registry, Waker)> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waker = Waker(mio::Waker::new(&registry, WAKER)?);
        let events = mio::Events::with_capacity(CAPACITY);
        Ok((Self { poll, events }, Registry(registry), waker))
    }

    /// Waits until there are events, for at most `timeout`, which epoll rounds up to a millisecond. `None` waits
    /// without limit, and zero does not wait. Returns no events after a signal.
    pub(super) fn poll<'r>(
        &'r mut self,
        timeout: Option<Duration>,
        _: &'r mut EventBuffer,
    ) -> PolledEvents<'r> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => PolledEvents(Some(&self.events)),
            Err(error) if error.kind() == ErrorKind::Interrupted => PolledEvents(None),
            Err(error) => panic!("cannot poll the event loop's descriptor: {error}"),
        }
    }
}

impl EventBuffer {
    pub(super) const fn new() -> Self {
        Self
    }
}

impl PolledEvents<'_> {
    /// Whether a signal ended the poll. There may be events that it did not return.
    pub(super) const fn ended_by_signal(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Token, Events)> {
        let events = self.0.into_iter().flatten().filter(|event| event.token() != WAKER);
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
    /// Registers a descriptor. Its events are reported with this token.
    pub(crate) fn register(
        &self,
        descriptor: &mut impl Pollable,
        token: Token,
        interest: Events,
    ) -> io::Result<()> {
        #[cfg(unix)]
        let descriptor = &mut SourceFd(&descriptor.as_fd().as_raw_fd());
        self.0.register(descriptor, token.into(), to_mio(interest))
    }

    /// Registers a descriptor again: the events that are present now are reported, and then those that follow.
    #[cfg(unix)]
    pub(super) fn reregister(
        &self,
        descriptor: &mut impl Pollable,
        token: Token,
        interest: Events,
    ) -> io::Result<()> {
        let descriptor = &mut SourceFd(&descriptor.as_fd().as_raw_fd());
        self.0.reregister(descriptor, token.into(), to_mio(interest))
    }

    /// Deregisters a descriptor. Closing it does that, too.
    #[cfg(unix)]
    pub(super) fn deregister(&self, descriptor: &mut impl Pollable) -> io::Result<()> {
        self.0.deregister(&mut SourceFd(&descriptor.as_fd().as_raw_fd()))
    }
}

#[cfg(unix)]
impl AsFd for Registry {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Waker {
    pub(super) fn wake(&self) {
        // It fails only if the counter of wake-ups overflows. Then one is pending.
        let _ = self.0.wake();
    }
}

impl From<Token> for mio::Token {
    fn from(token: Token) -> Self {
        Self(token.number())
    }
}

fn to_mio(interest: Events) -> Interest {
    let both = Interest::READABLE | Interest::WRITABLE;
    let mio = match (interest.contains(Events::READABLE), interest.contains(Events::WRITABLE)) {
        (true, false) => Interest::READABLE,
        (false, true) => Interest::WRITABLE,
        _ => both,
    };
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if interest.contains(Events::CLOSED) {
        return mio | Interest::PRIORITY;
    }
    mio
}
