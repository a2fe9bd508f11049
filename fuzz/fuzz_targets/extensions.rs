//! Any Sec-WebSocket-Extensions and Sec-WebSocket-Protocol fields in a request and a response that are
//! otherwise valid.
//!
//! Asserts:
//!
//! - A negotiator of the server gets the same offers as an independent parser of the grammar (RFC 6455 §9.1) finds.
//! - Subprotocols are reported unchanged. The request is refused if one is invalid or repeated.
//! - An offer or answer is either refused when it is sent, or the other side reads the same values.
//! - A client does not open with an extension or subprotocol that it did not offer.
#![no_main]

use std::sync::{Arc, Mutex};

use anyloop_fuzz::{START, config, toy};
use anyloop_proto::handshake::{
    Accept, ClientHandshake, ClientOptions, Codec, Incoming, Negotiator, OriginPolicy, Params,
    ServerHandshake, ServerOptions, Target,
};
use anyloop_proto::{Cause, Field, HandshakeError, Input};
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Case {
    /// A request of an arbitrary client, with these field values.
    Request { extensions: Vec<Line>, subprotocols: Vec<Line> },
    /// A response of an arbitrary server, with these field values.
    Response { extensions: Vec<Line>, subprotocols: Vec<Line> },
    /// A client and a server of this library, whose extensions offer and answer arbitrary parameters.
    Agreement { offers: Vec<Pairs>, answer: Pairs, subprotocols: Vec<String>, chosen: u8 },
}

/// A field value, of any bytes that HTTP allows.
type Line = Vec<u8>;

type Pairs = Vec<(String, Option<String>)>;

/// Answers as configured, and records the offers and answers that it gets.
#[derive(Default)]
struct Recorder {
    offers: Vec<Pairs>,
    answer: Option<Pairs>,
    seen: Mutex<Vec<Pairs>>,
}

impl Recorder {
    fn see(&self, params: &Params) {
        let pairs = params.iter().map(|(name, value)| (name.into(), value.map(Into::into)));
        self.seen.lock().expect("no panic").push(pairs.collect());
    }

    fn seen(&self) -> Vec<Pairs> {
        self.seen.lock().expect("no panic").clone()
    }
}

impl Negotiator for Recorder {
    fn name(&self) -> &str {
        "toy"
    }

    fn offer(&self) -> Vec<Params> {
        self.offers.iter().map(params).collect()
    }

    fn accept(&self, offer: &Params) -> Option<(Params, Codec)> {
        self.see(offer);
        self.answer.as_ref().map(|answer| (params(answer), toy::codec()))
    }

    fn confirm(&self, answer: &Params) -> Result<Codec, HandshakeError> {
        self.see(answer);
        Ok(toy::codec())
    }
}

fn params(pairs: &Pairs) -> Params {
    pairs.iter().fold(Params::new(), |params, (name, value)| match value {
        Some(value) => params.with_value(name, value),
        None => params.with(name),
    })
}

fuzz_target!(|case: Case| {
    match case {
        Case::Request { mut extensions, mut subprotocols } => {
            clean(&mut extensions);
            clean(&mut subprotocols);
            request(&extensions, &subprotocols);
        }
        Case::Response { mut extensions, mut subprotocols } => {
            clean(&mut extensions);
            clean(&mut subprotocols);
            response(&extensions, &subprotocols);
        }
        Case::Agreement { offers, answer, subprotocols, chosen } => {
            agreement(offers, answer, subprotocols, chosen);
        }
    }
});

/// Makes valid field values of arbitrary bytes: removes bytes that HTTP does not allow, and spaces at both
/// ends, which a parser removes.
fn clean(lines: &mut Vec<Line>) {
    lines.truncate(20);
    for line in lines {
        line.retain(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..));
        *line = line.trim_ascii().to_vec();
    }
}

const REQUEST: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
const RESPONSE: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

fn head(start: &str, extensions: &[Line], subprotocols: &[Line]) -> Vec<u8> {
    let mut head = start.as_bytes().to_vec();
    let names = ["Sec-WebSocket-Extensions: ", "Sec-WebSocket-Protocol: "];
    for (name, lines) in names.into_iter().zip([extensions, subprotocols]) {
        for line in lines {
            head.extend([name.as_bytes(), line, b"\r\n"].concat());
        }
    }
    head.extend(b"\r\n");
    head
}

