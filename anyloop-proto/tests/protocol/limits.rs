//! Bounds of the memory and the work that a peer can cause: RFC 6455 §10.4.

use anyloop_proto::{BufferPool, Cause, Config, Connection, Event, Input, Instant, Role, State};
use anyloop_testkit::frames::{
    Frame, binary, close, continuation, declare, other, ping, stream, text,
};

use crate::heap::{Usage, measure};
use crate::subject::{Reading, Seen, Subject, config};

const ROLES: [Role; 2] = [Role::Client, Role::Server];

fn limited(role: Role, limit: u64, streaming: bool) -> Subject {
    let mut subject = Subject::new(
        role,
        config(|config| (config.max_message_size, config.streaming) = (limit, streaming)),
    );
    subject.out.buffer.reserve(1024);
    subject
}

fn assert_too_big(mut subject: Subject, limit: u64) {
    assert_eq!(subject.failure().cause(), Cause::MessageTooBig { limit });
    assert_eq!(subject.sent(), [close(1009, "message too big")]);
    assert_eq!(subject.state(), State::Failed);
}

/// Lengths whose sum with the ten bytes received so far overflows.
#[test]
fn pitfall_a_length_that_overflows_the_sum_does_not_pass_the_limit() {
    for role in ROLES {
        for streaming in [false, true] {
            for (len, cause) in [
                (u64::MAX, Cause::LengthOverflow),
                (u64::MAX - 9, Cause::LengthOverflow),
                (i64::MAX as u64, Cause::MessageTooBig { limit: 10 }),
                (1 << 62, Cause::MessageTooBig { limit: 10 }),
            ] {
                let mut subject = limited(role, 10, streaming);
                subject.receive(&[binary("12345678").more()]);
                subject.feed(&declare(0x80, len, other(role)));
                assert_eq!(subject.failure().cause(), cause, "{len:#x}");
                assert_eq!(subject.state(), State::Failed);
            }
            // Without a limit the sum must not overflow either.
            let mut subject = limited(role, u64::MAX, streaming);
            subject.receive(&[binary("12345678").more()]);
            subject.feed(&declare(0x80, i64::MAX as u64, other(role)));
            subject.feed(b"a few bytes of many");
            assert_eq!(subject.failures, []);
        }
    }
}

#[test]
fn pitfall_a_message_of_exactly_the_limit_passes_and_one_more_byte_does_not() {
    for role in ROLES {
        for limit in [0, 1, 125, 126, 1000, 65_535, 65_536, 100_000] {
            let exact = vec![b'x'; limit];
            let over = vec![b'x'; limit + 1];
            for streaming in [false, true] {
                for chunk in [1000, usize::MAX] {
                    let mut passes = limited(role, limit as u64, streaming);
                    let bytes = text(&exact).bytes(other(role));
                    bytes.chunks(chunk).for_each(|chunk| passes.feed(chunk));
                    assert_eq!(passes.failures, [], "{limit}");
                    assert_eq!(passes.connection.statistics().messages_received, 1);
                    assert_eq!(passes.connection.statistics().bytes_received, limit as u64);

                    let mut fails = limited(role, limit as u64, streaming);
                    let bytes = text(&over).bytes(other(role));
                    for chunk in bytes.chunks(chunk) {
                        if fails.failures.is_empty() {
                            fails.feed(chunk);
                        }
                    }
                    assert_eq!(fails.seen(), []);
                    assert_too_big(fails, limit as u64);
                }
            }
        }
    }
}

#[test]
fn pitfall_the_limit_holds_for_the_sum_of_fragments() {
    for role in ROLES {
        for streaming in [false, true] {
            let first =
                [binary("1234").more(), continuation("").more(), continuation("567").more()];
            let mut passes = limited(role, 10, streaming);
            passes.receive(&first);
            passes.receive(&[continuation("890"), binary("0123456789")]);
            assert_eq!(passes.failures, []);
            assert_eq!(passes.connection.statistics().messages_received, 2);

            let mut fails = limited(role, 10, streaming);
            fails.receive(&first);
            fails.receive(&[continuation("8901")]);
            assert_too_big(fails, 10);
        }
    }
}

/// The connection fails at the header, before any payload arrives.
#[test]
fn a_message_too_big_fails_at_the_header_that_announces_it() {
    for role in ROLES {
        let mut single = limited(role, 1000, false);
        single.feed(&declare(0x82, 1001, other(role)));
        assert_too_big(single, 1000);
        let mut fragmented = limited(role, 1000, false);
        fragmented.receive(&[binary([0; 999]).more()]);
        fragmented.feed(&declare(0x00, 2, other(role)));
        assert_too_big(fragmented, 1000);
    }
}

