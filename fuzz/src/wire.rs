//! Checks the output of one side by rules that are independent of the library (RFC 6455 §5).

use anyloop_proto::Role;
use anyloop_testkit::frames::{Frame, read_all};

/// Parses and checks the output of one side: frames are complete; only a client masks them; lengths are in the
/// shortest form; opcodes and reserved bits are defined; fragments are in order; Close frames have a valid code and
/// reason; and only pongs follow a Close.
#[derive(Debug)]
pub struct Reader {
    from: Role,
    extension: bool,
    in_message: bool,
    /// The Close frame, if it was sent.
    pub close: Option<Frame>,
}

impl Reader {
    /// A reader for the output of `from`. With `extension`, RSV1 is allowed on text and binary frames.
    #[must_use]
    pub const fn new(from: Role, extension: bool) -> Self {
        Self { from, extension, in_message: false, close: None }
    }

    /// Parses and checks the next output. `bytes` must consist of complete frames.
    pub fn read(&mut self, bytes: &[u8]) -> Vec<Frame> {
        let frames = read_all(bytes, self.from);
        frames.iter().for_each(|frame| self.check(frame));
        frames
    }

    fn check(&mut self, frame: &Frame) {
        let Frame { fin, rsv, opcode, ref payload } = *frame;
        assert!(self.close.is_none() || opcode == 0xa, "{frame:x?} was sent after a Close");
        let claimed = if self.extension && matches!(opcode, 1 | 2) { 0x40 } else { 0 };
        assert_eq!(rsv & !claimed, 0, "undefined reserved bits: {frame:x?}");
        match opcode {
            0x0 => {
                assert!(self.in_message, "a continuation frame outside of a message");
                self.in_message = !fin;
            }
            0x1 | 0x2 => {
                assert!(!self.in_message, "a message within another");
                self.in_message = !fin;
            }
            0x8..=0xa => assert!(
                fin && payload.len() <= 125,
                "a control frame is fragmented or too long: {frame:x?}"
            ),
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
