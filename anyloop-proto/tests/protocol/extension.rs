//! Extensions (RFC 6455 §9), tested with a run-length code: a run of equal bytes is sent as its length
//! and the byte.

use std::sync::{Arc, Mutex};

use anyloop_proto::extension::{Contexts, Decoder, Encoder, Part};
use anyloop_proto::frame::Rsv;
use anyloop_proto::{
    Cause, Config, Connection, ExtensionError, Instant, Kind, Party, Prepared, Role, State,
};

use crate::pair::{Cut, Pair};
use crate::subject::{Reading, Seen, Subject, config};

use anyloop_testkit::frames::{
    Frame, binary, close, continuation, declare, other, ping, pong, stream, text,
};
use proptest::collection::vec;
use proptest::prelude::*;

const ROLES: [Role; 2] = [Role::Client, Role::Server];
const RSV1: u8 = 0x40;

/// The parts that were passed to the decoder: size, first, last.
type Parts = Arc<Mutex<Vec<(usize, bool, bool)>>>;

#[derive(Default)]
struct RunLengths {
    /// A run length whose byte has not arrived yet.
    count: Option<u8>,
    parts: Parts,
}

impl Decoder for RunLengths {
    fn claims(&self) -> Rsv {
        Rsv::RSV1
    }

    fn decode(
        &mut self,
        part: Part<'_>,
        limit: usize,
        message: &mut Vec<u8>,
        _: &mut Contexts,
    ) -> Result<(), ExtensionError> {
        self.parts.lock().unwrap().push((part.payload.len(), part.first, part.last));
        if part.first && self.count.is_some() {
            return Err(ExtensionError::Internal);
        }
        for &byte in part.payload {
            match self.count.take() {
                None => self.count = Some(byte),
                Some(0) if byte == b'p' => return Err(ExtensionError::Protocol),
                Some(0) if byte == b'i' => return Err(ExtensionError::Internal),
                Some(0) if byte == b'!' => message.resize(message.len() + limit + 1, b'!'),
                Some(0) => return Err(ExtensionError::Corrupt),
                Some(count) if message.len() + usize::from(count) > limit => {
                    return Err(ExtensionError::TooBig);
                }
                Some(count) => message.resize(message.len() + usize::from(count), byte),
            }
        }
        if part.last && self.count.is_some() {
            return Err(ExtensionError::Corrupt);
        }
        Ok(())
    }
}

impl Encoder for RunLengths {
    /// Messages that are known to be short are not encoded.
    fn begin(&mut self, _: Kind, len: Option<usize>) -> Option<Rsv> {
        len.is_none_or(|len| len >= 4).then_some(Rsv::RSV1)
    }

    fn encode(&mut self, payload: &[u8], _: bool, out: &mut Vec<u8>, _: &mut Contexts) {
        out.extend(runs(payload));
    }
}

fn runs(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for run in payload.chunk_by(|a, b| a == b) {
        for part in run.chunks(255) {
            out.extend([part.len() as u8, part[0]]);
        }
    }
    out
}

fn extended(role: Role, change: impl FnOnce(&mut Config)) -> (Subject, Parts) {
    let now = Instant::from_nanos(1_000_000_000);
    let parts = Parts::default();
    let decoder = RunLengths { count: None, parts: parts.clone() };
    let connection = Connection::new(role, config(change), now)
        .with_extension(Box::new(decoder), Box::new(RunLengths::default()));
    (Subject::over(connection, now), parts)
}

fn subject(role: Role) -> Subject {
    extended(role, |_| ()).0
}

fn streaming(role: Role, limit: u64) -> Subject {
    extended(role, |config| (config.streaming, config.max_message_size) = (true, limit)).0
}

/// A message with this encoded payload, in fragments that end at `cuts`.
fn encoded(opcode: u8, payload: &[u8], cuts: &[usize]) -> Vec<Frame> {
    let encoded = runs(payload);
    let mut frames = Vec::new();
    let mut at = 0;
    for cut in cuts.iter().copied().chain([encoded.len()]) {
        frames.push(continuation(&encoded[at..cut]).more());
        at = cut;
    }
    frames[0] = Frame { opcode, ..frames[0].clone() }.rsv(RSV1);
    frames.last_mut().unwrap().fin = true;
    frames
}

