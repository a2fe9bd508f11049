//! Deadlines, the end of the byte stream, and abandoned handshakes.

use std::sync::Arc;
use std::time::Duration;

use anyloop_proto::handshake::http::Response;
use anyloop_proto::handshake::{Accept, AnswerError, ServerHandshake};
use anyloop_proto::{Cause, Config, HandshakeError, Input, Party, Shutdown, Timer, TransportError};
use anyloop_testkit::requests::{SAMPLE_REQUEST, SAMPLE_RESPONSE};

use crate::drive::{
    Served, answer, at, client, client_options, feed, server, server_options, status,
};

const PLAIN: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Runs the timers at `millis`. Returns the outcome and the output.
fn due(server: &mut ServerHandshake, millis: u64) -> (Result<Option<Timer>, Cause>, String) {
    let mut out = Vec::new();
    let outcome = server.handle_timeout(at(millis), &mut out);
    (outcome.map_err(|failure| failure.cause()), String::from_utf8(out).unwrap())
}

#[test]
fn pitfall_the_deadline_of_a_request_is_absolute() {
    let mut server = server();
    assert_eq!(server.poll_timeout(), Some(at(5000)));
    // Input at one byte per second does not postpone it.
    for (second, byte) in SAMPLE_REQUEST.bytes().take(5).enumerate() {
        let mut bytes = [byte];
        let now = at(second as u64 * 1000);
        assert!(server.next(&mut Input::new(&mut bytes), now, &mut Vec::new()).unwrap().is_none());
        assert_eq!(server.poll_timeout(), Some(at(5000)));
        assert_eq!(due(&mut server, 4999), (Ok(None), String::new()));
    }
    let (outcome, out) = due(&mut server, 5000);
    assert_eq!(outcome, Err(Cause::OpenTimeout));
    assert_eq!(status(&out), 408);
    assert!(out.contains("\r\nConnection: close\r\n"), "{out}");
    assert_eq!(server.shutdown(), Shutdown::HalfClose);
    assert_eq!(server.failure().unwrap().party(), Party::Timer);

    // After that the client has the close timeout to read the response.
    assert_eq!(server.poll_timeout(), Some(at(10_000)));
    assert_eq!(due(&mut server, 10_000), (Ok(Some(Timer::Close)), String::new()));
    assert_eq!((server.shutdown(), server.poll_timeout()), (Shutdown::Abort, None));
    assert_eq!(due(&mut server, 20_000), (Ok(None), String::new()));
}

#[test]
fn the_deadline_includes_the_body() {
    let mut server = server();
    let part = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell";
    assert_eq!(feed(&mut server, part).0, Served::Pending);
    assert!(server.request().is_none(), "the body is not complete");
    let (outcome, out) = due(&mut server, 5000);
    assert_eq!((outcome, status(&out)), (Err(Cause::OpenTimeout), 408));
    assert!(server.request().is_none() || server.request().unwrap().body().is_empty());
}

#[test]
fn a_client_that_sends_nothing_gets_no_response() {
    for before in ["", "\r\n", "\r"] {
        let mut server = server();
        assert_eq!(feed(&mut server, before.as_bytes()).0, Served::Pending);
        assert_eq!(due(&mut server, 5000), (Err(Cause::OpenTimeout), String::new()));
        assert_eq!(server.shutdown(), Shutdown::Close);
    }
}

#[test]
fn the_application_has_its_own_deadline() {
    let mut server = server();
    let mut bytes = SAMPLE_REQUEST.as_bytes().to_vec();
    let lent = server.next(&mut Input::new(&mut bytes), at(4000), &mut Vec::new());
    assert!(lent.unwrap().is_some());
    assert_eq!(
        server.poll_timeout(),
        Some(at(14_000)),
        "ten seconds after the request was reported"
    );
    assert_eq!(due(&mut server, 13_999), (Ok(None), String::new()));
    let (outcome, out) = due(&mut server, 14_000);
    assert_eq!((outcome, status(&out)), (Err(Cause::AnswerTimeout), 503));
    assert_eq!(server.shutdown(), Shutdown::HalfClose);
    assert_eq!(server.failure().unwrap().party(), Party::Local);
    let late = server.accept(Accept::new(), at(14_000), &mut Vec::new()).unwrap_err();
    assert_eq!(late, AnswerError::NotAwaiting);
}

