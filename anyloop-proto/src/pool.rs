//! Memory for messages that arrive in parts.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::{fmt, mem};

use crate::assembly::{Assembly, LARGE};
use crate::contexts::Contexts;
use crate::partial::Partial;

/// Memory for messages that arrive in parts (several reads or frames), reused from message to message.
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
    max_bytes: usize,
    contexts: Contexts,
}

/// A large buffer is handed out only if at least 1/32 of its size has already arrived. A peer that
/// begins messages and never ends them thus cannot occupy the large buffers.
const ARRIVED_FRACTION: usize = 32;

impl BufferPool {
    /// A pool that keeps at most this many bytes, without those of its [contexts](Self::contexts).
    #[must_use]
    pub const fn new(max_bytes: usize) -> Self {
        Self {
            partials: FreeList::new(),
            small: FreeList::new(),
            large: FreeList::new(),
            held: 0,
            max_bytes,
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

    /// Takes the state for a message or frame that arrives in parts, or creates it.
    pub(crate) fn take(&mut self) -> Box<Partial> {
        let Some(partial) = self.partials.pop() else { return Box::default() };
        self.held -= heap_size(&partial);
        partial
    }

    /// Gives a message a buffer, if it has none yet. `arrived` is the number of bytes that are about to be appended.
    pub(crate) fn provide_buffer(&mut self, assembly: &mut Assembly, arrived: usize) {
        if assembly.buffer_capacity() == 0 {
            assembly.set_buffer(self.take_buffer(arrived));
        }
    }

    /// Takes a buffer for a message of which `arrived` bytes have arrived. If there is none, returns an empty one.
    fn take_buffer(&mut self, arrived: usize) -> Vec<u8> {
        let fits =
            |buffer: &mut Vec<u8>| buffer.capacity() <= arrived.saturating_mul(ARRIVED_FRACTION);
        let buffer = self.large.pop_if(fits).or_else(|| self.small.pop()).unwrap_or_default();
        self.held -= buffer.capacity();
        buffer
    }

    /// Takes back the state of a message or frame, and its buffer; frees what exceeds the limit.
    pub(crate) fn put(&mut self, mut partial: Box<Partial>) {
        let mut assembly = mem::take(&mut partial.assembly);
        let buffer = assembly.reset();
        *partial = Partial { assembly, ..Partial::default() };
        let (size, buffer_size) = (heap_size(&partial), buffer.capacity());
        if self.held + size <= self.max_bytes {
            self.held += size;
            self.partials.push(partial);
        }
        if buffer_size > 0 && self.held + buffer_size <= self.max_bytes {
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
    size_of::<Partial>() + partial.assembly.control_capacity()
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
            .field("partials", &self.partials.items.len())
            .field("small", &self.small.items.len())
            .field("large", &self.large.items.len())
            .field("held", &self.held)
            .field("max_bytes", &self.max_bytes)
            .field("contexts", &self.contexts)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The state of a message of which `arrived` bytes have arrived, with a buffer from the pool.
    fn take(pool: &mut BufferPool, arrived: usize) -> Box<Partial> {
        let mut partial = pool.take();
        pool.provide_buffer(&mut partial.assembly, arrived);
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
        assert!(again.assembly.buffer_capacity() >= 2_000);
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
        assert!(used.assembly.buffer_capacity() >= 2_000);
        pool.put(used);
        pool.trim();
        assert!(take(&mut pool, 2_000).assembly.buffer_capacity() >= 2_000);
        assert_eq!(pool.held(), 0);
    }

    #[test]
    fn a_large_buffer_requires_that_a_part_of_the_message_has_arrived() {
        let mut pool = BufferPool::new(usize::MAX);
        let mut large = take(&mut pool, 1);
        large.assembly.append(&[0; 1 << 20]);
        pool.put(large);
        assert!(take(&mut pool, 100).assembly.buffer_capacity() < LARGE);
        assert!(take(&mut pool, 1 << 16).assembly.buffer_capacity() >= 1 << 20);
    }
}
