//! Decompressing received messages.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem;

use zlib_rs::{Inflate, InflateError, InflateFlush, Status};

use super::history::History;
use super::{FLUSH_MARKER, MAX_WINDOW_BITS};
use crate::error::ExtensionError;
use crate::extension::{Contexts, Decoder, Part};
use crate::frame::Rsv;

/// A message that arrives in parts waits compressed up to this many bytes. A peer that sends slowly thus occupies no
/// decompressor.
const GATHER_LIMIT: usize = 64 * 1024;

/// An empty final block: one that ends the stream (BFINAL in RFC 1951 §3.2.3). It is valid only after a message that
/// did not end inside a block.
const FINAL_BLOCK: [u8; 5] = [1, 0, 0, 0xff, 0xff];

/// After each final block zlib starts anew, which costs about as much as this many bytes of input.
const FINAL_BLOCK_COST: u64 = 1024;

/// The number of final blocks that is allowed in a message of any size.
const MIN_FINAL_BLOCKS: u64 = 16;

/// The least and the most memory, in bytes, that zlib is given at once. With at most 4 KiB it is 5 % slower.
const MIN_ROOM: usize = 256;
const MAX_ROOM: usize = 64 * 1024;

/// The size of zlib's state, which has a window of 32 KiB.
const CONTEXT_SIZE: usize = 48 * 1024;

/// The decoder of one connection.
pub(super) struct Decompressor {
    /// The bytes that messages may refer to. Empty without context takeover.
    history: History,
    /// The message of which some parts have arrived.
    partial: Option<Box<CompressedMessage>>,
}

/// A message that is being received. The thread lends its memory.
#[derive(Default)]
struct CompressedMessage {
    /// Compressed bytes that wait for the end of the message.
    gathered: Vec<u8>,
    /// The context, once more than [`GATHER_LIMIT`] has arrived.
    context: Option<Box<Context>>,
    /// The number of compressed bytes that were decompressed.
    size: u64,
    /// The number of final blocks so far.
    final_blocks: u64,
}

/// The state of zlib for one stream.
struct Context {
    inflate: Inflate,
}

impl Decompressor {
    /// A decoder of messages that refer to the last `window` bytes before them.
    pub(super) const fn new(window: usize) -> Self {
        Self { history: History::new(window), partial: None }
    }
}

impl Decoder for Decompressor {
    fn claims(&self) -> Rsv {
        Rsv::RSV1
    }

    fn decode(
        &mut self,
        part: Part<'_>,
        limit: usize,
        out: &mut Vec<u8>,
        contexts: &mut Contexts,
    ) -> Result<(), ExtensionError> {
        let Self { history, partial } = self;
        if part.first && part.last {
            let mut message = CompressedMessage::default();
            return message.inflate(part.payload, part.last, history, limit, out, contexts);
        }
        let take = || contexts.take(|_: &CompressedMessage| true).unwrap_or_default();
        let mut message = partial.take().unwrap_or_else(take);
        if !part.last && message.gather(part.payload) {
            *partial = Some(message);
            return Ok(());
        }
        let mut gathered = mem::take(&mut message.gathered);
        let last = false; // `part` follows
        message.inflate(&gathered, last, history, limit, out, contexts)?;
        message.inflate(part.payload, part.last, history, limit, out, contexts)?;
        gathered.clear();
        if part.last {
            *message = CompressedMessage { gathered, ..CompressedMessage::default() };
            let size = message.gathered.capacity();
            contexts.put(message, size);
        } else {
            *partial = Some(message);
        }
        Ok(())
    }
}

impl CompressedMessage {
    /// Keeps a part for later, if it and the parts before it are not too large. Returns whether it was kept.
    fn gather(&mut self, part: &[u8]) -> bool {
        let gathers = self.context.is_none() && self.gathered.len() + part.len() <= GATHER_LIMIT;
        if gathers {
            self.gathered.extend_from_slice(part);
        }
        gathers
    }

