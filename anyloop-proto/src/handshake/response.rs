//! Responses other than 101: the application's, and those that the handshake sends by itself.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use http::header::{self, HeaderName};
use http::{Method, StatusCode};

use super::fields::is_framing;
use super::write::HeadWriter;
use crate::error::{Field, HandshakeError};

/// Why a response was not sent. Nothing was appended to the output, and another response can be
/// sent.
///
/// ```
/// # use anyloop_proto::*;
/// # use anyloop_proto::handshake::*;
/// # let now = Instant::from_nanos(0);
/// # let mut request = *b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// # let options = ServerOptions::new(OriginPolicy::Any);
/// # let mut handshake = ServerHandshake::new(options.into(), now);
/// # let mut out = Vec::new();
/// # handshake.next(&mut Input::new(&mut request), now, &mut out)?;
/// // A WebSocket request has arrived that requests no subprotocol.
/// let error = handshake.accept(Accept::new().with_subprotocol("chat"), now, &mut out).unwrap_err();
/// assert_eq!(error, AnswerError::SubprotocolNotOffered);
/// assert_eq!(out, b"");
///
/// handshake.accept(Accept::new(), now, &mut out)?; // it still waits for an answer
/// let error = handshake.accept(Accept::new(), now, &mut out).unwrap_err();
/// assert_eq!(error, AnswerError::NotAwaiting);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerError {
    /// The extension of this name answers with parameters that are not tokens.
    InvalidExtension(String),
    /// The status is invalid for this request: below 200 or above 599, or 2xx for CONNECT, which
    /// would begin a tunnel.
    InvalidStatus(StatusCode),
    /// The request is plain HTTP and cannot be accepted.
    NotAnUpgrade,
    /// No request waits for an answer: none has arrived, it was answered, or its time is over.
    NotAwaiting,
    /// The handshake writes this header field itself.
    ReservedHeader(HeaderName),
    /// The client did not request this subprotocol (RFC 6455 §4.2.2).
    SubprotocolNotOffered,
    /// The response has a Content-Length that is not the length of its body, in bytes. It need not have one.
    WrongContentLength {
        /// The length of the body.
        body: usize,
    },
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidExtension(name) => {
                write!(f, "the answer of extension {name:?} is not made of tokens")
            }
            Self::InvalidStatus(status) => write!(f, "status {status} does not answer the request"),
            Self::NotAnUpgrade => f.write_str("the request is not for a WebSocket"),
            Self::NotAwaiting => f.write_str("no request waits for an answer"),
            Self::ReservedHeader(name) => {
                write!(f, "header field {name} is written by the handshake itself")
            }
            Self::SubprotocolNotOffered => f.write_str("the client did not offer this subprotocol"),
            Self::WrongContentLength { body } => {
                write!(f, "the Content-Length is not that of the body, which has {body} bytes")
            }
        }
    }
}

impl core::error::Error for AnswerError {}

/// Appends a response other than 101, which ends the connection.
pub(super) fn respond(
    method: &Method,
    response: &http::Response<Vec<u8>>,
    out: &mut Vec<u8>,
) -> Result<(), AnswerError> {
    let status = response.status();
    let tunnel = *method == Method::CONNECT && status.is_success();
    if !(200..=599).contains(&status.as_u16()) || tunnel {
        return Err(AnswerError::InvalidStatus(status));
    }
    let has_body = !matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::RESET_CONTENT
    );
    let own_length = has_body && check_length(response)?;
    let is_reserved =
        |name: &&HeaderName| is_framing(name) && !(own_length && **name == header::CONTENT_LENGTH);
    if let Some(name) = response.headers().keys().find(is_reserved) {
        return Err(AnswerError::ReservedHeader(name.clone()));
    }

    // RFC 9110 §7.8: a sender of Upgrade lists it in Connection.
    let upgrade = response.headers().contains_key(header::UPGRADE);
    let connection = if upgrade { "upgrade, close" } else { "close" };
    let head = HeadWriter::response(status, out).field("Connection", connection);
    let head = head.fields(response.headers());
    match status {
        // RFC 9110 §8.6: no Content-Length for 204; for 304 it would be that of another response.
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => {
            head.end();
        }
        // RFC 9110 §15.3.6.
        StatusCode::RESET_CONTENT => {
            head.content_length(0).end();
        }
        _ => {
            let head = if own_length { head } else { head.content_length(response.body().len()) };
            let out = head.end();
            if *method != Method::HEAD {
                out.extend_from_slice(response.body());
            }
        }
    }
    Ok(())
}

/// Whether the response has a Content-Length, which must be that of its body.
fn check_length(response: &http::Response<Vec<u8>>) -> Result<bool, AnswerError> {
    let body = response.body().len();
    let mut lengths = response.headers().get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(false) };
    let is_right = length.to_str().ok().and_then(|length| length.parse().ok()) == Some(body);
    match is_right && lengths.next().is_none() {
        true => Ok(true),
        false => Err(AnswerError::WrongContentLength { body }),
    }
}

/// Appends the response to an invalid request, with the error in plain text. `with_body` is false
/// for a HEAD request.
pub(super) fn refuse(error: HandshakeError, with_body: bool, out: &mut Vec<u8>) {
    let status = status(error);
    let head = HeadWriter::response(status, out);
    let head = match error {
        // RFC 6455 §4.4, RFC 9110 §15.5.22.
        HandshakeError::Version => head
            .field("Upgrade", "websocket")
            .field("Connection", "Upgrade, close")
            .field("Sec-WebSocket-Version", "13"),
        // RFC 9110 §15.5.6.
        HandshakeError::Method => head.field("Connection", "close").field("Allow", "GET"),
        _ => head.field("Connection", "close"),
    };
    write_text(head, &error.to_string(), with_body);
}

/// Appends a response for a timeout, or for a failure of this side.
pub(super) fn write_error(status: StatusCode, reason: &str, with_body: bool, out: &mut Vec<u8>) {
    write_text(HeadWriter::response(status, out).field("Connection", "close"), reason, with_body);
}

fn write_text(head: HeadWriter<'_>, text: &str, with_body: bool) {
    let text = [text, "\n"].concat();
    write_body(head.field("Content-Type", "text/plain"), text.as_bytes(), with_body);
}

fn write_body(head: HeadWriter<'_>, body: &[u8], with_body: bool) {
    let out = head.content_length(body.len()).end();
    if with_body {
        out.extend_from_slice(body);
    }
}

/// The status for an invalid request.
const fn status(error: HandshakeError) -> StatusCode {
    match error {
        HandshakeError::BodyTooBig => StatusCode::PAYLOAD_TOO_LARGE,
        HandshakeError::HeadTooBig | HandshakeError::TooManyFields => {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
        }
        HandshakeError::HttpVersion => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        HandshakeError::Method => StatusCode::METHOD_NOT_ALLOWED,
        HandshakeError::OriginRefused => StatusCode::FORBIDDEN,
        HandshakeError::TargetTooLong => StatusCode::URI_TOO_LONG,
        HandshakeError::Unsupported(Field::Expect) => StatusCode::EXPECTATION_FAILED,
        HandshakeError::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
        HandshakeError::Version => StatusCode::UPGRADE_REQUIRED,
        _ => StatusCode::BAD_REQUEST,
    }
}
