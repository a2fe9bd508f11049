//! Responses other than 101: the client receives all of the response, and the application can read it.

use anyloop_proto::handshake::ClientHandshake;
use anyloop_proto::{Cause, HandshakeError, Party, Shutdown, TransportError};
use anyloop_testkit::requests::SAMPLE_RESPONSE;

use crate::drive::{answer, at, client, client_options};

fn requested() -> ClientHandshake {
    client(client_options()).0
}

/// Asserts that `response` is a refusal with this status and body, at any division into reads.
fn refused(response: &str, code: u16, body: &str) {
    for size in 1..=response.len() {
        let mut client = requested();
        let mut outcome = Ok(());
        for part in response.as_bytes().chunks(size) {
            if outcome.is_ok() {
                outcome = answer(&mut client, part).0.map(|opened| assert!(opened.is_none()));
            }
        }
        assert_eq!(outcome, Err(HandshakeError::Rejected(code)), "{response:?} by {size}");
        assert_eq!(client.shutdown(), Shutdown::Abort);
        let kept = client.response().unwrap();
        assert_eq!(kept.status(), code);
        assert_eq!(kept.body(), body.as_bytes(), "{response:?} by {size}");
    }
}

#[test]
fn rfc9112_6_3_bodies_of_every_framing() {
    refused("HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\nnot you\n", 403, "not you\n");
    refused("HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\nnot you\nrest", 403, "not you\n");
    refused("HTTP/1.0 403\r\nContent-Length: 0\r\n\r\n", 403, "");
    refused("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 200, "hi");
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    refused(both, 200, "hi");
    refused("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204, "");
    refused("HTTP/1.1 304 Not Modified\r\n\r\n", 304, "");
    refused("HTTP/1.1 301 Moved\r\nLocation: /x\r\ncontent-length: 2, 2\r\n\r\nhi", 301, "hi");
    refused("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nbroken", 200, "hi");
    refused("HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n", 999, "");
}

#[test]
fn rfc9112_6_3_a_body_that_ends_with_the_stream() {
    for fields in
        ["", "Transfer-Encoding: gzip\r\n", "Content-Length: x\r\n", "Content-Length: 99\r\n"]
    {
        let mut client = requested();
        let response = format!("HTTP/1.1 500 Oops\r\n{fields}\r\nsome words");
        assert!(answer(&mut client, response.as_bytes()).0.unwrap().is_none());
        assert!(client.response().is_none(), "the body may continue until the stream ends");
        let failure = client.handle_eof().unwrap_err();
        assert_eq!(failure.cause(), Cause::Handshake(HandshakeError::Rejected(500)));
        assert_eq!(client.shutdown(), Shutdown::Abort);
        assert_eq!(client.handle_eof(), Ok(()), "once");
        assert_eq!(client.failure(), Some(failure));
        assert_eq!(client.into_response().unwrap().into_body(), b"some words");
    }
}

#[test]
fn a_stream_that_fails_in_the_body_does_not_hide_the_refusal() {
    let mut client = requested();
    assert!(answer(&mut client, b"HTTP/1.1 503 Busy\r\n\r\nlater").0.unwrap().is_none());
    let failure = client.handle_error(TransportError::Reset).unwrap_err();
    assert_eq!(failure.cause(), Cause::Handshake(HandshakeError::Rejected(503)));
    assert_eq!(client.response().unwrap().body(), b"later");
}

#[test]
fn a_large_body_is_truncated_at_the_limit() {
    for head in ["", "Content-Length: 1000000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut options = client_options();
        options.max_body_size = 10;
        let (mut client, _) = client(options);
        let chunk = if head.starts_with('T') { "f4240\r\n" } else { "" };
        let response = format!("HTTP/1.1 500 Oops\r\n{head}\r\n{chunk}0123456789");
        assert!(answer(&mut client, response.as_bytes()).0.unwrap().is_none());
        let (outcome, _) = answer(&mut client, b"and more");
        assert_eq!(outcome.unwrap_err(), HandshakeError::Rejected(500));
        assert_eq!(client.response().unwrap().body(), b"0123456789", "{head}");
    }
}

#[test]
fn rfc9110_15_2_interim_responses_are_skipped() {
    let sample = SAMPLE_RESPONSE.replace("Sec-WebSocket-Protocol: chat\r\n", "");
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
        HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    let response = interim.to_owned() + &sample;
    for size in [1, 7, response.len()] {
        let mut client = requested();
        let mut opened = None;
        for part in response.as_bytes().chunks(size) {
            opened = answer(&mut client, part).0.unwrap();
        }
        assert_eq!(opened.unwrap().response.status(), 101);
    }
    let refusal = interim.to_owned() + "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n";
    let (outcome, _) = answer(&mut requested(), refusal.as_bytes());
    assert_eq!(outcome.unwrap_err(), HandshakeError::Rejected(403));
}

#[test]
fn interim_responses_are_bounded_in_number_and_size() {
    let sample = SAMPLE_RESPONSE.replace("Sec-WebSocket-Protocol: chat\r\n", "");
    let hint = "HTTP/1.1 103 Early Hints\r\n\r\n";
    let (outcome, _) = answer(&mut requested(), (hint.repeat(16) + &sample).as_bytes());
    assert!(outcome.unwrap().is_some());
    let (outcome, _) = answer(&mut requested(), (hint.repeat(17) + &sample).as_bytes());
    assert_eq!(outcome.unwrap_err(), HandshakeError::TooManyInterim);
    let large = format!("HTTP/1.1 103 Early Hints\r\nX: {}\r\n\r\n", "x".repeat(6000));
    let (outcome, _) = answer(&mut requested(), (large.repeat(2) + &sample).as_bytes());
    assert!(outcome.unwrap().is_some());
    let (outcome, _) = answer(&mut requested(), (large.repeat(3) + &sample).as_bytes());
    assert_eq!(outcome.unwrap_err(), HandshakeError::HeadTooBig);
}

#[test]
fn rfc6455_4_4_a_version_mismatch_is_a_refusal_with_the_servers_versions() {
    let mut client = requested();
    let response =
        "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 8\r\nContent-Length: 0\r\n\r\n";
    let (outcome, _) = answer(&mut client, response.as_bytes());
    assert_eq!(outcome.unwrap_err(), HandshakeError::Rejected(426));
    assert_eq!(client.response().unwrap().headers()["sec-websocket-version"], "8");
}

#[test]
fn a_client_can_abandon_the_handshake() {
    let mut client = requested();
    let failure = client.abandon(at(0), &mut Vec::new()).unwrap();
    assert_eq!(failure.cause(), Cause::Handshake(HandshakeError::Abandoned));
    assert_eq!(client.shutdown(), Shutdown::Abort);
    assert_eq!(client.abandon(at(0), &mut Vec::new()), None);
    assert!(answer(&mut client, SAMPLE_RESPONSE.as_bytes()).0.unwrap().is_none());
    assert_eq!(client.handle_error(TransportError::Reset), Ok(()));
    assert_eq!(client.shutdown(), Shutdown::Abort);
}

#[test]
fn pitfall_wss_over_a_stream_that_is_not_secure_fails() {
    let (mut client, _) = client(client_options());
    let failure = client.handle_insecure().unwrap();
    assert_eq!(failure.cause(), Cause::Handshake(HandshakeError::NotSecure));
    assert_eq!(failure.party(), Party::Local);
    assert_eq!(client.shutdown(), Shutdown::Abort);
    assert_eq!(client.handle_insecure(), None);
}
