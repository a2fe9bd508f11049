//! A loop embedded in a host that watches its descriptor.

use std::time::Duration;

use loom::thread;

use super::{Count, FAR, SOON, check, insert, new_loop, reactor, spawn};
use crate::event_loop::EventLoop;
use crate::event_loop::events::Events;
use crate::event_loop::source::Next;

/// Polls each time the descriptor is readable, until `count` functions ran.
fn host(event_loop: &EventLoop, count: usize) {
    let mut ran = 0;
    while ran < count {
        reactor(event_loop).await_readable(None);
        ran += event_loop.poll_one();
    }
    assert_eq!(ran, count);
}

/// Polls when the descriptor is readable and when the timeout is over, until the loop is stopped.
fn host_to_the_end(event_loop: &EventLoop) {
    while !event_loop.stopped() {
        reactor(event_loop).await_readable(event_loop.next_timeout());
        event_loop.poll();
        thread::yield_now(); // to another runner, which has taken the timer
    }
}

#[test]
fn a_host_is_woken_as_long_as_something_is_ready() {
    check(|| {
        let event_loop = new_loop();
        let (_guard, handle) = (event_loop.keep_alive(), event_loop.handle());
        let poster = thread::spawn(move || {
            handle.post(|| ()).unwrap();
            handle.post(|| ()).unwrap();
        });
        host(&event_loop, 2);
        poster.join().unwrap();
        assert_eq!(event_loop.poll(), 0);
        assert!(!reactor(&event_loop).is_readable());
    });
}

#[test]
fn a_host_is_woken_once_before_it_polls() {
    check(|| {
        let event_loop = new_loop();
        let (_guard, handle) = (event_loop.keep_alive(), event_loop.handle());
        let posters = [0, 1].map(|_| {
            let handle = handle.clone();
            thread::spawn(move || handle.post(|| ()).unwrap())
        });
        for poster in posters {
            poster.join().unwrap();
        }
        assert_eq!(reactor(&event_loop).wake_count(), 1);
        assert_eq!(event_loop.poll(), 2);
        assert!(!reactor(&event_loop).is_readable());
    });
}

#[test]
fn a_host_is_woken_for_an_earlier_timer() {
    check(|| {
        let event_loop = new_loop();
        event_loop.set_timer(FAR, || unreachable!());
        let setter = spawn(&event_loop, |event_loop| {
            event_loop.handle().set_timer_then(SOON, |result| result.unwrap()).unwrap();
            event_loop.set_timer_then(SOON, |result| result.unwrap());
        });
        let mut ran = 0;
        while ran < 2 {
            reactor(&event_loop).await_readable(event_loop.next_timeout());
            ran += event_loop.poll();
        }
        setter.join().unwrap();
    });
}

#[test]
fn a_host_is_woken_for_what_another_runner_leaves() {
    check(|| {
        let event_loop = new_loop();
        let ran = Count::default();
        for _ in 0..3 {
            let ran = ran.clone();
            event_loop.post(move || {
                ran.add();
            });
        }
        let other = spawn(&event_loop, |event_loop| event_loop.poll_one());
        event_loop.poll_one();
        other.join().unwrap();
        while ran.get() < 3 {
            reactor(&event_loop).await_readable(None);
            event_loop.poll_one();
        }
    });
}

#[test]
fn a_host_is_woken_when_work_runs_out() {
    check(|| {
        let event_loop = new_loop();
        let guard = event_loop.keep_alive();
        let other = thread::spawn(move || drop(guard));
        event_loop.poll();
        host_to_the_end(&event_loop);
        other.join().unwrap();
    });
}

#[test]
fn a_host_is_woken_when_another_runner_has_stopped_the_loop() {
    check(|| {
        let event_loop = new_loop();
        let _guard = event_loop.keep_alive();
        let inside = event_loop.clone();
        let other = spawn(&event_loop, |event_loop| {
            event_loop.post(move || inside.stop());
            event_loop.poll();
        });
        host_to_the_end(&event_loop);
        other.join().unwrap();
    });
}

