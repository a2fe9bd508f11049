//! Functions of the program's own: when they run, and in which order.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyloop::prelude::*;
use anyloop_testkit::wait::{ThreadProbe, eventually};
use anyloop_testkit::watchdog::within_time;

use crate::fixture::{Fixture, server_config};
use crate::harness::{Count, Log, drive, panics};
use crate::wire::text;

#[test]
fn post_never_runs_inline() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let (posts, it) = (event_loop.handle(), log.clone());
        let within = event_loop.clone();
        event_loop.post(move || {
            it.add("outer");
            let inner = it.clone();
            posts.post(move || inner.add("by the handle")).unwrap();
            let inner = it.clone();
            within.post(move || inner.add("by the loop"));
            it.add("outer ends");
        });
        assert_eq!(log.len(), 0);
        assert_eq!(event_loop.run(), 3);
        assert_eq!(log.all(), ["outer", "outer ends", "by the handle", "by the loop"]);
    });
}

#[test]
fn posts_of_one_thread_run_in_order_however_they_were_made() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let post_all = |event_loop: &EventLoop, log: &Log, name: &'static str| {
            let handle = event_loop.handle();
            for i in 0..300 {
                let it = log.clone();
                let f = move || it.add(format!("{name}{i}"));
                match i * 7 % 5 {
                    0 | 1 => event_loop.post(f),
                    2 => handle.post(f).unwrap(),
                    3 => handle.clone().post(f).unwrap(),
                    _ => event_loop.clone().post(f),
                }
            }
        };
        post_all(&event_loop, &log, "outside ");
        let (inside, it) = (event_loop.clone(), log.clone());
        event_loop.post(move || post_all(&inside, &it, "inside "));
        assert_eq!(event_loop.run(), 601);
        let numbered = |name: &'static str| (0..300).map(move |i| format!("{name}{i}"));
        assert_eq!(log.all(), numbered("outside ").chain(numbered("inside ")).collect::<Vec<_>>());
    });
}

#[test]
fn posts_of_a_thread_to_a_loop_that_runs_elsewhere_run_in_order_and_once() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let guard = event_loop.keep_alive();
        let (runs, handle) = (event_loop.clone(), event_loop.handle());
        let thread = thread::spawn(move || runs.run());
        for i in 0..2000 {
            let it = log.clone();
            let f = move || it.add(i.to_string());
            if i % 3 == 0 { event_loop.post(f) } else { handle.post(f).unwrap() }
        }
        eventually("all of them", || log.len() >= 2000);
        drop(guard);
        assert_eq!(thread.join().unwrap(), 2000);
        assert_eq!(log.all(), (0..2000).map(|i| i.to_string()).collect::<Vec<_>>());
    });
}

#[test]
fn what_a_handler_posts_runs_behind_what_was_posted_before() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let (posts, it) = (event_loop.handle(), log.clone());
        event_loop.post(move || posts.post(move || it.add("last")).unwrap());
        let it = log.clone();
        event_loop.post(move || it.add("before"));
        assert_eq!(event_loop.poll_one(), 1);
        assert_eq!(log.len(), 0);
        assert_eq!(event_loop.run(), 2);
        assert_eq!(log.all(), ["before", "last"]);
    });
}

#[test]
fn dispatch_on_a_loop_thread_runs_inline_and_is_part_of_the_handler() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let dispatches = event_loop.handle();
        let fixture = Fixture::of(&event_loop, server_config(), |server, log| {
            let (it, dispatches) = (log.clone(), dispatches.clone());
            server.on_message(move |_, _| {
                let inner = it.clone();
                dispatches.dispatch(move || inner.add("inline")).unwrap();
                it.add("message");
            });
        });
        let log = fixture.log.clone();
        let peer = fixture.open();
        peer.write(text("hi"));
        assert_eq!(fixture.drive_to(2), 1);
        assert_eq!(log.take(), ["inline", "message"]);

        let (inside, it) = (event_loop.clone(), log.clone());
        event_loop.post(move || {
            let inner = it.clone();
            inside.dispatch(move || inner.add("inline"));
            it.add("posted");
        });
        assert_eq!(fixture.drive_to(2), 1);
        assert_eq!(log.take(), ["inline", "posted"]);

        let (inside, it) = (event_loop.clone(), log.clone());
        event_loop.set_timer(Duration::ZERO, move || {
            let inner = it.clone();
            inside.dispatch(move || inner.add("inline"));
            it.add("timer");
        });
        assert_eq!(fixture.drive_to(2), 1);
        assert_eq!(log.take(), ["inline", "timer"]);
    });
}

