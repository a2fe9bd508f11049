//! Tunnels that open: what goes to the proxy, what to the server, and which connections use a proxy at all.

use std::net::SocketAddr;
use std::sync::Arc;

use anyloop::net::{Proxy, ProxyRules};
use anyloop::prelude::*;
use anyloop::proto::Role;
use anyloop::proto::handshake::http::{HeaderMap, HeaderValue, header};
use anyloop_testkit::frames::{close, text};
use anyloop_testkit::peer::serve;
use anyloop_testkit::requests;
use anyloop_testkit::watchdog::watchdog;

use super::{CONNECTED, ESTABLISHED, http_proxy, read, read_socks_request, socks_proxy};
use crate::record::Log;
use crate::setup::{
    GREETED, Running, Shared, closed, echo, greeting_with, recording_client_with, shared,
};

/// Connects to `uri` with this configuration, and asserts that a message comes back.
#[track_caller]
pub(super) fn greet(config: ClientConfig, uri: &str) {
    let log = Log::default();
    let client = greeting_with(&log, config);
    client.connect(uri).unwrap();
    client.run();
    assert_eq!(log.take(), GREETED);
}

/// An echo that keeps the fields of the requests it gets.
fn echo_and_fields() -> (Running, Shared<HeaderMap>) {
    let fields = shared();
    let (mut server, sees) = (echo(), fields.clone());
    server.on_validate(move |request, _| {
        sees.lock().unwrap().push(request.headers().clone());
        Accept::new()
    });
    (Running::start(server), fields)
}

#[test]
fn through_an_http_proxy_each_side_gets_only_its_own_credentials() {
    let _watchdog = watchdog();
    let (running, fields) = echo_and_fields();
    let (proxy, seen) = http_proxy(running.address, ESTABLISHED);
    let proxy = proxy.with_credentials("alice", "s@fe").unwrap();
    let config = ClientConfig::new()
        .proxy(proxy)
        .header(header::COOKIE, HeaderValue::from_static("session=17"));
    greet(config, "ws://bob:secret@chat.example/room");
    assert_eq!(
        seen.join().unwrap(),
        "CONNECT chat.example:80 HTTP/1.1\r\nHost: chat.example:80\r\n\
         Proxy-Authorization: Basic YWxpY2U6c0BmZQ==\r\n\r\n"
    );
    let fields = fields.lock().unwrap();
    let headers = &fields[0];
    assert_eq!(headers[header::HOST], "chat.example");
    assert_eq!(headers[header::COOKIE], "session=17");
    assert_eq!(headers[header::AUTHORIZATION], "Basic Ym9iOnNlY3JldA==");
    assert!(!headers.contains_key(header::PROXY_AUTHORIZATION));
}

#[test]
fn through_socks5h_the_proxy_gets_the_name() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let (address, seen) = socks_proxy(running.address);
    let log = Log::default();
    let proxy = Proxy::socks5h(address.ip().to_string(), address.port());
    let mut client = greeting_with(&log, ClientConfig::new().proxy(proxy));
    client.set_look_up(|host, _| panic!("{host} is looked up"));
    client.connect("ws://chat.example:8080/").unwrap();
    client.run();
    assert_eq!(log.take(), GREETED);
    assert_eq!(seen.join().unwrap(), b"\x05\x01\x00\x03\x0cchat.example\x1f\x90");
}

#[test]
fn through_socks5_the_client_looks_the_name_up() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let (address, seen) = socks_proxy(running.address);
    let log = Log::default();
    let proxy = Proxy::socks5("proxy.example", address.port());
    let mut client = greeting_with(&log, ClientConfig::new().proxy(proxy));
    client.set_look_up(move |host, port| {
        Ok(vec![match host {
            "chat.example" => SocketAddr::from(([192, 0, 2, 7], port)),
            "proxy.example" => address,
            other => panic!("{other} is looked up"),
        }])
    });
    client.connect("ws://chat.example/").unwrap();
    client.run();
    assert_eq!(log.take(), GREETED);
    assert_eq!(seen.join().unwrap(), b"\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x50");
}

