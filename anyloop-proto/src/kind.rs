//! The kind of a message.

use crate::frame::Opcode;

/// The kind of a message.
///
/// The examples of [`Message`](crate::Message) and [`Chunk`](crate::Chunk) use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "RFC 6455 knows two kinds of message")]
pub enum Kind {
    /// Bytes.
    Binary,
    /// UTF-8.
    Text,
}

impl Kind {
    #[inline]
    pub(crate) const fn opcode(self) -> Opcode {
        match self {
            Self::Binary => Opcode::Binary,
            Self::Text => Opcode::Text,
        }
    }
}
