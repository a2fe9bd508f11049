//! permessage-deflate (RFC 7692): what was agreed, messages compressed ahead, and checking compressed replies.

use std::cell::RefCell;

use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Inflate, InflateFlush};

use crate::Failure;
use crate::frames::{self, Plain, Script};
use crate::random::Random;
use crate::text::Texts;

/// What ends a flushed block, and is not sent (RFC 7692 §7.2.1).
const FLUSH_MARKER: [u8; 4] = [0, 0, 0xff, 0xff];

/// The first byte of a compressed text message: FIN, RSV1, and the opcode.
pub(crate) const COMPRESSED_TEXT: u8 = 0xc1;

/// What a server has agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Agreed {
    /// The window of what the client sends, as a power of two.
    pub(crate) window_bits: u8,
}

impl Agreed {
    /// What holds for a server that agrees to any offer, as the floor, which is not asked.
    pub(crate) const ANY: Self = Self { window_bits: 15 };

    /// From the value of `Sec-WebSocket-Extensions` in the response.
    pub(crate) fn parse(answer: &str) -> Result<Self, Failure> {
        let mut words = answer.split(';').map(str::trim);
        if words.next() != Some("permessage-deflate") {
            return Err(format!("the server has agreed to something else: {answer}").into());
        }
        let mut agreed = Self::ANY;
        for word in words {
            if let Some(bits) = word.strip_prefix("client_max_window_bits=") {
                let bits =
                    bits.trim_matches('"').parse().ok().filter(|bits| (9..=15).contains(bits));
                agreed.window_bits =
                    bits.ok_or_else(|| format!("the window is not 9 to 15 bits: {answer}"))?;
            }
        }
        Ok(agreed)
    }
}

/// The bytes of a script's messages: more than any window, so that none is found again in it.
const CYCLE: usize = 64 * 1024;

/// A script of texts of `size` bytes, at least `messages`, each compressed by itself. `seed` determines them. A `raw`
/// server must return the frames unchanged.
pub(crate) fn script(
    agreed: Agreed,
    size: usize,
    messages: usize,
    seed: usize,
    raw: bool,
) -> Script {
    let (mut texts, mut random) = (Texts::new(seed), Random::new(seed as u64));
    let count = messages.max(CYCLE / size.max(64)).max(1);
    let messages: Vec<_> = (0..count).map(|_| texts.next(size)).collect();
    let frames: Vec<_> = messages
        .iter()
        .map(|message| {
            let key = (random.next() as u32 | 0x0100_0001).to_le_bytes();
            let mut frame = Vec::new();
            put(&mut frame, agreed, message, Some(key));
            frame
        })
        .collect();
    Script::compressed(&frames, (!raw).then(|| Plain::new(&messages)))
}

/// Appends a compressed text message, masked if there is a key.
pub(crate) fn put(out: &mut Vec<u8>, agreed: Agreed, message: &[u8], key: Option<[u8; 4]>) {
    frames::put_first(out, COMPRESSED_TEXT, &compress(agreed, message), key);
}

/// Compresses a message by itself: it refers to no other one, with or without context takeover.
fn compress(agreed: Agreed, message: &[u8]) -> Vec<u8> {
    let config = DeflateConfig {
        window_bits: -i32::from(agreed.window_bits), // negative: without zlib's header
        ..DeflateConfig::new(6)
    };
    let mut deflate = Deflate::new_with_config(config);
    let mut compressed = vec![0; message.len() + message.len() / 8 + 64];
    let outcome = deflate.compress(message, &mut compressed, DeflateFlush::SyncFlush);
    assert!(outcome.is_ok() && deflate.total_in() == message.len() as u64, "too little room");
    compressed.truncate(deflate.total_out() as usize);
    assert_eq!(compressed.split_off(compressed.len() - FLUSH_MARKER.len()), FLUSH_MARKER);
    if message.is_empty() {
        return vec![0]; // RFC 7692 §7.2.3.6
    }
    compressed
}

