//! Memory for messages that arrive in parts: taken from a pool, and lent to the caller to receive into.

use anyloop_proto::{BufferPool, Connection, Event, Input, Role};
use anyloop_testkit::frames::{Frame, binary, close, continuation, other, ping, stream, text};

use crate::heap::measure;
use crate::subject::{Reading, Seen, Subject, config};

const ROLES: [Role; 2] = [Role::Client, Role::Server];

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| b'a' + (i % 23) as u8).collect()
}

/// Feeds `bytes` in one call; partial messages are collected in memory from `pool`.
fn feed(subject: &mut Subject, bytes: &mut [u8], pool: &mut BufferPool) {
    let Subject { connection: Connection { receiver, sender }, now, out, .. } = subject;
    let mut input = Input::with_pool(bytes, pool);
    while let Some(event) = receiver.next(sender, &mut input, *now, out).unwrap() {
        subject.events.push(Seen::from(&event));
    }
}

/// A subject that has received `arrived` bytes of `frame`, and the bytes that it has not received.
fn inside(role: Role, frame: &Frame, arrived: usize) -> (Subject, Vec<u8>) {
    let mut subject = Subject::new(role, config(|_| ()));
    let bytes = frame.bytes(other(role));
    let header = bytes.len() - frame.payload.len();
    subject.feed(&bytes[..header + arrived]);
    (subject, bytes[header + arrived..].to_vec())
}

/// Receives `bytes` into the lent memory, at most `most` at a time, until none is lent or none are left.
fn fill(subject: &mut Subject, bytes: &mut &[u8], most: usize) {
    while let Some(memory) = subject.connection.receiver.receive_buffer() {
        let n = memory.len().min(bytes.len()).min(most);
        if n == 0 {
            break;
        }
        let (now, later) = bytes.split_at(n);
        memory[..n].copy_from_slice(now);
        *bytes = later;
        subject.connection.receiver.filled(n);
        subject.feed(&[]);
    }
}

#[test]
fn a_message_in_parts_takes_memory_from_the_pool_and_returns_it_when_read() {
    let mut pool = BufferPool::new(1 << 20);
    let mut server = Subject::server();
    let mut bytes = stream(&[binary(payload(1000)).more(), continuation("end")], Role::Client);
    let (first, second) = bytes.split_at_mut(500);
    feed(&mut server, first, &mut pool);
    assert_eq!(pool.held(), 0, "the buffer is in use");
    feed(&mut server, second, &mut pool);
    assert!((1003..4096).contains(&pool.held()), "{}", pool.held());
    let held = pool.held();

    // The next message, on another connection, reuses it.
    let mut other = Subject::server();
    let mut bytes = text("part").more().bytes(Role::Client);
    feed(&mut other, &mut bytes, &mut pool);
    assert_eq!(pool.held(), 0);
    let mut bytes = continuation("ial").bytes(Role::Client);
    feed(&mut other, &mut bytes, &mut pool);
    assert_eq!(other.seen(), [Seen::text("partial")], "no bytes of the previous message");
    assert_eq!(pool.held(), held);
}

#[test]
fn a_message_that_was_read_may_be_released_before_the_next() {
    let (mut pool, mut server) = (BufferPool::new(1 << 20), Subject::server());
    let mut bytes = stream(&[binary(payload(500)).more(), continuation("end")], Role::Client);
    let (first, second) = bytes.split_at_mut(100);
    feed(&mut server, first, &mut pool);
    let Subject { connection: Connection { receiver, sender }, now, out, .. } = &mut server;
    receiver.release(&mut Input::with_pool(&mut [], &mut pool));
    assert_eq!(pool.held(), 0, "the message is not complete");
    let mut input = Input::with_pool(second, &mut pool);
    let event = receiver.next(sender, &mut input, *now, out).unwrap();
    assert!(matches!(event, Some(Event::Message(message)) if message.as_bytes().len() == 503));
    assert!(!receiver.is_on_fast_path());
    receiver.release(&mut input);
    assert!(receiver.is_on_fast_path());
    assert!(pool.held() >= 503);
    feed(&mut server, &mut text("next").bytes(Role::Client), &mut pool);
    assert_eq!(server.seen(), [Seen::text("next")]);
}

