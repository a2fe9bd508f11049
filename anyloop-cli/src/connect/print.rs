//! Printing messages, one a line.

use std::io::{self, IsTerminal, Write};

use anyloop::proto::Message;

const PROMPT: &[u8] = b"> ";
/// Goes to the beginning of the line, and empties it.
const EMPTY_LINE: &[u8] = b"\r\x1b[K";

#[derive(Clone)]
pub(super) struct Printer {
    /// Somebody types at the same terminal.
    interactive: bool,
    /// Whoever is at the other end is not to control the terminal.
    careful: bool,
    line: Vec<u8>,
}

impl Printer {
    pub(super) fn new(interactive: bool) -> Self {
        Self { interactive, careful: io::stdout().is_terminal(), line: Vec::new() }
    }

    /// Greets who types, if somebody does.
    pub(super) fn begin(&self) {
        if self.interactive {
            eprintln!("connected; the end of the input (Ctrl-D) closes");
            self.prompt();
        }
    }

    /// Asks who types for a line.
    pub(super) fn prompt(&self) {
        if self.interactive {
            let _ = write(PROMPT); // there is no need for it
        }
    }

    /// Leaves the line of the prompt.
    pub(super) fn end(&self) {
        if self.interactive {
            let _ = write(EMPTY_LINE);
        }
    }

    /// Prints a message: text as it is, and a binary one with what is not printable ASCII as `\xNN`.
    pub(super) fn message(&mut self, message: Message<'_>) -> io::Result<()> {
        self.line.clear();
        if self.interactive {
            self.line.extend_from_slice(EMPTY_LINE);
        }
        append(&mut self.line, message, self.careful);
        self.line.push(b'\n');
        if self.interactive {
            self.line.extend_from_slice(PROMPT);
        }
        write(&self.line)
    }
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

fn append(line: &mut Vec<u8>, message: Message<'_>, careful: bool) {
    match message {
        Message::Binary(bytes) => line.extend(bytes.escape_ascii()),
        Message::Text(text) if careful => {
            for c in text.as_str().chars() {
                match c {
                    '\n' | '\t' => line.push(c as u8),
                    c if c.is_control() => line.extend(c.escape_default().map(|c| c as u8)),
                    c => line.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
        }
        Message::Text(text) => line.extend_from_slice(text.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(message: Message<'_>, careful: bool) -> String {
        let mut line = Vec::new();
        append(&mut line, message, careful);
        String::from_utf8(line).expect("it is UTF-8")
    }

    #[test]
    fn text_is_printed_as_it_is_and_bytes_are_escaped() {
        assert_eq!(printed("κόσμε\x1b[2J\n".into(), false), "κόσμε\x1b[2J\n");
        assert_eq!(printed((&b"a\0\xff\\\n"[..]).into(), false), r"a\x00\xff\\\n");
    }

    #[test]
    fn nobody_controls_a_terminal_from_afar() {
        assert_eq!(printed("κ\x1b[2J\u{9b}m\r\n".into(), true), "κ\\u{1b}[2J\\u{9b}m\\r\n");
    }
}
