//! The log on standard error, of which `RUST_LOG` selects the lines.

use std::env;
use std::fmt;
use std::io::{self, Write};

use indicatif::ProgressBar;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::clock;
use crate::color;
use crate::stdio;

/// Begins to log what `RUST_LOG` selects. Without `RUST_LOG`, `by_flags` selects; without either, nothing is logged.
/// Each line is written by one call.
pub(crate) fn begin<W: Write + 'static>(
    by_flags: Option<&str>,
    writer: impl Fn() -> W + Send + Sync + 'static,
) {
    let Some(filter) = by_environment().or_else(|| by_flags.map(EnvFilter::new)) else { return };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(color::is_used(&io::stderr()))
        .with_target(false)
        .with_timer(TimeOfDay)
        .with_writer(writer)
        .init();
}

/// As [`begin`], with the lines above a bar.
pub(crate) fn begin_above(bar: &ProgressBar, by_flags: Option<&str>) {
    let bar = bar.clone();
    begin(by_flags, move || AboveBar(bar.clone()));
}

/// What `RUST_LOG` selects, if it is set. A value that shows nothing is reported.
fn by_environment() -> Option<EnvFilter> {
    let directives = env::var(EnvFilter::DEFAULT_ENV).ok().filter(|value| !value.is_empty())?;
    let Ok(filter) = directives.parse() else {
        let why =
            format!("RUST_LOG is ignored: {directives:?} is not a filter such as anyloop=debug");
        stdio::report(&why);
        return None;
    };
    if !directives.split(',').any(|directive| is_for_anyloop(directive.trim())) {
        stdio::report(&format!("RUST_LOG={directives} selects no lines of anyloop"));
    }
    Some(filter)
}

/// Whether a directive is a level, or names a target or a span that may be one of Anyloop. Targets match by their
/// beginning.
fn is_for_anyloop(directive: &str) -> bool {
    let target = directive.split(['[', '=']).next().unwrap_or_default();
    !directive.is_empty()
        && (directive.parse::<LevelFilter>().is_ok()
            || target.starts_with("anyloop")
            || "anyloop".starts_with(target))
}

struct TimeOfDay;

impl FormatTime for TimeOfDay {
    fn format_time(&self, out: &mut Writer<'_>) -> fmt::Result {
        write!(out, "{}", clock::time_of_day())
    }
}

/// Standard error, above a bar.
struct AboveBar(ProgressBar);

impl Write for AboveBar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| stdio::error().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
