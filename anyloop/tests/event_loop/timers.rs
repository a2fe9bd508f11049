//! The program's timers.

use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyloop::event_loop::{Aborted, LoopHandle, Timer, WatchMode};
use anyloop::prelude::*;
use anyloop_testkit::wait::{ThreadProbe, let_time_pass};
use anyloop_testkit::watchdog::within_time;

use crate::harness::{Count, FAR, Log, drive};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Sets a timer that logs its name, or that it was cancelled.
fn set(event_loop: &EventLoop, log: &Log, delay: Duration, name: impl Into<String>) -> Timer {
    let (it, name) = (log.clone(), name.into());
    event_loop.set_timer_then(delay, move |result| match result {
        Ok(()) => it.add(name),
        Err(Aborted) => it.add(format!("{name} aborted")),
    })
}

#[test]
fn timers_fire_in_the_order_in_which_they_are_due() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        for delay in [30, 10, 20, 0, 15] {
            set(&event_loop, &log, ms(delay), delay.to_string());
        }
        let it = log.clone();
        event_loop.handle().set_timer(ms(25), move || it.add("25")).unwrap();
        // Their order is then that of their deadlines, and not that of the clock readings.
        let_time_pass(ms(40), "all timers become due");
        assert_eq!(event_loop.run(), 6);
        assert_eq!(log.all(), ["0", "10", "15", "20", "25", "30"]);
    });
}

#[test]
fn timers_of_the_same_delay_fire_in_the_order_in_which_they_were_set() {
    within_time(|| {
        for delay in [Duration::ZERO, ms(3)] {
            let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
            for i in 0..200 {
                set(&event_loop, &log, delay, i.to_string());
            }
            assert_eq!(event_loop.run(), 200);
            assert_eq!(log.all(), (0..200).map(|i| i.to_string()).collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_timer_never_fires_early() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let late = Arc::new(Mutex::new(Vec::new()));
        for delay in (0..60).map(|i| Duration::from_micros(i * 333)) {
            let (due, it) = (Instant::now() + delay, late.clone());
            event_loop.set_timer(delay, move || it.lock().unwrap().push(Instant::now() >= due));
        }
        assert_eq!(event_loop.run(), 60);
        assert_eq!(*late.lock().unwrap(), [true; 60]);
    });
}

#[test]
fn far_timers_do_not_fire_and_can_be_as_far_as_can_be() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let timers = [FAR, FAR * 24 * 30, FAR * 24 * 365 * 1000, Duration::MAX]
            .map(|delay| set(&event_loop, &log, delay, "far"));
        assert_eq!(event_loop.run_for(ms(20)), 0);
        assert_eq!((event_loop.poll(), event_loop.poll_one(), log.len()), (0, 0, 0));
        assert!(event_loop.next_timeout().unwrap() > FAR / 2);
        timers.iter().for_each(Timer::cancel);
        assert_eq!(event_loop.run(), 4);
        assert_eq!(log.all(), ["far aborted"; 4]);
    });
}

#[test]
fn a_cancelled_timer_is_reported_once_and_at_once() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let timer = set(&event_loop, &log, FAR, "timer");
        timer.cancel();
        timer.clone().cancel();
        assert_eq!(log.len(), 0); // not inline
        assert_eq!(event_loop.run(), 1);
        assert_eq!(log.all(), ["timer aborted"]);
        timer.cancel();
        event_loop.reset().unwrap();
        assert_eq!(event_loop.run(), 0);

        // The other one that was due before it does not fire a second time.
        event_loop.reset().unwrap();
        let timer = set(&event_loop, &log, ms(5), "soon");
        timer.cancel();
        assert_eq!(event_loop.run(), 1);
        let_time_pass(ms(6), "the cancelled timer would be due");
        event_loop.reset().unwrap();
        let _guard = event_loop.keep_alive();
        assert_eq!(event_loop.poll(), 0);
        assert_eq!(log.all(), ["timer aborted", "soon aborted"]);
    });
}

#[test]
fn to_cancel_a_timer_that_has_fired_does_nothing() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let timer = set(&event_loop, &log, Duration::ZERO, "timer");
        assert_eq!(event_loop.run(), 1);
        timer.cancel();
        event_loop.reset().unwrap();
        assert_eq!(event_loop.run(), 0);
        assert_eq!(log.all(), ["timer"]);
    });
}

