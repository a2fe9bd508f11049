//! Bodies of plain requests and of responses other than 101, collected up to a limit.

use alloc::vec::Vec;

use http::{HeaderMap, StatusCode, Version};

use super::fields::Fields;
use crate::error::{Field, HandshakeError};
use crate::input::Input;

/// The bytes of overhead that any body may have: the digits of a chunk size after the first, chunk extensions and
/// trailer fields. They are skipped, and the limit keeps a small body from being endless.
const BASE_OVERHEAD: usize = 16 * 1024;

/// The bytes of overhead that are allowed in addition for each byte of the body.
const OVERHEAD_PER_BYTE: usize = 4;

/// How the end of a received body is found (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// After this many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// At the end of the byte stream.
    ToEnd,
}

impl Framing {
    /// The framing of a request. Anything ambiguous is an error, because parties that read it
    /// differently allow request smuggling (RFC 9112 §11.2).
    pub(super) fn of_request(
        fields: &Fields<'_>,
        version: Version,
    ) -> Result<Self, HandshakeError> {
        let length = fields.content_length()?;
        if !fields.has(Field::TransferEncoding) {
            return Ok(Self::Length(length.unwrap_or(0)));
        }
        // RFC 9112 §6.1: faulty with HTTP/1.0, and an attack together with Content-Length.
        if version == Version::HTTP_10 || length.is_some() {
            return Err(HandshakeError::Invalid(Field::TransferEncoding));
        }
        if !is_chunked(fields) {
            return Err(HandshakeError::Unsupported(Field::TransferEncoding));
        }
        Ok(Self::Chunked)
    }

    /// The framing of a response to GET, or of a refusal of CONNECT. An ambiguous body extends to the end of the byte
    /// stream, which is closed in any case.
    pub(super) fn of_response(headers: &HeaderMap, status: StatusCode) -> Self {
        let fields = Fields::of(headers);
        if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            Self::Length(0)
        } else if is_chunked(&fields) {
            Self::Chunked
        } else if fields.has(Field::TransferEncoding) {
            Self::ToEnd
        } else {
            fields.content_length().ok().flatten().map_or(Self::ToEnd, Self::Length)
        }
    }
}

/// A body that is being received. Its memory grows with what arrives.
pub(super) struct Body {
    step: Step,
    limit: usize,
    /// Bytes of overhead so far: see [`BASE_OVERHEAD`].
    overhead: usize,
    bytes: Vec<u8>,
}

/// The state of the parser: what it expects next.
#[derive(Clone, Copy)]
enum Step {
    /// This number of bytes, then the end.
    Sized(u64),
    /// Bytes, until the byte stream ends.
    ToEnd,
    /// The first digit of a chunk size.
    Size,
    /// More digits, or their end.
    Digits(u64),
    /// A chunk extension after a chunk size, up to its line end.
    Extension(u64),
    /// The LF after a chunk size.
    SizeEnd(u64),
    /// This number of bytes of a chunk.
    Chunk(u64),
    /// The CR after a chunk.
    ChunkCr,
    /// The LF after a chunk.
    ChunkLf,
    /// A line of the trailer section, and whether it has any bytes so far.
    Trailer(bool),
    /// The LF of a line of the trailer section, and whether the line has any bytes.
    TrailerLf(bool),
    /// Nothing.
    Whole,
}

impl Body {
    /// A body of which at most `limit` bytes are collected.
    pub(super) const fn new(framing: Framing, limit: usize) -> Self {
        let step = match framing {
            Framing::Length(0) => Step::Whole,
            Framing::Length(length) => Step::Sized(length),
            Framing::Chunked => Step::Size,
            Framing::ToEnd => Step::ToEnd,
        };
        Self { step, limit, overhead: 0, bytes: Vec::new() }
    }

    /// Whether the rest of the declared length, or of the present chunk, exceeds what the limit leaves.
    pub(super) fn declares_too_much(&self) -> bool {
        match self.step {
            Step::Sized(rest) | Step::Chunk(rest) => {
                rest > self.limit.saturating_sub(self.bytes.len()) as u64
            }
            _ => false,
        }
    }

