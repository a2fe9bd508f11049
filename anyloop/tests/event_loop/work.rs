//! What keeps `run` alive, and what ends it: requirement S15 of the design, over all that a loop has.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use anyloop::event_loop::WatchMode;
use anyloop::net::{Client, Error, Server};
use anyloop::prelude::*;
use anyloop_testkit::frames;
use anyloop_testkit::peer::{End, Peer};
use anyloop_testkit::requests::{RESPONSE, SWITCHING};
use anyloop_testkit::wait::{PATIENCE, ThreadProbe, eventually, spawn};
use anyloop_testkit::watchdog::within_time;

use crate::fixture::{Fixture, client, client_config, open_client, server_config};
use crate::harness::{FAR, Log, drive};
use crate::wire::{close, request, reset, text, unmasked};

/// A while in which a loop without work would have stopped.
const WHILE: Duration = Duration::from_millis(10);

#[track_caller]
fn has_work(event_loop: &EventLoop) {
    event_loop.run_for(WHILE);
    assert!(!event_loop.stopped(), "it has run out of work");
}

/// Runs the loop to its end, which is near.
#[track_caller]
fn runs_out(event_loop: &EventLoop) -> usize {
    let ran = event_loop.run_for(PATIENCE);
    assert!(event_loop.stopped(), "it has not run out of work");
    ran
}

#[test]
fn to_listen_alone_is_no_work() {
    within_time(|| {
        let server = Server::new(server_config()).unwrap();
        server.listen("127.0.0.1:0").unwrap();
        let path = crate::fixture::socket_path();
        server.listen_unix(&path).unwrap();
        assert!(server.is_listening() && !server.is_accepting());
        assert_eq!(server.run(), 0);
        assert!(server.stopped());
        server.stop_listening();
        assert!(!path.exists());
    });
}

#[test]
fn to_accept_without_listening_is_an_error() {
    let server = Server::new(server_config()).unwrap();
    assert!(matches!(server.start_accept(), Err(Error::NotListening)));
}

#[test]
fn a_listener_that_accepts_keeps_run_alive_until_it_is_closed() {
    within_time(|| {
        let fixture = Fixture::new();
        has_work(&fixture.event_loop);
        fixture.server.stop_listening();
        assert_eq!(runs_out(&fixture.event_loop), 0);
        assert!(TcpStream::connect(fixture.address).is_err());
        assert!(!fixture.server.is_listening() && !fixture.server.is_accepting());
    });
}

#[test]
fn stop_listening_ends_a_run_that_waits_elsewhere() {
    within_time(|| {
        let fixture = Fixture::new();
        let runs = fixture.event_loop.clone();
        let thread = spawn(move || runs.run());
        thread.until_asleep();
        fixture.server.stop_listening();
        assert_eq!(thread.join().unwrap(), 0);
    });
}

#[test]
fn two_listeners_are_both_work() {
    within_time(|| {
        let fixture = Fixture::new();
        let other = Server::on(&fixture.event_loop, server_config());
        other.listen("127.0.0.1:0").unwrap();
        other.start_accept().unwrap();
        fixture.server.stop_listening();
        has_work(&fixture.event_loop);
        drop(other); // which closes it
        runs_out(&fixture.event_loop);
    });
}

#[test]
fn after_stop_listening_run_ends_with_the_last_connection() {
    within_time(|| {
        let fixture = Fixture::with(|server, _| {
            server.on_message(|message, context| _ = context.send(message));
        });
        let (mut first, second) = (fixture.open(), fixture.open());
        fixture.server.stop_listening();
        has_work(&fixture.event_loop);
        second.write_last(close(1000));
        fixture.drive_to(1);
        has_work(&fixture.event_loop);
        first.write(text("still here"));
        fixture.drive("the echo", || first.poll_frame() == Some(frames::text("still here")));
        first.write_last(close(1000));
        assert_eq!(runs_out(&fixture.event_loop), 1);
        assert_eq!(fixture.log.all(), ["close, clean", "close, clean"]);
    });
}

#[test]
fn stop_listening_lets_handshakes_that_are_in_flight_finish() {
    within_time(|| {
        let fixture = Fixture::new();
        let mut peer = Peer::connect(fixture.address);
        let bytes = request("/");
        peer.write(&bytes[..50]);
        fixture.drive("the connection", || fixture.server.connections().len() == 1);
        fixture.server.stop_listening();
        has_work(&fixture.event_loop);
        peer.write(&bytes[50..]);
        fixture
            .drive("the response", || peer.poll_head().is_some_and(|it| it.starts_with(SWITCHING)));
        peer.write_last(close(1000));
        runs_out(&fixture.event_loop);
        assert_eq!(fixture.log.all(), ["open", "close, clean"]);
    });
}