#[test]
fn rfc1929_through_socks5_with_a_password() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let server = running.address;
    let (address, seen) = serve(move |mut peer| {
        assert_eq!(read(&mut peer, 4), b"\x05\x02\x00\x02");
        peer.write(b"\x05\x02");
        let password = read(&mut peer, 12);
        peer.write(b"\x01\x00");
        read_socks_request(&mut peer);
        peer.write(CONNECTED);
        peer.relay(server);
        password
    });
    let proxy = Proxy::parse(&format!("socks5h://alice:s%40fe@{address}")).unwrap();
    greet(ClientConfig::new().proxy(proxy), "ws://chat.example/");
    assert_eq!(seen.join().unwrap(), b"\x01\x05alice\x04s@fe");
}

/// What the proxy writes byte by byte, and what a server says at once, arrive whole.
#[test]
fn bytes_behind_the_answer_are_the_servers() {
    let _watchdog = watchdog();
    let first = text("early").bytes(Role::Server);
    let glued = [ESTABLISHED.as_bytes(), requests::RESPONSE.as_bytes(), &first].concat();
    for part in [1, 7, glued.len()] {
        let glued = glued.clone();
        let (address, thread) = serve(move |mut peer| {
            peer.read_head();
            glued.chunks(part).for_each(|bytes| peer.write(bytes));
            assert!(peer.read_head().starts_with("GET / HTTP/1.1\r\n"));
            peer.expect(&text("hello"));
            peer.expect(&close(1000, ""));
            peer.send(&[close(1000, "")]);
        });
        let log = Log::default();
        let proxy = Proxy::http("127.0.0.1", address.port());
        let config = ClientConfig::new().proxy(proxy).random(Arc::new(requests::Zeros));
        let client = greeting_with(&log, config);
        client.connect("ws://chat.example/").unwrap();
        client.run();
        assert_eq!(log.take(), ["text early", "close clean by local: 1000/1000"]);
        thread.join().unwrap();
    }
}

#[test]
fn rfc9110_9_3_6_fields_for_a_body_of_a_2xx_are_ignored() {
    let _watchdog = watchdog();
    let answers = [
        "HTTP/1.0 200 OK\r\nContent-Length: 500\r\n\r\n",
        "HTTP/1.1 204 Fine\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ];
    for answer in answers {
        let running = Running::start(echo());
        let (proxy, seen) = http_proxy(running.address, answer);
        greet(ClientConfig::new().proxy(proxy), "ws://chat.example/");
        seen.join().unwrap();
    }
}

#[test]
fn the_peer_is_the_proxy_and_the_target_the_server() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let (proxy, seen) = http_proxy(running.address, ESTABLISHED);
    let expected = format!("127.0.0.1:{}", proxy.port());
    let log = Log::default();
    let mut client = recording_client_with(&log, ClientConfig::new().proxy(proxy));
    let logs = log.clone();
    client.on_open(move |context| {
        logs.push(context.peer().to_string());
        context.close(None, "").unwrap();
    });
    client.connect("ws://chat.example/").unwrap();
    client.run();
    assert_eq!(log.take()[0], expected);
    seen.join().unwrap();
}

#[test]
fn some_connections_use_no_proxy() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let closed = closed();
    let proxy = Proxy::http(closed.address.ip().to_string(), closed.address.port());
    let rules = ProxyRules::from(proxy.clone()).no_proxy("127.0.0.0/8");
    greet(ClientConfig::new().proxy(rules), &running.url());
    greet(ClientConfig::new().proxy(ProxyRules::new().wss(proxy.clone())), &running.url());
    greet(ClientConfig::new().proxy(proxy.clone()).proxy(None), &running.url());
    // Addresses of the program's own are connected to.
    let log = Log::default();
    let client = greeting_with(&log, ClientConfig::new().proxy(proxy.clone()));
    let request = client.request("ws://chat.example/").unwrap();
    request.to_addresses([running.address]).connect().unwrap();
    client.run();
    assert_eq!(log.take(), GREETED);
    // One connection can do without.
    let log = Log::default();
    let client = greeting_with(&log, ClientConfig::new().proxy(proxy));
    let request = client.request(running.url().as_str()).unwrap();
    request.configure(|config| config.proxy(None)).connect().unwrap();
    client.run();
    assert_eq!(log.take(), GREETED);
}
