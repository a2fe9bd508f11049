//! Messages as fast as the server returns them.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::arguments::Arguments;
use crate::connection::Connection;
use crate::frames::{Content, SMALL, Script};
use crate::handshake::Target;
use crate::process::{self, Times};
use crate::{Failure, STALL};

/// The size of the buffer that all connections read into.
const BUFFER: usize = 256 * 1024;

/// How much longer than planned a run by time may take, to receive the last replies; and how long a
/// run by messages.
const GRACE: Duration = Duration::from_secs(60);

/// How often to look whether anything moves, when nothing does.
const LOOK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// What to do.
pub(crate) struct Plan {
    target: Target,
    path: String,
    connections: usize,
    size: usize,
    depth: usize,
    content: Content,
    raw: bool,
    limit: Limit,
    warmup: Duration,
    server: Option<u32>,
    /// Whether to print JSON.
    pub(crate) json: bool,
}

/// When to send no more.
#[derive(Clone, Copy)]
enum Limit {
    Time(Duration),
    Messages(usize),
}

impl Plan {
    pub(crate) fn parse(arguments: &mut Arguments) -> Result<Self, Failure> {
        let content = match (arguments.flag("--text"), arguments.flag("--mixed")) {
            (_, true) => Content::Mixed,
            (true, false) => Content::Ascii,
            (false, false) => Content::Binary,
        };
        let seconds = arguments.seconds("--seconds", 1.0)?;
        let limit = match arguments.option("--messages")? {
            Some(messages) => Limit::Messages(messages),
            None => Limit::Time(seconds),
        };
        Ok(Self {
            path: arguments.option("--path")?.unwrap_or_else(|| "/".to_owned()),
            connections: arguments.count("--connections", 1)?,
            size: arguments.option("--size")?.unwrap_or(64),
            depth: arguments.count("--depth", 1)?,
            content,
            raw: arguments.flag("--raw"),
            limit,
            warmup: arguments.seconds("--warmup", 0.3)?,
            server: arguments.option("--server-pid")?,
            json: arguments.flag("--json"),
            target: Target::parse(&arguments.last("the server's address")?)?,
        })
    }

    /// How many messages the cycle of a connection has: at least those that may be in flight, so that
    /// none of them is like another; of small ones at least two, so that a stale reply is noticed.
    fn cycle(&self) -> usize {
        if self.size <= SMALL { self.depth.max(2) } else { self.depth }
    }
}

/// What was measured.
pub(crate) struct Figures {
    messages: usize,
    wall: Duration,
    /// The server's.
    server: Option<Times>,
    /// This program's own.
    own: Times,
}

impl Figures {
    fn rate(&self) -> f64 {
        self.messages as f64 / self.wall.as_secs_f64()
    }

    /// The server's CPU time for a message, in microseconds.
    fn cost(&self) -> Option<f64> {
        self.server.map(|server| server.cpu.as_secs_f64() * 1e6 / self.messages as f64)
    }

    /// An object in one line. What was not measured is `null`.
    pub(crate) fn json(&self) -> String {
        let number =
            |value: Option<f64>| value.map_or_else(|| "null".to_owned(), |n| format!("{n:.6}"));
        let server = |time: fn(Times) -> Duration| {
            number(self.server.map(|server| time(server).as_secs_f64()))
        };
        format!(
            "{{\"messages\": {}, \"seconds\": {:.6}, \"messages_per_second\": {:.1}, \
             \"server_cpu_seconds\": {}, \"server_wait_seconds\": {}, \
             \"load_wait_seconds\": {:.6}, \"server_cpu_us_per_message\": {}}}",
            self.messages,
            self.wall.as_secs_f64(),
            self.rate(),
            server(|times| times.cpu),
            server(|times| times.wait),
            self.own.wait.as_secs_f64(),
            number(self.cost()),
        )
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (messages, seconds) = (self.messages, self.wall.as_secs_f64());
        write!(f, "{messages} messages in {seconds:.3} s, {:.0} messages/s", self.rate())?;
        if let (Some(cost), Some(server)) = (self.cost(), self.server) {
            let busy = 100.0 * server.cpu.as_secs_f64() / seconds;
            write!(f, ", server CPU {cost:.4} µs a message ({busy:.0} % busy)")?;
        }
        Ok(())
    }
}

/// Opens the connections, warms up, measures.
pub(crate) fn run(plan: &Plan) -> Result<Figures, Failure> {
    let mut load = Load::open(plan)?;
    if !plan.warmup.is_zero() {
        load.phase(plan.depth, Limit::Time(plan.warmup))?;
    }
    let times = || -> io::Result<_> {
        let server = plan.server.map(process::times_at_rest).transpose()?;
        Ok((server, process::times(std::process::id())?))
    };
    let before = times()?;
    let (messages, wall) = load.phase(plan.depth, plan.limit)?;
    let after = times()?;
    let server = after.0.zip(before.0).map(|(after, before)| after - before);
    Ok(Figures { messages, wall, server, own: after.1 - before.1 })
}

/// All connections.
struct Load {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
}

impl Load {
    fn open(plan: &Plan) -> Result<Self, Failure> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(plan.connections);
        for index in 0..plan.connections {
            let socket = plan
                .target
                .open(&plan.path, plan.raw)
                .map_err(|failure| format!("connection {index}: {failure}"))?;
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            epoll::add(&epoll, &socket, epoll::EventData::new_u64(index as u64), flags)?;
            let script = Script::new(plan.content, plan.size, plan.cycle(), index, plan.raw);
            connections.push(Connection::new(socket, script));
        }
        Ok(Self { epoll, connections, events: Vec::with_capacity(1024), buffer: vec![0; BUFFER] })
    }

    /// Keeps `depth` messages in flight on every connection until the limit is reached, then receives
    /// what is still to come. Says how many replies came, and how long that took.
    fn phase(&mut self, depth: usize, limit: Limit) -> Result<(usize, Duration), Failure> {
        let start = Instant::now();
        let (end, mut budget) = match limit {
            Limit::Time(time) => (Some(start + time), usize::MAX),
            Limit::Messages(messages) => (None, messages),
        };
        let give_up = end.unwrap_or(start) + GRACE;
        let mut take = |wanted: usize| {
            let granted = wanted.min(budget);
            budget -= granted;
            granted
        };
        let mut outstanding = 0;
        for (index, connection) in self.connections.iter_mut().enumerate() {
            let messages = take(depth);
            outstanding += messages;
            connection.ask(messages);
            connection.write().map_err(|fault| format!("connection {index}: {fault}"))?;
        }
        let (mut complete, mut moved, mut now) = (0, start, start);
        while outstanding > 0 {
            self.events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&LOOK)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            now = Instant::now();
            let over = end.is_some_and(|end| now >= end);
            let before = complete;
            for event in &self.events {
                let index = event.data.u64() as usize;
                self.connections[index]
                    .turn(&mut self.buffer, |replies| {
                        let next = if over { 0 } else { take(replies) };
                        complete += replies;
                        outstanding = outstanding + next - replies;
                        next
                    })
                    .map_err(|fault| format!("connection {index}: {fault}"))?;
            }
            if complete > before {
                moved = now;
            }
            if now - moved > STALL || now > give_up {
                let waiting = self.connections.iter().filter(|c| c.outstanding() > 0).count();
                return Err(format!(
                    "after {:?} and {complete} replies, {outstanding} are yet to come on {waiting} \
                     connections",
                    now - start
                )
                .into());
            }
        }
        Ok((complete, now - start))
    }
}
