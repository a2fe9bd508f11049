//! Round trips of any messages, in any form, between any two configurations, however their bytes arrive.

use anyloop_proto::deflate::Deflate;
use anyloop_proto::{BufferPool, Kind, Prepared, Role};
use anyloop_testkit::frames::{Frame, other, stream};
use proptest::collection::vec;
use proptest::prelude::*;

use super::peer::Peer;
use super::{agreed, compressed, fragments, noise, receiver};
use crate::pair::{Cut, Pair};
use crate::subject::{Reading, Seen, Subject, seconds};

fn deflate() -> impl Strategy<Value = Deflate> {
    let mode = prop_oneof![
        Just(Deflate::pooled()),
        (0usize..5000).prop_map(|bytes| Deflate::pooled().history(bytes)),
        Just(Deflate::no_takeover()),
        Just(Deflate::dedicated()),
    ];
    (mode, 1u8..=9, 0usize..200, 9u8..=15, 8u8..=15).prop_map(
        |(mode, level, threshold, window, receive)| {
            mode.level(level).threshold(threshold).window_bits(window).receive_window_bits(receive)
        },
    )
}

/// Payloads: of all kinds of content, most of which resemble each other.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-f]{0,300}".prop_map(String::into_bytes),
        2 => (0usize..2000, 0u64..3).prop_map(|(len, seed)| noise(len, seed)),
        1 => vec(any::<u8>(), 0..300),
        1 => (any::<u8>(), 0usize..100_000).prop_map(|(byte, len)| vec![byte; len]),
        1 => (60_000usize..70_000, 0u64..3).prop_map(|(len, seed)| noise(len, seed)),
    ]
}

#[derive(Clone, Debug)]
enum Form {
    Whole,
    Uncompressed,
    Prepared,
    Pieces(Vec<prop::sample::Index>),
    UncompressedPieces,
    Ping,
}

fn form() -> impl Strategy<Value = Form> {
    prop_oneof![
        4 => Just(Form::Whole),
        1 => Just(Form::Uncompressed),
        2 => Just(Form::Prepared),
        2 => vec(any::<prop::sample::Index>(), 0..4).prop_map(Form::Pieces),
        1 => Just(Form::UncompressedPieces),
        1 => Just(Form::Ping),
    ]
}

fn reading() -> impl Strategy<Value = u8> {
    0u8..3
}

fn set_reading(subject: &mut Subject, reading: u8) {
    subject.reading = match reading {
        0 => Reading::Plain,
        1 => Reading::Pooled(BufferPool::new(1 << 20)),
        _ => Reading::InPlace(BufferPool::new(1 << 20)),
    };
}

/// Sends a message in this form, with pings between its pieces.
fn send(subject: &mut Subject, payload: &[u8], form: &Form) {
    let Subject { connection, out, .. } = subject;
    let sender = &mut connection.sender;
    match form {
        Form::Whole => sender.send(payload, out).unwrap(),
        Form::Uncompressed => sender.send_uncompressed(payload, out).unwrap(),
        Form::Prepared => sender.send_prepared(&Prepared::new(payload), out).unwrap(),
        Form::Ping => sender.ping(&payload[..payload.len().min(125)], out).unwrap(),
        Form::Pieces(cuts) => {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
            cuts.sort_unstable();
            sender.begin(Kind::Binary).unwrap();
            let mut at = 0;
            for cut in cuts {
                sender.piece(&payload[at..cut], false, out).unwrap();
                sender.ping(b"between", out).unwrap();
                at = cut;
            }
            sender.piece(&payload[at..], true, out).unwrap();
        }
        Form::UncompressedPieces => {
            sender.begin_uncompressed(Kind::Binary).unwrap();
            sender.piece(payload, false, out).unwrap();
            sender.piece(b"", true, out).unwrap();
        }
    }
}

