//! The log and the files of `anyloop serve`.

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use rustix::process::Signal;

use crate::peer::{CLOSE, PING, PONG, Peer, TEXT};
use crate::program::{Ended, Folder, Running, Server, anyloop};

/// What the server has logged when it has ended, without the times.
fn log(server: Server) -> Vec<String> {
    lines(&server.stop())
}

/// The same, of a server that was told to end.
fn lines(ended: &Ended) -> Vec<String> {
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    ended.stderr.lines().map(|line| line[13..].trim_start().to_string()).collect()
}

fn talk(server: &Server) {
    let mut peer = Peer::client(server.address(), "/echo");
    peer.send(TEXT, b"hi\x1b");
    peer.expect(TEXT, b"hi\x1b");
    peer.send(PING, b"there?");
    peer.expect(PONG, b"there?");
    peer.close(1000);
}

#[test]
fn connections_are_logged_when_asked() {
    let server = Server::start(&[]);
    talk(&server);
    assert_eq!(server.stop().stderr, "");

    let server = Server::start(&["-v", "--color", "never"]);
    talk(&server);
    server.program.expect_error("closed");
    let log = log(server);
    let [opened, closed] = &log[..] else { panic!("{log:?}") };
    assert!(opened.starts_with("INFO ") && opened.ends_with(" /echo: open"), "{log:?}");
    let how = " /echo: closed: the peer closed the connection with 1000; received 1 message with 3 bytes, sent 1 with 3";
    assert!(closed.ends_with(how), "{log:?}");
}