    /// Decompresses the next part.
    fn inflate(
        &mut self,
        mut input: &[u8],
        last: bool,
        history: &mut History,
        limit: usize,
        out: &mut Vec<u8>,
        contexts: &mut Contexts,
    ) -> Result<(), ExtensionError> {
        let mut context = match self.context.take() {
            Some(context) => context,
            None => Context::take(contexts, history.bytes())?,
        };
        while !input.is_empty() {
            let (start, before) = (out.len(), input.len());
            let stream_ended = context.inflate(&mut input, limit, out)?;
            history.append(&out[start..]);
            self.size += (before - input.len()) as u64;
            if stream_ended {
                self.count_final_block()?;
                context.restart(history.bytes())?;
            }
        }
        if !last {
            self.context = Some(context);
            return Ok(());
        }
        // Some peers end a message with a final block, or send an empty message as an empty payload. Then there is
        // nothing to finish.
        if !context.is_fresh() {
            let start = out.len();
            context.finish(limit, out)?;
            history.append(&out[start..]);
        }
        contexts.put(context, CONTEXT_SIZE);
        Ok(())
    }

    /// Counts a final block. Fails if the message has too many for its size.
    fn count_final_block(&mut self) -> Result<(), ExtensionError> {
        self.final_blocks += 1;
        match self.final_blocks <= MIN_FINAL_BLOCKS + self.size / FINAL_BLOCK_COST {
            true => Ok(()),
            false => Err(ExtensionError::Corrupt),
        }
    }
}

impl Context {
    /// Takes a context, at the beginning of a stream that may refer to `dictionary`, or creates one.
    fn take(contexts: &mut Contexts, dictionary: &[u8]) -> Result<Box<Self>, ExtensionError> {
        let mut context = contexts
            .take(|_: &Self| true)
            .unwrap_or_else(|| Box::new(Self { inflate: Inflate::new(false, MAX_WINDOW_BITS) }));
        context.restart(dictionary)?;
        Ok(context)
    }

    fn restart(&mut self, dictionary: &[u8]) -> Result<(), ExtensionError> {
        self.inflate.reset(false);
        if !dictionary.is_empty() {
            self.inflate.set_dictionary(dictionary).map_err(|_| ExtensionError::Internal)?;
        }
        Ok(())
    }

    /// Whether nothing was read since the stream has begun.
    fn is_fresh(&self) -> bool {
        self.inflate.total_in() == 0
    }

    /// Decompresses the marker that the sender has removed (RFC 7692 §7.2.2), and checks that no block is unfinished.
    /// The marker alone does not show this: an unfinished stored block takes it as data.
    fn finish(&mut self, limit: usize, out: &mut Vec<u8>) -> Result<(), ExtensionError> {
        let mut end = &FLUSH_MARKER[..];
        let mut ended = self.inflate(&mut end, limit, out)?;
        if !ended {
            let size = out.len();
            end = &FINAL_BLOCK;
            ended = self.inflate(&mut end, limit, out) == Ok(true) && out.len() == size;
        }
        match ended && end.is_empty() {
            true => Ok(()),
            false => Err(ExtensionError::Corrupt),
        }
    }

    /// Decompresses `input`, up to its end or the end of the stream. Returns whether the stream has ended.
    fn inflate(
        &mut self,
        input: &mut &[u8],
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, ExtensionError> {
        loop {
            let end = out.len();
            let room = (input.len() * 8).clamp(MIN_ROOM, MAX_ROOM);
            // One byte more than is allowed shows that the message is too big.
            let room = room.min(limit.saturating_sub(end).saturating_add(1));
            out.resize(end + room, 0);
            let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
            let result = self.inflate.decompress(input, &mut out[end..], InflateFlush::NoFlush);
            let read = (self.inflate.total_in() - read) as usize;
            let written = (self.inflate.total_out() - written) as usize;
            out.truncate((end + written).min(limit.max(end)));
            *input = &input[read..];
            if end + written > limit {
                return Err(ExtensionError::TooBig);
            }
            match result {
                Ok(Status::StreamEnd) => return Ok(true),
                Ok(_) if written == room => {}
                Ok(_) if input.is_empty() => return Ok(false),
                Ok(_) if read > 0 || written > 0 => {}
                Ok(_) | Err(InflateError::DataError | InflateError::NeedDict { .. }) => {
                    return Err(ExtensionError::Corrupt);
                }
                Err(InflateError::StreamError | InflateError::MemError) => {
                    return Err(ExtensionError::Internal);
                }
            }
        }
    }
}
