//! Standard output, which may be a terminal where a line is being typed.
//!
//! While an editor has the line, what is shown comes above it: the line is erased and drawn again, as the editor would
//! draw it. The editor reports each change of its line before it draws it.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};

#[cfg(unix)]
use super::edited_line::EditedLine;
use crate::stdio::{self, Output};

/// The time between two drawings of a progress bar without progress.
const TICK: Duration = Duration::from_millis(250);

/// The prompt of a line that is typed.
pub(super) const PROMPT: &str = "> ";

pub(super) struct Screen {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    output: Output,
    typing: Typing,
    bar: Bar,
    /// The mode of the terminal before an editor has changed it.
    #[cfg(unix)]
    mode: Option<rustix::termios::Termios>,
}

/// The progress bar, on standard error below the output.
enum Bar {
    None,
    Shown(ProgressBar),
    /// The command is over, and shows none any more.
    Over,
}

/// Who edits the last line of the terminal.
enum Typing {
    /// Nobody.
    None,
    /// The terminal's driver: the prompt was printed.
    Driver,
    /// An editor, with this line.
    #[cfg(unix)]
    Editor(EditedLine),
    /// An editor that is about to end its line.
    #[cfg(unix)]
    Accepted,
}

impl Screen {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        let state = State {
            output: stdio::output()?,
            typing: Typing::None,
            bar: Bar::None,
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
            Typing::Editor(line) => line.move_below(text, columns()),
            _ => format!("{text}\n"),
        };
        state.write(&shown)
    }

    /// Shows a status above the line that is being edited, in place of the last status, or removes the last one. While
    /// no line is being edited, nothing is shown.
    pub(super) fn set_status(&self, status: Option<String>) {
        #[cfg(unix)]
        {
            let mut state = self.state();
            if let Typing::Editor(line) = &mut state.typing {
                let drawn = line.set_status(status, columns());
                let _ = state.write(&drawn); // messages report that the output has failed
            }
        }
        #[cfg(not(unix))]
        drop(status);
    }

    /// Writes bytes for a program to read.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.output.write_all(bytes)?;
        state.output.flush()
    }

    /// As [`write`](Self::write), for as many of the bytes as the system takes at once. Returns how many.
    pub(super) fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        self.state().output.write(bytes)
    }

    /// Prints the prompt of a line that the terminal's driver edits.
    pub(super) fn prompt(&self) {
        let mut state = self.state();
        state.typing = Typing::Driver;
        let _ = state.write(PROMPT); // a missing prompt is harmless
    }

    /// Reports an error to standard error.
    pub(super) fn report(&self, why: &str) {
        self.state().suspend_bar(|_| stdio::report(why));
    }

    /// Writes a line to standard error.
    pub(super) fn write_error(&self, line: &[u8]) -> io::Result<()> {
        self.state().suspend_bar(|_| stdio::error().write_all(line))
    }

    /// Shows a progress bar that is not shown yet, if standard error is a terminal and has no other bar.
    pub(super) fn show_bar(&self, bar: &ProgressBar) {
        let mut state = self.state();
        let target = ProgressDrawTarget::stderr();
        if !target.is_hidden() && matches!(state.bar, Bar::None) {
            bar.set_draw_target(target);
            bar.enable_steady_tick(TICK); // the rate falls while nothing arrives
            state.bar = Bar::Shown(bar.clone());
        }
    }

    /// Erases a progress bar, if it is shown.
    pub(super) fn remove_bar(&self, bar: &ProgressBar) {
        let mut state = self.state();
        if !bar.is_hidden() {
            state.bar.replace(Bar::None);
        }
    }

    /// Ends the line that is being typed, restores the terminal, and erases the progress bar. Nothing is typed any
    /// more.
    pub(super) fn finish(&self) {
        let mut state = self.state();
        state.bar.replace(Bar::Over);
        let _ = match &mut state.typing {
            Typing::Driver => state.write("\n"),
            #[cfg(unix)]
            Typing::Editor(line) => {
                let end = line.set_status(None, columns()) + &line.move_to_end(columns());
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
        state.typing = Typing::Editor(EditedLine::default());
    }

    /// It is about to draw this line.
    pub(super) fn change_line(&self, change: impl FnOnce(&mut EditedLine)) {
        if let Typing::Editor(line) = &mut self.state().typing {
            change(line);
            line.end_list();
        }
    }

    /// It may show completions below its line, before it draws the line again.
    pub(super) fn begin_list(&self) {
        let mut state = self.state();
        if let Typing::Editor(line) = &mut state.typing {
            let drawn = line.begin_list(columns());
            let _ = state.write(&drawn); // as above
        }
    }

    /// It is about to end its line. What is shown waits until then.
    pub(super) fn accept_line(&self) {
        let mut state = self.state();
        if let Typing::Editor(line) = &mut state.typing {
            let drawn = line.set_status(None, columns());
            let _ = state.write(&drawn); // as above
        }
        state.typing = Typing::Accepted;
    }

    /// It has ended its line, and the cursor is below it.
    pub(super) fn end_line(&self) {
        let mut state = self.state();
        if let Typing::Editor(line) = &mut state.typing {
            let drawn = line.remove_status_of_ended(columns());
            let _ = state.write(&drawn); // as above
        }
        state.typing = Typing::None;
        drop(state);
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
        self.suspend_bar(|output| output.write_all(text.as_bytes()).and_then(|()| output.flush()))
    }

    /// Calls a function that writes to the terminal. The progress bar is erased before it, and drawn after it.
    fn suspend_bar<T>(&mut self, f: impl FnOnce(&mut Output) -> T) -> T {
        let output = &mut self.output;
        match &self.bar {
            Bar::Shown(bar) => bar.suspend(|| f(output)),
            Bar::None | Bar::Over => f(output),
        }
    }
}

impl Bar {
    /// Erases the bar.
    fn replace(&mut self, next: Self) {
        if let Self::Shown(bar) = std::mem::replace(self, next) {
            bar.finish_and_clear();
        }
    }
}

/// The columns of the terminal.
#[cfg(unix)]
pub(super) fn columns() -> usize {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => 80,
    }
}
