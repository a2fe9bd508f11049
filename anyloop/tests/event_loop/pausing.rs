//! Pausing, and what comes meanwhile.

use std::time::Duration;

use anyloop::prelude::*;
use anyloop_testkit::frames;
use anyloop_testkit::peer::Peer;
use anyloop_testkit::watchdog::within_time;

use crate::fixture::{Fixture, described};
use crate::harness::Count;
use crate::wire::{close, numbered, ping, request, text};

/// A server whose connections pause at each message `pause`.
fn fixture() -> Fixture {
    Fixture::with(|server, log| {
        let it = log.clone();
        server.on_message(move |message, context| {
            it.add(described(&message));
            if message.as_bytes() == b"pause" {
                context.pause_reading();
            }
        });
        let it = log.clone();
        server.on_ping(move |payload, _| {
            it.add(format!("ping {}", String::from_utf8_lossy(payload)));
            true
        });
    })
}

/// For a while, no handler is called.
#[track_caller]
fn is_quiet(fixture: &Fixture) {
    let before = fixture.log.all();
    assert_eq!(fixture.event_loop.run_for(Duration::from_millis(10)), 0);
    assert_eq!(fixture.log.all(), before);
}

fn numbers(messages: usize) -> Vec<String> {
    (0..messages).map(|i| i.to_string()).collect()
}

fn a_pause_in_the_first_of_many(open: fn(&Fixture) -> Peer) {
    within_time(move || {
        let fixture = fixture();
        let peer = open(&fixture);
        peer.write([text("pause"), numbered(500), ping("?")].concat());
        fixture.drive_to(1);
        is_quiet(&fixture);
        assert_eq!(fixture.log.take(), ["pause"]);
        fixture.handle().resume_reading().unwrap();
        assert_eq!(fixture.drive_to(501), 501);
        let mut expected = numbers(500);
        expected.push("ping ?".to_string());
        assert_eq!(fixture.log.all(), expected);
    });
}

#[test]
fn pitfall_a_pause_in_the_first_handler_keeps_all_that_was_read_with_it() {
    a_pause_in_the_first_of_many(Fixture::open);
}

#[test]
fn pitfall_a_pause_in_the_first_handler_keeps_all_that_was_read_with_it_on_a_unix_socket() {
    a_pause_in_the_first_of_many(Fixture::open_unix);
}

#[test]
fn pauses_among_messages_hold_each_for_itself() {
    within_time(|| {
        let fixture = fixture();
        let peer = fixture.open();
        let round = [text("pause"), text("on")].concat();
        peer.write(round.repeat(5));
        fixture.drive_to(1);
        for _ in 0..4 {
            is_quiet(&fixture);
            assert_eq!(fixture.log.all().last().unwrap(), "pause");
            fixture.log.take();
            fixture.handle().resume_reading().unwrap();
            fixture.drive_to(2);
            assert_eq!(fixture.log.all(), ["on", "pause"]);
        }
    });
}

#[test]
fn pitfall_to_resume_without_a_pause_does_nothing() {
    within_time(|| {
        let fixture = fixture();
        let peer = fixture.open();
        fixture.handle().resume_reading().unwrap();
        is_quiet(&fixture);
        peer.write(numbered(10));
        fixture.handle().resume_reading().unwrap();
        fixture.handle().resume_reading().unwrap();
        assert_eq!(fixture.drive_to(10), 10);
        is_quiet(&fixture);
        assert_eq!(fixture.log.all(), numbers(10));
    });
}

#[test]
fn pitfall_what_comes_during_a_pause_is_remembered() {
    within_time(|| {
        for open in [Fixture::open, Fixture::open_unix] {
            let fixture = fixture();
            let peer = open(&fixture);
            peer.write(text("pause"));
            fixture.drive_to(1);
            for piece in numbered(100).chunks(100) {
                peer.write(piece);
                is_quiet(&fixture);
            }
            fixture.log.take();
            fixture.handle().resume_reading().unwrap();
            fixture.drive_to(100);
            assert_eq!(fixture.log.all(), numbers(100));
        }
    });
}

#[test]
fn to_pause_twice_is_to_pause_once() {
    within_time(|| {
        let fixture = fixture();
        let peer = fixture.open();
        let handle = fixture.handle();
        handle.pause_reading().unwrap();
        handle.pause_reading().unwrap();
        fixture.event_loop.poll();
        peer.write(text("hi"));
        is_quiet(&fixture);
        handle.resume_reading().unwrap();
        fixture.drive_to(1);
        handle.pause_reading().unwrap();
        handle.resume_reading().unwrap();
        peer.write(text("again"));
        fixture.drive_to(2);
    });
}

#[test]
fn a_pause_from_another_thread_holds_from_the_next_message_on() {
    within_time(|| {
        let fixture = fixture();
        let peer = fixture.open();
        let handle = fixture.handle();
        std::thread::spawn(move || handle.pause_reading().unwrap()).join().unwrap();
        peer.write(numbered(10));
        is_quiet(&fixture);
        let handle = fixture.handle();
        std::thread::spawn(move || handle.resume_reading().unwrap()).join().unwrap();
        fixture.drive_to(10);
        assert_eq!(fixture.log.all(), numbers(10));
    });
}

