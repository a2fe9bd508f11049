//! The `anyloop` command.

mod bench;
mod client_tls;
mod compression;
mod connect;
#[cfg(unix)]
mod descriptors;
mod escape;
mod peer;
mod pipe;
mod refusal;
mod route_flags;
mod serve;
#[cfg(unix)]
mod signals;
mod stdio;
mod stop;
mod values;

use std::process::ExitCode;

use anyloop::proto::handshake::Target;
use clap::{Parser, Subcommand};

use self::compression::Compression;

/// WebSockets on the command line.
#[derive(Parser)]
#[command(name = "anyloop", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const OF_SERVE: &str = "\
Exit status: 0 after a signal, 1 if it cannot listen or serve, 2 for wrong arguments.

Times are in seconds and may have fractions. 0 turns a limit off.";

const OF_CONNECT: &str = "\
Exit status:
  0  both sides closed the connection, the server with code 1000 or without a code, and all of the
     input was sent; or a signal ended the command, and the server closed too
  1  the connection opened and ended otherwise, or input or output failed
  2  wrong arguments
  3  no connection to the server, or its certificate is not accepted
  4  the opening handshake failed: the server refused it, for example

Times are in seconds and may have fractions. 0 turns a limit off; --wait 0 does not wait.";

const OF_PIPE: &str = "\
Exit status: 0 if the connection closed without a failure, 1 if it failed or input or output did, 2 for
wrong arguments.";

const OF_BENCH: &str = "\
Examples:
  anyloop bench ws://127.0.0.1:9002/echo
      One message in flight: the time of a round trip.
  anyloop bench ws://127.0.0.1:9002/echo -c 100 --depth 16
      As fast as the server answers on 100 connections: its throughput.
  anyloop bench ws://127.0.0.1:9002/echo -c 100 --rate 20000 -d 30
      The latency that users see at 20000 messages a second.
  anyloop bench ws://127.0.0.1:9002/echo ws://127.0.0.1:9003/ --json
      Two servers compared, for a program.

Exit status:
  0  all messages came back; or a signal ended it, and those until then did
  1  an answer was wrong or is missing, a connection ended before its time, or output failed
  2  wrong arguments
  3  no connection to the server
  4  an opening handshake failed: the server refused it, for example

Times are in seconds and may have fractions.";

#[derive(Subcommand)]
enum Command {
    /// Serve WebSockets until SIGINT or SIGTERM.
    ///
    /// The path of the request selects the service: / and /echo send every message back. /broadcast
    /// sends every message to all connections of that path, the sender included. /stats sends the
    /// server's counters once a second, as a line of JSON; its messages and bytes are up to a second old.
    ///
    /// A browser that opens / gets a page that uses these services and draws the counters. With --origin,
    /// it connects only if its own origin, http://ADDR:PORT, is one of those.
    ///
    /// On /broadcast, publishers wait up to 2 seconds for a subscriber that reads too slowly. After
    /// that the subscriber is closed with 1008 when its backlog reaches the limit.
    ///
    /// Prints a line for each address that it listens on: "listening on ws://ADDR:PORT", or
    /// "listening on ws+unix:PATH"; with TLS, wss:// and wss+unix:. It always serves the sockets that it has inherited (LISTEN_FDS, as
    /// in systemd's socket activation). Without --listen, --unix and inherited sockets it listens on
    /// 127.0.0.1:9002.
    ///
    /// The first signal closes all connections with 1001, and the command ends with status 0 when they
    /// have closed, at the latest after the close timeout. A second signal ends it at once.
    #[command(after_help = OF_SERVE)]
    Serve(serve::Options),
    /// Connect to a server, send each line of standard input, and print each message.
    ///
    /// After the end of the input it closes with 1000 when no message has arrived for a second (--wait),
    /// and prints messages until the server has closed too. If the input is /dev/null, it stays until
    /// the server closes. The first SIGINT (Ctrl-C) or SIGTERM closes with 1001; a second one ends the
    /// command at once.
    ///
    /// Lines are sent as text messages, without the line end. Text is printed unchanged, but a terminal
    /// gets its control characters escaped. In binary messages, bytes that are not printable ASCII are
    /// printed as \xNN. At a terminal, messages appear above the line that is being typed.
    #[command(after_help = OF_CONNECT)]
    Connect(Box<connect::Options>),
    /// Measure the throughput and latency of an echo.
    ///
    /// Opens the connections, sends for some time, and prints the messages per second and the latencies
    /// with their histogram. Each answer is compared with its message. Two URLs take turns in eight rounds,
    /// so that a change of the machine's speed meets both.
    ///
    /// With --depth, a connection sends its next message when an answer arrives, and the latency counts
    /// from when the message was sent. While such a server stalls, little is sent, so few messages show the
    /// stall. With --rate, the latency counts from when the message should have been sent, even if an
    /// earlier one still waits: there is no coordinated omission.
    ///
    /// Messages are words of English, so they compress. The first SIGINT (Ctrl-C) or SIGTERM ends it
    /// early, and prints what was measured; a second one ends the command at once.
    #[command(after_help = OF_BENCH)]
    Bench(Box<bench::Options>),
    /// Speak WebSocket over standard input and output, and send every message back.
    ///
    /// Standard input and output carry the bytes that a socket would carry: connect them by a pipe, by
    /// socat, or by a program of your own. Either may be non-blocking. The command has the server's
    /// role, unless --client is given.
    #[command(after_help = OF_PIPE)]
    Pipe {
        /// Take the client's role, and request this ws:// URL.
        #[arg(long, value_name = "URL")]
        client: Option<Target>,
        #[command(flatten)]
        compression: Compression,
    },
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let result = match command {
        Command::Serve(options) => serve::run(&options),
        Command::Connect(options) => connect::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Pipe { client, compression } => pipe::run(client.as_ref(), &compression),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => stop.report(),
    }
}
