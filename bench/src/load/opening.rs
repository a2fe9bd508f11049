//! Measures the opening and closing of connections.

use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::Failure;
use crate::arguments::Arguments;
use crate::frames;
use crate::handshake::{self, Target};
use crate::measure::{LOOK, Limit, Measure, Phase, Progress, Unit};

/// The maximum size of a response and the bytes that may follow it immediately.
const BUFFER: usize = 8192;

/// The payload of a Close frame: code 1000.
const NORMAL: [u8; 2] = 1000_u16.to_be_bytes();

/// The parameters of the measurement.
pub(crate) struct Plan {
    target: Target,
    path: String,
    connections: usize,
    raw: bool,
    measure: Measure,
}

impl Plan {
    pub(crate) fn parse(arguments: &mut Arguments) -> Result<Self, Failure> {
        Ok(Self {
            path: arguments.option("--path")?.unwrap_or_else(|| "/".to_owned()),
            connections: arguments.count("--connections", 64)?,
            raw: arguments.flag("--raw"),
            measure: Measure::parse(arguments)?,
            target: Target::parse(&arguments.last("the server's address")?)?,
        })
    }
}

/// Warms up and measures.
pub(crate) fn run(plan: &Plan) -> Result<(), Failure> {
    let mut load = Load::new(plan)?;
    plan.measure.run(Unit("connection", "connections"), |limit| load.phase(plan.connections, limit))
}

/// The bytes that each connection sends, and those that it must receive.
struct Exchange {
    request: String,
    close: Vec<u8>,
    reply: Vec<u8>,
    raw: bool,
}

/// A connection between its start and the end of its stream.
struct Connection {
    socket: OwnedFd,
    stage: Stage,
    /// The bytes received in this stage.
    received: Vec<u8>,
}

/// The event that a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The connection is established. Then it sends its request.
    Connecting,
    /// The response arrives. Then it sends its Close.
    Upgrading,
    /// The server's Close arrives.
    Closing,
    /// The stream ends. Then it closes its socket.
    Ending,
}

/// The current connections.
struct Load<'a> {
    target: &'a Target,
    exchange: Exchange,
    epoll: OwnedFd,
    slots: Vec<Option<Connection>>,
    events: Vec<epoll::Event>,
}

impl<'a> Load<'a> {
    fn new(plan: &'a Plan) -> Result<Self, Failure> {
        let mut close = Vec::new();
        frames::put(&mut close, 8, &NORMAL, Some([1, 2, 3, 4]));
        let mut reply = Vec::new();
        frames::put(&mut reply, 8, &NORMAL, None);
        let exchange = Exchange {
            request: handshake::request(&plan.target.host(), &plan.path),
            reply: if plan.raw { close.clone() } else { reply },
            close,
            raw: plan.raw,
        };
        Ok(Self {
            target: &plan.target,
            exchange,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            slots: Vec::new(),
            events: Vec::with_capacity(1024),
        })
    }

    /// Keeps `connections` connections active until the limit is reached, and then completes the active ones.
    /// Counts the connections that were opened and closed.
    fn phase(&mut self, connections: usize, limit: Limit) -> Result<Phase, Failure> {
        let mut progress = Progress::new(limit);
        self.slots.clear();
        self.slots.resize_with(progress.take(connections), || None);
        let (mut complete, mut outstanding) = (0, self.slots.len());
        for slot in 0..outstanding {
            self.open(slot)?;
        }
        while outstanding > 0 {
            let ended = self.wait()?;
            progress.tick();
            for &slot in &ended {
                complete += 1;
                match progress.take(1) {
                    0 => outstanding -= 1,
                    _ => self.open(slot)?,
                }
            }
            if progress.is_stuck(!ended.is_empty()) {
                return Err(format!(
                    "after {:?} and {complete} connections, {outstanding} do not go on: {}",
                    progress.elapsed(),
                    self.stages(),
                )
                .into());
            }
        }
        Ok(Phase::new(complete, progress.elapsed()))
    }

    /// The number of connections in each stage, for an error.
    fn stages(&self) -> String {
        let at = |stage| self.slots.iter().flatten().filter(|c| c.stage == stage).count();
        let stages = [Stage::Connecting, Stage::Upgrading, Stage::Closing, Stage::Ending];
        stages.map(|stage| format!("{} {stage:?}", at(stage))).join(", ")
    }

    /// Starts to connect in a slot.
    fn open(&mut self, slot: usize) -> Result<(), Failure> {
        let socket = self.target.connect()?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(slot as u64), flags)?;
        let received = Vec::with_capacity(BUFFER);
        self.slots[slot] = Some(Connection { socket, stage: Stage::Connecting, received });
        Ok(())
    }

    /// Waits for events once. Returns the slots whose connections have ended.
    fn wait(&mut self) -> Result<Vec<usize>, Failure> {
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&LOOK)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut ended = Vec::new();
        for event in &self.events {
            let index = event.data.u64() as usize;
            let Some(connection) = &mut self.slots[index] else { continue };
            let outcome = connection.turn(&self.exchange);
            if outcome.map_err(|failure| format!("{:?}: {failure}", connection.stage))? {
                self.slots[index] = None;
                ended.push(index);
            }
        }
        Ok(ended)
    }
}

impl Connection {
    /// Handles an event of edge-triggered epoll. Returns whether the stream has ended.
    fn turn(&mut self, exchange: &Exchange) -> Result<bool, Failure> {
        if self.stage == Stage::Connecting {
            match rustix::net::send(&self.socket, exchange.request.as_bytes(), SendFlags::NOSIGNAL)
            {
                Ok(length) if length == exchange.request.len() => self.stage = Stage::Upgrading,
                Ok(_) => return Err("the request was not taken whole".into()),
                Err(Errno::AGAIN) => return Ok(false),
                Err(errno) => return Err(errno.into()),
            }
        }
        loop {
            let room = spare_capacity(&mut self.received);
            match rustix::net::recv(&self.socket, room, RecvFlags::empty()) {
                Ok((_, 0)) if self.stage == Stage::Ending => return Ok(true),
                Ok((_, 0)) => return Err("the server ended the stream".into()),
                Ok(_) => self.advance(exchange)?,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Advances through the stages for which the bytes have arrived.
    fn advance(&mut self, exchange: &Exchange) -> Result<(), Failure> {
        if self.stage == Stage::Upgrading {
            let Some(head) = handshake::head(&self.received, exchange.raw)? else { return Ok(()) };
            self.received.drain(..head);
            match rustix::net::send(&self.socket, &exchange.close, SendFlags::NOSIGNAL) {
                Ok(length) if length == exchange.close.len() => self.stage = Stage::Closing,
                _ => return Err("the Close was not taken".into()),
            }
        }
        if self.stage == Stage::Closing && self.received.starts_with(&exchange.reply) {
            self.received.drain(..exchange.reply.len());
            self.stage = Stage::Ending;
        }
        let expected: &[u8] = if self.stage == Stage::Closing { &exchange.reply } else { &[] };
        if expected.starts_with(&self.received) {
            return Ok(());
        }
        Err(format!("{:02x?} came, not {expected:02x?}", self.received).into())
    }
}
