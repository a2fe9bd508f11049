//! Builds and parses frames (RFC 6455 §5.2), with any opcode, bits and form of the length.

use anyloop_proto::Role;

/// The masking key of each frame that is built for a client: the key of RFC 6455 §5.7.
pub const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The opcode of a continuation frame.
pub const CONTINUATION: u8 = 0x0;
/// The opcode of a text message.
pub const TEXT: u8 = 0x1;
/// The opcode of a binary message.
pub const BINARY: u8 = 0x2;
/// The opcode of a Close frame.
pub const CLOSE: u8 = 0x8;
/// The opcode of a ping.
pub const PING: u8 = 0x9;
/// The opcode of a pong.
pub const PONG: u8 = 0xa;

/// The role at the other end.
#[must_use]
pub const fn other(role: Role) -> Role {
    match role {
        Role::Client => Role::Server,
        Role::Server => Role::Client,
    }
}

/// One frame. Its payload is not masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The FIN bit: whether the message ends with this frame.
    pub fin: bool,
    /// The reserved bits, as in the first byte: `0x40`, `0x20`, `0x10`.
    pub rsv: u8,
    /// The opcode, reserved ones included.
    pub opcode: u8,
    /// The payload.
    pub payload: Vec<u8>,
}

/// A frame with this opcode and the FIN bit.
pub fn frame(opcode: u8, payload: impl AsRef<[u8]>) -> Frame {
    Frame { fin: true, rsv: 0, opcode, payload: payload.as_ref().to_vec() }
}

/// The last fragment of a message.
pub fn continuation(payload: impl AsRef<[u8]>) -> Frame {
    frame(CONTINUATION, payload)
}

/// A text message.
pub fn text(payload: impl AsRef<[u8]>) -> Frame {
    frame(TEXT, payload)
}

/// A binary message.
pub fn binary(payload: impl AsRef<[u8]>) -> Frame {
    frame(BINARY, payload)
}

/// A Close frame with a code and a reason.
#[must_use]
pub fn close(code: u16, reason: &str) -> Frame {
    frame(CLOSE, [&code.to_be_bytes()[..], reason.as_bytes()].concat())
}

/// A ping.
pub fn ping(payload: impl AsRef<[u8]>) -> Frame {
    frame(PING, payload)
}

/// A pong.
pub fn pong(payload: impl AsRef<[u8]>) -> Frame {
    frame(PONG, payload)
}

impl Frame {
    /// The same frame without the FIN bit: more fragments follow.
    #[must_use]
    pub fn more(self) -> Self {
        Self { fin: false, ..self }
    }

    /// The same frame with these reserved bits.
    #[must_use]
    pub fn rsv(self, rsv: u8) -> Self {
        Self { rsv, ..self }
    }

    /// The code of a Close frame. `None` if this is not one, or it has no code.
    #[must_use]
    pub fn close_code(&self) -> Option<u16> {
        match self.payload[..] {
            [high, low, ..] if self.opcode == CLOSE => Some(u16::from_be_bytes([high, low])),
            _ => None,
        }
    }

    /// The bytes of the frame as `from` sends it: masked with [`KEY`] by a client.
    #[must_use]
    pub fn bytes(&self, from: Role) -> Vec<u8> {
        self.masked_bytes((from == Role::Client).then_some(KEY))
    }

    /// The bytes of the frame, masked with this key if there is one.
    #[must_use]
    pub fn masked_bytes(&self, key: Option<[u8; 4]>) -> Vec<u8> {
        let first = if self.fin { 0x80 } else { 0 } | self.rsv | self.opcode;
        let mut bytes = keyed_header(first, self.payload.len() as u64, key);
        let start = bytes.len();
        bytes.extend_from_slice(&self.payload);
        if let Some(key) = key {
            apply_mask(&mut bytes[start..], key);
        }
        bytes
    }

    /// Parses the frame at the start of `bytes`. Also returns its size; `None` if it is not complete.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let header = Header::parse(bytes)?;
        let end = header.size + usize::try_from(header.payload_len).ok()?;
        let mut payload = bytes.get(header.size..end)?.to_vec();
        if let Some(key) = header.key {
            apply_mask(&mut payload, key);
        }
        let Header { fin, rsv, opcode, .. } = header;
        Some((Self { fin, rsv, opcode, payload }, end))
    }
}

/// The bytes of several frames, as `from` sends them.
#[must_use]
pub fn stream(frames: &[Frame], from: Role) -> Vec<u8> {
    frames.iter().flat_map(|frame| frame.bytes(from)).collect()
}

/// The bytes of a header that declares `len` bytes of payload, in the shortest form.
#[must_use]
pub fn declare(first: u8, len: u64, from: Role) -> Vec<u8> {
    keyed_header(first, len, (from == Role::Client).then_some(KEY))
}

/// The bytes of a header with any length field: `short` is its seven bits, `extended` the bytes that follow them.
#[must_use]
pub fn declare_as(first: u8, short: u8, extended: &[u8], from: Role) -> Vec<u8> {
    header_as(first, short, extended, (from == Role::Client).then_some(KEY))
}

fn keyed_header(first: u8, len: u64, key: Option<[u8; 4]>) -> Vec<u8> {
    match len {
        0..=125 => header_as(first, len as u8, &[], key),
        126..=0xffff => header_as(first, 126, &(len as u16).to_be_bytes(), key),
        _ => header_as(first, 127, &len.to_be_bytes(), key),
    }
}

