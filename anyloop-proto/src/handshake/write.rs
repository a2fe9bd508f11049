//! Writes heads of requests and responses.

use alloc::vec::Vec;
use std::io::Write as _;

use http::{HeaderMap, StatusCode};

use super::key;

/// Appends a head to a buffer, field by field.
///
/// Values come from `http` types, or their characters were checked, so they contain no line end.
#[must_use]
pub(super) struct HeadWriter<'o>(&'o mut Vec<u8>);

impl<'o> HeadWriter<'o> {
    pub(super) fn request(target: &str, out: &'o mut Vec<u8>) -> Self {
        Self(out).put(&[b"GET ", target.as_bytes(), b" HTTP/1.1\r\n"])
    }

    /// A request to a proxy for a tunnel (RFC 9110 §9.3.6).
    pub(super) fn connect(authority: &str, out: &'o mut Vec<u8>) -> Self {
        Self(out).put(&[b"CONNECT ", authority.as_bytes(), b" HTTP/1.1\r\n"])
    }

    pub(super) fn response(status: StatusCode, out: &'o mut Vec<u8>) -> Self {
        let reason = status.canonical_reason().unwrap_or_default();
        let code = status.as_str();
        Self(out).put(&[b"HTTP/1.1 ", code.as_bytes(), b" ", reason.as_bytes(), b"\r\n"])
    }

    /// The beginning of a 101 response, with the fields that all of them have (RFC 6455 §4.2.2).
    pub(super) fn switching_protocols(accept: &key::AcceptValue, out: &'o mut Vec<u8>) -> Self {
        const FIRST: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Accept: ";
        Self(out).put(&[FIRST, accept, b"\r\n"])
    }

    pub(super) fn field(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.put(&[name.as_bytes(), b": ", value.as_ref(), b"\r\n"])
    }

    pub(super) fn content_length(self, length: u64) -> Self {
        // Writing to a `Vec` does not fail.
        let _ = write!(self.0, "Content-Length: {length}\r\n");
        self
    }

    pub(super) fn fields(mut self, headers: &HeaderMap) -> Self {
        for (name, value) in headers {
            self = self.field(name.as_str(), value);
        }
        self
    }

    pub(super) fn end(self) -> &'o mut Vec<u8> {
        self.put(&[b"\r\n"]).0
    }

    fn put(self, parts: &[&[u8]]) -> Self {
        self.0.reserve(parts.iter().map(|part| part.len()).sum());
        for part in parts {
            self.0.extend_from_slice(part);
        }
        self
    }
}
