//! An open connection with permessage-deflate that receives arbitrary compressed messages (RFC 7692 §7.2.2).
//!
//! Asserts, for messages that a compressor has made, damaged or not, and for arbitrary bytes:
//!
//! - No panic.
//! - No message is larger than the limit, nor is what is lent of an unfinished one.
//! - Messages and failure do not depend on how the bytes are divided into reads, on the memory that they are received
//!   into, or on whether messages are reported whole or streamed.
//! - What is accepted is what zlib decompresses in one call. What zlib accepts is accepted, unless it is larger than
//!   the limit, refers back further than was agreed, or has too many final blocks.
#![no_main]

use anyloop_fuzz::arrival::Cuts;
use anyloop_fuzz::config;
use anyloop_fuzz::subject::{Reading, Seen, Subject};
use anyloop_proto::deflate::Deflate;
use anyloop_proto::handshake::{Negotiator, Params};
use anyloop_proto::{Cause, ExtensionError, Kind, Role};
use anyloop_testkit::frames::{Frame, stream};
use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use zlib_rs::{DeflateConfig, DeflateFlush, InflateFlush, Status, Strategy};

/// The first bytes of a case. The rest chooses messages: see [`messages`].
#[derive(Arbitrary, Debug)]
struct Options {
    /// The window of received messages; 15 is the largest, and what is smaller than 8 is without takeover.
    window_bits: u8,
    limit: u16,
    reading: Reading,
    cuts: Cuts,
}

/// The number of final blocks that is allowed in a message of any size.
const FINAL_BLOCKS: usize = 16;

const WINDOW: usize = 1 << 15;

fuzz_target!(|data: &[u8]| {
    let mut data = Unstructured::new(data);
    let Ok(mut options) = data.arbitrary::<Options>() else { return };
    options.window_bits %= 16;
    let frames = messages(&mut data, options.window_bits).unwrap_or_default();
    let bytes = stream(&frames, Role::Client);

    let whole = run(&options, false, Reading::Plain, &[&bytes]);
    let pieces = options.cuts.pieces(&bytes);
    for streaming in [false, true] {
        for pieces in [&[&bytes[..]][..], &pieces] {
            let other = run(&options, streaming, options.reading, pieces);
            assert_eq!(other.joined().0, whole.joined().0);
            assert_eq!(other.failure, whole.failure);
            assert!(other.joined().1.len() <= usize::from(options.limit));
        }
    }
    compare(&options, &frames, &whole);
});

fn run(options: &Options, streaming: bool, reading: Reading, pieces: &[&[u8]]) -> Subject {
    let config = config(|config| {
        config.streaming = streaming;
        config.max_message_size = options.limit.into();
    });
    let (deflate, offer) = match options.window_bits {
        ..8 => (Deflate::pooled(), Params::new().with("client_no_context_takeover")),
        bits => {
            let offer = Params::new().with("client_max_window_bits");
            (Deflate::pooled().receive_window_bits(bits), offer)
        }
    };
    let (_, codec) = deflate.accept(&offer).expect("the offer is valid");
    let mut subject = Subject::with_codec(Role::Server, config, reading, Some(codec));
    for piece in pieces {
        subject.feed(piece);
    }
    subject
}

/// Messages in frames, with the reserved bit on the first one.
fn messages(data: &mut Unstructured<'_>, window_bits: u8) -> arbitrary::Result<Vec<Frame>> {
    let mut compressor = Compressor::new(data, window_bits)?;
    let mut frames = Vec::new();
    let mut total = 0;
    while !data.is_empty() && total < 100_000 {
        let what: u8 = data.arbitrary()?;
        let len = usize::from(data.arbitrary::<u8>()?);
        let mut payload = data.bytes(len.min(data.len()))?.to_vec();
        if what & 1 != 0 {
            let times = if what & 2 != 0 { data.int_in_range(1..=300)? } else { 1 };
            payload = compressor.message(&payload.repeat(times), what & 4 != 0);
            if what & 8 != 0 && !payload.is_empty() {
                let at = data.choose_index(payload.len())?;
                payload[at] ^= data.arbitrary::<u8>()?;
            }
            if what & 16 != 0 {
                payload.truncate(payload.len().saturating_sub(data.arbitrary::<u8>()?.into()));
            }
        }
        total += payload.len();
        let (first, second) = match what & 32 {
            0 => (payload, None),
            _ => {
                let at = data.int_in_range(0..=payload.len())?;
                (payload[..at].to_vec(), Some(payload[at..].to_vec()))
            }
        };
        frames.push(Frame { fin: second.is_none(), rsv: 0x40, opcode: 2, payload: first });
        frames.extend(second.map(|payload| Frame { fin: true, rsv: 0, opcode: 0, payload }));
    }
    Ok(frames)
}

/// A peer's compressor, of any level and strategy.
struct Compressor {
    deflate: zlib_rs::Deflate,
    takeover: bool,
}

impl Compressor {
    fn new(data: &mut Unstructured<'_>, window_bits: u8) -> arbitrary::Result<Self> {
        let strategies = [Strategy::Default, Strategy::Fixed, Strategy::HuffmanOnly, Strategy::Rle];
        let config = DeflateConfig {
            level: data.int_in_range(0..=9)?,
            window_bits: -i32::from(window_bits.max(9)),
            mem_level: data.int_in_range(1..=9)?,
            strategy: *data.choose(&strategies)?,
            ..DeflateConfig::default()
        };
        let deflate = zlib_rs::Deflate::new_with_config(config);
        Ok(Self { deflate, takeover: window_bits > 8 && data.arbitrary()? })
    }

