//! The closing handshake and all other ends of a connection: RFC 6455 §5.5.1, §7.1 and §7.4.

use std::time::Duration;

use anyloop_proto::{
    Cause, CloseCode, MAX_REASON, Party, Refused, Role, Shutdown, State, Timer, TransportError,
    truncate_reason,
};
use anyloop_testkit::frames::{
    Frame, binary, close, continuation, frame, other, ping, pong, stream, text,
};

use crate::pair::Pair;
use crate::subject::{Seen, Subject, config, seconds};

const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// The codes on both sides of each boundary of RFC 6455 §7.4 and of the IANA registry, and whether a
/// Close frame may carry them.
const CODES: [(u16, bool); 28] = [
    (0, false),
    (1, false),
    (999, false),
    (1000, true),
    (1001, true),
    (1002, true),
    (1003, true),
    (1004, false),
    (1005, false),
    (1006, false),
    (1007, true),
    (1008, true),
    (1009, true),
    (1010, true),
    (1011, true),
    (1012, true),
    (1013, true),
    (1014, true),
    (1015, false),
    (1016, false),
    (1100, false),
    (2000, false),
    (2999, false),
    (3000, true),
    (3999, true),
    (4999, true),
    (5000, false),
    (65535, false),
];

fn subject(role: Role) -> Subject {
    Subject::new(role, config(|_| ()))
}

#[test]
fn rfc6455_7_4_close_codes() {
    for (code, valid) in CODES {
        assert_eq!(CloseCode::new(code).is_some(), valid, "{code}");
        for role in ROLES {
            for reason in ["", "because"] {
                let mut subject = subject(role);
                subject.receive(&[close(code, reason)]);
                if valid {
                    assert_eq!(subject.seen(), [Seen::close(code, reason)]);
                    assert_eq!(
                        subject.sent(),
                        [close(code, reason)],
                        "the code and the reason are echoed"
                    );
                    assert_eq!(subject.state(), State::Closed);
                } else {
                    assert_eq!(subject.seen(), []);
                    assert_eq!(subject.failure().cause(), Cause::CloseCode(code));
                    assert_eq!(subject.sent(), [close(1002, "invalid close code")]);
                    assert_eq!(subject.connection.shutdown(), Shutdown::HalfClose);
                }
            }
        }
    }
}

#[test]
fn rfc6455_5_5_1_a_close_payload_of_one_byte_is_1002() {
    for role in ROLES {
        let mut subject = subject(role);
        subject.receive(&[frame(0x8, [0x03])]);
        assert_eq!(subject.failure().cause(), Cause::CloseLength);
        assert_eq!(subject.sent(), [close(1002, "close frame of one byte")]);
    }
}

#[test]
fn rfc6455_5_5_1_a_reason_that_is_not_utf8_is_1007() {
    for reason in [&b"\xff"[..], b"ok\xed\xa0\x80", b"cut \xe2\x82", b"\xc0\x80"] {
        for role in ROLES {
            let mut subject = subject(role);
            subject.receive(&[frame(0x8, [&[0x03, 0xe8][..], reason].concat())]);
            assert_eq!(subject.seen(), []);
            assert_eq!(subject.failure().cause(), Cause::CloseReason);
            assert_eq!(subject.sent(), [close(1007, "close reason is not UTF-8")]);
        }
    }
}

#[test]
fn rfc6455_5_5_1_an_empty_close_is_answered_by_an_empty_close() {
    for role in ROLES {
        let mut subject = subject(role);
        subject.receive(&[frame(0x8, "")]);
        assert_eq!(subject.seen(), [Seen::Close(None, String::new())]);
        assert_eq!(subject.sent(), [frame(0x8, "")]);
        let ending = subject.connection.ending().unwrap();
        assert!(ending.clean);
        assert_eq!(ending.received.unwrap().code, None);
    }
}

