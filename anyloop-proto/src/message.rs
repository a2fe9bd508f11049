//! Messages and events that borrow their payload.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
#[cfg(feature = "std")]
use std::sync::OnceLock;

#[cfg(feature = "std")]
use bytes::{Bytes, BytesMut};

use crate::close::CloseFrame;
#[cfg(feature = "std")]
use crate::extension::ShareKey;
use crate::frame::FrameHeader;
use crate::kind::Kind;

/// An event of a connection. It borrows the caller's input, or memory of the connection, until the
/// next call.
///
/// ```
/// # use anyloop_proto::*;
/// # let now = Instant::from_nanos(0);
/// # let mut out = Vec::new();
/// # let mut connection = Connection::new(Role::Client, Config::default().into(), now);
/// let Connection { receiver, sender } = &mut connection;
/// // A ping in the middle of a fragmented message, and an unsolicited pong.
/// let mut bytes = *b"\x01\x03Hel\x89\x01?\x80\x02lo\x8a\x01!";
/// let mut input = Input::new(&mut bytes);
/// let mut events = Vec::new();
/// while let Some(event) = receiver.next(sender, &mut input, now, &mut out)? {
///     events.push(match event {
///         Event::Message(message) => format!("{message:?}"),
///         Event::Ping(payload) => format!("ping {payload:?}"),
///         Event::Pong { payload, round_trip: None } => format!("pong {payload:?}"),
///         other => panic!("{other:?}"),
///     });
/// }
/// assert_eq!(events, ["ping [63]", "Text(\"Hello\")", "pong [33]"]);
/// assert_eq!(out.len(), 2 + 4 + 1); // the ping is answered already
/// # Ok::<(), Failure>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'e> {
    /// A part of a message, in [streaming](crate::Config::streaming) mode.
    Chunk(Chunk<'e>),
    /// The peer's Close frame. It has been answered, unless we sent a Close first; nothing more will be received.
    Close(CloseFrame<&'e str>),
    /// A whole message.
    Message(Message<'e>),
    /// A ping. It has been answered, unless [`auto_pong`](crate::Config::auto_pong) is off. The pong is held back while
    /// the output is blocked.
    Ping(&'e [u8]),
    /// A pong.
    Pong {
        /// The payload.
        payload: &'e [u8],
        /// The time since the ping, if this answers a keep-alive ping.
        round_trip: Option<Duration>,
    },
}

/// A whole message.
///
/// ```
/// use anyloop_proto::{Kind, Message};
///
/// let (text, binary) = (Message::from("é"), Message::from(&[0xc3, 0xa9][..]));
/// assert_eq!((text.kind(), binary.kind()), (Kind::Text, Kind::Binary));
/// assert_eq!(text.as_bytes(), binary.as_bytes());
/// assert_ne!(text, binary);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "RFC 6455 knows two kinds of message")]
pub enum Message<'e> {
    /// Bytes.
    Binary(&'e [u8]),
    /// UTF-8.
    Text(Text<'e>),
}

impl<'e> Message<'e> {
    /// The payload, of either kind.
    #[inline]
    #[must_use]
    pub const fn as_bytes(self) -> &'e [u8] {
        match self {
            Self::Binary(bytes) => bytes,
            Self::Text(text) => text.as_bytes(),
        }
    }

    /// The text of a text message; `None` for a binary one.
    ///
    /// ```
    /// use anyloop_proto::Message;
    ///
    /// assert_eq!(Message::from("hello").as_text(), Some("hello"));
    /// assert_eq!(Message::from(b"hello").as_text(), None);
    /// ```
    #[inline]
    #[must_use]
    pub fn as_text(self) -> Option<&'e str> {
        match self {
            Self::Binary(_) => None,
            Self::Text(text) => Some(text.as_str()),
        }
    }

    /// Whether the message is text or binary.
    #[inline]
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Binary(_) => Kind::Binary,
            Self::Text(_) => Kind::Text,
        }
    }
}

/// The payload, of either kind.
impl AsRef<[u8]> for Message<'_> {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl<'e> From<&'e [u8]> for Message<'e> {
    fn from(bytes: &'e [u8]) -> Self {
        Self::Binary(bytes)
    }
}

impl<'e, const N: usize> From<&'e [u8; N]> for Message<'e> {
    fn from(bytes: &'e [u8; N]) -> Self {
        Self::Binary(bytes)
    }
}

impl<'e> From<&'e Vec<u8>> for Message<'e> {
    fn from(bytes: &'e Vec<u8>) -> Self {
        Self::Binary(bytes)
    }
}

impl<'e> From<&'e str> for Message<'e> {
    fn from(text: &'e str) -> Self {
        Self::Text(text.into())
    }
}

impl<'e> From<&'e String> for Message<'e> {
    fn from(text: &'e String) -> Self {
        Self::Text(text.as_str().into())
    }
}

impl<'e> From<Text<'e>> for Message<'e> {
    fn from(text: Text<'e>) -> Self {
        Self::Text(text)
    }
}

