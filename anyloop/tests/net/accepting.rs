//! Accepting: bursts, peers that disconnect early, and hooks for sockets.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyloop::net::Server;
use anyloop::prelude::*;
use anyloop::proto::handshake::http::StatusCode;
use anyloop_testkit::peer::Peer;
use anyloop_testkit::wait::{PATIENCE, eventually};
use anyloop_testkit::watchdog::watchdog;
use anyloop_testkit::{frames, requests};

use crate::setup::{Running, echo, echo_with, reset, run_until, server, server_config};

#[test]
fn a_burst_is_accepted_whole() {
    const COUNT: usize = 300;
    let _watchdog = watchdog();
    let server = echo();
    let address = server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    let mut peers: Vec<_> = (0..COUNT)
        .map(|_| {
            let peer = Peer::connect(address);
            peer.write(requests::REQUEST);
            peer
        })
        .collect();
    let event_loop = server.event_loop();
    run_until(event_loop, "all are open", || server.counters().opened == COUNT as u64);
    assert_eq!(server.counters().started, COUNT as u64);
    assert_eq!(server.connections().len(), COUNT);
    let _running = Running::start(server);
    for (number, peer) in peers.iter_mut().enumerate() {
        assert!(peer.read_head().starts_with(requests::SWITCHING));
        peer.echo(&format!("{number}"));
    }
}

/// Handlers of open connections run between batches of accepted connections.
#[test]
fn open_connections_are_served_between_batches() {
    let _watchdog = watchdog();
    let server = echo();
    let address = server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    let event_loop = server.event_loop();
    let opening = std::thread::spawn(move || Peer::open(address));
    run_until(event_loop, "the first is open", || opening.is_finished());
    let mut first = opening.join().unwrap();
    let _others: Vec<_> = (0..500).map(|_| TcpStream::connect(address).unwrap()).collect();
    first.send(&[frames::text("a")]);
    let start = Instant::now();
    while event_loop.poll_one() == 0 {
        assert!(start.elapsed() < PATIENCE); // the only handler that there is to call
    }
    let made = server.counters().started;
    assert!(made < 500, "{made}");
    run_until(event_loop, "all are there", || server.counters().started == 501);
    assert_eq!(first.receive(), frames::text("a"));
}

#[test]
fn peers_that_disconnect_early_disturb_no_other() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let mut open = Peer::open(running.address);
    for round in 0..50 {
        match round % 4 {
            0 => reset(Peer::connect(running.address)),
            1 => drop(Peer::connect(running.address)),
            2 => {
                let peer = Peer::connect(running.address);
                peer.write(&requests::REQUEST[..30]);
                reset(peer);
            }
            _ => reset(Peer::open(running.address)),
        }
        open.echo(&format!("{round}"));
    }
    eventually("they are gone", || running.server.connections().len() == 1);
    let counters = running.server.counters();
    assert_eq!(counters.started, counters.failed + counters.opened);
    assert_eq!(counters.opened, counters.closed + 1);
}

/// Connections that are reset before they are accepted.
#[test]
fn a_reset_before_accepting_is_no_error() {
    let _watchdog = watchdog();
    let server = echo();
    let errors = Arc::new(AtomicUsize::new(0));
    let counts = errors.clone();
    let mut server = server;
    server.on_accept_error(move |_| _ = counts.fetch_add(1, Ordering::Relaxed));
    let address = server.listen("127.0.0.1:0").unwrap();
    for _ in 0..20 {
        reset(Peer::connect(address));
    }
    let mut last = Peer::connect(address);
    let running = Running::start(server);
    last.shake_hands();
    last.echo("a");
    eventually("the others are gone", || running.server.connections().len() == 1);
    assert_eq!(errors.load(Ordering::Relaxed), 0, "that is no failure of accepting");
}

#[test]
fn a_socket_can_be_set_up() {
    let _watchdog = watchdog();
    let mut server = echo();
    let seen = Arc::new(AtomicUsize::new(0));
    let sees = seen.clone();
    server.on_socket_init(move |socket| {
        assert!(socket.tcp_nodelay()?);
        socket.set_keepalive(true)?;
        sees.fetch_add(1, Ordering::Relaxed);
        Ok(())
    });
    let running = Running::start(server);
    Peer::open(running.address).echo("a");
    Peer::open(running.address).echo("b");
    assert_eq!(seen.load(Ordering::Relaxed), 2);
}

#[test]
fn small_messages_need_not_leave_at_once() {
    let _watchdog = watchdog();
    let mut server = echo_with(server_config().tcp_nodelay(false));
    server.on_socket_init(|socket| {
        assert!(!socket.tcp_nodelay()?);
        Ok(())
    });
    let running = Running::start(server);
    Peer::open(running.address).echo("a");
}

