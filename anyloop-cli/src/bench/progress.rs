//! The progress of a round, on a terminal only.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::round::{Participant, Progress, Round};
use super::units;
use crate::logging;

/// The time between two drawings.
const STEP: Duration = Duration::from_millis(100);

/// A line on standard error, if that is a terminal. It is erased when this is dropped.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        // The cursor goes back to the first column. Behind the last one, the echo of Ctrl-C would begin another line.
        let style = ProgressStyle::with_template("{prefix} {bar:24} {wide_msg}\x1b[G");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    /// Begins to log what `RUST_LOG` selects, above the line.
    pub(super) fn begin_log(&self) {
        logging::begin_above(&self.0, None);
    }

    /// Shows how far the round has come until `run` returns.
    pub(super) fn during<P: Participant, T>(
        &self,
        round: &Round<P>,
        url: &str,
        time: Duration,
        run: impl FnOnce() -> T,
    ) -> T {
        if self.0.is_hidden() {
            return run();
        }
        self.0.set_prefix(url.to_string());
        let (sender, ended) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                while ended.recv_timeout(STEP) == Err(RecvTimeoutError::Timeout) {
                    self.show(round, time);
                }
            });
            let result = run();
            drop(sender);
            result
        })
    }

    fn show<P: Participant>(&self, round: &Round<P>, time: Duration) {
        match round.progress() {
            Progress::Connecting { opened } => {
                self.0.set_length(round.connections.into());
                self.0.set_position(opened.into());
                let of = units::grouped(round.connections.into());
                self.0.set_message(format!("{} of {of} connected", units::grouped(opened.into())));
            }
            Progress::Sending { since, answered } => {
                let seconds = since.min(time).as_secs_f64().max(1e-3);
                self.0.set_length(time.as_millis() as u64);
                self.0.set_position(since.min(time).as_millis() as u64);
                let rate = units::grouped((answered as f64 / seconds) as u64);
                self.0.set_message(format!("{rate} messages/s"));
            }
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
