//! Checks the output of one side by rules that are independent of the library (RFC 6455 §5).

use anyloop_proto::Role;
use anyloop_testkit::frames::{Frame, read_all};

/// Reads what one side sends, piece by piece, and insists that it is right in itself: whole frames,
/// masked by the client and by no one else, with lengths in their shortest form, opcodes and reserved
/// bits that mean something, fragments in order, Close frames that may be sent, and after a Close
/// nothing but pongs.
#[derive(Debug)]
pub struct Reader {
    from: Role,
    extension: bool,
    in_message: bool,
    /// The Close frame, once it was sent.
    pub close: Option<Frame>,
}

impl Reader {
    /// Of what `from` sends, `extension` being whether the first reserved bit has a meaning.
    #[must_use]
    pub const fn new(from: Role, extension: bool) -> Self {
        Self { from, extension, in_message: false, close: None }
    }

    /// Reads on. `bytes` must end with a frame.
    pub fn read(&mut self, bytes: &[u8]) -> Vec<Frame> {
        let frames = read_all(bytes, self.from);
        frames.iter().for_each(|frame| self.check(frame));
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
