//! Sealing output, for a layer below a protocol.
//!
//! To *seal* bytes is to encrypt and authenticate them, as records of TLS.

use std::any::Any;

use super::cork::Cork;

/// The most bytes that are sealed at once: those of a TLS record (RFC 8446 §5.1).
pub(crate) const MAX_RECORD_PLAINTEXT: usize = 16 * 1024;

/// Seals output. The bound `Send` is only for a message of the compiler: a handler's `Context` is not `Send`, and the
/// message that says so would give this trait as the reason.
pub(crate) trait Seal: Send {
    /// Seals `bytes`, at most [`MAX_RECORD_PLAINTEXT`] of them, and appends them to `out`. Returns false if they cannot
    /// be sent.
    fn seal(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> bool;

    /// Whether nothing can be sealed any more.
    fn is_stopped(&self) -> bool;

    /// The state of the encryption, of a type that only the layer knows. `None` if the output is decrypted on the way
    /// to the peer, by a proxy.
    fn encryption_state(&self) -> Option<&dyn Any>;
}

/// The layer of a [`WriteBuffer`](super::WriteBuffer): its output is sealed.
pub(super) struct SealLayer<'w> {
    pub(super) seal: &'w mut dyn Seal,
    /// The cork for sealed output.
    pub(super) below: &'w mut Cork,
}

impl SealLayer<'_> {
    #[inline]
    pub(super) fn reborrow(&mut self) -> SealLayer<'_> {
        SealLayer { seal: &mut *self.seal, below: &mut *self.below }
    }
}
