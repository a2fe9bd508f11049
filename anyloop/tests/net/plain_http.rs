//! Plain HTTP requests to a WebSocket server.

use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use anyloop::net::Server;
use anyloop::prelude::*;
use anyloop::proto::handshake::http::{Response, StatusCode};
use anyloop_testkit::peer::Peer;
use anyloop_testkit::wait::{PATIENCE, eventually};
use anyloop_testkit::watchdog::watchdog;

use crate::record::{Log, recording};
use crate::setup::{Running, echo, millis, reset, server, server_config, server_with, shared};

#[test]
fn a_response_can_be_deferred() {
    let _watchdog = watchdog();
    let waiting = shared::<Handle<Handlers>>();
    let waits = waiting.clone();
    let mut server = server();
    server.on_http(move |request, context| {
        assert_eq!(request.body(), b"ping");
        waits.lock().unwrap().push(context.handle());
        Answer::Defer
    });
    let running = Running::start(server);
    let mut peer = Peer::connect(running.address);
    peer.write("POST /job HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nping");
    eventually("it was asked", || waiting.lock().unwrap().len() == 1);
    // A posted function runs after the handler has returned.
    let (sender, returned) = channel();
    running.server.event_loop().post(move || sender.send(()).unwrap());
    returned.recv_timeout(PATIENCE).unwrap();
    let handle = waiting.lock().unwrap().pop().unwrap();
    let mut response = Response::new(b"pong".to_vec());
    *response.status_mut() = StatusCode::CREATED;
    handle.respond(response).unwrap();
    let answer = String::from_utf8(peer.read_to_end()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\npong"), "{answer}");
    drop(peer);
    eventually("it was counted", || running.server.counters().http == 1);
    assert!(running.server.connections().is_empty());
}

/// A peer that disconnects ends its connection at once, without the answer.
#[test]
fn a_peer_disconnects_before_the_response() {
    let _watchdog = watchdog();
    let waiting = shared::<Handle<Handlers>>();
    let waits = waiting.clone();
    let mut server = server_with(server_config().answer_timeout(2 * PATIENCE));
    server.on_http(move |_, context| {
        waits.lock().unwrap().push(context.handle());
        Answer::Defer
    });
    let running = Running::start(server);
    let peer = Peer::connect(running.address);
    peer.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it was asked", || waiting.lock().unwrap().len() == 1);
    reset(peer);
    eventually("it is gone", || running.server.connections().is_empty());
    let handle = waiting.lock().unwrap().pop().unwrap();
    assert!(handle.respond(Response::new(Vec::new())).is_err());
    assert_eq!(running.server.counters().failed, 1);
}

/// Plain requests and WebSocket connections on one port.
#[test]
fn requests_beside_connections() {
    let _watchdog = watchdog();
    let mut server = echo();
    server.on_http(|request, _| Answer::status(StatusCode::OK, request.uri().path()));
    let running = Running::start(server);
    let mut open = Peer::open(running.address);
    for number in 0..50 {
        let mut peer = Peer::connect(running.address);
        peer.write(format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let answer = String::from_utf8(peer.read_to_end()).unwrap();
        assert!(answer.ends_with(&format!("/{number}\n")), "{answer}");
        open.echo(&format!("{number}"));
    }
    eventually("all are counted", || running.server.counters().http == 50);
}

/// The system takes what it has room for. The rest waits for the peer, whatever the timeout of the end of the stream.
#[test]
fn a_response_that_is_read_late_is_complete() {
    const LEN: usize = 30_000_000;
    let _watchdog = watchdog();
    let mut server = server_with(server_config().close_timeout(millis(1)));
    server.on_http(|_, _| Response::new(vec![7; LEN]));
    let running = Running::start(server);
    let mut peer = Peer::connect(running.address);
    peer.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let waits = || running.server.connections().iter().any(|it| it.buffered_amount() > 0);
    eventually("it is blocked", waits);
    let answer = peer.read_to_end();
    assert!(answer.len() > LEN && answer.ends_with(&[7; LEN]), "{} bytes came", answer.len());
    drop(peer);
    eventually("it was counted", || running.server.counters().http == 1);
}

#[test]
fn a_peer_that_reads_nothing_fails() {
    let _watchdog = watchdog();
    let log = Log::default();
    let mut handlers = recording(&log);
    let endless = || Body::from_reader(std::io::repeat(7), None);
    handlers.on_http(move |_, _| Response::new(endless()));
    let config = server_config().response_timeout(millis(20));
    let server = Server::with_factory(config, handlers).unwrap();
    let running = Running::start(server);
    let peer = Peer::connect(running.address);
    peer.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it has failed", || running.server.counters().failed == 1);
    assert_eq!(log.take(), ["fail by timer: response not read in time"]);
}

/// A client that reads as fast as it can does not keep the others waiting.
#[test]
fn an_endless_response_beside_connections() {
    const COUNT: usize = 100;
    let _watchdog = watchdog();
    let mut server = echo();
    server.on_http(|_, _| Response::new(Body::from_reader(std::io::repeat(7), None)));
    let running = Running::start(server);
    let mut peers: Vec<_> = (0..COUNT).map(|_| Peer::open(running.address)).collect();
    let reader = Peer::connect(running.address);
    reader.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let received = Arc::new(AtomicU64::new(0));
    let (counter, socket) = (received.clone(), reader.writer());
    let reads = thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        while let Ok(n @ 1..) = (&socket).read(&mut buffer) {
            counter.fetch_add(n as u64, Ordering::Relaxed);
        }
    });
    for round in 0..5 {
        // In each round the response goes on.
        let before = received.load(Ordering::Relaxed);
        eventually("more has come", || received.load(Ordering::Relaxed) > before + (1 << 20));
        peers.iter_mut().for_each(|peer| peer.echo(&format!("{round}")));
    }
    reader.writer().shutdown(Shutdown::Both).unwrap();
    reads.join().unwrap();
    drop(reader);
    eventually("it is gone", || running.server.counters().failed == 1);
    peers.into_iter().for_each(Peer::close);
}

/// The loop's thread would wait for itself.
#[test]
fn a_write_on_the_thread_of_the_loop_does_not_wait() {
    let _watchdog = watchdog();
    let mut server = server();
    server.on_http(|_, _| {
        let (mut writer, body) = Body::channel(None);
        let error = std::io::copy(&mut std::io::repeat(7), &mut writer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        writer.finish().unwrap();
        Response::new(body)
    });
    let running = Running::start(server);
    let mut peer = Peer::connect(running.address);
    peer.write("GET / HTTP/1.0\r\n\r\n");
    assert!(peer.read_to_end().len() > ServerConfig::new(OriginPolicy::Any).get_high_water_mark());
}
