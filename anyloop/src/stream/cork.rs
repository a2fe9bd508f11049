//! The cork: memory of a thread, in which the output of one call gathers.

use anyloop_proto::extension::Contexts;

use super::completion::Completion;

/// Output that was not written yet. The memory belongs to a thread. `bytes` and `completions` are empty between calls.
#[derive(Default)]
pub(crate) struct Cork {
    pub(super) bytes: Vec<u8>,
    /// Completions of messages in `bytes`, each with the position at which its message ends.
    pub(super) completions: Vec<(usize, Completion)>,
    /// The contexts for the encoders of extensions.
    pub(super) contexts: Contexts,
    /// Memory for a layer, while no connection uses that memory.
    pub(super) scratch: Option<Box<Scratch>>,
}

impl std::fmt::Debug for Cork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cork").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// Memory that a thread lends to the layer of one connection at a time.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Output that the layer has not sealed yet.
    pub(super) cork: Cork,
    /// Decrypted input.
    pub(crate) plaintext: Vec<u8>,
    /// Free memory for input that cannot be decrypted yet.
    pub(crate) ciphertext: Vec<u8>,
}
