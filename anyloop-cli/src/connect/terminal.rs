//! Shows messages at a terminal while a line is being typed.
//!
//! The terminal driver edits the line, so the program does not know its text. Messages are inserted above
//! it, and the terminal moves the line down.

/// Inserts an empty line above the line of the cursor, and moves to its beginning: IND, CUU, DECSC, CR,
/// IL. IND comes first, so that the last line of the screen is not pushed out.
const ABOVE: &[u8] = b"\x1bD\x1b[A\x1b7\r\x1b[L";

/// Returns to the line of the cursor, which is now one line below: DECRC, CUD.
const BACK: &[u8] = b"\x1b8\x1b[B";

/// The width of a terminal that does not report one.
const COLUMNS: usize = 80;

/// A terminal that is written to and read from.
#[derive(Clone, Copy)]
pub(super) struct Terminal {
    /// The terminal knows no control sequences.
    dumb: bool,
}

impl Terminal {
    pub(super) fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        Self { dumb }
    }

    /// Appends the bytes that show `text` above the line that is being typed. `text` must not contain
    /// control characters other than line feeds and tabs.
    pub(super) fn insert(self, out: &mut Vec<u8>, text: &str, prompt: &[u8]) {
        if self.dumb {
            // The text typed so far stays in the line before.
            out.extend([b"\n", text.as_bytes(), b"\n", prompt].concat());
            return;
        }
        for row in text.split('\n').flat_map(|line| rows(line, columns())) {
            out.extend([ABOVE, row.as_bytes(), BACK].concat());
        }
    }
}

/// Splits a line into pieces that each fit into a row. An empty line is one piece.
fn rows(line: &str, columns: usize) -> Vec<&str> {
    let (mut rows, mut begin, mut used) = (Vec::new(), 0, 0);
    for (at, c) in line.char_indices() {
        if used + width(c) > columns && at > begin {
            rows.push(&line[begin..at]);
            (begin, used) = (at, 0);
        }
        used += width(c);
    }
    rows.push(&line[begin..]);
    rows
}

/// The largest number of columns that a character occupies.
const fn width(c: char) -> usize {
    match c {
        '\t' => 8,
        c if c.is_ascii() => 1,
        _ => 2,
    }
}

#[cfg(unix)]
fn columns() -> usize {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => COLUMNS,
    }
}

#[cfg(not(unix))]
const fn columns() -> usize {
    COLUMNS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_is_wider_than_the_terminal() {
        assert_eq!(rows("", 4), [""]);
        assert_eq!(rows("four", 4), ["four"]);
        assert_eq!(rows("fives", 4), ["five", "s"]);
        assert_eq!(rows("κόσμε", 4), ["κό", "σμ", "ε"]);
        assert_eq!(rows("a\tb", 4), ["a", "\t", "b"], "even where one character is");
    }
}
