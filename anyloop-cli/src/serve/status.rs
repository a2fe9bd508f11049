//! The status line on standard error, if that is a terminal: connections, and messages per second.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use anyloop::endpoint::Counters;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::route::RouteServer;
use super::traffic::Traffic;

/// The time between two drawings.
const STEP: Duration = Duration::from_secs(1);

/// A line below everything else. It is erased when this is dropped. Elsewhere than on a terminal it does nothing.
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
    pub(super) fn begin(&mut self, server: &Arc<RouteServer>) {
        if self.bar.is_hidden() {
            return;
        }
        let (sender, end) = mpsc::channel::<()>();
        let (bar, server) = (self.bar.clone(), Arc::downgrade(server));
        thread::spawn(move || {
            let (traffic, mut last) = (Traffic::default(), None);
            while draw(&bar, &server, &traffic, &mut last)
                && end.recv_timeout(STEP) == Err(RecvTimeoutError::Timeout)
            {}
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

/// Draws the line. Returns whether there is a server.
fn draw(
    bar: &ProgressBar,
    server: &Weak<RouteServer>,
    traffic: &Traffic,
    last: &mut Option<(Instant, Counters)>,
) -> bool {
    let Some(server) = server.upgrade() else { return false };
    let (now, counters) = (Instant::now(), traffic.counters(&server));
    drop(server);
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
    true
}
