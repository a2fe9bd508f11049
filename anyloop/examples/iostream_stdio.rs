//! A small iostream server: standard input and output are the byte stream, and every message is sent back
//! in capitals.
//!
//! ```text
//! socat TCP-LISTEN:9002,bind=127.0.0.1,reuseaddr,fork EXEC:target/release/examples/iostream_stdio
//! ```
//!
//! It has one thread, which blocks in `read`, so no timeout fires while the peer is silent. The source of
//! `anyloop pipe` shows a solution with a second thread.

use std::io;
use std::process::ExitCode;

use anyloop::iostream::{CallError, Connection, Server};
use anyloop::prelude::*;

fn main() -> ExitCode {
    let mut server = Server::new(ServerConfig::new(OriginPolicy::Any));
    server.on_message(|message, context| {
        let sent = match message {
            Message::Text(text) => context.send(text.as_str().to_uppercase().as_str()),
            Message::Binary(_) => context.send(message),
        };
        if let Err(error) = sent {
            eprintln!("not sent: {error}");
        }
    });
    server.on_fail(|failure, _| eprintln!("{failure}"));
    server.on_close(|ending, _| match ending.failure {
        Some(failure) => eprintln!("{failure}"),
        None => eprintln!("closed"),
    });

    let connection = server.connection();
    connection.register_output(io::stdout());
    match carry(&connection) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Passes standard input to the connection until it is over.
fn carry(connection: &Connection<Handlers>) -> Result<(), CallError> {
    let mut stdin = io::stdin().lock();
    while !connection.has_ended() {
        connection.read_from(&mut stdin)?;
        connection.handle_timeout()?;
    }
    Ok(())
}
