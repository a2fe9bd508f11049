//! Descriptors of the program's own.

use std::io::{ErrorKind, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyloop::event_loop::WatchMode;
use anyloop::prelude::*;
use anyloop_testkit::wait::ThreadProbe;
use anyloop_testkit::watchdog::within_time;

use crate::harness::{Count, Drops, Log, drive, panics};

fn byte(mut stream: &UnixStream) -> u8 {
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    byte[0]
}

/// Two ends whose reads do not block for ever.
fn pair() -> (UnixStream, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    for end in [&near, &far] {
        end.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    (near, far)
}

/// Whether the other end was closed.
fn is_closed(stream: &mut UnixStream) -> bool {
    matches!(stream.read(&mut [0]), Ok(0))
}

#[test]
fn a_watch_is_called_again_while_there_is_something_to_read() {
    within_time(|| {
        let (event_loop, (near, mut far)) = (EventLoop::new().unwrap(), pair());
        far.write_all(b"abcde").unwrap();
        let log = Log::default();
        let it = log.clone();
        let watch = event_loop.watch(near, WatchMode::Read, move |near, readiness| {
            assert!(readiness.readable && !readiness.writable && !readiness.closed);
            it.add(char::from(byte(near)));
            ControlFlow::Continue(())
        });
        let _watch = watch.unwrap();
        assert_eq!(drive(&event_loop, "five bytes", || log.len() == 5), 5);
        assert_eq!(log.take(), ["a", "b", "c", "d", "e"]);
        assert_eq!(event_loop.run_for(Duration::from_millis(10)), 0); // there is nothing
        far.write_all(b"f").unwrap();
        assert_eq!(event_loop.run_one(), 1);
        assert_eq!(log.all(), ["f"]);
    });
}

#[test]
fn a_watch_that_reads_nothing_is_called_for_ever() {
    within_time(|| {
        let (event_loop, (near, mut far)) = (EventLoop::new().unwrap(), pair());
        far.write_all(b"a").unwrap();
        let _watch = event_loop.watch(near, WatchMode::Read, |_, _| ControlFlow::Continue(()));
        for _ in 0..100 {
            assert_eq!(event_loop.run_one(), 1);
        }
        // And others have their turn.
        let log = Log::default();
        for name in ["timer", "posted"] {
            let it = log.clone();
            match name {
                "timer" => _ = event_loop.set_timer(Duration::ZERO, move || it.add(name)),
                _ => event_loop.post(move || it.add(name)),
            }
        }
        let stops = event_loop.handle();
        event_loop.set_timer(Duration::from_millis(20), move || stops.stop().unwrap());
        event_loop.run();
        assert!(log.has("timer") && log.has("posted"));
    });
}

/// However many there are: the clock is not read for each look, nor for each call.
#[test]
fn sources_that_are_always_ready_hold_up_neither_timers_nor_posts_nor_the_end_of_a_run_call() {
    within_time(|| {
        for sources in [1, 2, 3, 12, 15, 16, 17, 32] {
            let event_loop = EventLoop::new().unwrap();
            let mut far_ends = Vec::new();
            for _ in 0..sources {
                let (near, mut far) = pair();
                far.write_all(b"a").unwrap();
                event_loop.watch(near, WatchMode::Read, |_, _| ControlFlow::Continue(())).unwrap();
                far_ends.push(far);
            }
            // In one run call; a busy machine may take away all the time of a short one.
            let mut times = (1..=12).map(|i| Duration::from_millis(1 << i));
            let again = times.any(|time| event_loop.run_for(time) > sources);
            assert!(again, "it is called again");
            let (log, stops) = (Log::default(), event_loop.handle());
            for i in 0..3 {
                let (it, stops) = (log.clone(), stops.clone());
                event_loop.set_timer(Duration::from_millis(i), move || {
                    it.add("timer");
                    if i == 2 {
                        let _ = thread::spawn(move || stops.post(move || it.add("posted")));
                    }
                });
            }
            let it = log.clone();
            drive(&event_loop, "timers and a post", || it.count("timer") == 3 && it.has("posted"));
            let thread = thread::spawn(move || stops.stop().unwrap());
            event_loop.run();
            assert!(event_loop.stopped());
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_watch_that_breaks_was_called_once_and_lets_its_source_go() {
    within_time(|| {
        let (event_loop, (near, mut far)) = (EventLoop::new().unwrap(), pair());
        far.write_all(b"abc").unwrap();
        let (drops, count) = (Drops::default(), Count::default());
        let (counted, it) = (drops.one(), count.clone());
        let watch = event_loop.watch(near, WatchMode::Read, move |_, _| {
            let _counted = &counted;
            it.add();
            ControlFlow::Break(())
        });
        watch.unwrap();
        assert_eq!(event_loop.run(), 1); // and there is no other work
        assert_eq!((count.get(), drops.count()), (1, 1));
        // What was unread makes a reset of its end.
        assert!(far.read(&mut [0]).is_ok_and(|n| n == 0) || far.write(b"x").is_err());
    });
}

#[test]
fn a_watch_for_writing_is_called_when_there_is_room_and_not_before() {
    within_time(|| {
        let (event_loop, (near, mut far)) = (EventLoop::new().unwrap(), pair());
        near.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while let Ok(n) = (&near).write(&[0; 4096]) {
            sent += n;
        }
        let count = Count::default();
        let it = count.clone();
        let watch = event_loop.watch(near, WatchMode::Write, move |_, readiness| {
            assert!(readiness.writable && !readiness.readable);
            match it.add() {
                3 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });
        watch.unwrap();
        assert_eq!(event_loop.run_for(Duration::from_millis(20)), 0);
        far.read_exact(&mut vec![0; sent]).unwrap();
        assert_eq!((event_loop.run(), count.get()), (3, 3));
    });
}

#[test]
fn a_watch_for_both_says_which() {
    within_time(|| {
        let (event_loop, (near, mut far)) = (EventLoop::new().unwrap(), pair());
        let log = Log::default();
        let it = log.clone();
        let watch = event_loop.watch(near, WatchMode::ReadWrite, move |near, readiness| {
            it.add(format!("{} {}", readiness.readable, readiness.writable));
            if readiness.readable {
                byte(near);
            }
            ControlFlow::Continue(())
        });
        let _watch = watch.unwrap();
        assert_eq!((event_loop.run_one(), log.take()), (1, vec!["false true".to_string()]));
        far.write_all(b"a").unwrap();
        drive(&event_loop, "something to read", || log.has("true true"));
    });
}

#[test]
fn a_watch_is_called_when_the_other_end_is_closed() {
    within_time(|| {
        let (event_loop, (near, far)) = (EventLoop::new().unwrap(), pair());
        drop(far);
        let watch = event_loop.watch(near, WatchMode::Read, |near, readiness| {
            assert!(readiness.closed && readiness.readable);
            assert!(is_closed(near));
            ControlFlow::Break(())
        });
        watch.unwrap();
        assert_eq!(event_loop.run(), 1);
    });
}

#[test]
fn a_cancelled_watch_is_dropped_without_a_call() {
    within_time(|| {
        let (event_loop, (near, mut far)) = (EventLoop::new().unwrap(), pair());
        let drops = Drops::default();
        let counted = drops.one();
        let watch = event_loop.watch(near, WatchMode::Read, move |_, _| {
            let _counted = &counted;
            unreachable!()
        });
        let watch = watch.unwrap();
        assert_eq!(event_loop.poll(), 0); // it has begun
        far.write_all(b"a").unwrap();
        watch.cancel();
        watch.clone().cancel();
        assert_eq!(event_loop.run(), 0);
        assert!(event_loop.stopped());
        assert_eq!(drops.count(), 1);
        assert!(far.write(b"b").is_err()); // the source was dropped as well
        watch.cancel();
        event_loop.reset().unwrap();
        assert_eq!(event_loop.run(), 0);
    });
}

#[test]
fn a_watch_that_cancels_itself_is_in_its_last_call() {
    within_time(|| {
        let (event_loop, (near, mut far)) = (EventLoop::new().unwrap(), pair());
        far.write_all(b"abc").unwrap();
        let place = Arc::new(Mutex::new(None::<anyloop::event_loop::Watch>));
        let own = place.clone();
        let watch = event_loop.watch(near, WatchMode::Read, move |_, _| {
            own.lock().unwrap().take().expect("it is called once").cancel();
            ControlFlow::Continue(())
        });
        *place.lock().unwrap() = Some(watch.unwrap());
        assert_eq!(event_loop.run(), 1);
    });
}

#[test]
fn a_watch_can_be_cancelled_from_another_thread() {
    within_time(|| {
        let (event_loop, (near, _far)) = (EventLoop::new().unwrap(), pair());
        let watch = event_loop.watch(near, WatchMode::Read, |_, _| unreachable!()).unwrap();
        let runner = ThreadProbe::current();
        let thread = thread::spawn(move || {
            runner.until_asleep();
            watch.cancel();
        });
        assert_eq!(event_loop.run(), 0); // it has waited until then
        thread.join().unwrap();
    });
}

#[test]
fn a_watch_keeps_run_alive_and_its_drop_does_not_end_it() {
    within_time(|| {
        let (event_loop, (near, mut far)) = (EventLoop::new().unwrap(), pair());
        let watch = event_loop.watch(near, WatchMode::Read, |_, _| ControlFlow::Break(()));
        drop(watch.unwrap());
        assert_eq!(event_loop.run_for(Duration::from_millis(10)), 0);
        assert!(!event_loop.stopped());
        let runner = ThreadProbe::current();
        let thread = thread::spawn(move || {
            runner.until_asleep();
            far.write_all(b"a").unwrap();
            far
        });
        assert_eq!(event_loop.run(), 1);
        thread.join().unwrap();
    });
}

#[test]
fn a_regular_file_cannot_be_watched() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        let watch = event_loop.watch(file, WatchMode::Read, |_, _| unreachable!());
        let error = watch.unwrap_err();
        if cfg!(target_os = "linux") {
            assert_eq!(error.kind(), ErrorKind::PermissionDenied); // epoll_ctl(2): EPERM
        }
        assert_eq!(event_loop.run(), 0); // and it is no work
    });
}

#[test]
fn a_source_is_watched_once_at_a_time_and_then_anew() {
    within_time(|| {
        let (event_loop, (near, mut far)) = (EventLoop::new().unwrap(), pair());
        let near = Arc::new(near); // which the watch does not close
        let watch = event_loop.watch(near.clone(), WatchMode::Read, |_, _| unreachable!());
        let watch = watch.unwrap();
        if cfg!(target_os = "linux") {
            let second = event_loop.watch(near.clone(), WatchMode::Read, |_, _| unreachable!());
            assert_eq!(second.unwrap_err().kind(), ErrorKind::AlreadyExists);
        }
        watch.cancel();
        assert_eq!(event_loop.run(), 0); // the second was no work
        for _ in 0..2 {
            event_loop.reset().unwrap();
            far.write_all(b"a").unwrap();
            let again = event_loop.watch(near.clone(), WatchMode::Read, |near, _| {
                byte(near);
                ControlFlow::Break(())
            });
            again.unwrap();
            assert_eq!(event_loop.run(), 1);
        }
        assert_eq!(Arc::strong_count(&near), 1);
    });
}

#[test]
fn pitfall_a_watch_that_panics_is_called_again_in_the_next_run() {
    within_time(|| {
        let (event_loop, (near, mut far)) = (EventLoop::new().unwrap(), pair());
        far.write_all(b"!ab").unwrap();
        let log = Log::default();
        let it = log.clone();
        let watch = event_loop.watch(near, WatchMode::Read, move |near, _| {
            let byte = char::from(byte(near));
            assert!(byte != '!', "in a watch");
            it.add(byte);
            if byte == 'b' { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        watch.unwrap();
        panics("in a watch", || event_loop.run());
        assert!(!event_loop.stopped());
        assert_eq!(event_loop.run(), 2);
        assert_eq!(log.all(), ["a", "b"]);
    });
}

#[test]
fn a_stop_in_a_watch_loses_nothing() {
    within_time(|| {
        let (event_loop, (near, mut far)) = (EventLoop::new().unwrap(), pair());
        far.write_all(b"abc").unwrap();
        let (log, stops) = (Log::default(), event_loop.handle());
        let it = log.clone();
        let watch = event_loop.watch(near, WatchMode::Read, move |near, _| {
            it.add(char::from(byte(near)));
            stops.stop().unwrap();
            ControlFlow::Continue(())
        });
        let _watch = watch.unwrap();
        for reported in 1..=3 {
            assert_eq!(event_loop.run(), 1);
            assert_eq!(log.len(), reported);
            event_loop.reset().unwrap();
        }
        assert_eq!(log.all(), ["a", "b", "c"]);
    });
}

#[test]
fn poll_one_calls_one_of_many_watches() {
    within_time(|| {
        let (event_loop, log) = (EventLoop::new().unwrap(), Log::default());
        let pairs: Vec<_> = (0..10).map(|_| pair()).collect();
        for (i, (near, mut far)) in pairs.into_iter().enumerate() {
            far.write_all(b"a").unwrap();
            let it = log.clone();
            let watch = event_loop.watch(near, WatchMode::Read, move |_, _| {
                let _far = &far;
                it.add(i.to_string());
                ControlFlow::Break(())
            });
            watch.unwrap();
        }
        for reported in 1..=10 {
            assert_eq!(event_loop.run_one(), 1);
            assert_eq!(log.len(), reported);
        }
        assert_eq!(event_loop.run(), 0);
        let mut all = log.all();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 10);
    });
}

#[test]
fn pitfall_a_watch_is_not_called_for_what_it_has_read_already() {
    within_time(|| {
        let (event_loop, (near, mut far)) = (EventLoop::new().unwrap(), pair());
        far.write_all(b"a").unwrap();
        let count = Count::default();
        let (it, inner) = (count.clone(), event_loop.clone());
        let watch = event_loop.watch(near, WatchMode::Read, move |near, readiness| {
            if it.add() == 1 {
                far.write_all(b"b").unwrap();
                inner.poll(); // which sees it
                assert_eq!((byte(near), byte(near)), (b'a', b'b'));
            } else {
                assert!(readiness.closed); // that would be true
            }
            ControlFlow::Continue(())
        });
        let watch = watch.unwrap();
        assert_eq!(event_loop.run_for(Duration::from_millis(20)), 1);
        watch.cancel(); // it holds its loop
        assert_eq!((event_loop.run(), count.get()), (0, 1));
    });
}

/// With several threads it may find that what it was called for was read before: that is documented.
#[test]
fn a_watch_is_called_by_one_thread_at_a_time_and_reads_all_there_is() {
    const BYTES: usize = 3000;
    within_time(|| {
        let (event_loop, (near, mut far)) = (EventLoop::new().unwrap(), pair());
        near.set_nonblocking(true).unwrap();
        let read = Arc::new(Mutex::new(0));
        let all = read.clone();
        let watch = event_loop.watch(near, WatchMode::Read, move |near, _| {
            let mut read = all.try_lock().expect("one call at a time");
            *read += near.read(&mut [0; 1000]).unwrap_or_default();
            if *read == BYTES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        watch.unwrap();
        let runner = |_| {
            let runs = event_loop.clone();
            thread::spawn(move || runs.run())
        };
        let runners: Vec<_> = (0..3).map(runner).collect();
        for i in 0..BYTES {
            far.write_all(b"a").unwrap();
            // At one time there is something, at another there is not.
            if i % 3 == 0 {
                thread::yield_now();
            }
        }
        runners.into_iter().for_each(|it| _ = it.join().unwrap());
        assert_eq!(*read.lock().unwrap(), BYTES);
    });
}
