//! Timeouts of open connections: keep-alive, idleness, and the closing handshake.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyloop::prelude::*;
use anyloop::proto::State;
use anyloop_testkit::peer::{Peer, serve};
use anyloop_testkit::wait::{PATIENCE, eventually, let_time_pass};
use anyloop_testkit::watchdog::watchdog;
use anyloop_testkit::{frames, requests};

use crate::record::Log;
use crate::setup::{
    Running, client, echo_with, millis, recording_client_with, recording_server, run_until,
    server_config, url,
};

/// Pongs in time keep the connection open.
#[test]
fn pings_are_answered() {
    let _watchdog = watchdog();
    let pongs = Arc::new(AtomicUsize::new(0));
    let counts = pongs.clone();
    let config = server_config().ping_interval(millis(20)).pong_timeout(PATIENCE);
    let mut server = echo_with(config);
    server.on_pong(move |_, round_trip, _| {
        assert!(round_trip.is_some_and(|time| time < PATIENCE));
        counts.fetch_add(1, Ordering::Relaxed);
    });
    let running = Running::start(server);
    let client = client();
    let handle = client.connect(running.url().as_str()).unwrap();
    let event_loop = client.event_loop();
    run_until(event_loop, "five pongs", || pongs.load(Ordering::Relaxed) >= 5);
    assert_eq!(handle.state(), State::Open);
    handle.close(CloseCode::NORMAL, "").unwrap();
    client.run();
}

#[test]
fn a_peer_that_does_not_answer_is_closed() {
    let _watchdog = watchdog();
    let log = Log::default();
    let config = server_config()
        .ping_interval(millis(50))
        .pong_timeout(millis(100))
        .close_timeout(millis(100));
    let running = Running::start(recording_server(&log, config));
    let start = Instant::now();
    let mut peer = Peer::open(running.address);
    let ping = peer.receive();
    assert_eq!(ping.opcode, 0x9);
    let close = peer.receive();
    assert_eq!((close.opcode, &close.payload[..2]), (0x8, &1011_u16.to_be_bytes()[..]));
    assert!(start.elapsed() >= millis(145), "{:?}", start.elapsed());
    assert!(peer.try_receive().is_none());
    // The peer does not end its direction of the stream either.
    let mut lines = Vec::new();
    eventually("it is logged", || {
        lines.extend(log.take());
        lines.len() >= 4
    });
    assert_eq!(lines[..3], ["validate GET /chat", "open", "pong_timeout"]);
    assert_eq!(lines[3], "close unclean by timer: 1011/none, keep-alive ping not answered in time");
}

#[test]
fn a_peer_that_answers_stays_connected() {
    let _watchdog = watchdog();
    let log = Log::default();
    let config = server_config().ping_interval(millis(20)).pong_timeout(millis(5000));
    let running = Running::start(recording_server(&log, config));
    let mut peer = Peer::open(running.address);
    for _ in 0..10 {
        let ping = peer.receive();
        assert_eq!(ping.opcode, 0x9);
        peer.send(&[frames::pong(&ping.payload)]);
    }
    let lines = log.take();
    assert!(lines.iter().filter(|line| line.starts_with("pong after ")).count() >= 8, "{lines:?}");
}

#[test]
fn an_idle_connection_is_closed() {
    let _watchdog = watchdog();
    let log = Log::default();
    let config = server_config()
        .idle_timeout(millis(600))
        .ping_interval(millis(30)) // does not postpone it
        .pong_timeout(None);
    let running = Running::start(recording_server(&log, config));
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
    eventually("it is logged", || {
        log.take()
            .last()
            .is_some_and(|line| line.starts_with("close ") && line.contains("1001/1001"))
    });
}

#[test]
fn the_closing_handshake_times_out() {
    let _watchdog = watchdog();
    let log = Log::default();
    let mut server = recording_server(&log, server_config().close_timeout(millis(200)));
    server.on_message(|_, context| {
        let _ = context.close(CloseCode::NORMAL, "");
    });
    let running = Running::start(server);
    let mut peer = Peer::open(running.address);
    let start = Instant::now(); // before the timeout begins
    peer.send(&[frames::text("go")]);
    assert_eq!(peer.receive(), frames::close(1000, ""));
    // Frames that arrive meanwhile do not postpone the timeout.
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
    eventually("it is logged", || {
        log.take().last().is_some_and(|line| {
            line == "close unclean by timer: 1000/none, closing handshake timed out"
        })
    });
}

/// A client waits for the server to end the stream, for as long as the closing handshake may take.
#[test]
fn a_client_waits_for_the_end_of_the_stream() {
    let _watchdog = watchdog();
    for ends in [true, false] {
        let (address, thread) = serve(move |mut peer| {
            peer.read_head();
            let start = Instant::now(); // before the timeout begins
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
        let random = Arc::new(requests::Zeros);
        let config = ClientConfig::new().random(random).close_timeout(millis(400));
        let mut client = recording_client_with(&log, config);
        client.on_open(|context| {
            context.close(CloseCode::NORMAL, "").unwrap();
        });
        client.connect(url(address).as_str()).unwrap();
        client.run();
        assert_eq!(log.take(), ["close clean by local: 1000/1000"]);
        let elapsed = thread.join().unwrap();
        assert!(elapsed >= millis(if ends { 95 } else { 350 }), "{ends} {elapsed:?}");
    }
}
