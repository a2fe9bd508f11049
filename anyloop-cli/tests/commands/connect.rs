//! `anyloop connect`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::peer::{BINARY, CLOSE, Host, PING, PONG, Peer, TEXT, field};
use crate::program::{Ended, Folder, Running, Server, anyloop, connect, stop_ignoring_hang_up};

/// Runs the command against a server that calls `host` with the open connection.
fn against(arguments: &[&str], input: &[u8], host: impl FnOnce(Peer) + Send + 'static) -> Ended {
    let server = Host::new();
    let url = server.url();
    let host = thread::spawn(move || host(server.open().0));
    let ended = connect(&[&[&*url], arguments].concat(), input);
    host.join().expect("the thread does not panic");
    ended
}

#[test]
fn each_line_is_a_message_and_each_message_a_line() {
    let server = Server::start(&[]);
    let ended = connect(&[&server.url("/")], "hello\n\nκόσμε 🌍\r\n no end".as_bytes());
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(ended.lines(), ["hello", "", "κόσμε 🌍", " no end"]);
    assert_eq!(ended.stderr, "");
    assert_eq!(connect(&[&server.url("/")], b"").code(), Some(0));
}

#[test]
fn at_the_end_of_input_it_closes_and_still_prints_messages() {
    let ended = against(&[], b"one\ntwo\n", |mut peer| {
        peer.expect(TEXT, b"one");
        peer.expect(TEXT, b"two");
        assert_eq!(peer.expect_close(1000), "");
        peer.send(TEXT, b"after that");
        peer.send(CLOSE, &1000u16.to_be_bytes());
    });
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(ended.lines(), ["after that"]);
}

#[test]
fn pings_are_answered_and_not_printed() {
    let ended = against(&[], b"", |mut peer| {
        peer.send(PING, b"there?");
        let mut received =
            [peer.receive(), peer.receive()].map(|frame| frame.expect("a frame before the end"));
        received.sort();
        assert_eq!(received, [(CLOSE, b"\x03\xe8".to_vec()), (PONG, b"there?".to_vec())]);
        peer.send(CLOSE, b"\x03\xe8");
    });
    assert_eq!((ended.code(), ended.lines()), (Some(0), vec![]));
}

#[test]
fn binary_messages_are_escaped_and_text_is_not() {
    let ended = against(&[], b"", |mut peer| {
        peer.send(BINARY, b"a\0\xff\\\n");
        peer.send(TEXT, b"\x1b[1mtwo\nlines");
        peer.expect_close(1000);
        peer.send(CLOSE, b"");
    });
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(ended.lines(), [r"a\x00\xff\\\n", "\x1b[1mtwo", "lines"]);
}

#[test]
fn input_that_is_not_utf8_is_refused() {
    let ended = against(&[], b"good\n\xff\nnever\n", |mut peer| {
        peer.expect(TEXT, b"good");
        peer.expect_close(1001);
        peer.send(CLOSE, b"\x03\xe9");
    });
    ended.expect(1, "line 2 of standard input is not UTF-8");

    let server = Server::start(&[]);
    let folder = File::open("/").expect("the root directory exists");
    let mut command = anyloop(["connect", &server.url("/")]);
    let ended = Running::start(command.stdin(OwnedFd::from(folder))).end();
    ended.expect(1, "cannot read standard input: Is a directory");
}

