//! An open connection that receives arbitrary bytes.
//!
//! Asserts, for both roles, with and without an extension:
//!
//! - No panic.
//! - Events, failure and answers do not depend on how the bytes are divided into reads, on the memory that they are
//!   received into, or on whether messages are reported whole or streamed.
//! - At most one failure, and no event after it or after the peer's Close.
//! - No memory is lent in proportion to a length that was only announced.
//! - The output is well-formed.
#![no_main]

use anyloop_fuzz::arrival::Cuts;
use anyloop_fuzz::config;
use anyloop_fuzz::subject::{Reading, Subject};
use anyloop_proto::{Cause, Failure, Role};
use anyloop_testkit::frames::{Frame, KEY};
use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;

/// The first bytes of a case. The rest is the input: see `Form`.
#[derive(Arbitrary, Debug)]
struct Options {
    server: bool,
    extension: bool,
    auto_pong: bool,
    reading: Reading,
    limit: Limit,
    form: Form,
    cuts: Cuts,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Limit {
    Default,
    Small(u8),
    Middle,
}

/// How the rest of the case is interpreted.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Form {
    /// The bytes are the input.
    Bytes,
    /// The bytes choose frames, most of which are valid.
    Frames,
}

fuzz_target!(|data: &[u8]| {
    let mut data = Unstructured::new(data);
    let Ok(options) = data.arbitrary::<Options>() else { return };
    let bytes = match options.form {
        Form::Bytes => data.take_rest().to_vec(),
        Form::Frames => frames(&mut data, options.server).unwrap_or_default(),
    };
    let reference = run(&options, false, Reading::Plain, &[&bytes]);
    let pieces = options.cuts.pieces(&bytes);
    compare(&options, &reference, &run(&options, false, options.reading, &[&bytes]));
    compare(&options, &reference, &run(&options, false, options.reading, &pieces));
    let streamed = run(&options, true, options.reading, &[&bytes]);
    compare(&options, &reference, &streamed);
    let cut = run(&options, true, options.reading, &pieces);
    compare(&options, &reference, &cut);
    let (streamed, cut) = (streamed.joined().1, cut.joined().1);
    assert!(streamed.starts_with(&cut) || cut.starts_with(&streamed), "{streamed:x?} {cut:x?}");
});

fn run(options: &Options, streaming: bool, reading: Reading, pieces: &[&[u8]]) -> Subject {
    let role = if options.server { Role::Server } else { Role::Client };
    let config = config(|config| {
        config.streaming = streaming;
        config.auto_pong = options.auto_pong;
        match options.limit {
            Limit::Default => {}
            Limit::Small(limit) => config.max_message_size = limit.into(),
            Limit::Middle => config.max_message_size = 10_000,
        }
    });
    let mut subject = Subject::new(role, config, reading, options.extension);
    for piece in pieces {
        subject.feed(piece);
    }
    subject.eof();
    if let Some(at) = subject.sent.iter().position(|frame| frame.opcode == 0x8) {
        assert_eq!(at + 1, subject.sent.len(), "a frame was sent after our Close");
    }
    subject
}

fn compare(options: &Options, one: &Subject, other: &Subject) {
    assert_eq!(one.joined().0, other.joined().0);
    assert_eq!(answer(options, one.failure), answer(options, other.failure));
    assert_eq!(one.state(), other.state());
    if one.failure == other.failure {
        assert_eq!(one.sent, other.sent);
    }
}

/// The failure in comparable form. If encoded text has two errors, the one that is found first depends on
/// the division into reads, since a part is decoded before its UTF-8 is checked. So these two causes are
/// treated as equal.
fn answer(options: &Options, failure: Option<Failure>) -> Option<Result<Failure, u64>> {
    let failure = failure?;
    Some(match failure.cause() {
        Cause::Extension(_) | Cause::InvalidUtf8 { .. } if options.extension => {
            Err(failure.messages_before())
        }
        _ => Ok(failure),
    })
}

/// Frames as the peer sends them, mostly valid.
fn frames(data: &mut Unstructured<'_>, masked: bool) -> arbitrary::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut in_message = false;
    while !data.is_empty() && bytes.len() < 60_000 {
        let what: u8 = data.arbitrary()?;
        let fin = what & 0x80 == 0;
        let (fin, opcode) = match what & 0xf {
            0..6 if in_message => (fin, 0x0),
            0..3 => (fin, 0x1),
            3..6 => (fin, 0x2),
            6 | 7 => (true, 0x9),
            8 => (true, 0xa),
            9 => (true, 0x8),
            _ => (fin, data.int_in_range(0..=15)?),
        };
        if opcode < 8 {
            in_message = !fin;
        }
        let rsv = if what & 0x40 == 0 { 0 } else { data.arbitrary::<u8>()? & 0x70 };
        let len = usize::from(data.arbitrary::<u8>()?).min(if opcode < 8 { 255 } else { 130 });
        let mut payload = data.bytes(len.min(data.len()))?.to_vec();
        // Some payloads are large enough to be received in place.
        if what & 0x20 != 0 && opcode < 8 {
            payload = payload.repeat(data.int_in_range(1..=100)?);
        }
        let masked = if what & 0x10 == 0 { masked } else { data.arbitrary()? };
        bytes.extend(Frame { fin, rsv, opcode, payload }.masked_bytes(masked.then_some(KEY)));
    }
    Ok(bytes)
}
