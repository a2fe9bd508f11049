//! Single frames: RFC 6455 §5.1, §5.2 and §5.7.

use anyloop_proto::{Cause, CloseCode, Refused, Role, Shutdown, State};
use anyloop_testkit::frames::{
    self, Frame, binary, close, continuation, declare, declare_as, frame, other, ping, pong, text,
};

use crate::subject::{Seen, Subject, config};

const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// A subject, after the first fragment of a message if `in_message`.
fn subject(role: Role, in_message: bool) -> Subject {
    let mut subject = Subject::new(role, config(|_| ()));
    if in_message {
        subject.receive(&[binary("begun").more()]);
    }
    subject
}

/// Feeds `bytes` at once and byte by byte: both must fail for `cause` and send its Close.
fn assert_refused(role: Role, in_message: bool, bytes: &[u8], cause: Cause) {
    for whole in [true, false] {
        let mut subject = subject(role, in_message);
        if whole {
            subject.feed(bytes);
        } else {
            subject.feed_byte_by_byte(bytes);
        }
        assert!(subject.events.is_empty(), "{role:?} {bytes:x?}: {:?}", subject.events);
        assert_eq!(subject.failure().cause(), cause, "{role:?} {bytes:x?}");
        assert_eq!(subject.failure().state(), State::Open);
        let code = cause.close_code().map(CloseCode::get).unwrap();
        assert_eq!(subject.sent(), [close(code, cause.reason())], "{role:?} {bytes:x?}");
        assert_eq!(subject.connection.shutdown(), Shutdown::HalfClose);
    }
}

