//! Memory of a thread that its connections use in turn.

use std::time::Duration;

use anyloop_proto::{BufferPool, Instant};

use super::budget::Budget;
use super::cork::Cork;

/// The least time between two trims. Memory that is used again within this time is kept.
const TRIM_INTERVAL: Duration = Duration::from_secs(1);

/// A thread does not wake up only to free this many bytes or fewer.
const KEPT_WHILE_WAITING: usize = 64 * 1024;

/// Memory that a thread lends to one connection at a time, and the [`Budget`] of the current call.
///
/// A thread needs one, for any number of connections. The example of
/// [`Transport`](super::Transport) has one.
#[derive(Debug)]
pub struct Buffers {
    pub(crate) cork: Cork,
    pub(crate) pool: BufferPool,
    /// The budget of handler calls. By default unlimited.
    pub budget: Budget,
    /// The number of turns with [costly](super::StreamProtocol::is_costly) input (handshakes of TLS) in this round. A
    /// round begins when it is time to poll.
    pub(crate) costly_turns: u32,
    last_trim: Instant,
}

impl Buffers {
    /// Buffers that keep at most `limit` bytes of unused memory for messages that arrive in several reads or frames.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let last_trim = Instant::from_nanos(0);
        let pool = BufferPool::new(limit);
        Self {
            cork: Cork::default(),
            pool,
            budget: Budget::unlimited(),
            costly_turns: 0,
            last_trim,
        }
    }

    /// Frees memory that no message has used since the last trim: memory for messages that arrive in several reads or
    /// frames, and for codecs of extensions. Does nothing within a second of the last trim.
    ///
    /// A loop calls this before it waits, and at [`next_trim`](Self::next_trim). Then unused memory is kept for at most
    /// two seconds. Unused memory of up to 64 KiB in all is kept until the loop has another reason to wake up.
    pub fn trim(&mut self, now: Instant) {
        if self.needs_trim(now) {
            self.pool.trim();
            self.cork.contexts.trim();
            self.last_trim = now;
        }
    }

    /// The time to call [`trim`](Self::trim) if nothing else happens; `None` if no more than 64 KiB are kept.
    ///
    /// ```
    /// # use anyloop::transport::Buffers;
    /// assert_eq!(Buffers::default().next_trim(), None); // they are empty
    /// ```
    #[must_use]
    pub fn next_trim(&self) -> Option<Instant> {
        (self.held() > KEPT_WHILE_WAITING).then(|| self.last_trim + TRIM_INTERVAL)
    }

    /// Whether a trim is due: memory is kept, and the last trim was a second ago or more.
    #[inline]
    pub(crate) fn needs_trim(&self, now: Instant) -> bool {
        now - self.last_trim >= TRIM_INTERVAL && self.held() > 0
    }

    /// The number of bytes that are kept for messages in several reads or frames, and for codecs.
    fn held(&self) -> usize {
        self.pool.held() + self.pool.contexts().held() + self.cork.contexts.held()
    }
}

impl Default for Buffers {
    /// Keeps up to 8 MiB.
    fn default() -> Self {
        Self::new(8 << 20)
    }
}
