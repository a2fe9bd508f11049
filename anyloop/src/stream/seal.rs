//! Sealing output, for a layer below a protocol.

use std::any::Any;

use super::cork::Cork;

/// The most bytes that are sealed at once: those of a TLS record (RFC 8446 §5.1).
pub(crate) const MAX_RECORD_PLAINTEXT: usize = 16 * 1024;

/// Seals output. It is `Send`, so that the compiler does not name it when a context is moved to another thread.
pub(crate) trait Seal: Send {
    /// Appends `bytes`, at most [`RECORD`] of them, to `out` in sealed form. Returns false if they cannot be sent.
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
    /// Sealed output.
    pub(super) below: &'w mut Cork,
}

impl SealLayer<'_> {
    #[inline]
    pub(super) fn reborrow(&mut self) -> SealLayer<'_> {
        SealLayer { seal: &mut *self.seal, below: &mut *self.below }
    }
}
