//! Parts of HTTP that all requests have: request line, line ends, Host, forms of the target (RFC 9112).

use anyloop_proto::{Field, HandshakeError, Role};
use anyloop_testkit::requests::SAMPLE_REQUEST;

use crate::drive::{Served, feed, refused, sample, sample_with, serve, server};

#[test]
fn rfc9112_2_2_a_few_empty_lines_before_the_request_line_are_skipped() {
    assert_eq!(serve(format!("\r\n{SAMPLE_REQUEST}")), Served::Upgrade);
    assert_eq!(serve(format!("\r\n\r\n\r\n\r\n{SAMPLE_REQUEST}")), Served::Upgrade);
    assert_eq!(refused("\r\n\r\n\r\n\r\n\r\n").1, HandshakeError::Malformed);
}

#[test]
fn rfc9112_2_2_bare_line_ends_are_400() {
    for bad in [
        SAMPLE_REQUEST.replace("\r\n", "\n"),
        sample("websocket\r\n", "websocket\n"),
        sample("websocket\r\n", "websocket\r"),
        sample("\r\n\r\n", "\r\n\n"),
        sample("GET /chat HTTP/1.1\r\n", "GET /chat HTTP/1.1\n"),
    ] {
        let (status, error, _) = refused(&bad);
        assert_eq!((status, error), (400, HandshakeError::Malformed), "{bad:?}");
    }
}

#[test]
fn rfc9112_5_malformed_fields_are_400() {
    for line in [
        "X-Folded: a\r\n b\r\n",
        "X-Folded: a\r\n\tb\r\n",
        "X-Space : a\r\n",
        " X-Space: a\r\n",
        "X-Nul: a\0b\r\n",
        "X-Control: a\x01b\r\n",
        "X-Delete: a\x7fb\r\n",
        "X-Escape: \x1b[2J\r\n",
        "no colon\r\n",
        ": no name\r\n",
        "X(Paren): a\r\n",
    ] {
        let (status, error, _) = refused(sample_with(line));
        assert_eq!((status, error), (400, HandshakeError::Malformed), "{line:?}");
    }
    for line in ["X-Tab: a\tb\r\n", "X-Empty:\r\n", "X-Latin: \u{e9}\r\n", "x:  a  \r\n"] {
        assert_eq!(serve(sample_with(line)), Served::Upgrade, "{line:?}");
    }
}

#[test]
fn input_that_cannot_be_http_is_400_immediately() {
    for bytes in [
        &b"\x16\x03\x01\x02\x00"[..],
        b"\x16",
        b" (",
        b"\t\x16",
        b"\n\nEHLO a\r\n",
        b" \t \t \t \t ",
        b"(",
        b"\x80",
        b"\xff",
        b"\0",
        b"GET\rX",
        b"GETX chat\x01",
        b"SSH-2.0-OpenSSH_9.2 Debian\r\n\0\0\x05\x04",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ] {
        let (status, error, _) = refused(bytes);
        let HandshakeError::NotHttp { peer: Role::Client, first_bytes } = error else {
            panic!("{error:?} of {bytes:?}");
        };
        assert_eq!((status, first_bytes.as_bytes()), (400, &bytes[..bytes.len().min(6)]));
        assert_eq!(first_bytes.is_tls(), bytes.starts_with(b"\x16\x03"), "{bytes:?}");
    }
    for begun in ["G", " ", "\t", "\n", "\nG", " OPTIONS"] {
        assert_eq!(serve(begun), Served::Pending, "{begun:?}");
    }
}

#[test]
fn a_request_that_is_invalid_before_its_version_is_still_http() {
    for bytes in [
        "GET /\rX",
        "GET /\n",
        "GET http://a/\n",
        "GET chat\0",
        "OPTIONS *\n",
        "CONNECT a:1\x0b",
        "GET http://a/\x01 HTTP/1.1",
        "GET\t/ HTTP/1.1\r\n\r\n",
        "GET\t/\x01",
        "BREW\t/ HTTP/1.1\r\n\r\n",
        "BREW a HTTP/1.1\n",
        " GET / HTTP/1.1\r\n\r\n",
        "\nGET / HTTP/1.1\n\n",
        "\t\n PATCH ",
    ] {
        let (status, error, _) = refused(bytes);
        assert_eq!((status, error), (400, HandshakeError::Malformed), "{bytes:?}");
        let mut server = server();
        let (last, first) = bytes.as_bytes().split_last().unwrap();
        let mut outcomes: Vec<_> = first.iter().map(|&byte| feed(&mut server, &[byte]).0).collect();
        outcomes.push(feed(&mut server, &[*last]).0);
        outcomes.retain(|outcome| *outcome != Served::Pending);
        assert_eq!(outcomes, [Served::Refused(HandshakeError::Malformed)], "{bytes:?}");
    }
}

#[test]
fn input_that_cannot_be_http_is_reported_and_not_sent_back() {
    let (_, error, response) = refused(b"\r\n\x16\x03\x01\"\\\r\nabcdef");
    assert_eq!(
        error.to_string(),
        r#"not an HTTP request: the first bytes are "\x16\x03\x01\"\\\r", a TLS record"#
    );
    assert!(response.ends_with("\r\n\r\nnot an HTTP request\n"), "{response}");
}

#[test]
fn rfc9112_3_malformed_request_lines_are_400() {
    for line in [
        "GET /chat",
        "GET chat",
        "GET  /chat HTTP/1.1",
        "GET /chat  HTTP/1.1",
        "GET /chat HTTP/1.1 ",
        "GET /chat http/1.1",
        "GET /chat HTTP/1.10",
        "GET /chat HTTP/x.1",
        "GET /chat XTTP/1.1",
        "G@T /chat HTTP/1.1",
    ] {
        let (status, error, _) = refused(sample("GET /chat HTTP/1.1", line));
        assert_eq!((status, error), (400, HandshakeError::Malformed), "{line:?}");
    }
    for line in ["GET", "EHLO chat.example", "HTTP/1.1 101 Switching Protocols"] {
        let (status, error, _) = refused(sample("GET /chat HTTP/1.1", line));
        assert!(matches!(error, HandshakeError::NotHttp { .. }), "{line:?}");
        assert_eq!(status, 400, "{line:?}");
    }
}

