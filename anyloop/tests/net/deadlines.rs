//! Each stage of connecting has its time, and so has all of it.

use std::io::{ErrorKind, Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyloop::endpoint::Verdict;
use anyloop::net::{ConnectError, Net, Stage};
use anyloop::proto::{Cause, TransportError};
use anyloop::{Client, Server};
use anyloop_testkit::peer::{Peer, serve};
use anyloop_testkit::requests;
use anyloop_testkit::wait::{PATIENCE, eventually, let_time_pass};
use anyloop_testkit::watchdog::watchdog;

use crate::record::{Log, recording};
use crate::scene::{Running, client, client_settings, closed, hole, millis, server_settings, url};

const SHORT: Duration = millis(150);

/// The cause, and what was not done in which time.
type Told = (Cause, Option<(Stage, Duration, usize)>);

/// Connects, and returns what was told, and after which time.
fn fail(mut client: Client<Net>, begin: impl FnOnce(&Client<Net>)) -> (Told, Duration) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tells = told.clone();
    client.on_fail(move |failure, context| {
        let stage = match context.error().and_then(|error| error.downcast_ref()) {
            Some(ConnectError::TimedOut { stage, after, attempts, .. }) => {
                Some((*stage, *after, attempts.len()))
            }
            _ => None,
        };
        tells.lock().unwrap().push((failure.cause(), stage));
    });
    let start = Instant::now(); // before its times begin
    begin(&client);
    assert_eq!(client.run().unwrap(), 1);
    let elapsed = start.elapsed();
    let mut told = told.lock().unwrap();
    assert_eq!(told.len(), 1);
    (told.pop().unwrap(), elapsed)
}

/// Not before it, and not much after it.
fn assert_about(elapsed: Duration, expected: Duration) {
    assert!(elapsed + millis(5) >= expected && elapsed < expected + PATIENCE / 10, "{elapsed:?}");
}

const TIMED_OUT: Cause = Cause::Transport(TransportError::TimedOut);

fn slow_look_up(client: &mut Client<Net>) {
    client.transport_mut().set_look_up(|_, _| {
        let_time_pass(millis(3000), "the look-up takes longer than it may");
        Ok(Vec::new())
    });
}

#[test]
fn looking_up_has_its_time() {
    let _watchdog = watchdog();
    let mut client = client();
    slow_look_up(&mut client);
    client.transport_mut().connect.resolve_timeout = Some(SHORT);
    let (told, elapsed) = fail(client, |client| _ = client.connect("ws://a.example/").unwrap());
    assert_eq!(told, (TIMED_OUT, Some((Stage::Resolve, SHORT, 0))));
    assert_about(elapsed, SHORT);
}

#[test]
fn connecting_has_its_time() {
    let _watchdog = watchdog();
    let (hole, closed) = (hole(), closed());
    let mut client = client();
    client.transport_mut().connect.connect_timeout = Some(SHORT);
    let addresses = [closed.address, hole.address];
    let (told, elapsed) = fail(client, |client| {
        client.request("ws://a.example/").unwrap().to_addresses(addresses).connect().unwrap();
    });
    assert_eq!(told, (TIMED_OUT, Some((Stage::Connect, SHORT, 1))), "one was refused before");
    assert_about(elapsed, SHORT);
}

#[test]
fn the_handshake_has_its_time() {
    let _watchdog = watchdog();
    let (address, thread) = serve(|mut peer| {
        peer.read_head();
        peer.read_to_end()
    });
    let settings = client_settings(|options| options.open_timeout = Some(SHORT));
    let (told, elapsed) =
        fail(Client::new(settings), |client| _ = client.connect(url(address).as_str()).unwrap());
    assert_eq!(told, (Cause::OpenTimeout, None));
    assert_about(elapsed, SHORT);
    assert!(thread.join().unwrap().is_empty());
}

/// It does not begin before there is a stream: a look-up has a time of its own.
#[test]
fn the_handshake_does_not_pay_for_the_look_up() {
    let _watchdog = watchdog();
    let running = Running::start(crate::scene::echo());
    let settings = client_settings(|options| options.open_timeout = Some(millis(1000)));
    let log = Log::default();
    let mut client = Client::<Net, _>::with_factory(settings, recording(&log));
    let address = running.address;
    client.transport_mut().set_look_up(move |_, _| {
        let_time_pass(millis(1500), "longer than the handshake may take");
        Ok(vec![address])
    });
    client.on_open(|context| context.close(anyloop::proto::CloseCode::NORMAL, "").unwrap());
    client.connect("ws://a.example/").unwrap();
    client.run().unwrap();
    assert_eq!(log.take(), ["close clean by local: 1000/1000"]);
}

/// A server that sends a byte now and then does not get more time.
#[test]
fn a_slow_response_does_not_prolong_it() {
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
    let settings = client_settings(|options| options.open_timeout = Some(SHORT));
    let (told, elapsed) =
        fail(Client::new(settings), |client| _ = client.connect(url(address).as_str()).unwrap());
    assert_eq!(told, (Cause::OpenTimeout, None));
    assert_about(elapsed, SHORT);
    thread.join().unwrap();
}

