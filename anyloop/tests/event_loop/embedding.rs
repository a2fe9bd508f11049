//! The loop inside another one, which watches its descriptor and asks for its timeouts.

use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::{Duration, Instant};

use anyloop::prelude::*;
use anyloop_testkit::frames;
use anyloop_testkit::peer::Peer;
use anyloop_testkit::wait::{PATIENCE, eventually, let_time_pass};
use anyloop_testkit::watchdog::within_time;
use mio::unix::SourceFd;

use crate::fixture::{Fixture, described, server_config};
use crate::harness::{Count, FAR, Log, await_readable, is_readable, panics};
use crate::wire::{close, numbered, request, text};

fn is_ready(event_loop: &EventLoop) -> bool {
    is_readable(event_loop, Duration::ZERO)
}

/// Polls until there is nothing to do.
#[track_caller]
fn come_to_rest(event_loop: &EventLoop) {
    let begun = Instant::now();
    while is_readable(event_loop, Duration::from_millis(5)) {
        event_loop.poll();
        assert!(begun.elapsed() < PATIENCE, "the descriptor stays readable");
    }
}

/// Does something on another thread.
fn elsewhere(f: impl FnOnce() + Send) {
    thread::scope(|scope| scope.spawn(f).join().unwrap());
}

#[test]
fn the_descriptor_is_readable_when_something_has_arrived_and_not_when_idle() {
    within_time(|| {
        let fixture = Fixture::new();
        let mut peer = fixture.open();
        come_to_rest(&fixture.event_loop);
        assert!(!is_ready(&fixture.event_loop));
        for message in ["a", "b"] {
            peer.write(text(message));
            await_readable(&fixture.event_loop);
            come_to_rest(&fixture.event_loop);
            assert!(fixture.log.has(message));
        }
        peer.finish();
        await_readable(&fixture.event_loop);
        come_to_rest(&fixture.event_loop);
        assert!(fixture.log.has("close, failed") && peer.is_over());
        drop(Peer::connect(fixture.address)); // as well as when one is to be accepted
        await_readable(&fixture.event_loop);
    });
}

#[test]
fn the_descriptor_is_the_same_in_both_ways_to_ask() {
    let event_loop = EventLoop::new().unwrap();
    assert_eq!(event_loop.as_fd().as_raw_fd(), event_loop.as_raw_fd());
}

#[test]
fn pitfall_the_descriptor_stays_readable_while_steps_leave_something() {
    within_time(|| {
        let fixture = Fixture::new();
        let peer = fixture.open();
        come_to_rest(&fixture.event_loop);
        peer.write(numbered(200));
        let mut reported = 0;
        while reported < 200 {
            await_readable(&fixture.event_loop);
            let ran = match reported % 3 {
                0 => fixture.event_loop.poll_one(),
                1 => fixture.event_loop.poll_budget(3, None),
                _ => fixture.event_loop.run_one(),
            };
            reported += ran;
            assert_eq!(fixture.log.len(), reported);
            if reported < 200 && reported > 0 {
                assert!(is_ready(&fixture.event_loop), "after {reported} messages");
                assert_eq!(fixture.event_loop.next_timeout(), Some(Duration::ZERO));
            }
        }
        come_to_rest(&fixture.event_loop);
        assert_eq!(fixture.log.len(), 200);
    });
}

#[test]
fn pitfall_the_descriptor_is_readable_after_a_stop_or_a_panic_that_left_something() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let stops = event_loop.handle();
        let fixture = Fixture::of(&event_loop, server_config(), |server, log| {
            let it = log.clone();
            server.on_message(move |message, _| {
                it.add(described(&message));
                match message.as_bytes() {
                    b"stop" => stops.stop().unwrap(),
                    b"panic" => panic!("in a handler"),
                    _ => {}
                }
            });
        });
        let (first, second) = (fixture.open(), fixture.open());
        come_to_rest(&event_loop);
        first.write([text("stop"), text("a")].concat());
        second.write([text("stop"), text("b")].concat());
        for _ in 0..2 {
            event_loop.run();
            assert!(event_loop.stopped());
            assert_eq!(event_loop.next_timeout(), None);
            event_loop.reset().unwrap();
            assert!(is_ready(&event_loop), "after a reset");
            assert_eq!(event_loop.next_timeout(), Some(Duration::ZERO));
        }
        come_to_rest(&event_loop);
        assert_eq!(fixture.log.take().len(), 4);
        first.write([text("panic"), text("a")].concat());
        await_readable(&event_loop);
        second.write(text("b"));
        panics("in a handler", || {
            loop {
                event_loop.poll();
            }
        });
        assert!(is_ready(&event_loop), "after a panic");
        come_to_rest(&event_loop);
        assert!(fixture.log.has("b"));
    });
}

