//! The server.

use std::collections::HashMap;
use std::fmt;
use std::io::{BufRead, stdin};
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyloop::endpoint::{Counters, HandlerFactory, Overflow};
use anyloop::event_loop::LoopHandle;
use anyloop::net::Server;
use anyloop::proto::handshake::OriginPolicy;
use anyloop::{EventLoop, ServerConfig};
use serde_json::json;

use crate::Failure;
use crate::arguments::Arguments;
use crate::feed::{Feed, PUSHERS, run_pusher};
use crate::heap;
use crate::numbered::Numbered;
use crate::peer::{Calls, Peer};

/// The limit of the send buffer of a connection, and the size at which it reports back-pressure, in bytes.
const CAP: usize = 1 << 20;
const HIGH: usize = CAP / 4;

/// A timeout that does not expire, even if the process is stopped during a handshake.
const LONG: Duration = Duration::from_secs(3600);

/// The close timeout for peers that never read.
const SHORT: Duration = Duration::from_millis(500);

/// The period of the timer that does not belong to a connection.
const TICK: Duration = Duration::from_millis(5);

/// The parameters of the server.
pub(crate) struct Plan {
    threads: usize,
    fault: Option<Fault>,
}

impl Plan {
    pub(crate) fn parse(arguments: &mut Arguments) -> Result<Self, Failure> {
        Ok(Self { threads: arguments.count("--threads", 2)?, fault: arguments.option("--fault")? })
    }
}

/// An error that the server makes on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A numbered message is accepted, and not sent.
    Gap,
    /// The last message of a connection is not sent: no message after it reveals the gap.
    Tail,
    /// A numbered message is sent twice.
    Twice,
    /// An echo lacks a byte.
    Byte,
    /// A file descriptor is leaked, for every 64th connection.
    Descriptor,
    /// 100 bytes are leaked, for each connection.
    Memory,
    /// A handler call is not counted.
    Count,
}

impl Fault {
    /// Whether the fault is repeated.
    fn is_constant(self) -> bool {
        matches!(self, Self::Descriptor | Self::Memory)
    }
}

impl FromStr for Fault {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Ok(match name {
            "gap" => Self::Gap,
            "tail" => Self::Tail,
            "twice" => Self::Twice,
            "byte" => Self::Byte,
            "descriptor" => Self::Descriptor,
            "memory" => Self::Memory,
            "count" => Self::Count,
            _ => return Err(()),
        })
    }
}

/// The record of a connection that has ended, which its client can query.
pub(crate) struct Record {
    pub(crate) is_clean: bool,
    pub(crate) received: u64,
    pub(crate) echoed: u64,
    pub(crate) feed: Option<Arc<Feed>>,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "over {} {} {}", u8::from(self.is_clean), self.received, self.echoed)?;
        let sent = self.feed.as_ref().map(|feed| feed.each(|stream| stream.sent.load(SeqCst)));
        sent.unwrap_or_default().iter().try_for_each(|sent| write!(f, " {sent}"))
    }
}

/// The state that all connections and threads of the server share.
pub(crate) struct Shared {
    pub(crate) numbered: Numbered,
    pub(crate) calls: Calls,
    pub(crate) high: usize,
    fault: Option<Fault>,
    committed: AtomicBool,
    stopping: AtomicBool,
    feeds: Mutex<Vec<Arc<Feed>>>,
    /// The records that were not queried yet.
    records: Mutex<HashMap<u64, Record>>,
    failures: Mutex<Vec<String>>,
    pub(crate) pushed: Totals,
}

/// Sums over all feeds.
#[derive(Default)]
pub(crate) struct Totals {
    /// The number of feeds that were started.
    pub(crate) begun: AtomicU64,
    /// The number of feeds that were dropped.
    pub(crate) over: AtomicU64,
    /// The number of messages sent on those.
    pub(crate) sent: AtomicU64,
}

impl Shared {
    fn new(fault: Option<Fault>) -> Self {
        Self {
            numbered: Numbered::new(),
            calls: Calls::default(),
            high: HIGH,
            fault,
            committed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            feeds: Mutex::default(),
            records: Mutex::default(),
            failures: Mutex::default(),
            pushed: Totals::default(),
        }
    }

