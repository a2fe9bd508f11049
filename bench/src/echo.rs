//! Echo servers on different event loops of anyloop.
//!
//! ```text
//! echo              an `EventLoop` that one thread runs
//! echo THREADS      an `EventLoop` that THREADS threads run
//! echo local        a `LocalEventLoop`: no other thread can run it
//! ```
//!
//! They listen on a free port of 127.0.0.1.

use std::process::ExitCode;
use std::thread;

use anyloop::net::{LocalServer, Server};
use anyloop::prelude::*;

/// An error that ends the program.
type Failure = Box<dyn std::error::Error>;

struct Echo;

impl Handler for Echo {
    fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
        let _ = context.send(message); // a message beyond the limit of the write buffer is dropped
    }
}

fn main() -> ExitCode {
    let word = std::env::args().nth(1);
    let outcome = match word.as_deref() {
        Some("local") => local(),
        None => threads(1),
        Some(number) => match number.parse() {
            Ok(number) => threads(number),
            Err(_) => Err("usage: echo [THREADS | local]".into()),
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("echo: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn config() -> ServerConfig {
    ServerConfig::new(OriginPolicy::Any)
}

fn threads(number: usize) -> Result<(), Failure> {
    let server = Server::with_factory(config(), || Echo)?;
    println!("listening on ws://{}/", server.listen("127.0.0.1:0")?);
    server.start_accept()?;
    let event_loop = server.event_loop();
    thread::scope(|scope| {
        for _ in 1..number {
            scope.spawn(|| event_loop.run());
        }
        event_loop.run();
    });
    Ok(())
}

fn local() -> Result<(), Failure> {
    let server = LocalServer::with_factory(config(), || Echo)?;
    println!("listening on ws://{}/", server.listen("127.0.0.1:0")?);
    server.start_accept()?;
    server.run();
    Ok(())
}
