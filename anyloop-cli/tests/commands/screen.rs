//! A pseudoterminal, and an emulation of its screen.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::process::Command;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::program::{DEADLINE, Running};

/// The number of rows: few, so that the screen scrolls in a test.
const ROWS: usize = 6;

/// A screen that supports the control sequences of a VT220 that the command uses. Rows have no maximum length.
pub(crate) struct Screen {
    terminal: File,
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
    saved: (usize, usize),
    /// The received part of a control sequence.
    sequence: String,
}

impl Screen {
    /// Starts a program with the terminal as standard input and output. Standard error is a pipe.
    pub(crate) fn start(mut command: Command) -> (Self, Running) {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)
            .expect("the system has a pseudoterminal left");
        grantpt(&controller).expect("the terminal can be unlocked");
        unlockpt(&controller).expect("the terminal can be unlocked");
        let name = ptsname(&controller, Vec::new()).expect("the terminal has a name").into_string();
        let name = name.expect("the text is UTF-8");
        let terminal =
            File::options().read(true).write(true).open(name).expect("the terminal can be opened");
        command.stdin(terminal.try_clone().expect("the process has a file descriptor left"));
        let program = Running::start_with(&mut command, terminal);
        let screen = Self {
            terminal: File::from(controller),
            rows: vec![Vec::new(); ROWS],
            row: 0,
            column: 0,
            saved: (0, 0),
            sequence: String::new(),
        };
        (screen, program)
    }

    pub(crate) fn type_in(&mut self, keys: &[u8]) {
        self.terminal.write_all(keys).expect("the terminal accepts input");
    }

    /// Waits until the last non-empty rows are these, and the cursor is at their end.
    #[track_caller]
    pub(crate) fn expect(&mut self, rows: &[&str]) {
        let mut bytes = [0; 1024];
        while !self.shows(rows) {
            let mut waiting = [PollFd::new(&self.terminal, PollFlags::IN)];
            let seconds = DEADLINE.try_into().expect("the deadline is a valid time");
            match poll(&mut waiting, Some(&seconds)) {
                Err(Errno::INTR) => continue,
                ready => assert!(
                    ready.is_ok_and(|n| n > 0),
                    "expected {rows:?}, the screen has {:?}",
                    self.text()
                ),
            }
            match self.terminal.read(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(n @ 1..) => {
                    let text = std::str::from_utf8(&bytes[..n]).expect("the text is UTF-8");
                    text.chars().for_each(|c| self.show(c));
                }
                _ => panic!("expected {rows:?}, the screen has {:?}", self.text()),
            }
        }
    }

    /// Waits until these words were written, whatever else is. Control sequences are not interpreted.
    #[track_caller]
    pub(crate) fn expect_written(&mut self, words: &str) {
        let mut written = Vec::new();
        while !String::from_utf8_lossy(&written).contains(words) {
            let mut waiting = [PollFd::new(&self.terminal, PollFlags::IN)];
            let seconds = DEADLINE.try_into().expect("the deadline is a valid time");
            let ready = poll(&mut waiting, Some(&seconds));
            assert!(
                ready == Err(Errno::INTR) || ready.is_ok_and(|n| n > 0),
                "{words} is not written"
            );
            let mut bytes = [0; 1024];
            match self.terminal.read(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(n @ 1..) => written.extend_from_slice(&bytes[..n]),
                _ => panic!("expected {words}, but this was written: {}", written.escape_ascii()),
            }
        }
    }

    fn shows(&self, rows: &[&str]) -> bool {
        let text = self.text();
        let last = rows.last().expect("at least one row is expected");
        text.ends_with(&rows.iter().map(ToString::to_string).collect::<Vec<_>>())
            && (self.row + 1, self.column) == (text.len(), last.chars().count())
    }

    /// The rows without empty ones at the end.
    fn text(&self) -> Vec<String> {
        let mut rows: Vec<String> = self.rows.iter().map(|row| row.iter().collect()).collect();
        while rows.last().is_some_and(String::is_empty) {
            rows.pop();
        }
        rows
    }

    fn show(&mut self, c: char) {
        self.sequence.push(c);
        match self.sequence.as_str() {
            "\x1b" | "\x1b[" => return,
            "\r" => self.column = 0,
            "\n" | "\x1bD" => self.index(),
            "\x08" => self.column = self.column.saturating_sub(1),
            "\x1b7" => self.saved = (self.row, self.column),
            "\x1b8" => (self.row, self.column) = self.saved,
            "\x1b[A" => self.row = self.row.saturating_sub(1),
            "\x1b[B" => self.row = (self.row + 1).min(ROWS - 1),
            "\x1b[L" => {
                self.rows.insert(self.row, Vec::new());
                self.rows.truncate(ROWS);
            }
            sequence => {
                assert!(!c.is_control() && sequence.chars().count() == 1, "{sequence:?}");
                let row = &mut self.rows[self.row];
                row.resize(row.len().max(self.column + 1), ' ');
                row[self.column] = c;
                self.column += 1;
            }
        }
        self.sequence.clear();
    }

    fn index(&mut self) {
        match self.row + 1 {
            ROWS => {
                self.rows.remove(0);
                self.rows.push(Vec::new());
            }
            next => self.row = next,
        }
    }
}