#[test]
fn a_server_can_listen_anew_after_it_has_stopped() {
    within_time(|| {
        let mut fixture = Fixture::new();
        fixture.server.stop_listening();
        runs_out(&fixture.event_loop);
        fixture.event_loop.reset().unwrap();
        fixture.address = fixture.server.listen("127.0.0.1:0").unwrap();
        fixture.server.start_accept().unwrap();
        let _peer = fixture.open();
    });
}

#[test]
fn a_deferred_request_keeps_run_alive() {
    within_time(|| {
        let fixture = Fixture::with(|server, log| {
            let it = log.clone();
            server.on_validate(move |_, _| {
                it.add("validate");
                Answer::Defer
            });
        });
        let mut peer = Peer::connect(fixture.address);
        peer.write(request("/"));
        fixture.drive_to(1);
        fixture.server.stop_listening();
        has_work(&fixture.event_loop);
        // And a thread that waits learns of the answer.
        let handle = fixture.handle();
        let runner = ThreadProbe::current();
        let thread = thread::spawn(move || {
            runner.until_asleep();
            handle.accept(Accept::new()).unwrap();
        });
        assert_eq!(fixture.event_loop.run_one(), 1);
        thread.join().unwrap();
        fixture
            .drive("the response", || peer.poll_head().is_some_and(|it| it.starts_with(SWITCHING)));
        drop(peer);
        runs_out(&fixture.event_loop);
        assert_eq!(fixture.log.all(), ["validate", "open", "close, failed"]);
    });
}

#[test]
fn a_paused_connection_keeps_run_alive() {
    within_time(|| {
        let fixture = Fixture::with(|server, log| {
            let it = log.clone();
            server.on_message(move |_, context| {
                it.add("paused");
                context.pause_reading();
            });
        });
        let peer = fixture.open();
        peer.write(text("hi"));
        fixture.drive_to(1);
        fixture.server.stop_listening();
        has_work(&fixture.event_loop);
        drop(peer);
        has_work(&fixture.event_loop); // which it has not read yet
        fixture.handle().resume_reading().unwrap();
        runs_out(&fixture.event_loop);
        assert_eq!(fixture.log.all(), ["paused", "close, failed"]);
    });
}

/// A client waits for the server to end the stream (RFC 6455 §7.1.1).
#[test]
fn a_connection_keeps_run_alive_until_its_descriptor_is_closed() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let client = client(&event_loop, &log);
        let (mut peer, _) = open_client(&event_loop, &client);
        peer.write(unmasked(8, &1000u16.to_be_bytes()));
        drive(&event_loop, "the Close", || peer.poll_frame() == Some(frames::close(1000, "")));
        has_work(&event_loop);
        assert_eq!(log.all(), ["open"]);
        assert!(!peer.is_over());
        peer.finish();
        assert_eq!(runs_out(&event_loop), 1);
        assert_eq!(log.all(), ["open", "close, clean"]);
        eventually("the end", || peer.is_over());
    });
}

/// A server that has failed a connection leaves the client the time to read why.
#[test]
fn a_connection_that_lingers_keeps_run_alive() {
    within_time(|| {
        let fixture = Fixture::new();
        let mut peer = fixture.open();
        peer.write(unmasked(1, b"clients must mask"));
        let mut code = None;
        fixture.drive("the Close", || {
            code = code.or_else(|| peer.poll_frame().and_then(|frame| frame.close_code()));
            code.is_some()
        });
        assert_eq!(code, Some(1002));
        fixture.server.stop_listening();
        let is_reported = fixture.log.len() > 0;
        if !is_reported {
            has_work(&fixture.event_loop);
        }
        drop(peer);
        runs_out(&fixture.event_loop);
        assert_eq!(fixture.log.all(), ["close, failed"]);
    });
}

#[test]
fn a_client_runs_out_of_work_with_its_last_connection() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let client = client(&event_loop, &log);
        let (first, _) = open_client(&event_loop, &client);
        let (second, _) = open_client(&event_loop, &client);
        drive(&event_loop, "both", || log.count("open") == 2);
        drop(first);
        has_work(&event_loop);
        drop(second);
        assert!(runs_out(&event_loop) <= 1 + 1);
        assert_eq!(log.count("close, failed"), 2);
    });
}

#[test]
fn a_handshake_that_nobody_answers_keeps_run_alive() {
    within_time(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("ws://{}/", listener.local_addr().unwrap());
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let client = client(&event_loop, &log);
        client.connect(uri.as_str()).unwrap();
        has_work(&event_loop);
        let mut peer = Peer::accept(&listener);
        has_work(&event_loop);
        peer.write(RESPONSE);
        drive(&event_loop, "the opening", || log.has("open"));
        drop(listener);
        assert!(peer.poll_head().is_some());
        drop(peer);
        runs_out(&event_loop);
        assert_eq!(log.all(), ["open", "close, failed"]);
    });
}

