//! Measures the opening and closing of connections, or the handshakes of TLS alone.

use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::Errno;

use crate::Failure;
use crate::arguments::Arguments;
use crate::frames;
use crate::handshake::{self, Target};
use crate::measure::{LOOK, Limit, Measure, Phase, Progress, Unit};
use crate::stream::{Received, Stream};

/// The size of the read buffer that all connections share.
const BUFFER: usize = 64 * 1024;

/// The payload of a Close frame: code 1000.
const NORMAL: [u8; 2] = 1000_u16.to_be_bytes();

/// The parameters of the measurement.
pub(crate) struct Plan {
    target: Target,
    path: String,
    connections: usize,
    raw: bool,
    /// End the stream after the handshake of TLS.
    handshake: bool,
    measure: Measure,
}

impl Plan {
    pub(crate) fn parse(arguments: &mut Arguments) -> Result<Self, Failure> {
        Ok(Self {
            path: arguments.option("--path")?.unwrap_or_else(|| "/".to_owned()),
            connections: arguments.count("--connections", 64)?,
            raw: arguments.flag("--raw"),
            handshake: arguments.flag("--handshake"),
            measure: Measure::parse(arguments)?,
            target: Target::parse(arguments)?,
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
    handshake: bool,
}

/// A connection between its start and the end of its stream.
struct Connection {
    stream: Stream,
    stage: Stage,
    /// The bytes received in this stage.
    received: Vec<u8>,
}

/// The event that a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The connection is established. Then it sends its request.
    Connecting,
    /// The handshake of TLS is complete. Then it ends its direction.
    Shaking,
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
    buffer: Vec<u8>,
    /// The number of sessions that were resumed in this phase.
    resumed: usize,
    /// A phase is over, so that there are sessions to resume.
    warm: bool,
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
            handshake: plan.handshake,
        };
        Ok(Self {
            target: &plan.target,
            exchange,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            slots: Vec::new(),
            events: Vec::with_capacity(1024),
            buffer: vec![0; BUFFER],
            resumed: 0,
            warm: false,
        })
    }

    /// Keeps `connections` connections active until the limit is reached, and then completes the active ones.
    /// Counts the connections that were opened and closed.
    fn phase(&mut self, connections: usize, limit: Limit) -> Result<Phase, Failure> {
        let mut progress = Progress::new(limit);
        self.resumed = 0;
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
        let (resumed, warm) = (self.resumed, std::mem::replace(&mut self.warm, true));
        if self.target.resumes() && warm && resumed < complete / 10 * 9 {
            return Err(format!("{resumed} of {complete} connections resumed a session").into());
        }
        Ok(Phase::new(complete, progress.elapsed()))
    }

    /// The number of connections in each stage, for an error.
    fn stages(&self) -> String {
        let at = |stage| self.slots.iter().flatten().filter(|c| c.stage == stage).count();
        use Stage::{Closing, Connecting, Ending, Shaking, Upgrading};

        let stages = [Connecting, Shaking, Upgrading, Closing, Ending];
        stages.map(|stage| format!("{} {stage:?}", at(stage))).join(", ")
    }

    /// Starts to connect in a slot.
    fn open(&mut self, slot: usize) -> Result<(), Failure> {
        let stream = self.target.connect()?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(slot as u64), flags)?;
        let received = Vec::new();
        self.slots[slot] = Some(Connection { stream, stage: Stage::Connecting, received });
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
            let outcome = connection.turn(&self.exchange, &mut self.buffer);
            if outcome.map_err(|failure| format!("{:?}: {failure}", connection.stage))? {
                self.resumed += usize::from(connection.stream.is_resumed());
                self.slots[index] = None;
                ended.push(index);
            }
        }
        Ok(ended)
    }
}

impl Connection {
    /// Handles an event of edge-triggered epoll. Returns whether the stream has ended.
    fn turn(&mut self, exchange: &Exchange, buffer: &mut [u8]) -> Result<bool, Failure> {
        if self.stage == Stage::Connecting && !self.begin(exchange)? {
            return Ok(false);
        }
        self.stream.flush()?;
        loop {
            match self.stream.recv(buffer)? {
                Received::End if self.stage == Stage::Ending => return Ok(true),
                Received::End => return Err("the server ended the stream".into()),
                Received::Bytes { length, .. } => {
                    self.received.extend_from_slice(&buffer[..length]);
                    self.advance(exchange)?;
                }
                Received::Blocked => return Ok(false),
            }
        }
    }

    /// Sends the request, or begins the handshake of TLS. Returns whether it is connected.
    fn begin(&mut self, exchange: &Exchange) -> Result<bool, Failure> {
        if exchange.handshake {
            self.stage = Stage::Shaking;
            self.stream.flush()?;
            self.advance(exchange)?;
            return Ok(true);
        }
        match self.stream.send(exchange.request.as_bytes())? {
            0 => return Ok(false),
            length if length == exchange.request.len() => self.stage = Stage::Upgrading,
            _ => return Err("the request was not taken whole".into()),
        }
        Ok(true)
    }

    /// Advances through the stages for which the bytes have arrived.
    fn advance(&mut self, exchange: &Exchange) -> Result<(), Failure> {
        if self.stage == Stage::Shaking && !self.stream.is_handshaking() {
            self.stream.finish()?;
            self.stage = Stage::Ending;
        }
        if self.stage == Stage::Upgrading {
            let Some(head) = handshake::head(&self.received, exchange.raw)? else { return Ok(()) };
            self.received.drain(..head);
            if self.stream.send(&exchange.close)? != exchange.close.len() {
                return Err("the Close was not taken".into());
            }
            self.stage = Stage::Closing;
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