#[test]
fn rfc9110_15_6_6_other_versions_of_http_are_505() {
    for line in ["GET /chat HTTP/2.0", "GET /chat HTTP/1.2", "GET /chat HTTP/0.9"] {
        let (status, error, _) = refused(sample("GET /chat HTTP/1.1", line));
        assert_eq!((status, error), (505, HandshakeError::HttpVersion), "{line:?}");
    }
    let (status, error, _) = refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!((status, error), (505, HandshakeError::HttpVersion));
}

#[test]
fn rfc9112_3_2_host_is_required_exactly_once() {
    let (status, error, response) = refused(sample("Host: server.example.com\r\n", ""));
    assert_eq!((status, error), (400, HandshakeError::Missing(Field::Host)));
    assert!(response.ends_with("\r\n\r\nmissing header field Host\n"));

    let (status, error, _) = refused(sample_with("host: server.example.com\r\n"));
    assert_eq!((status, error), (400, HandshakeError::Duplicate(Field::Host)));

    let (status, error, _) = refused("GET / HTTP/1.1\r\n\r\n");
    assert_eq!((status, error), (400, HandshakeError::Missing(Field::Host)));
    assert_eq!(serve("GET / HTTP/1.0\r\n\r\n"), Served::Http);
    let two = "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n";
    assert_eq!(refused(two).1, HandshakeError::Duplicate(Field::Host));
}

#[test]
fn rfc9112_3_2_an_invalid_host_is_400() {
    for host in [
        "",
        "a b",
        "a/b",
        "user@a",
        "a:b",
        "a:99999",
        "a:1:2",
        "[::1",
        "::1",
        "[fe80::1%25eth0]",
        "[a]",
        "[::1]x",
        "a?b",
        "a#b",
        "a%zz",
        "\u{e9}",
        ":80",
        "a\\b",
    ] {
        let request = sample("server.example.com", host);
        let (status, error, _) = refused(request);
        assert_eq!((status, error), (400, HandshakeError::Invalid(Field::Host)), "{host:?}");
    }
    for host in
        ["a", "a:80", "a:", "127.0.0.1:9002", "[::1]", "[::1]:9002", "a_b.c-d", "a%20b", "a,b"]
    {
        assert_eq!(serve(sample("server.example.com", host)), Served::Upgrade, "{host:?}");
    }
}

#[test]
fn rfc9112_3_2_forms_of_the_target() {
    for target in
        ["/", "/chat?a=b", "//x", "http://server.example.com/chat", "https://[::1]:1/", "ws://a"]
    {
        let mut server = server();
        let request = sample("/chat ", &format!("{target} "));
        assert_eq!(feed(&mut server, request.as_bytes()).0, Served::Upgrade, "{target}");
    }
    for target in
        ["*", "server.example.com:80", "chat", "/chat#part", "/ch\"at<", "http://", "/\\\u{1f}"]
    {
        let request = sample("/chat ", &format!("{target} "));
        let (status, error, _) = refused(&request);
        assert_eq!(status, 400, "{target}");
        assert!(matches!(error, HandshakeError::Target | HandshakeError::Malformed), "{target}");
    }
    assert_eq!(serve("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), Served::Http);
    assert_eq!(serve("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"), Served::Http);
    let error = HandshakeError::Target;
    assert_eq!(refused("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n").1, error);
    assert_eq!(refused("POST * HTTP/1.1\r\nHost: a\r\n\r\n").1, error);
    assert_eq!(refused("GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n").1, error);
}

/// What comes before the at sign can hide which host is addressed.
#[test]
fn rfc9110_4_2_4_a_target_with_user_information_is_400() {
    for user in ["user@", "user:password@", ":@", "@", "server.example.com:80@"] {
        for target in [format!("http://{user}other.example/chat"), format!("ws://{user}[::1]:80")] {
            let (status, error, _) = refused(sample("/chat ", &format!("{target} ")));
            assert_eq!((status, error), (400, HandshakeError::Target), "{target}");
        }
        let request = format!("CONNECT {user}a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n");
        assert_eq!(refused(request).1, HandshakeError::Target, "{user}");
    }
    for target in ["/@", "/chat?user@a", "http://server.example.com/user@a", "http://a?user@b"] {
        assert_eq!(serve(sample("/chat ", &format!("{target} "))), Served::Upgrade, "{target}");
    }
}

#[test]
fn a_refusal_is_reported_once_and_the_rest_is_discarded() {
    let mut server = server();
    assert!(matches!(feed(&mut server, b"\x16").0, Served::Refused(_)));
    for _ in 0..3 {
        let (served, out, rest) = feed(&mut server, SAMPLE_REQUEST.as_bytes());
        assert_eq!((served, out.as_str(), &rest[..]), (Served::Pending, "", &b""[..]));
    }
    assert!(server.request().is_none());
}

#[test]
fn rfc9110_9_3_2_a_refused_head_request_gets_no_body() {
    let mut server = server();
    let (served, out, _) = feed(&mut server, b"HEAD / HTTP/1.1\r\n\r\n");
    assert_eq!(served, Served::Refused(HandshakeError::Missing(Field::Host)));
    assert!(out.contains("Content-Length: 26\r\n"), "{out}");
    assert!(out.ends_with("\r\n\r\n"), "{out}");
}