#[test]
fn the_descriptor_is_readable_after_what_other_threads_ask_for() {
    within_time(|| {
        let fixture = Fixture::new();
        let mut peer = fixture.open();
        let (event_loop, handle) = (fixture.event_loop.clone(), fixture.event_loop.handle());
        let connection = fixture.handle();
        let far = event_loop.set_timer(FAR, || ());
        come_to_rest(&event_loop);
        let ran = Count::default();
        let asked_for = |what: &str, f: &(dyn Fn() + Sync)| {
            for _ in 0..3 {
                assert!(!is_ready(&event_loop), "before {what}");
                elsewhere(f);
                assert!(is_ready(&event_loop), "after {what}");
                assert!(event_loop.next_timeout().unwrap() < Duration::from_secs(60), "{what}");
                come_to_rest(&event_loop);
            }
        };
        let count = || {
            let it = ran.clone();
            move || _ = it.add()
        };
        asked_for("a post", &|| event_loop.post(count()));
        asked_for("a post by the handle", &|| handle.post(count()).unwrap());
        asked_for("a dispatch", &|| handle.dispatch(count()).unwrap());
        asked_for("a post to a connection", &|| {
            let f = count();
            connection.post(move |_, _| f()).unwrap();
        });
        assert_eq!(ran.get(), 12);
        asked_for("a message", &|| _ = connection.send("hi").unwrap());
        assert_eq!(
            peer.poll_frames(),
            [frames::text("hi"), frames::text("hi"), frames::text("hi")]
        );

        for by_handle in [false, true] {
            assert!(!is_ready(&event_loop));
            elsewhere(|| {
                let soon = Duration::from_secs(30);
                match by_handle {
                    false => _ = event_loop.set_timer(soon, || ()),
                    true => _ = handle.set_timer(soon, || ()).unwrap(),
                }
            });
            assert!(is_ready(&event_loop), "after an earlier timer");
            come_to_rest(&event_loop);
            let timeout = event_loop.next_timeout().unwrap();
            assert!(timeout <= Duration::from_secs(30), "{timeout:?}");
        }
        elsewhere(|| far.cancel());
        assert!(is_ready(&event_loop), "after a cancel");
        assert_eq!(event_loop.poll(), 0, "the timer is only dropped");
    });
}

#[test]
fn the_descriptor_is_readable_after_what_a_run_call_of_another_thread_has_changed() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let guard = event_loop.keep_alive();
        let inside = event_loop.clone();
        let runs: [(&str, &(dyn Fn() + Sync)); 3] = [
            ("poll", &|| _ = event_loop.poll()),
            ("run_one", &|| _ = event_loop.run_one()),
            ("run_for", &|| _ = event_loop.run_for(Duration::from_millis(5))),
        ];
        for (i, (what, run)) in runs.into_iter().enumerate() {
            let soon = Duration::from_secs(100 - 10 * i as u64);
            come_to_rest(&event_loop);
            assert!(event_loop.next_timeout().is_none_or(|timeout| timeout > soon));
            let sets = inside.clone();
            elsewhere(|| {
                event_loop.post(move || _ = sets.set_timer(soon, || ()));
                run();
            });
            assert!(is_ready(&event_loop), "after a timer that was set in {what}");
            come_to_rest(&event_loop);
            assert!(event_loop.next_timeout().unwrap() <= soon);
        }

        let stops = event_loop.clone();
        elsewhere(|| {
            event_loop.post(move || stops.stop());
            event_loop.run();
        });
        assert!(is_ready(&event_loop), "after a stop");
        elsewhere(|| _ = event_loop.run());
        assert!(is_ready(&event_loop), "after a run call of another thread that has seen the stop");
        come_to_rest(&event_loop);
        assert_eq!(event_loop.next_timeout(), None);
        elsewhere(|| event_loop.reset().unwrap());
        assert!(is_ready(&event_loop), "after a reset");
        come_to_rest(&event_loop);
        assert!(event_loop.next_timeout().is_some());
        drop(guard);
    });
}

#[test]
fn the_descriptor_is_readable_after_what_this_thread_asks_for_outside_of_a_run_call() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let _guard = event_loop.keep_alive();
        come_to_rest(&event_loop);
        for _ in 0..3 {
            event_loop.post(|| ());
            assert!(is_ready(&event_loop));
            assert_eq!(event_loop.poll(), 1);
            come_to_rest(&event_loop);
        }
    });
}

