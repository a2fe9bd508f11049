//! Panics of handlers: one leaves its run call, its connection fails with 1011, and all else goes on.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyloop::net::Server;
use anyloop::prelude::*;
use anyloop_testkit::frames::{self, Frame};
use anyloop_testkit::peer::{End, Peer};
use anyloop_testkit::wait::{eventually, let_time_pass};
use anyloop_testkit::watchdog::within_time;

use crate::fixture::{Fixture, client, described, open_client, server_config};
use crate::harness::{Count, Log, drive, panics};
use crate::wire::{close, ping, request, reset, text, unmasked};

const MESSAGE: &str = "in a handler";

/// Panics if the message says so, and echoes others.
fn panic_or_echo(server: &mut Server, log: &Log) {
    let it = log.clone();
    server.on_message(move |message, context| {
        assert!(message.as_bytes() != b"panic", "in a handler");
        it.add(described(&message));
        context.send(message).unwrap();
    });
}

/// The connection has failed in a run call: what is left is its Close, and its end.
#[track_caller]
fn ends_with_1011(fixture: &Fixture, peer: &mut Peer) {
    let mut frames = Vec::new();
    fixture.drive("the Close", || {
        frames.extend(peer.poll_frames());
        peer.is_over()
    });
    frames.extend(peer.poll_frames());
    assert_eq!(frames.last().and_then(Frame::close_code), Some(1011));
    peer.finish();
    fixture.drive("the end", || fixture.server.connections().is_empty());
}

/// A fixture of which one connection panics, by what `cause` does, and the other is served before and after.
#[track_caller]
fn survives(set: fn(&mut Server), cause: &[u8]) {
    let fixture = Fixture::with(|server, log| {
        panic_or_echo(server, log);
        set(server);
    });
    let (mut peer, mut other) = (fixture.open(), fixture.open());
    peer.write(cause);
    panics(MESSAGE, || fixture.event_loop.run());
    assert!(!fixture.event_loop.stopped());
    other.write(text("still here"));
    fixture.drive("the echo", || other.poll_frame() == Some(frames::text("still here")));
    drop(other);
    fixture.drive("the other's end", || fixture.log.count_of("close") > 0);
    fixture.log.take();
    ends_with_1011(&fixture, &mut peer);
    assert_eq!(fixture.log.all(), ["close, failed"]);
}

#[test]
fn a_panic_in_message_fails_its_connection_alone() {
    within_time(|| survives(|_| (), &text("panic")));
}

/// With messages behind it in the same read; also where only one handler may run.
#[test]
fn a_panic_of_a_completion_fails_its_connection_alone() {
    let set = |server: &mut Server| {
        server.on_message(|message, context| match message.as_bytes() {
            b"panic" => _ = context.send_then(message, |_| panic!("in a handler")).unwrap(),
            _ => _ = context.send(message).unwrap(),
        });
    };
    within_time(move || survives(set, &[text("panic"), text("1"), text("2")].concat()));
    within_time(move || {
        let fixture = Fixture::with(|server, _| set(server));
        let mut peer = fixture.open();
        peer.write([text("panic"), text("1"), text("2")].concat());
        panics(MESSAGE, || while fixture.event_loop.run_one() > 0 {});
        ends_with_1011(&fixture, &mut peer);
    });
}

#[test]
fn a_panic_in_ping_fails_its_connection_alone() {
    within_time(|| {
        let set = |server: &mut Server| _ = server.on_ping(|_, _| panic!("in a handler"));
        survives(set, &ping("?"));
    });
}

#[test]
fn a_panic_in_interrupt_fails_its_connection_alone() {
    within_time(|| {
        let set = |server: &mut Server| {
            server.on_interrupt(|_| panic!("in a handler"));
            server.on_ping(|_, context| {
                context.handle().interrupt().unwrap();
                true
            });
        };
        survives(set, &ping("?"));
    });
}

#[test]
fn a_panic_in_what_was_posted_to_a_connection_fails_it_alone() {
    within_time(|| {
        let set = |server: &mut Server| {
            server.on_ping(|_, context| {
                context.handle().post(|_, _| panic!("in a handler")).unwrap();
                true
            });
        };
        survives(set, &ping("?"));
    });
}

#[test]
fn a_panic_in_a_timer_of_a_connection_fails_it_alone() {
    within_time(|| {
        let set = |server: &mut Server| {
            server.on_ping(|_, context| {
                context.set_timer(Duration::from_millis(1), |_, _| panic!("in a handler"));
                true
            });
        };
        survives(set, &ping("?"));
    });
}

