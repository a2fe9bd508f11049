//! Memory that connections have needed is given back when they do not need it any more.
//!
//! What is in use is counted for the whole process, so these tests run one after the other.

mod heap;
#[path = "../endpoints/record.rs"]
#[allow(dead_code, reason = "shared")]
mod record;
#[path = "../net/scene.rs"]
#[allow(dead_code, reason = "shared")]
mod scene;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyloop::endpoint::ServerSettings;
use anyloop::net::Net;
use anyloop::proto::{Instant, Role};
use anyloop::transport::iostream::IoStream;
use anyloop::{EventLoop, Server};

use anyloop_testkit::frames::{binary, frame, stream};
use anyloop_testkit::peer::Peer;
use anyloop_testkit::requests;
use anyloop_testkit::wait::{eventually, let_time_pass};
use anyloop_testkit::watchdog::watchdog;
use heap::in_use;
use scene::{config, server_settings};

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

/// Sends messages back. Runners meet while each has a large one that it has gathered.
struct Echo {
    server: Server<Net>,
    address: SocketAddr,
    /// What was in use then; the least, if that was several times.
    in_use: Arc<AtomicUsize>,
}

impl Echo {
    fn new(runners: usize) -> Self {
        let (meeting, least) = (Barrier::new(runners), Arc::new(AtomicUsize::new(usize::MAX)));
        let (mut server, seen) = (Server::new(calm()), least.clone());
        server.on_message(move |message, context| {
            if message.as_bytes().len() == SIZE {
                meeting.wait();
                seen.fetch_min(in_use(), Relaxed);
            }
            _ = context.send(message);
        });
        let address = server.listen("127.0.0.1:0").unwrap();
        server.start_accept().unwrap();
        Self { server, address, in_use: least }
    }

    /// All that was gathered was more than what is in use now.
    #[track_caller]
    fn assert_gathered(&self, messages: usize) {
        let (then, now) = (self.in_use.load(Relaxed), in_use());
        assert!(then + ELSE > now + messages * SIZE, "{then} bytes, and now {now}");
    }
}

fn send(peers: &mut [Peer], payload: &[u8]) {
    peers.iter_mut().for_each(|peer| peer.send(&[binary(payload)]));
}

fn assert_echoed(peers: &mut [Peer], payload: &[u8]) {
    for peer in peers {
        let received = peer.receive().payload;
        assert!(received == payload, "{} bytes came back", received.len());
    }
}

/// One of them waits at the sockets, the other one for that one.
#[test]
fn runners_that_wait_let_go_of_what_messages_have_needed() {
    let (_alone, _watchdog, payload) = (alone(), watchdog(), vec![7; SIZE]);
    let echo = Echo::new(2);
    let event_loop = echo.server.event_loop().unwrap();
    let runners = [(); 2].map(|()| {
        let runs = event_loop.clone();
        thread::spawn(move || runs.run())
    });
    let mut peers = [Peer::open(echo.address), Peer::open(echo.address)];
    let base = in_use();
    send(&mut peers, &payload);
    assert_echoed(&mut peers, &payload);
    eventually("what was needed is let go of", || in_use() < base + ELSE);
    echo.assert_gathered(2);
    send(&mut peers, b"still there");
    assert_echoed(&mut peers, b"still there");
    event_loop.stop();
    for runner in runners {
        runner.join().unwrap();
    }
    assert!(in_use() < base, "a loop that is stopped keeps nothing, not even what it reads to");
}

