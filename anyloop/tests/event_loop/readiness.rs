//! What the operating system reports once is not forgotten, and a peer that sends without end delays no
//! other.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyloop::prelude::*;
use anyloop_testkit::frames;
use anyloop_testkit::peer::{End, Peer};
use anyloop_testkit::wait::eventually;
use anyloop_testkit::watchdog::within_time;
use socket2::SockRef;

use crate::fixture::{Fixture, described, server_config};
use crate::harness::await_readable;
use crate::wire::{close, masked, numbered, request, reset, text};

/// What came with the end of the stream is reported before it.
fn data_and_end(
    open: fn(&Fixture) -> Peer,
    end: fn(Peer) -> Option<Peer>,
    bytes: &[u8],
    reported: &str,
) {
    let fixture = Fixture::new();
    let peer = open(&fixture);
    fixture.event_loop.poll();
    peer.write(bytes);
    let _peer = end(peer); // before the loop looks
    await_readable(&fixture.event_loop);
    fixture.server.stop_listening();
    fixture.event_loop.run();
    let mut expected: Vec<_> = (0..10).map(|i| i.to_string()).collect();
    expected.push(reported.to_string());
    assert_eq!(fixture.log.all(), expected);
}

fn finish(peer: Peer) -> Option<Peer> {
    peer.finish();
    Some(peer)
}

fn leave(peer: Peer) -> Option<Peer> {
    drop(peer);
    None
}

#[test]
fn pitfall_data_and_the_end_of_the_stream_in_one_edge_are_both_reported() {
    within_time(|| {
        for open in [Fixture::open, Fixture::open_unix] {
            for end in [finish, leave] {
                data_and_end(open, end, &numbered(10), "close, failed");
            }
        }
    });
}

#[test]
fn pitfall_data_a_close_and_the_end_of_the_stream_in_one_edge_are_all_reported() {
    within_time(|| {
        for open in [Fixture::open, Fixture::open_unix] {
            for end in [finish, leave] {
                let bytes = [numbered(10), close(1000)].concat();
                data_and_end(open, end, &bytes, "close, clean");
            }
        }
    });
}

#[test]
fn pitfall_an_end_alone_is_reported() {
    within_time(|| {
        for open in [Fixture::open, Fixture::open_unix] {
            for end in [finish, leave] {
                let fixture = Fixture::new();
                let peer = open(&fixture);
                peer.write(text("first"));
                fixture.drive_to(1);
                let _peer = end(peer);
                fixture.server.stop_listening();
                fixture.event_loop.run();
                assert_eq!(fixture.log.all(), ["first", "close, failed"]);
            }
        }
    });
}

#[test]
fn pitfall_a_whole_life_before_the_first_look_is_reported() {
    within_time(|| {
        let fixture = Fixture::new();
        let bytes = [request("/"), numbered(100), close(1000)].concat();
        for end in [finish, leave] {
            let peer = Peer::connect(fixture.address);
            peer.write(&bytes);
            let _peer = end(peer);
            fixture.drive_to(102);
            let log = fixture.log.take();
            assert_eq!((log[0].as_str(), log[101].as_str()), ("open", "close, clean"));
            assert!(log[1..101].iter().enumerate().all(|(i, it)| *it == i.to_string()));
        }
    });
}

#[test]
fn a_stream_that_ends_step_by_step_is_reported_in_order() {
    within_time(|| {
        for open in [Fixture::open, Fixture::open_unix] {
            let fixture = Fixture::new();
            let peer = open(&fixture);
            fixture.event_loop.poll();
            peer.write([numbered(5), close(1000)].concat());
            drop(peer);
            for reported in 1..=6 {
                assert_eq!(fixture.event_loop.run_one(), 1);
                assert_eq!(fixture.log.len(), reported);
            }
            assert_eq!(fixture.log.all(), ["0", "1", "2", "3", "4", "close, clean"]);
        }
    });
}