#[test]
fn an_answer_before_the_deadline_is_accepted() {
    let mut server = server();
    assert_eq!(feed(&mut server, SAMPLE_REQUEST.as_bytes()).0, Served::Upgrade);
    assert_eq!(due(&mut server, 9999), (Ok(None), String::new()));
    let opened = server.accept(Accept::new(), at(9999), &mut Vec::new()).unwrap();
    assert_eq!(
        opened.connection.poll_timeout(),
        Some(at(29_999)),
        "the timers of the connection start at the answer"
    );
}

#[test]
fn deadlines_can_be_turned_off() {
    let mut options = server_options();
    (options.open_timeout, options.answer_timeout) = (None, None);
    let mut config = Config::default();
    config.close_timeout = None;
    options.connection = Arc::new(config);
    let mut server = ServerHandshake::new(Arc::new(options), at(0));
    assert_eq!(server.poll_timeout(), None);
    assert_eq!(due(&mut server, u64::MAX / 2_000_000).0, Ok(None));
    assert_eq!(feed(&mut server, PLAIN).0, Served::Http);
    assert_eq!(server.poll_timeout(), None);
    server.respond(&Response::new(Vec::new()), at(0), &mut Vec::new()).unwrap();
    assert_eq!(server.poll_timeout(), None);
    assert_eq!(server.shutdown(), Shutdown::HalfClose);
}

#[test]
fn the_stream_ends_before_the_request() {
    for part in [&b""[..], b"GET", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell"] {
        let mut server = server();
        assert_eq!(feed(&mut server, part).0, Served::Pending);
        let failure = server.handle_eof().unwrap_err();
        assert_eq!((failure.cause(), failure.party()), (Cause::EndOfStream, Party::Peer));
        assert_eq!((server.shutdown(), server.poll_timeout()), (Shutdown::Abort, None));
        assert_eq!(server.handle_eof(), Ok(()), "the failure is reported once");
        assert_eq!(
            server.handle_error(TransportError::Reset),
            Ok(()),
            "the failure is reported once"
        );
    }
}

#[test]
fn a_client_that_half_closes_after_a_plain_request_gets_the_response() {
    let mut server = server();
    assert_eq!(feed(&mut server, PLAIN).0, Served::Http);
    assert_eq!(server.handle_eof(), Ok(()));
    assert_eq!(server.shutdown(), Shutdown::None);
    let mut out = Vec::new();
    server.respond(&Response::new(b"hi".to_vec()), at(0), &mut out).unwrap();
    assert!(out.ends_with(b"\r\n\r\nhi"));
    assert_eq!(
        server.shutdown(),
        Shutdown::Close,
        "the client has ended the stream, so there is nothing to read"
    );
}

#[test]
fn a_client_that_half_closes_after_an_upgrade_request_has_failed() {
    let mut server = server();
    assert_eq!(feed(&mut server, SAMPLE_REQUEST.as_bytes()).0, Served::Upgrade);
    assert_eq!(server.handle_eof().unwrap_err().cause(), Cause::EndOfStream);
    let late = server.accept(Accept::new(), at(0), &mut Vec::new()).unwrap_err();
    assert_eq!(late, AnswerError::NotAwaiting);
}

#[test]
fn the_response_is_written_before_the_stream_is_closed() {
    let mut server = server();
    assert!(matches!(feed(&mut server, b"\x16").0, Served::Refused(_)));
    assert_eq!(server.shutdown(), Shutdown::HalfClose);
    assert_eq!(server.handle_eof(), Ok(()));
    assert_eq!(server.shutdown(), Shutdown::Close);
    assert_eq!(server.poll_timeout(), Some(at(5000)), "the write is bounded by the close timeout");
    assert_eq!(server.handle_error(TransportError::Reset), Ok(()));
    assert_eq!((server.shutdown(), server.poll_timeout()), (Shutdown::Abort, None));
}

#[test]
fn the_stream_fails() {
    let mut server = server();
    let failure = server.handle_error(TransportError::Reset).unwrap_err();
    assert_eq!(failure.cause(), Cause::Transport(TransportError::Reset));
    assert_eq!(server.shutdown(), Shutdown::Abort);
}

