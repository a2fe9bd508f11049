//! The numbered messages that the server sends and the client checks.

use std::ops::Range;

use crate::random::Random;

/// The number of streams of a connection: one from each pusher thread, and one from a timer.
pub(crate) const STREAMS: usize = 3;

/// The size of the numbers of the connection, the stream and the message.
const HEAD: usize = 8 + 1 + 8;

/// Computes the payloads of messages from their numbers.
pub(crate) struct Numbered {
    block: Vec<u8>,
}

impl Numbered {
    pub(crate) fn new() -> Self {
        let mut random = Random::new(0x50a4);
        Self { block: (0..128 * 1024).map(|_| random.next() as u8).collect() }
    }

    /// Replaces `out` by the payload of a message.
    pub(crate) fn put(&self, out: &mut Vec<u8>, connection: u64, stream: usize, number: u64) {
        out.clear();
        out.extend(connection.to_le_bytes());
        out.push(stream as u8);
        out.extend(number.to_le_bytes());
        out.extend(&self.block[body(connection, number)]);
    }

    /// The stream and the number of a message. `None` if a byte is wrong.
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

/// The part of the block that a message has after its numbers. Most messages are short. Some need a longer form of
/// the header, or are large enough not to be copied.
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
    fn a_changed_payload_is_refused() {
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
