//! `--output`: writes messages to a file as they arrive, without holding a whole one.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyloop::proto::Chunk;

use super::file;
use super::options::Options;
use super::progress::Progress;
use super::screen::Screen;
use crate::error::CliError;

/// The file, or standard output.
pub(super) struct Output {
    /// What it is called in texts.
    name: String,
    state: Mutex<State>,
}

struct State {
    destination: Destination,
    /// Bytes that were written.
    written: u64,
    /// Bytes of messages that were written whole.
    complete: u64,
    /// `None` without a terminal, or where it would draw over what a person sees or types.
    progress: Option<Progress>,
}

enum Destination {
    File(File),
    /// Standard output.
    Screen(Arc<Screen>),
    /// Writing has failed: what arrives would follow a gap, so it is dropped.
    Failed,
}

impl Output {
    /// Opens what `--output` names. A file keeps its content until [`begin`](Self::begin).
    pub(super) fn open(
        options: &Options,
        screen: &Arc<Screen>,
    ) -> Result<Option<Arc<Self>>, CliError> {
        let Some(path) = &options.output else { return Ok(None) };
        let to_stdout = options.writes_to_stdout();
        let (name, destination) = match to_stdout {
            true => ("standard output".into(), Destination::Screen(screen.clone())),
            false => {
                let name = path.display().to_string();
                let file = open_file(path).map_err(|error| unwritable(&name, &error));
                let file = file.map_err(|why| CliError::usage(format!("--output: {why}")))?;
                (name, Destination::File(file))
            }
        };
        let is_seen = options.is_typed() || (to_stdout && io::stdout().is_terminal());
        let has_bar = io::stderr().is_terminal() && !is_seen;
        let progress = has_bar.then(|| Progress::receiving(screen));
        let state = Mutex::new(State { destination, written: 0, complete: 0, progress });
        Ok(Some(Arc::new(Self { name, state })))
    }

    /// What it is called in texts.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it writes to the regular file at this path.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        matches!(&self.state().destination, Destination::File(file) if file::is_at(file, path))
    }

    /// A connection has opened. Empties the file, if nothing was written to it.
    pub(super) fn begin(&self) -> Result<(), String> {
        let state = self.state();
        match &state.destination {
            Destination::File(file) if state.written == 0 => empty(file),
            _ => Ok(()),
        }
        .map_err(|error| unwritable(&self.name, &error))
    }

    /// Writes a part of a message. Returns the size of the message if this was the last one.
    pub(super) fn write(&self, chunk: &Chunk<'_>) -> Result<Option<u64>, String> {
        let mut state = self.state();
        let written = match &mut state.destination {
            Destination::File(file) => file.write_all(chunk.payload),
            Destination::Screen(screen) => screen.write(chunk.payload),
            Destination::Failed => return Ok(None),
        };
        if let Err(error) = written {
            state.destination = Destination::Failed;
            return Err(unwritable(&self.name, &error));
        }
        state.written += chunk.payload.len() as u64;
        if let Some(progress) = &state.progress {
            progress.show(state.written);
        }
        if !chunk.last {
            return Ok(None);
        }
        let size = state.part();
        state.complete = state.written;
        Ok(Some(size))
    }

    /// Removes the part of a message that a lost connection has left, before the messages of the next one follow.
    pub(super) fn remove_part(&self) -> Result<(), CliError> {
        let mut state = self.state();
        let (part, complete) = (state.part(), state.complete);
        if part == 0 {
            return Ok(());
        }
        let removed = match &mut state.destination {
            Destination::File(file) => {
                file.set_len(complete).and_then(|()| file.seek(SeekFrom::Start(complete)))
            }
            Destination::Screen(_) | Destination::Failed => Err(io::ErrorKind::Unsupported.into()),
        };
        state.written = complete;
        removed.map(|_| ()).map_err(|_| incomplete(&self.name, part))
    }

    /// Fails if the connection has ended inside of a message.
    pub(super) fn check_complete(&self) -> Result<(), CliError> {
        match self.state().part() {
            0 => Ok(()),
            part => Err(incomplete(&self.name, part)),
        }
    }

    /// A panic of another thread leaves the state consistent, so a poisoned lock is used.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Bytes of a message that is not complete.
    const fn part(&self) -> u64 {
        self.written - self.complete
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).open(path)
}

/// Devices and pipes have nothing to remove.
fn empty(file: &File) -> io::Result<()> {
    match file.metadata()?.is_file() {
        true => file.set_len(0),
        false => Ok(()),
    }
}

fn unwritable(name: &str, error: &io::Error) -> String {
    format!("cannot write to {name}: {error}")
}

fn incomplete(name: &str, part: u64) -> CliError {
    CliError::failed(format!(
        "the connection ended inside of a message: {name} has only its first {part} bytes"
    ))
}
