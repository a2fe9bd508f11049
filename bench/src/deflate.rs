//! permessage-deflate in memory, without sockets: what a message costs, and what a connection holds.
//!
//! ```text
//! deflate                                       measures all modes, levels and sizes, interleaved; prints medians
//! deflate check                                 runs them once, without measuring
//! deflate one MODE LEVEL SIZE encode|decode N   N messages, to count instructions by a difference of runs
//! ```
//!
//! The connections are those of the core, agreed on as a browser and a server would. *Encode* is all that sending a
//! message costs the server, *decode* all that receiving one from a client of the same mode costs it. The time is
//! that of the thread on a processor.

#[path = "../../anyloop/tests/memory/heap.rs"]
mod heap;
#[path = "load/random.rs"]
mod random;
#[allow(dead_code, reason = "`codec` needs more of it")]
mod table;
mod text;

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyloop_proto::deflate::Deflate;
use anyloop_proto::extension::Contexts;
use anyloop_proto::handshake::{Codec, Negotiator, Params};
use anyloop_proto::{BufferPool, Config, Connection, Event, Input, Instant, Message, Output, Role};
use rustix::time::{ClockId, clock_gettime};

use text::Texts;

/// An error that ends the program. Its text is a sentence.
type Failure = Box<dyn std::error::Error>;

/// The number of rounds. A round runs each case once, and each result is the median over all rounds.
const ROUNDS: usize = 9;

/// The bytes of text in a round.
const ROUND: usize = 1 << 20;

/// The sizes of messages in bytes.
const SIZES: [usize; 2] = [4096, 219];

const NOW: Instant = Instant::from_nanos(1);

const LEVELS: [u8; 2] = [6, 1];

const MODES: [(&str, Deflate); 3] = [
    ("pooled", Deflate::pooled()),
    ("no-takeover", Deflate::no_takeover()),
    ("dedicated", Deflate::dedicated()),
];

/// The number of connections whose memory is counted.
const CONNECTIONS: usize = 64;