#[test]
fn the_next_timeout_is_that_of_what_is_due_first() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        assert_eq!(event_loop.next_timeout(), None);
        let far = event_loop.set_timer(FAR, || ());
        let timeout = event_loop.next_timeout().unwrap();
        assert!(timeout <= FAR && timeout > FAR - PATIENCE);
        event_loop.set_timer(Duration::from_millis(20), || ());
        let timeout = event_loop.next_timeout().unwrap();
        assert!(timeout <= Duration::from_millis(20));
        event_loop.post(|| ());
        assert_eq!(event_loop.next_timeout(), Some(Duration::ZERO));
        assert_eq!(event_loop.poll_one(), 1);
        let_time_pass(Duration::from_millis(25), "the second timer becomes due");
        assert_eq!(event_loop.next_timeout(), Some(Duration::ZERO));
        assert_eq!(event_loop.poll(), 1);
        far.cancel();
        assert_eq!(event_loop.next_timeout(), Some(Duration::ZERO));
        assert_eq!(event_loop.poll(), 0, "the timer is only dropped");
        assert_eq!(event_loop.next_timeout(), None);
    });
}

/// A host that sleeps for `next_timeout` and then polls fires the timer, with at most a few polls that do
/// nothing.
#[test]
fn to_wait_for_the_next_timeout_and_poll_fires_timers() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        for delay in [3, 17, 30] {
            let it = log.clone();
            event_loop.set_timer(Duration::from_millis(delay), move || it.add(delay.to_string()));
        }
        let mut rounds = 0;
        while let Some(timeout) = event_loop.next_timeout() {
            let_time_pass(timeout, "so long as a host may sleep");
            event_loop.poll();
            rounds += 1;
        }
        assert_eq!(log.all(), ["3", "17", "30"]);
        assert!(rounds <= 10, "{rounds}");
    });
}

#[test]
fn the_next_timeout_knows_the_deadlines_of_connections() {
    within_time(|| {
        let config = server_config().ping_interval(Duration::from_secs(100));
        let fixture = Fixture::of(&EventLoop::new().unwrap(), config, |_, _| ());
        assert_eq!(fixture.event_loop.next_timeout(), Some(Duration::ZERO)); // it is to accept
        come_to_rest(&fixture.event_loop);
        assert_eq!(fixture.event_loop.next_timeout(), None);
        let _silent = Peer::connect(fixture.address);
        await_readable(&fixture.event_loop);
        come_to_rest(&fixture.event_loop);
        let timeout = fixture.event_loop.next_timeout().unwrap();
        assert!(timeout <= Duration::from_secs(5), "{timeout:?}"); // the open handshake's

        let peer = Peer::connect(fixture.address);
        let handle = fixture.server.connections().remove(0);
        handle.close(CloseCode::NORMAL, "").unwrap();
        peer.write(request("/"));
        fixture.drive("the opening", || fixture.log.has("open") && fixture.log.has("fail"));
        come_to_rest(&fixture.event_loop);
        let timeout = fixture.event_loop.next_timeout().unwrap();
        assert!(timeout <= Duration::from_secs(101), "{timeout:?}"); // the ping's
    });
}

/// How long the host waits where nothing is reported: much longer than all that it does.
const LIMIT: Duration = Duration::from_secs(10);

/// A loop of another library: it watches the descriptor, and knows nothing else.
struct Host {
    poll: mio::Poll,
    events: mio::Events,
}

impl Host {
    fn of(event_loop: &EventLoop) -> Self {
        let poll = mio::Poll::new().unwrap();
        let fd = event_loop.as_fd().as_raw_fd();
        let interest = mio::Interest::READABLE;
        poll.registry().register(&mut SourceFd(&fd), mio::Token(7), interest).unwrap();
        Self { poll, events: mio::Events::with_capacity(8) }
    }

    /// Waits, and has the loop work when it is its turn. The host gets edge-triggered events, so it calls until
    /// nothing is ready.
    fn turn(&mut self, event_loop: &EventLoop, work: fn(&EventLoop) -> usize) -> usize {
        let timeout = event_loop.next_timeout().map_or(LIMIT, |timeout| timeout.min(LIMIT));
        let _ = self.poll.poll(&mut self.events, Some(timeout));
        let mut ran = work(event_loop);
        while event_loop.next_timeout() == Some(Duration::ZERO) {
            ran += work(event_loop);
        }
        ran
    }
}

