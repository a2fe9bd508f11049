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

/// How far a compressed message may refer back, in bytes.
const WINDOW: usize = 32 * 1024;

/// A repeated sequence of encoded messages of one size, and the replies to them.
pub(crate) struct Script {
    frames: Stream,
    replies: Replies,
}

/// What the server must return.
enum Replies {
    /// The frames.
    Unchanged,
    Exact(Stream),
    /// Frames that inflate to the messages.
    Compressed(Plain),
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
                replies: if raw { Replies::Unchanged } else { Replies::Exact(stream(None)) },
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
            replies: match raw {
                true => Replies::Unchanged,
                false => Replies::Exact(Stream::flat(replies, messages)),
            },
        }
    }

    /// These frames. The replies must inflate to the messages; without any, they must be the frames.
    pub(crate) fn compressed(frames: &[Vec<u8>], messages: Option<Plain>) -> Self {
        let replies = messages.map_or(Replies::Unchanged, Replies::Compressed);
        Self { frames: Stream::uneven(frames), replies }
    }

    /// The frames of the sequence.
    pub(crate) fn frames(&self) -> &Stream {
        &self.frames
    }

    /// The replies to the frames, unless they are compressed.
    pub(crate) fn replies(&self) -> &Stream {
        match &self.replies {
            Replies::Exact(replies) => replies,
            Replies::Unchanged | Replies::Compressed(_) => &self.frames,
        }
    }

    /// What the replies inflate to, if they are compressed.
    pub(crate) fn plain(&self) -> Option<&Plain> {
        match &self.replies {
            Replies::Compressed(plain) => Some(plain),
            Replies::Unchanged | Replies::Exact(_) => None,
        }
    }

    /// Whether the replies are the unchanged frames.
    pub(crate) fn is_raw(&self) -> bool {
        matches!(self.replies, Replies::Unchanged)
    }
}

/// Messages of one size, which are sent again and again.
pub(crate) struct Plain {
    size: usize,
    count: u64,
    /// The messages, and before them the [`WINDOW`] that precedes them when they are repeated.
    bytes: Vec<u8>,
}

impl Plain {
    /// At least one message.
    pub(crate) fn new(messages: &[Vec<u8>]) -> Self {
        let all = messages.concat();
        let mut bytes = vec![0; WINDOW];
        for (byte, sent) in bytes.iter_mut().rev().zip(all.iter().rev().cycle()) {
            *byte = *sent;
        }
        bytes.extend(&all);
        Self { size: all.len() / messages.len(), count: messages.len() as u64, bytes }
    }

    /// Message `number`, from 0.
    pub(crate) fn message(&self, number: u64) -> &[u8] {
        &self.bytes[self.start(number)..][..self.size]
    }

    /// What was sent before message `number`, as far as the message may refer back.
    pub(crate) fn before(&self, number: u64) -> &[u8] {
        let sent = number.saturating_mul(self.size as u64).min(WINDOW as u64) as usize;
        let end = self.start(number);
        &self.bytes[end - sent..end]
    }

    fn start(&self, number: u64) -> usize {
        WINDOW + (number % self.count) as usize * self.size
    }
}

/// The bytes of a sequence of frames.
///
/// A large payload is periodic, and only the period is stored: so the bytes that `load` sends and compares stay in
/// the L1 or L2 cache, and `load` is faster than the servers that it measures.
pub(crate) struct Stream {
    frames: Lengths,
    /// The length of all frames.
    length: usize,
    body: Body,
}

