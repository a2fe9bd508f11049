//! Header fields: single values and lists of tokens.

use alloc::string::String;
use alloc::vec::Vec;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::error::{Field, HandshakeError};

/// The fields that a handshake depends on, found in one pass over the head.
pub(super) struct Fields<'h> {
    headers: &'h HeaderMap,
    /// The first value of each [`Field`].
    first: [Option<&'h HeaderValue>; COUNT],
    /// One bit for each field: whether it has more than one line.
    repeated: u16,
}

/// How many variants [`Field`] has.
const COUNT: usize = Field::Upgrade as usize + 1;

impl<'h> Fields<'h> {
    pub(super) fn of(headers: &'h HeaderMap) -> Self {
        let (mut first, mut repeated) = ([None; COUNT], 0);
        for (name, value) in headers {
            let Some(field) = field_of(name) else { continue };
            match &mut first[field as usize] {
                Some(_) => repeated |= 1 << field as u16,
                none => *none = Some(value),
            }
        }
        Self { headers, first, repeated }
    }

    /// Whether the field is present.
    pub(super) const fn has(&self, field: Field) -> bool {
        self.first[field as usize].is_some()
    }

    const fn is_repeated(&self, field: Field) -> bool {
        self.repeated & (1 << field as u16) != 0
    }

    /// The values of a field, one for each line.
    pub(super) fn lines(&self, field: Field) -> impl Iterator<Item = &'h HeaderValue> + use<'h> {
        let all = self.is_repeated(field).then(|| self.headers.get_all(name_of(field)));
        let more = all.map(|all| all.into_iter().skip(1));
        self.first[field as usize].into_iter().chain(more.into_iter().flatten())
    }

    /// The value of a field that may appear at most once.
    pub(super) const fn at_most_one(
        &self,
        field: Field,
    ) -> Result<Option<&'h HeaderValue>, HandshakeError> {
        if self.is_repeated(field) {
            return Err(HandshakeError::Duplicate(field));
        }
        Ok(self.first[field as usize])
    }

    /// The value of a field that must appear exactly once.
    pub(super) fn exactly_one(&self, field: Field) -> Result<&'h HeaderValue, HandshakeError> {
        self.at_most_one(field)?.ok_or(HandshakeError::Missing(field))
    }

    /// The elements of a comma-separated list that may span several lines. Empty elements are
    /// skipped (RFC 9110 §5.6.1.2). Not for lists with quoted strings.
    pub(super) fn elements(&self, field: Field) -> impl Iterator<Item = &'h [u8]> + use<'h> {
        self.lines(field).flat_map(|line| elements(line.as_bytes()))
    }

    /// Whether a list contains `token`, ignoring case. The usual spelling is compared first.
    pub(super) fn has_token(&self, field: Field, token: &str) -> bool {
        let token = token.as_bytes();
        self.lines(field).any(|line| {
            let line = line.as_bytes();
            line == token // nearly always
                || elements(line).any(|element| element.eq_ignore_ascii_case(token))
        })
    }

    /// A list of tokens without repetition. A field without elements counts as absent, though senders must list at
    /// least one (RFC 6455 §4.3).
    pub(super) fn unique_tokens(&self, field: Field) -> Result<Vec<String>, HandshakeError> {
        let mut tokens: Vec<String> = Vec::new();
        for element in self.elements(field) {
            let token = as_token(element).ok_or(HandshakeError::Invalid(field))?;
            tokens.push(token.into());
        }
        if repeated(&tokens).is_some() {
            return Err(HandshakeError::Duplicate(field));
        }
        Ok(tokens)
    }

    /// The declared length of a body, in bytes. Repeated equal values count as one (RFC 9110 §8.6).
    /// A value out of range counts as `u64::MAX`.
    pub(super) fn content_length(&self) -> Result<Option<u64>, HandshakeError> {
        let mut length = None;
        for value in self.lines(Field::ContentLength) {
            for element in value.as_bytes().split(|&byte| byte == b',').map(trim) {
                let digits = core::str::from_utf8(element).ok();
                let digits = digits
                    .filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
                    .ok_or(HandshakeError::Invalid(Field::ContentLength))?;
                let this = digits.parse().unwrap_or(u64::MAX);
                if length.is_some_and(|other| other != this) {
                    return Err(HandshakeError::Duplicate(Field::ContentLength));
                }
                length = Some(this);
            }
        }
        Ok(length)
    }
}

