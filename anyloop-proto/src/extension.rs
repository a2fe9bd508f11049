//! Extensions (RFC 6455 §9): codecs for messages.
//!
//! An extension is a [`Decoder`] for received messages and an [`Encoder`] for sent ones. Both sides
//! agree on it in the opening handshake.

use alloc::vec::Vec;
use core::any::{Any, TypeId};

pub use crate::contexts::Contexts;
use crate::error::ExtensionError;
use crate::frame::Rsv;
use crate::kind::Kind;

/// Decodes received messages.
///
/// It receives only messages whose first frame has one of its claimed bits set.
///
/// An extension that negates every byte, in both directions:
///
/// ```
/// use anyloop_proto::extension::{Contexts, Decoder, Encoder, Part};
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
///         _: &mut Contexts,
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
///     fn encode(&mut self, payload: &[u8], _: bool, out: &mut Vec<u8>, _: &mut Contexts) {
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
    /// The reserved bits that this extension uses on the first frame of a message.
    fn claims(&self) -> Rsv;

    /// Decodes the next part of a message and appends the result to `message`, which must not
    /// exceed `limit` bytes. If it would, this returns [`ExtensionError::TooBig`], and allocates no memory for what is
    /// beyond the limit.
    ///
    /// Part boundaries are arbitrary and may lie inside a frame. Bytes decoded before an error are
    /// appended. A message that arrives whole is one part. A decoder may hold parts back, and decode them together with
    /// a later part: the last one, at the latest.
    ///
    /// `contexts` are those of the pool of the input; empty if it has no pool. See [`Contexts`].
    ///
    /// # Errors
    ///
    /// Any error fails the connection with the code of the error.
    fn decode(
        &mut self,
        part: Part<'_>,
        limit: usize,
        message: &mut Vec<u8>,
        contexts: &mut Contexts,
    ) -> Result<(), ExtensionError>;
}

/// Transforms messages before they are sent.
///
/// The example of [`Decoder`] implements both.
pub trait Encoder: Send {
    /// The size in bytes from which messages may be encoded: shorter messages are sent without a call of
    /// [`begin`](Self::begin), unless they are sent in pieces. Constant for the connection. By default 0.
    fn threshold(&self) -> usize {
        0
    }

    /// Called at the start of each message that may be encoded: not of one below the threshold, nor of an
    /// [`Uncompressed`](crate::Uncompressed) one. Returns the reserved bits to set, or `None` to send the message
    /// unencoded. `len` is the size of the message in bytes; `None` if it is sent in pieces.
    fn begin(&mut self, kind: Kind, len: Option<usize>) -> Option<Rsv>;

    /// Encodes the next part of the message and appends the result to `out`. The message ends with this part if `last`
    /// is true. `contexts` are those that the [output lends](crate::Output::parts); empty if it lends none.
    fn encode(&mut self, payload: &[u8], last: bool, out: &mut Vec<u8>, contexts: &mut Contexts);

    /// The key under which encoded [`Prepared`](crate::Prepared) messages are shared with other connections. `None`,
    /// the default, if each connection encodes its own copy.
    ///
    /// Connections with the same key send the same bytes, which [`encode_shared`](Self::encode_shared) creates once.
    fn share_key(&self) -> Option<ShareKey> {
        None
    }

    /// Encodes a whole message for all connections with this [`share_key`](Self::share_key): the result depends on no
    /// earlier message. Called after `begin` has returned bits, with `out` empty. By default it appends nothing.
    fn encode_shared(&self, payload: &[u8], out: &mut Vec<u8>, contexts: &mut Contexts) {
        let _ = (payload, out, contexts);
    }

    /// Reports that a message was sent in the encoding of [`encode_shared`](Self::encode_shared). Later messages may
    /// depend on it. By default this does nothing.
    fn shared_sent(&mut self, payload: &[u8]) {
        let _ = payload;
    }
}

/// A key of encoders: the encoders with the same key encode a message in the same way. It consists of the type of the
/// encoder, and a number for its parameters.
///
/// ```
/// use anyloop_proto::extension::ShareKey;
///
/// struct Zip;
/// struct Zap;
/// assert_eq!(ShareKey::new::<Zip>(6), ShareKey::new::<Zip>(6));
/// assert_ne!(ShareKey::new::<Zip>(6), ShareKey::new::<Zap>(6));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareKey {
    encoder: TypeId,
    parameters: u64,
}

impl ShareKey {
    /// The key of encoders of type `E` with these parameters.
    #[must_use]
    pub fn new<E: Any>(parameters: u64) -> Self {
        Self { encoder: TypeId::of::<E>(), parameters }
    }
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
