//! Negotiation of extensions (RFC 6455 §9.1).

use std::sync::{Arc, Mutex};

use anyloop_proto::extension::{Contexts, Decoder, Encoder, Part};
use anyloop_proto::frame::Rsv;
use anyloop_proto::handshake::{
    Accept, AnswerError, ClientHandshake, Codec, Negotiator, Params, RequestError, ServerHandshake,
};
use anyloop_proto::{ExtensionError, Field, HandshakeError, Kind};
use anyloop_testkit::requests::{SAMPLE_RESPONSE, replaced};

use crate::drive::{
    Served, answer, at, client, client_options, feed, refused, sample_with, serve, server_options,
};

const FIELD: Field = Field::SecWebSocketExtensions;

/// An extension that leaves messages unchanged.
struct Idle;

impl Decoder for Idle {
    fn claims(&self) -> Rsv {
        Rsv::RSV1
    }

    fn decode(
        &mut self,
        part: Part<'_>,
        _: usize,
        out: &mut Vec<u8>,
        _: &mut Contexts,
    ) -> Result<(), ExtensionError> {
        out.extend_from_slice(part.payload);
        Ok(())
    }
}

impl Encoder for Idle {
    fn begin(&mut self, _: Kind, _: Option<usize>) -> Option<Rsv> {
        None
    }

    fn encode(&mut self, payload: &[u8], _: bool, out: &mut Vec<u8>, _: &mut Contexts) {
        out.extend_from_slice(payload);
    }
}

/// Accepts offers with a parameter `yes`, and records all offers.
struct RequiresYes {
    name: &'static str,
    answer: Params,
    seen: Mutex<Vec<Params>>,
}

impl RequiresYes {
    fn new(name: &'static str, answer: Params) -> Arc<Self> {
        Arc::new(Self { name, answer, seen: Mutex::default() })
    }
}

impl Negotiator for RequiresYes {
    fn name(&self) -> &str {
        self.name
    }

    fn offer(&self) -> Vec<Params> {
        vec![self.answer.clone(), Params::new()]
    }

    fn accept(&self, offer: &Params) -> Option<(Params, Codec)> {
        self.seen.lock().unwrap().push(offer.clone());
        let yes = offer.iter().any(|(name, _)| name == "yes");
        let codec = Codec { decoder: Box::new(Idle), encoder: Box::new(Idle) };
        yes.then(|| (self.answer.clone(), codec))
    }

    fn confirm(&self, answer: &Params) -> Result<Codec, HandshakeError> {
        self.accept(answer).map(|(_, codec)| codec).ok_or(HandshakeError::Invalid(FIELD))
    }
}

fn server(extensions: Vec<Arc<dyn Negotiator>>) -> ServerHandshake {
    let mut options = server_options();
    options.extensions = extensions;
    ServerHandshake::new(Arc::new(options), at(0))
}

/// The negotiated extension, and the offers that the negotiator `x` has received, for a request with
/// these lines.
fn negotiated(lines: &str) -> (Option<String>, Vec<Params>) {
    let negotiator = RequiresYes::new("x", Params::new().with("a").with_value("b", 10));
    let mut server = server(vec![negotiator.clone()]);
    assert_eq!(feed(&mut server, sample_with(lines).as_bytes()).0, Served::Upgrade, "{lines}");
    let mut out = Vec::new();
    let opened = server.accept(Accept::new(), at(0), &mut out).unwrap();
    let response = String::from_utf8(out).unwrap();
    match &opened.extension {
        Some(extension) => {
            let line = format!("\r\nSec-WebSocket-Extensions: {extension}\r\n");
            assert!(response.contains(&line), "{response}");
            assert_eq!(opened.response.headers()["sec-websocket-extensions"], extension.as_str());
        }
        None => assert!(!response.contains("Extensions"), "{response}"),
    }
    let seen = negotiator.seen.lock().unwrap().clone();
    (opened.extension, seen)
}

#[test]
fn the_first_offer_that_is_accepted_wins() {
    let agreed = Some("x; a; b=10".to_owned());
    assert_eq!(negotiated(""), (None, vec![]));
    assert_eq!(negotiated("Sec-WebSocket-Extensions: y; yes, X; yes\r\n"), (None, vec![]));
    assert_eq!(negotiated("Sec-WebSocket-Extensions: x\r\n"), (None, vec![Params::new()]));
    let (extension, seen) = negotiated(
        "Sec-WebSocket-Extensions: y, x; no\r\nSec-WebSocket-Extensions: x; yes, x; yes; later\r\n",
    );
    assert_eq!(extension, agreed);
    assert_eq!(
        seen,
        [Params::new().with("no"), Params::new().with("yes")],
        "offers after an accepted one are not passed to the negotiator"
    );
}

#[test]
fn the_client_decides_among_several_extensions() {
    let (x, y) = (RequiresYes::new("x", Params::new()), RequiresYes::new("y", Params::new()));
    let mut server = server(vec![x, y]);
    let lines = "Sec-WebSocket-Extensions: y; yes, x; yes\r\n";
    assert_eq!(feed(&mut server, sample_with(lines).as_bytes()).0, Served::Upgrade);
    let opened = server.accept(Accept::new(), at(0), &mut Vec::new()).unwrap();
    assert_eq!(opened.extension.as_deref(), Some("y"));
}

