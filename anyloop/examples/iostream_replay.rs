//! Replays a recorded session: reads the bytes of a client from a file, and writes the server's answer to
//! another.
//!
//! ```text
//! iostream_replay RECORDING OUTPUT
//! ```
//!
//! RECORDING has the raw bytes from the client, including the request. The answer is deterministic, so a
//! recording can be a regression test.

use std::{error::Error, fs::File, process::ExitCode};

use anyloop::iostream::Server;
use anyloop::prelude::*;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [recording, output] = &words[..] else {
        eprintln!("usage: iostream_replay RECORDING OUTPUT");
        return ExitCode::from(2);
    };
    match replay(recording, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn replay(recording: &str, output: &str) -> Result<(), Box<dyn Error>> {
    let open = |path: &str, result: std::io::Result<File>| {
        result.map_err(|error| format!("{path}: {error}"))
    };
    let mut recording = open(recording, File::open(recording))?;
    let output = open(output, File::create(output))?;

    let mut server = Server::new(ServerConfig::new(OriginPolicy::Any));
    server.on_open(|_| println!("open"));
    server.on_message(|message, context| {
        println!("{:?} message of {} bytes", message.kind(), message.as_bytes().len());
        _ = context.send(message); // refused after a Close of the recording
    });
    server.on_close(|ending, _| match (ending.failure, ending.received) {
        (Some(failure), _) => println!("failed: {failure}"),
        (None, Some(close)) => {
            println!("closed by the client: {:?} {:?}", close.code, close.reason)
        }
        (None, None) => println!("closed"),
    });
    server.on_fail(|failure, _| println!("not opened: {failure}"));

    let connection = server.connection();
    connection.register_output(output);
    // The end of the file is the end of the stream.
    while !connection.has_ended() && connection.read_from(&mut recording)? > 0 {}
    Ok(())
}
