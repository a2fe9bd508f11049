//! From the bytes of a whole head to the types of the `http` crate.

use alloc::vec;
use alloc::vec::Vec;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri, Version};

use super::head::Head;
use crate::error::HandshakeError;

/// The longest URI that [`Uri`] holds, in bytes.
const MAX_URI: usize = 65_534;

/// Parses the head of a request (RFC 9112 §3).
pub(super) fn request(head: &Head) -> Result<http::Request<Vec<u8>>, HandshakeError> {
    let mut fields = vec![httparse::EMPTY_HEADER; head.fields()];
    let mut parsed = httparse::Request::new(&mut fields);
    parsed.parse(head.bytes()).map_err(|error| malformed(error, head.bytes()))?;

    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(HandshakeError::Malformed);
    };
    let mut request = http::Request::new(Vec::new());
    *request.method_mut() =
        Method::from_bytes(method.as_bytes()).map_err(|_| HandshakeError::Malformed)?;
    *request.uri_mut() = uri(target)?;
    *request.version_mut() = version(parsed.version)?;
    *request.headers_mut() = headers(parsed.headers)?;
    Ok(request)
}

/// Parses the head of a response (RFC 9112 §4).
pub(super) fn response(head: &Head) -> Result<http::Response<Vec<u8>>, HandshakeError> {
    let mut fields = vec![httparse::EMPTY_HEADER; head.fields()];
    let mut parsed = httparse::Response::new(&mut fields);
    parsed.parse(head.bytes()).map_err(|error| match error {
        httparse::Error::Version => HandshakeError::HttpVersion,
        _ => HandshakeError::Malformed,
    })?;

    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let mut response = http::Response::new(Vec::new());
    *response.status_mut() = status.ok_or(HandshakeError::Malformed)?;
    *response.version_mut() = version(parsed.version)?;
    *response.headers_mut() = headers(parsed.headers)?;
    Ok(response)
}

/// A request target. `Uri` would drop a fragment without a word; no request has one
/// (RFC 9112 §3.2, RFC 6455 §3).
fn uri(target: &str) -> Result<Uri, HandshakeError> {
    if target.len() > MAX_URI {
        return Err(HandshakeError::TargetTooLong);
    }
    if target.contains('#') {
        return Err(HandshakeError::Target);
    }
    target.parse().map_err(|_| HandshakeError::Target)
}

fn version(minor: Option<u8>) -> Result<Version, HandshakeError> {
    match minor {
        Some(0) => Ok(Version::HTTP_10),
        Some(1) => Ok(Version::HTTP_11),
        _ => Err(HandshakeError::HttpVersion),
    }
}

fn headers(fields: &[httparse::Header<'_>]) -> Result<HeaderMap, HandshakeError> {
    let too_many = |_| HandshakeError::TooManyFields;
    let mut headers = HeaderMap::try_with_capacity(fields.len()).map_err(too_many)?;
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let name = name.map_err(|_| HandshakeError::Malformed)?;
        let value = HeaderValue::from_bytes(field.value);
        let value = value.map_err(|_| HandshakeError::Malformed)?;
        headers.try_append(name, value).map_err(too_many)?;
    }
    Ok(headers)
}

/// A request line that is right but for its version is told so; all else is not HTTP.
fn malformed(error: httparse::Error, head: &[u8]) -> HandshakeError {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut parts = line.split(|&byte| byte == b' ').skip(2);
    match (error, parts.next(), parts.next()) {
        (
            httparse::Error::Version,
            Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']),
            None,
        ) => HandshakeError::HttpVersion,
        _ => HandshakeError::Malformed,
    }
}
