//! Timeouts up to the open connection: of each stage, and of all stages together.

use std::io::{ErrorKind, Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyloop::net::{Client, ConnectError, Stage};
use anyloop::prelude::*;
use anyloop::proto::{Cause, TransportError};
use anyloop_testkit::peer::{Peer, serve};
use anyloop_testkit::requests;
use anyloop_testkit::wait::{PATIENCE, eventually, let_time_pass};
use anyloop_testkit::watchdog::watchdog;

use crate::record::Log;
use crate::setup::{
    Running, blackhole, client_with, closed, echo, millis, recording_client_with, recording_server,
    server_config, server_with, url,
};

const SHORT: Duration = millis(150);

/// The cause, and of a timeout: the stage, the time, and the number of attempts that failed before.
type Report = (Cause, Option<(Stage, Duration, usize)>);

/// Connects, and returns what `fail` reported, and after which time.
fn fail(mut client: Client, begin: impl FnOnce(&Client)) -> (Report, Duration) {
    let reported = Arc::new(Mutex::new(Vec::new()));
    let reports = reported.clone();
    client.on_fail(move |failure, context| {
        let stage = match context.error().and_then(|error| error.downcast_ref()) {
            Some(ConnectError::TimedOut { stage, after, attempts, .. }) => {
                Some((*stage, *after, attempts.len()))
            }
            _ => None,
        };
        reports.lock().unwrap().push((failure.cause(), stage));
    });
    let start = Instant::now(); // before its timeouts begin
    begin(&client);
    assert_eq!(client.run(), 1);
    let elapsed = start.elapsed();
    let mut reported = reported.lock().unwrap();
    assert_eq!(reported.len(), 1);
    (reported.pop().unwrap(), elapsed)
}

/// Not before the expected time, and not much after it.
fn assert_about(elapsed: Duration, expected: Duration) {
    assert!(elapsed + millis(5) >= expected && elapsed < expected + PATIENCE / 10, "{elapsed:?}");
}

const TIMED_OUT: Cause = Cause::Transport(TransportError::TimedOut);

fn slow_look_up(client: &mut Client) {
    client.set_look_up(|_, _| {
        let_time_pass(millis(3000), "the look-up takes longer than it may");
        Ok(Vec::new())
    });
}

#[test]
fn looking_up_times_out() {
    let _watchdog = watchdog();
    let mut client = client_with(ClientConfig::new().resolve_timeout(SHORT));
    slow_look_up(&mut client);
    let (reported, elapsed) = fail(client, |client| _ = client.connect("ws://a.example/").unwrap());
    assert_eq!(reported, (TIMED_OUT, Some((Stage::Resolve, SHORT, 0))));
    assert_about(elapsed, SHORT);
}

#[test]
fn connecting_times_out() {
    let _watchdog = watchdog();
    let (blackhole, closed) = (blackhole(), closed());
    let client = client_with(ClientConfig::new().connect_timeout(SHORT));
    let addresses = [closed.address, blackhole.address];
    let (reported, elapsed) = fail(client, |client| {
        client.request("ws://a.example/").unwrap().to_addresses(addresses).connect().unwrap();
    });
    assert_eq!(reported, (TIMED_OUT, Some((Stage::Connect, SHORT, 1))), "one was refused before");
    assert_about(elapsed, SHORT);
}

#[test]
fn the_handshake_times_out() {
    let _watchdog = watchdog();
    let (address, thread) = serve(|mut peer| {
        peer.read_head();
        peer.read_to_end()
    });
    let client = client_with(ClientConfig::new().open_timeout(SHORT));
    let (reported, elapsed) =
        fail(client, |client| _ = client.connect(url(address).as_str()).unwrap());
    assert_eq!(reported, (Cause::OpenTimeout, None));
    assert_about(elapsed, SHORT);
    assert!(thread.join().unwrap().is_empty());
}

/// The timeout of the handshake begins when the stream is connected.
#[test]
fn the_handshake_timeout_does_not_include_the_look_up() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let log = Log::default();
    let mut client = recording_client_with(&log, ClientConfig::new().open_timeout(millis(1000)));
    let address = running.address;
    client.set_look_up(move |_, _| {
        let_time_pass(millis(1500), "longer than the handshake may take");
        Ok(vec![address])
    });
    client.on_open(|context| context.close(CloseCode::NORMAL, "").unwrap());
    client.connect("ws://a.example/").unwrap();
    client.run();
    assert_eq!(log.take(), ["close clean by local: 1000/1000"]);
}

/// Bytes that arrive one by one do not postpone the timeout.
#[test]
fn a_slow_response_times_out() {
    let _watchdog = watchdog();
    let (address, thread) = serve(|mut peer| {
        peer.read_head();
        for byte in requests::RESPONSE.bytes().cycle() {
            if peer.stream.write_all(&[byte]).is_err() {
                return;
            }
            let_time_pass(millis(20), "the response comes byte by byte");
        }
    });
    let client = client_with(ClientConfig::new().open_timeout(SHORT));
    let (reported, elapsed) =
        fail(client, |client| _ = client.connect(url(address).as_str()).unwrap());
    assert_eq!(reported, (Cause::OpenTimeout, None));
    assert_about(elapsed, SHORT);
    thread.join().unwrap();
}

