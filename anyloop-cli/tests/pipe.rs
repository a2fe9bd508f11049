//! `anyloop pipe`, as a program that is run.

use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};

use anyloop_testkit::requests::{self, ACCEPT};

const REQUEST: &[u8] = requests::REQUEST.as_bytes();

/// RFC 6455 §5.7: "Hello", masked; and a masked Close with 1000.
const HELLO: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
const CLOSE: &[u8] = b"\x88\x82\x00\x00\x00\x00\x03\xe8";

fn pipe(arguments: &[&str]) -> Child {
    pipe_over(arguments, Stdio::piped(), Stdio::piped())
}

/// The same over this input and output.
fn pipe_over(arguments: &[&str], input: impl Into<Stdio>, output: impl Into<Stdio>) -> Child {
    Command::new(env!("CARGO_BIN_EXE_anyloop"))
        .arg("pipe")
        .args(arguments)
        .stdin(input)
        .stdout(output)
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

/// Other programs that share a descriptor set `O_NONBLOCK` on it, Node and SSH among them.
#[cfg(unix)]
mod without_blocking {
    use std::fs::File;
    use std::os::fd::OwnedFd;
    use std::thread;

    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    use rustix::io::{FdFlags, fcntl_setfd};
    use rustix::pipe::pipe as new_pipe;

    use super::*;

    /// A pipe of which one end, or the other, does not block. No program inherits an end that it is not
    /// given.
    fn unblocked(reader: bool, writer: bool) -> (OwnedFd, OwnedFd) {
        let ends = new_pipe().expect("there are descriptors");
        for (end, wanted) in [(&ends.0, reader), (&ends.1, writer)] {
            fcntl_setfd(end, FdFlags::CLOEXEC).expect("it is open");
            if wanted {
                fcntl_setfl(end, OFlags::NONBLOCK).expect("it is a pipe");
            }
        }
        ends
    }

    fn blocks(end: &OwnedFd) -> bool {
        !fcntl_getfl(end).expect("it is open").contains(OFlags::NONBLOCK)
    }

    /// A frame of a client, masked with zeros.
    fn binary(payload: &[u8]) -> Vec<u8> {
        let len = (payload.len() as u64).to_be_bytes();
        [b"\x82\xff", &len[..], &[0; 4], payload].concat()
    }

    #[test]
    fn all_is_written_though_the_output_does_not_block() {
        let message: Vec<u8> = (0..1 << 20).map(|i| (i % 251) as u8).collect();
        let input = [REQUEST, &binary(&message), CLOSE].concat();
        let (reader, writer) = unblocked(false, true);
        let mut kept = writer.try_clone().ok();
        let child = pipe_over(&[], Stdio::piped(), writer);
        // All of the input is there before anything is read.
        let ended = thread::spawn(move || fed(child, &input, usize::MAX));
        let mut written = Vec::new();
        let mut reader = File::from(reader);
        let mut piece = [0; 5000];
        // The head tells that it has begun; the rest comes in pieces smaller than the pipe holds.
        while !written.ends_with(b"\x88\x02\x03\xe8") {
            let n = reader.read(&mut piece).expect("it can be read");
            assert!(n > 0, "it ended after {} bytes", written.len());
            written.extend_from_slice(&piece[..n]);
            // It would keep the pipe from ending with the program.
            if let Some(kept) = kept.take() {
                assert!(!blocks(&kept), "the flag is others' as well");
            }
        }
        let output = ended.join().expect("no panic");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let (_, frames) = split(&written);
        assert_eq!(frames[..2], [0x82, 127]);
        assert!(frames[10..10 + message.len()] == message);
    }

    #[test]
    fn output_that_fails_ends_it_with_1() {
        let (reader, writer) = unblocked(false, true);
        drop(reader);
        let output = fed(pipe_over(&[], Stdio::piped(), writer), REQUEST, usize::MAX);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.starts_with("anyloop: ") && said.lines().count() == 1, "{said}");
    }

    #[test]
    fn input_that_does_not_block_is_waited_for() {
        let (reader, writer) = unblocked(true, false);
        let kept = reader.try_clone().expect("there are descriptors");
        let mut child = pipe_over(&[], reader, Stdio::piped());
        let mut stdout = child.stdout.take().expect("it is piped");
        let mut writer = File::from(writer);
        // Each answer shows that it has taken all there was, and found nothing more.
        for (piece, end) in [(REQUEST, &b"\r\n\r\n"[..]), (HELLO, b"Hello"), (CLOSE, b"\x03\xe8")] {
            writer.write_all(piece).expect("it reads");
            let mut answer = Vec::new();
            while !answer.ends_with(end) {
                let mut byte = [0];
                stdout.read_exact(&mut byte).expect("it answers");
                answer.push(byte[0]);
            }
        }
        assert!(!blocks(&kept), "the flag is others' as well");
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }

    /// The status is not to become that of a panic.
    #[test]
    #[cfg(target_os = "linux")]
    fn it_ends_with_its_status_though_standard_error_fails() {
        let full = File::options().write(true).open("/dev/full").expect("Linux has it");
        let mut command = Command::new(env!("CARGO_BIN_EXE_anyloop"));
        command.arg("pipe").stdin(Stdio::null()).stdout(Stdio::null()).stderr(full);
        assert_eq!(command.status().expect("it starts").code(), Some(1));
    }
}