#[test]
fn pitfall_a_server_can_abandon_the_handshake() {
    for (part, answered) in [
        (&b""[..], false),
        (b"GET", true),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", true),
        (PLAIN, true),
        (SAMPLE_REQUEST.as_bytes(), true),
    ] {
        let mut server = server();
        feed(&mut server, part);
        let mut out = Vec::new();
        let failure = server.abandon(at(100), &mut out).unwrap();
        assert_eq!(failure.cause(), Cause::Handshake(HandshakeError::Abandoned));
        assert_eq!(failure.party(), Party::Local);
        let expected = if answered { Shutdown::HalfClose } else { Shutdown::Close };
        assert_eq!(server.shutdown(), expected);
        match answered {
            true => assert_eq!(status(&String::from_utf8(out).unwrap()), 503),
            false => assert_eq!(out, b""),
        }
        assert_eq!(server.poll_timeout(), Some(at(5100)));
        assert_eq!(server.abandon(at(100), &mut Vec::new()), None, "the failure is reported once");
    }
}

#[test]
fn a_client_waits_at_most_the_open_timeout() {
    let mut options = client_options();
    options.open_timeout = Some(Duration::from_secs(2));
    let (mut client, _) = client(options);
    for byte in b"HTTP/1.1 1" {
        assert!(answer(&mut client, &[*byte]).0.unwrap().is_none());
        assert_eq!(client.poll_timeout(), Some(at(2000)));
    }
    assert_eq!(client.handle_timeout(at(1999), &mut Vec::new()), Ok(None));
    let failure = client.handle_timeout(at(2000), &mut Vec::new()).unwrap_err();
    assert_eq!((failure.cause(), failure.party()), (Cause::OpenTimeout, Party::Timer));
    assert_eq!((client.shutdown(), client.poll_timeout()), (Shutdown::Abort, None));
    assert_eq!(
        client.handle_timeout(at(9000), &mut Vec::new()),
        Ok(None),
        "the failure is reported once"
    );
}

#[test]
fn a_client_can_have_a_latest_instant_besides_the_open_timeout() {
    let (mut client, _) = client(client_options());
    client.expire_by(at(9000));
    assert_eq!(client.poll_timeout(), Some(at(5000)), "the open timeout is earlier");
    client.expire_by(at(3000));
    client.restart_open_timeout(at(1000));
    assert_eq!(client.poll_timeout(), Some(at(3000)));
    let failure = client.handle_timeout(at(3000), &mut Vec::new()).unwrap_err();
    assert_eq!(failure.cause(), Cause::OpenTimeout);
}

/// A deadline that no call clears would keep a host busy.
#[test]
fn a_handshake_that_is_over_has_no_deadline() {
    let mut options = client_options();
    options.subprotocols = vec!["chat".into()];
    let (mut opened, _) = client(options);
    assert!(answer(&mut opened, SAMPLE_RESPONSE.as_bytes()).0.unwrap().is_some());
    let (mut failed, _) = client(client_options());
    assert!(failed.abandon(at(0), &mut Vec::new()).is_some());
    let (mut ended, _) = client(client_options());
    assert!(ended.handle_eof().is_err());
    for mut client in [opened, failed, ended] {
        client.expire_by(at(3000));
        client.restart_open_timeout(at(1000));
        assert_eq!(client.poll_timeout(), None, "{client:?}");
    }
}

#[test]
fn a_refusal_whose_body_never_ends_is_a_refusal() {
    let (mut client, _) = client(client_options());
    assert!(answer(&mut client, b"HTTP/1.1 403 No\r\n\r\nwait").0.unwrap().is_none());
    let failure = client.handle_timeout(at(5000), &mut Vec::new()).unwrap_err();
    assert_eq!(failure.cause(), Cause::Handshake(HandshakeError::Rejected(403)));
    assert_eq!(client.response().unwrap().body(), b"wait");
}

#[test]
fn the_stream_ends_before_the_response() {
    let (mut one, _) = client(client_options());
    assert_eq!(one.handle_eof().unwrap_err().cause(), Cause::EndOfStream);
    let (mut other, _) = client(client_options());
    let failure = other.handle_error(TransportError::TimedOut).unwrap_err();
    assert_eq!(failure.cause(), Cause::Transport(TransportError::TimedOut));
    assert_eq!(other.shutdown(), Shutdown::Abort);
}
