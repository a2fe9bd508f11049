//! Text messages, compared with `core::str::from_utf8`.
//!
//! Asserts, however the text is fragmented, divided into reads and received:
//!
//! - Valid UTF-8 is reported unchanged.
//! - Invalid text fails the connection as soon as its first invalid byte arrives. The failure has the index of that
//!   byte, and no text from there on is reported.
#![no_main]

use anyloop_fuzz::arrival::Cuts;
use anyloop_fuzz::config;
use anyloop_fuzz::subject::{Reading, Seen, Subject};
use anyloop_proto::{Cause, Kind, Role};
use anyloop_testkit::frames::{Frame, KEY};
use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;

/// The first bytes of a case. The rest is the text.
#[derive(Arbitrary, Debug)]
struct Options {
    server: bool,
    streaming: bool,
    reading: Reading,
    /// The sizes of the frames' payloads. `None`: one frame.
    fragments: Option<Cuts>,
    /// The sizes of the reads. `None`: one read.
    cuts: Option<Cuts>,
    /// The number of ASCII bytes before the text, modulo 6000: they reach the fast path of the check.
    before: u16,
}

fuzz_target!(|data: &[u8]| {
    let mut data = Unstructured::new(data);
    let Ok(options) = data.arbitrary::<Options>() else { return };
    let mut text = vec![b'x'; usize::from(options.before % 6_000)];
    text.extend_from_slice(data.take_rest());

    let config = config(|config| config.streaming = options.streaming);
    let role = if options.server { Role::Server } else { Role::Client };
    let mut subject = Subject::new(role, config, options.reading, false);
    let (bytes, arrived) = message(&text, &options);
    let pieces = options.cuts.map_or_else(|| vec![&bytes[..]], |cuts| cuts.pieces(&bytes));
    let (mut fed, mut failed_at) = (0, None);
    for piece in pieces {
        let before = arrived[fed];
        fed += piece.len();
        subject.feed(piece);
        if subject.failure.is_some() && failed_at.is_none() {
            failed_at = Some((before, arrived[fed]));
        }
    }

    let (joined, rest) = subject.joined();
    match offending(&text) {
        None => {
            assert_eq!(subject.failure, None);
            assert_eq!(joined, [Seen::Message(Kind::Text, text)]);
        }
        Some(at) => {
            let cause = subject.failure.map(|failure| failure.cause());
            assert_eq!(cause, Some(Cause::InvalidUtf8 { at: at as u64 }));
            assert_eq!(joined, []);
            assert!(
                text[..at].starts_with(&rest),
                "{} bytes were reported, {at} are valid",
                rest.len()
            );
            let (before, with) = failed_at.expect("the failure was recorded");
            if at < text.len() {
                assert!(before <= at && at < with, "byte {at} failed between {before} and {with}");
            }
            assert_eq!(subject.sent.len(), 1);
            assert!(subject.sent[0].payload.starts_with(&1007u16.to_be_bytes()));
        }
    }
});

/// The index of the first byte with which no valid text can continue. The length, if the text only ends within a
/// code point. `None` if it is valid.
fn offending(text: &[u8]) -> Option<usize> {
    let valid = core::str::from_utf8(text).err()?.valid_up_to();
    let wrong = (valid..text.len()).find(|&at| {
        core::str::from_utf8(&text[valid..=at]).is_err_and(|error| error.error_len().is_some())
    });
    Some(wrong.unwrap_or(text.len()))
}

/// The bytes of the message's frames, and for each number of these bytes, how many bytes of text are among them.
fn message(text: &[u8], options: &Options) -> (Vec<u8>, Vec<usize>) {
    let mut fragments = options.fragments.map_or_else(|| vec![text], |cuts| cuts.pieces(text));
    if fragments.is_empty() {
        fragments.push(&[]);
    }
    let (mut bytes, mut arrived) = (Vec::new(), vec![0]);
    for (i, payload) in fragments.iter().enumerate() {
        let (opcode, fin) = (u8::from(i == 0), i == fragments.len() - 1);
        let frame = Frame { fin, rsv: 0, opcode, payload: payload.to_vec() }
            .masked_bytes(options.server.then_some(KEY));
        let before = arrived[bytes.len()];
        arrived.extend(std::iter::repeat_n(before, frame.len() - payload.len()));
        arrived.extend(before + 1..=before + payload.len());
        bytes.extend(frame);
    }
    (bytes, arrived)
}
