//! The client's side of an HTTP tunnel: a CONNECT request to a proxy (RFC 9110 §9.3.6).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use http::StatusCode;

use super::body::{Body, Framing};
use super::head::{Head, HeadKind};
use super::key;
use super::parse;
use super::uri::Target;
use super::write::HeadWriter;
use crate::error::HandshakeError;
use crate::input::Input;
use crate::output::Output;

/// The largest size of the heads of all responses together, in bytes.
const MAX_HEAD_SIZE: usize = 16 * 1024;

/// The most header fields of a response.
const MAX_FIELDS: usize = 100;

/// The most interim responses (RFC 9110 §15.2) that are skipped. One more is an error.
const MAX_INTERIM: u8 = 16;

/// Asks an HTTP proxy for a tunnel to a server (RFC 9110 §9.3.6).
///
/// [`new`](Self::new) writes the request, and [`next`](Self::next) takes received bytes until the response is complete.
/// After a response with a status of 2xx, the byte stream leads to the server: the caller begins TLS if the target is
/// `wss`, and then a [`ClientHandshake`](super::ClientHandshake). Any other final response is a refusal, and
/// [`response`](Self::response) returns it. A 101, which nobody asked for, is an error without a response.
///
/// The heads of the responses have at most 16 KiB together, and at most 100 fields each. There is no timeout: the
/// caller sets one, and calls [`end`](Self::end) when it expires.
///
/// ```
/// use anyloop_proto::Input;
/// use anyloop_proto::handshake::{Target, TunnelHandshake};
///
/// let target: Target = "wss://chat.example/room".parse()?;
/// let mut out = Vec::new();
/// let mut tunnel = TunnelHandshake::new(&target, Some((b"user", b"password")), 4096, &mut out);
/// assert_eq!(
///     String::from_utf8(out)?,
///     "CONNECT chat.example:443 HTTP/1.1\r\n\
///      Host: chat.example:443\r\n\
///      Proxy-Authorization: Basic dXNlcjpwYXNzd29yZA==\r\n\r\n"
/// );
/// let mut bytes = *b"HTTP/1.1 200 Connection established\r\n\r\nof the server";
/// let mut input = Input::new(&mut bytes);
/// assert!(tunnel.next(&mut input)?);
/// assert_eq!(input.rest(), b"of the server");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TunnelHandshake {
    step: Step,
    /// Bytes of heads so far, including those of interim responses.
    head_size: usize,
    interim_count: u8,
    max_body_size: usize,
    response: Option<http::Response<Vec<u8>>>,
}

enum Step {
    Head(Head),
    /// The body of a refusal.
    Body(Body, StatusCode),
    /// The tunnel is open, was refused, or has failed.
    Over,
}

impl core::fmt::Debug for TunnelHandshake {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TunnelHandshake")
            .field("over", &matches!(self.step, Step::Over))
            .finish_non_exhaustive()
    }
}

impl TunnelHandshake {
    /// Writes the request for a tunnel to the host and the port of `target`. `credentials` are a user, which has no
    /// colon, and a password; they are sent in a Basic authorization (RFC 7617), to the proxy only. Of the body of a
    /// refusal at most `max_body_size` bytes are kept.
    #[must_use]
    pub fn new(
        target: &Target,
        credentials: Option<(&[u8], &[u8])>,
        max_body_size: usize,
        out: &mut impl Output,
    ) -> Self {
        let authority = match target.host() {
            host if host.contains(':') => format!("[{host}]:{}", target.port()),
            host => format!("{host}:{}", target.port()),
        };
        let mut head = HeadWriter::connect(&authority, out.buffer()).field("Host", &authority);
        if let Some((user, password)) = credentials {
            head = head.field("Proxy-Authorization", basic_credentials(user, password));
        }
        head.end();
        Self {
            step: Step::Head(Head::new(HeadKind::Response, MAX_HEAD_SIZE, MAX_FIELDS)),
            head_size: 0,
            interim_count: 0,
            max_body_size,
            response: None,
        }
    }

    /// Takes received bytes. Returns true when the tunnel opens. The bytes after the response are the server's, and
    /// stay in the input. Interim responses are skipped.
    ///
    /// # Errors
    ///
    /// Reported once. [`HandshakeError::Rejected`] when a response with another status than 2xx is complete, its body
    /// exceeds the limit, or its body is invalid; other [`HandshakeError`]s for a response that is not valid HTTP.
    pub fn next(&mut self, input: &mut Input<'_>) -> Result<bool, HandshakeError> {
        self.read(input).map_err(|error| {
            input.discard();
            self.end().unwrap_or(error)
        })
    }

    /// Reports that nothing more arrives: the byte stream has ended or failed, or a timeout has expired. If the body of
    /// a refusal was arriving, keeps what has arrived and returns [`HandshakeError::Rejected`]; otherwise returns
    /// `None`.
    pub fn end(&mut self) -> Option<HandshakeError> {
        match core::mem::replace(&mut self.step, Step::Over) {
            Step::Body(mut body, status) => {
                if let Some(response) = &mut self.response {
                    *response.body_mut() = body.take();
                }
                Some(HandshakeError::Rejected(status.as_u16()))
            }
            Step::Head(_) | Step::Over => None,
        }
    }

    /// The response that has refused the tunnel, with the part of its body that arrived.
    #[must_use]
    pub const fn response(&self) -> Option<&http::Response<Vec<u8>>> {
        match self.step {
            Step::Over => self.response.as_ref(),
            Step::Head(_) | Step::Body(..) => None,
        }
    }

    fn read(&mut self, input: &mut Input<'_>) -> Result<bool, HandshakeError> {
        while let Step::Head(head) = &mut self.step {
            if !head.read(input)? {
                return Ok(false);
            }
            self.head_size += head.size();
            let response = parse::response(head)?;
            match response.status() {
                // RFC 9110 §9.3.6: Content-Length and Transfer-Encoding are ignored.
                status if status.is_success() => {
                    self.step = Step::Over;
                    return Ok(true);
                }
                status if status.is_informational() => self.skip_interim(status)?,
                status => {
                    let framing = Framing::of_response(response.headers(), status);
                    self.step = Step::Body(Body::new(framing, self.max_body_size), status);
                    self.response = Some(response);
                }
            }
        }
        match &mut self.step {
            Step::Body(body, status) => match body.read(input) {
                Ok(false) => Ok(false),
                // An invalid body changes nothing: the proxy has refused.
                Ok(true) | Err(_) => Err(HandshakeError::Rejected(status.as_u16())),
            },
            Step::Head(_) | Step::Over => Ok(false),
        }
    }

    /// Prepares for the response after an interim one.
    fn skip_interim(&mut self, status: StatusCode) -> Result<(), HandshakeError> {
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(HandshakeError::Rejected(status.as_u16())); // the request asked for no upgrade
        }
        self.interim_count += 1;
        if self.interim_count > MAX_INTERIM {
            return Err(HandshakeError::TooManyInterim);
        }
        let rest = MAX_HEAD_SIZE.saturating_sub(self.head_size);
        self.step = Step::Head(Head::new(HeadKind::NextResponse, rest, MAX_FIELDS));
        Ok(())
    }
}

/// The value of Proxy-Authorization (RFC 7617).
fn basic_credentials(user: &[u8], password: &[u8]) -> String {
    format!("Basic {}", key::base64(&[user, b":", password].concat()))
}
