//! A neutral load generator for WebSocket echo servers, with nothing of anyloop in it.
//!
//! ```text
//! load ADDR:PORT|unix:PATH [options]       messages per second, and the server's CPU time per message
//!   --path PATH          of the upgrade request (/)
//!   --connections N      (1)
//!   --size BYTES         of a payload (64)
//!   --depth D            messages in flight on a connection (1)
//!   --text, --mixed      text messages: of ASCII, of characters of one to four bytes
//!   --deflate OFFER      compressed text messages (permessage-deflate); OFFER has the parameters to offer, as
//!                        client_max_window_bits
//!   --raw                the server is `floor`: it returns the bytes unchanged
//!   --spin               do not sleep: else a server that is slower than `load` pays for waking it with each reply
//!   --seconds S          how long to measure (1), or instead
//!   --messages N         how many messages to measure
//!   --warmup S           seconds of warm-up before that (0.3)
//!   --server-pid PID     read this process's CPU time
//!   --json               print a line of JSON instead of text
//!
//! load idle ADDR:PORT|unix:PATH [options]  connections that are kept open
//!   --path, --connections, --deflate, --raw    as above
//!   --size BYTES         of a payload (64; with --deflate 4096)
//!   --keep S             seconds to keep them open (10)
//!   --touch K            messages per second, each on a random connection (0)
//!   --control            execute commands from standard input: `echo M` sends M messages on each
//!                        connection, one after the other, and prints `echoed`; `quit` and the end
//!                        of input end the program
//!
//! load broadcast ADDR:PORT|unix:PATH [options]  deliveries per second, and CPU time per delivery
//!   --path (/broadcast), --connections (500), --size (64), --raw    as above
//!   --depth D            messages in one write (1); the next write is when all have arrived
//!   --seconds, --messages, --warmup, --server-pid, --json           as above
//!
//! load opening ADDR:PORT|unix:PATH [options]    connections per second, and CPU time per connection
//!   --path, --raw        as above
//!   --connections N      at a time (64)
//!   --messages N         how many connections to measure
//!   --handshake          end the stream after the handshake of TLS, instead of sending a request
//!   --resume             with --tls: resume sessions of earlier connections
//!   --seconds, --warmup, --server-pid, --json                       as above
//!
//! load storm ADDR:PORT|unix:PATH --tls [options]  latencies, at rest and while others shake hands at once
//!   --path, --size, --json   as above
//!   --connections N      whose latencies are measured (200)
//!   --rate R             messages per second on all of them together (10000)
//!   --handshakes N       in the storm (2000)
//!   --seconds S          how long to measure at rest (1)
//!
//! All have --tls: TLS 1.3 with AES-128-GCM and X25519, by rustls. Certificates are not verified.
//! ```
//!
//! In `load broadcast` the first connection sends, and the server must deliver each message to all
//! connections, including the sender. A delivery is one message to one connection.
//!
//! `load opening` connects, sends the request, receives the 101, sends a Close with code 1000, receives the same
//! Close and the end of the stream, closes its socket, and starts again. The server ends the stream first, so the
//! sockets in TIME_WAIT are the server's, and the client's ephemeral ports can be reused immediately.
//!
//! In `load storm` one connection after the other sends a message, at a steady rate, whether replies arrive or not.
//! A latency begins when the message was due. The connections of the storm are there and have their first messages
//! before it begins; their handshakes are on a thread of the lowest priority.
//!
//! `load` has one thread (in a storm two) and uses edge-triggered epoll. The frames of a connection are masked once,
//! before the measurement; each byte of each reply is compared. With `--deflate`, messages are compressed before the
//! measurement, each by itself, and replies are decompressed and then compared. Payloads above 64 KiB are periodic, so
//! that sending and comparing them is cheap. The first write has all messages that a connection may have in
//! flight; after that, each read is followed by one write of as many messages as replies arrived. Only
//! loopback addresses and Unix sockets are accepted. The program ends with an error if nothing progresses for
//! [`STALL`].
//!
//! The CPU time is the sum of `/proc/PID/task/*/schedstat` (the nanoseconds that each thread has spent
//! on a processor, in user space and in the kernel). It is read before the first message and after the
//! last reply, when the server is at rest, so that it counts exactly the messages that are measured.

mod arguments;
mod broadcast;
mod connection;
mod deflate;
mod fault;
mod frames;
mod handshake;
mod idle;
mod measure;
mod opening;
mod process;
mod random;
mod storm;
mod stream;
#[path = "../text.rs"]
mod text;
mod throughput;
mod tls;

use std::process::ExitCode;
use std::time::Duration;

use arguments::Arguments;

/// An error that ends the program. Its text is a sentence.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// The maximum time without progress on any connection.
pub(crate) const STALL: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let mut arguments = Arguments::new(std::env::args().skip(1));
    let outcome = if arguments.word("idle") {
        idle::Plan::parse(&mut arguments).and_then(|plan| idle::run(&plan))
    } else if arguments.word("broadcast") {
        broadcast::Plan::parse(&mut arguments).and_then(|plan| broadcast::run(&plan))
    } else if arguments.word("opening") {
        opening::Plan::parse(&mut arguments).and_then(|plan| opening::run(&plan))
    } else if arguments.word("storm") {
        storm::Plan::parse(&mut arguments).and_then(|plan| storm::run(&plan))
    } else {
        throughput::Plan::parse(&mut arguments).and_then(|plan| throughput::run(&plan))
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("load: {failure}");
            ExitCode::FAILURE
        }
    }
}
