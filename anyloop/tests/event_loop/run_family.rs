//! What the run calls do and return: design §4, the table.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyloop::event_loop::Running;
use anyloop::net::{Client, Server};
use anyloop::prelude::*;
use anyloop_testkit::wait::{ThreadProbe, let_time_pass};
use anyloop_testkit::watchdog::within_time;

use crate::fixture::{Fixture, client, client_config, server_config};
use crate::harness::{Count, FAR, Log};

type Call = fn(&EventLoop) -> usize;

/// Every call of the family, which may wait where the loop lets it.
const ALL: [(&str, Call); 7] = [
    ("run", EventLoop::run),
    ("run_one", EventLoop::run_one),
    ("run_for", |event_loop| event_loop.run_for(FAR)),
    ("run_until", |event_loop| event_loop.run_until(Instant::now() + FAR)),
    ("poll", EventLoop::poll),
    ("poll_one", EventLoop::poll_one),
    ("poll_budget", |event_loop| event_loop.poll_budget(10, None)),
];

#[test]
fn without_work_every_call_returns_0_at_once_and_latches_stopped() {
    within_time(|| {
        for (name, call) in ALL {
            let event_loop = EventLoop::new().unwrap();
            assert!(!event_loop.stopped(), "{name}");
            assert_eq!(call(&event_loop), 0, "{name}");
            assert!(event_loop.stopped(), "{name}");
        }
    });
}

#[test]
fn while_stopped_every_call_returns_0_and_runs_nothing() {
    within_time(|| {
        for (name, call) in ALL {
            let (event_loop, ran) = (EventLoop::new().unwrap(), Count::default());
            let it = ran.clone();
            event_loop.post(move || _ = it.add());
            event_loop.stop();
            assert!(event_loop.stopped());
            assert_eq!((call(&event_loop), ran.get()), (0, 0), "{name}");
            assert!(event_loop.stopped(), "{name}");
            event_loop.reset().unwrap();
            assert_eq!((call(&event_loop), ran.get()), (1, 1), "{name}");
        }
    });
}

#[test]
fn running_out_of_work_latches_stopped_until_reset() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        event_loop.post(|| ());
        assert_eq!(event_loop.run(), 1);
        assert!(event_loop.stopped());
        event_loop.post(|| ());
        assert_eq!(event_loop.run(), 0);
        event_loop.reset().unwrap();
        assert!(!event_loop.stopped());
        assert_eq!(event_loop.run(), 1);
    });
}

#[test]
fn run_one_waits_for_one_handler_and_runs_no_second() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let begun = Instant::now();
        for (delay, name) in [(20, "first"), (21, "second")] {
            let it = log.clone();
            event_loop.set_timer(Duration::from_millis(delay), move || it.add(name));
        }
        let_time_pass(Duration::from_millis(5), "a part of the delay is over before the call");
        assert_eq!(event_loop.run_one(), 1);
        assert!(begun.elapsed() >= Duration::from_millis(20));
        assert_eq!(log.all(), ["first"]);
        assert!(!event_loop.stopped());
        assert_eq!(event_loop.run_one(), 1);
        assert_eq!(log.all(), ["first", "second"]);
        assert_eq!(event_loop.run_one(), 0);
        assert!(event_loop.stopped());
    });
}

#[test]
fn run_one_returns_0_when_stopped_or_out_of_work_while_it_waits() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let guard = event_loop.keep_alive();
        let stops = event_loop.handle();
        let runner = ThreadProbe::current();
        let thread = thread::spawn(move || {
            runner.until_asleep();
            stops.stop().unwrap();
        });
        assert_eq!(event_loop.run_one(), 0);
        thread.join().unwrap();
        event_loop.reset().unwrap();
        let runner = ThreadProbe::current();
        let thread = thread::spawn(move || {
            runner.until_asleep();
            drop(guard);
        });
        assert_eq!(event_loop.run_one(), 0);
        thread.join().unwrap();
    });
}

#[test]
fn run_for_and_run_until_wait_so_long_and_no_longer() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let _guard = event_loop.keep_alive();
        event_loop.set_timer(FAR, || unreachable!());
        let time = Duration::from_millis(30);
        let begun = Instant::now();
        assert_eq!(event_loop.run_for(time), 0);
        assert!(begun.elapsed() >= time);
        let begun = Instant::now();
        assert_eq!(event_loop.run_until(begun + time), 0);
        assert!(begun.elapsed() >= time);
        assert_eq!(event_loop.run_for(Duration::ZERO), 0);
        assert_eq!(event_loop.run_until(begun), 0);
        assert!(!event_loop.stopped());
    });
}