/// The payload of all chunks.
fn payload_of_chunks(events: &[Seen]) -> Vec<u8> {
    let chunks = events.iter().filter_map(|seen| match seen {
        Seen::Chunk { payload, .. } => Some(&payload[..]),
        _ => None,
    });
    chunks.collect::<Vec<_>>().concat()
}

#[test]
fn messages_are_decoded_at_any_fragmentation_and_chunking() {
    let payload = "aaaaaaaaaabbbéééé💚".as_bytes();
    let end = runs(payload).len();
    for role in ROLES {
        for cuts in
            [vec![], vec![0], vec![1], vec![2], vec![0, 0, 5, 7], vec![end], (1..end).collect()]
        {
            let bytes = stream(&encoded(0x1, payload, &cuts), other(role));
            for chunk in [1, 3, usize::MAX] {
                let mut subject = subject(role);
                bytes.chunks(chunk).for_each(|chunk| subject.feed(chunk));
                assert_eq!(subject.failures, [], "{cuts:?}");
                assert_eq!(subject.seen(), [Seen::text(std::str::from_utf8(payload).unwrap())]);

                let mut subject = streaming(role, 1000);
                bytes.chunks(chunk).for_each(|chunk| subject.feed(chunk));
                assert_eq!(payload_of_chunks(&subject.events), payload, "{cuts:?}");
                assert!(matches!(subject.events.last(), Some(Seen::Chunk { last: true, .. })));
                let firsts = subject.events.iter();
                let firsts = firsts.filter(|seen| matches!(seen, Seen::Chunk { first: true, .. }));
                assert_eq!(firsts.count(), 1);
            }
        }
    }
}

#[test]
fn messages_without_the_reserved_bit_are_not_decoded() {
    let (mut server, parts) = extended(Role::Server, |_| ());
    server.receive(&[text("plain"), binary("al").more(), ping("p"), continuation("so")]);
    assert_eq!(server.seen(), [Seen::text("plain"), Seen::ping("p"), Seen::binary("also")]);
    assert!(parts.lock().unwrap().is_empty());
}

/// A decoder may initialize itself at the first part, so exactly one part is marked as first.
#[test]
fn the_first_and_the_last_part_of_a_message_are_marked_once() {
    for streaming in [false, true] {
        let (mut server, parts) = extended(Role::Server, |config| config.streaming = streaming);
        server.receive(&encoded(0x2, b"aaabbb", &[0, 0, 1, 4, 4]));
        server.receive(&encoded(0x2, b"", &[]));
        server.receive(&encoded(0x2, b"aaa", &[]));
        let parts: Vec<_> =
            parts.lock().unwrap().iter().map(|&(_, first, last)| (first, last)).collect();
        let firsts = parts.iter().filter(|(first, _)| *first).count();
        let lasts = parts.iter().filter(|(_, last)| *last).count();
        assert_eq!((firsts, lasts), (3, 3), "{parts:?}");
        assert!(parts[0].0 && parts[parts.len() - 1].1);
    }
}

#[test]
fn pitfall_the_bit_is_refused_on_continuation_and_control_frames() {
    for role in ROLES {
        let bad = Cause::ReservedBits(RSV1);
        let mut in_message = subject(role);
        in_message.receive(&[text([3, b'a']).rsv(RSV1).more(), continuation("").rsv(RSV1)]);
        assert_eq!(in_message.failure().cause(), bad);
        assert_eq!(in_message.sent(), [close(1002, "reserved bits set")]);
        for frame in [ping("x"), pong("x"), close(1000, "")] {
            let mut subject = subject(role);
            subject.receive(&[frame.rsv(RSV1)]);
            assert_eq!(subject.failure().cause(), bad);
        }
        // The extension uses RSV1 only: RSV2 and RSV3 are refused, with or without RSV1.
        for bits in [0x10, 0x20, 0x30, 0x50, 0x60, 0x70] {
            let mut subject = subject(role);
            subject.receive(&[text("").rsv(bits)]);
            assert_eq!(subject.failure().cause(), Cause::ReservedBits(bits & !RSV1));
        }
    }
}

