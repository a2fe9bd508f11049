//! WebSocket requests (RFC 6455 §4.2.1).

use anyloop_proto::handshake::Accept;
use anyloop_proto::{Field, HandshakeError};
use anyloop_testkit::requests::SAMPLE_REQUEST;

use crate::drive::{Served, at, feed, refused, sample, sample_with, serve, server};

#[test]
fn rfc6455_1_2_the_sample_request() {
    let mut server = server();
    assert_eq!(feed(&mut server, SAMPLE_REQUEST.as_bytes()).0, Served::Upgrade);
    let request = server.request().unwrap();
    assert_eq!(request.uri(), "/chat");
    assert_eq!(request.host(), Some("server.example.com"));
    assert_eq!(request.origin(), Some("http://example.com"));
    assert_eq!(request.subprotocols(), ["chat", "superchat"]);
    assert!(request.is_upgrade());
}

#[test]
fn any_chunking_gives_the_same_request() {
    let bytes = SAMPLE_REQUEST.as_bytes();
    for size in 1..bytes.len() {
        let mut server = server();
        let mut served = Vec::new();
        for part in bytes.chunks(size) {
            let (this, out, rest) = feed(&mut server, part);
            assert_eq!((out.as_str(), &rest[..]), ("", &b""[..]));
            served.push(this);
        }
        assert_eq!(served.pop(), Some(Served::Upgrade), "in reads of {size} bytes");
        assert!(served.iter().all(|before| *before == Served::Pending));
        assert_eq!(server.request().unwrap().headers().len(), 7);
    }
}

#[test]
fn rfc6455_4_2_1_upgrade_and_connection_are_lists_of_tokens() {
    for (upgrade, connection) in [
        ("Upgrade: websocket", "Connection: keep-alive, Upgrade"),
        ("Upgrade: WebSocket", "connection: uPgRaDe"),
        ("Upgrade: h2c, websocket", "Connection: ,,keep-alive,\tUpgrade\t ,"),
        ("Upgrade: h2c\r\nUpgrade: websocket", "Connection: keep-alive\r\nConnection: upgrade"),
    ] {
        let request = sample(
            "Upgrade: websocket\r\nConnection: Upgrade",
            &format!("{upgrade}\r\n{connection}"),
        );
        assert_eq!(serve(&request), Served::Upgrade, "{request}");
    }
}

#[test]
fn pitfall_substrings_are_not_tokens() {
    for upgrade in [
        "notwebsocketatall",
        "websocket2",
        "web socket",
        "websocket/13",
        "h2c",
        "\"websocket\"",
        "",
    ] {
        let request = sample("Upgrade: websocket", &format!("Upgrade: {upgrade}"));
        assert_eq!(serve(request), Served::Http, "{upgrade}");
    }
    for connection in ["xUpgradey", "close", "keep-alive upgrade", "up grade", ""] {
        let request = sample("Connection: Upgrade", &format!("Connection: {connection}"));
        let (status, error, _) = refused(request);
        assert_eq!(
            (status, error),
            (400, HandshakeError::Invalid(Field::Connection)),
            "{connection}"
        );
    }
    let (status, error, _) = refused(sample("Connection: Upgrade\r\n", ""));
    assert_eq!((status, error), (400, HandshakeError::Missing(Field::Connection)));
}

#[test]
fn rfc9110_7_8_http_1_0_does_not_upgrade() {
    assert_eq!(serve(sample("HTTP/1.1", "HTTP/1.0")), Served::Http);
}

