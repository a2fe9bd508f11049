//! Responses whose bodies are sent in pieces (RFC 9112 §6, §7.1), and the time to read them.

use anyloop_proto::handshake::http::{Response, header};
use anyloop_proto::handshake::{AnswerError, ServerHandshake};
use anyloop_proto::{Cause, Instant, Party, ResponseError, SendQueue, Shutdown, Timer};
use anyloop_proto::{HandshakeError, TransportError};
use anyloop_testkit::requests::SAMPLE_REQUEST;

use crate::drive::{Served, at, feed, server};

const HTTP_1_1: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const HTTP_1_0: &str = "GET / HTTP/1.0\r\n\r\n";
const HEAD: &str = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";

fn awaiting(request: &str) -> ServerHandshake {
    let mut server = server();
    assert!(matches!(feed(&mut server, request.as_bytes()).0, Served::Upgrade | Served::Http));
    server
}

/// Begins a response of this length.
fn begin(request: &str, length: Option<u64>) -> (ServerHandshake, Vec<u8>) {
    let (mut server, mut out) = (awaiting(request), Vec::new());
    assert!(server.respond_head(&Response::new(()), length, at(0), &mut out).unwrap());
    assert!(server.is_responding() && server.discards_input());
    assert_eq!((server.shutdown(), server.poll_timeout()), (Shutdown::None, None));
    (server, out)
}

fn piece(server: &mut ServerHandshake, piece: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    server.body_piece(piece, &mut out).unwrap();
    out
}

fn end(server: &mut ServerHandshake) -> Vec<u8> {
    let mut out = Vec::new();
    server.end_body(at(0), &mut out).unwrap();
    assert!(!server.is_responding());
    assert_eq!(server.shutdown(), Shutdown::HalfClose);
    out
}

#[test]
fn rfc9112_7_1_a_body_of_unknown_length_is_chunked() {
    let (mut server, head) = begin(HTTP_1_1, None);
    let expected = "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(String::from_utf8(head).unwrap(), expected);
    assert_eq!(piece(&mut server, b"hello"), b"5\r\nhello\r\n");
    assert_eq!(piece(&mut server, b""), b"", "it would be the last chunk");
    let large = piece(&mut server, &[7; 70_000]);
    assert_eq!(large, [&b"11170\r\n"[..], &[7; 70_000], b"\r\n"].concat());
    assert_eq!(end(&mut server), b"0\r\n\r\n");
    assert_eq!(piece(&mut server, b"more"), b"");
    assert_eq!(server.failure(), None);
}

