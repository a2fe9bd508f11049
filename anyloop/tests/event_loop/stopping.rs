//! Stopping: every run call returns after its current handler, and nothing is lost.

use std::thread;
use std::time::Duration;

use anyloop::prelude::*;
use anyloop_testkit::frames;
use anyloop_testkit::peer::Peer;
use anyloop_testkit::wait::{ThreadProbe, eventually, let_time_pass};
use anyloop_testkit::watchdog::within_time;

use crate::fixture::{Fixture, described};
use crate::harness::{Count, Log, await_readable};
use crate::wire::{close, numbered, request, text};

#[test]
fn stop_in_a_handler_lets_no_other_begin() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        for name in ["a", "b", "c"] {
            let (it, stops) = (log.clone(), event_loop.handle());
            event_loop.post(move || {
                if name == "b" {
                    stops.stop().unwrap();
                }
                it.add(name); // it ends as usual
            });
        }
        assert_eq!(event_loop.run(), 2);
        assert_eq!(log.all(), ["a", "b"]);
        assert!(event_loop.stopped());
        event_loop.reset().unwrap();
        assert_eq!(event_loop.run(), 1);
        assert_eq!(log.all(), ["a", "b", "c"]);
    });
}

#[test]
fn stop_from_another_thread_ends_a_run_that_waits() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let _guard = event_loop.keep_alive();
        for by_handle in [false, true] {
            let (it, handle) = (event_loop.clone(), event_loop.handle());
            let runner = ThreadProbe::current();
            let thread = thread::spawn(move || {
                runner.until_asleep();
                match by_handle {
                    false => it.stop(),
                    true => handle.stop().unwrap(),
                }
            });
            assert_eq!(event_loop.run(), 0);
            assert!(event_loop.stopped());
            thread.join().unwrap();
            event_loop.reset().unwrap();
        }
    });
}

#[test]
fn posts_and_timers_survive_a_stop() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        // All of them are due, and each stops the loop.
        for i in 0..10 {
            let (it, stops) = (log.clone(), event_loop.handle());
            let f = move || {
                it.add(i.to_string());
                stops.stop().unwrap();
            };
            match i % 2 {
                0 => event_loop.post(f),
                _ => _ = event_loop.set_timer(Duration::ZERO, f),
            }
        }
        for ran in 1..=10 {
            assert_eq!(event_loop.run(), 1);
            assert_eq!(log.len(), ran);
            assert_eq!(event_loop.run(), 0);
            event_loop.reset().unwrap();
        }
        assert_eq!(event_loop.run(), 0);
        let mut all = log.all();
        all.sort();
        assert_eq!(all, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    });
}

/// A thousand frames in one read, and a stop in the tenth handler.
fn a_stop_within_one_read(open: fn(&Fixture) -> Peer) {
    within_time(move || {
        let event_loop = EventLoop::new().unwrap();
        let (stops, count) = (event_loop.handle(), Count::default());
        let fixture = Fixture::of(&event_loop, crate::fixture::server_config(), |server, log| {
            let it = log.clone();
            server.on_message(move |message, _| {
                it.add(described(&message));
                if count.add() == 10 {
                    stops.stop().unwrap();
                }
            });
        });
        let mut peer = open(&fixture);
        peer.write(numbered(1000));
        assert_eq!(event_loop.run(), 10);
        assert_eq!(fixture.log.len(), 10);
        assert!(!peer.is_over()); // nothing is closed
        event_loop.reset().unwrap();
        assert_eq!(fixture.drive_to(1000), 990);
        assert_eq!(fixture.log.all(), (0..1000).map(|i| i.to_string()).collect::<Vec<_>>());
    });
}

#[test]
fn pitfall_messages_that_were_read_survive_a_stop() {
    a_stop_within_one_read(Fixture::open);
}

#[test]
fn pitfall_messages_that_were_read_survive_a_stop_on_a_unix_socket() {
    a_stop_within_one_read(Fixture::open_unix);
}

