//! What keeps `run` going: regular and perpetual mode, connections, and listeners.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use anyloop::net::Error;
use anyloop::prelude::*;
use anyloop_testkit::peer::Peer;
use anyloop_testkit::wait::{PATIENCE, eventually};
use anyloop_testkit::watchdog::watchdog;
use anyloop_testkit::{frames, requests};

use crate::record::Log;
use crate::setup::{
    Running, client, echo, echo_on, millis, recording_client, recording_client_on,
    recording_server, run_until, server_config, url,
};

#[test]
fn run_returns_when_all_connections_are_done() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let log = Log::default();
    let mut client = recording_client(&log);
    client.on_open(|context| {
        context.set_timer(millis(20), |_, context| {
            context.close(CloseCode::NORMAL, "").unwrap();
        });
    });
    for _ in 0..3 {
        client.connect(running.url().as_str()).unwrap();
    }
    let closed = crate::setup::closed();
    client.connect(url(closed.address).as_str()).unwrap();
    client.run();
    assert!(client.stopped());
    let counters = client.counters();
    assert_eq!((counters.closed, counters.failed), (3, 1));
    // A stopped loop runs nothing, and loses nothing.
    client.connect(running.url().as_str()).unwrap();
    assert_eq!((client.run(), client.poll()), (0, 0));
    client.reset().unwrap();
    client.run();
    assert_eq!(client.counters().closed, 4);
}

#[test]
fn perpetual_mode() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let mut client = client();
    let (closing, closed) = channel();
    let closing = std::sync::Mutex::new(closing);
    client.on_open(|context| context.close(CloseCode::NORMAL, "").unwrap());
    client.on_close(move |_, _| closing.lock().unwrap().send(()).unwrap());
    client.start_perpetual();
    client.start_perpetual(); // the second call changes nothing
    let client = Arc::new(client);
    let runs = client.clone();
    let (returning, returned) = channel();
    let thread = thread::spawn(move || returning.send(runs.run()).unwrap());
    for _ in 0..3 {
        client.connect(running.url().as_str()).unwrap();
        closed.recv_timeout(PATIENCE).expect("it is closed");
        assert!(returned.recv_timeout(millis(30)).is_err(), "it goes on");
    }
    client.stop_perpetual();
    returned.recv_timeout(PATIENCE).expect("run returns");
    thread.join().unwrap();
    client.stop_perpetual();
    assert!(client.stopped());
}

#[test]
fn perpetual_mode_waits_for_open_connections() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let client = client();
    client.start_perpetual();
    let handle = client.connect(running.url().as_str()).unwrap();
    let event_loop = client.event_loop();
    run_until(event_loop, "it is open", || client.counters().opened == 1);
    client.stop_perpetual();
    client.run_for(millis(50));
    assert!(!client.stopped(), "there is a connection");
    handle.close(CloseCode::NORMAL, "").unwrap();
    client.run();
    assert_eq!(client.counters().closed, 1);
}

#[test]
fn stop_and_reset_lose_nothing() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let log = Log::default();
    let mut client = recording_client(&log);
    let logs = log.clone();
    client.on_open(move |context| {
        logs.push("open");
        for text in ["1", "2", "3", "4"] {
            let _ = context.send(text).unwrap();
        }
    });
    let client = Arc::new(client);
    let handle = client.connect(running.url().as_str()).unwrap();
    let event_loop = client.event_loop();
    // Each call runs one handler, and the loop is stopped and reset after it.
    let mut lines = Vec::new();
    while lines.len() < 5 {
        assert_eq!(client.run_one(), 1);
        let new = log.take();
        assert_eq!(new.len(), 1);
        lines.extend(new);
        client.stop();
        assert_eq!((client.run_one(), client.poll_one()), (0, 0));
        event_loop.reset().unwrap();
    }
    assert_eq!(lines, ["open", "text 1", "text 2", "text 3", "text 4"]);
    handle.close(CloseCode::NORMAL, "").unwrap();
    assert_eq!(client.run_one(), 1);
    assert_eq!(log.take(), ["close clean by local: 1000/1000"]);
    assert_eq!(client.run_one(), 0);
}

#[test]
fn polling_is_enough() {
    let _watchdog = watchdog();
    let event_loop = EventLoop::new().unwrap();
    let server = echo_on(&event_loop);
    let address = server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    let log = Log::default();
    let mut client = recording_client_on(&log, &event_loop);
    client.on_open(|context| _ = context.send("hello").unwrap());
    let logs = log.clone();
    client.on_message(move |message, context| {
        logs.message(message);
        context.close(CloseCode::NORMAL, "").unwrap();
    });
    client.connect(url(address).as_str()).unwrap();
    let (start, mut called, mut lines) = (Instant::now(), 0, Vec::new());
    while lines.len() < 2 {
        let one = event_loop.poll_one();
        assert!(one <= 1);
        called += one;
        lines.extend(log.take());
        assert!(start.elapsed() < PATIENCE, "{lines:?}");
        thread::yield_now();
    }
    assert_eq!(lines, ["text hello", "close clean by local: 1000/1000"]);
    assert!(called >= 6, "validate, open, message and close of the two: {called}");
}

