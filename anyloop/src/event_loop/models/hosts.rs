//! Inside another loop: nobody is in a run call, and the host watches the descriptor.

use loom::thread;

use super::{Count, FAR, SOON, check, doorbell, new_loop, spawn};
use crate::event_loop::EventLoop;

/// Does what a host does that watches the descriptor, until `count` functions ran.
fn host(event_loop: &EventLoop, count: usize) {
    let mut ran = 0;
    while ran < count {
        doorbell(event_loop).await_readable(None);
        ran += event_loop.poll_one();
    }
    assert_eq!(ran, count);
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
        assert!(!doorbell(&event_loop).is_readable());
    });
}

#[test]
fn a_host_is_woken_once_for_what_it_has_not_looked_at() {
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
        assert_eq!(doorbell(&event_loop).rings(), 1);
        assert_eq!(event_loop.poll(), 2);
        assert!(!doorbell(&event_loop).is_readable());
    });
}

#[test]
fn a_host_is_woken_for_an_earlier_timer() {
    check(|| {
        let event_loop = new_loop();
        event_loop.set_timer(FAR, |_| unreachable!());
        let setter = spawn(&event_loop, |event_loop| {
            event_loop.handle().set_timer(SOON, |result| result.unwrap()).unwrap();
            event_loop.set_timer(SOON, |result| result.unwrap());
        });
        let mut ran = 0;
        while ran < 2 {
            doorbell(&event_loop).await_readable(event_loop.next_timeout());
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
            doorbell(&event_loop).await_readable(None);
            event_loop.poll_one();
        }
    });
}
