//! A server built on anyloop and a client that does not use it. `bench/soak` runs both for a long time.
//!
//! ```text
//! soak serve [--threads N] [--fault NAME]    listens on two ports of 127.0.0.1, and reads commands from
//!                                            standard input: `stats` prints a line of JSON; `quit` or the
//!                                            end of input closes everything, checks the sums and ends
//! soak load ADDR:PORT --strict ADDR:PORT     the server's two addresses
//!   --seconds S          the whole duration (60)
//!   --phases N           the number of phases (10); after each it prints a line of JSON and waits for a
//!                        line of input
//!   --seed N             for random choices (1)
//!   --spare-pongs        do not send pongs after the client's own Close
//!   --spare-cap          fill connections that are to close cleanly up to back-pressure only
//! ```
//!
//! Both report a violated condition and then end with an error. A fault is an error that the server makes on
//! purpose, to test that it is detected: see [`serve::Fault`].

#[path = "../load/arguments.rs"]
mod arguments;
#[path = "../load/frames.rs"]
#[allow(dead_code, reason = "`load` needs more of it")]
mod frames;
#[path = "../../../anyloop/tests/memory/heap.rs"]
mod heap;
#[path = "../load/random.rs"]
mod random;

mod clean;
mod feed;
mod load;
mod numbered;
mod peer;
mod rough;
mod serve;
mod slow;
mod wire;

use std::process::ExitCode;

use arguments::Arguments;

/// An error that ends the program or a scenario. Its text is a sentence.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let mut arguments = Arguments::new(std::env::args().skip(1));
    let outcome = if arguments.word("serve") {
        serve::Plan::parse(&mut arguments).and_then(|plan| serve::run(&plan))
    } else if arguments.word("load") {
        load::Plan::parse(&mut arguments).and_then(|plan| load::run(&plan))
    } else {
        Err("`serve` or `load`".into())
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("soak: {failure}");
            ExitCode::FAILURE
        }
    }
}
