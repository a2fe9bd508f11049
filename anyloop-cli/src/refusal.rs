//! Describes the HTTP response of a server that does not open a WebSocket.

use anyloop::proto::handshake::http::{Response, StatusCode, header};

use crate::escape;

/// Lines of a body that are shown.
const LINES: usize = 5;
/// Characters of each line that are shown.
const CHARACTERS: usize = 200;

/// Describes a refusal: its status, the target of a redirect, and the first lines of its body. `may_follow` is whether
/// `--location` would make the command follow a redirect.
pub(crate) fn describe(
    status: u16,
    may_follow: bool,
    response: Option<&Response<Vec<u8>>>,
) -> String {
    let mut words = match status {
        200..300 => format!("the server answered {}, not as a WebSocket server", name(status)),
        401 => {
            format!("the server refused: {} (--user or --header can authenticate)", name(status))
        }
        404 => format!("the server refused: {} (is the path right?)", name(status)),
        _ => format!("the server refused: {}", name(status)),
    };
    let Some(response) = response else { return words };
    if (300..400).contains(&status) {
        let location = response.headers().get(header::LOCATION);
        if let Some(location) = location {
            let location = String::from_utf8_lossy(location.as_bytes());
            let rest = match status {
                301..=303 | 307 | 308 if may_follow => "; --location follows it",
                _ => ": not followed",
            };
            words += &format!(" (it points to {}{rest})", shortened(&location));
        }
    }
    if response.headers().contains_key(header::CONTENT_ENCODING) {
        return words; // the body would have to be decoded
    }
    words + &first_lines(response.body())
}

/// The first lines of a body, to be written after the status.
pub(crate) fn first_lines(body: &[u8]) -> String {
    let mut words = String::new();
    let body = String::from_utf8_lossy(body);
    let mut lines = body.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let first: Vec<_> = lines.by_ref().take(LINES).map(shortened).collect();
    match first.as_slice() {
        [] => {}
        [line] => words += &format!(": {line}"),
        lines => lines.iter().for_each(|line| words += &format!("\n  {line}")),
    }
    if lines.next().is_some() {
        words += "\n  …";
    }
    words
}

/// The status code, and its standard reason phrase.
fn name(status: u16) -> String {
    let known = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    known.map_or_else(|| status.to_string(), |name| format!("{status} {name}"))
}

/// The beginning of a line from the peer, with control characters escaped.
fn shortened(line: &str) -> String {
    let mut shown: String = line.chars().take(CHARACTERS).collect();
    if shown.len() < line.len() {
        shown.push('…');
    }
    escape::line(&shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(status: u16, field: Option<(&'static str, &str)>, body: &[u8]) -> String {
        let mut response = Response::builder().status(status);
        if let Some((name, value)) = field {
            response = response.header(name, value);
        }
        describe(status, false, response.body(body.to_vec()).ok().as_ref())
    }

    #[test]
    fn one_line_is_shown_behind_the_status_and_more_below_it() {
        assert_eq!(described(403, None, b""), "the server refused: 403 Forbidden");
        assert_eq!(
            described(404, None, b"not here\n"),
            "the server refused: 404 Not Found (is the path right?): not here"
        );
        assert_eq!(
            described(400, None, b"<h1>No</h1>\r\n\r\n<p>Really</p>\n"),
            "the server refused: 400 Bad Request\n  <h1>No</h1>\n  <p>Really</p>"
        );
        let many = described(500, None, &b"a\n".repeat(9));
        assert_eq!(many.lines().count(), 1 + LINES + 1, "{many}");
        assert_eq!(describe(599, false, None), "the server refused: 599");
    }

    #[test]
    fn a_page_is_no_refusal() {
        let words = described(200, None, b"<!doctype html>");
        assert_eq!(words, "the server answered 200 OK, not as a WebSocket server: <!doctype html>");
    }

    #[test]
    fn what_the_peer_wrote_is_escaped_and_bounded() {
        let words = described(400, None, b"\x1b[2J\xff\x00");
        assert_eq!(words, "the server refused: 400 Bad Request: \\u{1b}[2J\u{fffd}\\u{0}");
        let words = described(400, None, &[b'x'; 60_000]);
        assert!(words.chars().count() < 300 && words.ends_with('…'), "{words}");
        let words = described(301, Some(("location", "ws://b.example/\u{9b}")), b"");
        assert!(words.ends_with("(it points to ws://b.example/\\u{9b}: not followed)"), "{words}");
        let response = Response::builder().header("location", "/b").body(Vec::new()).ok();
        let words = describe(302, true, response.as_ref());
        assert!(words.ends_with("302 Found (it points to /b; --location follows it)"), "{words}");
        let words = describe(300, true, response.as_ref());
        assert!(words.ends_with("(it points to /b: not followed)"), "{words}");
        let words = described(500, Some(("content-encoding", "gzip")), b"\x1f\x8b\x08");
        assert_eq!(words, "the server refused: 500 Internal Server Error");
    }
}
