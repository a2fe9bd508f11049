//! Timers that the application sets on a connection.

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
pub struct TimerId(u64);

/// The timers of one connection, each with its function, ordered by due time and then by the order in which they were
/// set. A connection has few.
pub(super) struct Timers<F> {
    pending: Vec<(Instant, TimerId, F)>,
    next_id: u64,
}

impl<F> Default for Timers<F> {
    fn default() -> Self {
        Self { pending: Vec::new(), next_id: 0 }
    }
}

impl<F> Timers<F> {
    pub(super) fn set(&mut self, at: Instant, f: F) -> TimerId {
        let id = TimerId(self.next_id);
        self.next_id += 1;
        let index = self.pending.partition_point(|(other, ..)| *other <= at);
        self.pending.insert(index, (at, id, f));
        id
    }

    pub(super) fn cancel(&mut self, timer: TimerId) -> bool {
        let index = self.pending.iter().position(|(_, id, _)| *id == timer);
        index.map(|index| self.pending.remove(index)).is_some()
    }

    /// Whether no timer was ever set.
    pub(super) const fn are_unused(&self) -> bool {
        self.next_id == 0
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.pending.first().map(|(at, ..)| *at)
    }

    /// The id that the next timer will get.
    pub(super) const fn next_id(&self) -> TimerId {
        TimerId(self.next_id)
    }

    /// Takes the first timer that is due at `now` and has an id before `first_new_id`, so that timers that are set
    /// meanwhile wait for the next call.
    pub(super) fn take_due(&mut self, now: Instant, first_new_id: TimerId) -> Option<F> {
        let index =
            self.pending.iter().position(|(at, id, _)| *at <= now && id.0 < first_new_id.0)?;
        Some(self.pending.remove(index).2)
    }
}

impl<H: Handler> Context<'_, H> {
    /// Runs `f` after `delay`. `f` is dropped uncalled if the connection ends before, or if the timer is cancelled.
    pub fn set_timer(
        &mut self,
        delay: Duration,
        f: impl FnOnce(&mut H, &mut Context<'_, H>) + Send + 'static,
    ) -> TimerId {
        self.set_erased_timer(delay, erased_fn(f))
    }

    pub(super) fn set_erased_timer(&mut self, delay: Duration, f: Box<ErasedFn>) -> TimerId {
        let now = self.out.now().unwrap_or(self.now);
        self.state.timers().set(now + delay, f)
    }

    /// Cancels a timer. Returns false if it has already run, or was cancelled before.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.state.timers().cancel(timer)
    }
}
