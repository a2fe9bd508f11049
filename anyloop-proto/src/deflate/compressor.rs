//! Compressing sent messages.

use alloc::boxed::Box;
use alloc::vec::Vec;

use zlib_rs::{DeflateConfig, DeflateFlush};

use super::FLUSH_MARKER;
use super::history::History;
use crate::extension::{Contexts, Encoder, ShareKey};
use crate::frame::Rsv;
use crate::kind::Kind;

/// The size of zlib's hash tables, 1 to 9. More gains nothing in a window of 4 KiB.
const MEMORY_LEVEL: i32 = 5;

/// zlib refers back this many bytes less than its window holds (`MIN_LOOKAHEAD` in zlib).
const WINDOW_MARGIN: usize = 262;

/// The parameters of a compressor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) level: u8,
    pub(super) window_bits: u8,
    pub(super) threshold: usize,
}

/// The encoder of one connection.
pub(super) struct Compressor {
    settings: Settings,
    state: State,
}

enum State {
    /// Nothing is compressed.
    Never,
    /// Each call borrows a context, whose dictionary is the history.
    Pooled {
        history: History,
        /// Whether messages may refer to earlier ones (RFC 7692 §7.1.1: context takeover).
        takeover: bool,
    },
    /// The connection owns its context, created for the first message.
    Dedicated { context: Option<Box<Context>>, takeover: bool },
}

/// The state of zlib for one stream.
struct Context {
    deflate: zlib_rs::Deflate,
    level: u8,
    window_bits: u8,
}

impl Compressor {
    pub(super) const fn never() -> Self {
        let settings = Settings { level: 1, window_bits: 9, threshold: usize::MAX };
        Self { settings, state: State::Never }
    }

    /// A compressor that refers to at most `history` bytes of earlier messages.
    pub(super) fn pooled(settings: Settings, history: usize) -> Self {
        let reach = settings.reach();
        let takeover = history > 0;
        // Without takeover the history is used within a message that is sent in pieces.
        let max_len = if takeover { history.min(reach) } else { reach };
        Self { settings, state: State::Pooled { history: History::new(max_len), takeover } }
    }

    pub(super) const fn dedicated(settings: Settings, takeover: bool) -> Self {
        Self { settings, state: State::Dedicated { context: None, takeover } }
    }
}

impl Encoder for Compressor {
    fn threshold(&self) -> usize {
        self.settings.threshold
    }

    fn begin(&mut self, _: Kind, _: Option<usize>) -> Option<Rsv> {
        match self.state {
            State::Never => None,
            _ => Some(Rsv::RSV1),
        }
    }

    fn encode(&mut self, payload: &[u8], last: bool, out: &mut Vec<u8>, contexts: &mut Contexts) {
        match &mut self.state {
            State::Never => {}
            State::Pooled { history, takeover } => {
                let mut context = self.settings.take_context(contexts);
                context.set_dictionary(history.bytes());
                context.compress(payload, last, out);
                self.settings.put_context(context, contexts);
                match (last, takeover) {
                    (true, false) => history.clear(),
                    _ => history.append(payload),
                }
            }
            State::Dedicated { context, takeover } => {
                let context =
                    context.get_or_insert_with(|| Box::new(self.settings.create_context()));
                context.compress(payload, last, out);
                if last && !*takeover {
                    context.deflate.reset();
                }
            }
        }
    }

    fn share_key(&self) -> Option<ShareKey> {
        match self.state {
            State::Pooled { .. } => {
                let Settings { level, window_bits, .. } = self.settings;
                Some(ShareKey::new::<Self>(u64::from(level) << 8 | u64::from(window_bits)))
            }
            // A dedicated compressor cannot add to its window a message that it has not compressed.
            State::Never | State::Dedicated { .. } => None,
        }
    }

    fn encode_shared(&self, payload: &[u8], out: &mut Vec<u8>, contexts: &mut Contexts) {
        let mut context = self.settings.take_context(contexts);
        let last = true;
        context.compress(payload, last, out);
        self.settings.put_context(context, contexts);
    }

    fn shared_sent(&mut self, payload: &[u8]) {
        if let State::Pooled { history, takeover: true } = &mut self.state {
            history.append(payload);
        }
    }
}

impl Settings {
    /// How far back a compressor refers, in bytes.
    const fn reach(self) -> usize {
        (1 << self.window_bits) - WINDOW_MARGIN
    }

    fn create_context(self) -> Context {
        let config = DeflateConfig {
            level: self.level.into(),
            window_bits: -i32::from(self.window_bits), // negative: without zlib's header
            mem_level: MEMORY_LEVEL,
            ..DeflateConfig::default()
        };
        let deflate = zlib_rs::Deflate::new_with_config(config);
        Context { deflate, level: self.level, window_bits: self.window_bits }
    }

    /// Takes a context of these settings, reset to the beginning of a stream, or creates one.
    fn take_context(self, contexts: &mut Contexts) -> Box<Context> {
        let fits = |context: &Context| {
            (context.level, context.window_bits) == (self.level, self.window_bits)
        };
        match contexts.take(fits) {
            Some(mut context) => {
                context.deflate.reset();
                context
            }
            None => Box::new(self.create_context()),
        }
    }

    /// Puts a context back. zlib-rs allocates four times the window, 128 KiB for the hash heads, and its buffers.
    fn put_context(self, context: Box<Context>, contexts: &mut Contexts) {
        contexts.put(context, (128 << 10) + (1 << (self.window_bits + 3)));
    }
}

impl Context {
    /// Sets the bytes that the following message may refer to. Call it at the beginning of a stream.
    fn set_dictionary(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let set = self.deflate.set_dictionary(bytes);
            debug_assert!(set.is_ok(), "a dictionary was set after the beginning of a stream");
        }
    }

    /// Appends the compressed payload, which ends at a byte boundary. After the last part of a message the marker is
    /// left out (RFC 7692 §7.2.1).
    fn compress(&mut self, mut payload: &[u8], last: bool, out: &mut Vec<u8>) {
        let start = out.len();
        let mut room = payload.len() / 4 + 64;
        loop {
            let (end, read, written) =
                (out.len(), self.deflate.total_in(), self.deflate.total_out());
            out.resize(end + room, 0);
            let result = self.deflate.compress(payload, &mut out[end..], DeflateFlush::SyncFlush);
            debug_assert!(result.is_ok(), "zlib's state is inconsistent");
            let written = (self.deflate.total_out() - written) as usize;
            out.truncate(end + written);
            payload = &payload[(self.deflate.total_in() - read) as usize..];
            // If the output fills the room exactly, zlib may have more of it.
            if result.is_err() || (written < room && payload.is_empty()) {
                break;
            }
            room = (2 * room).min(64 * 1024).max(payload.len() / 2);
        }
        if last {
            match out[start..].strip_suffix(&FLUSH_MARKER) {
                Some(rest) => out.truncate(start + rest.len()),
                // zlib does not flush twice in a row. A zero begins the empty block (RFC 7692 §7.2.3.6).
                None => out.push(0),
            }
        }
    }
}
