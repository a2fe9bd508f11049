//! The client: its threads and phases.

use std::io::stdin;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyloop_testkit::frames::TEXT;
use anyloop_testkit::wait::let_time_pass;

use crate::arguments::Arguments;
use crate::clean::{self, Lasting};
use crate::numbered::{Numbered, STREAMS};
use crate::random::Random;
use crate::wire::{Incoming, Wire};
use crate::{Failure, rough, slow};

/// The number of failures after which the run ends.
const MAX_FAILURES: usize = 20;

/// How often to repeat a question that the server cannot answer yet, once per millisecond. Questions are counted
/// instead of time, since time also passes while the processes are stopped.
const QUESTIONS: usize = 60_000;

/// The number of connections that stay open in all phases.
pub(crate) const LASTING: usize = 8;

/// The parameters of the client.
pub(crate) struct Plan {
    patient: SocketAddr,
    strict: SocketAddr,
    time: Duration,
    phases: usize,
    seed: u64,
    spared: Spared,
}

/// Behavior to leave out.
#[derive(Clone, Copy)]
pub(crate) struct Spared {
    /// Pongs after the client's own Close.
    pub(crate) pongs: bool,
    /// Filling the send buffer until messages are refused, on connections that must close cleanly.
    pub(crate) cap: bool,
}

impl Plan {
    pub(crate) fn parse(arguments: &mut Arguments) -> Result<Self, Failure> {
        let time = arguments.seconds("--seconds", 60.0)?;
        let phases = arguments.count("--phases", 10)?;
        let seed = arguments.option("--seed")?.unwrap_or(1);
        let pongs = arguments.flag("--spare-pongs");
        let spared = Spared { pongs, cap: arguments.flag("--spare-cap") };
        let strict = arguments.option("--strict")?.ok_or("--strict is missing")?;
        let patient = arguments.last("the server's address")?.parse()?;
        let is_here = |address: &SocketAddr| address.ip().is_loopback();
        if ![patient, strict].iter().all(is_here) {
            return Err("these are not loopback addresses".into());
        }
        Ok(Self { patient, strict, time, phases, seed, spared })
    }
}

/// The state that all threads of the client share.
pub(crate) struct World {
    /// The address at which slow readers stay connected.
    pub(crate) patient: SocketAddr,
    /// The address at which slow readers are disconnected.
    pub(crate) strict: SocketAddr,
    pub(crate) numbered: Numbered,
    seed: u64,
    pub(crate) spared: Spared,
    connections: AtomicU64,
    messages: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl World {
    fn fail(&self, failure: String) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        eprintln!("client: {failure}");
        failures.push(failure);
    }

    fn failures(&self) -> usize {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Adds to the number of checked messages.
    pub(crate) fn count(&self, messages: u64) {
        self.messages.fetch_add(messages, SeqCst);
    }

    fn figures(&self) -> String {
        let (connections, messages) = (self.connections.load(SeqCst), self.messages.load(SeqCst));
        serde_json::json!({ "connections": connections, "messages": messages }).to_string()
    }
}

/// A thread of the client, which runs a scenario repeatedly.
pub(crate) struct Actor<'w> {
    pub(crate) world: &'w World,
    pub(crate) random: Random,
    control: Wire,
}

/// The server's record of a connection that has ended.
pub(crate) struct Record {
    pub(crate) is_clean: bool,
    pub(crate) received: u64,
    pub(crate) echoed: u64,
    pub(crate) sent: [u64; STREAMS],
}

impl<'w> Actor<'w> {
    fn new(world: &'w World, seed: u64) -> Result<Self, Failure> {
        let mut control = Wire::open(world.patient, "/control/0", seed)?;
        control.spares_pongs = world.spared.pongs;
        world.connections.fetch_add(1, SeqCst);
        Ok(Self { world, random: Random::new(seed), control })
    }

    /// Opens a connection without a handshake.
    pub(crate) fn connect(&mut self, address: SocketAddr) -> Result<Wire, Failure> {
        self.world.connections.fetch_add(1, SeqCst);
        Wire::connect(address, self.random.next())
    }

    /// Opens a connection with this path. Also returns its unique number.
    pub(crate) fn open(
        &mut self,
        address: SocketAddr,
        path: impl FnOnce(u64) -> String,
    ) -> Result<(Wire, u64), Failure> {
        let number = self.world.connections.fetch_add(1, SeqCst) + 1;
        let mut wire = Wire::open(address, &path(number), self.random.next())?;
        wire.spares_pongs = self.world.spared.pongs;
        Ok((wire, number))
    }

    /// Opens a connection for which the server keeps no record.
    pub(crate) fn open_unrecorded(&mut self, path: &str) -> Result<Wire, Failure> {
        self.open(self.world.patient, |_| path.to_owned()).map(|(wire, _)| wire)
    }

