//! What a person types at the prompt: a message, or a command.

use std::path::PathBuf;

use anyloop::proto::CloseCode;

/// The commands, with their arguments and what they do.
const COMMANDS: [(&str, &str, &str); 6] = [
    ("/ping", "[TEXT]", "send a ping, and show how long its pong takes"),
    ("/binary", "FILE", "send a file as a binary message"),
    ("/stats", "", "show the counters of the connection"),
    ("/close", "[CODE [REASON]]", "close with this code, 1000 by default"),
    ("/help", "", "show this list"),
    ("//", "TEXT", "send a text that begins with one slash"),
];

/// A line that was typed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command<'l> {
    /// A text message.
    Text(&'l str),
    Ping(&'l str),
    Binary(PathBuf),
    Stats,
    Close(CloseCode, &'l str),
    Help,
}

/// Reads a line. The error says what is wrong with it.
pub(super) fn parse(line: &str) -> Result<Command<'_>, String> {
    if !line.starts_with('/') {
        return Ok(Command::Text(line));
    }
    if line.starts_with("//") {
        return Ok(Command::Text(&line[1..]));
    }
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let alone = |command| match rest {
        "" => Ok(command),
        _ => Err(format!("{name} takes no argument")),
    };
    match name {
        "/ping" if rest.len() > 125 => Err("a ping has at most 125 bytes".into()),
        "/ping" => Ok(Command::Ping(rest)),
        "/binary" if rest.is_empty() => Err("/binary needs the name of a file".into()),
        "/binary" => Ok(Command::Binary(unquoted(rest).into())),
        "/stats" => alone(Command::Stats),
        "/close" => close(rest),
        "/help" => alone(Command::Help),
        _ => Err(format!("there is no command {name}: /help lists them, and //TEXT sends /TEXT")),
    }
}

fn close(arguments: &str) -> Result<Command<'_>, String> {
    let (code, reason) = arguments.split_once(char::is_whitespace).unwrap_or((arguments, ""));
    let code = match code {
        "" => CloseCode::NORMAL,
        code => {
            let code = code.parse::<u16>().ok().and_then(|code| CloseCode::try_from(code).ok());
            code.ok_or("the code of a Close is 1000 to 1014 or 3000 to 4999, without 1004 to 1006")?
        }
    };
    let reason = reason.trim();
    match reason.len() {
        ..=123 => Ok(Command::Close(code, reason)),
        _ => Err("the reason of a Close has at most 123 bytes".into()),
    }
}

/// A file name, without the quotes or backslashes that completion adds.
fn unquoted(name: &str) -> String {
    for quote in ['"', '\''] {
        let inner = name.strip_prefix(quote).and_then(|name| name.strip_suffix(quote));
        if let Some(inner) = inner {
            return inner.to_string();
        }
    }
    let mut unquoted = String::with_capacity(name.len());
    let mut rest = name.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => unquoted.extend(rest.next()),
            c => unquoted.push(c),
        }
    }
    unquoted
}

/// The names that begin with `prefix`.
#[cfg_attr(not(unix), expect(dead_code, reason = "lines are not edited"))]
pub(super) fn completions(prefix: &str) -> impl Iterator<Item = &'static str> {
    COMMANDS
        .into_iter()
        .map(|(name, ..)| name)
        .filter(move |name| name.starts_with(prefix) && *name != "//")
}

/// The list of commands.
pub(super) fn help() -> String {
    let commands = COMMANDS.map(|(name, arguments, help)| {
        let separator = if name == "//" || arguments.is_empty() { "" } else { " " };
        format!("{:24}{help}\n", format!("{name}{separator}{arguments}"))
    });
    format!(
        "{}Ctrl-C clears the line, or closes if it is empty; Ctrl-D closes\nCtrl-R searches the history",
        commands.concat()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_messages_or_commands() {
        for (line, expected) in [
            ("hello", Command::Text("hello")),
            (" /ping", Command::Text(" /ping")),
            ("//ping", Command::Text("/ping")),
            ("//", Command::Text("/")),
            ("/ping", Command::Ping("")),
            ("/ping  are you there? ", Command::Ping("are you there?")),
            ("/binary a b.png", Command::Binary("a b.png".into())),
            (r"/binary a\ b\\c", Command::Binary(r"a b\c".into())),
            (r#"/binary "a \b""#, Command::Binary(r"a \b".into())),
            ("/close", Command::Close(CloseCode::NORMAL, "")),
            ("/close 1001", Command::Close(CloseCode::GOING_AWAY, "")),
            ("/close 1000 good bye", Command::Close(CloseCode::NORMAL, "good bye")),
            ("/stats", Command::Stats),
            ("/help ", Command::Help),
        ] {
            assert_eq!(parse(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn a_line_that_is_wrong_is_no_message() {
        let (long_ping, long_reason) =
            (format!("/ping {}", "x".repeat(126)), format!("/close 1000 {}", "x".repeat(124)));
        for (line, words) in [
            ("/", "there is no command /:"),
            ("/pnig x", "there is no command /pnig"),
            ("/binary", "needs the name"),
            ("/stats now", "/stats takes no argument"),
            ("/close 999", "1000 to 1014"),
            ("/close 1005", "1000 to 1014"),
            ("/close now", "1000 to 1014"),
            (&long_ping, "125 bytes"),
            (&long_reason, "123 bytes"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn the_help_fits_a_terminal_of_80_columns() {
        for line in help().lines() {
            assert!(line.len() <= 80 - "* ".len(), "{line}");
        }
    }

    #[test]
    fn names_are_completed() {
        assert_eq!(completions("/s").collect::<Vec<_>>(), ["/stats"]);
        assert_eq!(completions("/").count(), COMMANDS.len() - 1);
        assert_eq!(completions("x").count(), 0);
        assert!(completions("/").all(|name| help().contains(name)));
    }
}
