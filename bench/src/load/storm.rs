//! Measures the latency of open connections, at rest and while many others shake hands at once.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use serde_json::json;

use crate::arguments::Arguments;
use crate::connection::Connection;
use crate::frames::{Content, Script};
use crate::handshake::Target;
use crate::idle::allow_descriptors;
use crate::measure::LOOK;
use crate::stream::{Received, Stream};
use crate::{Failure, STALL};

/// The size of the read buffer that all connections share.
const BUFFER: usize = 64 * 1024;

/// The number of messages before payloads repeat.
const CYCLE: usize = 8;

/// File descriptors in addition to the connections.
const OTHER_DESCRIPTORS: usize = 32;

/// How much later than the kernel's default the storm's thread runs (0 to 19).
const NICE: i32 = 19;

/// The parameters of the measurement.
pub(crate) struct Plan {
    target: Target,
    path: String,
    connections: usize,
    handshakes: usize,
    size: usize,
    rate: usize,
    rest: Duration,
    json: bool,
}

impl Plan {
    pub(crate) fn parse(arguments: &mut Arguments) -> Result<Self, Failure> {
        Ok(Self {
            path: arguments.option("--path")?.unwrap_or_else(|| "/".to_owned()),
            connections: arguments.count("--connections", 200)?,
            handshakes: arguments.count("--handshakes", 2000)?,
            size: arguments.option("--size")?.unwrap_or(64),
            rate: arguments.count("--rate", 10_000)?,
            rest: arguments.seconds("--seconds", 1.0)?,
            json: arguments.flag("--json"),
            target: Target::parse(arguments)?,
        })
    }
}

/// Measures at rest, and then in a storm. Prints both.
pub(crate) fn run(plan: &Plan) -> Result<(), Failure> {
    allow_descriptors(plan.connections + plan.handshakes + OTHER_DESCRIPTORS)?;
    let mut load = Load::open(plan)?;
    load.measure(plan.rate, |elapsed| elapsed >= plan.rest)?; // warms up
    let rest = load.measure(plan.rate, |elapsed| elapsed >= plan.rest)?;

    let mut storm = Storm::connect(plan)?;
    let complete = AtomicUsize::new(0);
    let (storm, took) = thread::scope(|scope| {
        let shaking = scope.spawn(|| {
            let start = Instant::now();
            // The connections that are measured come first.
            let _ = rustix::process::nice(NICE);
            let outcome = storm.shake(&complete).map_err(|failure| failure.to_string());
            complete.store(plan.handshakes, Ordering::Relaxed);
            outcome.map(|()| start.elapsed())
        });
        let done = |_| complete.load(Ordering::Relaxed) >= plan.handshakes;
        let measured = load.measure(plan.rate, done);
        let took = shaking.join().map_err(|_| "the thread of the storm has panicked")??;
        Ok::<_, Failure>((measured?, took))
    })?;
    let report = Report { rest, storm, handshakes: plan.handshakes, took };
    println!("{}", if plan.json { report.json() } else { report.to_string() });
    Ok(())
}

/// The open connections, and when the messages were due whose replies have not arrived.
struct Load {
    epoll: OwnedFd,
    connections: Vec<(Connection, VecDeque<Instant>)>,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
}

