//! Descriptors that may be non-blocking, with blocking calls.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// A stream whose calls wait with `poll` where it would block.
pub(crate) struct Waiting<S>(S);

/// Standard output, by a duplicate of its descriptor: the standard library's stream has a buffer.
pub(crate) type Output = Waiting<File>;

/// Standard input.
pub(crate) fn input() -> io::Result<Waiting<File>> {
    Ok(Waiting(io::stdin().as_fd().try_clone_to_owned()?.into()))
}

/// Standard output.
pub(crate) fn output() -> io::Result<Output> {
    Ok(Waiting(io::stdout().as_fd().try_clone_to_owned()?.into()))
}

/// Standard error. It needs no further descriptor, so it also works when none is left.
pub(crate) fn error() -> Waiting<io::Stderr> {
    Waiting(io::stderr())
}

impl<S: AsFd> Waiting<S> {
    /// Calls `f` until its result is not `WouldBlock`. `ready` is the readiness to wait for.
    fn wait<T>(
        &mut self,
        ready: PollFlags,
        mut f: impl FnMut(&mut S) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match f(&mut self.0) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            match poll(&mut [PollFd::new(&self.0, ready)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl<S: AsFd + Read> Read for Waiting<S> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.wait(PollFlags::IN, |stream| stream.read(bytes))
    }
}

impl<S: AsFd + Write> Write for Waiting<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait(PollFlags::OUT, |stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wait(PollFlags::OUT, S::flush)
    }
}
