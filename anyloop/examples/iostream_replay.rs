//! Replays a recorded session from files: what a client sent goes in, and what the server would answer
//! is written out.
//!
//! ```text
//! iostream_replay RECORDING OUTPUT
//! ```
//!
//! RECORDING holds the raw bytes from the client to the server, with the request. The answer is the
//! same each time, so a recording makes a regression test.

use std::error::Error;
use std::fs::File;
use std::process::ExitCode;

use anyloop::Server;
use anyloop::proto::handshake::{OriginPolicy, ServerOptions};
use anyloop::transport::iostream::IoStream;

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

    let mut server = Server::<IoStream>::new(ServerOptions::new(OriginPolicy::Any));
    server.on_open(|_| println!("open"));
    server.on_message(|message, context| {
        println!("{:?} message of {} bytes", message.kind(), message.as_bytes().len());
        let _ = context.send(message); // the recording may hold more than the server would hear
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
    while !connection.is_over() && connection.read_from(&mut recording)? > 0 {}
    Ok(())
}