fn request(extensions: &[Line], subprotocols: &[Line]) {
    let recorder = Arc::new(Recorder::default());
    let mut options = ServerOptions::new(OriginPolicy::Any);
    options.connection = config(|_| ());
    options.max_head_size = usize::MAX;
    options.extensions.push(recorder.clone());
    let mut handshake = ServerHandshake::new(Arc::new(options), START);
    let mut bytes = head(REQUEST, extensions, subprotocols);
    let mut out = Vec::new();
    let outcome = match handshake.next(&mut Input::new(&mut bytes), START, &mut out) {
        Ok(Some(Incoming::Upgrade(request))) => Ok(request.subprotocols().to_vec()),
        Ok(other) => panic!("expected a complete WebSocket request, not {other:?}"),
        Err(failure) => Err(failure.cause()),
    };
    let expected = tokens(subprotocols).map_err(Cause::Handshake).and_then(|names| {
        let invalid = HandshakeError::Invalid(Field::SecWebSocketExtensions);
        reference(extensions).ok_or(Cause::Handshake(invalid)).map(|_| names)
    });
    assert_eq!(outcome, expected);
    let Ok(names) = outcome else { return };

    let mut accept = Accept::new();
    accept.subprotocol = names.first().cloned();
    let opened = handshake.accept(accept, START, &mut out).expect("the request can be accepted");
    assert_eq!(opened.extension, None, "all offers are declined");
    let offers = reference(extensions)
        .expect("the request was accepted, so its offers are valid")
        .into_iter();
    let offers: Vec<Pairs> =
        offers.filter(|(name, _)| name == "toy").map(|(_, pairs)| pairs).collect();
    assert_eq!(recorder.seen(), offers);
}

fn response(extensions: &[Line], subprotocols: &[Line]) {
    let recorder = Arc::new(Recorder { offers: vec![Vec::new()], ..Recorder::default() });
    let mut options = ClientOptions::default();
    options.connection = config(|_| ());
    options.max_head_size = usize::MAX;
    options.subprotocols = vec!["chat".into(), "superchat".into()];
    options.extensions.push(recorder.clone());
    let target: Target = "ws://a/".parse().expect("the target is valid");
    let mut out = Vec::new();
    let client = ClientHandshake::new(&target, Arc::new(options), START, &mut out);
    let mut client = client.expect("the options are valid");
    let mut bytes = head(RESPONSE, extensions, subprotocols);
    let result = client.next(&mut Input::new(&mut bytes), START, &mut out);

    let subprotocol = match subprotocols {
        [] => Some(None),
        [one] if one == b"chat" || one == b"superchat" => Some(Some(one.clone())),
        _ => None,
    };
    let extension = match reference(extensions).as_deref() {
        Some([]) => Some(None),
        Some([(name, pairs)]) if name == "toy" => Some(Some(pairs.clone())),
        _ => None,
    };
    match (result, subprotocol, extension) {
        (Ok(opened), Some(subprotocol), Some(extension)) => {
            let opened = opened.expect("the response is complete");
            assert_eq!(opened.subprotocol.map(String::into_bytes), subprotocol);
            assert_eq!(opened.extension.is_some(), extension.is_some());
            assert_eq!(recorder.seen(), Vec::from_iter(extension));
        }
        (Err(_), subprotocol, extension) => {
            assert!(subprotocol.is_none() || extension.is_none(), "a valid response was refused");
        }
        (Ok(opened), ..) => panic!("opened: {opened:?}"),
    }
}

