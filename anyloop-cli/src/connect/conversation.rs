//! What is said and heard on the connection.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;

use anyloop::Handler;
use anyloop::endpoint::{Context, Sent};
use anyloop::net::ConnectError;
use anyloop::proto::handshake::http::StatusCode;
use anyloop::proto::{Cause, CloseCode, Ending, Failure, HandshakeError, Message};

use super::input::Input;
use super::print::Printer;
use crate::stop::Stop;

#[derive(Clone)]
pub(super) struct Conversation {
    /// What is sent; absent where everything is sent back.
    pub(super) input: Option<Arc<Input>>,
    pub(super) printer: Printer,
    /// Told how it ended.
    pub(super) outcome: Sender<Result<(), Stop>>,
}

impl Handler for Conversation {
    fn open(&mut self, context: &mut Context<'_, Self>) {
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
        // This waits for whoever reads the output, and with it the peer.
        if let Err(error) = self.printer.message(message)
            && input.fail(format!("cannot write to standard output: {error}"))
        {
            let _ = context.close(CloseCode::GOING_AWAY, ""); // it may be closing already
        }
    }

    fn drained(&mut self, context: &mut Context<'_, Self>) {
        context.resume_reading();
    }

    fn close(&mut self, ending: &Ending<'_>, context: &mut Context<'_, Self>) {
        self.printer.end();
        let outcome = judge(ending).map_err(|why| match context.error() {
            Some(error) => Stop::failed(format!("{why}: {error}")),
            None => Stop::failed(why),
        });
        let _ = self.outcome.send(outcome); // who has asked listens until the loop ends
    }

    fn fail(&mut self, failure: &Failure, context: &mut Context<'_, Self>) {
        let stop = match (context.error(), failure.cause()) {
            (Some(error), _) if error.is::<ConnectError>() => Stop::unreachable(error.to_string()),
            (_, Cause::Handshake(HandshakeError::Rejected(status))) => {
                let status = StatusCode::from_u16(status).map_or_else(
                    |_| status.to_string(), // what is no status was no response either
                    |status| status.to_string(),
                );
                Stop::refused(format!("the server refused: {status}"))
            }
            (Some(error), _) => Stop::refused(format!("{failure}: {error}")),
            (None, _) => Stop::refused(failure.to_string()),
        };
        let _ = self.outcome.send(Err(stop));
    }
}

/// Whether it went as it should: closed by both, and not for anything that went wrong.
fn judge(ending: &Ending<'_>) -> Result<(), String> {
    if let Some(failure) = ending.failure {
        return Err(failure.to_string());
    }
    match ending.received {
        Some(frame) => match frame.code {
            None | Some(CloseCode::NORMAL) => Ok(()),
            Some(code) if frame.reason.is_empty() => Err(format!("the peer closed with {code}")),
            Some(code) => Err(format!("the peer closed with {code}: {}", frame.reason)),
        },
        None => Err("the peer did not close".to_string()),
    }
}
