//! Verifies the response that opens a connection (RFC 6455 §4.1).

use alloc::string::{String, ToString as _};

use http::Version;

use super::extensions::{self, Codec, Extension};
use super::fields::Fields;
use super::key;
use super::options::ClientOptions;
use crate::error::{Field, HandshakeError};

/// The server's choices.
pub(super) struct Verified {
    pub(super) subprotocol: Option<String>,
    pub(super) extension: Option<(Extension, Codec)>,
}

/// Verifies the version of a 101 response, and the fields that RFC 6455 §4.1 names. `accept` is the expected value of
/// Sec-WebSocket-Accept.
///
/// A 101 ends with its head, whatever its Content-Length or Transfer-Encoding says (RFC 9112 §6.3).
pub(super) fn verify<B>(
    response: &http::Response<B>,
    accept: &key::AcceptValue,
    options: &ClientOptions,
) -> Result<Verified, HandshakeError> {
    let fields = Fields::of(response.headers());
    // RFC 9110 §7.8: HTTP/1.0 has no upgrade.
    if response.version() != Version::HTTP_11 {
        return Err(HandshakeError::HttpVersion);
    }
    verify_upgrade(&fields)?;
    verify_connection(&fields)?;
    if fields.exactly_one(Field::SecWebSocketAccept)?.as_bytes() != accept {
        return Err(HandshakeError::AcceptMismatch);
    }
    let subprotocol = verify_subprotocol(&fields, options)?;
    let extension = extensions::confirm(&options.extensions, &fields)?;
    Ok(Verified { subprotocol, extension })
}

/// Rule 2 of RFC 6455 §4.1: an Upgrade field with the value `websocket`, in any case.
fn verify_upgrade(fields: &Fields<'_>) -> Result<(), HandshakeError> {
    fields.exactly_one(Field::Upgrade)?;
    let mut protocols = fields.elements(Field::Upgrade);
    match (protocols.next(), protocols.next()) {
        (Some(protocol), None) if protocol.eq_ignore_ascii_case(b"websocket") => Ok(()),
        _ => Err(HandshakeError::Invalid(Field::Upgrade)),
    }
}

/// Rule 3 of RFC 6455 §4.1: a Connection field with the token `upgrade`, in any case.
fn verify_connection(fields: &Fields<'_>) -> Result<(), HandshakeError> {
    if fields.has_token(Field::Connection, "Upgrade") {
        Ok(())
    } else if fields.has(Field::Connection) {
        Err(HandshakeError::Invalid(Field::Connection))
    } else {
        Err(HandshakeError::Missing(Field::Connection))
    }
}

/// Rule 6 of RFC 6455 §4.1: one of the requested subprotocols, compared byte by byte, or none.
fn verify_subprotocol(
    fields: &Fields<'_>,
    options: &ClientOptions,
) -> Result<Option<String>, HandshakeError> {
    let Some(value) = fields.at_most_one(Field::SecWebSocketProtocol)? else { return Ok(None) };
    let chosen = options.subprotocols.iter().find(|asked| asked.as_bytes() == value.as_bytes());
    let chosen = chosen.ok_or(HandshakeError::Invalid(Field::SecWebSocketProtocol))?;
    Ok(Some(chosen.to_string()))
}
