//! The client's side of the opening handshake, which receives arbitrary bytes.
//!
//! The nonce is always that of RFC 6455 §1.3. Two subprotocols and a toy extension are offered. Asserts:
//!
//! - No panic.
//! - Outcome, response and unread rest do not depend on how the bytes are divided into reads.
//! - Exactly one outcome: a connection or a failure.
//! - A client opens only at a 101 response with the correct accept value and with a subprotocol and an extension
//!   that it has offered, or none.
#![no_main]

use std::sync::Arc;

use anyloop_fuzz::arrival::Cuts;
use anyloop_fuzz::{START, config, toy, undivided_cause};
use anyloop_proto::handshake::http::{HeaderMap, StatusCode};
use anyloop_proto::handshake::{ClientHandshake, ClientOptions, Target};
use anyloop_proto::{Cause, Input, Shutdown};
use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;

/// The first bytes of a case. The rest is the input.
#[derive(Arbitrary, Debug)]
struct Settings {
    cuts: Cuts,
    max_head_size: Option<u8>,
    max_fields: Option<u8>,
    max_body_size: Option<u8>,
    extension: bool,
}

/// The result of the input.
#[derive(Debug, PartialEq)]
struct Outcome {
    opened: Option<(HeaderMap, Option<String>, Option<String>)>,
    failure: Option<Cause>,
    response: Option<(StatusCode, HeaderMap, Vec<u8>)>,
    left: Vec<u8>,
}

fuzz_target!(|data: &[u8]| {
    let mut data = Unstructured::new(data);
    let Ok(settings) = data.arbitrary::<Settings>() else { return };
    let bytes = data.take_rest();
    let whole = run(&settings, &[bytes]);
    let cut = run(&settings, &settings.cuts.pieces(bytes));
    assert_eq!(whole, cut);
    check(&settings, &whole);
});

fn run(settings: &Settings, pieces: &[&[u8]]) -> Outcome {
    let target: Target = "ws://server.example.com/chat".parse().expect("the target is valid");
    let mut out = Vec::new();
    let mut handshake = ClientHandshake::new(&target, Arc::new(options(settings)), START, &mut out)
        .expect("the options are valid");
    out.clear();
    let (mut left, mut opened, mut failure) = (Vec::new(), None, None);
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut input = Input::new(&mut piece);
        match handshake.next(&mut input, START, &mut out) {
            Ok(None) => {}
            Ok(Some(done)) => {
                assert!(opened.is_none() && failure.is_none(), "more than one outcome, or none");
                assert_eq!(done.response.status(), StatusCode::SWITCHING_PROTOCOLS);
                opened = Some((done.response.headers().clone(), done.subprotocol, done.extension));
            }
            Err(error) => {
                assert!(opened.is_none() && failure.is_none(), "more than one outcome, or none");
                failure = Some(error);
            }
        }
        left.extend_from_slice(input.rest());
    }
    if let Err(error) = handshake.handle_eof() {
        assert!(opened.is_none() && failure.is_none(), "more than one outcome, or none");
        failure = Some(error);
    }
    assert_eq!(out, b"", "a client must send nothing after its request");
    assert_eq!(opened.is_some(), failure.is_none(), "more than one outcome, or none");
    assert_eq!(handshake.failure(), failure);
    assert_eq!(handshake.shutdown() == Shutdown::None, opened.is_some());
    let response = handshake.into_response().map(|response| {
        let (head, body) = response.into_parts();
        (head.status, head.headers, body)
    });
    let failure = failure.map(undivided_cause);
    Outcome { opened, failure, response, left }
}

fn options(settings: &Settings) -> ClientOptions {
    let mut options = ClientOptions::default();
    options.connection = config(|_| ());
    options.subprotocols = vec!["chat".into(), "superchat".into()];
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

fn check(settings: &Settings, outcome: &Outcome) {
    if let Some((_, _, body)) = &outcome.response {
        let most = settings.max_body_size.map_or(64 * 1024, usize::from);
        assert!(body.len() <= most, "{} bytes of body", body.len());
        assert!(outcome.failure.is_some());
    }
    let Some((headers, subprotocol, extension)) = &outcome.opened else {
        assert_eq!(outcome.left, b"", "a client that has failed must consume its input");
        return;
    };
    let field = |name: &str| {
        assert!(headers.get_all(name).iter().count() <= 1, "{name} is repeated");
        headers.get(name).map(|value| value.to_str().expect("the client has verified the field"))
    };
    assert_eq!(field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert!(field("upgrade").is_some_and(|value| value.to_lowercase().contains("websocket")));
    assert_eq!(field("sec-websocket-protocol"), subprotocol.as_deref());
    assert!(subprotocol.as_deref().is_none_or(|name| ["chat", "superchat"].contains(&name)));
    assert!(extension.is_none() || settings.extension);
    assert!(extension.as_deref().is_none_or(|name| name == "toy" || name.starts_with("toy;")));
}
