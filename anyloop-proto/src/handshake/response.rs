//! Responses other than 101: the application's, and those that the handshake sends by itself.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use http::header::{self, HeaderName};
use http::{Method, StatusCode, Version};

use super::fields::is_framing;
use super::request::Request;
use super::write::HeadWriter;
use crate::error::{Field, HandshakeError};

/// Why a response was not sent. Nothing was appended to the output. Another response can be sent, except after
/// [`NotAwaiting`](Self::NotAwaiting).
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
    /// The name of a header field is not a token.
    InvalidHeaderName(String),
    /// The value of this header field is invalid (RFC 9110 §5.5): it has a line break, for example.
    InvalidHeaderValue(HeaderName),
    /// The response has a Content-Length that is not one number, and the length of its body is not known.
    InvalidContentLength,
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
    /// The response has a Content-Length that is not the length of its body, in bytes. A response needs none. An empty
    /// body agrees with any Content-Length of a response to HEAD, or with status 304.
    WrongContentLength {
        /// The length of the body.
        body: u64,
    },
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidExtension(name) => {
                write!(f, "the answer of extension {name:?} is not made of tokens")
            }
            Self::InvalidHeaderName(name) => {
                write!(f, "{name:?} cannot be the name of a header field")
            }
            Self::InvalidHeaderValue(name) => {
                write!(f, "the value of header field {name} is invalid")
            }
            Self::InvalidContentLength => f.write_str("the Content-Length is not one number"),
            Self::InvalidStatus(status) => write!(f, "status {status} cannot answer the request"),
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

/// How the body of a response that we send is delimited (RFC 9112 §6.3).
#[derive(Clone, Copy)]
pub(super) enum SentFraming {
    /// There is no body.
    Bodiless,
    /// By Content-Length; `left` bytes of it are to come.
    Length {
        length: u64,
        left: u64,
    },
    Chunked,
    /// By the end of the stream, for HTTP/1.0 (RFC 9112 §6.3, case 8).
    UntilClose,
}

/// Checks what can be known of the response to a request of this method before its body is sent: the status, the
/// fields, and that its Content-Length is the `length` of the body, in bytes, if that is known.
///
/// A response to HEAD, and one with status 304, may have a Content-Length and an empty body (RFC 9110 §8.6).
///
/// ```
/// use anyloop_proto::handshake::http::{Method, Response, header};
/// use anyloop_proto::handshake::{AnswerError, check_response};
///
/// let response = Response::builder().header(header::CONTENT_LENGTH, 5).body(())?;
/// assert_eq!(check_response(&Method::GET, &response, Some(5)), Ok(()));
/// let error = AnswerError::WrongContentLength { body: 0 };
/// assert_eq!(check_response(&Method::GET, &response, Some(0)), Err(error));
/// assert_eq!(check_response(&Method::HEAD, &response, Some(0)), Ok(()));
/// # Ok::<(), anyloop_proto::handshake::http::Error>(())
/// ```
///
/// # Errors
///
/// The response cannot be sent.
pub fn check_response<B>(
    method: &Method,
    response: &http::Response<B>,
    length: Option<u64>,
) -> Result<(), AnswerError> {
    check(method, response, length).map(drop)
}

/// Checks a response. Returns its own Content-Length, if it has one.
fn check<B>(
    method: &Method,
    response: &http::Response<B>,
    length: Option<u64>,
) -> Result<Option<u64>, AnswerError> {
    let status = response.status();
    // RFC 9110 §9.3.6: 2xx to CONNECT would begin a tunnel.
    let begins_tunnel = *method == Method::CONNECT && status.is_success();
    if begins_tunnel || !(200..=599).contains(&status.as_u16()) {
        return Err(AnswerError::InvalidStatus(status));
    }
    // RFC 9110 §8.6: after HEAD, and with status 304, Content-Length is that of the response to GET. An empty body need
    // not agree with it.
    let body_may_be_omitted = *method == Method::HEAD || status == StatusCode::NOT_MODIFIED;
    let length = length.filter(|length| *length > 0 || !body_may_be_omitted);
    let own_length = match status {
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT => None,
        _ => own_length(response, length)?,
    };
    let is_reserved = |name: &&HeaderName| {
        is_framing(name) && !(own_length.is_some() && **name == header::CONTENT_LENGTH)
    };
    match response.headers().keys().find(is_reserved) {
        Some(name) => Err(AnswerError::ReservedHeader(name.clone())),
        None => Ok(own_length),
    }
}

