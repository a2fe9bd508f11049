//! Sending: headers, masking, fragments, and payloads that are written by reference.

use std::collections::HashSet;
use std::sync::Arc;

use anyloop_proto::{
    Connection, Instant, Kind, LARGE_PAYLOAD, Message, Output, Prepared, Refused, Role,
};
use anyloop_testkit::frames::{Frame, binary, close, continuation, ping, text};

use crate::heap::measure;
use crate::subject::{Subject, config};

const ROLES: [Role; 2] = [Role::Client, Role::Server];

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| b'a' + (i % 23) as u8).collect()
}

/// Lengths on both sides of each boundary between forms of the header, and of other code paths.
const LENGTHS: [usize; 13] = [
    0,
    1,
    124,
    125,
    126,
    127,
    1000,
    LARGE_PAYLOAD - 1,
    LARGE_PAYLOAD,
    65_534,
    65_535,
    65_536,
    200_000,
];

#[test]
fn rfc6455_5_2_a_message_is_one_frame_with_the_shortest_header() {
    for role in ROLES {
        for len in LENGTHS {
            let payload = payload(len);
            let as_text = std::str::from_utf8(&payload).unwrap();
            for by_reference in [false, true] {
                let mut subject = Subject::new(role, config(|_| ()));
                subject.out.by_reference = by_reference;
                subject.send(&payload[..]).unwrap();
                subject.send(as_text).unwrap();
                subject.send(Message::Text(as_text.into())).unwrap();
                let expected = [binary(&payload), text(&payload), text(&payload)];
                assert_eq!(subject.sent(), expected, "{role:?} {len}");
            }
        }
    }
}

#[test]
fn rfc6455_5_3_a_client_masks_each_frame_with_a_key_of_its_own() {
    let mut client = Subject::client();
    let mut keys = HashSet::new();
    for i in 0..20 {
        let message = payload(i * 20);
        client.send(&message[..]).unwrap();
        client.connection.sender.ping(b"", &mut client.out).unwrap();
        client.connection.sender.send_prepared(&Prepared::new("p"), &mut client.out).unwrap();
        let mut rest = &client.out.buffer[..];
        while !rest.is_empty() {
            let header = if rest[1] & 0x7f == 126 { 4 } else { 2 };
            let key: [u8; 4] = rest[header..header + 4].try_into().unwrap();
            let len = match rest[1] & 0x7f {
                126 => usize::from(u16::from_be_bytes([rest[2], rest[3]])),
                len => usize::from(len),
            };
            assert!(keys.insert(key), "a key is used twice");
            rest = &rest[header + 4 + len..];
        }
        assert_eq!(client.sent(), [binary(&message), ping(""), text("p")]);
    }
    assert_eq!(keys.len(), 60);
}

#[test]
fn output_is_appended_to_the_buffer() {
    for role in ROLES {
        let mut subject = Subject::new(role, config(|_| ()));
        subject.out.buffer.extend_from_slice(b"before");
        subject.send("message").unwrap();
        subject.close(1000, "").unwrap();
        assert_eq!(subject.out.buffer[..6], *b"before");
        subject.out.buffer.drain(..6);
        assert_eq!(subject.sent(), [text("message"), close(1000, "")]);
    }
}

#[test]
fn rfc6455_5_4_pieces_are_fragments_of_one_message() {
    for role in ROLES {
        let mut subject = Subject::new(role, config(|_| ()));
        let large = payload(70_000);
        let Subject { connection, out, .. } = &mut subject;
        let sender = &mut connection.sender;
        sender.begin(Kind::Binary).unwrap();
        sender.piece(b"a", false, out).unwrap();
        sender.piece(b"", false, out).unwrap();
        sender.piece(&large, false, out).unwrap();
        sender.piece(b"", true, out).unwrap();
        sender.begin(Kind::Text).unwrap();
        sender.piece("whole".as_bytes(), true, out).unwrap();
        sender.begin(Kind::Text).unwrap();
        sender.piece(&"é".as_bytes()[..1], false, out).unwrap();
        sender.piece(&"é".as_bytes()[1..], true, out).unwrap();
        assert_eq!(
            subject.sent(),
            [
                binary("a").more(),
                continuation("").more(),
                continuation(&large).more(),
                continuation(""),
                text("whole"),
                text([0xc3]).more(),
                continuation([0xa9]),
            ]
        );
    }
}

