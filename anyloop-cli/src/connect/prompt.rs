//! Sends what a person types, and executes commands.

use std::ops::ControlFlow;
use std::sync::Arc;

use anyloop::endpoint::Handle;

use super::command::{self, Command};
#[cfg(unix)]
use super::editor::{Editor, Typed};
use super::file;
use super::handler::ConnectHandler;
#[cfg(unix)]
use super::history;
use super::lines;
use super::link::Link;
use super::output::Output;
use super::print::Printer;
use crate::error::chain;

/// What is said about a line that is not UTF-8.
const NOT_UTF8: &str = "not UTF-8: not sent";

#[derive(Clone)]
pub(super) struct Prompt {
    pub(super) link: Arc<Link<ConnectHandler>>,
    pub(super) printer: Printer,
    /// Where messages are written. It is not sent.
    pub(super) output: Option<Arc<Output>>,
    /// The longest text that is sent, in bytes.
    pub(super) max_line: u64,
    #[cfg(unix)]
    pub(super) keeps_history: bool,
}

/// What a line is for: a command, and the connection to execute it with, if it needs one.
enum Line<'l> {
    Empty,
    Help,
    /// `/close` without a connection: nothing is left to close but the command.
    Quit,
    Perform(Command<'l>, Handle<ConnectHandler>),
}

impl Prompt {
    /// Drops what was typed before a connection opened: it is not known whether it was meant for this one.
    #[cfg(unix)]
    pub(super) fn drop_pending(&self) {
        use rustix::termios::{QueueSelector, tcflush};

        let stdin = std::io::stdin();
        let pending = rustix::io::ioctl_fionread(&stdin).unwrap_or(0); // bytes of whole lines
        if tcflush(&stdin, QueueSelector::IFlush).is_ok() && pending > 0 {
            self.printer.note("what was typed before the connection opened was not sent");
        }
    }

    /// Reads and executes lines until the end of the input, or until one has closed the connection.
    pub(super) fn run(&self) -> Result<(), String> {
        #[cfg(unix)]
        if supports_controls() {
            return self.run_editor();
        }
        self.run_without_editor()
    }

    #[cfg(unix)]
    fn run_editor(&self) -> Result<(), String> {
        let history = self.keeps_history.then(history::default_path).flatten();
        let this = self.clone();
        let heading = move |line: &str| match this.parse(line) {
            Ok(Line::Perform(Command::Text(text), _)) => {
                this.link.accept(text);
                this.printer.heading_sent("text", text.len() as u64)
            }
            _ => None,
        };
        let editor = Editor::new(&self.printer.screen, history.as_deref(), heading);
        let mut editor = editor.map_err(|error| lines::unreadable(&error))?;
        loop {
            match editor.read().map_err(|error| lines::unreadable(&error))? {
                Typed::Line(line) if self.execute(&line).is_break() => return Ok(()),
                Typed::Line(_) => {}
                Typed::NotUtf8 => self.printer.note(NOT_UTF8),
                Typed::End => return Ok(()),
            }
        }
    }

    /// As [`run_editor`](Self::run_editor), where the terminal's driver edits the lines.
    fn run_without_editor(&self) -> Result<(), String> {
        let mut lines = lines::of_stdin(self.max_line)?;
        loop {
            self.printer.screen.prompt();
            let Some(line) = lines.read()? else { return Ok(()) };
            match std::str::from_utf8(line) {
                Ok(line) if self.execute(line).is_break() => return Ok(()),
                Ok(_) => {}
                Err(_) => self.printer.note(NOT_UTF8),
            }
        }
    }

    /// Sends a line, or does what it commands. Breaks if it has closed the connection.
    fn execute(&self, line: &str) -> ControlFlow<()> {
        let done = match self.parse(line) {
            Ok(Line::Empty) => Ok(ControlFlow::Continue(())),
            Ok(Line::Help) => Err(command::help()),
            Ok(Line::Quit) => Ok(ControlFlow::Break(())),
            Ok(Line::Perform(command, connection)) => self.perform(command, &connection),
            Err(why) => Err(why),
        };
        self.link.executed();
        done.unwrap_or_else(|text| {
            self.printer.note(&text);
            ControlFlow::Continue(())
        })
    }

    /// Reads a line. The error says why it cannot be executed.
    fn parse<'l>(&self, line: &'l str) -> Result<Line<'l>, String> {
        if line.is_empty() {
            return Ok(Line::Empty);
        }
        let command = match command::parse(line)? {
            Command::Help => return Ok(Line::Help),
            Command::Text(text) if text.len() as u64 > self.max_line => {
                let max = self.max_line;
                return Err(format!("longer than {max} bytes (--max-message): not sent"));
            }
            command => command,
        };
        match (self.link.connection(), &command) {
            (Some(connection), _) => Ok(Line::Perform(command, connection)),
            (None, Command::Close(..)) => Ok(Line::Quit),
            (None, Command::Text(_)) => {
                Err("not connected: the line was not sent; type it again after \"connected\""
                    .into())
            }
            (None, Command::Stats) => Err("not connected: there are no counters".into()),
            (None, _) => Err("not connected: nothing was sent".into()),
        }
    }

    /// Does what a command says. The error says why not.
    fn perform(
        &self,
        command: Command<'_>,
        connection: &Handle<ConnectHandler>,
    ) -> Result<ControlFlow<()>, String> {
        let done = match command {
            Command::Text(text) => {
                if self.link.send_text(connection, text).is_err() {
                    self.printer.losses(self.link.take_losses());
                }
                self.link.await_room();
                Ok(())
            }
            Command::Ping(payload) => {
                let payload = payload.as_bytes().to_vec();
                connection.post(move |handler, context| handler.ping(payload, context))
            }
            Command::Binary(path) => {
                if self.output.as_ref().is_some_and(|output| output.is_at(&path)) {
                    return Err(format!("not sent: --output writes to {}", path.display()));
                }
                file::send(&path, connection, &self.link, &self.printer)?;
                return Ok(ControlFlow::Continue(()));
            }
            Command::Stats => connection.post(|handler, context| handler.show_statistics(context)),
            Command::Close(code, reason) => {
                self.link.set_closing();
                self.link.await_sent();
                let _ = connection.close(code, reason); // it may have ended
                return Ok(ControlFlow::Break(()));
            }
            Command::Help => Ok(()), // needs no connection: see `execute`
        };
        done.map(ControlFlow::Continue).map_err(|error| format!("not sent: {}", chain(&error)))
    }
}

/// Whether the terminal knows control sequences.
#[cfg(unix)]
fn supports_controls() -> bool {
    std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}
