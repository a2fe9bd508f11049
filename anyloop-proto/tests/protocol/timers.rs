//! Deadlines, on a virtual clock: keep-alive and idle timeouts.

use std::sync::Arc;
use std::time::Duration;

use anyloop_proto::{BufferPool, Cause, Config, Instant, Party, Role, Shutdown, State, Timer};
use anyloop_testkit::frames::{
    Frame, binary, close, continuation, declare, frame, ping, pong, text,
};

use crate::pair::Pair;
use crate::subject::{Reading, Seen, Subject, config, seconds};

const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// Settings without timers, except those that `change` turns on.
fn only(change: impl FnOnce(&mut Config)) -> Arc<Config> {
    config(|config| {
        (config.ping_interval, config.pong_timeout) = (None, None);
        (config.idle_timeout, config.data_idle_timeout) = (None, None);
        change(config);
    })
}

/// A server with the default keep-alive: a ping after 20 s without input, and 20 s for its pong.
fn keepalive() -> Subject {
    Subject::server()
}

/// The payload of the ping that was just sent. It is unspecified, so the test reads it from the output.
fn the_ping(subject: &mut Subject) -> Vec<u8> {
    let [Frame { opcode: 0x9, payload, .. }] = &subject.sent()[..] else {
        panic!("exactly one ping is sent")
    };
    payload.clone()
}

#[test]
fn nothing_is_due_when_everything_is_off() {
    for role in ROLES {
        let mut subject = Subject::new(role, only(|_| ()));
        assert_eq!(subject.due(), None);
        subject.receive(&[text("a"), ping("b"), text("c").more()]);
        subject.out.blocked = true;
        subject.receive(&[ping("d")]);
        assert_eq!(subject.due(), None);
        assert_eq!(subject.at(1e9), []);
        assert_eq!(subject.failures, []);
        assert_eq!(subject.state(), State::Open);
    }
}

#[test]
fn a_call_before_anything_is_due_does_nothing() {
    let mut server = keepalive();
    assert_eq!(server.due(), Some(20.0));
    assert_eq!(server.at(19.999_999), []);
    assert_eq!(server.sent(), []);
    assert_eq!(server.due(), Some(20.0));
}

#[test]
fn a_ping_goes_out_when_nothing_was_received_for_the_interval() {
    for role in ROLES {
        let mut subject = Subject::new(role, config(|_| ()));
        assert_eq!(subject.at(20.0), [Timer::Ping]);
        let payload = the_ping(&mut subject);
        assert_eq!(subject.due(), Some(40.0), "the deadline of the pong");
        assert_eq!(subject.at(21.5), []);
        subject.receive(&[pong(&payload)]);
        assert_eq!(
            subject.seen(),
            [Seen::Pong(payload.clone(), Some(Duration::from_millis(1500)))],
            "the round trip is reported"
        );
        assert_eq!(subject.due(), Some(41.5), "the deadline of the next ping");
        assert_eq!(subject.at(41.5), [Timer::Ping]);
        assert_ne!(the_ping(&mut subject), payload, "each ping has a payload of its own");
    }
}

#[test]
fn any_input_postpones_the_ping() {
    let frames = [
        text("t"),
        binary([0; 70_000]),
        binary("more").more(),
        ping("p"),
        continuation(""),
        pong("unasked"),
    ];
    let mut server = keepalive();
    for (i, frame) in frames.into_iter().enumerate() {
        let at = 15.0 * (i + 1) as f64;
        assert_eq!(server.at(at), []);
        server.receive(&[frame]);
        assert_eq!(server.due(), Some(at + 20.0));
    }
}

#[test]
fn our_own_messages_do_not_postpone_the_ping() {
    let mut server = keepalive();
    server.at(19.0);
    server.send("x").unwrap();
    assert_eq!(server.due(), Some(20.0));
}

#[test]
fn a_ping_that_is_not_answered_in_time_fails_the_connection() {
    for role in ROLES {
        let mut subject = Subject::new(role, config(|_| ()));
        subject.at(20.0);
        the_ping(&mut subject);
        assert_eq!(subject.at(39.999), []);
        assert_eq!(subject.at(40.0), []);
        assert_eq!(subject.failure().cause(), Cause::PongTimeout);
        assert_eq!(subject.failure().party(), Party::Timer);
        assert_eq!(subject.failure().state(), State::Open);
        assert_eq!(subject.sent(), [close(1011, "keep-alive ping not answered in time")]);
        assert_eq!(subject.connection.shutdown(), Shutdown::HalfClose);
        assert_eq!(subject.due(), Some(45.0), "only the close timeout is left");
        assert_eq!(subject.at(45.0), [Timer::Close]);
        assert_eq!(subject.connection.shutdown(), Shutdown::Abort);
        assert_eq!(subject.failures.len(), 1);
    }
}