#[test]
fn pitfall_the_peers_reason_is_kept() {
    let longest = "é".repeat(61) + "x";
    assert_eq!(longest.len(), MAX_REASON);
    for role in ROLES {
        for reason in ["", "a reason", &longest] {
            // In one call, and byte by byte.
            for whole in [true, false] {
                let mut subject = subject(role);
                let bytes = close(4321, reason).bytes(other(role));
                if whole {
                    subject.feed(&bytes);
                } else {
                    subject.feed_byte_by_byte(&bytes);
                }
                assert_eq!(subject.seen(), [Seen::close(4321, reason)]);
                assert_eq!(subject.sent(), [close(4321, reason)], "the Close is echoed");
                subject.eof();
                let ending = subject.connection.ending().unwrap();
                assert_eq!(ending.by, Party::Peer);
                assert!(ending.clean);
                let received = ending.received.unwrap();
                assert_eq!(received.code.map(CloseCode::get), Some(4321));
                assert_eq!(received.reason, reason);
                assert_eq!(ending.sent, ending.received);
                assert_eq!(ending.failure, None);
            }
        }
    }
}

/// Each side gives a reason, and both are reported.
#[test]
fn pitfall_the_peers_reason_is_kept_after_our_own_close() {
    let mut client = Subject::client();
    client.close(1000, "mine").unwrap();
    client.receive(&[close(1001, "theirs")]);
    let ending = client.connection.ending().unwrap();
    assert_eq!(ending.by, Party::Local);
    assert!(ending.clean);
    assert_eq!(ending.sent.unwrap().reason, "mine");
    assert_eq!(ending.received.unwrap().reason, "theirs");
}

#[test]
fn pitfall_a_reason_is_cut_between_two_characters() {
    for (character, fits) in [("x", 123), ("é", 122), ("€", 123), ("💚", 120)] {
        let long = character.repeat(124);
        assert_eq!(truncate_reason(&long), &long[..fits]);
        let short = &long[..fits];
        assert_eq!(truncate_reason(short), short);

        let mut server = Subject::server();
        assert_eq!(server.close(1000, &long), Err(Refused::ReasonTooLong(long.len())));
        assert_eq!(server.state(), State::Open, "a close that returns an error changes nothing");
        assert_eq!(server.sent(), []);
        server.close(1000, truncate_reason(&long)).unwrap();
        assert_eq!(server.sent(), [close(1000, &long[..fits])]);
    }
    assert_eq!(truncate_reason(""), "");
}

#[test]
fn pitfall_a_close_is_sent_once() {
    for role in ROLES {
        // The application closes twice.
        let mut twice = subject(role);
        twice.close(1000, "first").unwrap();
        assert_eq!(twice.close(1001, "second"), Err(Refused::NotOpen(State::CloseSent)));
        assert_eq!(twice.sent(), [close(1000, "first")]);
        // The application closes, then the peer's Close arrives.
        twice.receive(&[close(1000, "")]);
        assert_eq!(twice.sent(), []);
        assert_eq!(twice.close(1001, ""), Err(Refused::NotOpen(State::Closed)));
        // The peer's Close is answered, then the application closes.
        let mut answered = subject(role);
        answered.receive(&[close(3000, ""), close(3000, "")]);
        assert_eq!(answered.sent(), [close(3000, "")]);
        assert_eq!(answered.close(1000, ""), Err(Refused::NotOpen(State::Closed)));
        assert_eq!(answered.sent(), []);
        // The application closes, then the peer violates the protocol.
        let mut failed = subject(role);
        failed.close(1000, "").unwrap();
        failed.receive(&[frame(0x3, "")]);
        assert_eq!(failed.sent(), [close(1000, "")]);
        assert_eq!(failed.failure().state(), State::CloseSent);
        assert_eq!(failed.state(), State::Failed);
    }
}

#[test]
fn rfc6455_5_5_1_no_message_is_sent_after_a_close() {
    for role in ROLES {
        let mut subject = subject(role);
        subject.connection.sender.begin(anyloop_proto::Kind::Text).unwrap();
        subject.connection.sender.piece(b"a", false, &mut subject.out).unwrap();
        subject.close(1000, "").unwrap();
        let not_open = Err(Refused::NotOpen(State::CloseSent));
        assert_eq!(subject.send("late"), not_open);
        let Subject { connection, out, .. } = &mut subject;
        assert_eq!(connection.sender.piece(b"b", true, out), not_open);
        assert_eq!(connection.sender.ping(b"", out), not_open);
        assert_eq!(subject.sent(), [text("a").more(), close(1000, "")]);
        // RFC 6455 §5.5.2: a pong may be sent until the peer's Close arrives.
        let Subject { connection, out, .. } = &mut subject;
        connection.sender.pong(b"", out).unwrap();
        assert_eq!(subject.sent(), [pong("")]);
        subject.receive(&[close(1000, "")]);
        let Subject { connection, out, .. } = &mut subject;
        assert_eq!(connection.sender.pong(b"", out), Err(Refused::NotOpen(State::Closed)));
    }
}

