//! Memory that connections have needed is freed when they do not need it any more.
//!
//! The memory in use is counted for the whole process, so these tests run one after the other.

mod bodies;
#[cfg(feature = "deflate")]
mod compression;
mod heap;
#[path = "../endpoints/record.rs"]
#[allow(dead_code, reason = "shared")]
mod record;
mod sending;
#[path = "../net/setup.rs"]
#[allow(dead_code, reason = "shared")]
mod setup;
#[cfg(feature = "tls-core")]
mod tls;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyloop::iostream;
use anyloop::net::Server;
use anyloop::prelude::*;
use anyloop::proto::{Instant, Role};
use anyloop_testkit::frames::{binary, frame, stream};
use anyloop_testkit::peer::Peer;
use anyloop_testkit::requests;
use anyloop_testkit::wait::{eventually, let_time_pass};
use anyloop_testkit::watchdog::watchdog;
use heap::in_use;
use setup::{server_config, server_with};

/// The size of a large message: larger than one read, so that it is gathered from several.
const SIZE: usize = 2 << 20;

/// More than all other memory that changes meanwhile: the read buffer of a second runner, and threads
/// that end.
const TOLERANCE: usize = 1 << 20;

fn one_at_a_time() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection that is idle has no deadline.
fn without_timeouts() -> ServerConfig {
    server_config().open_timeout(None).ping_interval(None)
}

/// A server that sends messages back. With a large one, each runner waits in the handler until all
/// runners have gathered one.
struct Echo {
    server: Server,
    address: SocketAddr,
    /// The bytes in use while all runners had a large message; the least, if that was several times.
    in_use: Arc<AtomicUsize>,
}

impl Echo {
    fn new(runners: usize) -> Self {
        let (meeting, least) = (Barrier::new(runners), Arc::new(AtomicUsize::new(usize::MAX)));
        let (mut server, seen) = (server_with(without_timeouts()), least.clone());
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

    /// So many large messages were in memory, and are not any more.
    #[track_caller]
    fn assert_gathered(&self, messages: usize) {
        let (then, now) = (self.in_use.load(Relaxed), in_use());
        assert!(then + TOLERANCE > now + messages * SIZE, "{then} bytes, and now {now}");
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

/// One runner waits for the sockets, the other one for the first.
#[test]
fn waiting_runners_free_the_memory_of_messages() {
    let (_alone, _watchdog, payload) = (one_at_a_time(), watchdog(), vec![7; SIZE]);
    let echo = Echo::new(2);
    let event_loop = echo.server.event_loop();
    let runners = [(); 2].map(|()| {
        let runs = event_loop.clone();
        thread::spawn(move || runs.run())
    });
    let mut peers = [Peer::open(echo.address), Peer::open(echo.address)];
    let base = in_use();
    send(&mut peers, &payload);
    assert_echoed(&mut peers, &payload);
    eventually("the memory of the message is freed", || in_use() < base + TOLERANCE);
    echo.assert_gathered(2);
    send(&mut peers, b"still there");
    assert_echoed(&mut peers, b"still there");
    event_loop.stop();
    for runner in runners {
        runner.join().unwrap();
    }
    assert!(in_use() < base, "a stopped loop keeps no memory, not even its read buffer");
}

/// One runner is held in a handler until the other one has gathered a message. Then the first one waits
/// for the sockets, and the other one leaves.
#[test]
fn memory_of_a_runner_that_leaves_is_freed() {
    let (_alone, _watchdog, payload) = (one_at_a_time(), watchdog(), vec![7; SIZE]);
    let [held, freed, leave] = [(); 3].map(|()| Arc::new(Barrier::new(2)));
    let mut server = server_with(without_timeouts());
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
    let event_loop = server.event_loop();
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
    eventually("the memory of the message is freed", || in_use() < base + TOLERANCE);
    event_loop.stop();
    waits.join().unwrap();
}

/// Polls until a large message was sent back. Returns the peer, and the bytes in use before.
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
fn a_loop_that_its_host_has_stopped_keeps_no_memory() {
    let (_alone, _watchdog) = (one_at_a_time(), watchdog());
    let echo = Echo::new(1);
    let event_loop = echo.server.event_loop();
    let (_peers, base) = poll(&echo, event_loop);
    event_loop.stop(); // while no thread is in a run call
    event_loop.poll();
    assert!(in_use() < base, "not even its read buffer");
}

/// `next_timeout` has the host poll once more.
#[test]
fn a_host_polls_once_more_to_free_the_memory_of_a_message() {
    let (_alone, _watchdog) = (one_at_a_time(), watchdog());
    let echo = Echo::new(1);
    let event_loop = echo.server.event_loop();
    let (_peers, base) = poll(&echo, event_loop);
    let mut polls = 0;
    while let Some(timeout) = event_loop.next_timeout() {
        let_time_pass(timeout, "so long as a host may sleep");
        event_loop.poll();
        polls += 1;
        assert!(polls < 2, "it does not sleep");
    }
    assert!(in_use() < base + TOLERANCE);
    echo.assert_gathered(1);
}

/// The state that connections and handles share is freed, also by those who only look at all connections.
#[test]
fn handles_of_all_connections_leave_nothing_behind() {
    const CONNECTIONS: usize = 100;
    let (_alone, _watchdog) = (one_at_a_time(), watchdog());
    let echo = Echo::new(1);
    let event_loop = echo.server.event_loop();
    let _peers = thread::scope(|scope| {
        let open = || (0..CONNECTIONS).map(|_| Peer::open(echo.address)).collect::<Vec<_>>();
        let opening = scope.spawn(open);
        eventually("they are open", || {
            event_loop.poll();
            opening.is_finished()
        });
        opening.join().unwrap()
    });
    let visit = || {
        let visited = Arc::new(AtomicUsize::new(0));
        for handle in echo.server.connections() {
            let visited = visited.clone();
            handle.post(move |_, _| _ = visited.fetch_add(1, Relaxed)).unwrap();
        }
        event_loop.poll();
        assert_eq!(visited.load(Relaxed), CONNECTIONS);
    };
    visit(); // the loop keeps the memory of its queues
    let base = in_use();
    let handles = echo.server.connections();
    event_loop.poll();
    assert!(in_use() > base + 200 * CONNECTIONS);
    drop(handles);
    event_loop.poll();
    assert!(in_use() < base + 20 * CONNECTIONS);
    visit();
    assert!(in_use() < base + 20 * CONNECTIONS);
}

#[test]
fn an_iostream_connection_frees_the_memory_of_a_message() {
    const PART: usize = 100_000;
    let _alone = one_at_a_time();
    let mut server = iostream::Server::new(without_timeouts());
    let now = Arc::new(AtomicU64::new(100_000_000_000));
    let clock = now.clone();
    server.set_clock(move || Instant::from_nanos(clock.load(Relaxed)));
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