/// The server stops accepting, closes all connections with 1001, and waits no longer than `close_timeout`.
#[test]
fn a_server_shuts_down_gracefully() {
    let _watchdog = watchdog();
    let log = Log::default();
    let config = server_config().close_timeout(millis(300));
    let running = Running::start(recording_server(&log, config));
    let mut polite = Peer::open(running.address);
    let mut silent = Peer::open(running.address);
    let mut shaking = Peer::connect(running.address);
    shaking.write(&requests::REQUEST[..20]);
    eventually("all are there", || running.server.connections().len() == 3);
    log.take();
    let start = Instant::now();
    running.server.stop_listening();
    running.server.shut_down();
    assert!(running.server.is_shutting_down());
    let goodbye = frames::close(1001, "shutting down");
    assert_eq!(polite.receive(), goodbye);
    polite.send(&[frames::close(1001, "")]);
    assert!(polite.read_to_end().is_empty());
    // It gets a response if a part of its request was read by then.
    let answer = shaking.read_to_end();
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 503 "));
    drop(shaking);
    assert_eq!(silent.receive(), goodbye);
    assert!(silent.read_to_end().is_empty());
    running.returned();
    let elapsed = start.elapsed();
    assert!(elapsed >= millis(290) && elapsed < PATIENCE / 5, "{elapsed:?}");
    let mut lines = log.take();
    lines.sort();
    assert_eq!(
        lines,
        [
            "close clean by local: 1001/1001",
            "close unclean by timer: 1001/none, closing handshake timed out",
            "fail by local: opening handshake abandoned",
        ]
    );
    assert!(running.server.connections().is_empty());
}

/// Shutting down is final: after a reset the server neither listens nor accepts.
#[test]
fn nothing_listens_after_a_shutdown() {
    let _watchdog = watchdog();
    let server = echo();
    server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    server.shut_down();
    server.run();
    server.reset().unwrap();
    let tcp = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let path = crate::setup::new_path();
    let results = [
        ("listen", server.listen("127.0.0.1:0").map(drop)),
        ("listen_each", server.listen_each("127.0.0.1:0").map(drop)),
        ("listen_port", server.listen_port(0).map(drop)),
        ("listen_only_v6", server.listen_only_v6("[::1]:0".parse().unwrap()).map(drop)),
        ("listen_on", server.listen_on(tcp()).map(drop)),
        ("listen_unix", server.listen_unix(&path)),
        ("start_accept", server.start_accept()),
    ];
    for (call, result) in results {
        assert!(matches!(result, Err(Error::ShutDown)), "{call}: {result:?}");
    }
    assert!(!server.is_listening() && !server.is_accepting() && !path.exists());
}

/// No listener is left, however the calls interleave.
#[test]
fn a_shutdown_while_another_thread_listens() {
    let _watchdog = watchdog();
    for _ in 0..50 {
        let server = Arc::new(echo());
        let listens = server.clone();
        let thread = thread::spawn(move || {
            loop {
                if let Err(error) = listens.listen("127.0.0.1:0") {
                    break error;
                }
            }
        });
        eventually("it listens", || server.is_listening());
        server.shut_down();
        assert!(matches!(thread.join().unwrap(), Error::ShutDown));
        assert!(!server.is_listening());
    }
}

/// No connection is accepted any more, not even from the queue.
#[test]
fn connections_during_a_shutdown_are_refused() {
    let _watchdog = watchdog();
    let server = echo();
    let address = server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    let mut queued = Peer::connect(address);
    server.shut_down();
    assert!(!server.is_listening() && !server.is_accepting());
    let refused = std::net::TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(queued.read_to_end().is_empty());
    server.run();
    assert!(server.connections().is_empty());
}

#[test]
fn a_client_closes_all() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let client = client();
    for _ in 0..10 {
        client.connect(running.url().as_str()).unwrap();
    }
    let event_loop = client.event_loop();
    run_until(event_loop, "all are open", || client.counters().opened == 10);
    assert_eq!(client.close_all(CloseCode::GOING_AWAY, ""), Ok(10));
    client.run();
    assert_eq!(client.counters().closed, 10);
    eventually("the server has closed all", || running.server.counters().closed == 10);
}

/// The loop owns the connections, not the client.
#[test]
fn connections_of_a_dropped_client_go_on() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let event_loop = EventLoop::new().unwrap();
    let log = Log::default();
    let client = recording_client_on(&log, &event_loop);
    let handle = client.connect(running.url().as_str()).unwrap();
    run_until(&event_loop, "it is open", || client.counters().opened == 1);
    drop(client);
    let _ = handle.send("hello").unwrap();
    let mut lines = log.take();
    run_until(&event_loop, "the echo", || {
        lines.extend(log.take());
        lines.contains(&"text hello".to_string())
    });
    handle.close(CloseCode::NORMAL, "").unwrap();
    event_loop.run();
    assert_eq!(log.take(), ["close clean by local: 1000/1000"]);
}

#[test]
fn several_threads_run_one_server() {
    let _watchdog = watchdog();
    let server = Arc::new(echo());
    let address = server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let server = server.clone();
            thread::spawn(move || server.run())
        })
        .collect();
    let peers: Vec<_> = (0..8)
        .map(|peer| {
            thread::spawn(move || {
                let mut own = Peer::open(address);
                for number in 0..100 {
                    own.echo(&format!("{peer} {number}"));
                }
                own.close();
            })
        })
        .collect();
    peers.into_iter().for_each(|peer| peer.join().unwrap());
    server.stop_listening();
    let called: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(called, 8 * (1 + 1 + 100 + 1), "validate, open, the messages, close");
    assert_eq!(server.counters().messages_received, 800);
}
