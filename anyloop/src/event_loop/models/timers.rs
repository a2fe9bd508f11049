//! Timers and deadlines.

use loom::thread;

use super::{Count, FAR, SOON, check, insert, new_loop, spawn};
use crate::event_loop::events::Events;
use crate::event_loop::source::Next;

#[test]
fn an_earlier_timer_wakes_the_leader() {
    check(|| {
        let event_loop = new_loop();
        event_loop.set_timer(FAR, || unreachable!());
        let inside = event_loop.clone();
        event_loop.post(move || {
            let handle = inside.handle();
            inside.set_timer(SOON, move || handle.stop().unwrap());
        });
        let other = spawn(&event_loop, |event_loop| event_loop.run());
        let ran = event_loop.run() + other.join().unwrap();
        assert_eq!(ran, 2);
    });
}

#[test]
fn an_earlier_deadline_wakes_the_leader() {
    check(|| {
        let event_loop = new_loop();
        event_loop.set_timer(FAR, || unreachable!());
        let handle = event_loop.handle();
        insert(&event_loop, move |turn| match turn.state.events.contains(Events::DEADLINE) {
            true => {
                handle.stop().unwrap();
                Next::Done
            }
            false => {
                turn.state.deadline = Some(turn.state.now + SOON);
                Next::Wait
            }
        });
        let other = spawn(&event_loop, |event_loop| event_loop.run());
        event_loop.run();
        other.join().unwrap();
    });
}

#[test]
fn a_timer_that_is_cancelled_as_it_comes_is_called_once() {
    check(|| {
        let event_loop = new_loop();
        let called = Count::default();
        let counted = called.clone();
        let timer = event_loop.set_timer_then(SOON, move |_| assert_eq!(counted.add(), 1));
        let canceller = thread::spawn(move || timer.cancel());
        assert_eq!(event_loop.run(), 1);
        canceller.join().unwrap();
        assert_eq!(called.get(), 1);
    });
}
