//! Indents JSON without reading its values, so numbers, the order of names and repeated names stay as they are.

use serde::de::IgnoredAny;

/// A text may always become this long, in bytes, and a longer one eight times as long as it was.
const SMALL: usize = 64 * 1024;

/// The text with a line for each element, if it is a JSON object or array. `None` if it would become too long.
pub(super) fn indented(text: &str) -> Option<String> {
    if !text.trim_start().starts_with(['{', '['])
        || serde_json::from_str::<IgnoredAny>(text).is_err()
    {
        return None;
    }
    let mut out = String::with_capacity(2 * text.len());
    let (mut depth, mut in_string, mut escaped) = (0, false, false);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if out.len() > SMALL.max(8 * text.len()) {
            return None; // many elements deep inside
        }
        if in_string {
            out.push(c);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            ' ' | '\t' | '\r' | '\n' => {}
            '{' | '[' => {
                out.push(c);
                while rest.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(end) = rest.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(end);
                    continue;
                }
                depth += 1;
                begin_line(&mut out, depth);
            }
            '}' | ']' => {
                depth -= 1;
                begin_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                begin_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c => {
                out.push(c);
                in_string = c == '"';
            }
        }
    }
    Some(out)
}

fn begin_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_space_between_values_changes() {
        let text = r#"{"b":1.10,"a":[ ],"b":{"x\\":"{\"],: ","y":[1e400,-0]},"c":{}}"#;
        let expected = "{\n  \"b\": 1.10,\n  \"a\": [],\n  \"b\": {\n    \"x\\\\\": \"{\\\"],: \",\n    \"y\": [\n      \
                        1e400,\n      -0\n    ]\n  },\n  \"c\": {}\n}";
        assert_eq!(indented(text).as_deref(), Some(expected));
        assert_eq!(indented(expected).as_deref(), Some(expected));
    }

    #[test]
    fn elements_that_are_deep_inside_do_not_fill_the_memory() {
        let deep = |depth: usize, elements: usize| {
            format!("{}0{}{}", "[".repeat(depth), ",0".repeat(elements), "]".repeat(depth))
        };
        assert!(indented(&deep(100, 100)).is_some());
        assert!(indented(&deep(100, 10_000)).is_none());
    }

    #[test]
    fn other_text_is_none() {
        for text in ["", "hello", "1", "\"a\"", "{", "{\"a\":}", "[1] 2", "{'a': 1}"] {
            assert_eq!(indented(text), None, "{text}");
        }
    }
}
