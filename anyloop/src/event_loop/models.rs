//! The loop under loom: each model is run under every schedule of its threads, with so many preemptions
//! at most. A thread that nobody wakes, or that never ends, is found as a deadlock.
//!
//! `tests/loom` runs them.

use std::io;
use std::sync::atomic::AtomicUsize as Plain;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::thread;

use super::reactor::Doorbell;
use super::source::{Events, Next, Source, Token, Turn};
use super::{EventLoop, Threads};
use crate::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use crate::sync::{Condvar, Mutex};

/// Never comes.
const FAR: Duration = Duration::from_secs(3600);

/// Comes as soon as somebody waits for it.
const SOON: Duration = Duration::from_millis(1);

/// Runs a model under every schedule with at most so many preemptions.
pub(crate) fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let runs = Arc::new(Plain::new(0));
    let counted = runs.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 5_000;
    let begun = std::time::Instant::now();
    builder.check(move || {
        counted.fetch_add(1, SeqCst);
        model();
    });
    let (runs, time) = (runs.load(SeqCst), begun.elapsed());
    println!("{runs} schedules with up to {preemptions} preemptions in {time:.1?}");
}

/// Something that can be waited for.
#[derive(Clone, Default)]
struct Signal(Arc<(Mutex<bool>, Condvar)>);

impl Signal {
    fn set(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits until it is set, and takes it back.
    fn take(&self) {
        let mut set = self.0.0.lock().unwrap();
        while !*set {
            set = self.0.1.wait(set).unwrap_or_else(PoisonError::into_inner);
        }
        *set = false;
    }
}

/// Counts.
#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    /// One more; returns how many there are.
    fn add(&self) -> usize {
        self.0.fetch_add(1, SeqCst) + 1
    }

    fn get(&self) -> usize {
        self.0.load(SeqCst)
    }
}

fn new_loop() -> EventLoop {
    EventLoop::new().unwrap()
}

fn spawn<T: 'static>(
    event_loop: &EventLoop,
    f: impl FnOnce(EventLoop) -> T + 'static,
) -> thread::JoinHandle<T> {
    let event_loop = event_loop.clone();
    thread::spawn(move || f(event_loop))
}

fn doorbell(event_loop: &EventLoop) -> Doorbell {
    event_loop.engine.remote().doorbell().clone()
}

/// A source made of a function.
struct Served<F> {
    /// Loom reports two threads in it.
    alone: UnsafeCell<()>,
    f: F,
}

impl<F: FnMut(&mut Turn<'_, Threads>) -> Next<Threads>> Source<Threads> for Served<F> {
    fn run(&mut self, turn: &mut Turn<'_, Threads>) -> Next<Threads> {
        self.alone.with_mut(|_| (self.f)(turn))
    }
}

