//! The transport of a connection: only its output. Input is passed to the driver.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyloop_proto::Shutdown;

use super::endpoints::EndpointSettings;
use super::outputs::Outputs;
use crate::stream::{Peer, Transport};

/// Writes to the output that the program has set.
pub(super) struct OutputTransport<K: Outputs> {
    settings: Arc<Mutex<Settings<K>>>,
    /// A write failed because no output was set.
    pub(super) output_missing: bool,
}

/// The settings that the program can change at any time, also from a handler.
pub(super) struct Settings<K: Outputs> {
    pub(super) output: Output<K>,
    /// Bytes that were collected and not taken.
    pub(super) collected: Vec<u8>,
    /// Another output was set, and the send buffer was not offered to it yet.
    pub(super) output_is_new: bool,
    pub(super) on_shutdown: Option<Box<K::ShutdownHandler>>,
    pub(super) secure: bool,
    pub(super) remote_endpoint: String,
}

/// The output.
pub(super) enum Output<K: Outputs> {
    None,
    Writer {
        writer: Box<K::Writer>,
        /// The last flush would have blocked.
        unflushed: bool,
    },
    Handler(Box<K::WriteHandler>),
    Vectored(Box<K::VectoredWriteHandler>),
    /// The program takes the bytes by `take_output`.
    Collected,
}

/// The most bytes that are collected. More bytes wait in the send buffer of the connection, which has a limit.
const MAX_COLLECTED: usize = 64 * 1024;

impl<K: Outputs> Settings<K> {
    pub(super) fn new(settings: &EndpointSettings<K>) -> Self {
        Self {
            output: Output::None,
            collected: Vec::new(),
            output_is_new: false,
            on_shutdown: None,
            secure: settings.secure,
            remote_endpoint: settings.remote_endpoint.clone(),
        }
    }
}

impl<K: Outputs> OutputTransport<K> {
    pub(super) const fn new(settings: Arc<Mutex<Settings<K>>>) -> Self {
        Self { settings, output_missing: false }
    }

    /// Writes what was collected before the present output was set. Repeats a flush that would have blocked.
    pub(super) fn flush(&self) {
        let mut taken = self.take_output();
        if !matches!(taken.output, Output::None | Output::Collected) {
            let _ = self.write_collected(&mut taken.output); // if that fails, so will the next write
        }
        taken.output.flush();
    }

    /// Takes the output out for a call of it, which may set another output.
    fn take_output(&self) -> Taken<'_, K> {
        let output = std::mem::replace(&mut self.settings().output, Output::None);
        Taken { transport: self, output }
    }

    /// The number of bytes that are collected.
    pub(super) fn collected(&self) -> usize {
        self.settings().collected.len()
    }

    /// Moves the collected bytes to the end of `bytes`. Returns false if there were none.
    pub(super) fn take_collected(&self, bytes: &mut Vec<u8>) -> bool {
        let collected = &mut self.settings().collected;
        let some = !collected.is_empty();
        bytes.append(collected);
        some
    }

    /// Writes what was collected before `output` was set. Returns whether all of it is written.
    fn write_collected(&self, output: &mut Output<K>) -> io::Result<bool> {
        let mut collected = std::mem::take(&mut self.settings().collected);
        if collected.is_empty() {
            return Ok(true);
        }
        let written = output.write(&[IoSlice::new(&collected)]);
        collected.drain(..*written.as_ref().unwrap_or(&0));
        let all = collected.is_empty();
        self.settings().collected = collected;
        written.map(|_| all)
    }

    fn collect(&self, slices: &[IoSlice<'_>]) -> usize {
        let collected = &mut self.settings().collected;
        let before = collected.len();
        for slice in slices {
            let free = MAX_COLLECTED.saturating_sub(collected.len());
            collected.extend_from_slice(&slice[..slice.len().min(free)]);
        }
        collected.len() - before
    }

    pub(super) fn settings(&self) -> MutexGuard<'_, Settings<K>> {
        lock_settings(&self.settings)
    }
}

/// An output that is being called. It is put back afterwards, also after a panic, unless another was set meanwhile.
struct Taken<'s, K: Outputs> {
    transport: &'s OutputTransport<K>,
    output: Output<K>,
}

impl<K: Outputs> Drop for Taken<'_, K> {
    fn drop(&mut self) {
        let mut settings = self.transport.settings();
        if matches!(settings.output, Output::None) {
            std::mem::swap(&mut settings.output, &mut self.output);
        }
    }
}

/// No application code runs under this lock, so poisoning is ignored.
pub(super) fn lock_settings<K: Outputs>(
    settings: &Mutex<Settings<K>>,
) -> MutexGuard<'_, Settings<K>> {
    settings.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Outputs> Transport for OutputTransport<K> {
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut taken = self.take_output();
        if matches!(taken.output, Output::None) {
            drop(taken);
            self.output_missing = true;
            return Ok(0);
        }
        if matches!(taken.output, Output::Collected) {
            return Ok(self.collect(slices));
        }
        let written = match self.write_collected(&mut taken.output) {
            Ok(true) => taken.output.write(slices),
            Ok(false) => Ok(0),
            Err(error) => Err(error),
        };
        written.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot write the output: {error}"))
        })
    }

    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        let on_shutdown = self.settings().on_shutdown.take();
        if let Some(mut f) = on_shutdown {
            f(how);
            let mut settings = self.settings();
            let replaced = match settings.on_shutdown.is_some() {
                true => Some(f),
                false => settings.on_shutdown.replace(f),
            };
            drop(settings);
            drop(replaced); // application code, so not under the lock
        }
        Ok(())
    }

    fn can_half_close(&self) -> bool {
        self.settings().on_shutdown.is_some()
    }

    fn is_secure(&self) -> bool {
        self.settings().secure
    }

    fn peer(&self) -> Peer {
        Peer::Named(self.settings().remote_endpoint.clone())
    }
}

impl<K: Outputs> Output<K> {
    /// Repeats a flush that would have blocked. An error is ignored here, and reported by the next write.
    fn flush(&mut self) {
        if let Self::Writer { writer, unflushed: unflushed @ true } = self {
            *unflushed = matches!(flush(&mut **writer), Ok(false));
        }
    }

    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::None => return Ok(0),
            Self::Writer { writer, unflushed } => {
                let (written, flushed) = write_to(&mut **writer, slices)?;
                *unflushed = !flushed;
                return Ok(written);
            }
            Self::Handler(f) => {
                for slice in slices.iter().filter(|slice| !slice.is_empty()) {
                    f(slice)?;
                }
            }
            Self::Vectored(f) => f(slices)?,
            Self::Collected => return Ok(0), // `OutputTransport::write` collects
        }
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }
}

/// Writes to `writer` until it would block, and flushes it. Returns the number of bytes written, and whether it was
/// flushed.
fn write_to<W: Write + ?Sized>(
    writer: &mut W,
    slices: &[IoSlice<'_>],
) -> io::Result<(usize, bool)> {
    let mut written = 0;
    for slice in slices {
        let mut rest = &slice[..];
        while !rest.is_empty() {
            match writer.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => (rest, written) = (&rest[n..], written + n),
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => return Ok((written, flush(writer)?)),
                    _ => return Err(error),
                },
            }
        }
    }
    Ok((written, flush(writer)?))
}

/// Flushes `writer`. Returns false if it would block.
fn flush<W: Write + ?Sized>(writer: &mut W) -> io::Result<bool> {
    loop {
        match writer.flush() {
            Ok(()) => return Ok(true),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock => return Ok(false),
                _ => return Err(error),
            },
        }
    }
}