/// A control frame between fragments does not count towards the size of the message.
#[test]
fn the_limit_is_for_messages_and_not_for_control_frames() {
    let mut server = limited(Role::Server, 5, false);
    server.receive(&[text("123").more(), ping([0; 125]), continuation("45"), ping([1; 125])]);
    assert_eq!(server.seen(), [Seen::ping([0; 125]), Seen::text("12345"), Seen::ping([1; 125])]);
}

/// Autobahn 9.3.1: 4 MiB in fragments of 64 bytes.
#[test]
fn pitfall_65536_fragments_of_64_bytes_pass() {
    for (limit, streaming) in [(16 << 20, false), (4 << 20, false), (4 << 20, true)] {
        let mut server = limited(Role::Server, limit, streaming);
        let fragment = continuation([b'x'; 64]).more().bytes(Role::Client);
        server.receive(&[text([b'x'; 64]).more()]);
        for _ in 0..65_534 / 64 {
            server.feed(&fragment.repeat(64));
        }
        server.feed(&fragment.repeat(65_534 % 64));
        server.receive(&[continuation([b'x'; 64])]);
        assert_eq!(server.failures, []);
        assert_eq!(server.connection.statistics().messages_received, 1);
        assert_eq!(server.connection.statistics().bytes_received, 4 << 20);
    }
}

/// Fragments of one byte are valid as long as the message is within its limit.
#[test]
fn fragments_of_one_byte_pass() {
    let mut server = limited(Role::Server, 60_000, false);
    let fragment = continuation("x").more().bytes(Role::Client);
    server.receive(&[text("x").more()]);
    server.feed(&fragment.repeat(59_998));
    server.receive(&[continuation("x")]);
    assert_eq!(server.seen(), [Seen::text(&"x".repeat(60_000))]);
}

#[test]
fn pitfall_endless_empty_fragments_fail() {
    for role in ROLES {
        for streaming in [false, true] {
            let mut subject = limited(role, 100, streaming);
            subject.receive(&[text("").more()]);
            let fragments = continuation("").more().bytes(other(role)).repeat(1000);
            for sent in (0..).step_by(1000) {
                assert!(sent < 200_000, "empty fragments are not counted");
                subject.feed(&fragments);
                if !subject.failures.is_empty() {
                    assert!(sent >= 60_000, "60,000 empty fragments must pass");
                    break;
                }
            }
            assert_eq!(subject.failure().cause(), Cause::TooManyFragments);
            assert_eq!(subject.sent(), [close(1009, "message in too many fragments")]);
        }
    }
}

/// The limit of fragments is for each message, not for the connection.
#[test]
fn fragments_are_counted_for_each_message() {
    let mut server = limited(Role::Server, 100, false);
    let fragment = continuation("").more().bytes(Role::Client);
    for _ in 0..3 {
        server.receive(&[text("").more()]);
        server.feed(&fragment.repeat(40_000));
        server.receive(&[continuation("")]);
    }
    assert_eq!(server.failures, []);
}

/// Feeds without the copy that [`Subject`] makes, so that the measured allocations are the connection's.
fn fed(server: &mut Subject, bytes: &mut [u8]) -> Usage {
    let Subject { connection: Connection { receiver, sender }, now, out, reading, .. } = server;
    let run = || {
        let mut input = match reading {
            Reading::Plain => Input::new(bytes),
            Reading::Pooled(pool) | Reading::InPlace(pool) => Input::with_pool(bytes, pool),
        };
        while receiver.next(sender, &mut input, *now, out).unwrap().is_some() {}
    };
    measure(run).1
}

#[test]
fn pitfall_no_memory_is_reserved_for_a_length_that_was_only_declared() {
    for first in [0x82, 0x02, 0x81] {
        let mut server = limited(Role::Server, 16 << 20, false);
        let mut header = declare(first, 16 << 20, Role::Client);
        let usage = fed(&mut server, &mut header);
        assert!(usage.peak < 200, "{} bytes are allocated for a header", usage.peak);
        assert!(
            server.connection.receiver.receive_buffer().is_none(),
            "memory is lent before any payload has arrived"
        );

        let ten = &mut text([b'x'; 10]).bytes(Role::Client)[6..];
        let peak = usage.kept + fed(&mut server, ten).peak;
        assert!(peak < 400, "{peak} bytes are allocated for ten bytes");
        let (memory, usage) =
            measure(|| server.connection.receiver.receive_buffer().map(|memory| memory.len()));
        assert_eq!(memory, None);
        assert_eq!(usage, Usage::default());
    }
}

