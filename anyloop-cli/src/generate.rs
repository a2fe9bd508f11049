//! Completions and manual pages, made from the definitions of the options.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_mangen::Man;

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
        Some(dir) => {
            let mut command = command.disable_help_subcommand(true);
            command.build();
            write_pages(&command, dir).map_err(|error| {
                CliError::failed(format!("cannot write to {}: {error}", dir.display()))
            })
        }
        None => print(&page(&command)?),
    }
}

/// Writes the page of a command, and those of its subcommands.
fn write_pages(command: &Command, dir: &Path) -> io::Result<()> {
    let name = Man::new(command.clone()).get_filename();
    fs::write(dir.join(name), page(command)?)?;
    command.get_subcommands().try_for_each(|command| write_pages(command, dir))
}

/// The manual page of a command. The texts behind its options are rendered by [`sections`]: clap_mangen would join
/// their lines in one section.
fn page(command: &Command) -> io::Result<Vec<u8>> {
    let (man, mut page) = (Man::new(command.clone()), Vec::new());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(text) = command.get_after_help() {
        page.extend(sections(&text.to_string()).into_bytes());
    }
    if command.get_version().is_some() {
        man.render_version_section(&mut page)?;
    }
    Ok(page)
}

/// The texts behind the options, each paragraph as a section.
fn sections(text: &str) -> String {
    let mut roff = String::new();
    for paragraph in text.split("\n\n") {
        match paragraph.split_once(":\n") {
            Some(("Example" | "Examples", lines)) => {
                roff += ".SH EXAMPLES\n.nf\n.in 3n\n"; // a line of 77 columns fits into 80
                for line in lines.lines() {
                    roff += &escaped(line.strip_prefix("  ").unwrap_or(line));
                }
                roff += ".in\n.fi\n";
            }
            Some(("Exit status", lines)) => {
                roff += ".SH EXIT STATUS\n";
                for line in lines.lines().map(str::trim_start) {
                    match line.split_once("  ") {
                        Some((status, meaning)) => {
                            roff += &format!(".TP 4\n{}{}", escaped(status), escaped(meaning));
                        }
                        None => roff += &escaped(line),
                    }
                }
            }
            _ => {
                roff += ".SH NOTES\n";
                roff.extend(paragraph.lines().map(escaped));
            }
        }
    }
    roff
}

/// A line of text for roff, which shows it with these characters.
fn escaped(line: &str) -> String {
    let mut escaped = String::with_capacity(line.len() + 1);
    for c in line.chars() {
        match c {
            '\\' => escaped += r"\e",
            '-' => escaped += r"\-",
            '\'' => escaped += r"\(aq",
            '`' => escaped += r"\(ga",
            '^' => escaped += r"\(ha",
            '~' => escaped += r"\(ti",
            '.' if escaped.is_empty() => escaped += r"\&.",
            c => escaped.push(c),
        }
    }
    escaped + "\n"
}

fn print(bytes: &[u8]) -> Result<(), CliError> {
    let written = stdio::output().and_then(|mut output| output.write_all(bytes));
    written.map_err(|error| CliError::failed(format!("cannot write to standard output: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_keep_their_lines_and_statuses_are_tagged() {
        let text = "\
Examples:
  .a -b '\\'
      What it does.

Exit status:
  0  all is
     well
  1  else

Times are
in s.";
        let expected = r"
.SH EXAMPLES
.nf
.in 3n
\&.a \-b \(aq\e\(aq
    What it does.
.in
.fi
.SH EXIT STATUS
.TP 4
0
all is
well
.TP 4
1
else
.SH NOTES
Times are
in s.
";
        assert_eq!(sections(text), expected.trim_start());
    }
}
