//! The status line on standard error, if that is a terminal: connections, and messages per second.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyloop::Handler;
use anyloop::endpoint::{Counters, EndpointHandle};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::traffic::Traffic;

/// The time between two drawings.
const STEP: Duration = Duration::from_secs(1);

/// A line below all other output, which is erased when this is dropped. If standard error is no terminal, it does
/// nothing.
pub(super) struct Status {
    bar: ProgressBar,
    /// Dropped, it ends the thread that draws.
    end: Option<Sender<()>>,
}

impl Status {
    pub(super) fn new() -> Self {
        let target = match io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(None, target);
        // The cursor goes back to the first column. Behind the last one, the echo of Ctrl-C would begin another line.
        let style = ProgressStyle::with_template("{wide_msg}\x1b[G");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, end: None }
    }

    /// The line, above which others may write.
    pub(super) const fn bar(&self) -> &ProgressBar {
        &self.bar
    }

    /// Begins to draw.
    pub(super) fn begin<H: Handler>(&mut self, server: EndpointHandle<H>) {
        if self.bar.is_hidden() {
            return;
        }
        let (sender, end) = mpsc::channel::<()>();
        let bar = self.bar.clone();
        thread::spawn(move || {
            let traffic = Traffic::default();
            let mut last = None;
            loop {
                let counters = traffic.counters(&server);
                draw(&bar, counters, &mut last);
                if end.recv_timeout(STEP) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        self.end = Some(sender);
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        self.end = None;
        self.bar.finish_and_clear();
    }
}

/// Draws the line, and keeps the counters for the next time.
fn draw(bar: &ProgressBar, counters: Counters, last: &mut Option<(Instant, Counters)>) {
    let now = Instant::now();
    let open = counters.opened.saturating_sub(counters.closed);
    let rate = |counter: fn(&Counters) -> u64| match &*last {
        Some((then, before)) => {
            let seconds = (now - *then).as_secs_f64().max(1e-3);
            (counter(&counters).saturating_sub(counter(before)) as f64 / seconds).round()
        }
        None => 0.0,
    };
    let (received, sent) = (rate(|c| c.messages_received), rate(|c| c.messages_sent));
    bar.set_message(format!("{open} connections, {received} messages/s in, {sent} messages/s out"));
    *last = Some((now, counters));
}