#[test]
fn pitfall_memory_grows_with_the_received_bytes() {
    for in_place in [false, true] {
        for declared in [1 << 20, 16 << 20] {
            let mut server = limited(Role::Server, 16 << 20, false);
            if in_place {
                server.reading = Reading::InPlace(BufferPool::new(0));
            }
            let mut header = declare(0x82, declared, Role::Client);
            fed(&mut server, &mut header);
            let mut part = [0; 1000];
            let (mut arrived, mut held) = (0, 0);
            while arrived < 1 << 19 {
                let memory =
                    in_place.then(|| measure(|| server.connection.receiver.receive_buffer()));
                let usage = if let Some((Some(memory), lending)) = memory {
                    assert!(
                        memory.len() <= arrived,
                        "{} bytes are lent after {arrived} have arrived",
                        memory.len()
                    );
                    let n = memory.len().min(part.len());
                    server.connection.receiver.filled(n);
                    arrived += n;
                    assert_eq!(fed(&mut server, &mut []), Usage::default());
                    lending
                } else {
                    arrived += part.len();
                    fed(&mut server, &mut part)
                };
                // A buffer that doubles has up to twice the received size, and so has one that lends as much as
                // has arrived. Neither depends on the declared length.
                let peak = held + usage.peak;
                held += usage.kept;
                assert!(
                    peak <= 2 * arrived as i64 + 400,
                    "{peak} bytes allocated for {arrived}, in place: {in_place}"
                );
            }
            assert!(held >= arrived as i64, "the received payload is kept");
        }
    }
}

#[test]
fn the_memory_for_fragments_is_bounded_by_the_received_bytes() {
    let mut server = limited(Role::Server, 16 << 20, false);
    let mut held = 0;
    for arrived in (64..=64_000).step_by(64) {
        let fragment = if arrived == 64 { binary([0; 64]) } else { continuation([0; 64]) };
        held += fed(&mut server, &mut fragment.more().bytes(Role::Client)).kept;
        assert!(held <= 2 * arrived + 400, "{held} bytes allocated for {arrived}");
    }
}

#[test]
fn a_failed_connection_frees_the_message() {
    let mut server = limited(Role::Server, 16 << 20, false);
    let mut bytes = binary([0; 100_000]).more().bytes(Role::Client);
    let held = fed(&mut server, &mut bytes).kept;
    assert!(held >= 100_000);
    let mut bad = Frame { rsv: 0x10, ..continuation("") }.bytes(Role::Client);
    let (_, usage) = measure(|| {
        let mut input = Input::new(&mut bad);
        let Connection { receiver, sender } = &mut server.connection;
        receiver.next(sender, &mut input, server.now, &mut server.out).unwrap_err()
    });
    assert!(held + usage.kept < 1000, "{} bytes of {held} are still allocated", held + usage.kept);
}

/// The allocations and requested bytes for a message in `n` fragments.
fn cost_of_fragments(n: usize, size: usize) -> Usage {
    let mut server = limited(Role::Server, 16 << 20, false);
    let payload = vec![b'x'; size];
    let mut frames = vec![continuation(&payload).more(); n];
    frames[0] = text(&payload).more();
    frames[n - 1].fin = true;
    let mut bytes = stream(&frames, Role::Client);
    // Each fragment is passed in its own call, so that the connection has to assemble them.
    let frame = bytes.len() / n;
    let mut total = Usage::default();
    for part in bytes.chunks_mut(frame) {
        let usage = fed(&mut server, part);
        total.allocations += usage.allocations;
        total.requested += usage.requested;
    }
    assert_eq!(server.connection.statistics().messages_received, 1);
    total
}

/// An implementation that copies the whole message at each fragment requests n/2 times its size.
#[test]
fn pitfall_reassembly_cost_is_linear_in_many_small_fragments() {
    for (n, size) in [(16_384, 64), (65_000, 1)] {
        let cost = cost_of_fragments(n, size);
        let bytes = (n * size) as u64;
        assert!(cost.requested <= 4 * bytes + 1000, "{cost:?} for {bytes} bytes");
        assert!(cost.allocations <= 2 + 2 * u64::from(bytes.ilog2()), "{cost:?}");
    }
}