    /// Counts a handler call.
    pub(crate) fn called(&self) {
        let calls = self.calls.all.fetch_add(1, SeqCst);
        if calls > 1000 && self.commits(Fault::Count) {
            self.calls.all.fetch_sub(1, SeqCst);
        }
    }

    /// Whether the caller must make this fault now.
    pub(crate) fn commits(&self, fault: Fault) -> bool {
        self.fault == Some(fault) && (fault.is_constant() || !self.committed.swap(true, SeqCst))
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    /// Records a violated condition. The program reports it at its end, and fails.
    pub(crate) fn fail(&self, what: &str) {
        let mut failures = lock(&self.failures);
        if failures.len() < 20 {
            failures.push(what.to_owned());
        }
    }

    pub(crate) fn feeds(&self) -> Vec<Arc<Feed>> {
        lock(&self.feeds).clone()
    }

    pub(crate) fn add_feed(&self, feed: Arc<Feed>) {
        lock(&self.feeds).push(feed);
    }

    pub(crate) fn remove_feed(&self, feed: &Arc<Feed>) {
        feed.end();
        lock(&self.feeds).retain(|other| !Arc::ptr_eq(other, feed));
    }

    pub(crate) fn add_record(&self, number: u64, record: Record) {
        if lock(&self.records).insert(number, record).is_some() {
            self.fail(&format!("connection {number} was closed twice"));
        }
    }

    pub(crate) fn take_record(&self, number: u64) -> Option<Record> {
        lock(&self.records).remove(&number)
    }
}

/// Runs the server until a command ends it, and checks the sums.
pub(crate) fn run(plan: &Plan) -> Result<(), Failure> {
    let event_loop = EventLoop::new()?;
    let shared = Arc::new(Shared::new(plan.fault));
    let patient = server(&event_loop, &shared, Overflow::Error, LONG)?;
    let strict = server(&event_loop, &shared, Overflow::Close, SHORT)?;
    println!("listening on {} {}", patient.1, strict.1);
    let servers = [patient.0, strict.0];
    let ticks = Arc::new(Ticks { shared: shared.clone(), event_loop: event_loop.handle() });
    event_loop.set_timer(TICK, {
        let ticks = ticks.clone();
        move || ticks.tick()
    });
    let runners: Vec<_> = (0..plan.threads)
        .map(|_| {
            let runs = event_loop.clone();
            thread::spawn(move || runs.run())
        })
        .collect();
    let pushers: Vec<_> = (0..PUSHERS)
        .map(|pusher| {
            let shared = shared.clone();
            thread::spawn(move || run_pusher(&shared, pusher))
        })
        .collect();
    for line in stdin().lock().lines() {
        match &*line? {
            "stats" => println!("{}", status(&servers, &shared)),
            "quit" => break,
            _ => return Err("`stats` or `quit`".into()),
        }
    }
    shared.stopping.store(true, SeqCst);
    for pusher in pushers {
        pusher.join().map_err(|_| "a pusher has panicked")?;
    }
    servers.iter().for_each(Server::shut_down);
    let mut ran = 0;
    for runner in runners {
        ran += runner.join().map_err(|_| "a runner has panicked")? as u64;
    }
    lock(&shared.records).clear();
    check(&servers, &shared, ran);
    println!("{}", status(&servers, &shared));
    let failures = lock(&shared.failures);
    failures.iter().for_each(|failure| eprintln!("server: {failure}"));
    if failures.is_empty() { Ok(()) } else { Err("the server is not content".into()) }
}

/// A server, and its address. `overflow` determines whether peers that read too slowly are disconnected.
fn server(
    event_loop: &EventLoop,
    shared: &Arc<Shared>,
    overflow: Overflow,
    close_timeout: Duration,
) -> Result<(Server<impl HandlerFactory<Handler = Peer> + use<>>, SocketAddr), Failure> {
    let config = ServerConfig::new(OriginPolicy::Any)
        .open_timeout(LONG)
        .close_timeout(close_timeout)
        .ping_interval(Duration::from_secs(1))
        .pong_timeout(LONG)
        .low_water_mark(HIGH / 4)
        .high_water_mark(HIGH)
        .max_send_buffer(CAP)
        .overflow(overflow);
    let of_handlers = shared.clone();
    let factory = move || Peer::new(of_handlers.clone());
    let server = Server::with_factory_on(event_loop, config, factory);
    let address = server.listen("127.0.0.1:0")?;
    server.start_accept()?;
    Ok((server, address))
}

/// A timer that does not belong to a connection, and another one that is canceled.
struct Ticks {
    shared: Arc<Shared>,
    event_loop: LoopHandle,
}

impl Ticks {
    fn tick(self: Arc<Self>) {
        self.shared.called();
        if self.shared.is_stopping() {
            return;
        }
        let shared = self.shared.clone();
        let cancelled = self.event_loop.set_timer_then(LONG, move |result| {
            shared.called();
            if result.is_ok() {
                shared.fail("a cancelled timer ran");
            }
        });
        match cancelled {
            Ok(timer) => timer.cancel(),
            Err(error) => self.shared.fail(&format!("no timer: {error}")),
        }
        let next = self.clone();
        if let Err(error) = self.event_loop.set_timer(TICK, move || next.tick()) {
            self.shared.fail(&format!("no timer: {error}"));
        }
    }
}

/// The current counters, as one line of JSON.
fn status<F: HandlerFactory<Handler = Peer>>(servers: &[Server<F>], shared: &Shared) -> String {
    let counters: Vec<Counters> = servers.iter().map(Server::counters).collect();
    let sum = |number: fn(&Counters) -> u64| counters.iter().map(number).sum::<u64>();
    let over = sum(|it| it.failed) + sum(|it| it.http) + sum(|it| it.closed);
    json!({
        "started": sum(|it| it.started),
        "alive": sum(|it| it.started).saturating_sub(over),
        "opened": sum(|it| it.opened),
        "failed": sum(|it| it.failed),
        "http": sum(|it| it.http),
        "received": shared.calls.messages.load(SeqCst),
        "sent": sum(|it| it.messages_sent),
        "calls": shared.calls.all.load(SeqCst),
        "feeds": shared.pushed.begun.load(SeqCst) - shared.pushed.over.load(SeqCst),
        "records": lock(&shared.records).len(),
        "heap": heap::in_use(),
    })
    .to_string()
}

/// Checks the sums when all connections have ended. `ran` is the number of handlers that the run calls report.
fn check<F: HandlerFactory<Handler = Peer>>(servers: &[Server<F>], shared: &Shared, ran: u64) {
    let counters: Vec<Counters> = servers.iter().map(Server::counters).collect();
    let sum = |number: fn(&Counters) -> u64| counters.iter().map(number).sum::<u64>();
    let calls = &shared.calls;
    let of = |count: &AtomicU64| count.load(SeqCst);
    let over = sum(|it| it.opened) + sum(|it| it.failed) + sum(|it| it.http);
    let equal = |what: &str, left: u64, right: u64| {
        if left != right {
            shared.fail(&format!("{what}: {left} and {right}"));
        }
    };
    equal("connections started, and opened, failed or answered", sum(|it| it.started), over);
    equal("connections opened and closed", sum(|it| it.opened), sum(|it| it.closed));
    equal("calls of `open` and `close`", of(&calls.opens), of(&calls.closes));
    equal("connections opened, and calls of `open`", sum(|it| it.opened), of(&calls.opens));
    equal("connections failed, and calls of `fail`", sum(|it| it.failed), of(&calls.fails));
    equal("messages received, and calls", sum(|it| it.messages_received), of(&calls.messages));
    equal("handlers called, and what `run` returned", of(&calls.all), ran);
    equal("feeds begun and over", of(&shared.pushed.begun), of(&shared.pushed.over));
    let left = servers.iter().map(|server| server.connections().len() as u64).sum();
    equal("connections left, and none", left, 0);
    if sum(|it| it.messages_sent) < of(&shared.pushed.sent) {
        shared.fail("more messages were pushed than sent");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