#[test]
fn to_cancel_one_timer_leaves_the_others() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let timers: Vec<_> =
            (0..20).map(|i| set(&event_loop, &log, ms(5), i.to_string())).collect();
        timers.iter().step_by(2).for_each(Timer::cancel);
        assert_eq!(event_loop.run(), 20);
        let all = log.all();
        for i in 0..20 {
            let name = if i % 2 == 0 { format!("{i} aborted") } else { i.to_string() };
            assert_eq!(all.iter().filter(|it| **it == name).count(), 1, "{name}");
        }
    });
}

#[test]
fn a_timer_can_be_cancelled_in_a_handler_and_from_another_thread() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let timer = set(&event_loop, &log, FAR, "inside");
        event_loop.set_timer(ms(1), move || timer.cancel());
        assert_eq!(event_loop.run(), 2);
        event_loop.reset().unwrap();
        let timer = set(&event_loop, &log, FAR, "elsewhere");
        let runner = ThreadProbe::current();
        let thread = thread::spawn(move || {
            runner.until_asleep();
            timer.cancel();
        });
        assert_eq!(event_loop.run(), 1); // though it was to wait for an hour
        thread.join().unwrap();
        assert_eq!(log.all(), ["inside aborted", "elsewhere aborted"]);
    });
}

#[test]
fn a_timer_keeps_run_alive_and_its_drop_does_not_cancel_it() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let begun = Instant::now();
        drop(set(&event_loop, &log, ms(30), "timer"));
        assert_eq!(event_loop.run(), 1);
        assert!(begun.elapsed() >= ms(30));
        assert_eq!(log.all(), ["timer"]);
    });
}

#[test]
fn a_timer_without_delay_is_not_called_inline() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        set(&event_loop, &log, Duration::ZERO, "outside");
        assert_eq!(log.len(), 0);
        let (within, it) = (event_loop.clone(), log.clone());
        event_loop.post(move || {
            set(&within, &it, Duration::ZERO, "inside");
            it.add("posted");
        });
        assert_eq!(event_loop.run(), 3);
        assert_eq!(log.count("outside"), 1);
        let all: Vec<_> = log.all().into_iter().filter(|it| it != "outside").collect();
        assert_eq!(all, ["posted", "inside"]);
    });
}

#[test]
fn an_earlier_timer_of_another_thread_wakes_a_run_that_waits_for_a_later_one() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let far = event_loop.set_timer(FAR, || ());
        for by_handle in [false, true] {
            let (sets, handle) = (event_loop.clone(), event_loop.handle());
            let runner = ThreadProbe::current();
            let thread = thread::spawn(move || {
                runner.until_asleep();
                match by_handle {
                    false => sets.set_timer(ms(5), || ()),
                    true => handle.set_timer(ms(5), || ()).unwrap(),
                }
            });
            assert_eq!(event_loop.run_one(), 1);
            thread.join().unwrap();
        }
        far.cancel();
        assert_eq!(event_loop.run(), 0, "the timer is only dropped");
    });
}

#[test]
fn a_timer_may_set_itself_anew() {
    fn tick(ticks: &LoopHandle, count: Count) {
        let next = ticks.clone();
        let timer = ticks.set_timer(ms(2), move || {
            if count.add() < 5 {
                tick(&next, count);
            }
        });
        timer.unwrap();
    }
    within_time(|| {
        let (event_loop, count) = (EventLoop::new().unwrap(), Count::default());
        let begun = Instant::now();
        tick(&event_loop.handle(), count.clone());
        assert_eq!(event_loop.run(), 5);
        assert!(begun.elapsed() >= ms(10));
        assert_eq!(count.get(), 5);
    });
}

#[test]
fn a_timer_set_through_a_handle_can_be_cancelled() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let reported = Arc::new(Mutex::new(None));
        let it = reported.clone();
        let set = move |result| *it.lock().unwrap() = Some(result);
        let timer = event_loop.handle().set_timer_then(FAR, set).unwrap();
        timer.cancel();
        assert_eq!(event_loop.run(), 1);
        assert_eq!(*reported.lock().unwrap(), Some(Err(Aborted)));
    });
}