#[test]
fn dispatch_outside_of_a_run_call_posts() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let dispatch = |name: &'static str| {
            let it = log.clone();
            event_loop.dispatch(move || it.add(name));
            let it = log.clone();
            event_loop.handle().dispatch(move || it.add(name)).unwrap();
            assert_eq!(log.len(), 0);
        };
        dispatch("before");
        assert_eq!(event_loop.run(), 2);
        assert_eq!(log.take(), ["before"; 2]);
        event_loop.reset().unwrap();
        dispatch("after");
        event_loop.post(|| panic!("out of the run call"));
        panics("out of the run call", || event_loop.run());
        assert_eq!(log.take(), ["after"; 2]);
        dispatch("after a panic");
        assert_eq!(event_loop.run(), 2);
    });
}

#[test]
fn dispatch_in_a_handler_of_another_loop_posts() {
    within_time(|| {
        let (this, other) = (EventLoop::new().unwrap(), EventLoop::new().unwrap());
        let log = Log::default();
        let (it, dispatches) = (log.clone(), other.clone());
        this.post(move || {
            let inner = it.clone();
            dispatches.dispatch(move || inner.add("there"));
            it.add("here");
        });
        assert_eq!(this.run(), 1);
        assert_eq!(log.all(), ["here"]);
        assert_eq!(other.run(), 1);
        assert_eq!(log.all(), ["here", "there"]);
    });
}

#[test]
fn dispatch_in_a_loop_within_a_loop_is_inline_for_both() {
    within_time(|| {
        let (outer, inner) = (EventLoop::new().unwrap(), EventLoop::new().unwrap());
        let (ran, it) = (Count::default(), Count::default());
        let (to_outer, to_inner, counts) = (outer.clone(), inner.clone(), ran.clone());
        inner.post(move || {
            let it = counts.clone();
            to_outer.dispatch(move || _ = it.add());
            let it = counts.clone();
            to_inner.dispatch(move || _ = it.add());
            assert_eq!(counts.get(), 2);
        });
        let to_outer = outer.clone();
        let (runs_inner, dispatched) = (inner.clone(), it.clone());
        outer.post(move || {
            assert_eq!(runs_inner.run(), 1);
            let inner = dispatched.clone();
            to_outer.dispatch(move || _ = inner.add()); // it is still inside
            assert_eq!(dispatched.get(), 1);
        });
        assert_eq!(outer.run(), 1);
        assert_eq!((ran.get(), it.get()), (2, 1));
    });
}

#[test]
fn what_another_thread_dispatches_runs_on_a_loop_thread() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let guard = event_loop.keep_alive();
        let runs = event_loop.clone();
        let thread = thread::spawn(move || runs.run());
        let (sender, receiver) = mpsc::channel();
        event_loop.dispatch(move || sender.send(thread::current().id()).unwrap());
        assert_eq!(receiver.recv().unwrap(), thread.thread().id());
        drop(guard);
        assert_eq!(thread.join().unwrap(), 1);
    });
}

#[test]
fn what_is_posted_to_a_stopped_loop_runs_after_the_reset() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        event_loop.stop();
        let it = log.clone();
        event_loop.post(move || it.add("by the loop"));
        let it = log.clone();
        event_loop.handle().post(move || it.add("by the handle")).unwrap();
        assert_eq!((event_loop.run(), event_loop.poll()), (0, 0));
        event_loop.reset().unwrap();
        assert_eq!(event_loop.run(), 2);
        assert_eq!(log.all(), ["by the loop", "by the handle"]);
    });
}

#[test]
fn a_post_wakes_a_run_that_waits() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let _guard = event_loop.keep_alive();
        for by_handle in [false, true] {
            let (posts, handle) = (event_loop.clone(), event_loop.handle());
            let runner = ThreadProbe::current();
            let thread = thread::spawn(move || {
                runner.until_asleep();
                match by_handle {
                    false => posts.post(|| ()),
                    true => handle.post(|| ()).unwrap(),
                }
            });
            assert_eq!(event_loop.run_one(), 1);
            thread.join().unwrap();
        }
    });
}

/// What is posted with the handler of a connection.
#[test]
fn what_is_posted_to_a_connection_runs_in_order_and_not_inline() {
    within_time(|| {
        let fixture = Fixture::with(|server, log| {
            let it = log.clone();
            server.on_message(move |_, context| {
                for i in 0..3 {
                    let inner = it.clone();
                    context.handle().post(move |_, _| inner.add(i.to_string())).unwrap();
                }
                it.add("message");
            });
        });
        let peer = fixture.open();
        peer.write(text("hi"));
        let ran = drive(&fixture.event_loop, "all", || fixture.log.len() == 4);
        assert_eq!(ran, 4);
        assert_eq!(fixture.log.all(), ["message", "0", "1", "2"]);
    });
}
