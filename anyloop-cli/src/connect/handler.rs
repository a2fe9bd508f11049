//! The handler of a connection.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use anyloop::endpoint::{Context, Sent};
use anyloop::proto::{Chunk, CloseCode, Ending, Failure, Instant, Message, Statistics};
use anyloop::{EventLoop, Handler};

use super::link::Link;
use super::output::Output;
use super::print::{Printer, count};
use super::retry;
use crate::error::{CliError, chain};
use crate::peer;
#[cfg(unix)]
use crate::signals::{self, EndSignal};
use crate::values::Wait;

/// Why a connection was closed, if that was no failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// One of the two sides closed it with 1000 or without a code.
    Normally,
    /// A signal closed it.
    BySignal,
}

/// How a connection ended.
pub(super) struct Outcome {
    pub(super) result: Result<Closed, CliError>,
    /// How long it was open. `None` if it did not open.
    pub(super) open_for: Option<Duration>,
    /// Another attempt may succeed.
    pub(super) is_temporary: bool,
}

#[derive(Clone)]
pub(super) struct ConnectHandler {
    pub(super) link: Arc<Link<Self>>,
    pub(super) printer: Printer,
    /// Where messages are written while they arrive, instead of being printed. The connection streams then.
    pub(super) output: Option<Arc<Output>>,
    /// Messages are sent back, and not printed.
    pub(super) echo: bool,
    /// After the end of the input, the connection is closed after this long without input from the peer.
    pub(super) wait: Wait,
    /// The connection is closed after this many messages.
    pub(super) exit_after: Option<u64>,
    /// `--location` was not given, and would make the connection follow redirects.
    pub(super) may_follow: bool,
    /// When the last message, or a part of one that is written to a file, arrived.
    pub(super) last_message: Option<Instant>,
    /// The pings that a person has sent and that were not answered, with the time, the oldest first.
    pub(super) pings: Vec<(Vec<u8>, std::time::Instant)>,
    /// When the connection opened, and how it is described.
    pub(super) opened: Option<(Instant, String)>,
    /// Receives how each connection ended.
    pub(super) outcome: Sender<Outcome>,
    pub(super) event_loop: EventLoop,
    /// A connection that is lost is made again. Signals are watched for from the beginning, not only when it is open.
    #[cfg(unix)]
    pub(super) reconnects: bool,
}

impl Handler for ConnectHandler {
    fn open(&mut self, context: &mut Context<'_, Self>) {
        #[cfg(unix)]
        if !self.reconnects {
            watch_signals(&self.link, &self.event_loop, &self.printer);
        }
        let info = context.handshake_info();
        let extension = info.and_then(|info| info.extension.clone());
        let subprotocol = info.and_then(|info| info.subprotocol.clone());
        let agreed: Vec<_> = subprotocol.into_iter().chain(extension).collect();
        let agreed = agreed.join(", ");
        self.printer.event("connected; /help lists the commands, Ctrl-D closes");
        self.printer.note(&agreed);
        self.opened = Some((context.now(), context.remote_endpoint()));
        let emptied = self.output.as_ref().map_or(Ok(()), |output| output.begin());
        if let Err(why) = emptied {
            return self.fail_output(why, context);
        }
        self.link.opened(context.handle());
    }

    fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
        if self.echo {
            // While the peer does not read its echoes, its messages are not read.
            if let Ok(Sent::Backpressure) = context.send(message) {
                context.pause_reading();
            }
            return;
        }
        if self.has_enough() {
            return; // it is closing, and nobody wants more
        }
        self.last_message = Some(context.now());
        // This blocks while the output is not read, and so holds up the peer.
        match self.printer.message(message) {
            Ok(()) => self.count_received(context),
            Err(error) => {
                self.fail_output(format!("cannot write to standard output: {error}"), context);
            }
        }
    }

    fn chunk(&mut self, chunk: Chunk<'_>, context: &mut Context<'_, Self>) {
        let Some(output) = &self.output else { return };
        if self.has_enough() {
            return; // it is closing, and nobody wants more
        }
        self.last_message = Some(context.now());
        self.link.heard();
        // As above, this may block.
        match output.write(&chunk) {
            Ok(None) => {}
            Ok(Some(size)) => {
                self.printer.written(chunk.kind, size, output.name());
                self.count_received(context);
            }
            Err(why) => self.fail_output(why, context),
        }
    }

    fn ping(&mut self, _: &[u8], _: &mut Context<'_, Self>) -> bool {
        self.link.heard();
        true
    }

    fn pong(&mut self, payload: &[u8], _: Option<Duration>, _: &mut Context<'_, Self>) {
        self.link.heard();
        // A pong answers the ping with its payload, and all before that (RFC 6455 §5.5.3).
        let answered = self.pings.iter().position(|(sent, _)| sent == payload);
        let since = answered.and_then(|index| self.pings.drain(..=index).next_back());
        if let Some((_, since)) = since {
            let time = std::time::Instant::now().duration_since(since);
            self.printer.pong(payload, Some(time));
        }
    }

    fn drained(&mut self, context: &mut Context<'_, Self>) {
        context.resume_reading();
    }

    fn close(&mut self, ending: &Ending<'_>, context: &mut Context<'_, Self>) {
        if let Some(frame) = ending.received {
            self.link.heard();
            self.printer.close(frame);
        }
        let result = judge(ending, &self.link).map_err(|why| match context.error() {
            Some(error) => CliError::failed(format!("{why}: {}", chain(error))),
            None => CliError::failed(why),
        });
        if ending.failure.is_some() {
            self.link.failed_after(ending.statistics.messages_sent);
        }
        let open_for = self.opened.as_ref().map_or(Duration::ZERO, |(at, _)| context.now() - *at);
        let is_temporary = retry::is_lost(ending);
        self.end(Outcome { result, open_for: Some(open_for), is_temporary });
    }

    fn fail(&mut self, failure: &Failure, context: &mut Context<'_, Self>) {
        let is_temporary = retry::may_open(failure, context.error());
        let result = Err(peer::not_opened(failure, self.may_follow, context));
        self.end(Outcome { result, open_for: None, is_temporary });
    }
}

