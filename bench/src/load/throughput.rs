//! Measures the throughput of an echo server.

use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::Failure;
use crate::arguments::Arguments;
use crate::connection::Connection;
use crate::deflate;
use crate::frames::{Content, SMALL, Script};
use crate::handshake::Target;
use crate::measure::{LOOK, Limit, Measure, Phase, Progress, Unit};

/// The size of the read buffer that all connections share.
const BUFFER: usize = 256 * 1024;

/// The time of a wait that returns at once.
const NO_TIME: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// The parameters of the measurement.
pub(crate) struct Plan {
    target: Target,
    path: String,
    connections: usize,
    size: usize,
    depth: usize,
    content: Content,
    /// The offered parameters of permessage-deflate.
    deflate: Option<String>,
    raw: bool,
    spin: bool,
    measure: Measure,
}

impl Plan {
    pub(crate) fn parse(arguments: &mut Arguments) -> Result<Self, Failure> {
        let content = match (arguments.flag("--text"), arguments.flag("--mixed")) {
            (_, true) => Content::Mixed,
            (true, false) => Content::Ascii,
            (false, false) => Content::Binary,
        };
        Ok(Self {
            path: arguments.option("--path")?.unwrap_or_else(|| "/".to_owned()),
            connections: arguments.count("--connections", 1)?,
            size: arguments.option("--size")?.unwrap_or(64),
            depth: arguments.count("--depth", 1)?,
            content,
            deflate: arguments.option("--deflate")?,
            raw: arguments.flag("--raw"),
            spin: arguments.flag("--spin"),
            measure: Measure::parse(arguments)?,
            target: Target::parse(arguments)?,
        })
    }

    /// The number of messages in the script of a connection: at least as many as may be in flight, so that these all
    /// differ, and for small messages at least two, so that a stale reply is detected.
    fn cycle(&self) -> usize {
        if self.size <= SMALL { self.depth.max(2) } else { self.depth }
    }

    fn open(&self, index: usize) -> Result<Connection, Failure> {
        let Self { path, size, raw, .. } = self;
        let Some(offer) = &self.deflate else {
            let stream = self.target.open(path, *raw)?;
            let script = Script::new(self.content, *size, self.cycle(), index, *raw);
            return Ok(Connection::new(stream, script));
        };
        let (stream, agreed) = self.target.open_compressed(path, *raw, offer)?;
        let script = deflate::script(agreed, *size, self.cycle(), index, *raw);
        Ok(Connection::new(stream, script))
    }
}

/// Opens the connections, warms up, and measures.
pub(crate) fn run(plan: &Plan) -> Result<(), Failure> {
    let mut load = Load::open(plan)?;
    plan.measure.run(Unit("message", "messages"), |limit| load.phase(plan, limit))
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
            let connection =
                plan.open(index).map_err(|failure| format!("connection {index}: {failure}"))?;
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            epoll::add(&epoll, &connection, epoll::EventData::new_u64(index as u64), flags)?;
            connections.push(connection);
        }
        Ok(Self { epoll, connections, events: Vec::with_capacity(1024), buffer: vec![0; BUFFER] })
    }

    /// Keeps the plan's number of messages in flight on each connection until the limit is reached, and then receives
    /// the outstanding replies. Counts replies and received bytes.
    fn phase(&mut self, plan: &Plan, limit: Limit) -> Result<Phase, Failure> {
        let wait = if plan.spin { NO_TIME } else { LOOK };
        let earlier = self.received();
        let mut progress = Progress::new(limit);
        let mut outstanding = 0;
        for (index, connection) in self.connections.iter_mut().enumerate() {
            let messages = progress.take(plan.depth);
            outstanding += messages;
            connection.ask(messages);
            connection.write().map_err(|fault| format!("connection {index}: {fault}"))?;
        }
        let mut complete = 0;
        while outstanding > 0 {
            self.events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&wait)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            progress.tick();
            let before = complete;
            for event in &self.events {
                let index = event.data.u64() as usize;
                self.connections[index]
                    .turn(&mut self.buffer, |replies| {
                        let next = progress.take(replies);
                        complete += replies;
                        outstanding = outstanding + next - replies;
                        next
                    })
                    .map_err(|fault| format!("connection {index}: {fault}"))?;
            }
            if progress.is_stuck(complete > before) {
                let waiting = self.connections.iter().filter(|c| c.outstanding() > 0).count();
                return Err(format!(
                    "after {:?} and {complete} replies, {outstanding} are yet to come on {waiting} \
                     connections",
                    progress.elapsed()
                )
                .into());
            }
        }
        let received = Some(self.received() - earlier);
        Ok(Phase { received, ..Phase::new(complete, progress.elapsed()) })
    }

    /// The number of bytes that all connections have received.
    fn received(&self) -> u64 {
        self.connections.iter().map(Connection::received).sum()
    }
}
