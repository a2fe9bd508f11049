//! The place of extensions (RFC 6455 §9): what one does to messages.
//!
//! An extension is a [`Decoder`] for what is received and an [`Encoder`] for what is sent. How the
//! two sides agree on it belongs to the opening handshake.

use alloc::vec::Vec;

use crate::error::ExtensionError;
use crate::frame::Rsv;
use crate::message::Kind;

/// Restores received messages.
///
/// Only messages whose first frame has one of the claimed bits set come here; others pass by.
pub trait Decoder: Send {
    /// The reserved bits that this extension sets on the first frame of a message.
    fn claims(&self) -> Rsv;

    /// Decodes the next part of a message and appends the outcome to `message`, which must not grow
    /// beyond `limit` bytes: [`ExtensionError::TooBig`] says that it would, and must be found before
    /// memory is taken.
    ///
    /// Parts are cut anywhere, also inside a frame.
    ///
    /// # Errors
    ///
    /// Any error fails the connection with the code that the error names.
    fn decode(
        &mut self,
        part: Part<'_>,
        limit: usize,
        message: &mut Vec<u8>,
    ) -> Result<(), ExtensionError>;
}

/// Transforms messages before they are sent.
pub trait Encoder: Send {
    /// Asked at the start of each message: the reserved bits to set, or `None` to send this message
    /// as it is. `len` is its size in bytes, where known.
    fn begin(&mut self, kind: Kind, len: Option<usize>) -> Option<Rsv>;

    /// Encodes the next part of the message, and appends the outcome to `out`.
    fn encode(&mut self, payload: &[u8], last: bool, out: &mut Vec<u8>);
}

/// A part of a message on its way to a [`Decoder`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Part<'p> {
    /// The bytes, unmasked.
    pub payload: &'p [u8],
    /// Whether the message begins with this part.
    pub first: bool,
    /// Whether the message ends with this part, which may then be empty.
    pub last: bool,
}

impl<'p> Part<'p> {
    pub(crate) const fn new(payload: &'p [u8], first: bool, last: bool) -> Self {
        Self { payload, first, last }
    }
}
