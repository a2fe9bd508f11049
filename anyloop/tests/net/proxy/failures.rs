//! Proxies that refuse, lie, or say nothing. Each failure has a typed error, and costs only its connection.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::time::Duration;

use anyloop::net::{ConnectError, Proxy, ProxyAnswerError, SocksError, SocksReply, Stage};
use anyloop::prelude::*;
use anyloop::proto::{Cause, HandshakeError, TransportError};
use anyloop_testkit::peer::{Peer, serve};
use anyloop_testkit::watchdog::watchdog;

use super::{NO_AUTHENTICATION, read, read_socks_request};
use crate::setup::{chain, client_with, closed, millis, reset, run_until};

/// A failure: its cause, the error, and the error's text.
struct Failed {
    cause: Cause,
    error: ConnectError,
    text: String,
}

/// Connects through the proxy, which does what `misbehave` does.
fn fail(
    proxy: impl FnOnce(SocketAddr) -> Proxy,
    config: ClientConfig,
    misbehave: impl FnOnce(Peer) + Send + 'static,
) -> Failed {
    let (address, thread) = serve(misbehave);
    let failed = fail_through(config.proxy(proxy(address)));
    thread.join().unwrap();
    failed
}

fn fail_through(config: ClientConfig) -> Failed {
    let mut client = client_with(config);
    let (sender, failures) = channel();
    client.on_open(|_| panic!("there is no server"));
    client.on_fail(move |failure, context| {
        let error = context.error().expect("there is an error");
        let text = chain(error)[0].clone();
        let error = copy(error.downcast_ref().expect("a ConnectError"));
        sender.send(Failed { cause: failure.cause(), error, text }).unwrap();
    });
    client.connect("ws://chat.example/").unwrap();
    assert_eq!(client.run(), 1);
    failures.try_recv().expect("it has failed")
}

/// The same error. Of an error of the system only its kind is kept.
fn copy(error: &ConnectError) -> ConnectError {
    match error {
        ConnectError::Connect { host, .. } => {
            ConnectError::Connect { host: host.clone(), attempts: Vec::new() }
        }
        ConnectError::TimedOut { host, stage, after, .. } => {
            let (host, stage, after) = (host.clone(), *stage, *after);
            ConnectError::TimedOut { host, stage, after, attempts: Vec::new() }
        }
        ConnectError::ProxyClosed { proxy, source } => {
            ConnectError::ProxyClosed { proxy: proxy.clone(), source: source.kind().into() }
        }
        ConnectError::ProxyAnswer { proxy, source } => {
            ConnectError::ProxyAnswer { proxy: proxy.clone(), source: *source }
        }
        ConnectError::ProxyAuthentication { proxy, with_credentials, challenge } => {
            let (proxy, challenge) = (proxy.clone(), challenge.clone());
            ConnectError::ProxyAuthentication {
                proxy,
                with_credentials: *with_credentials,
                challenge,
            }
        }
        ConnectError::ProxyRefused { proxy, target, status, body } => {
            let (proxy, target, body) = (proxy.clone(), target.clone(), body.clone());
            ConnectError::ProxyRefused { proxy, target, status: *status, body }
        }
        ConnectError::SocksRefused { proxy, target, reply } => {
            let (proxy, target) = (proxy.clone(), target.clone());
            ConnectError::SocksRefused { proxy, target, reply: *reply }
        }
        other => panic!("{other}"),
    }
}

fn http(address: SocketAddr) -> Proxy {
    Proxy::http("127.0.0.1", address.port())
}

fn socks(address: SocketAddr) -> Proxy {
    Proxy::socks5h("127.0.0.1", address.port())
}

/// The failure after an HTTP proxy has answered with these bytes and closed.
fn answered(answer: impl Into<Vec<u8>>) -> Failed {
    let answer = answer.into();
    fail(http, ClientConfig::new(), move |mut peer| {
        peer.read_head();
        peer.write_last(answer);
        peer.read_to_end();
    })
}

/// The failure after a SOCKS5 proxy has answered the greeting and the request with these bytes.
fn replied(method: &'static [u8], reply: Vec<u8>) -> Failed {
    fail(socks, ClientConfig::new(), move |mut peer| {
        read(&mut peer, 3);
        peer.write(method);
        if !reply.is_empty() {
            read_socks_request(&mut peer);
            peer.write(reply);
        }
        peer.read_to_end();
    })
}

#[test]
fn a_refusal_is_reported_with_its_body() {
    let _watchdog = watchdog();
    let failed = answered("HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\nnot you\n");
    assert_eq!(failed.cause, Cause::Transport(TransportError::Other));
    let ConnectError::ProxyRefused { proxy, target, status: 403, body } = failed.error else {
        panic!("{}", failed.text);
    };
    assert_eq!((target.as_str(), body.as_slice()), ("chat.example:80", b"not you\n".as_slice()));
    let expected = format!("proxy {proxy} refused a tunnel to chat.example:80: 403 Forbidden");
    assert_eq!(failed.text, expected);
    assert!(proxy.starts_with("http://127.0.0.1:"));

    let long = ["HTTP/1.1 502 Bad\r\n\r\n".to_string(), "x".repeat(100_000)].concat();
    let ConnectError::ProxyRefused { status: 502, body, .. } = answered(long).error else {
        panic!("another error");
    };
    assert_eq!(body.len(), 4096);
}

