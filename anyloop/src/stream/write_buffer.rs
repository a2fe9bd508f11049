//! The write buffer: the output of a connection during one call.

use std::io::{self, ErrorKind, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use anyloop_proto::extension::Contexts;
use anyloop_proto::{Instant, LARGE_PAYLOAD, Output};
use bytes::Bytes;

use super::cork::Cork;
use super::queued::Queued;
use super::seal::SealLayer;
use super::send_buffer::{Completion, SendBuffer, Unsent};
use super::transport::{Peer, Transport};
use crate::cold::cold_path;

/// The cork is written when it holds this many bytes, and at the end of each call.
const CORK_LIMIT: usize = 64 * 1024;

/// Owns the output of one connection during one call.
///
/// The cork belongs to the thread, and is empty before and after the call. Output that is not written when the guard is
/// dropped moves to the send buffer of this connection. So the output cannot reach another peer or be lost, even if a
/// handler panics.
pub(crate) struct WriteGuard<'w, T: Transport + ?Sized> {
    cork: &'w mut Cork,
    queued: &'w mut Option<Box<Queued>>,
    pub(crate) transport: &'w mut T,
}

impl<'w, T: Transport> WriteGuard<'w, T> {
    #[inline]
    pub(crate) const fn new(
        cork: &'w mut Cork,
        queued: &'w mut Option<Box<Queued>>,
        transport: &'w mut T,
    ) -> Self {
        Self { cork, queued, transport }
    }

    /// The buffer to which a protocol appends its output.
    #[inline]
    pub(crate) fn buffer(&mut self) -> WriteBuffer<'_> {
        let Self { cork, queued, transport } = self;
        WriteBuffer { cork, queued, transport: &mut **transport, layer: None }
    }

    /// Whether all output is in the cork, and has no completions.
    #[inline]
    pub(crate) fn is_all_corked(&self) -> bool {
        self.queued.is_none() && self.cork.completions.is_empty()
    }

    /// The bytes of the cork: all output, if it [`is_all_corked`](Self::is_all_corked).
    #[inline]
    pub(crate) fn corked(&self) -> &[u8] {
        &self.cork.bytes
    }

    /// Reports that all of [`corked`](Self::corked) was written.
    #[inline]
    pub(crate) fn wrote_all(&mut self) {
        self.cork.bytes.clear();
    }

    /// Reports the result of writing [`corked`](Self::corked): an error fails the stream. What was not written moves to
    /// the send buffer.
    #[cold]
    pub(crate) fn wrote(&mut self, result: io::Result<usize>) {
        let written = result.unwrap_or_else(|error| {
            self.queued.get_or_insert_default().output.fail(error);
            0
        });
        move_to_send_buffer(self.queued, [&self.cork.bytes, &[], &[]], written);
        self.cork.bytes.clear();
    }

    /// Writes the cork at the end of a call.
    pub(crate) fn flush(&mut self) {
        self.buffer().flush();
    }
}

impl<T: Transport + ?Sized> WriteGuard<'_, T> {
    /// Moves the cork to the send buffer.
    #[cold]
    fn keep_unwritten(&mut self) {
        let Cork { bytes, completions, .. } = self.cork;
        move_to_send_buffer(self.queued, [bytes, &[], &[]], 0);
        for (end, completion) in completions.drain(..) {
            self.queued
                .get_or_insert_default()
                .output
                .push_completion(bytes.len() - end, completion);
        }
        bytes.clear();
    }
}

impl<T: Transport + ?Sized> Drop for WriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Completions are in the cork only together with bytes.
        if !self.cork.bytes.is_empty() {
            self.keep_unwritten();
        }
    }
}

/// The output side of one connection during one call: the cork, in which output gathers; the send buffer; and the
/// transport.
///
/// Output in the cork is written together when the call is over, or when 64 KiB have gathered. Large payloads are
/// written immediately, without a copy; what the transport does not take of them is copied, unless they are owned.
pub struct WriteBuffer<'w> {
    pub(super) cork: &'w mut Cork,
    pub(super) queued: &'w mut Option<Box<Queued>>,
    pub(super) transport: &'w mut (dyn Transport + 'w),
    /// The layer below the protocol. The cork has the output that the layer has not sealed yet.
    pub(super) layer: Option<SealLayer<'w>>,
}

impl std::fmt::Debug for WriteBuffer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteBuffer").field("cork", &self.cork).finish_non_exhaustive()
    }
}