#[test]
fn rfc6455_7_1_2_data_before_the_peers_close_is_still_delivered() {
    for role in ROLES {
        let mut subject = subject(role);
        subject.receive(&[text("half").more()]);
        subject.close(1000, "").unwrap();
        subject.receive(&[continuation(" way"), binary("b"), ping("p"), close(1000, "ok")]);
        assert_eq!(
            subject.seen(),
            [Seen::text("half way"), Seen::binary("b"), Seen::ping("p"), Seen::close(1000, "ok"),]
        );
        assert_eq!(subject.connection.statistics().messages_received, 2);
        assert!(subject.connection.ending().unwrap().clean);
    }
}

#[test]
fn rfc6455_5_5_1_bytes_after_the_peers_close_are_not_consumed() {
    for role in ROLES {
        let mut subject = subject(role);
        let mut bytes = stream(&[text("a"), close(1000, "")], other(role));
        bytes.extend_from_slice(b"neither a frame nor masked");
        subject.feed(&bytes);
        assert_eq!(subject.left, b"neither a frame nor masked");
        subject.feed(b"more");
        assert_eq!(subject.left, b"neither a frame nor maskedmore");
        assert_eq!(subject.seen(), [Seen::text("a"), Seen::close(1000, "")]);
        assert_eq!(subject.failures, []);
    }
}

#[test]
fn rfc6455_7_1_1_the_server_closes_the_stream_first_and_the_client_waits() {
    for first in ROLES {
        let mut pair = Pair::new();
        pair.close(first, 1000, "done").unwrap();
        while !pair.server.finished {
            assert!(
                !pair.client.finished,
                "the client ended the stream first, after the {first:?}'s Close"
            );
            assert!(pair.step());
        }
        let server_closed = pair.now;
        while !pair.client.closed {
            assert!(pair.step());
        }
        assert_eq!(
            pair.now,
            server_closed + Duration::from_millis(10),
            "the client must close when the server does"
        );
        pair.drive();
        pair.assert_ended();
        for (side, role) in [(&pair.client, Role::Client), (&pair.server, Role::Server)] {
            let ending = side.subject.connection.ending().unwrap();
            assert!(ending.clean);
            assert_eq!(ending.by, if role == first { Party::Local } else { Party::Peer });
            assert_eq!(side.subject.failures, []);
        }
    }
}

#[test]
fn rfc6455_7_1_1_shutdown_in_each_state() {
    for role in ROLES {
        let closed = if role == Role::Server { Shutdown::HalfClose } else { Shutdown::Linger };
        let mut subject = subject(role);
        assert_eq!((subject.state(), subject.connection.shutdown()), (State::Open, Shutdown::None));
        assert_eq!(subject.connection.ending(), None);
        subject.close(1000, "").unwrap();
        assert_eq!(subject.state(), State::CloseSent);
        assert_eq!(subject.connection.shutdown(), Shutdown::None);
        subject.receive(&[close(1000, "")]);
        assert_eq!((subject.state(), subject.connection.shutdown()), (State::Closed, closed));
        // The peer has ended the stream: there is nothing to wait for, but pending output is written.
        subject.eof();
        assert_eq!(subject.connection.shutdown(), Shutdown::Close);
        subject.reset();
        assert_eq!(
            (subject.state(), subject.connection.shutdown()),
            (State::Ended, Shutdown::Abort)
        );
        assert_eq!(subject.failures, []);
    }
}

/// If the stream ends right after an invalid frame, our Close may still be in the write buffer. It must
/// be written, so that the peer gets the reason.
#[test]
fn pending_output_is_written_after_the_peers_end_of_the_stream() {
    for role in ROLES {
        for last in [frame(0x3, ""), close(1000, "")] {
            let mut subject = subject(role);
            subject.receive(&[last]);
            subject.eof();
            assert_eq!(subject.connection.shutdown(), Shutdown::Close);
            assert_eq!(subject.due(), Some(5.0), "the write is bounded by the close timeout");
            assert_eq!(subject.at(5.0), [Timer::Close]);
            assert_eq!(subject.connection.shutdown(), Shutdown::Abort);
        }
    }
}

