//! Complete sessions of two connections, without errors and with a failure at each operation.

use std::time::Duration;

use anyloop_proto::{Cause, Config, Kind, Party, Role, TransportError};
use anyloop_testkit::frames::{binary, continuation, frame, text};

use crate::pair::{Cut, Pair, fail_loop};
use crate::subject::{Reading, Seen, Subject, config, seconds};

/// Links with different latency, windows and sizes of reads.
fn links() -> Vec<fn() -> Pair> {
    vec![
        Pair::new,
        || Pair::new().cut(Cut::Every(3)),
        || Pair::new().cut(Cut::Random(7)).window(40),
        || Pair::new().window(7),
        || {
            let mut pair = Pair::new();
            pair.client.link.latency = Duration::from_millis(1);
            pair.server.link.latency = Duration::from_millis(300);
            pair
        },
    ]
}

/// A short session with an echo, a message in fragments, a ping between them, and a longer message.
fn exchange(pair: &mut Pair) {
    pair.server.subject.echo = true;
    let _ = pair.send(Role::Client, "hello");
    pair.drive_for(Duration::from_millis(15));
    let _ = pair.act(Role::Server, |server| {
        let Subject { connection, out, .. } = server;
        connection.sender.begin(Kind::Text)?;
        connection.sender.piece(b"in ", false, out)?;
        connection.sender.ping(b"between", out)?;
        connection.sender.piece(b"pieces", true, out)
    });
    let _ = pair.send(Role::Client, &"long ".repeat(10));
    pair.drive_for(seconds(2));
}

#[test]
fn a_session() {
    for new in links() {
        let mut pair = new();
        exchange(&mut pair);
        pair.close(Role::Client, 1000, "done").unwrap();
        pair.drive();
        pair.assert_ended();
        let long = "long ".repeat(10);
        let server = pair.server.subject.seen();
        assert_eq!(
            server,
            [
                Seen::text("hello"),
                Seen::text(&long),
                Seen::pong("between"),
                Seen::close(1000, "done")
            ]
        );
        let client = pair.client.subject.seen();
        assert!(client.contains(&Seen::text("hello")));
        assert!(client.contains(&Seen::text("in pieces")));
        assert!(client.contains(&Seen::text(&long)));
        assert_eq!(client.last(), Some(&Seen::close(1000, "done")));
        assert!(pair.client.subject.connection.ending().unwrap().clean);
        assert!(pair.server.subject.connection.ending().unwrap().clean);
    }
}

/// Two runs of the same scenario have the same result, so that a failure can be reproduced.
#[test]
fn a_scenario_is_deterministic() {
    let run = || {
        let mut pair = Pair::new().cut(Cut::Random(42)).window(11);
        exchange(&mut pair);
        pair.close(Role::Server, 1001, "").unwrap();
        pair.drive();
        (pair.now, pair.client.subject.events, pair.client.link.carried, pair.server.link.carried)
    };
    assert_eq!(run(), run());
}

#[test]
fn a_failure_at_any_operation_of_a_session() {
    for new in links() {
        for closer in [Role::Client, Role::Server] {
            let operations = fail_loop(new, |pair| {
                exchange(pair);
                let _ = pair.close(closer, 1000, "done");
            });
            assert!(operations > 10, "{operations} operations");
        }
    }
}

#[test]
fn a_failure_at_any_operation_of_simultaneous_closes() {
    for new in links() {
        fail_loop(new, |pair| {
            let _ = pair.close(Role::Client, 1000, "mine");
            let _ = pair.close(Role::Server, 1001, "also mine");
        });
    }
}

#[test]
fn a_failure_at_any_operation_after_a_protocol_error() {
    for new in links() {
        for from in [Role::Client, Role::Server] {
            for bad in [frame(0x3, "bad"), text([0xff; 20]), continuation("x"), frame(0x8, "x")] {
                fail_loop(new, |pair| {
                    let _ = pair.send(from, "good");
                    pair.forge(from, std::slice::from_ref(&bad));
                    let _ = pair.send(from, "never read");
                });
            }
        }
    }
}

#[test]
fn a_failure_at_any_operation_of_keep_alive() {
    fail_loop(Pair::new, |pair| {
        pair.drive_for(seconds(100));
        let _ = pair.close(Role::Client, 1000, "");
    });
}

#[test]
fn a_failure_at_any_operation_around_an_idle_timeout() {
    let idle = |c: &mut Config| c.idle_timeout = Some(seconds(30));
    fail_loop(
        || Pair::with(config(idle), config(|_| ())),
        |pair| {
            let _ = pair.send(Role::Client, "the last word");
        },
    );
}

/// The connection fails while a message is received in place.
#[test]
fn a_failure_at_any_operation_of_a_message_received_in_place() {
    let new = || {
        let mut pair = Pair::new().cut(Cut::Every(3000)).window(10_000);
        let pool = anyloop_proto::BufferPool::new(1 << 20);
        pair.server.subject.reading = Reading::InPlace(pool);
        pair.server.subject.echo = true;
        pair
    };
    fail_loop(new, |pair| {
        let large = vec![7; 50_000];
        let _ = pair.act(Role::Client, |client| client.send(&large[..]));
        pair.drive_for(seconds(2));
        let _ = pair.close(Role::Client, 1000, "");
    });
}

/// Both sides report the reset, with their own state.
#[test]
fn a_reset_in_the_open_state_is_no_close() {
    let mut pair = Pair::new();
    pair.send(Role::Client, "x").unwrap();
    pair.act(Role::Client, Subject::reset);
    pair.drive();
    let reset = Cause::Transport(TransportError::Reset);
    assert_eq!(pair.client.subject.failure().cause(), reset);
    assert_eq!(pair.client.subject.failure().party(), Party::Transport);
    assert_eq!(pair.server.subject.seen(), [Seen::text("x")]);
    assert_eq!(pair.server.subject.failure().cause(), Cause::EndOfStream);
    assert_eq!(pair.server.subject.failure().party(), Party::Peer);
}

/// Large messages in both directions at once over links with small windows do not deadlock.
#[test]
fn large_messages_in_both_directions() {
    let mut pair = Pair::new().window(5000).cut(Cut::Every(1234));
    let (up, down) = (vec![1; 60_000], vec![2; 80_000]);
    pair.act(Role::Client, |client| client.send(&up[..]).unwrap());
    pair.act(Role::Server, |server| server.send(&down[..]).unwrap());
    pair.close(Role::Client, 1000, "").unwrap();
    pair.drive();
    pair.assert_ended();
    assert_eq!(pair.server.subject.seen(), [Seen::binary(&up), Seen::close(1000, "")]);
    assert_eq!(pair.client.subject.seen(), [Seen::binary(&down), Seen::close(1000, "")]);
    assert_eq!(pair.server.carried()[0], binary(&down));
}
