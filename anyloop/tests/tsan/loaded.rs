//! Many threads in run calls, and many outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyloop::prelude::*;
use anyloop_testkit::wait::let_time_pass;

use crate::crowd::{Asked, Crowd, take};
use crate::steady::Tally;
use crate::traced::Mutex;
use crate::{Count, Dice, fleeting, leaked, steady, steps, survive, wait};

/// Threads in `run`. Two more call the functions that return early, again and again.
const RUNNERS: usize = 4;

/// Threads outside of run calls.
const OUTSIDERS: usize = 8;

/// Connections that stay open until the test ends.
const TALKERS: usize = 50;

/// Calls `run` until the test is over. While the loop is stopped, another thread resets it.
fn run_until(
    over: &AtomicBool,
    event_loop: &EventLoop,
    run: impl Fn(&EventLoop, &mut Dice) -> usize,
) {
    let mut dice = Dice::new(77);
    while !over.load(Ordering::Relaxed) {
        survive(|| run(event_loop, &mut dice));
        if event_loop.stopped() {
            let_time_pass(Duration::from_micros(100), "another thread resets the loop");
        }
    }
}

/// A random run call that returns early.
fn come_and_go(event_loop: &EventLoop, dice: &mut Dice) -> usize {
    let soon = Duration::from_micros(dice.roll(2000) as u64);
    match dice.roll(6) {
        0 => event_loop.poll(),
        1 => event_loop.poll_one(),
        2 => event_loop.poll_budget(3, None),
        3 => event_loop.run_for(soon),
        4 => event_loop.run_until(std::time::Instant::now() + soon),
        _ => event_loop.run_one(),
    }
}

/// Stops and resets the loop again and again, and sets and clears its wake-up function.
fn disturb(over: &AtomicBool, event_loop: &EventLoop) -> usize {
    let called: &'static Count = leaked();
    let mut rounds = 0;
    while !over.load(Ordering::Relaxed) {
        let_time_pass(Duration::from_millis(5), "the loop runs between two stops");
        match rounds % 4 {
            0 => event_loop.set_wakeup(|| _ = called.add(1)).unwrap(),
            2 => event_loop.clear_wakeup(),
            _ => {}
        }
        event_loop.stop();
        wait("that all have left", || event_loop.reset().is_ok());
        rounds += 1;
    }
    event_loop.clear_wakeup();
    rounds
}

#[test]
fn loaded() {
    let event_loop = EventLoop::new().unwrap();
    let guard = event_loop.keep_alive();
    let asked: &'static Asked = leaked();
    let [served, talked, plain, at_server, at_client]: [&'static Tally; 5] =
        std::array::from_fn(|_| leaked());

    let steady = steady::server(&event_loop, served);
    let plain_server = steady::server(&event_loop, plain);
    let talkers = steady::client(&event_loop, talked);
    let fleeting = fleeting::server(&event_loop, at_server);
    let client = fleeting::client(&event_loop, at_client, fleeting.local_addr().unwrap());

    let over: &'static AtomicBool = leaked();
    let runner = |number| {
        let event_loop = event_loop.clone();
        thread::spawn(move || match number {
            0..RUNNERS => run_until(over, &event_loop, |event_loop, _| event_loop.run()),
            RUNNERS => run_until(over, &event_loop, |event_loop, _| event_loop.run_one()),
            _ => run_until(over, &event_loop, come_and_go),
        })
    };
    let runners: Vec<_> = (0..RUNNERS + 2).map(runner).collect();

    let uri = format!("ws://{}/", steady.local_addr().unwrap());
    let handles = (0..TALKERS).map(|_| talkers.connect(uri.as_str()).unwrap()).collect();
    wait("the connections", || (served.opened.get(), talked.opened.get()) == (TALKERS, TALKERS));

    let crowd = Arc::new(Crowd {
        handle: event_loop.handle(),
        event_loop,
        asked,
        talkers: handles,
        steady,
        plain: plain_server.local_addr().unwrap(),
        fleeting,
        client,
        connections: Mutex::default(),
        timers: Mutex::default(),
        watches: Mutex::default(),
    });
    let quiet: &'static AtomicBool = leaked();
    let disturber = {
        let crowd = crowd.clone();
        thread::spawn(move || disturb(quiet, &crowd.event_loop))
    };
    let outsider = |number| {
        let crowd = crowd.clone();
        thread::spawn(move || crowd.run(&mut Dice::new(number), steps(400)))
    };
    let outsiders: Vec<_> = (0..OUTSIDERS).map(outsider).collect();
    outsiders.into_iter().for_each(|it| it.join().unwrap());
    quiet.store(true, Ordering::Relaxed);
    let disturbances = disturber.join().unwrap();

    let Ok(crowd) = Arc::try_unwrap(crowd) else { panic!("the threads have ended") };
    let mut dice = Dice::new(0);
    while let Some(timer) = take(&crowd.timers, &mut dice) {
        timer.cancel();
    }
    while let Some((watch, _far)) = take(&crowd.watches, &mut dice) {
        watch.cancel();
    }
    let numbers = TALKERS * steps(200);
    wait("the numbers", || (served.numbers.get(), talked.numbers.get()) == (numbers, numbers));
    wait("the replies", || talked.replies.get() == asked.sent.get());
    wait("the news", || talked.pushes.get() == asked.pushed.get());
    wait("the functions on connections", || {
        talked.posted.get() + served.posted.get() == asked.posted.get()
    });
    wait("the timers on connections", || served.ticks.get() == TALKERS);
    for [begun, done] in [&asked.completions, &asked.tasks, &asked.timers, &asked.watches] {
        wait("what was asked for", || begun.get() == done.get());
    }

    let Crowd { event_loop, steady, fleeting, client, talkers: handles, .. } = crowd;
    let asked_to_close = client.close_all(CloseCode::NORMAL, "the end").unwrap();
    let left = client.connections().len(); // others end by themselves, at any time
    assert!(left <= asked_to_close, "{left} are left of {asked_to_close}");
    assert_eq!(talkers.close_all(CloseCode::NORMAL, "the end"), Ok(TALKERS));
    fleeting.shut_down();
    wait("the ends", || talked.closed.get() == TALKERS && served.closed.get() == TALKERS);
    steady.stop_listening();
    plain_server.shut_down();
    drop(guard);
    wait("the end of all work", || event_loop.stopped());
    over.store(true, Ordering::Relaxed);
    runners.into_iter().for_each(|it| it.join().unwrap());

    assert!(handles.iter().all(|handle| handle.send("too late").is_err()));
    drop((steady, plain_server, talkers, fleeting, client, event_loop));
    [served, talked, plain, at_server, at_client].into_iter().for_each(Tally::check_ends);
    println!("stopped {disturbances} times; {asked:?}; {at_server:?}; {at_client:?}; {talked:?}");
}
