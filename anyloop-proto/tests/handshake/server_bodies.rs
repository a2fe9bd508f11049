//! Plain HTTP requests and their bodies (RFC 9112 §6, §7).

use std::sync::Arc;

use anyloop_proto::handshake::ServerHandshake;
use anyloop_proto::handshake::http::{Method, Version};
use anyloop_proto::{Field, HandshakeError};
use anyloop_testkit::requests::replaced;

use crate::drive::{Served, at, feed, refused, refused_by, serve, server, server_options};

fn post(fields: &str, body: &str) -> String {
    format!("POST /form HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

/// The body of a request that must be accepted.
fn body_of(request: &str) -> String {
    let mut server = server();
    assert_eq!(feed(&mut server, request.as_bytes()).0, Served::Http, "{request:?}");
    String::from_utf8(server.request().unwrap().body().clone()).unwrap()
}

fn limited(max_body_size: usize) -> ServerHandshake {
    let mut options = server_options();
    options.max_body_size = max_body_size;
    ServerHandshake::new(Arc::new(options), at(0))
}

#[test]
fn a_plain_request_is_reported_unchanged() {
    let mut server = server();
    let request = "DELETE /x?y HTTP/1.0\r\nX-A: 1\r\nx-a: 2\r\n\r\n";
    assert_eq!(feed(&mut server, request.as_bytes()).0, Served::Http);
    let request = server.request().unwrap();
    assert_eq!((request.method(), request.version()), (&Method::DELETE, Version::HTTP_10));
    assert_eq!(request.uri(), "/x?y");
    assert_eq!(request.headers().get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert!(!request.is_upgrade());
    assert!(request.body().is_empty());
    assert!(request.subprotocols().is_empty());
}

#[test]
fn rfc9112_6_3_a_body_of_known_length() {
    assert_eq!(body_of(&post("Content-Length: 5\r\n", "hello")), "hello");
    assert_eq!(body_of(&post("Content-Length: 5\r\n", "hello, and a pipelined request")), "hello");
    assert_eq!(body_of(&post("Content-Length: 5, 5\r\nContent-Length: 05\r\n", "hello")), "hello");
    assert_eq!(body_of(&post("", "not a body")), "");
    assert_eq!(serve(post("Content-Length: 5\r\n", "hell")), Served::Pending);
}

#[test]
fn rfc9112_7_1_a_chunked_body() {
    let te = "Transfer-Encoding: chunked\r\n";
    assert_eq!(body_of(&post(te, "5\r\nhello\r\n0\r\n\r\n")), "hello");
    assert_eq!(body_of(&post(te, "1\r\nh\r\n004\r\nello\r\n000\r\n\r\nGET")), "hello");
    assert_eq!(
        body_of(&post(te, "A;name=\"v\"\r\n0123456789\r\n0 \r\nTrailer: x\r\n\r\n")),
        "0123456789"
    );
    assert_eq!(body_of(&post("transfer-encoding: Chunked\r\n", "0\r\n\r\n")), "");
    for bad in [
        "\r\n",
        "g\r\n",
        "-1\r\n",
        "0x5\r\n",
        "5\nhello",
        "5\r\rhello",
        "5\r\nhello0\r\n",
        "5\r\nhello\n",
        "0\r\nA: b\n",
        "0\r\n\n",
        "5;\x01\r\n",
        ";\r\n",
        " 5\r\n",
        "5\r\nhello\r\n\r\n",
    ] {
        let (status, error, _) = refused(post(te, bad));
        assert_eq!((status, error), (400, HandshakeError::MalformedBody), "{bad:?}");
    }
}

#[test]
fn any_chunking_gives_the_same_body() {
    let request =
        post("Transfer-Encoding: chunked\r\n", "2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nT: u\r\n\r\n");
    for size in 1..request.len() {
        let mut server = server();
        let mut last = Served::Pending;
        for part in request.as_bytes().chunks(size) {
            assert_eq!(last, Served::Pending);
            last = feed(&mut server, part).0;
        }
        assert_eq!(last, Served::Http, "in reads of {size} bytes");
        assert_eq!(server.request().unwrap().body(), b"hello");
    }
}

#[test]
fn rfc9112_6_ambiguous_framing_is_refused() {
    let coding = Field::TransferEncoding;
    for (fields, expected) in [
        (
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            (400, HandshakeError::Duplicate(Field::ContentLength)),
        ),
        ("Content-Length: 5, 6\r\n", (400, HandshakeError::Duplicate(Field::ContentLength))),
        ("Content-Length: -5\r\n", (400, HandshakeError::Invalid(Field::ContentLength))),
        ("Content-Length: 5x\r\n", (400, HandshakeError::Invalid(Field::ContentLength))),
        ("Content-Length: 0x5\r\n", (400, HandshakeError::Invalid(Field::ContentLength))),
        ("Content-Length: 5,\r\n", (400, HandshakeError::Invalid(Field::ContentLength))),
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            (400, HandshakeError::Invalid(coding)),
        ),
        ("Transfer-Encoding: gzip, chunked\r\n", (501, HandshakeError::Unsupported(coding))),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            (501, HandshakeError::Unsupported(coding)),
        ),
        ("Transfer-Encoding: xchunked\r\n", (501, HandshakeError::Unsupported(coding))),
        ("Transfer-Encoding: identity\r\n", (501, HandshakeError::Unsupported(coding))),
        ("Transfer-Encoding:\r\n", (501, HandshakeError::Unsupported(coding))),
    ] {
        let (status, error, _) = refused(post(fields, "hello"));
        assert_eq!((status, error), expected, "{fields}");
    }
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(refused(old).1, HandshakeError::Invalid(coding));
}

#[test]
fn rfc9110_15_5_14_a_body_beyond_the_limit_is_413_as_soon_as_it_is_declared() {
    for request in [
        post("Content-Length: 6\r\n", ""),
        post("Content-Length: 18446744073709551616\r\n", ""),
        post("Transfer-Encoding: chunked\r\n", "6\r\n"),
        post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n1\r\n"),
        post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n1\r\n!"),
        post("Transfer-Encoding: chunked\r\n", "ffffffffffffffff\r\n"),
        post("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n"),
        post("Transfer-Encoding: chunked\r\n", "10000000000000000\r\n"),
    ] {
        let mut server = limited(5);
        let (status, error, _) = refused_by(&mut server, &request);
        assert_eq!((status, error), (413, HandshakeError::BodyTooBig), "{request:?}");
        let reported = server.request().expect("its head is valid");
        assert_eq!((reported.uri().path(), reported.body().len()), ("/form", 0), "{request:?}");
    }
    let exactly = [
        post("Content-Length: 5\r\n", "hello"),
        post("Transfer-Encoding: chunked\r\n", "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"),
    ];
    for request in exactly {
        assert_eq!(feed(&mut limited(5), request.as_bytes()).0, Served::Http, "{request:?}");
    }
}

#[test]
fn chunk_extensions_and_trailers_are_bounded() {
    for endless in ["0\r\n", "5;", "0"] {
        let filler = if endless == "0" { "0" } else { "x" };
        let request =
            post("Transfer-Encoding: chunked\r\n", &(endless.to_owned() + &filler.repeat(17_000)));
        assert_eq!(refused(request).1, HandshakeError::BodyTooBig, "{endless:?}");
    }
}

#[test]
fn rfc9110_10_1_1_100_continue_is_sent_when_the_client_waits_for_it() {
    let expecting = "Expect: 100-continue\r\nContent-Length: 5\r\n";
    let mut server_a = server();
    let (served, out, _) = feed(&mut server_a, post(expecting, "").as_bytes());
    assert_eq!((served, out.as_str()), (Served::Pending, "HTTP/1.1 100 Continue\r\n\r\n"));
    let (served, out, _) = feed(&mut server_a, b"hello");
    assert_eq!((served, out.as_str()), (Served::Http, ""));

    // Not if the client has sent part of the body, if the request is HTTP/1.0, or if it has no body.
    for request in [
        post(expecting, "h"),
        swap_version(&post(expecting, "")),
        post("Expect: 100-continue\r\n", ""),
    ] {
        assert_eq!(feed(&mut server(), request.as_bytes()).1, "", "{request}");
    }
    // Nor if the request is refused.
    let (status, error, _) = refused_by(&mut limited(4), post(expecting, ""));
    assert_eq!((status, error), (413, HandshakeError::BodyTooBig));
    for other in ["Expect: 200-ok\r\n", "Expect: 100-continue, more\r\n"] {
        let (status, error, _) = refused(post(&format!("Content-Length: 1\r\n{other}"), ""));
        assert_eq!((status, error), (417, HandshakeError::Unsupported(Field::Expect)));
    }
}

fn swap_version(request: &str) -> String {
    replaced(request, "HTTP/1.1", "HTTP/1.0")
}
