//! Sockets that the program has accepted or connected itself.

use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;

use anyloop::http::{Request, Version};
use anyloop::iostream;
use anyloop::net::{Client, Error, Server};
use anyloop::prelude::*;
use anyloop::proto::{Random, Role};
use anyloop_testkit::frames::{self, text};
use anyloop_testkit::peer::Peer;
use anyloop_testkit::requests::{REQUEST, RESPONSE};
use anyloop_testkit::wait::PATIENCE;
use anyloop_testkit::watchdog::watchdog;

/// Makes the nonce to which `RESPONSE` is the answer.
struct Zeros;

impl Random for Zeros {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

fn echo() -> Server {
    let mut server = Server::new(ServerConfig::new(OriginPolicy::Any)).unwrap();
    server.on_message(|message, context| _ = context.send(message));
    server
}

/// Two connected TCP sockets.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

fn run_to_the_end(server: Server) -> thread::JoinHandle<usize> {
    thread::spawn(move || server.run())
}

#[test]
fn a_server_adopts_what_was_accepted_and_read() {
    let _watchdog = watchdog();
    let server = echo();
    let (client, accepted) = pair();
    let mut peer = Peer::over(client, Role::Client);
    let received = [REQUEST.as_bytes(), &text("early").bytes(Role::Client)].concat();
    let (head, rest) = received.split_at(received.len() - 3); // in the middle of the frame
    server.adopt(accepted, head).unwrap();
    peer.write(rest);
    let running = run_to_the_end(server);
    peer.read_head();
    peer.expect(&text("early"));
    peer.echo("late");
    peer.close();
    running.join().unwrap();
}

#[test]
fn a_server_adopts_a_unix_socket_while_it_runs() {
    let _watchdog = watchdog();
    let server = echo();
    let keep_alive = server.event_loop().keep_alive();
    thread::scope(|scope| {
        scope.spawn(|| server.run());
        let (client, accepted) = UnixStream::pair().unwrap();
        let handle = server.adopt(accepted, b"").unwrap();
        let mut peer = Peer::over(client, Role::Client);
        peer.shake_hands();
        peer.echo("hello");
        handle.close(CloseCode::NORMAL, "").unwrap();
        peer.expect_close(1000);
        peer.send(&[frames::close(1000, "")]);
        peer.expect_eof();
        drop(keep_alive);
    });
}

fn request() -> Request<()> {
    Request::get("/chat?room=1")
        .header("host", "a")
        .header("upgrade", "websocket")
        .header("connection", "Upgrade")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-version", "13")
        .body(())
        .unwrap()
}

#[test]
fn a_server_takes_a_request_that_another_http_server_has_read() {
    let _watchdog = watchdog();
    let mut server = echo();
    server.on_validate(|request, _| {
        assert_eq!(request.uri(), "/chat?room=1");
        Answer::accept()
    });
    let (client, accepted) = pair();
    let mut peer = Peer::over(client, Role::Client);
    let early = text("early").bytes(Role::Client);
    server.upgrade(accepted, &request(), &early).unwrap();
    let running = run_to_the_end(server);
    assert!(peer.read_head().starts_with("HTTP/1.1 101 "));
    peer.expect(&text("early"));
    peer.close();
    running.join().unwrap();
}

#[test]
fn a_request_that_is_no_upgrade_is_refused() {
    let _watchdog = watchdog();
    let server = echo();
    let (client, accepted) = pair();
    let mut peer = Peer::over(client, Role::Client);
    let mut request = request();
    *request.version_mut() = Version::HTTP_10; // RFC 6455 §4.1: at least HTTP/1.1
    server.upgrade(accepted, &request, b"").unwrap();
    let running = run_to_the_end(server);
    assert!(peer.read_head().starts_with("HTTP/1.1 4"));
    peer.finish();
    running.join().unwrap();
}

#[test]
fn iostream_takes_a_request_that_another_http_server_has_read() {
    let mut server = iostream::Server::new(ServerConfig::new(OriginPolicy::Any));
    server.on_message(|message, context| _ = context.send(message));
    let connection = server.connection();
    connection.collect_output();
    connection.upgrade(&request(), &text("hi").bytes(Role::Client)).unwrap();
    let mut output = Vec::new();
    connection.take_output(&mut output).unwrap();
    assert!(output.starts_with(b"HTTP/1.1 101 ") && output.ends_with(b"\x81\x02hi"));
}

#[test]
fn a_client_shakes_hands_over_a_stream_that_is_connected() {
    let _watchdog = watchdog();
    let mut client = Client::new(ClientConfig::new().random(Arc::new(Zeros))).unwrap();
    let (sender, messages) = channel();
    client.on_message(move |message, _| {
        sender.send(message.as_text().map(str::to_string)).unwrap();
    });
    let (connected, accepted) = pair();
    let request = client.request("ws://behind.a.proxy/path").unwrap();
    request.adopt(connected).unwrap();
    let running = thread::spawn(move || client.run());
    let mut peer = Peer::over(accepted, Role::Server);
    let head = peer.read_head();
    assert!(head.starts_with("GET /path HTTP/1.1\r\nHost: behind.a.proxy\r\n"), "{head}");
    peer.write(RESPONSE);
    peer.send(&[text("hello")]);
    assert_eq!(messages.recv_timeout(PATIENCE), Ok(Some("hello".to_string())));
    peer.send(&[frames::close(1000, "")]);
    peer.expect_close(1000);
    peer.finish();
    running.join().unwrap();
}

#[test]
fn a_server_that_was_shut_down_adopts_nothing() {
    let server = echo();
    server.shut_down();
    let (_client, accepted) = pair();
    accepted.shutdown(Shutdown::Both).unwrap();
    assert!(matches!(server.adopt(accepted, b""), Err(Error::ShutDown)));
}

#[test]
fn what_came_behind_a_request_waits_for_the_answer() {
    let mut server = iostream::Server::new(ServerConfig::new(OriginPolicy::Any));
    server.on_validate(|_, _| Answer::Defer);
    server.on_message(|message, context| _ = context.send(message));
    let connection = server.connection();
    connection.collect_output();
    connection.upgrade(&request(), &text("hi").bytes(Role::Client)).unwrap();
    connection.handle().accept(Accept::new()).unwrap();
    connection.drive().unwrap();
    let mut output = Vec::new();
    connection.take_output(&mut output).unwrap();
    assert!(output.starts_with(b"HTTP/1.1 101 ") && output.ends_with(b"\x81\x02hi"));
}

#[test]
fn collected_output_is_written_to_an_output_that_is_set_later() {
    let mut server = iostream::Server::new(ServerConfig::new(OriginPolicy::Any));
    server.on_message(|message, context| _ = context.send(message));
    let connection = server.connection();
    connection.collect_output();
    connection.read_all(REQUEST.as_bytes()).unwrap();
    connection.collect_output(); // changes nothing
    assert!(connection.wants_output());
    let (sender, written) = channel();
    connection.set_write_handler(move |bytes| {
        sender.send(bytes.to_vec()).unwrap();
        Ok(())
    });
    connection.read_all(&text("hi").bytes(Role::Client)).unwrap();
    let written: Vec<u8> = written.try_iter().flatten().collect();
    assert!(written.starts_with(b"HTTP/1.1 101 ") && written.ends_with(b"\x81\x02hi"));
    assert!(!connection.wants_output());
}

/// RFC 9112 §3.2.2: an absolute target names the host, and not the field `Host`.
#[test]
fn the_host_of_an_absolute_target_is_that_of_the_request() {
    let mut server = iostream::Server::new(ServerConfig::new(OriginPolicy::Any));
    let (sender, hosts) = channel();
    server.on_validate(move |request, _| {
        sender.send(request.host().map(str::to_string)).unwrap();
        Accept::new()
    });
    let connection = server.connection();
    connection.collect_output();
    let mut request = request();
    *request.uri_mut() = "http://internal:81/x?y".parse().unwrap();
    connection.upgrade(&request, b"").unwrap();
    assert_eq!(hosts.try_recv().unwrap().as_deref(), Some("internal:81"));
}