fn agreement(offers: Vec<Pairs>, answer: Pairs, subprotocols: Vec<String>, chosen: u8) {
    let offering = Arc::new(Recorder { offers: offers.clone(), ..Recorder::default() });
    let mut options = ClientOptions::default();
    options.connection = config(|_| ());
    options.subprotocols = subprotocols.clone();
    options.extensions.push(offering.clone());
    let target: Target = "ws://a/".parse().expect("the target is valid");
    let mut out = Vec::new();
    let valid = offers.iter().all(are_tokens);
    let client = ClientHandshake::new(&target, Arc::new(options), START, &mut out);
    let Ok(mut client) = client else {
        assert_eq!(out, b"", "an invalid request must not be sent");
        let mut sorted = subprotocols.clone();
        sorted.sort();
        sorted.dedup();
        let one_each = sorted.len() == subprotocols.len();
        assert!(!valid || !one_each || !subprotocols.iter().all(|name| is_token(name)));
        return;
    };
    assert!(valid, "{offers:?}");

    let accepting = Arc::new(Recorder { answer: Some(answer.clone()), ..Recorder::default() });
    let mut options = ServerOptions::new(OriginPolicy::Any);
    options.connection = config(|_| ());
    options.max_head_size = usize::MAX;
    options.extensions.push(accepting.clone());
    let mut server = ServerHandshake::new(Arc::new(options), START);
    let mut back = Vec::new();
    match server.next(&mut Input::new(&mut out), START, &mut back) {
        Ok(Some(Incoming::Upgrade(request))) => assert_eq!(request.subprotocols(), subprotocols),
        other => panic!("{other:?}"),
    }
    let mut accept = Accept::new();
    accept.subprotocol = subprotocols.get(usize::from(chosen)).cloned();
    let accepted = server.accept(accept.clone(), START, &mut back);
    assert_eq!(accepting.seen(), Vec::from_iter(offers.first().cloned()));
    let Ok(accepted) = accepted else {
        assert!(!offers.is_empty() && !are_tokens(&answer), "{accepted:?}");
        assert_eq!(back, b"", "an invalid answer must not be sent");
        return;
    };
    let opened = client.next(&mut Input::new(&mut back), START, &mut out);
    let opened = opened.expect("the response is valid").expect("the response is complete");
    assert_eq!(opened.subprotocol, accept.subprotocol);
    assert_eq!(opened.extension, accepted.extension);
    assert_eq!(opened.response.headers().len(), accepted.response.headers().len());
    assert_eq!(offering.seen(), Vec::from_iter(offers.first().map(|_| answer)));
}

fn are_tokens(pairs: &Pairs) -> bool {
    let value = |value: &Option<String>| value.as_ref().is_none_or(|value| is_token(value));
    pairs.iter().all(|(name, given)| is_token(name) && value(given))
}

fn is_token(text: &str) -> bool {
    const OTHERS: &str = "!#$%&'*+-.^_`|~";
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || OTHERS.contains(c))
}

/// RFC 6455 §11.3.4: `1#token`, without duplicates.
fn tokens(lines: &[Line]) -> Result<Vec<String>, HandshakeError> {
    const FIELD: Field = Field::SecWebSocketProtocol;
    let mut all = Vec::new();
    for line in lines {
        for element in line.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            match str::from_utf8(element) {
                Ok("") => {}
                Ok(text) if is_token(text) => all.push(text.to_string()),
                _ => return Err(HandshakeError::Invalid(FIELD)),
            }
        }
    }
    if all.is_empty() && !lines.is_empty() {
        return Err(HandshakeError::Invalid(FIELD));
    }
    let mut sorted = all.clone();
    sorted.sort();
    sorted.dedup();
    if sorted.len() == all.len() { Ok(all) } else { Err(HandshakeError::Duplicate(FIELD)) }
}

/// RFC 6455 §9.1: `1#extension`. Splits at commas, then semicolons, then the first equals sign, outside
/// of quoted strings.
fn reference(lines: &[Line]) -> Option<Vec<(String, Pairs)>> {
    let mut all = Vec::new();
    for line in lines {
        for element in outside_quotes(line, b',')? {
            let mut parts = outside_quotes(element, b';')?.into_iter();
            let name = parts.next()?.trim_ascii();
            if name.is_empty() && parts.len() == 0 {
                continue;
            }
            let pairs = parts.map(pair).collect::<Option<Pairs>>()?;
            all.push((token(name)?, pairs));
        }
    }
    (lines.is_empty() || !all.is_empty()).then_some(all)
}

fn pair(part: &[u8]) -> Option<(String, Option<String>)> {
    let Some(at) = part.iter().position(|&byte| byte == b'=') else {
        return Some((token(part)?, None));
    };
    let value = part[at + 1..].trim_ascii();
    let value = match value {
        [b'"', inner @ .., b'"'] => {
            let (mut plain, mut bytes) = (Vec::new(), inner.iter());
            while let Some(&byte) = bytes.next() {
                plain.push(if byte == b'\\' { *bytes.next()? } else { byte });
            }
            exact_token(&plain)?
        }
        value => exact_token(value)?,
    };
    Some((token(&part[..at])?, Some(value)))
}

fn token(text: &[u8]) -> Option<String> {
    exact_token(text.trim_ascii())
}

fn exact_token(text: &[u8]) -> Option<String> {
    str::from_utf8(text).ok().filter(|text| is_token(text)).map(Into::into)
}

/// Splits at `separator` outside of quoted strings. `None` if a quoted string does not end.
fn outside_quotes(text: &[u8], separator: u8) -> Option<Vec<&[u8]>> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    (!quoted).then_some(parts)
}
