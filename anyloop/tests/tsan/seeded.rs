//! A deliberate data race: if the sanitizer does not report it, it would report none.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyloop::net::{Client, Server};
use anyloop::prelude::*;

use crate::{survive, wait};

/// A number that no lock guards.
struct Unguarded(UnsafeCell<usize>);

// SAFETY: none. It is there to be raced on.
unsafe impl Sync for Unguarded {}

static UNGUARDED: Unguarded = Unguarded(UnsafeCell::new(0));

/// The handlers of two connections write to one number at a time.
#[test]
#[ignore = "the sanitizer must report it"]
fn seeded_race() {
    const BOTH: usize = 2;
    static HERE: AtomicUsize = AtomicUsize::new(0);
    static DONE: AtomicUsize = AtomicUsize::new(0);
    let event_loop = EventLoop::new().unwrap();
    let mut server = Server::on(&event_loop, ServerConfig::new(OriginPolicy::Any));
    server.on_open(|_| {
        HERE.fetch_add(1, Ordering::Relaxed);
        wait("the other", || HERE.load(Ordering::Relaxed) == BOTH);
        // SAFETY: none. In practice a race on an aligned number loses an update, and no more.
        unsafe { *UNGUARDED.0.get() += 1 };
        DONE.fetch_add(1, Ordering::Relaxed);
    });
    let address = server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    let runner = |_| {
        let runs = event_loop.clone();
        thread::spawn(move || survive(|| runs.run()))
    };
    let runners: Vec<_> = (0..BOTH).map(runner).collect();
    let client = Client::on(&event_loop, ClientConfig::new());
    let uri = format!("ws://{address}/");
    for _ in 0..BOTH {
        client.connect(uri.as_str()).unwrap();
    }
    wait("the handlers", || DONE.load(Ordering::Relaxed) == BOTH);
    event_loop.stop();
    runners.into_iter().for_each(|it| _ = it.join().unwrap());
}
