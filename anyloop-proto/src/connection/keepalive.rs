//! Keep-alive pings. With a pong timeout, each must be answered in time.
//!
//! The state is the fields `keep_alive`, `ping_since` and `ping_number` of [`Sender`], where they fit into the padding
//! of other fields, and a `PingDelay` while it is needed. A separate struct would make each connection larger.

use alloc::boxed::Box;
use core::time::Duration;

use super::sender::Sender;
use crate::error::State;
use crate::output::Output;
use crate::time::Instant;

/// The state of the keep-alive. `Sender::ping_since` is the time from which its timeout counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeepAlive {
    /// No ping is outstanding.
    Idle,
    /// A ping is due but the output is blocked. The timeout starts anew each time the peer reads.
    Held,
    /// A ping was sent and is not answered yet.
    Sent,
    /// The transport does not read input, so pongs cannot be seen.
    Suspended,
    /// As `Suspended`, and the output is blocked. The timeout starts anew each time the peer reads.
    Stalled,
}

/// How much of the written output the peer's machine has acknowledged.
///
/// The example of [`Connection::note_send_queue`](crate::Connection::note_send_queue) uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "transports make it")]
pub struct SendQueue {
    /// Bytes that the peer's machine has acknowledged, counted from any start. Where the system does not count them
    /// (Unix sockets), a number that rises when the peer reads, and falls by what is written.
    pub acknowledged: u64,
    /// Bytes of output that it has not acknowledged, including those in the transport's own send buffer.
    pub waiting: usize,
}

/// An outstanding ping that waits behind other output.
#[derive(Clone, Copy)]
pub(super) struct PingDelay {
    /// When the ping was sent: `ping_since` before the pong timeout started anew.
    sent_at: Instant,
    /// Bytes acknowledged, as last reported.
    acknowledged: u64,
    /// The end of the output: `acknowledged` plus `waiting`. For a ping that was sent, as in the first report after it,
    /// so it has left once as many are acknowledged; for a held ping, as in the last report.
    output_end: u64,
}

/// The largest keep-alive ping: header, masking key and payload.
const PING_SIZE: usize = 2 + 4 + 4;

/// A shorter ping interval counts as this one. An interval of zero would send pings without end at one instant.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

/// The start of the payload of every keep-alive ping, before its number.
const PAYLOAD_PREFIX: [u8; 2] = *b"ka";

impl Sender {
    /// Sends a keep-alive ping, or holds it while the output is blocked. The pong timeout counts
    /// from when the ping is sent; while the ping is held, from when the peer last read anything.
    ///
    /// While the keep-alive is suspended, it sends no ping, and watches only whether the peer reads.
    pub(super) fn send_or_hold_ping(&mut self, now: Instant, out: &mut dyn Output) {
        self.ping_since = now;
        if self.is_suspended() {
            self.keep_alive =
                if out.is_blocked() { KeepAlive::Stalled } else { KeepAlive::Suspended };
            return;
        }
        if out.is_blocked() {
            self.keep_alive = KeepAlive::Held;
            return;
        }
        self.keep_alive = KeepAlive::Sent;
        self.forget_ping_delay();
        self.ping_number = self.ping_number.wrapping_add(1);
        let payload = self.ping_payload();
        self.send_control(crate::frame::Opcode::Ping, &payload, out);
    }

    /// Called when the pong is late. If output waits in front of the ping, the pong timeout starts anew, and again at
    /// each call that finds more of this output acknowledged. The same for a held ping: the system reports that a
    /// socket takes more only after a large part of its buffer was acknowledged, so a slow peer can read without such a
    /// report.
    pub(super) fn postpone_pong_deadline(&mut self, queue: SendQueue, now: Instant) {
        let SendQueue { acknowledged, waiting } = queue;
        let held = match self.keep_alive {
            KeepAlive::Idle | KeepAlive::Suspended => return,
            KeepAlive::Held | KeepAlive::Stalled => true,
            KeepAlive::Sent => false,
        };
        let output_end = acknowledged.saturating_add(waiting as u64);
        let next = match self.ping_delay() {
            None if waiting > PING_SIZE => {
                PingDelay { sent_at: self.ping_since, acknowledged, output_end }
            }
            // While the output is blocked, the sum shrinks only if the peer takes some: on a Unix socket, whose
            // `acknowledged` falls with each write, that may be all that shows.
            Some(delay)
                if held && (acknowledged > delay.acknowledged || output_end < delay.output_end) =>
            {
                PingDelay { acknowledged, output_end, ..delay }
            }
            Some(delay) if !held && delay.acknowledged < delay.output_end.min(acknowledged) => {
                PingDelay { acknowledged, ..delay }
            }
            _ => return,
        };
        self.cold_or_insert().ping_delay = Some(Box::new(next));
        self.ping_since = now;
    }

