//! The response that accepts a WebSocket request (RFC 6455 §4.2.2).

use alloc::string::String;
use alloc::vec::Vec;

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};

use super::extensions;
use super::fields::{InvalidHeader, is_reserved, parse_header};
use super::opened::Opened;
use super::options::ServerOptions;
use super::request::Upgrade;
use super::response::AnswerError;
use super::write::HeadWriter;
use crate::config::Role;
use crate::connection::Connection;
use crate::time::Instant;

/// What a server adds to the response that accepts a WebSocket request.
///
/// ```
/// use anyloop_proto::handshake::Accept;
///
/// let without_subprotocol = Accept::new();
/// let with_subprotocol = Accept::new()
///     .with_subprotocol("chat.v2")
///     .with_header("Set-Cookie", "session=17; HttpOnly");
/// # _ = (without_subprotocol, with_subprotocol);
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Accept {
    /// The subprotocol: one of those that the client [requested](super::Request::subprotocols).
    pub subprotocol: Option<String>,
    /// Additional header fields of the response. Connection, Content-Length, Transfer-Encoding, Upgrade and all
    /// `Sec-WebSocket-` fields are refused.
    pub headers: HeaderMap,
    /// Why a field could not be added: the first error.
    invalid: Option<AnswerError>,
}

impl Accept {
    /// Adds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the subprotocol.
    #[must_use]
    pub fn with_subprotocol(mut self, subprotocol: impl Into<String>) -> Self {
        self.subprotocol = Some(subprotocol.into());
        self
    }

    /// Adds a header field. The value is text or bytes, or a [`HeaderValue`]. Fields of the same name are kept.
    ///
    /// If the name or the value is invalid, accepting fails with [`AnswerError::InvalidHeaderName`] or
    /// [`AnswerError::InvalidHeaderValue`]; of several errors, with the first.
    #[must_use]
    pub fn with_header(mut self, name: impl AsRef<str>, value: impl TryInto<HeaderValue>) -> Self {
        let error = match parse_header(name.as_ref(), value) {
            Ok((name, value)) => {
                self.headers.append(name, value);
                return self;
            }
            Err(InvalidHeader::Name(name)) => AnswerError::InvalidHeaderName(name),
            Err(InvalidHeader::Value(name)) => AnswerError::InvalidHeaderValue(name),
        };
        self.invalid.get_or_insert(error);
        self
    }

    /// Replaces the header fields, also the invalid ones.
    #[must_use]
    pub fn with_headers(mut self, headers: HeaderMap) -> Self {
        self.headers = headers;
        self.invalid = None;
        self
    }

    /// Checks the header fields: what is known before there is a request to accept.
    ///
    /// ```
    /// use anyloop_proto::handshake::{Accept, AnswerError};
    ///
    /// let accept = Accept::new().with_header("two words", "x");
    /// assert_eq!(accept.check(), Err(AnswerError::InvalidHeaderName("two words".into())));
    /// ```
    ///
    /// # Errors
    ///
    /// [`AnswerError::InvalidHeaderName`], [`AnswerError::InvalidHeaderValue`]: a field could not be added.
    /// [`AnswerError::ReservedHeader`].
    pub fn check(&self) -> Result<(), AnswerError> {
        if let Some(error) = &self.invalid {
            return Err(error.clone());
        }
        match self.headers.keys().find(|name| is_reserved(name)) {
            Some(name) => Err(AnswerError::ReservedHeader(name.clone())),
            None => Ok(()),
        }
    }
}

/// Appends the response that opens a connection (RFC 6455 §4.2.2), and creates the connection.
pub(super) fn open(
    options: &ServerOptions,
    upgrade: &Upgrade,
    accept: Accept,
    now: Instant,
    out: &mut Vec<u8>,
) -> Result<Opened, AnswerError> {
    accept.check()?;
    let Accept { subprotocol, mut headers, .. } = accept;
    if subprotocol.as_ref().is_some_and(|chosen| !upgrade.subprotocols.contains(chosen)) {
        return Err(AnswerError::SubprotocolNotOffered);
    }
    let chosen = extensions::choose(&options.extensions, &upgrade.offers);
    let (extension, codec) = match chosen {
        Some((extension, codec)) => {
            let field = extension.to_field();
            (Some(field.ok_or(AnswerError::InvalidExtension(extension.name))?), Some(codec))
        }
        None => (None, None),
    };

    let mut head = HeadWriter::switching_protocols(&upgrade.accept, out);
    if let Some(subprotocol) = &subprotocol {
        head = head.field("Sec-WebSocket-Protocol", subprotocol);
    }
    if let Some(extension) = &extension {
        head = head.field("Sec-WebSocket-Extensions", extension);
    }
    head.fields(&headers).end();

    let mut response = http::Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    // These calls fail only if the map is full. The fields of the handshake are then left out of `Opened::response`.
    let _ = headers.try_reserve(3);
    let _ = headers.try_insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let _ = headers.try_insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    for (name, value) in [
        (header::SEC_WEBSOCKET_ACCEPT, Some(&upgrade.accept[..])),
        (header::SEC_WEBSOCKET_PROTOCOL, subprotocol.as_ref().map(String::as_bytes)),
        (header::SEC_WEBSOCKET_EXTENSIONS, extension.as_ref().map(String::as_bytes)),
    ] {
        // Tokens and base64 are valid field values, so this does not fail.
        if let Some(value) = value.and_then(|value| HeaderValue::from_bytes(value).ok()) {
            let _ = headers.try_insert(name, value);
        }
    }
    *response.headers_mut() = headers;

    let mut connection = Connection::new(Role::Server, options.connection.clone(), now);
    if let Some(codec) = codec {
        connection = connection.with_extension(codec.decoder, codec.encoder);
    }
    Ok(Opened { connection, response, subprotocol, extension })
}