#[test]
fn pitfall_a_pong_with_another_payload_does_not_cancel() {
    let mut server = keepalive();
    server.at(20.0);
    let payload = the_ping(&mut server);
    let mut longer = payload.clone();
    longer.push(0);
    let mut different = payload.clone();
    different[3] ^= 1;
    server.at(21.0);
    for wrong in [&[][..], b"x", &payload[..3], &longer, &different] {
        server.receive(&[pong(wrong)]);
        assert_eq!(server.seen(), [Seen::pong(wrong)]);
        assert_eq!(server.due(), Some(40.0));
    }
    // Nor does another control frame with that payload.
    server.receive(&[ping("busy")]);
    server.sent();
    assert_eq!(server.due(), Some(40.0));
    server.at(40.0);
    assert_eq!(server.failure().cause(), Cause::PongTimeout);
}

#[test]
fn a_pong_for_an_earlier_ping_does_not_answer_the_current_one() {
    let mut server = keepalive();
    server.at(20.0);
    let first = the_ping(&mut server);
    server.receive(&[pong(&first)]);
    server.at(40.0);
    the_ping(&mut server);
    server.receive(&[pong(&first)]);
    server.at(60.0);
    assert_eq!(server.failure().cause(), Cause::PongTimeout);
}

#[test]
fn pitfall_the_pong_timer_is_canceled_by_a_close() {
    let begin: [fn(&mut Subject); 3] = [
        |subject| subject.close(1000, "").unwrap(),
        |subject| subject.receive(&[close(1000, "")]),
        |subject| subject.receive(&[frame(0x3, "")]),
    ];
    for role in ROLES {
        for begin in begin {
            // The close timeout is longer, so a pong timer that still runs expires first.
            let config = config(|config| config.close_timeout = Some(seconds(1000)));
            let mut subject = Subject::new(role, config);
            subject.at(20.0);
            begin(&mut subject);
            let failures = subject.failures.len();
            assert_eq!(subject.due(), Some(1020.0));
            assert_eq!(subject.at(900.0), []);
            assert_eq!(subject.failures.len(), failures);
        }
    }
}

/// The ping is deferred while the output is blocked, and the time for its pong begins when it is sent.
#[test]
fn pitfall_the_pong_timer_starts_when_the_ping_has_left() {
    let mut server = keepalive();
    server.out.blocked = true;
    server.at(20.0);
    assert_eq!(server.sent(), [], "the ping is deferred");
    server.at(35.0);
    server.out.blocked = false;
    server.writable();
    let payload = the_ping(&mut server);
    assert_eq!(server.due(), Some(55.0));
    server.at(54.0);
    server.receive(&[pong(&payload)]);
    assert_eq!(server.seen(), [Seen::Pong(payload, Some(seconds(19)))]);
    assert_eq!(server.failures, []);
}

/// A deferred ping waits while the peer reads, however slowly. If the peer stops, the connection fails.
#[test]
fn a_deferred_ping_waits_while_the_peer_reads() {
    let mut server = keepalive();
    server.out.blocked = true;
    server.at(20.0);
    for at in [35.0, 50.0, 65.0] {
        server.at(at);
        server.writable();
        assert_eq!(server.sent(), []);
    }
    assert_eq!(server.due(), Some(85.0));
    server.at(85.0);
    assert_eq!(server.failure().cause(), Cause::PongTimeout);
}

/// Returns when a server fails for a missing pong. It sends `sent` bytes and then a ping; `unsent` is the
/// number of bytes that have not left the machine at a time.
fn fails_at(sent: usize, unsent: impl Fn(f64) -> usize) -> f64 {
    let mut server = keepalive();
    server.send(&vec![0; sent][..]).unwrap();
    server.at(20.0);
    loop {
        let due = server.due().expect("a pong is awaited");
        let waiting = unsent(due);
        server.at_with(due, (sent + 10 - waiting) as u64, waiting);
        if !server.failures.is_empty() {
            assert_eq!(server.failure().cause(), Cause::PongTimeout);
            return due;
        }
    }
}

