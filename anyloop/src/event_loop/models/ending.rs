//! The end of run calls: stopped, out of work, reset.

use loom::thread;

use super::{check, new_loop, reactor, spawn};

#[test]
fn the_last_work_ends_all_runners() {
    check(|| {
        let event_loop = new_loop();
        let guard = event_loop.keep_alive();
        let other = spawn(&event_loop, |event_loop| event_loop.run());
        let finisher = thread::spawn(move || drop(guard));
        assert_eq!(event_loop.run(), 0);
        assert_eq!(other.join().unwrap(), 0);
        assert!(event_loop.stopped());
        finisher.join().unwrap();
    });
}

#[test]
fn stop_ends_all_runners() {
    check(|| {
        let event_loop = new_loop();
        let _guard = event_loop.keep_alive();
        let other = spawn(&event_loop, |event_loop| event_loop.run());
        let stopper = spawn(&event_loop, |event_loop| event_loop.stop());
        assert_eq!(event_loop.run(), 0);
        assert_eq!(other.join().unwrap(), 0);
        stopper.join().unwrap();
    });
}

#[test]
fn a_job_stops_all_runners() {
    check(|| {
        let event_loop = new_loop();
        let _guard = event_loop.keep_alive();
        let handle = event_loop.handle();
        event_loop.post(move || handle.stop().unwrap());
        let other = spawn(&event_loop, |event_loop| event_loop.run());
        let ran = event_loop.run() + other.join().unwrap();
        assert_eq!(ran, 1);
    });
}

#[test]
fn what_is_posted_beside_stop_runs_after_the_reset() {
    check(|| {
        let event_loop = new_loop();
        let handle = event_loop.handle();
        let poster = thread::spawn(move || handle.post(|| ()).unwrap());
        event_loop.stop();
        assert_eq!(event_loop.poll(), 0);
        event_loop.reset().unwrap();
        reactor(&event_loop).await_readable(None); // as the host does
        assert_eq!(event_loop.poll(), 1);
        poster.join().unwrap();
    });
}

#[test]
fn reset_beside_a_runner_is_refused_or_has_no_say() {
    check(|| {
        let event_loop = new_loop();
        event_loop.post(|| ());
        let other = spawn(&event_loop, |event_loop| {
            while event_loop.reset().is_err() {
                thread::yield_now();
            }
        });
        let ran = event_loop.run();
        other.join().unwrap();
        assert_eq!(ran, 1);
    });
}
