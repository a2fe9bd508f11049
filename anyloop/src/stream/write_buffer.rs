//! The write buffer: the output of a connection during one call.

use std::io::{self, IoSlice};
use std::sync::Arc;

use anyloop_proto::extension::Contexts;
use anyloop_proto::{Instant, LARGE_PAYLOAD, Output};
use bytes::Bytes;

use super::completion::{Completion, Unsent, call_all, report_unsent};
use super::cork::Cork;
use super::queued::Queued;
use super::seal::SealLayer;
use super::send_buffer::SendBuffer;
use super::transport::{Peer, Transport};

/// The cork is written when it holds this many bytes, and at the end of each call.
const CORK_LIMIT: usize = 64 * 1024;

/// Owns the output of one connection during one call.
///
/// The cork belongs to the thread, and is empty before and after the call. Output that is not written when the guard is
/// dropped moves to the send buffer of this connection. So the output cannot reach another peer or be lost, even if a
/// handler panics.
pub(crate) struct WriteGuard<'w> {
    cork: &'w mut Cork,
    queued: &'w mut Option<Box<Queued>>,
}

impl<'w> WriteGuard<'w> {
    #[inline]
    pub(crate) const fn new(cork: &'w mut Cork, queued: &'w mut Option<Box<Queued>>) -> Self {
        Self { cork, queued }
    }

    /// The buffer to which a protocol appends its output. `transport` is that of the connection.
    #[inline]
    pub(crate) fn buffer<'b>(&'b mut self, transport: &'b mut dyn Transport) -> WriteBuffer<'b> {
        let Self { cork, queued } = self;
        WriteBuffer { cork, queued, transport, layer: None }
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
            handle_error(self.queued, error);
            0
        });
        move_to_send_buffer(self.queued, [&self.cork.bytes, &[], &[]], written);
        self.cork.bytes.clear();
    }

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

impl Drop for WriteGuard<'_> {
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
/// Output in the cork is written together when the call is over, or when 64 KiB have gathered. A large payload is
/// written immediately, without a copy, unless output waits in the send buffer. What the transport does not take of it
/// is copied, unless it is owned.
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
            self.flush_large();
        }
    }

    #[cold] // so that `flush` is not inlined into the callers of `flush_if_large`
    fn flush_large(&mut self) {
        self.flush();
    }

    /// Writes the cork.
    #[inline]
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
        queued.output.write(|slices| transport.write(slices));
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
        if !self.cork.completions.is_empty() {
            return self.write_frame_with_completions(header, payload, owned);
        }
        self.write_plain_frame(header, payload, owned);
    }

    /// Writes the cork, and one frame after it, and calls the completions of messages that were written.
    #[cold]
    fn write_frame_with_completions(
        &mut self,
        header: &[u8],
        payload: &[u8],
        owned: Option<&Bytes>,
    ) {
        let completions = Completions(std::mem::take(&mut self.cork.completions));
        let (written, len) = self.write_plain_frame(header, payload, owned);
        call_completions(self.queued, completions, written, len);
    }

    /// Writes the cork, and one frame after it, without a layer. Returns the number of bytes that were written, and of
    /// all bytes.
    #[inline(always)] // as `write_frame`
    fn write_plain_frame(
        &mut self,
        header: &[u8],
        payload: &[u8],
        owned: Option<&Bytes>,
    ) -> (usize, usize) {
        let Self { cork, queued, transport, .. } = self;
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
        (written, len)
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

    /// A frame that many connections send. If it has to wait, the send buffer has a reference to it. A large frame is
    /// written without a copy. A small one is left to the caller, who copies it, if nothing waits or there is a layer:
    /// then this returns false.
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
        report_unsent(self.0.drain(..).map(|(_, completion)| completion));
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
    let offered: usize = slices.iter().map(|slice| slice.len()).sum();
    match transport.write(slices) {
        Ok(written) => written.min(offered),
        Err(error) => {
            handle_error(queued, error);
            0
        }
    }
}

/// Handles the error of a write: see [`SendBuffer::handle_error`].
#[cold]
fn handle_error(queued: &mut Option<Box<Queued>>, error: io::Error) {
    queued.get_or_insert_default().output.handle_error(error);
}

/// Called when `written` of `len` bytes were written: calls the completions of messages within those, and queues the
/// others.
fn call_completions(
    queued: &mut Option<Box<Queued>>,
    mut completions: Completions,
    written: usize,
    len: usize,
) {
    let completions = std::mem::take(&mut completions.0).into_iter();
    call_all(completions.filter_map(|(end, completion)| match queued.as_deref_mut() {
        Some(queued) if end > written => {
            queued.output.push_completion(len - end, completion);
            None
        }
        _ => Some((completion, Ok(()))),
    }));
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

/// Keeps a payload without the first `written` bytes. A reference keeps all of it in memory, so it is used only if more
/// is left than was written; a smaller rest is copied.
#[cold]
fn keep_payload(queued: &mut Option<Box<Queued>>, payload: &Bytes, written: usize) {
    let send_buffer: &mut SendBuffer = &mut queued.get_or_insert_default().output;
    let left = payload.len() - written;
    if left >= LARGE_PAYLOAD && left > written {
        send_buffer.push_payload(payload.slice(written..));
    } else {
        send_buffer.push(&payload[written..]);
    }
}