impl WriteBuffer<'_> {
    /// The number of bytes in the send buffer, without those in the cork.
    #[inline]
    pub(crate) fn queued(&self) -> usize {
        self.queued.as_deref().map_or(0, |queued| queued.output.len())
    }

    /// The number of bytes that the transport has not taken: those in the send buffer, in the cork, and in the cork of
    /// sealed output.
    pub(crate) fn buffered(&self) -> usize {
        let sealed = self.layer.as_ref().map_or(0, |layer| layer.below.bytes.len());
        self.queued() + self.cork.bytes.len() + sealed
    }

    /// The same output for a shorter time.
    #[inline]
    pub(crate) fn reborrow(&mut self) -> WriteBuffer<'_> {
        let Self { cork, queued, transport, layer } = self;
        let layer = layer.as_mut().map(SealLayer::reborrow);
        WriteBuffer { cork, queued, transport: &mut **transport, layer }
    }

    /// Calls `completion` when the transport has taken all output that was appended so far; at once if it has already.
    pub(crate) fn push_completion(&mut self, completion: Completion) {
        if !self.cork.bytes.is_empty() {
            return self.cork.completions.push((self.cork.bytes.len(), completion));
        }
        if self.layer.as_ref().is_some_and(|layer| layer.seal.is_stopped()) {
            return completion(Err(Unsent)); // the output was dropped
        }
        if let Some(mut below) = self.below() {
            return below.push_completion(completion);
        }
        match self.queued {
            Some(queued) if queued.output.is_blocked() => {
                queued.output.push_completion(0, completion)
            }
            _ => completion(Ok(())),
        }
    }

    /// Writes the cork if much has gathered.
    #[inline]
    pub(crate) fn flush_if_large(&mut self) {
        if self.cork.bytes.len() >= CORK_LIMIT {
            cold_path();
            self.flush();
        }
    }

    /// Writes the cork.
    pub(crate) fn flush(&mut self) {
        if !self.cork.bytes.is_empty() {
            self.write_frame(&[], &[], None);
        }
    }

    /// Writes as much of the send buffer as the transport takes. Returns whether any of it was written.
    pub(crate) fn flush_send_buffer(&mut self) -> bool {
        let Self { queued, transport, .. } = self;
        let Some(queued) = queued.as_deref_mut() else { return false };
        let before = queued.output.len();
        let mut error = None;
        queued.output.write(|slices| write(&mut **transport, &mut error, slices));
        if let Some(error) = error {
            queued.output.fail(error);
        }
        queued.output.len() < before
    }

    pub(crate) fn peer(&self) -> Peer {
        self.transport.peer()
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.encryption_state().is_some() || self.transport.is_secure()
    }

    pub(crate) fn now(&self) -> Option<Instant> {
        self.transport.now()
    }

    /// Writes the cork, and one frame after it. If `owned` is the payload, what is not written of it waits by
    /// reference.
    #[inline(always)] // into `flush`, where header and payload are empty
    fn write_frame(&mut self, header: &[u8], payload: &[u8], owned: Option<&Bytes>) {
        if self.layer.is_some() {
            return self.seal_frame(header, payload);
        }
        let Self { cork, queued, transport, .. } = self;
        let completions = (!cork.completions.is_empty())
            .then(|| Completions(std::mem::take(&mut cork.completions)));
        // If the transport panics, it is unknown how much it wrote, so nothing is written again.
        let corked = ClearOnDrop(&mut cork.bytes);
        let parts = [&corked.0[..], header, payload];
        let len = parts.iter().map(|part| part.len()).sum();
        let written = match payload {
            [] => write_new(queued, &mut **transport, &[IoSlice::new(corked.0)]),
            _ => write_new(queued, &mut **transport, &parts.map(IoSlice::new)),
        };
        if written < len {
            match owned {
                Some(owned) => {
                    move_to_send_buffer(queued, [parts[0], header, &[]], written);
                    let before = parts[0].len() + header.len();
                    keep_payload(queued, owned, written.saturating_sub(before));
                }
                None => move_to_send_buffer(queued, parts, written),
            }
        }
        drop(corked);
        if let Some(completions) = completions {
            call_completions(queued, completions, written, len);
        }
    }
}

impl Output for WriteBuffer<'_> {
    #[inline]
    fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.cork.bytes
    }

    fn parts(&mut self) -> (&mut Vec<u8>, Option<&mut Contexts>) {
        match &mut self.layer {
            None => (&mut self.cork.bytes, Some(&mut self.cork.contexts)),
            Some(layer) => (&mut self.cork.bytes, Some(&mut layer.below.contexts)),
        }
    }

    fn write_vectored(&mut self, header: &[u8], payload: &[u8]) -> bool {
        self.write_frame(header, payload, None);
        true
    }

    /// A frame that many connections send. It waits in the send buffer by reference. A large frame is written without a
    /// copy. Returns false, so that the caller copies the frame, if it is small and nothing waits or there is a layer.
    fn write_shared(&mut self, frame: &Arc<[u8]>) -> bool {
        let is_small = frame.len() < LARGE_PAYLOAD;
        if is_small && (self.queued() == 0 || self.layer.is_some()) {
            return false;
        }
        if self.layer.is_some() {
            self.seal_frame(&[], frame);
            return true;
        }
        self.flush();
        let written = write_new(self.queued, self.transport, &[IoSlice::new(frame)]);
        if written < frame.len() {
            self.queued.get_or_insert_default().output.push_shared(frame, written);
        }
        true
    }

    #[inline]
    fn is_blocked(&self) -> bool {
        self.queued() > 0
    }
}