impl ConnectHandler {
    /// Reports the end of the connection to the main thread. The signals would keep the loop running.
    fn end(&self, outcome: Outcome) {
        self.link.ended();
        if let Some(output) = &self.output {
            output.ended();
        }
        let _ = self.outcome.send(outcome); // the receiver exists until the loop ends
        self.event_loop.stop();
    }

    /// Whether all messages have arrived that `--exit-after` asks for.
    fn has_enough(&self) -> bool {
        self.exit_after.is_some_and(|last| self.link.received() >= last)
    }

    /// A message has arrived and was printed, or written.
    fn count_received(&self, context: &mut Context<'_, Self>) {
        let number = self.link.count_received();
        if self.exit_after == Some(number) {
            self.link.set_closing();
            let _ = context.close(CloseCode::NORMAL, ""); // refused if it is closing already
        }
    }

    /// The output cannot be written.
    fn fail_output(&self, why: String, context: &mut Context<'_, Self>) {
        let is_first = self.link.fail(why);
        if is_first {
            let _ = context.close(CloseCode::GOING_AWAY, ""); // refused if it is closing already
        }
    }

    /// Sends a ping for a person, who sees the pong.
    pub(super) fn ping(&mut self, payload: Vec<u8>, context: &mut Context<'_, Self>) {
        match context.ping(&payload) {
            Ok(()) => self.pings.push((payload, std::time::Instant::now())),
            Err(error) => self.printer.note(&format!("not sent: {error}")),
        }
    }

    /// Shows the counters of the connection to a person.
    pub(super) fn show_statistics(&self, context: &mut Context<'_, Self>) {
        let (Some((since, peer)), Some(statistics)) = (&self.opened, context.statistics()) else {
            return;
        };
        let Statistics { messages_sent, bytes_sent, messages_received, bytes_received, .. } =
            statistics;
        self.printer.note(&format!(
            "{peer}, open for {:.1} s\nsent {} with {}, received {} with {}",
            (context.now() - *since).as_secs_f64(),
            count(messages_sent, "message"),
            count(bytes_sent, "byte"),
            count(messages_received, "message"),
            count(bytes_received, "byte"),
        ));
    }

    /// Handles the end of the input. Answers may still be on their way.
    pub(super) fn end_of_input(&mut self, context: &mut Context<'_, Self>) {
        if let Wait::For(_) = self.wait {
            let now = context.now();
            self.close_when_quiet(now, context.statistics(), context);
        }
    }

    /// Closes after [`Self::wait`] without input. The last input was seen at `since`, when the statistics
    /// were `before`.
    fn close_when_quiet(
        &mut self,
        since: Instant,
        before: Option<Statistics>,
        context: &mut Context<'_, Self>,
    ) {
        let Wait::For(wait) = self.wait else { return };
        let now = context.now();
        let due = since + wait;
        if due <= now {
            self.link.set_closing();
            let _ = context.close(CloseCode::NORMAL, ""); // refused if it is closing already
            return;
        }
        context.set_timer(due - now, move |handler, context| {
            let last = handler.last_message.map_or(since, |last| last.max(since));
            let received = context.statistics();
            // A part of a large message counts as well.
            let part = last == since && received != before;
            let since = if part { context.now() } else { last };
            handler.close_when_quiet(since, received, context);
        });
    }
}

/// Watches for signals until the process ends. The first SIGINT, SIGTERM or, on Linux, SIGHUP closes the connection
/// with 1001. If the connection is closing already, because a person has typed Ctrl-C, SIGINT or SIGTERM ends the
/// process.
#[cfg(unix)]
pub(super) fn watch_signals(
    link: &Arc<Link<ConnectHandler>>,
    event_loop: &EventLoop,
    printer: &Printer,
) {
    let (link, stopped) = (link.clone(), event_loop.clone());
    let watch = signals::on_signal_or_hang_up(event_loop, move |signal| {
        // A terminal that is closed ends what is typed, too.
        if link.is_closing() && signal == EndSignal::Terminate {
            signals::die();
        }
        link.interrupt();
        match link.connection() {
            Some(connection) => _ = connection.close(CloseCode::GOING_AWAY, ""), // it may be closing
            None => stopped.stop(), // it was waiting to connect
        }
    });
    if let Err(error) = watch {
        printer.warn(&format!("cannot wait for signals: {error}"));
    }
}

/// Whether both sides closed without a failure, and if not, why.
fn judge(ending: &Ending<'_>, link: &Link<ConnectHandler>) -> Result<Closed, String> {
    if let Some(failure) = ending.failure {
        return Err(failure.to_string());
    }
    let Some(frame) = ending.received else {
        return Err("the peer did not close the connection".to_string());
    };
    // A peer may echo the code of a signal, or that of `/close`.
    let is_ours = link.is_closing() && ending.sent.is_some_and(|sent| sent.code == frame.code);
    match frame.code {
        None | Some(CloseCode::NORMAL) if link.is_interrupted() => Ok(Closed::BySignal),
        Some(_) if is_ours && link.is_interrupted() => Ok(Closed::BySignal),
        None | Some(CloseCode::NORMAL) => Ok(Closed::Normally),
        Some(_) if is_ours => Ok(Closed::Normally),
        Some(_) => Err(peer::closed_with(frame)),
    }
}
