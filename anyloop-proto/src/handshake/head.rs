//! Collects the head of a request or response, up to its empty line.
//!
//! Each byte is searched once, when it arrives. The head is parsed when it is complete. Line ends
//! are checked here, because the parser would accept a bare LF.

use alloc::vec::Vec;

use http::Method;

use super::fields::is_token_char;
use crate::config::Role;
use crate::error::{FirstBytes, HandshakeError};
use crate::input::Input;

/// The number of empty lines allowed before a request line; RFC 9112 §2.2 asks for at least one.
const MAX_EMPTY_LINES: u8 = 4;

/// The start of the first line of a response (RFC 9112 §4).
const STATUS_LINE: &[u8] = b"HTTP/1.";

/// The start of the version at the beginning of a response.
const PROTOCOL: &[u8] = b"HTTP/";

/// The start of the version at the end of a request line (RFC 9112 §3).
const VERSION: &[u8] = b" HTTP/";

/// The methods by which a request is known to be HTTP, although it is invalid (RFC 9110 §9.3, RFC 5789).
static METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];

/// The most white space before an invalid head that may still be known as HTTP.
const MAX_WHITE_SPACE: usize = 8;

/// The start of a request with the method HEAD, whose response has no body.
const HEAD_METHOD: &[u8] = b"HEAD ";

/// A head that is being received. Owns no memory before the first byte.
pub(super) struct Head {
    kind: HeadKind,
    max_size: usize,
    max_fields: usize,
    /// The part of the head that has arrived, without empty lines before it.
    bytes: Vec<u8>,
    /// How many of these bytes were searched.
    searched: usize,
    /// The offset of the current line.
    line_start: usize,
    /// The number of complete lines, including the first. A folded line counts as a part of the
    /// line before it.
    lines: usize,
    empty_lines: u8,
    /// The last byte before the head was a CR.
    after_cr: bool,
    /// A field value is folded over several lines.
    folded: bool,
}

/// What kind of head it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadKind {
    Request,
    Response,
    /// A response after an interim response.
    NextResponse,
}

impl HeadKind {
    /// The error for a head that is invalid after its first `valid` bytes: whether its first line is that of another
    /// protocol. Bytes after the invalid one do not count, since they may not have arrived.
    pub(super) fn invalid(self, head: &[u8], valid: usize) -> HandshakeError {
        let line = head[..valid].split(|&byte| byte == b'\r').next().unwrap_or_default();
        let is_http = match self {
            // RFC 9112 §3: a request line has a method, a target and a version. If the method is unknown, a path or the
            // version tells.
            Self::Request => {
                begins_with_method(line) == Some(true)
                    || line.windows(2).find(|pair| pair[0] == b' ') == Some(b" /")
                    || line.windows(VERSION.len()).any(|part| part == VERSION)
            }
            Self::Response | Self::NextResponse => line.starts_with(STATUS_LINE),
        };
        if is_http { HandshakeError::Malformed } else { self.not_http(head) }
    }

    /// The error for a head that begins as none of HTTP does.
    fn not_http(self, head: &[u8]) -> HandshakeError {
        let peer = match self {
            Self::Request => Role::Client,
            Self::Response => Role::Server,
            Self::NextResponse => return HandshakeError::Malformed, // the interim response was HTTP
        };
        HandshakeError::NotHttp { peer, first_bytes: FirstBytes::of(head) }
    }

    /// Whether `bytes` begin as HTTP does. `None`: too few have arrived.
    fn is_begun_by(self, bytes: &[u8]) -> Option<bool> {
        match self {
            Self::Request => begins_with_method(bytes),
            Self::Response | Self::NextResponse => {
                let begins = bytes.starts_with(PROTOCOL);
                (begins || !PROTOCOL.starts_with(bytes)).then_some(begins)
            }
        }
    }
}

