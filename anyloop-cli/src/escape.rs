//! Escapes control characters, so that text from a peer cannot control a terminal.

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
        match c.is_control() && !passes(c) {
            true => escaped.extend(c.escape_default()),
            false => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_all_else_is_kept() {
        assert_eq!(text("κ\x1b[2J\u{9b}m\r\n\t\\"), "κ\\u{1b}[2J\\u{9b}m\\r\n\t\\");
        assert_eq!(line("κ\x1b[2J\u{9b}m\r\n\t\\"), "κ\\u{1b}[2J\\u{9b}m\\r\\n\t\\");
    }
}
