//! Models of the loop for loom, which runs each under every schedule of its threads. A missing wake-up is found as a
//! deadlock. `tests/loom` runs them.
//!
//! | module | what it proves |
//! |---|---|
//! | [`commands`] | Posted functions run once, in order, or are dropped with the loop. |
//! | [`ending`] | A stop and the end of the last work end all run calls; `reset` keeps what was posted. |
//! | [`hosts`] | A host that watches the descriptor is woken for everything that it must do. |
//! | [`runners`] | There is always a leader, and a follower is woken when it is needed. |
//! | [`strands`] | One thread at a time runs a source, and no event of a source is lost. |
//! | [`timers`] | An earlier deadline ends the leader's wait; a timer is called once. |
//! | [`wakeup_thread`] | The wake-up thread calls its host for everything that it must do, once for each poll, and leaves the reactor to runners. |
//!
//! A schedule has a bounded number of preemptions. A few models have three threads that do much, and many schedules.
//! They are run with a lower bound ([`check_large`], [`check_within`]), where a smaller model of the same transition
//! has the full one.

mod commands;
mod ending;
mod hosts;
mod runners;
mod strands;
mod timers;
mod wakeup_thread;

use std::io;
use std::sync::atomic::AtomicUsize as UnmodelledUsize;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::thread;

use super::events::Token;
use super::reactor::Waker;
use super::source::{Next, Source, Turn};
use super::{EventLoop, Threads};
use crate::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use crate::sync::{Condvar, Mutex};

/// A timeout that never ends.
const FAR: Duration = Duration::from_secs(3600);

/// A timeout that ends as soon as a thread waits for it.
const SOON: Duration = Duration::from_millis(1);

/// The bound on preemptions, unless `LOOM_MAX_PREEMPTIONS` is set. Most mistakes show with one or two.
const PREEMPTIONS: usize = 3;

/// The same for [`check_large`].
const PREEMPTIONS_OF_LARGE: usize = 2;

/// Runs a model under every schedule within the bound.
pub(crate) fn check(model: impl Fn() + Send + Sync + 'static) {
    check_within(PREEMPTIONS, model);
}

/// Runs a model that has very many schedules, within a lower bound.
pub(crate) fn check_large(model: impl Fn() + Send + Sync + 'static) {
    check_within(PREEMPTIONS_OF_LARGE, model);
}

/// Runs a model under every schedule with at most so many preemptions, unless `LOOM_MAX_PREEMPTIONS` is set.
pub(crate) fn check_within(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let schedules = Arc::new(UnmodelledUsize::new(0));
    let counted = schedules.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 10_000;
    builder.check(move || {
        counted.fetch_add(1, SeqCst);
        model();
    });
    println!("{} schedules", schedules.load(SeqCst));
}

/// A flag that can be waited for.
#[derive(Clone, Default)]
struct Signal(Arc<(Mutex<bool>, Condvar)>);

impl Signal {
    fn set(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits until it is set, and resets it.
    fn take(&self) {
        let mut set = self.0.0.lock().unwrap();
        while !*set {
            set = self.0.1.wait(set).unwrap_or_else(PoisonError::into_inner);
        }
        *set = false;
    }
}

/// A counter.
#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    /// Adds one, and returns the sum.
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

fn reactor(event_loop: &EventLoop) -> Waker {
    event_loop.engine.control().notifier().waker().clone()
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