#[test]
fn after_a_panic_close_is_reported_once_and_what_came_behind_is_not() {
    within_time(|| {
        let fixture = Fixture::with(panic_or_echo);
        let mut peer = fixture.open();
        peer.write([text("before"), text("panic"), text("behind")].concat());
        panics(MESSAGE, || fixture.event_loop.run());
        assert_eq!(fixture.log.all(), ["before"]);
        ends_with_1011(&fixture, &mut peer);
        assert_eq!(fixture.log.all(), ["before", "close, failed"]);
    });
}

#[test]
fn a_panic_in_open_fails_its_connection_and_close_is_reported() {
    within_time(|| {
        let fixture = Fixture::with(|server, log| {
            let it = log.clone();
            server.on_open(move |_| {
                it.add("open");
                panic!("in a handler");
            });
        });
        let mut peer = Peer::connect(fixture.address);
        peer.write([request("/"), text("behind")].concat());
        panics(MESSAGE, || fixture.event_loop.run());
        fixture.drive("the head", || peer.poll_head().is_some());
        ends_with_1011(&fixture, &mut peer);
        assert_eq!(fixture.log.all(), ["open", "close, failed"]);
    });
}

#[test]
fn a_panic_in_validate_refuses_the_request_and_fail_is_reported_once() {
    within_time(|| {
        let fixture = Fixture::with(|server, _| {
            server.on_validate(|_, _| -> Answer { panic!("in a handler") });
        });
        let mut peer = Peer::connect(fixture.address);
        peer.write(request("/"));
        panics(MESSAGE, || fixture.event_loop.run());
        let mut head = None;
        fixture.drive("a response", || {
            head = head.take().or_else(|| peer.poll_head());
            peer.is_over()
        });
        assert!(head.unwrap().starts_with("HTTP/1.1 5")); // a failure of the server's
        drop(peer);
        fixture.drive("the end", || fixture.server.connections().is_empty());
        assert_eq!(fixture.log.all(), ["fail"]);
    });
}

#[test]
fn a_panic_in_http_refuses_the_request() {
    within_time(|| {
        let fixture = Fixture::with(|server, _| {
            server.on_http(|_, _| -> Answer { panic!("in a handler") });
        });
        let mut peer = Peer::connect(fixture.address);
        peer.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        panics(MESSAGE, || fixture.event_loop.run());
        let mut head = None;
        fixture.drive("a response", || {
            head = head.take().or_else(|| peer.poll_head());
            peer.is_over()
        });
        assert!(head.unwrap().starts_with("HTTP/1.1 5"));
        drop(peer);
        fixture.drive("the end", || fixture.server.connections().is_empty());
        assert_eq!(fixture.log.all(), ["fail"]);
    });
}

/// A connection that was closed by a handshake, and whose `close` panics.
fn panics_in_close(log: &Log) -> impl Fn(&mut Server, &Log) + use<> {
    let counted = log.clone();
    move |server, log| {
        panic_or_echo(server, log);
        let it = counted.clone();
        server.on_close(move |_, _| {
            it.add("close");
            assert!(it.len() > 1, "in a handler"); // the first only
        });
    }
}

#[test]
fn a_panic_in_close_ends_the_connection() {
    within_time(|| {
        let closes = Log::default();
        let fixture = Fixture::with(panics_in_close(&closes));
        let (mut peer, mut other) = (fixture.open(), fixture.open());
        peer.write_last(close(1000));
        panics(MESSAGE, || fixture.event_loop.run());
        eventually("the end", || peer.is_over());
        other.write(text("still here"));
        fixture.drive("the echo", || other.poll_frame() == Some(frames::text("still here")));
        assert_eq!(closes.len(), 1);
        drop(other);
        fixture.server.stop_listening();
        fixture.event_loop.run(); // which the first does not keep alive
        assert_eq!(closes.len(), 2);
    });
}

/// It is the reply's write that finds out that the peer has gone.
#[test]
fn a_panic_in_close_after_a_write_that_failed_leaves_nothing_to_the_others() {
    within_time(|| {
        let closes = Log::default();
        let goes = Arc::new(Mutex::new(None::<Peer>));
        let peer = goes.clone();
        let fixture = Fixture::with(|server, log| {
            panics_in_close(&closes)(server, log);
            server.on_message(move |message, context| {
                if let Some(peer) = peer.lock().unwrap().take() {
                    reset(peer);
                }
                context.send(message).unwrap();
            });
        });
        let (peer, mut other) = (fixture.open(), fixture.open());
        peer.write(text("for the first alone"));
        *goes.lock().unwrap() = Some(peer);
        panics(MESSAGE, || fixture.event_loop.run());
        assert_eq!(closes.len(), 1);
        fixture.drive("the end of the first", || fixture.server.connections().len() == 1);
        other.write(text("still here"));
        fixture.drive("the echo", || other.poll_frame() == Some(frames::text("still here")));
    });
}

