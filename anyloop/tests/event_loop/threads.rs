//! Several threads inside `run` at a time, and functions that they run.

use std::sync::{Arc, Barrier, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyloop::event_loop::Running;
use anyloop::prelude::*;
use anyloop_testkit::wait::{PATIENCE, Spawned, eventually, let_time_pass, spawn};
use anyloop_testkit::watchdog::within_time;

use crate::harness::Count;

/// So many threads inside `run`.
fn runners(event_loop: &EventLoop, number: usize) -> Vec<Spawned<usize>> {
    let runner = |_| {
        let runs = event_loop.clone();
        spawn(move || runs.run())
    };
    (0..number).map(runner).collect()
}

/// Waits until the threads have run what is posted, and sleep.
fn await_inside(event_loop: &EventLoop, threads: &[Spawned<usize>]) {
    let (ran, posts) = (Count::default(), threads.len());
    for _ in 0..posts {
        let it = ran.clone();
        event_loop.post(move || _ = it.add());
    }
    eventually("what was posted", || ran.get() == posts);
    threads.iter().for_each(Spawned::until_asleep);
}

/// A meeting of several handlers, which must all be inside at a time.
#[derive(Clone)]
struct Meeting(Arc<(Mutex<usize>, Condvar)>, usize);

impl Meeting {
    fn of(number: usize) -> Self {
        Self(Arc::default(), number)
    }

    /// Waits for the others; returns whether they came.
    fn join(&self) -> bool {
        let (come, all) = &*self.0;
        let mut come = come.lock().unwrap();
        *come += 1;
        all.notify_all();
        let (come, _) = all.wait_timeout_while(come, PATIENCE, |come| *come < self.1).unwrap();
        *come >= self.1
    }
}

#[test]
fn stop_ends_every_run() {
    within_time(|| {
        for threads in [2, 5] {
            let event_loop = EventLoop::new().unwrap();
            let _guard = event_loop.keep_alive();
            let all = runners(&event_loop, threads);
            await_inside(&event_loop, &all);
            event_loop.stop();
            let ran: usize = all.into_iter().map(|it| it.join().unwrap()).sum();
            assert_eq!(ran, threads);
            event_loop.reset().unwrap();
        }
    });
}

#[test]
fn stop_in_a_handler_ends_every_run() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let _guard = event_loop.keep_alive();
        let all = runners(&event_loop, 3);
        await_inside(&event_loop, &all);
        let stops = event_loop.handle();
        event_loop.post(move || stops.stop().unwrap());
        assert_eq!(all.into_iter().map(|it| it.join().unwrap()).sum::<usize>(), 4);
    });
}

#[test]
fn to_run_out_of_work_ends_every_run() {
    within_time(|| {
        for last in ["guard", "handler", "timer"] {
            let event_loop = EventLoop::new().unwrap();
            let guard = event_loop.keep_alive();
            let all = runners(&event_loop, 3);
            await_inside(&event_loop, &all);
            match last {
                "guard" => drop(guard),
                "handler" => event_loop.post(move || drop(guard)),
                _ => _ = event_loop.set_timer(Duration::from_millis(5), move || drop(guard)),
            }
            let ran: usize = all.into_iter().map(|it| it.join().unwrap()).sum();
            assert_eq!(ran, if last == "guard" { 3 } else { 4 }, "{last}");
            assert!(event_loop.stopped());
        }
    });
}

#[test]
fn what_is_posted_from_outside_runs_once_and_is_counted_once() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let guard = event_loop.keep_alive();
        let all = runners(&event_loop, 3);
        let counts: Vec<Count> = (0..3000).map(|_| Count::default()).collect();
        for (i, count) in counts.iter().enumerate() {
            let it = count.clone();
            match i % 3 {
                0 => event_loop.post(move || _ = it.add()),
                1 => event_loop.handle().post(move || _ = it.add()).unwrap(),
                _ => _ = event_loop.set_timer(Duration::ZERO, move || _ = it.add()),
            }
        }
        eventually("all of them", || counts.iter().all(|count| count.get() > 0));
        drop(guard);
        let ran: usize = all.into_iter().map(|it| it.join().unwrap()).sum();
        assert_eq!(ran, 3000);
        assert!(counts.iter().all(|count| count.get() == 1));
    });
}

