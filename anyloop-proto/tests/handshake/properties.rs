//! Properties for any input: no panic, and one outcome that does not depend on how the input is divided
//! into reads.

use anyloop_proto::handshake::http::Response;
use anyloop_proto::handshake::{Accept, Target};
use anyloop_proto::{FirstBytes, HandshakeError, ResponseError, SendQueue, Shutdown};
use anyloop_testkit::requests::{SAMPLE_REQUEST, SAMPLE_RESPONSE};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::drive::{Served, answer, at, client, client_options, feed, server};

const POST: &str = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
    Expect: 100-continue\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: u\r\n\r\n";
const REFUSAL: &str = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n\
    5\r\nhello\r\n0\r\n\r\n";

/// Heads with a few bytes replaced, removed or duplicated, or random bytes.
fn mutated(originals: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let original = select(originals);
    let edit = (any::<prop::sample::Index>(), 0..3u8, any::<u8>());
    let edited = (original, vec(edit, 0..4)).prop_map(|(text, edits)| {
        let mut bytes = text.as_bytes().to_vec();
        for (index, kind, byte) in edits {
            let at = index.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, bytes[at]),
            }
        }
        bytes
    });
    prop_oneof![8 => edited, 1 => vec(any::<u8>(), 0..200)]
}

/// The result of `bytes` for a server: outcomes, output, bytes not consumed, body of the request.
fn served(bytes: &[u8], cuts: &[usize]) -> (Vec<Served>, String, Vec<u8>, Option<Vec<u8>>) {
    let mut server = server();
    let (mut outcomes, mut written, mut left) = (Vec::new(), String::new(), Vec::new());
    for part in cut(bytes, cuts) {
        let (served, out, rest) = feed(&mut server, part);
        match served {
            Served::Pending => {}
            Served::Refused(error) => outcomes.push(Served::Refused(undivided(error))),
            served => outcomes.push(served),
        }
        written += &out;
        left.extend_from_slice(&rest);
    }
    let body = server.request().map(|request| request.body().clone());
    (outcomes, written, left, body)
}

/// The error without how much of what is not HTTP had arrived.
fn undivided(error: HandshakeError) -> HandshakeError {
    match error {
        HandshakeError::NotHttp { peer, .. } => {
            HandshakeError::NotHttp { peer, first_bytes: FirstBytes::default() }
        }
        error => error,
    }
}

/// The result of bytes for a client: outcomes, bytes not consumed, body of a refusal.
type Answered = (Vec<Result<(), HandshakeError>>, Vec<u8>, Option<Vec<u8>>);

fn refusal(bytes: &[u8], cuts: &[usize]) -> Answered {
    let (mut client, _) = client(client_options());
    let (mut outcomes, mut left) = (Vec::new(), Vec::new());
    for part in cut(bytes, cuts) {
        let (outcome, rest) = answer(&mut client, part);
        match outcome {
            Ok(None) => {}
            Ok(Some(_)) => outcomes.push(Ok(())),
            Err(error) => outcomes.push(Err(undivided(error))),
        }
        left.extend_from_slice(&rest);
    }
    (outcomes, left, client.response().map(|response| response.body().clone()))
}

/// The content of chunks, and whether the last chunk was among them (RFC 9112 §7.1).
fn unchunked(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut content = Vec::new();
    while let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let (chunk, rest) = bytes[end + 2..].split_at(size);
        assert_eq!(&rest[..2], b"\r\n");
        if size == 0 {
            assert_eq!(rest.len(), 2, "nothing follows");
            return (content, true);
        }
        content.extend_from_slice(chunk);
        bytes = &rest[2..];
    }
    assert!(bytes.is_empty());
    (content, false)
}