#[test]
fn a_pool_keeps_at_most_its_limit() {
    for most in [0, 1000, 100_000] {
        let mut pool = BufferPool::new(most);
        // Three messages at the same time, so that three buffers are returned.
        let mut servers = [Subject::server(), Subject::server(), Subject::server()];
        for server in &mut servers {
            feed(server, &mut binary([7; 40_000]).more().bytes(Role::Client), &mut pool);
        }
        for server in &mut servers {
            feed(server, &mut continuation("").bytes(Role::Client), &mut pool);
            assert_eq!(server.seen(), [Seen::binary([7; 40_000])]);
        }
        assert!(pool.held() <= most, "{} bytes held, {most} allowed", pool.held());
        assert_eq!(pool.held() >= 80_000, most == 100_000);
    }
}

#[test]
fn a_control_frame_in_parts_takes_memory_from_the_pool_too() {
    let mut pool = BufferPool::new(1 << 20);
    let mut server = Subject::server();
    for byte in stream(&[text("a").more(), ping("between"), continuation("b")], Role::Client) {
        feed(&mut server, &mut [byte], &mut pool);
    }
    for byte in ping("alone").bytes(Role::Client) {
        feed(&mut server, &mut [byte], &mut pool);
    }
    assert_eq!(server.seen(), [Seen::ping("between"), Seen::text("ab"), Seen::ping("alone")]);
    assert!(pool.held() > 0);
}

#[test]
fn a_large_payload_is_received_in_place() {
    let whole = payload(200_000);
    for role in ROLES {
        for frame in [binary(&whole), text(&whole)] {
            for (arrived, most) in [(4096, usize::MAX), (5001, 777), (100_000, 50_000)] {
                let (mut subject, rest) = inside(role, &frame, arrived);
                let mut rest = &rest[..];
                fill(&mut subject, &mut rest, most);
                assert!(rest.len() < 4096, "{} bytes were not received in place", rest.len());
                subject.feed(rest);
                let expected = if frame.opcode == 1 {
                    Seen::text(std::str::from_utf8(&whole).unwrap())
                } else {
                    Seen::binary(&whole)
                };
                assert_eq!(subject.seen(), [expected]);
                assert_eq!(subject.connection.statistics().bytes_received, 200_000);
                assert_eq!(subject.connection.statistics().messages_received, 1);
                assert!(subject.connection.receiver.receive_buffer().is_none());
            }
        }
    }
}

/// Memory is lent up to the last byte of the frame, and then for the next frame.
#[test]
fn lent_memory_ends_where_the_frame_ends() {
    for role in ROLES {
        for fin in [true, false] {
            let whole = payload(9000);
            let frame = if fin { binary(&whole) } else { binary(&whole).more() };
            let (mut subject, rest) = inside(role, &frame, 4500);
            let memory = subject.connection.receiver.receive_buffer().unwrap();
            assert_eq!(memory.len(), 4500, "at most the rest of the payload");
            memory.copy_from_slice(&rest);
            subject.connection.receiver.filled(4500);
            if fin {
                subject.feed(&[]);
                assert_eq!(subject.seen(), [Seen::binary(&whole)]);
            } else {
                subject.receive(&[ping("x"), continuation("end")]);
                let expected = [&whole[..], b"end"].concat();
                assert_eq!(subject.seen(), [Seen::ping("x"), Seen::binary(expected)]);
            }
            subject.receive(&[text("next")]);
            assert_eq!(subject.seen(), [Seen::text("next")]);
        }
    }
}

