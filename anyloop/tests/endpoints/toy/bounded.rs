//! Bounded handlers, and narrow pipes: nothing is lost, and the order stays.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use anyloop::endpoint::ClientSettings;
use anyloop::proto::handshake::{OriginPolicy, ServerOptions};
use anyloop::proto::{CloseCode, Instant, Role};
use anyloop::{Client, Server};

use super::{Pipe, ToyEnd};
use crate::record::{Log, recording};
use crate::wire::{self, text};

const NOW: Instant = Instant::from_nanos(1_000_000_000);

fn pipe(capacity: Option<usize>) -> Arc<Mutex<Pipe>> {
    Arc::new(Mutex::new(Pipe { capacity, ..Pipe::default() }))
}

/// A server's end of these pipes, whose handlers write to the log.
fn recorded(log: &Log, incoming: &Arc<Mutex<Pipe>>) -> ToyEnd<anyloop::Handlers> {
    let options = ServerOptions::new(OriginPolicy::Any);
    let server = Server::<(), _>::with_factory(options, recording(log));
    let make = |waker: &_| Ok::<_, Infallible>(server.driver(waker, NOW));
    let Ok(mut end) = ToyEnd::new(incoming.clone(), pipe(None), make);
    end.start(NOW);
    end
}

#[test]
fn each_turn_calls_one_handler_and_the_end_comes_last() {
    let (log, incoming) = (Log::default(), pipe(None));
    let mut end = recorded(&log, &incoming);
    let frames = wire::stream(&[text("a"), text("b"), text("c")], Role::Client);
    incoming.lock().unwrap().bytes.extend([wire::REQUEST.as_bytes(), &frames].concat());
    incoming.lock().unwrap().shutdowns.push(anyloop::proto::Shutdown::Abort);
    let mut calls = Vec::new();
    while !end.driver.is_closed() {
        assert!(end.turn(1, NOW), "there is something to do until the end");
        let called = log.take();
        assert!(called.len() <= 1, "{called:?}");
        calls.extend(called);
    }
    let messages: Vec<_> = calls.iter().filter(|call| call.starts_with("text")).collect();
    assert_eq!(messages, ["text a", "text b", "text c"]);
    assert!(calls.last().unwrap().starts_with("close"), "{calls:?}");
}

#[test]
fn a_budget_of_none_calls_none() {
    let (log, incoming) = (Log::default(), pipe(None));
    let mut end = recorded(&log, &incoming);
    incoming.lock().unwrap().bytes.extend(wire::REQUEST.as_bytes());
    for _ in 0..10 {
        end.turn(0, NOW);
    }
    assert!(log.take().is_empty() && end.driver.wants_resume());
    while end.turn(1, NOW) {}
    assert!(log.take().contains(&"open".to_string()));
}

/// Both ends, over pipes that hold seven bytes: every write is a short one.
#[test]
fn a_narrow_pipe_carries_everything() {
    for handlers in [1, u64::MAX] {
        let log = Log::default();
        let mut server = Server::<()>::new(ServerOptions::new(OriginPolicy::Any));
        server.on_message(|message, context| _ = context.send(message));
        let client = Client::<(), _>::with_factory(ClientSettings::default(), recording(&log));
        let (up, down) = (pipe(Some(7)), pipe(Some(7)));
        let make = |waker: &_| Ok::<_, Infallible>(server.driver(waker, NOW));
        let Ok(mut server) = ToyEnd::new(up.clone(), down.clone(), make);
        let target = "ws://localhost/".parse().unwrap();
        let make = |waker: &_| client.driver(&target, waker, NOW);
        let mut client = ToyEnd::new(down, up, make).unwrap();
        server.start(NOW);
        client.start(NOW);

        while client.turn(handlers, NOW) | server.turn(handlers, NOW) {}
        let handle = client.driver.handle();
        let _ = handle.send(&vec![7; 50_000][..]).unwrap();
        let _ = handle.send("small").unwrap();
        handle.close(CloseCode::NORMAL, "").unwrap();
        while client.turn(handlers, NOW) | server.turn(handlers, NOW) {}
        let expected = ["open", "binary of 50000", "text small", "close clean by local: 1000/1000"];
        assert_eq!(log.take(), expected);
        assert!(client.driver.is_closed() && server.driver.is_closed());
    }
}
