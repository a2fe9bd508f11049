//! The memory of a thread inside a run call.

use core::ops::{Deref, DerefMut};

/// Memory that a runner, a thread inside a run call, uses for all sources.
pub(crate) struct RunnerBuffers {
    /// The memory into which sources read.
    pub(crate) read: ReadBuffer,
    /// What it lends to the driver of a connection during its turn: cork, pool and budget.
    pub(crate) for_driver: crate::stream::Buffers,
}

/// A read buffer that does not begin near the beginning of a page. The kernel's buffers do, and copying between two
/// buffers that begin there takes several times as long on some processors.
pub(crate) struct ReadBuffer(Vec<u8>);

impl ReadBuffer {
    /// The offset of the buffer in its allocation. A large allocation begins at a page, or a few bytes after it.
    const START: usize = 256;

    pub(super) fn new(size: usize) -> Self {
        Self(vec![0; Self::START + size])
    }
}

impl Deref for ReadBuffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0[Self::START..]
    }
}

impl DerefMut for ReadBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0[Self::START..]
    }
}
