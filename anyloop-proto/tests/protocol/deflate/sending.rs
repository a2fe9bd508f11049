//! Messages that are compressed (RFC 7692 §7.2.1).

use anyloop_proto::deflate::Deflate;
use anyloop_proto::{Kind, Prepared, Role};
use anyloop_testkit::frames::{Frame, ping, text};

use super::peer::{MARKER, Peer, inflate_alone};
use super::{RSV1, client, compressed, modes, noise, server};
use crate::subject::Subject;

const ANY: &str = "client_max_window_bits";

/// Sends `payload` in pieces that end at `cuts`, with a ping after each but the last.
fn send_pieces(subject: &mut Subject, payload: &[u8], cuts: &[usize]) -> Vec<Frame> {
    let Subject { connection, out, .. } = subject;
    let sender = &mut connection.sender;
    sender.begin(Kind::Binary).unwrap();
    let mut at = 0;
    for cut in cuts {
        sender.piece(&payload[at..*cut], false, out).unwrap();
        sender.ping(b"between", out).unwrap();
        at = *cut;
    }
    sender.piece(&payload[at..], true, out).unwrap();
    let mut frames = subject.sent();
    assert_eq!(frames.len(), 2 * cuts.len() + 1);
    frames.retain(|frame| *frame != ping("between"));
    frames
}

/// The payload of a compressed message, which may be in fragments.
fn payload(frames: &[Frame]) -> Vec<u8> {
    for (i, frame) in frames.iter().enumerate() {
        let first = if i == 0 { (RSV1, false) } else { (0, true) };
        assert_eq!(
            (frame.rsv, frame.opcode == 0),
            first,
            "RFC 7692 §6.1: the bit is on the first frame"
        );
        assert_eq!(frame.fin, i == frames.len() - 1);
    }
    frames.iter().flat_map(|frame| frame.payload.clone()).collect()
}

fn send(subject: &mut Subject, message: &[u8]) -> Vec<u8> {
    subject.send(message).unwrap();
    payload(&subject.sent())
}

#[test]
fn rfc7692_7_2_1_messages_are_one_stream_without_markers() {
    for deflate in modes() {
        for level in 1..=9 {
            let deflate = deflate.level(level).threshold(0);
            for mut subject in [server(deflate, ANY), client(deflate, "server_no_context_takeover")]
            {
                let mut peer = Peer::new();
                for i in 0..20u64 {
                    let message = format!("message {i} of 20, ").repeat(i as usize);
                    let message = [message.as_bytes(), &noise(i as usize, i)].concat();
                    let sent = send(&mut subject, &message);
                    assert!(!sent.ends_with(&MARKER), "{deflate:?}: {sent:x?}");
                    assert_eq!(peer.inflate(&sent), message, "{deflate:?}");
                }
            }
        }
    }
}

#[test]
fn rfc7692_7_2_3_6_an_empty_message_is_one_byte() {
    for deflate in modes() {
        let mut server = server(deflate.threshold(0), ANY);
        let mut peer = Peer::new();
        for message in ["", "", "text", "", ""] {
            let sent = send(&mut server, message.as_bytes());
            assert_eq!(peer.inflate(&sent), message.as_bytes());
            assert!(!message.is_empty() || sent == [0], "{deflate:?}: {sent:x?}");
        }
        for cuts in [&[][..], &[0], &[0, 0, 0]] {
            let sent = payload(&send_pieces(&mut server, b"", cuts));
            assert_eq!(peer.inflate(&sent), b"", "{deflate:?}, {cuts:?}");
        }
        let sent = payload(&send_pieces(&mut server, b"text", &[4]));
        assert_eq!(peer.inflate(&sent), b"text", "the last piece is empty");
    }
}