fn header_as(first: u8, short: u8, extended: &[u8], key: Option<[u8; 4]>) -> Vec<u8> {
    let mask_bit = if key.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first, mask_bit | short];
    bytes.extend_from_slice(extended);
    bytes.extend(key.into_iter().flatten());
    bytes
}

/// XORs octet i with octet i modulo 4 of the key (RFC 6455 §5.3).
pub fn apply_mask(payload: &mut [u8], key: [u8; 4]) {
    payload.iter_mut().zip(key.into_iter().cycle()).for_each(|(byte, key)| *byte ^= key);
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The FIN bit.
    pub fin: bool,
    /// The reserved bits, as in the first byte.
    pub rsv: u8,
    /// The opcode.
    pub opcode: u8,
    /// The masking key, if the frame is masked.
    pub key: Option<[u8; 4]>,
    /// The length of the payload.
    pub payload_len: u64,
    /// The size of the header itself.
    pub size: usize,
}

impl Header {
    /// Parses the header at the start of `bytes`. `None` if it is not complete.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (&first, &second) = (bytes.first()?, bytes.get(1)?);
        let (payload_len, mut size) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
            127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
            len => (u64::from(len), 2),
        };
        let mut key = None;
        if second & 0x80 != 0 {
            key = Some(bytes.get(size..size + 4)?.try_into().ok()?);
            size += 4;
        }
        let (fin, rsv, opcode) = (first & 0x80 != 0, first & 0x70, first & 0x0f);
        Some(Self { fin, rsv, opcode, key, payload_len, size })
    }

    /// Checks the masking and the form of the length.
    ///
    /// # Panics
    ///
    /// If the frame is not masked as `from` must (RFC 6455 §5.1), or its length is not in the shortest
    /// form (§5.2).
    #[track_caller]
    pub fn check(&self, from: Role) {
        let masked = self.key.is_some();
        assert_eq!(masked, from == Role::Client, "only a client masks its frames: {self:x?}");
        let shortest = match self.payload_len {
            0..=125 => 2,
            126..=0xffff => 4,
            _ => 10,
        };
        let size = self.size - if masked { 4 } else { 0 };
        assert_eq!(size, shortest, "the length is not in its shortest form: {self:x?}");
    }
}

/// Parses the complete frames at the start of `bytes`, which `from` has sent. Also returns the rest: the
/// beginning of a frame that is not complete.
///
/// # Panics
///
/// If a header is not one that `from` may send: see [`Header::check`].
#[must_use]
#[track_caller]
pub fn read(bytes: &[u8], from: Role) -> (Vec<Frame>, &[u8]) {
    let mut frames = Vec::new();
    let mut rest = bytes;
    while let Some(header) = Header::parse(rest) {
        header.check(from);
        let Some((frame, size)) = Frame::parse(rest) else { break };
        frames.push(frame);
        rest = &rest[size..];
    }
    (frames, rest)
}

/// Parses the frames that `bytes` consists of, which `from` has sent.
///
/// # Panics
///
/// If the last frame is not complete, or a header is not one that `from` may send.
#[must_use]
#[track_caller]
pub fn read_all(bytes: &[u8], from: Role) -> Vec<Frame> {
    let (frames, rest) = read(bytes, from);
    assert!(rest.is_empty(), "the last frame is not complete: {rest:x?}");
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455 §5.7.
    #[test]
    fn the_examples_of_the_rfc() {
        assert_eq!(text("Hello").bytes(Role::Server), b"\x81\x05Hello");
        let masked = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        assert_eq!(text("Hello").bytes(Role::Client), masked);
        let fragments = [text("Hel").more(), continuation("lo")];
        assert_eq!(stream(&fragments, Role::Server), b"\x01\x03Hel\x80\x02lo");
        assert_eq!(declare(0x82, 256, Role::Server), b"\x82\x7e\x01\x00");
        assert_eq!(declare(0x82, 65536, Role::Server), b"\x82\x7f\0\0\0\0\0\x01\0\0");
        assert_eq!(read_all(masked, Role::Client), [text("Hello")]);
    }

    #[test]
    fn a_frame_that_is_built_can_be_parsed() {
        for len in [0, 1, 125, 126, 0xffff, 0x1_0000] {
            for from in [Role::Client, Role::Server] {
                let frames = [frame(0x7, vec![7; len]).more().rsv(0x50), close(1000, "bye")];
                let bytes = stream(&frames, from);
                assert_eq!(read_all(&bytes, from), frames);
                let cut = &bytes[..bytes.len() - 1];
                let (whole, rest) = read(cut, from);
                assert_eq!((whole, rest.len()), (frames[..1].to_vec(), rest.len()));
                assert!(bytes.ends_with(&[rest, &bytes[bytes.len() - 1..]].concat()));
            }
        }
    }

    #[test]
    fn only_a_close_has_a_code() {
        assert_eq!(close(1001, "x").close_code(), Some(1001));
        assert_eq!(frame(CLOSE, "").close_code(), None);
        assert_eq!(binary([3, 232]).close_code(), None);
    }

    #[test]
    #[should_panic(expected = "only a client masks")]
    fn check_fails_for_a_server_that_masks() {
        let _ = read(&text("a").bytes(Role::Client), Role::Server);
    }

    #[test]
    #[should_panic(expected = "shortest form")]
    fn check_fails_for_a_length_not_in_its_shortest_form() {
        let _ = read(&declare_as(0x82, 126, &[0, 125], Role::Server), Role::Server);
    }

    #[test]
    #[should_panic(expected = "not complete")]
    fn read_all_fails_for_an_incomplete_frame() {
        let _ = read_all(b"\x81\x05Hell", Role::Server);
    }
}