#[test]
fn pitfall_a_connection_that_panics_in_close_is_not_there_any_more() {
    within_time(|| {
        let closes = Log::default();
        let fixture = Fixture::with(panics_in_close(&closes));
        let peer = fixture.open();
        peer.write_last(close(1000));
        panics(MESSAGE, || fixture.event_loop.run());
        assert_eq!(fixture.event_loop.run_for(Duration::from_millis(5)), 0);
        assert_eq!(fixture.server.connections(), []);
    });
}

#[test]
fn pitfall_a_handle_is_of_its_own_connection_after_another_has_panicked_in_close() {
    within_time(|| {
        let closes = Log::default();
        let fixture = Fixture::with(panics_in_close(&closes));
        let peer = fixture.open();
        let first = fixture.handle();
        first.post(|_, _| ()).unwrap(); // so that it is known to its connection
        peer.write_last(close(1000));
        panics(MESSAGE, || fixture.event_loop.run());
        assert!(first.send("hello").is_err());
        // The next takes its place in the loop.
        let mut peer = fixture.open();
        let handles = fixture.server.connections();
        assert_eq!(handles.len(), 1);
        handles[0].send("hello").unwrap();
        fixture.drive("the message", || peer.poll_frame() == Some(frames::text("hello")));
    });
}

#[test]
fn a_panic_in_fail_ends_the_connection() {
    within_time(|| {
        let fixture = Fixture::with(|server, _| {
            server.on_fail(|_, _| panic!("in a handler"));
        });
        let mut peer = Peer::connect(fixture.address);
        peer.write("nonsense\r\n\r\n");
        peer.finish();
        panics(MESSAGE, || fixture.event_loop.run());
        eventually("the end", || peer.is_over());
        fixture.server.stop_listening();
        assert_eq!(fixture.event_loop.run(), 0);
        assert_eq!(fixture.server.connections(), []);
    });
}

#[test]
fn a_client_that_panics_in_a_handler_fails_with_1011() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let mut client = client(&event_loop, &log);
        client.on_message(|_, _| panic!("in a handler"));
        let (mut peer, _) = open_client(&event_loop, &client);
        peer.write(unmasked(1, b"hi"));
        panics(MESSAGE, || event_loop.run());
        drive(&event_loop, "the Close", || {
            peer.poll_frame().is_some_and(|frame| frame.close_code() == Some(1011))
        });
        drop(peer);
        event_loop.run();
        assert_eq!(log.all(), ["open", "close, failed"]);
    });
}

#[test]
fn a_panic_in_a_posted_function_or_a_timer_leaves_the_others_for_the_next_run() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let post = |name: &'static str| {
            let it = log.clone();
            event_loop.post(move || it.add(name));
        };
        post("a");
        event_loop.post(|| panic!("in a handler"));
        post("b");
        event_loop.set_timer(Duration::ZERO, || panic!("in a timer"));
        event_loop.set_timer(Duration::from_millis(1), || ());
        let mut panicked = 0;
        let mut ran = 0;
        while !event_loop.stopped() {
            let run = std::panic::AssertUnwindSafe(|| event_loop.run());
            match std::panic::catch_unwind(run) {
                Ok(called) => ran += called,
                Err(_) => panicked += 1,
            }
        }
        assert_eq!(panicked, 2);
        assert!(ran >= 1); // those before a panic are counted by nobody
        assert_eq!(log.all(), ["a", "b"]);
    });
}

#[test]
fn pitfall_readiness_that_was_harvested_survives_panics() {
    within_time(|| {
        let fixture = Fixture::with(panic_or_echo);
        let mut peers: Vec<_> = (0..20).map(|_| fixture.open()).collect();
        for (i, peer) in peers.iter().enumerate() {
            peer.write(text(if i % 4 == 0 { "panic" } else { "echo" }));
        }
        for _ in 0..5 {
            panics(MESSAGE, || fixture.event_loop.run());
        }
        fixture.drive("the echoes", || fixture.log.count("echo") == 15);
        for (i, peer) in peers.iter_mut().enumerate() {
            let mut frame = None;
            fixture.drive("its frame", || {
                frame = frame.take().or_else(|| peer.poll_frame());
                frame.is_some()
            });
            match i % 4 {
                0 => assert_eq!(frame.unwrap().close_code(), Some(1011), "of {i}"),
                _ => assert_eq!(frame.unwrap(), frames::text("echo"), "of {i}"),
            }
        }
    });
}

