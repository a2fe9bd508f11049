//! The log on standard error: `-v`, `-vv` and `RUST_LOG`.

use anyloop::http::StatusCode;
use anyloop::prelude::*;
use anyloop::proto::{Cause, CloseFrame, HandshakeError, Party};
use anyloop::transport::Peer;
use indicatif::ProgressBar;

use crate::connect::count;
use crate::escape;
use crate::logging;
use crate::peer;

/// Begins to log what `RUST_LOG` selects; without it, connections if `verbosity` is 1, and messages, too, if it is
/// more. The lines appear above the bar.
pub(super) fn begin(verbosity: u8, bar: &ProgressBar) {
    // Only `RUST_LOG` shows what the library logs: `-v` says the same in words of its own.
    let by_flags = match verbosity {
        0 => None,
        1 => Some("anyloop::serve=info"),
        _ => Some("anyloop::serve=debug"),
    };
    logging::begin_above(bar, by_flags);
}

/// Whether frames are logged. If not, no handler asks again for each of them.
pub(super) fn has_frames() -> bool {
    tracing::enabled!(tracing::Level::DEBUG)
}

/// Whether connections are logged.
pub(super) fn has_connections() -> bool {
    tracing::enabled!(tracing::Level::INFO)
}

pub(super) fn opened<H: Handler>(context: &Context<'_, H>) {
    if has_connections() {
        tracing::info!("{}: open", subject(context));
    }
}

pub(super) fn closed<H: Handler>(ending: &Ending<'_>, context: &Context<'_, H>) {
    if !has_connections() {
        return;
    }
    let how = match (ending.failure, ending.received) {
        (Some(failure), _) => failure.to_string(),
        (None, Some(frame)) => peer::closed_with(frame),
        (None, None) => "the peer did not close the connection".to_string(),
    };
    let statistics = ending.statistics;
    tracing::info!(
        "{}: closed: {how}; received {} with {}, sent {} with {}{}",
        subject(context),
        count(statistics.messages_received, "message"),
        count(statistics.bytes_received, "byte"),
        statistics.messages_sent,
        statistics.bytes_sent,
        if has_frames() { closes(ending) } else { String::new() },
    );
}

/// The Close frames, the first one first. When they were sent and received is not known.
fn closes(ending: &Ending<'_>) -> String {
    let mut closes = [('<', ending.received), ('>', ending.sent)];
    if ending.by == Party::Local {
        closes.reverse();
    }
    let mut text = String::new();
    for (arrow, frame) in closes {
        let Some(CloseFrame { code, reason, .. }) = frame else { continue };
        let code = code.map_or_else(|| "without a code".to_string(), |code| code.to_string());
        let reason = escape::line(reason);
        let separator = if reason.is_empty() { "" } else { ": " };
        text += &format!("; {arrow} Close {code}{separator}{reason}");
    }
    text
}

pub(super) fn failed<H: Handler>(failure: &Failure, context: &Context<'_, H>) {
    if !has_connections() {
        return;
    }
    match (failure.cause(), context.request()) {
        (Cause::Handshake(HandshakeError::BodyTooBig), Some(request)) => {
            log_answer(request, StatusCode::PAYLOAD_TOO_LARGE, context);
        }
        _ => tracing::info!("{}: not opened: {failure}", subject(context)),
    }
}

/// Logs the answer to a plain HTTP request.
pub(super) fn answered<H: Handler>(request: &Request, answer: &Answer, context: &Context<'_, H>) {
    if let (true, Answer::Respond(response)) = (has_connections(), answer) {
        log_answer(request, response.status(), context);
    }
}

fn log_answer<H: Handler>(request: &Request, status: StatusCode, context: &Context<'_, H>) {
    let (path, method) = (escape::line(request.uri().path()), request.method());
    tracing::info!("{} {path}: {method} is answered with {status}", context.peer());
}

/// Logs a message in this direction. Only handlers that log call it.
pub(super) fn message(arrow: char, message: Message<'_>, peer: &Peer) {
    let (kind, bytes) = (message.kind(), message.as_bytes());
    tracing::debug!("{peer} {arrow} {kind:?} {} B: {}", bytes.len(), beginning(bytes));
}

/// Logs a ping or pong that was received.
pub(super) fn control<H: Handler>(name: &str, payload: &[u8], context: &Context<'_, H>) {
    let size = payload.len();
    tracing::debug!("{} < {name} {size} B: {}", context.peer(), beginning(payload));
}

/// The peer, and the path of its request if that has arrived.
fn subject<H: Handler>(context: &Context<'_, H>) -> String {
    let peer = context.peer();
    match context.request() {
        Some(request) => format!("{peer} {}", escape::line(request.uri().path())),
        None => peer.to_string(),
    }
}

/// The beginning of a payload.
fn beginning(payload: &[u8]) -> String {
    let shown = &payload[..payload.len().min(64)];
    let dots = if shown.len() < payload.len() { "…" } else { "" };
    format!("{}{dots}", shown.escape_ascii())
}