#[test]
fn messages_below_the_threshold_are_not_compressed() {
    for (deflate, threshold) in [
        (Deflate::pooled(), 64),
        (Deflate::dedicated(), 64),
        (Deflate::pooled().threshold(0), 0),
        (Deflate::pooled().threshold(1), 1),
        (Deflate::no_takeover().threshold(20_000), 20_000), // above the limit of the fast path
    ] {
        for mut subject in [server(deflate, ANY), client(deflate, "server_no_context_takeover")] {
            for len in [0, 1, 63, 64, 65, 16_383, 16_384, 19_999, 20_000, 20_001] {
                let message = vec![b'x'; len];
                subject.send(&message[..]).unwrap();
                let Subject { connection, out, .. } = &mut subject;
                connection.sender.send_prepared(&Prepared::new(&message[..]), out).unwrap();
                for frame in subject.sent() {
                    let is_compressed = len >= threshold;
                    assert_eq!(frame.rsv == RSV1, is_compressed, "{len} bytes, {threshold}");
                    assert!(is_compressed || frame.payload == message);
                }
            }
            // The size of a message in pieces is not known.
            let sent = payload(&send_pieces(&mut subject, b"x", &[]));
            assert_eq!(inflate_alone(&sent), b"x");
        }
    }
}

#[test]
fn settings_out_of_range_become_the_nearest() {
    let deflate = Deflate::pooled();
    assert_eq!(deflate.level(0), deflate.level(1));
    assert_eq!(deflate.level(255), deflate.level(9));
    assert_eq!(deflate.window_bits(8), deflate.window_bits(9));
    assert_eq!(deflate.window_bits(16), deflate.window_bits(15));
    assert_eq!(deflate.receive_window_bits(0), deflate.receive_window_bits(8));
    assert_eq!(deflate.receive_window_bits(16), deflate.receive_window_bits(15));
    assert_eq!(Deflate::default(), deflate);
}

/// zlib may fill the room that it is given exactly, and have more to write.
#[test]
fn pitfall_output_is_not_truncated_when_it_fills_its_buffer() {
    for deflate in [Deflate::no_takeover(), Deflate::dedicated(), Deflate::pooled().level(1)] {
        let mut server = server(deflate.threshold(0), ANY);
        let mut peer = Peer::new();
        for len in (0..1200).chain((15_000..140_000).step_by(1237)) {
            let message = noise(len, len as u64);
            let sent = send(&mut server, &message);
            // Fixed codes, which level 1 always uses, make noise 6 % longer.
            assert!(sent.len() <= len + len / 15 + 20, "{len} bytes become {}", sent.len());
            assert!(peer.inflate(&sent) == message, "{deflate:?}: {len} bytes");
        }
    }
}

/// A message that was sent uncompressed is not in the peer's window (RFC 7692 §7.2.2), so later ones must not refer
/// to it.
#[test]
fn pitfall_messages_that_are_not_compressed_are_not_in_the_context() {
    for deflate in modes() {
        for mut subject in [server(deflate, ANY), client(deflate, "server_no_context_takeover")] {
            let mut peer = Peer::new();
            let (one, other, short) = (noise(300, 1), noise(300, 2), noise(63, 3));
            assert_eq!(peer.inflate(&send(&mut subject, &one)), one);

            let Subject { connection, out, .. } = &mut subject;
            let sender = &mut connection.sender;
            sender.send_uncompressed(&other, out).unwrap();
            sender.send(&short, out).unwrap();
            sender.begin_uncompressed(Kind::Binary).unwrap();
            sender.piece(&other, false, out).unwrap();
            sender.piece(&other, true, out).unwrap();
            let frames = subject.sent();
            let payloads: Vec<_> = frames.iter().map(|frame| &frame.payload).collect();
            assert_eq!(payloads, [&other, &short, &other, &other]);
            assert!(frames.iter().all(|frame| frame.rsv == 0));

            for message in [&other, &[&short[..], &short].concat(), &one, &other] {
                assert_eq!(&peer.inflate(&send(&mut subject, message)), message, "{deflate:?}");
            }
        }
    }
}

#[test]
fn a_message_in_pieces_is_one_message() {
    let message = noise(3000, 4).repeat(3);
    for deflate in modes() {
        for mut subject in [server(deflate, ANY), client(deflate, "server_no_context_takeover")] {
            let mut peer = Peer::new();
            for cuts in
                [&[][..], &[0], &[1, 2, 3, 3, 3], &[3000, 6000], &[100, 9000], &[9000, 9000]]
            {
                let sent = payload(&send_pieces(&mut subject, &message, cuts));
                assert!(peer.inflate(&sent) == message, "{deflate:?}, {cuts:?}");
                let sent = send(&mut subject, &message[..500]);
                assert!(peer.inflate(&sent) == message[..500], "{deflate:?}, after {cuts:?}");
            }
        }
    }
}

