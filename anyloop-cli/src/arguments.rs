//! Reads the command line, and reports what is wrong with it in one line.

use std::env;

use clap::error::{ContextKind, ErrorKind};
use clap::{CommandFactory, Error, FromArgMatches};

use crate::Arguments;
use crate::error::CliError;

/// The arguments. Prints the help or the version if they are asked for, or the help if there is no command, and ends
/// the process.
pub(crate) fn parse() -> Result<Arguments, CliError> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(env::args_os());
    let arguments = matches.and_then(|matches| Arguments::from_arg_matches(&matches));
    arguments.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
        _ => CliError::usage(describe(&error.format(&mut command))),
    })
}

/// The commands and their options. A negative number counts as a value, so that the error names the option and its
/// range, and not an unknown option `-1`.
pub(crate) fn command() -> clap::Command {
    Arguments::command().mut_subcommands(|command| {
        command.mut_args(|arg| {
            let takes_values = arg.get_action().takes_values();
            arg.allow_negative_numbers(takes_values)
        })
    })
}

/// An error in one line, with what to do.
fn describe(error: &Error) -> String {
    let text = error.to_string();
    let mut description = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let line = line.strip_prefix("error: ").unwrap_or(line);
        if line.starts_with("Usage:") || line.starts_with("For more information") {
            break;
        }
        let separator = match description.as_str() {
            "" => "",
            before if before.ends_with(':') => " ",
            _ => "; ",
        };
        description += separator;
        description += line.strip_prefix("tip: ").unwrap_or(line);
    }
    let command = env::args_os().nth(1).and_then(|name| name.into_string().ok());
    let command = command.filter(|name| is_command(name));
    let command = command.map_or_else(String::new, |name| format!(" {name}"));
    let unknown = error.get(ContextKind::InvalidSubcommand).is_some();
    let what = if unknown { "the commands" } else { "the options" };
    format!("{description}; anyloop{command} --help describes {what}")
}

fn is_command(name: &str) -> bool {
    Arguments::command().get_subcommands().any(|command| command.get_name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn an_error_is_one_line_that_says_what_to_do() {
        for (arguments, words) in [
            (
                &["connect"][..],
                "the following required arguments were not provided: <URL>; anyloop",
            ),
            (
                &["connect", "ws://a/", "--weit", "1"],
                "'--weit' found; a similar argument exists: '--wait'",
            ),
            (&["connect", "ws://a/", "--wait", "-1"], "'-1' for '--wait <S>': neither a number"),
            (&["connect", "ws://a/", "--color", "red"], "[possible values: auto, always, never]"),
            (
                &["serv"],
                "subcommand 'serv'; a similar subcommand exists: 'serve'; anyloop --help describes the commands",
            ),
        ] {
            let mut command = command();
            let matches = command.try_get_matches_from_mut([&["anyloop"], arguments].concat());
            let described = describe(&matches.expect_err(words).format(&mut command));
            assert!(described.contains(words) && !described.contains('\n'), "{described}");
        }
    }
}
