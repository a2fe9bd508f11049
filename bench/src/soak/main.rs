//! A server built on anyloop and a client that is not, for `bench/soak` to run beside each other for a
//! long time.
//!
//! ```text
//! soak serve [--threads N] [--fault NAME]    listens on two ports of 127.0.0.1, and obeys standard
//!                                            input: `stats` prints a line of JSON; `quit` and the end of
//!                                            input have it close everything, check its sums and end
//! soak load ADDR:PORT --strict ADDR:PORT     the server's two addresses
//!   --seconds S          how long in all (60)
//!   --phases N           in so many parts (10), after each of which it rests: prints a line of JSON and
//!                        waits for one of input
//!   --seed N             of what is random (1)
//!   --spare-pongs        leave out pongs behind the client's own Close
//!   --spare-cap          do not fill up connections that are to close cleanly, but almost
//! ```
//!
//! Both end with an error if anything is not as it must be, and say what. A fault is something that the
//! server does wrong on purpose, to show that it is noticed: see [`serve::Fault`].

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

/// What ends the program early, or a conversation: a sentence.
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
