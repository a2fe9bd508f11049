//! The status line on standard error, if that is a terminal: connections, and messages per second.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyloop::Handler;
use anyloop::endpoint::{Counters, EndpointHandle};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::traffic::Traffic;
use crate::connect::count;

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
            (counter(&counters).saturating_sub(counter(before)) as f64 / seconds).round() as u64
        }
        None => 0,
    };
    bar.set_message(line(open, rate(|c| c.messages_received), rate(|c| c.messages_sent)));
    *last = Some((now, counters));
}

/// The text of the line: connections, and messages per second.
fn line(open: u64, received: u64, sent: u64) -> String {
    let (received, sent) = (count(received, "message"), count(sent, "message"));
    format!("{}, {received}/s in, {sent}/s out", count(open, "connection"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_in_the_singular() {
        assert_eq!(line(1, 1, 0), "1 connection, 1 message/s in, 0 messages/s out");
        assert_eq!(line(0, 2, 1), "0 connections, 2 messages/s in, 1 message/s out");
    }
}
