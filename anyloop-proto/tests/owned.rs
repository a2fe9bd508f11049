//! `owned::WebSocket`: a client and a server, each of which receives the output of the other.

use std::sync::Arc;
use std::time::Duration;

use anyloop_proto::handshake::http::{Response, StatusCode};
use anyloop_proto::handshake::{Accept, ClientOptions, OriginPolicy, ServerOptions};
use anyloop_proto::owned::{Event, WebSocket};
use anyloop_proto::{
    Cause, CloseCode, Config, HandshakeError, Instant, Party, Refused, Shutdown, State,
    TransportError,
};

const NOW: Instant = Instant::from_nanos(1_000_000_000);

fn server() -> WebSocket {
    WebSocket::server(ServerOptions::new(OriginPolicy::Any).into(), NOW)
}

fn client() -> WebSocket {
    let target = "ws://localhost/chat".parse().unwrap();
    WebSocket::client(&target, ClientOptions::default().into(), NOW).unwrap()
}

/// Passes the output of `from` to `to`.
fn carry(from: &mut WebSocket, to: &mut WebSocket) {
    if let Some(bytes) = from.poll_output() {
        to.receive(&bytes, NOW);
    }
}

fn opened() -> (WebSocket, WebSocket) {
    let (mut client, mut server) = (client(), server());
    carry(&mut client, &mut server);
    assert!(matches!(server.poll_event(), Some(Event::Upgrade)));
    assert_eq!(server.request().unwrap().uri(), "/chat");
    server.accept(Accept::new(), NOW).unwrap();
    assert!(matches!(server.poll_event(), Some(Event::Open { .. })));
    carry(&mut server, &mut client);
    assert!(matches!(client.poll_event(), Some(Event::Open { .. })));
    (client, server)
}

fn failure(socket: &mut WebSocket) -> Cause {
    match socket.poll_event() {
        Some(Event::Failed(failure)) => failure.cause(),
        event => panic!("{event:?}"),
    }
}

#[test]
fn a_session_from_handshake_to_close() {
    let (mut client, mut server) = opened();
    client.send("text").unwrap();
    client.send(&b"bytes"[..]).unwrap();
    client.ping(b"there?").unwrap();
    carry(&mut client, &mut server);
    assert!(matches!(server.poll_event(), Some(Event::Text(text)) if text == "text"));
    assert!(matches!(server.poll_event(), Some(Event::Binary(bytes)) if bytes == b"bytes"));
    assert!(matches!(server.poll_event(), Some(Event::Ping(payload)) if payload == b"there?"));
    carry(&mut server, &mut client);
    assert!(
        matches!(client.poll_event(), Some(Event::Pong { payload, .. }) if payload == b"there?")
    );

    client.close(CloseCode::NORMAL, "done", NOW).unwrap();
    assert_eq!(client.send("late"), Err(Refused::NotOpen(State::CloseSent)));
    carry(&mut client, &mut server);
    assert!(matches!(server.poll_event(), Some(Event::Close(frame)) if frame.reason == "done"));
    assert_eq!(server.shutdown(), Shutdown::HalfClose);
    carry(&mut server, &mut client);
    assert!(matches!(client.poll_event(), Some(Event::Close(_))));
    assert_eq!(client.shutdown(), Shutdown::Linger);
    client.receive_eof();
    assert_eq!(client.shutdown(), Shutdown::Close);
    server.receive_eof();
    assert_eq!(server.shutdown(), Shutdown::Close);
    assert!(client.poll_event().is_none() && server.poll_event().is_none());
}