    fn ask(&mut self, question: &str) -> Result<String, Failure> {
        self.control.send(TEXT, question.as_bytes())?;
        match self.control.next()? {
            Incoming::Message(answer) => Ok(str::from_utf8(answer)?.to_owned()),
            other => Err(format!("{other:?} came for an answer").into()),
        }
    }

    /// Repeats a question until the answer is not `not_yet`.
    fn wait(&mut self, question: &str, not_yet: &str) -> Result<String, Failure> {
        for _ in 0..QUESTIONS {
            let answer = self.ask(question)?;
            if answer != not_yet {
                return Ok(answer);
            }
            let_time_pass(Duration::from_millis(1), "the server does what it is asked about");
        }
        Err(format!("{question}: still {not_yet}").into())
    }

    /// Waits until the server's send buffer for this connection is as full as intended.
    pub(crate) fn wait_until_pressed(&mut self, number: u64) -> Result<(), Failure> {
        self.wait(&format!("pressed {number}"), "no").map(|_| ())
    }

    /// Waits for the end of this connection in the server. Returns its record.
    pub(crate) fn record(&mut self, number: u64) -> Result<Record, Failure> {
        let answer = self.wait(&format!("take {number}"), "wait")?;
        let words = answer.strip_prefix("over ").ok_or_else(|| format!("a record: {answer}"))?;
        let mut numbers = words.split(' ').map(str::parse);
        let mut next = || numbers.next().ok_or("a record is too short")?.map_err(Failure::from);
        let (is_clean, received, echoed) = (next()? == 1, next()?, next()?);
        Ok(Record { is_clean, received, echoed, sent: [next()?, next()?, next()?] })
    }

    fn end(mut self) -> Result<(), Failure> {
        self.control.send_close(1000)?;
        self.control.expect_close(1000)?;
        self.control.expect_eof()
    }
}

/// A scenario: opens a connection, uses it, and checks its end.
type Scene = fn(&mut Actor<'_>) -> Result<(), Failure>;

/// The scenarios of each phase. Each runs repeatedly on its own thread.
const SCENES: [(&str, Scene); 10] = [
    ("short", clean::short),
    ("short", clean::short),
    ("flow", clean::flow),
    ("flow", clean::flow),
    ("slow", slow::slow),
    ("slow", slow::slow),
    ("never", slow::never),
    ("abort", rough::abort),
    ("half-close", rough::half_close),
    ("garbage", rough::garbage),
];

/// Runs all phases.
pub(crate) fn run(plan: &Plan) -> Result<(), Failure> {
    let world = World {
        patient: plan.patient,
        strict: plan.strict,
        numbered: Numbered::new(),
        seed: plan.seed,
        spared: plan.spared,
        connections: AtomicU64::new(0),
        messages: AtomicU64::new(0),
        failures: Mutex::default(),
    };
    let mut lasting = (0..LASTING)
        .map(|index| {
            let number = world.connections.fetch_add(1, SeqCst) + 1;
            Lasting::open(&world, number, plan.seed + index as u64)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let begun = Instant::now();
    // Rests between phases do not count towards the duration.
    let mut rested = Duration::ZERO;
    for phase in 0..plan.phases {
        let end = begun + rested + plan.time * (phase as u32 + 1) / plan.phases as u32;
        run_phase(&world, phase as u64, end, &mut lasting);
        if world.failures() >= MAX_FAILURES {
            break;
        }
        println!("rest {LASTING}");
        let rests = Instant::now();
        stdin().read_line(&mut String::new())?;
        rested += rests.elapsed();
    }
    let mut last = Actor::new(&world, plan.seed)?;
    for connection in lasting {
        if let Err(failure) = connection.end(&mut last) {
            world.fail(format!("lasting: {failure}"));
        }
    }
    last.end()?;
    println!("done {}", world.figures());
    match world.failures() {
        0 => Ok(()),
        failures => Err(format!("{failures} failures").into()),
    }
}

/// Runs all scenarios concurrently until `end`. The connections in `lasting` stay open.
fn run_phase(world: &World, phase: u64, end: Instant, lasting: &mut [Lasting]) {
    let is_over = || Instant::now() >= end || world.failures() >= MAX_FAILURES;
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over() {
                if let Err(failure) = clean::echo(world, lasting) {
                    world.fail(format!("lasting: {failure}"));
                    return;
                }
            }
        });
        for (index, (name, scene)) in SCENES.into_iter().enumerate() {
            scope.spawn(move || {
                let seed = world.seed.wrapping_mul(7919) + phase * 100 + index as u64;
                let outcome = Actor::new(world, seed).and_then(|mut actor| {
                    while !is_over() {
                        if let Err(failure) = scene(&mut actor) {
                            world.fail(format!("{name}: {failure}"));
                        }
                    }
                    actor.end()
                });
                if let Err(failure) = outcome {
                    world.fail(format!("{name}: control: {failure}"));
                }
            });
        }
    });
}
