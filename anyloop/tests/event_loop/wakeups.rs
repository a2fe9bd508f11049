//! The loop inside another one, which cannot watch a descriptor: it is called, and polls.

use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyloop::prelude::*;
use anyloop_testkit::peer::Peer;
use anyloop_testkit::wait::{PATIENCE, eventually};
use anyloop_testkit::watchdog::within_time;

use crate::fixture::Fixture;
use crate::harness::{FAR, drive};
use crate::wire::{request, text};

/// Has the loop send an event to its host, as a GUI's proxy would.
fn events_of(event_loop: &EventLoop) -> Receiver<()> {
    let (send, events) = mpsc::channel();
    event_loop.set_wakeup(move || _ = send.send(())).unwrap();
    events
}

/// The host's loop: polls for each event until the condition holds. Returns how many events there were.
#[track_caller]
fn host(
    event_loop: &EventLoop,
    events: &Receiver<()>,
    what: &str,
    mut is_so: impl FnMut() -> bool,
) -> usize {
    let mut count = 0;
    while !is_so() {
        assert!(events.recv_timeout(PATIENCE).is_ok(), "waited in vain: {what}");
        count += 1;
        event_loop.poll();
    }
    count
}

#[test]
fn a_conversation_is_held_by_nothing_but_events() {
    within_time(|| {
        let fixture = Fixture::new();
        let events = events_of(&fixture.event_loop);
        let served = fixture.event_loop.clone();
        let address = fixture.address;
        let talk = thread::spawn(move || {
            let mut peer = Peer::connect(address);
            peer.write(request("/"));
            let is_open = |peer: &mut Peer| peer.poll_head().is_some();
            eventually("the response", || is_open(&mut peer));
            for message in ["one", "two", "three"] {
                peer.write(text(message));
            }
            peer.finish();
        });
        host(&served, &events, "the peer has gone", || fixture.log.has("close, failed"));
        talk.join().unwrap();
        assert!(["one", "two", "three"].iter().all(|message| fixture.log.has(message)));
    });
}

#[test]
fn the_host_is_called_once_until_it_polls() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let _guard = event_loop.keep_alive();
        let events = events_of(&event_loop);
        event_loop.poll();
        while events.try_recv().is_ok() {}
        for _ in 0..3 {
            for _ in 0..100 {
                event_loop.post(|| {});
            }
            assert!(events.recv_timeout(PATIENCE).is_ok());
            // A second call would have come by now.
            event_loop.post(|| {});
            assert!(events.recv_timeout(Duration::from_millis(20)).is_err());
            assert_eq!(event_loop.poll(), 101);
        }
    });
}

#[test]
fn timers_wake_the_host_also_when_they_move_to_an_earlier_time() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let events = events_of(&event_loop);
        let (sender, receiver) = mpsc::channel();
        let far = event_loop.set_timer(FAR, || {});
        event_loop.poll(); // it waits for an hour now
        let sooner = sender.clone();
        let elsewhere = event_loop.handle();
        thread::spawn(move || {
            elsewhere.set_timer(Duration::from_millis(5), move || _ = sender.send(1)).unwrap();
        });
        let mut first = None;
        host(&event_loop, &events, "a timer of another thread", || {
            first = first.or_else(|| receiver.try_recv().ok());
            first == Some(1)
        });
        let inner = event_loop.clone();
        event_loop.post(move || {
            inner.set_timer(Duration::from_millis(5), move || _ = sooner.send(2));
        });
        let mut second = None;
        host(&event_loop, &events, "a timer of a handler", || {
            second = second.or_else(|| receiver.try_recv().ok());
            second == Some(2)
        });
        far.cancel();
        host(&event_loop, &events, "the end", || event_loop.stopped());
    });
}