/// A transport may fill lent memory several times before it takes events, and then pass more bytes.
#[test]
fn memory_may_be_filled_in_several_parts() {
    for role in ROLES {
        let whole = payload(50_000);
        let (mut subject, rest) = inside(role, &binary(&whole), 5000);
        let mut at = 0;
        for n in [1, 2, 3, 0, 500, 4000] {
            let memory = subject.connection.receiver.receive_buffer().unwrap();
            assert!(memory.len() <= 45_000 - at);
            memory[..n].copy_from_slice(&rest[at..at + n]);
            subject.connection.receiver.filled(n);
            at += n;
        }
        subject.feed(&rest[at..]);
        assert_eq!(subject.seen(), [Seen::binary(&whole)]);
    }
}

#[test]
fn filling_more_than_was_lent_counts_as_all_of_it() {
    for role in ROLES {
        let whole = payload(9000);
        let (mut subject, rest) = inside(role, &binary(&whole), 4500);
        subject.connection.receiver.receive_buffer().unwrap().copy_from_slice(&rest);
        subject.connection.receiver.filled(usize::MAX);
        subject.receive(&[text("next")]);
        assert_eq!(subject.seen(), [Seen::binary(&whole), Seen::text("next")]);
    }
}

/// `filled` without lent memory has no effect. In particular it must not add bytes that an earlier
/// message, perhaps of another connection, has left in the pool.
#[test]
fn filling_without_lent_memory_has_no_effect() {
    let mut pool = BufferPool::new(1 << 20);
    let secret = binary(b"secret".repeat(10_000));
    let (mut before, rest) = inside(Role::Client, &secret.more(), 0);
    before.reading = Reading::Pooled(BufferPool::new(0));
    feed(&mut before, &mut rest.clone(), &mut pool);
    feed(&mut before, &mut continuation("").bytes(Role::Server), &mut pool);
    assert!(pool.held() > 60_000);

    // Within a payload that is too short to be received in place, in a control frame, and between frames.
    for (frames, cut) in [
        (vec![binary([b'x'; 100]).more(), continuation([b'x'; 100])], 50),
        (vec![binary([b'x'; 100]).more(), continuation([b'x'; 100])], 102),
        (vec![binary([b'x'; 100]).more(), ping([b'x'; 100]), continuation("")], 150),
    ] {
        let mut client = Subject::client();
        let mut bytes = stream(&frames, Role::Server);
        let (first, second) = bytes.split_at_mut(cut);
        feed(&mut client, first, &mut pool);
        assert!(client.connection.receiver.receive_buffer().is_none());
        client.connection.receiver.filled(20);
        feed(&mut client, second, &mut pool);
        for seen in client.seen() {
            let (Seen::Binary(payload) | Seen::Ping(payload)) = seen else { panic!("{seen:?}") };
            assert!(payload.iter().all(|&byte| byte == b'x'), "{payload:?}");
            assert!(payload.len() == 100 || payload.len() == 200);
        }
    }
}

#[test]
fn memory_is_lent_only_inside_a_large_payload_of_which_some_has_arrived() {
    for role in ROLES {
        let mut idle = Subject::new(role, config(|_| ()));
        assert!(idle.connection.receiver.receive_buffer().is_none());
        idle.connection.receiver.filled(100);
        idle.receive(&[text("as before")]);
        assert_eq!(idle.seen(), [Seen::text("as before")]);

        let frame = binary(payload(20_000));
        for (arrived, lent) in
            [(0, false), (1, false), (4095, false), (4096, true), (15_904, true), (15_905, false)]
        {
            let (mut subject, _) = inside(role, &frame, arrived);
            assert_eq!(
                subject.connection.receiver.receive_buffer().is_some(),
                lent,
                "after {arrived}"
            );
        }

        // Between two fragments no payload is outstanding.
        let (mut subject, rest) = inside(role, &frame.clone().more(), 0);
        subject.feed(&rest);
        assert!(subject.connection.receiver.receive_buffer().is_none());
        // Nor within a control frame between them.
        let bytes = ping([7; 125]).bytes(other(role));
        subject.feed(&bytes[..50]);
        assert!(subject.connection.receiver.receive_buffer().is_none());
        subject.feed(&bytes[50..]);
        assert_eq!(subject.seen(), [Seen::ping([7; 125])]);

        // Nor after the end of the message.
        let (mut subject, _) = inside(role, &frame, 10_000);
        subject.eof();
        assert!(subject.connection.receiver.receive_buffer().is_none());
    }
}

