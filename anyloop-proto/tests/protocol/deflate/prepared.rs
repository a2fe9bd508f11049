//! Prepared messages: compressed once for connections with the same parameters.

use anyloop_proto::deflate::Deflate;
use anyloop_proto::{Kind, Prepared, Uncompressed};
use anyloop_testkit::frames::Frame;

use super::peer::{Peer, inflate_alone};
use super::{RSV1, client, modes, noise, server};
use crate::heap::measure;
use crate::subject::Subject;

const ANY: &str = "client_max_window_bits";

fn send_prepared(subject: &mut Subject, prepared: &Prepared) -> Frame {
    let Subject { connection, out, .. } = subject;
    connection.sender.send_prepared(prepared, out).unwrap();
    let [frame] = &subject.sent()[..] else { panic!("one frame") };
    frame.clone()
}

fn send(subject: &mut Subject, message: &[u8]) -> Frame {
    subject.send(message).unwrap();
    subject.sent().remove(0)
}

/// Connections with different parameters, each with a peer that decompresses its stream.
fn connections() -> Vec<(Subject, Peer)> {
    let mut connections = Vec::new();
    for offer in
        [ANY, "server_no_context_takeover", "server_max_window_bits=9", "server_max_window_bits=10"]
    {
        for deflate in modes() {
            connections.push((server(deflate, offer), Peer::new()));
            connections.push((server(deflate.level(1).threshold(0), offer), Peer::new()));
        }
    }
    for deflate in modes() {
        connections.push((client(deflate, "server_no_context_takeover"), Peer::new()));
        let told =
            "server_no_context_takeover; client_no_context_takeover; client_max_window_bits=9";
        connections.push((client(deflate, told), Peer::new()));
    }
    connections
}

#[test]
fn a_prepared_message_is_part_of_every_stream() {
    let mut connections = connections();
    for round in 0..10u64 {
        // Similar messages, of which each stream refers to earlier ones where it can.
        let news = [noise(100, 1), noise(50, round), noise(200, 2)].concat();
        let prepared = Prepared::new(&news);
        for (i, (subject, peer)) in connections.iter_mut().enumerate() {
            let own = [noise(100, 1), noise(30, i as u64)].concat();
            let frame = send(subject, &own);
            assert_eq!(peer.inflate(&frame.payload), own);
            for _ in 0..i % 3 {
                let frame = send_prepared(subject, &prepared);
                assert_eq!((frame.rsv, frame.fin), (RSV1, true));
                assert!(peer.inflate(&frame.payload) == news, "connection {i}");
            }
            let frame = send(subject, &news);
            assert!(peer.inflate(&frame.payload) == news, "connection {i}");
        }
    }
}

/// Without takeover each message stands alone, the prepared one and those after it.
#[test]
fn rfc7692_7_1_1_1_a_prepared_message_without_takeover() {
    let news = noise(300, 3);
    for deflate in modes() {
        let mut server = server(deflate, "server_no_context_takeover");
        for _ in 0..3 {
            assert_eq!(
                inflate_alone(&send_prepared(&mut server, &Prepared::new(&news)).payload),
                news
            );
            assert_eq!(inflate_alone(&send(&mut server, &news).payload), news);
        }
    }
}

/// A message after a prepared one refers to it.
#[test]
fn a_prepared_message_is_in_the_history() {
    for deflate in [Deflate::pooled(), Deflate::dedicated()] {
        let mut server = server(deflate, ANY);
        let news = noise(300, 4);
        send_prepared(&mut server, &Prepared::new(&news));
        assert!(send(&mut server, &news).payload.len() < 50);
    }
}

