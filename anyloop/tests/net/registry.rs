//! The connections of an endpoint: enumerated, sent to, and counted, from handlers and other threads.

use std::sync::{Arc, OnceLock};
use std::thread;

use anyloop::endpoint::Unsent;
use anyloop::net::Server;
use anyloop::prelude::*;
use anyloop::proto::State;
use anyloop_testkit::frames;
use anyloop_testkit::peer::Peer;
use anyloop_testkit::wait::eventually;
use anyloop_testkit::watchdog::watchdog;

use crate::record::Log;
use crate::setup::{
    Running, client, echo, echo_on, recording_client, reset, run_until, server, shared, url,
};

#[test]
fn connections_come_and_go() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let server = &running.server;
    for round in 0..3 {
        let mut peers: Vec<_> = (0..20).map(|_| Peer::connect(running.address)).collect();
        eventually("connections that are not open count", || server.connections().len() == 20);
        peers.iter_mut().for_each(Peer::shake_hands);
        eventually("they are open", || {
            server.connections().iter().all(|handle| handle.state() == State::Open)
        });
        for peer in peers.drain(..10) {
            peer.close();
        }
        eventually("half is gone", || server.connections().len() == 10);
        drop(peers);
        eventually("all are gone", || server.connections().is_empty());
        let counters = server.counters();
        assert_eq!(counters.closed, 20 * (round + 1));
    }
}

/// The handles of two connections differ. Two handles of a connection are equal.
#[test]
fn handles_identify_connections() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let mut peers: Vec<_> = (0..5).map(|_| Peer::open(running.address)).collect();
    eventually("all are there", || running.server.connections().len() == 5);
    let (one, two) = (running.server.connections(), running.server.connections());
    for handle in &one {
        assert_eq!(two.iter().filter(|other| *other == handle).count(), 1);
        let _ = handle.send(handle.id().to_string().as_str()).unwrap();
    }
    let mut ids: Vec<_> = peers.iter_mut().map(|peer| peer.receive().payload).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5);
}

/// A handler finds its own connection in the list, until it has closed, and can send to it.
#[test]
fn a_handler_lists_all_connections() {
    let _watchdog = watchdog();
    let own = Arc::new(OnceLock::<Arc<Server>>::new());
    let asks = own.clone();
    let mut server = server();
    server.on_message(move |message, context| {
        let server = asks.get().unwrap();
        let myself = context.handle();
        let all = server.connections();
        assert_eq!(all.iter().filter(|handle| **handle == myself).count(), 1);
        assert_eq!(myself.state(), State::Open);
        for handle in all {
            let _ = handle.send(message).unwrap();
        }
    });
    server.on_open({
        let asks = own.clone();
        move |context| {
            let all = asks.get().unwrap().connections();
            let myself = context.handle();
            assert_eq!(all.iter().filter(|handle| **handle == myself).count(), 1);
        }
    });
    server.on_close({
        let asks = own.clone();
        move |_, context| {
            let myself = context.handle();
            let all = asks.get().unwrap().connections();
            assert!(!all.contains(&myself), "it is over");
        }
    });
    let address = server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    own.set(Arc::new(server)).ok().unwrap();
    let server = own.get().unwrap().clone();
    let runs = server.clone();
    let thread = thread::spawn(move || runs.run());
    let mut peers: Vec<_> = (0..5).map(|_| Peer::open(address)).collect();
    for number in 0..5 {
        let text = frames::text(format!("{number}"));
        peers[number].send(std::slice::from_ref(&text));
        for peer in &mut peers {
            assert_eq!(peer.receive(), text);
        }
    }
    for peer in peers {
        peer.close();
    }
    server.stop_listening();
    thread.join().unwrap();
}

/// Other threads enumerate and send while connections come and go.
#[test]
fn other_threads_list_all_connections() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asking: Vec<_> = (0..3)
        .map(|_| {
            let (server, done) = (running.server.clone(), done.clone());
            thread::spawn(move || {
                let mut sent = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    for handle in server.connections() {
                        sent += usize::from(handle.ping(b"?").is_ok());
                        let _ = handle.buffered_amount();
                        let _ = handle.state();
                    }
                    server.broadcast(Prepared::new("all"));
                    thread::yield_now();
                }
                sent
            })
        })
        .collect();
    for _ in 0..40 {
        let mut peers: Vec<_> = (0..4).map(|_| Peer::open(running.address)).collect();
        reset(peers.pop().unwrap());
        let last = peers.pop().unwrap();
        drop(last);
        for mut peer in peers {
            peer.send(&[frames::close(1000, "")]);
            while peer.try_receive().is_some_and(|frame| frame.opcode != 0x8) {}
        }
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    let sent: usize = asking.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert!(sent > 0);
    eventually("all are gone", || running.server.connections().is_empty());
    let counters = running.server.counters();
    assert_eq!((counters.started, counters.opened, counters.closed), (160, 160, 160));
}

