//! Messages that own their payload.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use bytes::{Bytes, BytesMut};

use crate::kind::Kind;
use crate::message::{Message, Prepared, Text, Uncompressed};

/// A message that owns its payload. Clones share it. Unlike the payload data of RFC 6455, it also has the kind, text or
/// binary.
///
/// It is created from text or bytes. Owned values (`String`, `Vec<u8>`, `Bytes` and others) are not copied, except
/// arrays. Borrowed text and slices are copied; to avoid this for static memory, use [`Bytes::from_static`]. A borrowed
/// `Bytes` or `Payload` is shared.
///
/// ```
/// use anyloop_proto::{Message, Payload};
///
/// let text = Payload::from(format!("{} apples", 3));
/// assert_eq!(text.message(), Message::from("3 apples"));
/// assert_eq!(text.clone().message().as_text(), Some("3 apples"));
///
/// let binary = Payload::from(vec![1, 2, 3]);
/// assert_eq!(binary.as_bytes().len(), 3);
/// assert_eq!(binary.into_bytes()[..], [1, 2, 3]);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    /// UTF-8 if `kind` is text.
    bytes: Bytes,
    kind: Kind,
    /// False: extensions leave the message alone (see [`Uncompressed`]).
    compressible: bool,
}

impl Payload {
    /// The message, borrowed.
    #[must_use]
    pub fn message(&self) -> Message<'_> {
        match self.kind {
            Kind::Binary => Message::Binary(&self.bytes),
            Kind::Text => Message::Text(Text::from_validated(&self.bytes)),
        }
    }

    /// The payload, of either kind, borrowed.
    #[must_use]
    pub const fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The payload, of either kind.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Whether an extension may encode the message. See [`Uncompressed`].
    #[must_use]
    pub const fn is_compressible(&self) -> bool {
        self.compressible
    }

    const fn binary(bytes: Bytes) -> Self {
        Self { bytes, kind: Kind::Binary, compressible: true }
    }

    const fn text(bytes: Bytes) -> Self {
        Self { bytes, kind: Kind::Text, compressible: true }
    }
}

/// The payload, of either kind.
impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<Message<'_>> for Payload {
    fn from(message: Message<'_>) -> Self {
        let bytes = Bytes::copy_from_slice(message.as_bytes());
        Self { bytes, kind: message.kind(), compressible: true }
    }
}

impl<M: Into<Self>> From<Uncompressed<M>> for Payload {
    fn from(message: Uncompressed<M>) -> Self {
        Self { compressible: false, ..message.0.into() }
    }
}

impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Self::text(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<&String> for Payload {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<Text<'_>> for Payload {
    fn from(text: Text<'_>) -> Self {
        Message::Text(text).into()
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Self::text(text.into())
    }
}

impl From<Box<str>> for Payload {
    fn from(text: Box<str>) -> Self {
        String::from(text).into()
    }
}

impl From<Cow<'_, str>> for Payload {
    fn from(text: Cow<'_, str>) -> Self {
        text.into_owned().into()
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        Self::binary(Bytes::copy_from_slice(bytes))
    }
}

impl<const N: usize> From<&[u8; N]> for Payload {
    fn from(bytes: &[u8; N]) -> Self {
        bytes[..].into()
    }
}

impl<const N: usize> From<[u8; N]> for Payload {
    fn from(bytes: [u8; N]) -> Self {
        bytes[..].into()
    }
}

impl From<&Vec<u8>> for Payload {
    fn from(bytes: &Vec<u8>) -> Self {
        bytes[..].into()
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::binary(bytes.into())
    }
}

impl From<Box<[u8]>> for Payload {
    fn from(bytes: Box<[u8]>) -> Self {
        Self::binary(bytes.into())
    }
}

impl From<Cow<'_, [u8]>> for Payload {
    fn from(bytes: Cow<'_, [u8]>) -> Self {
        bytes.into_owned().into()
    }
}

impl From<BytesMut> for Payload {
    fn from(bytes: BytesMut) -> Self {
        Self::binary(bytes.freeze())
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::binary(bytes)
    }
}

impl From<&Self> for Payload {
    fn from(payload: &Self) -> Self {
        payload.clone()
    }
}

impl From<&Bytes> for Payload {
    fn from(bytes: &Bytes) -> Self {
        bytes.clone().into()
    }
}

impl From<&Payload> for Prepared {
    fn from(payload: &Payload) -> Self {
        match payload.compressible {
            true => Self::new(payload.message()),
            false => Uncompressed(payload.message()).into(),
        }
    }
}

impl From<Payload> for Prepared {
    fn from(payload: Payload) -> Self {
        Self::from(&payload)
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message().fmt(f)
    }
}
