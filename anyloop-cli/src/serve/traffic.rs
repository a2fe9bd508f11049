//! Messages of all connections. The server's own counters have those of closed connections alone.
//!
//! An open connection reads its numbers on its own thread, so they are collected in rounds: a round begins
//! with the server's counters, adds the numbers of the connections as they arrive, and is complete when the next
//! one begins. Nothing is collected while nobody asks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyloop::Handler;
use anyloop::endpoint::{Counters, EndpointHandle};
use anyloop::proto::State;

/// The shortest time between the beginnings of two rounds, however many ask.
const ROUND: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(super) struct Traffic(Mutex<Rounds>);

#[derive(Default)]
struct Rounds {
    begun: Option<Instant>,
    /// What this round has collected.
    collected: Arc<Mutex<Counters>>,
    /// The result of the rounds before. It never decreases: a connection that closes during a round may be
    /// missing in that one.
    total: Counters,
}

impl Traffic {
    /// The server's counters. Messages and bytes are those of the last round that is complete.
    pub(super) fn counters<H: Handler>(&self, server: &EndpointHandle<H>) -> Counters {
        let mut rounds = lock(&self.0);
        let mut counters = server.counters();
        rounds.include(counters);
        if rounds.begun.is_none_or(|begun| begun.elapsed() >= ROUND) {
            let collected = *lock(&rounds.collected);
            rounds.include(collected);
            rounds.begin(counters, server);
        }
        messages(&mut counters, rounds.total, |_, total| total);
        counters
    }
}

impl Rounds {
    fn include(&mut self, counters: Counters) {
        messages(&mut self.total, counters, u64::max);
    }

    fn begin<H: Handler>(&mut self, counters: Counters, server: &EndpointHandle<H>) {
        self.begun = Some(Instant::now());
        self.collected = Arc::new(Mutex::new(counters));
        for connection in server.connections() {
            if connection.state() == State::Connecting {
                continue;
            }
            let collected = self.collected.clone();
            let _ = connection.post(move |_, context| {
                let Some(statistics) = context.statistics() else { return };
                let mut collected = lock(&collected);
                collected.messages_received += statistics.messages_received;
                collected.bytes_received += statistics.bytes_received;
                collected.messages_sent += statistics.messages_sent;
                collected.bytes_sent += statistics.bytes_sent;
            }); // it may have ended
        }
    }
}

/// Combines the counters of messages and bytes.
fn messages(counters: &mut Counters, others: Counters, combine: impl Fn(u64, u64) -> u64) {
    for (counter, other) in [
        (&mut counters.messages_received, others.messages_received),
        (&mut counters.bytes_received, others.bytes_received),
        (&mut counters.messages_sent, others.messages_sent),
        (&mut counters.bytes_sent, others.bytes_sent),
    ] {
        *counter = combine(*counter, other);
    }
}

/// A panic of another thread leaves the numbers consistent, so a poisoned lock is used.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
