//! The application's answers to requests (RFC 6455 §4.2.2), valid and invalid.

use anyloop_proto::handshake::http::header::{self, HeaderMap, HeaderName};
use anyloop_proto::handshake::http::{HeaderValue, Response, StatusCode};
use anyloop_proto::handshake::{Accept, AnswerError, ServerHandshake, check_response};
use anyloop_proto::{Cause, HandshakeError, Party, Shutdown, State};
use anyloop_testkit::requests::{SAMPLE_REQUEST, SAMPLE_RESPONSE};

use crate::drive::{Served, at, feed, sample, server, server_options};

fn awaiting(request: &str) -> ServerHandshake {
    let mut server = server();
    assert!(matches!(feed(&mut server, request.as_bytes()).0, Served::Upgrade | Served::Http));
    server
}

fn plain(method: &str) -> ServerHandshake {
    awaiting(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"))
}

fn response(status: u16, body: &str) -> Response<Vec<u8>> {
    let mut response = Response::new(body.as_bytes().to_vec());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

fn respond(server: &mut ServerHandshake, response: &Response<Vec<u8>>) -> String {
    let mut out = Vec::new();
    server.respond(response, at(0), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn headers(name: &'static str, value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))])
}

#[test]
fn rfc6455_1_2_the_sample_response() {
    let mut server = awaiting(SAMPLE_REQUEST);
    let mut out = b"earlier".to_vec();
    let accept = Accept::new().with_subprotocol("chat");
    let opened = server.accept(accept, at(0), &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), format!("earlier{SAMPLE_RESPONSE}"));
    assert_eq!(opened.connection.state(), State::Open);
    assert_eq!(opened.subprotocol.as_deref(), Some("chat"));
    assert_eq!(opened.extension, None);
    assert_eq!(opened.response.status(), 101);
    assert_eq!(
        opened.response.headers()[header::SEC_WEBSOCKET_ACCEPT],
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    );
    assert_eq!(opened.response.headers()[header::SEC_WEBSOCKET_PROTOCOL], "chat");

    // The handshake is finished: later calls have no effect.
    assert_eq!((server.poll_timeout(), server.shutdown()), (None, Shutdown::None));
    assert_eq!(server.handle_eof(), Ok(()));
    assert_eq!(server.abandon(at(0), &mut Vec::new()), None);
    assert_eq!(server.failure(), None);
    assert_eq!(server.into_request().unwrap().uri(), "/chat");
}

#[test]
fn accept_without_a_subprotocol_and_with_fields() {
    let mut server = awaiting(SAMPLE_REQUEST);
    let mut out = Vec::new();
    let accept = Accept::new().with_headers(headers("set-cookie", "a=b"));
    let accept = accept.with_header("Set-Cookie", String::from("c=d"));
    let accept = accept.with_header(header::SERVER, &b"\xe9"[..]).with_header("X-Number", 17);
    let opened = server.accept(accept, at(0), &mut out).unwrap();
    let out = String::from_utf8_lossy(&out);
    assert!(!out.contains("Protocol:"), "{out}");
    for line in ["set-cookie: a=b", "set-cookie: c=d", "server: \u{fffd}", "x-number: 17"] {
        assert!(out.contains(&format!("\r\n{line}\r\n")), "{out}");
    }
    let cookies: Vec<_> = opened.response.headers().get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=b", "c=d"]);
    assert_eq!(opened.subprotocol, None);
}

#[test]
fn fields_that_are_replaced_leave_no_error() {
    let mut server = awaiting(SAMPLE_REQUEST);
    let mut out = Vec::new();
    let accept = Accept::new().with_header("two words", "x").with_headers(headers("x-good", "x"));
    let opened = server.accept(accept, at(0), &mut out).unwrap();
    assert_eq!(opened.response.headers()["x-good"], "x");
}

#[test]
fn an_invalid_answer_appends_nothing_and_a_valid_one_may_follow() {
    let mut server = awaiting(SAMPLE_REQUEST);
    let mut out = Vec::new();
    for subprotocol in ["Chat", "other", "chat, superchat", "", "chat\r\nX: y"] {
        let accept = Accept::new().with_subprotocol(subprotocol);
        let error = server.accept(accept, at(0), &mut out).unwrap_err();
        assert_eq!(error, AnswerError::SubprotocolNotOffered);
    }
    for name in [
        "connection",
        "upgrade",
        "content-length",
        "transfer-encoding",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-protocol",
        "sec-websocket-anything",
    ] {
        let accept = Accept::new().with_headers(headers(name, "x"));
        let error = server.accept(accept, at(0), &mut out).unwrap_err();
        assert_eq!(error, AnswerError::ReservedHeader(HeaderName::from_static(name)));
    }
    for name in ["", "two words", "a:", "a\r\nb", "\u{e9}"] {
        let accept = Accept::new().with_header("x-good", "x").with_header(name, "x");
        let error = server.accept(accept, at(0), &mut out).unwrap_err();
        assert_eq!(error, AnswerError::InvalidHeaderName(name.into()));
    }
    for value in ["a\r\nX: y", "a\0"] {
        let accept =
            Accept::new().with_header("X-A", value).with_header("", "").with_subprotocol("chat");
        let error = server.accept(accept, at(0), &mut out).unwrap_err();
        assert_eq!(error, AnswerError::InvalidHeaderValue(HeaderName::from_static("x-a")));
        assert_eq!(error.to_string(), "the value of header field x-a is invalid");
    }
    for status in [100, 101, 199, 600, 999] {
        let error = server.respond(&response(status, ""), at(0), &mut out).unwrap_err();
        assert_eq!(error, AnswerError::InvalidStatus(StatusCode::from_u16(status).unwrap()));
    }
    for name in [header::CONNECTION, header::TRANSFER_ENCODING] {
        let mut response = response(403, "");
        response.headers_mut().insert(name.clone(), HeaderValue::from_static("1"));
        let error = server.respond(&response, at(0), &mut out).unwrap_err();
        assert_eq!(error, AnswerError::ReservedHeader(name));
    }
    for length in ["1", "-0", "five", ""] {
        let mut response = response(403, "");
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static(length));
        let error = server.respond(&response, at(0), &mut out).unwrap_err();
        assert_eq!(error, AnswerError::WrongContentLength { body: 0 });
    }
    assert_eq!(out, b"");
    assert!(server.accept(Accept::new(), at(0), &mut out).is_ok());
}

/// RFC 9110 §8.6: it is the length of the body, whoever writes it. For HEAD it is that of the body of a GET.
#[test]
fn rfc9110_8_6_a_content_length_of_the_applications_own_is_written_once() {
    for method in ["GET", "HEAD"] {
        let (mut server, mut out) = (plain(method), Vec::new());
        let mut response = response(200, "hello");
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("5"));
        let mut twice = response.clone();
        twice.headers_mut().append(header::CONTENT_LENGTH, HeaderValue::from_static("5"));
        let error = server.respond(&twice, at(0), &mut out).unwrap_err();
        assert_eq!(error, AnswerError::WrongContentLength { body: 5 });
        server.respond(&response, at(0), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap().to_ascii_lowercase();
        assert_eq!(text.matches("content-length: 5\r\n").count(), 1, "{text}");
        assert_eq!(text.ends_with("hello"), method == "GET");
    }
}

/// A response to HEAD or to a conditional request tells the length of what it omits (RFC 9110 §9.3.2, §15.4.5).
#[test]
fn rfc9110_8_6_a_response_without_its_body_may_have_the_length_of_it() {
    let announcing = |status, length: &str, body| {
        let mut response = response(status, body);
        let length = HeaderValue::from_str(length).unwrap();
        response.headers_mut().insert(header::CONTENT_LENGTH, length);
        response
    };
    for (method, status) in [("HEAD", 200), ("HEAD", 404), ("HEAD", 304), ("GET", 304)] {
        for (length, body) in [("0", ""), ("5", ""), ("18446744073709551615", ""), ("5", "hello")] {
            let (mut server, mut out) = (plain(method), Vec::new());
            for (wrong, body, error) in [
                ("5", "hello!", AnswerError::WrongContentLength { body: 6 }),
                ("five", "", AnswerError::InvalidContentLength),
                ("18446744073709551616", "", AnswerError::InvalidContentLength),
            ] {
                let response = announcing(status, wrong, body);
                assert_eq!(server.respond(&response, at(0), &mut out), Err(error));
            }
            let mut twice = announcing(status, length, body);
            twice.headers_mut().append(header::CONTENT_LENGTH, HeaderValue::from_static("5"));
            assert!(server.respond(&twice, at(0), &mut out).is_err());
            assert_eq!(out, b"", "nothing is appended for a response that is refused");

            server.respond(&announcing(status, length, body), at(0), &mut out).unwrap();
            let text = String::from_utf8(out).unwrap().to_ascii_lowercase();
            let (head, after) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(after, "", "{method} {status}");
            let fields: Vec<_> = head.lines().filter(|line| line.starts_with("content-")).collect();
            assert_eq!(fields, [format!("content-length: {length}")], "{method} {status}");
        }
    }
    for method in ["GET", "HEAD"] {
        let (mut server, mut out) = (plain(method), Vec::new());
        for (status, length) in [(204, "0"), (204, "5"), (205, "0"), (205, "5")] {
            let error = AnswerError::ReservedHeader(header::CONTENT_LENGTH);
            let response = announcing(status, length, "");
            assert_eq!(server.respond(&response, at(0), &mut out), Err(error));
        }
        assert_eq!(out, b"");
    }
}

#[test]
fn there_is_one_answer_and_only_to_a_request() {
    let mut out = Vec::new();
    let mut idle = server();
    assert_eq!(idle.accept(Accept::new(), at(0), &mut out).unwrap_err(), AnswerError::NotAwaiting);
    assert_eq!(idle.respond(&response(200, ""), at(0), &mut out), Err(AnswerError::NotAwaiting));
    let (served, ..) = feed(&mut idle, b"GET / HTTP/1.1\r\n");
    assert_eq!(served, Served::Pending);
    assert_eq!(idle.respond(&response(200, ""), at(0), &mut out), Err(AnswerError::NotAwaiting));

    let mut http = plain("GET");
    assert_eq!(http.accept(Accept::new(), at(0), &mut out).unwrap_err(), AnswerError::NotAnUpgrade);
    assert_eq!(out, b"");
    http.respond(&response(200, ""), at(0), &mut out).unwrap();
    assert_eq!(http.respond(&response(200, ""), at(0), &mut out), Err(AnswerError::NotAwaiting));

    // Pitfall: a second response after 101.
    let mut upgrade = awaiting(SAMPLE_REQUEST);
    upgrade.accept(Accept::new(), at(0), &mut out).unwrap();
    assert_eq!(upgrade.respond(&response(500, ""), at(0), &mut out), Err(AnswerError::NotAwaiting));
    assert_eq!(
        upgrade.accept(Accept::new(), at(0), &mut out).unwrap_err(),
        AnswerError::NotAwaiting
    );
}

#[test]
fn plain_http_is_answered_and_the_stream_ended() {
    let mut server = plain("GET");
    let mut page = response(200, "<p>hello");
    page.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    let out = respond(&mut server, &page);
    assert_eq!(
        out,
        "HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-type: text/html\r\n\
         Content-Length: 8\r\n\r\n<p>hello"
    );
    assert_eq!(server.shutdown(), Shutdown::HalfClose);
    assert_eq!(server.failure(), None);
    // Pipelined requests are ignored.
    let (served, out, rest) = feed(&mut server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((served, out.as_str(), &rest[..]), (Served::Pending, "", &b""[..]));
}

#[test]
fn rfc9110_6_4_1_responses_without_a_body() {
    let head = respond(&mut plain("HEAD"), &response(200, "hello"));
    assert_eq!(head, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n");
    let empty = respond(&mut plain("GET"), &response(204, "hello"));
    assert_eq!(empty, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    let unmodified = respond(&mut plain("GET"), &response(304, "hello"));
    assert_eq!(unmodified, "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n");
    let reset = respond(&mut plain("GET"), &response(205, "hello"));
    assert_eq!(
        reset,
        "HTTP/1.1 205 Reset Content\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
}

#[test]
fn statuses_up_to_599_need_no_reason_phrase() {
    let out = respond(&mut plain("GET"), &response(599, ""));
    assert_eq!(out, "HTTP/1.1 599 \r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn rfc9110_9_3_6_connect_makes_no_tunnel() {
    let mut server = awaiting("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n");
    let error = server.respond(&response(200, ""), at(0), &mut Vec::new()).unwrap_err();
    assert_eq!(error, AnswerError::InvalidStatus(StatusCode::OK));
    assert!(respond(&mut server, &response(405, "")).starts_with("HTTP/1.1 405 "));
}

#[test]
fn a_response_is_checked_beforehand_as_when_it_is_sent() {
    for (method, target) in [("GET", "/"), ("HEAD", "/"), ("CONNECT", "a:443")] {
        for status in [199, 200, 204, 299, 300, 304, 405, 599, 600] {
            let mut server = awaiting(&format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            let response = response(status, "");
            let method = server.request().unwrap().method().clone();
            let checked = check_response(&method, &response, Some(0));
            let sent = server.respond(&response, at(0), &mut Vec::new());
            assert_eq!(checked, sent, "{method} {status}");
        }
    }
}

#[test]
fn a_refused_upgrade_is_a_failure_of_the_local_party() {
    let mut server = awaiting(SAMPLE_REQUEST);
    let mut refusal = response(401, "who are you\n");
    refusal.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
    let out = respond(&mut server, &refusal);
    assert!(out.starts_with("HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n"), "{out}");
    assert!(out.ends_with("\r\nContent-Length: 12\r\n\r\nwho are you\n"), "{out}");
    assert_eq!(server.shutdown(), Shutdown::HalfClose);
    let failure = server.failure().unwrap();
    assert_eq!(failure.cause(), Cause::Handshake(HandshakeError::Refused(401)));
    assert_eq!(failure.party(), Party::Local);
}

#[test]
fn rfc9110_7_8_upgrade_in_a_response_is_listed_in_connection() {
    let mut refusal = response(426, "");
    refusal.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let out = respond(&mut plain("GET"), &refusal);
    assert!(out.contains("\r\nConnection: upgrade, close\r\nupgrade: websocket\r\n"), "{out}");
}

#[test]
fn pitfall_line_ends_cannot_be_injected_into_a_response() {
    for value in ["a\r\nSet-Cookie: b", "a\nb", "a\rb", "a\0b"] {
        assert!(HeaderValue::from_str(value).is_err());
        assert!(HeaderValue::from_bytes(value.as_bytes()).is_err());
    }
    // A subprotocol of the client is copied into the response only if it is a token.
    let mut server = awaiting(&sample("chat, superchat", "a'b"));
    let mut out = Vec::new();
    server.accept(Accept::new().with_subprotocol("a'b"), at(0), &mut out).unwrap();
    assert!(String::from_utf8(out).unwrap().ends_with("Sec-WebSocket-Protocol: a'b\r\n\r\n"));
}

#[test]
fn options_implement_debug() {
    let shown = format!("{:?}", server_options());
    assert!(shown.contains("max_head_size: 16384") && shown.contains("extensions: []"), "{shown}");
}

/// RFC 9110 §9.3.2: also if the request is refused before all of it is read.
#[test]
fn rfc9110_9_3_2_a_refusal_of_head_has_no_body() {
    let many = "a: b\r\n".repeat(200);
    for request in [
        format!("HEAD / HTTP/1.1\r\nHost: a\r\n{many}\r\n"),
        "HEAD / HTTP/1.1\r\nHost : a\r\n\r\n".to_string(),
        "\r\n\r\nHEAD / HTTP/1.1\r\n\r\n".to_string(),
    ] {
        for size in [1, usize::MAX] {
            let mut server = server();
            let mut out = Vec::new();
            let mut failed = None;
            for piece in request.clone().into_bytes().chunks_mut(size) {
                let mut input = anyloop_proto::Input::new(piece);
                let next = server.next(&mut input, at(0), &mut out);
                failed = next.err().or(failed);
            }
            assert!(failed.is_some());
            assert!(out.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&out));
            assert!(out.ends_with(b"\r\n\r\n"), "{}", String::from_utf8_lossy(&out));
        }
    }
}

/// A request that is refused within its body is not complete and is not reported to the application.
#[test]
fn a_request_that_was_not_reported_cannot_be_read() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for size in [1, usize::MAX] {
        let mut server = server();
        let mut failed = false;
        for piece in format!("{head}x").into_bytes().chunks_mut(size) {
            let mut input = anyloop_proto::Input::new(piece);
            failed |= server.next(&mut input, at(0), &mut Vec::new()).is_err();
        }
        assert!(failed);
        assert!(server.request().is_none());
        assert!(server.into_request().is_none());
    }
}