#[test]
fn http_requests_are_logged_when_asked() {
    let server = Server::start(&["-v", "--color", "never"]);
    get(&server, "GET", "/?theme=dark");
    get(&server, "POST", "/stats");
    get(&server, "GET", "/none");
    let mut peer = Peer::dial(server.address());
    peer.write(b"POST /a.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    assert!(peer.head().starts_with("HTTP/1.1 413 "));
    peer.rest();
    drop(peer);
    let log = log(server);
    let lines: Vec<_> = log.iter().map(|line| line.split_once(' ').expect(line)).collect();
    assert!(lines.iter().all(|(level, peer)| *level == "INFO" && peer.starts_with("127.0.0.1:")));
    let answers: Vec<_> =
        lines.iter().map(|(_, line)| line.split_once(' ').expect(line).1).collect();
    let expected = [
        "/: GET is answered with 200 OK",
        "/stats: POST is answered with 405 Method Not Allowed",
        "/none: GET is answered with 404 Not Found",
        "/a.txt: POST is answered with 413 Payload Too Large",
    ];
    assert_eq!(answers, expected);
}

#[test]
fn frames_are_logged_when_asked_twice() {
    let server = Server::start(&["-vv", "--color", "never"]);
    talk(&server);
    server.program.expect_error("closed");
    let log = log(server);
    let frames: Vec<_> = log.iter().filter(|line| line.starts_with("DEBUG")).collect();
    let expected = ["< Text 3 B: hi\\x1b", "> Text 3 B: hi\\x1b", "< Ping 6 B: there?"];
    assert_eq!(frames.len(), expected.len(), "{log:?}");
    for (frame, expected) in frames.into_iter().zip(expected) {
        assert!(frame.ends_with(expected), "{log:?}");
    }
    let closed = log.iter().find(|line| line.contains("closed: "));
    let closes = "; < Close 1000; > Close 1000";
    assert!(closed.is_some_and(|line| line.ends_with(closes)), "{log:?}");
}

#[test]
fn frames_of_all_services_are_logged() {
    let server = Server::start(&["-vv", "--color", "never"]);
    let [mut one, mut other] = [(); 2].map(|()| Peer::client(server.address(), "/broadcast"));
    one.send(TEXT, b"news");
    one.expect(TEXT, b"news");
    other.expect(TEXT, b"news");
    other.send(CLOSE, b"\x0f\xa1good bye\x1b");
    other.expect_close(4001);
    let sent = server.program.expect_error(" > Close 4001");
    let mut stats = Peer::client(server.address(), "/stats");
    let (_, counters) = stats.receive().expect("the counters");
    stats.send(PING, b"there?");
    stats.expect(PONG, b"there?");
    server.program.signal(Signal::TERM);
    for mut peer in [one, stats] {
        peer.expect_close(1001);
        peer.send(CLOSE, b"");
        peer.rest();
    }
    let log = lines(&server.program.end());
    let count = |words: &str| log.iter().filter(|line| line.contains(words)).count();
    assert_eq!(count("< Text 4 B: news"), 1, "{log:?}");
    let peers: HashSet<_> = log.iter().filter(|line| line.ends_with("> Text 4 B: news")).collect();
    assert_eq!(peers.len(), 2, "each subscriber is named: {log:?}");
    assert_eq!(count("< Close 4001: good bye\\u{1b}"), 1, "{log:?}");
    assert!(sent.contains("good bye"), "{sent}");
    assert!(count(&format!("> Text {} B: {{\\\"uptime\\\":", counters.len())) >= 1, "{log:?}");
    assert_eq!(count("< Ping 6 B: there?"), 1, "{log:?}");
    assert_eq!(count("; > Close 1001: shutting down; < Close without a code"), 2, "{log:?}");
}

#[test]
fn the_environment_selects_what_is_logged() {
    let mut command = anyloop(["serve", "--listen", "127.0.0.1:0"]);
    let server = Server::listening(command.env("RUST_LOG", "info"), 1);
    talk(&server);
    server.program.expect_error("closed");
    assert_eq!(log(server).len(), 2);
}

#[test]
fn the_environment_shows_what_the_library_logs() {
    for (directives, own_lines, library_lines) in [
        ("anyloop=debug", 1, 1),
        ("anyloop=debug,anyloop::serve=off", 0, 1),
        ("info", 1, 0),
        ("warn", 0, 0),
    ] {
        let mut command = anyloop(["serve", "--listen", "127.0.0.1:0", "--color", "never"]);
        let server = Server::listening(command.env("RUST_LOG", directives), 1);
        let mut peer = Peer::dial(server.address());
        peer.write(b"nonsense\r\n\r\n");
        assert!(peer.head().starts_with("HTTP/1.1 400 "));
        peer.rest();
        drop(peer);
        let log = log(server);
        let (own, library): (Vec<_>, Vec<_>) =
            log.iter().partition(|line| line.contains(": not opened: "));
        assert_eq!(own.len(), own_lines, "{directives}: {log:?}");
        assert_eq!(library.len(), library_lines, "{directives}: {log:?}");
        for line in library {
            assert!(line.starts_with("DEBUG connection{slot="), "{directives}: {line}");
        }
        for line in log {
            let (_, failure) = line.split_once("127.0.0.1:").expect("it names the peer");
            let (port, failure) = failure.split_once(':').expect("there is no path");
            assert!(port.parse::<u16>().is_ok(), "{line}");
            let why = r#"not an HTTP request: the first bytes are "nonsen""#;
            let why = format!(" peer: {why} (connection connecting)");
            assert!(failure.ends_with(&why), "{line}");
        }
    }
}

#[test]
fn a_variable_that_selects_nothing_is_reported() {
    let mut command = anyloop(["serve", "--listen", "127.0.0.1:0", "-v", "--color", "never"]);
    let server = Server::listening(command.env("RUST_LOG", "anyloop=loud"), 1);
    let why =
        r#"anyloop: RUST_LOG is ignored: "anyloop=loud" is not a filter such as anyloop=debug"#;
    server.program.expect_error(why);
    talk(&server);
    server.program.expect_error(" /echo: open");

    for (directives, selects) in
        [("garbage", false), ("tokio=debug,garbage", false), ("any=warn", true)]
    {
        let mut command = anyloop(["serve", "--listen", "127.0.0.1:0"]);
        let server = Server::listening(command.env("RUST_LOG", directives), 1);
        let ended = server.stop();
        let warning = format!("anyloop: RUST_LOG={directives} selects no lines of anyloop\n");
        assert_eq!(ended.stderr, if selects { "" } else { &*warning });
    }
}

#[test]
fn the_environment_shows_what_the_library_logs_in_every_command() {
    let server = Server::start(&[]);
    let url = server.url("/echo");
    for (arguments, how) in [
        (&["connect", &url, "--text", "hello", "--once"][..], "open"),
        (&["bench", &url, "--duration", "0.1"], "open"),
        (&["pipe"], "connecting"),
    ] {
        let mut command = anyloop(arguments);
        command.stdin(Stdio::null()).args(["--color", "never"]);
        let ended = Running::start(command.env("RUST_LOG", "anyloop=debug")).end();
        let is_logged = |line: &str| line.contains(" DEBUG ") && line.contains(how);
        assert!(ended.stderr.lines().any(is_logged), "{arguments:?}: {}", ended.stderr);
        let ended = Running::start(command.env("RUST_LOG", "")).end();
        assert!(!ended.stderr.contains("DEBUG"), "{arguments:?}: {}", ended.stderr);
    }
}

/// The response to a request for this path, and its body.
fn get(server: &Server, method: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(server.address()).expect("the server listens");
    let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the server reads");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("the response is UTF-8");
    let (head, body) = response.split_once("\r\n\r\n").expect("the head is complete");
    (head.to_ascii_lowercase(), body.to_string())
}

#[test]
fn files_are_served_beside_the_services() {
    let folder = Folder::new("files");
    let path = folder.join("public");
    fs::create_dir(&path).expect("the directory can be made");
    fs::write(path.join("style.css"), "a{}").expect("the file can be written");
    fs::write(folder.join("secret"), "secret").expect("the file can be written");
    let path_text = path.to_str().expect("the path is UTF-8");
    let server = Server::start(&["--dir", path_text]);
    let (head, body) = get(&server, "GET", "/style.css");
    assert!(head.starts_with("http/1.1 200 ok\r\n"), "{head}");
    assert!(head.contains("\r\ncontent-type: text/css; charset=utf-8"), "{head}");
    assert_eq!(body, "a{}");
    let (head, body) = get(&server, "HEAD", "/style.css");
    assert!(head.contains("\r\ncontent-length: 3"), "{head}");
    assert_eq!(body, "");
    for missing in ["/none", "/../secret", "/%2e%2e/secret"] {
        assert!(get(&server, "GET", missing).0.starts_with("http/1.1 404 "), "{missing}");
    }
    assert!(get(&server, "GET", "/echo").0.starts_with("http/1.1 426 "));
    assert!(get(&server, "GET", "/").1.starts_with("<!doctype html>"), "the page");
    fs::write(path.join("index.html"), "mine").expect("the file can be written");
    assert_eq!(get(&server, "GET", "/").1, "mine");
    talk(&server);
    let ended = Running::start(&mut anyloop(["serve", "--dir", "/no/such/directory"])).end();
    ended.expect(2, "--dir: cannot serve /no/such/directory: No such file or directory");
}