#[test]
fn connections_with_the_same_parameters_send_the_same_bytes() {
    let prepared = Prepared::new(&noise(500, 5).repeat(4));
    let mut first = server(Deflate::pooled(), ANY);
    let mut others = [
        server(Deflate::pooled().history(10), ANY),
        server(Deflate::no_takeover(), "server_max_window_bits=12"),
        server(Deflate::pooled().threshold(0), "server_no_context_takeover"),
    ];
    first.out.by_reference = true;
    let frame = send_prepared(&mut first, &prepared);
    send(&mut first, &noise(500, 6));
    for other in &mut others {
        other.out.by_reference = true;
        let (sent, usage) = measure(|| {
            let Subject { connection, out, .. } = other;
            out.buffer.reserve(2000);
            connection.sender.send_prepared(&prepared, out)
        });
        assert_eq!(sent, Ok(()));
        assert!(usage.peak < 5_000, "no compressor is needed");
        assert_eq!((other.out.shared, other.sent()), (1, vec![frame.clone()]));
    }
    assert_eq!(send_prepared(&mut first, &prepared), frame, "it refers to no earlier message");
    // Other levels and windows have frames of their own.
    let mut fast = server(Deflate::pooled().level(1), ANY);
    let mut narrow = server(Deflate::pooled(), "server_max_window_bits=9");
    for (subject, differs) in [(&mut fast, true), (&mut narrow, true)] {
        let other = send_prepared(subject, &prepared);
        assert_eq!(other != frame, differs);
        assert_eq!(inflate_alone(&other.payload), inflate_alone(&frame.payload));
    }
}

/// A message keeps frames for four sets of parameters. Others compress their own copies.
#[test]
fn more_parameters_than_a_message_keeps_frames_for() {
    let news = noise(300, 7);
    let prepared = Prepared::new(&news);
    for round in 0..2 {
        for level in 1..=9 {
            let mut server = server(Deflate::pooled().level(level), ANY);
            server.out.by_reference = true;
            let mut peer = Peer::new();
            for _ in 0..2 {
                let frame = send_prepared(&mut server, &prepared);
                assert_eq!(peer.inflate(&frame.payload), news);
            }
            let shared = if level <= 4 { 2 } else { 0 };
            assert_eq!(server.out.shared, shared, "level {level} in round {round}");
        }
    }
}

#[test]
fn uncompressed_and_short_prepared_messages_are_sent_as_they_are() {
    let (long, short) = (noise(300, 8), noise(63, 9));
    for (mut subject, mut peer) in connections() {
        let plain = send_prepared(&mut subject, &Uncompressed(&long).into());
        assert_eq!((plain.rsv, &plain.payload), (0, &long));
        assert_eq!(
            peer.inflate(&send(&mut subject, &long).payload),
            long,
            "it is not in the history"
        );
        let plain = send_prepared(&mut subject, &Prepared::new(&short));
        assert!(plain.rsv == RSV1 || plain.payload == short);
        let last = send_prepared(&mut subject, &Prepared::new(&long));
        if plain.rsv == RSV1 {
            assert_eq!(peer.inflate(&plain.payload), short);
        }
        assert_eq!(peer.inflate(&last.payload), long);
    }
}

/// As other messages, a prepared one cannot be sent between the pieces of another one.
#[test]
fn a_prepared_message_does_not_interrupt_another() {
    let mut server = server(Deflate::pooled(), ANY);
    let mut peer = Peer::new();
    let prepared = Prepared::new(&noise(100, 10));
    let Subject { connection, out, .. } = &mut server;
    connection.sender.begin(Kind::Binary).unwrap();
    connection.sender.piece(&noise(100, 10), false, out).unwrap();
    assert!(connection.sender.send_prepared(&prepared, out).is_err());
    connection.sender.piece(b"end", true, out).unwrap();
    let payload: Vec<u8> = server.sent().into_iter().flat_map(|frame| frame.payload).collect();
    assert_eq!(peer.inflate(&payload), [&noise(100, 10)[..], b"end"].concat());
    assert_eq!(peer.inflate(&send_prepared(&mut server, &prepared).payload), noise(100, 10));
}