/// The lengths of frames.
enum Lengths {
    Equal(usize),
    /// Where each frame ends.
    Uneven(Vec<usize>),
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
        let frame = bytes.len() / frames;
        Self { frames: Lengths::Equal(frame), length: bytes.len(), body: Body::Flat(bytes) }
    }

    fn uneven(frames: &[Vec<u8>]) -> Self {
        let ends = frames.iter().scan(0, |end, frame| {
            *end += frame.len();
            Some(*end)
        });
        let bytes = frames.concat();
        Self {
            frames: Lengths::Uneven(ends.collect()),
            length: bytes.len(),
            body: Body::Flat(bytes),
        }
    }

    /// Frames with payloads of `size` bytes that repeat `period`, masked if there is a key.
    fn periodic(
        opcode: u8,
        period: &[u8],
        size: usize,
        frames: usize,
        key: Option<[u8; 4]>,
    ) -> Self {
        let mut header = header(0x80 | opcode, size, key.is_some());
        let mut period = period.to_vec();
        if let Some(key) = key {
            header.extend(key);
            mask(&mut period, key);
        }
        let frame = header.len() + size;
        let length = frame * frames;
        Self { frames: Lengths::Equal(frame), length, body: Body::Periodic { header, period } }
    }

    /// The length of the next `frames` frames, the first of which starts at `position`.
    pub(crate) fn span(&self, position: usize, frames: usize) -> usize {
        match &self.frames {
            Lengths::Equal(frame) => frames * frame,
            Lengths::Uneven(ends) => {
                let before = ends.partition_point(|&end| end <= position);
                let rounds = (before + frames) / ends.len() * self.length;
                let last = (before + frames) % ends.len();
                rounds + if last == 0 { 0 } else { ends[last - 1] } - position
            }
        }
    }

    /// The number of frames that end in the `length` bytes from `position` on, and how many bytes of the next frame
    /// follow.
    pub(crate) fn ends(&self, position: usize, length: usize) -> (usize, usize) {
        let end = position + length;
        match &self.frames {
            Lengths::Equal(frame) => (end / frame - position / frame, end % frame),
            Lengths::Uneven(ends) => {
                let before = |position| ends.partition_point(|&end| end <= position);
                let last = before(end % self.length);
                let start = if last == 0 { 0 } else { ends[last - 1] };
                let frames = end / self.length * ends.len() + last - before(position);
                (frames, end % self.length - start)
            }
        }
    }

    /// Whether a frame starts at `position`.
    pub(crate) fn is_start(&self, position: usize) -> bool {
        self.ends(position, 0).1 == 0
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
                let whole = self.span(0, 1);
                let (frame, within) = (position / whole, position % whole);
                let Some(within_payload) = within.checked_sub(header.len()) else {
                    return &header[within..];
                };
                let part = &period[(start(frame, period.len()) + within_payload) % period.len()..];
                &part[..part.len().min(whole - within)]
            }
        }
    }
}

/// Appends a frame with the FIN bit, masked if there is a key.
pub(crate) fn put(out: &mut Vec<u8>, opcode: u8, payload: &[u8], key: Option<[u8; 4]>) {
    put_first(out, 0x80 | opcode, payload, key);
}

/// Appends a frame with this first byte, masked if there is a key.
pub(crate) fn put_first(out: &mut Vec<u8>, first: u8, payload: &[u8], key: Option<[u8; 4]>) {
    out.extend(header(first, payload.len(), key.is_some()));
    out.extend(key.iter().flatten());
    let at = out.len();
    out.extend(payload);
    if let Some(key) = key {
        mask(&mut out[at..], key);
    }
}

/// The header of a frame with this first byte, without the masking key.
fn header(first: u8, size: usize, masked: bool) -> Vec<u8> {
    let mut header = vec![first];
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
                let (frame, reply) = (script.frames().span(0, 1), script.replies().span(0, 1));
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
    fn frames_of_different_lengths_are_counted() {
        let frames = [vec![1; 3], vec![2; 5], vec![3; 1]];
        let stream = Stream::uneven(&frames);
        assert_eq!(all(&stream), frames.concat());
        assert_eq!([0, 3, 8].map(|start| stream.span(start, 1)), [3, 5, 1]);
        assert_eq!((stream.span(3, 2), stream.span(3, 3), stream.span(8, 7)), (6, 9, 19));
        let starts: Vec<_> = (0..9).filter(|&position| stream.is_start(position)).collect();
        assert_eq!(starts, [0, 3, 8]);
        for position in 0..9 {
            for length in 0..30 {
                let passed = position + 1..=position + length;
                let is_end = |at: &usize| [0, 3, 8].contains(&(at % 9));
                let frames = passed.clone().filter(is_end).count();
                let last = (0..=position + length).rfind(is_end).unwrap();
                assert_eq!(stream.ends(position, length), (frames, position + length - last));
            }
        }
    }

    #[test]
    fn repeated_messages_are_preceded_by_those_before_them() {
        let messages = [vec![1; 10_000], vec![2; 10_000], vec![3; 10_000]];
        let plain = Plain::new(&messages);
        let sent = messages.concat().repeat(4);
        for number in 0..12 {
            let (before, rest) = sent.split_at(number * 10_000);
            let before = &before[before.len().saturating_sub(WINDOW)..];
            assert!(plain.before(number as u64) == before, "{number}");
            assert!(plain.message(number as u64) == &rest[..10_000], "{number}");
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
