//! `--output`: writes messages to a file as they arrive, without holding a whole one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyloop::proto::Chunk;

use super::file;
use super::options::Options;
use super::print::count;
use super::progress::{Progress, Status};
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
    /// The part after those could not be removed.
    is_stuck: bool,
    progress: Shown,
}

/// How the progress is shown.
enum Shown {
    /// Without a terminal, or where it would draw over what a person sees or types.
    Not,
    Bar(Progress),
    /// Where a person types at a prompt.
    Status(Status),
}

enum Destination {
    /// The file at this path, which does not exist before a connection has opened.
    Missing(PathBuf),
    File(File),
    /// Standard output.
    Screen(Arc<Screen>),
    /// Writing has failed: what arrives would follow a gap, so it is dropped.
    Failed,
}

impl Output {
    /// Opens what `--output` names. A file keeps its content, and is not created, until [`begin`](Self::begin).
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
                let opened = open_file(path).map_err(|error| unwritable(&name, &error));
                let file = opened.map_err(|why| CliError::usage(format!("--output: {why}")))?;
                (name, file)
            }
        };
        // With --once a person types a question at most, before the answer.
        let is_typed_at = options.reads_terminal() && options.exit_after().is_none();
        let is_seen = is_typed_at || (to_stdout && io::stdout().is_terminal());
        let progress = match () {
            () if options.is_typed() => Shown::Status(Status::new(screen)),
            () if is_seen || !io::stderr().is_terminal() => Shown::Not,
            () => Shown::Bar(Progress::receiving(screen)),
        };
        let state = State { destination, written: 0, complete: 0, is_stuck: false, progress };
        Ok(Some(Arc::new(Self { name, state: Mutex::new(state) })))
    }

    /// What it is called in texts.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it writes to the regular file at this path.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        matches!(&self.state().destination, Destination::File(file) if file::is_at(file, path))
    }

    /// A connection has opened. Creates the file, or empties it if nothing was written to it.
    pub(super) fn begin(&self) -> Result<(), String> {
        self.state().begin().map_err(|error| unwritable(&self.name, &error))
    }

    /// Writes a part of a message. Returns the size of the message if this was the last one.
    pub(super) fn write(&self, chunk: &Chunk<'_>) -> Result<Option<u64>, String> {
        let mut guard = self.state();
        let state = &mut *guard;
        let mut count = Counting(&mut state.written);
        let written = match &mut state.destination {
            Destination::File(file) => count.write_all(chunk.payload, |bytes| file.write(bytes)),
            Destination::Screen(screen) => {
                count.write_all(chunk.payload, |bytes| screen.write_some(bytes))
            }
            Destination::Missing(_) | Destination::Failed => return Ok(None),
        };
        if let Err(error) = written {
            state.destination = Destination::Failed;
            return Err(unwritable(&self.name, &error));
        }
        let size = state.part();
        match &mut state.progress {
            Shown::Not => {}
            Shown::Bar(bar) => bar.show(state.written),
            Shown::Status(status) if chunk.last => status.end(),
            Shown::Status(status) => status.show(size),
        }
        if !chunk.last {
            return Ok(None);
        }
        state.complete = state.written;
        Ok(Some(size))
    }

    /// The connection has ended: nothing more of a message arrives.
    pub(super) fn ended(&self) {
        if let Shown::Status(status) = &mut self.state().progress {
            status.end();
        }
    }

    /// Removes the part of a message that a lost connection has left, before the messages of the next one follow.
    /// Returns false if it cannot be removed.
    pub(super) fn remove_part(&self) -> bool {
        let mut state = self.state();
        if state.part() == 0 {
            return true;
        }
        let complete = state.complete;
        let removed = match &mut state.destination {
            Destination::File(file) => {
                file.set_len(complete).and_then(|()| file.seek(SeekFrom::Start(complete)))
            }
            Destination::Missing(_) | Destination::Screen(_) | Destination::Failed => {
                Err(io::ErrorKind::Unsupported.into())
            }
        };
        state.is_stuck = removed.is_err();
        if state.is_stuck {
            return false;
        }
        state.written = complete;
        if let Shown::Bar(bar) = &state.progress {
            bar.show(complete);
        }
        true
    }

    /// Says in the result of the command that a connection has ended inside of a message, if it has.
    pub(super) fn with_part<T>(&self, result: Result<T, CliError>) -> Result<T, CliError> {
        let state = self.state();
        let part = state.part();
        if part == 0 {
            return result;
        }
        let inside = || CliError::failed("the connection ended inside of a message");
        let error = result.err().unwrap_or_else(inside);
        let bytes = count(part, "byte");
        let error = error.and(&format!("; {} ends with the first {bytes} of a message", self.name));
        Err(match state.is_stuck {
            true => error.and("; it cannot be removed, so the command does not reconnect"),
            false => error,
        })
    }

    /// A panic of another thread leaves the state consistent, so a poisoned lock is used.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn begin(&mut self) -> io::Result<()> {
        if let Destination::Missing(path) = &self.destination {
            // Meanwhile another program may have created it.
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
            self.destination = Destination::File(file);
        }
        match &self.destination {
            Destination::File(file) if self.written == 0 => empty(file),
            _ => Ok(()),
        }
    }

    /// Bytes of a message that is not complete.
    const fn part(&self) -> u64 {
        self.written - self.complete
    }
}

/// Counts the bytes that are written, also before an error.
struct Counting<'w>(&'w mut u64);

impl Counting<'_> {
    fn write_all(
        &mut self,
        mut bytes: &[u8],
        mut write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            match write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    *self.0 += written as u64;
                    bytes = &bytes[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Opens a file that exists. Tries whether one that does not can be created, and leaves none behind.
fn open_file(path: &Path) -> io::Result<Destination> {
    let missing = || Destination::Missing(path.to_path_buf());
    match File::create_new(path) {
        Ok(file) => Ok(fs::remove_file(path).map_or(Destination::File(file), |()| missing())),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            match OpenOptions::new().write(true).open(path) {
                // The path is a link to a file that does not exist. Created there with `create_new`, it is not another
                // program's.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let folder = path.parent().unwrap_or_else(|| Path::new(""));
                    open_file(&folder.join(fs::read_link(path)?))
                }
                opened => opened.map(Destination::File),
            }
        }
        Err(error) => Err(error),
    }
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
