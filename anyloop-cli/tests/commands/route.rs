//! The way to the server: proxies, and addresses that replace look-ups.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use anyloop_testkit::peer::serve;

use crate::program::{Ended, Running, Server, anyloop, connect};

/// A proxy for one connection to this server. It returns the request.
fn proxy_to(server: SocketAddr) -> (SocketAddr, JoinHandle<String>) {
    serve(move |mut peer| {
        let head = peer.read_head();
        peer.write("HTTP/1.1 200 OK\r\n\r\n");
        peer.relay(server);
        head
    })
}

/// `anyloop connect` to a name that only the proxy knows. Its input has one line.
fn connecting(options: &[&str]) -> Command {
    let mut command = anyloop(["connect", "ws://chat.example/"]);
    command.args(options);
    command
}

fn greet(command: &mut Command) -> Ended {
    let mut program = Running::start(command.stdin(Stdio::piped()));
    let _ = program.stdin().write_all(b"hello\n"); // it may end before it reads
    program.end()
}

#[track_caller]
fn assert_greeted(ended: &Ended) {
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(ended.lines(), ["hello"]);
}

#[test]
fn a_proxy_is_named_by_a_flag_or_by_the_environment() {
    let server = Server::start(&[]);
    let (address, seen) = proxy_to(server.address());
    let proxy = format!("alice:secret@{address}");
    assert_greeted(&greet(&mut connecting(&["--proxy", &proxy])));
    let head = seen.join().unwrap();
    assert!(head.starts_with("CONNECT chat.example:80 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nProxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n"), "{head}");

    for name in ["http_proxy", "all_proxy", "ALL_PROXY"] {
        let (address, seen) = proxy_to(server.address());
        let variable = (name, format!("http://{address}/"));
        assert_greeted(&greet(connecting(&[]).envs([variable])));
        seen.join().unwrap();
    }

    // As in curl, a host of this machine is no exception by itself.
    let (address, seen) = proxy_to(server.address());
    let mut command = anyloop(["connect", &server.url("/")]);
    assert_greeted(&greet(command.env("http_proxy", address.to_string())));
    assert!(seen.join().unwrap().starts_with(&format!("CONNECT {} ", server.address())));
}

#[test]
fn hosts_are_connected_to_without_a_proxy() {
    let server = Server::start(&[]);
    let direct = |options: &[&str], variables: &[(&str, &str)]| {
        let mut command = anyloop(["connect", &server.url("/")]);
        command.args(options).envs(variables.iter().copied());
        assert_greeted(&greet(&mut command));
    };
    let nowhere = "http://nowhere.invalid:1";
    direct(&["--proxy", ""], &[("http_proxy", nowhere)]);
    direct(&["--noproxy", "*"], &[("http_proxy", nowhere)]);
    direct(&[], &[("http_proxy", nowhere), ("no_proxy", "127.0.0.1")]);
    direct(&[], &[("https_proxy", nowhere), ("HTTP_PROXY", nowhere)]);
    direct(&["-x", nowhere], &[("NO_PROXY", "127.0.0.0/8")]);
    direct(&["-x", nowhere, "--noproxy", "127.0.0.1"], &[("no_proxy", "other")]);
}

#[test]
fn what_a_proxy_refuses_is_reported() {
    let (address, thread) = serve(|mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\nnot you\n");
        peer.read_to_end();
    });
    let words = format!(
        "proxy http://{address} refused a tunnel to chat.example:80: 403 Forbidden: not you"
    );
    greet(&mut connecting(&["--proxy", &address.to_string()])).expect(3, &words);
    thread.join().unwrap();

    let (address, thread) = serve(|mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n");
        peer.read_to_end();
    });
    let words = "wants a user and a password; write USER:PASSWORD@ before its host";
    greet(&mut connecting(&["--proxy", &address.to_string()])).expect(3, words);
    thread.join().unwrap();
}

#[test]
fn addresses_replace_look_ups() {
    let server = Server::start(&[]);
    let port = server.address().port();
    let url = format!("ws://chat.invalid:{port}/");
    let resolve = format!("chat.invalid:{port}:127.0.0.1");
    assert_greeted(&connect(
        &[&url, "--resolve", "other:1:::1", "--resolve", &resolve],
        b"hello\n",
    ));
    assert_greeted(&connect(&[&url, "--resolve", &format!("*:{port}:127.0.0.1")], b"hello\n"));
    let elsewhere = format!("chat.invalid:{}:127.0.0.1", port ^ 1);
    connect(&[&url, "--resolve", &elsewhere], b"").expect(3, "cannot look up chat.invalid");

    let bench = anyloop(["bench", &url, "--duration", "0.1", "--resolve", &resolve]).output();
    let bench = bench.expect("the program starts");
    assert!(bench.status.success(), "{}", String::from_utf8_lossy(&bench.stderr));
}

#[test]
fn a_benchmark_goes_through_the_proxy() {
    let server = Server::start(&[]);
    let (address, seen) = proxy_to(server.address());
    let proxy = address.to_string();
    let bench =
        anyloop(["bench", "ws://chat.example/", "--duration", "0.1", "-x", &proxy]).output();
    let bench = bench.expect("the program starts");
    assert!(bench.status.success(), "{}", String::from_utf8_lossy(&bench.stderr));
    assert!(seen.join().unwrap().starts_with("CONNECT chat.example:80 "));
}

#[test]
fn wrong_arguments_exit_with_2() {
    for options in [
        ["--proxy", "socks4://127.0.0.1:1"],
        ["--proxy", "http://127.0.0.1:1/path"],
        ["--resolve", "chat.example:80"],
        ["--resolve", "chat.example:80:elsewhere"],
        ["--proxy-ca", "/no/such/file"],
    ] {
        assert_eq!(greet(&mut connecting(&options)).code(), Some(2), "{options:?}");
    }
    let ended = greet(&mut connecting(&["--proxy", "http://alice:secret@127.0.0.1:0"]));
    ended.expect(2, "--proxy: invalid URI of a proxy: invalid port");
    assert!(!ended.stderr.contains("secret"), "{}", ended.stderr);
    let ended = greet(connecting(&[]).env("http_proxy", "ftp://alice:secret@a:1"));
    ended.expect(2, "the environment variable http_proxy names no proxy");
    assert!(!ended.stderr.contains("secret"), "{}", ended.stderr);
}

#[test]
fn redirects_are_followed_if_asked() {
    let server = Server::start(&[]);
    let to = server.url("/");
    let redirect = move |to: String| {
        serve(move |mut peer| {
            peer.read_head();
            peer.write(format!(
                "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"
            ));
            peer.read_to_end();
        })
    };
    let (address, thread) = redirect(to.clone());
    assert_greeted(&connect(&[&format!("ws://{address}/"), "--location"], b"hello\n"));
    thread.join().unwrap();
    let (address, thread) = redirect(to.clone());
    connect(&[&format!("ws://{address}/")], b"")
        .expect(4, &format!("it points to {to}; --location follows it"));
    thread.join().unwrap();
    let (address, thread) = redirect("ftp://chat.example/".to_string());
    connect(&[&format!("ws://{address}/"), "-L"], b"").expect(
        4,
        "the redirect to ftp://chat.example/ is not followed: scheme is neither ws nor wss",
    );
    thread.join().unwrap();
}