/// The output for one message or piece that owns its payload. What the transport does not take of a large payload waits
/// in the send buffer by reference, if it is sent as it is.
pub(crate) struct OwnedPayloadOutput<'o, 'w> {
    pub(crate) out: &'o mut WriteBuffer<'w>,
    pub(crate) payload: &'o Bytes,
}

impl Output for OwnedPayloadOutput<'_, '_> {
    fn buffer(&mut self) -> &mut Vec<u8> {
        self.out.buffer()
    }

    fn parts(&mut self) -> (&mut Vec<u8>, Option<&mut Contexts>) {
        self.out.parts()
    }

    fn write_vectored(&mut self, header: &[u8], payload: &[u8]) -> bool {
        let owned = std::ptr::eq(payload, &self.payload[..]).then_some(self.payload);
        self.out.write_frame(header, payload, owned);
        true
    }

    fn write_shared(&mut self, frame: &Arc<[u8]>) -> bool {
        self.out.write_shared(frame)
    }

    fn is_blocked(&self) -> bool {
        self.out.is_blocked()
    }
}

/// Completions of messages that are being written or sealed. Those that are still here when this is dropped are called
/// with [`Unsent`]: the transport has panicked, or nothing can be sealed.
pub(super) struct Completions(pub(super) Vec<(usize, Completion)>);

impl Drop for Completions {
    fn drop(&mut self) {
        for (_, completion) in self.0.drain(..) {
            // A second panic would abort the process.
            let _ = catch_unwind(AssertUnwindSafe(|| completion(Err(Unsent))));
        }
    }
}

/// The bytes of the cork while they are written. When this is dropped, also in a panic, the cork is emptied.
struct ClearOnDrop<'c>(&'c mut Vec<u8>);

impl Drop for ClearOnDrop<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.clear();
    }
}

/// Writes new output, unless other output waits before it or the transport has failed. Returns the number of bytes that
/// were written.
#[inline(always)] // as `write_frame`
fn write_new(
    queued: &mut Option<Box<Queued>>,
    transport: &mut (dyn Transport + '_),
    slices: &[IoSlice<'_>],
) -> usize {
    if queued.as_deref().is_some_and(|queued| queued.output.is_blocked()) {
        return 0;
    }
    let mut error = None;
    let written = write(transport, &mut error, slices);
    if let Some(error) = error {
        queued.get_or_insert_default().output.fail(error);
    }
    written
}

/// Writes what the transport takes. `WouldBlock` counts as zero bytes, and other errors are stored in `failed`.
#[inline]
fn write(
    transport: &mut (dyn Transport + '_),
    failed: &mut Option<io::Error>,
    slices: &[IoSlice<'_>],
) -> usize {
    let offered: usize = slices.iter().map(|slice| slice.len()).sum();
    match transport.write(slices) {
        Ok(written) => written.min(offered),
        Err(error) => {
            store_failure(error, failed);
            0
        }
    }
}

#[cold]
fn store_failure(error: io::Error, failed: &mut Option<io::Error>) {
    if error.kind() != ErrorKind::WouldBlock {
        *failed = Some(error);
    }
}

/// Called when `written` of `len` bytes were written: calls the completions of messages within those, and queues the
/// others.
#[cold]
fn call_completions(
    queued: &mut Option<Box<Queued>>,
    mut completions: Completions,
    written: usize,
    len: usize,
) {
    for (end, completion) in std::mem::take(&mut completions.0) {
        match queued.as_deref_mut() {
            Some(queued) if end > written => queued.output.push_completion(len - end, completion),
            _ => completion(Ok(())),
        }
    }
}

/// Keeps `parts` without the first `written` bytes.
#[cold]
fn move_to_send_buffer(queued: &mut Option<Box<Queued>>, parts: [&[u8]; 3], mut written: usize) {
    let send_buffer: &mut SendBuffer = &mut queued.get_or_insert_default().output;
    for part in parts {
        let skip = written.min(part.len());
        send_buffer.push(&part[skip..]);
        written -= skip;
    }
}

/// Keeps a payload without the first `written` bytes: by reference, unless so little is left that a copy takes less
/// memory.
#[cold]
fn keep_payload(queued: &mut Option<Box<Queued>>, payload: &Bytes, written: usize) {
    let send_buffer: &mut SendBuffer = &mut queued.get_or_insert_default().output;
    match payload.len() - written {
        0..LARGE_PAYLOAD => send_buffer.push(&payload[written..]),
        LARGE_PAYLOAD.. => send_buffer.push_payload(payload.slice(written..)),
    }
}
