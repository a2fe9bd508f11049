//! Verifying the response that opens a connection (RFC 6455 §4.1).

use alloc::string::{String, ToString as _};

use http::{HeaderMap, Version};

use super::extensions::{self, Codec, Extension};
use super::fields::{at_most_one, elements, exactly_one, has_token, name};
use super::options::ClientOptions;
use crate::error::{Field, HandshakeError};

/// What the server chose.
pub(super) struct Verified {
    pub(super) subprotocol: Option<String>,
    pub(super) extension: Option<(Extension, Codec)>,
}

/// Verifies a response of status 101 to a request with this key, every field of it.
///
/// A 101 ends with its head, whatever its Content-Length or Transfer-Encoding says (RFC 9112 §6.3).
pub(super) fn verify<B>(
    response: &http::Response<B>,
    accept: &str,
    options: &ClientOptions,
) -> Result<Verified, HandshakeError> {
    let headers = response.headers();
    // RFC 9110 §7.8: HTTP/1.0 knows no upgrade.
    if response.version() != Version::HTTP_11 {
        return Err(HandshakeError::HttpVersion);
    }
    verify_upgrade(headers)?;
    verify_connection(headers)?;
    if exactly_one(headers, Field::SecWebSocketAccept)?.as_bytes() != accept.as_bytes() {
        return Err(HandshakeError::AcceptMismatch);
    }
    let subprotocol = verify_subprotocol(headers, options)?;
    let extension = extensions::confirm(&options.extensions, headers)?;
    Ok(Verified { subprotocol, extension })
}

/// /2./ An Upgrade field with the value `websocket`, in any case.
fn verify_upgrade(headers: &HeaderMap) -> Result<(), HandshakeError> {
    exactly_one(headers, Field::Upgrade)?;
    let mut protocols = elements(headers, Field::Upgrade);
    match (protocols.next(), protocols.next()) {
        (Some(protocol), None) if protocol.eq_ignore_ascii_case(b"websocket") => Ok(()),
        _ => Err(HandshakeError::Invalid(Field::Upgrade)),
    }
}

/// /3./ A Connection field with the token `upgrade`, in any case.
fn verify_connection(headers: &HeaderMap) -> Result<(), HandshakeError> {
    if has_token(headers, Field::Connection, "upgrade") {
        Ok(())
    } else if headers.contains_key(name(Field::Connection)) {
        Err(HandshakeError::Invalid(Field::Connection))
    } else {
        Err(HandshakeError::Missing(Field::Connection))
    }
}

/// /6./ One of the subprotocols that were asked for, byte by byte, or none.
fn verify_subprotocol(
    headers: &HeaderMap,
    options: &ClientOptions,
) -> Result<Option<String>, HandshakeError> {
    let Some(value) = at_most_one(headers, Field::SecWebSocketProtocol)? else { return Ok(None) };
    let chosen = options.subprotocols.iter().find(|asked| asked.as_bytes() == value.as_bytes());
    let chosen = chosen.ok_or(HandshakeError::Invalid(Field::SecWebSocketProtocol))?;
    Ok(Some(chosen.to_string()))
}
