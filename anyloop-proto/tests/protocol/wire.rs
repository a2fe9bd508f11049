//! Frames as bytes, built and read by hand (RFC 6455 §5.2).

use anyloop_proto::Role;

/// The masking key of every frame that a test sends as a client: the one of RFC 6455 §5.7.
pub(crate) const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The role at the other end.
pub(crate) const fn other(role: Role) -> Role {
    match role {
        Role::Client => Role::Server,
        Role::Server => Role::Client,
    }
}

/// One frame, its payload unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) fin: bool,
    /// As in the frame's first byte: `0x40`, `0x20`, `0x10`.
    pub(crate) rsv: u8,
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn frame(opcode: u8, payload: impl AsRef<[u8]>) -> Frame {
    Frame { fin: true, rsv: 0, opcode, payload: payload.as_ref().to_vec() }
}

pub(crate) fn continuation(payload: impl AsRef<[u8]>) -> Frame {
    frame(0x0, payload)
}

pub(crate) fn text(payload: impl AsRef<[u8]>) -> Frame {
    frame(0x1, payload)
}

pub(crate) fn binary(payload: impl AsRef<[u8]>) -> Frame {
    frame(0x2, payload)
}

pub(crate) fn close(code: u16, reason: &str) -> Frame {
    frame(0x8, [&code.to_be_bytes()[..], reason.as_bytes()].concat())
}

pub(crate) fn ping(payload: impl AsRef<[u8]>) -> Frame {
    frame(0x9, payload)
}

pub(crate) fn pong(payload: impl AsRef<[u8]>) -> Frame {
    frame(0xa, payload)
}

impl Frame {
    /// The same, but not the last of its message.
    pub(crate) fn more(self) -> Self {
        Self { fin: false, ..self }
    }

    pub(crate) fn rsv(self, rsv: u8) -> Self {
        Self { rsv, ..self }
    }

    /// The code of a Close frame, if there is one.
    pub(crate) fn code(&self) -> Option<u16> {
        let &[high, low, ..] = &self.payload[..] else { return None };
        Some(u16::from_be_bytes([high, low]))
    }

    /// The frame's bytes, as `from` sends them.
    pub(crate) fn bytes(&self, from: Role) -> Vec<u8> {
        let first = if self.fin { 0x80 } else { 0 } | self.rsv | self.opcode;
        let mut bytes = declare(first, self.payload.len() as u64, from);
        let start = bytes.len();
        bytes.extend_from_slice(&self.payload);
        if from == Role::Client {
            apply(&mut bytes[start..], KEY);
        }
        bytes
    }
}

/// A header with the shortest form of `len`, with a masking key if `from` is the client.
pub(crate) fn declare(first: u8, len: u64, from: Role) -> Vec<u8> {
    match len {
        0..=125 => declare_as(first, len as u8, &[], from),
        126..=0xffff => declare_as(first, 126, &(len as u16).to_be_bytes(), from),
        _ => declare_as(first, 127, &len.to_be_bytes(), from),
    }
}

/// A header with any length field: seven bits, and what follows them.
pub(crate) fn declare_as(first: u8, short: u8, extended: &[u8], from: Role) -> Vec<u8> {
    let masked = if from == Role::Client { 0x80 } else { 0 };
    let mut bytes = vec![first, masked | short];
    bytes.extend_from_slice(extended);
    if from == Role::Client {
        bytes.extend_from_slice(&KEY);
    }
    bytes
}

/// The bytes of several frames.
pub(crate) fn stream(frames: &[Frame], from: Role) -> Vec<u8> {
    frames.iter().flat_map(|frame| frame.bytes(from)).collect()
}

/// Octet i is XORed with octet i modulo 4 of the key (RFC 6455 §5.3).
fn apply(payload: &mut [u8], key: [u8; 4]) {
    for (i, byte) in payload.iter_mut().enumerate() {
        *byte ^= key[i % 4];
    }
}

/// Reads the whole frames at the start of `bytes`, which `from` has sent; the rest is what is left
/// of a frame that was cut off.
///
/// # Panics
///
/// If a frame is not masked as `from` must (RFC 6455 §5.1), or its length is not in the shortest
/// form.
pub(crate) fn read(bytes: &[u8], from: Role) -> (Vec<Frame>, &[u8]) {
    let mut frames = Vec::new();
    let mut rest = bytes;
    while let Some((frame, size)) = read_one(rest, from) {
        frames.push(frame);
        rest = &rest[size..];
    }
    (frames, rest)
}

fn read_one(bytes: &[u8], from: Role) -> Option<(Frame, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let masked = second & 0x80 != 0;
    assert_eq!(masked, from == Role::Client, "masked by the client, and by no one else");
    let (len, mut at) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap())), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()), 10),
        len => (u64::from(len), 2),
    };
    let shortest = match len {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    };
    assert_eq!(at, shortest, "the length is in its shortest form");
    let mut key = [0; 4];
    if masked {
        key = bytes.get(at..at + 4)?.try_into().unwrap();
        at += 4;
    }
    let end = at + usize::try_from(len).unwrap();
    let mut payload = bytes.get(at..end)?.to_vec();
    apply(&mut payload, key);
    let (fin, rsv, opcode) = (first & 0x80 != 0, first & 0x70, first & 0x0f);
    Some((Frame { fin, rsv, opcode, payload }, end))
}
