//! What keeps the loop alive, and what is dropped with it.

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyloop::event_loop::{LoopGone, WatchMode};
use anyloop::net::Server;
use anyloop::prelude::*;
use anyloop_testkit::frames;
use anyloop_testkit::peer::Peer;
use anyloop_testkit::wait::eventually;
use anyloop_testkit::watchdog::within_time;

use crate::fixture::{Fixture, client, open_client, server_config};
use crate::harness::{Drops, FAR, Log, drive};
use crate::wire::{close, request, text, unmasked};

#[test]
fn with_its_last_owner_a_loop_drops_what_is_queued_un_run() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let (drops, log) = (Drops::default(), Log::default());
        // Something of each kind; and the loop has seen some of it, and not run it.
        for begun in [false, true] {
            let (one, it) = (drops.one(), log.clone());
            let f = move || {
                let _one = &one;
                it.add("posted");
            };
            event_loop.post(f);
            let (one, it) = (drops.one(), log.clone());
            let f = move || {
                let _one = &one;
                it.add("posted by the handle");
            };
            event_loop.handle().post(f).unwrap();
            for delay in [Duration::ZERO, FAR] {
                let (one, it) = (drops.one(), log.clone());
                let f = move || {
                    let _one = &one;
                    it.add("timer");
                };
                event_loop.set_timer(delay, f);
                let (one, it) = (drops.one(), log.clone());
                let f = move || {
                    let _one = &one;
                    it.add("timer of the handle");
                };
                event_loop.handle().set_timer(delay, f).unwrap();
            }
            let (near, mut far) = UnixStream::pair().unwrap();
            far.write_all(b"a").unwrap();
            let (one, it) = (drops.one(), log.clone());
            let f = move |_: &mut UnixStream, _| {
                let _both = (&one, &far);
                it.add("watch");
                std::ops::ControlFlow::Continue(())
            };
            event_loop.watch(near, WatchMode::Read, f).unwrap();
            if !begun {
                let stops = event_loop.handle();
                event_loop.post(move || stops.stop().unwrap());
                event_loop.run();
                event_loop.reset().unwrap();
            }
        }
        let ran = log.take().len();
        drop(event_loop);
        assert_eq!(log.len(), 0);
        assert_eq!(drops.count(), 14);
        assert!(ran < 10);
    });
}

#[test]
fn the_calls_of_a_handle_fail_when_the_loop_is_gone() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let (handle, drops) = (event_loop.handle(), Drops::default());
        let guard = event_loop.keep_alive();
        let timer = event_loop.set_timer(FAR, || unreachable!());
        let (near, _far) = UnixStream::pair().unwrap();
        let watch = event_loop.watch(near, WatchMode::Read, |_, _| unreachable!()).unwrap();
        assert!(!handle.is_gone());
        drop(event_loop);
        assert!(handle.is_gone());
        let one = || {
            let one = drops.one();
            move || _ = &one
        };
        let dropped = one();
        assert_eq!(handle.post(dropped), Err(LoopGone));
        assert_eq!(handle.dispatch(one()), Err(LoopGone));
        let dropped = one();
        assert_eq!(handle.set_timer(FAR, dropped).map(|_| ()), Err(LoopGone));
        assert_eq!(drops.count(), 3);
        assert_eq!(handle.stop(), Err(LoopGone));
        assert_eq!(handle.keep_alive().map(|_| ()), Err(LoopGone));
        // These have nothing to do.
        timer.cancel();
        watch.cancel();
        drop(guard);
    });
}

#[test]
fn a_loop_lives_as_long_as_one_of_its_owners() {
    within_time(|| {
        let fixture = Fixture::new();
        let handle = fixture.event_loop.handle();
        let client = client(&fixture.event_loop, &Log::default());
        let clone = fixture.event_loop.clone();
        let Fixture { event_loop, server, .. } = fixture;
        drop(event_loop);
        assert!(!handle.is_gone());
        drop(clone);
        assert!(!handle.is_gone());
        drop(server);
        assert!(!handle.is_gone());
        handle.post(|| ()).unwrap();
        assert_eq!(client.run_one(), 1);
        drop(client);
        assert!(handle.is_gone());
    });
}

#[test]
fn with_its_last_owner_a_loop_closes_its_sockets() {
    within_time(|| {
        let fixture = Fixture::new();
        let mut peers = vec![fixture.open(), fixture.open_unix(), Peer::connect(fixture.address)];
        fixture.drive("three connections", || fixture.server.connections().len() == 3);
        let (log, address) = (fixture.log.clone(), fixture.address);
        drop(fixture);
        for peer in &mut peers {
            eventually("the end", || peer.is_over());
        }
        assert!(TcpStream::connect(address).is_err());
        assert_eq!(log.len(), 0); // no handler is called
    });
}