    /// Suspends the keep-alive, or starts it anew without an outstanding ping.
    pub(super) fn set_keepalive_suspended(&mut self, suspended: bool, now: Instant) {
        self.keep_alive = if suspended { KeepAlive::Suspended } else { KeepAlive::Idle };
        self.ping_since = now;
        self.forget_ping_delay();
    }

    #[inline]
    pub(super) fn is_suspended(&self) -> bool {
        matches!(self.keep_alive, KeepAlive::Suspended | KeepAlive::Stalled)
    }

    /// Sends the held ping, if the output is no longer blocked; otherwise its timeout starts anew. Called when the peer
    /// has read something.
    pub(super) fn send_held_ping(&mut self, now: Instant, out: &mut dyn Output) {
        if matches!(self.keep_alive, KeepAlive::Held | KeepAlive::Stalled)
            && self.state() == State::Open
        {
            self.send_or_hold_ping(now, out);
        }
    }

    /// Handles a pong. Returns the round-trip time if it answers our ping.
    pub(super) fn handle_pong(&mut self, payload: &[u8], now: Instant) -> Option<Duration> {
        if self.keep_alive != KeepAlive::Sent || payload != self.ping_payload() {
            return None;
        }
        let delay = self.ping_delay();
        let round_trip = now - delay.map_or(self.ping_since, |delay| delay.sent_at);
        (self.keep_alive, self.ping_since) = (KeepAlive::Idle, now);
        self.forget_ping_delay();
        Some(round_trip)
    }

    /// Whether it is certain that only the ping timer can run now. A quick check of the usual case.
    #[inline]
    pub(super) fn runs_ping_timer_only(&self) -> bool {
        self.state() == State::Open
            && self.keep_alive == KeepAlive::Idle
            && self.config.idle_timeout.is_none()
            && self.config.data_idle_timeout.is_none()
    }

    /// The instant of the next ping; while the keep-alive is suspended, of the next check whether the output is
    /// blocked.
    #[inline]
    pub(super) fn ping_due(&self, last_frame: Instant) -> Option<Instant> {
        let idle_since = match self.keep_alive {
            KeepAlive::Idle => last_frame.max(self.ping_since),
            // Without a pong timeout, an unanswered ping does not delay the next one.
            KeepAlive::Sent if self.config.pong_timeout.is_none() => {
                last_frame.max(self.ping_since)
            }
            KeepAlive::Suspended => self.ping_since,
            KeepAlive::Sent | KeepAlive::Held | KeepAlive::Stalled => return None,
        };
        let due = idle_since + self.config.ping_interval?;
        Some(due.max(idle_since + SHORTEST_INTERVAL))
    }

    /// The deadline of the pong. Data frames postpone it: a pong cannot overtake data in transit,
    /// and data also shows that the peer is alive.
    pub(super) fn pong_deadline(&self, last_data: Instant) -> Option<Instant> {
        match self.keep_alive {
            KeepAlive::Idle | KeepAlive::Suspended => None,
            KeepAlive::Held | KeepAlive::Sent | KeepAlive::Stalled => {
                Some(self.ping_since.max(last_data) + self.config.pong_timeout?)
            }
        }
    }

    fn ping_payload(&self) -> [u8; 4] {
        let [high, low] = self.ping_number.to_be_bytes();
        [PAYLOAD_PREFIX[0], PAYLOAD_PREFIX[1], high, low]
    }
}
