//! The operating system's side: waiting for sockets, by epoll.
//!
//! It does what `reactor.rs` does by mio, which `cfg(anyloop_mio)` puts in its place, and is here for one
//! thing: to wait is a system call that can be a part of the loop's own code.
//! See [`Runner::run`](super::runner::Runner::run).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::{Errno, read, write};

use super::events::{Events, Token};

/// What can be waited for.
pub(crate) trait Pollable: AsFd {}
impl<S: AsFd> Pollable for S {}

/// How many events are taken at a time.
pub(super) const CAPACITY: usize = 1024;

/// No token is like this.
const DOORBELL: u64 = u64::MAX;

/// Waits for sockets.
pub(super) struct Reactor(Arc<OwnedFd>);

/// Memory of the caller's for what has happened: it cannot be another thread's.
pub(super) struct Room([MaybeUninit<Event>; CAPACITY]);

/// What has happened.
pub(super) struct Happened<'r>(&'r [Event]);

/// What sockets are registered with: each once, for all that it is ever to be asked. Edges are reported.
pub(crate) struct Registry(Arc<OwnedFd>);

/// Ends a wait from another thread; outside of one it makes the reactor's descriptor readable.
pub(super) struct Doorbell(OwnedFd);

impl Reactor {
    pub(super) fn new() -> io::Result<(Self, Registry, Doorbell)> {
        let epoll = Arc::new(epoll::create(CreateFlags::CLOEXEC)?);
        let doorbell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(
            &epoll,
            &doorbell,
            EventData::new_u64(DOORBELL),
            EventFlags::IN | EventFlags::ET,
        )?;
        Ok((Self(epoll.clone()), Registry(epoll), Doorbell(doorbell)))
    }

    /// Waits until something has happened, or for `timeout`: rounded up to a millisecond; `None`: for
    /// as long as it takes.
    #[inline(always)]
    pub(super) fn wait<'r>(
        &'r mut self,
        timeout: Option<Duration>,
        room: &'r mut Room,
    ) -> Happened<'r> {
        let timeout = timeout.map(whole_milliseconds);
        match epoll::wait(&self.0, &mut room.0[..], timeout.as_ref()) {
            Ok((events, _)) => Happened(events),
            // A signal: that nothing has happened is an answer as well.
            Err(Errno::INTR) => Happened(&[]),
            Err(error) => panic!("the descriptor that events come from is broken: {error}"),
        }
    }
}

impl Room {
    #[inline(always)]
    pub(super) const fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; CAPACITY])
    }
}

impl Happened<'_> {
    pub(super) fn iter(&self) -> impl Iterator<Item = (Token, Events)> {
        let events = self.0.iter().filter(|event| event.data.u64() != DOORBELL);
        events.map(|event| {
            let (flags, data) = (event.flags, event.data.u64());
            let mut events = Events::NONE;
            if flags.contains(EventFlags::IN) {
                events |= Events::READABLE;
            }
            if flags.contains(EventFlags::OUT) {
                events |= Events::WRITABLE;
            }
            if flags.intersects(ENDS) {
                events |= Events::READABLE | Events::CLOSED;
            }
            (Token::from_number(data as usize), events)
        })
    }
}

/// What makes a read worth while that would otherwise wait, and ends a stream; and urgent data.
const ENDS: EventFlags =
    EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR).union(EventFlags::PRI);

impl Registry {
    /// Has a source reported, under this token, with what it is asked for.
    pub(crate) fn add(
        &self,
        source: &mut impl Pollable,
        token: Token,
        asked: Events,
    ) -> io::Result<()> {
        let data = EventData::new_u64(token.number() as u64);
        Ok(epoll::add(&self.0, &*source, data, flags(asked))?)
    }

    /// Has one reported anew that is registered: what is so now, and then what comes to be.
    pub(super) fn renew(
        &self,
        source: &mut impl Pollable,
        token: Token,
        asked: Events,
    ) -> io::Result<()> {
        let data = EventData::new_u64(token.number() as u64);
        Ok(epoll::modify(&self.0, &*source, data, flags(asked))?)
    }

    /// Has it reported no more. One that is closed need not be removed.
    pub(super) fn remove(&self, source: &mut impl Pollable) -> io::Result<()> {
        Ok(epoll::delete(&self.0, &*source)?)
    }
}

impl AsFd for Registry {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Doorbell {
    pub(super) fn ring(&self) {
        let one = 1_u64.to_ne_bytes();
        if write(&self.0, &one) == Err(Errno::AGAIN) {
            // The counter is full. Nobody reads it else: what counts is that it changes.
            let _ = read(&self.0, &mut [0; 8]);
            let _ = write(&self.0, &one);
        }
    }
}

fn flags(asked: Events) -> EventFlags {
    let mut flags = EventFlags::ET;
    if asked.contains(Events::READABLE) {
        flags |= EventFlags::IN | EventFlags::RDHUP;
    }
    if asked.contains(Events::WRITABLE) {
        flags |= EventFlags::OUT;
    }
    if asked.contains(Events::CLOSED) {
        flags |= EventFlags::PRI;
    }
    flags
}

/// As much as this or a little more, in the unit of the system call.
fn whole_milliseconds(time: Duration) -> Timespec {
    let most = Duration::from_millis(i32::MAX as u64); // 24 days
    let milliseconds = time.min(most).as_nanos().div_ceil(1_000_000) as i64;
    Timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_never_too_short() {
        let of = |nanos| {
            let Timespec { tv_sec, tv_nsec } = whole_milliseconds(Duration::from_nanos(nanos));
            (tv_sec, tv_nsec)
        };
        assert_eq!(of(0), (0, 0));
        assert_eq!(of(1), (0, 1_000_000));
        assert_eq!(of(1_000_000), (0, 1_000_000));
        assert_eq!(of(1_999_000_001), (2, 0));
        assert_eq!(of(u64::MAX), (2_147_483, 647_000_000));
    }

    #[test]
    fn a_doorbell_that_was_rung_too_often_still_rings() -> io::Result<()> {
        let (mut reactor, registry, doorbell) = Reactor::new()?;
        write(&doorbell.0, &(u64::MAX - 1).to_ne_bytes())?;
        let is_readable = || {
            let mut fds = [rustix::event::PollFd::new(&registry, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, Some(&Timespec::default())).map(|count| count > 0)
        };
        assert!(is_readable()?);
        assert_eq!(reactor.wait(Some(Duration::ZERO), &mut Room::new()).iter().count(), 0);
        assert!(!is_readable()?);
        doorbell.ring();
        assert!(is_readable()?);
        Ok(())
    }
}
