//! Measures broadcasts: one connection sends messages, and the server delivers them to all.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::Errno;

use crate::Failure;
use crate::arguments::Arguments;
use crate::connection::Connection;
use crate::frames::{Content, Script};
use crate::handshake::Target;
use crate::measure::{LOOK, Limit, Measure, Phase, Progress, Unit};

/// The size of the read buffer that all connections share.
const BUFFER: usize = 64 * 1024;

/// The minimum number of messages before payloads repeat, so that a lost or duplicated message is detected.
const CYCLE: usize = 32;

/// The parameters of the measurement.
pub(crate) struct Plan {
    target: Target,
    path: String,
    connections: usize,
    size: usize,
    depth: usize,
    raw: bool,
    measure: Measure,
}

impl Plan {
    pub(crate) fn parse(arguments: &mut Arguments) -> Result<Self, Failure> {
        Ok(Self {
            path: arguments.option("--path")?.unwrap_or_else(|| "/broadcast".to_owned()),
            connections: arguments.count("--connections", 500)?,
            size: arguments.option("--size")?.unwrap_or(64),
            depth: arguments.count("--depth", 1)?,
            raw: arguments.flag("--raw"),
            measure: Measure::parse(arguments)?,
            target: Target::parse(arguments)?,
        })
    }
}

/// Opens the connections, warms up, and measures.
pub(crate) fn run(plan: &Plan) -> Result<(), Failure> {
    let mut load = Load::open(plan)?;
    plan.measure.run(Unit("delivery", "deliveries"), |limit| load.phase(plan.depth, limit))
}

/// All connections. The first one sends.
struct Load {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
}

impl Load {
    fn open(plan: &Plan) -> Result<Self, Failure> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let cycle = plan.depth.max(CYCLE);
        let script = Rc::new(Script::new(Content::Binary, plan.size, cycle, 0, plan.raw));
        let mut connections = Vec::with_capacity(plan.connections);
        for index in 0..plan.connections {
            let stream = plan
                .target
                .open(&plan.path, plan.raw)
                .map_err(|failure| format!("connection {index}: {failure}"))?;
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            epoll::add(&epoll, &stream, epoll::EventData::new_u64(index as u64), flags)?;
            connections.push(Connection::new(stream, script.clone()));
        }
        Ok(Self { epoll, connections, events: Vec::with_capacity(1024), buffer: vec![0; BUFFER] })
    }

    /// Sends `depth` messages in one write, and the next ones when all connections have received these, until
    /// the limit is reached. Counts deliveries.
    fn phase(&mut self, depth: usize, limit: Limit) -> Result<Phase, Failure> {
        let mut progress = Progress::new(limit);
        let mut complete = 0;
        loop {
            let messages = progress.take(depth);
            if messages == 0 {
                return Ok(Phase::new(complete, progress.elapsed()));
            }
            self.send(messages)?;
            let mut outstanding = messages * self.connections.len();
            while outstanding > 0 {
                let deliveries = self.receive()?;
                progress.tick();
                outstanding -= deliveries;
                complete += deliveries;
                if progress.is_stuck(deliveries > 0) {
                    let waiting = self.connections.iter().filter(|c| c.outstanding() > 0).count();
                    return Err(format!(
                        "after {:?} and {complete} deliveries, {outstanding} are yet to come on \
                         {waiting} connections: does the server broadcast at this path?",
                        progress.elapsed()
                    )
                    .into());
                }
            }
        }
    }

    /// Sends messages on the first connection. All connections expect them.
    fn send(&mut self, messages: usize) -> Result<(), Failure> {
        let (sender, others) = self.connections.split_first_mut().ok_or("no connection")?;
        for connection in others {
            connection.expect(messages);
        }
        sender.ask(messages);
        Ok(sender.write()?)
    }

    /// Waits for events once. Returns the number of deliveries.
    fn receive(&mut self) -> Result<usize, Failure> {
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&LOOK)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut deliveries = 0;
        for event in &self.events {
            let index = event.data.u64() as usize;
            self.connections[index]
                .turn(&mut self.buffer, |complete| {
                    deliveries += complete;
                    0
                })
                .map_err(|fault| format!("connection {index}: {fault}"))?;
        }
        Ok(deliveries)
    }
}