/// Without takeover, too, a piece refers to those before it.
#[test]
fn a_piece_refers_to_earlier_pieces() {
    for deflate in modes() {
        let mut server = server(deflate, ANY);
        let frames = send_pieces(&mut server, &noise(90, 5).repeat(3), &[90, 180]);
        let [first, second, third] = &frames[..] else { panic!("{frames:?}") };
        assert!(first.payload.len() > 80);
        assert!(second.payload.len() < 30 && third.payload.len() < 30, "{deflate:?}: {frames:?}");
    }
}

#[test]
fn rfc7692_7_1_1_without_takeover_a_message_refers_to_no_other() {
    let message = noise(200, 6);
    let asked = "server_no_context_takeover";
    let told = "client_no_context_takeover; server_no_context_takeover";
    for deflate in modes() {
        for mut subject in [server(deflate, asked), client(deflate, told)] {
            for cuts in [None, Some(&[100][..]), None, Some(&[50, 150])] {
                let sent = match cuts {
                    None => send(&mut subject, &message),
                    Some(cuts) => payload(&send_pieces(&mut subject, &message, cuts)),
                };
                assert_eq!(inflate_alone(&sent), message, "{deflate:?}");
                assert!(sent.len() > 200);
            }
        }
    }
}

#[test]
fn with_takeover_a_message_refers_to_earlier_ones() {
    let message = noise(200, 7);
    for (deflate, apart, refers) in [
        (Deflate::pooled(), 0, true),
        (Deflate::pooled(), 800, true),
        (Deflate::pooled(), 1100, false), // the history is 1 KiB
        (Deflate::pooled().history(4000), 1100, true),
        (Deflate::pooled().history(100), 0, false),
        (Deflate::pooled().history(usize::MAX).window_bits(15), 30_000, true),
        (Deflate::pooled().history(usize::MAX), 30_000, false), // the window is 4 KiB
        (Deflate::no_takeover(), 0, false),
        (Deflate::dedicated(), 3000, true),
        (Deflate::dedicated(), 4000, false),
        (Deflate::dedicated().window_bits(15), 30_000, true),
    ] {
        let mut server = server(deflate, ANY);
        let mut peer = Peer::new();
        for message in [&message, &noise(apart, 8)] {
            if !message.is_empty() {
                assert_eq!(&peer.inflate(&send(&mut server, message)), message);
            }
        }
        let sent = send(&mut server, &message);
        assert_eq!(peer.inflate(&sent), message);
        assert_eq!(sent.len() < 50, refers, "{deflate:?}, {apart} bytes later: {}", sent.len());
    }
}

/// A compressor refers back no further than was agreed, also within a message.
#[test]
fn rfc7692_7_1_2_the_window_is_what_was_agreed() {
    for bits in [9, 10, 12, 15] {
        // zlib does not use the last 262 bytes of its window.
        for (apart, refers) in [((1 << bits) - 270, true), ((1 << bits) + 1, false)] {
            let (part, between) = (noise(100, 9), noise(apart - 100, 10));
            let repeated = [b"-", &part[..], &between, &part].concat();
            let other = [b"-", &part[..], &between, &noise(100, 11)].concat();
            for deflate in [Deflate::pooled(), Deflate::no_takeover(), Deflate::dedicated()] {
                let deflate = deflate.window_bits(15);
                let sizes = [&repeated, &other].map(|message| {
                    let asked = format!("server_max_window_bits={bits}");
                    let told = format!("server_no_context_takeover; client_max_window_bits={bits}");
                    let sent = send(&mut server(deflate, &asked), message);
                    assert_eq!(send(&mut client(deflate, &told), message).len(), sent.len());
                    assert_eq!(&inflate_alone(&sent), message);
                    sent.len()
                });
                let saved = sizes[0] + 40 < sizes[1];
                assert_eq!(
                    saved, refers,
                    "{deflate:?}: {bits} bits, {apart} bytes back, {sizes:?}"
                );
            }
        }
    }
}

