//! The application's response, whose body is sent in pieces.

use std::io::Write as _;

use super::response::{self, AnswerError, SentFraming};
use super::server::{ServerHandshake, Step};
use crate::connection::SendQueue;
use crate::error::{Cause, Failure, HandshakeError, ResponseError};
use crate::output::{LARGE_PAYLOAD, Output};
use crate::time::Instant;

/// The progress of a response, in bytes of output: the head and the framing of the body are included.
#[derive(Default)]
pub(super) struct Sending {
    /// Bytes that were appended since the last report of the transport.
    appended: usize,
    /// Bytes that the transport has not taken, as of its last report.
    waiting: usize,
    /// The peer's machine has not acknowledged everything, although the transport has taken it.
    in_flight: bool,
    /// Bytes acknowledged, as last reported. `None` before the first such report, and after the transport took output.
    acknowledged: Option<u64>,
}

impl Sending {
    /// Whether the transport has reported that the peer has more to read.
    const fn is_unread(&self) -> bool {
        self.waiting > 0 || self.in_flight
    }

    /// Whether a failure of the stream can lose a part of the response.
    const fn can_be_lost(&self) -> bool {
        self.appended > 0 || self.is_unread()
    }
}

impl ServerHandshake {
    /// Answers the request with a response of any status from 200 to 599, and ends the byte stream.
    /// This serves a plain request or refuses a WebSocket request. After a refusal,
    /// [`HandshakeError::Refused`] is the [`failure`](Self::failure).
    ///
    /// Connection and Transfer-Encoding are written by the handshake. Content-Length is too, unless the response has
    /// its own, which must be right. The body is omitted where HTTP allows none: after HEAD, and for 204, 205 and 304.
    /// A response to HEAD, or with status 304, may have an empty body and the Content-Length that the response to GET
    /// would have (RFC 9110 §8.6). With status 204 or 205, a Content-Length of the application is refused. There is no
    /// Date, because the state machine has no clock.
    ///
    /// # Errors
    ///
    /// Nothing was appended. The request still waits for an answer, except after [`AnswerError::NotAwaiting`].
    pub fn respond<B: AsRef<[u8]>>(
        &mut self,
        response: &http::Response<B>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), AnswerError> {
        let body = response.body().as_ref();
        if self.respond_head(response, Some(body.len() as u64), now, out)? {
            // The length is that of the body, so neither can fail.
            let _: Result<(), Failure> = self.body_piece(body, out);
            let _: Result<(), Failure> = self.end_body(now, out);
        }
        Ok(())
    }

