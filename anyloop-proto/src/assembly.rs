//! Memory for messages that arrive in parts.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::{fmt, mem};

use crate::partial::Partial;

/// Gathers one message, and beside it one control frame that arrives in parts.
#[derive(Default)]
pub(crate) struct Assembly {
    /// Initialised to its whole length, of which `used` bytes are the message so far. The rest
    /// stays initialised from message to message, so that lending it never zeroes it again.
    buffer: Vec<u8>,
    used: usize,
    /// How many of the used bytes were received in place and are still as they came off the wire.
    raw: usize,
    /// How much room is lent out now.
    lent: usize,
    control: Vec<u8>,
}

impl Assembly {
    /// The message so far.
    pub(crate) fn message(&self) -> &[u8] {
        &self.buffer[..self.used]
    }

    /// Takes memory from `pool`, where there is none yet: `arrived` bytes are the first.
    pub(crate) fn provide(&mut self, pool: Option<&mut BufferPool>, arrived: usize) {
        if let Some(pool) = pool
            && self.buffer.capacity() == 0
        {
            self.buffer = pool.get_buffer(arrived);
        }
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) {
        let in_place = bytes.len().min(self.buffer.len() - self.used);
        let (first, second) = bytes.split_at(in_place);
        self.buffer[self.used..self.used + in_place].copy_from_slice(first);
        self.buffer.extend_from_slice(second);
        self.used += bytes.len();
    }

    /// The message as a `Vec` that only holds what is used, for a decoder to append to; `f` must
    /// not shorten it.
    pub(crate) fn append_with<R>(&mut self, f: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        self.buffer.truncate(self.used);
        let result = f(&mut self.buffer);
        self.used = self.buffer.len();
        result
    }

    /// Room for up to `most` bytes more of the message: all that is there already, or as much as
    /// has arrived so far, so that memory is never taken on a peer's word alone. `last` says that
    /// nothing comes after them.
    pub(crate) fn room(&mut self, most: usize, last: bool) -> &mut [u8] {
        let there = self.buffer.capacity() - self.used;
        let size = there.max(self.used).min(most);
        let end = self.used + size;
        if self.buffer.capacity() < end {
            // Room for as much again as has arrived, which keeps the cost of growing linear; only the
            // end of the message need not be exceeded.
            let enough = if last && size == most { end } else { end.max(2 * self.used) };
            self.buffer.reserve_exact(enough - self.buffer.len());
        }
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        self.lent = size;
        &mut self.buffer[self.used..end]
    }

    /// Says that the first `n` bytes of the [`room`](Self::room) lent were filled, as they came off
    /// the wire, and ends the loan.
    pub(crate) fn filled(&mut self, n: usize) {
        let n = n.min(mem::take(&mut self.lent));
        self.used += n;
        self.raw += n;
    }

    pub(crate) const fn raw(&self) -> usize {
        self.raw
    }

    /// The bytes that are still as they came off the wire, which they are from now on no more.
    pub(crate) fn take_raw(&mut self) -> &mut [u8] {
        self.lent = 0;
        let raw = mem::take(&mut self.raw);
        &mut self.buffer[self.used - raw..self.used]
    }

    pub(crate) fn clear_message(&mut self) {
        (self.used, self.raw) = (0, 0);
    }

    pub(crate) fn control(&self) -> &[u8] {
        &self.control
    }

    pub(crate) fn append_control(&mut self, bytes: &[u8]) {
        self.control.extend_from_slice(bytes);
    }

    pub(crate) fn clear_control(&mut self) {
        self.control.clear();
    }
}

/// Memory for gathering messages that arrive in parts, kept from one message to the next.
///
/// One pool serves all the connections of a thread: a message that arrives in parts takes memory,
/// and the pool gets it back, with its capacity, when the message was read. See
/// [`Input::with_pool`](crate::Input::with_pool).
///
/// ```
/// use anyloop_proto::BufferPool;
///
/// let pool = BufferPool::new(4 << 20);
/// assert_eq!(pool.held(), 0); // nothing is allocated before it is needed
/// ```
pub struct BufferPool {
    /// Without their buffers, which are kept apart: what has to be known of a message is the same
    /// for a few bytes as for many.
    #[expect(clippy::vec_box, reason = "a connection holds it as a box, which is made once")]
    partials: Vec<Box<Partial>>,
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
    held: usize,
    most: usize,
}

