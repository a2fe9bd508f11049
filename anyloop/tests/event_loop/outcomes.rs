//! For each connection exactly one of open, fail, and an answer to plain HTTP; and close once after open.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyloop::http::StatusCode;
use anyloop::net::Server;
use anyloop::prelude::*;
use anyloop_testkit::peer::Peer;
use anyloop_testkit::requests::RESPONSE;
use anyloop_testkit::wait::PATIENCE;
use anyloop_testkit::watchdog::within_time;

use crate::fixture::{client, server_config};
use crate::harness::{Log, drive};
use crate::wire::{close, request, reset, text, unmasked};

/// Logs its events, each behind its number.
struct Recorder(usize, Log);

impl Recorder {
    fn add(&self, what: &str) {
        self.1.add(format!("{} {what}", self.0));
    }
}

impl Handler for Recorder {
    fn validate(&mut self, request: &Request, context: &mut Context<'_, Self>) -> Answer {
        match request.uri().path() {
            "/reject" => Answer::status(StatusCode::FORBIDDEN, "no"),
            "/defer" => Answer::Defer,
            "/give-up" => {
                context.handle().close(CloseCode::NORMAL, "").unwrap();
                Answer::Defer
            }
            _ => Accept::new().into(),
        }
    }

    fn http(&mut self, _: &Request, _: &mut Context<'_, Self>) -> Answer {
        self.add("http");
        Answer::status(StatusCode::OK, "hello")
    }

    fn open(&mut self, _: &mut Context<'_, Self>) {
        self.add("open");
    }

    fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
        if message.as_bytes() == b"close" {
            context.close(CloseCode::NORMAL, "").unwrap();
        }
    }

    fn close(&mut self, _: &Ending<'_>, _: &mut Context<'_, Self>) {
        self.add("close");
    }

    fn fail(&mut self, _: &Failure, _: &mut Context<'_, Self>) {
        self.add("fail");
    }
}

