//! The request that a client writes (RFC 6455 §4.1).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use http::header::{self, HeaderMap, HeaderName};

use super::extensions::Extension;
use super::fields::{Fields, is_reserved, is_token, repeated};
use super::options::ClientOptions;
use super::uri::{Authority, Target, UriError};
use super::write::HeadWriter;
use crate::error::Field;

/// Why a request was not written.
///
/// ```
/// use anyloop_proto::Instant;
/// use anyloop_proto::handshake::{ClientHandshake, ClientOptions, RequestError, Target};
///
/// let mut options = ClientOptions::default();
/// options.subprotocols = vec!["chat, superchat".into()]; // two in one
/// let target: Target = "ws://localhost/".parse()?;
/// let mut out = Vec::new();
/// let result = ClientHandshake::new(&target, options.into(), Instant::from_nanos(0), &mut out);
/// assert_eq!(result.err(), Some(RequestError::InvalidSubprotocol("chat, superchat".into())));
/// assert_eq!(out, b"");
/// # Ok::<(), anyloop_proto::handshake::UriError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// A subprotocol is listed twice.
    DuplicateSubprotocol(String),
    /// The extension of this name offers parameters that are not tokens.
    InvalidExtension(String),
    /// The name of a header field is not a token.
    InvalidHeaderName(String),
    /// The value of this header field is invalid (RFC 9110 §5.5): it has a line break, for example.
    InvalidHeaderValue(HeaderName),
    /// The Host field is not a host with an optional port, or there are two such fields.
    InvalidHost,
    /// A subprotocol is not a token.
    InvalidSubprotocol(String),
    /// This header field is not for the application: the handshake writes it, it has an option of its own, or it would
    /// announce a body.
    ReservedHeader(HeaderName),
    /// The URI to connect to is invalid. [`ClientHandshake::new`](super::ClientHandshake::new) takes a [`Target`], and
    /// does not return this.
    Uri(UriError),
}

impl From<UriError> for RequestError {
    fn from(error: UriError) -> Self {
        Self::Uri(error)
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DuplicateSubprotocol(name) => write!(f, "subprotocol {name:?} is given twice"),
            Self::InvalidExtension(name) => {
                write!(f, "the offer of extension {name:?} is not made of tokens")
            }
            Self::InvalidHeaderName(name) => {
                write!(f, "{name:?} cannot be the name of a header field")
            }
            Self::InvalidHeaderValue(name) => {
                write!(f, "the value of header field {name} is invalid")
            }
            Self::InvalidHost => {
                f.write_str("the Host field must be one host, with an optional port")
            }
            Self::InvalidSubprotocol(name) => write!(f, "subprotocol {name:?} is not a token"),
            Self::ReservedHeader(name) => match name.as_str() {
                "origin" | "sec-websocket-protocol" => {
                    write!(f, "header field {name} has an option of its own")
                }
                "content-length" | "expect" | "transfer-encoding" => {
                    write!(f, "header field {name} announces a body, and the request has none")
                }
                name => write!(f, "header field {name} is written by the handshake itself"),
            },
            Self::Uri(error) => write!(f, "invalid URI: {error}"),
        }
    }
}

impl core::error::Error for RequestError {}

/// Appends the request (RFC 6455 §4.1), if all of it is valid.
pub(super) fn write(
    target: &Target,
    options: &ClientOptions,
    key: &str,
    out: &mut Vec<u8>,
) -> Result<(), RequestError> {
    check_headers(&options.headers)?;
    let host = host_value(target, &options.headers)?;
    check_subprotocols(&options.subprotocols)?;
    let offers = format_offers(options)?;

    let mut head = HeadWriter::request(target.path_and_query(), out)
        .field("Host", host)
        .field("Upgrade", "websocket")
        .field("Connection", "Upgrade")
        .field("Sec-WebSocket-Key", key);
    if let Some(origin) = &options.origin {
        head = head.field("Origin", origin);
    }
    if !options.subprotocols.is_empty() {
        head = head.field("Sec-WebSocket-Protocol", options.subprotocols.join(", "));
    }
    head = head.field("Sec-WebSocket-Version", "13");
    if !offers.is_empty() {
        head = head.field("Sec-WebSocket-Extensions", offers.join(", "));
    }
    if !options.headers.contains_key(header::AUTHORIZATION) {
        if let Some(authorization) = target.authorization() {
            head = head.field("Authorization", authorization);
        }
    }
    for (name, value) in options.headers.iter().filter(|(name, _)| *name != header::HOST) {
        head = head.field(name.as_str(), value);
    }
    head.end();
    Ok(())
}

/// Refuses reserved fields, and those that have an option. Expect is refused because the server would wait for a body.
fn check_headers(headers: &HeaderMap) -> Result<(), RequestError> {
    let is_refused =
        |name: &&HeaderName| is_reserved(name) || [header::EXPECT, header::ORIGIN].contains(name);
    match headers.keys().find(is_refused) {
        Some(name) => Err(RequestError::ReservedHeader(name.clone())),
        None => Ok(()),
    }
}

/// The value of the Host field: that of the application, if there is one, or that of the target.
fn host_value<'a>(target: &'a Target, headers: &'a HeaderMap) -> Result<&'a str, RequestError> {
    let host =
        Fields::of(headers).at_most_one(Field::Host).map_err(|_| RequestError::InvalidHost)?;
    let Some(host) = host else { return Ok(target.host_header()) };
    let host = host.to_str().map_err(|_| RequestError::InvalidHost)?;
    Authority::parse(host).map_err(|_| RequestError::InvalidHost)?;
    Ok(host)
}

fn check_subprotocols(subprotocols: &[String]) -> Result<(), RequestError> {
    if let Some(name) = subprotocols.iter().find(|name| !is_token(name.as_bytes())) {
        return Err(RequestError::InvalidSubprotocol(name.clone()));
    }
    match repeated(subprotocols) {
        Some(name) => Err(RequestError::DuplicateSubprotocol(name.clone())),
        None => Ok(()),
    }
}

/// The elements of Sec-WebSocket-Extensions.
fn format_offers(options: &ClientOptions) -> Result<Vec<String>, RequestError> {
    let mut offers = Vec::new();
    for negotiator in &options.extensions {
        let name = negotiator.name();
        for params in negotiator.offer() {
            let offer = Extension { name: name.into(), params }.to_field();
            offers.push(offer.ok_or_else(|| RequestError::InvalidExtension(name.into()))?);
        }
    }
    Ok(offers)
}
