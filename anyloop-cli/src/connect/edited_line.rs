//! A line that is being edited, as the terminal shows it.

use unicode_width::UnicodeWidthChar;

/// What the editor has drawn: its prompt, its text, and the cursor. Above it the screen may have drawn a status.
#[derive(Debug, Default)]
pub(super) struct EditedLine {
    /// The text above the line, if the screen has drawn one.
    status: Option<String>,
    /// The editor may show completions below the line. A status would erase them.
    may_list: bool,
    pub(super) prompt: String,
    pub(super) text: String,
    /// The cursor is before this byte of the text.
    pub(super) cursor: usize,
}

/// A row and a column, from where the prompt begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    row: usize,
    column: usize,
}

impl EditedLine {
    /// A line without a status.
    pub(super) fn new(prompt: &str, text: &str, cursor: usize) -> Self {
        Self { prompt: prompt.into(), text: text.into(), cursor, ..Self::default() }
    }

    /// What to write so that `text`, which may have several lines, appears in place of the status and the line, and
    /// these two below `text`. Lines of the terminal have this many columns.
    pub(super) fn move_below(&self, text: &str, columns: usize) -> String {
        self.draw_again(self.status_rows(columns), &format!("{text}\n"), columns)
    }

    /// What to write so that the status above the line is this text, which is one line. Nothing changes while the
    /// editor may show completions.
    pub(super) fn set_status(&mut self, status: Option<String>, columns: usize) -> String {
        if self.may_list {
            return String::new();
        }
        let rows = self.status_rows(columns);
        self.status = status;
        self.draw_again(rows, "", columns)
    }

    /// What to write so that there is no status, before the editor may show completions. The next one is drawn after
    /// [`end_list`](Self::end_list).
    pub(super) fn begin_list(&mut self, columns: usize) -> String {
        let drawn = self.set_status(None, columns);
        self.may_list = true;
        drawn
    }

    /// The editor draws the line again, below the completions.
    pub(super) fn end_list(&mut self) {
        self.may_list = false;
    }

    /// The same as [`set_status`](Self::set_status) with `None`, when the editor has ended its line, and the cursor is
    /// at the beginning of the row below it.
    pub(super) fn remove_status_of_ended(&mut self, columns: usize) -> String {
        let rows = self.status_rows(columns);
        let (_, end) = self.positions(columns);
        self.status = None;
        match rows {
            0 => String::new(),
            _ => format!("{}\x1b[J{}{}\n", up(rows + end.row + 1), self.prompt, self.text),
        }
    }

    /// What to write to erase the line and the old status above it, which had this many rows, and to draw `above`, the
    /// new status and the line in their place.
    fn draw_again(&self, status_rows: usize, above: &str, columns: usize) -> String {
        let (cursor, end) = self.positions(columns);
        let mut out = format!("{}\r\x1b[J{above}", up(cursor.row + status_rows));
        if let Some(status) = &self.status {
            out += &format!("{status}\n");
        }
        out += &format!("{}{}", self.prompt, self.text);
        if self.wraps_at_end(end) {
            out.push('\n');
        }
        out += &up(end.row - cursor.row);
        out.push('\r');
        if cursor.column > 0 {
            out += &format!("\x1b[{}C", cursor.column);
        }
        out
    }

    /// What to write so that the cursor moves to the last row of the line.
    pub(super) fn move_to_end(&self, columns: usize) -> String {
        let (cursor, end) = self.positions(columns);
        match end.row - cursor.row {
            0 => String::new(),
            rows => format!("\x1b[{rows}B"),
        }
    }

    fn status_rows(&self, columns: usize) -> usize {
        let Some(status) = &self.status else { return 0 };
        match Position::default().after(status, columns) {
            Position { row: rows @ 1.., column: 0 } => rows, // the last one is full
            Position { row, .. } => row + 1,
        }
    }

    /// Whether the line fills its last row. The editor begins another row then.
    pub(super) fn is_full(&self, columns: usize) -> bool {
        let (_, end) = self.positions(columns);
        self.wraps_at_end(end)
    }

    /// A terminal is in the last column until the next character, and the editor in the next row.
    fn wraps_at_end(&self, end: Position) -> bool {
        end.column == 0 && end.row > 0 && !self.text.ends_with('\n')
    }

    /// The positions of the cursor and of the end of the text.
    fn positions(&self, columns: usize) -> (Position, Position) {
        let (before, after) = self.text.split_at_checked(self.cursor).unwrap_or((&self.text, ""));
        let begin = Position::default().after(&self.prompt, columns);
        let cursor = begin.after(before, columns);
        (cursor, cursor.after(after, columns))
    }
}

