//! Prints messages, one a line.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use anyloop::proto::Message;

use super::terminal::Terminal;
use crate::escape;
use crate::stdio::{self, Output};

const PROMPT: &[u8] = b"> ";

#[derive(Clone)]
pub(super) struct Printer {
    output: Arc<Mutex<Output>>,
    /// The terminal, if the input is typed at it.
    typing: Option<Terminal>,
    /// The output is a terminal, so control characters are escaped.
    escapes: bool,
    line: Vec<u8>,
}

impl Printer {
    pub(super) fn new(interactive: bool) -> io::Result<Self> {
        let output = Arc::new(Mutex::new(stdio::output()?));
        let escapes = io::stdout().is_terminal();
        let typing = interactive.then(Terminal::new);
        Ok(Self { output, typing, escapes, line: Vec::new() })
    }

    /// Prints a greeting with the agreed extension, and the prompt, if the input is typed.
    pub(super) fn begin(&self, extension: Option<&str>) {
        if self.typing.is_some() {
            match extension {
                Some(extension) => stdio::say(&format!("connected ({extension}); Ctrl-D closes")),
                None => stdio::say("connected; Ctrl-D closes"),
            }
            self.prompt();
        }
    }

    /// Prints the prompt, if the input is typed.
    pub(super) fn prompt(&self) {
        if self.typing.is_some() {
            let _ = self.write(PROMPT); // a missing prompt is harmless
        }
    }

    /// Ends the line of the prompt.
    pub(super) fn end(&self) {
        if self.typing.is_some() {
            let _ = self.write(b"\n");
        }
    }

    /// Prints a message: text unchanged, and binary with bytes that are not printable ASCII as `\xNN`.
    pub(super) fn message(&mut self, message: Message<'_>) -> io::Result<()> {
        self.line.clear();
        match self.typing {
            Some(terminal) => terminal.insert(&mut self.line, &readable(message), PROMPT),
            None if self.escapes => {
                self.line.extend_from_slice(readable(message).as_bytes());
                self.line.push(b'\n');
            }
            None => append(&mut self.line, message),
        }
        self.write(&self.line)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        output.write_all(bytes)?;
        output.flush()
    }
}

/// Appends a message for a program to read.
fn append(line: &mut Vec<u8>, message: Message<'_>) {
    match message {
        Message::Binary(bytes) => line.extend(bytes.escape_ascii()),
        Message::Text(text) => line.extend_from_slice(text.as_bytes()),
    }
    line.push(b'\n');
}

/// A message for a terminal to show.
fn readable(message: Message<'_>) -> String {
    match message {
        Message::Binary(bytes) => bytes.escape_ascii().to_string(),
        Message::Text(text) => escape::text(text.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(message: Message<'_>) -> String {
        let mut line = Vec::new();
        append(&mut line, message);
        String::from_utf8(line).expect("it is UTF-8")
    }

    #[test]
    fn text_is_printed_unchanged_and_bytes_are_escaped() {
        assert_eq!(raw("κόσμε\x1b[2J\n".into()), "κόσμε\x1b[2J\n\n");
        assert_eq!(raw((&b"a\0\xff\\\n"[..]).into()), "a\\x00\\xff\\\\\\n\n");
    }

    #[test]
    fn control_characters_are_escaped_for_a_terminal() {
        assert_eq!(readable("κ\x1b[2J\u{9b}m\r\n".into()), "κ\\u{1b}[2J\\u{9b}m\\r\n");
        assert_eq!(readable((&b"\x1b[2J"[..]).into()), "\\x1b[2J");
    }
}
