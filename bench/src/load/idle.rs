//! Keeps connections open that are idle, or send few messages.

use std::collections::HashMap;
use std::io::{BufRead, stdin};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::arguments::Arguments;
use crate::connection::Connection;
use crate::deflate::{self, Agreed};
use crate::fault::Fault;
use crate::frames::{Content, Script};
use crate::handshake::Target;
use crate::random::Random;
use crate::{Failure, STALL};

/// The payload size of all messages, in bytes.
const SIZE: usize = 64;
const COMPRESSED_SIZE: usize = 4096;

/// The number of different scripts of compressed messages, which connections share.
const SCRIPTS: usize = 16;

/// File descriptors in addition to the connections: standard streams, epoll, and a reserve.
const OTHER_DESCRIPTORS: usize = 32;

/// The event data of standard input. That of a connection is its index.
const CONTROL: u64 = u64::MAX;

/// The parameters of the run.
pub(crate) struct Plan {
    target: Target,
    path: String,
    connections: usize,
    size: usize,
    /// The offered parameters of permessage-deflate.
    deflate: Option<String>,
    raw: bool,
    keep: Duration,
    touch: usize,
    control: bool,
}

impl Plan {
    pub(crate) fn parse(arguments: &mut Arguments) -> Result<Self, Failure> {
        let deflate: Option<String> = arguments.option("--deflate")?;
        let usual = if deflate.is_some() { COMPRESSED_SIZE } else { SIZE };
        Ok(Self {
            path: arguments.option("--path")?.unwrap_or_else(|| "/".to_owned()),
            connections: arguments.count("--connections", 1)?,
            size: arguments.option("--size")?.unwrap_or(usual),
            deflate,
            raw: arguments.flag("--raw"),
            keep: arguments.seconds("--keep", 10.0)?,
            touch: arguments.option("--touch")?.unwrap_or(0),
            control: arguments.flag("--control"),
            target: Target::parse(arguments)?,
        })
    }
}

/// The scripts of compressed messages, by what was agreed and their seed.
type Scripts = HashMap<(Agreed, usize), Rc<Script>>;

impl Plan {
    fn open(&self, index: usize, scripts: &mut Scripts) -> Result<Connection, Failure> {
        let Self { path, size, raw, .. } = self;
        let Some(offer) = &self.deflate else {
            let stream = self.target.open(path, *raw)?;
            let script = Script::new(Content::Binary, *size, 2, index, *raw);
            return Ok(Connection::new(stream, script));
        };
        let (stream, agreed) = self.target.open_compressed(path, *raw, offer)?;
        let seed = index % SCRIPTS;
        let script = scripts
            .entry((agreed, seed))
            .or_insert_with(|| deflate::script(agreed, *size, 1, seed, *raw).into());
        Ok(Connection::new(stream, script.clone()))
    }
}

/// Opens the connections, keeps them open, and reports how many are still open.
pub(crate) fn run(plan: &Plan) -> Result<(), Failure> {
    allow_descriptors(plan.connections + OTHER_DESCRIPTORS)?;
    let mut idle = Idle::open(plan)?;
    println!("ready");
    idle.keep(plan)?;
    println!(
        "{} of {} connections open, {} replies",
        idle.connections.iter().flatten().count(),
        plan.connections,
        idle.replies
    );
    Ok(())
}

/// Raises the soft limit of file descriptors of this process, if it is below `wanted`.
pub(crate) fn allow_descriptors(wanted: usize) -> Result<(), Failure> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = wanted as u64;
    if limit.current.is_some_and(|current| current < wanted) {
        if let Some(maximum) = limit.maximum
            && maximum < wanted
        {
            return Err(format!("{wanted} descriptors are needed, {maximum} are allowed").into());
        }
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit })?;
    }
    Ok(())
}

/// All connections. `None` is one that has ended.
struct Idle {
    epoll: OwnedFd,
    connections: Vec<Option<Connection>>,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
    replies: usize,
    random: Random,
}

