//! Messages and their fragments: RFC 6455 §5.4 and §5.6.

use anyloop_proto::{Connection, Event, Input, Instant, Message, Role, Statistics};
use anyloop_testkit::frames::{binary, close, continuation, other, ping, pong, stream, text};

use crate::subject::{Seen, Subject, config};

const ROLES: [Role; 2] = [Role::Client, Role::Server];

#[test]
fn rfc6455_5_4_fragments_make_one_message() {
    for role in ROLES {
        let mut subject = Subject::new(role, config(|_| ()));
        subject.receive(&[text("a").more(), continuation("b").more(), continuation("c")]);
        subject.receive(&[binary("").more(), continuation("").more(), continuation("")]);
        subject.receive(&[text("").more(), continuation("late").more(), continuation("")]);
        subject.receive(&[binary("early").more(), continuation("")]);
        assert_eq!(
            subject.seen(),
            [Seen::text("abc"), Seen::binary(""), Seen::text("late"), Seen::binary("early")]
        );
        assert_eq!(subject.failures, []);
    }
}

#[test]
fn rfc6455_5_4_control_frames_are_allowed_between_fragments() {
    let frames = [
        text("a").more(),
        ping("1"),
        continuation("b").more(),
        pong("2"),
        ping(""),
        continuation("c"),
        ping("3"),
    ];
    for role in ROLES {
        let bytes = stream(&frames, other(role));
        let expected =
            [Seen::ping("1"), Seen::pong("2"), Seen::ping(""), Seen::text("abc"), Seen::ping("3")];
        let mut at_once = Subject::new(role, config(|_| ()));
        at_once.feed(&bytes);
        let mut slowly = Subject::new(role, config(|_| ()));
        slowly.feed_byte_by_byte(&bytes);
        for mut subject in [at_once, slowly] {
            assert_eq!(subject.seen(), expected);
            assert_eq!(subject.sent(), [pong("1"), pong(""), pong("3")]);
        }
    }
}

/// RFC 6455 §5.4: "Control frames MAY be injected in the middle of a fragmented message", also a Close.
#[test]
fn rfc6455_5_4_a_close_is_allowed_between_fragments() {
    let mut server = Subject::server();
    server.receive(&[text("a").more(), close(1001, ""), continuation("b")]);
    assert_eq!(server.seen(), [Seen::close(1001, "")]);
    assert_eq!(server.sent(), [close(1001, "")]);
    assert_eq!(server.failures, []);
}

#[test]
fn a_message_in_one_read_is_lent_from_the_callers_bytes() {
    let now = Instant::from_nanos(0);
    let mut connection = Connection::new(Role::Server, config(|_| ()), now);
    let Connection { receiver, sender } = &mut connection;
    let frames = [
        text("short"),
        binary([1; 4000]),
        binary([1; 70_000]),
        text("").more(), // an empty first fragment, which needs no buffer
        continuation("whole"),
    ];
    for part in [&frames[..1], &frames[1..2], &frames[2..3], &frames[3..]] {
        let mut bytes = stream(part, Role::Client);
        let range = bytes.as_ptr_range();
        let mut out = Vec::new();
        let mut input = Input::new(&mut bytes);
        let event = receiver.next(sender, &mut input, now, &mut out).unwrap();
        let Some(Event::Message(message)) = event else {
            panic!("expected a message, not {event:?}")
        };
        assert!(range.contains(&message.as_bytes().as_ptr()), "{part:?} was copied");
    }
}

#[test]
fn an_event_can_be_sent_back_while_it_is_borrowed() {
    let mut server = Subject::server();
    server.echo = true;
    let large = vec![b'x'; 20_000];
    let frames = [text("one"), text(&large), binary("t").more(), continuation("wo")];
    server.receive(&frames);
    assert_eq!(server.sent(), [text("one"), text(&large), binary("two")]);
}

#[test]
fn a_message_keeps_its_kind() {
    let mut subject = Subject::client();
    subject.receive(&[text("t"), binary("b"), text("t").more(), continuation("t")]);
    assert_eq!(subject.seen(), [Seen::text("t"), Seen::binary("b"), Seen::text("tt")]);
    assert_eq!(Message::from("t").kind(), anyloop_proto::Kind::Text);
    assert_eq!(Message::from(&b"b"[..]).kind(), anyloop_proto::Kind::Binary);
}

#[test]
fn statistics_count_messages_and_payload_bytes_of_data_frames() {
    for role in ROLES {
        let mut subject = Subject::new(role, config(|_| ()));
        assert_eq!(subject.connection.statistics(), Statistics::default());
        subject.receive(&[text("12345"), ping("not counted"), binary([0; 300]).more()]);
        let halfway = subject.connection.statistics();
        assert_eq!((halfway.messages_received, halfway.bytes_received), (1, 305));
        subject.receive(&[continuation([0; 70_000])]);
        subject.feed(&text([b'x'; 50]).bytes(other(role))[..20]);
        let received = subject.connection.statistics();
        let part = if role == Role::Server { 20 - 6 } else { 20 - 2 };
        assert_eq!((received.messages_received, received.bytes_received), (2, 70_305 + part));

        assert_eq!((received.messages_sent, received.bytes_sent), (0, 0), "pongs do not count");
        subject.send("12345").unwrap();
        subject.send(&[0; 40_000][..]).unwrap();
        let Subject { connection, out, .. } = &mut subject;
        connection.sender.begin(anyloop_proto::Kind::Binary).unwrap();
        connection.sender.piece(&[1, 2], false, out).unwrap();
        assert_eq!(connection.statistics().messages_sent, 2);
        connection.sender.piece(&[3], true, out).unwrap();
        connection.sender.send_prepared(&anyloop_proto::Prepared::new("abc"), out).unwrap();
        connection.sender.ping(b"not counted", out).unwrap();
        let sent = connection.statistics();
        assert_eq!((sent.messages_sent, sent.bytes_sent), (4, 40_011));
    }
}

/// `next` consumes no more input than its event needs.
#[test]
fn events_come_one_at_a_time_and_the_rest_stays_in_the_input() {
    let now = Instant::from_nanos(0);
    let mut connection = Connection::new(Role::Client, config(|_| ()), now);
    let Connection { receiver, sender } = &mut connection;
    let second = binary("b").bytes(Role::Server);
    let mut bytes = [text("a").bytes(Role::Server), second.clone()].concat();
    let mut out = Vec::new();
    let mut input = Input::new(&mut bytes);
    let event = receiver.next(sender, &mut input, now, &mut out).unwrap();
    assert!(matches!(event, Some(Event::Message(Message::Text(_)))));
    assert_eq!(input.rest(), second);
    assert_eq!(input.len(), second.len());
    input.discard();
    assert!(input.is_empty());
    assert!(receiver.next(sender, &mut input, now, &mut out).unwrap().is_none());
}
