//! The counters of an endpoint.

use anyloop_proto::Statistics;

use crate::sync::atomic::{AtomicU64, Ordering};

/// Counts of the connections of an endpoint, and of the messages on those that have ended.
///
/// Each counter is updated on its own, so a snapshot may miss some of what other threads do meanwhile. This always
/// holds:
///
/// - `closed <= opened`: `opened - closed` connections are open.
/// - `opened + failed + http <= started`.
/// - The messages and bytes of each connection that is in `closed` are included. Those of a connection that is ending
///   may be included before it is in `closed`.
///
/// ```
/// # use anyloop::iostream::Server;
/// # use anyloop::prelude::*;
/// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// let server = Server::new(ServerConfig::new(OriginPolicy::Any));
/// let connection = server.connection();
/// connection.register_output(std::io::sink());
/// connection.read_all(REQUEST)?;
/// connection.read_all(b"\x81\x82\0\0\0\0hi")?;
/// let counters = server.counters();
/// assert_eq!((counters.started, counters.opened, counters.closed), (1, 1, 0));
/// assert_eq!(counters.messages_received, 0); // the connection is not over
/// connection.fatal_error()?;
/// let counters = server.counters();
/// assert_eq!((counters.closed, counters.messages_received, counters.bytes_received), (1, 1, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Connections that were started: a server was given their byte stream, or a client began to connect.
    pub started: u64,
    /// Those that became open.
    pub opened: u64,
    /// Those whose opening handshake [failed](super::Handler::fail).
    pub failed: u64,
    /// Those that were open and were [closed](super::Handler::close), in any way.
    pub closed: u64,
    /// Those that were closed, or whose opening was abandoned, because the peer was too slow to read
    /// ([`Overflow::Close`](super::Overflow::Close)). They count as closed or failed when they are over.
    pub overflowed: u64,
    /// Those that were plain [HTTP](super::Handler::http), and were answered (servers only).
    pub http: u64,
    /// Messages received whole, on those that were closed.
    pub messages_received: u64,
    /// Payload bytes received, on those that were closed; decompressed, if compression was agreed.
    pub bytes_received: u64,
    /// Messages sent whole, on those that were closed.
    pub messages_sent: u64,
    /// Payload bytes sent, on those that were closed; before compression.
    pub bytes_sent: u64,
}

/// The counters that threads update. [`Counters`] is a snapshot of them.
#[derive(Default)]
pub(crate) struct AtomicCounters {
    pub(super) started: Counter,
    pub(super) opened: Counter,
    pub(super) failed: Counter,
    pub(super) overflowed: Counter,
    pub(super) http: Counter,
    closed: Counter,
    messages_received: Counter,
    bytes_received: Counter,
    messages_sent: Counter,
    bytes_sent: Counter,
}

/// One counter. Who reads a value also sees what was added to other counters before that value was reached.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Release);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

impl AtomicCounters {
    /// A connection that was open is over. It is counted last: see [`Counters`].
    pub(super) fn add_closed(&self, statistics: Statistics) {
        self.messages_received.add(statistics.messages_received);
        self.bytes_received.add(statistics.bytes_received);
        self.messages_sent.add(statistics.messages_sent);
        self.bytes_sent.add(statistics.bytes_sent);
        self.closed.add(1);
    }

    /// Reads what is counted last first, so that the relations hold that [`Counters`] states.
    pub(crate) fn snapshot(&self) -> Counters {
        let closed = self.closed.get();
        let (opened, failed, http) = (self.opened.get(), self.failed.get(), self.http.get());
        Counters {
            started: self.started.get(),
            opened,
            failed,
            closed,
            overflowed: self.overflowed.get(),
            http,
            messages_received: self.messages_received.get(),
            bytes_received: self.bytes_received.get(),
            messages_sent: self.messages_sent.get(),
            bytes_sent: self.bytes_sent.get(),
        }
    }
}