    /// Takes the bytes of the body from `input`. Returns whether the body is complete.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::BodyTooBig`] at the first byte beyond the limit (all bytes before it are
    /// collected), for too much overhead, and for a chunk size of more than 64 bits.
    /// [`HandshakeError::MalformedBody`] for invalid chunks (RFC 9112 §7.1).
    pub(super) fn read(&mut self, input: &mut Input<'_>) -> Result<bool, HandshakeError> {
        while !input.is_empty() {
            self.step = match self.step {
                Step::Whole => break,
                Step::Sized(rest) => match self.gather(rest, input)? {
                    0 => Step::Whole,
                    rest => Step::Sized(rest),
                },
                Step::Chunk(rest) => match self.gather(rest, input)? {
                    0 => Step::ChunkCr,
                    rest => Step::Chunk(rest),
                },
                Step::ToEnd => {
                    self.gather(u64::MAX, input)?;
                    Step::ToEnd
                }
                step => {
                    let [byte] = *input.take(1) else { break };
                    self.between_chunks(step, byte)?
                }
            };
        }
        Ok(self.is_whole())
    }

    pub(super) const fn is_whole(&self) -> bool {
        matches!(self.step, Step::Whole)
    }

    /// Takes the collected bytes.
    pub(super) fn take(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.bytes)
    }

    /// Collects the available part of the next `rest` bytes. Returns how many are still to come.
    fn gather(&mut self, rest: u64, input: &mut Input<'_>) -> Result<u64, HandshakeError> {
        let here = usize::try_from(rest).unwrap_or(usize::MAX).min(input.len());
        let free = self.limit.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(input.take(here.min(free)));
        if here > free {
            return Err(HandshakeError::BodyTooBig);
        }
        Ok(rest - here as u64)
    }

    /// Handles one byte between chunks, or after the last.
    fn between_chunks(&mut self, step: Step, byte: u8) -> Result<Step, HandshakeError> {
        const MALFORMED: HandshakeError = HandshakeError::MalformedBody;

        Ok(match (step, byte) {
            (Step::Size, _) => Step::Digits(digit(byte).ok_or(MALFORMED)?),
            (Step::Digits(size) | Step::Extension(size), b'\r') => Step::SizeEnd(size),
            (Step::Digits(size), b';' | b' ' | b'\t') => Step::Extension(size),
            (Step::Digits(size), _) => {
                let digit = digit(byte).ok_or(MALFORMED)?;
                self.count_overhead()?; // leading zeros could go on without end
                // Only a declared size can overflow: no sum of received bytes can.
                Step::Digits(size.checked_mul(16).ok_or(HandshakeError::BodyTooBig)? | digit)
            }
            (Step::SizeEnd(0), b'\n') => Step::Trailer(false),
            (Step::SizeEnd(size), b'\n') => Step::Chunk(size),
            (Step::ChunkCr, b'\r') => Step::ChunkLf,
            (Step::ChunkLf, b'\n') => Step::Size,
            (Step::Trailer(any), b'\r') => Step::TrailerLf(any),
            (Step::TrailerLf(true), b'\n') => Step::Trailer(false),
            (Step::TrailerLf(false), b'\n') => Step::Whole,
            (Step::Extension(_) | Step::Trailer(_), b'\t' | b' '..=b'~' | 0x80..) => {
                self.count_overhead()?;
                if matches!(step, Step::Trailer(_)) { Step::Trailer(true) } else { step }
            }
            _ => return Err(MALFORMED),
        })
    }

    fn count_overhead(&mut self) -> Result<(), HandshakeError> {
        self.overhead += 1;
        let allowed =
            self.bytes.len().saturating_mul(OVERHEAD_PER_BYTE).saturating_add(BASE_OVERHEAD);
        if self.overhead > allowed {
            return Err(HandshakeError::BodyTooBig);
        }
        Ok(())
    }
}

fn is_chunked(fields: &Fields<'_>) -> bool {
    let mut codings = fields.elements(Field::TransferEncoding);
    let chunked = codings.next().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
    chunked && codings.next().is_none()
}

fn digit(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}