#[test]
fn the_request_has_the_fields_of_the_arguments() {
    let host = Host::new();
    let url = host.url();
    let request_thread = thread::spawn(move || {
        let (mut peer, request) = host.open();
        peer.expect_close(1000);
        peer.send(CLOSE, b"\x03\xe8");
        request
    });
    let arguments = [
        "--header",
        "X-Room: lobby",
        "-H",
        "x-empty:",
        "--cookie",
        "a=b",
        "-H",
        "Cookie: id=7; lang=en; ",
        "--cookie",
        "c=d e",
        "--origin",
        "http://a.example",
        "--user",
        "Aladdin:open sesame",
    ];
    let subprotocols = ["--subprotocol", "chat.v2", "--subprotocol", "chat.v1"];
    let ended = connect(&[&[&*url], &arguments[..], &subprotocols].concat(), b"");
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    let request = request_thread.join().expect("the thread does not panic");
    assert!(request.starts_with("GET /path?query HTTP/1.1\r\n"), "{request}");
    for (name, value) in [
        ("x-room", "lobby"),
        ("x-empty", ""),
        ("cookie", "id=7; lang=en; a=b; c=d e"),
        ("authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), // RFC 7617 §2
        ("origin", "http://a.example"),
        ("sec-websocket-protocol", "chat.v2, chat.v1"),
    ] {
        assert_eq!(field(&request, name), Some(value), "{request}");
    }
    // RFC 6265 §5.4: at most one.
    assert_eq!(request.to_lowercase().matches("\r\ncookie:").count(), 1, "{request}");
}

#[test]
fn with_echo_it_returns_messages() {
    let ended = against(&["--echo"], b"not read\n", |mut peer| {
        for (opcode, message) in [(TEXT, "κόσμε".as_bytes()), (BINARY, b"\0\xff"), (TEXT, b"")]
        {
            peer.send(opcode, message);
            peer.expect(opcode, message);
        }
        peer.close(1000);
    });
    assert_eq!((ended.code(), ended.lines()), (Some(0), vec![]), "{}", ended.stderr);
}

#[test]
fn an_echo_to_a_slow_reader_loses_no_message() {
    let count = 400;
    let ended = against(&["--echo"], b"", move |peer| {
        let (mut reader, mut writer) = peer.split();
        let message = vec![b'x'; 100_000];
        let sent = message.clone();
        let writer = thread::spawn(move || {
            (0..count).for_each(|_| writer.send(TEXT, &sent));
            writer
        });
        (0..count).for_each(|_| reader.expect(TEXT, &message));
        drop(reader);
        writer.join().expect("the thread does not panic").close(1000);
    });
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
}

#[test]
fn a_broadcast_message_reaches_another_client() {
    let server = Server::start(&[]);
    let url = server.url("/broadcast");
    let mut command = anyloop(["connect", &url]);
    let mut listener = Running::start(command.stdin(Stdio::piped()));
    let mut stdin = listener.stdin();
    stdin.write_all(b"I am here\n").expect("the program reads its input");
    let mut lines = BufReader::new(listener.stdout()).lines();
    assert_eq!(lines.next().expect("a line").expect("the output is UTF-8"), "I am here");
    assert_eq!(connect(&[&url], b"hello\nthere\n").code(), Some(0));
    assert_eq!(lines.next().expect("a line").expect("the output is UTF-8"), "hello");
    assert_eq!(lines.next().expect("a line").expect("the output is UTF-8"), "there");
    drop(stdin);
    assert!(lines.next().is_none());
    assert_eq!(listener.end().code(), Some(0));
}

#[test]
fn it_connects_to_a_unix_socket() {
    let folder = Folder::new("connect");
    let path = folder.join("socket");
    let mut command = anyloop(["serve", "--unix"]);
    let _server = Server::listening(command.arg(&path), 1);
    let path = path.to_str().expect("the path is UTF-8");
    let ended = connect(&["--unix", path, "ws://anyone/echo"], b"hello\n");
    assert_eq!((ended.code(), ended.lines()), (Some(0), vec!["hello"]), "{}", ended.stderr);
    let ended = connect(&["--unix", "/no/such/socket", "ws://anyone/"], b"");
    ended.expect(3, "cannot connect to unix:/no/such/socket: No such file");
}

#[test]
fn a_failure_to_connect_is_reported_with_the_address() {
    let unused = TcpListener::bind("127.0.0.1:0").expect("the system has a free port");
    let address = unused.local_addr().expect("the socket has an address");
    drop(unused);
    connect(&[&format!("ws://{address}/")], b"")
        .expect(3, &format!("cannot connect to 127.0.0.1: {address}: Connection refused"));
    connect(&["ws://no.such.host.invalid/"], b"")
        .expect(3, "cannot look up no.such.host.invalid: ");
}

#[test]
fn a_failed_handshake_and_a_failed_connection_have_different_statuses() {
    let server = Server::start(&["--origin", "https://a.example"]);
    connect(&[&server.url("/nowhere")], b"")
        .expect(4, "the server refused: 404 Not Found (is the path right?): there is nothing here");
    let ended = connect(&[&server.url("/"), "--origin", "https://b.example"], b"");
    ended.expect(4, "the server refused: 403 Forbidden");

    let wrong =
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    answer(wrong).expect(4, "Sec-WebSocket-Accept does not fit the key");
    let why = "does not answer as a WebSocket server";
    let not_http = "not an HTTP response: the first bytes are";
    answer(b"SSH-2.0-OpenSSH_9.2\r\n").expect(4, &format!("{why}: {not_http} \"SSH-2.\""));
    let alert =
        format!(r#"{why}: {not_http} "\x15\x03\x01\x00\x02\x02", a TLS record: use wss://"#);
    answer(b"\x15\x03\x01\0\x02\x02F").expect(4, &alert);
    answer(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n").expect(4, &format!("{why}: malformed HTTP"));
    answer(b"HTTP/1.1 101 Sw").expect(4, "ended");
    answer(b"").expect(4, "ended");
}

/// Runs the command against a server that sends `response` to its request.
fn answer(response: &'static [u8]) -> Ended {
    let host = Host::new();
    let url = host.url();
    let host = thread::spawn(move || {
        let mut peer = host.accept();
        peer.head();
        peer.write(response);
    });
    let ended = connect(&[&url], b"");
    host.join().expect("the thread does not panic");
    ended
}

#[test]
fn the_body_of_a_refusal_is_printed() {
    answer(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 9\r\n\r\nbad token")
        .expect(4, "the server refused: 400 Bad Request: bad token");
    // A plain HTTP server, with a body that ends with the stream.
    let page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<!doctype html>\n<p>Welcome\n";
    let ended = answer(page);
    assert_eq!(ended.code(), Some(4));
    assert_eq!(
        ended.stderr,
        "anyloop: the server answered 200 OK, not as a WebSocket server\n  <!doctype html>\n  \
         <p>Welcome\n"
    );
    answer(b"HTTP/1.1 302 Found\r\nLocation: ws://b.example/\r\nContent-Length: 0\r\n\r\n")
        .expect(4, "302 Found (it points to ws://b.example/; --location follows it)");
}

#[test]
fn text_from_the_server_is_escaped_in_errors() {
    answer(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 6\r\n\r\n\x1b[2J\r\n")
        .expect(4, "the server refused: 400 Bad Request: \\u{1b}[2J");
    answer(b"HTTP/1.1 301 Moved\r\nLocation: \xc2\x9b2J\r\nContent-Length: 0\r\n\r\n")
        .expect(4, "points to \\u{9b}2J");
    let ended = against(&["--echo"], b"", |mut peer| {
        let reason = "\x1b[2J\u{9b}2J\r\nanyloop: all is well";
        peer.send(CLOSE, &[b"\x0f\xa0", reason.as_bytes()].concat());
        peer.receive();
    });
    ended.expect(
        1,
        "closed the connection with 4000: \\u{1b}[2J\\u{9b}2J\\r\\nanyloop: all is well",
    );
}

#[test]
fn it_waits_for_an_answer_to_the_last_line() {
    let ended = against(&[], b"hi\n", |mut peer| {
        peer.expect(TEXT, b"hi");
        let begun = Instant::now();
        peer.send(TEXT, b"hello");
        peer.expect_close(1000);
        assert!(begun.elapsed() >= Duration::from_secs(1), "the default is 1 s");
        peer.send(CLOSE, b"\x03\xe8");
    });
    assert_eq!((ended.code(), ended.lines()), (Some(0), vec!["hello"]), "{}", ended.stderr);

    // `--wait` sets the time, and each received message restarts it.
    let ended = against(&["--wait", "0.5"], b"hi\n", |mut peer| {
        peer.expect(TEXT, b"hi");
        let mut begun = Instant::now();
        for _ in 0..3 {
            begun = Instant::now();
            peer.send(TEXT, b"hello");
        }
        peer.expect_close(1000);
        assert!(begun.elapsed() >= Duration::from_millis(500));
        peer.send(CLOSE, b"\x03\xe8");
    });
    assert_eq!(ended.lines(), ["hello"; 3]);
}

#[test]
fn it_stays_connected_if_it_must_wait_forever_or_has_no_input() {
    let stays = |arguments: &[&str], input: Stdio| {
        let server = Host::new();
        let url = server.url();
        let mut command = anyloop(["connect", &url]);
        let mut program = Running::start(command.args(arguments).stdin(input));
        drop(program.try_stdin());
        let (mut peer, _) = server.open();
        for message in ["one", "two"] {
            peer.send(TEXT, message.as_bytes());
            peer.send(PING, b"there?");
            peer.expect(PONG, b"there?"); // and no Close before it
        }
        peer.close(1000);
        let ended = program.end();
        assert_eq!((ended.code(), ended.lines()), (Some(0), vec!["one", "two"]));
    };
    stays(&[], Stdio::null());
    stays(&["--wait", "forever"], Stdio::piped());
    // An explicit `--wait` overrides the default for a command without input.
    let server = Host::new();
    let mut command = anyloop(["connect", &server.url(), "--wait", "0"]);
    let program = Running::start(command.stdin(Stdio::null()));
    let (mut peer, _) = server.open();
    peer.expect_close(1000);
    peer.send(CLOSE, b"\x03\xe8");
    assert_eq!(program.end().code(), Some(0));
}

#[test]
fn a_line_beyond_the_limit_is_refused() {
    let server = Host::new();
    let mut command = anyloop(["connect", &server.url(), "--max-message", "100000"]);
    let mut program = Running::start(command.stdin(Stdio::piped()));
    let mut stdin = program.stdin();
    let writer = thread::spawn(move || {
        let good = [vec![b'x'; 100_000], b"\r\n".to_vec()].concat();
        stdin.write_all(&good).expect("the program reads its input");
        let mut written = 0;
        while stdin.write_all(&[b'x'; 1000]).is_ok() {
            written += 1000;
        }
        written
    });
    let (mut peer, _) = server.open();
    assert_eq!(peer.receive().expect("a line").1.len(), 100_000);
    peer.expect_close(1001);
    peer.send(CLOSE, b"\x03\xe9");
    let words = "line 2 of standard input is longer than 100000 bytes (--max-message)";
    program.end().expect(1, words);
    let written = writer.join().expect("the thread does not panic");
    assert!(written < 1_000_000, "{written} bytes of the line were read");
}

#[test]
fn a_signal_closes_the_connection() {
    stop_ignoring_hang_up();
    for (signal, arguments) in [
        (Signal::INT, &[][..]),
        (Signal::TERM, &[]),
        #[cfg(target_os = "linux")]
        (Signal::HUP, &[]),
        (Signal::INT, &["--echo"]),
    ] {
        let server = Host::new();
        let url = server.url();
        let mut command = anyloop(["connect", &url]);
        let mut program = Running::start(command.args(arguments).stdin(Stdio::piped()));
        let stdin = program.stdin();
        let (mut peer, _) = server.open();
        peer.send(PING, b"open?");
        peer.expect(PONG, b"open?");
        program.signal(signal);
        assert_eq!(peer.expect_close(1001), "");
        peer.send(TEXT, b"last");
        peer.send(CLOSE, b"\x03\xe9");
        let ended = program.end();
        assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""), "{signal:?} {arguments:?}");
        assert_eq!(ended.lines(), if arguments.is_empty() { vec!["last"] } else { vec![] });
        drop(stdin);
    }
}

#[test]
fn a_second_signal_terminates_it() {
    let server = Host::new();
    let mut command = anyloop(["connect", &server.url(), "--close-timeout", "0"]);
    let mut program = Running::start(command.stdin(Stdio::piped()));
    let _stdin = program.stdin();
    let (mut peer, _) = server.open();
    peer.send(PING, b"open?");
    peer.expect(PONG, b"open?");
    program.signal(Signal::INT);
    peer.expect_close(1001);
    program.signal(Signal::INT);
    assert_eq!(program.end().status.signal(), Some(2));
}

/// A terminal that is closed sends it to its foreground process, and the shell does so once more.
#[cfg(target_os = "linux")]
#[test]
fn a_second_hang_up_does_not_terminate_it() {
    stop_ignoring_hang_up();
    let server = Host::new();
    let mut program = Running::start(anyloop(["connect", &server.url()]).stdin(Stdio::piped()));
    let _stdin = program.stdin();
    let (mut peer, _) = server.open();
    peer.send(PING, b"open?");
    peer.expect(PONG, b"open?");
    program.signal(Signal::HUP);
    peer.expect_close(1001);
    program.signal(Signal::HUP);
    peer.send(PING, b"still there?");
    peer.send(CLOSE, b"\x03\xe9");
    assert_eq!(program.end().code(), Some(0));
}

#[test]
fn a_signal_before_the_first_connection_of_reconnect_is_told_by_the_status() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the system has a free port");
    let address = listener.local_addr().expect("the socket has an address");
    let url = format!("ws://{address}/");
    let mut connect = anyloop(["connect", &url, "--reconnect", "--subscribe"]);
    let program = Running::start(&mut connect);
    let mut peer = Host::over(listener).accept();
    peer.head(); // and no answer
    program.signal(Signal::INT);
    program.end().expect(1, "closed while there was no connection");

    let program = Running::start(&mut connect); // nobody listens
    program.expect_error("trying again in ");
    program.signal(Signal::TERM);
    let ended = program.end();
    assert_eq!(ended.code(), Some(1));
    assert!(
        ended.stderr.ends_with("anyloop: closed while there was no connection\n"),
        "{}",
        ended.stderr
    );
}

#[test]
fn it_exits_with_1_if_the_connection_does_not_end_cleanly() {
    let ended = against(&[], b"", |mut peer| {
        peer.expect_close(1000);
        peer.send(CLOSE, b"\x03\xf3out of paper");
    });
    ended.expect(1, "the peer closed the connection with 1011: out of paper");

    against(&["--echo"], b"", drop).expect(1, "stream ended without a closing handshake");

    let ended = against(&["--echo"], b"", |mut peer| {
        peer.write(b"\x83\0");
        peer.expect_close(1002);
    });
    ended.expect(1, "reserved opcode 0x3");

    let ended = against(&["--echo", "--max-message", "10"], b"", |mut peer| {
        peer.send(TEXT, b"ten bytes!");
        peer.expect(TEXT, b"ten bytes!");
        peer.send(TEXT, b"not eleven!");
        peer.expect_close(1009);
    });
    ended.expect(1, "message too big: more than 10 bytes");

    let begun = Instant::now();
    let ended = against(&["--close-timeout", "0.1"], b"", |mut peer| {
        peer.expect_close(1000);
        while let Ok(Some(_)) = peer.try_receive() {}
    });
    ended.expect(1, "closing handshake timed out");
    assert!(begun.elapsed() < Duration::from_secs(4), "the timeout is not the default of 5 s");
}

#[test]
fn it_exits_with_0_if_the_server_closes_with_1000() {
    let server = Host::new();
    let url = server.url();
    let host = thread::spawn(move || server.open().0.close(1000));
    // The input of the command does not end.
    let mut command = anyloop(["connect", &url]);
    let mut program = Running::start(command.stdin(Stdio::piped()));
    let stdin = program.stdin();
    host.join().expect("the thread does not panic");
    assert_eq!(program.end().code(), Some(0));
    drop(stdin);
}

#[test]
fn it_reports_that_input_was_not_sent() {
    // More than the buffers between the two hold; the peer reads nothing before it closes.
    let input = [b"x".repeat(1 << 20), b"\n".to_vec()].concat().repeat(30);
    let ended = against(&[], &input, |mut peer| {
        peer.send(CLOSE, b"\x03\xe8");
        while peer.receive().is_some_and(|(opcode, _)| opcode != CLOSE) {}
    });
    ended.expect(1, "the peer closed before all of the input was sent");
}

#[test]
fn it_reads_its_input_only_as_fast_as_the_peer_reads() {
    let server = Host::new();
    let mut command = anyloop(["connect", &server.url()]);
    let mut program = Running::start(command.stdin(Stdio::piped()));
    let (mut peer, _) = server.open();
    let mut stdin = program.stdin();
    let (line, count) = ([vec![b'x'; 99_999], vec![b'\n']].concat(), 400);
    let read = Arc::new(AtomicUsize::new(0));
    let writer = thread::spawn({
        let read = read.clone();
        move || {
            for _ in 0..count {
                stdin.write_all(&line).expect("the program reads its input");
                read.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    // Waits until the command has stopped reading.
    let mut before = usize::MAX;
    while before != read.load(Ordering::Relaxed) {
        before = read.load(Ordering::Relaxed);
        anyloop_testkit::wait::let_time_pass(
            Duration::from_millis(500),
            "a command that is not blocked reads a line in this time",
        );
    }
    assert!(before < count / 2, "{before} lines of 100,000 bytes were read");
    for _ in 0..count {
        let (opcode, payload) = peer.receive().expect("a message");
        assert_eq!((opcode, payload.len()), (TEXT, 99_999));
    }
    writer.join().expect("the thread does not panic");
    peer.expect_close(1000);
    peer.send(CLOSE, b"\x03\xe8");
    assert_eq!(program.end().code(), Some(0));
}

#[test]
fn it_exits_with_1_if_its_output_is_closed() {
    let server = Server::start(&[]);
    let mut command = anyloop(["connect", &server.url("/")]);
    let mut program = Running::start(command.stdin(Stdio::piped()));
    drop(program.stdout());
    let mut stdin = program.stdin();
    stdin.write_all(b"hello\n").expect("the program reads its input");
    program.end().expect(1, "cannot write to standard output: Broken pipe");
    drop(stdin);
}

#[test]
fn a_server_that_does_not_answer_fails_the_handshake_at_its_timeout() {
    let begun = Instant::now();
    let host = Host::new();
    let url = host.url();
    connect(&["--handshake-timeout", "0.1", &url], b"").expect(4, "opening handshake timed out");
    drop(host);

    let folder = Folder::new("mute");
    let path = folder.join("socket");
    let _listener = UnixListener::bind(&path).expect("the socket can be created");
    let path = path.to_str().expect("the path is UTF-8");
    let arguments = ["--unix", path, "--handshake-timeout", "0.1", "ws://anyone/"];
    connect(&arguments, b"").expect(4, "opening handshake timed out");
    assert!(begun.elapsed() < Duration::from_secs(4), "the timeout is not the default of 5 s");
}

#[test]
fn messages_of_the_command_line_come_before_the_input() {
    let folder = Folder::new("messages");
    let (small, large) = (folder.join("small"), folder.join("large"));
    let content: Vec<_> = (0..3_000_000u32).map(|n| n as u8).collect();
    std::fs::write(&small, b"\0\xff").expect("the file can be written");
    std::fs::write(&large, &content).expect("the file can be written");
    let path = |path: &std::path::Path| path.to_str().expect("the path is UTF-8").to_string();
    let arguments =
        ["--text", "first", "--binary", &path(&small), "--text", "-2", "--binary", &path(&large)];
    let ended =
        against(&[&arguments[..], &["--no-deflate"]].concat(), b"last\n", move |mut peer| {
            peer.expect(TEXT, b"first");
            peer.expect(BINARY, b"\0\xff");
            peer.expect(TEXT, b"-2");
            assert!(peer.receive_parts() == (BINARY, content), "the file arrives whole");
            peer.expect(TEXT, b"last");
            peer.expect_close(1000);
            peer.send(CLOSE, b"\x03\xe8");
        });
    assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""));
    connect(&["ws://127.0.0.1:9/", "--binary", "/no/such/file"], b"")
        .expect(2, "--binary: cannot read /no/such/file: No such file");
}

#[test]
fn it_closes_after_the_messages_that_are_asked_for() {
    let three = |mut peer: Peer| {
        for message in ["one", "two", "three"] {
            peer.send(TEXT, message.as_bytes());
        }
        while peer.receive().is_some_and(|(opcode, _)| opcode != CLOSE) {}
        peer.send(CLOSE, b"\x03\xe8");
    };
    for (arguments, lines) in
        [(&["--once"][..], &["one"][..]), (&["--exit-after", "2"], &["one", "two"])]
    {
        let ended = against(arguments, b"question\n", three);
        assert_eq!((ended.code(), ended.lines()), (Some(0), lines.to_vec()), "{}", ended.stderr);
    }
    let ended = against(&["--exit-after", "4"], b"", |mut peer| {
        peer.send(TEXT, b"one");
        peer.close(1000);
    });
    ended.expect(1, "the connection closed after 1 of 4 messages");
    let ended = against(&["--once", "--wait", "0.1"], b"", |mut peer| {
        peer.expect_close(1000);
        peer.send(CLOSE, b"\x03\xe8");
    });
    ended.expect(1, "the connection closed before a message arrived");
}

#[test]
fn a_subscriber_reads_no_input() {
    let ended = against(&["--subscribe", "--text", "topic"], b"not read\n", |mut peer| {
        peer.expect(TEXT, b"topic");
        peer.send(TEXT, b"news");
        peer.send(PING, b"there?");
        peer.expect(PONG, b"there?"); // and no other message before it
        peer.close(1000);
    });
    assert_eq!((ended.code(), ended.lines()), (Some(0), vec!["news"]), "{}", ended.stderr);
}

#[test]
fn json_is_indented() {
    let ended = against(&["--json"], b"", |mut peer| {
        peer.send(TEXT, br#"{"b":1.10,"a":[true]}"#);
        peer.send(TEXT, b"no {JSON}");
        peer.close(1000);
    });
    let lines = ["{", "  \"b\": 1.10,", "  \"a\": [", "    true", "  ]", "}", "no {JSON}"];
    assert_eq!((ended.code(), ended.lines()), (Some(0), lines.to_vec()), "{}", ended.stderr);
}

#[test]
fn it_connects_again_when_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the system has a free port");
    let address = listener.local_addr().expect("the socket has an address");
    let mut command = anyloop(["connect", &format!("ws://{address}/"), "--reconnect"]);
    let mut program = Running::start(command.stdin(Stdio::piped()));
    let mut stdin = program.stdin();
    let open = || {
        let listener = listener.try_clone().expect("the process has a descriptor left");
        Host::over(listener).open().0
    };
    let mut peer = open();
    stdin.write_all(b"one\n").expect("the program reads its input");
    peer.expect(TEXT, b"one");
    peer.send(CLOSE, b"\x03\xf4restarting"); // 1012
    peer.expect_close(1012);
    drop(peer);
    let mut peer = open();
    stdin.write_all(b"two\n").expect("the program reads its input");
    peer.expect(TEXT, b"two");
    drop(peer); // without a Close
    let mut peer = open();
    stdin.write_all(b"three\n").expect("the program reads its input");
    peer.expect(TEXT, b"three");
    peer.close(1008); // is meant
    let ended = program.end();
    assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
    let errors: Vec<_> = ended.stderr.lines().collect();
    assert_eq!(errors.len(), 3, "{errors:?}");
    let again = "anyloop: trying again in ";
    assert_eq!(
        errors[0],
        format!("{again}0.5 s: the peer closed the connection with 1012: restarting")
    );
    assert!(errors[1].starts_with(&format!("{again}1 s: ")), "{errors:?}");
    assert!(errors[1].contains("stream ended without a closing handshake"), "{errors:?}");
    assert!(errors[2].contains("closed the connection with 1008"), "{errors:?}");
    drop(stdin);
}

#[test]
fn what_a_lost_connection_has_taken_is_reported_at_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the system has a free port");
    let url = format!("ws://{}/", listener.local_addr().expect("the socket has an address"));
    for (arguments, code) in [(&["--text", "one"][..], 1), (&[], 0)] {
        let mut command = anyloop(["connect", &url, "--reconnect", "--subscribe"]);
        let program = Running::start(command.args(arguments).stdin(Stdio::null()));
        let open = || {
            let listener = listener.try_clone().expect("the process has a descriptor left");
            Host::over(listener).open().0
        };
        let mut peer = open();
        if code == 1 {
            peer.expect(TEXT, b"one");
        }
        drop(peer); // without a Close
        open().close(1000);
        let ended = program.end();
        assert_eq!(ended.code(), Some(code), "{}", ended.stderr);
        let words = "an earlier connection failed: what was sent on it may be lost";
        assert_eq!(ended.stderr.contains(words), code == 1, "{}", ended.stderr);
    }
}

#[test]
fn a_signal_ends_the_wait_for_another_attempt() {
    let unused = TcpListener::bind("127.0.0.1:0").expect("the system has a free port");
    let address = unused.local_addr().expect("the socket has an address");
    let mut command = anyloop(["connect", &format!("ws://{address}/"), "--reconnect"]);
    let mut program = Running::start(command.stdin(Stdio::piped()));
    let _stdin = program.stdin();
    let (peer, _) = Host::over(unused).open();
    drop(peer);
    program.expect_error("trying again in 0.5 s: ");
    program.expect_error("trying again in 1 s: cannot connect to ");
    program.signal(Signal::TERM);
    let ended = program.end();
    assert_eq!(ended.code(), Some(1));
    assert!(ended.stderr.ends_with("\nanyloop: closed while there was no connection\n"));
}
