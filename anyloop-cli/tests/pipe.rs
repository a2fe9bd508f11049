//! Runs the program `anyloop pipe`.

use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};

use anyloop_testkit::requests::{self, ACCEPT};

const REQUEST: &[u8] = requests::REQUEST.as_bytes();

/// RFC 6455 §5.7: "Hello", masked. And a masked Close with code 1000.
const HELLO: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
const CLOSE: &[u8] = b"\x88\x82\x00\x00\x00\x00\x03\xe8";

fn pipe(arguments: &[&str]) -> Child {
    pipe_over(arguments, Stdio::piped(), Stdio::piped())
}

/// Starts the program with this standard input and output.
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

/// Writes the input of the program in pieces of `size` bytes, closes it, and waits for the program to end.
fn run_with_input(mut child: Child, input: &[u8], size: usize) -> Output {
    let mut stdin = child.stdin.take().expect("the stream is a pipe");
    for piece in input.chunks(size) {
        if stdin.write_all(piece).and_then(|()| stdin.flush()).is_err() {
            break; // the program has ended, for example after a Close
        }
    }
    drop(stdin);
    child.wait_with_output().expect("the program ends")
}

/// Splits the output into the head and the bytes after it.
fn split(output: &[u8]) -> (String, &[u8]) {
    let end =
        output.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("the head is complete") + 4;
    (String::from_utf8_lossy(&output[..end]).into_owned(), &output[end..])
}

