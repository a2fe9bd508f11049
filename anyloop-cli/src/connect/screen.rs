//! Standard output, which may be a terminal where a line is being typed.
//!
//! While an editor has the line, what is shown comes above it: the line is erased and drawn again, as the editor would
//! draw it. The editor reports each change of its line before it draws it.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use indicatif::ProgressBar;

#[cfg(unix)]
use super::line::Line;
use crate::stdio::{self, Output};

/// The prompt of a line that is typed.
pub(super) const PROMPT: &str = "> ";

pub(super) struct Screen {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    output: Output,
    typing: Typing,
    /// A progress bar below the output.
    bar: Option<ProgressBar>,
    /// The mode of the terminal before an editor has changed it.
    #[cfg(unix)]
    mode: Option<rustix::termios::Termios>,
}

/// Who has the last line of the terminal.
enum Typing {
    /// Nobody.
    None,
    /// The terminal's driver: the prompt was printed.
    Driver,
    /// An editor, with this line.
    #[cfg(unix)]
    Editor(Line),
    /// An editor that is about to end its line.
    #[cfg(unix)]
    Accepted,
}

impl Screen {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        let state = State {
            output: stdio::output()?,
            typing: Typing::None,
            bar: None,
            #[cfg(unix)]
            mode: None,
        };
        Ok(Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() }))
    }

    /// Shows a line, or several. While a line is being typed, they come above it.
    pub(super) fn show(&self, text: &str) -> io::Result<()> {
        let waited = self.changed.wait_while(self.state(), |state| state.is_accepted());
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        let shown = match &state.typing {
            Typing::Driver => format!("\n{text}\n{PROMPT}"), // what was typed stays in the line before
            #[cfg(unix)]
            Typing::Editor(line) => line.below(text, columns()),
            _ => format!("{text}\n"),
        };
        state.write(&shown)
    }

    /// Writes bytes for a program to read.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.output.write_all(bytes)?;
        state.output.flush()
    }

    /// Prints the prompt of a line that the terminal's driver edits.
    pub(super) fn prompt(&self) {
        let mut state = self.state();
        state.typing = Typing::Driver;
        let _ = state.write(PROMPT); // a missing prompt is harmless
    }

    /// Shows a progress bar below the output, or none.
    pub(super) fn set_bar(&self, bar: Option<ProgressBar>) {
        self.state().bar = bar;
    }

    /// Ends the line that is being typed, and restores the terminal. Nothing is typed any more.
    pub(super) fn finish(&self) {
        let mut state = self.state();
        let _ = match &state.typing {
            Typing::Driver => state.write("\n"),
            #[cfg(unix)]
            Typing::Editor(line) => {
                let end = line.end(columns());
                state.write(&format!("{end}\n\x1b[?2004l")) // it does not mark what is pasted any more
            }
            _ => Ok(()),
        };
        #[cfg(unix)]
        if let (Typing::Editor(_) | Typing::Accepted, Some(mode)) = (&state.typing, &state.mode) {
            let now = rustix::termios::OptionalActions::Drain;
            let _ = rustix::termios::tcsetattr(io::stdin(), now, mode);
        }
        state.typing = Typing::None;
        self.changed.notify_all();
    }

    /// A panic of another thread leaves the state consistent, so a poisoned lock is used.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an editor reports.
#[cfg(unix)]
impl Screen {
    /// It begins a line.
    pub(super) fn begin_line(&self) {
        let mut state = self.state();
        if state.mode.is_none() {
            state.mode = rustix::termios::tcgetattr(io::stdin()).ok();
        }
        state.typing = Typing::Editor(Line::default());
    }

    /// It is about to draw this line.
    pub(super) fn change_line(&self, change: impl FnOnce(&mut Line)) {
        if let Typing::Editor(line) = &mut self.state().typing {
            change(line);
        }
    }

    /// It is about to end its line. What is shown waits until then.
    pub(super) fn accept_line(&self) {
        self.state().typing = Typing::Accepted;
    }

    /// It has ended its line, and the cursor is below it.
    pub(super) fn end_line(&self) {
        self.state().typing = Typing::None;
        self.changed.notify_all();
    }
}

impl State {
    fn is_accepted(&self) -> bool {
        match self.typing {
            #[cfg(unix)]
            Typing::Accepted => true,
            _ => false,
        }
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        let output = &mut self.output;
        let mut write = || output.write_all(text.as_bytes()).and_then(|()| output.flush());
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

#[cfg(unix)]
fn columns() -> usize {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => 80,
    }
}
