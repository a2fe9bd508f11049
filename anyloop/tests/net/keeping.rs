//! Connections over time: keep-alive, idleness, closing, and plain HTTP beside them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use anyloop::Handlers;
use anyloop::Server;
use anyloop::endpoint::{Handle, Verdict};
use anyloop::net::Net;
use anyloop::proto::Config;
use anyloop::proto::handshake::http::{Response, StatusCode};
use anyloop_testkit::peer::{Peer, serve};
use anyloop_testkit::wait::{PATIENCE, eventually, let_time_pass};
use anyloop_testkit::watchdog::watchdog;
use anyloop_testkit::{frames, requests};

use crate::record::{Log, recording};
use crate::scene::{
    Running, client, config, echo_with, millis, reset, run_until, server, server_settings, shared,
};

fn server_with(log: &Log, change: impl FnOnce(&mut Config)) -> Server<Net> {
    let settings = server_settings(|options| options.connection = config(change));
    Server::with_factory(settings, recording(log))
}

/// Both ends ping the other at short intervals, and nobody is let go.
#[test]
fn pings_are_answered() {
    let _watchdog = watchdog();
    let pongs = Arc::new(AtomicUsize::new(0));
    let counts = pongs.clone();
    let mut server = echo_with(server_settings(|options| {
        options.connection = config(|config| {
            config.ping_interval = Some(millis(20));
            config.pong_timeout = Some(PATIENCE);
        });
    }));
    server.on_pong(move |_, round_trip, _| {
        assert!(round_trip.is_some_and(|time| time < PATIENCE));
        counts.fetch_add(1, Ordering::Relaxed);
    });
    let running = Running::start(server);
    let client = client();
    let handle = client.connect(running.url().as_str()).unwrap();
    let event_loop = client.event_loop().unwrap();
    run_until(&event_loop, "five pongs", || pongs.load(Ordering::Relaxed) >= 5);
    assert_eq!(handle.state(), anyloop::proto::State::Open);
    handle.close(anyloop::proto::CloseCode::NORMAL, "").unwrap();
    client.run().unwrap();
}

#[test]
fn who_does_not_answer_is_let_go() {
    let _watchdog = watchdog();
    let log = Log::default();
    let running = Running::start(server_with(&log, |config| {
        config.ping_interval = Some(millis(50));
        config.pong_timeout = Some(millis(100));
        config.close_timeout = Some(millis(100));
    }));
    let start = Instant::now();
    let mut peer = Peer::open(running.address);
    let ping = peer.receive();
    assert_eq!(ping.opcode, 0x9);
    let close = peer.receive();
    assert_eq!((close.opcode, &close.payload[..2]), (0x8, &1011_u16.to_be_bytes()[..]));
    assert!(start.elapsed() >= millis(145), "{:?}", start.elapsed());
    assert!(peer.try_receive().is_none());
    // The peer does not end its direction either.
    let mut told = Vec::new();
    eventually("it was told", || {
        told.extend(log.take());
        told.len() >= 4
    });
    assert_eq!(told[..3], ["validate GET /chat", "open", "pong_timeout"]);
    assert_eq!(told[3], "close unclean by timer: 1011/none, keep-alive ping not answered in time");
}

/// Pongs in time keep it open for as long as they come.
#[test]
fn who_answers_stays() {
    let _watchdog = watchdog();
    let log = Log::default();
    let running = Running::start(server_with(&log, |config| {
        config.ping_interval = Some(millis(20));
        config.pong_timeout = Some(millis(5000));
    }));
    let mut peer = Peer::open(running.address);
    for _ in 0..10 {
        let ping = peer.receive();
        assert_eq!(ping.opcode, 0x9);
        peer.send(&[frames::pong(&ping.payload)]);
    }
    let told = log.take();
    assert!(told.iter().filter(|line| line.starts_with("pong after ")).count() >= 8, "{told:?}");
}

#[test]
fn an_idle_connection_is_closed() {
    let _watchdog = watchdog();
    let log = Log::default();
    let running = Running::start(server_with(&log, |config| {
        config.idle_timeout = Some(millis(600));
        config.ping_interval = Some(millis(30)); // does not postpone it
        config.pong_timeout = None;
    }));
    let mut peer = Peer::open(running.address);
    let mut start = Instant::now();
    for _ in 0..10 {
        let_time_pass(millis(70), "less than the idle timeout");
        start = Instant::now();
        peer.send(&[frames::text("still here")]);
    }
    let close = loop {
        let frame = peer.receive();
        match frame.opcode {
            0x9 => peer.send(&[frames::pong(&frame.payload)]),
            _ => break frame,
        }
    };
    assert_eq!((close.opcode, &close.payload[..2]), (0x8, &1001_u16.to_be_bytes()[..]));
    let elapsed = start.elapsed();
    assert!(elapsed >= millis(590) && elapsed < PATIENCE / 5, "{elapsed:?}");
    peer.send(&[frames::close(1001, "")]);
    assert!(peer.read_to_end().is_empty());
    eventually("it was told", || {
        log.take()
            .last()
            .is_some_and(|line| line.starts_with("close ") && line.contains("1001/1001"))
    });
}

