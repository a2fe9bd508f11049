//! One handler is one callback into application code, overridden or not; nothing else counts.

use anyloop::http::StatusCode;
use anyloop::net::Server;
use anyloop::prelude::*;
use anyloop_testkit::frames;
use anyloop_testkit::peer::{End, Peer};
use anyloop_testkit::requests::SWITCHING;
use anyloop_testkit::watchdog::within_time;

use crate::fixture::{Fixture, client, open_client, server_config};
use crate::harness::{Log, await_readable, drive};
use crate::wire::{close, masked, numbered, ping, request, text, unmasked};

/// Overrides nothing.
struct Bare;

impl Handler for Bare {}

/// What a connection sees from its beginning to its end: request, message, ping, pong, Close.
fn whole_life() -> Vec<u8> {
    [request("/"), text("hello"), ping("?"), masked(10, b"!"), close(1000)].concat()
}

#[test]
fn what_is_not_overridden_counts() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let server = Server::with_factory_on(&event_loop, server_config(), || Bare);
        let mut peer = Peer::connect(server.listen("127.0.0.1:0").unwrap());
        server.start_accept().unwrap();
        peer.write_last(whole_life());
        let mut ran = drive(&event_loop, "the end", || peer.is_over());
        server.stop_listening();
        ran += event_loop.run(); // what is reported after the end
        assert!(peer.poll_head().unwrap().starts_with(SWITCHING));
        assert_eq!(peer.poll_frame(), Some(frames::pong("?")));
        assert_eq!(peer.poll_frames(), [frames::close(1000, "")]);
        assert_eq!(ran, 6); // validate, open, message, ping, pong, close
    });
}

#[test]
fn what_is_overridden_counts_once() {
    within_time(|| {
        let fixture = Fixture::with(|server, log| {
            let it = log.clone();
            server.on_validate(move |_, _| {
                it.add("validate");
                Accept::new()
            });
            let it = log.clone();
            server.on_ping(move |_, _| {
                it.add("ping");
                true
            });
            let it = log.clone();
            server.on_pong(move |_, _, _| it.add("pong"));
        });
        let peer = Peer::connect(fixture.address);
        peer.write_last(whole_life());
        let ran = fixture.drive_to(6);
        fixture.server.stop_listening();
        assert_eq!(ran + fixture.event_loop.run(), 6);
        let entries = ["validate", "open", "hello", "ping", "pong", "close, clean"];
        assert_eq!(fixture.log.all(), entries);
    });
}

#[test]
fn run_one_and_poll_one_run_one_callback_each_from_the_first_to_the_last() {
    for call in [EventLoop::run_one as fn(&EventLoop) -> usize, EventLoop::poll_one] {
        within_time(move || {
            let fixture = Fixture::with(|server, log| {
                let it = log.clone();
                server.on_validate(move |_, _| {
                    it.add("validate");
                    Accept::new()
                });
            });
            let peer = Peer::connect(fixture.address);
            peer.write_last([request("/"), numbered(3), close(1000)].concat());
            let all = ["validate", "open", "0", "1", "2", "close, clean"];
            let mut reported = 0;
            while reported < all.len() {
                await_readable(&fixture.event_loop);
                let ran = call(&fixture.event_loop);
                assert!(ran <= 1, "{ran} at a time");
                reported += ran;
                assert_eq!(fixture.log.all(), all[..reported]);
            }
        });
    }
}

#[test]
fn a_plain_request_is_one_handler() {
    within_time(|| {
        let fixture = Fixture::with(|server, log| {
            let it = log.clone();
            server.on_http(move |_, _| {
                it.add("http");
                Answer::status(StatusCode::OK, "hello")
            });
        });
        let mut peer = Peer::connect(fixture.address);
        peer.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let ran = fixture.drive("the response", || peer.is_over());
        drop(peer);
        fixture.server.stop_listening();
        assert_eq!(ran + fixture.event_loop.run(), 1);
        assert_eq!(fixture.log.all(), ["http"]);
    });
}

#[test]
fn a_handshake_that_fails_is_one_handler() {
    within_time(|| {
        let fixture = Fixture::new();
        let mut peer = Peer::connect(fixture.address);
        peer.write("nonsense\r\n\r\n");
        let ran = fixture.drive("the response", || peer.is_over());
        drop(peer);
        fixture.server.stop_listening();
        assert_eq!(ran + fixture.event_loop.run(), 1);
        assert_eq!(fixture.log.all(), ["fail"]);
    });
}

#[test]
fn accepting_and_handshake_bytes_do_not_count() {
    within_time(|| {
        let fixture = Fixture::new();
        let peers: Vec<_> = (0..10).map(|_| Peer::connect(fixture.address)).collect();
        for peer in &peers {
            peer.write(&request("/")[..40]);
        }
        let ran = fixture.drive("ten connections", || fixture.server.connections().len() == 10);
        assert_eq!(ran + fixture.event_loop.run_for(std::time::Duration::from_millis(10)), 0);
    });
}

#[test]
fn writing_what_waits_does_not_count() {
    within_time(|| {
        let config = server_config().high_water_mark(usize::MAX); // `drained` is never called
        let fixture = Fixture::of(&EventLoop::new().unwrap(), config, |server, _| {
            server.on_open(|context| {
                for _ in 0..12 {
                    context.send(&vec![7; 1 << 20][..]).unwrap();
                }
            });
        });
        let mut peer = Peer::connect(fixture.address);
        peer.write(request("/"));
        let mut size = 0;
        let ran = fixture.drive("12 MiB", || {
            peer.is_over();
            size += std::mem::take(&mut peer.input).len();
            size > 12 << 20
        });
        assert_eq!(ran, 2); // validate, open
    });
}

#[test]
fn what_handles_ask_for_counts_where_it_calls_the_program() {
    within_time(|| {
        let fixture = Fixture::with(|server, log| {
            let it = log.clone();
            server.on_interrupt(move |_| it.add("interrupt"));
        });
        let mut peer = fixture.open();
        let handle = fixture.handle();
        handle.send("sent").unwrap(); // none
        handle.pause_reading().unwrap(); // none
        handle.resume_reading().unwrap(); // none
        handle.interrupt().unwrap(); // one
        let it = fixture.log.clone();
        handle.post(move |_, _| it.add("posted")).unwrap(); // one
        let it = fixture.log.clone();
        // One to set it, and one to run it.
        handle.set_timer(std::time::Duration::ZERO, move |_, _| it.add("timer")).unwrap();
        let ran = fixture.drive_to(3);
        assert_eq!(ran, 4);
        assert_eq!(fixture.log.all(), ["interrupt", "posted", "timer"]);
        assert_eq!(peer.poll_frame(), Some(frames::text("sent")));
    });
}

#[test]
fn a_clients_callbacks_count() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let client = client(&event_loop, &log);
        let (mut peer, _) = open_client(&event_loop, &client);
        peer.write([unmasked(1, b"hi"), unmasked(8, &1000u16.to_be_bytes())].concat());
        let ran =
            drive(&event_loop, "the Close", || peer.poll_frame() == Some(frames::close(1000, "")));
        peer.finish(); // the server ends the stream (RFC 6455 §7.1.1)
        assert_eq!(ran + event_loop.run(), 3);
        assert_eq!(log.all(), ["open", "hi", "close, clean"]);
        assert_eq!(peer.poll_end(), Some(End::Eof));
    });
}