#[test]
fn a_broadcast_reaches_all() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let mut peers: Vec<_> = (0..50).map(|_| Peer::open(running.address)).collect();
    let _connecting = Peer::connect(running.address);
    eventually("all are there", || running.server.connections().len() == 51);
    eventually("all are open", || {
        let handles = running.server.connections();
        handles.iter().filter(|handle| handle.state() == State::Open).count() == 50
    });
    for number in 0..5 {
        let news = format!("news {number}");
        assert_eq!(running.server.broadcast(Prepared::new(news.as_str())), 50);
        let large = vec![number; 100_000];
        assert_eq!(running.server.broadcast(Prepared::new(&large[..])), 50);
    }
    for peer in &mut peers {
        for number in 0..5 {
            assert_eq!(peer.receive(), frames::text(format!("news {number}")));
            assert_eq!(peer.receive(), frames::binary(vec![number; 100_000]));
        }
    }
}

/// A later connection may have the same slot of the loop.
#[test]
fn an_old_handle_reaches_no_later_connection() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let mut old = Vec::new();
    for _ in 0..30 {
        let peer = Peer::open(running.address);
        eventually("it is there", || running.server.connections().len() == 1);
        old.extend(running.server.connections());
        peer.close();
        eventually("it is gone", || running.server.connections().is_empty());
    }
    let mut peer = Peer::open(running.address);
    eventually("it is there", || running.server.connections().len() == 1);
    for handle in &old {
        assert!(handle.send("for another").is_err());
        assert!(handle.close(CloseCode::NORMAL, "").is_err());
        assert_eq!(handle.state(), State::Ended);
        assert!(!running.server.connections().contains(handle));
    }
    peer.echo("a");
}

/// A message that is dropped with its loop is reported as unsent.
#[test]
fn completions_are_called_in_any_case() {
    let _watchdog = watchdog();
    let event_loop = EventLoop::new().unwrap();
    let server = echo_on(&event_loop);
    let address = server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    let peer = thread::spawn(move || Peer::open(address));
    run_until(&event_loop, "it is open", || peer.is_finished());
    let peer = peer.join().unwrap();
    let completed = shared();
    let completion = || {
        let completes = completed.clone();
        move |result: Result<(), Unsent>| {
            completes.lock().unwrap().push(result.is_ok());
        }
    };
    let handle = server.connections().pop().unwrap();
    let _ = handle.send_then("a", completion()).unwrap();
    run_until(&event_loop, "it is sent", || completed.lock().unwrap().len() == 1);
    assert_eq!(*completed.lock().unwrap(), [true]);
    let _ = handle.send_then("b", completion()).unwrap();
    drop((server, event_loop));
    assert_eq!(*completed.lock().unwrap(), [true, false], "its loop is gone");
    assert!(handle.send_then("c", completion()).is_err());
    assert_eq!(*completed.lock().unwrap(), [true, false, false]);
    drop(peer);
}

#[test]
fn everything_is_counted() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let log = Log::default();
    let mut client = recording_client(&log);
    client.on_open(|context| {
        for _ in 0..3 {
            let _ = context.send("abcd").unwrap();
        }
        context.close(CloseCode::NORMAL, "").unwrap();
    });
    for _ in 0..5 {
        client.connect(running.url().as_str()).unwrap();
    }
    let closed = crate::setup::closed();
    client.connect(url(closed.address).as_str()).unwrap();
    client.run();
    let mine = client.counters();
    assert_eq!((mine.started, mine.opened, mine.closed, mine.failed, mine.http), (6, 5, 5, 1, 0));
    assert_eq!((mine.messages_sent, mine.bytes_sent), (15, 60));
    assert_eq!((mine.messages_received, mine.bytes_received), (15, 60));
    let mut plain = Peer::connect(running.address);
    plain.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    plain.read_to_end();
    drop(plain);
    let mut broken = Peer::connect(running.address);
    broken.write("nonsense\r\n\r\n");
    broken.read_to_end();
    drop(broken);
    eventually("all are over", || running.server.connections().is_empty());
    let theirs = running.server.counters();
    assert_eq!((theirs.started, theirs.opened, theirs.closed), (7, 5, 5));
    assert_eq!((theirs.http, theirs.failed), (1, 1));
    assert_eq!((theirs.messages_received, theirs.bytes_received), (15, 60));
}

#[test]
fn a_client_knows_its_connections() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let client = client();
    let handles: Vec<_> = (0..5).map(|_| client.connect(running.url().as_str()).unwrap()).collect();
    assert_eq!(client.connections().len(), 5);
    let event_loop = client.event_loop();
    run_until(event_loop, "all are open", || {
        handles.iter().all(|handle| handle.state() == State::Open)
    });
    assert_eq!(client.broadcast(Prepared::new("hello")), 5);
    for handle in &handles {
        assert!(client.connections().contains(handle));
        handle.close(CloseCode::NORMAL, "").unwrap();
    }
    client.run();
    assert!(client.connections().is_empty());
    assert!(handles.iter().all(|handle| handle.state() == State::Ended));
}
