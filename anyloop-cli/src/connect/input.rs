//! Sends standard input to the peer, line by line.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyloop::endpoint::Handle;
use anyloop::proto::CloseCode;

use super::handler::ConnectHandler;
use super::print::Printer;
use crate::stdio;
use crate::stop::Stop;

/// No line is read while more bytes than this are waiting to be sent.
const WINDOW: usize = 1 << 20;

/// A line that is available is read within this time.
const LAST_READ_TIMEOUT: Duration = Duration::from_secs(1);

/// The state of the input.
pub(super) struct Input {
    /// The longest line, in bytes without the line end.
    longest: u64,
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
struct Progress {
    /// Bytes of lines that were read and that the transport has not taken.
    waiting: usize,
    /// A line was read that the transport will never take.
    lost: bool,
    /// The input has ended.
    ended: bool,
    /// The first failure of input or output.
    failure: Option<String>,
}

impl Input {
    /// Input with lines of at most `longest` bytes.
    pub(super) fn new(longest: u64) -> Self {
        Self { longest, progress: Mutex::default(), changed: Condvar::new() }
    }

    /// Sends each line of standard input, and reports its end to the handler. Blocks while it waits for
    /// the user or the peer, so it runs on a thread of its own that is never joined.
    pub(super) fn send_all(self: &Arc<Self>, handle: &Handle<ConnectHandler>, printer: &Printer) {
        let sent = self.send_lines(handle, printer);
        if sent.is_ok() {
            // Otherwise the close timeout would include the time for sending what is queued.
            self.wait_until(|progress| progress.waiting == 0);
        }
        self.progress().ended = true;
        self.changed.notify_all();
        // This fails if the connection has ended, and then nothing is left to do.
        let _ = match sent {
            Ok(()) => handle.post(|handler, context| handler.end_of_input(context)),
            Err(why) => {
                self.fail(why);
                handle.close(CloseCode::GOING_AWAY, "")
            }
        };
    }

    fn send_lines(
        self: &Arc<Self>,
        handle: &Handle<ConnectHandler>,
        printer: &Printer,
    ) -> Result<(), String> {
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
            self.send(handle, text);
            printer.prompt();
            self.wait_until(|progress| progress.waiting <= WINDOW || progress.lost);
            if self.progress().lost {
                break;
            }
        }
        Ok(())
    }

    fn send(self: &Arc<Self>, handle: &Handle<ConnectHandler>, text: &str) {
        let (input, len) = (self.clone(), text.len() + 1); // so that an empty line counts
        self.progress().waiting += len;
        let sent = handle.send_then(text, move |result| {
            let mut progress = input.progress();
            progress.waiting -= len;
            progress.lost |= result.is_err();
            drop(progress);
            input.changed.notify_all();
        });
        let _ = sent; // the completion is called in any case
    }

    /// Records a failure. Returns whether it is the first one.
    pub(super) fn fail(&self, why: String) -> bool {
        let failure = &mut self.progress().failure;
        let first = failure.is_none();
        failure.get_or_insert(why);
        first
    }

    /// The first failure of input or output as an error.
    pub(super) fn failure(&self) -> Result<(), Stop> {
        self.progress().failure.take().map_or(Ok(()), |failure| Err(Stop::failed(failure)))
    }

    /// Fails if a line was not sent because the peer closed. Waits up to [`LAST_READ_TIMEOUT`] for a line that is
    /// available but not read yet.
    pub(super) fn loss(&self) -> Result<(), Stop> {
        let more = |progress: &mut Progress| !progress.ended && !progress.lost;
        let waited = self.changed.wait_timeout_while(self.progress(), LAST_READ_TIMEOUT, more);
        match waited.unwrap_or_else(PoisonError::into_inner).0.lost {
            false => Ok(()),
            true => Err(Stop::failed("the peer closed before all of the input was sent")),
        }
    }

    fn wait_until(&self, condition: impl Fn(&Progress) -> bool) {
        let mut progress = self.progress();
        while !condition(&progress) {
            progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A panic of another thread leaves the state consistent, so a poisoned lock is used.
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