/// Memory from a pool is already allocated, so all of it is lent once a fair part has arrived.
#[test]
fn memory_from_a_pool_is_lent_for_the_whole_payload() {
    let mut pool = BufferPool::new(1 << 20);
    let whole = payload(300_000);
    let frame = binary(&whole);
    for round in 0..3 {
        let (mut server, rest) = inside(Role::Server, &frame, 0);
        let (first, second) = rest.split_at(16 * 1024);
        feed(&mut server, &mut first.to_vec(), &mut pool);
        let (memory, usage) =
            measure(|| server.connection.receiver.receive_buffer().map(|memory| memory.len()));
        if round > 0 {
            assert_eq!(memory, Some(second.len()), "the rest of the payload");
            assert_eq!(usage.allocations, 0);
        }
        let memory = server.connection.receiver.receive_buffer().unwrap();
        let n = memory.len();
        memory.copy_from_slice(&second[..n]);
        server.connection.receiver.filled(n);
        feed(&mut server, &mut second[n..].to_vec(), &mut pool);
        assert_eq!(server.seen(), [Seen::binary(&whole)]);
    }
}

/// A peer that begins messages and never ends them must not hold the large buffers of the pool.
#[test]
fn no_large_buffer_is_taken_for_a_few_bytes() {
    let mut pool = BufferPool::new(1 << 20);
    let large = binary(payload(300_000));
    let (mut first, mut rest) = inside(Role::Server, &large, 0);
    let (begin, end) = rest.split_at_mut(16 * 1024);
    feed(&mut first, begin, &mut pool);
    feed(&mut first, end, &mut pool);
    assert!(pool.held() > 300_000);
    for _ in 0..10 {
        let mut hoarder = Subject::server();
        feed(&mut hoarder, &mut large.bytes(Role::Client)[..100], &mut pool);
        assert!(pool.held() >= 300_000, "{}", pool.held());
    }
}

/// At a header it is not known yet how much of the payload will arrive with it.
#[test]
fn no_buffer_is_taken_for_a_header() {
    let mut pool = BufferPool::new(1 << 20);
    let mut server = Subject::server();
    for _ in 0..2 {
        let mut bytes = binary([7; 5000]).bytes(Role::Client);
        let (header, payload) = bytes.split_at_mut(8);
        let held = pool.held();
        feed(&mut server, header, &mut pool);
        assert!(held - pool.held() < 200, "{held} to {}", pool.held());
        let (first, second) = payload.split_at_mut(2500);
        feed(&mut server, first, &mut pool);
        assert_eq!(pool.held(), 0);
        feed(&mut server, second, &mut pool);
        assert_eq!(server.seen(), [Seen::binary([7; 5000])]);
        assert!(pool.held() >= 5000);
    }
}

/// The peer may send a Close between the fragments of a message, which then never ends.
#[test]
fn a_message_that_a_close_interrupts_returns_its_memory() {
    let mut pool = BufferPool::new(1 << 20);
    let mut server = Subject::server();
    let mut bytes = stream(&[binary([7; 5000]).more(), close(1000, "")], Role::Client);
    let (first, second) = bytes.split_at_mut(4000);
    feed(&mut server, first, &mut pool);
    assert_eq!(pool.held(), 0);
    feed(&mut server, second, &mut pool);
    assert_eq!(server.seen(), [Seen::close(1000, "")]);
    assert!(pool.held() >= 5000, "{}", pool.held());
}

/// `receive_buffer` without `filled` receives nothing.
#[test]
fn want_changes_nothing() {
    let whole = payload(20_000);
    let (mut server, rest) = inside(Role::Server, &binary(&whole), 5000);
    let first = server.connection.receiver.receive_buffer().unwrap().len();
    assert_eq!(server.connection.receiver.receive_buffer().unwrap().len(), first);
    server.feed(&rest);
    assert_eq!(server.seen(), [Seen::binary(&whole)]);
}
