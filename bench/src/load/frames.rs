//! The messages of a connection, and the replies that they require.

use crate::random::Random;

/// The content of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Any bytes, as binary messages.
    Binary,
    /// Printable ASCII, as text messages.
    Ascii,
    /// Characters of one to four bytes of UTF-8, as text messages.
    Mixed,
}

/// The largest payload that is stored completely. See [`Stream`].
pub(crate) const SMALL: usize = 64 * 1024;

/// The period of larger payloads, in bytes: a multiple of the size of a masking key, and not a usual size of
/// buffers, so that moved or lost bytes are detected.
const PERIOD: usize = 4 * 8191;

/// A repeated sequence of encoded messages of one size, and the replies to them.
pub(crate) struct Script {
    frames: Stream,
    /// `None`: the server must return the frames unchanged.
    replies: Option<Stream>,
}

impl Script {
    /// `messages` messages of `size` bytes. `seed` determines their payloads and masking keys. A `raw` server must
    /// return the frames unchanged, another server unmasked.
    pub(crate) fn new(
        content: Content,
        size: usize,
        messages: usize,
        seed: usize,
        raw: bool,
    ) -> Self {
        let opcode = if content == Content::Binary { 2 } else { 1 };
        let mut random = Random::new(seed as u64);
        let key = |random: &mut Random| (random.next() as u32 | 0x0100_0001).to_le_bytes();
        if size > SMALL && content != Content::Mixed {
            let period = payload(content, PERIOD, &mut random);
            let key = key(&mut random);
            let stream = |key| Stream::periodic(opcode, &period, size, messages, key);
            return Self {
                frames: stream(Some(key)),
                replies: if raw { None } else { Some(stream(None)) },
            };
        }
        let mut frames = Vec::with_capacity(messages * (size + 14));
        let mut replies = Vec::with_capacity(if raw { 0 } else { messages * (size + 10) });
        for _ in 0..messages {
            let payload = payload(content, size, &mut random);
            put(&mut frames, opcode, &payload, Some(key(&mut random)));
            if !raw {
                put(&mut replies, opcode, &payload, None);
            }
        }
        Self {
            frames: Stream::flat(frames, messages),
            replies: if raw { None } else { Some(Stream::flat(replies, messages)) },
        }
    }

    /// The frames of the sequence.
    pub(crate) fn frames(&self) -> &Stream {
        &self.frames
    }

    /// The replies to the frames.
    pub(crate) fn replies(&self) -> &Stream {
        self.replies.as_ref().unwrap_or(&self.frames)
    }

    /// Whether the replies are the unchanged frames.
    pub(crate) fn is_raw(&self) -> bool {
        self.replies.is_none()
    }
}

/// The bytes of a sequence of frames of the same length.
///
/// A large payload is periodic, and only the period is stored: so the bytes that `load` sends and compares stay in
/// the L1 or L2 cache, and `load` is faster than the servers that it measures.
pub(crate) struct Stream {
    /// The length of a frame.
    frame: usize,
    /// The length of all frames.
    length: usize,
    body: Body,
}

enum Body {
    /// All bytes.
    Flat(Vec<u8>),
    /// The header of all frames, and the period of their payloads; see [`start`].
    Periodic { header: Vec<u8>, period: Vec<u8> },
}

/// The offset in the period at which the payload of a frame starts. Up to some thousands of frames all differ.
fn start(frame: usize, period: usize) -> usize {
    (frame * 4 * 997) % period
}

impl Stream {
    fn flat(bytes: Vec<u8>, frames: usize) -> Self {
        Self { frame: bytes.len() / frames, length: bytes.len(), body: Body::Flat(bytes) }
    }

    /// Frames with payloads of `size` bytes that repeat `period`, masked if there is a key.
    fn periodic(
        opcode: u8,
        period: &[u8],
        size: usize,
        frames: usize,
        key: Option<[u8; 4]>,
    ) -> Self {
        let mut header = header(opcode, size, key.is_some());
        let mut period = period.to_vec();
        if let Some(key) = key {
            header.extend(key);
            mask(&mut period, key);
        }
        let frame = header.len() + size;
        Self { frame, length: frame * frames, body: Body::Periodic { header, period } }
    }

    /// The length of each frame.
    pub(crate) fn frame(&self) -> usize {
        self.frame
    }

    /// The length of all frames.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Some bytes from a position on, at least one. The position must be less than the length.
    pub(crate) fn at(&self, position: usize) -> &[u8] {
        match &self.body {
            Body::Flat(bytes) => &bytes[position..],
            Body::Periodic { header, period } => {
                let (frame, within) = (position / self.frame, position % self.frame);
                let Some(within_payload) = within.checked_sub(header.len()) else {
                    return &header[within..];
                };
                let part = &period[(start(frame, period.len()) + within_payload) % period.len()..];
                &part[..part.len().min(self.frame - within)]
            }
        }
    }
}

