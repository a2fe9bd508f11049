//! One handler in a turn: nothing is lost, the order is kept, and the end is reported last.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyloop::endpoint::Session;
use anyloop::prelude::*;
use anyloop::proto::{Role, Shutdown, TransportError};
use anyloop::transport::{Client, Server};

use super::{Pipe, ToyEnd};
use crate::record::{Log, recording};
use crate::subject::server_config;
use crate::transports::Clock;
use crate::wire::{self, Frame, text};

/// The end of a server, and the test in the place of its client.
struct Scene {
    log: Log,
    clock: Clock,
    end: ToyEnd<Session<Handlers>>,
}

impl Scene {
    /// The handshake has arrived, and nothing was done yet.
    fn new() -> Self {
        let (log, clock) = (Log::default(), Clock::default());
        let server = Server::with_factory(server_config(), recording(&log));
        let end = ToyEnd::server(&server, Arc::default(), Arc::default(), clock.now());
        let mut scene = Self { log, clock, end };
        scene.arrive(wire::REQUEST.as_bytes());
        scene
    }

    fn open() -> Self {
        let mut scene = Self::new();
        assert_eq!(scene.one_by_one(), ["validate GET /chat", "open"]);
        scene
    }

    fn arrive(&mut self, bytes: &[u8]) {
        self.end.incoming.lock().unwrap().bytes.extend(bytes);
    }

    fn arrive_frames(&mut self, frames: &[Frame]) {
        self.arrive(&wire::stream(frames, Role::Client));
    }

    /// The client ends its direction of the stream.
    fn end_input(&mut self) {
        self.end.incoming.lock().unwrap().shutdowns.push(Shutdown::HalfClose);
    }

    /// A turn with so many handlers: whether there was anything to do, and the events that handlers got.
    fn turn(&mut self, handlers: u64) -> (bool, Vec<String>) {
        let busy = self.end.turn(handlers, self.clock.now());
        (busy, self.log.take())
    }

    /// Turns with one handler each, until there is nothing to do.
    fn one_by_one(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let (true, reported) = self.turn(1) {
            assert!(reported.len() <= 1, "{reported:?} in one turn");
            assert!(self.end.buffers.budget.spent() <= 1); // a command of a handle may call no handler
            all.extend(reported);
        }
        all
    }

    fn handle(&mut self) -> Handle<Handlers> {
        self.end.driver.handle()
    }

    fn unread(&self) -> usize {
        self.end.incoming.lock().unwrap().bytes.len()
    }
}

fn texts(count: usize) -> Vec<Frame> {
    (0..count).map(|n| text(n.to_string())).collect()
}

/// The events that handlers get for [`texts`].
fn reported(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("text {n}")).collect()
}

#[test]
fn one_message_of_many_is_handed_out_in_a_turn() {
    let mut scene = Scene::open();
    scene.arrive_frames(&texts(3));
    assert_eq!(scene.turn(1), (true, vec!["text 0".to_string()]));
    assert_eq!(scene.turn(1), (true, vec!["text 1".to_string()]));
    assert!(scene.end.driver.wants_resume());
    assert_eq!(scene.turn(1), (true, vec!["text 2".to_string()]));
    assert!(!scene.end.driver.wants_resume());
    assert_eq!(scene.turn(1), (false, vec![]));
}

#[test]
fn everything_from_the_handshake_to_the_end_is_reported_in_order() {
    let mut scene = Scene::new();
    scene.arrive_frames(&texts(1000));
    scene.arrive_frames(&[wire::close(1000, "")]);
    scene.end_input();
    let mut expected = vec!["validate GET /chat".to_string(), "open".to_string()];
    expected.extend(reported(1000));
    expected.push("close clean by peer: 1000/1000".to_string());
    assert_eq!(scene.one_by_one(), expected);
    assert!(scene.end.driver.is_closed());
}

