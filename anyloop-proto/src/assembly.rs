//! Memory for messages that arrive in parts.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::{fmt, mem};

use crate::contexts::Contexts;
use crate::partial::Partial;

/// Gathers one message, and separately one control frame that arrives in parts.
#[derive(Default)]
pub(crate) struct Assembly {
    /// All of its length is initialised; `used` bytes from `start` on are the message so far. The
    /// rest stays initialised between messages, so that it need not be zeroed again.
    buffer: Vec<u8>,
    /// The offset of the message in the buffer.
    start: usize,
    used: usize,
    /// How many of the last used bytes were received in place and are not yet unmasked and checked.
    raw: usize,
    /// The size of the receive buffer that was handed out.
    offered: usize,
    control: Vec<u8>,
}

impl Assembly {
    /// The message so far.
    pub(crate) fn message(&self) -> &[u8] {
        &self.buffer[self.start..self.end()]
    }

    /// The offset of the end of the message in the buffer.
    const fn end(&self) -> usize {
        self.start + self.used
    }

    /// Takes a buffer from `pool` if there is none yet. `arrived` is the number of bytes that are
    /// about to be appended.
    pub(crate) fn provide(&mut self, pool: Option<&mut BufferPool>, arrived: usize) {
        if self.buffer.capacity() > 0 {
            return;
        }
        if let Some(pool) = pool {
            self.buffer = pool.get_buffer(arrived);
        }
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) {
        if self.used == 0 {
            self.start = start_offset(&self.buffer);
            if self.buffer.len() < self.start {
                self.buffer.resize(self.start, 0);
            }
        }
        let size = self.used + bytes.len();
        if self.capacity() < size {
            self.grow(size.max(2 * self.capacity()));
        }
        let in_place = bytes.len().min(self.buffer.len() - self.end());
        let (first, second) = bytes.split_at(in_place);
        let end = self.end();
        self.buffer[end..end + in_place].copy_from_slice(first);
        self.buffer.extend_from_slice(second);
        self.used = size;
    }

    /// Passes the message to `f` as a `Vec` of exactly the used bytes, for a decoder to append to.
    /// `f` must not shorten it. Must not be mixed with [`append`](Self::append) within a message.
    pub(crate) fn append_with<R>(&mut self, f: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        debug_assert!(self.start == 0, "the decoder would see what is before it");
        self.buffer.truncate(self.used);
        let result = f(&mut self.buffer);
        self.used = self.buffer.len();
        result
    }

    /// Memory for up to `most` further bytes of the message: all that is allocated, or as much as
    /// has arrived so far. A length that a peer only announces thus never allocates memory. `last`
    /// means that the message ends with these bytes.
    pub(crate) fn receive_buffer(&mut self, most: usize, last: bool) -> &mut [u8] {
        let there = self.capacity() - self.used;
        let size = there.max(self.used).min(most);
        let used = self.used + size;
        if self.capacity() < used {
            // Doubling keeps the total cost of growing linear. The end of the message is not
            // exceeded.
            self.grow(if last && size == most { used } else { used.max(2 * self.used) });
        }
        let end = self.start + used;
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        self.offered = size;
        let start = self.end();
        &mut self.buffer[start..end]
    }

    /// The size of the largest message that fits without growing.
    fn capacity(&self) -> usize {
        self.buffer.capacity() - self.start
    }

    /// Makes the buffer large enough for a message of `size` bytes.
    #[cold]
    fn grow(&mut self, size: usize) {
        if size <= LARGE {
            self.buffer.reserve_exact(self.start + size - self.buffer.len());
            return;
        }
        self.buffer.reserve_exact(size.saturating_add(PADDING) - self.buffer.len());
        let message = self.start..self.end();
        self.start = start_offset(&self.buffer);
        if self.start != message.start {
            let end = self.end();
            if self.buffer.len() < end {
                self.buffer.resize(end, 0);
            }
            self.buffer.copy_within(message, self.start);
        }
        debug_assert!(self.capacity() >= size, "it will move again");
    }

