//! Leader and followers: a thread that waits is woken when it is needed.

use loom::thread;

use super::{Signal, check, check_large, insert, new_loop, reactor, spawn};
use crate::event_loop::EventLoop;
use crate::event_loop::events::Events;
use crate::event_loop::source::Next;

#[test]
fn a_job_may_wait_for_another_that_is_ready() {
    check(|| {
        let event_loop = new_loop();
        let ran = Signal::default();
        let awaited = ran.clone();
        event_loop.post(move || awaited.take());
        event_loop.post(move || ran.set());
        let other = spawn(&event_loop, |event_loop| event_loop.run());
        let ran = event_loop.run() + other.join().unwrap();
        assert_eq!(ran, 2);
    });
}

/// Large; the smaller model is [`a_job_may_wait_for_another_that_is_ready`].
#[test]
fn a_job_may_wait_for_another_that_comes_later() {
    check_large(|| {
        let event_loop = new_loop();
        let (guard, handle) = (event_loop.keep_alive(), event_loop.handle());
        let other = spawn(&event_loop, |event_loop| event_loop.run());
        let poster = thread::spawn(move || {
            let ran = Signal::default();
            let awaited = ran.clone();
            handle.post(move || awaited.take()).unwrap();
            handle.post(move || ran.set()).unwrap();
            drop(guard);
        });
        let ran = event_loop.run() + other.join().unwrap();
        assert_eq!(ran, 2);
        poster.join().unwrap();
    });
}

#[test]
fn a_job_may_wait_for_a_source() {
    check(|| {
        let event_loop = new_loop();
        let ran = Signal::default();
        let awaited = ran.clone();
        let token = insert(&event_loop, move |turn| {
            if !turn.state.events.contains(Events::READABLE) {
                return Next::Wait;
            }
            ran.set();
            Next::Done
        });
        event_loop.post(move || awaited.take());
        let other = spawn(&event_loop, |event_loop| event_loop.run());
        let sockets = reactor(&event_loop);
        let socket = thread::spawn(move || sockets.report(token, Events::READABLE));
        let ran = event_loop.run() + other.join().unwrap();
        assert_eq!(ran, 1);
        socket.join().unwrap();
    });
}

#[test]
fn a_runner_that_leaves_jobs_wakes_another() {
    check(|| {
        let event_loop = new_loop();
        event_loop.post(|| ());
        event_loop.post(|| ());
        let other = spawn(&event_loop, |event_loop| event_loop.run_one());
        let ran = event_loop.run() + other.join().unwrap();
        assert_eq!(ran, 2);
        assert!(event_loop.stopped());
    });
}

#[test]
fn a_runner_that_leaves_makes_another_the_leader() {
    check(|| {
        let event_loop = new_loop();
        let guard = event_loop.keep_alive();
        let other = spawn(&event_loop, |event_loop| event_loop.run_one());
        let handle = event_loop.handle();
        let poster = thread::spawn(move || {
            handle.post(|| ()).unwrap();
            handle.post(move || drop(guard)).unwrap();
        });
        let ran = event_loop.run() + other.join().unwrap();
        assert_eq!(ran, 2);
        poster.join().unwrap();
    });
}

#[test]
fn a_poll_that_ends_makes_a_runner_the_leader() {
    check(|| {
        let event_loop = new_loop();
        let guard = event_loop.keep_alive();
        let other = spawn(&event_loop, |event_loop| event_loop.poll());
        let handle = event_loop.handle();
        let poster = thread::spawn(move || handle.post(move || drop(guard)).unwrap());
        let ran = event_loop.run() + other.join().unwrap();
        assert_eq!(ran, 1);
        poster.join().unwrap();
    });
}

#[test]
fn a_runner_that_leaves_a_source_wakes_another() {
    check(|| {
        let event_loop = new_loop();
        let mut turns = 0;
        insert(&event_loop, move |turn| {
            turns += 1;
            match turn.buffers.for_driver.budget.try_spend() {
                true if turns < 3 => Next::Again,
                true => Next::Done,
                false => unreachable!("a runner that has left runs it"),
            }
        });
        let other = spawn(&event_loop, |event_loop| event_loop.run_one());
        let ran = event_loop.run() + other.join().unwrap();
        assert_eq!(ran, 3);
    });
}

#[test]
fn a_panic_leaves_the_rest_to_another() {
    check(|| {
        let event_loop = new_loop();
        let panics = || {
            std::panic::resume_unwind(Box::new("as planned"));
        };
        event_loop.post(panics);
        event_loop.post(|| ());
        let run = |event_loop: &EventLoop| {
            let run = std::panic::AssertUnwindSafe(|| event_loop.run());
            std::panic::catch_unwind(run).is_err()
        };
        let other = spawn(&event_loop, move |event_loop| run(&event_loop));
        let panicked = run(&event_loop);
        assert!(panicked ^ other.join().unwrap());
        assert!(event_loop.stopped());
    });
}

#[test]
fn a_job_may_poll() {
    check(|| {
        let event_loop = new_loop();
        let inside = event_loop.handle();
        let nested = event_loop.clone();
        event_loop.post(move || {
            inside.post(|| ()).unwrap();
            nested.poll();
        });
        let other = spawn(&event_loop, |event_loop| event_loop.run());
        let ran = event_loop.run() + other.join().unwrap();
        assert!(ran <= 2, "{ran}"); // those of the nested call may be in it
        assert!(event_loop.stopped());
        let core = event_loop.engine.lock();
        assert!(core.is_queue_empty() && !event_loop.engine.control().has_commands());
    });
}
