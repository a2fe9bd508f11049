//! Sends the messages of the command line, and then those of the input.

use std::sync::Arc;

use anyloop::EventLoop;
use anyloop::endpoint::{Context, Handle};
use anyloop::proto::CloseCode;

use super::file;
use super::handler::ConnectHandler;
use super::lines;
use super::link::Link;
use super::messages::Outgoing;
use super::print::Printer;
use super::prompt::Prompt;

/// What is sent.
pub(super) struct Input {
    pub(super) link: Arc<Link<ConnectHandler>>,
    pub(super) printer: Printer,
    pub(super) event_loop: EventLoop,
    /// The messages of the command line come first.
    pub(super) messages: Vec<Outgoing>,
    pub(super) source: Source,
    /// A connection that is lost is made again.
    pub(super) reconnects: bool,
}

/// Where lines come from.
pub(super) enum Source {
    /// There are none.
    None,
    /// Standard input, for a program: each line is a message, of at most so many bytes.
    Lines { max_line: u64 },
    /// A person, whose lines may be commands.
    Prompt(Prompt),
}

impl Input {
    /// Waits for a connection, sends everything, and reports the end to the handler. Reading blocks, and may never end.
    pub(super) fn send_all(&self) {
        if !self.link.await_opening() {
            return;
        }
        #[cfg(unix)]
        if let (Source::Prompt(prompt), true) = (&self.source, self.reconnects) {
            prompt.drop_pending();
        }
        let sent = self.send_messages().and_then(|()| match &self.source {
            Source::None => Ok(()),
            Source::Lines { max_line } => self.send_lines(*max_line),
            Source::Prompt(prompt) => prompt.run(),
        });
        if sent.is_ok() {
            // Otherwise the close timeout would include the time for sending what is queued.
            self.link.await_sent();
        }
        self.link.end_input();
        let is_typed = matches!(self.source, Source::Prompt(_));
        if is_typed || sent.is_err() {
            self.link.set_closing();
        }
        if let Err(why) = sent {
            self.link.fail(why);
            return self.end(self.link.connection(), |_, context| {
                let _ = context.close(CloseCode::GOING_AWAY, ""); // refused if it is closing already
            });
        }
        let connection = match is_typed {
            true => self.link.connection(),
            // An input that ends between two connections waits for the next one.
            false => self.link.await_connection(),
        };
        self.end(connection, |handler, context| handler.end_of_input(context));
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
                self.link.count_lost();
                return Ok(());
            };
            match message {
                Outgoing::Text(text) => {
                    let _ = self.link.send_text(&connection, text); // what is lost is counted
                    self.printer.sent("text", text.len() as u64, text);
                    self.link.await_room();
                }
                Outgoing::File(path) => file::send(path, &connection, &self.link, &self.printer)?,
            }
        }
        Ok(())
    }

    fn send_lines(&self, max_line: u64) -> Result<(), String> {
        let mut lines = lines::of_stdin(max_line)?;
        for number in 1u64.. {
            let Some(line) = lines.read()? else { break };
            if line.len() as u64 > max_line {
                return Err(format!(
                    "line {number} of standard input is longer than {max_line} bytes (--max-message)"
                ));
            }
            let text = std::str::from_utf8(line)
                .map_err(|_| format!("line {number} of standard input is not UTF-8"))?;
            let Some(connection) = self.link.await_connection() else {
                self.link.count_lost();
                break;
            };
            let _ = self.link.send(&connection, text); // what is lost is counted
            if !self.link.await_room() && !self.reconnects {
                break;
            }
        }
        Ok(())
    }
}