#[test]
fn a_handler_that_blocks_does_not_keep_the_other_thread_from_what_comes() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let all = runners_of_a_guarded(&event_loop);
        for round in 0..60 {
            // The first goes on when the second has run.
            let ((sender, receiver), (end, ended)) = (mpsc::channel(), mpsc::channel());
            event_loop.post(move || {
                let result = receiver.recv_timeout(PATIENCE);
                end.send(result).unwrap();
            });
            if round % 2 == 0 {
                let_time_pass(Duration::from_millis(1), "the other thread goes to sleep");
            }
            match round % 3 {
                0 => event_loop.post(move || sender.send(()).unwrap()),
                1 => event_loop.handle().post(move || sender.send(()).unwrap()).unwrap(),
                _ => {
                    let f = move || sender.send(()).unwrap();
                    event_loop.set_timer(Duration::from_millis(1), f);
                }
            }
            ended.recv().unwrap().expect("the second runs meanwhile");
        }
        event_loop.stop();
        all.into_iter().for_each(|it| _ = it.join().unwrap());
    });
}

/// Two threads inside `run`, which has a timer to wait for.
fn runners_of_a_guarded(event_loop: &EventLoop) -> Vec<Spawned<usize>> {
    event_loop.set_timer(crate::harness::FAR, || ());
    let all = runners(event_loop, 2);
    await_inside(event_loop, &all);
    all
}

#[test]
fn as_many_handlers_as_threads_run_at_a_time() {
    within_time(|| {
        for threads in [2, 3, 4] {
            let event_loop = EventLoop::new().unwrap();
            let _guard = event_loop.keep_alive();
            let all = runners(&event_loop, threads);
            await_inside(&event_loop, &all);
            for _ in 0..3 {
                let meeting = Meeting::of(threads);
                let (sender, receiver) = mpsc::channel();
                for _ in 0..threads {
                    let (meeting, sender) = (meeting.clone(), sender.clone());
                    event_loop.post(move || sender.send(meeting.join()).unwrap());
                }
                for _ in 0..threads {
                    assert!(receiver.recv().unwrap(), "of {threads} threads one sleeps");
                }
            }
            event_loop.stop();
            all.into_iter().for_each(|it| _ = it.join().unwrap());
        }
    });
}

/// Timers that become due at once are harvested at once.
#[test]
fn as_many_timers_as_threads_run_at_a_time() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let _guard = event_loop.keep_alive();
        let all = runners(&event_loop, 3);
        await_inside(&event_loop, &all);
        let (meeting, (sender, receiver)) = (Meeting::of(3), mpsc::channel());
        for _ in 0..3 {
            let (meeting, sender) = (meeting.clone(), sender.clone());
            let f = move || sender.send(meeting.join()).unwrap();
            event_loop.set_timer(Duration::from_millis(20), f);
        }
        for _ in 0..3 {
            assert!(receiver.recv().unwrap(), "one of the threads sleeps");
        }
        event_loop.stop();
        all.into_iter().for_each(|it| _ = it.join().unwrap());
    });
}

#[test]
fn a_panic_leaves_the_run_call_of_its_thread_alone() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let guard = event_loop.keep_alive();
        let all = runners(&event_loop, 2);
        await_inside(&event_loop, &all);
        event_loop.post(|| panic!("in one thread"));
        eventually("the end of one", || all.iter().any(Spawned::is_finished));
        assert_eq!(all.iter().filter(|it| it.is_finished()).count(), 1);
        assert!(!event_loop.stopped());
        assert_eq!(event_loop.reset(), Err(Running)); // the other is inside
        let (sender, receiver) = mpsc::channel();
        event_loop.post(move || sender.send(()).unwrap());
        receiver.recv_timeout(PATIENCE).unwrap();
        drop(guard);
        let results: Vec<_> = all.into_iter().map(Spawned::join).collect();
        assert_eq!(results.iter().filter(|it| it.is_err()).count(), 1);
        event_loop.reset().unwrap();
    });
}

#[test]
fn reset_is_an_error_until_the_last_thread_has_left() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let _guard = event_loop.keep_alive();
        let (entered, leave) = (Arc::new(Barrier::new(3)), Arc::new(Barrier::new(2)));
        for last in [true, false] {
            let (entered, leave) = (entered.clone(), leave.clone());
            event_loop.post(move || {
                entered.wait();
                if last {
                    leave.wait();
                }
            });
        }
        let all = runners(&event_loop, 2);
        entered.wait();
        event_loop.stop();
        eventually("the end of one", || all.iter().any(Spawned::is_finished));
        assert_eq!(event_loop.reset(), Err(Running));
        leave.wait();
        assert_eq!(all.into_iter().map(|it| it.join().unwrap()).sum::<usize>(), 2);
        assert_eq!(event_loop.reset(), Ok(()));
    });
}