impl Idle {
    fn open(plan: &Plan) -> Result<Self, Failure> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(plan.connections);
        let mut scripts = Scripts::default();
        for index in 0..plan.connections {
            let connection = plan
                .open(index, &mut scripts)
                .map_err(|failure| format!("connection {index}: {failure}"))?;
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            epoll::add(&epoll, &connection, epoll::EventData::new_u64(index as u64), flags)?;
            connections.push(Some(connection));
        }
        Ok(Self {
            epoll,
            connections,
            events: Vec::with_capacity(1024),
            buffer: vec![0; 64 * 1024],
            replies: 0,
            random: Random::new(0),
        })
    }

    /// Keeps the connections open until the time is over or a command ends the program.
    fn keep(&mut self, plan: &Plan) -> Result<(), Failure> {
        if plan.control {
            let data = epoll::EventData::new_u64(CONTROL);
            epoll::add(&self.epoll, stdin().as_fd(), data, epoll::EventFlags::IN)?;
        }
        let end = Instant::now() + plan.keep;
        let period = Duration::from_secs(1).checked_div(plan.touch as u32);
        let mut next_touch = Instant::now();
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            let mut until = end;
            if let Some(period) = period {
                while next_touch <= now {
                    self.touch()?;
                    next_touch += period;
                }
                until = until.min(next_touch);
            }
            if self.wait(until - now)? && !self.execute()? {
                return Ok(());
            }
        }
    }

    /// Sends a message on a random connection, unless that has outstanding replies.
    fn touch(&mut self) -> Result<(), Failure> {
        let index = self.random.below(self.connections.len());
        if let Some(connection) = &mut self.connections[index]
            && connection.outstanding() == 0
        {
            connection.ask(1);
            let outcome = connection.write();
            self.handle_outcome(index, outcome)?;
        }
        Ok(())
    }

    /// Executes a command from standard input. Returns whether to continue.
    fn execute(&mut self) -> Result<bool, Failure> {
        let mut line = String::new();
        // The controlling program sends complete lines, each after the output of the previous command.
        stdin().lock().read_line(&mut line)?;
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["echo", messages] => {
                let messages = messages.parse().map_err(|_| format!("not understood: {line}"))?;
                self.echo(messages)?;
                println!("echoed");
                Ok(true)
            }
            ["quit"] | [] => Ok(false),
            _ => Err(format!("not understood: {line}").into()),
        }
    }

    /// Sends `messages` messages on each connection, each after the reply to the previous one.
    fn echo(&mut self, messages: usize) -> Result<(), Failure> {
        for _ in 0..messages {
            for index in 0..self.connections.len() {
                if let Some(connection) = &mut self.connections[index] {
                    connection.ask(1);
                    let outcome = connection.write();
                    self.handle_outcome(index, outcome)?;
                }
            }
            let start = Instant::now();
            while self.connections.iter().flatten().any(|c| c.outstanding() > 0) {
                self.wait(Duration::from_millis(100))?;
                if start.elapsed() > STALL {
                    return Err("some replies did not come".into());
                }
            }
        }
        Ok(())
    }

    /// Waits for events once, for at most `time`, and handles them. Returns whether standard input is readable.
    fn wait(&mut self, time: Duration) -> Result<bool, Failure> {
        let time = Timespec::try_from(time)?;
        let mut events = core::mem::take(&mut self.events);
        events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&time)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut control = false;
        for event in &events {
            if event.data.u64() == CONTROL {
                control = true;
                continue;
            }
            let index = event.data.u64() as usize;
            let Some(connection) = &mut self.connections[index] else { continue };
            let replies = &mut self.replies;
            let outcome = connection.turn(&mut self.buffer, |complete| {
                *replies += complete;
                0
            });
            self.handle_outcome(index, outcome)?;
        }
        self.events = events;
        Ok(control)
    }

    /// Removes a connection that has ended. Another error ends the program.
    fn handle_outcome(&mut self, index: usize, outcome: Result<(), Fault>) -> Result<(), Failure> {
        match outcome {
            Ok(()) => Ok(()),
            Err(Fault::Closed | Fault::System(_)) => {
                self.connections[index] = None;
                Ok(())
            }
            Err(fault) => Err(format!("connection {index}: {fault}").into()),
        }
    }
}