#[test]
fn rfc6455_4_1_the_method_is_get() {
    for method in ["POST", "HEAD", "PUT", "get", "OPTIONS"] {
        let mut server = server();
        let (served, response, _) = feed(&mut server, sample("GET", method).as_bytes());
        assert_eq!(served, Served::Refused(HandshakeError::Method), "{method}");
        assert!(response.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{response}");
        assert!(response.contains("\r\nAllow: GET\r\n"), "{response}");
    }
}

#[test]
fn rfc6455_4_2_1_the_key_is_sixteen_bytes() {
    let field = Field::SecWebSocketKey;
    let line = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    assert_eq!(refused(sample(line, "")).1, HandshakeError::Missing(field));
    assert_eq!(refused(sample_with(line)).1, HandshakeError::Duplicate(field));
    for key in [
        "",
        "any",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQ===",
        "dGhlIHNhbXBsZSBub25jZQAA",
        "dGhlIHNhbXBsZSBub25jZWE=",
        "dGhlIHNhbXBsZSBub25-ZQ==",
        "dGhlIHNhbXBsZSBub25jZQ==, x",
        "AAAAAAAAAAAAAAAAAAAAAAA=",
        "\u{e9}GhlIHNhbXBsZSBub25jZQ==",
    ] {
        let (status, error, _) = refused(sample("dGhlIHNhbXBsZSBub25jZQ==", key));
        assert_eq!((status, error), (400, HandshakeError::Invalid(field)), "{key}");
    }
    // The unused bits of the last character are not zero.
    assert_eq!(serve(sample("ZQ==", "ZR==")), Served::Upgrade);
}

#[test]
fn rfc6455_4_4_the_version_is_13() {
    let field = Field::SecWebSocketVersion;
    let line = "Sec-WebSocket-Version: 13\r\n";
    let (status, error, _) = refused(sample(line, ""));
    assert_eq!((status, error), (400, HandshakeError::Missing(field)));
    let (status, error, _) = refused(sample_with(line));
    assert_eq!((status, error), (400, HandshakeError::Duplicate(field)));
    for version in ["8", "13abc", "13, 8", "013", "", "14"] {
        let request = sample(line, &format!("Sec-WebSocket-Version: {version}\r\n"));
        let (status, error, response) = refused(request);
        assert_eq!((status, error), (426, HandshakeError::Version), "{version}");
        assert!(response.contains("\r\nSec-WebSocket-Version: 13\r\n"));
        assert!(response.contains("\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n"));
    }
}

#[test]
fn pitfall_an_upgrade_has_no_body() {
    let length = HandshakeError::Invalid(Field::ContentLength);
    let coding = HandshakeError::Invalid(Field::TransferEncoding);
    assert_eq!(serve(sample_with("Content-Length: 0\r\n")), Served::Upgrade);
    assert_eq!(serve(sample_with("Content-Length: 0\r\nContent-Length: 00\r\n")), Served::Upgrade);
    assert_eq!(refused(sample_with("Content-Length: 5\r\n")).1, length);
    assert_eq!(refused(sample_with("Content-Length: \r\n")).1, length);
    assert_eq!(refused(sample_with("Content-Length: +0\r\n")).1, length);
    assert_eq!(refused(sample_with("Transfer-Encoding: chunked\r\n")).1, coding);
    assert_eq!(
        refused(sample_with("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n")).1,
        coding
    );
}

#[test]
fn rfc9110_10_1_1_expect_on_an_upgrade() {
    let mut server = server();
    let (served, out, _) = feed(&mut server, sample_with("Expect: 100-continue\r\n").as_bytes());
    assert_eq!(
        (served, out.as_str()),
        (Served::Upgrade, ""),
        "100 (Continue) is not sent, since there is no body"
    );
    let (status, error, _) = refused(sample_with("Expect: the-worst\r\n"));
    assert_eq!((status, error), (417, HandshakeError::Unsupported(Field::Expect)));
}

#[test]
fn rfc6455_11_3_4_subprotocols_are_unique_tokens() {
    let mut server = server();
    let lines = "Sec-WebSocket-Protocol: v2.chat ,, v1.chat\r\nSec-WebSocket-Protocol: Chat\r\n";
    assert_eq!(feed(&mut server, sample_with(lines).as_bytes()).0, Served::Upgrade);
    assert_eq!(
        server.request().unwrap().subprotocols(),
        ["chat", "superchat", "v2.chat", "v1.chat", "Chat"]
    );

    for (bad, error) in [
        ("a b", HandshakeError::Invalid(Field::SecWebSocketProtocol)),
        ("a, \"b\"", HandshakeError::Invalid(Field::SecWebSocketProtocol)),
        ("a;b", HandshakeError::Invalid(Field::SecWebSocketProtocol)),
        ("\u{e9}", HandshakeError::Invalid(Field::SecWebSocketProtocol)),
        ("a, b, a", HandshakeError::Duplicate(Field::SecWebSocketProtocol)),
    ] {
        let (status, found, _) = refused(sample("chat, superchat", bad));
        assert_eq!((status, found), (400, error), "{bad:?}");
    }
    let over_lines = sample_with("Sec-WebSocket-Protocol: chat\r\n");
    assert_eq!(refused(over_lines).1, HandshakeError::Duplicate(Field::SecWebSocketProtocol));
}

#[test]
fn rfc9110_5_6_1_a_list_without_elements_is_treated_as_absent() {
    for empty in ["", " \t", ",", " , ,"] {
        let request = sample("chat, superchat", empty)
            .replace("\r\n\r\n", &format!("\r\nSec-WebSocket-Extensions: {empty}\r\n\r\n"));
        let mut server = server();
        assert_eq!(feed(&mut server, request.as_bytes()).0, Served::Upgrade, "{empty:?}");
        assert_eq!(server.request().unwrap().subprotocols(), [""; 0]);
        let mut out = Vec::new();
        let opened = server.accept(Accept::new(), at(0), &mut out).unwrap();
        assert_eq!((opened.subprotocol, opened.extension), (None, None));
    }
}

#[test]
fn a_request_is_reported_once_and_no_more_input_is_consumed() {
    let mut server = server();
    assert_eq!(feed(&mut server, SAMPLE_REQUEST.as_bytes()).0, Served::Upgrade);
    for _ in 0..2 {
        let (served, out, rest) = feed(&mut server, b"frames");
        assert_eq!((served, out.as_str(), &rest[..]), (Served::Pending, "", &b"frames"[..]));
    }
}

#[test]
fn rfc9112_3_2_2_the_authority_of_an_absolute_target_overrides_host() {
    let mut server = server();
    let request = sample("GET /chat", "GET http://other.example:8080/chat");
    let (served, ..) = feed(&mut server, request.as_bytes());
    assert_eq!(served, Served::Upgrade);
    assert_eq!(server.request().unwrap().host(), Some("other.example:8080"));
}