    /// As [`respond`](Self::respond), with a body that follows in [pieces](Self::body_piece). The body in `response` is
    /// ignored. Returns whether a body has to follow, which may be empty; [`end_body`](Self::end_body) ends it.
    /// Otherwise the response is complete.
    ///
    /// The body has `length` bytes, or as many as the Content-Length of the response says. If neither is given, the
    /// body is chunked for a client of HTTP/1.1 (RFC 9112 §7.1), and ends with the byte stream for a client of
    /// HTTP/1.0.
    ///
    /// ```
    /// # use anyloop_proto::*;
    /// # use anyloop_proto::handshake::{*, http::Response};
    /// # let now = Instant::from_nanos(0);
    /// # let mut request = *b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    /// # let options = ServerOptions::new(OriginPolicy::Any);
    /// # let mut handshake = ServerHandshake::new(options.into(), now);
    /// # let mut out = Vec::new();
    /// # handshake.next(&mut Input::new(&mut request), now, &mut out)?;
    /// if handshake.respond_head(&Response::new(()), None, now, &mut out)? {
    ///     for piece in ["some ", "pieces"] {
    ///         handshake.body_piece(piece.as_bytes(), &mut out)?;
    ///         // ... write `out`
    ///     }
    ///     handshake.end_body(now, &mut out)?;
    /// }
    /// assert!(out.ends_with(b"\r\n\r\n5\r\nsome \r\n6\r\npieces\r\n0\r\n\r\n"));
    /// assert_eq!(handshake.shutdown(), Shutdown::HalfClose);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`respond`](Self::respond).
    pub fn respond_head<B>(
        &mut self,
        response: &http::Response<B>,
        length: Option<u64>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<bool, AnswerError> {
        let request = self.awaiting()?;
        let is_refusal = request.is_upgrade();
        let before = out.buffer().len();
        let framing = response::write_head(request, response, length, out.buffer())?;
        self.begin_response(framing, out.buffer().len() - before, now);
        if is_refusal {
            let error = HandshakeError::Refused(response.status().as_u16());
            self.fail(Cause::Handshake(error));
        }
        Ok(self.is_responding())
    }

    /// Answers the request with 500, in place of an answer that cannot be sent. The [`failure`](Self::failure) is
    /// [`HandshakeError::Refused`] for a WebSocket request, and otherwise [`ResponseError::Invalid`].
    ///
    /// # Errors
    ///
    /// [`AnswerError::NotAwaiting`].
    pub fn respond_internal_error(
        &mut self,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), AnswerError> {
        let is_refusal = self.awaiting()?.is_upgrade();
        let before = out.buffer().len();
        response::write_internal_error(!self.is_head_request, out.buffer());
        self.begin_response(SentFraming::Bodiless, out.buffer().len() - before, now);
        self.fail(match is_refusal {
            true => Cause::Handshake(HandshakeError::Refused(500)),
            false => Cause::Response(ResponseError::Invalid),
        });
        Ok(())
    }

    fn begin_response(&mut self, framing: SentFraming, appended: usize, now: Instant) {
        self.sending = Some(Sending { appended, ..Sending::default() });
        (self.step, self.deadline) = (Step::Responding(framing), None);
        if matches!(framing, SentFraming::Bodiless) {
            self.complete_response(now);
        }
    }

    /// Whether the body of a response is being sent.
    #[must_use]
    pub const fn is_responding(&self) -> bool {
        matches!(self.step, Step::Responding(_))
    }

    /// Appends a piece of the body, of any size. Does nothing if the piece is empty, or while
    /// [no body is being sent](Self::is_responding).
    ///
    /// # Errors
    ///
    /// [`ResponseError::TooLong`], once: the piece is not appended, and the byte stream is aborted.
    pub fn body_piece(&mut self, piece: &[u8], out: &mut impl Output) -> Result<(), Failure> {
        let Step::Responding(framing) = &mut self.step else { return Ok(()) };
        if piece.is_empty() {
            return Ok(());
        }
        let is_chunked = match framing {
            SentFraming::Length { length, left } => match left.checked_sub(piece.len() as u64) {
                Some(rest) => {
                    *left = rest;
                    false
                }
                None => {
                    let error = ResponseError::TooLong { length: *length };
                    return self.end(Cause::Response(error));
                }
            },
            SentFraming::Chunked => true,
            SentFraming::UntilClose | SentFraming::Bodiless => false,
        };
        let mut header = ChunkHeader::default();
        if is_chunked {
            // The header has room for any length.
            let _ = write!(&mut header, "{:x}\r\n", piece.len());
        }
        let taken = piece.len() >= LARGE_PAYLOAD && out.write_vectored(header.bytes(), piece);
        if !taken {
            out.buffer().extend_from_slice(header.bytes());
            out.buffer().extend_from_slice(piece);
        }
        let end: &[u8] = if is_chunked { b"\r\n" } else { b"" };
        out.buffer().extend_from_slice(end);
        self.count(header.bytes().len() + piece.len() + end.len());
        Ok(())
    }

    /// Ends the body, and the byte stream after it. Does nothing while [no body is being sent](Self::is_responding).
    ///
    /// # Errors
    ///
    /// [`ResponseError::TooShort`], once: the byte stream is aborted.
    pub fn end_body(&mut self, now: Instant, out: &mut impl Output) -> Result<(), Failure> {
        let Step::Responding(framing) = self.step else { return Ok(()) };
        match framing {
            SentFraming::Length { left, .. } if left > 0 => {
                let error = ResponseError::TooShort { missing: left };
                return self.end(Cause::Response(error));
            }
            SentFraming::Chunked => {
                const LAST: &[u8] = b"0\r\n\r\n";
                out.buffer().extend_from_slice(LAST);
                self.count(LAST.len());
            }
            _ => {}
        }
        self.complete_response(now);
        Ok(())
    }

    /// Abandons the body: the byte stream is aborted, so the client does not take a part for the whole. Returns the
    /// failure; `None` while [no body is being sent](Self::is_responding).
    pub fn fail_body(&mut self, error: ResponseError) -> Option<Failure> {
        if !self.is_responding() {
            return None;
        }
        self.end(Cause::Response(error)).err()
    }

    /// Reports that the output was written, except for `waiting` bytes. Call it after each write of a response, and
    /// when the byte stream has taken more of it.
    ///
    /// While output waits, the client must read some of it within each
    /// [`response_timeout`](super::ServerOptions::response_timeout). When a complete response is written, the close
    /// timeout begins. Without these reports, output counts as written when it is appended.
    pub fn handle_written(&mut self, waiting: usize, now: Instant) {
        let Some(sending) = &mut self.sending else { return };
        let before = std::mem::replace(&mut sending.waiting, waiting);
        let offered = before + std::mem::take(&mut sending.appended);
        let progressed = waiting < offered;
        if progressed {
            sending.acknowledged = None;
        }
        self.deadline = match &self.step {
            Step::Responding(_) if waiting == 0 => None,
            Step::Closing { .. } if waiting == 0 && !progressed => return,
            Step::Closing { .. } if waiting == 0 => self.close_deadline(now),
            Step::Responding(_) | Step::Closing { .. } if progressed || before == 0 => {
                self.options.response_timeout.map(|timeout| now + timeout)
            }
            _ => return,
        };
    }

    /// Reports how much of the written output the client's machine has acknowledged. A transport that knows it calls
    /// this before [`handle_timeout`](Self::handle_timeout). `queue` is called only if the time to read a response, or
    /// the close timeout after it, has passed.
    ///
    /// If bytes are not acknowledged, the time to read the response begins anew at the first such report, and at each
    /// one with more bytes acknowledged than the last. The reason is that the system reports that a socket takes more
    /// only after a large part of its buffer was read.
    pub fn note_send_queue(&mut self, queue: impl FnOnce() -> Option<SendQueue>, now: Instant) {
        let Some(sending) = &mut self.sending else { return };
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        let Some(SendQueue { acknowledged, waiting }) = queue() else { return };
        sending.in_flight = waiting > 0;
        if waiting > 0 && sending.acknowledged.is_none_or(|before| acknowledged > before) {
            sending.acknowledged = Some(acknowledged);
            self.deadline = self.options.response_timeout.map(|timeout| now + timeout);
        }
    }

    /// Whether the transport has reported that the peer has more of a response to read.
    pub(super) fn is_unread(&self) -> bool {
        self.sending.as_ref().is_some_and(Sending::is_unread)
    }

    /// Whether a failure of the stream can lose a part of a response.
    pub(super) fn can_be_lost(&self) -> bool {
        self.sending.as_ref().is_some_and(Sending::can_be_lost)
    }

    fn count(&mut self, appended: usize) {
        if let Some(sending) = &mut self.sending {
            sending.appended += appended;
        }
    }

    /// Begins to wait until the peer has read the response, all of which was appended.
    fn complete_response(&mut self, now: Instant) {
        self.step = Step::Closing { drain: !self.eof };
        if self.sending.as_ref().is_none_or(|sending| sending.waiting == 0) {
            self.deadline = self.close_deadline(now);
        }
    }

    pub(super) fn close_deadline(&self, now: Instant) -> Option<Instant> {
        self.options.connection.close_timeout.map(|timeout| now + timeout)
    }
}

/// The size of a chunk in at most 16 hexadecimal digits, and a line end.
#[derive(Default)]
struct ChunkHeader {
    bytes: [u8; 18],
    len: usize,
}

impl ChunkHeader {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl std::io::Write for ChunkHeader {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = (&mut self.bytes[self.len..]).write(bytes)?;
        self.len += written;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
