//! The end of what was sent or received so far.

use alloc::vec::Vec;

/// The last bytes of a stream, to which later messages may refer.
#[derive(Default)]
pub(super) struct History {
    bytes: Vec<u8>,
    most: usize,
}

impl History {
    /// A history of at most `most` bytes. It allocates memory as bytes are added.
    pub(super) const fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), most }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len() - bytes.len().min(self.most)..];
        let len = self.bytes.len() + bytes.len();
        if len > self.most {
            self.bytes.drain(..len - self.most);
        }
        if self.bytes.capacity() < self.bytes.len() + bytes.len() {
            let capacity = (2 * self.bytes.len()).max(len).min(self.most);
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
            history.push(pushed);
            assert_eq!(history.bytes(), expected);
            assert!(history.bytes.capacity() <= 10);
        }
        history.clear();
        assert_eq!((history.bytes().len(), history.bytes.capacity()), (0, 0));
        let mut none = History::new(0);
        none.push(b"abc");
        assert_eq!(none.bytes(), b"");
    }
}