#[test]
fn it_answers_a_handshake_and_echoes_at_any_division_of_the_input() {
    let input = [REQUEST, HELLO, HELLO, CLOSE].concat();
    for size in [1, 7, usize::MAX] {
        let output = run_with_input(pipe(&[]), &input, size);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let (head, frames) = split(&output.stdout);
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        assert!(head.contains(ACCEPT), "{head}");
        assert_eq!(frames, b"\x81\x05Hello\x81\x05Hello\x88\x02\x03\xe8");
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn an_end_without_a_close_is_reported() {
    let output = run_with_input(pipe(&[]), &[REQUEST, HELLO].concat(), usize::MAX);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("peer: stream ended without a closing handshake"), "{errors}");
    assert!(errors.contains("after 1 message"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

#[test]
fn a_protocol_error_is_sent_to_the_peer_and_reported() {
    let output = run_with_input(pipe(&[]), &[REQUEST, b"\x81\x05Hello"].concat(), usize::MAX);
    assert_eq!(output.status.code(), Some(1));
    let (_, frames) = split(&output.stdout);
    assert_eq!(frames[..4], [0x88, frames[1], 0x03, 0xea], "a Close with 1002");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("frame from a client is not masked"), "{errors}");
}

#[test]
fn plain_http_is_answered_and_reported() {
    let output = run_with_input(pipe(&[]), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", usize::MAX);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.starts_with(b"HTTP/1.1 426 Upgrade Required\r\n"));
}

#[test]
fn a_refusal_is_reported_with_its_body() {
    let response = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 7\r\n\r\nno \x1b[2J";
    let output = run_with_input(pipe(&["--client", "ws://a/"]), response, usize::MAX);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors, "anyloop: the server refused: 400 Bad Request: no \\u{1b}[2J\n");
}

#[test]
fn a_client_sends_its_request_and_echoes() {
    let mut child = pipe(&["--client", "ws://example.com:8080/chat?room=1"]);
    let mut stdout = child.stdout.take().expect("the stream is a pipe");
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stdout.read_exact(&mut byte).expect("the request is complete");
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).expect("the request is UTF-8");
    assert!(request.starts_with("GET /chat?room=1 HTTP/1.1\r\nHost: example.com:8080\r\n"));
    // The accept value is wrong: the program reports that and ends.
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    let output = run_with_input(child, response.as_bytes(), usize::MAX);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("Sec-WebSocket-Accept does not fit the key"), "{errors}");
}

#[test]
fn invalid_arguments_exit_with_2() {
    for arguments in [&["--client", "http://example.com/"][..], &["--nonsense"], &["--client"]] {
        let output = run_with_input(pipe(arguments), b"", 1);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
}

/// Standard streams that are non-blocking, since another program that shares the descriptor has set
/// `O_NONBLOCK`, as Node and SSH do.
#[cfg(unix)]
mod without_blocking {
    use std::fs::File;
    use std::os::fd::OwnedFd;
    use std::thread;

    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    use rustix::io::{FdFlags, fcntl_setfd};
    use rustix::pipe::pipe as new_pipe;

    use super::*;

    /// A pipe whose ends are non-blocking if `reader` or `writer`. They are close-on-exec, so a program inherits only
    /// the end that it is given.
    fn unblocked(reader: bool, writer: bool) -> (OwnedFd, OwnedFd) {
        let ends = new_pipe().expect("the process has a file descriptor left");
        for (end, wanted) in [(&ends.0, reader), (&ends.1, writer)] {
            fcntl_setfd(end, FdFlags::CLOEXEC).expect("the descriptor is open");
            if wanted {
                fcntl_setfl(end, OFlags::NONBLOCK).expect("the mode of a pipe can be set");
            }
        }
        ends
    }

    fn blocks(end: &OwnedFd) -> bool {
        !fcntl_getfl(end).expect("the descriptor is open").contains(OFlags::NONBLOCK)
    }

    /// A frame of a client, masked with the key 0.
    fn binary(payload: &[u8]) -> Vec<u8> {
        let len = (payload.len() as u64).to_be_bytes();
        [b"\x82\xff", &len[..], &[0; 4], payload].concat()
    }

    #[test]
    fn all_output_is_written_to_a_non_blocking_pipe() {
        let message: Vec<u8> = (0..1 << 20).map(|i| (i % 251) as u8).collect();
        let input = [REQUEST, &binary(&message), CLOSE].concat();
        let (reader, writer) = unblocked(false, true);
        let mut kept = writer.try_clone().ok();
        let child = pipe_over(&[], Stdio::piped(), writer);
        // All input is written while the output is read slowly.
        let ended = thread::spawn(move || run_with_input(child, &input, usize::MAX));
        let mut written = Vec::new();
        let mut reader = File::from(reader);
        let mut piece = [0; 5000];
        // The first read shows that the program has started. Each read is smaller than the buffer of the pipe.
        while !written.ends_with(b"\x88\x02\x03\xe8") {
            let n = reader.read(&mut piece).expect("the output can be read");
            assert!(n > 0, "the output ended after {} bytes", written.len());
            written.extend_from_slice(&piece[..n]);
            // Dropped here, since otherwise the pipe stays open after the program has ended.
            if let Some(kept) = kept.take() {
                assert!(!blocks(&kept), "the program must not change a flag that others share");
            }
        }
        let output = ended.join().expect("the thread does not panic");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let (_, frames) = split(&written);
        assert_eq!(frames[..2], [0x82, 127]);
        assert!(frames[10..10 + message.len()] == message);
    }

    #[test]
    fn it_exits_with_1_if_its_output_fails() {
        let (reader, writer) = unblocked(false, true);
        drop(reader);
        assert_output_fails(REQUEST, writer);
    }

    /// Also if the peer's Close comes with what cannot be answered any more.
    #[test]
    #[cfg(target_os = "linux")]
    fn it_exits_with_1_if_its_output_is_full_when_the_peer_closes() {
        for input in [[REQUEST, CLOSE].concat(), [REQUEST, HELLO, CLOSE].concat()] {
            let full = File::options().write(true).open("/dev/full").expect("Linux has this file");
            assert_output_fails(&input, full);
        }
    }

    fn assert_output_fails(input: &[u8], output: impl Into<Stdio>) {
        let output = run_with_input(pipe_over(&[], Stdio::piped(), output), input, usize::MAX);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.starts_with("anyloop: ") && errors.lines().count() == 1, "{errors}");
    }

    #[test]
    fn it_waits_for_non_blocking_input() {
        let (reader, writer) = unblocked(true, false);
        let kept = reader.try_clone().expect("the process has a file descriptor left");
        let mut child = pipe_over(&[], reader, Stdio::piped());
        let mut stdout = child.stdout.take().expect("the stream is a pipe");
        let mut writer = File::from(writer);
        // Each answer shows that the program has read all input before, so that its next read would block.
        for (piece, end) in [(REQUEST, &b"\r\n\r\n"[..]), (HELLO, b"Hello"), (CLOSE, b"\x03\xe8")] {
            writer.write_all(piece).expect("the program reads its input");
            let mut answer = Vec::new();
            while !answer.ends_with(end) {
                let mut byte = [0];
                stdout.read_exact(&mut byte).expect("the program answers");
                answer.push(byte[0]);
            }
        }
        assert!(!blocks(&kept), "the program must not change a flag that others share");
        let output = child.wait_with_output().expect("the program ends");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }

    /// A failure of standard error must not cause a panic, which has another exit status.
    #[test]
    #[cfg(target_os = "linux")]
    fn its_exit_status_does_not_depend_on_standard_error() {
        let full = File::options().write(true).open("/dev/full").expect("Linux has /dev/full");
        let mut command = Command::new(env!("CARGO_BIN_EXE_anyloop"));
        command.arg("pipe").stdin(Stdio::null()).stdout(Stdio::null()).stderr(full);
        assert_eq!(command.status().expect("the program starts").code(), Some(1));
    }
}