/// One runner is held in a handler until the other one has a message that it has gathered; then it waits at
/// the sockets, and the other one leaves.
#[test]
fn what_a_runner_leaves_behind_is_let_go_of() {
    let (_alone, _watchdog, payload) = (alone(), watchdog(), vec![7; SIZE]);
    let [held, freed, leave] = [(); 3].map(|()| Arc::new(Barrier::new(2)));
    let mut server = Server::<Net>::new(calm());
    server.on_message({
        let (held, freed, leave) = (held.clone(), freed.clone(), leave.clone());
        move |message, context| {
            if message.as_bytes() == b"hold" {
                held.wait();
                freed.wait();
            } else {
                freed.wait();
                leave.wait();
            }
            _ = context.send(message);
        }
    });
    let address = server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    let event_loop = server.event_loop().unwrap();
    let waits = {
        let runs = event_loop.clone();
        thread::spawn(move || runs.run())
    };
    let mut peers = [Peer::open(address), Peer::open(address)];
    let base = in_use();
    send(&mut peers[..1], b"hold");
    held.wait();
    let leaves = {
        let runs = event_loop.clone();
        thread::spawn(move || runs.run_one())
    };
    send(&mut peers[1..], &payload);
    assert_echoed(&mut peers[..1], b"hold");
    leave.wait();
    assert_eq!(leaves.join().unwrap(), 1);
    assert_echoed(&mut peers[1..], &payload);
    eventually("what was needed is let go of", || in_use() < base + ELSE);
    event_loop.stop();
    waits.join().unwrap();
}

/// Polls until a large message was sent back. Returns its peer, and what was in use before.
fn poll(echo: &Echo, event_loop: &EventLoop) -> ([Peer; 1], usize) {
    let payload = vec![7; SIZE];
    let mut peers = thread::scope(|scope| {
        let opening = scope.spawn(|| [Peer::open(echo.address)]);
        eventually("it is open", || {
            event_loop.poll();
            opening.is_finished()
        });
        opening.join().unwrap()
    });
    let base = in_use() - SIZE;
    thread::scope(|scope| {
        let echoed = scope.spawn(|| {
            send(&mut peers, &payload);
            assert_echoed(&mut peers, &payload);
        });
        eventually("the echo has come", || {
            event_loop.poll();
            echoed.is_finished()
        });
    });
    (peers, base)
}

#[test]
fn a_host_that_stops_the_loop_has_no_memory_left_in_it() {
    let (_alone, _watchdog) = (alone(), watchdog());
    let echo = Echo::new(1);
    let event_loop = echo.server.event_loop().unwrap();
    let (_peers, base) = poll(&echo, &event_loop);
    event_loop.stop(); // while nobody is inside
    event_loop.poll();
    assert!(in_use() < base, "not even what it reads to");
}

/// A host that sleeps as long as it may polls once more.
#[test]
fn a_host_is_asked_to_let_go_of_what_a_message_has_needed() {
    let (_alone, _watchdog) = (alone(), watchdog());
    let echo = Echo::new(1);
    let event_loop = echo.server.event_loop().unwrap();
    let (_peers, base) = poll(&echo, &event_loop);
    let mut polls = 0;
    while let Some(timeout) = event_loop.next_timeout() {
        let_time_pass(timeout, "so long as a host may sleep");
        event_loop.poll();
        polls += 1;
        assert!(polls < 2, "it does not sleep");
    }
    assert!(in_use() < base + ELSE);
    echo.assert_gathered(1);
}

#[test]
fn a_connection_that_is_carried_lets_go_of_what_a_message_has_needed() {
    const PART: usize = 100_000;
    let _alone = alone();
    let mut server = Server::<IoStream>::new(calm());
    let now = Arc::new(AtomicU64::new(100_000_000_000));
    server.transport_mut().clock = {
        let now = now.clone();
        Arc::new(move || Instant::from_nanos(now.load(Relaxed)))
    };
    let wait = |millis: u64| _ = now.fetch_add(1_000_000 * millis, Relaxed);
    let connection = server.connection();
    connection.register_output(std::io::sink());
    connection.read_all(requests::REQUEST.as_bytes()).unwrap();
    let base = in_use();
    for _ in 0..2 {
        let frames = [binary(vec![7; PART]).more(), frame(0, vec![7; PART])];
        connection.read_all(&stream(&frames, Role::Client)).unwrap();
        drop(frames);
        let at = Instant::from_nanos(now.load(Relaxed)) + Duration::from_secs(1);
        assert_eq!(connection.next_timeout(), Some(at));
        wait(999);
        connection.handle_timeout().unwrap();
        assert!(in_use() >= base + 2 * PART, "too early");
        wait(1);
        connection.handle_timeout().unwrap();
        assert!(in_use() < base + PART);
        assert_eq!(connection.next_timeout(), None);
        wait(10_000);
    }
    assert_eq!(connection.statistics().map(|it| it.messages_received), Some(2));
}