fn a_host_drives_an_echo_server(work: fn(&EventLoop) -> usize) {
    within_time(move || {
        const PEERS: usize = 5;
        const MESSAGES: usize = 30;
        let fixture = Fixture::with(|server, _| {
            server.on_message(|message, context| _ = context.send(message));
        });
        let address = fixture.address;
        let talk = move || {
            let mut peer = Peer::connect(address);
            peer.write(request("/"));
            eventually("the response", || peer.poll_head().is_some());
            for i in 0..MESSAGES {
                let message = format!("{i} {}", "x".repeat(i * 1000));
                peer.write(text(&message));
                eventually("the echo", || peer.poll_frame() == Some(frames::text(&message)));
            }
            peer.write_last(close(1000));
            eventually("the Close", || peer.poll_frame() == Some(frames::close(1000, "")));
        };
        let peers: Vec<_> = (0..PEERS).map(|_| thread::spawn(talk)).collect();
        let (mut timers, mut ran, fired) = (0, 0, Count::default());
        let mut host = Host::of(&fixture.event_loop);
        let begun = Instant::now();
        while !fixture.event_loop.stopped() {
            assert!(begun.elapsed() < PATIENCE, "the host waits in vain");
            if fired.get() == timers && timers < 3 {
                timers += 1; // they go on as well
                let it = fired.clone();
                fixture.event_loop.set_timer(Duration::from_millis(2), move || _ = it.add());
            }
            ran += host.turn(&fixture.event_loop, work);
            if fixture.log.count("close, clean") == PEERS && fired.get() == 3 {
                fixture.server.stop_listening();
            }
        }
        peers.into_iter().for_each(|peer| peer.join().unwrap());
        assert!(begun.elapsed() < LIMIT, "the host was not woken");
        assert_eq!(ran, PEERS * (3 + MESSAGES) + 3);
    });
}

#[test]
fn a_host_drives_an_echo_server_by_poll() {
    a_host_drives_an_echo_server(EventLoop::poll);
}

#[test]
fn a_host_drives_an_echo_server_by_poll_one() {
    a_host_drives_an_echo_server(EventLoop::poll_one);
}

#[test]
fn a_host_drives_an_echo_server_by_budgets() {
    a_host_drives_an_echo_server(|event_loop| {
        event_loop.poll_budget(2, Some(Instant::now() + Duration::from_millis(1)))
    });
}

/// A host with edge-triggered events has taken one, and calls the loop: which must not forget it where it may not
/// run anything, or has run something else.
#[test]
fn an_edge_that_the_host_has_taken_is_not_forgotten() {
    within_time(|| {
        let fixture = Fixture::new();
        let peers = [fixture.open(), fixture.open(), fixture.open()];
        come_to_rest(&fixture.event_loop);
        let mut host = Host::of(&fixture.event_loop);
        let mut take_edge = || {
            let begun = Instant::now();
            loop {
                host.poll.poll(&mut host.events, Some(PATIENCE)).unwrap();
                match host.events.is_empty() {
                    false => break,
                    true => assert!(begun.elapsed() < PATIENCE, "there is no edge"),
                }
            }
        };
        let is_up = Some(Instant::now());
        for (handlers, until) in [(0, None), (u64::MAX, is_up)] {
            peers[0].write(text("a"));
            take_edge();
            assert_eq!(fixture.event_loop.poll_budget(handlers, until), 0);
            assert_eq!(fixture.event_loop.next_timeout(), Some(Duration::ZERO));
            assert_eq!(fixture.event_loop.poll(), 1);
        }

        peers[0].write(text("a"));
        peers[1].write(text("b"));
        take_edge();
        assert_eq!(fixture.event_loop.poll_one(), 1);
        peers[2].write(text("c"));
        take_edge();
        assert_eq!(fixture.event_loop.poll_one(), 1); // of those that were seen before
        assert_eq!(fixture.event_loop.next_timeout(), Some(Duration::ZERO));
        assert_eq!(fixture.event_loop.poll(), 1);
    });
}

#[test]
fn a_loop_can_watch_another() {
    within_time(|| {
        let (outer, fixture) = (
            EventLoop::new().unwrap(),
            Fixture::with(|server, _| {
                server.on_message(|message, context| _ = context.send(message));
            }),
        );
        let inner = fixture.event_loop.clone();
        let watch = outer.watch(inner.clone(), anyloop::event_loop::WatchMode::Read, |inner, _| {
            inner.poll_one();
            std::ops::ControlFlow::Continue(())
        });
        let watch = watch.unwrap();
        let mut peer = Peer::connect(fixture.address);
        peer.write([request("/"), numbered(20)].concat());
        let mut frames = Vec::new();
        let mut head = None;
        crate::harness::drive(&outer, "the echoes", || {
            head = head.take().or_else(|| peer.poll_head());
            if head.is_some() {
                frames.extend(peer.poll_frames());
            }
            frames.len() == 20
        });
        let expected = (0..20).map(|i| frames::text(i.to_string()));
        assert!(frames.into_iter().eq(expected));
        come_to_rest(&inner);
        inner.post(|| ()); // which makes it readable
        assert_eq!((outer.run_one(), inner.poll()), (1, 0));
        watch.cancel();
        outer.run();
    });
}
