//! Parses a complete head into the types of the `http` crate.

use alloc::vec;
use alloc::vec::Vec;
use core::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri, Version};

use super::head::{Head, HeadKind};
use crate::error::HandshakeError;

/// The longest [`Uri`], in bytes.
const MAX_URI: usize = 65_534;

/// The number of fields that are parsed without an allocation.
const FEW_FIELDS: usize = 32;

/// A parsed field, or space for one.
type Slot<'h> = MaybeUninit<httparse::Header<'h>>;

/// Parses the complete head of a request (RFC 9112 §3). The request shares the bytes of the head.
pub(super) fn request(head: &mut Head) -> Result<http::Request<Vec<u8>>, HandshakeError> {
    let (count, head) = (head.field_count(), Bytes::from(head.take()));
    let (mut few, mut many) = slots(count);
    let mut parsed = httparse::Request::new(&mut []);
    let slots = if many.is_empty() { &mut few[..count] } else { &mut many };
    let result = parsed.parse_with_uninit_headers(&head, slots);
    result.map_err(|error| parse_error(error, &head))?;

    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(HandshakeError::Malformed);
    };
    let mut request = http::Request::new(Vec::new());
    *request.method_mut() =
        Method::from_bytes(method.as_bytes()).map_err(|_| HandshakeError::Malformed)?;
    *request.uri_mut() = uri(target, &head)?;
    *request.version_mut() = version(parsed.version)?;
    *request.headers_mut() = headers(parsed.headers, &head)?;
    Ok(request)
}

/// Parses the complete head of a response (RFC 9112 §4). The response shares the bytes of the head.
pub(super) fn response(head: &mut Head) -> Result<http::Response<Vec<u8>>, HandshakeError> {
    let (count, head) = (head.field_count(), Bytes::from(head.take()));
    let (mut few, mut many) = slots(count);
    let mut parsed = httparse::Response::new(&mut []);
    let slots = if many.is_empty() { &mut few[..count] } else { &mut many };
    let config = httparse::ParserConfig::default();
    let result = config.parse_response_with_uninit_headers(&mut parsed, &head, slots);
    result.map_err(|error| match error {
        httparse::Error::Version => HandshakeError::HttpVersion,
        _ => HandshakeError::Malformed,
    })?;

    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let mut response = http::Response::new(Vec::new());
    *response.status_mut() = status.ok_or(HandshakeError::Malformed)?;
    *response.version_mut() = version(parsed.version)?;
    *response.headers_mut() = headers(parsed.headers, &head)?;
    Ok(response)
}

/// Space for `count` fields: on the stack, or on the heap if there are many.
fn slots<'h>(count: usize) -> ([Slot<'h>; FEW_FIELDS], Vec<Slot<'h>>) {
    let many = if count > FEW_FIELDS { count } else { 0 };
    ([const { MaybeUninit::uninit() }; FEW_FIELDS], vec![MaybeUninit::uninit(); many])
}

/// Parses a request target. `Uri` would drop a fragment silently; a request has none (RFC 9112
/// §3.2, RFC 6455 §3).
fn uri(target: &str, head: &Bytes) -> Result<Uri, HandshakeError> {
    if target.len() > MAX_URI {
        return Err(HandshakeError::TargetTooLong);
    }
    if target.contains('#') {
        return Err(HandshakeError::Target);
    }
    let target = head.slice_ref(target.as_bytes());
    Uri::from_maybe_shared(target).map_err(|_| HandshakeError::Target)
}

fn version(minor: Option<u8>) -> Result<Version, HandshakeError> {
    match minor {
        Some(0) => Ok(Version::HTTP_10),
        Some(1) => Ok(Version::HTTP_11),
        _ => Err(HandshakeError::HttpVersion),
    }
}

fn headers(fields: &[httparse::Header<'_>], head: &Bytes) -> Result<HeaderMap, HandshakeError> {
    let too_many = |_| HandshakeError::TooManyFields;
    let mut headers = HeaderMap::try_with_capacity(fields.len()).map_err(too_many)?;
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let name = name.map_err(|_| HandshakeError::Malformed)?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value));
        let value = value.map_err(|_| HandshakeError::Malformed)?;
        headers.try_append(name, value).map_err(too_many)?;
    }
    Ok(headers)
}

/// The error for a request that did not parse: `HttpVersion` if only the version is wrong,
/// otherwise `NotHttp` or `Malformed`.
fn parse_error(error: httparse::Error, head: &[u8]) -> HandshakeError {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut parts = line.split(|&byte| byte == b' ').skip(2);
    match (error, parts.next(), parts.next()) {
        (
            httparse::Error::Version,
            Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']),
            None,
        ) => HandshakeError::HttpVersion,
        _ => HeadKind::Request.invalid(head, head.len()),
    }
}