#[test]
fn run_for_runs_all_that_comes_in_its_time_and_returns_early_without_work() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        for delay in [0, 5, 10] {
            event_loop.set_timer(Duration::from_millis(delay), || ());
        }
        assert_eq!(event_loop.run_for(FAR), 3);
        assert!(event_loop.stopped());
        event_loop.reset().unwrap();
        event_loop.set_timer(Duration::ZERO, || ());
        assert_eq!(event_loop.run_for(Duration::MAX), 1); // no overflow
    });
}

#[test]
fn poll_does_not_wait_and_is_not_out_of_work() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        event_loop.set_timer(FAR, || ());
        assert_eq!((event_loop.poll(), event_loop.poll_one()), (0, 0));
        assert_eq!(event_loop.poll_budget(5, None), 0);
        assert!(!event_loop.stopped());
    });
}

#[test]
fn poll_runs_also_what_its_handlers_post() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let posts = event_loop.handle();
        event_loop.post(move || {
            let again = posts.clone();
            posts.post(move || again.post(|| ()).unwrap()).unwrap();
        });
        assert_eq!(event_loop.poll(), 3);
        assert!(event_loop.stopped());
    });
}

#[test]
fn poll_one_runs_one() {
    within_time(|| {
        let (event_loop, ran) = (EventLoop::new().unwrap(), Count::default());
        for _ in 0..3 {
            let it = ran.clone();
            event_loop.post(move || _ = it.add());
        }
        for already in 0..3 {
            assert_eq!(ran.get(), already);
            assert_eq!(event_loop.poll_one(), 1);
        }
        assert!(event_loop.stopped()); // the last handler was all the work
        assert_eq!((event_loop.poll_one(), ran.get()), (0, 3));
    });
}

#[test]
fn poll_budget_keeps_to_its_number_of_handlers() {
    within_time(|| {
        let (event_loop, ran) = (EventLoop::new().unwrap(), Count::default());
        for _ in 0..10 {
            let it = ran.clone();
            event_loop.post(move || _ = it.add());
        }
        assert_eq!((event_loop.poll_budget(0, None), ran.get()), (0, 0));
        assert_eq!((event_loop.poll_budget(3, None), ran.get()), (3, 3));
        assert_eq!((event_loop.poll_budget(u64::MAX, None), ran.get()), (7, 10));
    });
}

#[test]
fn poll_budget_begins_no_handler_when_its_time_is_up() {
    /// Posts itself for ever.
    fn again(posts: anyloop::event_loop::LoopHandle, ran: Count) {
        ran.add();
        let next = (posts.clone(), ran);
        let _ = posts.post(move || again(next.0, next.1));
    }
    within_time(|| {
        let (event_loop, ran) = (EventLoop::new().unwrap(), Count::default());
        let first = (event_loop.handle(), ran.clone());
        event_loop.post(move || again(first.0, first.1));
        let now = Instant::now();
        assert_eq!((event_loop.poll_budget(u64::MAX, Some(now)), ran.get()), (0, 0));

        // On a busy machine the time may be up before anything has begun.
        let mut called = 0;
        while called == 0 {
            let until = Instant::now() + Duration::from_millis(50);
            called = event_loop.poll_budget(u64::MAX, Some(until)); // and it returns
            assert!(Instant::now() >= until);
            assert_eq!(called, ran.get());
        }
    });
}

#[test]
fn a_handler_that_takes_longer_than_the_budget_is_the_last() {
    within_time(|| {
        let (event_loop, ends) = (EventLoop::new().unwrap(), Arc::new(Mutex::new(Instant::now())));
        for _ in 0..2 {
            let end = ends.clone();
            event_loop.post(move || {
                let end = *end.lock().unwrap();
                let after = end + Duration::from_millis(1);
                let left = after.saturating_duration_since(Instant::now());
                let_time_pass(left, "the handler takes longer than the budget");
            });
        }
        for _ in 0..2 {
            let mut called = 0;
            while called == 0 {
                let until = Instant::now() + Duration::from_millis(50);
                *ends.lock().unwrap() = until;
                called = event_loop.poll_budget(u64::MAX, Some(until));
            }
            assert_eq!(called, 1);
        }
    });
}