#[test]
fn an_error_of_the_decoder_fails_the_connection_with_its_code() {
    let cases = [
        (&[0u8, b'c'][..], ExtensionError::Corrupt, 1007, Party::Peer),
        (&[5], ExtensionError::Corrupt, 1007, Party::Peer),
        (&[0, b'p'], ExtensionError::Protocol, 1002, Party::Peer),
        (&[0, b'i'], ExtensionError::Internal, 1011, Party::Local),
        (&[0, b'!'], ExtensionError::TooBig, 1009, Party::Peer), // beyond the limit passed to it
    ];
    for role in ROLES {
        for streaming in [false, true] {
            for (payload, error, code, party) in cases {
                let (mut subject, _) = extended(role, |config| {
                    (config.streaming, config.max_message_size) = (streaming, 1000);
                });
                subject.receive(&[text("before"), binary(payload).rsv(RSV1), text("after")]);
                assert_eq!(subject.events.len(), 1, "{error:?}");
                assert_eq!(subject.failure().cause(), Cause::Extension(error));
                assert_eq!(subject.failure().party(), party);
                let [sent] = &subject.sent()[..] else { panic!("one Close") };
                assert_eq!((sent.opcode, sent.close_code()), (0x8, Some(code)));
                assert_eq!(subject.state(), State::Failed);
            }
        }
    }
}

#[test]
fn the_size_limit_is_for_the_decoded_message() {
    let limit = 3000;
    for streaming in [false, true] {
        for cuts in [vec![], vec![4], vec![2, 4, 6, 8], vec![5, 11]] {
            for chunk in [1, usize::MAX] {
                for (size, passes) in [(limit, true), (limit + 1, false), (5 * limit, false)] {
                    let (mut server, _) = extended(Role::Server, |config| {
                        (config.streaming, config.max_message_size) = (streaming, limit as u64);
                    });
                    let bytes = stream(&encoded(0x2, &vec![b'x'; size], &cuts), Role::Client);
                    bytes.chunks(chunk).for_each(|chunk| server.feed(chunk));
                    let context = (streaming, &cuts, chunk, size);
                    if passes {
                        assert_eq!(server.failures, [], "{context:?}");
                        assert_eq!(server.connection.statistics().messages_received, 1);
                    } else {
                        assert_eq!(server.failures.len(), 1, "{context:?}");
                        let cause = server.failure().cause();
                        assert_eq!(cause, Cause::Extension(ExtensionError::TooBig), "{context:?}");
                        assert_eq!(server.sent(), [close(1009, "decoded message too big")]);
                        assert!(payload_of_chunks(&server.events).len() <= limit, "{context:?}");
                    }
                }
            }
        }
    }
}

/// Earlier messages do not count towards the limit of a message.
#[test]
fn the_size_limit_is_for_each_message() {
    for streaming in [false, true] {
        let (mut server, _) = extended(Role::Server, |config| {
            (config.streaming, config.max_message_size) = (streaming, 1000);
        });
        for _ in 0..5 {
            server.receive(&encoded(0x2, &[b'x'; 1000], &[3]));
        }
        assert_eq!(server.failures, []);
        assert_eq!(server.connection.statistics().messages_received, 5);
    }
}

/// An encoded message may be as large as the limit and a small allowance for what coding adds. If its
/// header announces more, it is refused before it is decoded.
#[test]
fn an_encoded_message_far_beyond_the_limit_fails_at_its_header() {
    let (mut server, parts) = extended(Role::Server, |config| config.max_message_size = 1000);
    server.feed(&declare(0xc2, 10_000, Role::Client));
    assert_eq!(server.failure().cause(), Cause::MessageTooBig { limit: 1000 });
    assert!(parts.lock().unwrap().is_empty());
}

