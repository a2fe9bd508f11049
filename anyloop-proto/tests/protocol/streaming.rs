//! Messages received in chunks, as they arrive.

use anyloop_proto::{BufferPool, Cause, Chunk, Connection, Event, Input, Instant, Kind, Role};
use anyloop_testkit::frames::{binary, close, continuation, other, ping, pong, stream, text};

use crate::heap::{Usage, measure};
use crate::subject::{Seen, Subject, config};

const ROLES: [Role; 2] = [Role::Client, Role::Server];

fn streaming(role: Role) -> Subject {
    Subject::new(role, config(|config| config.streaming = true))
}

fn chunk(kind: Kind, payload: impl AsRef<[u8]>, first: bool, last: bool) -> Seen {
    Seen::Chunk { kind, payload: payload.as_ref().to_vec(), first, last }
}

#[test]
fn a_message_in_one_read_is_one_chunk() {
    for role in ROLES {
        let mut subject = streaming(role);
        subject.receive(&[text("whole"), binary([1; 70_000])]);
        assert_eq!(
            subject.seen(),
            [chunk(Kind::Text, "whole", true, true), chunk(Kind::Binary, [1; 70_000], true, true)]
        );
    }
}

#[test]
fn chunks_are_reported_as_bytes_arrive_also_within_a_frame() {
    for role in ROLES {
        let mut subject = streaming(role);
        let bytes = binary("abcdef").bytes(other(role));
        let header = bytes.len() - 6;
        subject.feed(&bytes[..header]);
        assert_eq!(subject.seen(), [], "an empty part is not a chunk");
        subject.feed(&bytes[header..header + 2]);
        assert_eq!(subject.seen(), [chunk(Kind::Binary, "ab", true, false)]);
        subject.feed(&bytes[header + 2..header + 3]);
        assert_eq!(subject.seen(), [chunk(Kind::Binary, "c", false, false)]);
        subject.feed(&bytes[header + 3..]);
        assert_eq!(subject.seen(), [chunk(Kind::Binary, "def", false, true)]);
    }
}

#[test]
fn rfc6455_5_4_fragments_are_chunks_of_one_message() {
    for role in ROLES {
        let mut subject = streaming(role);
        subject.receive(&[
            text("a").more(),
            ping("between"),
            continuation("b").more(),
            continuation("c"),
            text("next"),
        ]);
        assert_eq!(
            subject.seen(),
            [
                chunk(Kind::Text, "a", true, false),
                Seen::ping("between"),
                chunk(Kind::Text, "b", false, false),
                chunk(Kind::Text, "c", false, true),
                chunk(Kind::Text, "next", true, true),
            ]
        );
        assert_eq!(subject.sent(), [pong("between")]);
        assert_eq!(subject.connection.statistics().messages_received, 2);
    }
}

#[test]
fn only_the_last_chunk_may_be_empty() {
    for role in ROLES {
        let frames = [
            text("").more(),
            continuation("").more(),
            continuation("x").more(),
            continuation("").more(),
            continuation(""),
            binary(""),
            binary("").more(),
            continuation(""),
        ];
        let expected = [
            chunk(Kind::Text, "x", true, false),
            chunk(Kind::Text, "", false, true),
            chunk(Kind::Binary, "", true, true),
            chunk(Kind::Binary, "", true, true),
        ];
        let bytes = stream(&frames, other(role));
        let mut at_once = streaming(role);
        at_once.feed(&bytes);
        assert_eq!(at_once.seen(), expected);
        let mut slowly = streaming(role);
        slowly.feed_byte_by_byte(&bytes);
        assert_eq!(slowly.seen(), expected);
    }
}

#[test]
fn payload_before_a_failure_is_lent_before_it() {
    let mut server = streaming(Role::Server);
    server.receive(&[text("whole"), text("par").more(), text("bad")]);
    assert_eq!(
        server.seen(),
        [chunk(Kind::Text, "whole", true, true), chunk(Kind::Text, "par", true, false)]
    );
    assert_eq!(server.failure().cause(), Cause::ExpectedContinuation);
    assert_eq!(server.failure().messages_before(), 1);
    assert_eq!(server.sent(), [close(1002, "expected a continuation frame")]);
}

#[test]
fn a_close_between_chunks_leaves_the_message_unfinished() {
    let mut server = streaming(Role::Server);
    server.receive(&[text("par").more(), close(1001, "")]);
    assert_eq!(server.seen(), [chunk(Kind::Text, "par", true, false), Seen::close(1001, "")]);
    assert_eq!(server.failures, []);
}

/// Chunks are lent from the caller's memory: a message of any size is not collected. While it is
/// received, a small state is allocated, from the pool if there is one.
#[test]
fn streaming_does_not_collect_the_message() {
    let now = Instant::from_nanos(0);
    let config = config(|config| {
        config.streaming = true;
        config.max_message_size = u64::MAX;
    });
    for role in ROLES {
        let frames = [
            binary([7; 50_000]).more(),
            continuation([7; 300]).more(),
            ping("x"),
            continuation([7; 70_000]),
            text("text"),
        ];
        let bytes = stream(&frames, other(role));
        let mut out = Vec::with_capacity(1000);
        let mut pool = BufferPool::new(1 << 20);
        let mut connection = Connection::new(role, config.clone(), now);
        let Connection { receiver, sender } = &mut connection;
        let mut run = |pooled| {
            let mut bytes = bytes.clone();
            let mut lent = 0;
            let run = || {
                for part in bytes.chunks_mut(1000) {
                    assert!(receiver.receive_buffer().is_none());
                    let range = part.as_ptr_range();
                    let mut input =
                        if pooled { Input::with_pool(part, &mut pool) } else { Input::new(part) };
                    while let Some(event) =
                        receiver.next(sender, &mut input, now, &mut out).unwrap()
                    {
                        if let Event::Chunk(Chunk { payload, .. }) = event {
                            assert!(payload.is_empty() || range.contains(&payload.as_ptr()));
                            lent += payload.len();
                        }
                    }
                }
            };
            let ((), usage) = measure(run);
            assert_eq!(lent, 120_304);
            usage
        };
        let plain = run(false);
        assert!(plain.peak < 200 && plain.kept == 0, "{plain:?}");
        run(true);
        assert_eq!(run(true), Usage::default(), "the pool has a buffer, so nothing is allocated");
    }
}

#[test]
fn chunks_that_are_complete_messages_need_no_memory() {
    let now = Instant::from_nanos(0);
    let config = config(|config| config.streaming = true);
    for role in ROLES {
        let frames = [text("whole"), ping("x"), binary([1; 70_000]), text("")];
        let mut bytes = stream(&frames, other(role));
        let mut out = Vec::with_capacity(100);
        let mut connection = Connection::new(role, config.clone(), now);
        let Connection { receiver, sender } = &mut connection;
        let run = || {
            let mut input = Input::new(&mut bytes);
            while receiver.next(sender, &mut input, now, &mut out).unwrap().is_some() {}
        };
        assert_eq!(measure(run).1, Usage::default());
        assert_eq!(connection.statistics().messages_received, 3);
    }
}