#[test]
fn perpetual_mode_keeps_run_alive_and_ends_a_run_that_waits_elsewhere() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let server = Server::on(&event_loop, server_config());
        let client = Client::on(&event_loop, client_config());

        server.stop_perpetual(); // nothing
        server.start_perpetual();
        server.start_perpetual(); // once is enough
        client.start_perpetual();
        has_work(&event_loop);
        assert_eq!((event_loop.poll(), event_loop.stopped()), (0, false));
        server.stop_perpetual();
        has_work(&event_loop); // of the client's
        let runs = event_loop.clone();
        let thread = spawn(move || runs.run());
        thread.until_asleep();
        client.stop_perpetual();
        assert_eq!(thread.join().unwrap(), 0);
        assert!(event_loop.stopped());
        client.stop_perpetual(); // nothing

        event_loop.reset().unwrap();
        client.start_perpetual(); // and begun anew
        has_work(&event_loop);
        drop(client); // which ends it as well
        runs_out(&event_loop);
    });
}

#[test]
fn run_ends_with_the_last_guard_wherever_that_is_dropped() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let first = event_loop.keep_alive();
        let second = event_loop.handle().keep_alive().unwrap();
        drop(first);
        has_work(&event_loop);
        let runner = ThreadProbe::current();
        let thread = thread::spawn(move || {
            runner.until_asleep();
            drop(second);
        });
        assert_eq!(event_loop.run(), 0);
        thread.join().unwrap();
        event_loop.reset().unwrap();
        let guard = event_loop.keep_alive();
        event_loop.post(move || drop(guard));
        assert_eq!(event_loop.run(), 1);
    });
}

#[test]
fn a_shared_loop_runs_until_all_that_is_in_it_is_done() {
    within_time(|| {
        let fixture = Fixture::new();
        let peer = fixture.open();
        fixture.server.stop_listening();
        let event_loop = &fixture.event_loop;
        let log = Log::default();
        let client = client(event_loop, &log);
        let (server_of_it, _) = open_client(event_loop, &client);
        let it = log.clone();
        let timer = event_loop.set_timer(FAR, move || it.add("timer"));
        let (near, mut far) = UnixStream::pair().unwrap();
        let it = log.clone();
        let watched = move |_: &mut UnixStream, _| {
            it.add("watch");
            ControlFlow::Break(())
        };
        event_loop.watch(near, WatchMode::Read, watched).unwrap();

        drive(event_loop, "the client's opening", || log.has("open"));
        has_work(event_loop);
        drop(server_of_it);
        drive(event_loop, "the client's end", || log.has("close, failed"));
        has_work(event_loop);
        peer.write_last(close(1000));
        fixture.drive_to(1);
        has_work(event_loop);
        far.write_all(b"a").unwrap();
        drive(event_loop, "the watch", || log.has("watch"));
        has_work(event_loop);
        timer.cancel();
        assert_eq!(runs_out(event_loop), 0, "the timer is only dropped");
        assert_eq!(log.all(), ["open", "close, failed", "watch"]);
    });
}

#[test]
fn deadlines_of_the_protocol_are_no_work_by_themselves() {
    within_time(|| {
        // Far and near, coarse and exact.
        let config = server_config()
            .ping_interval(Duration::from_secs(20))
            .idle_timeout(Duration::from_secs(60))
            .close_timeout(Duration::from_secs(25));
        let fixture = Fixture::of(&EventLoop::new().unwrap(), config, |server, _| {
            server.on_open(|context| _ = context.set_timer(FAR, |_, _| unreachable!()));
        });
        let peer = fixture.open();
        fixture.server.stop_listening();
        peer.write_last(close(1000));
        let begun = Instant::now();
        fixture.event_loop.run();
        assert!(begun.elapsed() < PATIENCE);
        assert_eq!(fixture.log.all(), ["close, clean"]);
    });
}

#[test]
fn what_protocol_deadlines_ask_for_happens_in_a_run_that_waits() {
    within_time(|| {
        let config = server_config()
            .ping_interval(Duration::from_millis(20))
            .pong_timeout(Duration::from_millis(20))
            .close_timeout(Duration::from_millis(20));
        let fixture = Fixture::of(&EventLoop::new().unwrap(), config, |_, _| ());
        let mut peer = fixture.open();
        fixture.server.stop_listening();
        fixture.event_loop.run();
        let frames = peer.poll_frames();
        assert_eq!(frames.first().map(|frame| frame.opcode), Some(9));
        assert!(peer.poll_end().is_some());
        assert_eq!(fixture.log.all(), ["close, failed"]);
    });
}

#[test]
fn a_connection_whose_peer_is_reset_ends() {
    within_time(|| {
        let fixture = Fixture::new();
        let (peer, mut other) = (fixture.open(), fixture.open());
        reset(peer);
        fixture.drive_to(1);
        assert_eq!(other.poll_end(), None);
        other.finish();
        fixture.server.stop_listening();
        runs_out(&fixture.event_loop);
        assert_eq!(fixture.log.all(), ["close, failed", "close, failed"]);
        eventually("the end", || other.poll_end() == Some(End::Eof));
    });
}
