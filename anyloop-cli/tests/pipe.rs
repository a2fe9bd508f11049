//! `anyloop pipe`, as a program that is run.

use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};

/// RFC 6455 §1.2: a request, and the key that answers it.
const REQUEST: &[u8] = b"GET /chat HTTP/1.1\r\n\
    Host: server.example.com\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// RFC 6455 §5.7: "Hello", masked; and a masked Close with 1000.
const HELLO: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
const CLOSE: &[u8] = b"\x88\x82\x00\x00\x00\x00\x03\xe8";

fn pipe(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_anyloop"))
        .arg("pipe")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

/// Gives the program its input in pieces of `size` bytes, ends it, and waits for its end.
fn fed(mut child: Child, input: &[u8], size: usize) -> Output {
    let mut stdin = child.stdin.take().expect("it is piped");
    for piece in input.chunks(size) {
        if stdin.write_all(piece).and_then(|()| stdin.flush()).is_err() {
            break; // it has ended already, as it should after a Close
        }
    }
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

/// The head of what was written, and what follows it.
fn split(output: &[u8]) -> (String, &[u8]) {
    let end = output.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a whole head") + 4;
    (String::from_utf8_lossy(&output[..end]).into_owned(), &output[end..])
}

#[test]
fn it_answers_a_handshake_and_echoes_however_the_bytes_come() {
    let input = [REQUEST, HELLO, HELLO, CLOSE].concat();
    for size in [1, 7, usize::MAX] {
        let output = fed(pipe(&[]), &input, size);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let (head, frames) = split(&output.stdout);
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        assert!(head.contains(ACCEPT), "{head}");
        assert_eq!(frames, b"\x81\x05Hello\x81\x05Hello\x88\x02\x03\xe8");
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn an_end_without_a_close_is_told() {
    let output = fed(pipe(&[]), &[REQUEST, HELLO].concat(), usize::MAX);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("peer: stream ended without a closing handshake"), "{said}");
    assert!(said.contains("after 1 messages"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_peer_that_breaks_the_rules_is_told_and_reported() {
    let output = fed(pipe(&[]), &[REQUEST, b"\x81\x05Hello"].concat(), usize::MAX);
    assert_eq!(output.status.code(), Some(1));
    let (_, frames) = split(&output.stdout);
    assert_eq!(frames[..4], [0x88, frames[1], 0x03, 0xea], "a Close with 1002");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("frame from a client is not masked"), "{said}");
}

#[test]
fn plain_http_is_answered_and_reported() {
    let output = fed(pipe(&[]), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", usize::MAX);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.starts_with(b"HTTP/1.1 426 Upgrade Required\r\n"));
}

#[test]
fn a_client_sends_its_request_and_echoes() {
    let mut child = pipe(&["--client", "ws://example.com:8080/chat?room=1"]);
    let mut stdout = child.stdout.take().expect("it is piped");
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stdout.read_exact(&mut byte).expect("a whole request");
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).expect("a request is ASCII");
    assert!(request.starts_with("GET /chat?room=1 HTTP/1.1\r\nHost: example.com:8080\r\n"));
    // Answered wrongly: it says so, and ends.
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    let output = fed(child, response.as_bytes(), usize::MAX);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Sec-WebSocket-Accept does not fit the key"), "{said}");
}

#[test]
fn wrong_calls_end_with_2() {
    for arguments in [&["--client", "http://example.com/"][..], &["--nonsense"], &["--client"]] {
        let output = fed(pipe(arguments), b"", 1);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
}
