//! The loop under loom: each model is run under every schedule of its threads. A thread that nobody
//! wakes is found as a deadlock.
//!
//! `tests/loom` runs them.

mod commands;
mod ending;
mod hosts;
mod runners;
mod strands;
mod timers;
mod wakeup_thread;

use std::io;
use std::sync::atomic::AtomicUsize as Plain;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::thread;

use super::events::Token;
use super::reactor::Interrupt;
use super::source::{Next, Source, Turn};
use super::{EventLoop, Threads};
use crate::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use crate::sync::{Condvar, Mutex};

/// Never comes.
const FAR: Duration = Duration::from_secs(3600);

/// Comes as soon as somebody waits for it.
const SOON: Duration = Duration::from_millis(1);

/// Most mistakes show with one preemption or two: more of them is up to `LOOM_MAX_PREEMPTIONS`.
const PREEMPTIONS: usize = 3;

/// Runs a model under every schedule with no more than so many preemptions.
pub(crate) fn check(model: impl Fn() + Send + Sync + 'static) {
    let schedules = Arc::new(Plain::new(0));
    let counted = schedules.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS);
    builder.max_branches = 10_000;
    builder.check(move || {
        counted.fetch_add(1, SeqCst);
        model();
    });
    println!("{} schedules", schedules.load(SeqCst));
}

/// Something that can be waited for.
#[derive(Clone, Default)]
struct Signal(Arc<(Mutex<bool>, Condvar)>);

impl Signal {
    fn set(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits until it is set, and takes it back.
    fn take(&self) {
        let mut set = self.0.0.lock().unwrap();
        while !*set {
            set = self.0.1.wait(set).unwrap_or_else(PoisonError::into_inner);
        }
        *set = false;
    }
}

/// Counts.
#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    /// One more; returns how many there are.
    fn add(&self) -> usize {
        self.0.fetch_add(1, SeqCst) + 1
    }

    fn get(&self) -> usize {
        self.0.load(SeqCst)
    }
}

fn new_loop() -> EventLoop {
    EventLoop::new().unwrap()
}

fn spawn<T: 'static>(
    event_loop: &EventLoop,
    f: impl FnOnce(EventLoop) -> T + 'static,
) -> thread::JoinHandle<T> {
    let event_loop = event_loop.clone();
    thread::spawn(move || f(event_loop))
}

fn reactor(event_loop: &EventLoop) -> Interrupt {
    event_loop.engine.remote().notifier().interrupt_handle().clone()
}

/// A source made of a function.
struct Served<F> {
    /// Loom reports two threads in it.
    alone: UnsafeCell<()>,
    f: F,
}

impl<F: FnMut(&mut Turn<'_, Threads>) -> Next<Threads>> Source<Threads> for Served<F> {
    fn run(&mut self, turn: &mut Turn<'_, Threads>) -> Next<Threads> {
        self.alone.with_mut(|_| (self.f)(turn))
    }
}

fn insert(
    event_loop: &EventLoop,
    f: impl FnMut(&mut Turn<'_, Threads>) -> Next<Threads> + Send + 'static,
) -> Token {
    let make = |_| Ok::<_, io::Error>(Box::new(Served { alone: UnsafeCell::new(()), f }) as _);
    event_loop.engine.insert(make).unwrap()
}
