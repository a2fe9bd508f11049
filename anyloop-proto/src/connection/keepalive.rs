//! Keep-alive pings: a ping now and then, which must be answered in time.
//!
//! The state is three fields of [`Sender`], since it is the padding of others that keeps a connection
//! small.

use core::time::Duration;

use super::sender::Sender;
use crate::error::State;
use crate::output::Output;
use crate::time::Instant;

/// How far the keep-alive has come; `Sender::ping_since` says since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ping {
    /// No ping is under way since then.
    Idle,
    /// A ping is due but the output is blocked; since then the peer has read nothing.
    Held,
    /// A ping went out then and is not answered.
    Sent,
    /// Input is not read, so nothing can be known of the peer.
    Suspended,
}

/// Pings without end at one instant would be no keep-alive.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

/// The beginning of every keep-alive ping, before its number.
const PAYLOAD_PREFIX: [u8; 2] = *b"ka";

impl Sender {
    /// Sends a keep-alive ping, or holds it while the output is blocked. Its time runs from when it
    /// leaves; while it is held, from when the peer last read anything.
    pub(super) fn keepalive_ping(&mut self, now: Instant, out: &mut dyn Output) {
        self.ping_since = now;
        if out.is_blocked() {
            self.ping = Ping::Held;
            return;
        }
        self.ping = Ping::Sent;
        self.ping_number = self.ping_number.wrapping_add(1);
        let payload = self.ping_payload();
        self.control(crate::frame::Opcode::Ping, &payload, out);
    }

    /// Input is read no more, or again: then the keep-alive begins anew.
    pub(super) fn suspend_ping(&mut self, suspended: bool, now: Instant) {
        self.ping = if suspended { Ping::Suspended } else { Ping::Idle };
        self.ping_since = now;
    }

    #[inline]
    pub(super) fn is_suspended(&self) -> bool {
        self.ping == Ping::Suspended
    }

    /// The peer has read something: sends the ping that was held, or goes on holding it.
    pub(super) fn release_ping(&mut self, now: Instant, out: &mut dyn Output) {
        if self.ping == Ping::Held && self.state() == State::Open {
            self.keepalive_ping(now, out);
        }
    }

    /// A pong came in: the round trip, if it answers our ping.
    pub(super) fn pong_received(&mut self, payload: &[u8], now: Instant) -> Option<Duration> {
        if self.ping != Ping::Sent || payload != self.ping_payload() {
            return None;
        }
        let round_trip = now - self.ping_since;
        (self.ping, self.ping_since) = (Ping::Idle, now);
        Some(round_trip)
    }

    /// Whether of all timers only the next ping's can run now.
    #[inline]
    pub(super) fn waits_for_ping_only(&self) -> bool {
        self.state() == State::Open
            && self.ping == Ping::Idle
            && self.config.idle_timeout.is_none()
            && self.config.data_idle_timeout.is_none()
    }

    /// When the next ping is due.
    #[inline]
    pub(super) fn ping_due(&self, last_frame: Instant) -> Option<Instant> {
        let idle_since = match self.ping {
            Ping::Idle => last_frame.max(self.ping_since),
            // Nobody waits for the pong, so the next ping is not held up by it.
            Ping::Sent if self.config.pong_timeout.is_none() => last_frame.max(self.ping_since),
            Ping::Sent | Ping::Held | Ping::Suspended => return None,
        };
        let due = idle_since + self.config.ping_interval?;
        Some(due.max(idle_since + SHORTEST_INTERVAL))
    }

    /// When the pong is due. Data that is on its way cannot be overtaken by a pong, and shows that the
    /// peer is there as well.
    pub(super) fn pong_due(&self, last_data: Instant) -> Option<Instant> {
        match self.ping {
            Ping::Idle | Ping::Suspended => None,
            Ping::Held | Ping::Sent => {
                Some(self.ping_since.max(last_data) + self.config.pong_timeout?)
            }
        }
    }

    fn ping_payload(&self) -> [u8; 4] {
        let [high, low] = self.ping_number.to_be_bytes();
        [PAYLOAD_PREFIX[0], PAYLOAD_PREFIX[1], high, low]
    }
}