#[test]
fn reset_is_an_error_while_a_thread_is_inside() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let inside = event_loop.clone();
        event_loop.post(move || {
            assert_eq!(inside.reset(), Err(Running));
            inside.stop();
            assert_eq!(inside.reset(), Err(Running)); // it has not left yet
        });
        assert_eq!(event_loop.run(), 1);
        event_loop.reset().unwrap();

        let guard = event_loop.keep_alive();
        let (entered, has_entered) = mpsc::channel();
        event_loop.post(move || entered.send(()).unwrap());
        let runs = event_loop.clone();
        let thread = thread::spawn(move || runs.run());
        has_entered.recv().unwrap();
        assert_eq!(event_loop.reset(), Err(Running));
        drop(guard);
        assert_eq!(thread.join().unwrap(), 1);
        assert_eq!(event_loop.reset(), Ok(()));
    });
}

#[test]
fn reset_of_a_loop_that_is_not_stopped_does_nothing() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        event_loop.post(|| ());
        event_loop.reset().unwrap();
        assert_eq!(event_loop.run(), 1);
    });
}

#[test]
fn clones_are_the_same_loop() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let clone = event_loop.clone();
        clone.post(|| ());
        assert_eq!(event_loop.run(), 1);
        assert!(clone.stopped());
        clone.reset().unwrap();
        assert!(!event_loop.stopped());
    });
}

#[test]
fn endpoints_forward_to_the_loop_that_they_share() {
    within_time(|| {
        let fixture = Fixture::new();
        let client = client(&fixture.event_loop, &Log::default());
        let Fixture { event_loop, server, .. } = &fixture;
        let post = |n: usize| (0..n).for_each(|_| event_loop.post(|| ()));
        post(8);
        assert_eq!(server.run_one(), 1);
        assert_eq!(client.run_one(), 1);
        assert_eq!(server.poll_one(), 1);
        assert_eq!(client.poll_one(), 1);
        assert_eq!(server.poll_budget(1, None), 1);
        assert_eq!(client.poll_budget(1, None), 1);
        assert_eq!(server.poll(), 2);
        post(2);
        assert_eq!(client.poll(), 2);
        post(2);
        assert_eq!(server.run_for(Duration::from_millis(1)), 2);
        post(2);
        assert_eq!(client.run_for(Duration::from_millis(1)), 2);

        client.stop();
        assert!(server.stopped() && client.stopped() && event_loop.stopped());
        assert_eq!((server.run(), client.run()), (0, 0));
        server.reset().unwrap();
        assert!(!client.stopped() && !event_loop.stopped());
        server.stop();
        client.reset().unwrap();
        assert!(!event_loop.stopped());
        server.stop_listening();
        post(1);
        assert_eq!(client.run(), 1);
    });
}

#[test]
fn an_endpoint_makes_a_loop_of_its_own_unless_it_is_given_one() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let given = Client::on(&event_loop, client_config());
        let owns = Client::new(client_config()).unwrap();
        let too = Server::with_factory(server_config(), Handlers::new()).unwrap();
        given.event_loop().post(|| ());
        owns.event_loop().post(|| ());
        too.event_loop().post(|| ());
        assert_eq!(owns.run(), 1);
        assert!(owns.stopped() && !too.stopped() && !event_loop.stopped());
        assert_eq!(too.run(), 1);
        assert!(too.stopped() && !event_loop.stopped());
        assert_eq!(event_loop.run(), 1);
        assert!(given.stopped());
    });
}

#[test]
fn what_is_begun_in_a_stopped_loop_goes_on_after_the_reset() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        event_loop.stop();
        let fixture = Fixture::of(&event_loop, server_config(), |_, _| ());
        let client = client(&event_loop, &log);
        client.connect(format!("ws://{}/", fixture.address).as_str()).unwrap();
        assert_eq!((event_loop.run(), event_loop.poll()), (0, 0));
        assert_eq!(log.len() + fixture.log.len(), 0);
        event_loop.reset().unwrap();
        fixture.drive("both ends", || log.has("open") && fixture.log.has("open"));
    });
}