#[test]
fn a_host_is_woken_for_a_timer_that_another_runner_leaves() {
    check(|| {
        let event_loop = new_loop();
        let _guard = event_loop.keep_alive();
        let (inside, handle) = (event_loop.clone(), event_loop.handle());
        let other = spawn(&event_loop, |event_loop| {
            event_loop.post(move || drop(inside.set_timer(SOON, move || handle.stop().unwrap())));
            event_loop.poll();
        });
        host_to_the_end(&event_loop);
        other.join().unwrap();
    });
}

#[test]
fn a_host_is_woken_for_a_timer_that_is_set_beside_another_runner() {
    check(|| {
        let event_loop = new_loop();
        let _guard = event_loop.keep_alive();
        let other = spawn(&event_loop, |event_loop| event_loop.poll());
        let setter = spawn(&event_loop, |event_loop| {
            let handle = event_loop.handle();
            event_loop.set_timer(SOON, move || handle.stop().unwrap());
        });
        host_to_the_end(&event_loop);
        other.join().unwrap();
        setter.join().unwrap();
    });
}

#[test]
fn a_host_is_woken_for_a_timer_by_a_reset() {
    check(|| {
        let event_loop = new_loop();
        event_loop.set_timer_then(SOON, |result| result.unwrap());
        event_loop.stop();
        event_loop.poll();
        let other = spawn(&event_loop, |event_loop| event_loop.reset().unwrap());
        let mut ran = 0;
        while ran < 1 {
            reactor(&event_loop).await_readable(event_loop.next_timeout());
            ran += event_loop.poll();
        }
        other.join().unwrap();
    });
}

#[test]
fn a_host_is_woken_for_a_timer_that_the_first_of_two_polls_has_left() {
    check(|| {
        let event_loop = new_loop();
        let _guard = event_loop.keep_alive();
        let (inside, handle) = (event_loop.clone(), event_loop.handle());
        let other = spawn(&event_loop, |event_loop| {
            event_loop.post(move || drop(inside.set_timer(SOON, move || handle.stop().unwrap())));
            event_loop.poll();
            event_loop.poll();
        });
        host_to_the_end(&event_loop);
        other.join().unwrap();
    });
}

#[test]
fn a_host_is_woken_when_the_first_of_two_polls_has_stopped_the_loop() {
    check(|| {
        let event_loop = new_loop();
        let _guard = event_loop.keep_alive();
        let inside = event_loop.clone();
        let other = spawn(&event_loop, |event_loop| {
            event_loop.post(move || inside.stop());
            event_loop.poll();
            event_loop.poll();
        });
        host_to_the_end(&event_loop);
        other.join().unwrap();
    });
}

#[test]
fn a_host_is_woken_when_the_loop_is_stopped_beside_a_poll() {
    check(|| {
        let event_loop = new_loop();
        let _guard = event_loop.keep_alive();
        let stopper = spawn(&event_loop, |event_loop| event_loop.stop());
        let other = spawn(&event_loop, |event_loop| event_loop.poll());
        host_to_the_end(&event_loop);
        other.join().unwrap();
        stopper.join().unwrap();
    });
}

/// The host receives edges.
#[test]
fn an_edge_is_not_forgotten_beside_another_poll() {
    check(|| {
        let event_loop = new_loop();
        let token =
            insert(&event_loop, |turn| match turn.state.events.contains(Events::READABLE) {
                true => Next::Done,
                false => Next::Wait,
            });
        event_loop.poll();
        let sockets = reactor(&event_loop);
        let socket = thread::spawn(move || sockets.report(token, Events::READABLE));
        let other = spawn(&event_loop, |event_loop| event_loop.poll());
        loop {
            event_loop.poll();
            if event_loop.stopped() {
                break;
            }
            match event_loop.next_timeout() {
                Some(Duration::ZERO) => thread::yield_now(),
                _ => reactor(&event_loop).await_edge(),
            }
        }
        socket.join().unwrap();
        other.join().unwrap();
    });
}
