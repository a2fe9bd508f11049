//! Standard input, line by line to the peer.

use std::io::{self, BufRead};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyloop::endpoint::Handle;
use anyloop::proto::CloseCode;

use super::conversation::Conversation;
use super::print::Printer;
use crate::stop::Stop;

/// No line is read while more bytes than this wait to be sent.
const WINDOW: usize = 1 << 20;

/// A line that is there is read within this time.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What becomes of the input.
#[derive(Default)]
pub(super) struct Input {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
struct Progress {
    /// Bytes of lines that were read, and that the transport has not taken.
    waiting: usize,
    /// A line was read that it will never take.
    lost: bool,
    /// There is nothing more to read.
    ended: bool,
    /// What went wrong with input or output, first.
    failure: Option<String>,
}

impl Input {
    /// Sends each line of standard input, and closes the connection at its end. The thread that does
    /// this waits for the user and for the peer: nothing waits for it.
    pub(super) fn send_all(self: &Arc<Self>, handle: &Handle<Conversation>, printer: &Printer) {
        let sent = self.send_lines(handle, printer);
        let code = match sent {
            // The time for the closing handshake is not to be spent on what waits before it.
            Ok(()) => {
                self.wait_until(|progress| progress.waiting == 0);
                CloseCode::NORMAL
            }
            Err(why) => {
                self.fail(why);
                CloseCode::GOING_AWAY
            }
        };
        self.progress().ended = true;
        self.changed.notify_all();
        let _ = handle.close(code, ""); // if it is over, so be it
    }

    fn send_lines(
        self: &Arc<Self>,
        handle: &Handle<Conversation>,
        printer: &Printer,
    ) -> Result<(), String> {
        let mut stdin = io::stdin().lock();
        let mut line = Vec::new();
        for number in 1u64.. {
            line.clear();
            let read = stdin.read_until(b'\n', &mut line);
            if read.map_err(|error| format!("cannot read standard input: {error}"))? == 0 {
                break;
            }
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            let text = str::from_utf8(text)
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

    fn send(self: &Arc<Self>, handle: &Handle<Conversation>, text: &str) {
        let (input, len) = (self.clone(), text.len() + 1); // an empty one waits as well
        self.progress().waiting += len;
        let sent = handle.send_then(text, move |result| {
            let mut progress = input.progress();
            progress.waiting -= len;
            progress.lost |= result.is_err();
            drop(progress);
            input.changed.notify_all();
        });
        let _ = sent; // the completion is told in any case
    }

    /// Something went wrong. Returns whether it is the first thing that did.
    pub(super) fn fail(&self, why: String) -> bool {
        let failure = &mut self.progress().failure;
        let first = failure.is_none();
        failure.get_or_insert(why);
        first
    }

    /// What went wrong with input or output, if anything did.
    pub(super) fn failure(&self) -> Result<(), Stop> {
        self.progress().failure.take().map_or(Ok(()), |failure| Err(Stop::failed(failure)))
    }

    /// Whether there was more to say when the peer closed. Input that does not end is waited for a
    /// little, for it may be on its way.
    pub(super) fn loss(&self) -> Result<(), Stop> {
        let more = |progress: &mut Progress| !progress.ended && !progress.lost;
        let waited = self.changed.wait_timeout_while(self.progress(), AT_ONCE, more);
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

    /// A panic elsewhere leaves it as it was.
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