/// Buffers of more bytes than this are large.
const LARGE: usize = 64 * 1024;

/// A large buffer is lent only where this part of it has arrived already: a peer that begins messages
/// and never ends them must not keep what others have filled.
const PART_ARRIVED: usize = 32;

impl BufferPool {
    /// A pool that keeps at most `most` bytes.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self { partials: Vec::new(), small: Vec::new(), large: Vec::new(), held: 0, most }
    }

    /// Bytes that are kept now.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.held
    }

    /// A box for a message, or a frame, that does not arrive whole.
    pub(crate) fn get(&mut self) -> Box<Partial> {
        let Some(partial) = self.partials.pop() else { return Box::default() };
        self.held -= weight(&partial);
        partial
    }

    /// A buffer for a message of which `arrived` bytes are here.
    fn get_buffer(&mut self, arrived: usize) -> Vec<u8> {
        let fits = |buffer: &mut Vec<u8>| buffer.capacity() <= arrived.saturating_mul(PART_ARRIVED);
        let buffer = self.large.pop_if(fits).or_else(|| self.small.pop()).unwrap_or_default();
        self.held -= buffer.capacity();
        buffer
    }

    pub(crate) fn put(&mut self, mut partial: Box<Partial>) {
        let buffer = mem::take(&mut partial.assembly.buffer);
        let mut control = mem::take(&mut partial.assembly.control);
        control.clear();
        *partial = Partial::default();
        partial.assembly.control = control;
        let (size, buffer_size) = (weight(&partial), buffer.capacity());
        if self.held + size <= self.most {
            self.held += size;
            self.partials.push(partial);
        }
        if buffer_size > 0 && self.held + buffer_size <= self.most {
            self.held += buffer_size;
            let free = if buffer_size > LARGE { &mut self.large } else { &mut self.small };
            free.push(buffer);
        }
    }
}

/// Bytes of heap that an empty one holds: a buffer for its control frame stays with it.
fn weight(partial: &Partial) -> usize {
    size_of::<Partial>() + partial.assembly.control.capacity()
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
            .field("partials", &self.partials.len())
            .field("small", &self.small.len())
            .field("large", &self.large.len())
            .field("held", &self.held)
            .field("most", &self.most)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_grows_with_what_has_arrived() {
        let mut assembly = Assembly::default();
        assembly.append(&[7; 100]);
        let capacity = assembly.buffer.capacity();
        let most = (capacity - 100).max(100);
        assert_eq!(assembly.room(usize::MAX, false).len(), most);
        assert_eq!(assembly.room(10, false).len(), 10);
        assembly.filled(10);
        assert_eq!(assembly.take_raw().len(), 10);
        assert_eq!(assembly.take_raw().len(), 0);
        assembly.append(&[9; 3]);
        assert_eq!(assembly.message().len(), 113);
        assert_eq!(&assembly.message()[110..], [9; 3]);
    }

    /// What a message takes from the pool when `arrived` bytes of it are here.
    fn take(pool: &mut BufferPool, arrived: usize) -> Box<Partial> {
        let mut partial = pool.get();
        partial.assembly.provide(Some(pool), arrived);
        partial
    }

    #[test]
    fn a_pool_keeps_no_more_than_it_may() {
        let mut pool = BufferPool::new(10_000);
        let mut large = take(&mut pool, 1);
        large.assembly.append(&[0; 20_000]);
        pool.put(large);
        assert_eq!(pool.held(), size_of::<Partial>(), "the buffer is too large");
        let mut small = take(&mut pool, 1);
        assert_eq!(pool.held(), 0);
        small.assembly.append(&[0; 2_000]);
        pool.put(small);
        assert!((2_000..10_000).contains(&pool.held()));
        let again = take(&mut pool, 1);
        assert!(again.assembly.message().is_empty());
        assert!(again.assembly.buffer.capacity() >= 2_000);
        assert_eq!(pool.held(), 0);
    }

    #[test]
    fn a_large_buffer_is_for_messages_of_which_something_has_arrived() {
        let mut pool = BufferPool::new(usize::MAX);
        let mut large = take(&mut pool, 1);
        large.assembly.append(&[0; 1 << 20]);
        pool.put(large);
        assert!(take(&mut pool, 100).assembly.buffer.capacity() < LARGE);
        assert!(take(&mut pool, 1 << 16).assembly.buffer.capacity() >= 1 << 20);
    }
}
