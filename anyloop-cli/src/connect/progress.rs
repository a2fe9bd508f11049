//! Progress bars of a file that is sent, and of messages that are written to a file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::screen::Screen;

/// The time between two drawings of a [`Status`].
const STEP: Duration = Duration::from_secs(1);

/// A progress bar on standard error, if that is a terminal. It appears with the first [`show`](Self::show) while there
/// is no other one, and is erased when this is dropped.
pub(super) struct Progress {
    bar: ProgressBar,
    screen: Arc<Screen>,
}

impl Progress {
    /// That of a file of this size, in bytes.
    pub(super) fn sending(size: u64, screen: &Arc<Screen>) -> Self {
        let template = "sending {bar:24} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        Self::new(Some(size), template, screen)
    }

    /// That of messages, whose size is known only at their end.
    pub(super) fn receiving(screen: &Arc<Screen>) -> Self {
        Self::new(None, "receiving {bytes}, {bytes_per_sec}, {elapsed} so far", screen)
    }

    fn new(size: Option<u64>, template: &str, screen: &Arc<Screen>) -> Self {
        let bar = ProgressBar::with_draw_target(size, ProgressDrawTarget::hidden());
        // The cursor goes back to the first column. Behind the last one, the echo of Ctrl-C would begin another line.
        let style = ProgressStyle::with_template(&format!("{template}{{wide_msg}}\x1b[G"));
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, screen: screen.clone() }
    }

    /// Shows that so many bytes are done.
    pub(super) fn show(&self, bytes: u64) {
        if self.bar.is_hidden() {
            self.screen.show_bar(&self.bar);
        }
        self.bar.set_position(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.screen.remove_bar(&self.bar);
    }
}

/// How much of a message has arrived, above the line that a person types: a bar would draw over that line. It appears
/// when the message has taken a second.
pub(super) struct Status {
    screen: Arc<Screen>,
    message: Option<Arriving>,
}

/// A message of which a part has arrived.
struct Arriving {
    since: Instant,
    shown: Instant,
}

impl Status {
    pub(super) fn new(screen: &Arc<Screen>) -> Self {
        Self { screen: screen.clone(), message: None }
    }

    /// So many bytes of the message have arrived.
    pub(super) fn show(&mut self, bytes: u64) {
        let now = Instant::now();
        let message = self.message.get_or_insert(Arriving { since: now, shown: now });
        if now - message.shown < STEP {
            return;
        }
        message.shown = now;
        let rate = bytes as f64 / (now - message.since).as_secs_f64();
        let (bytes, rate) = (HumanBytes(bytes), HumanBytes(rate as u64));
        self.screen.set_status(Some(format!("* receiving {bytes}, {rate}/s")));
    }

    /// The message is complete, or its connection has ended.
    pub(super) fn end(&mut self) {
        if self.message.take().is_some() {
            self.screen.set_status(None);
        }
    }
}
