//! What a handler can send.

use std::borrow::Cow;

use anyloop_proto::{Message, Payload, Text, Uncompressed};
use bytes::{Bytes, BytesMut};

/// Text or bytes that can be borrowed as a message.
///
/// ```
/// use anyloop::endpoint::AsMessage;
/// use anyloop::prelude::*;
///
/// fn kind(message: impl AsMessage) -> anyloop::proto::Kind {
///     message.as_message().kind()
/// }
/// assert_eq!(kind("text"), kind(format!("{} more", 2)));
/// assert_eq!(kind(vec![1, 2]), kind(&[1, 2]));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent as a message",
    note = "send a string for a text message, or bytes for a binary one"
)]
pub trait AsMessage {
    /// The message, borrowed.
    fn as_message(&self) -> Message<'_>;

    /// Whether an extension may compress the message. By default `true`; see [`Uncompressed`].
    #[inline(always)]
    fn is_compressible(&self) -> bool {
        true
    }
}

impl AsMessage for Message<'_> {
    #[inline(always)] // into the hot path of `Context::send`
    fn as_message(&self) -> Message<'_> {
        *self
    }
}

impl AsMessage for Text<'_> {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        Message::Text(*self)
    }
}

impl AsMessage for str {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        self.into()
    }
}

impl AsMessage for String {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        self.into()
    }
}

impl AsMessage for [u8] {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        self.into()
    }
}

impl<const N: usize> AsMessage for [u8; N] {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        self.into()
    }
}

impl AsMessage for Vec<u8> {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        self.into()
    }
}

impl AsMessage for Bytes {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        Message::Binary(self)
    }
}

impl AsMessage for BytesMut {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        Message::Binary(self)
    }
}

/// A message that owns its payload.
impl AsMessage for Payload {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        self.message()
    }

    fn is_compressible(&self) -> bool {
        Self::is_compressible(self) // the inherent method
    }
}

impl<M: AsMessage> AsMessage for Uncompressed<M> {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        self.0.as_message()
    }

    #[inline]
    fn is_compressible(&self) -> bool {
        false
    }
}

impl<M: AsMessage + ?Sized> AsMessage for Box<M> {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        (**self).as_message()
    }

    #[inline]
    fn is_compressible(&self) -> bool {
        (**self).is_compressible()
    }
}

impl<M: AsMessage + ToOwned + ?Sized> AsMessage for Cow<'_, M> {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        (**self).as_message()
    }

    #[inline]
    fn is_compressible(&self) -> bool {
        (**self).is_compressible()
    }
}

impl<M: AsMessage + ?Sized> AsMessage for &M {
    #[inline(always)]
    fn as_message(&self) -> Message<'_> {
        (**self).as_message()
    }

    #[inline(always)]
    fn is_compressible(&self) -> bool {
        (**self).is_compressible()
    }
}
