//! The request that a client writes (RFC 6455 §4.1).

use std::sync::Arc;

use anyloop_proto::handshake::http::HeaderValue;
use anyloop_proto::handshake::http::header::{self, HeaderName};
use anyloop_proto::handshake::{ClientHandshake, ClientOptions, RequestError, Target};
use anyloop_testkit::requests::SAMPLE_REQUEST;

use crate::drive::{Served, at, client, client_options, serve};

fn request(uri: &str, options: ClientOptions) -> Result<String, RequestError> {
    let target: Target = uri.parse().unwrap();
    let mut out = b"earlier".to_vec();
    let outcome = ClientHandshake::new(&target, Arc::new(options), at(0), &mut out);
    let out = String::from_utf8(out).unwrap();
    let request = out.strip_prefix("earlier").unwrap().to_owned();
    match outcome {
        Ok(_) => Ok(request),
        Err(error) => {
            assert_eq!(request, "", "nothing is appended if there is an error");
            Err(error)
        }
    }
}

fn with_header(name: HeaderName, value: &'static str) -> ClientOptions {
    let mut options = client_options();
    options.headers.insert(name, HeaderValue::from_static(value));
    options
}

#[test]
fn rfc6455_1_2_the_sample_request() {
    let mut options = client_options();
    options.subprotocols = vec!["chat".into(), "superchat".into()];
    options.origin = Some(HeaderValue::from_static("http://example.com"));
    assert_eq!(client(options).1, SAMPLE_REQUEST);
}

#[test]
fn the_minimal_request() {
    let request = request("wss://[::1]:9002", client_options()).unwrap();
    assert_eq!(
        request,
        "GET / HTTP/1.1\r\nHost: [::1]:9002\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    assert_eq!(serve(request), Served::Upgrade);
}

#[test]
fn rfc6455_4_1_each_request_has_its_own_nonce() {
    let one = request("ws://a", ClientOptions::default()).unwrap();
    let other = request("ws://a", ClientOptions::default()).unwrap();
    assert_ne!(one, other);
    assert_eq!((serve(one), serve(other)), (Served::Upgrade, Served::Upgrade));
}

#[test]
fn subprotocols_are_unique_tokens() {
    let asking = |names: &[&str]| {
        let mut options = client_options();
        options.subprotocols = names.iter().map(|&name| name.into()).collect();
        request("ws://a", options)
    };
    for bad in ["", "a b", "a,b", "a\r\nX: y", "\u{e9}", "\"a\""] {
        assert_eq!(asking(&["ok", bad]).unwrap_err(), RequestError::InvalidSubprotocol(bad.into()));
    }
    let twice = asking(&["a", "b", "a"]).unwrap_err();
    assert_eq!(twice, RequestError::DuplicateSubprotocol("a".into()));
    assert!(asking(&["a", "A"]).unwrap().contains("\r\nSec-WebSocket-Protocol: a, A\r\n"));
}

#[test]
fn the_caller_cannot_set_fields_of_the_handshake() {
    for name in [
        header::CONNECTION,
        header::UPGRADE,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::EXPECT,
        header::ORIGIN,
        header::SEC_WEBSOCKET_KEY,
        header::SEC_WEBSOCKET_VERSION,
        header::SEC_WEBSOCKET_PROTOCOL,
        header::SEC_WEBSOCKET_EXTENSIONS,
        HeaderName::from_static("sec-websocket-x"),
    ] {
        let error = request("ws://a", with_header(name.clone(), "x")).unwrap_err();
        assert_eq!(error, RequestError::ReservedHeader(name));
    }
    let cookie = request("ws://a", with_header(header::COOKIE, "a=b")).unwrap();
    assert!(cookie.ends_with("\r\ncookie: a=b\r\n\r\n"), "{cookie}");
}

#[test]
fn the_error_of_a_reserved_field_has_the_reason() {
    for (name, reason) in [
        (header::CONNECTION, "is written by the handshake itself"),
        (header::SEC_WEBSOCKET_KEY, "is written by the handshake itself"),
        (header::ORIGIN, "has an option of its own"),
        (header::SEC_WEBSOCKET_PROTOCOL, "has an option of its own"),
        (header::CONTENT_LENGTH, "announces a body, and the request has none"),
        (header::EXPECT, "announces a body, and the request has none"),
        (header::TRANSFER_ENCODING, "announces a body, and the request has none"),
    ] {
        let error = request("ws://a", with_header(name.clone(), "x")).unwrap_err();
        assert_eq!(error.to_string(), format!("header field {name} {reason}"));
    }
}

#[test]
fn fields_are_added_as_text_or_bytes() {
    let mut options = client_options();
    options.add_header("X-Token", "abc").unwrap();
    options.add_header(String::from("x-token"), String::from("def")).unwrap();
    options.add_header(header::COOKIE, HeaderValue::from_static("a=b")).unwrap();
    options.add_header("X-Bytes", b"ghi".as_slice()).unwrap();
    for name in ["", "two words", "a:", "a\r\nb", "\u{e9}"] {
        let error = options.add_header(name, "x").unwrap_err();
        assert_eq!(error.to_string(), format!("{name:?} cannot be the name of a header field"));
        assert_eq!(error, RequestError::InvalidHeaderName(name.into()));
    }
    for value in ["a\r\nX: y", "a\0"] {
        let error = options.add_header("x-token", value).unwrap_err();
        assert_eq!(error, RequestError::InvalidHeaderValue(HeaderName::from_static("x-token")));
    }
    let written = request("ws://a", options).unwrap();
    for line in ["x-token: abc", "x-token: def", "cookie: a=b", "x-bytes: ghi"] {
        assert!(written.contains(&format!("\r\n{line}\r\n")), "{written}");
    }
    assert!(!written.contains("X: y"), "{written}");
}

#[test]
fn the_caller_can_set_a_valid_host() {
    let other = request("ws://127.0.0.1", with_header(header::HOST, "b.example:8080")).unwrap();
    assert!(other.starts_with("GET / HTTP/1.1\r\nHost: b.example:8080\r\nUpgrade"), "{other}");
    assert_eq!(other.to_lowercase().matches("host:").count(), 1);
    for bad in ["", "a/b", "a b", "user@a"] {
        let error = request("ws://a", with_header(header::HOST, bad)).unwrap_err();
        assert_eq!(error, RequestError::InvalidHost, "{bad}");
    }
    let mut options = with_header(header::HOST, "a");
    options.headers.append(header::HOST, HeaderValue::from_static("a"));
    assert_eq!(request("ws://a", options).unwrap_err(), RequestError::InvalidHost);
}

#[test]
fn user_and_password_of_the_uri_become_authorization_unless_the_caller_sets_it() {
    let from_uri = request("ws://u:p@a/", client_options()).unwrap();
    assert!(from_uri.contains("\r\nAuthorization: Basic dTpw\r\n"), "{from_uri}");
    let own = with_header(header::AUTHORIZATION, "Bearer x");
    let own = request("ws://u:p@a/", own).unwrap();
    assert_eq!(own.to_lowercase().matches("authorization").count(), 1);
    assert!(own.contains("authorization: Bearer x\r\n"), "{own}");
}

#[test]
fn debug_output_of_options_has_no_secrets() {
    let shown = format!("{:?}", with_header(header::COOKIE, "secret"));
    assert!(shown.contains("cookie") && !shown.contains("secret"), "{shown}");
}
