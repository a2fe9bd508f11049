//! Origin (RFC 6455 §10.2): a server restricts which web pages may connect.

use std::sync::Arc;

use anyloop_proto::handshake::{OriginPolicy, ServerHandshake, ServerOptions};
use anyloop_proto::{Field, HandshakeError};

use crate::drive::{Served, at, feed, refused_by, sample, sample_with, serve};

fn only(origins: &[&str]) -> ServerHandshake {
    let policy = OriginPolicy::only(origins.iter().copied());
    ServerHandshake::new(Arc::new(ServerOptions::new(policy)), at(0))
}

const LISTED: &[&str] =
    &["http://example.com", "https://Example.com:8443", "https://b.example:443"];

#[test]
fn a_listed_origin_passes_in_any_case() {
    for origin in [
        "http://example.com",
        "HTTP://EXAMPLE.COM",
        "http://example.com:80",
        "https://example.com:8443",
        "https://b.example",
    ] {
        let request = sample("http://example.com", origin);
        assert_eq!(feed(&mut only(LISTED), request.as_bytes()).0, Served::Upgrade, "{origin}");
    }
}

#[test]
fn another_origin_is_403() {
    for origin in [
        "https://example.com",
        "http://example.com.evil.example",
        "http://evil.example",
        "http://example.com:8080",
        "http://www.example.com",
        "https://example.com:80",
        "http://example.com http://evil.example",
        "null",
        "",
    ] {
        let request = sample("http://example.com", origin);
        let (status, error, response) = refused_by(&mut only(LISTED), request);
        assert_eq!((status, error), (403, HandshakeError::OriginRefused), "{origin}");
        assert!(response.ends_with("\r\n\r\norigin not allowed\n"));
    }
}

#[test]
fn null_passes_only_if_listed() {
    let request = sample("http://example.com", "null");
    assert_eq!(feed(&mut only(&["null"]), request.as_bytes()).0, Served::Upgrade);
    assert_eq!(serve(request), Served::Upgrade);
}

#[test]
fn a_request_without_origin_is_not_from_a_browser() {
    let request = sample("Origin: http://example.com\r\n", "");
    assert_eq!(feed(&mut only(&[]), request.as_bytes()).0, Served::Upgrade);
}

#[test]
fn two_origins_or_one_that_is_not_ascii_are_400() {
    let twice = sample_with("Origin: http://example.com\r\n");
    let (status, error, _) = refused_by(&mut only(LISTED), twice);
    assert_eq!((status, error), (400, HandshakeError::Duplicate(Field::Origin)));
    let (status, error, _) =
        refused_by(&mut only(LISTED), sample("example.com\r\nSec", "\u{e9}\r\nSec"));
    assert_eq!((status, error), (400, HandshakeError::Invalid(Field::Origin)));
}

#[test]
fn the_origin_of_a_plain_request_is_not_checked() {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nOrigin: http://evil.example\r\n\r\n";
    let mut server = only(LISTED);
    assert_eq!(feed(&mut server, request).0, Served::Http);
    assert_eq!(server.request().unwrap().origin(), Some("http://evil.example"));
}
