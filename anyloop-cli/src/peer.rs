//! Describes what a peer did.

use anyloop::Handler;
use anyloop::endpoint::Context;
use anyloop::net::ConnectError;
use anyloop::proto::{Cause, CloseFrame, Failure, HandshakeError};
use anyloop::tls::TlsError;

use crate::escape;
use crate::refusal;
use crate::stop::{Stop, chain};

/// Why a connection of a client did not open, with the exit status for that.
pub(crate) fn not_opened<H: Handler>(failure: &Failure, context: &Context<'_, H>) -> Stop {
    match (context.error(), failure.cause()) {
        (Some(error), _) if matches!(error.downcast_ref(), Some(ConnectError::Redirect { .. })) => {
            Stop::refused(chain(error))
        }
        (Some(error), _) if error.is::<ConnectError>() || error.is::<TlsError>() => {
            let body = match error.downcast_ref() {
                Some(ConnectError::ProxyRefused { body, .. }) => refusal::first_lines(body),
                _ => String::new(),
            };
            Stop::unreachable(chain(error) + &body)
        }
        (_, Cause::Handshake(HandshakeError::Rejected(status))) => {
            Stop::refused(refusal::describe(status, context.response()))
        }
        (None, Cause::Handshake(HandshakeError::Malformed)) => Stop::refused(format!(
            "{} does not answer as a WebSocket server: malformed HTTP",
            context.peer()
        )),
        (Some(error), _) => {
            Stop::refused(format!("{}: {failure}: {}", context.peer(), chain(error)))
        }
        (None, _) => Stop::refused(format!("{}: {failure}", context.peer())),
    }
}

/// The peer's Close in words.
pub(crate) fn closed_with(frame: &CloseFrame) -> String {
    let Some(code) = frame.code else {
        return "the peer closed the connection without a code".to_string();
    };
    match escape::line(&frame.reason) {
        reason if reason.is_empty() => format!("the peer closed the connection with {code}"),
        reason => format!("the peer closed the connection with {code}: {reason}"),
    }
}
