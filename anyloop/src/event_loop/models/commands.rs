//! Commands of other threads.

use std::sync::Arc;

use loom::thread;

use super::{Count, check, new_loop, spawn};

#[test]
fn a_runner_runs_what_is_posted_and_sees_that_there_is_no_more_work() {
    check(|| {
        let event_loop = new_loop();
        let (guard, handle) = (event_loop.keep_alive(), event_loop.handle());
        let ran = Count::default();
        let counted = ran.clone();
        let poster = thread::spawn(move || {
            let first = counted.clone();
            handle.post(move || assert_eq!(first.add(), 1)).unwrap();
            handle.post(move || assert_eq!(counted.add(), 2)).unwrap();
            drop(guard);
        });
        assert_eq!(event_loop.run(), 2);
        assert!(event_loop.stopped());
        assert_eq!(ran.get(), 2);
        poster.join().unwrap();
    });
}

#[test]
fn a_runner_runs_what_an_owner_posts() {
    check(|| {
        let event_loop = new_loop();
        let guard = event_loop.keep_alive();
        let poster = spawn(&event_loop, |event_loop| {
            let ran = Count::default();
            let first = ran.clone();
            event_loop.handle().post(move || assert_eq!(first.add(), 1)).unwrap();
            event_loop.post(move || assert_eq!(ran.add(), 2)); // another way, and the same order
            drop(guard);
        });
        assert_eq!(event_loop.run(), 2);
        poster.join().unwrap();
    });
}

#[test]
fn what_is_posted_runs_on_one_of_two_runners() {
    check(|| {
        let event_loop = new_loop();
        let (guard, handle) = (event_loop.keep_alive(), event_loop.handle());
        let other = spawn(&event_loop, |event_loop| event_loop.run());
        let poster = thread::spawn(move || {
            handle.post(|| ()).unwrap();
            drop(guard);
        });
        let ran = event_loop.run() + other.join().unwrap();
        assert_eq!(ran, 1);
        poster.join().unwrap();
    });
}

#[test]
fn what_is_posted_to_a_loop_that_ends_is_refused_or_dropped() {
    check(|| {
        let event_loop = new_loop();
        let handle = event_loop.handle();
        let (left, held) = (handle.clone(), Arc::new(()));
        let (first, second) = (held.clone(), held.clone());
        let poster = thread::spawn(move || {
            let posted = handle.post(move || drop(first));
            let again = handle.post(move || drop(second));
            assert!(posted.is_ok() || again.is_err());
        });
        drop(event_loop);
        poster.join().unwrap();
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(left.is_gone());
    });
}