/// The text of a message: valid UTF-8.
///
/// The bytes were checked as they arrived. [`as_str`](Self::as_str) is free for a text of the fast path
/// ([`Receiver::next_message`](crate::Receiver::next_message)), and for one made from a `str`. For any other text, each
/// call of `as_str` checks all of it again, at 10 GB/s or more. An application that only forwards the message uses
/// [`as_bytes`](Self::as_bytes).
///
/// ```
/// # use anyloop_proto::*;
/// # let now = Instant::from_nanos(0);
/// # let mut out = Vec::new();
/// # let mut connection = Connection::new(Role::Client, Config::default().into(), now);
/// let Connection { receiver, sender } = &mut connection;
/// let mut bytes = *b"\x01\x01\xc3\x80\x01\xa9"; // a character in two frames
/// match receiver.next(sender, &mut Input::new(&mut bytes), now, &mut out)? {
///     Some(Event::Message(Message::Text(text))) => {
///         assert_eq!(text.as_str(), "é");
///         assert_eq!(text.as_bytes().len(), 2);
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Failure>(())
/// ```
#[derive(Clone, Copy)]
pub struct Text<'e>(Repr<'e>);

#[derive(Clone, Copy)]
enum Repr<'e> {
    Str(&'e str),
    /// Bytes that were validated as they arrived, or when the message was made.
    Checked(&'e [u8]),
}

impl<'e> Text<'e> {
    /// A text of bytes that were validated as UTF-8.
    pub(crate) const fn from_validated(bytes: &'e [u8]) -> Self {
        Self(Repr::Checked(bytes))
    }

    /// The text.
    #[must_use]
    pub fn as_str(self) -> &'e str {
        match self.0 {
            Repr::Str(text) => text,
            // Cannot fail: all of it was validated before.
            Repr::Checked(bytes) => simdutf8::basic::from_utf8(bytes).unwrap_or_default(),
        }
    }

    /// The text as bytes.
    #[inline]
    #[must_use]
    pub const fn as_bytes(self) -> &'e [u8] {
        match self.0 {
            Repr::Str(text) => text.as_bytes(),
            Repr::Checked(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Text<'_> {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl<'e> From<&'e str> for Text<'e> {
    #[inline]
    fn from(text: &'e str) -> Self {
        Self(Repr::Str(text))
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Text<'_> {}

/// A part of a message, as it arrived.
///
/// The chunks of a message come in order, and no chunk of another message comes between them. Chunk
/// boundaries depend on how the bytes arrive. Only the last chunk may be empty.
///
/// ```
/// # use anyloop_proto::*;
/// # let now = Instant::from_nanos(0);
/// # let mut out = Vec::new();
/// let mut config = Config::default();
/// config.streaming = true;
/// let mut connection = Connection::new(Role::Client, config.into(), now);
/// let Connection { receiver, sender } = &mut connection;
///
/// let mut whole = Vec::new();
/// for part in [&b"\x82\x08stre"[..], b"amed"] {
///     match receiver.next(sender, &mut Input::new(&mut part.to_vec()), now, &mut out)? {
///         Some(Event::Chunk(chunk)) => {
///             assert_eq!(chunk.kind, Kind::Binary);
///             assert_eq!((chunk.first, chunk.last), (whole.is_empty(), whole.len() == 4));
///             whole.extend_from_slice(chunk.payload);
///         }
///         other => panic!("{other:?}"),
///     }
/// }
/// assert_eq!(whole, b"streamed");
/// # Ok::<(), Failure>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Chunk<'e> {
    /// Whether the message is text or binary.
    pub kind: Kind,
    /// The bytes. A chunk of text may begin and end inside a character. All chunks so far, joined, are valid UTF-8,
    /// except that the last character may be incomplete.
    pub payload: &'e [u8],
    /// Whether the message begins with this chunk.
    pub first: bool,
    /// Whether the message ends with this chunk.
    pub last: bool,
}

/// A message that is encoded once and sent to many connections.
///
/// Cloning is cheap. Server connections send the same bytes, by reference if the output [supports
/// it](crate::Output::write_shared). A client masks each copy anew (RFC 6455 §5.3).
///
/// With an extension, the message is encoded once for all connections whose encoders have the same
/// [share key](crate::extension::Encoder::share_key), for up to four keys. Any other connection with an encoder encodes
/// its own copy.
///
/// It is made from text (`&str`, `String`), from bytes (slices, arrays, `Vec<u8>`, `Bytes`), from a [`Message`] or from
/// a `Payload`. Each is copied into the frame.
///
/// ```
/// # use anyloop_proto::*;
/// # let now = Instant::from_nanos(0);
/// # let new = |role| Connection::new(role, Config::default().into(), now);
/// let news = Prepared::new("news");
/// let (mut server, mut client) = (new(Role::Server), new(Role::Client));
/// let (mut to_one, mut to_other) = (Vec::new(), Vec::new());
/// server.sender.send_prepared(&news, &mut to_one)?;
/// client.sender.send_prepared(&news, &mut to_other)?;
/// assert_eq!(to_one, b"\x81\x04news");
/// assert_eq!((to_other[1], to_other.len()), (0x80 | 4, 10)); // masked, so not the same bytes
/// # Ok::<(), Refused>(())
/// ```
#[derive(Clone)]
pub struct Prepared {
    frames: Arc<Frames>,
    header_size: u8,
    kind: Kind,
    compressible: bool,
}

/// The frames of a prepared message. All are shared by its clones.
struct Frames {
    plain: Arc<[u8]>,
    /// The frames as encoders have encoded them, each under the key of its encoder.
    #[cfg(feature = "std")]
    encoded: [OnceLock<(ShareKey, Arc<[u8]>)>; MAX_ENCODED],
}

/// The number of different keys under which a prepared message keeps an encoded frame.
#[cfg(feature = "std")]
const MAX_ENCODED: usize = 4;

impl Prepared {
    /// Encodes `message` as one unmasked frame.
    #[must_use]
    pub fn new<'m>(message: impl Into<Message<'m>>) -> Self {
        let message = message.into();
        let payload = message.as_bytes();
        let fin = true;
        let header = FrameHeader::new(message.kind().opcode(), fin, payload.len() as u64);
        let mut frame = Vec::with_capacity(header.size() + payload.len());
        header.encode(&mut frame);
        frame.extend_from_slice(payload);
        let frames = Frames {
            plain: frame.into(),
            #[cfg(feature = "std")]
            encoded: Default::default(),
        };
        let (header_size, kind) = (header.size() as u8, message.kind());
        Self { frames: Arc::new(frames), header_size, kind, compressible: true }
    }

    /// Whether an extension may encode the message. See [`Uncompressed`].
    #[must_use]
    pub const fn is_compressible(&self) -> bool {
        self.compressible
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> Message<'_> {
        let payload = &self.frames.plain[usize::from(self.header_size)..];
        match self.kind {
            Kind::Binary => Message::Binary(payload),
            Kind::Text => Message::Text(Text::from_validated(payload)),
        }
    }

    pub(crate) fn plain_frame(&self) -> &Arc<[u8]> {
        &self.frames.plain
    }

    /// The frame that was encoded under this key. If there is none yet, `encode` creates it. `None` if the message
    /// already keeps its [`MAX_ENCODED`] frames under other keys, or if another thread takes the slot under another key
    /// meanwhile.
    #[cfg(feature = "std")]
    pub(crate) fn encoded_frame(
        &self,
        key: ShareKey,
        encode: impl FnOnce() -> Vec<u8>,
    ) -> Option<&Arc<[u8]>> {
        let mut encode = Some(encode);
        for slot in &self.frames.encoded {
            // Another thread may fill the slot first, under this key or another one.
            let frame = match slot.get() {
                Some(frame) => frame,
                None => {
                    let encode = encode.take()?;
                    slot.get_or_init(|| (key, encode().into()))
                }
            };
            if frame.0 == key {
                return Some(&frame.1);
            }
        }
        None
    }
}

/// A message that extensions do not compress: because it is compressed already, or because it contains a secret beside
/// text that others have chosen (the attacks CRIME and BREACH).
///
/// It can be sent wherever a message can.
///
/// ```
/// use anyloop_proto::{Payload, Prepared, Uncompressed};
///
/// assert!(!Payload::from(Uncompressed(vec![0xff, 0xd8])).is_compressible());
/// assert!(!Prepared::from(Uncompressed("token")).is_compressible());
/// assert!(Prepared::from("text").is_compressible());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a wrapper")]
pub struct Uncompressed<M>(pub M);

impl<M: Into<Self>> From<Uncompressed<M>> for Prepared {
    fn from(message: Uncompressed<M>) -> Self {
        Self { compressible: false, ..message.0.into() }
    }
}

/// Prepares anything that can be sent.
macro_rules! prepared_from {
    ($($message:ty),*) => {
        $(impl From<$message> for Prepared {
            fn from(message: $message) -> Self {
                Self::new(message)
            }
        })*
    };
}

prepared_from!(Message<'_>, Text<'_>, &str, &String, &[u8], &Vec<u8>);

impl<const N: usize> From<&[u8; N]> for Prepared {
    fn from(message: &[u8; N]) -> Self {
        Self::new(message)
    }
}

impl<const N: usize> From<[u8; N]> for Prepared {
    fn from(message: [u8; N]) -> Self {
        Self::new(&message)
    }
}

/// Prepares anything that owns what can be sent.
macro_rules! prepared_from_owned {
    ($($message:ty),*) => {
        $(impl From<$message> for Prepared {
            fn from(message: $message) -> Self {
                Self::new(&message[..])
            }
        })*
    };
}

prepared_from_owned!(String, Vec<u8>, Box<str>, Box<[u8]>, Cow<'_, str>, Cow<'_, [u8]>);
#[cfg(feature = "std")]
prepared_from_owned!(Bytes, &Bytes, BytesMut);

/// Shares the frame.
impl From<&Self> for Prepared {
    fn from(prepared: &Self) -> Self {
        prepared.clone()
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Prepared").field(&self.message()).finish()
    }
}
