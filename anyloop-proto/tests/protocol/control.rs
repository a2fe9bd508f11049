//! Pings and pongs: RFC 6455 §5.5.2 and §5.5.3.

use std::time::Duration;

use anyloop_proto::{Kind, Refused, Role, State};
use anyloop_testkit::frames::{binary, close, continuation, other, ping, pong, stream, text};

use crate::pair::{Cut, Pair};
use crate::subject::{Seen, Subject, config};

const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// An application that only reads stays connected: the pong is in the output when `next` returns.
#[test]
fn pitfall_a_pong_leaves_without_the_application_writing() {
    for role in ROLES {
        let mut subject = Subject::new(role, config(|_| ()));
        subject.receive(&[ping("are you there?")]);
        assert_eq!(subject.sent(), [pong("are you there?")]);
        assert_eq!(subject.seen(), [Seen::ping("are you there?")]);
    }
}

#[test]
fn rfc6455_5_5_3_a_pong_has_the_payload_of_its_ping() {
    let every_byte: Vec<u8> = (0..=255).collect();
    for role in ROLES {
        for payload in [&every_byte[..0], &every_byte[..1], &every_byte[131..], &every_byte[..125]]
        {
            let bytes = ping(payload).bytes(other(role));
            let mut at_once = Subject::new(role, config(|_| ()));
            at_once.feed(&bytes);
            let mut slowly = Subject::new(role, config(|_| ()));
            slowly.feed_byte_by_byte(&bytes);
            for mut subject in [at_once, slowly] {
                assert_eq!(subject.sent(), [pong(payload)]);
                assert_eq!(subject.seen(), [Seen::ping(payload)]);
            }
        }
    }
}

#[test]
fn every_ping_is_answered_in_order_while_nothing_is_blocked() {
    let mut server = Subject::server();
    server.receive(&[ping("1"), ping("2"), text("x"), ping("3")]);
    assert_eq!(server.sent(), [pong("1"), pong("2"), pong("3")]);
}

#[test]
fn pitfall_only_the_newest_pong_is_kept_while_the_output_is_blocked() {
    for role in ROLES {
        let mut subject = Subject::new(role, config(|_| ()));
        subject.out.blocked = true;
        for i in 0..10_000u32 {
            subject.receive(&[ping(i.to_be_bytes())]);
        }
        assert_eq!(subject.events.len(), 10_000);
        assert_eq!(subject.sent(), [], "the pong is deferred");
        subject.out.blocked = false;
        subject.writable();
        assert_eq!(subject.sent(), [pong(9_999u32.to_be_bytes())]);
        subject.writable();
        assert_eq!(subject.sent(), [], "the pong is sent once");
    }
}

/// The transport makes progress, but its output is still blocked.
#[test]
fn a_deferred_pong_is_kept_while_the_output_stays_blocked() {
    let mut server = Subject::server();
    server.out.blocked = true;
    server.receive(&[ping("held")]);
    server.writable();
    server.writable();
    assert_eq!(server.sent(), []);
    server.out.blocked = false;
    server.writable();
    assert_eq!(server.sent(), [pong("held")]);
}

#[test]
fn a_ping_after_the_output_unblocks_replaces_the_deferred_pong() {
    let mut server = Subject::server();
    server.out.blocked = true;
    server.receive(&[ping("old")]);
    server.out.blocked = false;
    server.receive(&[ping("new")]);
    assert_eq!(server.sent(), [pong("new")]);
    server.writable();
    assert_eq!(server.sent(), []);
}

#[test]
fn rfc6455_5_5_2_a_deferred_pong_is_sent_until_the_peers_close() {
    let mut server = Subject::server();
    server.out.blocked = true;
    server.receive(&[ping("held")]);
    server.close(1000, "").unwrap();
    server.out.blocked = false;
    server.writable();
    assert_eq!(server.sent(), [close(1000, ""), pong("held")]);

    let mut server = Subject::server();
    server.out.blocked = true;
    server.receive(&[ping("held"), close(1001, "")]);
    server.out.blocked = false;
    server.writable();
    assert_eq!(server.sent(), [close(1001, "")]);
}

#[test]
fn rfc6455_5_5_2_a_ping_is_answered_until_the_peers_close() {
    let mut server = Subject::server();
    server.close(1000, "").unwrap();
    server.receive(&[ping("late")]);
    assert_eq!(server.seen(), [Seen::ping("late")]);
    assert_eq!(server.sent(), [close(1000, ""), pong("late")]);
    server.receive(&[close(1000, ""), ping("too late")]);
    assert_eq!(server.sent(), []);
}