/// The connection has appended its Close and received the peer's, but its own is still in the write
/// buffer, behind data that the peer does not read.
#[test]
fn pitfall_an_ending_is_not_clean_if_our_close_never_left() {
    for role in ROLES {
        for first in ROLES {
            let mut subject = subject(role);
            subject.send("data").unwrap();
            subject.out.blocked = true;
            if first == role {
                subject.close(1000, "").unwrap();
            }
            subject.receive(&[close(1000, "")]);
            subject.eof();
            assert_eq!(subject.connection.shutdown(), Shutdown::Close);
            assert_eq!(subject.at(4.999), []);
            assert_eq!(subject.failures, []);
            assert_eq!(subject.at(5.0), []);
            assert_eq!(subject.failure().cause(), Cause::OutputLost);
            assert_eq!(subject.failure().state(), State::Closed);
            assert_eq!(subject.connection.shutdown(), Shutdown::Abort);
            let ending = subject.connection.ending().unwrap();
            assert!(!ending.clean);
            assert_eq!(ending.failure, Some(subject.failure()));
            assert_eq!(ending.by, Party::Transport);
            assert_eq!(subject.due(), None);
        }
    }
}

#[test]
fn an_ending_is_clean_if_the_peer_reads_just_in_time() {
    for role in ROLES {
        let mut subject = subject(role);
        subject.out.blocked = true;
        subject.receive(&[close(1000, "")]);
        assert_eq!(subject.at(4.999), []);
        subject.out.blocked = false;
        subject.writable();
        assert_eq!(subject.at(5.0), [Timer::Close]);
        assert_eq!(subject.failures, []);
        assert!(subject.connection.ending().unwrap().clean);
    }
}

/// The transport discards pending output, in each way in which a stream can end.
#[test]
fn discarded_output_is_reported_as_the_only_failure() {
    type Begin = fn(&mut Subject);
    let begins: [(Begin, Cause); 7] = [
        (|_| (), Cause::OutputLost),
        (|subject| subject.close(1000, "").unwrap(), Cause::OutputLost),
        (|subject| subject.receive(&[close(1000, "")]), Cause::OutputLost),
        (
            |subject| {
                subject.receive(&[close(1000, "")]);
                subject.reset();
            },
            Cause::OutputLost,
        ),
        (|subject| subject.receive(&[frame(0x3, "")]), Cause::ReservedOpcode(3)),
        (Subject::reset, Cause::Transport(TransportError::Reset)),
        (Subject::eof, Cause::EndOfStream),
    ];
    for role in ROLES {
        for (begin, cause) in begins {
            let mut subject = subject(role);
            begin(&mut subject);
            for _ in 0..2 {
                subject.failures.extend(subject.connection.handle_lost_output().err());
                assert_eq!(subject.failure().cause(), cause);
            }
            assert_eq!(subject.state(), State::Ended);
            assert_eq!(subject.connection.shutdown(), Shutdown::Abort);
            let ending = subject.connection.ending().unwrap();
            assert!(!ending.clean);
            assert_eq!(ending.failure.map(|failure| failure.cause()), Some(cause));
        }
    }
}

/// Between two connections: one sends more than the link accepts, and the other closes without reading.
#[test]
fn pitfall_a_peer_that_closes_and_does_not_read_is_no_clean_end() {
    for role in ROLES {
        let mut pair = Pair::new().window(1000);
        pair.side(role).link.stalled = true; // the peer of this side does not read
        let begin = pair.now;
        pair.act(role, |subject| subject.send(&[0; 100_000][..]).unwrap());
        pair.forge(other(role), &[close(1000, "")]);
        while !pair.side(role).closed {
            assert!(pair.step());
        }
        assert_eq!(pair.now, begin + seconds(5) + Duration::from_millis(10));
        let side = pair.side(role);
        assert_eq!(side.subject.failure().cause(), Cause::OutputLost);
        assert!(!side.subject.connection.ending().unwrap().clean);
    }
}

