//! The handler of the connection.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;

use anyloop::endpoint::{Context, Sent};
#[cfg(unix)]
use anyloop::event_loop::Watch;
use anyloop::proto::{CloseCode, Ending, Failure, Instant, Message, Statistics};
use anyloop::{EventLoop, Handler};

use super::input::Input;
use super::print::Printer;
use crate::peer;
use crate::stop::{Stop, chain};
use crate::values::Wait;

/// Why a connection closed that ended without a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// One of the two sides closed it with 1000 or without a code.
    Normally,
    /// A signal closed it.
    BySignal,
}

#[derive(Clone)]
pub(super) struct ConnectHandler {
    /// The input to send; `None` for an echo.
    pub(super) input: Option<Arc<Input>>,
    pub(super) printer: Printer,
    /// After the end of the input, the connection is closed after this long without input from the peer.
    pub(super) wait: Wait,
    /// When the last message arrived.
    pub(super) last_message: Option<Instant>,
    /// Receives how the connection ended.
    pub(super) outcome: Sender<Result<Closed, Stop>>,
    #[cfg_attr(not(unix), expect(dead_code, reason = "there are no signals"))]
    pub(super) event_loop: EventLoop,
    /// The watch for signals. It is cancelled at the end, since it keeps the loop running.
    #[cfg(unix)]
    pub(super) signals: Option<Watch>,
    /// A signal has closed the connection.
    pub(super) interrupted: bool,
}

impl Handler for ConnectHandler {
    fn open(&mut self, context: &mut Context<'_, Self>) {
        #[cfg(unix)]
        self.watch_signals(context);
        if let Some(input) = &self.input {
            let info = context.handshake_info();
            self.printer.begin(info.and_then(|info| info.extension.as_deref()));
            let (input, printer, handle) = (input.clone(), self.printer.clone(), context.handle());
            thread::spawn(move || input.send_all(&handle, &printer));
        }
    }

    fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
        let Some(input) = &self.input else {
            // While the peer does not read its echoes, its messages are not read.
            if let Ok(Sent::Backpressure) = context.send(message) {
                context.pause_reading();
            }
            return;
        };
        self.last_message = Some(context.now());
        // This blocks while the output is not read, and so holds up the peer.
        if let Err(error) = self.printer.message(message) {
            let first = input.fail(format!("cannot write to standard output: {error}"));
            if first {
                let _ = context.close(CloseCode::GOING_AWAY, ""); // refused if it is closing already
            }
        }
    }

    fn drained(&mut self, context: &mut Context<'_, Self>) {
        context.resume_reading();
    }

    fn close(&mut self, ending: &Ending<'_>, context: &mut Context<'_, Self>) {
        self.printer.end();
        #[cfg(unix)]
        if let Some(signals) = self.signals.take() {
            signals.cancel();
        }
        let outcome = judge(ending, self.interrupted);
        let outcome = outcome.map_err(|why| match context.error() {
            Some(error) => Stop::failed(format!("{why}: {}", chain(error))),
            None => Stop::failed(why),
        });
        let _ = self.outcome.send(outcome); // the receiver exists until the loop ends
    }

    fn fail(&mut self, failure: &Failure, context: &mut Context<'_, Self>) {
        let _ = self.outcome.send(Err(peer::not_opened(failure, context)));
    }
}

impl ConnectHandler {
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

    /// The first SIGINT or SIGTERM closes with 1001.
    #[cfg(unix)]
    fn watch_signals(&mut self, context: &mut Context<'_, Self>) {
        let handle = context.handle();
        let signals = crate::signals::on_signal(&self.event_loop, move || {
            let _ = handle.post(|handler, context| {
                handler.interrupted = true;
                let _ = context.close(CloseCode::GOING_AWAY, ""); // refused if it is closing already
            });
        });
        match signals {
            Ok(signals) => self.signals = Some(signals),
            Err(error) => crate::stdio::report(&format!("cannot wait for signals: {error}")),
        }
    }
}

/// Whether both sides closed without a failure, and if not, why.
fn judge(ending: &Ending<'_>, interrupted: bool) -> Result<Closed, String> {
    if let Some(failure) = ending.failure {
        return Err(failure.to_string());
    }
    match ending.received {
        Some(frame) => match frame.code {
            None | Some(CloseCode::NORMAL | CloseCode::GOING_AWAY) if interrupted => {
                Ok(Closed::BySignal) // a peer may echo our code
            }
            None | Some(CloseCode::NORMAL) => Ok(Closed::Normally),
            Some(_) => Err(peer::closed_with(frame)),
        },
        None => Err("the peer did not close the connection".to_string()),
    }
}