#[test]
fn the_total_times_out_while_looking_up() {
    let _watchdog = watchdog();
    let mut client = client_with(ClientConfig::new().resolve_timeout(None).total_timeout(SHORT));
    slow_look_up(&mut client);
    let (reported, elapsed) = fail(client, |client| _ = client.connect("ws://a.example/").unwrap());
    assert_eq!(reported, (TIMED_OUT, Some((Stage::Resolve, SHORT, 0))));
    assert_about(elapsed, SHORT);
}

#[test]
fn the_total_times_out_while_connecting() {
    let _watchdog = watchdog();
    let blackhole = blackhole();
    let client = client_with(ClientConfig::new().connect_timeout(None).total_timeout(SHORT));
    let (reported, elapsed) =
        fail(client, |client| _ = client.connect(url(blackhole.address).as_str()).unwrap());
    assert_eq!(reported, (TIMED_OUT, Some((Stage::Connect, SHORT, 0))));
    assert_about(elapsed, SHORT);
}

#[test]
fn the_error_names_the_shorter_timeout() {
    let _watchdog = watchdog();
    let blackhole = blackhole();
    for (stage, total) in [(SHORT, PATIENCE), (PATIENCE, SHORT)] {
        let client = client_with(ClientConfig::new().connect_timeout(stage).total_timeout(total));
        let (reported, elapsed) =
            fail(client, |client| _ = client.connect(url(blackhole.address).as_str()).unwrap());
        assert_eq!(reported, (TIMED_OUT, Some((Stage::Connect, SHORT, 0))));
        assert_about(elapsed, SHORT);
    }
}

#[test]
fn the_total_times_out_during_the_handshake() {
    let _watchdog = watchdog();
    let (address, thread) = serve(|mut peer| {
        peer.read_head();
        peer.read_to_end()
    });
    let config = ClientConfig::new().open_timeout(millis(4000)).total_timeout(SHORT);
    let client = client_with(config);
    let (reported, elapsed) =
        fail(client, |client| _ = client.connect(url(address).as_str()).unwrap());
    assert!(elapsed < millis(3500), "{reported:?} after {elapsed:?}");
    assert!(thread.join().unwrap().is_empty());
}

#[test]
fn the_total_timeout_ends_when_the_connection_is_open() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let log = Log::default();
    let config = ClientConfig::new().total_timeout(millis(1000)).connect_timeout(millis(1000));
    let mut client = recording_client_with(&log, config);
    client.on_open(|context| {
        context.set_timer(millis(1600), |_, context| {
            context.close(CloseCode::NORMAL, "").unwrap();
        });
    });
    client.connect(running.url().as_str()).unwrap();
    client.run();
    assert_eq!(log.take(), ["close clean by local: 1000/1000"]);
}

/// At a server too, bytes that arrive one by one do not postpone the timeout.
#[test]
fn a_slow_request_times_out() {
    let _watchdog = watchdog();
    let log = Log::default();
    let config = server_config().open_timeout(millis(200));
    let running = Running::start(recording_server(&log, config));
    let start = Instant::now();
    let mut slow = Peer::connect(running.address);
    slow.stream.set_read_timeout(Some(millis(10))).unwrap();
    let mut answer = Vec::new();
    for byte in requests::REQUEST.bytes().cycle() {
        let _ = slow.stream.write_all(&[byte]);
        let mut buffer = [0; 1000];
        match slow.stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => break,
        }
        assert!(start.elapsed() < PATIENCE);
    }
    assert_about(start.elapsed(), millis(200));
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
    drop(slow);
    eventually("it is reported", || log.take() == ["fail by timer: opening handshake timed out"]);
}

#[test]
fn a_silent_client_times_out() {
    let _watchdog = watchdog();
    let running = Running::start(server_with(server_config().open_timeout(millis(100))));
    let start = Instant::now();
    let mut silent: Vec<_> = (0..20).map(|_| Peer::connect(running.address)).collect();
    for peer in &mut silent {
        assert!(peer.read_to_end().is_empty());
    }
    assert_about(start.elapsed(), millis(100));
    eventually("all have failed", || running.server.counters().failed == 20);
}

#[test]
fn an_answer_times_out() {
    let _watchdog = watchdog();
    let mut server = server_with(server_config().answer_timeout(millis(100)));
    server.on_validate(|_, _| Answer::Defer);
    let running = Running::start(server);
    let mut peer = Peer::connect(running.address);
    peer.write(requests::REQUEST);
    assert!(peer.read_to_end().starts_with(b"HTTP/1.1 503 "));
}