/// Each side waits for the other to end the stream for at most the close timeout.
#[test]
fn pitfall_the_wait_for_the_peers_end_of_the_stream_is_bounded() {
    for (role, waits) in [(Role::Client, Shutdown::Linger), (Role::Server, Shutdown::HalfClose)] {
        let mut subject = subject(role);
        subject.receive(&[close(1000, "")]);
        assert_eq!(subject.connection.shutdown(), waits);
        assert_eq!(subject.due(), Some(5.0));
        assert_eq!(subject.at(4.999), []);
        assert_eq!(subject.connection.shutdown(), waits);
        assert_eq!(subject.at(5.0), [Timer::Close]);
        assert_eq!(subject.connection.shutdown(), Shutdown::Abort);
        assert_eq!(subject.due(), None);
        assert_eq!(subject.failures, [], "a late end of the stream is not a failure");
        assert!(subject.connection.ending().unwrap().clean);
    }
}

/// For example a pong that was in flight when the peer sent its Close. If a server closes its socket
/// before it has read such data, the system resets the connection, and the peer loses what it has not
/// read yet.
#[test]
fn pitfall_input_after_the_peers_close_is_discarded() {
    let mut server = Subject::server();
    server.close(1000, "").unwrap();
    server.receive(&[close(1000, ""), pong("late"), frame(0x3, "")]);
    server.receive(&[text("later")]);
    assert_eq!((server.state(), server.seen()), (State::Closed, vec![Seen::close(1000, "")]));
    assert_eq!(server.connection.shutdown(), Shutdown::HalfClose);
    server.eof();
    assert_eq!(server.connection.shutdown(), Shutdown::Close);
    assert!(server.connection.ending().unwrap().clean && server.failures.is_empty());
}

#[test]
fn rfc6455_7_1_simultaneous_closes() {
    let mut pair = Pair::new();
    pair.close(Role::Client, 1000, "from the client").unwrap();
    pair.close(Role::Server, 1001, "from the server").unwrap();
    pair.drive();
    pair.assert_ended();
    for (side, sent, received) in [
        (&mut pair.client, (1000, "from the client"), (1001, "from the server")),
        (&mut pair.server, (1001, "from the server"), (1000, "from the client")),
    ] {
        assert_eq!(side.carried(), [close(sent.0, sent.1)]);
        assert_eq!(side.subject.seen(), [Seen::close(received.0, received.1)]);
        assert_eq!(side.subject.failures, []);
        let ending = side.subject.connection.ending().unwrap();
        assert!(ending.clean);
        assert_eq!(ending.by, Party::Local);
        assert_eq!(ending.sent.unwrap().reason, sent.1);
        assert_eq!(ending.received.unwrap().reason, received.1);
    }
}

/// In each state in which the connection waits for the peer to close: the peer's frames do not postpone
/// the deadline.
#[test]
fn pitfall_the_close_timeout_is_absolute() {
    type Begin = fn(&mut Subject);
    let begins: [(Begin, State); 3] = [
        (|subject| subject.close(1000, "").unwrap(), State::CloseSent),
        (|subject| subject.receive(&[close(1000, "")]), State::Closed),
        (|subject| subject.receive(&[frame(0x3, "")]), State::Failed),
    ];
    for role in ROLES {
        for (begin, state) in begins {
            let mut subject = subject(role);
            assert_eq!(subject.at(2.0), []);
            begin(&mut subject);
            assert_eq!(subject.state(), state);
            for tenth in 0..50 {
                assert_eq!(subject.due(), Some(7.0), "in {state:?}");
                assert_eq!(subject.at(2.0 + f64::from(tenth) / 10.0), []);
                let part =
                    [text("still here"), ping("and here"), text("a").more(), continuation("b")];
                subject.receive(&part);
                subject.writable();
            }
            let failures = subject.failures.len();
            let served = subject.at(7.0);
            assert_eq!(subject.state(), State::Ended);
            assert_eq!(subject.connection.shutdown(), Shutdown::Abort);
            assert_eq!(subject.due(), None);
            if state == State::CloseSent {
                assert_eq!(subject.failure().cause(), Cause::CloseTimeout);
                assert_eq!(subject.failure().party(), Party::Timer);
                assert_eq!(subject.failure().state(), State::CloseSent);
                assert_eq!(subject.connection.ending().unwrap().by, Party::Timer);
            } else {
                assert_eq!(served, [Timer::Close]);
                assert_eq!(subject.failures.len(), failures);
            }
        }
    }
}