/// The messages, with chunks joined, and without control frames.
fn messages(events: Vec<Seen>) -> Vec<Vec<u8>> {
    let (mut messages, mut unfinished) = (Vec::new(), Vec::new());
    for event in events {
        match event {
            Seen::Binary(payload) => messages.push(payload),
            Seen::Chunk { payload, last, .. } => {
                unfinished.extend(payload);
                if last {
                    messages.push(std::mem::take(&mut unfinished));
                }
            }
            Seen::Ping(_) | Seen::Pong(..) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(unfinished.is_empty());
    messages
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_one_side_sends_is_what_the_other_receives(
        of_client in deflate(),
        of_server in deflate(),
        all in vec((any::<bool>(), payload(), form()), 0..12),
        cuts in vec(1usize..5000, 1..4),
        streaming in any::<bool>(),
        reading in reading(),
    ) {
        let (mut client, mut server) =
            agreed(of_client, of_server, |config| config.streaming = streaming);
        set_reading(&mut client, reading);
        set_reading(&mut server, reading);
        let mut sent = [Vec::new(), Vec::new()];
        for (from_server, payload, form) in all {
            let (from, to) =
                if from_server { (&mut server, &mut client) } else { (&mut client, &mut server) };
            send(from, &payload, &form);
            let bytes = std::mem::take(&mut from.out.buffer);
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                let (part, later) = rest.split_at(rest.len().min(*cut));
                to.feed(part);
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(&to.failures, &[]);
            if !matches!(form, Form::Ping) {
                sent[usize::from(from_server)].push(payload);
            }
        }
        let received = [messages(server.seen()), messages(client.seen())];
        prop_assert!(received == sent);
    }

    /// The result does not depend on how a message of another compressor, perhaps damaged, is fragmented, arrives or
    /// is reported.
    #[test]
    fn any_chunking_decompresses_to_the_same(
        all in vec((payload(), any::<bool>()), 1..4),
        damage in prop::option::of((any::<prop::sample::Index>(), 1u8..)),
        fragment in prop_oneof![1usize..20, 20usize..100_000],
        chunk in prop_oneof![1usize..20, 20usize..100_000],
        limit in prop_oneof![4 => Just(1usize << 20), 1 => 0usize..2000],
        reading in reading(),
    ) {
        let mut peer = Peer::new();
        let mut frames: Vec<Frame> = all.iter().map(|(payload, last)| compressed(match last {
            true => [peer.deflate_final(payload), vec![0]].concat(),
            false => peer.deflate(payload),
        })).collect();
        if let Some((at, bits)) = damage {
            let last = &mut frames.last_mut().unwrap().payload;
            let at = at.index(last.len());
            last[at] ^= bits;
        }
        let run = |fragment: usize, chunk: usize, streaming: bool, reading: u8| {
            let mut server = receiver(15, |config| {
                (config.streaming, config.max_message_size) = (streaming, limit as u64);
            });
            set_reading(&mut server, reading);
            let frames: Vec<_> = frames.iter().flat_map(|frame| {
                fragments(frame, fragment.max(frame.payload.len() / 2000 + 1))
            }).collect();
            stream(&frames, other(Role::Server)).chunks(chunk.max(50)).for_each(|part| server.feed(part));
            let whole: Vec<_> = server.seen().into_iter().filter_map(|seen| match seen {
                Seen::Binary(payload) => Some(payload),
                Seen::Chunk { payload, last: true, first: true, .. } => Some(payload),
                Seen::Chunk { .. } => None,
                other => panic!("{other:?}"),
            }).collect();
            let received = server.connection.statistics().messages_received;
            (whole, received, server.failures.first().map(|failure| failure.cause()))
        };
        let expected = run(usize::MAX, usize::MAX, false, 0);
        for fragment in [fragment, usize::MAX] {
            for chunk in [chunk, usize::MAX] {
                prop_assert!(run(fragment, chunk, false, reading) == expected);
                let streamed = run(fragment, chunk, true, reading);
                prop_assert_eq!((streamed.1, streamed.2), (expected.1, expected.2));
            }
        }
        let intact = damage.is_none() && all.iter().all(|(payload, _)| payload.len() <= limit);
        if intact {
            let payloads: Vec<_> = all.into_iter().map(|(payload, _)| payload).collect();
            prop_assert!(expected.0 == payloads);
        }
    }
}

/// Sizes at which something changes: the threshold, the forms of the length, the buffers.
#[test]
fn messages_of_every_size_cross_the_links() {
    const SIZES: [usize; 14] =
        [0, 1, 63, 64, 65, 125, 126, 127, 16_383, 65_534, 65_535, 65_536, 65_537, 1 << 20];
    for deflate in super::modes() {
        for (cut, window) in [(Cut::Whole, usize::MAX), (Cut::Every(4000), 20_000)] {
            let (client, server) = agreed(deflate, deflate, |_| ());
            let mut pair = Pair::of(client, server).cut(cut).window(window);
            pair.server.subject.echo = true;
            for size in SIZES {
                for message in [noise(size, size as u64), vec![b'r'; size]] {
                    pair.act(Role::Client, |client| {
                        client.send(&message[..]).unwrap();
                        client.connection.sender.ping(b"after", &mut client.out).unwrap();
                    });
                    pair.drive_for(seconds(10));
                    assert_eq!(
                        (&pair.client.subject.failures[..], &pair.server.subject.failures[..]),
                        (&[][..], &[][..])
                    );
                    let [server, client] =
                        [&mut pair.server, &mut pair.client].map(|side| side.subject.seen());
                    assert!(messages(server) == [&message[..]], "{size} bytes, {deflate:?}");
                    assert!(messages(client) == [&message[..]], "{size} bytes back, {deflate:?}");
                }
            }
            pair.close(Role::Client, 1000, "").unwrap();
            pair.drive();
            pair.assert_ended();
        }
    }
}