/// The field of this name; `None` if handshakes do not depend on it.
fn field_of(name: &HeaderName) -> Option<Field> {
    Some(match name.as_str() {
        "connection" => Field::Connection,
        "content-length" => Field::ContentLength,
        "expect" => Field::Expect,
        "host" => Field::Host,
        "origin" => Field::Origin,
        "sec-websocket-accept" => Field::SecWebSocketAccept,
        "sec-websocket-extensions" => Field::SecWebSocketExtensions,
        "sec-websocket-key" => Field::SecWebSocketKey,
        "sec-websocket-protocol" => Field::SecWebSocketProtocol,
        "sec-websocket-version" => Field::SecWebSocketVersion,
        "transfer-encoding" => Field::TransferEncoding,
        "upgrade" => Field::Upgrade,
        _ => return None,
    })
}

/// The name of a field in a header map.
const fn name_of(field: Field) -> HeaderName {
    match field {
        Field::Connection => header::CONNECTION,
        Field::ContentLength => header::CONTENT_LENGTH,
        Field::Expect => header::EXPECT,
        Field::Host => header::HOST,
        Field::Origin => header::ORIGIN,
        Field::SecWebSocketAccept => header::SEC_WEBSOCKET_ACCEPT,
        Field::SecWebSocketExtensions => header::SEC_WEBSOCKET_EXTENSIONS,
        Field::SecWebSocketKey => header::SEC_WEBSOCKET_KEY,
        Field::SecWebSocketProtocol => header::SEC_WEBSOCKET_PROTOCOL,
        Field::SecWebSocketVersion => header::SEC_WEBSOCKET_VERSION,
        Field::TransferEncoding => header::TRANSFER_ENCODING,
        Field::Upgrade => header::UPGRADE,
    }
}

/// The elements of one line of a list.
fn elements(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|&byte| byte == b',').map(trim).filter(|element| !element.is_empty())
}

/// An element that appears twice. Found by sorting, not by comparing all pairs, because a peer decides how many there
/// are.
pub(super) fn repeated(tokens: &[String]) -> Option<&String> {
    let mut sorted: Vec<&String> = tokens.iter().collect();
    sorted.sort_unstable();
    sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

/// Whether these bytes are a token (RFC 9110 §5.6.2).
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_char(byte))
}

/// The bytes as text; `None` if they are not a token.
pub(super) fn as_token(bytes: &[u8]) -> Option<&str> {
    core::str::from_utf8(bytes).ok().filter(|text| is_token(text.as_bytes()))
}

/// `tchar` of RFC 9110 §5.6.2.
pub(super) const fn is_token_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// Strips optional white space from both ends (RFC 9110 §5.6.3).
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The part of a header field that is invalid.
pub(super) enum InvalidHeader {
    Name(String),
    /// The value of the field of this name.
    Value(HeaderName),
}

/// Parses a header field of the application.
pub(super) fn parse_header(
    name: &str,
    value: impl TryInto<HeaderValue>,
) -> Result<(HeaderName, HeaderValue), InvalidHeader> {
    let name = HeaderName::try_from(name).map_err(|_| InvalidHeader::Name(name.into()))?;
    match value.try_into() {
        Ok(value) => Ok((name, value)),
        Err(_) => Err(InvalidHeader::Value(name)),
    }
}

/// Whether the application may not set this field, because the handshake determines it (RFC 6455 §4).
pub(super) fn is_reserved(name: &HeaderName) -> bool {
    is_framing(name) || *name == header::UPGRADE || name.as_str().starts_with("sec-websocket-")
}

/// Whether the field determines the end of an HTTP message or of the connection. The handshake writes these fields
/// itself.
pub(super) fn is_framing(name: &HeaderName) -> bool {
    [header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(name)
}