/// Sends so many bytes as messages, from a thread, and compares what the handler got.
fn much(open: fn(&Fixture) -> Peer, sizes: &'static [usize]) {
    let fixture = Fixture::with(|server, log| {
        let it = log.clone();
        server.on_message(move |message, _| {
            let bytes = message.as_bytes();
            let expected = bytes.len() % 251;
            assert!(bytes.iter().all(|&byte| usize::from(byte) == expected));
            it.add(bytes.len().to_string());
        });
    });
    let peer = open(&fixture);
    let mut writer = peer.writer();
    let thread = thread::spawn(move || {
        for &size in sizes {
            let payload = vec![(size % 251) as u8; size];
            writer.write_all(&masked(2, &payload)).unwrap();
        }
    });
    fixture.drive_to(sizes.len());
    thread.join().unwrap();
    assert_eq!(fixture.log.all(), sizes.iter().map(ToString::to_string).collect::<Vec<_>>());
}

/// More than fits one read, one buffer of the kernel, and one turn.
const SIZES: &[usize] =
    &[0, 1, 125, 126, 65_535, 65_536, 3_000_000, 17, 524_288, 524_287, 1, 5_000_000, 9];

#[test]
fn whatever_its_size_a_message_is_read_to_its_end() {
    within_time(|| much(Fixture::open, SIZES));
}

#[test]
fn pitfall_unix_sockets_are_read_until_there_is_nothing() {
    within_time(|| {
        much(Fixture::open_unix, SIZES);
        // Where a read is short although there is more.
        let fixture = Fixture::new();
        let peer = fixture.open_unix();
        for piece in numbered(500).chunks(37) {
            peer.write(piece);
        }
        fixture.drive_to(500);
        assert_eq!(fixture.log.all(), (0..500).map(|i| i.to_string()).collect::<Vec<_>>());
    });
}

/// A read ends at a mark of urgent data (RFC 6093), and what is behind it is not reported again.
fn a_mark_in_the_stream(open: fn(&Fixture) -> Peer) {
    let fixture = Fixture::new();
    let peer = open(&fixture);
    fixture.event_loop.poll();
    peer.write(text("before"));
    let is_marked = SockRef::from(&peer.stream).send_out_of_band(b"!").is_ok(); // Unix sockets need not know it
    peer.write(text("behind"));
    fixture.drive_to(2);
    assert!(is_marked || cfg!(not(target_os = "linux")));
    assert_eq!(fixture.log.all(), ["before", "behind"]);
}

#[test]
fn pitfall_a_unix_socket_is_read_beyond_a_read_that_was_short() {
    within_time(|| a_mark_in_the_stream(Fixture::open_unix));
}

#[test]
fn pitfall_urgent_data_does_not_hide_what_is_behind_it() {
    within_time(|| a_mark_in_the_stream(Fixture::open));
}

#[test]
fn what_a_slow_peer_has_no_room_for_is_sent_when_it_has() {
    within_time(|| {
        for open in [Fixture::open, Fixture::open_unix] {
            let config = server_config().low_water_mark(1 << 20).high_water_mark(2 << 20);
            let fixture = Fixture::of(&EventLoop::new().unwrap(), config, |server, log| {
                server.on_message(|_, context| {
                    for i in 0..100 {
                        context.send(&vec![i; 100_000][..]).unwrap();
                    }
                });
                let it = log.clone();
                server.on_drained(move |_| it.add("drained"));
            });
            let mut peer = open(&fixture);
            peer.write(text("go"));
            fixture.drive("something", || fixture.handle().buffered_amount() > 2 << 20);
            fixture.event_loop.run_for(Duration::from_millis(10)); // it cannot go on
            let mut frames = Vec::new();
            fixture.drive("all of it", || {
                frames.extend(peer.poll_frames());
                frames.len() == 100
            });
            for (i, frame) in frames.iter().enumerate() {
                assert!(frame.payload == vec![i as u8; 100_000], "{i}");
            }
            assert_eq!(fixture.log.all(), ["drained"]);
        }
    });
}