/// The number of messages that each of them receives and sends.
const EACH: usize = 10;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        [] => run(ROUNDS),
        ["check"] => run(1),
        ["one", mode, level, size, direction, count] => one(mode, level, size, direction, count),
        _ => Err("usage: deflate [check | one MODE LEVEL SIZE encode|decode N]".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("deflate: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Measures all cases, and prints a row for each.
fn run(rounds: usize) -> Result<(), Failure> {
    println!("  size  mode         level   out B  ratio  encode µs  decode µs  held B");
    for size in SIZES {
        let mut texts = Texts::new(1);
        let texts: Vec<_> = (0..ROUND / size).map(|_| texts.next(size)).collect();
        let mut cases = Vec::new();
        for (mode, deflate) in MODES {
            for level in LEVELS {
                cases.push(Case::new(mode, level, deflate.level(level))?);
            }
        }
        for _ in 0..rounds {
            for case in &mut cases {
                case.round(&texts)?;
            }
        }
        for case in cases {
            let (mode, level, out) = (case.mode, case.level, case.sent);
            let (ratio, held) = (out / size as f64, held(case.deflate, &texts)?);
            let [encode, decode] = [case.encode, case.decode].map(table::median);
            println!(
                "{size:6}  {mode:12} {level:4}  {out:6.1}  {ratio:5.3}  {encode:9.2}  {decode:9.2}  {held:6}"
            );
        }
    }
    Ok(())
}

/// A mode and a level under measurement.
struct Case {
    mode: &'static str,
    level: u8,
    deflate: Deflate,
    pair: Pair,
    memory: Memory,
    /// Microseconds for each message, of each round.
    encode: Vec<f64>,
    decode: Vec<f64>,
    /// The bytes of a message in the last round, with the header of the frame.
    sent: f64,
}

impl Case {
    fn new(mode: &'static str, level: u8, deflate: Deflate) -> Result<Self, Failure> {
        Ok(Self {
            mode,
            level,
            deflate,
            pair: Pair::new(deflate, &Arc::default())?,
            memory: Memory::new(),
            encode: Vec::new(),
            decode: Vec::new(),
            sent: 0.0,
        })
    }

    fn round(&mut self, texts: &[Vec<u8>]) -> Result<(), Failure> {
        let Self { pair: Pair { server, client }, memory, .. } = self;
        let (mut frames, mut sent) = (Vec::new(), 0);
        memory.encode(client, texts, |frame| frames.push(frame.to_vec()))?;
        let start = cpu_time();
        memory.decode(server, &frames, texts.first().map_or(0, Vec::len))?;
        let between = cpu_time();
        memory.encode(server, texts, |frame| sent += frame.len())?;
        let end = cpu_time();
        let each = |time: Duration| time.as_secs_f64() * 1e6 / texts.len() as f64;
        self.decode.push(each(between - start));
        self.encode.push(each(end - between));
        self.sent = sent as f64 / texts.len() as f64;
        Ok(())
    }
}

/// What this thread has spent on a processor.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// A server and a client that have agreed.
struct Pair {
    server: Connection,
    client: Connection,
}

impl Pair {
    fn new(deflate: Deflate, config: &Arc<Config>) -> Result<Self, Failure> {
        let offer = Params::new().with("client_max_window_bits"); // as browsers do
        let (answer, server) = deflate.accept(&offer).ok_or("the offer is declined")?;
        let client = deflate.confirm(&answer)?;
        let connection = |role, codec: Codec| {
            Connection::new(role, config.clone(), NOW).with_extension(codec.decoder, codec.encoder)
        };
        Ok(Self {
            server: connection(Role::Server, server),
            client: connection(Role::Client, client),
        })
    }
}

/// The memory that a thread lends to its connections.
struct Memory {
    received: Vec<u8>,
    pool: BufferPool,
    out: Out,
}

#[derive(Default)]
struct Out {
    buffer: Vec<u8>,
    contexts: Contexts,
}

impl Output for Out {
    fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    fn parts(&mut self) -> (&mut Vec<u8>, Option<&mut Contexts>) {
        (&mut self.buffer, Some(&mut self.contexts))
    }
}

impl Memory {
    fn new() -> Self {
        Self { received: Vec::new(), pool: BufferPool::new(8 << 20), out: Out::default() }
    }

    /// Lets a connection send texts, each alone. Calls `sent` with each frame.
    fn encode(
        &mut self,
        connection: &mut Connection,
        texts: &[Vec<u8>],
        mut sent: impl FnMut(&[u8]),
    ) -> Result<(), Failure> {
        for text in texts {
            self.out.buffer.clear();
            connection.sender.send(str::from_utf8(text)?, &mut self.out)?;
            sent(black_box(&self.out.buffer));
        }
        Ok(())
    }

    /// Lets a connection receive frames. All must have messages of `size` bytes.
    fn decode(
        &mut self,
        connection: &mut Connection,
        frames: &[Vec<u8>],
        size: usize,
    ) -> Result<(), Failure> {
        let Connection { receiver, sender } = connection;
        for frame in frames {
            self.received.clear();
            self.received.extend_from_slice(frame); // they are unmasked in place
            let mut input = Input::with_pool(&mut self.received, &mut self.pool);
            match receiver.next(sender, &mut input, NOW, &mut self.out)? {
                Some(Event::Message(Message::Text(text))) if text.as_bytes().len() == size => {}
                event => return Err(format!("not the text that was sent: {event:?}").into()),
            }
            // As drivers do, which gives back the memory of the message.
            if receiver.next(sender, &mut input, NOW, &mut self.out)?.is_some() {
                return Err("more than one message came".into());
            }
        }
        Ok(())
    }
}

/// The bytes that a server's connection holds when it has received and sent some messages.
fn held(deflate: Deflate, texts: &[Vec<u8>]) -> Result<usize, Failure> {
    let mut memory = Memory::new();
    let size = texts.first().map_or(0, Vec::len);
    let mut servers = Vec::with_capacity(CONNECTIONS + 1);
    let config = Arc::default();
    let mut before = 0;
    for _ in 0..=CONNECTIONS {
        let mut pair = Pair::new(deflate, &config)?;
        let texts = &texts[..EACH];
        let mut frames = Vec::new();
        memory.encode(&mut pair.client, texts, |frame| frames.push(frame.to_vec()))?;
        memory.decode(&mut pair.server, &frames, size)?;
        memory.encode(&mut pair.server, texts, |_| {})?;
        servers.push(pair.server);
        drop((pair.client, frames));
        if servers.len() == 1 {
            before = heap::in_use(); // the first has made what all of them borrow
        }
    }
    Ok((heap::in_use() - before) / CONNECTIONS + size_of::<Connection>())
}

/// Encodes `count` messages, or encodes them by the client and decodes them.
fn one(mode: &str, level: &str, size: &str, direction: &str, count: &str) -> Result<(), Failure> {
    let (_, deflate) = MODES.iter().find(|(name, _)| *name == mode).ok_or("no such mode")?;
    let (size, count): (usize, usize) = (size.parse()?, count.parse()?);
    let mut pair = Pair::new(deflate.level(level.parse()?), &Arc::default())?;
    let mut memory = Memory::new();
    let mut texts = Texts::new(1);
    let texts: Vec<_> = (0..count).map(|_| texts.next(size)).collect();
    match direction {
        "encode" => memory.encode(&mut pair.server, &texts, |_| {}),
        "decode" => {
            let mut frames = Vec::new();
            memory.encode(&mut pair.client, &texts, |frame| frames.push(frame.to_vec()))?;
            memory.decode(&mut pair.server, &frames, size)
        }
        _ => Err("encode or decode".into()),
    }
}
