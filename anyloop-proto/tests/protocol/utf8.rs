//! Text is UTF-8, and fails at the first invalid byte: RFC 6455 §8.1.

use anyloop_proto::{Cause, Kind, Role};
use anyloop_testkit::frames::{binary, close, continuation, declare, frame, stream, text};

use crate::subject::{Reading, Seen, Subject, config};

const GREEK: &str = "κόσμε \u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}";

/// Invalid texts, and the index of the first byte with which no valid text can continue. It is the
/// length of the text if the text only ends within a code point.
const INVALID: [(&[u8], usize); 14] = [
    (b"\xce\xba\xf4\x90\x80\x80edited", 3), // Autobahn 6.4.1: beyond U+10FFFF
    (b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90", 12),
    (b"ok\xed\xa0\x80", 3), // a surrogate
    (b"\xe0\x80\x80", 1),   // overlong
    (b"\xf0\x8f\xbf\xbf", 1),
    (b"\xc0\x80", 0),
    (b"\xc1\xbf", 0),
    (b"\xf5\x80\x80\x80", 0),
    (b"abc\xff", 3),
    (b"a\x80", 1),
    (b"\xf0\x9f\x92A", 3),
    (b"\xe2\x82", 2),
    (b"text\xf0\x9f\x92", 7),
    (b"\xc3", 1),
];

#[test]
fn rfc6455_8_1_a_code_point_may_be_split_over_frames_and_over_chunks() {
    for cut in 0..=GREEK.len() {
        for second in [cut, cut + 1, cut + 2] {
            let second = second.min(GREEK.len());
            let (a, b, c) = (
                &GREEK.as_bytes()[..cut],
                &GREEK.as_bytes()[cut..second],
                &GREEK.as_bytes()[second..],
            );
            let frames = [text(a).more(), continuation(b).more(), continuation(c)];
            let mut at_once = Subject::server();
            at_once.receive(&frames);
            assert_eq!(at_once.seen(), [Seen::text(GREEK)], "cut at {cut} and {second}");
            let mut slowly = Subject::server();
            slowly.feed_byte_by_byte(&stream(&frames, Role::Client));
            assert_eq!(slowly.seen(), [Seen::text(GREEK)], "cut at {cut} and {second}");
        }
    }
}

#[test]
fn rfc6455_8_1_a_code_point_may_be_split_around_a_control_frame() {
    let mut server = Subject::server();
    let (a, b) = GREEK.as_bytes().split_at(1);
    server.receive(&[text(a).more(), frame(0x9, "\u{e9}"), continuation(b)]);
    assert_eq!(server.seen(), [Seen::ping("é"), Seen::text(GREEK)]);
}

#[test]
fn rfc6455_8_1_invalid_text_is_1007_however_it_is_framed() {
    for (invalid, at) in INVALID {
        let cause = Cause::InvalidUtf8 { at: at as u64 };
        for cut in 0..=invalid.len() {
            let (a, b) = invalid.split_at(cut);
            let fragments = stream(&[text(a).more(), continuation(b)], Role::Client);
            let whole = text(invalid).bytes(Role::Client);
            // A frame with a 16-bit length, so that the index is above 255.
            let mut padded = vec![b'.'; 300];
            padded.extend_from_slice(invalid);
            let padded = text(padded).bytes(Role::Client);

            for (bytes, cause) in [
                (fragments, cause),
                (whole, cause),
                (padded, Cause::InvalidUtf8 { at: 300 + at as u64 }),
            ] {
                for chunk in [1, 2, 7, usize::MAX] {
                    let mut server = Subject::server();
                    bytes.chunks(chunk).for_each(|chunk| server.feed(chunk));
                    assert_eq!(server.failure().cause(), cause, "{invalid:x?} cut at {cut}");
                    assert_eq!(server.failure().messages_before(), 0);
                    assert_eq!(server.connection.statistics().messages_received, 0);
                    assert_eq!(server.seen(), []);
                    assert_eq!(server.sent(), [close(1007, "text is not UTF-8")]);
                }
            }
        }
    }
}

#[test]
fn pitfall_text_that_ends_inside_a_code_point_is_refused_in_fragments_too() {
    for ending in ["é", "€", "💚"] {
        for missing in 1..ending.len() {
            let cut = &ending.as_bytes()[..ending.len() - missing];
            for frames in [
                vec![text(cut)],
                vec![text(cut).more(), continuation("")],
                vec![text("").more(), continuation(cut)],
                vec![text("a").more(), continuation(&cut[..1]).more(), continuation(&cut[1..])],
            ] {
                let mut server = Subject::server();
                server.receive(&frames);
                assert!(
                    matches!(server.failure().cause(), Cause::InvalidUtf8 { .. }),
                    "{frames:?}"
                );
            }
        }
    }
}

/// Autobahn 6.4.3 and 6.4.4: the Close is sent at the invalid byte, before the frame or the message
/// is complete.
#[test]
fn pitfall_text_fails_at_the_offending_byte_not_at_the_end_of_the_message() {
    for (invalid, at) in INVALID.into_iter().filter(|(invalid, at)| *at < invalid.len()) {
        // An incomplete frame of 1 MB, and a first fragment.
        for first in [0x81, 0x01] {
            let mut server = Subject::server();
            server.feed(&declare(first, 1 << 20, Role::Client));
            let payload = &text(invalid).bytes(Role::Client)[6..];
            for (i, byte) in payload.iter().enumerate() {
                let before = server.failures.len();
                server.feed(&[*byte]);
                assert_eq!(before == 0 && i >= at, server.failures.len() > before, "byte {i}");
                if i == at {
                    assert_eq!(server.sent(), [close(1007, "text is not UTF-8")]);
                }
            }
        }
    }
}

#[test]
fn pitfall_text_that_is_received_in_place_fails_at_the_offending_byte() {
    let mut server = Subject::server();
    server.reading = Reading::InPlace(anyloop_proto::BufferPool::new(0));
    let mut payload = vec![b'.'; 1 << 16];
    payload[30_001] = 0xff;
    let bytes = text(&payload).bytes(Role::Client);
    let header = bytes.len() - payload.len();
    for chunk in bytes[..header + 30_001].chunks(5000) {
        server.feed(chunk);
    }
    assert!(server.connection.receiver.receive_buffer().is_some(), "the text is received in place");
    assert_eq!(server.failures, []);
    server.feed(&bytes[header + 30_001..header + 30_002]);
    assert_eq!(server.failure().cause(), Cause::InvalidUtf8 { at: 30_001 });
    assert_eq!(server.sent(), [close(1007, "text is not UTF-8")]);
}

#[test]
fn rfc6455_5_6_binary_is_not_checked() {
    for (invalid, _) in INVALID {
        let mut server = Subject::server();
        server.receive(&[binary(invalid), binary(invalid).more(), continuation(invalid)]);
        let twice = [invalid, invalid].concat();
        assert_eq!(server.seen(), [Seen::binary(invalid), Seen::binary(twice)]);
    }
}

/// The state of the UTF-8 check is reset for each message.
#[test]
fn a_binary_message_between_texts_does_not_disturb_the_check() {
    let mut server = Subject::server();
    server.receive(&[
        text("é").more(),
        continuation("é"),
        binary("\u{e9}"),
        binary([0xc3]),
        text("ü"),
    ]);
    assert_eq!(server.events.len(), 4);
    assert_eq!(server.failures, []);
}

/// In streaming mode a chunk may end within a character, but has no invalid byte.
#[test]
fn rfc6455_8_1_streamed_text_fails_at_the_offending_byte() {
    for (invalid, at) in INVALID {
        let mut server = Subject::new(Role::Server, config(|config| config.streaming = true));
        server.feed_byte_by_byte(&text(invalid).bytes(Role::Client));
        assert_eq!(server.failure().cause(), Cause::InvalidUtf8 { at: at as u64 });
        let chunks = server.seen().into_iter().flat_map(|seen| match seen {
            Seen::Chunk { kind: Kind::Text, payload, last: false, .. } => payload,
            seen => panic!("expected a chunk that is not the last: {seen:?}"),
        });
        // A text that ends within a character fails when its end arrives.
        let lent = at.min(invalid.len() - 1);
        assert_eq!(chunks.collect::<Vec<u8>>(), &invalid[..lent]);
    }
}