/// Sets in each way a timer that is not due for long, with something that it owns.
fn set_far(event_loop: &EventLoop, owned: &Arc<()>) -> [Timer; 4] {
    let handle = event_loop.handle();
    [0; 4].map(|_| owned.clone()).map({
        let mut way = 0;
        move |owned| {
            way += 1;
            match way {
                1 => event_loop.set_timer(FAR, move || drop(owned)),
                2 => handle.set_timer(FAR, move || drop(owned)).unwrap(),
                3 => event_loop.every(FAR, move || _ = &owned),
                _ => handle.every(FAR, move || _ = &owned).unwrap(),
            }
        }
    })
}

#[test]
fn a_cancelled_timer_drops_its_function_and_calls_nothing() {
    within_time(|| {
        let (event_loop, owned) = (EventLoop::new().unwrap(), Arc::new(()));
        let timers = set_far(&event_loop, &owned);
        assert_eq!(event_loop.poll(), 0);
        assert_eq!(Arc::strong_count(&owned), 5);
        timers.iter().for_each(Timer::cancel);
        assert_eq!(event_loop.run(), 0);
        assert_eq!(Arc::strong_count(&owned), 1);
    });
}

#[test]
fn a_repeating_timer_is_called_until_it_is_cancelled() {
    within_time(|| {
        let (event_loop, count) = (EventLoop::new().unwrap(), Count::default());
        let begun = Instant::now();
        let (it, timer) = (count.clone(), Arc::new(Mutex::new(None::<Timer>)));
        let own = timer.clone();
        let by_handle = event_loop.handle().every(ms(3), move || {
            if it.add() == 4 {
                own.lock().unwrap().take().unwrap().cancel(); // from within
            }
        });
        *timer.lock().unwrap() = Some(by_handle.unwrap());
        assert_eq!(event_loop.run(), 4);
        assert!(begun.elapsed() >= ms(12));
        assert_eq!(count.get(), 4);
    });
}

#[test]
fn calls_of_a_repeating_timer_that_were_missed_are_skipped() {
    within_time(|| {
        let (event_loop, count) = (EventLoop::new().unwrap(), Count::default());
        let it = count.clone();
        let timer = event_loop.every(ms(10), move || _ = it.add());
        let_time_pass(ms(100), "many calls are missed");
        assert_eq!(event_loop.poll(), 1);
        timer.cancel();
        assert_eq!(event_loop.run(), 0);
        assert_eq!(count.get(), 1);
    });
}

#[test]
fn a_repeating_timer_ends_when_its_function_panics() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        event_loop.every(ms(1), || panic!("deliberate"));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| event_loop.run()));
        assert!(panicked.is_err());
        assert_eq!(event_loop.run(), 0, "it is no work any more");
    });
}

#[test]
fn timers_fire_while_something_is_always_ready() {
    fn again(posts: LoopHandle) {
        let next = posts.clone();
        let _ = posts.post(move || again(next));
    }
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        again(event_loop.handle());
        set(&event_loop, &log, ms(10), "timer");
        drive(&event_loop, "the timer", || log.has("timer"));
        // And within one call.
        let stops = event_loop.handle();
        event_loop.set_timer(ms(10), move || stops.stop().unwrap());
        assert!(event_loop.run() > 1);
    });
}

/// A timer does not wait for many handlers that each take their time.
#[test]
fn handlers_that_take_their_time_hold_up_a_timer_by_a_few_of_them() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(b"a").unwrap();
        let calls = Count::default();
        let count = calls.clone();
        let watch = event_loop.watch(near, WatchMode::Read, move |_, _| {
            count.add();
            let_time_pass(ms(20), "each handler takes its time");
            ControlFlow::Continue(())
        });
        let _watch = watch.unwrap();
        for _ in 0..5 {
            let (before, seen) = (calls.get(), Arc::new(Mutex::new(None)));
            let (its, count, stops) = (seen.clone(), calls.clone(), event_loop.handle());
            event_loop.set_timer(ms(10), move || {
                *its.lock().unwrap() = Some(count.get());
                stops.stop().unwrap();
            });
            event_loop.run(); // one call: each begins with a look at the clock
            event_loop.reset().unwrap();
            let after = seen.lock().unwrap().unwrap();
            assert!(after - before <= 4, "the timer came after {} calls", after - before);
        }
    });
}
