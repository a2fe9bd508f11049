//! Gathers messages that arrive in parts.

use alloc::vec::Vec;
use core::mem;

/// Gathers one message, and separately one control frame that arrives in parts.
#[derive(Default)]
pub(crate) struct Assembly {
    /// `used` bytes from `start` on are the message so far. What is behind them is initialised memory. It is kept, also
    /// between messages, so that it need not be zeroed again.
    buffer: Vec<u8>,
    /// The offset of the message in the buffer.
    start: usize,
    used: usize,
    /// How many of the used bytes, the last ones, were received straight into the buffer and are not yet unmasked and
    /// checked.
    unprocessed: usize,
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
        let initialised = bytes.len().min(self.buffer.len() - self.end());
        let (first, second) = bytes.split_at(initialised);
        let end = self.end();
        self.buffer[end..end + initialised].copy_from_slice(first);
        self.buffer.extend_from_slice(second);
        self.used = size;
    }

    /// Passes the message to `f` as a `Vec` of exactly the used bytes, for a decoder to append to.
    /// `f` must not shorten it. Must not be mixed with [`append`](Self::append) within a message.
    pub(crate) fn append_with<R>(&mut self, f: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        debug_assert!(self.start == 0, "the decoder would see the bytes before the message");
        self.buffer.truncate(self.used);
        let result = f(&mut self.buffer);
        self.used = self.buffer.len();
        result
    }

    /// Memory for up to `max_len` further bytes of the message: as many as there is allocated memory for, or as many as
    /// have arrived so far, if those are more. A length that a peer only announces thus never allocates memory. `last`
    /// means that the message ends after `max_len` bytes.
    pub(crate) fn receive_buffer(&mut self, max_len: usize, last: bool) -> &mut [u8] {
        let free = self.capacity() - self.used;
        let size = free.max(self.used).min(max_len);
        let used = self.used + size;
        if self.capacity() < used {
            // Doubling keeps the total cost of growing linear. The end of the message is not
            // exceeded.
            self.grow(if last && size == max_len { used } else { used.max(2 * self.used) });
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
        debug_assert!(self.capacity() >= size, "the next append would move the message again");
    }

    /// Reports that the first `n` bytes of the [receive buffer](Self::receive_buffer) were filled with bytes that are
    /// neither unmasked nor checked.
    pub(crate) fn filled(&mut self, n: usize) {
        let n = n.min(mem::take(&mut self.offered));
        self.used += n;
        self.unprocessed += n;
    }

    pub(crate) const fn unprocessed(&self) -> usize {
        self.unprocessed
    }

    /// Returns the unprocessed bytes, for the caller to unmask and check. They count as processed from now on.
    pub(crate) fn take_unprocessed(&mut self) -> &mut [u8] {
        self.offered = 0;
        let unprocessed = mem::take(&mut self.unprocessed);
        let end = self.end();
        &mut self.buffer[end - unprocessed..end]
    }

    pub(crate) fn clear_message(&mut self) {
        (self.start, self.used, self.unprocessed) = (0, 0, 0);
    }

    /// The payload of the control frame so far.
    pub(crate) fn control_payload(&self) -> &[u8] {
        &self.control
    }

    pub(crate) fn append_control(&mut self, bytes: &[u8]) {
        self.control.extend_from_slice(bytes);
    }

    pub(crate) fn clear_control(&mut self) {
        self.control.clear();
    }

    // Memory.

    /// The capacity of the buffer; 0 if there is none.
    pub(crate) fn buffer_capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Sets the buffer to gather a message in. There must be none.
    pub(crate) fn set_buffer(&mut self, buffer: Vec<u8>) {
        self.buffer = buffer;
    }

    /// Bytes of heap without the buffer: those for control frames.
    pub(crate) fn control_capacity(&self) -> usize {
        self.control.capacity()
    }

    /// Removes the message and the control frame, and returns the buffer. Keeps the memory for control frames.
    pub(crate) fn reset(&mut self) -> Vec<u8> {
        let mut control = mem::take(&mut self.control);
        control.clear();
        let Self { buffer, .. } = mem::replace(self, Self { control, ..Self::default() });
        buffer
    }
}

/// Buffers of more bytes than this are large.
pub(crate) const LARGE: usize = 64 * 1024;

const PAGE: usize = 4096;

/// A large buffer has this many bytes in addition to its message.
const PADDING: usize = 256;

/// The offset at which a message begins in its buffer. In a large buffer it is not near the
/// beginning of a page.
///
/// Allocators place large buffers at the beginning of a page, or 16 bytes after it. The kernel's buffers are placed so,
/// too, and a message that is sent follows a header of a few bytes there. Some processors (AMD Zen 4) need four times
/// as long for a copy (`rep movsb`) whose destination is 1 to 15 bytes further into its page than its source.
fn start_offset(buffer: &Vec<u8>) -> usize {
    match buffer.capacity() {
        ..=LARGE => 0,
        _ => start_offset_at(buffer.as_ptr().addr()),
    }
}

/// The [offset](start_offset) in a large buffer at `address`.
const fn start_offset_at(address: usize) -> usize {
    PADDING.saturating_sub(address % PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_grows_with_what_has_arrived() {
        let mut assembly = Assembly::default();
        assembly.append(&[7; 100]);
        let capacity = assembly.buffer.capacity();
        let expected = (capacity - 100).max(100);
        assert_eq!(assembly.receive_buffer(usize::MAX, false).len(), expected);
        assert_eq!(assembly.receive_buffer(10, false).len(), 10);
        assembly.filled(10);
        assert_eq!(assembly.take_unprocessed().len(), 10);
        assert_eq!(assembly.take_unprocessed().len(), 0);
        assembly.append(&[9; 3]);
        assert_eq!(assembly.message().len(), 113);
        assert_eq!(&assembly.message()[110..], [9; 3]);
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
        assembly.append_with(|buffer| buffer.extend_from_slice(b"decoded"));
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
            assert_eq!(assembly.take_unprocessed(), bytes);
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
}