/// Appends a frame with the FIN bit, masked if there is a key.
pub(crate) fn put(out: &mut Vec<u8>, opcode: u8, payload: &[u8], key: Option<[u8; 4]>) {
    out.extend(header(opcode, payload.len(), key.is_some()));
    out.extend(key.iter().flatten());
    let at = out.len();
    out.extend(payload);
    if let Some(key) = key {
        mask(&mut out[at..], key);
    }
}

/// The header of a frame with the FIN bit, without the masking key.
fn header(opcode: u8, size: usize, masked: bool) -> Vec<u8> {
    let mut header = vec![0x80 | opcode];
    let masked = if masked { 0x80 } else { 0 };
    match size {
        0..=125 => header.push(masked | size as u8),
        126..=0xffff => {
            header.push(masked | 126);
            header.extend((size as u16).to_be_bytes());
        }
        _ => {
            header.push(masked | 127);
            header.extend((size as u64).to_be_bytes());
        }
    }
    header
}

fn mask(payload: &mut [u8], key: [u8; 4]) {
    for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

fn payload(content: Content, size: usize, random: &mut Random) -> Vec<u8> {
    match content {
        Content::Binary => (0..size).map(|_| random.next() as u8).collect(),
        Content::Ascii => (0..size).map(|_| b' ' + random.below(95) as u8).collect(),
        Content::Mixed => {
            let mut text = String::with_capacity(size);
            while text.len() < size {
                let character = ['e', 'é', '語', '🦀'][random.below(4)];
                let fits = text.len() + character.len_utf8() <= size;
                text.push(if fits { character } else { '.' });
            }
            text.into_bytes()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_as_in_rfc_6455_section_5_7() {
        let mut frame = Vec::new();
        put(&mut frame, 1, b"Hello", None);
        assert_eq!(frame, [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        frame.clear();
        put(&mut frame, 1, b"Hello", Some([0x37, 0xfa, 0x21, 0x3d]));
        assert_eq!(frame, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
        frame.clear();
        put(&mut frame, 2, &[7; 256], None);
        assert_eq!(frame[..5], [0x82, 0x7e, 0x01, 0x00, 7]);
        frame.clear();
        put(&mut frame, 2, &[7; 65536], None);
        assert_eq!(frame[..11], [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0, 7]);
    }

    /// All bytes of a stream. Asserts that [`Stream::at`] is consistent at all positions.
    fn all(stream: &Stream) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < stream.length() {
            bytes.extend(stream.at(bytes.len()));
        }
        assert_eq!(bytes.len(), stream.length());
        for position in (0..bytes.len()).step_by(1021) {
            let part = stream.at(position);
            assert!(!part.is_empty());
            assert_eq!(bytes[position..][..part.len()], *part);
        }
        bytes
    }

    #[test]
    fn replies_are_the_frames_unmasked_at_every_length_of_the_header() {
        for size in [0, 1, 64, 125, 126, 65_535, 65_536, 65_537, 1 << 20] {
            for content in [Content::Binary, Content::Ascii, Content::Mixed] {
                let script = Script::new(content, size, 3, 1, false);
                let (frame, reply) = (script.frames().frame(), script.replies().frame());
                assert_eq!(frame, reply + 4);
                let (frames, replies) = (all(script.frames()), all(script.replies()));
                assert_eq!((frames.len(), replies.len()), (3 * frame, 3 * reply));
                for (frame, reply) in frames.chunks(frame).zip(replies.chunks(reply)) {
                    let at = reply.len() - size;
                    let mut payload = frame[at + 4..].to_vec();
                    mask(&mut payload, frame[at..at + 4].try_into().unwrap());
                    assert!(reply[at..] == payload);
                    assert_eq!(frame[0], reply[0]);
                    assert_eq!(frame[1], reply[1] | 0x80);
                    assert_eq!(frame[2..at], reply[2..at]);
                    assert!(content == Content::Binary || str::from_utf8(&payload).is_ok());
                }
            }
        }
    }

    #[test]
    fn a_raw_server_returns_the_frames() {
        for size in [64, 1 << 20] {
            let script = Script::new(Content::Binary, size, 2, 1, true);
            assert!(all(script.replies()) == all(script.frames()));
            assert!(script.is_raw());
        }
    }

    #[test]
    fn text_is_utf_8_of_the_requested_size() {
        for content in [Content::Ascii, Content::Mixed] {
            for size in 0..200 {
                let text = payload(content, size, &mut Random::new(size as u64));
                assert_eq!(text.len(), size);
                assert!(str::from_utf8(&text).is_ok());
            }
        }
    }

    #[test]
    fn connections_and_messages_differ() {
        for size in [64, 1 << 20] {
            let replies = |seed| all(Script::new(Content::Binary, size, 2, seed, false).replies());
            assert!(replies(1) != replies(2));
            let (first, second) = (replies(1), replies(1).split_off(replies(1).len() / 2));
            assert!(first[..second.len()] != second);
        }
    }
}