/// The close timeout runs from our Close. Neither the peer's Close nor a later failure restarts it.
#[test]
fn pitfall_the_close_timeout_covers_all_stages() {
    for role in ROLES {
        for second in [close(1000, ""), frame(0x3, "")] {
            let mut subject = subject(role);
            subject.close(1000, "").unwrap();
            assert_eq!(subject.at(4.0), []);
            subject.receive(&[second]);
            assert_eq!(subject.due(), Some(5.0));
        }
    }
}

#[test]
fn the_close_timeout_can_be_turned_off() {
    for role in ROLES {
        let mut subject = Subject::new(role, config(|config| config.close_timeout = None));
        subject.close(1000, "").unwrap();
        assert_eq!(subject.due(), None);
        assert_eq!(subject.at(1e6), []);
        assert_eq!(subject.state(), State::CloseSent);
        subject.receive(&[frame(0x3, "")]);
        assert_eq!(subject.due(), None);
    }
}

/// A peer that sends nothing, and a peer that keeps sending.
#[test]
fn pitfall_a_peer_that_does_not_close_is_disconnected_at_the_close_timeout() {
    for role in ROLES {
        let mut pair = Pair::new();
        pair.side(other(role)).link.stalled = true;
        let begin = pair.now;
        pair.close(role, 1000, "").unwrap();
        while !pair.side(role).closed {
            assert!(pair.step());
        }
        assert_eq!(pair.now, begin + seconds(5));
        assert_eq!(pair.side(role).subject.failure().cause(), Cause::CloseTimeout);
    }
}

/// RFC 6455 §7.1.7 over TCP: if the socket were closed at once with unread input, the system would send
/// a reset, which can make the peer lose our Close. The peer of a failed connection can read the reason.
#[test]
fn rfc6455_7_1_7_the_peer_of_a_failed_connection_gets_the_close() {
    for (bad, code) in [(frame(0x3, ""), 1002), (text([0xff]), 1007)] {
        let mut pair = Pair::new();
        let from = Role::Client;
        pair.forge(from, &[bad, binary([0; 100_000])]);
        pair.drive();
        pair.assert_ended();
        assert!(matches!(pair.client.subject.seen()[..], [Seen::Close(Some(c), _)] if c == code));
        // The client has answered the Close and stays connected; the server discards
        // input until the client ends the stream.
        assert_eq!(pair.server.subject.failures.len(), 1);
        assert_eq!(pair.client.subject.failures, []);
        assert_eq!(pair.client.subject.connection.ending().unwrap().by, Party::Peer);
    }
}

#[test]
fn pitfall_each_end_of_the_stream_has_its_cause_party_and_state() {
    let reset = Cause::Transport(TransportError::Reset);
    let open: fn(&mut Subject) = |subject| subject.receive(&[text("a"), text("b")]);
    let close_sent: fn(&mut Subject) = |subject| subject.close(1000, "").unwrap();
    let closed_by_us: fn(&mut Subject) = |subject| {
        subject.close(1000, "").unwrap();
        subject.receive(&[close(1000, "")]);
    };
    let closed_by_peer: fn(&mut Subject) = |subject| subject.receive(&[close(1000, "")]);
    let (peer, transport) = (Party::Peer, Party::Transport);
    let cases = [
        (open, true, Some((Cause::EndOfStream, State::Open)), peer, false),
        (open, false, Some((reset, State::Open)), transport, false),
        (close_sent, true, Some((Cause::EndOfStream, State::CloseSent)), peer, false),
        (close_sent, false, Some((reset, State::CloseSent)), transport, false),
        (closed_by_us, true, None, Party::Local, true),
        (closed_by_us, false, None, Party::Local, true),
        (closed_by_peer, true, None, peer, true),
        (closed_by_peer, false, None, peer, true),
    ];
    for (before, eof, failure, by, clean) in cases {
        for role in ROLES {
            let mut subject = subject(role);
            before(&mut subject);
            subject.sent();
            for _ in 0..2 {
                if eof {
                    subject.eof();
                } else {
                    subject.reset();
                }
            }
            let failures: Vec<_> =
                subject.failures.iter().map(|failure| (failure.cause(), failure.state())).collect();
            assert_eq!(failures, Vec::from_iter(failure), "reported once");
            assert_eq!(subject.sent(), [], "nothing is sent, since the peer cannot read it");
            let ending = subject.connection.ending().unwrap();
            assert_eq!((ending.by, ending.clean), (by, clean));
            assert_eq!(ending.failure, subject.failures.first().copied());
            // After the closing handshake, pending output is still written when the stream ends.
            if failure.is_none() && eof {
                assert_eq!(subject.connection.shutdown(), Shutdown::Close);
                subject.reset();
            }
            assert_eq!(subject.state(), State::Ended);
            assert_eq!(subject.connection.shutdown(), Shutdown::Abort);
            assert_eq!(subject.due(), None);
            assert_eq!(subject.send("late"), Err(Refused::NotOpen(State::Ended)));
        }
    }
}