/// A host with a callback need not call `next_timeout`, so the caller of that is another than the one that
/// polls.
#[test]
fn pitfall_a_host_is_not_called_again_and_again_where_another_thread_has_asked() {
    within_time(|| {
        for asks_first in [true, false] {
            let event_loop = EventLoop::new().unwrap();
            let ask = || thread::scope(|scope| scope.spawn(|| event_loop.next_timeout()).join());
            if asks_first {
                assert_eq!(ask().unwrap(), None);
            }
            let events = events_of(&event_loop);
            if !asks_first {
                assert_eq!(ask().unwrap(), None);
            }
            let inner = event_loop.clone();
            event_loop.post(move || _ = inner.set_timer(Duration::from_millis(50), || {}));
            let calls = host(&event_loop, &events, "the timer", || event_loop.stopped());
            assert!(calls < 10, "{calls} calls, for a function and a timer");
        }
    });
}

#[test]
fn what_a_bounded_poll_has_left_calls_the_host_again() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let events = events_of(&event_loop);
        for _ in 0..10 {
            event_loop.post(|| {});
        }
        let mut ran = 0;
        while !event_loop.stopped() {
            assert!(events.recv_timeout(PATIENCE).is_ok(), "after {ran}");
            ran += event_loop.poll_one();
        }
        assert_eq!(ran, 10);
    });
}

#[test]
fn a_run_call_goes_on_beside_it() {
    within_time(|| {
        let fixture = Fixture::new();
        let _events = events_of(&fixture.event_loop);
        let peer = fixture.open();
        peer.write(text("hello"));
        drive(&fixture.event_loop, "a message", || fixture.log.has("hello"));
    });
}

#[test]
fn it_ends_when_it_is_cleared_replaced_or_the_loop_goes() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let guard = event_loop.keep_alive();
        let first = events_of(&event_loop);
        let second = events_of(&event_loop);
        while first.recv_timeout(PATIENCE).is_ok() {} // its function is dropped
        event_loop.post(|| {});
        assert!(second.recv_timeout(PATIENCE).is_ok());
        event_loop.clear_wakeup();
        while second.recv_timeout(PATIENCE).is_ok() {}
        let third = events_of(&event_loop);
        drop((guard, event_loop));
        while third.recv_timeout(PATIENCE).is_ok() {}
        assert_eq!(third.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    });
}

#[test]
fn a_local_loop_has_it_as_well() {
    within_time(|| {
        let event_loop = LocalEventLoop::new().unwrap();
        let (send, events) = mpsc::channel();
        event_loop.set_wakeup(move || _ = send.send(())).unwrap();
        let handle = event_loop.handle();
        let _guard = event_loop.keep_alive();
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || handle.post(move || _ = sender.send(()))).join().unwrap().unwrap();
        while receiver.try_recv().is_err() {
            events.recv_timeout(PATIENCE).unwrap();
            event_loop.poll();
        }
    });
}

#[test]
fn pitfall_a_run_call_that_waits_notices_what_the_wakeup_thread_would() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let _guard = event_loop.keep_alive();
        let _events = events_of(&event_loop);
        for _ in 0..20 {
            let (inside, (sender, receiver)) = (event_loop.clone(), mpsc::channel());
            let runner = thread::spawn(move || inside.run());
            let posted = sender.clone();
            event_loop.post(move || posted.send("post").unwrap());
            assert_eq!(receiver.recv_timeout(PATIENCE), Ok("post"));
            event_loop.set_timer(Duration::from_millis(2), move || sender.send("timer").unwrap());
            assert_eq!(receiver.recv_timeout(PATIENCE), Ok("timer"));
            event_loop.stop();
            assert_eq!(runner.join().unwrap(), 2);
            event_loop.reset().unwrap();
        }
    });
}

#[test]
fn pitfall_a_bounded_run_call_keeps_to_its_bound_beside_the_wakeup_thread() {
    within_time(|| {
        let event_loop = EventLoop::new().unwrap();
        let _events = events_of(&event_loop);
        event_loop.set_timer(FAR, || {});
        for _ in 0..5 {
            event_loop.run_for(Duration::from_millis(2)); // and not until the timer
        }
    });
}
