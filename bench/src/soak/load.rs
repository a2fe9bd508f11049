//! The client: its connections at a time, and its phases.

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

/// After so many failures it is given up.
const HOPELESS: usize = 20;

/// How often to ask the server for what it does not know yet, once a millisecond: time itself goes on
/// where the processes are stopped.
const QUESTIONS: usize = 60_000;

/// How many connections stay open all the time.
pub(crate) const LASTING: usize = 8;

/// What to do.
pub(crate) struct Plan {
    patient: SocketAddr,
    strict: SocketAddr,
    time: Duration,
    phases: usize,
    seed: u64,
    spared: Spared,
}

/// What is left out.
#[derive(Clone, Copy)]
pub(crate) struct Spared {
    /// Pongs behind the client's own Close.
    pub(crate) pongs: bool,
    /// That messages are refused for want of room, on connections that are to close cleanly.
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

/// What all threads of the client share.
pub(crate) struct World {
    /// Lets slow readers take their time.
    pub(crate) patient: SocketAddr,
    /// Closes them.
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

    /// So many messages were checked.
    pub(crate) fn count(&self, messages: u64) {
        self.messages.fetch_add(messages, SeqCst);
    }

    fn figures(&self) -> String {
        let (connections, messages) = (self.connections.load(SeqCst), self.messages.load(SeqCst));
        serde_json::json!({ "connections": connections, "messages": messages }).to_string()
    }
}

/// A thread of the client, which has one conversation after the other.
pub(crate) struct Actor<'w> {
    pub(crate) world: &'w World,
    pub(crate) random: Random,
    control: Wire,
}

/// What the server says of a connection that is over.
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

    /// A connection without a handshake.
    pub(crate) fn connect(&mut self, address: SocketAddr) -> Result<Wire, Failure> {
        self.world.connections.fetch_add(1, SeqCst);
        Wire::connect(address, self.random.next())
    }

    /// A connection with this path, and its number: no other has it.
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

    /// A connection for which the server writes no record.
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

    /// Asks until the answer is there.
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

    /// Waits until as much waits for this connection as is to.
    pub(crate) fn wait_until_pressed(&mut self, number: u64) -> Result<(), Failure> {
        self.wait(&format!("pressed {number}"), "no").map(|_| ())
    }

    /// What the server says of this connection, once it is over.
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

/// A kind of conversation.
type Scene = fn(&mut Actor<'_>) -> Result<(), Failure>;

/// What is there in each phase: a thread for each.
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

/// Runs all the phases.
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
    // Rests are not counted.
    let mut rested = Duration::ZERO;
    for phase in 0..plan.phases {
        let end = begun + rested + plan.time * (phase as u32 + 1) / plan.phases as u32;
        run_phase(&world, phase as u64, end, &mut lasting);
        if world.failures() >= HOPELESS {
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

/// Has everything go on at a time until then, and then come to an end but for what lasts.
fn run_phase(world: &World, phase: u64, end: Instant, lasting: &mut [Lasting]) {
    let is_over = || Instant::now() >= end || world.failures() >= HOPELESS;
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
