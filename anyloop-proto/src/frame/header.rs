//! Frame headers: two to fourteen bytes before each payload (RFC 6455 §5.2).

use super::MAX_CONTROL_PAYLOAD;
use crate::error::Cause;

/// The longest header: 2 bytes, a 64-bit length and a masking key.
pub const MAX_HEADER_SIZE: usize = 14;

const FIN: u8 = 0x80;
const RSV: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// The opcode of a frame (RFC 6455 §11.8). Reserved opcodes have no variant: frames with them are
/// refused.
///
/// ```
/// use anyloop_proto::frame::Opcode;
///
/// assert!(Opcode::Ping.is_control() && !Opcode::Continuation.is_control());
/// assert_eq!(Opcode::Pong as u8, 0xa); // as it stands in the first byte of a header
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(
    clippy::exhaustive_enums,
    reason = "RFC 6455 closes the list; a new opcode is a new protocol"
)]
pub enum Opcode {
    /// A further part of a fragmented message.
    Continuation = 0x0,
    /// A text message, or its first fragment.
    Text = 0x1,
    /// A binary message, or its first fragment.
    Binary = 0x2,
    /// Begins or answers the closing handshake.
    Close = 0x8,
    /// Asks for a pong.
    Ping = 0x9,
    /// Answers a ping, or shows unasked that the sender is alive.
    Pong = 0xa,
}

impl Opcode {
    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    /// Whether this is a control frame: never fragmented, at most 125 bytes (RFC 6455 §5.5).
    #[must_use]
    pub const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// The three reserved bits of a frame; only extensions give them a meaning.
///
/// ```
/// use anyloop_proto::frame::{FrameHeader, Opcode, Rsv};
///
/// let mut header = FrameHeader::new(Opcode::Text, true, 5);
/// header.rsv = Rsv::RSV1.union(Rsv::RSV3);
/// let mut bytes = Vec::new();
/// header.encode(&mut bytes);
/// assert_eq!(bytes[0], 0x80 | 0x40 | 0x10 | 0x1);
/// assert_eq!(header.rsv.without(Rsv::RSV1).bits(), 0x10);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rsv(u8);

impl Rsv {
    /// No bit set.
    pub const NONE: Self = Self(0);
    /// The first reserved bit, of permessage-deflate (RFC 7692 §6).
    pub const RSV1: Self = Self(0x40);
    /// The second reserved bit.
    pub const RSV2: Self = Self(0x20);
    /// The third reserved bit.
    pub const RSV3: Self = Self(0x10);

    /// The bits that are set in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The bits of this value that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether no bit is set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The bits as in the first byte of a header: `0x40`, `0x20`, `0x10`.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }
}

/// One frame header.
///
/// ```
/// use anyloop_proto::frame::{FrameHeader, Opcode};
///
/// // RFC 6455 §5.7: a single-frame unmasked text message, "Hello".
/// let mut bytes = Vec::new();
/// FrameHeader::new(Opcode::Text, true, 5).encode(&mut bytes);
/// assert_eq!(bytes, [0x81, 0x05]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FrameHeader {
    /// The kind of frame.
    pub opcode: Opcode,
    /// Whether this is the last frame of its message.
    pub fin: bool,
    /// The reserved bits.
    pub rsv: Rsv,
    /// The masking key, on frames from a client.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload that follow: at most 2^63 - 1.
    pub len: u64,
}

impl FrameHeader {
    /// An unmasked header with no reserved bits set.
    #[must_use]
    pub const fn new(opcode: Opcode, fin: bool, len: u64) -> Self {
        Self { opcode, fin, rsv: Rsv::NONE, mask: None, len }
    }

    /// Bytes that [`encode`](Self::encode) appends: 2 to [`MAX_HEADER_SIZE`].
    #[must_use]
    pub const fn size(&self) -> usize {
        let length = match self.len {
            0..=125 => 0,
            126..=0xffff => 2,
            _ => 8,
        };
        2 + length + if self.mask.is_some() { 4 } else { 0 }
    }

    /// Appends the header, with the length in its shortest form.
    pub fn encode(&self, out: &mut alloc::vec::Vec<u8>) {
        let (bytes, size) = self.to_bytes();
        out.extend_from_slice(&bytes[..size]);
    }

