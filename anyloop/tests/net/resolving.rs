//! Names are looked up beside the loop.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use anyloop::Client;
use anyloop::net::Net;
use anyloop::proto::CloseCode;
use anyloop_testkit::wait::{PATIENCE, eventually, let_time_pass};
use anyloop_testkit::watchdog::watchdog;

use crate::record::Log;
use crate::scene::{Running, echo, millis, shared, told};

type Answer = io::Result<Vec<SocketAddr>>;

/// A look-up that waits to be answered by hand.
struct Asked {
    host: String,
    port: u16,
    answer: Sender<Answer>,
}

impl Asked {
    fn answer(self, answer: Answer) {
        let _ = self.answer.send(answer);
    }
}

fn by_hand(client: &mut Client<Net>) -> Receiver<Asked> {
    let (asking, asked) = channel();
    let asking = Mutex::new(asking);
    client.transport_mut().set_look_up(move |host, port| {
        let (answer, answered) = channel();
        let asked = Asked { host: host.to_string(), port, answer };
        asking.lock().unwrap().send(asked).map_err(|_| io::Error::from(ErrorKind::BrokenPipe))?;
        answered.recv_timeout(4 * PATIENCE).unwrap_or_else(|_| Err(ErrorKind::BrokenPipe.into()))
    });
    asked
}

/// Closes when it is open.
fn brief(log: &Log) -> Client<Net> {
    let mut client = told(log);
    let heard = log.clone();
    client.on_open(move |context| {
        heard.push("open");
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
    let event_loop = client.event_loop().unwrap();
    let (ticks, stop) = (log.clone(), event_loop.handle());
    event_loop.set_timer(millis(50), move |_| ticks.push("tick"));
    event_loop.set_timer(millis(300), move |_| stop.stop().unwrap());
    client.run().unwrap();
    let mut told = log.take();
    told.sort();
    assert_eq!(told, ["close clean by local: 1000/1000", "open", "tick"]);
    let asked = asked.recv_timeout(PATIENCE).unwrap();
    assert_eq!((asked.host.as_str(), asked.port), ("slow.example", 81));
    asked.answer(Ok(vec![running.address]));
    event_loop.reset().unwrap();
    client.run().unwrap();
    assert_eq!(log.take(), BRIEF);
}

/// The names are looked up at the same time.
#[test]
fn a_slow_name_holds_up_no_other() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let log = Log::default();
    let mut client = brief(&log);
    let asked = by_hand(&mut client);
    for host in ["a", "b", "c"] {
        client.connect(format!("ws://{host}.example/").as_str()).unwrap();
    }
    client.poll().unwrap();
    let mut all: Vec<_> = (0..3).map(|_| asked.recv_timeout(PATIENCE).unwrap()).collect();
    all.sort_by(|a, b| b.host.cmp(&a.host));
    let event_loop = client.event_loop().unwrap();
    for asked in all {
        asked.answer(Ok(vec![running.address]));
        let mut told = Vec::new();
        crate::scene::run_until(&event_loop, "it is closed", || {
            told.extend(log.take());
            told.len() >= 2
        });
        assert_eq!(told, BRIEF);
        if event_loop.stopped() {
            break;
        }
    }
    assert_eq!(client.counters().closed, 3);
}

/// The look-up still blocks, and that is nobody's concern any more.
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
            client.poll().unwrap();
            Some(asked.recv_timeout(PATIENCE).unwrap())
        };
        handle.close(CloseCode::NORMAL, "").unwrap();
        assert_eq!(client.run().unwrap(), 1);
        assert_eq!(log.take(), ["fail by local: opening handshake abandoned"]);
        assert!(handle.send("a").is_err());
        assert!(client.connections().is_empty());
        // What comes late is nothing.
        if let Some(waiting) = waiting {
            waiting.answer(Ok(vec![([127, 0, 0, 1], 1).into()]));
            client.reset().unwrap();
            assert_eq!(client.run_for(millis(50)).unwrap(), 0);
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
    assert_eq!(client.run().unwrap(), 1);
    assert_eq!(log.take(), ["fail by local: opening handshake abandoned"]);
    drop(other.join().unwrap());
}

/// In a well-known implementation it cancels every other.
#[test]
fn a_look_up_that_takes_too_long_cancels_no_other() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let log = Log::default();
    let mut client = brief(&log);
    let asked = by_hand(&mut client);
    client.transport_mut().connect.resolve_timeout = Some(millis(100));
    client.connect("ws://slow.example/").unwrap();
    client.transport_mut().connect.resolve_timeout = Some(4 * PATIENCE);
    client.connect("ws://late.example/").unwrap();
    client.connect("ws://later.example/").unwrap();
    // Answered when the first has failed, and not before. Where its time was up before a thread took it,
    // nobody asks for it.
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
    client.run().unwrap();
    answering.join().unwrap();
    let mut told = seen.lock().unwrap().clone();
    told.extend(log.take());
    assert_eq!(told[0], "fail by transport: transport timed out");
    assert_eq!(told.iter().filter(|line| *line == BRIEF[0]).count(), 2, "{told:?}");
    assert_eq!(told.iter().filter(|line| *line == BRIEF[1]).count(), 2, "{told:?}");
    assert_eq!(told.len(), 5);
}

/// More of them than threads: each has its turn.
#[test]
fn a_hundred_names() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let log = Log::default();
    let mut client = brief(&log);
    let at_once = std::sync::Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let (counts, address) = (at_once.clone(), running.address);
    client.transport_mut().set_look_up(move |_, _| {
        let now = counts.0.fetch_add(1, Ordering::SeqCst) + 1;
        counts.1.fetch_max(now, Ordering::SeqCst);
        let_time_pass(millis(5), "look-ups are to overlap");
        counts.0.fetch_sub(1, Ordering::SeqCst);
        Ok(vec![address])
    });
    for number in 0..100 {
        client.connect(format!("ws://host{number}.example/").as_str()).unwrap();
    }
    client.run().unwrap();
    assert_eq!(client.counters().closed, 100);
    assert!(at_once.1.load(Ordering::SeqCst) <= 32, "threads are bounded");
}

/// Addresses need no look-up.
#[test]
fn an_address_is_not_looked_up() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let log = Log::default();
    let mut client = brief(&log);
    client.transport_mut().set_look_up(|host, _| panic!("{host}"));
    client.connect(running.url().as_str()).unwrap();
    client
        .request("ws://name.example/")
        .unwrap()
        .to_addresses([running.address])
        .connect()
        .unwrap();
    client.run().unwrap();
    assert_eq!(client.counters().closed, 2);
}

/// The loop is not kept by a look-up, and the look-up not by the loop.
#[test]
fn a_client_that_is_dropped_does_not_wait() {
    let _watchdog = watchdog();
    let log = Log::default();
    let mut client = brief(&log);
    let asked = by_hand(&mut client);
    let handle = client.connect("ws://slow.example/").unwrap();
    client.poll().unwrap();
    let waiting = asked.recv_timeout(PATIENCE).unwrap();
    let start = Instant::now();
    drop(client);
    assert!(start.elapsed() < PATIENCE / 2);
    assert!(handle.send("a").is_err(), "the connection is no more");
    waiting.answer(Ok(Vec::new()));
    assert!(log.take().is_empty());
}
