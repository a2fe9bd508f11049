//! Sources: one thread at a time runs each, and no event is lost.

use loom::thread;

use super::{Count, check, check_large, insert, new_loop, reactor, spawn};
use crate::event_loop::events::Events;
use crate::event_loop::source::Next;

#[test]
fn a_source_that_is_put_in_has_a_turn() {
    check(|| {
        let event_loop = new_loop();
        let guard = event_loop.keep_alive();
        let other = spawn(&event_loop, |event_loop| {
            insert(&event_loop, |_| Next::Done);
            drop(guard);
        });
        assert_eq!(event_loop.run(), 0);
        other.join().unwrap();
    });
}

/// Large; the smaller model is [`no_edge_is_lost_on_a_source_that_runs`].
#[test]
fn a_source_that_is_woken_twice_runs_alone_and_sees_the_last() {
    check_large(|| {
        let event_loop = new_loop();
        let asked = Count::default();
        let seen = asked.clone();
        let token = insert(&event_loop, move |_| match seen.get() {
            2 => Next::Done,
            _ => Next::Wait,
        });
        let other = spawn(&event_loop, |event_loop| event_loop.run());
        let control = event_loop.engine.control().clone();
        let waker = thread::spawn(move || {
            for _ in 0..2 {
                asked.add();
                control.wake(token);
            }
        });
        let ran = event_loop.run() + other.join().unwrap();
        assert_eq!(ran, 0); // no handler
        assert!(event_loop.stopped());
        waker.join().unwrap();
    });
}

#[test]
fn no_edge_is_lost_on_a_source_that_runs() {
    check(|| {
        let event_loop = new_loop();
        let mut seen = Events::NONE;
        let token = insert(&event_loop, move |turn| {
            seen |= turn.state.events;
            match seen.contains(Events::READABLE | Events::WRITABLE) {
                true => Next::Done,
                false => Next::Wait,
            }
        });
        let other = spawn(&event_loop, |event_loop| event_loop.run());
        let sockets = reactor(&event_loop);
        let socket = thread::spawn(move || {
            sockets.report(token, Events::READABLE);
            sockets.report(token, Events::WRITABLE);
        });
        event_loop.run();
        other.join().unwrap();
        socket.join().unwrap();
    });
}

/// Large; the smaller model is [`no_edge_is_lost_on_a_source_that_runs`].
#[test]
fn an_edge_that_is_kept_comes_again() {
    check_large(|| {
        let event_loop = new_loop();
        let asked = Count::default();
        let seen = asked.clone();
        let token = insert(&event_loop, move |turn| {
            if seen.get() > 0 && turn.state.events.contains(Events::READABLE) {
                return Next::Done;
            }
            turn.state.unconsumed = turn.state.events.only(Events::READABLE); // paused
            Next::Wait
        });
        let other = spawn(&event_loop, |event_loop| event_loop.run());
        let (sockets, control) = (reactor(&event_loop), event_loop.engine.control().clone());
        let socket = thread::spawn(move || {
            sockets.report(token, Events::READABLE);
            asked.add();
            control.wake(token);
        });
        event_loop.run();
        other.join().unwrap();
        socket.join().unwrap();
    });
}

#[test]
fn a_token_of_a_source_that_is_over_wakes_nobody() {
    check(|| {
        let event_loop = new_loop();
        let mut turns = 0;
        let token = insert(&event_loop, move |_| {
            turns += 1;
            assert_eq!(turns, 1);
            Next::Done
        });
        let control = event_loop.engine.control().clone();
        let waker = thread::spawn(move || control.wake(token));
        let other = spawn(&event_loop, |event_loop| {
            // In the same slot, or in another.
            insert(&event_loop, |turn| {
                assert_eq!(turn.state.events, Events::NONE);
                Next::Done
            });
            event_loop.run()
        });
        event_loop.run();
        other.join().unwrap();
        waker.join().unwrap();
        event_loop.reset().unwrap();
        event_loop.run(); // where the other runner came late
    });
}

#[test]
fn a_source_that_is_to_run_after_the_poll_ends_a_wait() {
    check(|| {
        let event_loop = new_loop();
        let mut turns = 0;
        insert(&event_loop, move |_| {
            turns += 1;
            match turns {
                1 => Next::AfterPoll,
                _ => Next::Done,
            }
        });
        let other = spawn(&event_loop, |event_loop| event_loop.run());
        event_loop.run();
        other.join().unwrap();
    });
}
