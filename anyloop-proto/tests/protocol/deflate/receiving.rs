//! Messages that are decompressed (RFC 7692 §7.2.2), from bytes of the RFC and of another compressor.

use anyloop_proto::deflate::Deflate;
use anyloop_proto::{Cause, Config, ExtensionError, Role, State};
use anyloop_testkit::frames::{
    Frame, binary, close, continuation, frame, other, ping, pong, stream, text,
};

use super::peer::{MARKER, Peer};
use super::{RSV1, agreed, client, compressed, fragments, noise, receiver, server};
use crate::subject::{Seen, Subject};

const CORRUPT: Cause = Cause::Extension(ExtensionError::Corrupt);

/// "Hello" in one block (RFC 7692 §7.2.3.1).
const HELLO: [u8; 7] = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];

/// Both roles, with context takeover for what they receive.
fn both() -> [Subject; 2] {
    let deflate = Deflate::pooled();
    [server(deflate, "client_max_window_bits"), client(deflate, "")]
}

/// What a new server makes of these messages: what it reports, or why it fails.
fn outcome(messages: &[&[u8]]) -> Result<Vec<Vec<u8>>, Cause> {
    let mut server = receiver(15, |_| ());
    server.receive(&messages.iter().map(compressed).collect::<Vec<_>>());
    match &server.failures[..] {
        [] => Ok(server.seen().into_iter().map(payload).collect()),
        [failure] => Err(failure.cause()),
        more => panic!("{more:?}"),
    }
}

fn payload(seen: Seen) -> Vec<u8> {
    match seen {
        Seen::Binary(payload) => payload,
        other => panic!("{other:?}"),
    }
}

#[test]
fn rfc7692_7_2_3_the_examples() {
    for mut subject in both() {
        subject.receive(&[
            text(HELLO).rsv(RSV1),
            // §7.2.3.1: in fragments.
            text([0xf2, 0x48, 0xcd]).rsv(RSV1).more(),
            continuation([0xc9, 0xc9, 0x07, 0x00]),
            // §7.2.3.2: the second message refers to the first one.
            text([0xf2, 0x00, 0x11, 0x00, 0x00]).rsv(RSV1),
            // §7.2.3.3: a block without compression.
            text(b"\x00\x05\x00\xfa\xffHello\x00").rsv(RSV1),
            // §7.2.3.4: a final block.
            text([0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]).rsv(RSV1),
            // §7.2.3.5: two blocks.
            text([0xf2, 0x48, 0x05, 0, 0, 0, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00]).rsv(RSV1),
        ]);
        assert_eq!(subject.failures, []);
        assert_eq!(subject.seen(), ["Hello"; 6].map(Seen::text));
        // §7.2.3.6: an empty message.
        subject.receive(&[text([0x00]).rsv(RSV1), text([0x02, 0x00]).rsv(RSV1)]);
        assert_eq!(subject.seen(), ["", ""].map(Seen::text));
    }
}

#[test]
fn rfc7692_7_1_1_without_takeover_a_message_cannot_refer_to_an_earlier_one() {
    let deflate = Deflate::pooled();
    for mut subject in [
        server(deflate, "client_no_context_takeover"),
        server(Deflate::no_takeover(), "client_max_window_bits"),
        server(deflate, ""), // the window cannot be limited
        client(deflate, "server_no_context_takeover"),
    ] {
        subject.receive(&[compressed(HELLO), compressed(HELLO)]);
        assert_eq!(subject.seen(), [Seen::binary("Hello"), Seen::binary("Hello")]);
        subject.receive(&[compressed([0xf2, 0x00, 0x11, 0x00, 0x00])]);
        assert_eq!(subject.failure().cause(), CORRUPT);
        assert_eq!(subject.sent().last().and_then(Frame::close_code), Some(1007));
    }
}

/// A message that is sent without the bit does not enter the window of either side.
#[test]
fn pitfall_messages_that_are_not_compressed_are_not_decompressed_or_remembered() {
    for mut subject in both() {
        let mut peer = Peer::new();
        let messages = [noise(300, 1), noise(300, 2), noise(300, 3)];
        for _ in 0..3 {
            for message in &messages {
                subject.receive(&[
                    compressed(peer.deflate(message)),
                    binary(noise(400, 4)),
                    binary(HELLO).more(),
                    continuation(HELLO),
                ]);
                let seen: Vec<_> = subject.seen().into_iter().map(payload).collect();
                assert_eq!(seen, [message.clone(), noise(400, 4), [HELLO, HELLO].concat()]);
            }
        }
    }
}

