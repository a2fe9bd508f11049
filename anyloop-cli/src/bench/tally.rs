//! What a round counts.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::payload::Payload;

/// The longest latency that is recorded. Longer ones count as this one.
const LONGEST: Duration = Duration::from_secs(3600);

/// The counts of one thread, and the message that its connections send.
pub(super) struct Tally {
    pub(super) payload: Payload,
    pub(super) counts: Counts,
}

#[derive(Clone)]
pub(super) struct Counts {
    /// Messages that were sent.
    pub(super) sent: u64,
    /// Right answers before the end of the sending time. The throughput is computed from them.
    pub(super) in_time: u64,
    /// Answers that were not the message, or to no message.
    pub(super) wrong: u64,
    /// Messages without an answer.
    pub(super) unanswered: u64,
    /// Latencies of the right answers, in nanoseconds.
    pub(super) latency: Histogram<u64>,
}

impl Default for Counts {
    fn default() -> Self {
        let longest = LONGEST.as_nanos() as u64;
        // Three digits are exact. The bounds are valid, so the error cannot occur.
        let latency = Histogram::new_with_bounds(1, longest, 3).expect("1 < LONGEST / 2");
        Self { sent: 0, in_time: 0, wrong: 0, unanswered: 0, latency }
    }
}

impl Counts {
    /// The number of right answers, also of those after the sending time.
    pub(super) fn answered(&self) -> u64 {
        self.latency.len()
    }

    /// Counts a right answer.
    pub(super) fn record(&mut self, latency: Duration) {
        self.latency
            .saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1));
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.in_time += other.in_time;
        self.wrong += other.wrong;
        self.unanswered += other.unanswered;
        self.latency.add(&other.latency).expect("all histograms have the same bounds");
    }
}
