//! The wake-up thread, beside a host and beside run calls.

use loom::thread;

use super::{Count, FAR, SOON, Signal, check, check_large, insert, new_loop, reactor, spawn};
use crate::event_loop::EventLoop;
use crate::event_loop::events::Events;
use crate::event_loop::source::Next;
use crate::sync::atomic::Ordering::SeqCst;

/// A host that has a function called.
#[derive(Clone, Default)]
struct Called {
    signal: Signal,
    /// Calls that are not followed by a run call yet.
    open: Count,
}

impl Called {
    fn set(&self, event_loop: &EventLoop) {
        let called = self.clone();
        event_loop
            .set_wakeup(move || {
                assert_eq!(called.open.add(), 1, "called twice for one poll");
                called.signal.set();
            })
            .unwrap();
    }

    /// Waits for a call, and polls.
    fn poll(&self, event_loop: &EventLoop) -> usize {
        self.signal.take();
        self.open.0.fetch_sub(1, SeqCst);
        event_loop.poll()
    }
}

/// A signal that the loop's wake-up thread sets.
fn set_signal(event_loop: &EventLoop) -> Signal {
    let signal = Signal::default();
    let called = signal.clone();
    event_loop.set_wakeup(move || called.set()).unwrap();
    signal
}

/// Polls each time it is called, until `count` functions ran.
fn host(event_loop: &EventLoop, called: &Signal, count: usize) {
    let mut ran = 0;
    while ran < count {
        called.take();
        ran += event_loop.poll();
    }
    assert_eq!(ran, count);
}

/// Polls each time it is called, until the loop is stopped.
fn host_to_the_end(event_loop: &EventLoop, called: &Signal) {
    while !event_loop.stopped() {
        called.take();
        event_loop.poll();
    }
}

#[test]
fn the_wakeup_thread_calls_the_host_for_what_is_posted() {
    check(|| {
        let event_loop = new_loop();
        let (_guard, handle) = (event_loop.keep_alive(), event_loop.handle());
        let called = Called::default();
        called.set(&event_loop);
        let poster = thread::spawn(move || {
            handle.post(|| ()).unwrap();
            handle.post(|| ()).unwrap();
        });
        let mut ran = 0;
        while ran < 2 {
            ran += called.poll(&event_loop);
        }
        poster.join().unwrap();
        event_loop.clear_wakeup(); // a deadlock if its thread does not end
    });
}

#[test]
fn the_wakeup_thread_hands_over_what_it_has_seen() {
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
        let called = Called::default();
        called.set(&event_loop);
        let sockets = reactor(&event_loop);
        let socket = thread::spawn(move || {
            sockets.report(token, Events::READABLE);
            sockets.report(token, Events::WRITABLE);
        });
        while !event_loop.stopped() {
            called.poll(&event_loop);
        }
        socket.join().unwrap();
    });
}

#[test]
fn the_wakeup_thread_calls_the_host_for_an_earlier_timer() {
    check(|| {
        let event_loop = new_loop();
        event_loop.set_timer(FAR, || unreachable!());
        let called = Called::default();
        called.set(&event_loop);
        let handle = event_loop.handle();
        let setter = thread::spawn(move || {
            handle.set_timer_then(SOON, |result| result.unwrap()).unwrap();
        });
        while called.poll(&event_loop) == 0 {}
        setter.join().unwrap();
    });
}

#[test]
fn the_wakeup_thread_calls_the_host_for_a_timer_that_a_poll_has_set() {
    check(|| {
        let event_loop = new_loop();
        let signal = set_signal(&event_loop);
        let inside = event_loop.clone();
        event_loop.post(move || drop(inside.set_timer_then(SOON, |result| result.unwrap())));
        let ran = event_loop.poll(); // before the first call
        host(&event_loop, &signal, 2 - ran);
    });
}

#[test]
fn the_wakeup_thread_leaves_the_sockets_to_a_runner() {
    check(|| {
        let event_loop = new_loop();
        let (guard, handle) = (event_loop.keep_alive(), event_loop.handle());
        event_loop.set_wakeup(|| ()).unwrap();
        let poster = thread::spawn(move || {
            handle.post(|| ()).unwrap();
            drop(guard);
        });
        assert_eq!(event_loop.run(), 1);
        poster.join().unwrap();
    });
}

#[test]
fn the_wakeup_thread_that_a_job_sets_leaves_the_sockets_to_the_runner() {
    check(|| {
        let event_loop = new_loop();
        let inside = event_loop.clone();
        event_loop.post(move || {
            inside.set_wakeup(|| ()).unwrap();
            // Timers that the wake-up thread does not know.
            let again = inside.clone();
            inside.set_timer(SOON, move || {
                again.set_timer_then(SOON, |result| result.unwrap());
            });
        });
        assert_eq!(event_loop.run(), 3);
    });
}

