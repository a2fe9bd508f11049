//! A pseudoterminal, and an emulation of its screen.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::process::Command;
use std::thread;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::program::{DEADLINE, Running};

/// The number of rows: few, so that the screen scrolls in a test.
const ROWS: usize = 6;

/// A screen that supports the control sequences that the command uses, without colours. Rows have no maximum length.
pub(crate) struct Screen {
    terminal: File,
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// The received part of a control sequence.
    sequence: String,
}

impl Screen {
    /// Starts a program with the terminal as standard input and output. Standard error is a pipe.
    pub(crate) fn start(mut command: Command) -> (Self, Running) {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)
            .expect("the system has a pseudoterminal left");
        // So that the terminal hangs up when this is dropped.
        fcntl_setfd(&controller, FdFlags::CLOEXEC).expect("the descriptor is open");
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
            sequence: String::new(),
        };
        (screen, program)
    }

    pub(crate) fn type_in(&mut self, keys: &[u8]) {
        self.terminal.write_all(keys).expect("the terminal accepts input");
    }

    /// Types text as a terminal pastes it that marks what is pasted.
    pub(crate) fn paste(&mut self, text: &str) {
        self.type_in(format!("\x1b[200~{}\x1b[201~", text.replace('\n', "\r")).as_bytes());
    }

    /// Whether the terminal echoes what is typed.
    pub(crate) fn echoes(&self) -> bool {
        let mode = rustix::termios::tcgetattr(&self.terminal).expect("it is a terminal");
        mode.local_modes.contains(rustix::termios::LocalModes::ECHO)
    }

    /// Reads what is written from now on, and drops it, so that the program does not wait for a reader.
    pub(crate) fn drain(&self) {
        let mut terminal =
            self.terminal.try_clone().expect("the process has a file descriptor left");
        thread::spawn(move || while terminal.read(&mut [0; 1024]).is_ok_and(|n| n > 0) {});
    }

    /// Waits until the last non-empty rows are these, and the cursor is at their end.
    #[track_caller]
    pub(crate) fn expect(&mut self, rows: &[&str]) {
        self.wait(&format!("{rows:?}"), |screen| screen.shows(rows));
    }

    /// Waits until one of the rows begins with these words.
    #[track_caller]
    pub(crate) fn expect_row(&mut self, words: &str) {
        self.wait(words, |screen| screen.count(words) > 0);
    }

    /// Waits until no row begins with these words.
    #[track_caller]
    pub(crate) fn expect_gone(&mut self, words: &str) {
        self.wait(&format!("no {words}"), |screen| screen.count(words) == 0);
    }

    /// How many rows begin with these words.
    pub(crate) fn count(&self, words: &str) -> usize {
        self.text().iter().filter(|row| row.starts_with(words)).count()
    }

    #[track_caller]
    fn wait(&mut self, rows: &str, condition: impl Fn(&Self) -> bool) {
        let (mut bytes, end) = ([0; 1024], Instant::now() + DEADLINE);
        while !condition(self) {
            let mut waiting = [PollFd::new(&self.terminal, PollFlags::IN)];
            let left = end.saturating_duration_since(Instant::now());
            let left = left.try_into().expect("the deadline is a valid time");
            match poll(&mut waiting, Some(&left)) {
                Err(Errno::INTR) => continue,
                ready => assert!(
                    ready.is_ok_and(|n| n > 0),
                    "expected {rows}, the screen has {:?}",
                    self.text()
                ),
            }
            match self.terminal.read(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(n @ 1..) => {
                    let text = std::str::from_utf8(&bytes[..n]).expect("the text is UTF-8");
                    text.chars().for_each(|c| self.show(c));
                }
                _ => panic!("expected {rows}, the screen has {:?}", self.text()),
            }
        }
    }

    /// Waits until these words were written, whatever else is. Control sequences are not interpreted.
    #[track_caller]
    pub(crate) fn expect_written(&mut self, words: &str) {
        self.written_until(words);
    }

    /// As `expect_written`. Returns what was written before the words.
    #[track_caller]
    pub(crate) fn written_until(&mut self, words: &str) -> String {
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
        let written = String::from_utf8_lossy(&written);
        written.split(words).next().unwrap_or_default().to_string()
    }

    /// What is written until the program has ended.
    pub(crate) fn rest(&mut self) -> String {
        let (mut rest, mut bytes) = (Vec::new(), [0; 1024]);
        // Linux returns EIO at the end.
        while let Ok(n @ 1..) = self.terminal.read(&mut bytes) {
            rest.extend_from_slice(&bytes[..n]);
        }
        String::from_utf8(rest).expect("the text is UTF-8")
    }

    fn shows(&self, rows: &[&str]) -> bool {
        let text = self.text();
        let last = rows.last().expect("at least one row is expected");
        text.ends_with(&rows.iter().map(ToString::to_string).collect::<Vec<_>>())
            && (self.row + 1, self.column) == (text.len(), last.chars().count())
    }

    /// The rows without empty ones at the end, and without the time of messages.
    fn text(&self) -> Vec<String> {
        let row = |row: &Vec<char>| {
            let row = String::from_iter(row);
            let row = row.trim_end(); // what was erased
            let prompt = if row == ">" { "> " } else { row };
            if is_timed(row) { row[13..].to_string() } else { prompt.to_string() }
        };
        let mut rows: Vec<String> = self.rows.iter().map(row).collect();
        while rows.last().is_some_and(String::is_empty) {
            rows.pop();
        }
        rows
    }

    fn show(&mut self, c: char) {
        self.sequence.push(c);
        match self.sequence.as_str() {
            "\x1b" => return,
            "\r" => self.column = 0,
            "\n" => self.index(),
            "\x07" => {} // the bell
            "\x08" => self.column = self.column.saturating_sub(1),
            sequence if sequence.starts_with("\x1b[") => {
                if sequence.len() == 2 || !c.is_ascii_alphabetic() {
                    return;
                }
                let control = String::from(&sequence[2..]);
                self.control(&control);
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

    /// Does what a control sequence says, without its introducer.
    fn control(&mut self, sequence: &str) {
        let (argument, name) = sequence.split_at(sequence.len() - 1);
        let count = argument.parse().unwrap_or(1);
        match name {
            "A" => self.row = self.row.saturating_sub(count),
            "B" => self.row = (self.row + count).min(ROWS - 1),
            "C" => self.column += count,
            "D" => self.column = self.column.saturating_sub(count),
            "J" if argument.is_empty() => {
                self.rows[self.row].truncate(self.column);
                self.rows[self.row + 1..].iter_mut().for_each(Vec::clear);
            }
            "K" if argument.is_empty() => self.rows[self.row].truncate(self.column),
            "h" | "l" | "m" => {} // modes and colours
            _ => panic!("{sequence:?}"),
        }
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

/// Whether a row begins with a time of day, which has 13 bytes with the space behind it.
pub(crate) fn is_timed(row: &str) -> bool {
    row.as_bytes().get(..9).is_some_and(|time| {
        let digit = |at: usize| time[at].is_ascii_digit();
        (0..8).all(|at| if at % 3 == 2 { time[at] == b':' } else { digit(at) }) && time[8] == b'.'
    })
}
