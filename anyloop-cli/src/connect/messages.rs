//! `--text` and `--binary`: messages that are sent before the input, in the order of the command line.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};

/// The messages of the command line.
#[derive(Clone, Debug, Default)]
pub(super) struct Messages(pub(super) Vec<Outgoing>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    Text(String),
    /// A binary message: the content of the file.
    File(PathBuf),
}

impl Args for Messages {
    fn augment_args(command: Command) -> Command {
        command
            .arg(
                Arg::new("text")
                    .long("text")
                    .value_name("TEXT")
                    .action(ArgAction::Append)
                    .allow_hyphen_values(true)
                    .help("Send this text before the input (repeatable, in order with --binary)"),
            )
            .arg(
                Arg::new("binary")
                    .long("binary")
                    .value_name("FILE")
                    .action(ArgAction::Append)
                    .value_parser(value_parser!(PathBuf))
                    .help("Send this file before the input, as a binary message (repeatable)"),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Messages {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut messages = Self::default();
        messages.update_from_arg_matches(matches)?;
        Ok(messages)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let texts = matches.get_many::<String>("text").into_iter().flatten();
        let files = matches.get_many::<PathBuf>("binary").into_iter().flatten();
        let indices = |id| matches.indices_of(id).into_iter().flatten();
        let texts = indices("text").zip(texts.map(|text| Outgoing::Text(text.clone())));
        let files = indices("binary").zip(files.map(|path| Outgoing::File(path.clone())));
        let mut all: Vec<_> = texts.chain(files).collect();
        all.sort_by_key(|(index, _)| *index);
        self.0 = all.into_iter().map(|(_, message)| message).collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        messages: Messages,
    }

    #[test]
    fn messages_have_the_order_of_the_command_line() {
        let words = ["anyloop", "--binary", "a", "--text", "-b", "--binary=c", "--text", ""];
        let arguments = Arguments::try_parse_from(words).expect("they are right");
        let (file, text) =
            (|path: &str| Outgoing::File(path.into()), |text: &str| Outgoing::Text(text.into()));
        assert_eq!(arguments.messages.0, [file("a"), text("-b"), file("c"), text("")]);
    }
}