fn insert(
    event_loop: &EventLoop,
    f: impl FnMut(&mut Turn<'_, Threads>) -> Next<Threads> + Send + 'static,
) -> Token {
    let make = |_| Ok::<_, io::Error>(Box::new(Served { alone: UnsafeCell::new(()), f }) as _);
    event_loop.engine.insert(make).unwrap()
}

// What comes from elsewhere.

#[test]
fn a_runner_runs_what_is_posted_and_sees_that_there_is_no_more_work() {
    check(3, || {
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
    check(3, || {
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
    check(2, || {
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
    check(3, || {
        let event_loop = new_loop();
        let handle = event_loop.handle();
        let held = Arc::new(());
        let (first, second) = (held.clone(), held.clone());
        let poster = thread::spawn(move || {
            let posted = handle.post(move || drop(first));
            let again = handle.post(move || drop(second));
            assert!(posted.is_ok() || again.is_err());
        });
        drop(event_loop);
        poster.join().unwrap();
        assert_eq!(Arc::strong_count(&held), 1);
    });
}

// Strands.

#[test]
fn a_source_that_is_woken_twice_runs_alone_and_sees_the_last() {
    check(2, || {
        let event_loop = new_loop();
        let asked = Count::default();
        let seen = asked.clone();
        let token = insert(&event_loop, move |_| match seen.get() {
            2 => Next::Done,
            _ => Next::Wait,
        });
        let other = spawn(&event_loop, |event_loop| event_loop.run());
        let remote = event_loop.engine.remote().clone();
        let waker = thread::spawn(move || {
            for _ in 0..2 {
                asked.add();
                remote.wake(token);
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
    check(2, || {
        let event_loop = new_loop();
        let mut seen = Events::NONE;
        let token = insert(&event_loop, move |turn| {
            seen |= turn.events;
            match seen.contains(Events::READABLE | Events::WRITABLE) {
                true => Next::Done,
                false => Next::Wait,
            }
        });
        let other = spawn(&event_loop, |event_loop| event_loop.run());
        let sockets = doorbell(&event_loop);
        let socket = thread::spawn(move || {
            sockets.report(token, Events::READABLE);
            sockets.report(token, Events::WRITABLE);
        });
        event_loop.run();
        other.join().unwrap();
        socket.join().unwrap();
    });
}

#[test]
fn an_edge_that_is_kept_comes_again() {
    check(2, || {
        let event_loop = new_loop();
        let asked = Count::default();
        let seen = asked.clone();
        let token = insert(&event_loop, move |turn| {
            if seen.get() > 0 && turn.events.contains(Events::READABLE) {
                return Next::Done;
            }
            turn.kept = turn.events.only(Events::READABLE); // paused
            Next::Wait
        });
        let other = spawn(&event_loop, |event_loop| event_loop.run());
        let (sockets, remote) = (doorbell(&event_loop), event_loop.engine.remote().clone());
        let socket = thread::spawn(move || {
            sockets.report(token, Events::READABLE);
            asked.add();
            remote.wake(token);
        });
        event_loop.run();
        other.join().unwrap();
        socket.join().unwrap();
    });
}

#[test]
fn a_token_of_a_source_that_is_over_wakes_nobody() {
    check(2, || {
        let event_loop = new_loop();
        let mut turns = 0;
        let token = insert(&event_loop, move |_| {
            turns += 1;
            assert_eq!(turns, 1);
            Next::Done
        });
        let remote = event_loop.engine.remote().clone();
        let waker = thread::spawn(move || remote.wake(token));
        let other = spawn(&event_loop, |event_loop| {
            // In the same slot, or in another.
            insert(&event_loop, |turn| {
                assert_eq!(turn.events, Events::NONE);
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
fn who_goes_on_later_does_when_somebody_sleeps() {
    check(2, || {
        let event_loop = new_loop();
        let mut turns = 0;
        insert(&event_loop, move |_| {
            turns += 1;
            match turns {
                1 => Next::Later,
                _ => Next::Done,
            }
        });
        let other = spawn(&event_loop, |event_loop| event_loop.run());
        event_loop.run();
        other.join().unwrap();
    });
}

// Leader and followers.

#[test]
fn a_job_may_wait_for_another_that_is_ready() {
    check(3, || {
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

#[test]
fn a_job_may_wait_for_another_that_comes_later() {
    check(2, || {
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
    check(2, || {
        let event_loop = new_loop();
        let ran = Signal::default();
        let awaited = ran.clone();
        let token = insert(&event_loop, move |turn| {
            if !turn.events.contains(Events::READABLE) {
                return Next::Wait;
            }
            ran.set();
            Next::Done
        });
        event_loop.post(move || awaited.take());
        let other = spawn(&event_loop, |event_loop| event_loop.run());
        let sockets = doorbell(&event_loop);
        let socket = thread::spawn(move || sockets.report(token, Events::READABLE));
        let ran = event_loop.run() + other.join().unwrap();
        assert_eq!(ran, 1);
        socket.join().unwrap();
    });
}

#[test]
fn who_leaves_with_jobs_left_has_another_run_them() {
    check(3, || {
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
fn who_leaves_leaves_the_leaders_place_to_another() {
    check(2, || {
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
fn a_panic_leaves_the_rest_to_another() {
    check(2, || {
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
    check(2, || {
        let event_loop = new_loop();
        let inside = event_loop.handle();
        let nested = event_loop.clone();
        event_loop.post(move || {
            inside.post(|| ()).unwrap();
            nested.poll();
        });
        let other = spawn(&event_loop, |event_loop| event_loop.run());
        event_loop.run();
        other.join().unwrap();
        assert!(event_loop.stopped());
        assert_eq!(event_loop.engine.lock().ring.len(), 0);
    });
}

// The end.

#[test]
fn the_last_work_ends_all_runners() {
    check(3, || {
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
    check(3, || {
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
    check(3, || {
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
    check(2, || {
        let event_loop = new_loop();
        let handle = event_loop.handle();
        let poster = thread::spawn(move || handle.post(|| ()).unwrap());
        event_loop.stop();
        assert_eq!(event_loop.poll(), 0);
        event_loop.reset().unwrap();
        doorbell(&event_loop).await_readable(None); // as the host does
        assert_eq!(event_loop.poll(), 1);
        poster.join().unwrap();
    });
}

#[test]
fn reset_beside_a_runner_is_refused_or_has_no_say() {
    check(3, || {
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

// Inside another loop.

/// Does what a host does that watches the descriptor, until `ran` functions ran. Returns how often it
/// was woken.
fn host(event_loop: &EventLoop, ran: usize, poll: impl Fn() -> usize) -> usize {
    let (mut done, mut woken) = (0, 0);
    while done < ran {
        doorbell(event_loop).await_readable(event_loop.next_timeout());
        done += poll();
        woken += 1;
    }
    assert_eq!(done, ran);
    woken
}

#[test]
fn a_host_is_woken_as_long_as_something_is_ready() {
    check(3, || {
        let event_loop = new_loop();
        let (_guard, handle) = (event_loop.keep_alive(), event_loop.handle());
        let poster = thread::spawn(move || {
            handle.post(|| ()).unwrap();
            handle.post(|| ()).unwrap();
        });
        let woken = host(&event_loop, 2, || event_loop.poll_one());
        poster.join().unwrap();
        assert!(woken <= 4, "{woken}");
        assert_eq!(event_loop.poll(), 0);
        assert!(!doorbell(&event_loop).is_readable());
    });
}

#[test]
fn a_host_is_woken_once_for_what_it_has_not_looked_at() {
    check(3, || {
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
    check(3, || {
        let event_loop = new_loop();
        event_loop.set_timer(FAR, |_| unreachable!());
        let setter = spawn(&event_loop, |event_loop| {
            event_loop.handle().set_timer(SOON, |result| result.unwrap()).unwrap();
            event_loop.set_timer(SOON, |result| result.unwrap());
        });
        host(&event_loop, 2, || event_loop.poll_one());
        setter.join().unwrap();
    });
}

#[test]
fn a_host_is_woken_for_what_another_runner_leaves() {
    check(2, || {
        let event_loop = new_loop();
        let ran = Count::default();
        for _ in 0..2 {
            let ran = ran.clone();
            event_loop.post(move || {
                ran.add();
            });
        }
        let other = spawn(&event_loop, |event_loop| event_loop.poll_one());
        event_loop.poll_one();
        other.join().unwrap();
        while ran.get() < 2 {
            doorbell(&event_loop).await_readable(None);
            event_loop.poll_one();
        }
    });
}

// Timers and deadlines.

#[test]
fn an_earlier_timer_wakes_the_leader() {
    check(3, || {
        let event_loop = new_loop();
        event_loop.set_timer(FAR, |_| unreachable!());
        let inside = event_loop.clone();
        event_loop.post(move || {
            let handle = inside.handle();
            inside.set_timer(SOON, move |_| handle.stop().unwrap());
        });
        let other = spawn(&event_loop, |event_loop| event_loop.run());
        let ran = event_loop.run() + other.join().unwrap();
        assert_eq!(ran, 2);
    });
}

#[test]
fn an_earlier_deadline_wakes_the_leader() {
    check(3, || {
        let event_loop = new_loop();
        event_loop.set_timer(FAR, |_| unreachable!());
        let handle = event_loop.handle();
        insert(&event_loop, move |turn| match turn.events.contains(Events::DEADLINE) {
            true => {
                handle.stop().unwrap();
                Next::Done
            }
            false => {
                turn.deadline = Some(turn.now + SOON);
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
    check(3, || {
        let event_loop = new_loop();
        let called = Count::default();
        let counted = called.clone();
        let timer = event_loop.set_timer(SOON, move |_| assert_eq!(counted.add(), 1));
        let canceller = thread::spawn(move || timer.cancel());
        assert_eq!(event_loop.run(), 1);
        canceller.join().unwrap();
        assert_eq!(called.get(), 1);
    });
}

// The alarm.

/// A host that cannot watch a descriptor.
#[derive(Clone, Default)]
struct Called {
    signal: Signal,
    /// Calls that no run call has followed.
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

    /// Waits for a call, and does what it asks for.
    fn poll(&self, event_loop: &EventLoop) -> usize {
        self.signal.take();
        self.open.0.fetch_sub(1, SeqCst);
        event_loop.poll()
    }
}

#[test]
fn the_alarm_calls_the_host_for_what_is_posted() {
    check(2, || {
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
fn the_alarm_hands_over_what_it_has_seen() {
    check(2, || {
        let event_loop = new_loop();
        let mut seen = Events::NONE;
        let token = insert(&event_loop, move |turn| {
            seen |= turn.events;
            match seen.contains(Events::READABLE | Events::WRITABLE) {
                true => Next::Done,
                false => Next::Wait,
            }
        });
        let called = Called::default();
        called.set(&event_loop);
        let sockets = doorbell(&event_loop);
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
fn the_alarm_calls_the_host_for_an_earlier_timer() {
    check(2, || {
        let event_loop = new_loop();
        event_loop.set_timer(FAR, |_| unreachable!());
        let called = Called::default();
        called.set(&event_loop);
        let handle = event_loop.handle();
        let setter = thread::spawn(move || {
            handle.set_timer(SOON, |result| result.unwrap()).unwrap();
        });
        while called.poll(&event_loop) == 0 {}
        setter.join().unwrap();
    });
}

#[test]
fn the_alarm_leaves_the_sockets_to_a_runner() {
    check(2, || {
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
fn the_alarm_calls_again_after_a_run_call() {
    check(2, || {
        let event_loop = new_loop();
        let (_guard, handle) = (event_loop.keep_alive(), event_loop.handle());
        let signal = Signal::default();
        let called = signal.clone();
        event_loop.set_wakeup(move || called.set()).unwrap();
        let poster = thread::spawn(move || {
            handle.post(|| ()).unwrap();
            handle.post(|| ()).unwrap();
        });
        let mut ran = event_loop.run_one();
        while ran < 2 {
            signal.take();
            ran += event_loop.poll();
        }
        poster.join().unwrap();
    });
}

#[test]
fn another_alarm_takes_the_place_of_the_first() {
    check(2, || {
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