/// `bytes` in parts of the given sizes, repeated.
fn cut<'b>(bytes: &'b [u8], sizes: &[usize]) -> Vec<&'b [u8]> {
    let mut rest = bytes;
    let mut parts = Vec::new();
    for &size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (part, next) = rest.split_at(size.min(rest.len()));
        parts.push(part);
        rest = next;
    }
    parts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_chunking_gives_a_server_the_same_result(
        bytes in mutated(&[SAMPLE_REQUEST, POST]),
        cuts in vec(1..40usize, 1..8),
    ) {
        let (mut whole, mut parts) = (served(&bytes, &[usize::MAX]), served(&bytes, &cuts));
        prop_assert!(whole.0.len() <= 1, "{whole:?}");
        // 100 (Continue) is sent only if no byte of the body has arrived.
        for written in [&mut whole.1, &mut parts.1] {
            *written = written.replace("HTTP/1.1 100 Continue\r\n\r\n", "");
        }
        prop_assert_eq!(whole, parts);
    }

    #[test]
    fn any_chunking_gives_a_client_the_same_result(
        bytes in mutated(&[SAMPLE_RESPONSE, REFUSAL]),
        cuts in vec(1..40usize, 1..8),
    ) {
        let whole = refusal(&bytes, &[usize::MAX]);
        prop_assert!(whole.0.len() <= 1, "{whole:?}");
        prop_assert_eq!(whole, refusal(&bytes, &cuts));
    }

    #[test]
    fn calls_in_any_order_do_not_panic_and_fail_once(
        bytes in mutated(&[SAMPLE_REQUEST, POST]),
        calls in vec((0..8u8, 0..20_000u64), 0..12),
    ) {
        let mut server = server();
        let mut out = Vec::new();
        let mut now = 0;
        let mut parts = bytes.chunks(bytes.len() / 3 + 1);
        let mut failures = 0;
        for (call, later) in calls {
            now += later;
            failures += usize::from(match call {
                0..=2 => {
                    let mut part = parts.next().unwrap_or_default().to_vec();
                    let mut input = anyloop_proto::Input::new(&mut part);
                    server.next(&mut input, at(now), &mut out).is_err()
                }
                3 => {
                    let _ = server.accept(Accept::new(), at(now), &mut out);
                    false
                }
                4 => server.handle_timeout(at(now), &mut out).is_err(),
                5 => server.handle_eof().is_err(),
                6 => server.handle_error(anyloop_proto::TransportError::Other).is_err(),
                _ => server.abandon(at(now), &mut out).is_some(),
            });
        }
        prop_assert!(failures <= 1);
        prop_assert_eq!(failures == 1, server.failure().is_some());
        prop_assert!(failures == 0 || server.shutdown() != Shutdown::None);
    }

    #[test]
    fn a_response_in_any_order_of_calls_is_framed_and_fails_once(
        request in select(&["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"]),
        length in option::of(0..60u64),
        calls in vec((0..10u8, 0..40usize), 0..16),
    ) {
        let mut server = server();
        let (mut out, mut body, mut now, mut failures) = (Vec::new(), Vec::new(), 0, 0);
        server.next(&mut anyloop_proto::Input::new(&mut request.as_bytes().to_vec()), at(0), &mut out).unwrap();
        prop_assert!(server.respond_head(&Response::new(()), length, at(0), &mut out).unwrap());
        let head = out.len();
        for (call, n) in calls {
            now += n as u64 * 500;
            failures += usize::from(match call {
                0..=3 => {
                    let (piece, responding) = (vec![b'x'; n], server.is_responding());
                    let sent = server.body_piece(&piece, &mut out);
                    if responding && sent.is_ok() {
                        body.extend(piece);
                    }
                    sent.is_err()
                }
                4 => server.end_body(at(now), &mut out).is_err(),
                5 => {
                    server.handle_written(n, at(now));
                    false
                }
                6 => {
                    let queue = SendQueue { acknowledged: n as u64, waiting: n };
                    server.note_send_queue(|| Some(queue), at(now));
                    server.handle_timeout(at(now), &mut out).is_err()
                }
                7 => server.handle_eof().is_err(),
                8 if n > 30 => server.handle_error(anyloop_proto::TransportError::Other).is_err(),
                9 if n > 30 => server.fail_body(ResponseError::Unreadable).is_some(),
                _ => server.abandon(at(now), &mut out).is_some(),
            });
        }
        prop_assert!(failures <= 1);
        prop_assert_eq!(failures == 1, server.failure().is_some());
        prop_assert!(failures == 0 || server.shutdown() == Shutdown::Abort);
        let complete = matches!(server.shutdown(), Shutdown::HalfClose | Shutdown::Close);
        let sent = &out[head..];
        match length {
            None if request.contains("1.1") => {
                let (decoded, ended) = unchunked(sent);
                prop_assert_eq!(decoded, body);
                prop_assert!(ended || !complete);
                prop_assert!(!ended || !server.is_responding());
            }
            _ => {
                prop_assert_eq!(sent, &body[..]);
                prop_assert!(!complete || length.is_none_or(|length| length == body.len() as u64));
            }
        }
    }

    #[test]
    fn a_target_that_parses_makes_a_valid_request(uri in "(ws|wss)://[ -~]{0,40}") {
        if let Ok(target) = uri.parse::<Target>() {
            let mut out = Vec::new();
            let options = std::sync::Arc::new(client_options());
            let client = anyloop_proto::handshake::ClientHandshake::new(&target, options, at(0), &mut out);
            prop_assert!(client.is_ok());
            prop_assert_eq!(out.windows(2).filter(|pair| pair == b"\r\n").count(),
                7 + usize::from(target.authorization().is_some()));
            let again: Target = target.to_string().parse().unwrap();
            prop_assert_eq!(again.to_string(), target.to_string());
        }
    }
}