    /// The header's bytes, and how many of them there are.
    #[inline]
    pub(crate) fn to_bytes(self) -> ([u8; MAX_HEADER_SIZE], usize) {
        let mut bytes = [0; MAX_HEADER_SIZE];
        bytes[0] = if self.fin { FIN } else { 0 } | self.rsv.0 | self.opcode as u8;
        let mut size = match self.len {
            0..=125 => {
                bytes[1] = self.len as u8;
                2
            }
            126..=0xffff => {
                bytes[1] = LENGTH_16;
                bytes[2..4].copy_from_slice(&(self.len as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = LENGTH_64;
                bytes[2..10].copy_from_slice(&self.len.to_be_bytes());
                10
            }
        };
        if let Some(key) = self.mask {
            bytes[1] |= MASKED;
            bytes[size..size + 4].copy_from_slice(&key);
            size += 4;
        }
        (bytes, size)
    }
}

/// The rules for a header that follow from the state of the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeaderRules {
    /// Whether frames must be masked (we are the server) or must not be (we are the client).
    pub(crate) masked: bool,
    /// The reserved bits that an extension uses on the first frame of a message.
    pub(crate) rsv: Rsv,
    /// Whether a fragmented message has begun and not ended.
    pub(crate) in_message: bool,
}

/// The result of decoding a frame header.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DecodedHeader {
    /// More bytes are needed; the bytes so far break no rule.
    Incomplete,
    /// A whole header, `size` bytes long.
    Complete { header: FrameHeader, size: usize },
}

impl FrameHeader {
    /// Decodes a header. Fails at the first byte that breaks a rule, so that a bad frame from a
    /// slow peer is refused before its length has arrived.
    pub(crate) fn decode(bytes: &[u8], rules: HeaderRules) -> Result<DecodedHeader, Cause> {
        let Some(&first) = bytes.first() else { return Ok(DecodedHeader::Incomplete) };
        let (fin, rsv, opcode) = decode_first(first, rules)?;

        let Some(&second) = bytes.get(1) else { return Ok(DecodedHeader::Incomplete) };
        match (second & MASKED != 0, rules.masked) {
            (false, true) => return Err(Cause::UnmaskedFrame),
            (true, false) => return Err(Cause::MaskedFrame),
            _ => {}
        }
        let length_7 = second & LENGTH;
        if opcode.is_control() && usize::from(length_7) > MAX_CONTROL_PAYLOAD {
            return Err(Cause::ControlTooLong);
        }
        let (len, end) = match length_7 {
            LENGTH_16 => match bytes.get(2..4) {
                Some(length) => (u64::from(u16::from_be_bytes([length[0], length[1]])), 4),
                None => return Ok(DecodedHeader::Incomplete),
            },
            LENGTH_64 => match bytes.get(2..10).and_then(|length| length.try_into().ok()) {
                Some(length) => (u64::from_be_bytes(length), 10),
                None => return Ok(DecodedHeader::Incomplete),
            },
            _ => (u64::from(length_7), 2),
        };
        // RFC 6455 §5.2: "the minimal number of bytes MUST be used to encode the length", and "the
        // most significant bit MUST be 0".
        if (length_7 == LENGTH_16 && len < 126) || (length_7 == LENGTH_64 && len <= 0xffff) {
            return Err(Cause::NonMinimalLength);
        }
        if len > i64::MAX as u64 {
            return Err(Cause::LengthOverflow);
        }
        let mut header = Self { opcode, fin, rsv, mask: None, len };
        if !rules.masked {
            return Ok(DecodedHeader::Complete { header, size: end });
        }
        match bytes.get(end..end + 4).and_then(|key| key.try_into().ok()) {
            Some(key) => {
                header.mask = Some(key);
                Ok(DecodedHeader::Complete { header, size: end + 4 })
            }
            None => Ok(DecodedHeader::Incomplete),
        }
    }
}

/// Checks the first byte of a header: the FIN bit, the reserved bits and the opcode.
#[inline]
fn decode_first(first: u8, rules: HeaderRules) -> Result<(bool, Rsv, Opcode), Cause> {
    let fin = first & FIN != 0;
    let rsv = Rsv(first & RSV);
    let Some(opcode) = Opcode::from_bits(first & OPCODE) else {
        return Err(Cause::ReservedOpcode(first & OPCODE));
    };
    // RFC 6455 §5.2: "MUST be 0 unless an extension is negotiated"; RFC 7692 §6.1 sets its bit
    // on the first frame of a message only.
    let begins_message = matches!(opcode, Opcode::Text | Opcode::Binary);
    let allowed = if begins_message { rules.rsv } else { Rsv::NONE };
    if !rsv.without(allowed).is_empty() {
        return Err(Cause::ReservedBits(rsv.without(allowed).0));
    }
    match opcode {
        _ if opcode.is_control() && !fin => Err(Cause::FragmentedControl),
        Opcode::Continuation if !rules.in_message => Err(Cause::NothingToContinue),
        Opcode::Text | Opcode::Binary if rules.in_message => Err(Cause::ExpectedContinuation),
        _ => Ok((fin, rsv, opcode)),
    }
}