    /// Reports that the first `n` bytes of the [receive buffer](Self::receive_buffer) were filled
    /// with raw bytes.
    pub(crate) fn filled(&mut self, n: usize) {
        let n = n.min(mem::take(&mut self.offered));
        self.used += n;
        self.raw += n;
    }

    pub(crate) const fn raw(&self) -> usize {
        self.raw
    }

    /// Returns the raw bytes, for the caller to unmask and check; they count as processed from now
    /// on.
    pub(crate) fn take_raw(&mut self) -> &mut [u8] {
        self.offered = 0;
        let raw = mem::take(&mut self.raw);
        let end = self.end();
        &mut self.buffer[end - raw..end]
    }

    pub(crate) fn clear_message(&mut self) {
        (self.start, self.used, self.raw) = (0, 0, 0);
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

/// Memory for messages that arrive in parts, reused from message to message.
///
/// One pool serves all connections of a thread. A message that arrives in parts takes memory from
/// the pool, and the pool gets the memory back once the message was read. See
/// [`Input::with_pool`](crate::Input::with_pool).
///
/// ```
/// use anyloop_proto::BufferPool;
///
/// let pool = BufferPool::new(4 << 20);
/// assert_eq!(pool.held(), 0); // nothing is allocated before it is needed
/// ```
pub struct BufferPool {
    /// Kept without their buffers, because a small and a large message need the same `Partial`.
    partials: FreeList<Box<Partial>>,
    small: FreeList<Vec<u8>>,
    large: FreeList<Vec<u8>>,
    held: usize,
    most: usize,
    contexts: Contexts,
}

/// Buffers of more bytes than this are large.
const LARGE: usize = 64 * 1024;

const PAGE: usize = 4096;

/// A large buffer has this many bytes in addition to its message.
const PADDING: usize = 256;

/// The offset at which a message begins in its buffer. In a large buffer it is not near the
/// beginning of a page.
///
/// Allocators place large buffers at the beginning of a page, or 16 bytes after it, and so does the
/// kernel with its own, into which a message is copied after a header of a few bytes. Some
/// processors (AMD Zen 4) need four times as long for a copy (`rep movsb`) whose destination is 1
/// to 15 bytes further into its page than its source.
fn start_offset(buffer: &Vec<u8>) -> usize {
    match buffer.capacity() {
        ..=LARGE => 0,
        _ => start_offset_at(buffer.as_ptr().addr()),
    }
}

/// The same for a large buffer at `address`.
const fn start_offset_at(address: usize) -> usize {
    PADDING.saturating_sub(address % PAGE)
}

/// A large buffer is handed out only if at least 1/32 of its size has already arrived. A peer that
/// begins messages and never ends them thus cannot occupy the large buffers.
const ARRIVED_FRACTION: usize = 32;

impl BufferPool {
    /// A pool that keeps at most `most` bytes.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self {
            partials: FreeList::new(),
            small: FreeList::new(),
            large: FreeList::new(),
            held: 0,
            most,
            contexts: Contexts::new(),
        }
    }

    /// The number of bytes that the pool keeps now, without those of its [contexts](Self::contexts).
    #[must_use]
    pub const fn held(&self) -> usize {
        self.held
    }

    /// The contexts for the decoders of extensions.
    #[must_use]
    pub const fn contexts(&self) -> &Contexts {
        &self.contexts
    }

    pub(crate) const fn contexts_mut(&mut self) -> &mut Contexts {
        &mut self.contexts
    }

    /// State for a message or frame that arrives in parts.
    pub(crate) fn get(&mut self) -> Box<Partial> {
        let Some(partial) = self.partials.pop() else { return Box::default() };
        self.held -= heap_size(&partial);
        partial
    }

