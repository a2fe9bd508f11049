//! Frames and heads as bytes, built and read by hand (RFC 6455 §5.2), so that the code under test is
//! not its own judge.

use anyloop::proto::Role;

/// The masking key of every frame that a test sends as a client: the one of RFC 6455 §5.7.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The request of RFC 6455 §1.3, in essence.
pub(crate) const REQUEST: &str = "GET /chat HTTP/1.1\r\n\
    Host: localhost\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// What the answer to it begins with.
pub(crate) const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\n";

/// What opens a client whose nonce is all zeros.
pub(crate) const RESPONSE: &str = "HTTP/1.1 101 Switching Protocols\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n";

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
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn frame(opcode: u8, payload: impl AsRef<[u8]>) -> Frame {
    Frame { fin: true, opcode, payload: payload.as_ref().to_vec() }
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

    /// The frame's bytes, as `from` sends them.
    pub(crate) fn bytes(&self, from: Role) -> Vec<u8> {
        let first = if self.fin { 0x80 } else { 0 } | self.opcode;
        let masked = if from == Role::Client { 0x80 } else { 0 };
        let len = self.payload.len();
        let mut bytes = vec![first];
        match len {
            0..=125 => bytes.push(masked | len as u8),
            126..=0xffff => {
                bytes.push(masked | 126);
                bytes.extend_from_slice(&(len as u16).to_be_bytes());
            }
            _ => {
                bytes.push(masked | 127);
                bytes.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        let mut payload = self.payload.clone();
        if from == Role::Client {
            bytes.extend_from_slice(&KEY);
            apply(&mut payload, KEY);
        }
        bytes.extend_from_slice(&payload);
        bytes
    }
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

/// Reads the frames that `bytes` consists of, which `from` has sent.
///
/// # Panics
///
/// If a frame is cut off, or not masked as `from` must (RFC 6455 §5.1).
pub(crate) fn read(bytes: &[u8], from: Role) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (frame, size) = read_one(rest, from).expect("whole frames");
        frames.push(frame);
        rest = &rest[size..];
    }
    frames
}

fn read_one(bytes: &[u8], from: Role) -> Option<(Frame, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    assert_eq!(
        second & 0x80 != 0,
        from == Role::Client,
        "masked by the client, and by no one else"
    );
    let (len, mut at) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap())), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()), 10),
        len => (u64::from(len), 2),
    };
    let mut key = [0; 4];
    if from == Role::Client {
        key = bytes.get(at..at + 4)?.try_into().unwrap();
        at += 4;
    }
    let end = at + usize::try_from(len).unwrap();
    let mut payload = bytes.get(at..end)?.to_vec();
    apply(&mut payload, key);
    Some((Frame { fin: first & 0x80 != 0, opcode: first & 0x0f, payload }, end))
}

/// Splits what begins with a head of HTTP behind its blank line.
pub(crate) fn split_head(bytes: &[u8]) -> (&str, &[u8]) {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head") + 4;
    let (head, rest) = bytes.split_at(end);
    (std::str::from_utf8(head).expect("a head in ASCII"), rest)
}