#[test]
fn more_connections_than_are_accepted_in_a_turn_all_open() {
    within_time(|| {
        const PEERS: usize = 150;
        let fixture = Fixture::new();
        let mut peers: Vec<_> = (0..PEERS).map(|_| Peer::connect(fixture.address)).collect();
        peers.iter().for_each(|peer| peer.write([request("/"), text("hi")].concat()));
        fixture.drive_to(2 * PEERS);
        assert_eq!((fixture.log.count("open"), fixture.log.count("hi")), (PEERS, PEERS));
        for peer in &mut peers {
            fixture.drive("its response", || peer.poll_head().is_some());
        }
    });
}

/// Sends messages without end, on a thread, until this is dropped.
struct Flood(Arc<AtomicBool>, Option<thread::JoinHandle<()>>);

impl Flood {
    fn of(peer: &Peer, bytes: Vec<u8>) -> Self {
        let (is_over, mut writer) = (Arc::new(AtomicBool::new(false)), peer.writer());
        writer.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        let over = is_over.clone();
        let thread = thread::spawn(move || {
            let mut at = 0;
            while !over.load(Ordering::SeqCst) {
                // What is not taken in time is sent again from there.
                match writer.write(&bytes[at..]) {
                    Ok(n) => at = (at + n) % bytes.len(),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
            }
        });
        Self(is_over, Some(thread))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
        self.1.take().unwrap().join().unwrap();
    }
}

/// So often the others have their turn.
const ROUNDS: usize = 5;

/// While one connection talks without end, others are served within a single run call.
fn a_flood(bytes: Vec<u8>) {
    let event_loop = EventLoop::new().unwrap();
    let stops = event_loop.handle();
    let fixture = Fixture::of(&event_loop, server_config(), |server, log| {
        let it = log.clone();
        server.on_message(move |message, context| {
            if let b"quiet" = message.as_bytes() {
                it.add(described(&message));
                context.send(message).unwrap();
                if it.count("quiet") == ROUNDS {
                    stops.stop().unwrap();
                }
            }
        });
    });
    let (loud, mut quiet) = (fixture.open(), fixture.open());
    let flood = Flood::of(&loud, bytes);
    let (log, mut writer) = (fixture.log.clone(), quiet.writer());
    // What the program itself has put in has its turn as well.
    let thread = thread::spawn({
        let posts = event_loop.handle();
        move || {
            for i in 1..=ROUNDS {
                let (it, timer) = (log.clone(), log.clone());
                posts.post(move || it.add("posted")).unwrap();
                posts.set_timer(Duration::from_millis(1), move || timer.add("timer")).unwrap();
                let others = || log.count("posted").min(log.count("timer"));
                eventually("the others", || others() == i);
                writer.write_all(&text("quiet")).unwrap();
                eventually("the quiet one", || log.count("quiet") == i);
            }
        }
    });
    event_loop.run(); // until the last round
    thread.join().unwrap();
    event_loop.reset().unwrap();
    let mut echoes = 0;
    fixture.drive("the echoes", || {
        echoes += quiet.poll_frames().iter().filter(|it| **it == frames::text("quiet")).count();
        echoes == ROUNDS
    });
    drop(flood);
    assert_eq!(quiet.poll_end(), None::<End>);
}

#[test]
fn a_connection_that_floods_the_loop_with_small_messages_does_not_starve_others() {
    within_time(|| a_flood(text("loud ".repeat(50)).repeat(1000)));
}

#[test]
fn a_connection_that_floods_the_loop_with_large_messages_does_not_starve_others() {
    within_time(|| a_flood(masked(2, &vec![0; 4 << 20])));
}

/// A reset behind messages that have arrived costs none of them, however few are handed out at a time.
#[test]
fn pitfall_a_reset_does_not_overtake_what_has_arrived() {
    within_time(|| {
        for budget in [1, 100, u64::MAX] {
            let fixture = Fixture::new();
            let peer = fixture.open();
            peer.write(numbered(1_500));
            peer.write(text("the last"));
            // All of it is there before the reset is.
            await_readable(&fixture.event_loop);
            reset(peer);
            let mut ran = 0;
            while !fixture.log.has("close, failed") {
                ran += fixture.event_loop.poll_budget(budget, None);
                assert!(!fixture.event_loop.stopped(), "after {ran}");
            }
            assert_eq!(fixture.log.len(), 1_502, "of {budget} at a time");
        }
    });
}
