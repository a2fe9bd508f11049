//! Extensions (RFC 6455 §9): codecs for messages.
//!
//! An extension is a [`Decoder`] for received messages and an [`Encoder`] for sent ones. Both sides
//! agree on it in the opening handshake.

use alloc::vec::Vec;

use crate::error::ExtensionError;
use crate::frame::Rsv;
use crate::message::Kind;

/// Decodes received messages.
///
/// It receives only messages whose first frame has one of its claimed bits set.
///
/// An extension that negates every byte, in both directions:
///
/// ```
/// use anyloop_proto::extension::{Decoder, Encoder, Part};
/// use anyloop_proto::frame::Rsv;
/// use anyloop_proto::{ExtensionError, Kind};
/// # use anyloop_proto::{Config, Connection, Event, Input, Instant, Message, Role};
///
/// struct Negated;
///
/// impl Decoder for Negated {
///     fn claims(&self) -> Rsv {
///         Rsv::RSV2
///     }
///
///     fn decode(
///         &mut self,
///         part: Part<'_>,
///         limit: usize,
///         message: &mut Vec<u8>,
///     ) -> Result<(), ExtensionError> {
///         if part.payload.len() > limit - message.len() {
///             return Err(ExtensionError::TooBig);
///         }
///         message.extend(part.payload.iter().map(|byte| !byte));
///         Ok(())
///     }
/// }
///
/// impl Encoder for Negated {
///     fn begin(&mut self, kind: Kind, _: Option<usize>) -> Option<Rsv> {
///         (kind == Kind::Binary).then_some(Rsv::RSV2) // texts are not encoded
///     }
///
///     fn encode(&mut self, payload: &[u8], _: bool, out: &mut Vec<u8>) {
///         out.extend(payload.iter().map(|byte| !byte));
///     }
/// }
///
/// # let now = Instant::from_nanos(0);
/// let new = |role| {
///     Connection::new(role, Config::default().into(), now)
///         .with_extension(Box::new(Negated), Box::new(Negated))
/// };
/// let (mut server, mut wire) = (new(Role::Server), Vec::new());
/// server.sender.send(&[0x00, 0x0f][..], &mut wire)?;
/// assert_eq!(wire, b"\xa2\x02\xff\xf0");
///
/// let Connection { mut receiver, mut sender } = new(Role::Client);
/// let mut input = Input::new(&mut wire);
/// let event = receiver.next(&mut sender, &mut input, now, &mut Vec::new())?;
/// assert!(matches!(event, Some(Event::Message(Message::Binary(&[0x00, 0x0f])))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Decoder: Send {
    /// The reserved bits that this extension sets on the first frame of a message.
    fn claims(&self) -> Rsv;

    /// Decodes the next part of a message and appends the result to `message`, which must not
    /// exceed `limit` bytes. If it would, this returns [`ExtensionError::TooBig`] before it
    /// allocates memory.
    ///
    /// Part boundaries are arbitrary and may lie inside a frame. Bytes decoded before an error are
    /// appended.
    ///
    /// # Errors
    ///
    /// Any error fails the connection with the code of the error.
    fn decode(
        &mut self,
        part: Part<'_>,
        limit: usize,
        message: &mut Vec<u8>,
    ) -> Result<(), ExtensionError>;
}

/// Transforms messages before they are sent.
///
/// The example of [`Decoder`] implements both.
pub trait Encoder: Send {
    /// Called at the start of each message. Returns the reserved bits to set, or `None` to send the
    /// message unencoded. `len` is the size of the message in bytes, if known.
    fn begin(&mut self, kind: Kind, len: Option<usize>) -> Option<Rsv>;

    /// Encodes the next part of the message and appends the result to `out`.
    fn encode(&mut self, payload: &[u8], last: bool, out: &mut Vec<u8>);
}

/// A part of a message for a [`Decoder`].
///
/// The example of [`Decoder`] uses it.
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
