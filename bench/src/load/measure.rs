//! The duration and the report of measurements.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use serde_json::Value;

use crate::arguments::Arguments;
use crate::process::{self, Times};
use crate::{Failure, STALL};

/// How much longer than `--seconds` a phase may take to receive the last replies. With `--messages`, the maximum
/// duration of a phase.
const GRACE: Duration = Duration::from_secs(60);

/// The maximum time of a wait for events, after which progress is checked.
pub(crate) const LOOK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// What a phase has done.
pub(crate) struct Phase {
    /// The number of units.
    pub(crate) count: usize,
    /// The elapsed time.
    pub(crate) wall: Duration,
    /// The number of received bytes, if it was counted.
    pub(crate) received: Option<u64>,
}

impl Phase {
    pub(crate) fn new(count: usize, wall: Duration) -> Self {
        Self { count, wall, received: None }
    }
}

/// The counted unit: its singular and its plural.
pub(crate) struct Unit(pub(crate) &'static str, pub(crate) &'static str);

/// When to start no more units.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    Time(Duration),
    Count(usize),
}

/// The parameters of a measurement, from the command line.
pub(crate) struct Measure {
    limit: Limit,
    warmup: Duration,
    server: Option<u32>,
    json: bool,
}

impl Measure {
    pub(crate) fn parse(arguments: &mut Arguments) -> Result<Self, Failure> {
        let seconds = arguments.seconds("--seconds", 1.0)?;
        let limit = match arguments.option("--messages")? {
            Some(count) => Limit::Count(count),
            None => Limit::Time(seconds),
        };
        Ok(Self {
            limit,
            warmup: arguments.seconds("--warmup", 0.3)?,
            server: arguments.option("--server-pid")?,
            json: arguments.flag("--json"),
        })
    }

    /// Warms up, measures, and prints the results. `phase` runs until its limit is reached.
    pub(crate) fn run(
        &self,
        unit: Unit,
        mut phase: impl FnMut(Limit) -> Result<Phase, Failure>,
    ) -> Result<(), Failure> {
        if !self.warmup.is_zero() {
            phase(Limit::Time(self.warmup))?;
        }
        let times = || -> io::Result<_> {
            let server = self.server.map(process::times_at_rest).transpose()?;
            Ok((server, process::times(std::process::id())?))
        };
        let before = times()?;
        let phase = phase(self.limit)?;
        let after = times()?;
        let server = after.0.zip(before.0).map(|(after, before)| after - before);
        let figures = Figures { unit, phase, server, own: after.1 - before.1 };
        println!("{}", if self.json { figures.json() } else { figures.to_string() });
        Ok(())
    }
}

/// The progress of a phase: decides when to start no more units, and when to fail.
pub(crate) struct Progress {
    start: Instant,
    end: Option<Instant>,
    budget: usize,
    moved: Instant,
    now: Instant,
}

impl Progress {
    pub(crate) fn new(limit: Limit) -> Self {
        let start = Instant::now();
        let (end, budget) = match limit {
            Limit::Time(time) => (Some(start + time), usize::MAX),
            Limit::Count(count) => (None, count),
        };
        Self { start, end, budget, moved: start, now: start }
    }

    /// Returns how many of the `wanted` units may be started.
    pub(crate) fn take(&mut self, wanted: usize) -> usize {
        if self.end.is_some_and(|end| self.now >= end) {
            return 0;
        }
        let granted = wanted.min(self.budget);
        self.budget -= granted;
        granted
    }

    /// Reads the clock. To be called once after each wait.
    pub(crate) fn tick(&mut self) {
        self.now = Instant::now();
    }

    /// The time from the start to the last tick.
    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Whether to fail, since there is no progress or the phase takes too long. `moves` is whether there was progress
    /// in the last wait. To be called after a tick.
    pub(crate) fn is_stuck(&mut self, moves: bool) -> bool {
        if moves {
            self.moved = self.now;
        }
        self.now - self.moved > STALL || self.now > self.end.unwrap_or(self.start) + GRACE
    }
}

/// The results.
struct Figures {
    unit: Unit,
    phase: Phase,
    /// Of the server's process.
    server: Option<Times>,
    /// Of this process.
    own: Times,
}

impl Figures {
    fn rate(&self) -> f64 {
        self.phase.count as f64 / self.phase.wall.as_secs_f64()
    }

    /// The number of received bytes per unit.
    fn received(&self) -> Option<f64> {
        self.phase.received.map(|bytes| bytes as f64 / self.phase.count as f64)
    }

    /// The server's CPU time per unit, in microseconds.
    fn cost(&self) -> Option<f64> {
        self.server.map(|server| server.cpu.as_secs_f64() * 1e6 / self.phase.count as f64)
    }

    /// A JSON object in one line. A value that was not measured is `null`.
    fn json(&self) -> String {
        let Unit(one, several) = self.unit;
        let server = |time: fn(Times) -> Duration| self.server.map(|it| time(it).as_secs_f64());
        let mut object = serde_json::Map::new();
        let mut put = |name: String, value: Value| _ = object.insert(name, value);
        put(several.to_string(), self.phase.count.into());
        put("seconds".to_string(), self.phase.wall.as_secs_f64().into());
        put(format!("{several}_per_second"), self.rate().into());
        put("server_cpu_seconds".to_string(), server(|times| times.cpu).into());
        put("server_wait_seconds".to_string(), server(|times| times.wait).into());
        put("load_wait_seconds".to_string(), self.own.wait.as_secs_f64().into());
        put(format!("server_cpu_us_per_{one}"), self.cost().into());
        if let Some(bytes) = self.received() {
            put(format!("received_bytes_per_{one}"), bytes.into());
        }
        Value::Object(object).to_string()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unit(one, several) = self.unit;
        let (count, seconds) = (self.phase.count, self.phase.wall.as_secs_f64());
        write!(f, "{count} {several} in {seconds:.3} s, {:.0} {several}/s", self.rate())?;
        if let Some(bytes) = self.received() {
            write!(f, ", {bytes:.1} B received a {one}")?;
        }
        if let (Some(cost), Some(server)) = (self.cost(), self.server) {
            let busy = 100.0 * server.cpu.as_secs_f64() / seconds;
            write!(f, ", server CPU {cost:.4} µs a {one} ({busy:.0} % busy)")?;
        }
        Ok(())
    }
}
