//! The numbered messages that the server sends and the client checks.

use std::ops::Range;

use crate::random::Random;

/// So many sequences of numbers a connection may have: one from each pusher thread, and one from a timer.
pub(crate) const STREAMS: usize = 3;

/// The connection's number, the stream's, the message's.
const HEAD: usize = 8 + 1 + 8;

/// The payloads of messages, which follow from their numbers.
pub(crate) struct Numbered {
    block: Vec<u8>,
}

impl Numbered {
    pub(crate) fn new() -> Self {
        let mut random = Random::new(0x50a4);
        Self { block: (0..128 * 1024).map(|_| random.next() as u8).collect() }
    }

    /// Makes `out` the payload of a message.
    pub(crate) fn put(&self, out: &mut Vec<u8>, connection: u64, stream: usize, number: u64) {
        out.clear();
        out.extend(connection.to_le_bytes());
        out.push(stream as u8);
        out.extend(number.to_le_bytes());
        out.extend(&self.block[body(connection, number)]);
    }

    /// Which stream's message this is, and its number, if every byte is as it must be.
    pub(crate) fn read(&self, payload: &[u8], connection: u64) -> Option<(usize, u64)> {
        let (head, rest) = payload.split_at_checked(HEAD)?;
        let stream = usize::from(head[8]);
        let number = u64::from_le_bytes(head[9..].try_into().ok()?);
        let is_right = head[..8] == connection.to_le_bytes()
            && stream < STREAMS
            && *rest == self.block[body(connection, number)];
        is_right.then_some((stream, number))
    }
}

/// Most messages are short, and some are of the sizes at which a header grows or memory is not copied.
fn body(connection: u64, number: u64) -> Range<usize> {
    let length = match number % 64 {
        10 => 9_000,
        40 => 70_000,
        rest => rest * 7,
    };
    let start = connection.wrapping_mul(31).wrapping_add(number.wrapping_mul(997)) % 50_000;
    start as usize..(start + length) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_put_is_read() {
        let (numbered, mut payload) = (Numbered::new(), Vec::new());
        for number in 0..200 {
            numbered.put(&mut payload, 7, 2, number);
            assert_eq!(numbered.read(&payload, 7), Some((2, number)));
            assert_eq!(numbered.read(&payload, 8), None);
            let last = payload.len() - 1;
            assert_eq!(numbered.read(&payload[..last], 7), None);
            payload[last] ^= 1;
            assert_ne!(numbered.read(&payload, 7), Some((2, number)));
        }
    }
}
