//! Sends the messages of the command line and the input.

use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::sync::Arc;

use anyloop::EventLoop;
use anyloop::endpoint::{Context, Handle};
use anyloop::proto::CloseCode;

use super::command::{self, Command};
#[cfg(unix)]
use super::editor::{Editor, Typed};
use super::file;
use super::handler::ConnectHandler;
use super::link::Link;
use super::messages::Outgoing;
use super::print::{Printer, size};
use crate::error::chain;
use crate::stdio;

/// What is sent.
pub(super) struct Input {
    pub(super) link: Arc<Link>,
    pub(super) printer: Printer,
    pub(super) event_loop: EventLoop,
    /// The messages of the command line come first.
    pub(super) messages: Vec<Outgoing>,
    pub(super) source: Source,
    /// The longest line, in bytes without the line end.
    pub(super) longest: u64,
    /// A connection that is lost is made again.
    pub(super) reconnects: bool,
}

/// Where lines come from.
pub(super) enum Source {
    /// There are none.
    None,
    /// Standard input, for a program: each line is a message.
    Lines,
    /// A person, whose lines may be commands.
    Typed { history: Option<std::path::PathBuf> },
}

impl Input {
    /// Waits for a connection, sends everything, and reports the end to the handler. Reading blocks, and may never end.
    pub(super) fn send_all(&self) {
        if !self.link.await_opening() {
            return;
        }
        let sent = self.send_messages().and_then(|()| match &self.source {
            Source::None => Ok(()),
            Source::Lines => self.send_lines(),
            Source::Typed { history } => self.send_typed(history.as_deref()),
        });
        if sent.is_ok() {
            // Otherwise the close timeout would include the time for sending what is queued.
            self.link.await_sent();
        }
        self.link.end_input();
        let typed = matches!(self.source, Source::Typed { .. });
        if typed || sent.is_err() {
            self.link.set_closing();
        }
        match sent {
            Ok(()) if !typed => {
                // An input that ends between two connections waits for the next one.
                let connection = self.link.await_connection();
                self.end(connection, |handler, context| handler.end_of_input(context));
            }
            Ok(()) => {
                self.end(self.link.connection(), |handler, context| handler.end_of_input(context));
            }
            Err(why) => {
                self.link.fail(why);
                let close = |_: &mut ConnectHandler, context: &mut Context<'_, ConnectHandler>| {
                    let _ = context.close(CloseCode::GOING_AWAY, ""); // refused if it is closing already
                };
                self.end(self.link.connection(), close);
            }
        }
    }

    /// Calls `end` with the connection. Without one, nothing is left to wait for.
    fn end(
        &self,
        connection: Option<Handle<ConnectHandler>>,
        end: impl FnOnce(&mut ConnectHandler, &mut Context<'_, ConnectHandler>) + Send + 'static,
    ) {
        match connection {
            Some(connection) => _ = connection.post(end), // it may have ended
            None => self.event_loop.stop(),
        }
    }

    fn send_messages(&self) -> Result<(), String> {
        for message in &self.messages {
            let Some(connection) = self.link.await_connection() else {
                self.link.lose();
                return Ok(());
            };
            match message {
                Outgoing::Text(text) => {
                    let _ = self.link.send(&connection, text); // what is lost is counted
                    self.printer.sent("text", text.len() as u64, text);
                    self.link.await_room();
                }
                Outgoing::File(path) => self.send_file(&connection, path)?,
            }
        }
        Ok(())
    }

    fn send_file(
        &self,
        connection: &Handle<ConnectHandler>,
        path: &std::path::Path,
    ) -> Result<(), String> {
        let bytes = file::send(path, connection, &self.link, &self.printer.screen)?;
        self.printer.sent("binary", bytes, &path.display().to_string());
        Ok(())
    }

    fn send_lines(&self) -> Result<(), String> {
        let stdin = stdio::input().map_err(|error| unreadable(&error))?;
        let mut stdin = BufReader::new(stdin);
        let mut line = Vec::new();
        for number in 1u64.. {
            if !read_line(&mut stdin, &mut line, self.longest)
                .map_err(|error| unreadable(&error))?
            {
                break;
            }
            if line.len() as u64 > self.longest {
                let longest = self.longest;
                return Err(format!(
                    "line {number} of standard input is longer than {longest} bytes (--max-message)"
                ));
            }
            let text = std::str::from_utf8(&line)
                .map_err(|_| format!("line {number} of standard input is not UTF-8"))?;
            let Some(connection) = self.link.await_connection() else {
                self.link.lose();
                break;
            };
            let _ = self.link.send(&connection, text); // what is lost is counted
            if !self.link.await_room() && !self.reconnects {
                break;
            }
        }
        Ok(())
    }

    /// Sends what a person types, with an editor where the terminal supports it.
    fn send_typed(&self, history: Option<&std::path::Path>) -> Result<(), String> {
        #[cfg(unix)]
        if !has_no_controls() {
            let palette = self.printer.palette().unwrap_or_default();
            let editor = Editor::new(&self.printer.screen, palette, history);
            let mut editor = editor.map_err(|error| unreadable(&error))?;
            loop {
                match editor.read().map_err(|error| unreadable(&error))? {
                    Typed::Line(line) => match self.execute(&line) {
                        ControlFlow::Continue(()) => {}
                        ControlFlow::Break(()) => return Ok(()),
                    },
                    Typed::Said(text) => self.printer.note(&text),
                    Typed::End => return Ok(()),
                }
            }
        }
        let _ = history;
        let stdin = stdio::input().map_err(|error| unreadable(&error))?;
        let mut stdin = BufReader::new(stdin);
        let mut line = Vec::new();
        loop {
            self.printer.screen.prompt();
            if !read_line(&mut stdin, &mut line, self.longest)
                .map_err(|error| unreadable(&error))?
            {
                return Ok(());
            }
            match std::str::from_utf8(&line) {
                Ok(line) if self.execute(line).is_break() => return Ok(()),
                Ok(_) => {}
                Err(_) => self.printer.note("not UTF-8: not sent"),
            }
        }
    }

    /// Sends a line, or does what it commands. Breaks if it has closed the connection.
    fn execute(&self, line: &str) -> ControlFlow<()> {
        if line.is_empty() {
            return ControlFlow::Continue(());
        }
        let command = match command::parse(line) {
            Ok(Command::Help) => {
                self.printer.note(&command::help());
                return ControlFlow::Continue(());
            }
            Ok(Command::Text(text)) if text.len() as u64 > self.longest => {
                let longest = self.longest;
                self.printer
                    .note(&format!("longer than {longest} bytes (--max-message): not sent"));
                return ControlFlow::Continue(());
            }
            Ok(command) => command,
            Err(why) => {
                self.printer.note(&why);
                return ControlFlow::Continue(());
            }
        };
        let closes = matches!(command, Command::Close(..));
        let Some(connection) = self.link.connection() else {
            self.printer.note("there is no connection now: nothing was sent");
            return if closes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        };
        if let Err(why) = self.perform(command, &connection) {
            self.printer.note(&why);
        }
        if closes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Does what a command says. The error says why not.
    fn perform(
        &self,
        command: Command<'_>,
        connection: &Handle<ConnectHandler>,
    ) -> Result<(), String> {
        let done = match command {
            Command::Text(text) => {
                let sent = self.link.send(connection, text);
                self.link.await_room();
                sent
            }
            Command::Ping(payload) => {
                let payload = payload.as_bytes().to_vec();
                connection.post(move |handler, context| handler.ping(payload, context))
            }
            Command::Binary(path) => return self.send_file(connection, &path),
            Command::Stats => connection.post(|handler, context| handler.show_statistics(context)),
            Command::Close(code, reason) => {
                self.link.set_closing();
                self.link.await_sent();
                connection.close(code, reason)
            }
            Command::Help => Ok(()),
        };
        done.map_err(|error| format!("not sent: {}", chain(&error)))
    }
}

/// The size of a text that a line sends, or nothing if it is a command or wrong.
#[cfg(unix)]
pub(super) fn size_sent(line: &str) -> Option<String> {
    match command::parse(line) {
        Ok(Command::Text(text)) if !text.is_empty() => Some(size(text.len() as u64)),
        _ => None,
    }
}

/// Whether the terminal knows no control sequences.
#[cfg(unix)]
fn has_no_controls() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}
/// Reads a line into `line`, without the line end. Of a line longer than `longest` bytes, at most two
/// bytes more than `longest` are read. Returns whether there was a line.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>, longest: u64) -> io::Result<bool> {
    line.clear();
    let most = longest.saturating_add(2); // CR LF
    if input.take(most).read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    if line.ends_with(b"\n") {
        line.pop();
        if line.ends_with(b"\r") {
            line.pop();
        }
    }
    Ok(true)
}

fn unreadable(error: &io::Error) -> String {
    format!("cannot read standard input: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_are_removed_and_a_long_line_is_read_up_to_the_limit() {
        let mut line = Vec::new();
        let mut input = &b"four\r\n\nfour\nfive5\nfour"[..];
        for expected in ["four", "", "four", "five5"] {
            assert!(read_line(&mut input, &mut line, 4).expect("it is memory"));
            assert_eq!(line, expected.as_bytes());
        }
        assert!(read_line(&mut input, &mut line, 4).expect("it is memory"));
        assert_eq!(line, b"four");
        assert!(!read_line(&mut input, &mut line, 4).expect("it is memory"));

        let mut endless = BufReader::new(io::repeat(b'x'));
        assert!(read_line(&mut endless, &mut line, 1000).expect("it is memory"));
        assert_eq!(line.len(), 1002);
        let mut input = &b"four\r"[..];
        assert!(read_line(&mut input, &mut line, 4).expect("it is memory"));
        assert_eq!(line, b"four\r", "no line ends like that");
    }
}