#[test]
fn rfc7692_7_2_2_a_message_may_be_in_any_fragments() {
    let messages =
        [vec![b'x'; 300_000], noise(70_000, 5), b"short".to_vec(), noise(200_000, 6), vec![]];
    for mut subject in both() {
        let from = other(subject.role());
        let mut peer = Peer::new();
        for size in [1, 7, 1000, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, usize::MAX] {
            for message in &messages {
                let frame = compressed(peer.deflate(message));
                let frames = fragments(&frame, size.max(frame.payload.len() / 500));
                let with_pings: Vec<_> = frames.into_iter().flat_map(|f| [ping("p"), f]).collect();
                for part in stream(&with_pings, from).chunks(50_000) {
                    subject.feed(part);
                }
                assert_eq!(subject.failures, [], "in fragments of {size}");
                subject.events.retain(|event| *event != Seen::ping("p"));
                assert!(payload(subject.seen().remove(0)) == *message, "in fragments of {size}");
                assert!(subject.sent().iter().all(|frame| *frame == pong("p")));
            }
        }
    }
}

/// Compressed bytes that wait for the end of a message are limited, at 64 KiB.
#[test]
fn a_message_in_fragments_around_the_limit_of_what_is_gathered() {
    let limit = 64 * 1024;
    for size in [limit - 1, limit, limit + 1, 2 * limit + 1] {
        for cut in [1, limit - 1, limit, limit + 1] {
            let (mut server, mut peer) = (receiver(10, |_| ()), Peer::new());
            // A block without compression has 5 bytes more, and at most 65,535.
            let message = noise(size, size as u64);
            let blocks = message.chunks(30_000).map(|part| {
                let len = (part.len() as u16).to_le_bytes();
                [&[0, len[0], len[1], !len[0], !len[1]], part].concat()
            });
            let bytes = [blocks.collect::<Vec<_>>().concat(), vec![0]].concat();
            assert_eq!(peer.inflate(&bytes).len(), size);
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            server.receive(&[compressed(first).more(), ping("p")]);
            server.receive(&[continuation(second).more(), continuation("")]);
            server.receive(&[compressed([0])]);
            assert_eq!(server.seen(), [Seen::ping("p"), Seen::Binary(message), Seen::binary("")]);
        }
    }
}

/// The next message is decompressed as usual, and may refer to those before the final block.
#[test]
fn pitfall_a_final_block_does_not_end_the_connection_or_empty_the_next_message() {
    let end = |extra: &[u8]| [&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], extra].concat();
    let refers = [0xf2, 0x00, 0x11, 0x00, 0x00];
    for first in [
        end(&[0x00]),       // RFC 7692 §7.2.3.4
        end(&[]),           // without the byte that the RFC adds
        end(&[0x02, 0x00]), // an empty block of fixed codes behind it
        end(&[0, 0, 0, 0xff, 0xff, 0x00]),
    ] {
        let expected = vec![b"Hello".to_vec(); 3];
        assert_eq!(outcome(&[&first, &HELLO, &refers]), Ok(expected.clone()), "{first:x?}");
        assert_eq!(outcome(&[&first, &first, &refers]), Ok(expected), "{first:x?}");
    }
    // In the middle of a message, and at several places.
    let twice = [&end(&[])[..], &end(&[])].concat();
    let hello = [&end(&[])[..], &HELLO].concat();
    let behind = [&end(&[])[..], &refers].concat();
    for message in [&twice, &hello, &behind] {
        assert_eq!(outcome(&[message]), Ok(vec![b"HelloHello".to_vec()]));
        for size in 1..message.len() {
            let mut server = receiver(10, |_| ());
            server.receive(&fragments(&compressed(message), size));
            server.receive(&[compressed(refers)]);
            assert_eq!(server.seen(), [Seen::binary("HelloHello"), Seen::binary("Hello")]);
        }
    }
    // Of a real compressor.
    let (mut server, mut peer) = (receiver(15, |_| ()), Peer::new());
    for i in 1..100 {
        let message = noise(i * 30, i as u64).repeat(3);
        let bytes = match i % 2 {
            0 => peer.deflate(&message),
            _ => peer.deflate_final(&message),
        };
        server.receive(&[compressed(&bytes)]);
        assert_eq!(server.seen(), [Seen::Binary(message)]);
    }
}

