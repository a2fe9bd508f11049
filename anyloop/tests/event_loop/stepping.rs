//! Step by step: one handler at a time over one read, budgets, and run calls inside handlers.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyloop::prelude::*;
use anyloop_testkit::frames;
use anyloop_testkit::peer::{Peer, Stream};
use anyloop_testkit::wait::{PATIENCE, let_time_pass};
use anyloop_testkit::watchdog::within_time;

use crate::fixture::{Fixture, described, server_config};
use crate::harness::{Count, Log, await_readable};
use crate::wire::{numbered, text};

/// A thousand messages, each of another size and content, and what they are.
fn thousand() -> (Vec<u8>, Vec<String>) {
    let all: Vec<String> = (0..1000).map(|i| format!("{i}:{}", "x".repeat(i % 40))).collect();
    (all.iter().flat_map(text).collect(), all)
}

fn a_thousand_steps(open: fn(&Fixture) -> Peer) {
    within_time(move || {
        let fixture = Fixture::new();
        let peer = open(&fixture);
        let (bytes, messages) = thousand();
        peer.write(bytes); // in one piece
        await_readable(&fixture.event_loop);
        for (i, message) in messages.iter().enumerate() {
            let mut called = fixture.event_loop.poll_one();
            if called == 0 && i == 0 {
                await_readable(&fixture.event_loop); // something else was first
                called = fixture.event_loop.poll_one();
            }
            assert_eq!(called, 1, "at message {i}");
            assert_eq!(fixture.log.take(), [message.as_str()]);
        }
        assert_eq!(fixture.event_loop.poll_one(), 0);
    });
}

#[test]
fn pitfall_poll_one_hands_out_one_message_of_a_thousand_in_one_read() {
    a_thousand_steps(Fixture::open);
}

#[test]
fn pitfall_poll_one_hands_out_one_message_of_a_thousand_in_one_read_of_a_unix_socket() {
    a_thousand_steps(Fixture::open_unix);
}

#[test]
fn run_one_hands_out_one_message_of_a_thousand() {
    within_time(|| {
        let fixture = Fixture::new();
        let peer = fixture.open();
        let (bytes, messages) = thousand();
        peer.write(bytes);
        for message in &messages {
            assert_eq!(fixture.event_loop.run_one(), 1);
            assert_eq!(fixture.log.take(), [message.as_str()]);
        }
    });
}

#[test]
fn steps_go_on_across_what_comes_meanwhile() {
    within_time(|| {
        let fixture = Fixture::new();
        let peer = fixture.open();
        // Each step hands out one message, and two more come, the second of them in two parts.
        let frames: Vec<u8> = numbered(300);
        let mut pieces = frames.chunks(11);
        for i in 0..300 {
            for piece in pieces.by_ref().take(2) {
                peer.write(piece);
            }
            assert_eq!(fixture.event_loop.run_one(), 1);
            assert_eq!(fixture.log.take(), [i.to_string()]);
        }
    });
}

#[test]
fn a_budget_of_handlers_holds_within_one_read() {
    within_time(|| {
        let fixture = Fixture::new();
        let peer = fixture.open();
        let (bytes, messages) = thousand();
        peer.write(bytes);
        let mut reported = 0;
        while reported < 1000 {
            await_readable(&fixture.event_loop);
            let ran = fixture.event_loop.poll_budget(7, None);
            assert!(ran <= 7);
            reported += ran;
            assert_eq!(fixture.log.all(), messages[..reported]);
            assert!(ran == 7 || reported == 1000 || reported == 0, "{ran} after {reported}");
        }
    });
}

#[test]
fn a_budget_of_time_holds_within_one_read() {
    within_time(|| {
        // A handler takes all the time that there is, and so it is the last.
        let until = Arc::new(Mutex::new(Instant::now()));
        let fixture = Fixture::with(|server, log| {
            let (it, until) = (log.clone(), until.clone());
            server.on_message(move |message, _| {
                it.add(described(&message));
                let until = *until.lock().unwrap();
                let left = until.saturating_duration_since(Instant::now());
                let_time_pass(left, "the handler takes all the time that there is");
            });
        });
        let peer = fixture.open();
        peer.write(numbered(100));
        let mut rounds = 0;
        while fixture.log.len() < 5 {
            await_readable(&fixture.event_loop);
            let end = Instant::now() + Duration::from_millis(50);
            *until.lock().unwrap() = end;
            let (before, ran) = (fixture.log.len(), fixture.event_loop.poll_budget(100, Some(end)));
            assert!(ran <= 1 && fixture.log.len() == before + ran);
            rounds += 1;
            assert!(rounds < 100, "nothing is handed out");
        }
        fixture.drive_to(100);
        assert_eq!(fixture.log.all(), (0..100).map(|i| i.to_string()).collect::<Vec<_>>());
    });
}