#[test]
fn with_auto_pong_off_the_application_answers() {
    let mut server = Subject::new(Role::Server, config(|config| config.auto_pong = false));
    server.receive(&[ping("asked")]);
    assert_eq!(server.seen(), [Seen::ping("asked")]);
    assert_eq!(server.sent(), []);
    let Subject { connection, out, .. } = &mut server;
    connection.sender.pong(b"asked", out).unwrap();
    assert_eq!(server.sent(), [pong("asked")]);
}

#[test]
fn rfc6455_5_5_3_an_unsolicited_pong_is_reported_and_not_answered() {
    for role in ROLES {
        let mut subject = Subject::new(role, config(|_| ()));
        subject.receive(&[pong("heartbeat"), pong("")]);
        assert_eq!(subject.seen(), [Seen::pong("heartbeat"), Seen::pong("")]);
        assert_eq!(subject.sent(), []);
        let Subject { connection, out, .. } = &mut subject;
        connection.sender.pong(b"heartbeat", out).unwrap();
        assert_eq!(subject.sent(), [pong("heartbeat")]);
    }
}

#[test]
fn rfc6455_5_5_a_control_payload_has_at_most_125_bytes() {
    for role in ROLES {
        let mut subject = Subject::new(role, config(|_| ()));
        let Subject { connection, out, .. } = &mut subject;
        let longest = [7; 125];
        connection.sender.ping(&longest, out).unwrap();
        connection.sender.pong(&longest, out).unwrap();
        let too_long = Err(Refused::ControlTooLong(126));
        assert_eq!(connection.sender.ping(&[7; 126], out), too_long);
        assert_eq!(connection.sender.pong(&[7; 126], out), too_long);
        assert_eq!(subject.sent(), [ping(longest), pong(longest)]);
        assert_eq!(subject.state(), State::Open);
    }
}

#[test]
fn rfc6455_5_4_pongs_and_pings_are_sent_between_the_fragments_of_a_message() {
    for role in ROLES {
        let mut subject = Subject::new(role, config(|_| ()));
        let Subject { connection, out, .. } = &mut subject;
        connection.sender.begin(Kind::Text).unwrap();
        connection.sender.piece(b"a", false, out).unwrap();
        connection.sender.ping(b"own", out).unwrap();
        subject.receive(&[ping("theirs")]);
        let Subject { connection, out, .. } = &mut subject;
        connection.sender.piece(b"b", true, out).unwrap();
        assert_eq!(
            subject.sent(),
            [text("a").more(), ping("own"), pong("theirs"), continuation("b")]
        );
    }
}

/// The connection appends complete frames and removes none, so a partly written frame is continued
/// where the write stopped. The link accepts 7 bytes at a time, so no frame is written at once.
#[test]
fn pitfall_a_half_written_frame_is_not_overtaken_by_a_control_frame() {
    let mut pair = Pair::new().window(7).cut(Cut::Every(3));
    let large = vec![b'x'; 1000];
    pair.act(Role::Server, |server| server.send(&large[..]).unwrap());
    for i in 0..5u8 {
        pair.act(Role::Client, |client| {
            let Subject { connection, out, .. } = client;
            connection.sender.ping(&[i], out).unwrap();
        });
        pair.drive_for(Duration::from_millis(45));
    }
    assert!(
        !pair.server.carried().iter().any(|frame| frame.opcode == 0xa),
        "no pong is sent while the output is blocked"
    );
    pair.act(Role::Server, |server| server.send(&b"after"[..]).unwrap());
    pair.drive_for(Duration::from_secs(10));
    // Only the newest of the five pongs was kept.
    assert_eq!(pair.server.carried(), [binary(&large), binary("after"), pong([4])]);
    assert_eq!(
        pair.client.subject.seen(),
        [Seen::binary(&large), Seen::binary("after"), Seen::pong([4])]
    );
}

/// A Close is written after the frame before it is complete, and arrives complete.
#[test]
fn pitfall_a_close_does_not_overtake_a_half_written_frame() {
    let mut pair = Pair::new().window(7);
    let large = vec![b'x'; 1000];
    pair.act(Role::Server, |server| server.send(&large[..]).unwrap());
    pair.close(Role::Server, 1001, "bye").unwrap();
    pair.drive();
    assert_eq!(pair.client.subject.seen(), [Seen::binary(&large), Seen::close(1001, "bye")]);
    pair.assert_ended();
    assert!(pair.server.subject.connection.ending().unwrap().clean);
}

#[test]
fn a_ping_during_a_large_frame_is_sent_after_that_frame() {
    let mut server = Subject::server();
    let bytes = stream(&[binary([1; 5000]), ping("x")], Role::Client);
    for part in bytes.chunks(999) {
        server.feed(part);
    }
    assert_eq!(server.seen(), [Seen::binary([1; 5000]), Seen::ping("x")]);
}
