//! The functions that a program sets: for any thread, or for one.

use std::io::{self, IoSlice, Write};
use std::sync::Arc;

use anyloop_proto::{Instant, Shutdown};

use crate::threading::{Local, Threads};

/// Whether outputs, and other functions of the program, must be [`Send`]: [`Threads`] or [`Local`].
#[expect(unnameable_types, reason = "there are no other kinds")]
pub trait Outputs: Sized + 'static {
    type Writer: ?Sized + Write;
    type WriteHandler: ?Sized + FnMut(&[u8]) -> io::Result<()>;
    type VectoredWriteHandler: ?Sized + FnMut(&[IoSlice<'_>]) -> io::Result<()>;
    type ShutdownHandler: ?Sized + FnMut(Shutdown);
    type Clock: ?Sized + Fn() -> Instant;

    fn system_clock() -> Arc<Self::Clock>;
}

fn system_now() -> Instant {
    std::time::Instant::now().into()
}

impl Outputs for Threads {
    type Writer = dyn Write + Send;
    type WriteHandler = dyn FnMut(&[u8]) -> io::Result<()> + Send;
    type VectoredWriteHandler = dyn FnMut(&[IoSlice<'_>]) -> io::Result<()> + Send;
    type ShutdownHandler = dyn FnMut(Shutdown) + Send;
    type Clock = dyn Fn() -> Instant + Send + Sync;

    fn system_clock() -> Arc<Self::Clock> {
        Arc::new(system_now)
    }
}

impl Outputs for Local {
    type Writer = dyn Write;
    type WriteHandler = dyn FnMut(&[u8]) -> io::Result<()>;
    type VectoredWriteHandler = dyn FnMut(&[IoSlice<'_>]) -> io::Result<()>;
    type ShutdownHandler = dyn FnMut(Shutdown);
    type Clock = dyn Fn() -> Instant;

    fn system_clock() -> Arc<Self::Clock> {
        Arc::new(system_now)
    }
}