    /// A buffer for a message of which `arrived` bytes have arrived.
    fn get_buffer(&mut self, arrived: usize) -> Vec<u8> {
        let fits =
            |buffer: &mut Vec<u8>| buffer.capacity() <= arrived.saturating_mul(ARRIVED_FRACTION);
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
        let (size, buffer_size) = (heap_size(&partial), buffer.capacity());
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

    /// Frees the memory that was not used since the last call.
    ///
    /// The pool keeps at most as many buffers as were in use at the same time since the last call.
    /// A pool that is trimmed once a second follows the needs of its connections: buffers in
    /// regular use stay, and buffers from a burst are freed after one to two seconds.
    ///
    /// ```
    /// # use anyloop_proto::BufferPool;
    /// # let mut pool = BufferPool::new(4 << 20);
    /// pool.trim();
    /// pool.trim(); // nothing was needed in between
    /// assert_eq!(pool.held(), 0);
    /// ```
    pub fn trim(&mut self) {
        self.held -= self.partials.trim(heap_size);
        self.held -= self.small.trim(Vec::capacity);
        self.held -= self.large.trim(Vec::capacity);
        self.contexts.trim();
    }
}

/// A stack of free items. The most recently freed item is used first, so the bottom of the stack
/// stays unused as long as there are enough items.
struct FreeList<T> {
    items: Vec<T>,
    /// How many items, from the bottom, were not used since the last trim.
    unused: usize,
}

impl<T> FreeList<T> {
    const fn new() -> Self {
        Self { items: Vec::new(), unused: 0 }
    }

    fn push(&mut self, item: T) {
        self.items.push(item);
    }

    fn pop(&mut self) -> Option<T> {
        self.pop_if(|_| true)
    }

    fn pop_if(&mut self, predicate: impl FnOnce(&mut T) -> bool) -> Option<T> {
        let matches = self.items.last_mut().is_some_and(predicate);
        let item = if matches { self.items.pop() } else { None };
        self.unused = self.unused.min(self.items.len());
        item
    }

    /// Frees the unused items, and returns their total size.
    fn trim(&mut self, heap_size: impl Fn(&T) -> usize) -> usize {
        let freed = self.items.drain(..self.unused).map(|item| heap_size(&item)).sum();
        self.unused = self.items.len();
        self.items.shrink_to(2 * self.items.len());
        freed
    }
}

/// Bytes of heap that an empty `Partial` holds, including its buffer for control frames.
#[expect(clippy::borrowed_box, reason = "the type of the items of the free list")]
fn heap_size(partial: &Box<Partial>) -> usize {
    size_of::<Partial>() + partial.assembly.control.capacity()
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
            .field("partials", &self.partials.items.len())
            .field("small", &self.small.items.len())
            .field("large", &self.large.items.len())
            .field("held", &self.held)
            .field("most", &self.most)
            .field("contexts", &self.contexts)
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
        assert_eq!(assembly.receive_buffer(usize::MAX, false).len(), most);
        assert_eq!(assembly.receive_buffer(10, false).len(), 10);
        assembly.filled(10);
        assert_eq!(assembly.take_raw().len(), 10);
        assert_eq!(assembly.take_raw().len(), 0);
        assembly.append(&[9; 3]);
        assert_eq!(assembly.message().len(), 113);
        assert_eq!(&assembly.message()[110..], [9; 3]);
    }

    /// The state of a message of which `arrived` bytes have arrived, with a buffer from the pool.
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
    fn a_pool_that_is_trimmed_keeps_what_was_needed_meanwhile() {
        let mut pool = BufferPool::new(usize::MAX);
        for size in [1_000, 100_000] {
            let message = |pool: &mut BufferPool| {
                let mut partial = take(pool, size);
                partial.assembly.append(&[7; 100_000][..size]);
                partial
            };
            let messages: Vec<_> = (0..5).map(|_| message(&mut pool)).collect();
            messages.into_iter().for_each(|message| pool.put(message));
            let five = pool.held();
            assert!(five >= 5 * size);
            pool.trim();
            assert_eq!(pool.held(), five, "all of it was needed");
            let two = [message(&mut pool), message(&mut pool)];
            two.into_iter().for_each(|message| pool.put(message));
            pool.trim();
            assert_eq!(pool.held(), five / 5 * 2, "and then two");
            let one = message(&mut pool);
            pool.trim();
            assert_eq!(pool.held(), 0, "one is in use, one was not needed");
            assert_eq!(pool.partials.items.capacity(), 0, "nor is a table");
            pool.put(one);
            pool.trim();
            pool.trim();
            assert_eq!(pool.held(), 0);
        }
    }