impl Position {
    /// The position after this text, as the editor counts.
    fn after(self, text: &str, columns: usize) -> Self {
        let Self { mut row, mut column } = self;
        for c in text.chars() {
            let width = match c {
                '\n' => {
                    (row, column) = (row + 1, 0);
                    continue;
                }
                '\t' => 8 - column % 8,
                c => c.width().unwrap_or(0),
            };
            column += width;
            if column > columns {
                (row, column) = (row + 1, width);
            }
        }
        match column == columns {
            true => Self { row: row + 1, column: 0 },
            false => Self { row, column },
        }
    }
}

/// What to write so that the cursor moves up.
fn up(rows: usize) -> String {
    match rows {
        0 => String::new(),
        rows => format!("\x1b[{rows}A"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, cursor: usize) -> EditedLine {
        EditedLine::new("> ", text, cursor)
    }

    #[test]
    fn rows_are_counted_as_the_terminal_has_them() {
        for (text, row, column) in [
            ("", 0, 2),
            ("1234567", 0, 9),
            ("12345678", 1, 0),
            ("123456789", 1, 1),
            ("世界世界", 1, 0),
            ("世界世世世", 1, 2),
            ("1世界世世", 1, 2), // does not fit into the last column
            ("e\u{301}", 0, 3),
            ("a\nb", 1, 1),
            ("a\tb", 0, 9),
        ] {
            let (cursor, end) = line(text, text.len()).positions(10);
            assert_eq!((cursor, end), (Position { row, column }, cursor), "{text}");
        }
    }

    #[test]
    fn the_line_is_drawn_below_and_the_cursor_stays_in_it() {
        assert_eq!(line("ab", 2).move_below("news", 10), "\r\x1b[Jnews\n> ab\r\x1b[4C");
        assert_eq!(line("ab", 0).move_below("a\nb", 10), "\r\x1b[Ja\nb\n> ab\r\x1b[2C");
        let long = line("12345678 2345678", 3);
        assert_eq!(long.move_below("x", 10), "\r\x1b[Jx\n> 12345678 2345678\x1b[1A\r\x1b[5C");
        let long = line("12345678 2345678", 16);
        assert_eq!(long.move_below("x", 10), "\x1b[1A\r\x1b[Jx\n> 12345678 2345678\r\x1b[8C");
        assert_eq!(line("12345678", 8).move_below("x", 10), "\x1b[1A\r\x1b[Jx\n> 12345678\n\r");
        assert_eq!(line("12345678 2345678", 3).move_to_end(10), "\x1b[1B");
    }

    #[test]
    fn a_status_stays_above_the_line_and_leaves_nothing() {
        let mut line = line("ab", 2);
        let end = "> ab\r\x1b[4C";
        assert_eq!(line.set_status(Some("50".into()), 10), format!("\r\x1b[J50\n{end}"));
        assert_eq!(line.move_below("news", 10), format!("\x1b[1A\r\x1b[Jnews\n50\n{end}"));
        for (status, rows) in [("1234567890", 1), ("12345678901", 2)] {
            line.set_status(Some(status.into()), 10);
            assert_eq!(line.set_status(None, 10), format!("\x1b[{rows}A\r\x1b[J{end}"));
        }
        assert_eq!(line.remove_status_of_ended(10), "");
        line.set_status(Some("50".into()), 10);
        assert_eq!(line.remove_status_of_ended(10), "\x1b[2A\x1b[J> ab\n");
        assert_eq!(line.move_below("news", 10), format!("\r\x1b[Jnews\n{end}"));
    }

    #[test]
    fn no_status_end_list_while_there_may_be_a_list() {
        let mut line = line("ab", 2);
        let end = "> ab\r\x1b[4C";
        line.set_status(Some("50".into()), 10);
        assert_eq!(line.begin_list(10), format!("\x1b[1A\r\x1b[J{end}"));
        assert_eq!(line.begin_list(10), "");
        assert_eq!(line.set_status(Some("60".into()), 10), "");
        line.end_list();
        assert_eq!(line.set_status(Some("70".into()), 10), format!("\r\x1b[J70\n{end}"));
    }

    #[test]
    fn a_line_is_full_in_the_last_column_of_any_row() {
        for (text, expected) in
            [("", false), ("1234567", false), ("12345678", true), ("123456789", false)]
        {
            assert_eq!(line(text, 0).is_full(10), expected, "{text}");
        }
        assert!(line("12345678 234567890", 18).is_full(10));
        assert!(!line("1234567\n", 8).is_full(10));
    }
}