/// A message handler runs the loop, which serves another connection: what was lent to it stays as it
/// is, what it sends goes where it should, and its own connection is not served meanwhile.
fn a_run_call_in_a_handler(call: fn(&EventLoop) -> usize) {
    within_time(move || {
        let event_loop = EventLoop::new().unwrap();
        // In its own handler it would keep itself alive.
        let inner = Arc::new(Mutex::new(Some(event_loop.clone())));
        let writer = Arc::new(Mutex::new(None::<Stream>));
        let (others, is_inside) = (Count::default(), Arc::new(Mutex::new(())));
        let long = "y".repeat(30_000);
        let fixture = Fixture::of(&event_loop, server_config(), |server, log| {
            let (it, inner, writer) = (log.clone(), inner.clone(), writer.clone());
            let (others, long) = (others.clone(), long.clone());
            server.on_message(move |message, context| {
                let before = described(&message);
                if !before.starts_with("outer") {
                    context.send(message).unwrap();
                    others.add();
                    return;
                }
                let _inside = is_inside.try_lock().expect("one handler of a connection at a time");
                context.send("before").unwrap();
                let event_loop = inner.lock().unwrap().clone().unwrap();
                if let Some(mut writer) = writer.lock().unwrap().take() {
                    let messages = (0..3).flat_map(|i| text(format!("other {i} {long}")));
                    writer.write_all(&messages.collect::<Vec<_>>()).unwrap();
                }
                let begun = Instant::now();
                while others.get() < 3 {
                    assert!(begun.elapsed() < PATIENCE, "the other connection is not served");
                    call(&event_loop);
                }
                assert_eq!(described(&message), before, "the message was overwritten");
                context.send(message).unwrap();
                it.add(before);
            });
        });
        let (mut outer, mut other) = (fixture.open(), fixture.open());
        *writer.lock().unwrap() = Some(other.writer());
        let messages: Vec<_> =
            (0..3).map(|i| format!("outer {i} {}", "x".repeat(10_000))).collect();
        outer.write(messages.iter().flat_map(text).collect::<Vec<_>>());
        fixture.drive_to(3);
        assert_eq!(fixture.log.all(), messages);
        let (mut answers, mut others) = (Vec::new(), Vec::new());
        fixture.drive("the answers", || {
            answers.extend(outer.poll_frames());
            others.extend(other.poll_frames());
            answers.len() >= 6 && others.len() >= 3
        });
        let sent = messages.iter().flat_map(|it| [frames::text("before"), frames::text(it)]);
        assert!(answers == sent.collect::<Vec<_>>());
        let sent = (0..3).map(|i| frames::text(format!("other {i} {long}")));
        assert!(others == sent.collect::<Vec<_>>());
        inner.lock().unwrap().take();
    });
}

#[test]
fn poll_one_in_a_message_handler_keeps_the_message_and_serves_others() {
    a_run_call_in_a_handler(EventLoop::poll_one);
}

#[test]
fn poll_in_a_message_handler_keeps_the_message_and_serves_others() {
    a_run_call_in_a_handler(EventLoop::poll);
}

#[test]
fn run_one_in_a_message_handler_keeps_the_message_and_serves_others() {
    a_run_call_in_a_handler(EventLoop::run_one);
}

#[test]
fn run_for_in_a_message_handler_keeps_the_message_and_serves_others() {
    a_run_call_in_a_handler(|event_loop| event_loop.run_for(Duration::from_millis(1)));
}

#[test]
fn a_run_call_between_two_sends_leaves_each_connection_its_own() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let (inner, writer) = (event_loop.clone(), Arc::new(Mutex::new(None::<Stream>)));
        let other = writer.clone();
        let fixture = Fixture::of(&event_loop, server_config(), |server, _| {
            server.on_message(move |message, context| {
                context.send(message).unwrap();
                let taken = other.lock().unwrap().take();
                if let Some(mut other) = taken {
                    other.write_all(&text("inner")).unwrap();
                    while inner.poll() == 0 {}
                }
                context.send(message).unwrap();
            });
        });
        let (mut outer, mut other) = (fixture.open(), fixture.open());
        *writer.lock().unwrap() = Some(other.writer());
        outer.write(text("outer"));
        let mut frames = (Vec::new(), Vec::new());
        fixture.drive("the echoes", || {
            frames.0.extend(outer.poll_frames());
            frames.1.extend(other.poll_frames());
            frames.0.len() + frames.1.len() == 4
        });
        assert_eq!(frames.0, [frames::text("outer"), frames::text("outer")]);
        assert_eq!(frames.1, [frames::text("inner"), frames::text("inner")]);
    });
}

#[test]
fn a_run_call_in_a_posted_function_runs_what_is_behind_it() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let (inner, it) = (event_loop.clone(), log.clone());
        event_loop.post(move || {
            it.add("begin");
            assert_eq!(inner.poll_one(), 1);
            assert_eq!(inner.poll(), 1);
            assert_eq!(inner.poll(), 0);
            assert!(!inner.stopped()); // this function is work itself
            it.add("end");
        });
        for name in ["a", "b"] {
            let it = log.clone();
            event_loop.post(move || it.add(name));
        }
        assert_eq!(event_loop.run(), 1); // the others were counted within
        assert_eq!(log.all(), ["begin", "a", "b", "end"]);
    });
}
