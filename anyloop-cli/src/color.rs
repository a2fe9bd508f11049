//! Whether output is coloured.

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use anstyle::Style;

#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Options {
    /// When to use colours. "auto": on terminals, unless NO_COLOR is set.
    #[arg(long, global = true, display_order = 1000, value_name = "WHEN", default_value = "auto")]
    color: When,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum When {
    Auto,
    Always,
    Never,
}

impl Options {
    /// Applies the choice to the whole process.
    pub(crate) fn apply(&self) {
        let choice = match self.color {
            When::Auto => ColorChoice::Auto,
            When::Always => ColorChoice::Always,
            When::Never => ColorChoice::Never,
        };
        choice.write_global();
    }
}

/// Whether what is written to this stream is coloured.
pub(crate) fn is_used(stream: &impl RawStream) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}

/// Text in a style. The plain style adds nothing.
pub(crate) fn styled(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}
