//! A host whose wake-up function the loop calls, while other threads add work.

use std::sync::PoisonError;
use std::thread;

use anyloop::prelude::*;

use crate::steady::{self, Tally};
use crate::traced::{Condvar, Mutex};
use crate::{Count, Dice, leaked, steps};

/// The host waits here for the wake-up function.
#[derive(Default)]
struct Signal {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    fn set(&self) {
        *self.is_set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut is_set = self.is_set.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_set {
            is_set = self.changed.wait(is_set).unwrap_or_else(PoisonError::into_inner);
        }
        *is_set = false;
    }
}

#[test]
fn hosted() {
    const TALKERS: usize = 8;
    const OUTSIDERS: usize = 4;
    let event_loop = EventLoop::new().unwrap();
    let signal: &'static Signal = leaked();
    event_loop.set_wakeup(|| signal.set()).unwrap();
    let [served, talked]: [&'static Tally; 2] = std::array::from_fn(|_| leaked());
    let [begun, done]: [&'static Count; 2] = std::array::from_fn(|_| leaked());
    let server = steady::server(&event_loop, served);
    let client = steady::client(&event_loop, talked);
    let uri = format!("ws://{}/", server.local_addr().unwrap());
    let handles: Vec<_> = (0..TALKERS).map(|_| client.connect(uri.as_str()).unwrap()).collect();

    // Each wake-up is answered by one `poll`, until the condition is met.
    let mut calls = 0;
    let mut host = |condition: &dyn Fn() -> bool| {
        while !condition() {
            signal.wait();
            calls += 1;
            event_loop.poll();
        }
    };
    host(&|| talked.opened.get() == TALKERS && served.opened.get() == TALKERS);

    let steps = steps(400);
    let outsider = |number| {
        let (handles, on_loop) = (handles.clone(), event_loop.handle());
        let setter = event_loop.clone();
        thread::spawn(move || {
            let mut dice = Dice::new(number);
            for step in 0..steps {
                match dice.roll(4) {
                    0 => on_loop.post(|| _ = done.add(1)).unwrap(),
                    1 => {
                        let soon = std::time::Duration::from_micros(dice.roll(3000) as u64);
                        on_loop.set_timer(soon, || _ = done.add(1)).unwrap();
                    }
                    2 => handles[dice.roll(TALKERS)].post(|_, _| _ = done.add(1)).unwrap(),
                    _ => {
                        handles[dice.roll(TALKERS)].send(&[1; 100][..]).unwrap();
                        on_loop.post(|| _ = done.add(1)).unwrap();
                    }
                }
                begun.add(1);
                if step % 50 == 0 {
                    setter.set_wakeup(|| signal.set()).unwrap();
                }
            }
        })
    };
    let outsiders: Vec<_> = (0..OUTSIDERS).map(outsider).collect();
    host(&|| done.get() == OUTSIDERS * steps);
    outsiders.into_iter().for_each(|it| it.join().unwrap());
    assert_eq!(begun.get(), done.get());
    host(&|| talked.numbers.get() == TALKERS * crate::steps(200));
    client.close_all(CloseCode::NORMAL, "the end").unwrap();
    host(&|| talked.closed.get() == TALKERS && served.closed.get() == TALKERS);
    server.stop_listening();
    host(&|| event_loop.stopped());
    drop((server, client, event_loop));
    [served, talked].into_iter().for_each(Tally::check_ends);
    println!("called {calls} times; {talked:?}");
}
