//! Runs a round: its clients, their loops, and a thread for each loop.

use std::sync::Arc;
use std::thread;

use anyloop::net::Client;
use anyloop::proto::handshake::Target;
use anyloop::{ClientConfig, EventLoop};

use super::handler::{BenchFactory, BenchHandler};
#[cfg(target_os = "linux")]
use super::options::Pace;
use super::round::{Outcome, Round};
use crate::error::CliError;
use crate::route_flags::Overrides;

/// Runs the round to its end. The calling thread is one of its threads.
///
/// # Errors
///
/// A loop or a thread could not be made, or not all connections have opened.
pub(super) fn round(
    round: &Arc<Round<BenchHandler>>,
    target: &Target,
    config: &ClientConfig,
    overrides: &Overrides,
) -> Result<Outcome, CliError> {
    let loops = (0..round.threads()).map(|_| EventLoop::new());
    let loops: Vec<_> = loops.collect::<Result<_, _>>()?;
    #[cfg(unix)]
    interrupt_on_signal(round, &loops[0])?;
    connect(round, target, config, overrides, &loops)?;
    thread::scope(|scope| -> Result<(), CliError> {
        for (number, event_loop) in loops.iter().enumerate().skip(1) {
            let thread = thread::Builder::new().name(format!("bench {number}"));
            if let Err(error) = thread.spawn_scoped(scope, || drive(round, event_loop)) {
                round.abandon(); // the other threads end
                return Err(CliError::failed(format!("cannot start a thread: {error}")));
            }
        }
        drive(round, &loops[0]);
        Ok(())
    })?;
    round.outcome()
}

/// Begins to connect. The connections are divided among the loops.
fn connect(
    round: &Arc<Round<BenchHandler>>,
    target: &Target,
    config: &ClientConfig,
    overrides: &Overrides,
    loops: &[EventLoop],
) -> Result<(), CliError> {
    let client = |event_loop| {
        let factory = BenchFactory(round.clone());
        let mut client = Client::with_factory_on(event_loop, config.clone(), factory);
        overrides.apply(&mut client);
        client
    };
    let clients: Vec<_> = loops.iter().map(client).collect();
    for number in 0..round.connections {
        let thread = number as usize % loops.len();
        let handler = BenchHandler::new(round.clone(), thread, number);
        let request = clients[thread].request(target.clone())?.with_handler(handler);
        round.add(request.connect()?);
    }
    Ok(())
}

/// The first SIGINT, SIGTERM or, on Linux, SIGHUP ends the round before its time.
#[cfg(unix)]
fn interrupt_on_signal(
    round: &Arc<Round<BenchHandler>>,
    event_loop: &EventLoop,
) -> Result<(), CliError> {
    let interrupted = round.clone();
    let watch = crate::signals::on_signal_or_hang_up(event_loop, move |_| interrupted.interrupt());
    let watch =
        watch.map_err(|error| CliError::failed(format!("cannot wait for signals: {error}")))?;
    round.watch_signals(watch);
    Ok(())
}

/// Runs a loop until it is out of work.
#[cfg_attr(not(target_os = "linux"), expect(unused_variables, reason = "every pace is the same"))]
fn drive(round: &Round<BenchHandler>, event_loop: &EventLoop) {
    #[cfg(target_os = "linux")]
    if let Pace::Rate(_) = round.pace {
        return super::pacing::drive(event_loop);
    }
    event_loop.run();
}
