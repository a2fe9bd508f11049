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

/// Bytes of a message that are shown to a person who types.
const MAX_SHOWN: usize = 64 * 1024;

#[derive(Clone)]
pub(super) struct Printer {
    pub(super) screen: Arc<Screen>,
    format: Format,
    /// Text that is JSON is indented.
    indents_json: bool,
    /// The message that is printed. It keeps its memory for the next one.
    buffer: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Format {
    /// For a program: text unchanged.
    Raw,
    /// For a terminal: control characters are escaped.
    Escaped,
    /// For a person who types: with the time, direction, kind and size.
    Interactive(Palette),
}

/// The styles of what a person sees.
#[derive(Clone, Copy)]
struct Palette {
    sent: Style,
    received: Style,
    dimmed: Style,
}

impl Palette {
    fn new(colors: bool) -> Self {
        let style = |style: Style| if colors { style } else { Style::new() };
        Self {
            sent: style(AnsiColor::Cyan.on_default()),
            received: style(AnsiColor::Green.on_default()),
            dimmed: style(Style::new().dimmed()),
        }
    }

    /// The beginning of the line of a message that was sent.
    fn sent(&self, kind: &str, size: &str) -> String {
        self.heading(self.sent, '>', kind, size)
    }

    fn received(&self, kind: &str, size: &str) -> String {
        self.heading(self.received, '<', kind, size)
    }

    fn heading(&self, style: Style, arrow: char, kind: &str, size: &str) -> String {
        let time = color::styled(self.dimmed, clock::time_of_day());
        let arrow = color::styled(style, arrow);
        format!("{time} {arrow} {} ", color::styled(self.dimmed, format_args!("{kind} {size}:")))
    }

    /// What is shown of a message behind its heading: lines of their own, if there are several, and the beginning of a
    /// long message.
    fn body(&self, message: Message<'_>, is_block: bool) -> String {
        let shown = beginning(message);
        let mut text = readable(shown);
        if is_block || text.contains('\n') {
            text = format!("\n{text}").replace('\n', "\n  ");
        }
        let more = (message.as_bytes().len() - shown.as_bytes().len()) as u64;
        if more > 0 {
            text += &format!("\n{}", self.note(&format!("{} more", size(more))));
        }
        text
    }

    /// Something that is not from the peer.
    fn note(&self, text: &str) -> String {
        self.dim(&format!("* {text}"))
    }

    fn dim(&self, text: &str) -> String {
        color::styled(self.dimmed, text)
    }
}

impl Printer {
    pub(super) fn new(is_typed: bool, indents_json: bool) -> io::Result<Self> {
        let stdout = io::stdout();
        let format = match (is_typed, stdout.is_terminal()) {
            (true, _) => Format::Interactive(Palette::new(color::is_used(&stdout))),
            (false, true) => Format::Escaped,
            (false, false) => Format::Raw,
        };
        Ok(Self { screen: Screen::new()?, format, indents_json, buffer: Vec::new() })
    }

    /// The styles, if a person types.
    fn palette(&self) -> Option<Palette> {
        match self.format {
            Format::Interactive(palette) => Some(palette),
            Format::Raw | Format::Escaped => None,
        }
    }

    /// Prints a message that has arrived.
    pub(super) fn message(&mut self, message: Message<'_>) -> io::Result<()> {
        let indented = match message {
            Message::Text(text) if self.indents_json => json::indented(text.as_str()),
            Message::Text(_) | Message::Binary(_) => None,
        };
        let printed = indented.as_deref().map_or(message, Message::from);
        match self.format {
            Format::Raw => {
                self.buffer.clear();
                append_line(&mut self.buffer, printed);
                self.screen.write(&self.buffer)
            }
            Format::Escaped => self.screen.show(&readable(printed)),
            Format::Interactive(palette) => {
                let (kind, bytes) = (name(message.kind()), message.as_bytes().len() as u64);
                let heading = palette.received(kind, &size(bytes));
                self.screen.show(&(heading + &palette.body(printed, indented.is_some())))
            }
        }
    }

    /// Tells a person that a message has arrived and was written to a file.
    pub(super) fn written(&self, kind: Kind, bytes: u64, file: &str) {
        let Some(palette) = self.palette() else { return };
        let heading = palette.received(name(kind), &size(bytes));
        let line = heading + &palette.dim(&format!("written to {}", escape::line(file)));
        let _ = self.screen.show(&line); // the file has the message
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

    /// The beginning of the line of a message that is sent, for a person.
    #[cfg(unix)]
    pub(super) fn heading_sent(&self, kind: &str, bytes: u64) -> Option<String> {
        Some(self.palette()?.sent(kind, &size(bytes)))
    }

    /// Tells a person what was sent, other than by a line that is typed.
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

    /// Tells a person which messages were not sent, or may be lost, with the time.
    pub(super) fn losses(&self, losses: impl IntoIterator<Item = String>) {
        losses.into_iter().for_each(|loss| self.event(&loss));
    }

    /// Tells a person that the connection has changed, with the time.
    pub(super) fn event(&self, text: &str) {
        let Some(palette) = self.palette() else { return };
        let time = palette.dim(&clock::time_of_day().to_string());
        let _ = self.screen.show(&format!("{time} {}", palette.note(&escape::line(text))));
    }

    /// As [`event`](Self::event); or reports it on standard error.
    pub(super) fn event_or_report(&self, text: &str) {
        match self.palette() {
            Some(_) => self.event(text),
            None => self.screen.report(text),
        }
    }

    /// Tells a person something, or reports it on standard error.
    pub(super) fn warn(&self, text: &str) {
        match self.palette() {
            Some(_) => self.note(text),
            None => self.screen.report(text),
        }
    }
}

/// The kind of a message.
const fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "text",
        Kind::Binary => "binary",
    }
}

/// A number of bytes.
fn size(bytes: u64) -> String {
    format!("{bytes} B")
}

/// A number of things, whose name is given in the singular.
pub(crate) fn count(n: u64, thing: &str) -> String {
    match n {
        1 => format!("1 {thing}"),
        n => format!("{n} {thing}s"),
    }
}

/// The beginning of a message, of which a person sees no more.
fn beginning(message: Message<'_>) -> Message<'_> {
    match message {
        Message::Binary(bytes) => (&bytes[..bytes.len().min(MAX_SHOWN)]).into(),
        Message::Text(text) => {
            let text = text.as_str();
            let mut end = text.len().min(MAX_SHOWN);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text[..end].into()
        }
    }
}

/// Appends a message as a program reads it, and a line end.
fn append_line(buffer: &mut Vec<u8>, message: Message<'_>) {
    match message {
        Message::Binary(bytes) => buffer.extend(bytes.escape_ascii()),
        Message::Text(text) => buffer.extend_from_slice(text.as_bytes()),
    }
    buffer.push(b'\n');
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
        append_line(&mut line, message);
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
        let long = format!("{}x", "κ".repeat(MAX_SHOWN));
        assert_eq!(beginning((&*long).into()).as_bytes().len(), MAX_SHOWN);
        assert_eq!(beginning(long[..].trim_end_matches('x').into()).as_bytes().len(), MAX_SHOWN);
        let odd = format!("x{long}");
        assert_eq!(beginning((&*odd).into()).as_bytes().len(), MAX_SHOWN - 1);
        assert_eq!(beginning("short".into()).as_bytes(), b"short");
    }
}