#[test]
fn the_wakeup_thread_calls_again_after_a_run_call() {
    check(|| {
        let event_loop = new_loop();
        let (_guard, handle) = (event_loop.keep_alive(), event_loop.handle());
        let signal = set_signal(&event_loop);
        let poster = thread::spawn(move || {
            handle.post(|| ()).unwrap();
            handle.post(|| ()).unwrap();
        });
        let ran = event_loop.run_one();
        host(&event_loop, &signal, 2 - ran);
        poster.join().unwrap();
    });
}

#[test]
fn another_wakeup_thread_takes_the_place_of_the_first() {
    check(|| {
        let event_loop = new_loop();
        let (_guard, handle) = (event_loop.keep_alive(), event_loop.handle());
        event_loop.set_wakeup(|| ()).unwrap();
        let called = Called::default();
        let poster = thread::spawn(move || handle.post(|| ()).unwrap());
        called.set(&event_loop);
        while called.poll(&event_loop) == 0 {}
        poster.join().unwrap();
    });
}

#[test]
fn the_wakeup_thread_that_is_set_beside_a_runner_calls_when_that_has_left() {
    check(|| {
        let event_loop = new_loop();
        let (guard, handle) = (event_loop.keep_alive(), event_loop.handle());
        let other = spawn(&event_loop, |event_loop| event_loop.run_one());
        let signal = set_signal(&event_loop);
        handle.post(|| ()).unwrap();
        handle.post(move || drop(guard)).unwrap();
        let ran = other.join().unwrap();
        host(&event_loop, &signal, 2 - ran);
    });
}

#[test]
fn the_wakeup_thread_that_is_set_elsewhere_calls_after_each_poll() {
    check(|| {
        let event_loop = new_loop();
        let _guard = event_loop.keep_alive();
        let signal = Signal::default();
        let called = signal.clone();
        let setter = spawn(&event_loop, move |event_loop| {
            event_loop.post(|| ());
            event_loop.set_wakeup(move || called.set()).unwrap();
            event_loop.post(|| ());
        });
        host(&event_loop, &signal, 2);
        setter.join().unwrap();
    });
}

#[test]
fn the_wakeup_thread_that_is_set_beside_a_poll_knows_its_timers() {
    check(|| {
        let event_loop = new_loop();
        let inside = event_loop.clone();
        event_loop.post(move || drop(inside.set_timer_then(SOON, |result| result.unwrap())));
        let signal = Signal::default();
        let called = signal.clone();
        let setter = spawn(&event_loop, move |event_loop| {
            event_loop.set_wakeup(move || called.set()).unwrap();
        });
        let ran = event_loop.poll();
        host(&event_loop, &signal, 2 - ran);
        setter.join().unwrap();
    });
}

/// Large; the smaller model is [`the_wakeup_thread_that_is_set_beside_a_poll_knows_its_timers`].
#[test]
fn the_wakeup_thread_knows_the_timer_of_the_other_of_two_polls() {
    check_large(|| {
        let event_loop = new_loop();
        let _guard = event_loop.keep_alive();
        let signal = set_signal(&event_loop);
        let inside = event_loop.clone();
        let other = spawn(&event_loop, |event_loop| {
            event_loop.post(move || drop(inside.set_timer_then(SOON, |result| result.unwrap())));
            event_loop.poll()
        });
        let ran = event_loop.poll() + other.join().unwrap();
        host(&event_loop, &signal, 2 - ran);
    });
}

/// Large; the smaller model is [`the_wakeup_thread_leaves_the_sockets_to_a_runner`].
#[test]
fn the_wakeup_thread_leaves_the_sockets_to_a_runner_that_came_as_a_poll_ended() {
    check_large(|| {
        let event_loop = new_loop();
        let guard = event_loop.keep_alive();
        event_loop.set_wakeup(|| ()).unwrap();
        let inside = event_loop.clone();
        let other = spawn(&event_loop, |event_loop| {
            event_loop.post(move || {
                inside.set_timer_then(SOON, |result| result.unwrap());
                drop(guard);
            });
            event_loop.run()
        });
        assert_eq!(event_loop.poll() + other.join().unwrap(), 2);
    });
}

/// Large; the smaller model is [`the_wakeup_thread_calls_the_host_for_what_is_posted`].
#[test]
fn the_wakeup_thread_calls_the_host_for_what_is_posted_after_a_reset() {
    check_large(|| {
        let event_loop = new_loop();
        let _guard = event_loop.keep_alive();
        let signal = set_signal(&event_loop);
        event_loop.stop();
        let other = spawn(&event_loop, |event_loop| {
            event_loop.reset().unwrap();
            event_loop.post(|| ());
        });
        let ran = event_loop.poll(); // of a loop that is stopped, or was reset
        host(&event_loop, &signal, 1 - ran);
        other.join().unwrap();
    });
}