#[test]
fn pitfall_readiness_that_was_harvested_survives_a_stop() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let stops = event_loop.handle();
        let fixture = Fixture::of(&event_loop, crate::fixture::server_config(), |server, log| {
            let it = log.clone();
            server.on_message(move |message, _| {
                it.add(described(&message));
                stops.stop().unwrap();
            });
        });
        let peers: Vec<_> = (0..30).map(|_| fixture.open()).collect();
        for (i, peer) in peers.iter().enumerate() {
            peer.write(text(i.to_string()));
        }
        for ran in 1..=30 {
            assert_eq!(event_loop.run(), 1);
            assert_eq!(fixture.log.len(), ran);
            event_loop.reset().unwrap();
        }
        let mut all: Vec<usize> = fixture.log.all().iter().map(|it| it.parse().unwrap()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..30).collect::<Vec<_>>());
    });
}

#[test]
fn pitfall_readiness_that_was_harvested_survives_run_one_and_poll_one() {
    within_time(|| {
        let fixture = Fixture::new();
        let peers: Vec<_> = (0..30).map(|_| fixture.open()).collect();
        for (i, peer) in peers.iter().enumerate() {
            peer.write(text(i.to_string()));
        }
        for ran in 1..=30 {
            await_readable(&fixture.event_loop);
            let call = if ran % 2 == 0 { EventLoop::run_one } else { EventLoop::poll_one };
            let mut called = call(&fixture.event_loop);
            while called == 0 {
                await_readable(&fixture.event_loop); // that was not the message, but its way here
                called = call(&fixture.event_loop);
            }
            assert_eq!((called, fixture.log.len()), (1, ran));
        }
        let mut all: Vec<usize> = fixture.log.all().iter().map(|it| it.parse().unwrap()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..30).collect::<Vec<_>>());
    });
}

#[test]
fn a_stop_in_the_midst_of_a_handshake_loses_nothing_of_it() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let stops = event_loop.handle();
        let fixture = Fixture::of(&event_loop, crate::fixture::server_config(), |server, log| {
            let stop = move |log: &Log, entry: String| {
                log.add(entry);
                stops.stop().unwrap();
            };
            let (it, stop_in) = (log.clone(), stop.clone());
            server.on_validate(move |_, _| {
                stop_in(&it, "validate".into());
                Accept::new()
            });
            let (it, stop_in) = (log.clone(), stop.clone());
            server.on_open(move |context| {
                context.send("welcome").unwrap();
                stop_in(&it, "open".into());
            });
            let (it, stop_in) = (log.clone(), stop.clone());
            server.on_message(move |message, _| stop_in(&it, described(&message)));
            let (it, stop_in) = (log.clone(), stop);
            server.on_close(move |_, _| stop_in(&it, "close".into()));
        });
        let mut peer = Peer::connect(fixture.address);
        peer.write_last([request("/"), text("a"), text("b"), close(1000)].concat());
        let all = ["validate", "open", "a", "b", "close"];
        for reported in 1..=all.len() {
            assert_eq!(event_loop.run(), 1);
            assert_eq!(fixture.log.all(), all[..reported]);
            event_loop.reset().unwrap();
        }
        eventually("the end", || peer.is_over());
        assert!(peer.poll_head().is_some());
        assert_eq!(peer.poll_frames(), [frames::text("welcome"), frames::close(1000, "")]);
    });
}

#[test]
fn pitfall_a_stop_while_another_thread_runs_ends_it_between_two_handlers() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let (begun, ran) = (Count::default(), Count::default());
        let fixture = Fixture::of(&event_loop, crate::fixture::server_config(), |server, _| {
            let (begun, ran) = (begun.clone(), ran.clone());
            server.on_message(move |_, _| {
                begun.add();
                let_time_pass(Duration::from_micros(100), "the stop comes within a handler");
                ran.add();
            });
        });
        let peer = fixture.open();
        peer.write(numbered(1000));
        let mut called = 0;
        while ran.get() < 1000 {
            let (runs, before) = (event_loop.clone(), ran.get());
            let thread = thread::spawn(move || runs.run());
            eventually("a message", || ran.get() > before);
            event_loop.stop();
            called += thread.join().unwrap();
            assert_eq!(begun.get(), ran.get()); // none was left in its midst
            event_loop.reset().unwrap();
        }
        assert_eq!((called, ran.get()), (1000, 1000));
    });
}