/// If the hook fails, the connection is dropped without a handler and without an error.
#[test]
fn a_socket_that_cannot_be_set_up() {
    let _watchdog = watchdog();
    let mut server = echo();
    let first = Arc::new(AtomicUsize::new(0));
    server.on_socket_init(move |_| match first.fetch_add(1, Ordering::Relaxed) {
        0 => Err(ErrorKind::Other.into()),
        _ => Ok(()),
    });
    server.on_accept_error(|error| panic!("{error}"));
    let running = Running::start(server);
    assert!(Peer::connect(running.address).read_to_end().is_empty());
    Peer::open(running.address).echo("a");
    assert_eq!(running.server.counters().started, 1);
}

/// A panic of the program's factory does not end the server.
#[test]
fn a_factory_that_panics() {
    let _watchdog = watchdog();
    let first = Arc::new(AtomicUsize::new(0));
    let factory = move || {
        assert_ne!(first.fetch_add(1, Ordering::Relaxed), 0, "on purpose");
        Handlers::new()
    };
    let server = Server::with_factory(server_config(), factory).unwrap();
    let address = server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    let mut unlucky = Peer::connect(address);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| server.run()));
    assert!(caught.is_err());
    assert!(unlucky.read_to_end().is_empty(), "its connection is closed");
    let lucky = Peer::connect(address);
    let event_loop = server.event_loop();
    lucky.write(requests::REQUEST);
    run_until(event_loop, "the next is open", || server.counters().opened == 1);
}

/// Nor does a panic of the hook for sockets.
#[test]
fn a_hook_that_panics() {
    let _watchdog = watchdog();
    let mut server = echo();
    let first = Arc::new(AtomicUsize::new(0));
    server.on_socket_init(move |_| {
        assert_ne!(first.fetch_add(1, Ordering::Relaxed), 0, "on purpose");
        Ok(())
    });
    let address = server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    let mut unlucky = Peer::connect(address);
    let lucky = Peer::connect(address);
    lucky.write(requests::REQUEST);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| server.run()));
    assert!(caught.is_err());
    assert!(unlucky.read_to_end().is_empty(), "its connection is closed");
    let event_loop = server.event_loop();
    run_until(event_loop, "the next is open", || server.counters().opened == 1);
    server.stop_listening();
}

/// Several threads run the loop, and the server stops listening in the middle of a burst.
#[test]
fn listening_stops_in_a_burst() {
    let _watchdog = watchdog();
    for _ in 0..5 {
        let server = Arc::new(echo());
        let address = server.listen("127.0.0.1:0").unwrap();
        server.start_accept().unwrap();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let server = server.clone();
                std::thread::spawn(move || server.run())
            })
            .collect();
        let burst = std::thread::spawn(move || {
            let connect = |_| TcpStream::connect(address).ok();
            (0..200).map_while(connect).collect::<Vec<_>>()
        });
        eventually("some are in", || server.counters().started > 20);
        server.stop_listening();
        // Accepted connections go on until their peers disconnect.
        drop(burst.join().unwrap());
        threads.into_iter().for_each(|thread| _ = thread.join().unwrap());
        assert!(server.connections().is_empty() && server.stopped());
        let counters = server.counters();
        assert_eq!(counters.started, counters.failed);
    }
}

#[test]
fn requests_that_are_refused() {
    let _watchdog = watchdog();
    let mut server = server();
    server.on_validate(|_, context| {
        assert!(context.remote_endpoint().starts_with("127.0.0.1:"));
        assert!(!context.is_secure());
        Answer::status(StatusCode::FORBIDDEN, "not you")
    });
    let running = Running::start(server);
    let mut peer = Peer::connect(running.address);
    peer.write(requests::REQUEST);
    let answer = String::from_utf8(peer.read_to_end()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.ends_with("not you\n"), "{answer}");
}

/// Accepted sockets have the server's `TCP_NODELAY`: with a listener of its own and with an open one that
/// has another value, and also if they connected before `start_accept`.
#[test]
fn accepted_sockets_have_nodelay_in_any_order() {
    let _watchdog = watchdog();
    for nodelay in [true, false] {
        for own in [true, false] {
            let seen = Arc::new(Mutex::new(Vec::new()));
            let sees = seen.clone();
            let mut server = echo_with(server_config().tcp_nodelay(nodelay));
            server.on_socket_init(move |socket| {
                sees.lock().unwrap().push(socket.tcp_nodelay()?);
                Ok(())
            });
            let address = if own {
                server.listen("127.0.0.1:0").unwrap()
            } else {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let address = listener.local_addr().unwrap();
                socket2::SockRef::from(&listener).set_tcp_nodelay(!nodelay).unwrap();
                server.listen_on(listener).unwrap();
                address
            };
            let mut early = Peer::connect(address);
            let _running = Running::start(server);
            early.shake_hands();
            Peer::open(address).echo("a");
            Peer::open(address).echo("b");
            assert_eq!(*seen.lock().unwrap(), [nodelay; 3], "own listener: {own}");
        }
    }
}