/// A ping leaves the machine after the data that was sent before it, and its pong can only arrive later.
#[test]
fn pitfall_the_pong_timer_restarts_while_data_before_the_ping_leaves() {
    let slow = |at: f64| 100_000_usize.saturating_sub((at * 1000.0) as usize);
    assert_eq!(
        fails_at(100_000, slow),
        120.0,
        "20 s after the data has left, which is observed at 100 s"
    );
    assert_eq!(
        fails_at(100_000, |at| if at < 50.0 { 1000 } else { 0 }),
        80.0,
        "20 s after it was observed"
    );
    assert_eq!(
        fails_at(100_000, |_| 99_000),
        60.0,
        "a peer that reads no more gets one more timeout"
    );
    assert_eq!(fails_at(100_000, |_| 10), 40.0, "only the ping has not left");
    assert_eq!(fails_at(100_000, |_| 0), 40.0);
}

/// Data sent after the ping does not postpone the deadline of its pong without bound.
#[test]
fn the_pong_timer_does_not_restart_for_data_after_the_ping() {
    let mut server = keepalive();
    server.send(&[0; 1000][..]).unwrap();
    server.at(20.0);
    for (late, acknowledged, waiting) in [(40.0, 100, 910), (60.0, 500, 2500), (80.0, 3000, 2000)] {
        server.at_with(late, acknowledged, waiting);
        assert_eq!(server.failures, [], "at {late}");
    }
    server.at_with(100.0, 5000, 2000);
    assert_eq!(server.failure().cause(), Cause::PongTimeout);
}

/// A peer that reads is alive, however much is sent meanwhile.
#[test]
fn the_pong_timer_restarts_while_more_is_sent_than_is_read() {
    let mut server = keepalive();
    server.at(20.0);
    for round in 1..10_u32 {
        server.at_with(20.0 + 20.0 * f64::from(round), u64::from(round) * 15_000, 1_000_000);
        assert_eq!(server.failures, [], "in round {round}");
    }
}

#[test]
fn a_pong_ends_the_extension_of_its_deadline() {
    let mut server = keepalive();
    server.send(&[0; 1000][..]).unwrap();
    server.at(20.0);
    let payload = server.sent().pop().unwrap().payload;
    server.at_with(40.0, 100, 910);
    server.pass(seconds(5));
    server.receive(&[pong(&payload)]);
    assert_eq!(server.seen(), [Seen::Pong(payload, Some(seconds(25)))], "since the ping");
    assert_eq!(server.at(65.0), [Timer::Ping]);
    server.at_with(85.0, 1020, 0);
    assert_eq!(
        server.failure().cause(),
        Cause::PongTimeout,
        "the extension does not apply to the next ping"
    );
}

#[test]
fn a_deferred_ping_is_sent_once() {
    let mut server = keepalive();
    server.out.blocked = true;
    server.at(20.0);
    server.at(25.0);
    server.out.blocked = false;
    server.writable();
    server.writable();
    assert_eq!(server.sent().len(), 1);
}

/// RFC 6455 §5.5.1: a ping that is still deferred when the Close is sent is dropped.
#[test]
fn a_deferred_ping_is_not_sent_after_a_close() {
    type Begin = fn(&mut Subject);
    let begin: [(Begin, u16); 3] = [
        (|subject| subject.close(1000, "").unwrap(), 1000),
        (|subject| subject.receive(&[close(1001, "")]), 1001),
        (|subject| subject.receive(&[frame(0x3, "")]), 1002),
    ];
    for role in ROLES {
        for (begin, code) in begin {
            let mut subject = Subject::new(role, config(|_| ()));
            subject.out.blocked = true;
            subject.at(20.0);
            begin(&mut subject);
            subject.out.blocked = false;
            subject.writable();
            let codes: Vec<_> = subject.sent().iter().map(Frame::close_code).collect();
            assert_eq!(codes, [Some(code)], "only the Close is sent");
        }
    }
}

/// Without a pong timeout, pings still keep middleboxes from dropping the connection: one for each
/// interval in which nothing was received.
#[test]
fn pings_are_sent_without_a_pong_timeout() {
    let mut server = Subject::new(Role::Server, config(|config| config.pong_timeout = None));
    for i in 1..5 {
        assert_eq!(server.at(20.0 * f64::from(i)), [Timer::Ping], "ping {i}");
    }
    server.at(90.0);
    server.receive(&[text("alive")]);
    assert_eq!(server.due(), Some(110.0));
    assert_eq!(server.failures, []);
}