#[test]
fn rfc9112_6_3_a_body_for_http_1_0_ends_with_the_stream() {
    let (mut server, head) = begin(HTTP_1_0, None);
    assert_eq!(head, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    assert_eq!(piece(&mut server, b"hello"), b"hello");
    assert_eq!(end(&mut server), b"");
}

#[test]
fn a_body_of_known_length_is_sent_as_it_is() {
    for request in [HTTP_1_1, HTTP_1_0] {
        let (mut server, head) = begin(request, Some(1 << 40));
        assert!(head.ends_with(b"\r\nContent-Length: 1099511627776\r\n\r\n"));
        assert_eq!(piece(&mut server, b"hello"), b"hello");
        let failure = server.end_body(at(0), &mut Vec::new()).unwrap_err();
        let error = ResponseError::TooShort { missing: (1 << 40) - 5 };
        assert_eq!((failure.cause(), failure.party()), (Cause::Response(error), Party::Local));
        assert_eq!(server.shutdown(), Shutdown::Abort);
    }
    let (mut server, _) = begin(HTTP_1_1, Some(0));
    assert_eq!(end(&mut server), b"");
}

#[test]
fn no_more_is_sent_than_was_announced() {
    let (mut server, mut out) = begin(HTTP_1_1, Some(5));
    out.clear();
    server.body_piece(b"hell", &mut out).unwrap();
    let failure = server.body_piece(b"o!", &mut out).unwrap_err();
    assert_eq!(failure.cause(), Cause::Response(ResponseError::TooLong { length: 5 }));
    assert_eq!((&out[..], server.shutdown()), (&b"hell"[..], Shutdown::Abort));
    assert_eq!(server.body_piece(b"o", &mut out), Ok(()));
    assert_eq!(server.end_body(at(0), &mut out), Ok(()), "the failure is reported once");
    assert_eq!(out, b"hell");
}

#[test]
fn the_content_length_of_the_response_is_that_of_a_body_of_unknown_length() {
    let (mut server, mut out) = (awaiting(HTTP_1_1), Vec::new());
    let mut response = Response::new(());
    for wrong in ["+5", "5, 5", "", " 5", "five"] {
        let wrong = header::HeaderValue::from_static(wrong);
        response.headers_mut().insert(header::CONTENT_LENGTH, wrong);
        let error = server.respond_head(&response, None, at(0), &mut out).unwrap_err();
        assert_eq!(error, AnswerError::InvalidContentLength);
    }
    let right = header::HeaderValue::from_static("5");
    response.headers_mut().insert(header::CONTENT_LENGTH, right);
    assert!(server.respond_head(&response, None, at(0), &mut out).unwrap());
    assert!(out.ends_with(b"close\r\ncontent-length: 5\r\n\r\n"));
    server.body_piece(b"hello", &mut out).unwrap();
    assert_eq!(end(&mut server), b"");
}

#[test]
fn rfc9110_9_3_2_the_response_to_head_has_no_body() {
    for (length, field) in [(Some(5), "Content-Length: 5\r\n"), (None, "")] {
        let (mut server, mut out) = (awaiting(HEAD), Vec::new());
        assert!(!server.respond_head(&Response::new(()), length, at(0), &mut out).unwrap());
        let expected = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{field}\r\n");
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert_eq!(piece(&mut server, b"hello"), b"");
        assert_eq!(server.shutdown(), Shutdown::HalfClose);
    }
}

#[test]
fn a_body_that_is_given_up_is_cut() {
    let (mut server, _) = begin(HTTP_1_1, None);
    let failure = server.fail_body(ResponseError::Abandoned).unwrap();
    assert_eq!(failure.cause(), Cause::Response(ResponseError::Abandoned));
    assert_eq!(server.shutdown(), Shutdown::Abort);
    assert_eq!(server.fail_body(ResponseError::Abandoned), None);

    let (mut server, _) = begin(HTTP_1_1, None);
    assert_eq!(server.abandon(at(0), &mut Vec::new()), None, "the response goes on");
    assert!(server.is_responding());
    let failure = server.handle_application_failure(at(0), &mut Vec::new()).unwrap();
    assert_eq!((failure.cause(), server.shutdown()), (Cause::Application, Shutdown::Abort));
}

#[test]
fn a_stream_that_fails_within_a_response_is_a_failure() {
    let (mut server, _) = begin(HTTP_1_1, None);
    assert_eq!(server.handle_eof(), Ok(()), "the client reads on");
    let failure = server.handle_error(TransportError::Reset).unwrap_err();
    assert_eq!(failure.cause(), Cause::Transport(TransportError::Reset));

    for waiting in [0, 5] {
        let (mut server, _) = begin(HTTP_1_1, Some(0));
        end(&mut server);
        server.handle_written(waiting, at(0));
        assert_eq!(server.handle_error(TransportError::Reset).is_err(), waiting > 0);
        assert_eq!(server.shutdown(), Shutdown::Abort);
    }
}

#[test]
fn an_answer_that_cannot_be_sent_is_500_and_a_failure() {
    for (request, cause) in [
        (HTTP_1_1, Cause::Response(ResponseError::Invalid)),
        (SAMPLE_REQUEST, Cause::Handshake(HandshakeError::Refused(500))),
    ] {
        let (mut server, mut out) = (awaiting(request), Vec::new());
        server.respond_internal_error(at(0), &mut out).unwrap();
        assert!(out.starts_with(b"HTTP/1.1 500 ") && out.ends_with(b"\r\n\r\ninternal error\n"));
        assert_eq!(server.failure().unwrap().cause(), cause);
        let again = server.respond_internal_error(at(0), &mut out);
        assert_eq!(again, Err(AnswerError::NotAwaiting));
    }
}

fn due(server: &mut ServerHandshake, millis: u64) -> Result<Option<Timer>, Cause> {
    server.handle_timeout(at(millis), &mut Vec::new()).map_err(|failure| failure.cause())
}

#[test]
fn a_response_is_read_at_any_speed_but_zero() {
    let (mut server, head) = begin(HTTP_1_1, Some(1000));
    let mut waiting = head.len() + piece(&mut server, &[7; 1000]).len();
    server.handle_written(waiting, at(0));
    let timeout = |at: Instant| Some(at + std::time::Duration::from_secs(30));
    for second in 1..20 {
        let now = at(second * 29_000);
        waiting -= 1;
        server.handle_written(waiting, now);
        assert_eq!(server.poll_timeout(), timeout(now));
        server.handle_written(waiting, at(second * 29_000 + 1)); // nothing was read
        assert_eq!(server.poll_timeout(), timeout(now));
    }
    // What is appended meanwhile is no progress.
    waiting += end(&mut server).len();
    server.handle_written(waiting, at(600_000));
    assert_eq!(due(&mut server, 19 * 29_000 + 29_999), Ok(None));
    assert_eq!(due(&mut server, 19 * 29_000 + 30_000), Err(Cause::ResponseTimeout));
    assert_eq!((server.shutdown(), server.poll_timeout()), (Shutdown::Abort, None));
}

#[test]
fn the_close_timeout_begins_when_all_is_written() {
    let (mut server, head) = begin(HTTP_1_1, None);
    server.handle_written(head.len(), at(0));
    assert_eq!(server.poll_timeout(), Some(at(30_000)));
    server.handle_written(0, at(1000));
    assert_eq!(server.poll_timeout(), None, "it is the application's turn");
    let last = end(&mut server).len();
    server.handle_written(last, at(2000));
    assert_eq!(server.poll_timeout(), Some(at(32_000)));
    server.handle_written(0, at(20_000));
    assert_eq!(server.poll_timeout(), Some(at(25_000)));
    server.handle_written(0, at(21_000));
    assert_eq!(due(&mut server, 25_000), Ok(Some(Timer::Close)));
    assert_eq!((server.failure(), server.shutdown()), (None, Shutdown::Abort));
}

/// The system takes much at once, and a slow client reads it for a long time.
#[test]
fn what_is_acknowledged_meanwhile_is_progress() {
    let (mut server, head) = begin(HTTP_1_1, Some(0));
    end(&mut server);
    server.handle_written(head.len(), at(0));
    let mut acknowledged = 7;
    for round in 1..10 {
        let now = at(round * 30_000);
        server.note_send_queue(|| panic!("it is not due"), at(round * 30_000 - 1));
        server.note_send_queue(|| Some(SendQueue { acknowledged, waiting: 9 }), now);
        assert_eq!(server.handle_timeout(now, &mut Vec::new()), Ok(None));
        acknowledged += 1;
    }
    server.handle_written(0, at(290_000));
    let queue = SendQueue { acknowledged, waiting: 1 };
    server.note_send_queue(|| Some(queue), at(295_000));
    assert_eq!(due(&mut server, 295_000), Ok(None), "the system still has a part");
    server.note_send_queue(|| Some(queue), at(325_000));
    assert_eq!(due(&mut server, 325_000), Err(Cause::ResponseTimeout));
}
