//! A round: connections to one server that begin together, send for some time, and close. Here is what they share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyloop::Handler;
use anyloop::endpoint::{Context, Handle};
#[cfg(unix)]
use anyloop::event_loop::Watch;

use super::options::{Options, Pace};
use super::payload::Payload;
use super::tally::{Counts, Tally};
use crate::error::CliError;

/// The handler of a connection that takes part in a round.
pub(super) trait Participant: Handler {
    /// Begins to send, until `end`.
    fn begin(&mut self, begin: Instant, end: Instant, context: &mut Context<'_, Self>);

    /// Sends no more, and closes when all answers have arrived, or some time later without them.
    fn finish(&mut self, context: &mut Context<'_, Self>);
}

/// What the connections of a round share.
pub(super) struct Round<P: Participant> {
    pub(super) pace: Pace,
    pub(super) connections: u32,
    /// How long to send.
    time: Duration,
    /// One for each thread.
    tallies: Vec<Mutex<Tally>>,
    state: Mutex<State<P>>,
}

struct State<P: Participant> {
    handles: Vec<Handle<P>>,
    /// Connections that have opened.
    opened: u32,
    /// Connections that have ended, or have failed to open.
    ended: u32,
    /// When sending began, and when it ends.
    sending: Option<(Instant, Instant)>,
    interrupted: bool,
    /// The extension that was agreed on.
    extension: Option<String>,
    /// The first failure.
    failure: Option<CliError>,
    /// What waits for a signal. It would keep its loop running after the last connection.
    #[cfg(unix)]
    signals: Option<Watch>,
}

/// The result of a round.
pub(super) struct Outcome {
    pub(super) counts: Counts,
    /// How long the connections have sent.
    pub(super) time: Duration,
    pub(super) extension: Option<String>,
    pub(super) interrupted: bool,
    /// The first failure: of a connection that ended too early, for example.
    pub(super) failure: Option<CliError>,
}

/// How far a round has come.
pub(super) enum Progress {
    Connecting { opened: u32 },
    Sending { since: Duration, answered: u64 },
}

impl<P: Participant> Default for State<P> {
    fn default() -> Self {
        Self {
            handles: Vec::new(),
            opened: 0,
            ended: 0,
            sending: None,
            interrupted: false,
            extension: None,
            failure: None,
            #[cfg(unix)]
            signals: None,
        }
    }
}

impl<P: Participant> State<P> {
    /// Lets the time of sending end now, unless it is over.
    fn stop(&mut self) {
        if let Some((_, end)) = &mut self.sending {
            *end = Instant::now().min(*end);
        }
    }

    /// Ends all connections, since not all of them will open.
    fn abandon(&self) {
        self.handles.iter().for_each(|handle| _ = handle.terminate()); // it may have ended
    }
}

impl<P: Participant> Round<P> {
    pub(super) fn new(options: &Options, time: Duration) -> Arc<Self> {
        let tally = || Tally {
            payload: Payload::new(options.size, options.binary),
            counts: Counts::default(),
        };
        Arc::new(Self {
            pace: options.pace(),
            connections: options.connections,
            time,
            tallies: (0..options.threads()).map(|_| Mutex::new(tally())).collect(),
            state: Mutex::default(),
        })
    }

    /// The number of threads that the connections are divided among.
    pub(super) fn threads(&self) -> usize {
        self.tallies.len()
    }

    /// Adds a connection, before its loop runs.
    pub(super) fn add(&self, handle: Handle<P>) {
        self.state().handles.push(handle);
    }

    /// Keeps what waits for a signal until the last connection has ended.
    #[cfg(unix)]
    pub(super) fn watch_signals(&self, watch: Watch) {
        self.state().signals = Some(watch);
    }

    /// Ends all connections before sending has begun.
    pub(super) fn abandon(&self) {
        self.state().abandon();
    }

    /// The result, after all connections have ended.
    ///
    /// # Errors
    ///
    /// Not all connections have opened.
    pub(super) fn outcome(&self) -> Result<Outcome, CliError> {
        let mut state = self.state();
        let Some((begin, end)) = state.sending else {
            return Err(match (state.interrupted, state.failure.take()) {
                (false, Some(failure)) => failure,
                _ => CliError::failed("interrupted before all connections were open"),
            });
        };
        let mut counts = Counts::default();
        for tally in &self.tallies {
            counts.add(&lock(tally).counts);
        }
        Ok(Outcome {
            counts,
            time: end - begin,
            extension: state.extension.take(),
            interrupted: state.interrupted,
            failure: state.failure.take(),
        })
    }

    /// The counts of a thread, and the message that its connections send.
    pub(super) fn tally(&self, thread: usize) -> MutexGuard<'_, Tally> {
        lock(&self.tallies[thread])
    }

    /// A connection is open. The last one lets all begin.
    pub(super) fn opened(&self, extension: Option<&str>) {
        let mut state = self.state();
        state.opened += 1;
        if state.extension.is_none() {
            state.extension = extension.map(str::to_string);
        }
        if state.opened < self.connections || state.interrupted || state.failure.is_some() {
            return;
        }
        let begin = Instant::now();
        let end = begin + self.time;
        state.sending = Some((begin, end));
        for handle in &state.handles {
            // It may have ended.
            let _ = handle.post(move |handler, context| handler.begin(begin, end, context));
        }
    }

    /// A connection has ended.
    pub(super) fn ended(&self) {
        let mut state = self.state();
        state.ended += 1;
        if state.ended < self.connections {
            return;
        }
        // All connections may have ended before the end of the sending time.
        state.stop();
        #[cfg(unix)]
        if let Some(signals) = state.signals.take() {
            signals.cancel();
        }
    }

    /// A connection has failed. If sending has not begun, the round ends.
    pub(super) fn fail(&self, failure: CliError) {
        let mut state = self.state();
        state.failure.get_or_insert(failure);
        if state.sending.is_none() {
            state.abandon();
        }
    }

    /// Ends the round before its time.
    #[cfg(unix)]
    pub(super) fn interrupt(&self) {
        let mut state = self.state();
        state.interrupted = true;
        state.stop();
        match state.sending {
            Some(_) => {
                for handle in &state.handles {
                    let _ = handle.post(|handler, context| handler.finish(context));
                }
            }
            None => state.abandon(),
        }
    }

    pub(super) fn progress(&self) -> Progress {
        let state = self.state();
        let Some((begin, _)) = state.sending else {
            return Progress::Connecting { opened: state.opened };
        };
        drop(state);
        let answered = self.tallies.iter().map(|tally| lock(tally).counts.answered()).sum();
        Progress::Sending { since: begin.elapsed(), answered }
    }

    fn state(&self) -> MutexGuard<'_, State<P>> {
        lock(&self.state)
    }
}

/// A panic of another thread leaves the counts consistent, so a poisoned lock is used.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
