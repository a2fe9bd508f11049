//! A host that is called when there is something to do, while threads give it more.

use std::sync::PoisonError;
use std::thread;

use anyloop::EventLoop;
use anyloop::proto::CloseCode;

use crate::steady::{self, Tally};
use crate::traced::{Condvar, Mutex};
use crate::{Count, Dice, for_ever, steps};

/// Where the host waits.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        while !*rung {
            rung = self.changed.wait(rung).unwrap_or_else(PoisonError::into_inner);
        }
        *rung = false;
    }
}

#[test]
fn hosted() {
    const TALKERS: usize = 8;
    const OUTSIDERS: usize = 4;
    let event_loop = EventLoop::new().unwrap();
    let bell: &'static Bell = for_ever();
    event_loop.set_wakeup(|| bell.ring()).unwrap();
    let [served, talked]: [&'static Tally; 2] = std::array::from_fn(|_| for_ever());
    let [begun, done]: [&'static Count; 2] = std::array::from_fn(|_| for_ever());
    let server = steady::server(&event_loop, served);
    let client = steady::client(&event_loop, talked);
    let uri = format!("ws://{}/", server.local_addr().unwrap());
    let handles: Vec<_> = (0..TALKERS).map(|_| client.connect(uri.as_str()).unwrap()).collect();

    // Each call of the host's is answered by one run call, until it is so.
    let mut calls = 0;
    let mut host = |is_so: &dyn Fn() -> bool| {
        while !is_so() {
            bell.wait();
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
                        on_loop.set_timer(soon, |_| _ = done.add(1)).unwrap();
                    }
                    2 => handles[dice.roll(TALKERS)].post(|_, _| _ = done.add(1)).unwrap(),
                    _ => {
                        handles[dice.roll(TALKERS)].send(&[1; 100][..]).unwrap();
                        on_loop.post(|| _ = done.add(1)).unwrap();
                    }
                }
                begun.add(1);
                if step % 50 == 0 {
                    setter.set_wakeup(|| bell.ring()).unwrap();
                }
            }
        })
    };
    let outsiders: Vec<_> = (0..OUTSIDERS).map(outsider).collect();
    host(&|| done.get() == OUTSIDERS * steps);
    outsiders.into_iter().for_each(|it| it.join().unwrap());
    assert_eq!(begun.get(), done.get());
    host(&|| talked.numbers.get() == TALKERS * crate::steps(200));
    client.close_all(CloseCode::NORMAL, "the end");
    host(&|| talked.closed.get() == TALKERS && served.closed.get() == TALKERS);
    server.stop_listening();
    host(&|| event_loop.stopped());
    drop((server, client, event_loop));
    [served, talked].into_iter().for_each(Tally::check_ends);
    println!("called {calls} times; {talked:?}");
}