    #[test]
    fn a_pool_that_is_trimmed_keeps_what_was_used_last() {
        let mut pool = BufferPool::new(usize::MAX);
        let messages = [1_000, 2_000].map(|size| {
            let mut partial = take(&mut pool, size);
            partial.assembly.append(&[7; 2_000][..size]);
            partial
        });
        messages.into_iter().for_each(|message| pool.put(message));
        pool.trim();
        let used = take(&mut pool, 2_000);
        assert!(used.assembly.buffer.capacity() >= 2_000);
        pool.put(used);
        pool.trim();
        assert!(take(&mut pool, 2_000).assembly.buffer.capacity() >= 2_000);
        assert_eq!(pool.held(), 0);
    }

    #[test]
    fn a_large_message_does_not_begin_near_the_beginning_of_a_page() {
        for address in 0..2 * PAGE {
            assert!(start_offset_at(address) <= PADDING, "at {address}");
            assert!((address + start_offset_at(address)) % PAGE >= PADDING, "at {address}");
        }
        let mut assembly =
            Assembly { buffer: near_the_beginning_of_a_page(), ..Assembly::default() };
        assembly.append(&[7; 100]);
        assert!(assembly.start > 0);
        assert_eq!(offset(&assembly), PADDING);
        // Decoding into the same memory may come later, and begins at offset 0.
        assembly.clear_message();
        assembly.append_with(|text| text.extend_from_slice(b"decoded"));
        assert_eq!(assembly.message(), b"decoded");
        assert_eq!(assembly.start, 0);
    }

    #[test]
    fn a_message_is_unchanged_when_its_buffer_moves() {
        let mut assembly = Assembly::default();
        let part = |from: usize, size: usize| -> Vec<u8> {
            let byte = |i: usize| (i as u32).wrapping_mul(0x9e37_79b1).to_le_bytes()[3];
            (from..from + size).map(byte).collect()
        };
        let mut whole: Vec<u8> = Vec::new();
        while whole.len() < 1 << 20 {
            // A new buffer would not have this offset.
            let buffer = [&[0; PADDING - 1], assembly.message()].concat();
            (assembly.buffer, assembly.start) = (buffer, PADDING - 1);
            let bytes = part(whole.len(), whole.len() / 3 + 1000);
            assembly.append(&bytes);
            whole.extend(bytes);
            let buffer = assembly.receive_buffer(usize::MAX, false);
            let bytes = part(whole.len(), buffer.len() - 5);
            buffer[..bytes.len()].copy_from_slice(&bytes);
            assembly.filled(bytes.len());
            assert_eq!(assembly.take_raw(), bytes);
            whole.extend(bytes);
            assert!(assembly.message() == whole, "after {} bytes", whole.len());
            if assembly.capacity() > LARGE {
                assert!(offset(&assembly) >= PADDING);
                assert_ne!(assembly.start, PADDING - 1);
            }
        }
    }

    /// The offset of the message in its page.
    fn offset(assembly: &Assembly) -> usize {
        assembly.message().as_ptr().addr() % PAGE
    }

    /// A large buffer near the beginning of a page, where allocators usually place it, but not always.
    fn near_the_beginning_of_a_page() -> Vec<u8> {
        let mut others = Vec::new();
        for i in 0..10_000 {
            let buffer = Vec::<u8>::with_capacity(LARGE + 1 + 112 * (i % 37));
            if start_offset_at(buffer.as_ptr().addr()) > 0 {
                return buffer;
            }
            others.push(buffer);
        }
        panic!("there is none");
    }

    #[test]
    fn a_large_buffer_requires_that_a_part_of_the_message_has_arrived() {
        let mut pool = BufferPool::new(usize::MAX);
        let mut large = take(&mut pool, 1);
        large.assembly.append(&[0; 1 << 20]);
        pool.put(large);
        assert!(take(&mut pool, 100).assembly.buffer.capacity() < LARGE);
        assert!(take(&mut pool, 1 << 16).assembly.buffer.capacity() >= 1 << 20);
    }
}
