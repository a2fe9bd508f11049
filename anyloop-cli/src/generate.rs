//! Completions and manual pages, made from the definitions of the options.

use std::io::Write;
use std::path::Path;

use crate::arguments;
use crate::error::CliError;
use crate::stdio;

/// Prints the completions for a shell.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut arguments::command(), "anyloop", &mut script);
    print(&script)
}

/// Writes the manual pages to a directory, or prints the first one.
pub(crate) fn manual(dir: Option<&Path>) -> Result<(), CliError> {
    let command = arguments::command();
    match dir {
        Some(dir) if !dir.is_dir() => Err(CliError::usage(format!(
            "cannot write to {}: it is not a directory",
            dir.display()
        ))),
        Some(dir) => clap_mangen::generate_to(command, dir).map_err(|error| {
            CliError::failed(format!("cannot write to {}: {error}", dir.display()))
        }),
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            print(&page)
        }
    }
}

fn print(bytes: &[u8]) -> Result<(), CliError> {
    let written = stdio::output().and_then(|mut output| output.write_all(bytes));
    written.map_err(|error| CliError::failed(format!("cannot write to standard output: {error}")))
}
