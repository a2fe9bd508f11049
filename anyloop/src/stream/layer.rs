//! A layer between a protocol and its byte stream that seals what is sent: TLS.

use std::any::Any;

use super::cork::Scratch;
use super::seal::{MAX_RECORD_PLAINTEXT, Seal, SealLayer};
use super::write_buffer::{Completions, WriteBuffer};

/// Lends a protocol a [`WriteBuffer`] whose output is sealed.
///
/// When the guard is dropped, it seals what the protocol has appended. So nothing is lost if a handler panics.
pub(crate) struct LayerGuard<'w, 'o> {
    out: &'w mut WriteBuffer<'o>,
    seal: &'w mut dyn Seal,
    scratch: &'w mut Scratch,
}

impl<'w, 'o> LayerGuard<'w, 'o> {
    /// A guard over `out`, which must have no layer itself.
    pub(crate) fn new(
        out: &'w mut WriteBuffer<'o>,
        seal: &'w mut dyn Seal,
        scratch: &'w mut Scratch,
    ) -> Self {
        Self { out, seal, scratch }
    }

    /// The buffer to which the protocol appends its output.
    pub(crate) fn buffer(&mut self) -> WriteBuffer<'_> {
        let Self { out, seal, scratch } = self;
        let layer = Some(SealLayer { seal: &mut **seal, below: &mut *out.cork });
        let (queued, transport) = (&mut *out.queued, &mut *out.transport);
        WriteBuffer { cork: &mut scratch.cork, queued, transport, layer }
    }
}

impl Drop for LayerGuard<'_, '_> {
    fn drop(&mut self) {
        self.buffer().seal_cork(&[], Flush::Never); // the transport might panic as well
    }
}

/// Whether sealed output is written while more is sealed.
#[derive(Clone, Copy, PartialEq)]
enum Flush {
    IfLarge,
    Never,
}

impl WriteBuffer<'_> {
    /// Takes the thread's memory for layers. Return it with [`put_scratch`](Self::put_scratch).
    pub(crate) fn take_scratch(&mut self) -> Box<Scratch> {
        self.cork.scratch.take().unwrap_or_default()
    }

    /// Returns the thread's memory for layers.
    pub(crate) fn put_scratch(&mut self, scratch: Box<Scratch>) {
        self.cork.scratch = Some(scratch);
    }

    /// The bytes of the cork, to which a layer appends its own output.
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.cork.bytes
    }

    /// The state of the layer's encryption; `None` if no layer encrypts the output all the way to the peer.
    pub(crate) fn encryption_state(&self) -> Option<&dyn Any> {
        self.layer.as_ref()?.seal.encryption_state()
    }

    /// The buffer with the output that the layer has sealed; `None` if there is no layer or no such output.
    pub(super) fn below(&mut self) -> Option<WriteBuffer<'_>> {
        let Self { queued, transport, layer, .. } = self;
        let below = layer.as_mut().map(|layer| &mut *layer.below)?;
        if below.bytes.is_empty() {
            return None;
        }
        Some(WriteBuffer { cork: below, queued, transport: &mut **transport, layer: None })
    }

    /// Seals the cork and one frame after it, and writes what was sealed.
    pub(super) fn seal_frame(&mut self, header: &[u8], payload: &[u8]) {
        self.cork.bytes.extend_from_slice(header);
        // The last record of the cork is filled up with payload, which is copied. The rest of the payload is not
        // copied.
        let room = MAX_RECORD_PLAINTEXT - self.cork.bytes.len() % MAX_RECORD_PLAINTEXT;
        let (first, rest) = payload.split_at(room.min(payload.len()));
        self.cork.bytes.extend_from_slice(first);
        self.seal_cork(rest, Flush::IfLarge);
        if let Some(mut below) = self.below() {
            below.flush();
        }
    }

    /// Seals the cork, and `rest` after it.
    fn seal_cork(&mut self, rest: &[u8], flush: Flush) {
        let mut cork = std::mem::take(&mut self.cork.bytes);
        let mut completions = Completions(std::mem::take(&mut self.cork.completions));
        let mut sealed = 0;
        for record in cork.chunks(MAX_RECORD_PLAINTEXT).chain(rest.chunks(MAX_RECORD_PLAINTEXT)) {
            sealed += record.len();
            self.seal_record(record, sealed.min(cork.len()), &mut completions);
            if flush == Flush::IfLarge {
                if let Some(mut below) = self.below() {
                    below.flush_if_large();
                }
            }
        }
        cork.clear();
        self.cork.bytes = cork;
    }

    /// Seals one record. The first `sealed` bytes of the cork are sealed then, and the completions of their messages
    /// move to the cork below.
    fn seal_record(&mut self, record: &[u8], sealed: usize, completions: &mut Completions) {
        let Some(SealLayer { seal, below }) = &mut self.layer else { return };
        if !seal.seal(record, &mut below.bytes) {
            return; // the completions stay: when they are dropped, they are called with `Unsent`
        }
        let due = completions.0.iter().take_while(|(end, _)| *end <= sealed).count();
        let at = below.bytes.len();
        below
            .completions
            .extend(completions.0.drain(..due).map(|(_, completion)| (at, completion)));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, IoSlice};

    use anyloop_proto::{Output as _, Shutdown};

    use super::*;
    use crate::stream::cork::Cork;
    use crate::stream::{Transport, WriteGuard};

    struct PlainCopy;

    impl Seal for PlainCopy {
        fn seal(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
            out.extend_from_slice(bytes);
            true
        }

        fn is_stopped(&self) -> bool {
            false
        }

        fn encryption_state(&self) -> Option<&dyn Any> {
            Some(self)
        }
    }

    struct Nowhere;

    impl Transport for Nowhere {
        fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            Ok(slices.iter().map(|slice| slice.len()).sum())
        }

        fn shutdown(&mut self, _: Shutdown) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_thread_lends_the_same_contexts_with_a_layer_and_without() {
        let (mut cork, mut queued, mut transport) = (Cork::default(), None, Nowhere);
        let mut guard = WriteGuard::new(&mut cork, &mut queued);
        let mut out = guard.buffer(&mut transport);
        let contexts = out.parts().1.expect("it lends some");
        contexts.put(Box::new(7_u32), 4);
        let (mut seal, mut scratch) = (PlainCopy, out.take_scratch());
        let mut layer = LayerGuard::new(&mut out, &mut seal, &mut scratch);
        let mut buffer = layer.buffer();
        let contexts = buffer.parts().1.expect("it lends some");
        assert_eq!(contexts.take(|_: &u32| true), Some(Box::new(7)));
    }
}
