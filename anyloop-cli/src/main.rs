//! The `anyloop` command.

mod connect;
mod escape;
mod pipe;
mod serve;
#[cfg(unix)]
mod signals;
mod stdio;
mod stop;
mod values;

use std::process::ExitCode;

use anyloop::proto::handshake::Target;
use clap::{Parser, Subcommand};

/// WebSockets on the command line.
#[derive(Parser)]
#[command(name = "anyloop", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const OF_SERVE: &str = "\
Exit status: 0 after a signal, 1 if it cannot listen or serve, 2 if it was called wrongly.

Times are in seconds, and may have fractions; 0 turns a limit off.";

const OF_CONNECT: &str = "\
Exit status:
  0  all went well: both sides closed the connection, the server with 1000 or without a code, and
     all of the input was sent, as far as there was any; or a signal has ended it, and the server
     has closed, too
  1  the connection was open, and did not end like that; or input or output failed
  2  the command was called wrongly
  3  the server could not be connected to
  4  it could, and the opening handshake failed: the server refused it, for example

Times are in seconds, and may have fractions; 0 turns a limit off, but --wait 0 does not wait.";

const OF_PIPE: &str = "\
Exit status: 0 if all went well, 1 if the connection failed or was not closed as it should be, 2 if the
command was called wrongly.";

#[derive(Subcommand)]
enum Command {
    /// Serve WebSockets until SIGINT or SIGTERM.
    ///
    /// The path that a client asks for decides what it gets: / and /echo send every message back;
    /// /broadcast sends each message to all who are there, its sender too; /stats sends the server's
    /// counters each second, as a line of JSON, in which messages and bytes are those of connections that
    /// are closed.
    ///
    /// Who publishes on /broadcast waits for subscribers that are behind, for 2 seconds at most. A
    /// subscriber that has not caught up by then is not waited for, and is closed with 1008 when it
    /// falls behind further.
    ///
    /// Says on standard output where it listens, a line for each: "listening on ws://ADDR:PORT", or
    /// "ws+unix:PATH". Without --listen and --unix it listens on the sockets that it has inherited
    /// (LISTEN_FDS, as in systemd's socket activation), or else on 127.0.0.1:9002; those that it has
    /// inherited it serves in any case.
    ///
    /// A signal closes all connections with 1001 and ends it with status 0 when they are over, which the
    /// close timeout bounds; a second one ends it at once.
    #[command(after_help = OF_SERVE)]
    Serve(serve::Options),
    /// Connect to a server, send each line of standard input, and print each message.
    ///
    /// At the end of the input it closes with 1000 as soon as nothing has come for a second (--wait), and
    /// goes on printing until the server has closed, too. If the input is /dev/null, it stays until the
    /// server closes. SIGINT (Ctrl-C) or SIGTERM closes with 1001; a second one ends it at once.
    ///
    /// Lines are sent as text, without their end. Text is printed as it is; to a terminal, with its
    /// control characters escaped. What is not printable ASCII in a binary message is printed as \xNN.
    /// At a terminal, messages are shown above the line that is being typed.
    #[command(after_help = OF_CONNECT)]
    Connect(connect::Options),
    /// Speak WebSocket over standard input and output, and send every message back.
    ///
    /// The bytes are those of the protocol, as a socket would carry them: connect the two by a pipe,
    /// by socat, or by a program of your own. Either may be non-blocking. The server's end is spoken,
    /// unless --client is given.
    #[command(after_help = OF_PIPE)]
    Pipe {
        /// Speak the client's end, and ask for this ws:// URL.
        #[arg(long, value_name = "URL")]
        client: Option<Target>,
    },
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let result = match command {
        Command::Serve(options) => serve::run(&options),
        Command::Connect(options) => connect::run(&options),
        Command::Pipe { client } => pipe::run(client.as_ref()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => stop.report(),
    }
}
