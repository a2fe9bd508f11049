//! Validation of UTF-8 that arrives in parts. It fails at the offending byte (RFC 6455 §8.1).

/// Checks a text that arrives in parts of any size.
///
/// Keeps at most the three bytes of an incomplete code point.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Utf8 {
    /// The incomplete code point at the end of the text so far: its first `len` bytes.
    partial: [u8; 3],
    len: u8,
}

/// The text is not UTF-8: the byte at index `at` of the part is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidUtf8 {
    pub(crate) at: usize,
}

impl Utf8 {
    /// Checks the next part. An error means that no continuation can make the text valid.
    pub(crate) fn check(&mut self, part: &[u8]) -> Result<(), InvalidUtf8> {
        let mut done = 0;
        while self.len > 0 {
            let Some(&byte) = part.get(done) else { return Ok(()) };
            let known = usize::from(self.len);
            let mut point = [self.partial[0], self.partial[1], self.partial[2], 0];
            point[known] = byte;
            match core::str::from_utf8(&point[..=known]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_none() => {
                    // At most three bytes can be incomplete: four are a code point or an error.
                    self.partial[known] = byte;
                    self.len += 1;
                }
                Err(_) => return Err(InvalidUtf8 { at: done }),
            }
            done += 1;
        }
        let rest = &part[done..];
        if simdutf8::basic::from_utf8(rest).is_ok() {
            return Ok(());
        }
        // The fast check does not report the position, nor whether the text is only incomplete.
        let Err(error) = simdutf8::compat::from_utf8(rest) else { return Ok(()) };
        let valid = error.valid_up_to();
        match error.error_len() {
            None => {
                let partial = &rest[valid..];
                self.partial[..partial.len()].copy_from_slice(partial);
                self.len = partial.len() as u8;
                Ok(())
            }
            // If the byte can begin a code point, `len` is the number of its valid bytes, and the next one is invalid.
            // Otherwise the byte itself is invalid, and `len` is 1.
            Some(len) => {
                let begun = matches!(rest[valid], 0xC2..=0xF4);
                Err(InvalidUtf8 { at: done + valid + if begun { len } else { 0 } })
            }
        }
    }

    /// Whether the text may end here: no code point is incomplete.
    pub(crate) fn is_complete(self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// The index of the first byte after which no continuation is valid, found by a simple reference algorithm.
    fn offending(text: &[u8]) -> Option<usize> {
        (0..text.len()).find(
            |&end| matches!(core::str::from_utf8(&text[..=end]), Err(e) if e.error_len().is_some()),
        )
    }

    fn checked(parts: &[&[u8]]) -> Result<bool, usize> {
        let mut utf8 = Utf8::default();
        let mut before = 0;
        for part in parts {
            utf8.check(part).map_err(|error| before + error.at)?;
            before += part.len();
        }
        Ok(utf8.is_complete())
    }

    #[test]
    fn rfc6455_8_1_fails_at_the_offending_byte_wherever_the_text_is_cut() {
        let texts: Vec<&[u8]> = [
            &b"plain"[..],
            "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5}\u{10ffff}\u{0}".as_bytes(),
            b"\xce\xba\xf4\x90\x80\x80edited",
            b"ok\xed\xa0\x80",
            b"\xe0\x80\x80",
            b"\xc0\x80",
            b"\xff",
            b"a\x80",
            b"\xf0\x9f\x92A",
            b"\xf0\x9f\x92",
            b"\xe2\x82",
            b"\xf5\x80\x80\x80",
        ]
        .to_vec();
        for text in texts {
            let expected = match offending(text) {
                Some(at) => Err(at),
                None => Ok(core::str::from_utf8(text).is_ok()),
            };
            for a in 0..=text.len() {
                for b in a..=text.len() {
                    let parts = [&text[..a], &text[a..b], &text[b..]];
                    assert_eq!(checked(&parts), expected, "{text:x?} cut at {a} and {b}");
                }
            }
            let bytes: Vec<&[u8]> = text.chunks(1).collect();
            assert_eq!(checked(&bytes), expected, "{text:x?} byte by byte");
        }
    }

    #[test]
    fn lead_bytes_and_samples_of_what_follows_agree_with_core() {
        for lead in 0..=255u8 {
            for second in (0..=255u8).step_by(3) {
                for third in [0x00, 0x7f, 0x80, 0xbf, 0xc0, 0xff] {
                    let text = [lead, second, third];
                    let expected = match offending(&text) {
                        Some(at) => Err(at),
                        None => Ok(core::str::from_utf8(&text).is_ok()),
                    };
                    assert_eq!(checked(&[&text]), expected, "{text:x?}");
                    assert_eq!(checked(&[&text[..1], &text[1..2], &text[2..]]), expected);
                }
            }
        }
    }
}