#[test]
fn the_wakeup_thread_calls_the_host_when_work_runs_out() {
    check(|| {
        let event_loop = new_loop();
        let guard = event_loop.keep_alive();
        let signal = set_signal(&event_loop);
        let other = thread::spawn(move || drop(guard));
        event_loop.poll();
        host_to_the_end(&event_loop, &signal);
        other.join().unwrap();
    });
}

#[test]
fn the_wakeup_thread_calls_the_host_when_another_runner_has_stopped_the_loop() {
    check(|| {
        let event_loop = new_loop();
        let _guard = event_loop.keep_alive();
        let signal = set_signal(&event_loop);
        let inside = event_loop.clone();
        let other = spawn(&event_loop, |event_loop| {
            event_loop.post(move || inside.stop());
            event_loop.poll();
        });
        host_to_the_end(&event_loop, &signal);
        other.join().unwrap();
    });
}

#[test]
fn the_wakeup_thread_calls_once_though_a_loop_is_reset_that_is_not_stopped() {
    check(|| {
        let event_loop = new_loop();
        let _guard = event_loop.keep_alive();
        let called = Called::default();
        called.set(&event_loop);
        event_loop.post(|| ());
        event_loop.reset().unwrap();
        thread::yield_now();
        called.poll(&event_loop);
    });
}

#[test]
fn a_wakeup_thread_that_ends_keeps_nothing_from_a_host_that_watches_the_descriptor() {
    check(|| {
        let event_loop = new_loop();
        let (_guard, handle) = (event_loop.keep_alive(), event_loop.handle());
        event_loop.set_wakeup(|| ()).unwrap();
        event_loop.clear_wakeup();
        let poster = thread::spawn(move || handle.post(|| ()).unwrap());
        let mut ran = 0;
        while ran < 1 {
            reactor(&event_loop).await_readable(event_loop.next_timeout());
            ran += event_loop.poll();
            thread::yield_now(); // to the wake-up thread, which has consumed the wake-up
        }
        poster.join().unwrap();
    });
}

#[test]
fn a_call_of_the_wakeup_thread_may_set_another() {
    check(|| {
        let event_loop = new_loop();
        let (_guard, handle) = (event_loop.keep_alive(), event_loop.handle());
        let signal = Signal::default();
        let (called, again) = (signal.clone(), event_loop.clone());
        let set = move || {
            let called = called.clone();
            again.set_wakeup(move || called.set()).unwrap();
        };
        event_loop.set_wakeup(set).unwrap();
        handle.post(|| ()).unwrap();
        signal.take();
        assert_eq!(event_loop.poll(), 1);
        event_loop.clear_wakeup();
    });
}

#[test]
fn a_call_of_the_wakeup_thread_may_end_it() {
    check(|| {
        let event_loop = new_loop();
        let guard = event_loop.keep_alive();
        let again = event_loop.clone();
        event_loop.set_wakeup(move || again.clear_wakeup()).unwrap();
        let other = thread::spawn(move || drop(guard));
        event_loop.post(|| ());
        event_loop.run();
        other.join().unwrap();
    });
}

#[test]
fn a_loop_ends_beside_its_wakeup_thread() {
    check(|| {
        let event_loop = new_loop();
        let handle = event_loop.handle();
        event_loop.set_wakeup(|| ()).unwrap();
        let other = thread::spawn(move || _ = handle.post(|| ()));
        drop(event_loop);
        other.join().unwrap();
    });
}

#[test]
fn the_wakeup_thread_that_a_job_sets_calls_when_the_poll_has_returned() {
    check(|| {
        let event_loop = new_loop();
        let (called, inside) = (Count::default(), event_loop.clone());
        let (calls, signal) = (called.clone(), Signal::default());
        let set = signal.clone();
        event_loop.post(move || {
            let wake = move || {
                called.add();
                set.set();
            };
            inside.set_wakeup(wake).unwrap();
            inside.post(|| ()); // the next poll's
            thread::yield_now();
            assert_eq!(calls.get(), 0);
        });
        assert_eq!(event_loop.poll_one(), 1);
        signal.take();
        assert_eq!(event_loop.poll(), 1);
    });
}

/// Large; the smaller model is [`the_wakeup_thread_calls_the_host_when_another_runner_has_stopped_the_loop`].
#[test]
fn the_wakeup_thread_calls_the_host_when_the_first_of_two_polls_has_stopped_the_loop() {
    check_large(|| {
        let event_loop = new_loop();
        let _guard = event_loop.keep_alive();
        let signal = set_signal(&event_loop);
        let inside = event_loop.clone();
        let other = spawn(&event_loop, |event_loop| {
            event_loop.post(move || inside.stop());
            event_loop.poll();
            event_loop.poll();
        });
        host_to_the_end(&event_loop, &signal);
        other.join().unwrap();
    });
}