thread_local! {
    /// One state of zlib for all connections, and memory for a message.
    static INFLATE: RefCell<(Inflate, Vec<u8>)> = RefCell::new((Inflate::new(false, 15), Vec::new()));
}

/// Whether the payload of reply `number` inflates to what was sent. It may refer to all replies before it.
pub(crate) fn is_reply(plain: &Plain, number: u64, payload: &[u8]) -> bool {
    let expected = plain.message(number);
    INFLATE.with_borrow_mut(|(inflate, message)| {
        inflate.reset(false);
        if inflate.set_dictionary(plain.before(number)).is_err() {
            return false;
        }
        message.resize(expected.len() + 1, 0);
        for part in [payload, &FLUSH_MARKER] {
            let (read, written) = (inflate.total_in(), inflate.total_out() as usize);
            let outcome =
                inflate.decompress(part, &mut message[written..], InflateFlush::SyncFlush);
            if outcome.is_err() || inflate.total_in() - read != part.len() as u64 {
                return false;
            }
        }
        message[..inflate.total_out() as usize] == *expected
    })
}

/// The first byte and the payload of the frame at the start of `data`, and the length of the frame. `None` if it is not
/// complete. Its length does not exceed `data` in a frame that a server may send.
pub(crate) fn frame(data: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (&[first, length], rest) = data.split_first_chunk()?;
    let (header, length): (usize, _) = match length & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?),
        length => (2, usize::from(length)),
    };
    let end = header.checked_add(length)?;
    Some((first, data.get(header..end)?, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_limits_the_window() {
        let agreed = |answer| Agreed::parse(answer).ok().map(|agreed| agreed.window_bits);
        assert_eq!(agreed("permessage-deflate"), Some(15));
        assert_eq!(agreed("permessage-deflate; client_no_context_takeover"), Some(15));
        assert_eq!(
            agreed("permessage-deflate;server_max_window_bits=9; client_max_window_bits=10"),
            Some(10)
        );
        assert_eq!(agreed("permessage-deflate; client_max_window_bits=\"12\""), Some(12));
        for wrong in ["", "permessage-bzip2", "permessage-deflate; client_max_window_bits=8"] {
            assert_eq!(agreed(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_reply_may_refer_to_those_before_it_and_must_be_what_was_sent() {
        let mut texts = Texts::new(1);
        let messages: Vec<_> = (0..3).map(|_| texts.next(2000)).collect();
        let plain = Plain::new(&messages);
        let mut server =
            Deflate::new_with_config(DeflateConfig { window_bits: -15, ..DeflateConfig::new(6) });
        for number in 0..50 {
            let mut compressed = vec![0; 4000];
            let start = server.total_out();
            let message = &messages[number % 3];
            server.compress(message, &mut compressed, DeflateFlush::SyncFlush).unwrap();
            compressed.truncate((server.total_out() - start) as usize - 4);
            assert!(number < 3 || compressed.len() < 200, "it refers to an earlier one");
            assert!(is_reply(&plain, number as u64, &compressed), "{number}");
            assert!(!is_reply(&plain, number as u64 + 1, &compressed), "{number}");
            assert!(
                !is_reply(&plain, number as u64, &compressed[..compressed.len() / 2]),
                "{number}"
            );
        }
    }

    #[test]
    fn empty_messages_have_a_byte() {
        let script = script(Agreed::ANY, 0, 2, 1, false);
        let plain = script.plain().unwrap();
        assert_eq!(plain.message(7), b"");
        assert!(is_reply(plain, 7, &compress(Agreed::ANY, b"")));
        assert!(!is_reply(plain, 7, &compress(Agreed::ANY, b"a")));
    }

    #[test]
    fn frames_are_divided_at_every_length_of_the_header() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let mut data = Vec::new();
            frames::put_first(&mut data, COMPRESSED_TEXT, &vec![7; length], None);
            let whole = data.len();
            assert_eq!(frame(&data[..whole - 1]), None);
            data.push(1);
            let (first, payload, end) = frame(&data).unwrap();
            assert_eq!((first, payload.len(), end), (COMPRESSED_TEXT, length, whole));
        }
    }
}