#[test]
fn rfc6455_5_7_the_examples() {
    let mut client = Subject::client();
    client.feed(b"\x81\x05\x48\x65\x6c\x6c\x6f");
    client.feed(b"\x01\x03\x48\x65\x6c\x80\x02\x6c\x6f");
    client.feed(b"\x89\x05\x48\x65\x6c\x6c\x6f");
    client.feed(&[&b"\x82\x7e\x01\x00"[..], &[7; 256]].concat());
    client.feed(&[&b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"[..], &[8; 65536]].concat());
    assert_eq!(
        client.seen(),
        [
            Seen::text("Hello"),
            Seen::text("Hello"),
            Seen::ping("Hello"),
            Seen::binary([7; 256]),
            Seen::binary([8; 65536]),
        ]
    );

    let mut server = Subject::server();
    server.feed(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
    server.feed(b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
    assert_eq!(server.seen(), [Seen::text("Hello"), Seen::pong("Hello")]);
}

#[test]
fn rfc6455_5_1_a_server_refuses_an_unmasked_frame_of_any_kind() {
    for frame in [text("x"), binary("x"), ping("x"), pong(""), close(1000, ""), text("")] {
        assert_refused(Role::Server, false, &frame.bytes(Role::Server), Cause::UnmaskedFrame);
    }
    let bytes = continuation("x").bytes(Role::Server);
    assert_refused(Role::Server, true, &bytes, Cause::UnmaskedFrame);
}

#[test]
fn rfc6455_5_1_a_client_refuses_a_masked_frame_of_any_kind() {
    for frame in [text("x"), binary("x"), ping("x"), pong(""), close(1000, ""), text("")] {
        assert_refused(Role::Client, false, &frame.bytes(Role::Client), Cause::MaskedFrame);
    }
    let bytes = continuation("x").bytes(Role::Client);
    assert_refused(Role::Client, true, &bytes, Cause::MaskedFrame);
}

#[test]
fn pitfall_an_unmasked_client_frame_is_never_delivered() {
    let mut server = Subject::server();
    server.echo = true;
    // The input continues, so a parser that does not check the mask bit finds four bytes for a masking key.
    let unmasked = binary("unmasked").bytes(Role::Server);
    let masked = |payload| text(payload).bytes(Role::Client);
    server.feed(&[masked("masked"), unmasked, masked("masked again")].concat());
    server.feed(&masked("and again"));
    assert_eq!(server.seen(), [Seen::text("masked")]);
    assert_eq!(server.failure().cause(), Cause::UnmaskedFrame);
    assert_eq!(server.failure().messages_before(), 1);
}

/// Each defined opcode where it is allowed, with each reserved bit. RSV1 is refused too, since no
/// extension is negotiated.
#[test]
fn pitfall_reserved_bits_on_every_kind_of_frame_are_1002() {
    for role in ROLES {
        for opcode in [0x0, 0x1, 0x2, 0x8, 0x9, 0xa] {
            for bits in (0x10..=0x70).step_by(0x10) {
                let bytes = frame(opcode, "").rsv(bits).bytes(other(role));
                assert_refused(role, opcode == 0, &bytes, Cause::ReservedBits(bits));
                let bytes = frame(opcode, "ab").rsv(bits).bytes(other(role));
                assert_refused(role, opcode == 0, &bytes, Cause::ReservedBits(bits));
            }
        }
    }
}

#[test]
fn rfc6455_5_2_reserved_opcodes_are_refused_in_and_between_messages() {
    for role in ROLES {
        for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf] {
            for in_message in [false, true] {
                let cause = Cause::ReservedOpcode(opcode);
                let whole = frame(opcode, "");
                assert_refused(role, in_message, &whole.bytes(other(role)), cause);
                assert_refused(role, in_message, &whole.more().bytes(other(role)), cause);
            }
        }
    }
}

#[test]
fn pitfall_the_high_bit_of_a_length_is_1002() {
    for role in ROLES {
        for len in [1 << 63, (1 << 63) + 5, u64::MAX] {
            for first in [0x81, 0x82, 0x02] {
                let bytes = declare(first, len, other(role));
                assert_refused(role, false, &bytes, Cause::LengthOverflow);
            }
            let bytes = declare(0x80, len, other(role));
            assert_refused(role, true, &bytes, Cause::LengthOverflow);
        }
    }
}

/// A protocol error (1002) at any size limit. Some implementations send 1011 or 1009 here.
#[test]
fn pitfall_a_length_not_in_its_shortest_form_is_1002() {
    for role in ROLES {
        for len in [0u16, 1, 5, 124, 125] {
            for first in [0x81, 0x82, 0x01] {
                let mut bytes = declare_as(first, 126, &len.to_be_bytes(), other(role));
                bytes.extend(vec![0x20; len.into()]);
                assert_refused(role, false, &bytes, Cause::NonMinimalLength);
            }
        }
        for len in [0u64, 5, 125, 126, 65534, 65535] {
            let bytes = declare_as(0x82, 127, &len.to_be_bytes(), other(role));
            assert_refused(role, false, &bytes, Cause::NonMinimalLength);
            let bytes = declare_as(0x80, 127, &len.to_be_bytes(), other(role));
            assert_refused(role, true, &bytes, Cause::NonMinimalLength);
        }
    }
    assert_eq!(Cause::NonMinimalLength.close_code(), Some(CloseCode::PROTOCOL_ERROR));
    assert_eq!(Cause::LengthOverflow.close_code(), Some(CloseCode::PROTOCOL_ERROR));
}

#[test]
fn rfc6455_5_2_each_form_of_the_length_at_its_bounds() {
    for role in ROLES {
        for len in [0, 1, 125, 126, 127, 128, 65535, 65536, 65537] {
            let payload: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let bytes = binary(&payload).bytes(other(role));
            let mut at_once = subject(role, false);
            at_once.feed(&bytes);
            assert_eq!(at_once.seen(), [Seen::binary(&payload)]);
            let mut halves = subject(role, false);
            halves.feed(&bytes[..bytes.len() / 2]);
            halves.feed(&bytes[bytes.len() / 2..]);
            assert_eq!(halves.seen(), [Seen::binary(&payload)]);
        }
    }
}

#[test]
fn rfc6455_5_4_a_continuation_needs_a_message_to_continue() {
    for role in ROLES {
        for frame in [continuation("x"), continuation("").more()] {
            let bytes = frame.bytes(other(role));
            assert_refused(role, false, &bytes, Cause::NothingToContinue);
        }
        let mut subject = subject(role, true);
        subject.receive(&[continuation("").more(), continuation("!"), continuation("?")]);
        assert_eq!(subject.seen(), [Seen::binary("begun!")]);
        assert_eq!(subject.failure().cause(), Cause::NothingToContinue);
    }
}

#[test]
fn rfc6455_5_4_no_message_begins_inside_another() {
    for role in ROLES {
        for frame in [text("x"), binary("x"), text("").more(), binary("").more()] {
            let bytes = frame.bytes(other(role));
            assert_refused(role, true, &bytes, Cause::ExpectedContinuation);
        }
    }
}

#[test]
fn rfc6455_5_5_control_frames_are_short_and_not_fragmented() {
    for role in ROLES {
        for opcode in [0x8, 0x9, 0xa] {
            for len in [126, 127, 65535, 65536, 1 << 40] {
                let bytes = declare(0x80 | opcode, len, other(role));
                assert_refused(role, false, &bytes, Cause::ControlTooLong);
                assert_refused(role, true, &bytes, Cause::ControlTooLong);
            }
            let bytes = frame(opcode, "").more().bytes(other(role));
            assert_refused(role, false, &bytes, Cause::FragmentedControl);
            assert_refused(role, true, &bytes, Cause::FragmentedControl);
        }
    }
}

/// The connection fails as soon as the first invalid byte arrives; it does not wait for the rest.
#[test]
fn a_header_is_refused_at_its_first_invalid_byte() {
    let by_client = |first, len| declare(first, len, Role::Client);
    let cases: [(Vec<u8>, usize); 8] = [
        (by_client(0x83, 0), 0),
        (by_client(0xc1, 0), 0),
        (by_client(0x80, 0), 0),
        (by_client(0x09, 0), 0),
        (vec![0x81, 0x05], 1),
        (by_client(0x89, 126), 1),
        (declare_as(0x82, 126, &[0, 125], Role::Client), 3),
        (by_client(0x82, u64::MAX), 9),
    ];
    for (bytes, wrong) in cases {
        let mut server = Subject::server();
        server.feed_byte_by_byte(&bytes[..wrong]);
        assert!(server.failures.is_empty(), "{bytes:x?} failed before byte {wrong}");
        server.feed(&bytes[wrong..=wrong]);
        assert_eq!(server.failures.len(), 1, "{bytes:x?} must fail at byte {wrong}");
        assert_eq!(server.sent().len(), 1);
    }
}

#[test]
fn pitfall_messages_complete_before_a_bad_frame_are_delivered() {
    let before: [Frame; 5] =
        [text("one"), binary("tw").more(), ping("?"), continuation("o"), text("three")];
    let bad = frame(0x3, "bad");
    for role in ROLES {
        let mut subject = subject(role, false);
        let mut frames = before.to_vec();
        frames.extend([bad.clone(), text("after")]);
        subject.receive(&frames);
        assert_eq!(
            subject.seen(),
            [Seen::text("one"), Seen::ping("?"), Seen::binary("two"), Seen::text("three")]
        );
        assert_eq!(subject.failure().cause(), Cause::ReservedOpcode(3));
        assert_eq!(subject.failure().messages_before(), 3);
        assert_eq!(subject.sent(), [pong("?"), close(1002, "reserved opcode")]);
    }
}

/// tungstenite sends no Close after a protocol error (known since 2018). This library sends one Close,
/// and no later call sends anything.
#[test]
fn pitfall_after_a_protocol_error_only_the_close_is_sent() {
    for role in ROLES {
        let mut subject = subject(role, false);
        subject.receive(&[frame(0x3, "")]);
        assert_eq!(subject.sent(), [close(1002, "reserved opcode")]);

        let Subject { connection, out, now, .. } = &mut subject;
        let not_open = Err(Refused::NotOpen(State::Failed));
        let prepared = anyloop_proto::Prepared::new("x");
        assert_eq!(connection.sender.send("x", out), not_open);
        assert_eq!(connection.sender.send(&[1; 70_000][..], out), not_open);
        assert_eq!(connection.sender.send_prepared(&prepared, out), not_open);
        assert_eq!(connection.sender.begin(anyloop_proto::Kind::Text), not_open);
        assert_eq!(connection.sender.piece(b"x", true, out), not_open);
        assert_eq!(connection.sender.ping(b"x", out), not_open);
        assert_eq!(connection.sender.pong(b"x", out), not_open);
        assert_eq!(connection.sender.close(CloseCode::NORMAL, "", *now, out), not_open);
        connection.handle_writable(*now, out);
        subject.receive(&[text("late"), ping("late"), close(1000, "")]);
        subject.pass(std::time::Duration::from_secs(3600));
        subject.serve_timers();
        assert_eq!(subject.sent(), []);
        assert_eq!(subject.seen(), []);
        assert_eq!(subject.failures.len(), 1, "the failure is reported once");
        assert_eq!(subject.state(), State::Ended, "the close timeout has passed");
    }
}

#[test]
fn a_stream_of_frames_in_one_input() {
    for role in ROLES {
        let mut subject = subject(role, false);
        let frames = [text("a"), binary([0; 200]), ping(""), text(""), binary(""), pong("p")];
        subject.feed(&frames::stream(&frames, other(role)));
        assert_eq!(
            subject.seen(),
            [
                Seen::text("a"),
                Seen::binary([0; 200]),
                Seen::ping(""),
                Seen::text(""),
                Seen::binary(""),
                Seen::pong("p"),
            ]
        );
    }
}