/// A pong cannot arrive before the end of a frame, so its time does not run while a frame is arriving.
#[test]
fn pitfall_the_pong_timeout_does_not_run_during_a_large_frame() {
    let size = 40_000;
    for fin in [true, false] {
        for in_place in [false, true] {
            let mut server = keepalive();
            if in_place {
                server.reading = Reading::InPlace(BufferPool::new(0));
            }
            let payload = vec![7; size];
            let first = if fin { binary(&payload) } else { binary(&payload).more() };
            let bytes = first.bytes(Role::Client);
            server.feed(&bytes[..5000]);
            server.at(20.0);
            let ping = the_ping(&mut server);
            for (i, part) in bytes[5000..].chunks(5000).enumerate() {
                server.at(35.0 + 15.0 * i as f64);
                server.feed(part);
                assert_eq!(server.failures, [], "in place: {in_place}, part {i}");
            }
            assert_eq!(server.connection.statistics().bytes_received, size as u64);
            // The pong follows the frame immediately: it cannot arrive earlier.
            server.pass(seconds(5));
            server.serve_timers();
            server.receive(&[pong(&ping)]);
            assert_eq!(server.failures, [], "in place: {in_place}, fin: {fin}");
        }
    }
}

/// A peer that stops in the middle of a frame fails at the pong timeout.
#[test]
fn a_frame_that_stops_arriving_ends_in_a_pong_timeout() {
    let mut server = keepalive();
    server.feed(&declare(0x82, 1 << 20, Role::Client));
    server.at(20.0);
    the_ping(&mut server);
    server.at(30.0);
    server.feed(&[0; 100]);
    assert_eq!(server.due(), Some(50.0));
    server.at(50.0);
    assert_eq!(server.failure().cause(), Cause::PongTimeout);
}

/// Data shows that the peer is alive, as a pong does.
#[test]
fn a_peer_that_sends_data_is_alive() {
    let mut server = keepalive();
    server.at(20.0);
    the_ping(&mut server);
    for at in [35.0, 50.0, 65.0] {
        assert_eq!(server.at(at), []);
        server.receive(&[text("too busy for a pong")]);
        assert_eq!(server.due(), Some(at + 20.0));
    }
    server.at(85.0);
    assert_eq!(server.failure().cause(), Cause::PongTimeout);
    assert_eq!(server.failure().messages_before(), 3);
}

#[test]
fn pitfall_idle_any_frame_postpones() {
    let mut server = Subject::new(Role::Server, only(|c| c.idle_timeout = Some(seconds(100))));
    let frames = [text("t"), binary("b").more(), continuation(""), ping("p"), pong("unasked")];
    for (i, frame) in frames.into_iter().enumerate() {
        let at = 90.0 * (i + 1) as f64;
        assert_eq!(server.at(at), []);
        server.receive(&[frame]);
        assert_eq!(server.due(), Some(at + 100.0));
    }
    server.at(500.0);
    server.send("sent frames do not postpone it").unwrap();
    server.sent();
    assert_eq!(server.due(), Some(550.0));
    assert_eq!(server.at(550.0), [Timer::Idle]);
    assert_eq!(server.sent(), [close(1001, "no frame in time")]);
    assert_eq!(server.state(), State::CloseSent);
    assert_eq!(server.failures, [], "the closing handshake is under way");
    let ending = server.connection.ending().unwrap();
    assert_eq!(ending.by, Party::Timer);
    assert_eq!(ending.failure.unwrap().cause(), Cause::IdleTimeout);
    // The peer's data is still delivered, and its Close ends the connection.
    server.receive(&[text("wait!"), close(1001, "")]);
    assert_eq!(server.seen()[4..], [Seen::text("wait!"), Seen::close(1001, "")]);
    assert_eq!(server.connection.shutdown(), Shutdown::HalfClose);
    // The cause of the end is the timeout, although the closing handshake was complete.
    let ending = server.connection.ending().unwrap();
    assert_eq!((ending.by, ending.clean), (Party::Timer, false));
    assert!(ending.sent.is_some() && ending.received.is_some());
}

#[test]
fn pitfall_idle_is_not_postponed_by_our_pings_and_their_pongs() {
    let mut server =
        Subject::new(Role::Server, config(|config| config.idle_timeout = Some(seconds(100))));
    let mut pings = 0;
    loop {
        let due = server.due().unwrap();
        match server.at(due)[..] {
            [Timer::Ping] if pings < 100 => pings += 1,
            [Timer::Idle, ..] => break,
            ref served => panic!("{served:?}"),
        }
        let payload = the_ping(&mut server);
        server.receive(&[pong(payload)]);
    }
    assert_eq!(pings, 4, "at 20, 40, 60 and 80 s");
    assert_eq!(server.due(), Some(105.0), "the close timeout since 100 s");
    assert_eq!(server.failures, []);
}