#[test]
fn rfc6455_8_1_the_decoded_text_is_checked() {
    for role in ROLES {
        for streaming in [false, true] {
            for (payload, at) in
                [(&b"aaaaaa\xffbb"[..], 6), (b"aaaa\xed\xa0\x80", 5), (b"aaaaaaaaa\xe2\x82", 11)]
            {
                for chunk in [1, 4, usize::MAX] {
                    let (mut subject, _) = extended(role, |config| config.streaming = streaming);
                    let bytes = stream(&encoded(0x1, payload, &[2]), other(role));
                    bytes.chunks(chunk).for_each(|chunk| subject.feed(chunk));
                    assert_eq!(
                        subject.failure().cause(),
                        Cause::InvalidUtf8 { at },
                        "streaming: {streaming}, in chunks of {chunk}"
                    );
                    assert_eq!(subject.sent(), [close(1007, "text is not UTF-8")]);
                }
            }
            // The encoded payload need not be UTF-8, and this one is not.
            let (mut subject, _) = extended(role, |config| config.streaming = streaming);
            subject.receive(&encoded(0x1, "x".repeat(200).as_bytes(), &[1]));
            assert_eq!(subject.failures, []);
        }
    }
}

/// A part that decodes to no bytes is not reported as a chunk, unless it is the last.
#[test]
fn streamed_chunks_are_the_decoded_parts() {
    for role in ROLES {
        let mut subject = streaming(role, 1000);
        subject.receive(&encoded(0x2, b"aaabb", &[1])[..1]);
        assert_eq!(subject.seen(), [], "the byte of the run has not arrived");
        subject.receive(&[ping("between")]);
        subject.receive(&encoded(0x2, b"aaabb", &[1])[1..]);
        subject.receive(&encoded(0x2, b"cc", &[2]));
        let chunk = |payload: &[u8], first, last| Seen::Chunk {
            kind: Kind::Binary,
            payload: payload.to_vec(),
            first,
            last,
        };
        assert_eq!(
            subject.seen(),
            [
                Seen::ping("between"),
                chunk(b"aaabb", true, true),
                chunk(b"cc", true, false),
                chunk(b"", false, true),
            ]
        );
    }
}

#[test]
fn memory_is_not_lent_for_an_encoded_message() {
    let mut server = subject(Role::Server);
    server.reading = Reading::InPlace(anyloop_proto::BufferPool::new(1 << 20));
    let payload: Vec<u8> = (0..20_000u32).map(|i| i as u8).collect();
    let bytes = stream(&encoded(0x2, &payload, &[]), Role::Client);
    for part in bytes.chunks(6000) {
        server.feed(part);
        assert!(server.connection.receiver.receive_buffer().is_none());
    }
    assert_eq!(server.seen(), [Seen::binary(&payload)]);
}

#[test]
fn an_encoder_sets_the_bit_on_the_first_frame_and_encodes_the_payload() {
    for role in ROLES {
        let mut subject = subject(role);
        subject.out.by_reference = true;
        subject.out.buffer.extend_from_slice(&stream(&[pong("before")], role));
        subject.send("aaaaaa").unwrap();
        subject.send("bbb").unwrap(); // too short to be encoded
        let Subject { connection, out, .. } = &mut subject;
        let sender = &mut connection.sender;
        sender.begin(Kind::Binary).unwrap();
        sender.piece(b"cc", false, out).unwrap();
        sender.ping(b"dddd", out).unwrap();
        sender.piece(b"", false, out).unwrap();
        sender.piece(b"ee", true, out).unwrap();
        sender.send_prepared(&Prepared::new("ffff"), out).unwrap();
        sender.send_prepared(&Prepared::new("g"), out).unwrap();
        subject.close(1000, "hhhh").unwrap();
        assert_eq!(
            subject.sent(),
            [
                pong("before"),
                text(b"\x06a").rsv(RSV1),
                text("bbb"),
                binary(b"\x02c").rsv(RSV1).more(),
                ping("dddd"),
                continuation("").more(),
                continuation(b"\x02e"),
                text(b"\x04f").rsv(RSV1),
                text("g"),
                close(1000, "hhhh"),
            ]
        );
        assert_eq!(subject.connection.statistics().bytes_sent, 6 + 3 + 2 + 2 + 4 + 1);
    }
}

