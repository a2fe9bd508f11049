//! Shared by the hosts: a [`Workload`] in Anyloop's loop, for every loop that embeds it.
//!
//! A server echoes the messages of its client. The client sends some at once, some by a timer of its
//! connection, and some when the host's own timer ticks, which must keep ticking while the loop always has
//! work. Then nothing happens for a while, and the host must sleep, until another thread closes the
//! connection. The loop is then out of work, and the host ends.

use std::error::Error;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyloop::event_loop::LoopHandle;
use anyloop::net::{Client, Server};
use anyloop::prelude::*;
use anyloop::proto::{Party, State};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

/// The interval at which the host calls [`Workload::tick`].
pub const TICK: Duration = Duration::from_millis(10);

/// The number of messages of each kind.
const SAID: [(&str, usize); 5] =
    [("at once", 50), ("by a timer", 10), ("by the host", 10), ("long", 1), ("while busy", 10)];

const IMMEDIATE: usize = 0;
const BY_TIMER: usize = 1;
const BY_HOST: usize = 2;
const LONG: usize = 3;
const WHILE_BUSY: usize = 4;

/// The length of the long message: more than a socket accepts at once.
const LENGTH: usize = 1 << 20;

/// The time between two messages of the connection's timer.
const PAUSE: Duration = Duration::from_millis(5);

/// The duration of the quiet phase.
const QUIET: Duration = Duration::from_millis(200);

/// The CPU time that the host may use in the quiet phase. A host that does not sleep uses all of it.
const AT_REST: Duration = Duration::from_millis(60);

/// A server and a client that exchange messages in one loop.
pub struct Workload {
    connection: Handle<Handlers>,
    course: Arc<Course>,
}

/// The report so far.
struct Course {
    event_loop: LoopHandle,
    is_busy: AtomicBool,
    /// The number of messages that the host has sent.
    sent: Mutex<[usize; SAID.len()]>,
    came_back: Mutex<[usize; SAID.len()]>,
    report: Mutex<Vec<String>>,
}

impl Workload {
    /// Starts a workload in this loop. The loop is out of work when the workload is over.
    ///
    /// # Errors
    ///
    /// No port is free.
    pub fn begin(event_loop: &EventLoop) -> Result<Self, Box<dyn Error>> {
        let mut server = Server::on(event_loop, ServerConfig::new(OriginPolicy::Any));
        server.on_message(|message, context| _ = context.send(message));
        let address = server.listen("127.0.0.1:0")?;
        server.start_accept()?;

        let course = Arc::new(Course {
            event_loop: event_loop.handle(),
            is_busy: AtomicBool::new(false),
            sent: Mutex::default(),
            came_back: Mutex::default(),
            report: Mutex::default(),
        });
        let mut client = Client::on(event_loop, ClientConfig::new());
        client.on_open(open);
        let it = course.clone();
        client.on_message(move |message, context| it.message(message, context));
        let it = course.clone();
        client.on_close(move |ending, _| {
            it.close(ending);
            server.stop_listening(); // so that the loop runs out of work
        });
        client.on_fail(|failure, _| panic!("{failure}"));
        let connection = client.connect(format!("ws://{address}/").as_str())?;
        Ok(Self { connection, course })
    }

    /// Handles a tick of the host's timer, after each [`TICK`].
    ///
    /// A host calls this outside of the loop, and wakes it.
    pub fn tick(&self) {
        let is_busy = self.course.is_busy.load(Ordering::Relaxed);
        let kind = if is_busy { WHILE_BUSY } else { BY_HOST };
        let number = &mut lock(&self.course.sent)[kind];
        if self.connection.state() == State::Open && *number < SAID[kind].1 {
            self.connection.send(&*text(kind, *number)).expect("it is open");
            *number += 1;
        }
    }

    /// Prints the report.
    ///
    /// # Errors
    ///
    /// The workload is not over.
    pub fn report(&self) -> Result<(), Box<dyn Error>> {
        let report = lock(&self.course.report);
        report.iter().for_each(|line| println!("{line}"));
        if report.len() < 3 {
            return Err("the host has ended before the workload".into());
        }
        println!("out of work");
        Ok(())
    }
}

