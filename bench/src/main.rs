//! Codecs in memory, without sockets: the cost of parsing, handling and answering a message.
//!
//! ```text
//! codec                       measures all scenarios and codecs, interleaved; prints medians
//! codec primitives            compares masking and UTF-8 validation with memcpy
//! codec check                 runs all codecs a few times, and checks their output
//! codec one SCENARIO CODEC N  runs N reads and nothing else, to count instructions
//! codec one opening CODEC N   runs N opening handshakes of a server
//! ```

mod codecs;
mod opening;
mod primitives;
mod scenario;
mod table;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use codecs::CODECS;
use opening::{ACCEPTORS, OPENINGS};
use scenario::{SCENARIOS, Scenario};

/// The number of rounds. A round runs each codec once, and each result is the median over all rounds.
const TURNS: usize = 9;

/// How long a codec runs in a round.
const SPAN: Duration = Duration::from_millis(60);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => messages(),
        ["primitives"] => primitives::run(),
        ["check"] => check(),
        ["one", scenario, codec, reads] => return one(scenario, codec, reads),
        _ => {
            eprintln!("usage: codec [primitives | check | one SCENARIO CODEC READS]");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// Measures nanoseconds per message, for all scenarios and codecs.
fn messages() {
    for scenario in SCENARIOS {
        let mut samples = vec![Vec::new(); CODECS.len()];
        for _ in 0..TURNS {
            for (codec, samples) in CODECS.iter().zip(&mut samples) {
                samples.push(time(scenario, codec.run));
            }
        }
        table::row(scenario.name, CODECS.iter().map(|codec| codec.name).zip(samples));
    }
}

/// Runs a codec for about [`SPAN`]. Returns nanoseconds per message.
fn time(scenario: &Scenario, run: fn(&Scenario, usize)) -> f64 {
    let mut reads = 16;
    loop {
        let start = Instant::now();
        run(black_box(scenario), reads);
        let took = start.elapsed();
        if took >= SPAN {
            return took.as_nanos() as f64 / (reads as f64 * scenario.messages_per_read());
        }
        let scale = SPAN.as_secs_f64() / took.as_secs_f64().max(1e-6);
        reads = (reads as f64 * (scale * 1.1).clamp(1.5, 100.0)) as usize;
    }
}

/// Runs all codecs without measuring.
fn check() {
    for scenario in SCENARIOS {
        for codec in CODECS {
            (codec.run)(scenario, 3);
        }
        println!("{}: ok", scenario.name);
    }
    for opening in OPENINGS {
        for acceptor in ACCEPTORS {
            (acceptor.run)(opening.request, 3);
        }
        println!("{}: ok", opening.name);
    }
}

fn one(scenario: &str, codec: &str, reads: &str) -> ExitCode {
    let opening = OPENINGS.iter().find(|o| o.name == scenario);
    let acceptor = ACCEPTORS.iter().find(|a| a.name == codec);
    if let (Some(opening), Some(acceptor), Ok(times)) = (opening, acceptor, reads.parse()) {
        (acceptor.run)(black_box(opening.request), times);
        return ExitCode::SUCCESS;
    }
    let scenario = SCENARIOS.iter().find(|s| s.name == scenario);
    let codec = CODECS.iter().find(|c| c.name == codec);
    let (Some(scenario), Some(codec), Ok(reads)) = (scenario, codec, reads.parse()) else {
        let scenarios = SCENARIOS.iter().map(|s| s.name).chain(OPENINGS.iter().map(|o| o.name));
        let scenarios: Vec<_> = scenarios.collect();
        let codecs: Vec<_> = CODECS.iter().map(|c| c.name).collect();
        eprintln!("scenarios: {}; codecs: {}", scenarios.join(", "), codecs.join(", "));
        return ExitCode::from(2);
    };
    (codec.run)(black_box(scenario), reads);
    ExitCode::SUCCESS
}