#[test]
fn a_handler_that_holds_a_handle_does_not_keep_the_loop_alive() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let (handle, drops) = (event_loop.handle(), Drops::default());
        let (held, one) = (handle.clone(), Arc::new(drops.one()));
        let fixture = Fixture::of(&event_loop, server_config(), move |server, _| {
            server.on_message(move |_, _| {
                let _one = &one;
                held.post(|| ()).unwrap();
            });
        });
        let peer = fixture.open();
        peer.write(text("hi"));
        drive(&event_loop, "what is posted", || event_loop.run_one() == 1);
        drop((fixture, event_loop));
        assert!(handle.is_gone());
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn what_is_dropped_with_the_loop_may_call_its_handle() {
    struct Calls(anyloop::event_loop::LoopHandle, Log);

    impl Drop for Calls {
        fn drop(&mut self) {
            self.1.add(format!("{:?}", self.0.post(|| ())));
            self.1.add(format!("{:?}", self.0.set_timer(FAR, || ()).map(|_| ())));
        }
    }
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let calls = || Calls(event_loop.handle(), log.clone());
        let (one, other, third) = (calls(), calls(), calls());
        event_loop.post(move || _ = &one);
        event_loop.set_timer(FAR, move || _ = &other);
        event_loop.handle().post(move || _ = &third).unwrap();
        drop(event_loop);
        assert_eq!(log.all(), ["Err(LoopGone)"; 6]);
    });
}

/// Counts how many of it are dropped.
struct Counted(#[expect(dead_code, reason = "for its drop")] crate::harness::Counted);

impl Handler for Counted {}

#[test]
fn the_handler_of_a_connection_is_dropped_once_with_it_or_with_the_loop() {
    within_time(|| {
        let (event_loop, drops) = (EventLoop::new().unwrap(), Drops::default());
        let of_handlers = drops.clone();
        let factory = move || Counted(of_handlers.one());
        let server = Server::with_factory_on(&event_loop, server_config(), factory);
        let address = server.listen("127.0.0.1:0").unwrap();
        server.start_accept().unwrap();
        let peers: Vec<_> = (0..3).map(|_| Peer::connect(address)).collect();
        peers.iter().for_each(|peer| peer.write(request("/")));
        drive(&event_loop, "three connections", || server.connections().len() == 3);
        peers[0].write_last(close(1000));
        drive(&event_loop, "the end of one", || server.connections().len() == 2);
        event_loop.poll();
        assert_eq!(drops.count(), 1);
        drop((server, event_loop));
        assert_eq!(drops.count(), 3);
    });
}

#[test]
fn a_handle_says_that_its_connection_is_gone_with_the_loop() {
    within_time(|| {
        let fixture = Fixture::new();
        let _peer = fixture.open();
        let handle = fixture.handle();
        handle.send("known").unwrap();
        fixture.event_loop.poll();
        drop(fixture);
        assert_eq!(handle.send("hello"), Err(SendError::Gone));
        assert_eq!(handle.post(|_, _| ()), Err(SendError::Gone));
    });
}

#[test]
fn pitfall_a_handle_that_nobody_has_used_says_that_its_connection_is_gone_with_the_loop() {
    within_time(|| {
        let fixture = Fixture::new();
        let _peer = fixture.open();
        let handle = fixture.handle();
        drop(fixture);
        assert_eq!(handle.send("hello"), Err(SendError::Gone));
    });
}

#[test]
fn pitfall_what_was_sent_to_a_connection_that_never_began_is_reported_to_be_unsent() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let client = client(&event_loop, &log);
        let handle = client.connect("ws://127.0.0.1:9/").unwrap();
        let it = log.clone();
        handle.send_then("hello", move |result| it.add(format!("{result:?}"))).unwrap();
        drop((client, event_loop));
        assert_eq!(handle.send("hello"), Err(SendError::Gone));
        assert_eq!(log.all(), ["Err(Unsent)"]);
    });
}

#[test]
fn pitfall_a_server_that_is_dropped_closes_its_listeners_and_its_connections_go_on() {
    within_time(|| {
        let fixture = Fixture::with(|server, _| {
            server.on_message(|message, context| _ = context.send(message));
        });
        let mut peers = [fixture.open(), fixture.open_unix()];
        let Fixture { event_loop, server, address, log } = fixture;
        drop(server);
        assert!(TcpStream::connect(address).is_err());
        for peer in &mut peers {
            for _ in 0..3 {
                peer.write(text("hi"));
                drive(&event_loop, "the echo", || peer.poll_frame() == Some(frames::text("hi")));
            }
        }
        peers.iter().for_each(|peer| peer.write_last(close(1000)));
        event_loop.run(); // until they have ended
        assert_eq!(log.all(), ["close, clean", "close, clean"]);
    });
}

#[test]
fn a_client_that_is_dropped_leaves_its_connections_to_the_loop() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let client = client(&event_loop, &log);
        let (mut peer, handle) = open_client(&event_loop, &client);
        drop(client);
        drive(&event_loop, "the opening", || log.has("open"));
        handle.send("hi").unwrap();
        drive(&event_loop, "the message", || peer.poll_frame() == Some(frames::text("hi")));
        peer.write([unmasked(1, b"hi"), unmasked(8, b"")].concat());
        peer.finish();
        event_loop.run();
        assert_eq!(log.all(), ["open", "hi", "close, clean"]);
    });
}

#[test]
fn an_endpoint_can_be_dropped_in_a_handler() {
    within_time(|| {
        let fixture = Fixture::new();
        let mut peer = fixture.open();
        let Fixture { event_loop, server, address, log } = fixture;
        let place = Arc::new(Mutex::new(Some(server)));
        event_loop.post(move || drop(place.lock().unwrap().take()));
        event_loop.poll();
        assert!(TcpStream::connect(address).is_err());
        peer.write_last([text("hi"), close(1000)].concat());
        event_loop.run();
        assert_eq!(log.all(), ["hi", "close, clean"]);
        eventually("the end", || peer.is_over());
    });
}