#[test]
fn rfc6455_9_1_parameters_are_passed_unchanged() {
    let line = "Sec-WebSocket-Extensions: , x ;yes ; a = 1;a=\"2\" ;b=\"\\3\\4\";\ta=\"x\" ,,\r\n";
    let (extension, seen) = negotiated(line);
    assert_eq!(extension.as_deref(), Some("x; a; b=10"));
    let params: Vec<_> = seen[0].iter().collect();
    let expected =
        [("yes", None), ("a", Some("1")), ("a", Some("2")), ("b", Some("34")), ("a", Some("x"))];
    assert_eq!(params, expected);
    assert_eq!((seen[0].len(), seen[0].is_empty()), (5, false));
}

#[test]
fn rfc6455_9_1_malformed_extensions_are_400() {
    for bad in [
        ";",
        "x;",
        "x;;a",
        "x; a=",
        "x; =1",
        "x y",
        "x; a b",
        "x; a=1 2",
        "x; a=\"1",
        "x; a=\"\"",
        "x; a=\"b c\"",
        "x; a=\"b;c\"",
        "x; a=\"b,c\"",
        "x; a=\"1\"2",
        "x; a=\"\\\"",
        "x=1",
        "\"x\"",
        "x; a='b c'",
        "x; \u{e9}",
        "x, ;a",
        "x; a=\"\u{e9}\"",
        "(x)",
    ] {
        let line = format!("Sec-WebSocket-Extensions: {bad}\r\n");
        let (status, error, _) = refused(sample_with(&line));
        assert_eq!((status, error), (400, HandshakeError::Invalid(FIELD)), "{bad:?}");
    }
    assert_eq!(serve(sample_with("Sec-WebSocket-Extensions: x; a='b'\r\n")), Served::Upgrade);
}

#[test]
fn an_answer_that_is_not_made_of_tokens_is_not_sent() {
    for answer in [
        Params::new().with("a b"),
        Params::new().with(""),
        Params::new().with_value("a", "1\r\nX: y"),
        Params::new().with_value("a", ""),
    ] {
        let mut server = server(vec![RequiresYes::new("x", answer.clone())]);
        feed(&mut server, sample_with("Sec-WebSocket-Extensions: x; yes\r\n").as_bytes());
        let mut out = Vec::new();
        let error = server.accept(Accept::new(), at(0), &mut out).unwrap_err();
        assert_eq!(error, AnswerError::InvalidExtension("x".into()));
        assert_eq!(out, b"");

        let mut options = client_options();
        options.extensions = vec![RequiresYes::new("x", answer)];
        let target = "ws://a".parse().unwrap();
        let error = ClientHandshake::new(&target, Arc::new(options), at(0), &mut out).err();
        assert_eq!(error, Some(RequestError::InvalidExtension("x".into())));
        assert_eq!(out, b"");
    }
}

/// The extension that a client which offers `x` and `y` reads from a response with these lines.
fn confirmed(lines: &str) -> Result<Option<String>, HandshakeError> {
    let mut options = client_options();
    let params = Params::new().with("yes").with_value("bits", 9);
    options.extensions = vec![RequiresYes::new("x", params), RequiresYes::new("y", Params::new())];
    let (mut client, request) = client(options);
    let line = "\r\nSec-WebSocket-Extensions: x; yes; bits=9, x, y, y\r\n";
    assert!(request.contains(line), "{request}");
    let response = replaced(SAMPLE_RESPONSE, "Sec-WebSocket-Protocol: chat\r\n", lines);
    let (outcome, _) = answer(&mut client, response.as_bytes());
    outcome.map(|opened| opened.unwrap().extension)
}

#[test]
fn rfc6455_4_1_5_the_client_accepts_only_offered_extensions() {
    let invalid = Err(HandshakeError::Invalid(FIELD));
    assert_eq!(confirmed(""), Ok(None));
    let line = |answer: &str| confirmed(&format!("Sec-WebSocket-Extensions: {answer}\r\n"));
    assert_eq!(line("x; yes; a=\"b\""), Ok(Some("x; yes; a=b".into())));
    for empty in ["", " ", ",", ", ,"] {
        assert_eq!(line(empty), Ok(None), "{empty:?} is an empty list (RFC 9110 §5.6.1)");
    }
    assert_eq!(line(", x; yes,, "), Ok(Some("x; yes".into())));
    assert_eq!(line("y;yes"), Ok(Some("y; yes".into())));
    assert_eq!(line("x"), invalid, "the negotiator refuses the parameters");
    for bad in ["z; yes", "X; yes", "x; yes;", "x; yes=", "x yes"] {
        assert_eq!(line(bad), invalid, "{bad:?}");
    }
    assert_eq!(line("x; yes, x; yes"), Err(HandshakeError::Duplicate(FIELD)));
    assert_eq!(line("x; yes, y; yes"), Err(HandshakeError::Unsupported(FIELD)));
    let twice = "Sec-WebSocket-Extensions: x; yes\r\n".repeat(2);
    assert_eq!(confirmed(&twice), Err(HandshakeError::Duplicate(FIELD)));
}