#[test]
fn pitfall_garbage_behind_a_final_block_is_refused() {
    let end = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    for garbage in
        [&b"\xff"[..], b"garbage", b"\x00\x01", b"\x00\x00\x00\xff\xff\xff", &[0x55; 100]]
    {
        let message = [&end, garbage].concat();
        assert_eq!(outcome(&[&HELLO, &message, &HELLO]), Err(CORRUPT), "{garbage:x?}");
    }
}

#[test]
fn pitfall_an_empty_compressed_message() {
    for empty in [
        &[][..],
        &[0x00],
        &[0x02, 0x00],
        &[0x03, 0x00],
        &[0x03, 0x00, 0x00],
        &[0, 0, 0, 0xff, 0xff, 0],
    ] {
        let expected = vec![b"Hello".to_vec(), vec![], vec![], b"Hello".to_vec()];
        assert_eq!(outcome(&[&HELLO, empty, empty, &HELLO]), Ok(expected), "{empty:x?}");
    }
    for mut subject in both() {
        subject.receive(&[compressed("").more(), continuation("").more(), continuation("")]);
        subject.receive(&[compressed("").more(), continuation(HELLO).more(), continuation("")]);
        assert_eq!(subject.seen(), [Seen::binary(""), Seen::binary("Hello")]);
    }
}

/// A message that ends inside of a block is not complete, even if the bytes that receivers append could complete it.
#[test]
fn pitfall_a_truncated_message_is_refused() {
    let mut peer = Peer::new();
    let text = "a text with some repetition, some repetition, some more repetition; ".repeat(3);
    let dynamic = peer.deflate(&[text.as_bytes(), &noise(500, 7)].concat());
    let stored = [&b"\x00\x64\x00\x9b\xff"[..], &[7; 100], &[0]].concat();
    let last = [&b"\x01\x64\x00\x9b\xff"[..], &[7; 100]].concat();
    for message in [&HELLO[..], &dynamic, &stored, &last] {
        assert!(outcome(&[message]).is_ok());
        // One byte may be an empty block.
        for len in 2..message.len() {
            let result = outcome(&[&message[..len]]);
            // Of a stored block the last four bytes may be those that the sender has removed.
            let missing = 105_usize.checked_sub(len);
            let marker = message.len() > 104 && missing == Some(4) && message != dynamic;
            match marker {
                true => assert_eq!(result, Ok(vec![[&[7; 96][..], &MARKER].concat()])),
                false => assert_eq!(result, Err(CORRUPT), "{len} bytes of {message:x?}"),
            }
        }
    }
}

/// The bytes that a sender has removed from the end may be data. Later messages may refer to it.
#[test]
fn data_that_looks_like_the_removed_end_is_remembered() {
    let cut = [&b"\x00\x08\x00\xf7\xff"[..], b"data"].concat();
    let refers = {
        let mut peer = Peer::new();
        peer.deflate(b"data\x00\x00\xff\xff");
        peer.deflate(b"data\x00\x00\xff\xff")
    };
    assert!(refers.len() < 9, "it refers to the first message");
    let expected = vec![b"data\x00\x00\xff\xff".to_vec(); 2];
    assert_eq!(outcome(&[&cut, &refers]), Ok(expected));
}

#[test]
fn a_distance_too_far_back_is_refused() {
    assert_eq!(outcome(&[&[0xf2, 0x00, 0x11, 0x00, 0x00]]), Err(CORRUPT));
    let part = noise(200, 8);
    for (bits, between, reaches) in [
        (15, 30_000, true),
        (12, 3_000, true),
        (12, 5_000, false),
        (10, 500, true),
        (10, 2_000, false),
        (8, 50, true),
        (8, 400, false),
    ] {
        let (mut server, mut peer) = (receiver(bits, |_| ()), Peer::new());
        for message in [&part, &noise(between, 9)] {
            server.receive(&[compressed(peer.deflate(message))]);
        }
        server.receive(&[compressed(peer.deflate(&part))]);
        match reaches {
            true => assert_eq!(server.seen()[2..], [Seen::binary(&part)], "{bits} bits, {between}"),
            false => assert_eq!(server.failure().cause(), CORRUPT, "{bits} bits, {between}"),
        }
    }
}

