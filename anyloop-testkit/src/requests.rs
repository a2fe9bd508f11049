//! Requests and responses of an opening handshake (RFC 6455 §4), and functions that modify them.

use anyloop_proto::Random;

/// The request of RFC 6455 §1.2.
pub const SAMPLE_REQUEST: &str = "GET /chat HTTP/1.1\r\n\
    Host: server.example.com\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Origin: http://example.com\r\n\
    Sec-WebSocket-Protocol: chat, superchat\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// The response of RFC 6455 §1.2.
pub const SAMPLE_RESPONSE: &str = "HTTP/1.1 101 Switching Protocols\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
    Sec-WebSocket-Protocol: chat\r\n\r\n";

/// A request with only the fields that a client must send.
pub const REQUEST: &str = "GET /chat HTTP/1.1\r\n\
    Host: localhost\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// The value of `Sec-WebSocket-Accept` for each request of this module.
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The status line of a response that accepts a request.
pub const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\n";

/// A response that a client with the random source [`Zeros`] accepts.
pub const RESPONSE: &str = "HTTP/1.1 101 Switching Protocols\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n";

/// [`REQUEST`] with another target.
#[must_use]
pub fn request(target: &str) -> String {
    replaced(REQUEST, "/chat", target)
}

/// The head with `from` replaced.
///
/// # Panics
///
/// If the head does not contain `from`, since the test would then have no effect.
#[must_use]
#[track_caller]
pub fn replaced(head: &str, from: &str, to: &str) -> String {
    assert!(head.contains(from), "{from:?} is not in {head:?}");
    head.replace(from, to)
}

/// The head with more lines at its end. Each ends with CR LF.
#[must_use]
#[track_caller]
pub fn with_lines(head: &str, lines: &str) -> String {
    replaced(head, "\r\n\r\n", &format!("\r\n{lines}\r\n"))
}

/// Splits `bytes` after the blank line that ends the head at their start.
///
/// # Panics
///
/// If there is no blank line, or the head is not UTF-8.
#[must_use]
#[track_caller]
pub fn split_head(bytes: &[u8]) -> (&str, &[u8]) {
    let end = head_end(bytes).expect("the head is complete");
    let (head, rest) = bytes.split_at(end);
    (std::str::from_utf8(head).expect("the head is UTF-8"), rest)
}

/// The size of the head at the start of `bytes`, including its blank line. `None` if it is not complete.
#[must_use]
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// The value of the first header field with this name.
#[must_use]
pub fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut named = fields.filter(|(found, _)| found.eq_ignore_ascii_case(name));
    named.next().map(|(_, value)| value.trim())
}

/// The status code of a response.
///
/// # Panics
///
/// If the head does not begin with a status line.
#[must_use]
#[track_caller]
pub fn status(head: &str) -> u16 {
    let code = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    code.and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status line: {head:?}"))
}

/// A deterministic random source: nonces and masking keys are zeros. [`RESPONSE`] matches that nonce.
#[derive(Clone, Copy, Debug)]
pub struct Zeros;

impl Random for Zeros {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

/// A deterministic random source: the nonce is that of RFC 6455 §1.3. [`SAMPLE_RESPONSE`] matches it.
#[derive(Clone, Copy, Debug)]
pub struct SampleNonce;

impl Random for SampleNonce {
    fn fill(&self, bytes: &mut [u8]) {
        let nonce = b"the sample nonce".iter().cycle();
        bytes.iter_mut().zip(nonce).for_each(|(byte, nonce)| *byte = *nonce);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_modified_and_parsed() {
        let head = with_lines(&request("/a?b"), "Origin: null\r\n");
        assert!(head.starts_with("GET /a?b HTTP/1.1\r\n"), "{head}");
        assert!(head.ends_with("Version: 13\r\nOrigin: null\r\n\r\n"), "{head}");
        assert_eq!(field(&head, "origin"), Some("null"));
        assert_eq!(field(&head, "cookie"), None);
        assert_eq!(split_head(format!("{head}rest").as_bytes()), (&*head, &b"rest"[..]));
        assert_eq!(status(SAMPLE_RESPONSE), 101);
        assert_eq!(field(SAMPLE_RESPONSE, "Sec-WebSocket-Accept"), Some(ACCEPT));
    }

    #[test]
    #[should_panic(expected = "is not in")]
    fn replaced_fails_if_there_is_nothing_to_replace() {
        let _ = replaced(REQUEST, "Cookie", "");
    }
}