/// The text of a failure names the responsible party, the cause and the state of the connection.
#[test]
fn a_failure_reads_as_a_sentence() {
    let mut server = Subject::server();
    server.receive(&[text("a"), text("b")]);
    server.eof();
    assert_eq!(server.failure().messages_before(), 2);
    assert_eq!(
        server.failure().to_string(),
        "peer: stream ended without a closing handshake (connection open, after 2 messages)"
    );
    let mut client = Subject::client();
    client.receive(&[close(1006, "")]);
    assert_eq!(
        client.failure().to_string(),
        "peer: invalid close code 1006 (connection open, after 0 messages)"
    );
}

/// After we have failed the connection, the end of the stream is not reported as a second failure.
#[test]
fn an_end_after_a_failure_is_not_reported_again() {
    for role in ROLES {
        for eof in [true, false] {
            let mut subject = subject(role);
            subject.receive(&[frame(0x3, "")]);
            if eof {
                subject.eof();
            } else {
                subject.reset();
            }
            assert_eq!(subject.failure().cause(), Cause::ReservedOpcode(3));
            let ending = subject.connection.ending().unwrap();
            assert_eq!(ending.failure, Some(subject.failure()));
            assert_eq!((ending.by, ending.clean), (Party::Peer, false));
            let shutdown = if eof { Shutdown::Close } else { Shutdown::Abort };
            assert_eq!(subject.connection.shutdown(), shutdown);
        }
    }
}

/// Messages before the end of the stream are delivered; an incomplete message is not.
#[test]
fn a_message_that_is_incomplete_at_the_end_of_the_stream_is_not_delivered() {
    let mut server = Subject::server();
    server.receive(&[text("whole"), text("cut").more()]);
    let bytes = continuation("off").bytes(Role::Client);
    server.feed(&bytes[..bytes.len() - 1]);
    server.eof();
    server.feed(&bytes[bytes.len() - 1..]);
    assert_eq!(server.seen(), [Seen::text("whole")]);
    assert_eq!(server.failure().cause(), Cause::EndOfStream);
}

/// Each protocol failure has a Close code that RFC 6455 allows, and a reason that fits into a Close frame.
#[test]
fn causes_have_codes() {
    let codes: [(Cause, Option<u16>); 12] = [
        (Cause::ReservedOpcode(3), Some(1002)),
        (Cause::ReservedBits(0x40), Some(1002)),
        (Cause::NonMinimalLength, Some(1002)),
        (Cause::UnmaskedFrame, Some(1002)),
        (Cause::InvalidUtf8 { at: 0 }, Some(1007)),
        (Cause::MessageTooBig { limit: 1 }, Some(1009)),
        (Cause::TooManyFragments, Some(1009)),
        (Cause::PongTimeout, Some(1011)),
        (Cause::IdleTimeout, Some(1001)),
        (Cause::EndOfStream, None),
        (Cause::CloseTimeout, None),
        (Cause::Transport(TransportError::Reset), None),
    ];
    for (cause, code) in codes {
        assert_eq!(cause.close_code().map(CloseCode::get), code, "{cause:?}");
        assert!(cause.reason().len() <= MAX_REASON);
    }
}

#[test]
fn a_close_in_the_middle_of_our_fragmented_message_reaches_the_peer() {
    let mut pair = Pair::new();
    pair.act(Role::Client, |client| {
        let Subject { connection, out, .. } = client;
        connection.sender.begin(anyloop_proto::Kind::Binary).unwrap();
        connection.sender.piece(b"unfinished", false, out).unwrap();
    });
    pair.close(Role::Client, 1001, "leaving").unwrap();
    pair.drive();
    pair.assert_ended();
    assert_eq!(pair.server.subject.seen(), [Seen::close(1001, "leaving")]);
    let carried: Vec<Frame> = pair.client.carried();
    assert_eq!(carried, [binary("unfinished").more(), close(1001, "leaving")]);
}