/// A window of 2^w bytes is kept in full, whatever the sizes of the messages.
#[test]
fn rfc7692_7_1_2_the_whole_window_is_kept() {
    // The peer refers back no further than 32 KiB less one byte.
    for bits in 9..=14 {
        let window = 1usize << bits;
        let (mut server, mut peer) = (receiver(bits, |_| ()), Peer::new());
        // The last message is the second one again, which begins where the window does.
        let part = noise(100, 1);
        let sizes = [1, 50, window / 3, window / 4];
        let rest = window - 100 - sizes.iter().sum::<usize>();
        let mut messages = vec![noise(10, 2), part.clone()];
        messages.extend(sizes.iter().chain([&rest]).map(|&size| noise(size, 3 + size as u64)));
        messages.push(part);
        let mut size = 0;
        for message in &messages {
            let bytes = peer.deflate(message);
            size = bytes.len();
            server.receive(&[compressed(bytes)]);
            assert_eq!(server.seen(), [Seen::binary(message)], "{bits} bits");
        }
        assert!(size < 20, "it refers to the second message");
    }
}

#[test]
fn rfc7692_6_1_the_bit_is_refused_where_it_has_no_meaning() {
    for role in [Role::Client, Role::Server] {
        let new = || match role {
            Role::Client => client(Deflate::pooled(), ""),
            Role::Server => server(Deflate::pooled(), "client_max_window_bits"),
        };
        for frames in [
            vec![ping(HELLO).rsv(RSV1)],
            vec![pong(HELLO).rsv(RSV1)],
            vec![close(1000, "").rsv(RSV1)],
            vec![compressed(&HELLO[..3]).more(), continuation(&HELLO[3..]).rsv(RSV1)],
            vec![binary("plain").more(), continuation("").rsv(RSV1)],
        ] {
            let mut subject = new();
            subject.receive(&frames);
            assert_eq!(subject.failure().cause(), Cause::ReservedBits(RSV1), "{frames:?}");
            assert_eq!(subject.sent(), [close(1002, "reserved bits set")]);
        }
        for bits in [0x10, 0x20, 0x50, 0x60, 0x70] {
            let mut subject = new();
            subject.receive(&[binary(HELLO).rsv(bits)]);
            assert_eq!(subject.failure().cause(), Cause::ReservedBits(bits & !RSV1));
        }
        // Without the extension no bit has a meaning.
        let mut plain = Subject::new(role, crate::subject::config(|_| ()));
        plain.receive(&[compressed(HELLO)]);
        assert_eq!(plain.failure().cause(), Cause::ReservedBits(RSV1));
        assert_eq!(plain.sent(), [close(1002, "reserved bits set")]);
    }
}

/// On both sides, before compression: whole or streamed, and however the bytes arrive.
#[test]
fn statistics_count_bytes_as_the_application_sees_them() {
    let messages =
        [vec![b'x'; 300_000], noise(20_000, 7), b"short".to_vec(), vec![], vec![0; 70_000]];
    let total: usize = messages.iter().map(Vec::len).sum();
    for (streaming, chunk) in [(false, 1000), (false, total), (true, 1000), (true, total)] {
        let change = |config: &mut Config| config.streaming = streaming;
        let (mut from, mut to) = agreed(Deflate::pooled(), Deflate::pooled(), change);
        for _ in 0..2 {
            for message in &messages {
                from.send(&message[..]).unwrap();
            }
            let bytes = std::mem::take(&mut from.out.buffer);
            assert!(bytes.len() < total / 10, "it is compressed to {} bytes", bytes.len());
            for part in bytes.chunks(chunk) {
                to.feed(part);
                let reported: usize = to.events.iter().map(len).sum();
                let received = to.connection.statistics().bytes_received;
                assert!(!streaming || received == reported as u64, "{received} and {reported}");
            }
            let (sent, received) = (from.connection.statistics(), to.connection.statistics());
            assert_eq!((sent.messages_sent, sent.bytes_sent), (5, total as u64));
            assert_eq!((received.messages_received, received.bytes_received), (5, total as u64));
            std::mem::swap(&mut from, &mut to); // the other direction
        }
    }
}