impl Load {
    fn open(plan: &Plan) -> Result<Self, Failure> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(plan.connections);
        for index in 0..plan.connections {
            let stream = plan
                .target
                .open(&plan.path, false)
                .map_err(|failure| format!("connection {index}: {failure}"))?;
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            epoll::add(&epoll, &stream, epoll::EventData::new_u64(index as u64), flags)?;
            let script = Script::new(Content::Binary, plan.size, CYCLE, index, false);
            connections.push((Connection::new(stream, script), VecDeque::new()));
        }
        Ok(Self { epoll, connections, events: Vec::with_capacity(1024), buffer: vec![0; BUFFER] })
    }

    /// Sends messages at a rate, on one connection after the other, until `is_enough` of the elapsed time. Returns the
    /// latencies, each from when the message was due.
    fn measure(
        &mut self,
        rate: usize,
        is_enough: impl Fn(Duration) -> bool,
    ) -> Result<Latencies, Failure> {
        let (start, mut sent, mut latencies) = (Instant::now(), 0, Vec::new());
        let mut moved = start;
        loop {
            let now = Instant::now();
            let enough = sent > 0 && is_enough(now - start);
            let due = |sent: usize| start + Duration::from_secs_f64(sent as f64 / rate as f64);
            while !enough && due(sent) <= now {
                let count = self.connections.len();
                let (connection, waiting) = &mut self.connections[sent % count];
                waiting.push_back(due(sent));
                connection.ask(1);
                connection.write()?;
                sent += 1;
            }
            if enough && latencies.len() == sent {
                return Ok(Latencies::new(latencies));
            }
            let before = latencies.len();
            let next = if enough { Duration::from_millis(10) } else { due(sent) - now };
            self.receive(next, &mut latencies)?;
            if latencies.len() > before {
                moved = Instant::now();
            } else if moved.elapsed() > STALL {
                return Err(format!("{} replies did not come", sent - latencies.len()).into());
            }
        }
    }

    /// Waits for replies once, and notes their latencies.
    fn receive(&mut self, time: Duration, latencies: &mut Vec<Duration>) -> Result<(), Failure> {
        self.events.clear();
        let time = Timespec::try_from(time)?;
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&time)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let now = Instant::now();
        for event in &self.events {
            let (connection, waiting) = &mut self.connections[event.data.u64() as usize];
            connection.turn(&mut self.buffer, |replies| {
                latencies.extend(waiting.drain(..replies).map(|due| now - due));
                0
            })?;
        }
        Ok(())
    }
}

/// Connections whose handshakes begin at once.
struct Storm {
    epoll: OwnedFd,
    streams: Vec<Stream>,
    buffer: Vec<u8>,
}

impl Storm {
    /// Connects. The first messages of the handshakes are made, and not sent.
    fn connect(plan: &Plan) -> Result<Self, Failure> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut streams = Vec::with_capacity(plan.handshakes);
        for index in 0..plan.handshakes {
            let stream = plan.target.connect()?;
            if !stream.is_handshaking() {
                return Err("a storm of handshakes needs --tls".into());
            }
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            epoll::add(&epoll, &stream, epoll::EventData::new_u64(index as u64), flags)?;
            streams.push(stream);
        }
        Ok(Self { epoll, streams, buffer: vec![0; BUFFER] })
    }

    /// Completes all handshakes, and counts them.
    fn shake(&mut self, complete: &AtomicUsize) -> Result<(), Failure> {
        for stream in &mut self.streams {
            stream.flush()?;
        }
        let (mut count, mut events) = (0, Vec::<epoll::Event>::with_capacity(1024));
        while count < self.streams.len() {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&LOOK)) {
                Ok(0) => return Err(format!("{count} handshakes, and no more go on").into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            for event in &events {
                let stream = &mut self.streams[event.data.u64() as usize];
                if !stream.is_handshaking() {
                    continue; // tickets
                }
                stream.flush()?;
                if matches!(stream.recv(&mut self.buffer)?, Received::End) {
                    return Err(format!("{count} handshakes, and the server has ended one").into());
                }
                count += usize::from(!stream.is_handshaking());
            }
            complete.store(count, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Latencies in ascending order.
struct Latencies(Vec<Duration>);

impl Latencies {
    fn new(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        Self(all)
    }

    /// Microseconds that so many thousandths of the messages do not exceed.
    fn at(&self, thousandths: usize) -> f64 {
        let index = (self.0.len() * thousandths).div_ceil(1000).saturating_sub(1);
        self.0.get(index).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e6)
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "messages": self.0.len(), "p50_us": self.at(500), "p99_us": self.at(990),
            "p999_us": self.at(999), "max_us": self.at(1000),
        })
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(all) = self;
        write!(
            f,
            "{:6} messages, p50 {:.0} µs, p99 {:.0} µs",
            all.len(),
            self.at(500),
            self.at(990)
        )?;
        write!(f, ", p99.9 {:.0} µs, maximum {:.0} µs", self.at(999), self.at(1000))
    }
}

struct Report {
    rest: Latencies,
    storm: Latencies,
    handshakes: usize,
    took: Duration,
}

impl Report {
    fn json(&self) -> String {
        json!({
            "rest": self.rest.json(), "storm": self.storm.json(), "handshakes": self.handshakes,
            "storm_seconds": self.took.as_secs_f64(),
        })
        .to_string()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rest, storm, handshakes, took } = self;
        writeln!(f, "at rest:  {rest}")?;
        writeln!(f, "in storm: {storm}")?;
        write!(f, "{handshakes} handshakes in {:.3} s", took.as_secs_f64())
    }
}
