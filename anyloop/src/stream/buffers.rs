//! Memory that connections use in turn.

use std::time::Duration;

use anyloop_proto::{BufferPool, Instant};

use super::budget::Budget;
use super::write_buffer::Cork;

/// A pool is trimmed at most this often: what is needed again within this time is kept.
const TRIM_INTERVAL: Duration = Duration::from_secs(1);

/// It is not worth waking up to free less than this, in bytes.
const WORTH_WAKING: usize = 64 * 1024;

/// Memory that a thread lends to one connection at a time, and the [`Budget`] of the present call.
///
/// One for each thread is enough for any number of connections. The example of
/// [`Transport`](super::Transport) has one.
#[derive(Debug)]
pub struct Buffers {
    pub(crate) cork: Cork,
    pub(crate) pool: BufferPool,
    /// How many handlers may be called. By default there is no bound.
    pub budget: Budget,
    trimmed: Instant,
}

impl Buffers {
    /// Buffers that keep at most `limit` bytes for messages that arrive in parts.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let trimmed = Instant::from_nanos(0);
        let pool = BufferPool::new(limit);
        Self { cork: Cork::default(), pool, budget: Budget::unlimited(), trimmed }
    }

    /// Frees memory for messages in parts that no message has needed since the last call. Within a
    /// second of that it does nothing.
    ///
    /// A loop calls this before it waits, and wakes for it at [`next_trim`](Self::next_trim). Memory
    /// that is not needed any more is then kept for two seconds at most.
    pub fn trim(&mut self, now: Instant) {
        if self.needs_trim(now) {
            self.pool.trim();
            self.trimmed = now;
        }
    }

    /// When to call [`trim`](Self::trim) though nothing else happens; `None` if no more than 64 KiB
    /// are kept, for which it is not worth waking up.
    ///
    /// ```
    /// # use anyloop::transport::Buffers;
    /// assert_eq!(Buffers::default().next_trim(), None); // they hold nothing
    /// ```
    #[must_use]
    pub fn next_trim(&self) -> Option<Instant> {
        (self.pool.held() > WORTH_WAKING).then(|| self.trimmed + TRIM_INTERVAL)
    }

    /// Whether a trim would free anything now.
    #[inline]
    pub(crate) fn needs_trim(&self, now: Instant) -> bool {
        self.pool.held() > 0 && now - self.trimmed >= TRIM_INTERVAL
    }
}

impl Default for Buffers {
    /// Keeps up to 8 MiB.
    fn default() -> Self {
        Self::new(8 << 20)
    }
}