/// The other end sends, and ends the stream, while reading is paused.
fn an_end_during_a_pause(
    open: fn(&Fixture) -> Peer,
    end: fn(Peer) -> Option<Peer>,
    reported: &'static str,
) {
    within_time(move || {
        let fixture = fixture();
        let peer = open(&fixture);
        peer.write([text("pause"), text("a")].concat());
        fixture.drive_to(1);
        peer.write(text("b"));
        is_quiet(&fixture);
        let _peer = end(peer);
        is_quiet(&fixture);
        assert_eq!(fixture.log.take(), ["pause"]);
        fixture.server.stop_listening();
        fixture.handle().resume_reading().unwrap();
        fixture.event_loop.run();
        assert_eq!(fixture.log.all(), ["a", "b", reported]);
    });
}

/// Drops the other end.
fn gone(peer: Peer) -> Option<Peer> {
    drop(peer);
    None
}

/// Ends the other end's sending direction.
fn finished(peer: Peer) -> Option<Peer> {
    peer.finish();
    Some(peer)
}

/// Has the other end say Close, and go.
fn closed(peer: Peer) -> Option<Peer> {
    peer.write_last(close(1000));
    peer.finish();
    Some(peer)
}

#[test]
fn pitfall_a_peer_that_goes_during_a_pause_is_read_to_its_end() {
    an_end_during_a_pause(Fixture::open, gone, "close, failed");
    an_end_during_a_pause(Fixture::open_unix, gone, "close, failed");
}

#[test]
fn pitfall_a_peer_that_ends_its_direction_during_a_pause_is_read_to_its_end() {
    an_end_during_a_pause(Fixture::open, finished, "close, failed");
    an_end_during_a_pause(Fixture::open_unix, finished, "close, failed");
}

#[test]
fn pitfall_a_peer_that_closes_during_a_pause_is_read_to_its_end() {
    an_end_during_a_pause(Fixture::open, closed, "close, clean");
    an_end_during_a_pause(Fixture::open_unix, closed, "close, clean");
}

#[test]
fn a_pause_in_open_holds_what_came_with_the_request() {
    within_time(|| {
        let fixture = Fixture::with(|server, log| {
            let it = log.clone();
            server.on_open(move |context| {
                it.add("open");
                context.pause_reading();
            });
        });
        let mut peer = Peer::connect(fixture.address);
        peer.write([request("/"), numbered(3)].concat());
        fixture.drive("the response", || peer.poll_head().is_some());
        is_quiet(&fixture);
        assert_eq!(fixture.log.take(), ["open"]);
        fixture.handle().resume_reading().unwrap();
        fixture.drive_to(3);
        assert_eq!(fixture.log.all(), numbers(3));
    });
}

#[test]
fn a_paused_connection_sends_and_runs_what_is_posted() {
    within_time(|| {
        let fixture = fixture();
        let mut peer = fixture.open();
        peer.write([text("pause"), text("later")].concat());
        fixture.drive_to(1);
        let (handle, count) = (fixture.handle(), Count::default());
        handle.send("sent").unwrap();
        let it = count.clone();
        let posted = move |_: &mut Handlers, context: &mut Context<'_, Handlers>| {
            it.add();
            context.send("posted").unwrap();
        };
        handle.post(posted).unwrap();
        let sent = [frames::text("sent"), frames::text("posted")];
        let mut frames = Vec::new();
        fixture.drive("two messages", || {
            frames.extend(peer.poll_frames());
            frames.len() == 2
        });
        assert_eq!((frames, count.get()), (sent.to_vec(), 1));
        assert_eq!(fixture.log.all(), ["pause"]);
    });
}

#[test]
fn a_resume_in_what_was_posted_goes_on_at_once() {
    within_time(|| {
        let fixture = fixture();
        let peer = fixture.open();
        peer.write([text("pause"), numbered(5)].concat());
        fixture.drive_to(1);
        fixture.log.take();
        fixture.handle().post(|_, context| context.resume_reading()).unwrap();
        assert_eq!(fixture.drive_to(5), 6);
        assert_eq!(fixture.log.all(), numbers(5));
    });
}

#[test]
fn a_paused_connection_can_be_stepped_when_it_goes_on() {
    within_time(|| {
        let fixture = fixture();
        let peer = fixture.open();
        peer.write([text("pause"), numbered(50)].concat());
        assert_eq!(fixture.event_loop.run_one(), 1);
        assert_eq!(fixture.event_loop.poll_one(), 0);
        fixture.handle().resume_reading().unwrap();
        fixture.log.take();
        for i in 0..50 {
            assert_eq!(fixture.event_loop.poll_one(), 1);
            assert_eq!(fixture.log.len(), i + 1);
        }
        assert_eq!(fixture.event_loop.poll_one(), 0);
        assert_eq!(fixture.log.all(), numbers(50));
    });
}
