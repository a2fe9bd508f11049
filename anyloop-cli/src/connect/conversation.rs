//! What is said and heard on the connection.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;

use anyloop::endpoint::{Context, Sent};
#[cfg(unix)]
use anyloop::event_loop::Watch;
use anyloop::net::ConnectError;
use anyloop::proto::{
    Cause, CloseCode, Ending, Failure, HandshakeError, Instant, Message, Statistics,
};
use anyloop::{EventLoop, Handler};

use super::input::Input;
use super::print::Printer;
use super::refusal;
use crate::escape;
use crate::stop::Stop;
use crate::values::Wait;

/// Why a connection was closed that ended as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// One of the two had no more to say.
    AtTheEnd,
    /// A signal has ended it.
    BySignal,
}

#[derive(Clone)]
pub(super) struct Conversation {
    /// What is sent; absent where everything is sent back.
    pub(super) input: Option<Arc<Input>>,
    pub(super) printer: Printer,
    /// After the end of the input, the connection is closed when nothing has come for so long.
    pub(super) wait: Wait,
    /// When the last message came.
    pub(super) heard: Option<Instant>,
    /// Told how it ended.
    pub(super) outcome: Sender<Result<Closed, Stop>>,
    #[cfg_attr(not(unix), expect(dead_code, reason = "there are no signals"))]
    pub(super) event_loop: EventLoop,
    /// Of signals. It would keep the loop from ending.
    #[cfg(unix)]
    pub(super) signals: Option<Watch>,
    /// A signal has ended it.
    pub(super) interrupted: bool,
}

impl Handler for Conversation {
    fn open(&mut self, context: &mut Context<'_, Self>) {
        #[cfg(unix)]
        self.heed_signals(context);
        if let Some(input) = &self.input {
            self.printer.begin();
            let (input, printer, handle) = (input.clone(), self.printer.clone(), context.handle());
            thread::spawn(move || input.send_all(&handle, &printer));
        }
    }

    fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
        let Some(input) = &self.input else {
            // One who does not read his echo is not heard until he does.
            if let Ok(Sent::Backpressure) = context.send(message) {
                context.pause_reading();
            }
            return;
        };
        self.heard = Some(context.now());
        // This waits for whoever reads the output, and with it the peer.
        if let Err(error) = self.printer.message(message) {
            let first = input.fail(format!("cannot write to standard output: {error}"));
            if first {
                let _ = context.close(CloseCode::GOING_AWAY, ""); // it may be closing already
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
            Some(error) => Stop::failed(format!("{why}: {error}")),
            None => Stop::failed(why),
        });
        let _ = self.outcome.send(outcome); // who has asked listens until the loop ends
    }

    fn fail(&mut self, failure: &Failure, context: &mut Context<'_, Self>) {
        let stop = match (context.error(), failure.cause()) {
            (Some(error), _) if error.is::<ConnectError>() => Stop::unreachable(error.to_string()),
            (_, Cause::Handshake(HandshakeError::Rejected(status))) => {
                let response = context.handshake_info().and_then(|facts| facts.response.as_ref());
                Stop::refused(refusal::describe(status, response))
            }
            (Some(error), _) => Stop::refused(format!("{failure}: {error}")),
            (None, _) => Stop::refused(failure.to_string()),
        };
        let _ = self.outcome.send(Err(stop));
    }
}

impl Conversation {
    /// All of the input was sent. What answers it may be on its way.
    pub(super) fn end_of_input(&mut self, context: &mut Context<'_, Self>) {
        if let Wait::For(_) = self.wait {
            let now = context.now();
            self.close_when_quiet(now, context.statistics(), context);
        }
    }

    /// Closes when nothing has come for as long as is to be waited. Something came last at `since`;
    /// `before` is what had come when that was seen.
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
            let _ = context.close(CloseCode::NORMAL, ""); // it may be closing already
            return;
        }
        context.set_timer(due - now, move |conversation, context| {
            let heard = conversation.heard.map_or(since, |heard| heard.max(since));
            let received = context.statistics();
            // A part of a large message is something, too.
            let part = heard == since && received != before;
            let since = if part { context.now() } else { heard };
            conversation.close_when_quiet(since, received, context);
        });
    }

    /// The first SIGINT or SIGTERM closes with 1001.
    #[cfg(unix)]
    fn heed_signals(&mut self, context: &mut Context<'_, Self>) {
        let handle = context.handle();
        let signals = crate::signals::on_signal(&self.event_loop, move || {
            let _ = handle.post(|conversation, context| {
                conversation.interrupted = true;
                let _ = context.close(CloseCode::GOING_AWAY, ""); // it may be closing already
            });
        });
        match signals {
            Ok(signals) => self.signals = Some(signals),
            Err(error) => crate::stdio::report(&format!("cannot wait for signals: {error}")),
        }
    }
}

/// Whether it went as it should: closed by both, and not for anything that went wrong.
fn judge(ending: &Ending<'_>, interrupted: bool) -> Result<Closed, String> {
    if let Some(failure) = ending.failure {
        return Err(failure.to_string());
    }
    match ending.received {
        Some(frame) => match frame.code {
            None | Some(CloseCode::NORMAL | CloseCode::GOING_AWAY) if interrupted => {
                Ok(Closed::BySignal) // it may echo our code
            }
            None | Some(CloseCode::NORMAL) => Ok(Closed::AtTheEnd),
            Some(code) if frame.reason.is_empty() => Err(format!("the peer closed with {code}")),
            Some(code) => {
                let reason = escape::line(&frame.reason);
                Err(format!("the peer closed with {code}: {reason}"))
            }
        },
        None => Err("the peer did not close".to_string()),
    }
}