#[test]
fn the_decompressed_text_is_checked() {
    for streaming in [false, true] {
        for (message, at) in [(&b"valid \xff"[..], 6), (b"\xed\xa0\x80", 1), (b"cut \xe2\x82", 6)] {
            for size in [1, 3, usize::MAX] {
                let mut server = receiver(10, |config| config.streaming = streaming);
                let frame = frame(0x1, Peer::new().deflate(message)).rsv(RSV1);
                server.receive(&fragments(&frame, size));
                assert_eq!(server.failure().cause(), Cause::InvalidUtf8 { at });
                assert_eq!(server.sent(), [close(1007, "text is not UTF-8")]);
            }
        }
    }
}

/// The limit is for the message after decompression, and inclusive.
#[test]
fn pitfall_the_inflated_size_is_limited() {
    for streaming in [false, true] {
        for limit in [0, 1, 100, 255, 256, 257, 65_535, 65_536, 65_537, 1_000_000] {
            for (size, passes) in [(limit, true), (limit + 1, false), (10 * limit + 50_000, false)]
            {
                for pieces in [1000, usize::MAX] {
                    let mut server = receiver(15, |config| {
                        (config.streaming, config.max_message_size) = (streaming, limit as u64);
                    });
                    let frame = compressed(Peer::new().deflate(&vec![7; size]));
                    server.receive(&fragments(&frame, pieces));
                    let received: usize = server.events.iter().map(len).sum();
                    if passes {
                        assert_eq!((server.failures.len(), received), (0, size), "{limit}");
                        continue;
                    }
                    let too_big = Cause::Extension(ExtensionError::TooBig);
                    assert_eq!(server.failure().cause(), too_big, "{size} bytes, limit {limit}");
                    assert_eq!(server.sent(), [close(1009, "decoded message too big")]);
                    assert_eq!(server.state(), State::Failed);
                    assert!(received <= limit);
                }
            }
        }
    }
}

fn len(seen: &Seen) -> usize {
    match seen {
        Seen::Binary(payload) | Seen::Chunk { payload, .. } => payload.len(),
        other => panic!("{other:?}"),
    }
}

/// The limit is for each message, and what was received before does not count.
#[test]
fn many_messages_of_the_largest_size_are_received() {
    for streaming in [false, true] {
        let mut server = receiver(15, |config| {
            (config.streaming, config.max_message_size) = (streaming, 1000);
        });
        let mut peer = Peer::new();
        for i in 0..50 {
            let frame = compressed(peer.deflate(&noise(1000, i % 3)));
            server.receive(&fragments(&frame, 400));
            assert_eq!(server.failures, []);
            assert_eq!(server.seen().iter().map(len).sum::<usize>(), 1000);
        }
    }
}

/// Chunks of a compressed message come as it is decompressed: at its end, or after 64 KiB.
#[test]
fn a_large_message_is_streamed() {
    let message = noise(500_000, 11);
    let mut server = receiver(10, |config| config.streaming = true);
    let bytes = stream(&[compressed(Peer::new().deflate(&message))], Role::Client);
    let mut received = Vec::new();
    for (i, part) in bytes.chunks(10_000).enumerate() {
        server.feed(part);
        for seen in server.seen() {
            let Seen::Chunk { payload, first, .. } = seen else { panic!("{seen:?}") };
            assert_eq!(first, received.is_empty());
            received.extend(payload);
        }
        let arrived = (i + 1) * 10_000;
        assert!(
            received.len() + 80_000 > arrived.min(message.len()),
            "{} of {arrived}",
            received.len()
        );
    }
    assert!(received == message);
}

#[test]
fn both_sides_exchange_messages_in_every_mode() {
    for deflate in super::modes() {
        for of_server in super::modes() {
            let (mut client, mut server) = agreed(deflate, of_server, |_| ());
            for i in 0..30 {
                let message = [noise(i * 20, i as u64 / 3), vec![b'x'; i * 10]].concat();
                client.send(&message[..]).unwrap();
                server.receive(&client.sent());
                server.send(&message[..]).unwrap();
                client.receive(&server.sent());
                assert_eq!(server.seen(), [Seen::binary(&message)], "{deflate:?} to {of_server:?}");
                assert_eq!(client.seen(), [Seen::binary(&message)], "{of_server:?} to {deflate:?}");
            }
        }
    }
}
