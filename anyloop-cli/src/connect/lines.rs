//! The lines of standard input, of a bounded length.

use std::io::{self, BufRead, BufReader, Read};

use crate::stdio;

/// Reads lines.
pub(super) struct Lines<R> {
    input: R,
    line: Vec<u8>,
    /// The longest line, in bytes without the line end.
    max: u64,
}

/// Standard input. The error says why it cannot be read.
pub(super) fn of_stdin(max: u64) -> Result<Lines<impl BufRead>, String> {
    let stdin = stdio::input().map_err(|error| unreadable(&error))?;
    Ok(Lines { input: BufReader::new(stdin), line: Vec::new(), max })
}

/// What is said when standard input cannot be read.
pub(super) fn unreadable(error: &io::Error) -> String {
    format!("cannot read standard input: {error}")
}

impl<R: BufRead> Lines<R> {
    /// Reads the next line, without the line end. `None` at the end of the input. Of a line that is too long, at most
    /// two bytes more than the limit are read, and more than the limit is returned.
    pub(super) fn read(&mut self) -> Result<Option<&[u8]>, String> {
        let line = &mut self.line;
        line.clear();
        let most = self.max.saturating_add(2); // CR LF
        let read = self.input.by_ref().take(most).read_until(b'\n', line);
        if read.map_err(|error| unreadable(&error))? == 0 {
            return Ok(None);
        }
        if line.ends_with(b"\n") {
            line.pop();
            if line.ends_with(b"\r") {
                line.pop();
            }
        }
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines<R: BufRead>(input: R, max: u64) -> Lines<R> {
        Lines { input, line: Vec::new(), max }
    }

    #[test]
    fn line_ends_are_removed_and_a_long_line_is_read_up_to_the_limit() {
        let mut four = lines(&b"four\r\n\nfour\nfive5\nfour"[..], 4);
        for expected in ["four", "", "four", "five5", "four"] {
            assert_eq!(four.read(), Ok(Some(expected.as_bytes())));
        }
        assert_eq!(four.read(), Ok(None));

        let mut endless = lines(BufReader::new(io::repeat(b'x')), 1000);
        assert_eq!(endless.read().map(|line| line.map(<[u8]>::len)), Ok(Some(1002)));
        let mut no_end = lines(&b"four\r"[..], 4);
        assert_eq!(no_end.read(), Ok(Some(&b"four\r"[..])), "no line ends like that");
    }
}