/// The body of a refusal may be endless, or never come.
#[test]
fn a_refusal_that_stalls_is_reported_after_the_timeout() {
    let _watchdog = watchdog();
    let config = ClientConfig::new().connect_timeout(millis(100));
    let failed = fail(http, config, |mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 503 Busy\r\nContent-Length: 99\r\n\r\nlater");
        peer.read_to_end();
    });
    let refused = matches!(
        &failed.error,
        ConnectError::ProxyRefused { status: 503, body, .. } if body == b"later"
    );
    assert!(refused, "{}", failed.text);
}

#[test]
fn a_user_and_a_password_are_asked_for_or_not_accepted() {
    let _watchdog = watchdog();
    let asks = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"a\"\r\n\
        Content-Length: 0\r\n\r\n";
    let failed = answered(asks);
    assert!(
        failed.text.ends_with("wants a user and a password (Basic realm=\"a\")"),
        "{}",
        failed.text
    );
    // It goes to terminals and logs.
    let field = format!("\u{9b}31m\u{202e}{}", "x".repeat(9_000));
    let failed = answered(format!("HTTP/1.1 407 No\r\nProxy-Authenticate: {field}\r\n\r\n"));
    let shown = format!("(\\u{{9b}}31m\\u{{202e}}{}…)", "x".repeat(195));
    assert!(failed.text.ends_with(&shown), "{}", failed.text);
    // tinyproxy answers so to a wrong password.
    let failed = answered("HTTP/1.0 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    assert!(matches!(failed.error, ConnectError::ProxyAuthentication { challenge: None, .. }));
    let with_password = |address| http(address).with_credentials("alice", "hidden").unwrap();
    let failed = fail(with_password, ClientConfig::new(), move |mut peer| {
        assert!(peer.read_head().contains("\r\nProxy-Authorization: Basic "));
        peer.write(asks);
        peer.read_to_end();
    });
    assert!(matches!(
        failed.error,
        ConnectError::ProxyAuthentication { with_credentials: true, .. }
    ));
    assert!(failed.text.contains("does not accept this user and password"), "{}", failed.text);
    assert!(!failed.text.contains("hidden"));

    let failed = replied(b"\x05\xff", Vec::new());
    assert!(matches!(
        failed.error,
        ConnectError::ProxyAuthentication { with_credentials: false, .. }
    ));
    let with_password = |address| socks(address).with_credentials("alice", "wrong").unwrap();
    let failed = fail(with_password, ClientConfig::new(), |mut peer| {
        read(&mut peer, 4);
        peer.write(b"\x05\x02");
        read(&mut peer, 13);
        peer.write(b"\x01\x01");
        peer.read_to_end();
    });
    assert!(matches!(
        failed.error,
        ConnectError::ProxyAuthentication { with_credentials: true, .. }
    ));
}

#[test]
fn rfc1928_6_each_reply_is_reported() {
    let _watchdog = watchdog();
    let cases = [
        (1, SocksReply::GeneralFailure, TransportError::Other),
        (2, SocksReply::NotAllowed, TransportError::Other),
        (3, SocksReply::NetworkUnreachable, TransportError::Unreachable),
        (4, SocksReply::HostUnreachable, TransportError::Unreachable),
        (5, SocksReply::ConnectionRefused, TransportError::Refused),
        (6, SocksReply::TtlExpired, TransportError::TimedOut),
        (7, SocksReply::CommandNotSupported, TransportError::Other),
        (8, SocksReply::AddressTypeNotSupported, TransportError::Other),
        (9, SocksReply::Other(9), TransportError::Other),
    ];
    for (code, expected, kind) in cases {
        let failed = replied(NO_AUTHENTICATION, vec![5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(failed.cause, Cause::Transport(kind));
        let ConnectError::SocksRefused { target, reply, .. } = failed.error else {
            panic!("{}", failed.text);
        };
        assert_eq!((target.as_str(), reply), ("chat.example:80", expected));
    }
}

#[test]
fn what_is_no_answer_is_reported() {
    let _watchdog = watchdog();
    let http_error = |failed: Failed| match failed.error {
        ConnectError::ProxyAnswer { source: ProxyAnswerError::Http(error), .. } => error,
        _ => panic!("{}", failed.text),
    };
    let not_http = http_error(answered("\x05\x00"));
    let why = r#"not an HTTP response: the first bytes are "\x05\x00""#;
    assert_eq!(not_http.to_string(), why);
    assert_eq!(http_error(answered("HTTP/2 200 OK\r\n\r\n")), HandshakeError::HttpVersion);
    let big = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "b".repeat(20_000));
    assert_eq!(http_error(answered(big)), HandshakeError::HeadTooBig);

    let socks_error = |failed: Failed| match failed.error {
        ConnectError::ProxyAnswer { source: ProxyAnswerError::Socks(error), .. } => error,
        _ => panic!("{}", failed.text),
    };
    assert_eq!(socks_error(replied(b"HTTP/1.1 400", Vec::new())), SocksError::Version(b'H'));
    assert_eq!(socks_error(replied(b"\x05\x01", Vec::new())), SocksError::Method(1));
    assert_eq!(
        socks_error(replied(NO_AUTHENTICATION, vec![5, 0, 0, 9])),
        SocksError::AddressType(9)
    );
}

#[test]
fn a_proxy_that_closes_or_resets_is_reported() {
    let _watchdog = watchdog();
    let closed = |failed: Failed| match failed.error {
        ConnectError::ProxyClosed { source, .. } => source.kind(),
        _ => panic!("{}", failed.text),
    };
    let at_once = fail(http, ClientConfig::new(), |peer| peer.finish());
    assert!([ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset].contains(&closed(at_once)));
    assert_eq!(closed(answered("HTTP/1.1 200 OK\r\nVia")), ErrorKind::UnexpectedEof);
    let failed = fail(http, ClientConfig::new(), |mut peer| {
        peer.read_head();
        reset(peer);
    });
    assert_eq!(failed.cause, Cause::Transport(TransportError::Reset));
    assert_eq!(closed(failed), ErrorKind::ConnectionReset);
    let failed = fail(socks, ClientConfig::new(), |mut peer| {
        read(&mut peer, 3);
        peer.write_last(b"\x05");
        peer.read_to_end();
    });
    assert_eq!(closed(failed), ErrorKind::UnexpectedEof);
}

#[test]
fn a_proxy_that_stalls_costs_the_connect_timeout() {
    let _watchdog = watchdog();
    for answer in ["", "H", "HTTP/1.1 200 OK\r\n"] {
        stall(http, answer);
    }
    for answer in ["", "\x05"] {
        stall(socks, answer);
    }
}

/// The proxy says only this.
fn stall(proxy: fn(SocketAddr) -> Proxy, answer: &'static str) {
    let timeout = millis(100);
    let failed = fail(proxy, ClientConfig::new().connect_timeout(timeout), move |mut peer| {
        peer.write(answer);
        peer.read_to_end();
    });
    assert_eq!(failed.cause, Cause::Transport(TransportError::TimedOut));
    let ConnectError::TimedOut { host, stage, after, .. } = failed.error else {
        panic!("{}", failed.text);
    };
    assert_eq!((stage, after), (Stage::Proxy, timeout));
    assert!(host.starts_with("proxy "), "{host}");
}

#[test]
fn the_total_timeout_includes_the_proxy() {
    let _watchdog = watchdog();
    let total: Duration = millis(100);
    let config = ClientConfig::new().connect_timeout(None).total_timeout(total);
    let failed = fail(http, config, |mut peer| _ = peer.read_to_end());
    assert!(
        matches!(failed.error, ConnectError::TimedOut { stage: Stage::Proxy, after, .. } if after == total)
    );
}

#[test]
fn a_proxy_that_is_not_there_is_named() {
    let _watchdog = watchdog();
    let closed = closed();
    let failed = fail_through(ClientConfig::new().proxy(http(closed.address)));
    assert_eq!(failed.cause, Cause::Transport(TransportError::Refused));
    let expected = format!("cannot connect to proxy http://{}", closed.address);
    assert!(failed.text.starts_with(&expected), "{}", failed.text);

    let mut client = client_with(ClientConfig::new().proxy(Proxy::http("nowhere.example", 1)));
    client.set_look_up(|host, _| {
        assert_eq!(host, "nowhere.example");
        Err(ErrorKind::NotFound.into())
    });
    let (sender, texts) = channel();
    client.on_fail(move |_, context| sender.send(context.error().unwrap().to_string()).unwrap());
    client.connect("ws://chat.example/").unwrap();
    client.run();
    assert_eq!(texts.recv().unwrap(), "cannot look up proxy http://nowhere.example:1");
}

#[test]
fn a_handle_ends_a_connection_that_waits_for_the_proxy() {
    let _watchdog = watchdog();
    let (sender, heads) = channel();
    let (address, thread) = serve(move |mut peer| {
        sender.send(peer.read_head()).unwrap();
        peer.read_to_end()
    });
    let mut client = client_with(ClientConfig::new().proxy(http(address)));
    client.on_fail(|_, _| {});
    let handle = client.connect("ws://chat.example/").unwrap();
    run_until(client.event_loop(), "the proxy has the request", || heads.try_recv().is_ok());
    handle.terminate().unwrap();
    client.run();
    assert_eq!(client.counters().failed, 1);
    assert!(thread.join().unwrap().is_empty());
}
