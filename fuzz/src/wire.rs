//! Frames as bytes, read and built by hand (RFC 6455 §5.2).

use anyloop_proto::Role;

/// The masking key of every frame that is built here: the one of RFC 6455 §5.7.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// One frame, its payload unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whether its message ends with it.
    pub fin: bool,
    /// As in the frame's first byte: `0x40`, `0x20`, `0x10`.
    pub rsv: u8,
    /// The opcode, reserved ones included.
    pub opcode: u8,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The frame's bytes, masked or not.
    #[must_use]
    pub fn bytes(&self, masked: bool) -> Vec<u8> {
        let len = self.payload.len();
        let bit = if masked { 0x80 } else { 0 };
        let mut bytes = vec![if self.fin { 0x80 } else { 0 } | self.rsv | self.opcode];
        match len {
            0..=125 => bytes.push(bit | len as u8),
            126..=0xffff => {
                bytes.push(bit | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
            _ => {
                bytes.push(bit | 127);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        if masked {
            bytes.extend(KEY);
        }
        let start = bytes.len();
        bytes.extend_from_slice(&self.payload);
        if masked {
            apply(&mut bytes[start..], KEY);
        }
        bytes
    }
}

/// Reads what one side sends, piece by piece, and insists that it is right in itself: whole frames,
/// masked by the client and by no one else, with lengths in their shortest form, opcodes and reserved
/// bits that mean something, fragments in order, Close frames that may be sent, and after a Close
/// nothing but pongs.
#[derive(Debug)]
pub struct Reader {
    from: Role,
    extension: bool,
    rest: Vec<u8>,
    in_message: bool,
    /// The Close frame, once it was sent.
    pub close: Option<Frame>,
}

impl Reader {
    /// Of what `from` sends, `extension` being whether the first reserved bit has a meaning.
    #[must_use]
    pub const fn new(from: Role, extension: bool) -> Self {
        Self { from, extension, rest: Vec::new(), in_message: false, close: None }
    }

    /// Reads on. `bytes` must end with a frame.
    pub fn read(&mut self, bytes: &[u8]) -> Vec<Frame> {
        self.rest.extend_from_slice(bytes);
        let mut frames = Vec::new();
        while let Some((frame, size)) = read_one(&self.rest, self.from) {
            self.rest.drain(..size);
            self.check(&frame);
            frames.push(frame);
        }
        assert!(self.rest.is_empty(), "half a frame: {:x?}", self.rest);
        frames
    }

    fn check(&mut self, frame: &Frame) {
        let Frame { fin, rsv, opcode, ref payload } = *frame;
        assert!(self.close.is_none() || opcode == 0xa, "{frame:x?} after a Close");
        let claimed = if self.extension && matches!(opcode, 1 | 2) { 0x40 } else { 0 };
        assert_eq!(rsv & !claimed, 0, "reserved bits: {frame:x?}");
        match opcode {
            0x0 => {
                assert!(self.in_message, "nothing to continue");
                self.in_message = !fin;
            }
            0x1 | 0x2 => {
                assert!(!self.in_message, "a message in a message");
                self.in_message = !fin;
            }
            0x8..=0xa => assert!(fin && payload.len() <= 125, "a control frame: {frame:x?}"),
            _ => panic!("a reserved opcode: {frame:x?}"),
        }
        if opcode == 0x8 {
            match payload[..] {
                [] => {}
                [high, low, ref reason @ ..] => {
                    let code = u16::from_be_bytes([high, low]);
                    assert!(
                        matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999),
                        "a code that must not be sent: {code}"
                    );
                    assert!(core::str::from_utf8(reason).is_ok(), "a reason that is not UTF-8");
                }
                [_] => panic!("a Close frame of one byte"),
            }
            self.close = Some(frame.clone());
        }
    }
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

/// Octet i is XORed with octet i modulo 4 of the key (RFC 6455 §5.3).
fn apply(payload: &mut [u8], key: [u8; 4]) {
    for (i, byte) in payload.iter_mut().enumerate() {
        *byte ^= key[i % 4];
    }
}
