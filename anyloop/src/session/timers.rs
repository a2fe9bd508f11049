//! Timers that the application sets on a connection.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyloop_proto::Instant;

use super::erased::{ErasedFn, erased_fn};
use super::handler::{Context, Handler};

/// A timer of a connection.
///
/// ```
/// # use anyloop::iostream::Server;
/// # use anyloop::prelude::*;
/// # use std::time::Duration;
/// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// # let mut server = Server::new(ServerConfig::new(OriginPolicy::Any));
/// server.on_open(|context| {
///     let timer = context.set_timer(Duration::ZERO, |_, _| panic!("it was cancelled"));
///     assert!(context.cancel_timer(timer));
///     assert!(!context.cancel_timer(timer)); // it is already cancelled
/// });
/// let connection = server.connection();
/// connection.register_output(std::io::sink());
/// connection.read_all(REQUEST)?;
/// connection.handle_timeout()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId {
    number: u64,
    /// A handle has assigned the number, which is unique in this process. Otherwise the connection has.
    by_handle: bool,
}

impl TimerId {
    /// Assigns an id to a timer before the connection sets it.
    pub(super) fn reserve() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { number: NEXT.fetch_add(1, Ordering::Relaxed), by_handle: true }
    }
}

/// The timers of one connection, ordered by due time and then by the order in which they were set. A connection has
/// few.
pub(super) struct Timers<F> {
    pending: Vec<Pending<F>>,
    /// The number of timers that were set.
    count: u64,
}

struct Pending<F> {
    at: Instant,
    /// How many timers were set before.
    rank: u64,
    id: TimerId,
    f: F,
}

impl<F> Default for Timers<F> {
    fn default() -> Self {
        Self { pending: Vec::new(), count: 0 }
    }
}

impl<F> Timers<F> {
    /// Sets a timer, with the id that was reserved for it if there is one.
    pub(super) fn set(&mut self, reserved: Option<TimerId>, at: Instant, f: F) -> TimerId {
        let rank = self.count;
        self.count += 1;
        let id = reserved.unwrap_or(TimerId { number: rank, by_handle: false });
        let index = self.pending.partition_point(|other| other.at <= at);
        self.pending.insert(index, Pending { at, rank, id, f });
        id
    }

    pub(super) fn cancel(&mut self, timer: TimerId) -> bool {
        let index = self.pending.iter().position(|pending| pending.id == timer);
        index.map(|index| self.pending.remove(index)).is_some()
    }

    /// Whether no timer was ever set.
    pub(super) const fn are_unused(&self) -> bool {
        self.count == 0
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.pending.first().map(|pending| pending.at)
    }

    /// The number of timers that were set so far.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// Takes the first timer that is due at `now` and is among the first `count` that were set, so that timers that are
    /// set meanwhile wait for the next call.
    pub(super) fn take_due(&mut self, now: Instant, count: u64) -> Option<F> {
        let is_due = |pending: &Pending<F>| pending.at <= now && pending.rank < count;
        let index = self.pending.iter().position(is_due)?;
        Some(self.pending.remove(index).f)
    }
}

impl<H: Handler> Context<'_, H> {
    /// Runs `f` after `delay`. `f` is dropped uncalled if the connection ends before, or if the timer is cancelled.
    pub fn set_timer(
        &mut self,
        delay: Duration,
        f: impl FnOnce(&mut H, &mut Context<'_, H>) + Send + 'static,
    ) -> TimerId {
        self.set_erased_timer(None, delay, erased_fn(f))
    }

    /// Sets a timer, with the id that a handle has reserved for it, if one has.
    pub(super) fn set_erased_timer(
        &mut self,
        reserved: Option<TimerId>,
        delay: Duration,
        f: Box<ErasedFn>,
    ) -> TimerId {
        let now = self.out.now().unwrap_or(self.now);
        self.state.timers_mut().set(reserved, now + delay, f)
    }

    /// Cancels a timer. Returns false if it has already run, was cancelled before, or is one of a
    /// [handle](super::Handle::set_timer) that the connection has yet to set.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.state.cancel_timer(timer)
    }
}
