//! The log on standard error: `-v`, `-vv` and `RUST_LOG`.

use std::fmt;
use std::io::{self, Write};

use anyloop::endpoint::Context;
use anyloop::proto::{Ending, Failure, Message};
use indicatif::ProgressBar;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use super::route::RouteHandler;
use crate::clock;
use crate::color;
use crate::escape;
use crate::peer;

/// Begins to log what the environment says, or else connections (1) and frames (2). The lines come above the bar.
pub(super) fn begin(verbosity: u8, bar: &ProgressBar) {
    let level = match verbosity {
        0 => "warn",
        1 => "anyloop::serve=info",
        _ => "anyloop::serve=debug",
    };
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) if !directives.is_empty() => EnvFilter::new(directives),
        _ => EnvFilter::new(level),
    };
    let bar = bar.clone();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(color::is_used(&io::stderr()))
        .with_target(false)
        .with_timer(TimeOfDay)
        .with_writer(move || Above(bar.clone()))
        .init();
}

/// Whether frames are logged. Then connections have handlers that log them, and otherwise they do not even ask.
pub(super) fn has_frames() -> bool {
    tracing::enabled!(tracing::Level::DEBUG)
}

/// Whether connections are logged.
pub(super) fn has_connections() -> bool {
    tracing::enabled!(tracing::Level::INFO)
}

pub(super) fn opened(context: &Context<'_, RouteHandler>) {
    if has_connections() {
        tracing::info!("{} {}: open", context.peer(), path(context));
    }
}

pub(super) fn closed(ending: &Ending<'_>, context: &Context<'_, RouteHandler>) {
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
        "{} {}: closed: {how}; received {} messages with {} bytes, sent {} with {}",
        context.peer(),
        path(context),
        statistics.messages_received,
        statistics.bytes_received,
        statistics.messages_sent,
        statistics.bytes_sent,
    );
}

pub(super) fn failed(failure: &Failure, context: &Context<'_, RouteHandler>) {
    if has_connections() {
        tracing::info!("{} {}: not opened: {failure}", context.peer(), path(context));
    }
}

/// Logs a message in this direction. Only handlers that log call it.
pub(super) fn message(arrow: char, message: Message<'_>, context: &Context<'_, RouteHandler>) {
    let (kind, bytes) = (message.kind(), message.as_bytes());
    tracing::debug!("{} {arrow} {kind:?} {} B: {}", context.peer(), bytes.len(), beginning(bytes));
}

/// Logs a ping or pong that was received.
pub(super) fn control(name: &str, payload: &[u8], context: &Context<'_, RouteHandler>) {
    let size = payload.len();
    tracing::debug!("{} < {name} {size} B: {}", context.peer(), beginning(payload));
}

fn path(context: &Context<'_, RouteHandler>) -> String {
    context.request().map_or_else(String::new, |request| escape::line(request.uri().path()))
}

/// The beginning of a payload.
fn beginning(payload: &[u8]) -> String {
    let shown = &payload[..payload.len().min(64)];
    let dots = if shown.len() < payload.len() { "…" } else { "" };
    format!("{}{dots}", shown.escape_ascii())
}

struct TimeOfDay;

impl FormatTime for TimeOfDay {
    fn format_time(&self, out: &mut Writer<'_>) -> fmt::Result {
        write!(out, "{}", clock::time_of_day())
    }
}

/// Standard error above the status line.
struct Above(ProgressBar);

impl Write for Above {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