#[test]
fn counts_add_up_whoever_stops_the_loop_and_when() {
    within_time(|| {
        let (event_loop, ran) = (EventLoop::new().unwrap(), Count::default());
        let _guard = event_loop.keep_alive();
        let (is_over, stops) = (Arc::new(Mutex::new(false)), event_loop.handle());
        let over = is_over.clone();
        let thread = thread::spawn(move || {
            while !*over.lock().unwrap() {
                stops.stop().unwrap();
            }
        });
        let (begun, mut called, mut posted) = (Instant::now(), 0, 0);
        while begun.elapsed() < Duration::from_millis(500) {
            for _ in 0..20 {
                let it = ran.clone();
                event_loop.post(move || _ = it.add());
                posted += 1;
            }
            event_loop.reset().unwrap();
            called += event_loop.run();
        }
        *is_over.lock().unwrap() = true;
        thread.join().unwrap();
        event_loop.reset().unwrap();
        called += event_loop.poll();
        assert_eq!(ran.get(), posted);
        assert_eq!(called, posted);
    });
}

#[test]
fn threads_in_run_one_share_what_there_is() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        for _ in 0..300 {
            event_loop.post(|| ());
        }
        let guard = event_loop.keep_alive();
        let runner = |_| {
            let runs = event_loop.clone();
            thread::spawn(move || (0..100).map(|_| runs.run_one()).sum::<usize>())
        };
        let all: Vec<_> = (0..3).map(runner).collect();
        assert_eq!(all.into_iter().map(|it| it.join().unwrap()).sum::<usize>(), 300);
        drop(guard);
        assert_eq!(event_loop.run(), 0);
    });
}

#[test]
fn run_for_ends_in_time_also_where_another_thread_waits_for_events() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let guard = event_loop.keep_alive();
        let all = runners(&event_loop, 1);
        await_inside(&event_loop, &all);
        let (begun, time) = (Instant::now(), Duration::from_millis(30));
        assert_eq!(event_loop.run_for(time), 0);
        assert!(begun.elapsed() >= time);
        assert_eq!((event_loop.poll(), event_loop.poll_one()), (0, 0));
        drop(guard);
        all.into_iter().for_each(|it| _ = it.join().unwrap());
    });
}

#[test]
fn a_thread_that_leaves_hands_the_waiting_to_another() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let guard = event_loop.keep_alive();
        // One waits for events for a while, the other beside it for as long as it takes.
        let short = event_loop.clone();
        let first = spawn(move || short.run_for(Duration::from_millis(50)));
        first.until_asleep();
        let all = runners(&event_loop, 1);
        first.join().unwrap();
        let (sender, receiver) = mpsc::channel();
        event_loop.handle().post(move || sender.send(()).unwrap()).unwrap();
        receiver.recv_timeout(PATIENCE).expect("the other waits for events now");
        drop(guard);
        all.into_iter().for_each(|it| _ = it.join().unwrap());
    });
}

/// A thread that is about to sleep when the loop is stopped, runs out of work, or gets some, does not sleep.
#[test]
fn pitfall_no_wake_up_is_lost_whenever_it_comes() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let (sender, receiver) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let helper = thread::spawn(move || receiver.iter().for_each(|f| f()));
        for round in 0..3000 {
            let guard = event_loop.keep_alive();
            let (handle, connection) = (event_loop.handle(), event_loop.clone());
            let (ends, ran): (Box<dyn FnOnce() + Send>, usize) = match round % 5 {
                0 => (Box::new(move || drop(guard)), 0),
                1 => (Box::new(move || handle.stop().unwrap()), 0),
                2 => (Box::new(move || handle.post(move || drop(guard)).unwrap()), 1),
                3 => (Box::new(move || connection.post(move || drop(guard))), 1),
                _ => {
                    let f = move || drop(guard);
                    (Box::new(move || _ = handle.set_timer(Duration::ZERO, f).unwrap()), 1)
                }
            };
            sender.send(ends).unwrap();
            assert_eq!(event_loop.run(), ran, "in round {round}");
            event_loop.reset().unwrap();
        }
        drop(sender);
        helper.join().unwrap();
    });
}