/// `data_idle_timeout`: only data frames count.
#[test]
fn pitfall_data_idle_is_not_postponed_by_control_frames() {
    for role in ROLES {
        let change = |c: &mut Config| c.data_idle_timeout = Some(seconds(100));
        let mut subject = Subject::new(role, only(change));
        for at in [30.0, 60.0, 90.0] {
            assert_eq!(subject.at(at), []);
            subject.receive(&[ping("alive"), pong("alive")]);
            assert_eq!(subject.due(), Some(100.0));
        }
        subject.receive(&[text("data").more()]);
        assert_eq!(subject.due(), Some(190.0));
        subject.at(180.0);
        subject.receive(&[continuation("")]);
        assert_eq!(subject.due(), Some(280.0));
        subject.sent();
        assert_eq!(subject.at(280.0), [Timer::DataIdle]);
        assert_eq!(subject.sent(), [close(1001, "no data in time")]);
        let ending = subject.connection.ending().unwrap();
        assert_eq!(ending.failure.unwrap().cause(), Cause::DataIdleTimeout);
        assert_eq!(ending.by, Party::Timer);
    }
}

/// Each part of a payload postpones the timeouts, not only the header of the frame.
#[test]
fn idle_is_postponed_by_a_frame_that_is_arriving() {
    for data_only in [false, true] {
        for in_place in [false, true] {
            let mut server = Subject::new(
                Role::Server,
                only(|config| {
                    let timeout = Some(seconds(100));
                    if data_only {
                        config.data_idle_timeout = timeout;
                    } else {
                        config.idle_timeout = timeout;
                    }
                }),
            );
            if in_place {
                server.reading = Reading::InPlace(BufferPool::new(0));
            }
            let bytes = binary([0; 40_000]).bytes(Role::Client);
            for (i, part) in bytes.chunks(5000).enumerate() {
                let at = 90.0 * i as f64;
                assert_eq!(server.at(at), [], "in place: {in_place}");
                server.feed(part);
                assert_eq!(server.due(), Some(at + 100.0), "in place: {in_place}, part {i}");
            }
        }
    }
}

#[test]
fn an_idle_connection_that_is_not_answered_ends_in_time() {
    let mut server = Subject::new(Role::Server, only(|c| c.idle_timeout = Some(seconds(100))));
    assert_eq!(server.at(100.0), [Timer::Idle]);
    assert_eq!(server.due(), Some(105.0));
    server.at(105.0);
    assert_eq!(server.failure().cause(), Cause::CloseTimeout);
    assert_eq!(server.connection.shutdown(), Shutdown::Abort);
    // The first cause is the one reported.
    let failure = server.connection.ending().unwrap().failure.unwrap();
    assert_eq!(failure.cause(), Cause::IdleTimeout);
}

/// If several timers have expired at a late call, one that ends the connection runs first.
#[test]
fn timers_that_expire_together_run_in_order() {
    let mut server = Subject::new(
        Role::Server,
        config(|config| {
            config.idle_timeout = Some(seconds(30));
            config.data_idle_timeout = Some(seconds(30));
        }),
    );
    assert_eq!(server.at(1000.0), [Timer::Idle], "no ping after the Close");
    assert_eq!(server.sent(), [close(1001, "no frame in time")]);
}

/// The caller's instants should not go backwards. If one does, deadlines may move by that difference,
/// and there is no panic and no failure.
#[test]
fn an_instant_that_goes_backwards_does_no_harm() {
    for frame in [text("a"), binary([0; 70_000]), ping("b"), pong("c"), text("d").more()] {
        let mut server =
            Subject::new(Role::Server, config(|config| config.idle_timeout = Some(seconds(100))));
        server.at(15.0);
        server.receive(&[text("first")]);
        assert_eq!(server.due(), Some(35.0));
        server.at(10.0);
        server.receive(&[frame]);
        assert!((30.0..=35.0).contains(&server.due().unwrap()));
        server.now = Instant::from_nanos(0);
        assert_eq!(server.serve_timers(), []);
        server.close(1000, "").unwrap();
        assert!(server.due().unwrap() <= 5.0);
        assert_eq!(server.failures, []);
    }
}