/// A small window for what is sent, a large one for what is received, and the reverse.
#[test]
fn pitfall_each_direction_has_its_own_window() {
    let [part, between] = [noise(200, 13), noise(2000, 14)];
    for deflate in [Deflate::pooled().history(usize::MAX), Deflate::dedicated()] {
        let deflate = deflate.window_bits(15).receive_window_bits(15);
        let bits = |server: u8, client: u8| {
            format!("server_max_window_bits={server}; client_max_window_bits={client}")
        };
        for (mut subject, sends_far) in [
            (server(deflate, &bits(9, 15)), false),
            (server(deflate, &bits(15, 9)), true),
            (client(deflate, &bits(15, 9)), false),
            (client(deflate, &bits(9, 15)), true),
        ] {
            let sizes = [&part, &between, &part].map(|message| send(&mut subject, message).len());
            assert_eq!(sizes[2] < 50, sends_far, "{deflate:?}: {sizes:?}");
            let mut peer = Peer::new();
            subject.receive(
                &[&part, &between, &part].map(|message| compressed(peer.deflate(message))),
            );
            let received = if sends_far { 2 } else { 3 };
            assert_eq!(subject.seen().len(), received, "{deflate:?}: {:?}", subject.failures);
        }
    }
}

/// A compressor of the thread serves connections with the same window and level.
#[test]
fn rfc7692_7_1_2_a_borrowed_compressor_has_the_window_that_was_agreed() {
    let message = [&b"-"[..], &noise(100, 15), &noise(1000, 16), &noise(100, 15)].concat();
    let deflate = Deflate::no_takeover().window_bits(15);
    let mut wide = server(deflate, "server_max_window_bits=15");
    let mut narrow = server(deflate, "server_max_window_bits=9");
    let mut fast = server(deflate.level(1), "server_max_window_bits=15");
    let mut alone = server(deflate.level(1), "server_max_window_bits=15");
    for _ in 0..3 {
        let size = send(&mut wide, &message).len();
        std::mem::swap(&mut wide.out.contexts, &mut narrow.out.contexts);
        assert!(send(&mut narrow, &message).len() > size + 30, "it refers back too far");
        std::mem::swap(&mut narrow.out.contexts, &mut fast.out.contexts);
        assert_eq!(send(&mut fast, &message), send(&mut alone, &message));
        std::mem::swap(&mut fast.out.contexts, &mut wide.out.contexts);
    }
}

/// A server may use a smaller window than it was asked for; a client has no say in what it was told.
#[test]
fn a_window_of_ones_own_is_kept() {
    let (part, between) = (noise(100, 10), noise(1000, 11));
    let message = [&part[..], &between, &part].concat();
    for deflate in [Deflate::pooled(), Deflate::dedicated()] {
        let deflate = deflate.window_bits(9);
        let told = "server_no_context_takeover; client_max_window_bits=15";
        for mut subject in [server(deflate, "server_max_window_bits=15"), client(deflate, told)] {
            assert!(send(&mut subject, &message).len() > 1190);
        }
    }
}

/// zlib has no raw window of 256 bytes. The client that is told to use it does not compress, and decompresses.
#[test]
fn pitfall_a_client_that_is_told_a_window_of_8_bits_sends_uncompressed() {
    let message = noise(200, 12).repeat(2);
    for deflate in modes() {
        let mut client =
            client(deflate.threshold(0), "server_no_context_takeover; client_max_window_bits=8");
        client.send(&message[..]).unwrap();
        client.send("").unwrap();
        let Subject { connection, out, .. } = &mut client;
        connection.sender.send_prepared(&Prepared::new(&message[..]), out).unwrap();
        connection.sender.begin(Kind::Text).unwrap();
        connection.sender.piece(b"te", false, out).unwrap();
        connection.sender.piece(b"xt", true, out).unwrap();
        let frames = client.sent();
        assert!(frames.iter().all(|frame| frame.rsv == 0), "{frames:?}");
        assert_eq!((&frames[0].payload, &frames[1]), (&message, &text("")));
        assert_eq!((&frames[2].payload, frames.len()), (&message, 5));

        client.receive(&[compressed(Peer::new().deflate(&message))]);
        assert_eq!(client.seen(), [crate::subject::Seen::binary(&message)]);
        assert_eq!(client.role(), Role::Client);
    }
}