/// Whether `bytes` begin with one of [`METHODS`] and a blank. `None`: too few have arrived.
fn begins_with_method(bytes: &[u8]) -> Option<bool> {
    let mut methods = METHODS.iter().map(|method| method.as_str().as_bytes());
    match bytes.iter().position(|byte| matches!(byte, b' ' | b'\t')) {
        Some(end) => Some(methods.any(|method| method == &bytes[..end])),
        None if methods.any(|method| method.starts_with(bytes)) => None,
        None => Some(false),
    }
}

impl Head {
    /// A head of at most `max_size` bytes, including line ends. Empty lines before it do not count.
    pub(super) const fn new(kind: HeadKind, max_size: usize, max_fields: usize) -> Self {
        Self {
            kind,
            max_size,
            max_fields,
            bytes: Vec::new(),
            searched: 0,
            line_start: 0,
            lines: 0,
            empty_lines: 0,
            after_cr: false,
            folded: false,
        }
    }

    /// Takes the bytes of the head from `input`. Returns whether the head is complete. After an
    /// error it must not be called again, and the bytes taken are unspecified.
    pub(super) fn read(&mut self, input: &mut Input<'_>) -> Result<bool, HandshakeError> {
        if self.kind == HeadKind::Request && self.bytes.is_empty() {
            self.skip_empty_lines(input)?;
        }
        let before = self.bytes.len();
        let part = input.len().min(self.max_size - before);
        self.bytes.extend_from_slice(&input.rest()[..part]);
        if let Some(end) = self.search()? {
            input.take(end - before);
            self.bytes.truncate(end);
            if self.folded {
                unfold(&mut self.bytes);
            }
            return Ok(true);
        }
        if part < input.len() {
            return Err(self.too_big());
        }
        input.discard();
        Ok(false)
    }

    /// Whether any byte after the empty lines has arrived.
    pub(super) fn has_begun(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Whether the bytes so far begin a HEAD request, whose response has no body, even if it is an
    /// error.
    pub(super) fn is_head_request(&self) -> bool {
        self.bytes.starts_with(HEAD_METHOD)
    }

    /// The number of header fields of a complete head.
    pub(super) const fn field_count(&self) -> usize {
        self.lines.saturating_sub(1)
    }

    /// The number of bytes that have arrived.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Takes the bytes of a complete head.
    pub(super) fn take(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.bytes)
    }

    fn skip_empty_lines(&mut self, input: &mut Input<'_>) -> Result<(), HandshakeError> {
        while let Some(&byte) = input.rest().first() {
            match byte {
                b'\n' if self.after_cr && self.empty_lines < MAX_EMPTY_LINES => {
                    self.empty_lines += 1;
                    self.after_cr = false;
                }
                _ if self.after_cr => return Err(HandshakeError::Malformed),
                b'\r' => self.after_cr = true,
                _ => break,
            }
            input.take(1);
        }
        Ok(())
    }

    /// Searches the new bytes for the empty line. Returns the offset of the end of the head.
    fn search(&mut self) -> Result<Option<usize>, HandshakeError> {
        if self.bytes.first().is_some_and(u8::is_ascii_whitespace) {
            return self.search_after_white_space();
        }
        self.check_beginning()?;
        let mut at = self.searched;
        loop {
            if at == self.line_start {
                self.join_fold();
            }
            at += before_control(&self.bytes[at..]);
            match self.bytes[at..] {
                // RFC 9112 §2.2: a bare CR is invalid. A bare LF may count as a line end or not;
                // proxies that differ in this allow request smuggling.
                [b'\r', b'\n', ..] => {
                    at += 2;
                    if self.end_line(at)? {
                        return Ok(Some(at));
                    }
                }
                [b'\t', ..] => at += 1,
                [] | [b'\r'] => break,
                _ => return Err(self.kind.invalid(&self.bytes, at)),
            }
        }
        self.searched = at;
        Ok(None)
    }

