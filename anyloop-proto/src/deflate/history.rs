//! The last bytes that were sent or received.

use alloc::vec::Vec;

/// The last bytes of a stream, to which later messages may refer.
#[derive(Default)]
pub(super) struct History {
    bytes: Vec<u8>,
    max_len: usize,
}

impl History {
    /// A history of at most `max_len` bytes. It allocates memory as bytes are added.
    pub(super) const fn new(max_len: usize) -> Self {
        Self { bytes: Vec::new(), max_len }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len() - bytes.len().min(self.max_len)..];
        let len = self.bytes.len() + bytes.len();
        if len > self.max_len {
            self.bytes.drain(..len - self.max_len);
        }
        if self.bytes.capacity() < self.bytes.len() + bytes.len() {
            let capacity = (2 * self.bytes.len()).max(len).min(self.max_len);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Forgets all bytes, and frees their memory.
    pub(super) fn clear(&mut self) {
        self.bytes = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_last_bytes_in_no_more_memory() {
        let mut history = History::new(10);
        assert_eq!(history.bytes.capacity(), 0);
        for (pushed, expected) in [
            (&b"abc"[..], &b"abc"[..]),
            (b"", b"abc"),
            (b"defghi", b"abcdefghi"),
            (b"jkl", b"cdefghijkl"),
            (b"0123456789", b"0123456789"),
            (b"abcdefghijklmn", b"efghijklmn"),
        ] {
            history.append(pushed);
            assert_eq!(history.bytes(), expected);
            assert!(history.bytes.capacity() <= 10);
        }
        history.clear();
        assert_eq!((history.bytes().len(), history.bytes.capacity()), (0, 0));
        let mut none = History::new(0);
        none.append(b"abc");
        assert_eq!(none.bytes(), b"");
    }
}