#[test]
fn rfc6455_5_4_no_message_is_sent_between_the_pieces_of_another() {
    for role in ROLES {
        let mut subject = Subject::new(role, config(|_| ()));
        let Subject { connection, out, .. } = &mut subject;
        let sender = &mut connection.sender;
        assert_eq!(sender.piece(b"", true, out), Err(Refused::NoMessageBegun));
        sender.begin(Kind::Binary).unwrap();
        assert!(out.buffer.is_empty(), "nothing is sent before the first piece");
        let unfinished = Err(Refused::MessageUnfinished);
        for last in [false, true] {
            assert_eq!(sender.send("short", out), unfinished);
            assert_eq!(sender.send(&payload(20_000)[..], out), unfinished);
            assert_eq!(sender.send_prepared(&Prepared::new("x"), out), unfinished);
            assert_eq!(sender.begin(Kind::Text), unfinished);
            sender.piece(b"p", last, out).unwrap();
        }
        assert_eq!(sender.piece(b"", true, out), Err(Refused::NoMessageBegun));
        sender.send("free again", out).unwrap();
        assert_eq!(subject.sent(), [binary("p").more(), continuation("p"), text("free again")]);
    }
}

/// A server's large payloads are offered by reference. A client's are masked, so they are copied.
#[test]
fn large_payloads_that_are_not_masked_are_offered_by_reference() {
    for role in ROLES {
        let mut subject = Subject::new(role, config(|_| ()));
        subject.out.by_reference = true;
        let (small, large) = (payload(LARGE_PAYLOAD - 1), payload(LARGE_PAYLOAD));
        subject.send("before").unwrap();
        subject.send(&small[..]).unwrap();
        assert_eq!(subject.out.vectored, 0);
        subject.send(&large[..]).unwrap();
        let Subject { connection, out, .. } = &mut subject;
        connection.sender.begin(Kind::Binary).unwrap();
        connection.sender.piece(&large, false, out).unwrap();
        connection.sender.piece(&small, true, out).unwrap();
        assert_eq!(out.vectored, if role == Role::Server { 2 } else { 0 });
        assert_eq!(
            subject.sent(),
            [
                text("before"),
                binary(&small),
                binary(&large),
                binary(&large).more(),
                continuation(&small),
            ]
        );
    }
}

#[test]
fn a_prepared_message_is_shared_by_servers_and_masked_by_each_client() {
    for role in ROLES {
        for len in LENGTHS {
            let payload = payload(len);
            let prepared = Prepared::new(&payload[..]);
            assert_eq!(prepared.message(), Message::Binary(&payload));
            for by_reference in [false, true] {
                let mut subject = Subject::new(role, config(|_| ()));
                subject.out.by_reference = by_reference;
                let Subject { connection, out, .. } = &mut subject;
                connection.sender.send_prepared(&prepared, out).unwrap();
                let shared = usize::from(by_reference && role == Role::Server);
                assert_eq!(subject.out.shared, shared);
                assert_eq!(subject.sent(), [binary(&payload)], "{role:?} {len}");
            }
        }
    }
    let prepared = Prepared::new("é");
    assert_eq!(prepared.message(), Message::from("é"));
    assert!(format!("{prepared:?}").contains('é'));
}

/// Broadcasting to outputs that accept shared frames allocates nothing per connection.
#[test]
fn a_prepared_message_is_not_copied_for_an_output_that_keeps_references() {
    struct References(Vec<u8>, Vec<Arc<[u8]>>);

    impl Output for References {
        fn buffer(&mut self) -> &mut Vec<u8> {
            &mut self.0
        }

        fn write_shared(&mut self, frame: &Arc<[u8]>) -> bool {
            self.1.push(frame.clone());
            true
        }
    }

    let now = Instant::from_nanos(0);
    let mut server = Connection::new(Role::Server, config(|_| ()), now);
    let mut out = References(Vec::new(), Vec::with_capacity(100));
    let prepared = Prepared::new(&payload(100_000)[..]);
    let ((), usage) = measure(|| {
        for _ in 0..100 {
            server.sender.send_prepared(&prepared, &mut out).unwrap();
        }
    });
    assert_eq!(usage.allocations, 0);
    assert_eq!((out.0.len(), out.1.len()), (0, 100));
}

/// `&mut Output` forwards all methods of `Output`.
#[test]
fn a_borrowed_output_forwards_all_methods() {
    let mut server = Subject::server();
    server.out.by_reference = true;
    let large = payload(LARGE_PAYLOAD);
    let Subject { connection, out, .. } = &mut server;
    let mut borrowed = &mut *out;
    connection.sender.send(&large[..], &mut borrowed).unwrap();
    connection.sender.send_prepared(&Prepared::new("x"), &mut borrowed).unwrap();
    assert!(!borrowed.is_blocked());
    assert_eq!((server.out.vectored, server.out.shared), (1, 1));
    let frames: Vec<Frame> = server.sent();
    assert_eq!(frames, [binary(&large), text("x")]);
}
