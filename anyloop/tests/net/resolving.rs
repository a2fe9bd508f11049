//! Hosts are looked up on other threads than the loop's.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use anyloop::net::Client;
use anyloop::prelude::*;
use anyloop_testkit::wait::{PATIENCE, eventually, let_time_pass};
use anyloop_testkit::watchdog::watchdog;

use crate::record::Log;
use crate::setup::{Running, echo, millis, recording_client, run_until, shared};

type Answer = io::Result<Vec<SocketAddr>>;

/// A look-up that the test answers.
struct LookUp {
    host: String,
    port: u16,
    answer: Sender<Answer>,
}

impl LookUp {
    fn answer(self, answer: Answer) {
        let _ = self.answer.send(answer);
    }
}

fn by_hand(client: &mut Client) -> Receiver<LookUp> {
    let (asking, asked) = channel();
    let asking = Mutex::new(asking);
    client.set_look_up(move |host, port| {
        let (answer, answered) = channel();
        let look_up = LookUp { host: host.to_string(), port, answer };
        asking.lock().unwrap().send(look_up).map_err(|_| io::Error::from(ErrorKind::BrokenPipe))?;
        answered.recv_timeout(4 * PATIENCE).unwrap_or_else(|_| Err(ErrorKind::BrokenPipe.into()))
    });
    asked
}

/// A client whose connections close when they are open.
fn brief(log: &Log) -> Client {
    let mut client = recording_client(log);
    let logs = log.clone();
    client.on_open(move |context| {
        logs.push("open");
        context.close(CloseCode::NORMAL, "").unwrap();
    });
    client
}

const BRIEF: [&str; 2] = ["open", "close clean by local: 1000/1000"];

#[test]
fn the_loop_goes_on_meanwhile() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let log = Log::default();
    let mut client = brief(&log);
    let asked = by_hand(&mut client);
    client.connect("ws://slow.example:81/").unwrap();
    client.connect(running.url().as_str()).unwrap();
    let event_loop = client.event_loop();
    let (ticks, stop) = (log.clone(), event_loop.handle());
    event_loop.set_timer(millis(50), move || ticks.push("tick"));
    event_loop.set_timer(millis(300), move || stop.stop().unwrap());
    client.run();
    let mut lines = log.take();
    lines.sort();
    assert_eq!(lines, ["close clean by local: 1000/1000", "open", "tick"]);
    let asked = asked.recv_timeout(PATIENCE).unwrap();
    assert_eq!((asked.host.as_str(), asked.port), ("slow.example", 81));
    asked.answer(Ok(vec![running.address]));
    event_loop.reset().unwrap();
    client.run();
    assert_eq!(log.take(), BRIEF);
}

#[test]
fn hosts_are_looked_up_at_the_same_time() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let log = Log::default();
    let mut client = brief(&log);
    let asked = by_hand(&mut client);
    for host in ["a", "b", "c"] {
        client.connect(format!("ws://{host}.example/").as_str()).unwrap();
    }
    client.poll();
    let mut all: Vec<_> = (0..3).map(|_| asked.recv_timeout(PATIENCE).unwrap()).collect();
    all.sort_by(|a, b| b.host.cmp(&a.host));
    let event_loop = client.event_loop();
    for asked in all {
        asked.answer(Ok(vec![running.address]));
        let mut lines = Vec::new();
        run_until(event_loop, "it is closed", || {
            lines.extend(log.take());
            lines.len() >= 2
        });
        assert_eq!(lines, BRIEF);
        if event_loop.stopped() {
            break;
        }
    }
    assert_eq!(client.counters().closed, 3);
}

/// The connection ends at once, although the look-up still blocks.
#[test]
fn a_look_up_can_be_given_up() {
    let _watchdog = watchdog();
    for before_it_runs in [true, false] {
        let log = Log::default();
        let mut client = brief(&log);
        let asked = by_hand(&mut client);
        let handle = client.connect("ws://slow.example/").unwrap();
        let waiting = if before_it_runs {
            None
        } else {
            client.poll();
            Some(asked.recv_timeout(PATIENCE).unwrap())
        };
        handle.close(CloseCode::NORMAL, "").unwrap();
        assert_eq!(client.run(), 1);
        assert_eq!(log.take(), ["fail by local: opening handshake abandoned"]);
        assert!(handle.send("a").is_err());
        assert!(client.connections().is_empty());
        // A late answer is ignored.
        if let Some(waiting) = waiting {
            waiting.answer(Ok(vec![([127, 0, 0, 1], 1).into()]));
            client.reset().unwrap();
            assert_eq!(client.run_for(millis(50)), 0);
            assert!(log.take().is_empty());
        }
    }
}

