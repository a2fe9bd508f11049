//! Tunnels through HTTP proxies: the request, and every answer at any division into reads.

use anyloop_proto::handshake::TunnelHandshake;
use anyloop_proto::{HandshakeError, Input};

/// The largest body that these tunnels keep.
const LIMIT: usize = 16;

fn requested(uri: &str) -> (TunnelHandshake, String) {
    let mut out = Vec::new();
    let tunnel = TunnelHandshake::new(&uri.parse().unwrap(), None, LIMIT, &mut out);
    (tunnel, String::from_utf8(out).unwrap())
}

/// The result for an answer that arrives in parts of `size` bytes, and the bytes that were left.
fn answered(answer: &str, size: usize) -> (TunnelHandshake, Result<bool, HandshakeError>, String) {
    let (mut tunnel, _) = requested("ws://chat.example/");
    let (mut result, mut left) = (Ok(false), Vec::new());
    for part in answer.as_bytes().chunks(size) {
        if result != Ok(false) {
            left.extend_from_slice(part);
            continue;
        }
        let mut part = part.to_vec();
        let mut input = Input::new(&mut part);
        result = tunnel.next(&mut input);
        left.extend_from_slice(input.rest());
    }
    (tunnel, result, String::from_utf8(left).unwrap())
}

fn each_size(answer: &str, check: impl Fn(TunnelHandshake, Result<bool, HandshakeError>, String)) {
    for size in 1..=answer.len() {
        let (tunnel, result, left) = answered(answer, size);
        check(tunnel, result, left);
    }
}

#[track_caller]
fn opened(answer: &str, behind: &str) {
    each_size(answer, |tunnel, result, left| {
        assert_eq!((result, left.as_str()), (Ok(true), behind), "{answer:?}");
        assert!(tunnel.response().is_none());
    });
}

#[track_caller]
fn refused(answer: &str, code: u16, body: &str) {
    each_size(answer, |tunnel, result, _| {
        assert_eq!(result, Err(HandshakeError::Rejected(code)), "{answer:?}");
        let response = tunnel.response().unwrap();
        assert_eq!(
            (response.status().as_u16(), response.body().as_slice()),
            (code, body.as_bytes())
        );
    });
}

#[track_caller]
fn invalid(answer: &str, error: HandshakeError) {
    each_size(answer, |tunnel, result, _| {
        assert_eq!(result, Err(error), "{answer:?}");
        assert!(tunnel.response().is_none());
    });
}

#[test]
fn rfc9110_9_3_6_the_request_names_the_host_and_always_the_port() {
    let request = |uri| requested(uri).1;
    let expected = |authority| format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    assert_eq!(request("ws://chat.example/room?a=b"), expected("chat.example:80"));
    assert_eq!(request("wss://user:secret@chat.example/"), expected("chat.example:443"));
    assert_eq!(request("ws://[2001:db8::17]:9/"), expected("[2001:db8::17]:9"));
    assert_eq!(request("ws://[fe80::1%25eth0]/"), expected("[fe80::1]:80"));
}

#[test]
fn rfc9110_9_3_6_any_2xx_opens_it_and_the_rest_is_of_the_server() {
    opened("HTTP/1.1 200 OK\r\n\r\n", "");
    opened("HTTP/1.0 200 Connection established\r\n\r\nHTTP/1.1 101", "HTTP/1.1 101");
    opened("HTTP/1.1 299\r\nVia: a\r\n\r\n\x16", "\x16");
    // Their fields for a body mean nothing.
    opened("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello");
    opened("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0", "0");
    opened(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\nx",
        "x",
    );
}

#[test]
fn a_refusal_is_kept_with_its_body() {
    refused("HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno\n", 403, "no\n");
    refused("HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n", 407, "");
    refused(
        "HTTP/1.1 502 Bad\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        502,
        "hi",
    );
    refused("HTTP/1.1 301 Moved\r\nContent-Length: 0\r\nLocation: http://a/\r\n\r\n", 301, "");
    let long = "HTTP/1.1 403 Forbidden\r\nContent-Length: 99\r\n\r\n0123456789abcdefghi";
    refused(long, 403, "0123456789abcdef");
}

#[test]
fn a_refusal_may_end_with_the_stream() {
    let (mut tunnel, result, _) = answered("HTTP/1.1 403 Forbidden\r\n\r\nnot", 7);
    assert_eq!(result, Ok(false));
    assert!(tunnel.response().is_none(), "the body may continue");
    assert_eq!(tunnel.end(), Some(HandshakeError::Rejected(403)));
    assert_eq!(tunnel.response().unwrap().body(), b"not");
    assert_eq!(tunnel.end(), None, "once");
    for incomplete in ["H", "HTTP/1.1 200 OK\r\nVia", "HTTP/1.1 100\r\n\r\n"] {
        assert_eq!(answered(incomplete, 1).0.end(), None);
    }
}

#[test]
fn an_answer_that_is_not_http_is_an_error() {
    for (size, first) in [(1, "S"), (4, "SSH-"), (64, "SSH-2.")] {
        let error = answered("SSH-2.0-OpenSSH_9.2\r\n", size).1.unwrap_err();
        let why = format!("not an HTTP response: the first bytes are {first:?}");
        assert_eq!(error.to_string(), why);
    }
    invalid("HTTP/2.0 200 OK\r\n\r\n", HandshakeError::HttpVersion);
    invalid("HTTP/1.1 200 OK\n\n", HandshakeError::Malformed);
    invalid("HTTP/1.1 20 OK\r\n\r\n", HandshakeError::Malformed);
    invalid("HTTP/1.1 103 Hints\r\n\r\ngarbage", HandshakeError::Malformed);
    invalid("HTTP/1.1 101 Switching\r\n\r\n", HandshakeError::Rejected(101));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(101));
    assert_eq!(answered(&many, 64).1, Err(HandshakeError::TooManyFields));
    let big = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(16 * 1024));
    assert_eq!(answered(&big, 64).1, Err(HandshakeError::HeadTooBig));
    let interim = "HTTP/1.1 103 Hints\r\n\r\n".repeat(17);
    assert_eq!(answered(&interim, 64).1, Err(HandshakeError::TooManyInterim));
}