#[test]
fn all_of_it_has_its_time_while_looking_up() {
    let _watchdog = watchdog();
    let mut client = client();
    slow_look_up(&mut client);
    let options = &mut client.transport_mut().connect;
    (options.resolve_timeout, options.total_timeout) = (None, Some(SHORT));
    let (told, elapsed) = fail(client, |client| _ = client.connect("ws://a.example/").unwrap());
    assert_eq!(told, (TIMED_OUT, Some((Stage::Resolve, SHORT, 0))));
    assert_about(elapsed, SHORT);
}

#[test]
fn all_of_it_has_its_time_while_connecting() {
    let _watchdog = watchdog();
    let hole = hole();
    let mut client = client();
    let options = &mut client.transport_mut().connect;
    (options.connect_timeout, options.total_timeout) = (None, Some(SHORT));
    let (told, elapsed) =
        fail(client, |client| _ = client.connect(url(hole.address).as_str()).unwrap());
    assert_eq!(told, (TIMED_OUT, Some((Stage::Connect, SHORT, 0))));
    assert_about(elapsed, SHORT);
}

/// The time that is named is the one that was up.
#[test]
fn the_shorter_time_is_named() {
    let _watchdog = watchdog();
    let hole = hole();
    for (stage, total) in [(SHORT, PATIENCE), (PATIENCE, SHORT)] {
        let mut client = client();
        let options = &mut client.transport_mut().connect;
        (options.connect_timeout, options.total_timeout) = (Some(stage), Some(total));
        let (told, elapsed) =
            fail(client, |client| _ = client.connect(url(hole.address).as_str()).unwrap());
        assert_eq!(told, (TIMED_OUT, Some((Stage::Connect, SHORT, 0))));
        assert_about(elapsed, SHORT);
    }
}

/// "For everything, up to the open connection."
#[test]
fn all_of_it_has_its_time_while_shaking_hands() {
    let _watchdog = watchdog();
    let (address, thread) = serve(|mut peer| {
        peer.read_head();
        peer.read_to_end()
    });
    let settings = client_settings(|options| options.open_timeout = Some(millis(4000)));
    let mut client = Client::<Net>::new(settings);
    client.transport_mut().connect.total_timeout = Some(SHORT);
    let (told, elapsed) = fail(client, |client| _ = client.connect(url(address).as_str()).unwrap());
    assert!(elapsed < millis(3500), "{told:?} after {elapsed:?}");
    assert!(thread.join().unwrap().is_empty());
}

/// And an open connection has all the time there is.
#[test]
fn the_time_for_all_of_it_ends_when_it_is_open() {
    let _watchdog = watchdog();
    let running = Running::start(crate::scene::echo());
    let log = Log::default();
    let mut client = crate::scene::told(&log);
    let options = &mut client.transport_mut().connect;
    options.total_timeout = Some(millis(1000));
    options.connect_timeout = Some(millis(1000));
    client.on_open(|context| {
        context.set_timer(millis(1600), |_, context| {
            context.close(anyloop::proto::CloseCode::NORMAL, "").unwrap();
        });
    });
    client.connect(running.url().as_str()).unwrap();
    client.run().unwrap();
    assert_eq!(log.take(), ["close clean by local: 1000/1000"]);
}

/// A server: bytes that come slowly do not prolong the time for the request.
#[test]
fn a_slow_request_has_its_time() {
    let _watchdog = watchdog();
    let log = Log::default();
    let settings = server_settings(|options| options.open_timeout = Some(millis(200)));
    let running = Running::start(Server::<Net, _>::with_factory(settings, recording(&log)));
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
    eventually("it was told", || log.take() == ["fail by timer: opening handshake timed out"]);
}

#[test]
fn a_client_that_says_nothing_is_let_go() {
    let _watchdog = watchdog();
    let settings = server_settings(|options| options.open_timeout = Some(millis(100)));
    let running = Running::start(Server::new(settings));
    let start = Instant::now();
    let mut silent: Vec<_> = (0..20).map(|_| Peer::connect(running.address)).collect();
    for peer in &mut silent {
        assert!(peer.read_to_end().is_empty());
    }
    assert_about(start.elapsed(), millis(100));
    eventually("all have failed", || running.server.counters().failed == 20);
}

#[test]
fn a_verdict_has_its_time() {
    let _watchdog = watchdog();
    let settings = server_settings(|options| options.verdict_timeout = Some(millis(100)));
    let mut server = Server::<Net>::new(settings);
    server.on_validate(|_, _| Verdict::Defer);
    let running = Running::start(server);
    let mut peer = Peer::connect(running.address);
    peer.write(requests::REQUEST);
    assert!(peer.read_to_end().starts_with(b"HTTP/1.1 503 "));
}
