//! Gathering the head of a request or response, up to its empty line.
//!
//! Each byte is looked at once, when it arrives, whatever the pieces it arrives in; the head is
//! parsed when it is whole. Line ends are checked here, as strictly as a sender has to write them,
//! since the parser would let a bare LF pass.

use alloc::vec::Vec;

use super::fields::is_token_char;
use crate::error::HandshakeError;
use crate::input::Input;

/// How many empty lines may come before a request line: RFC 9112 §2.2 asks for one at least.
const MAX_EMPTY_LINES: u8 = 4;

/// What the first line of a response begins with (RFC 9112 §4).
const STATUS_LINE: &[u8] = b"HTTP/1.";

/// A head on its way in. Owns no memory before the first byte.
pub(super) struct Head {
    message: Message,
    max_size: usize,
    max_fields: usize,
    bytes: Vec<u8>,
    /// Whole lines so far, the first one included.
    lines: usize,
    /// Bytes of the line under way.
    line: usize,
    after_cr: bool,
    empty_lines: u8,
    /// How much of [`HEAD`] the first line has begun with.
    head: u8,
}

/// How the request of a head without its body begins.
const HEAD: &[u8] = b"HEAD ";

/// What kind of head it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    Request,
    Response,
}

/// What a byte does to the head.
enum Step {
    /// It belongs to the head, which goes on.
    Part,
    /// It ends an empty line before the head: nothing so far belongs to the head.
    Before,
    /// It is the last one.
    Last,
}

impl Head {
    /// `max_size` bytes at most, all line ends included; empty lines before it do not count.
    pub(super) const fn new(message: Message, max_size: usize, max_fields: usize) -> Self {
        let bytes = Vec::new();
        let (lines, line, after_cr, empty_lines, head) = (0, 0, false, 0, 0);
        Self { message, max_size, max_fields, bytes, lines, line, after_cr, empty_lines, head }
    }

    /// Takes from `input` what belongs to the head. Returns whether it is whole. After an error it
    /// is not to be used again, and what was taken is undefined.
    pub(super) fn read(&mut self, input: &mut Input<'_>) -> Result<bool, HandshakeError> {
        let mut start = 0;
        let mut whole = None;
        for (at, &byte) in input.rest().iter().enumerate() {
            match self.step(byte)? {
                Step::Part | Step::Last if self.bytes.len() + (at - start) >= self.max_size => {
                    return Err(self.too_big());
                }
                Step::Part => {}
                Step::Before => {
                    self.bytes.clear(); // a CR that came before
                    start = at + 1;
                }
                Step::Last => {
                    whole = Some(at + 1);
                    break;
                }
            }
        }
        let taken = input.take(whole.unwrap_or(usize::MAX));
        self.bytes.extend_from_slice(&taken[start..]);
        Ok(whole.is_some())
    }

    /// Whether any byte has arrived that is not of an empty line.
    pub(super) const fn has_begun(&self) -> bool {
        self.lines > 0 || self.line > 0
    }

    /// Whether it is a request by HEAD, as far as it has come: a refusal has no body then either.
    pub(super) fn is_by_head(&self) -> bool {
        usize::from(self.head) == HEAD.len()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many header fields there are, in a head that is whole.
    pub(super) const fn fields(&self) -> usize {
        self.lines.saturating_sub(1)
    }

    fn step(&mut self, byte: u8) -> Result<Step, HandshakeError> {
        match byte {
            b'\n' if self.after_cr => return self.end_line(),
            // RFC 9112 §2.2: a bare CR is invalid. A bare LF may be taken for a line end, or not:
            // where proxies differ in it, requests are smuggled.
            _ if self.after_cr => return Err(HandshakeError::Malformed),
            0..=8 | 10..=12 | 14..=31 | 127 => return Err(HandshakeError::Malformed),
            _ if self.lines == 0 && !self.may_begin(byte) => return Err(self.no_beginning()),
            b'\r' => self.after_cr = true,
            _ => {
                let place = usize::from(self.head);
                if self.lines == 0 && self.line == place && HEAD.get(place) == Some(&byte) {
                    self.head += 1;
                }
                self.line += 1;
            }
        }
        Ok(Step::Part)
    }

    fn end_line(&mut self) -> Result<Step, HandshakeError> {
        let empty = self.line == 0;
        (self.after_cr, self.line) = (false, 0);
        match (empty, self.lines) {
            (true, 0) if self.message == Message::Request && self.empty_lines < MAX_EMPTY_LINES => {
                self.empty_lines += 1;
                Ok(Step::Before)
            }
            (true, 0) => Err(HandshakeError::Malformed),
            (true, _) => Ok(Step::Last),
            (false, fields) if fields > self.max_fields => Err(HandshakeError::TooManyFields),
            (false, _) => {
                self.lines += 1;
                Ok(Step::Part)
            }
        }
    }

    /// What cannot be HTTP (a TLS handshake, say) is told by its first bytes; there may never be a
    /// line end to wait for.
    fn may_begin(&self, byte: u8) -> bool {
        match self.message {
            Message::Request => self.line > 0 || byte == b'\r' || is_token_char(byte),
            Message::Response => STATUS_LINE.get(self.line).is_none_or(|&wanted| byte == wanted),
        }
    }

    fn no_beginning(&self) -> HandshakeError {
        match self.message {
            Message::Response if self.line + 2 >= STATUS_LINE.len() => HandshakeError::HttpVersion,
            _ => HandshakeError::Malformed,
        }
    }

    fn too_big(&self) -> HandshakeError {
        match self.message {
            // RFC 9112 §3: 414 for a request target that is too long, and nothing else.
            Message::Request if self.lines == 0 => HandshakeError::TargetTooLong,
            _ => HandshakeError::HeadTooBig,
        }
    }
}