#[test]
fn an_end_without_a_close_comes_behind_the_messages() {
    let mut scene = Scene::open();
    scene.arrive_frames(&texts(100));
    assert_eq!(scene.turn(1).1, ["text 0"]);
    let (now, ToyEnd { driver, toy, buffers, .. }) = (scene.clock.now(), &mut scene.end);
    driver.handle_error(toy, buffers, TransportError::Reset, now);
    assert!(!driver.is_closed() && driver.wants_resume());
    let mut rest = scene.one_by_one();
    let end = rest.pop().unwrap();
    assert!(end.starts_with("close unclean"), "{end}");
    assert_eq!(rest, reported(100)[1..]);
    assert!(scene.end.driver.is_closed());
}

#[test]
fn while_messages_are_held_back_no_more_is_received() {
    let mut scene = Scene::open();
    scene.arrive_frames(&texts(10));
    assert_eq!(scene.turn(1).1, ["text 0"]);
    assert!(!scene.end.driver.wants_input());
    scene.arrive_frames(&[text("more")]);
    let waiting = scene.unread();
    for n in 1..9 {
        assert_eq!(scene.turn(1).1, [format!("text {n}")]);
        assert_eq!(scene.unread(), waiting);
    }
    assert_eq!(scene.one_by_one(), ["text 9", "text more"]);
    assert_eq!(scene.unread(), 0);
}

#[test]
fn without_a_budget_nothing_is_called_and_nothing_is_lost() {
    let mut scene = Scene::open();
    scene.arrive_frames(&texts(2));
    scene.handle().interrupt().unwrap();
    for _ in 0..10 {
        assert_eq!(scene.turn(0).1, [""; 0]);
    }
    assert!(scene.end.driver.wants_resume());
    let mut all = scene.one_by_one();
    all.sort();
    assert_eq!(all, ["interrupt", "text 0", "text 1"]);
}

#[test]
fn input_and_commands_and_timers_take_turns() {
    let mut scene = Scene::open();
    scene.arrive_frames(&texts(20));
    let (handle, log) = (scene.handle(), scene.log.clone());
    for _ in 0..20 {
        handle.interrupt().unwrap();
        let log = log.clone();
        handle.set_timer(Duration::ZERO, move |_, _| log.push("timer")).unwrap();
    }
    let all = scene.one_by_one();
    let count = |kind: &str| all.iter().filter(|reported| reported.starts_with(kind)).count();
    assert_eq!([count("text"), count("interrupt"), count("timer")], [20; 3]);
    // No kind waits until another is through.
    let first = |kind: &str| all.iter().position(|reported| reported.starts_with(kind)).unwrap();
    assert!(["text", "interrupt", "timer"].iter().all(|kind| first(kind) < 10), "{all:?}");
}

/// Both ends, over pipes that hold seven bytes: every write is a short one.
fn talk_over_narrow_pipes(handlers: u64) {
    let log = Log::default();
    let mut server = Server::new(server_config());
    server.on_message(|message, context| _ = context.send(message));
    let client = Client::with_factory(ClientConfig::new(), recording(&log));

    let narrow = || Arc::new(Mutex::new(Pipe { capacity: Some(7), ..Pipe::default() }));
    let (up, down, now) = (narrow(), narrow(), Clock::default().now());
    let mut server = ToyEnd::server(&server, up.clone(), down.clone(), now);
    let target = "ws://localhost/".parse().unwrap();
    let mut client = ToyEnd::client(&client, &target, down, up, now).unwrap();
    client.start(now);

    let mut run =
        |client: &mut ToyEnd<_>| while client.turn(handlers, now) | server.turn(handlers, now) {};
    run(&mut client);
    let large = vec![7; 50_000];
    let _ = client.driver.handle().send(&large[..]).unwrap();
    let _ = client.driver.handle().send("small").unwrap();
    client.driver.handle().close(CloseCode::NORMAL, "").unwrap();
    run(&mut client);
    let reported = ["open", "binary of 50000", "text small", "close clean by local: 1000/1000"];
    assert_eq!(log.take(), reported);
    assert!(client.driver.is_closed() && server.driver.is_closed());
}

#[test]
fn a_narrow_pipe_carries_everything() {
    talk_over_narrow_pipes(u64::MAX);
}

#[test]
fn a_narrow_pipe_carries_everything_one_by_one() {
    talk_over_narrow_pipes(1);
}