/// What is due is not forgotten when a function that was posted panics in the same turn.
#[test]
fn pitfall_a_connection_that_panics_when_a_deadline_has_come_still_ends_in_time() {
    within_time(|| {
        let config = server_config()
            .ping_interval(Duration::from_millis(20))
            .close_timeout(Duration::from_millis(50));
        let fixture = Fixture::of(&EventLoop::new().unwrap(), config, |_, _| ());
        let _peer = fixture.open(); // which does not end the stream itself
        let handle = fixture.handle();
        fixture.event_loop.poll();
        // Nobody runs the loop meanwhile.
        let_time_pass(Duration::from_millis(60), "a ping becomes due");
        handle.post(|_, _| panic!("in a handler")).unwrap();
        panics(MESSAGE, || fixture.event_loop.run());
        fixture.server.stop_listening();
        fixture.event_loop.run(); // until the close timeout
        assert_eq!(fixture.log.all(), ["close, failed"]);
    });
}

#[test]
fn a_panic_in_the_factory_leaves_the_server_accepting() {
    within_time(|| {
        let (event_loop, made) = (EventLoop::new().unwrap(), Count::default());
        let factory = move || {
            assert!(made.add() > 1, "in a handler");
            Handlers::new()
        };
        let server = Server::with_factory_on(&event_loop, server_config(), factory);
        let address = server.listen("127.0.0.1:0").unwrap();
        server.start_accept().unwrap();
        let mut first = Peer::connect(address);
        panics(MESSAGE, || event_loop.run());
        eventually("the end of the first", || first.is_over());
        let mut second = Peer::connect(address);
        second.write(request("/"));
        drive(&event_loop, "the handshake", || second.poll_head().is_some());
    });
}

/// Keeps what is dropped with it.
struct Panics(Arc<Log>);

impl Handler for Panics {
    fn message(&mut self, _: Message<'_>, _: &mut Context<'_, Self>) {
        self.0.add("message");
        std::panic::panic_any(17_u8);
    }

    fn close(&mut self, _: &Ending<'_>, _: &mut Context<'_, Self>) {
        self.0.add("close");
    }
}

#[test]
fn what_was_panicked_with_comes_out_of_the_run_call_as_it_is() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Arc::new(Log::default()));
        let it = log.clone();
        let factory = move || Panics(it.clone());
        let server = Server::with_factory_on(&event_loop, server_config(), factory);
        let mut peer = Peer::connect(server.listen("127.0.0.1:0").unwrap());
        server.start_accept().unwrap();
        peer.write([request("/"), text("hi")].concat());
        let run = std::panic::AssertUnwindSafe(|| event_loop.run());
        let panic = std::panic::catch_unwind(run).unwrap_err();
        assert_eq!(panic.downcast_ref::<u8>(), Some(&17));
        drive(&event_loop, "the end", || peer.is_over());
        assert_eq!(peer.poll_end(), Some(End::Eof));
        peer.finish();
        server.stop_listening();
        event_loop.run();
        assert_eq!(log.all(), ["message", "close"]);
    });
}

#[test]
fn a_panic_in_a_run_call_within_a_handler_leaves_both() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let inner = event_loop.clone();
        event_loop.post(move || _ = inner.run());
        event_loop.post(|| panic!("in a handler"));
        event_loop.post(|| ());
        panics(MESSAGE, || event_loop.run());
        assert_eq!(event_loop.run(), 1);
        event_loop.reset().unwrap(); // nobody is inside
    });
}

/// Panics when it is dropped, the first of them.
struct PanicsAtEnd(Count);

impl Handler for PanicsAtEnd {}

impl Drop for PanicsAtEnd {
    fn drop(&mut self) {
        assert!(self.0.add() > 1, "in a handler");
    }
}

#[test]
fn a_panic_in_the_drop_of_a_handler_leaves_the_loop_going_on() {
    within_time(|| {
        let (event_loop, dropped) = (EventLoop::new().unwrap(), Count::default());
        let it = dropped.clone();
        let factory = move || PanicsAtEnd(it.clone());
        let server = Server::with_factory_on(&event_loop, server_config(), factory);
        let address = server.listen("127.0.0.1:0").unwrap();
        server.start_accept().unwrap();
        let mut peers = [Peer::connect(address), Peer::connect(address)];
        peers.iter().for_each(|peer| peer.write_last([request("/"), close(1000)].concat()));
        panics(MESSAGE, || event_loop.run());
        server.stop_listening();
        event_loop.run(); // neither keeps it alive
        assert_eq!(dropped.get(), 2);
        peers.iter_mut().for_each(|peer| eventually("the end", || peer.is_over()));
        assert_eq!(server.connections(), []);
    });
}