    /// Ends with a final block if `last`, and without one otherwise.
    fn message(&mut self, payload: &[u8], last: bool) -> Vec<u8> {
        let mut out = vec![0; payload.len() + payload.len() / 8 + 1000];
        let flush = if last { DeflateFlush::Finish } else { DeflateFlush::SyncFlush };
        let before = self.deflate.total_out();
        let result = self.deflate.compress(payload, &mut out, flush);
        result.expect("there is room");
        out.truncate((self.deflate.total_out() - before) as usize);
        match out.strip_suffix(&[0, 0, 0xff, 0xff]) {
            Some(rest) if !last => out.truncate(rest.len()),
            _ => out.push(0),
        }
        if last || !self.takeover {
            self.deflate.reset();
        }
        out
    }
}

/// Compares with what zlib makes of each message.
fn compare(options: &Options, frames: &[Frame], subject: &Subject) {
    let mut messages: Vec<Vec<u8>> = Vec::new();
    for frame in frames {
        match messages.last_mut() {
            Some(message) if frame.opcode == 0 => message.extend_from_slice(&frame.payload),
            _ => messages.push(frame.payload.clone()),
        }
    }
    let limit = usize::from(options.limit);
    let mut seen = subject.seen.iter();
    let mut history = Vec::new();
    for message in messages {
        let takeover = options.window_bits >= 8;
        let reference = Reference::inflate(&message, limit, takeover.then_some(&history));
        match seen.next() {
            Some(Seen::Message(Kind::Binary, payload)) => {
                assert!(payload.len() <= limit);
                assert_eq!(reference.result.as_ref(), Ok(payload), "{message:x?}");
                history.extend_from_slice(payload);
                history.drain(..history.len().saturating_sub(WINDOW));
            }
            None => {
                let cause = subject.failure.expect("the message is not lost").cause();
                match (cause, reference.result) {
                    (Cause::MessageTooBig { .. }, _) => assert!(message.len() > limit),
                    (cause, Err(error)) => assert!(
                        cause == Cause::Extension(error)
                            || !takeover_is_full(options)
                            || reference.final_blocks > FINAL_BLOCKS,
                        "{cause:?}, not {error:?}"
                    ),
                    (cause, Ok(_)) => {
                        assert_eq!(cause, Cause::Extension(ExtensionError::Corrupt));
                        assert!(
                            reference.final_blocks > FINAL_BLOCKS || !takeover_is_full(options)
                        );
                    }
                }
                return;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(subject.failure.is_none() && seen.next().is_none());
}

/// Whether zlib and the subject know the same earlier bytes.
fn takeover_is_full(options: &Options) -> bool {
    matches!(options.window_bits, ..8 | 15)
}

/// What zlib makes of a message.
struct Reference {
    result: Result<Vec<u8>, ExtensionError>,
    final_blocks: usize,
}

impl Reference {
    /// Without takeover there is no history, and none of the message either behind a final block.
    fn inflate(message: &[u8], limit: usize, history: Option<&Vec<u8>>) -> Self {
        // RFC 7692 §7.2.2: the end that the sender has removed.
        let bytes = [message, &[0, 0, 0xff, 0xff]].concat();
        let (mut read, mut out, mut final_blocks) = (0, Vec::new(), 0);
        let result = loop {
            if message.is_empty() {
                break Ok(out); // some peers send an empty message so
            }
            let stream = &bytes[read..];
            let known = history.map_or_else(Vec::new, |history| [&history[..], &out].concat());
            let mut inflate = Stream::new(&known);
            let status = inflate.feed(stream, limit + 1 - out.len());
            read += inflate.inflate.total_in() as usize;
            out.extend_from_slice(&inflate.out);
            if out.len() > limit {
                break Err(ExtensionError::TooBig);
            }
            match status {
                Some(Status::StreamEnd) if read < message.len() => final_blocks += 1,
                Some(Status::StreamEnd) if read == message.len() || read == bytes.len() => {
                    break Ok(out);
                }
                // A final block follows only a block that is complete.
                Some(Status::Ok | Status::BufError) if read == bytes.len() => {
                    let complete = [&[3, 0][..], &[1, 0, 0, 0xff, 0xff]].iter().all(|end| {
                        let mut inflate = Stream::new(&known);
                        inflate.feed(stream, limit + 1);
                        let size = inflate.out.len();
                        inflate.feed(end, 10) == Some(Status::StreamEnd)
                            && inflate.out.len() == size
                            && inflate.inflate.total_in() as usize == stream.len() + end.len()
                    });
                    break if complete { Ok(out) } else { Err(ExtensionError::Corrupt) };
                }
                _ => break Err(ExtensionError::Corrupt),
            }
        };
        Self { result, final_blocks }
    }
}

/// A stream, up to its final block.
struct Stream {
    inflate: zlib_rs::Inflate,
    out: Vec<u8>,
}

impl Stream {
    fn new(known: &[u8]) -> Self {
        let mut inflate = zlib_rs::Inflate::new(false, 15);
        if !known.is_empty() {
            inflate.set_dictionary(known).expect("it is raw");
        }
        Self { inflate, out: Vec::new() }
    }

    /// Decompresses up to `room` bytes, in one call.
    fn feed(&mut self, bytes: &[u8], room: usize) -> Option<Status> {
        let size = self.out.len();
        self.out.resize(size + room, 0);
        let result = self.inflate.decompress(bytes, &mut self.out[size..], InflateFlush::NoFlush);
        self.out.truncate(self.inflate.total_out() as usize);
        result.ok()
    }
}
