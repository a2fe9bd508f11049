//! A round: connections to one server that begin together, send for some time, and close.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyloop::endpoint::Handle;
#[cfg(unix)]
use anyloop::event_loop::Watch;
use anyloop::net::Client;
use anyloop::proto::handshake::Target;
use anyloop::{ClientConfig, EventLoop};

use super::handler::{BenchFactory, BenchHandler};
use super::options::{Options, Pace};
use super::payload::Payload;
use super::tally::{Counts, Tally};
use crate::error::CliError;
use crate::route_flags::Overrides;

/// What the connections of a round share.
pub(super) struct Round {
    pub(super) pace: Pace,
    pub(super) connections: u32,
    overrides: Overrides,
    time: Duration,
    /// One of each thread.
    tallies: Vec<Mutex<Tally>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    handles: Vec<Handle<BenchHandler>>,
    /// Connections that have opened.
    opened: u32,
    /// Connections that have ended.
    ended: u32,
    /// When sending began, and when it ends.
    sending: Option<(Instant, Instant)>,
    interrupted: bool,
    /// The extension that was agreed on.
    extension: Option<String>,
    /// The first failure.
    failure: Option<CliError>,
    #[cfg(unix)]
    signals: Option<Watch>,
}

/// How a round went.
pub(super) struct Outcome {
    pub(super) counts: Counts,
    /// How long was sent.
    pub(super) time: Duration,
    pub(super) extension: Option<String>,
    pub(super) interrupted: bool,
    /// A connection that ended too early.
    pub(super) failure: Option<CliError>,
}

/// How far a round is, for the progress.
pub(super) enum Progress {
    Connecting { opened: u32 },
    Sending { since: Duration, answered: u64 },
}

impl State {
    /// Nothing is sent from now on.
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

impl Round {
    pub(super) fn new(options: &Options, time: Duration) -> Arc<Self> {
        let tally = || Tally {
            payload: Payload::new(options.size, options.binary),
            counts: Counts::default(),
        };
        Arc::new(Self {
            pace: options.pace(),
            connections: options.connections,
            overrides: options.route.overrides(),
            time,
            tallies: (0..options.threads()).map(|_| Mutex::new(tally())).collect(),
            state: Mutex::default(),
        })
    }

    /// Runs the round on as many threads as there are tallies. The calling thread is one of them.
    ///
    /// # Errors
    ///
    /// A loop or a thread could not be made, or not all connections opened.
    pub(super) fn run(
        self: &Arc<Self>,
        target: &Target,
        config: &ClientConfig,
    ) -> Result<Outcome, CliError> {
        let loops = self.tallies.iter().map(|_| EventLoop::new());
        let loops: Vec<_> = loops.collect::<Result<_, _>>()?;
        #[cfg(unix)]
        self.watch_signals(&loops[0])?;
        let client = |event_loop| {
            let factory = BenchFactory(self.clone());
            let mut client = Client::with_factory_on(event_loop, config.clone(), factory);
            self.overrides.apply(&mut client);
            client
        };
        let clients: Vec<_> = loops.iter().map(client).collect();
        for number in 0..self.connections {
            let thread = number as usize % loops.len();
            let handler = BenchHandler::new(self.clone(), thread, number);
            let request = clients[thread].request(target.clone())?.with_handler(handler);
            let handle = request.connect()?;
            self.state().handles.push(handle);
        }
        std::thread::scope(|scope| -> Result<(), CliError> {
            for (number, event_loop) in loops.iter().enumerate().skip(1) {
                let thread = std::thread::Builder::new().name(format!("bench {number}"));
                if let Err(error) = thread.spawn_scoped(scope, || self.drive(event_loop)) {
                    self.state().abandon(); // the other threads end
                    return Err(CliError::failed(format!("cannot start a thread: {error}")));
                }
            }
            self.drive(&loops[0]);
            Ok(())
        })?;
        self.outcome()
    }

    fn outcome(&self) -> Result<Outcome, CliError> {
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

    /// The counts of a thread.
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
            let begun = handle.post(move |handler, context| handler.begin(begin, end, context));
            let _ = begun; // it may have ended
        }
    }

    /// A connection has ended.
    pub(super) fn ended(&self) {
        let mut state = self.state();
        state.ended += 1;
        if state.ended < self.connections {
            return;
        }
        // All may have ended before the time.
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
    fn interrupt(&self) {
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

    /// The first SIGINT or SIGTERM ends the round.
    #[cfg(unix)]
    fn watch_signals(self: &Arc<Self>, event_loop: &EventLoop) -> Result<(), CliError> {
        let round = self.clone();
        let watch = crate::signals::on_signal(event_loop, move || round.interrupt());
        let watch =
            watch.map_err(|error| CliError::failed(format!("cannot wait for signals: {error}")))?;
        self.state().signals = Some(watch);
        Ok(())
    }

    /// Runs a loop until it is out of work.
    fn drive(&self, event_loop: &EventLoop) {
        #[cfg(target_os = "linux")]
        if let Pace::Rate(_) = self.pace {
            return super::pacing::drive(event_loop);
        }
        event_loop.run();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// A panic of another thread leaves the counts consistent, so a poisoned lock is used.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