/// RFC 9110 §15.3.5, §15.3.6, §15.4.5.
fn has_body(status: StatusCode) -> bool {
    !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::RESET_CONTENT)
}

/// Appends the head of a response other than 101, whose body has `length` bytes, if that is known.
pub(super) fn write_head<B>(
    request: &Request,
    response: &http::Response<B>,
    length: Option<u64>,
    out: &mut Vec<u8>,
) -> Result<SentFraming, AnswerError> {
    let status = response.status();
    let (method, version) = (request.method(), request.version());
    let own_length = check(method, response, length)?;

    // RFC 9110 §7.8: a sender of Upgrade lists it in Connection.
    let upgrade = response.headers().contains_key(header::UPGRADE);
    let connection = if upgrade { "upgrade, close" } else { "close" };
    let head = HeadWriter::response(status, out).field("Connection", connection);
    let head = head.fields(response.headers());
    // RFC 9110 §8.6: no Content-Length for 204; for 304 only the application knows it. §15.3.6: 0 for 205.
    if !has_body(status) {
        let is_reset = status == StatusCode::RESET_CONTENT;
        if is_reset { head.content_length(0) } else { head }.end();
        return Ok(SentFraming::Bodiless);
    }
    let (head, framing) = match (own_length, length) {
        (Some(length), _) => (head, SentFraming::Length { length, left: length }),
        (None, Some(length)) => {
            (head.content_length(length), SentFraming::Length { length, left: length })
        }
        // RFC 9110 §9.3.2: a response to HEAD may omit fields that are known only when the body is made.
        (None, None) if *method == Method::HEAD => (head, SentFraming::Bodiless),
        (None, None) if version == Version::HTTP_10 => (head, SentFraming::UntilClose),
        (None, None) => (head.field("Transfer-Encoding", "chunked"), SentFraming::Chunked),
    };
    head.end();
    Ok(if *method == Method::HEAD { SentFraming::Bodiless } else { framing })
}

/// The response's own Content-Length, which must be the `length` of its body, if that is given.
fn own_length<B>(
    response: &http::Response<B>,
    length: Option<u64>,
) -> Result<Option<u64>, AnswerError> {
    let mut fields = response.headers().get_all(header::CONTENT_LENGTH).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    let field = field.as_bytes();
    let is_number = field.iter().all(u8::is_ascii_digit); // a sign would be parsed as well
    let own = core::str::from_utf8(field).ok().filter(|_| is_number);
    let own = own.and_then(|field| field.parse().ok()).filter(|_| fields.next().is_none());
    match (own, length) {
        (Some(own), None) => Ok(Some(own)),
        (Some(own), Some(body)) if own == body => Ok(Some(own)),
        (_, Some(body)) => Err(AnswerError::WrongContentLength { body }),
        (None, None) => Err(AnswerError::InvalidContentLength),
    }
}

/// Appends 500, in place of a response that cannot be sent.
pub(super) fn write_internal_error(with_body: bool, out: &mut Vec<u8>) {
    write_error(StatusCode::INTERNAL_SERVER_ERROR, "internal error", with_body, out);
}

/// Appends the response to an invalid request, with the error in plain text. `with_body` is false
/// for a HEAD request.
pub(super) fn refuse(error: HandshakeError, with_body: bool, out: &mut Vec<u8>) {
    let status = status_for(error);
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
    match error {
        // The peer knows what it has sent. It is not sent back, since the peer may read it as its own protocol.
        HandshakeError::NotHttp { .. } => write_text(head, error.reason(), with_body),
        _ => write_text(head, &error.to_string(), with_body),
    }
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
    let out = head.content_length(body.len() as u64).end();
    if with_body {
        out.extend_from_slice(body);
    }
}

/// The status for an invalid request.
const fn status_for(error: HandshakeError) -> StatusCode {
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
