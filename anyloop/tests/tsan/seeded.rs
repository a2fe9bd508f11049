//! A race that is there: if it is not reported, nothing would be.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyloop::EventLoop;
use anyloop::net::Net;
use anyloop::proto::handshake::{OriginPolicy, ServerOptions};
use anyloop::{Client, Server};

use crate::{survive, wait};

/// What nobody guards.
struct Unguarded(UnsafeCell<usize>);

// SAFETY: there is none; that is what it is for.
unsafe impl Sync for Unguarded {}

static UNGUARDED: Unguarded = Unguarded(UnsafeCell::new(0));

/// Handlers of two connections write to the same place at the same time.
#[test]
#[ignore = "it is to be reported"]
fn seeded_race() {
    const BOTH: usize = 2;
    static HERE: AtomicUsize = AtomicUsize::new(0);
    static DONE: AtomicUsize = AtomicUsize::new(0);
    let event_loop = EventLoop::new().unwrap();
    let mut server = Server::<Net>::new(ServerOptions::new(OriginPolicy::Any));
    server.on_open(|_| {
        HERE.fetch_add(1, Ordering::Relaxed);
        wait("the other", || HERE.load(Ordering::Relaxed) == BOTH);
        // SAFETY: there is none. Aligned numbers come to no harm in practice.
        unsafe { *UNGUARDED.0.get() += 1 };
        DONE.fetch_add(1, Ordering::Relaxed);
    });
    server.set_event_loop(&event_loop).unwrap();
    let address = server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    let runner = |_| {
        let runs = event_loop.clone();
        thread::spawn(move || survive(|| runs.run()))
    };
    let runners: Vec<_> = (0..BOTH).map(runner).collect();
    let client = Client::<Net>::new(anyloop::endpoint::ClientSettings::default());
    client.set_event_loop(&event_loop).unwrap();
    let uri = format!("ws://{address}/");
    for _ in 0..BOTH {
        client.connect(uri.as_str()).unwrap();
    }
    wait("the handlers", || DONE.load(Ordering::Relaxed) == BOTH);
    event_loop.stop();
    runners.into_iter().for_each(|it| _ = it.join().unwrap());
}
