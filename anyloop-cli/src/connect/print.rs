//! Prints messages: for a program one a line, and for a person with the time, direction, kind and size.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use anyloop::proto::{CloseFrame, Kind, Message};

use super::json;
use super::screen::Screen;
use crate::clock;
use crate::color;
use crate::escape;
use crate::stdio;

/// Bytes of a message that are shown to a person.
const SHOWN: usize = 64 * 1024;

#[derive(Clone)]
pub(super) struct Printer {
    pub(super) screen: Arc<Screen>,
    format: Format,
    /// Text that is JSON is indented.
    json: bool,
    line: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Format {
    /// For a program: text unchanged.
    Raw,
    /// For a terminal: control characters are escaped.
    Escaped,
    /// For a person who types.
    Dressed(Palette),
}

/// What is printed in which style.
#[derive(Clone, Copy, Default)]
pub(super) struct Palette {
    sent: Style,
    received: Style,
    minor: Style,
}

impl Palette {
    fn new(colors: bool) -> Self {
        let style = |style: Style| if colors { style } else { Style::new() };
        Self {
            sent: style(AnsiColor::Cyan.on_default()),
            received: style(AnsiColor::Green.on_default()),
            minor: style(Style::new().dimmed()),
        }
    }

    /// The beginning of the line of a message that was sent.
    pub(super) fn sent(&self, kind: &str, size: &str) -> String {
        self.heading(self.sent, '>', kind, size)
    }

    fn received(&self, kind: &str, size: &str) -> String {
        self.heading(self.received, '<', kind, size)
    }

    fn heading(&self, style: Style, arrow: char, kind: &str, size: &str) -> String {
        let time = color::styled(self.minor, clock::time_of_day());
        let arrow = color::styled(style, arrow);
        format!("{time} {arrow} {} ", color::styled(self.minor, format_args!("{kind} {size}:")))
    }

    /// Something that is not from the peer.
    fn note(&self, text: &str) -> String {
        color::styled(self.minor, format_args!("* {text}"))
    }
}

impl Printer {
    pub(super) fn new(typed: bool, json: bool) -> io::Result<Self> {
        let stdout = io::stdout();
        let format = match (typed, stdout.is_terminal()) {
            (true, _) => Format::Dressed(Palette::new(color::is_used(&stdout))),
            (false, true) => Format::Escaped,
            (false, false) => Format::Raw,
        };
        Ok(Self { screen: Screen::new()?, format, json, line: Vec::new() })
    }

    /// The styles, if a person types.
    pub(super) fn palette(&self) -> Option<Palette> {
        match self.format {
            Format::Dressed(palette) => Some(palette),
            Format::Raw | Format::Escaped => None,
        }
    }

    /// Prints a message that has arrived.
    pub(super) fn message(&mut self, message: Message<'_>) -> io::Result<()> {
        let indented = match message {
            Message::Text(text) if self.json => json::indented(text.as_str()),
            Message::Text(_) | Message::Binary(_) => None,
        };
        let printed = indented.as_deref().map_or(message, Message::from);
        match self.format {
            Format::Raw => {
                self.line.clear();
                append(&mut self.line, printed);
                self.screen.write(&self.line)
            }
            Format::Escaped => self.screen.show(&readable(printed)),
            Format::Dressed(palette) => {
                let (kind, bytes) = (name(message.kind()), message.as_bytes());
                let heading = palette.received(kind, &size(bytes.len() as u64));
                let text = readable(shortened(printed));
                let text = match indented.is_some() || text.contains('\n') {
                    true => format!("\n{text}").replace('\n', "\n  "),
                    false => text,
                };
                let rest = printed.as_bytes().len() - shortened(printed).as_bytes().len();
                let rest = match rest {
                    0 => String::new(),
                    rest => format!("\n{}", palette.note(&format!("{} more", size(rest as u64)))),
                };
                self.screen.show(&format!("{heading}{text}{rest}"))
            }
        }
    }

    /// Prints a pong for a person, and how long it took.
    pub(super) fn pong(&self, payload: &[u8], round_trip: Option<Duration>) {
        let Some(palette) = self.palette() else { return };
        let mut line = palette.received("pong", &size(payload.len() as u64));
        line += &payload.escape_ascii().to_string();
        if let Some(time) = round_trip {
            line += &format!(" ({:.1} ms)", time.as_secs_f64() * 1e3);
        }
        let _ = self.screen.show(&line); // messages report that the output has failed
    }

    /// Prints the peer's Close for a person.
    pub(super) fn close(&self, frame: &CloseFrame) {
        let Some(palette) = self.palette() else { return };
        let code = frame.code.map_or_else(|| "no code".to_string(), |code| code.to_string());
        let line = palette.received("close", &code) + &escape::line(&frame.reason);
        let _ = self.screen.show(&line); // the connection is over
    }

    /// Prints what was sent, other than by a line that is typed.
    pub(super) fn sent(&self, kind: &str, bytes: u64, what: &str) {
        let Some(palette) = self.palette() else { return };
        let line = palette.sent(kind, &size(bytes)) + &escape::line(what);
        let _ = self.screen.show(&line); // messages report that the output has failed
    }

    /// Tells a person something.
    pub(super) fn note(&self, text: &str) {
        let Some(palette) = self.palette() else { return };
        for line in text.lines() {
            let _ = self.screen.show(&palette.note(&escape::line(line)));
        }
    }

    /// Tells a person something, or reports it on standard error.
    pub(super) fn warn(&self, text: &str) {
        match self.palette() {
            Some(_) => self.note(text),
            None => stdio::report(text),
        }
    }
}

/// The kind of a message.
pub(super) const fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "text",
        Kind::Binary => "binary",
    }
}

/// A number of bytes.
pub(super) fn size(bytes: u64) -> String {
    format!("{bytes} B")
}

/// The beginning of a message.
fn shortened(message: Message<'_>) -> Message<'_> {
    match message {
        Message::Binary(bytes) => (&bytes[..bytes.len().min(SHOWN)]).into(),
        Message::Text(text) => {
            let text = text.as_str();
            let mut end = text.len().min(SHOWN);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text[..end].into()
        }
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

    #[test]
    fn a_long_message_is_shortened_between_two_characters() {
        let long = format!("{}x", "κ".repeat(SHOWN));
        assert_eq!(shortened((&*long).into()).as_bytes().len(), SHOWN);
        assert_eq!(shortened(long[..].trim_end_matches('x').into()).as_bytes().len(), SHOWN);
        let odd = format!("x{long}");
        assert_eq!(shortened((&*odd).into()).as_bytes().len(), SHOWN - 1);
        assert_eq!(shortened("short".into()).as_bytes(), b"short");
    }
}
