//! Bounds of the memory and the work that a peer can cause during the handshake.

use std::sync::Arc;

use anyloop_proto::HandshakeError;
use anyloop_proto::handshake::ServerHandshake;
use anyloop_testkit::requests::SAMPLE_REQUEST;

use crate::drive::{
    MASKED_HELLO, Served, answer, at, client, client_options, feed, refused, refused_by,
    sample_with, serve, server, server_options,
};

fn limited(max_head_size: usize, max_fields: usize) -> ServerHandshake {
    let mut options = server_options();
    (options.max_head_size, options.max_fields) = (max_head_size, max_fields);
    ServerHandshake::new(Arc::new(options), at(0))
}

#[test]
fn rfc6585_5_a_head_of_exactly_the_limit_passes_and_one_byte_more_is_431() {
    let size = SAMPLE_REQUEST.len();
    assert_eq!(feed(&mut limited(size, 100), SAMPLE_REQUEST.as_bytes()).0, Served::Upgrade);
    let (status, error, _) = refused_by(&mut limited(size - 1, 100), SAMPLE_REQUEST);
    assert_eq!((status, error), (431, HandshakeError::HeadTooBig));

    // Also byte by byte, and after an empty line, which does not count towards the limit.
    for (limit, expected) in
        [(size, Served::Upgrade), (size - 1, Served::Refused(HandshakeError::HeadTooBig))]
    {
        let mut server = limited(limit, 100);
        let mut last = Served::Pending;
        for byte in format!("\r\n{SAMPLE_REQUEST}").bytes() {
            assert_eq!(last, Served::Pending);
            last = feed(&mut server, &[byte]).0;
        }
        assert_eq!(last, expected);
    }
}

#[test]
fn pitfall_bytes_after_the_head_do_not_count_towards_its_limit() {
    let mut bytes = SAMPLE_REQUEST.as_bytes().to_vec();
    for _ in 0..10_000 {
        bytes.extend_from_slice(MASKED_HELLO);
    }
    let (served, _, rest) = feed(&mut limited(SAMPLE_REQUEST.len(), 100), &bytes);
    assert_eq!(served, Served::Upgrade);
    assert_eq!(rest, &bytes[SAMPLE_REQUEST.len()..]);
}

#[test]
fn rfc9112_3_a_request_line_beyond_the_limit_is_414() {
    let line = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(n));
    let (status, error, _) = refused(line(16 * 1024));
    assert_eq!((status, error), (414, HandshakeError::TargetTooLong));
    let (status, error, _) = refused("x".repeat(16 * 1024 + 1));
    assert_eq!((status, error), (414, HandshakeError::TargetTooLong));
    assert_eq!(serve("x".repeat(16 * 1024)), Served::Pending);
    assert_eq!(serve(line(16_000)), Served::Http);
    // Longer than a URI of the `http` crate can be.
    let (status, error, _) = refused_by(&mut limited(usize::MAX, 100), line(70_000));
    assert_eq!((status, error), (414, HandshakeError::TargetTooLong));
}

#[test]
fn rfc6585_5_too_many_fields_are_431() {
    let fields =
        |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(n - 1));
    assert_eq!(serve(fields(100)), Served::Http);
    let (status, error, _) = refused(fields(101));
    assert_eq!((status, error), (431, HandshakeError::TooManyFields));
    // The refusal is sent before the head is complete.
    let (status, error, _) = refused(fields(101).strip_suffix("\r\n").unwrap());
    assert_eq!((status, error), (431, HandshakeError::TooManyFields));
    // As many as a header map of the `http` crate can hold, and one more.
    let different = |n: usize| -> String {
        let fields: String = (1..n).map(|n| format!("x{n}: b\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
    };
    let unlimited = || limited(usize::MAX, usize::MAX);
    assert_eq!(feed(&mut unlimited(), different(24_576).as_bytes()).0, Served::Http);
    let (status, error, _) = refused_by(&mut unlimited(), different(24_577));
    assert_eq!((status, error), (431, HandshakeError::TooManyFields));
}

#[test]
fn pitfall_the_cost_of_a_head_is_linear_at_one_byte_per_read() {
    // An implementation that scans the whole head again at each byte takes 2 * 10^12 steps, which is hours.
    let value = "x".repeat(2 << 20);
    let request = sample_with(&format!("X: {value}\r\n"));
    let mut server = limited(usize::MAX, 100);
    let mut served = Served::Pending;
    for byte in request.bytes() {
        served = feed(&mut server, &[byte]).0;
    }
    assert_eq!(served, Served::Upgrade);
}

#[test]
fn pitfall_one_byte_at_a_time_is_accepted() {
    // Size and time are limited; the number of reads is not.
    let request = sample_with(&format!("X: {}\r\n", "x".repeat(15_000)));
    let mut server = server();
    let served: Vec<_> = request.bytes().map(|byte| feed(&mut server, &[byte]).0).collect();
    assert_eq!(served.last(), Some(&Served::Upgrade));
}

#[test]
fn a_response_head_is_limited_too() {
    let endless = format!("HTTP/1.1 101 Switching Protocols\r\nX: {}", "x".repeat(16 * 1024));
    let (outcome, _) = answer(&mut client(client_options()).0, endless.as_bytes());
    assert_eq!(outcome.unwrap_err(), HandshakeError::HeadTooBig);
    let endless = format!("HTTP/1.1 200 {}", "x".repeat(16 * 1024));
    let (outcome, _) = answer(&mut client(client_options()).0, endless.as_bytes());
    assert_eq!(outcome.unwrap_err(), HandshakeError::HeadTooBig);
    let many = format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(101));
    let (outcome, _) = answer(&mut client(client_options()).0, many.as_bytes());
    assert_eq!(outcome.unwrap_err(), HandshakeError::TooManyFields);
}