    /// A head that begins with white space is invalid. What follows tells whether it is HTTP: waits for that.
    fn search_after_white_space(&self) -> Result<Option<usize>, HandshakeError> {
        let rest = self.bytes.trim_ascii_start();
        let is_short = self.bytes.len() - rest.len() <= MAX_WHITE_SPACE;
        match self.kind.is_begun_by(rest) {
            None if is_short => Ok(None),
            Some(true) if is_short => Err(HandshakeError::Malformed),
            _ => Err(self.kind.not_http(&self.bytes)),
        }
    }

    /// Ends a line; `next` is the offset after it. Returns whether it is the empty line that ends
    /// the head.
    fn end_line(&mut self, next: usize) -> Result<bool, HandshakeError> {
        let empty = next - self.line_start == 2;
        self.line_start = next;
        match (empty, self.lines) {
            (true, _) => Ok(true), // it is not the first line, which does not begin with white space
            (false, fields) if fields > self.max_fields => Err(HandshakeError::TooManyFields),
            (false, _) => {
                self.lines += 1;
                Ok(false)
            }
        }
    }

    /// Counts a line that continues a folded field value as a part of the line before it. RFC 9112 §5.2: a client
    /// accepts folded values, because old servers send them. A server and the parser refuse them.
    fn join_fold(&mut self) {
        let starts_with_space = matches!(self.bytes.get(self.line_start), Some(b' ' | b'\t'));
        if starts_with_space && self.kind != HeadKind::Request && self.lines > 1 {
            self.lines -= 1;
            self.folded = true;
        }
    }

    /// Refuses input that cannot be HTTP (a TLS handshake, for example) by its first bytes, because
    /// it may never contain a line end. They are no white space.
    fn check_beginning(&self) -> Result<(), HandshakeError> {
        if self.lines > 0 || self.bytes.is_empty() {
            return Ok(());
        }
        match self.kind {
            HeadKind::Request if is_token_char(self.bytes[0]) => Ok(()),
            HeadKind::Request => Err(self.kind.not_http(&self.bytes)),
            HeadKind::Response | HeadKind::NextResponse => {
                let same = self.bytes.iter().zip(STATUS_LINE).take_while(|(a, b)| a == b).count();
                match same {
                    _ if same == self.bytes.len() || same == STATUS_LINE.len() => Ok(()),
                    _ if same + 2 >= STATUS_LINE.len() => Err(HandshakeError::HttpVersion),
                    _ => Err(self.kind.not_http(&self.bytes)),
                }
            }
        }
    }

    const fn too_big(&self) -> HandshakeError {
        match self.kind {
            // RFC 9112 §3: 414 is for a request line that is too long.
            HeadKind::Request if self.lines == 0 => HandshakeError::TargetTooLong,
            _ => HandshakeError::HeadTooBig,
        }
    }
}

/// The number of bytes before the first control character. Searches eight bytes at a time.
fn before_control(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);

    let mut rest = bytes;
    while let Some((eight, after)) = rest.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*eight);
        let delete = word ^ (ONES * 0x7f);
        // The high bit of a byte is set if it is below 0x20 or DEL. A borrow can set it only in
        // later bytes, and only the first one matters.
        let below = word.wrapping_sub(ONES * 0x20) & !word;
        let stops = (below | (delete.wrapping_sub(ONES) & !delete)) & HIGH;
        if stops != 0 {
            return bytes.len() - rest.len() + (stops.trailing_zeros() / 8) as usize;
        }
        rest = after;
    }
    let control = rest.iter().position(u8::is_ascii_control).unwrap_or(rest.len());
    bytes.len() - rest.len() + control
}

/// Replaces each fold of a field value, including the white space around it, by spaces (RFC 9112
/// §5.2).
fn unfold(head: &mut [u8]) {
    let mut at = 0;
    while at < head.len() {
        let start = at;
        let mut folded = false;
        loop {
            match head[at..] {
                [b' ' | b'\t', ..] => at += 1,
                [b'\r', b'\n', b' ' | b'\t', ..] => (at, folded) = (at + 2, true),
                _ => break,
            }
        }
        if folded {
            head[start..at].fill(b' ');
        }
        at += 1;
    }
}
