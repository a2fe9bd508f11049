//! Memory for messages that arrive in parts.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

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
        let n = n.min(core::mem::take(&mut self.lent));
        self.used += n;
        self.raw += n;
    }

    pub(crate) const fn raw(&self) -> usize {
        self.raw
    }

    /// The bytes that are still as they came off the wire, which they are from now on no more.
    pub(crate) fn take_raw(&mut self) -> &mut [u8] {
        self.lent = 0;
        let raw = core::mem::take(&mut self.raw);
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

    /// Bytes of heap that this holds.
    fn capacity(&self) -> usize {
        self.buffer.capacity() + self.control.capacity() + size_of::<Self>()
    }
}

/// Memory for gathering messages that arrive in parts, kept from one message to the next.
///
/// One pool serves all the connections of a thread: a message that arrives in parts takes a buffer,
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
    small: Free,
    large: Free,
    held: usize,
    most: usize,
}

type Free = Vec<Box<Assembly>>;

/// Buffers of more bytes than this are large.
const LARGE: usize = 64 * 1024;

/// A large buffer is lent only where this part of it has arrived already: a peer that begins messages
/// and never ends them must not keep what others have filled.
const PART_ARRIVED: usize = 32;

impl BufferPool {
    /// A pool that keeps at most `most` bytes.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self { small: Vec::new(), large: Vec::new(), held: 0, most }
    }

    /// Bytes that are kept now.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.held
    }

    /// A buffer for a message of which `arrived` bytes are here.
    pub(crate) fn get(&mut self, arrived: usize) -> Box<Assembly> {
        let fits = |assembly: &mut Box<Assembly>| {
            assembly.capacity() <= arrived.saturating_mul(PART_ARRIVED)
        };
        let assembly = self.large.pop_if(fits).or_else(|| self.small.pop());
        let Some(assembly) = assembly else { return Box::default() };
        self.held -= assembly.capacity();
        assembly
    }

    pub(crate) fn put(&mut self, mut assembly: Box<Assembly>) {
        let size = assembly.capacity();
        if self.held + size > self.most {
            return;
        }
        assembly.clear_message();
        assembly.clear_control();
        self.held += size;
        let free = if size > LARGE { &mut self.large } else { &mut self.small };
        free.push(assembly);
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
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

    #[test]
    fn a_pool_keeps_no_more_than_it_may() {
        let mut pool = BufferPool::new(10_000);
        let mut large = pool.get(0);
        large.append(&[0; 20_000]);
        pool.put(large);
        assert_eq!(pool.held(), 0);
        let mut small = pool.get(0);
        small.append(&[0; 2_000]);
        pool.put(small);
        assert!((2_000..10_000).contains(&pool.held()));
        let again = pool.get(0);
        assert!(again.message().is_empty());
        assert_eq!(pool.held(), 0);
    }

    #[test]
    fn a_large_buffer_is_for_messages_of_which_something_has_arrived() {
        let mut pool = BufferPool::new(usize::MAX);
        let mut large = pool.get(0);
        large.append(&[0; 1 << 20]);
        pool.put(large);
        assert!(pool.get(100).capacity() < LARGE);
        assert!(pool.get(1 << 16).capacity() > 1 << 20);
    }
}
