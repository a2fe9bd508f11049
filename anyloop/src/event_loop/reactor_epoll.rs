//! The reactor: it waits for events of sockets, by epoll.
//!
//! `reactor.rs` does the same by mio, and `cfg(anyloop_mio)` selects it instead. This one exists because its system
//! call can be inlined into the loop: see [`Runner::run`](super::runner::Runner::run).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::{Errno, read, write};

use super::events::{Events, Token};

/// What can be registered with a reactor.
pub(crate) trait Pollable: AsFd {}
impl<S: AsFd> Pollable for S {}

/// The largest number of events of one poll.
pub(super) const CAPACITY: usize = 1024;

/// The token of the waker. No source has it.
const WAKER: u64 = u64::MAX;

/// Waits for events of sockets.
pub(super) struct Reactor(Arc<OwnedFd>);

/// The caller's memory for the events of a poll.
pub(super) struct EventBuffer([MaybeUninit<Event>; CAPACITY]);

/// The events of one poll, or `None` if a signal ended it.
pub(super) struct PolledEvents<'r>(Option<&'r [Event]>);

/// Registers descriptors with the reactor, which reports edges. A socket is registered once, with all events that it
/// will ever need. The descriptor of a watch is registered again after each turn.
pub(crate) struct Registry(Arc<OwnedFd>);

/// Ends a poll from another thread. If no poll is under way, it makes the reactor's descriptor readable.
pub(super) struct Waker(OwnedFd);

impl Reactor {
    pub(super) fn new() -> io::Result<(Self, Registry, Waker)> {
        let epoll = Arc::new(epoll::create(CreateFlags::CLOEXEC)?);
        let waker = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &waker, EventData::new_u64(WAKER), EventFlags::IN | EventFlags::ET)?;
        Ok((Self(epoll.clone()), Registry(epoll), Waker(waker)))
    }

    /// Waits until there are events, for at most `timeout`, rounded up to a millisecond. `None` waits without limit,
    /// and zero does not wait. Returns no events after a signal.
    #[inline(always)]
    pub(super) fn poll<'r>(
        &'r mut self,
        timeout: Option<Duration>,
        buffer: &'r mut EventBuffer,
    ) -> PolledEvents<'r> {
        let timeout = timeout.map(whole_milliseconds);
        match epoll::wait(&self.0, &mut buffer.0[..], timeout.as_ref()) {
            Ok((events, _)) => PolledEvents(Some(events)),
            Err(Errno::INTR) => PolledEvents(None),
            Err(error) => panic!("cannot poll the event loop's descriptor: {error}"),
        }
    }
}

impl EventBuffer {
    #[inline(always)]
    pub(super) const fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; CAPACITY])
    }
}

impl PolledEvents<'_> {
    /// Whether a signal ended the poll. There may be events that it did not return.
    pub(super) const fn ended_by_signal(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Token, Events)> {
        let events = self.0.into_iter().flatten().filter(|event| event.data.u64() != WAKER);
        events.map(|event| {
            let (flags, data) = (event.flags, event.data.u64());
            let mut events = Events::NONE;
            if flags.contains(EventFlags::IN) {
                events |= Events::READABLE;
            }
            if flags.contains(EventFlags::OUT) {
                events |= Events::WRITABLE;
            }
            if flags.intersects(CLOSED_FLAGS) {
                events |= Events::READABLE | Events::CLOSED;
            }
            (Token::from_number(data as usize), events)
        })
    }
}

/// The flags of [`Events::CLOSED`]: the end of a stream, an error, or urgent data. A read tells which.
const CLOSED_FLAGS: EventFlags =
    EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR).union(EventFlags::PRI);

impl Registry {
    /// Registers a descriptor. Its events are reported with this token.
    pub(crate) fn register(
        &self,
        descriptor: &mut impl Pollable,
        token: Token,
        interest: Events,
    ) -> io::Result<()> {
        let data = EventData::new_u64(token.number() as u64);
        Ok(epoll::add(&self.0, &*descriptor, data, flags(interest))?)
    }

    /// Registers a descriptor again: the events that are present now are reported, and then those that follow.
    pub(super) fn reregister(
        &self,
        descriptor: &mut impl Pollable,
        token: Token,
        interest: Events,
    ) -> io::Result<()> {
        let data = EventData::new_u64(token.number() as u64);
        Ok(epoll::modify(&self.0, &*descriptor, data, flags(interest))?)
    }

    /// Deregisters a descriptor. Closing it does that, too.
    pub(super) fn deregister(&self, descriptor: &mut impl Pollable) -> io::Result<()> {
        Ok(epoll::delete(&self.0, &*descriptor)?)
    }
}

impl AsFd for Registry {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Waker {
    pub(super) fn wake(&self) {
        let one = 1_u64.to_ne_bytes();
        if write(&self.0, &one) == Err(Errno::AGAIN) {
            // The counter is full, since nothing else reads it. Any change of it is an edge.
            let _ = read(&self.0, &mut [0; 8]);
            let _ = write(&self.0, &one);
        }
    }
}

fn flags(interest: Events) -> EventFlags {
    let mut flags = EventFlags::ET;
    if interest.contains(Events::READABLE) {
        flags |= EventFlags::IN | EventFlags::RDHUP;
    }
    if interest.contains(Events::WRITABLE) {
        flags |= EventFlags::OUT;
    }
    if interest.contains(Events::CLOSED) {
        flags |= EventFlags::PRI;
    }
    flags
}

/// The time rounded up to a millisecond, which is the unit of the system call.
fn whole_milliseconds(time: Duration) -> Timespec {
    let most = Duration::from_millis(i32::MAX as u64); // 24 days
    let milliseconds = time.min(most).as_nanos().div_ceil(1_000_000) as i64;
    Timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_never_too_short() {
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
    fn a_waker_whose_counter_is_full_still_works() -> io::Result<()> {
        let (mut reactor, registry, waker) = Reactor::new()?;
        write(&waker.0, &(u64::MAX - 1).to_ne_bytes())?;
        let is_readable = || {
            let mut fds = [rustix::event::PollFd::new(&registry, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, Some(&Timespec::default())).map(|count| count > 0)
        };
        assert!(is_readable()?);
        assert_eq!(reactor.poll(Some(Duration::ZERO), &mut EventBuffer::new()).iter().count(), 0);
        assert!(!is_readable()?);
        waker.wake();
        assert!(is_readable()?);
        Ok(())
    }
}