#[test]
fn frames_after_a_request_are_delivered_once_after_it_is_accepted() {
    let (mut client, mut server) = (client(), server());
    let mut bytes = client.poll_output().unwrap();
    // RFC 6455 §5.7: "Hello", masked.
    bytes.extend(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
    let (first, rest) = bytes.split_at(bytes.len() - 3);
    server.receive(first, NOW);
    assert!(!server.wants_input());
    for byte in rest {
        server.receive(&[*byte], NOW);
    }
    assert!(matches!(server.poll_event(), Some(Event::Upgrade)));
    assert!(server.poll_event().is_none());
    server.accept(Accept::new(), NOW).unwrap();
    assert!(server.wants_input());
    assert!(matches!(server.poll_event(), Some(Event::Open { .. })));
    assert!(matches!(server.poll_event(), Some(Event::Text(text)) if text == "Hello"));
    assert!(server.poll_event().is_none());
}

/// An implementation that copies the waiting input at each call moves some 10^12 bytes, which takes minutes.
#[test]
fn the_cost_of_input_before_the_answer_is_linear() {
    let (mut client, mut server) = (client(), server());
    carry(&mut client, &mut server);
    for _ in 0..40_000 {
        server.receive(&[0; 1400], NOW);
    }
    assert!(matches!(server.poll_event(), Some(Event::Upgrade)));
    assert!(server.poll_event().is_none());
}

#[test]
fn input_after_a_plain_request_is_ignored() {
    let mut server = server();
    server.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /again HTTP/1.1\r\n", NOW);
    server.receive(b"Host: a\r\n\r\n", NOW);
    assert!(matches!(server.poll_event(), Some(Event::Http)));
    let mut response = Response::new(b"no".to_vec());
    *response.status_mut() = StatusCode::NOT_FOUND;
    server.respond(&response, NOW).unwrap();
    assert!(server.poll_output().unwrap().starts_with(b"HTTP/1.1 404 Not Found\r\n"));
    assert!(server.poll_event().is_none());
    assert_eq!(server.shutdown(), Shutdown::HalfClose);
}

#[test]
fn a_refusal_can_be_read_completely() {
    let (mut client, mut server) = (client(), server());
    carry(&mut client, &mut server);
    let mut response = Response::new(b"members only".to_vec());
    *response.status_mut() = StatusCode::FORBIDDEN;
    server.respond(&response, NOW).unwrap();
    carry(&mut server, &mut client);
    assert_eq!(failure(&mut client), Cause::Handshake(HandshakeError::Rejected(403)));
    assert_eq!(client.response().unwrap().body(), b"members only");
    assert_eq!(client.shutdown(), Shutdown::Abort);
}

#[test]
fn closing_during_the_handshake_fails_once() {
    let mut client = client();
    client.close(CloseCode::NORMAL, "", NOW).unwrap();
    assert_eq!(failure(&mut client), Cause::Handshake(HandshakeError::Abandoned));
    assert_eq!(client.close(CloseCode::NORMAL, "", NOW), Err(Refused::NotOpen(State::Ended)));
    assert!(client.poll_event().is_none());
}

#[test]
fn pitfall_the_end_of_the_stream_and_a_reset_have_different_causes() {
    for phase in 0..2 {
        for (error, party) in [(None, Party::Peer), (Some(TransportError::Reset), Party::Transport)]
        {
            let mut socket = if phase == 0 { client() } else { opened().0 };
            match error {
                None => socket.receive_eof(),
                Some(error) => socket.receive_error(error),
            }
            let cause = failure(&mut socket);
            assert_eq!(cause.party(), party);
            assert_eq!(socket.shutdown(), Shutdown::Abort);
        }
    }
}

#[test]
fn pitfall_an_ending_is_not_clean_if_our_close_was_not_sent() {
    type Lose = fn(&mut WebSocket);
    let loses: [(Lose, bool); 4] = [
        (|socket| socket.receive_error(TransportError::Reset), false), // the output is not taken
        (
            |socket| {
                drop(socket.poll_output());
                socket.set_blocked(true, NOW);
                socket.receive_error(TransportError::Reset);
            },
            false,
        ),
        (
            |socket| {
                drop(socket.poll_output());
                socket.handle_lost_output();
                socket.receive_error(TransportError::Reset);
            },
            false,
        ),
        (
            |socket| {
                drop(socket.poll_output());
                socket.receive_error(TransportError::Reset);
            },
            true, // the Close was written
        ),
    ];
    for (lose, clean) in loses {
        let (mut client, mut server) = opened();
        client.close(CloseCode::NORMAL, "", NOW).unwrap();
        carry(&mut client, &mut server);
        assert!(matches!(server.poll_event(), Some(Event::Close(_))));
        lose(&mut server);
        if !clean {
            assert_eq!(failure(&mut server), Cause::OutputLost);
        }
        assert!(server.poll_event().is_none());
        assert_eq!(server.shutdown(), Shutdown::Abort);
        assert_eq!(server.parts().unwrap().0.ending().unwrap().clean, clean);
    }
}

#[test]
fn pitfall_while_blocked_only_the_newest_pong_is_kept() {
    let (mut client, mut server) = opened();
    server.set_blocked(true, NOW);
    for n in 0..100u8 {
        client.ping(&[n]).unwrap();
    }
    carry(&mut client, &mut server);
    assert!(server.poll_output().is_none());
    server.set_blocked(false, NOW);
    assert_eq!(server.poll_output().unwrap(), [0x8a, 1, 99]);
}

#[test]
fn timers_run_on_the_callers_clock() {
    let mut options = ServerOptions::new(OriginPolicy::Any);
    let mut config = Config::default();
    config.idle_timeout = Some(Duration::from_secs(1));
    config.close_timeout = Some(Duration::from_secs(2));
    options.connection = Arc::new(config);
    let mut server = WebSocket::server(options.into(), NOW);
    assert_eq!(server.poll_timeout(), Some(NOW + Duration::from_secs(5)));
    carry(&mut client(), &mut server);
    server.accept(Accept::new(), NOW).unwrap();
    while server.poll_event().is_some() {}

    let idle = server.poll_timeout().unwrap();
    assert_eq!(idle, NOW + Duration::from_secs(1));
    server.handle_timeout(idle);
    assert_eq!(server.parts().unwrap().0.ending().unwrap().by, Party::Timer);
    assert_eq!(server.shutdown(), Shutdown::None);
    let close = server.poll_timeout().unwrap();
    assert_eq!(close, idle + Duration::from_secs(2));
    server.handle_timeout(close);
    assert_eq!(failure(&mut server), Cause::CloseTimeout);
    assert_eq!(server.shutdown(), Shutdown::Abort);
    assert_eq!(server.poll_timeout(), None);
}
