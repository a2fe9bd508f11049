//! The messages that are sent: words of English, behind a number. No other message of a round has the same number,
//! unless messages are too short for its digits.

use anyloop::proto::Message;

/// The hexadecimal digits of the number. A message that is shorter has the last of them.
const DIGITS: usize = 16;

const WORDS: [&str; 16] = [
    "time ", "of ", "the ", "market ", "order ", "price ", "and ", "update ", "user ", "in ",
    "new ", "state ", "event ", "to ", "value ", "room ",
];

/// A message that is numbered again before each use, so that nothing is allocated for it.
pub(super) struct Payload {
    text: String,
    binary: bool,
}

impl Payload {
    pub(super) fn new(size: usize, binary: bool) -> Self {
        let mut text = "0".repeat(DIGITS.min(size));
        let mut state = 1_u32;
        while text.len() < size {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223); // Numerical Recipes
            text += WORDS[(state >> 28) as usize];
        }
        text.truncate(size);
        Self { text, binary }
    }

    /// The message with this number.
    pub(super) fn numbered(&mut self, number: u64) -> Message<'_> {
        let mut digits = [0; DIGITS];
        let digits = digits_of(number, &mut digits);
        let count = self.digit_count();
        self.text.replace_range(..count, &digits[DIGITS - count..]);
        match self.binary {
            true => Message::Binary(self.text.as_bytes()),
            false => Message::from(self.text.as_str()),
        }
    }

    /// Whether this is the message with this number: its kind, its number and the text behind it.
    pub(super) fn is(&self, message: Message<'_>, number: u64) -> bool {
        let mut digits = [0; DIGITS];
        let digits = digits_of(number, &mut digits);
        let count = self.digit_count();
        let bytes = message.as_bytes();
        matches!(message, Message::Binary(_)) == self.binary
            && bytes.len() == self.text.len()
            && bytes[..count] == digits.as_bytes()[DIGITS - count..]
            && bytes[count..] == self.text.as_bytes()[count..]
    }

    /// The number of digits in a message.
    fn digit_count(&self) -> usize {
        DIGITS.min(self.text.len())
    }
}

/// The number in hexadecimal digits.
fn digits_of(number: u64, digits: &mut [u8; DIGITS]) -> &str {
    for (index, digit) in digits.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * index)) as usize & 15];
    }
    std::str::from_utf8(digits).unwrap_or_default() // they are ASCII
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_size_its_kind_and_its_number() {
        for size in [0, 1, 15, 16, 17, 64, 100_000] {
            for binary in [false, true] {
                let mut payload = Payload::new(size, binary);
                let message = payload.numbered(0x12ab);
                assert_eq!(message.as_bytes().len(), size);
                assert_eq!(matches!(message, Message::Binary(_)), binary);
                let bytes = message.as_bytes().to_vec();
                assert_eq!(&bytes[..size.min(16)], &b"00000000000012ab"[16 - size.min(16)..]);
                assert!(payload.is(Message::from(&*bytes), 0x12ab) == binary);
            }
        }
    }

    #[test]
    fn another_message_is_not_taken_for_it() {
        let mut payload = Payload::new(40, true);
        let bytes = payload.numbered(7).as_bytes().to_vec();
        let _ = payload.numbered(8);
        assert!(payload.is(Message::Binary(&bytes), 7), "a later one may have been sent already");
        assert!(!payload.is(Message::Binary(&bytes), 8));
        assert!(!payload.is(Message::Binary(&bytes[..39]), 7));
        for index in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[index] ^= 1;
            assert!(!payload.is(Message::Binary(&bytes), 7), "{index}");
        }
        let text = String::from_utf8(bytes).expect("it is ASCII");
        assert!(!payload.is(Message::from(&*text), 7));
    }
}
