//! The `anyloop` command. It has no subcommands yet.

use std::process::ExitCode;

fn main() -> ExitCode {
    eprintln!("anyloop {}: no subcommands yet", env!("CARGO_PKG_VERSION"));
    ExitCode::from(2)
}