/// An implementation that checks the whole text again at each fragment reads n/2 times its size: here
/// 137 GB instead of 4 MiB, which takes minutes. The test fails by not ending.
#[test]
fn pitfall_utf8_cost_is_linear_in_many_small_fragments() {
    let text_of = |n: usize| "κόσμε κόσμος…".repeat(n);
    let payload = text_of((4 << 20) / text_of(1).len());
    let mut server = limited(Role::Server, 16 << 20, false);
    let parts: Vec<_> = payload.as_bytes().chunks(64).collect();
    for (i, part) in parts.iter().enumerate() {
        let frame = if i == 0 { text(part) } else { continuation(part) };
        let frame = if i == parts.len() - 1 { frame } else { frame.more() };
        server.receive(&[frame]);
    }
    assert_eq!(server.seen(), [Seen::text(&payload)]);
}

/// A payload that arrives byte by byte requests no more memory than one that arrives at once.
#[test]
fn a_payload_byte_by_byte_is_copied_once() {
    let mut server = limited(Role::Server, 16 << 20, false);
    let mut bytes = binary([0; 100_000]).bytes(Role::Client);
    let mut requested = 0;
    for byte in bytes.chunks_mut(1) {
        requested += fed(&mut server, byte).requested;
    }
    assert!(requested <= 400_000 + 1000, "{requested}");
}

/// A header arrives byte by byte, and each byte is parsed with those before it. The first one allocates
/// memory for the whole header, or takes it from the pool if there is one.
#[test]
fn a_header_byte_by_byte_allocates_once() {
    for pooled in [false, true] {
        let mut server = limited(Role::Server, 16 << 20, false);
        if pooled {
            server.reading = Reading::Pooled(BufferPool::new(1 << 20));
            for byte in ping("").bytes(Role::Client).chunks_mut(1) {
                fed(&mut server, byte);
            }
            fed(&mut server, &mut []);
        }
        let mut bytes = declare(0x82, 1 << 20, Role::Client);
        let (first, rest) = bytes.split_at_mut(1);
        let usage = fed(&mut server, first);
        assert_eq!(usage.allocations, u64::from(!pooled));
        assert!(usage.peak < 200, "{}", usage.peak);
        for byte in rest.chunks_mut(1) {
            assert_eq!(fed(&mut server, byte), Usage::default());
        }
    }
}

/// While the output is blocked, any number of pings causes one deferred pong.
#[test]
fn pitfall_one_pong_is_kept_for_a_peer_that_does_not_read() {
    let mut server = Subject::server();
    server.out.blocked = true;
    let mut held = 0;
    for _ in 0..1000 {
        held += fed(&mut server, &mut ping([7; 125]).bytes(Role::Client)).kept;
        assert!(held <= 600, "{held}");
    }
}

/// Each header arrives separately, and each payload is received in place. An implementation that grows the
/// message by exactly one fragment moves all of it each time: 32 GiB for this message.
#[test]
fn pitfall_reassembly_cost_is_linear_in_fragments_received_in_place() {
    const FRAGMENT: usize = 4096;
    const FRAGMENTS: usize = 4096;
    let now = Instant::from_nanos(0);
    let mut config = Config::default();
    config.max_message_size = (FRAGMENT * FRAGMENTS) as u64;
    let mut connection = Connection::new(Role::Server, config.into(), now);
    let mut out = Vec::new();
    let mut lent = 0;
    let (last, usage) = measure(|| {
        let mut last = 0;
        for n in 0..FRAGMENTS {
            let opcode = if n == 0 { 0x02 } else { 0x00 };
            let fin = if n + 1 == FRAGMENTS { 0x80 } else { 0x00 };
            let mut header = [fin | opcode, 0xfe, 0x10, 0x00, 0, 0, 0, 0];
            let Connection { receiver, sender } = &mut connection;
            let input = &mut Input::new(&mut header);
            assert!(receiver.next(sender, input, now, &mut out).unwrap().is_none());
            let mut rest = vec![0; FRAGMENT];
            if let Some(memory) = receiver.receive_buffer() {
                lent += memory.len();
                let n = memory.len();
                receiver.filled(n);
                rest.truncate(FRAGMENT - n);
            }
            let input = &mut Input::new(&mut rest);
            if let Some(Event::Message(message)) =
                receiver.next(sender, input, now, &mut out).unwrap()
            {
                last = message.as_bytes().len();
            }
        }
        last
    });
    assert_eq!(last, FRAGMENT * FRAGMENTS);
    assert!(lent > last / 2, "only {lent} bytes were received in place");
    assert!(usage.requested < 8 * last as u64, "{usage:?}");
}
