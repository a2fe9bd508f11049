//! The server's side of the opening handshake, which receives arbitrary bytes.
//!
//! Asserts:
//!
//! - No panic.
//! - Request, refusal, answer and unread rest do not depend on how the bytes are divided into reads.
//! - At most one request or failure.
//! - A refusal is one complete response. A WebSocket request can be accepted, and another one can be responded to.
#![no_main]

use std::sync::Arc;

use anyloop_fuzz::arrival::Cuts;
use anyloop_fuzz::subject::Seen;
use anyloop_fuzz::{START, config, toy, undivided_cause};
use anyloop_proto::handshake::http::{HeaderMap, Method, Response, StatusCode, Uri};
use anyloop_proto::handshake::{Accept, OriginPolicy, Request, ServerHandshake, ServerOptions};
use anyloop_proto::{Cause, Connection, Failure, HandshakeError, Input, Shutdown};
use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;

/// The first bytes of a case. The rest is the input.
#[derive(Arbitrary, Debug)]
struct Settings {
    cuts: Cuts,
    max_head_size: Option<u8>,
    max_fields: Option<u8>,
    max_body_size: Option<u8>,
    any_origin: bool,
    extension: bool,
}

/// The result of the input.
#[derive(Debug, PartialEq)]
struct Outcome {
    request: Option<Received>,
    failure: Option<Cause>,
    written: String,
    left: Vec<u8>,
    answer: Option<String>,
    /// The events of the connection, if it is accepted, for the bytes after the request.
    seen: Vec<Seen>,
}

/// A request, as it was reported.
#[derive(Debug, PartialEq)]
struct Received {
    upgrade: bool,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Vec<u8>,
    subprotocols: Vec<String>,
}

impl From<&Request> for Received {
    fn from(request: &Request) -> Self {
        Self {
            upgrade: request.is_upgrade(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            body: request.body().clone(),
            subprotocols: request.subprotocols().to_vec(),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut data = Unstructured::new(data);
    let Ok(settings) = data.arbitrary::<Settings>() else { return };
    let bytes = data.take_rest();
    let whole = run(&settings, &[bytes]);
    let cut = run(&settings, &settings.cuts.pieces(bytes));
    assert_eq!(whole, cut);
});

fn run(settings: &Settings, pieces: &[&[u8]]) -> Outcome {
    let mut handshake = ServerHandshake::new(Arc::new(options(settings)), START);
    let (mut out, mut left, mut lent, mut failure) = (Vec::new(), Vec::new(), 0, None);
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut input = Input::new(&mut piece);
        match handshake.next(&mut input, START, &mut out) {
            Ok(incoming) => lent += usize::from(incoming.is_some()),
            Err(error) => {
                assert_eq!(failure, None, "a second failure");
                failure = Some(error);
            }
        }
        left.extend_from_slice(input.rest());
    }
    assert!(lent + usize::from(failure.is_some()) <= 1, "more than one request or failure");
    assert_eq!(handshake.failure(), failure);
    // The request whose body is too big is kept for the log, and is not lent.
    let body_too_big = Cause::Handshake(HandshakeError::BodyTooBig);
    let is_kept = failure.is_some_and(|failure| failure.cause() == body_too_big);
    assert_eq!(handshake.request().is_some(), lent == 1 || is_kept);
    let request = handshake.request().filter(|_| lent == 1).map(Received::from);
    // Whether 100 (Continue) is sent depends on whether the body arrives in the same read.
    let written = String::from_utf8(out).expect("a refusal is text");
    let written = written.replacen("HTTP/1.1 100 Continue\r\n\r\n", "", 1);
    match failure {
        Some(failure) => check_refusal(&handshake, failure, &written),
        None => assert_eq!(written, "", "nothing is sent before the answer"),
    }
    let (mut answer, mut seen) = (None, Vec::new());
    if let Some(received) = &request {
        let connection;
        (answer, connection) = answered(&mut handshake, received);
        if let Some(connection) = connection {
            seen = events(connection, &left);
        }
    }
    let failure = failure.map(undivided_cause);
    Outcome { request, failure, written, left, answer, seen }
}

fn options(settings: &Settings) -> ServerOptions {
    let origins = match settings.any_origin {
        true => OriginPolicy::Any,
        false => OriginPolicy::only(["http://example.com"]),
    };
    let mut options = ServerOptions::new(origins);
    options.connection = config(|_| ());
    if let Some(size) = settings.max_head_size {
        options.max_head_size = usize::from(size) * 2;
    }
    if let Some(count) = settings.max_fields {
        options.max_fields = count.into();
    }
    if let Some(size) = settings.max_body_size {
        options.max_body_size = size.into();
    }
    if settings.extension {
        options.extensions.push(Arc::new(toy::Toy));
    }
    options
}

fn check_refusal(handshake: &ServerHandshake, failure: Failure, written: &str) {
    let Cause::Handshake(error) = failure.cause() else { panic!("{failure}") };
    assert_eq!(
        handshake.shutdown(),
        Shutdown::HalfClose,
        "the stream is half-closed, so that the response arrives"
    );
    let (head, body) = written.split_once("\r\n\r\n").expect("the response has a complete head");
    let status: u16 = head["HTTP/1.1 ".len()..][..3].parse().expect("the response has a status");
    assert!((400..=505).contains(&status), "{head}");
    let reason = match error {
        HandshakeError::NotHttp { .. } => failure.cause().reason().to_string(),
        _ => error.to_string(),
    };
    assert!(head.contains(&format!("\r\nContent-Length: {}", reason.len() + 1)));
    assert!(body.is_empty() || body == format!("{reason}\n"), "{body:?}");
}

/// Accepts a WebSocket request, or responds to another one. Returns the output and the connection.
fn answered(
    handshake: &mut ServerHandshake,
    received: &Received,
) -> (Option<String>, Option<Connection>) {
    let mut out = Vec::new();
    let mut accept = Accept::new();
    accept.subprotocol = received.subprotocols.last().cloned();
    let result = handshake.accept(accept, START, &mut out);
    assert_eq!(result.is_ok(), received.upgrade, "{result:?}");
    let connection = match result {
        Ok(opened) => {
            assert_eq!(opened.subprotocol.as_ref(), received.subprotocols.last());
            Some(opened.connection)
        }
        Err(_) => {
            assert_eq!(out, b"", "an answer that fails must not append output");
            let mut response = Response::new(b"hello".to_vec());
            *response.status_mut() = StatusCode::NOT_FOUND;
            handshake.respond(&response, START, &mut out).expect("the request is not answered yet");
            assert_eq!(handshake.shutdown(), Shutdown::HalfClose);
            assert_eq!(out.ends_with(b"\r\n\r\n"), received.method == Method::HEAD);
            None
        }
    };
    assert!(
        handshake.respond(&Response::new(Vec::new()), START, &mut out).is_err(),
        "a second answer must fail"
    );
    let out = String::from_utf8(out).expect("an answer is text");
    assert!(!out.replace("\r\n", "").contains(['\r', '\n']), "{out:?}");
    (Some(out), connection)
}

fn events(mut connection: Connection, left: &[u8]) -> Vec<Seen> {
    let (mut left, mut out, mut seen) = (left.to_vec(), Vec::new(), Vec::new());
    let mut input = Input::new(&mut left);
    let Connection { receiver, sender } = &mut connection;
    while let Ok(Some(event)) = receiver.next(sender, &mut input, START, &mut out) {
        seen.push(event.into());
    }
    seen
}