#[test]
fn a_look_up_is_given_up_from_another_thread() {
    let _watchdog = watchdog();
    let log = Log::default();
    let mut client = brief(&log);
    let asked = by_hand(&mut client);
    let handle = client.connect("ws://slow.example/").unwrap();
    let other = thread::spawn(move || {
        let asked = asked.recv_timeout(PATIENCE).unwrap();
        handle.close(CloseCode::NORMAL, "").unwrap();
        asked
    });
    assert_eq!(client.run(), 1);
    assert_eq!(log.take(), ["fail by local: opening handshake abandoned"]);
    drop(other.join().unwrap());
}

#[test]
fn a_look_up_that_takes_too_long_cancels_no_other() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let log = Log::default();
    let mut client = brief(&log);
    let asked = by_hand(&mut client);
    for (uri, timeout) in [
        ("ws://slow.example/", millis(100)),
        ("ws://late.example/", 4 * PATIENCE),
        ("ws://later.example/", 4 * PATIENCE),
    ] {
        let request = client.request(uri).unwrap();
        request.configure(|config| config.resolve_timeout(timeout)).connect().unwrap();
    }
    // The others are answered when the first has failed. If it failed before a thread took it, its look-up
    // is never made.
    let address = running.address;
    let watched = log.clone();
    let seen = shared();
    let sees = seen.clone();
    let answering = thread::spawn(move || {
        eventually("the first has failed", || {
            sees.lock().unwrap().extend(watched.take());
            !sees.lock().unwrap().is_empty()
        });
        let mut others = 0;
        while others < 2 {
            let asked = asked.recv_timeout(PATIENCE).unwrap();
            others += usize::from(asked.host != "slow.example");
            asked.answer(Ok(vec![address]));
        }
    });
    client.run();
    answering.join().unwrap();
    let mut lines = seen.lock().unwrap().clone();
    lines.extend(log.take());
    assert_eq!(lines[0], "fail by transport: transport timed out");
    assert_eq!(lines.iter().filter(|line| *line == BRIEF[0]).count(), 2, "{lines:?}");
    assert_eq!(lines.iter().filter(|line| *line == BRIEF[1]).count(), 2, "{lines:?}");
    assert_eq!(lines.len(), 5);
}

/// More hosts than threads.
#[test]
fn a_hundred_hosts() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let log = Log::default();
    let mut client = brief(&log);
    let at_once = std::sync::Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let (counts, address) = (at_once.clone(), running.address);
    client.set_look_up(move |_, _| {
        let now = counts.0.fetch_add(1, Ordering::SeqCst) + 1;
        counts.1.fetch_max(now, Ordering::SeqCst);
        let_time_pass(millis(5), "look-ups are to overlap");
        counts.0.fetch_sub(1, Ordering::SeqCst);
        Ok(vec![address])
    });
    for number in 0..100 {
        client.connect(format!("ws://host{number}.example/").as_str()).unwrap();
    }
    client.run();
    assert_eq!(client.counters().closed, 100);
    assert!(at_once.1.load(Ordering::SeqCst) <= 32, "threads are bounded");
}

#[test]
fn an_address_is_not_looked_up() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let log = Log::default();
    let mut client = brief(&log);
    client.set_look_up(|host, _| panic!("{host}"));
    client.connect(running.url().as_str()).unwrap();
    client
        .request("ws://name.example/")
        .unwrap()
        .to_addresses([running.address])
        .connect()
        .unwrap();
    client.run();
    assert_eq!(client.counters().closed, 2);
}

/// Dropping a client does not wait for its look-ups.
#[test]
fn a_client_that_is_dropped_does_not_wait() {
    let _watchdog = watchdog();
    let log = Log::default();
    let mut client = brief(&log);
    let asked = by_hand(&mut client);
    let handle = client.connect("ws://slow.example/").unwrap();
    client.poll();
    let waiting = asked.recv_timeout(PATIENCE).unwrap();
    let start = Instant::now();
    drop(client);
    assert!(start.elapsed() < PATIENCE / 2);
    assert!(handle.send("a").is_err(), "the connection is no more");
    waiting.answer(Ok(Vec::new()));
    assert!(log.take().is_empty());
}
