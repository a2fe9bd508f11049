//! Escapes control characters, so that text from a peer cannot control a terminal, nor the order of what it shows.

/// Escapes control characters other than tabs and line feeds.
pub(crate) fn text(text: &str) -> String {
    escape(text, |c| matches!(c, '\n' | '\t'))
}

/// Escapes control characters other than tabs: the result is one line.
pub(crate) fn line(text: &str) -> String {
    escape(text, |c| c == '\t')
}

fn escape(text: &str, passes: impl Fn(char) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match (c.is_control() && !passes(c)) || reorders(c) {
            true => escaped.extend(c.escape_default()),
            false => escaped.push(c),
        }
    }
    escaped
}

/// Whether the character changes the direction of all text up to its end or the next one: embeddings, overrides and
/// isolates (UAX #9). Marks and joiners are part of ordinary text, and have an effect on their neighbours only.
const fn reorders(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_all_else_is_kept() {
        assert_eq!(text("κ\x1b[2J\u{9b}m\r\n\t\\"), "κ\\u{1b}[2J\\u{9b}m\\r\n\t\\");
        assert_eq!(line("κ\x1b[2J\u{9b}m\r\n\t\\"), "κ\\u{1b}[2J\\u{9b}m\\r\\n\t\\");
    }

    #[test]
    fn what_reorders_is_escaped_and_marks_and_joiners_are_kept() {
        let reordering =
            "a\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}z";
        let escaped = r"a\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}z";
        assert_eq!((&*text(reordering), &*line(reordering)), (escaped, escaped));
        let ordinary = "\u{200d}\u{200c}\u{200e}\u{200f}\u{61c}שלום 👩\u{200d}🚀";
        assert_eq!(text(ordinary), ordinary);
    }
}
