//! A loop that waits leaves the processor to others, whatever it is that it waits for.
#![cfg(target_os = "linux")]

use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use anyloop::event_loop::WatchMode;
use anyloop::net::Client;
use anyloop::prelude::*;
use anyloop_testkit::peer::Peer;
use anyloop_testkit::watchdog::within_time;

use crate::fixture::{Fixture, client, open_client, server_config};
use crate::harness::{FAR, Log, await_readable};
use crate::wire::{numbered, request, text};

/// How long this thread has been on a processor: proc_pid_schedstat(5), in nanoseconds.
fn on_processor() -> Duration {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(schedstat.split(' ').next().unwrap().parse().unwrap())
}

/// What is ready runs, and then the loop is left to itself for a while, of which it makes little use. A
/// busy machine only makes that less.
#[track_caller]
fn rests(event_loop: &EventLoop) {
    event_loop.run_for(Duration::from_millis(20));
    makes_little_use(event_loop);
}

/// The same in a single call, whatever is ready.
#[track_caller]
fn makes_little_use(event_loop: &EventLoop) {
    let before = on_processor();
    event_loop.run_for(Duration::from_millis(200));
    let used = on_processor() - before;
    assert!(!event_loop.stopped(), "it has nothing to wait for");
    assert!(used < Duration::from_millis(50), "it has spun for {used:?}");
}

#[test]
fn a_loop_rests_that_waits_for_a_guard_a_timer_or_a_watch() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let guard = event_loop.keep_alive();
        rests(&event_loop);
        drop(guard);
        event_loop.set_timer(FAR, || ());
        rests(&event_loop);
        let (near, _far) = UnixStream::pair().unwrap();
        let watch = event_loop.watch(near, WatchMode::Read, |_, _| ControlFlow::Continue(()));
        let _watch = watch.unwrap();
        rests(&event_loop);
    });
}

#[test]
fn a_loop_rests_whose_connections_wait() {
    within_time(|| {
        let fixture = Fixture::with(|server, _| {
            server.on_validate(|request, _| match request.uri().path() {
                "/defer" => Answer::Defer,
                _ => Answer::Accept(Default::default()),
            });
        });
        rests(&fixture.event_loop); // for connections
        let _peers = [fixture.open(), fixture.open_unix()]; // for messages
        let half = Peer::connect(fixture.address);
        half.write(&request("/")[..30]);
        rests(&fixture.event_loop);
        let deferred = Peer::connect(fixture.address);
        deferred.write([request("/defer"), text("more than was asked for")].concat());
        rests(&fixture.event_loop);
        half.finish();
        rests(&fixture.event_loop);
    });
}

/// While it is busy, its polls do not wait.
#[test]
fn a_loop_rests_when_it_has_done_what_was_ready() {
    within_time(|| {
        let fixture = Fixture::new();
        let peers = [fixture.open(), fixture.open_unix()];
        for _ in 0..3 {
            for peer in &peers {
                peer.write(numbered(3));
            }
            await_readable(&fixture.event_loop);
            makes_little_use(&fixture.event_loop);
        }
        assert_eq!(fixture.log.all().iter().filter(|entry| *entry == "2").count(), 6);
    });
}

#[test]
fn a_loop_rests_whose_connections_are_paused() {
    within_time(|| {
        for open in [Fixture::open, Fixture::open_unix] {
            let fixture = Fixture::with(|server, log| {
                let it = log.clone();
                server.on_message(move |_, context| {
                    it.add("paused");
                    context.pause_reading();
                });
            });
            let peer = open(&fixture);
            peer.write(text("pause"));
            fixture.drive_to(1);
            rests(&fixture.event_loop);
            peer.write(numbered(10)); // which nobody reads
            rests(&fixture.event_loop);
            peer.finish();
            rests(&fixture.event_loop);
            assert_eq!(fixture.log.all(), ["paused"]);
        }
    });
}

#[test]
fn a_loop_rests_whose_peers_do_not_read() {
    within_time(|| {
        for open in [Fixture::open, Fixture::open_unix] {
            let fixture = Fixture::with(|server, _| {
                server.on_message(|_, context| {
                    for _ in 0..10 {
                        let _ = context.send(&vec![7; 1 << 20][..]);
                    }
                });
            });
            let peer = open(&fixture);
            peer.write(text("go"));
            fixture.drive("a send buffer", || fixture.handle().buffered_amount() > 0);
            rests(&fixture.event_loop);
        }
    });
}

/// A server that waits for its peer to go, and a client that waits for its server to.
#[test]
fn a_loop_rests_that_waits_for_the_end_of_a_stream() {
    within_time(|| {
        let config = server_config().close_timeout(FAR);
        let fixture = Fixture::of(&EventLoop::new().unwrap(), config, |server, _| {
            server.on_message(|_, context| {
                context.close(CloseCode::NORMAL, "").unwrap();
            });
        });
        let peer = fixture.open();
        peer.write(text("close"));
        let log = Log::default();
        let client: Client<_> = client(&fixture.event_loop, &log);
        let (server, _) = open_client(&fixture.event_loop, &client);
        fixture.drive("the opening", || log.has("open"));
        server.write(crate::wire::unmasked(8, &1000u16.to_be_bytes()));
        rests(&fixture.event_loop);
    });
}

#[test]
fn threads_rest_that_wait_beside_each_other() {
    within_time(|| {
        let fixture = Fixture::new();
        let _peer = fixture.open();
        let runner = |_| {
            let runs = fixture.event_loop.clone();
            thread::spawn(move || rests(&runs))
        };
        let runners: Vec<_> = (0..3).map(runner).collect();
        for runner in runners {
            if let Err(panic) = runner.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}