/// A kind of message.
fn text(kind: usize, number: usize) -> String {
    let rest = "-".repeat(if kind == LONG { LENGTH } else { 0 });
    format!("{} {number}{rest}", SAID[kind].0)
}

fn open(context: &mut Context<'_, Handlers>) {
    for kind in [IMMEDIATE, LONG] {
        for number in 0..SAID[kind].1 {
            context.send(&*text(kind, number)).expect("it is open");
        }
    }
    say_by_timer(0, context);
}

fn say_by_timer(number: usize, context: &mut Context<'_, Handlers>) {
    context.set_timer(PAUSE, move |_, context| {
        context.send(&*text(BY_TIMER, number)).expect("it is open");
        if number + 1 < SAID[BY_TIMER].1 {
            say_by_timer(number + 1, context);
        }
    });
}

impl Course {
    fn message(self: &Arc<Self>, message: Message<'_>, context: &mut Context<'_, Handlers>) {
        let mut came_back = lock(&self.came_back);
        // Messages of a kind come back in the order in which they were sent.
        let kind = (0..SAID.len())
            .find(|&kind| message.as_bytes() == text(kind, came_back[kind]).as_bytes())
            .expect("nothing else was sent");
        came_back[kind] += 1;
        let is_all = (0..WHILE_BUSY).all(|kind| came_back[kind] == SAID[kind].1);
        drop(came_back);
        if kind != WHILE_BUSY && is_all {
            self.is_busy.store(true, Ordering::Relaxed);
            self.be_busy(context.handle());
        }
    }

    /// A timer is always due, and the host must tick all the same.
    fn be_busy(self: &Arc<Self>, connection: Handle<Handlers>) {
        if *lock(&self.came_back) == SAID.map(|(_, said)| said) {
            let all = SAID.map(|(name, said)| format!("{said} {name}"));
            lock(&self.report).push(format!("came back: {}", all.join(", ")));
            return self.rest(connection);
        }
        let it = self.clone();
        self.event_loop
            .set_timer(Duration::ZERO, move || it.be_busy(connection))
            .expect("the loop calls this");
    }

    /// The quiet phase, and then the end.
    fn rest(self: &Arc<Self>, connection: Handle<Handlers>) {
        let (it, before) = (self.clone(), processor_time());
        let end = move || {
            let busy = processor_time() - before;
            assert!(busy < AT_REST, "the host does not sleep: it was busy for {busy:?}");
            lock(&it.report).push(format!("at rest for {QUIET:?}"));
            thread::spawn(move || connection.close(CloseCode::NORMAL, "good-bye"));
        };
        self.event_loop.set_timer(QUIET, end).expect("the loop calls this");
    }

    fn close(&self, ending: &Ending<'_>) {
        let code = ending.received.and_then(|close| close.code);
        let code = code.map_or_else(|| "no code".to_string(), |code| code.to_string());
        let how = if ending.clean { "cleanly" } else { "not cleanly" };
        let side = if ending.by == Party::Local { "client" } else { "server" };
        lock(&self.report).push(format!("closed {how}, by the {side}, with {code}"));
    }
}

/// The CPU time of this process.
fn processor_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().expect("it counts from zero")
}

/// A descriptor for the host's timer: readable, with eight bytes, after each [`TICK`].
///
/// # Errors
///
/// No descriptor is left.
pub fn ticker() -> io::Result<File> {
    let ticker = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
    let tick = Timespec::try_from(TICK).map_err(io::Error::other)?;
    let times = Itimerspec { it_interval: tick, it_value: tick };
    timerfd_settime(&ticker, TimerfdTimerFlags::empty(), &times)?;
    Ok(ticker.into())
}

/// A duration in whole milliseconds, rounded up, so that the host need not wait again.
#[must_use]
pub fn in_millis(timeout: Duration) -> u64 {
    u64::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Locks the mutex, also after a panic, which was reported.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
