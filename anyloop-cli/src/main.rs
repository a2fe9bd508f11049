//! The `anyloop` command.

mod pipe;

use std::process::ExitCode;

use anyloop::proto::handshake::Target;
use clap::{Parser, Subcommand};

/// WebSockets on the command line.
///
/// Exits with 0 if all went well, with 1 if the connection failed or was not closed as it should be,
/// and with 2 if it was called wrongly.
#[derive(Parser)]
#[command(name = "anyloop", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Speak WebSocket over standard input and output, and send every message back.
    ///
    /// The bytes are those of the protocol, as a socket would carry them: connect the two by a pipe,
    /// by socat, or by a program of your own. The server's end is spoken, unless --client is given.
    Pipe {
        /// Speak the client's end, and ask for this ws:// URL.
        #[arg(long, value_name = "URL")]
        client: Option<Target>,
    },
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let (name, result) = match command {
        Command::Pipe { client } => ("pipe", pipe::run(client.as_ref())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("anyloop {name}: {error}");
            ExitCode::FAILURE
        }
    }
}
