//! Memory that connections have needed is given back when they do not need it any more.
//!
//! What is in use is counted for the whole process, so these tests run one after the other.

mod heap;
#[path = "../net/peer.rs"]
#[allow(dead_code, reason = "shared")]
mod peer;
#[path = "../endpoints/record.rs"]
#[allow(dead_code, reason = "shared")]
mod record;
#[path = "../net/scene.rs"]
#[allow(dead_code, reason = "shared")]
mod scene;
#[path = "../endpoints/wire.rs"]
#[allow(dead_code, reason = "shared")]
mod wire;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyloop::endpoint::ServerSettings;
use anyloop::net::Net;
use anyloop::proto::{Instant, Role};
use anyloop::transport::iostream::IoStream;
use anyloop::{EventLoop, Server};

use heap::in_use;
use peer::Peer;
use scene::{config, server_settings, until, watchdog};
use wire::{binary, frame, stream, text};

/// Of a message: larger than what is read at a time, so that it is gathered.
const SIZE: usize = 2 << 20;

/// More than everything else that comes and goes: what a second runner reads to, and threads that end.
const ELSE: usize = 1 << 20;

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nothing is due on a connection where nothing happens.
fn calm() -> ServerSettings {
    server_settings(|options| {
        options.open_timeout = None;
        options.connection = config(|config| config.ping_interval = None);
    })
}

fn assert_echoed(peer: &mut Peer, payload: &[u8]) {
    let received = peer.receive().payload;
    assert!(received == payload, "{} bytes came back", received.len());
}

/// Sends messages back, and knows how much is in use where a large one is received; the least, of several.
fn echo(meet: usize) -> (Server<Net>, impl Fn() -> usize) {
    let (meeting, least) = (Barrier::new(meet), Arc::new(AtomicUsize::new(usize::MAX)));
    let (mut server, seen) = (Server::new(calm()), least.clone());
    server.on_message(move |message, context| {
        if message.as_bytes().len() == SIZE {
            meeting.wait();
            seen.fetch_min(in_use(), Relaxed);
        }
        _ = context.send(message);
    });
    (server, move || least.load(Relaxed))
}

/// Two threads are inside, each with a message that it has gathered; then one waits at the sockets, and the
/// other one for it.
#[test]
fn runners_that_wait_let_go_of_what_messages_have_needed() {
    let (_alone, _watchdog) = (alone(), watchdog());
    let (server, in_use_then) = echo(2);
    let event_loop = EventLoop::new().unwrap();
    server.set_event_loop(&event_loop).unwrap();
    let address = server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    let runners = [(); 2].map(|()| {
        let runs = event_loop.clone();
        thread::spawn(move || runs.run())
    });
    let mut peers = [Peer::open(address), Peer::open(address)];
    let base = in_use();
    {
        let payload = vec![7; SIZE];
        peers.iter_mut().for_each(|peer| peer.send(&[binary(&payload)]));
        peers.iter_mut().for_each(|peer| assert_echoed(peer, &payload));
    }
    until("what was needed is let go of", || in_use() < base + ELSE);
    assert!(in_use_then() >= base + 2 * SIZE);
    for peer in &mut peers {
        peer.send(&[text("still there")]);
        assert_echoed(peer, b"still there");
    }
    event_loop.stop();
    for runner in runners {
        runner.join().unwrap();
    }
}

#[test]
fn a_loop_that_is_polled_lets_go_of_what_a_message_has_needed() {
    let (_alone, _watchdog) = (alone(), watchdog());
    let (server, in_use_then) = echo(1);
    let address = server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    let mut peer = thread::scope(|scope| {
        let opening = scope.spawn(|| Peer::open(address));
        until("it is open", || server.poll().is_ok() && opening.is_finished());
        opening.join().unwrap()
    });
    let base = in_use();
    thread::scope(|scope| {
        let echoed = scope.spawn(|| {
            let payload = vec![7; SIZE];
            peer.send(&[binary(&payload)]);
            assert_echoed(&mut peer, &payload);
        });
        until("the echo has come", || server.poll().is_ok() && echoed.is_finished());
    });
    until("what was needed is let go of", || server.poll().is_ok() && in_use() < base + ELSE);
    assert!(in_use_then() >= base + SIZE);
}

#[test]
fn a_connection_that_is_carried_lets_go_of_what_a_message_has_needed() {
    const PART: usize = 100_000;
    let _alone = alone();
    let mut server = Server::<IoStream>::new(calm());
    let now = Arc::new(AtomicU64::new(0));
    server.transport_mut().clock = {
        let now = now.clone();
        Arc::new(move || Instant::from_nanos(now.load(Relaxed)))
    };
    let wait = || _ = now.fetch_add(1_000_000_000, Relaxed);
    let connection = server.connection();
    connection.register_output(std::io::sink());
    connection.read_all(wire::REQUEST.as_bytes()).unwrap();
    let base = in_use();
    for _ in 0..2 {
        let frames = [binary(vec![7; PART]).more(), frame(0, vec![7; PART])];
        connection.read_all(&stream(&frames, Role::Client)).unwrap();
        drop(frames);
        wait();
        connection.handle_timeout().unwrap();
        assert!(in_use() >= base + 2 * PART, "it was needed in this second");
    }
    wait();
    connection.handle_timeout().unwrap();
    assert!(in_use() < base + PART);
    assert_eq!(connection.statistics().map(|it| it.messages_received), Some(2));
}