/// Two connections with the default settings.
#[test]
fn two_silent_connections_keep_each_other_alive() {
    let mut pair = Pair::new();
    pair.drive_for(seconds(600));
    for side in [&pair.client, &pair.server] {
        assert_eq!(side.subject.failures, []);
        assert_eq!(side.subject.state(), State::Open);
        let pongs = side.carried().iter().filter(|frame| frame.opcode == 0xa).count();
        assert!(pongs >= 10, "{pongs} pongs");
    }
    pair.close(Role::Client, 1000, "").unwrap();
    pair.drive();
    pair.assert_ended();
}

/// Nothing arrives in either direction: each connection fails by its own pong timeout.
#[test]
fn two_connections_that_receive_nothing_fail() {
    let mut pair = Pair::new();
    (pair.client.link.stalled, pair.server.link.stalled) = (true, true);
    pair.drive();
    for side in [&pair.client, &pair.server] {
        assert!(side.closed);
        assert_eq!(side.subject.failure().cause(), Cause::PongTimeout);
    }
    assert_eq!(pair.now, Instant::from_nanos(1_000_000_000) + seconds(45));
}

/// While reading is paused, silence is no sign of a dead or idle peer.
#[test]
fn keep_alive_and_idle_timers_stop_while_reading_is_paused() {
    let mut server = Subject::new(
        Role::Server,
        config(|config| {
            config.idle_timeout = Some(seconds(50));
            config.data_idle_timeout = Some(seconds(60));
        }),
    );
    assert_eq!(server.at(20.0), [Timer::Ping], "a pong is outstanding when reading is paused");
    let ping = the_ping(&mut server);
    server.connection.set_reading(false, server.now);
    server.connection.set_reading(false, server.now);
    assert_eq!(server.due(), Some(40.0), "then it is looked whether output waits");
    server.at(1000.0);
    assert_eq!(server.sent(), [], "no ping is sent");
    server.connection.set_reading(true, server.now);
    server.connection.set_reading(true, server.now);
    assert_eq!(server.due(), Some(1020.0), "the timers restart");
    server.receive(&[pong(&ping)]);
    assert_eq!(server.at(1020.0), [Timer::Ping], "the late pong is not taken for an answer");
    assert_eq!(server.failures, []);

    // The close timeout runs also while reading is paused.
    server.connection.set_reading(false, server.now);
    server.close(1000, "").unwrap();
    assert_eq!(server.due(), Some(1025.0));
}

/// A peer that reads nothing cannot keep a connection by making the other end pause.
#[test]
fn a_peer_that_reads_nothing_fails_while_reading_is_paused() {
    let mut server = Subject::new(Role::Server, config(|_| ()));
    server.connection.set_reading(false, server.now);
    server.out.blocked = true;
    assert_eq!(server.at(20.0), [Timer::Ping]);
    assert_eq!(server.due(), Some(40.0));
    server.now = Instant::from_nanos(1_000_000_000) + seconds(39);
    server.connection.handle_writable(server.now, &mut server.out);
    assert_eq!(server.due(), Some(59.0), "it has read something");
    server.out.blocked = false;
    server.connection.handle_writable(server.now, &mut server.out);
    assert_eq!(server.due(), Some(59.0), "it has read everything, and is looked at again");
    assert_eq!(server.at(59.0), [Timer::Ping]);
    assert_eq!(server.at(79.0), [Timer::Ping], "nothing waits, so there is nothing to read");
    server.out.blocked = true;
    assert_eq!(server.at(99.0), [Timer::Ping]);
    assert_eq!(server.sent(), []);
    server.at(119.0);
    assert_eq!(server.failure().cause(), Cause::PongTimeout);
}

/// A socket takes more only after a large part of its buffer has left, which can take longer than the timeout.
#[test]
fn a_held_ping_waits_while_the_peer_takes_output() {
    for reading in [true, false] {
        let mut server = Subject::new(Role::Server, config(|_| ()));
        server.connection.set_reading(reading, server.now);
        server.out.blocked = true;
        assert_eq!(server.at(20.0), [Timer::Ping]);
        // The peer takes output. Where the transport does not count that, only less waits.
        for (at, acknowledged, waiting) in [(40.0, 100, 900), (60.0, 300, 700), (80.0, 300, 600)] {
            assert_eq!(server.at_with(at, acknowledged, waiting), []);
            assert_eq!(server.due(), Some(at + 20.0));
            assert_eq!(server.failures, []);
        }
        // The application sends more, and the peer takes nothing.
        server.at_with(100.0, 300, 700);
        assert_eq!(server.failure().cause(), Cause::PongTimeout);
    }
}