#[test]
fn closing_has_its_time() {
    let _watchdog = watchdog();
    let log = Log::default();
    let mut server = server_with(&log, |config| config.close_timeout = Some(millis(200)));
    server.on_message(|_, context| {
        let _ = context.close(anyloop::proto::CloseCode::NORMAL, "");
    });
    let running = Running::start(server);
    let mut peer = Peer::open(running.address);
    let start = Instant::now(); // before its time begins
    peer.send(&[frames::text("go")]);
    assert_eq!(peer.receive(), frames::close(1000, ""));
    // What goes on coming does not prolong it.
    let mut writing = peer.writer();
    let more = frames::text("more").bytes(peer.role);
    let writer = thread::spawn(move || {
        use std::io::Write;
        while writing.write_all(&more).is_ok() && start.elapsed() < PATIENCE {
            let_time_pass(millis(10), "frames come now and then");
        }
    });
    assert!(peer.read_to_end().is_empty());
    let elapsed = start.elapsed();
    assert!(elapsed >= millis(180) && elapsed < PATIENCE / 5, "{elapsed:?}");
    writer.join().unwrap();
    eventually("it was told", || {
        log.take().last().is_some_and(|line| {
            line == "close unclean by timer: 1000/none, closing handshake timed out"
        })
    });
}

/// The server ends the stream; a client that does not see that happen lets go in time.
#[test]
fn a_client_waits_for_the_server_to_end_the_stream() {
    let _watchdog = watchdog();
    for ends in [true, false] {
        let (address, thread) = serve(move |mut peer| {
            peer.read_head();
            let start = Instant::now(); // before its time begins
            peer.write(requests::RESPONSE);
            assert_eq!(peer.receive(), frames::close(1000, ""));
            peer.send(&[frames::close(1000, "")]);
            if ends {
                let_time_pass(millis(100), "the client is to wait for the end of the stream");
                peer.finish();
            }
            assert!(peer.read_to_end().is_empty());
            start.elapsed()
        });
        let log = Log::default();
        let settings = crate::scene::client_settings(|options| {
            let mut own = Config::clone(&crate::scene::not_random());
            own.close_timeout = Some(millis(400));
            options.connection = Arc::new(own);
        });
        let mut client = anyloop::Client::<Net, _>::with_factory(settings, recording(&log));
        client.on_open(|context| {
            context.close(anyloop::proto::CloseCode::NORMAL, "").unwrap();
        });
        client.connect(crate::scene::url(address).as_str()).unwrap();
        client.run().unwrap();
        assert_eq!(log.take(), ["close clean by local: 1000/1000"]);
        let elapsed = thread.join().unwrap();
        assert!(elapsed >= millis(if ends { 95 } else { 350 }), "{ends} {elapsed:?}");
    }
}

#[test]
fn plain_http_is_answered_later() {
    let _watchdog = watchdog();
    let waiting = shared::<Handle<Handlers>>();
    let waits = waiting.clone();
    let mut server = server();
    server.on_http(move |request, context| {
        assert_eq!(request.body(), b"ping");
        waits.lock().unwrap().push(context.handle());
        Verdict::Defer
    });
    let running = Running::start(server);
    let mut peer = Peer::connect(running.address);
    peer.write("POST /job HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nping");
    eventually("it was asked", || waiting.lock().unwrap().len() == 1);
    // What is posted runs when the handler has returned.
    let (tell, returned) = channel();
    running.server.event_loop().unwrap().post(move || tell.send(()).unwrap());
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

/// Who asks and hangs up costs nothing, and least of all the time for the verdict.
#[test]
fn plain_http_that_nobody_waits_for() {
    let _watchdog = watchdog();
    let waiting = shared::<Handle<Handlers>>();
    let waits = waiting.clone();
    let mut server = Server::<Net>::new(server_settings(|options| {
        options.verdict_timeout = Some(2 * PATIENCE);
    }));
    server.on_http(move |_, context| {
        waits.lock().unwrap().push(context.handle());
        Verdict::Defer
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

/// Many plain requests beside open connections, on one port.
#[test]
fn plain_http_beside_connections() {
    let _watchdog = watchdog();
    let mut server = crate::scene::echo();
    server.on_http(|request, _| Verdict::status(StatusCode::OK, request.uri().path()));
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