/// What a connection does, and the events that its handler must get.
type Life = (&'static str, fn(SocketAddr) -> Option<Peer>, &'static [&'static str]);

fn say(address: SocketAddr, bytes: &[&[u8]]) -> Peer {
    let peer = Peer::connect(address);
    peer.write(bytes.concat());
    peer
}

const PLAIN: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const OPENED: &[&str] = &["open", "close"];

/// A peer that is returned stays until the server ends the connection.
const LIVES: &[Life] = &[
    (
        "comes and goes",
        |address| {
            Peer::connect(address);
            None
        },
        &["fail"],
    ),
    (
        "is reset before it says anything",
        |address| {
            reset(Peer::connect(address));
            None
        },
        &["fail"],
    ),
    (
        "goes in the midst of its request",
        |address| {
            say(address, &[&request("/")[..30]]);
            None
        },
        &["fail"],
    ),
    ("talks nonsense", |address| Some(say(address, &[b"nonsense\r\n\r\n"])), &["fail"]),
    ("asks for plain HTTP", |address| Some(say(address, &[PLAIN])), &["http"]),
    (
        "asks for plain HTTP and goes",
        |address| {
            say(address, &[PLAIN]);
            None
        },
        &["http"],
    ),
    ("is rejected", |address| Some(say(address, &[&request("/reject")])), &["fail"]),
    (
        "is rejected and goes",
        |address| {
            say(address, &[&request("/reject")]);
            None
        },
        &["fail"],
    ),
    (
        "goes while its answer is awaited",
        |address| {
            say(address, &[&request("/defer")]);
            None
        },
        &["fail"],
    ),
    (
        "is abandoned while its answer is awaited",
        |address| Some(say(address, &[&request("/give-up")])),
        &["fail"],
    ),
    (
        "opens and goes",
        |address| {
            say(address, &[&request("/")]);
            None
        },
        OPENED,
    ),
    (
        "opens and is closed by a handshake",
        |address| Some(say(address, &[&request("/"), &close(1000)])),
        OPENED,
    ),
    (
        "opens, closes and goes",
        |address| {
            say(address, &[&request("/"), &close(1000)]);
            None
        },
        OPENED,
    ),
    (
        "is closed by the server and goes",
        |address| {
            say(address, &[&request("/"), &text("close")]);
            None
        },
        OPENED,
    ),
    (
        "is closed by the server and answers",
        |address| Some(say(address, &[&request("/"), &text("close"), &close(1000)])),
        OPENED,
    ),
    (
        "breaks the rules",
        |address| Some(say(address, &[&request("/"), &unmasked(1, b"hi")])),
        OPENED,
    ),
    (
        "breaks the rules and goes",
        |address| {
            say(address, &[&request("/"), &unmasked(1, b"hi")]);
            None
        },
        OPENED,
    ),
];

fn a_life(threads: usize) {
    within_time(move || {
        let (event_loop, log, next) =
            (EventLoop::new().unwrap(), Log::default(), AtomicUsize::new(0));
        let it = log.clone();
        let factory = move || Recorder(next.fetch_add(1, Ordering::Relaxed), it.clone());
        let short = Duration::from_millis(200);
        let config = server_config().close_timeout(short).answer_timeout(short);
        let server = Server::with_factory_on(&event_loop, config, factory);
        let address = server.listen("127.0.0.1:0").unwrap();
        server.start_accept().unwrap();
        for (number, (life, live, expected)) in LIVES.iter().enumerate() {
            let mut peer = live(address);
            // One after the other, so that the numbers are known.
            drive(&event_loop, life, || server.counters().started == number as u64 + 1);
            let run = || {
                event_loop.run_for(Duration::from_millis(1));
            };
            std::thread::scope(|scope| {
                let begun = std::time::Instant::now();
                loop {
                    let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
                    run();
                    others.into_iter().for_each(|other| other.join().unwrap());
                    if peer.as_mut().is_some_and(Peer::is_over) {
                        peer = None;
                    }
                    if server.connections().is_empty() && log.len() > 0 {
                        break;
                    }
                    assert!(begun.elapsed() < PATIENCE, "{life}");
                }
            });
            run(); // and nothing is reported after the end
            let expected: Vec<_> = expected.iter().map(|it| format!("{number} {it}")).collect();
            assert_eq!(log.take(), expected, "one who {life}");
        }
    });
}

#[test]
fn every_connection_of_a_server_has_one_outcome() {
    a_life(1);
}

#[test]
fn every_connection_of_a_server_has_one_outcome_with_several_threads() {
    a_life(3);
}

#[test]
fn every_connection_of_a_client_has_one_outcome() {
    /// What the server does: accepts, says this, and goes, or waits for the client to go.
    type Life = (&'static str, &'static [u8], bool, &'static [&'static str]);
    const REFUSAL: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    let opened: &[&str] = &["open", "close, failed"];
    let lives: [Life; 7] = [
        ("goes", b"", false, &["fail"]),
        ("goes in the midst", b"HTTP/1.1 101 ", false, &["fail"]),
        ("refuses", REFUSAL, true, &["fail"]),
        ("refuses and goes", REFUSAL, false, &["fail"]),
        ("talks nonsense", b"nonsense\r\n\r\n", true, &["fail"]),
        ("opens and goes", RESPONSE.as_bytes(), false, opened),
        ("accepts wrongly", b"HTTP/1.1 101 Switching Protocols\r\n\r\n", true, &["fail"]),
    ];
    within_time(move || {
        for (life, says, waits, expected) in lives {
            let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
            let client = client(&event_loop, &log);
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let uri = format!("ws://{}/", listener.local_addr().unwrap());
            let handle = client.connect(uri.as_str()).unwrap();
            event_loop.run_for(Duration::from_millis(1));
            let mut peer = Peer::accept(&listener);
            drive(&event_loop, "the request", || peer.poll_head().is_some());
            peer.write(says);
            if waits {
                drive(&event_loop, life, || peer.is_over() || !log.all().is_empty());
            }
            drop(peer);
            event_loop.run();
            assert_eq!(log.all(), expected, "a server that {life}");
            assert!(handle.send("hello").is_err());
            assert_eq!(client.connections(), []);
        }
    });
}
