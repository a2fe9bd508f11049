//! Drives handshakes of both roles.

use std::sync::Arc;
use std::time::Duration;

use anyloop_proto::handshake::{
    ClientHandshake, ClientOptions, Incoming, Opened, OriginPolicy, ServerHandshake, ServerOptions,
    Target,
};
use anyloop_proto::{Cause, Config, Failure, HandshakeError, Input, Instant, Shutdown};
use anyloop_testkit::requests::{SAMPLE_REQUEST, SampleNonce, replaced, with_lines};

/// RFC 6455 §5.7: "Hello", masked and unmasked.
pub(crate) const MASKED_HELLO: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
pub(crate) const HELLO: &[u8] = b"\x81\x05Hello";

pub(crate) fn at(millis: u64) -> Instant {
    Instant::from_nanos(0) + Duration::from_millis(millis)
}

/// The sample request with `from` replaced.
pub(crate) fn sample(from: &str, to: &str) -> String {
    replaced(SAMPLE_REQUEST, from, to)
}

/// The sample request with these lines added. Each ends with CR LF.
pub(crate) fn sample_with(lines: &str) -> String {
    with_lines(SAMPLE_REQUEST, lines)
}

pub(crate) fn server_options() -> ServerOptions {
    ServerOptions::new(OriginPolicy::Any)
}

pub(crate) fn server() -> ServerHandshake {
    ServerHandshake::new(Arc::new(server_options()), at(0))
}

pub(crate) fn client_options() -> ClientOptions {
    let mut options = ClientOptions::default();
    options.connection = Arc::new(Config::new(Arc::new(SampleNonce)));
    options
}

/// The outcome of received bytes for a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    Upgrade,
    Http,
    Refused(HandshakeError),
    Pending,
}

/// Feeds `bytes` to `server`. Returns the outcome, its output, and the bytes that it has not consumed.
pub(crate) fn feed(server: &mut ServerHandshake, bytes: &[u8]) -> (Served, String, Vec<u8>) {
    let mut bytes = bytes.to_vec();
    let mut input = Input::new(&mut bytes);
    let mut out = Vec::new();
    let served = match server.next(&mut input, at(0), &mut out) {
        Ok(None) => Served::Pending,
        Ok(Some(Incoming::Upgrade(_))) => Served::Upgrade,
        Ok(Some(Incoming::Http(_))) => Served::Http,
        Err(failure) => Served::Refused(handshake_error(failure)),
    };
    (served, String::from_utf8(out).unwrap(), input.rest().to_vec())
}

/// Feeds `bytes` to a new server.
pub(crate) fn serve(bytes: impl AsRef<[u8]>) -> Served {
    feed(&mut server(), bytes.as_ref()).0
}

/// Feeds `bytes` to a new server, which must refuse them. Returns status, error and response.
pub(crate) fn refused(bytes: impl AsRef<[u8]>) -> (u16, HandshakeError, String) {
    refused_by(&mut server(), bytes)
}

pub(crate) fn refused_by(
    server: &mut ServerHandshake,
    bytes: impl AsRef<[u8]>,
) -> (u16, HandshakeError, String) {
    let bytes = bytes.as_ref();
    let (served, out, rest) = feed(server, bytes);
    let Served::Refused(error) = served else {
        panic!("{served:?} of {:?}", String::from_utf8_lossy(bytes));
    };
    assert_eq!(rest, b"", "a server that has refused discards its input");
    assert_eq!(
        server.shutdown(),
        Shutdown::HalfClose,
        "the server reads on after the response, since unread input would cause a reset"
    );
    assert_eq!(server.failure().map(|failure| failure.cause()), Some(Cause::Handshake(error)));
    // All refusals have these fields and this body.
    let (head, body) = out.split_once("\r\n\r\n").expect("the response has a complete head");
    assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())), "{out}");
    assert!(head.contains("\r\nContent-Type: text/plain"), "{out}");
    assert!(
        head.contains("\r\nConnection: close") || head.contains("\r\nConnection: Upgrade, close"),
        "{out}"
    );
    match error {
        HandshakeError::NotHttp { .. } => assert_eq!(body, "not an HTTP request\n"),
        _ => assert_eq!(body, format!("{error}\n")),
    }
    (status(&out), error, out)
}

/// The status of `response`. Panics if there are several responses.
pub(crate) fn status(response: &str) -> u16 {
    assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "one response: {response}");
    response["HTTP/1.1 ".len()..][..3].parse().unwrap()
}

pub(crate) fn handshake_error(failure: Failure) -> HandshakeError {
    match failure.cause() {
        Cause::Handshake(error) => error,
        other => panic!("not a handshake error: {other:?}"),
    }
}

/// A client with `options`, and its request.
pub(crate) fn client(options: ClientOptions) -> (ClientHandshake, String) {
    let target: Target = "ws://server.example.com/chat".parse().unwrap();
    let mut out = Vec::new();
    let client = ClientHandshake::new(&target, Arc::new(options), at(0), &mut out).unwrap();
    (client, String::from_utf8(out).unwrap())
}

/// Feeds `bytes` to `client`. Returns the outcome, and the bytes that it has not consumed.
pub(crate) fn answer(
    client: &mut ClientHandshake,
    bytes: &[u8],
) -> (Result<Option<Opened>, HandshakeError>, Vec<u8>) {
    let mut bytes = bytes.to_vec();
    let mut input = Input::new(&mut bytes);
    let mut out = Vec::new();
    let outcome = client.next(&mut input, at(0), &mut out).map_err(handshake_error);
    assert_eq!(out, b"", "a client sends nothing after its request");
    (outcome, input.rest().to_vec())
}