/// The length is known after encoding only; the header has the shortest form for each length.
#[test]
fn encoded_frames_have_the_shortest_header() {
    for role in ROLES {
        for len in [4, 62, 63, 64, 32_767, 32_768, 50_000] {
            let mut subject = subject(role);
            subject.out.by_reference = true;
            let payload: Vec<u8> = (0..len).map(|i| i as u8).collect(); // encoding doubles the length
            subject.send(&payload[..]).unwrap();
            assert_eq!(subject.sent(), [binary(runs(&payload)).rsv(RSV1)]);
        }
    }
}

/// State that most connections do not need is freed when the deferred pong is sent, but not while the
/// connection has an extension.
#[test]
fn the_extension_is_kept_when_a_deferred_pong_is_sent() {
    for role in ROLES {
        let mut subject = subject(role);
        subject.out.blocked = true;
        subject.receive(&[ping("held")]);
        subject.out.blocked = false;
        subject.writable();
        subject.receive(&[ping("at once")]);
        assert_eq!(subject.sent(), [pong("held"), pong("at once")]);
        subject.send("aaaaaa").unwrap();
        assert_eq!(subject.sent(), [text(b"\x06a").rsv(RSV1)]);
        subject.receive(&encoded(0x1, b"zzzz", &[]));
        assert_eq!(subject.seen()[2..], [Seen::text("zzzz")]);
    }
}

#[test]
fn two_connections_with_the_same_extension_exchange_messages() {
    for cut in [Cut::Whole, Cut::Every(1), Cut::Random(1)] {
        let mut pair = Pair::of(subject(Role::Client), subject(Role::Server)).cut(cut);
        pair.server.subject.echo = true;
        let long: String = ('a'..='z').map(|letter| letter.to_string().repeat(100)).collect();
        for message in ["", "abc", "aaaa", &long] {
            pair.send(Role::Client, message).unwrap();
        }
        pair.drive_for(crate::subject::seconds(1));
        let expected = ["", "abc", "aaaa", &long].map(Seen::text);
        assert_eq!(pair.server.subject.seen(), expected);
        assert_eq!(pair.client.subject.seen(), expected);
        assert!(pair.client.link.carried.len() < 500, "the messages are sent encoded");
        pair.close(Role::Client, 1000, "").unwrap();
        pair.drive();
        pair.assert_ended();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// As for messages that are not encoded: the result, also with respect to the limit, does not depend
    /// on how the message is fragmented or received.
    #[test]
    fn any_chunking_decodes_to_the_same(
        runs in vec((0u8..4, 1usize..400), 0..8),
        opcode in 1u8..=2,
        cuts in vec(any::<prop::sample::Index>(), 0..4),
        chunk in 1usize..20,
        limit in 0usize..2000,
    ) {
        let payload: Vec<u8> =
            runs.into_iter().flat_map(|(byte, len)| vec![b'a' + byte; len]).collect();
        let size = self::runs(&payload).len();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.index(size + 1)).collect();
        cuts.sort_unstable();
        let bytes = stream(&encoded(opcode, &payload, &cuts), Role::Client);
        for streaming in [false, true] {
            for chunk in [chunk, usize::MAX] {
                let (mut server, _) = extended(Role::Server, |config| {
                    (config.streaming, config.max_message_size) = (streaming, limit as u64);
                });
                bytes.chunks(chunk).for_each(|chunk| server.feed(chunk));
                let lent = match &server.events[..] {
                    [Seen::Text(text)] => text.clone().into_bytes(),
                    [Seen::Binary(bytes)] => bytes.clone(),
                    chunks => payload_of_chunks(chunks),
                };
                if payload.len() <= limit {
                    prop_assert_eq!(&server.failures, &[]);
                    prop_assert_eq!(&lent, &payload);
                } else {
                    let too_big = Cause::Extension(ExtensionError::TooBig);
                    prop_assert_eq!(server.failure().cause(), too_big);
                    prop_assert!(lent.len() <= limit && payload.starts_with(&lent));
                }
            }
        }
    }
}
