//! `anyloop pipe`: iostream over standard input and output.

use std::io::{self, ErrorKind, Read};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use anyloop::endpoint::Context;
use anyloop::iostream::{Client, Connection, MAX_READ, Server};
use anyloop::proto::handshake::OriginPolicy;
use anyloop::proto::{Cause, Ending, Failure, HandshakeError, Instant};
use anyloop::{ClientConfig, Handlers, ServerConfig};

use crate::compression::Compression;
use crate::error::{CliError, chain};
use crate::logging;
use crate::refusal;
use crate::stdio;
use crate::values::Url;

/// Echoes over standard input and output until the connection is over.
pub(crate) fn run(url: Option<&Url>, compression: &Compression) -> Result<(), CliError> {
    logging::begin(None, stdio::error);
    let (handlers, outcome) = echo();
    let connection = match url {
        // The creator of the pipe chose its peer, so the origin needs no check.
        None => {
            let config = compression.of_server(ServerConfig::new(OriginPolicy::Any));
            Server::with_factory(config, handlers).connection()
        }
        Some(Url(target)) if target.secure() => {
            return Err(CliError::usage(
                "--client: wss:// needs TLS, which pipe does not speak: let another program do it, and use ws://",
            ));
        }
        Some(Url(target)) => {
            let config = compression.of_client(ClientConfig::new());
            Client::with_factory(config, handlers).connection(target)?
        }
    };
    connection.set_remote_endpoint("standard input and output");
    let output = stdio::output();
    let output = output.map_err(|error| format!("cannot write to standard output: {error}"));
    connection.register_output(output.map_err(CliError::failed)?);
    connection.start()?;
    carry(&connection)?;
    match outcome.try_recv() {
        Ok(result) => result,
        Err(_) => {
            Err(CliError::failed("no WebSocket was opened: the peer sent a plain HTTP request"))
        }
    }
}

/// Handlers that echo, and a channel that receives how the connection ended.
fn echo() -> (Handlers, Receiver<Result<(), CliError>>) {
    let (sender, outcome) = mpsc::channel();
    let failed = sender.clone();
    let mut handlers = Handlers::new();
    handlers
        .on_message(|message, context| {
            let _ = context.send(message); // refused once the connection is closing
        })
        .on_fail(move |failure, context| _ = failed.send(Err(describe(failure, context))))
        .on_close(move |ending: &Ending<'_>, context| {
            let failure = ending.failure;
            let result = failure.map_or(Ok(()), |failure| Err(describe(&failure, context)));
            let _ = sender.send(result);
        });
    (handlers, outcome)
}

fn describe(failure: &Failure, context: &Context<'_, Handlers>) -> CliError {
    CliError::failed(match (failure.cause(), context.error()) {
        (Cause::Handshake(HandshakeError::Rejected(status)), _) => {
            refusal::describe(status, false, context.response())
        }
        (_, Some(error)) => format!("{failure}: {}", chain(error)),
        (_, None) => failure.to_string(),
    })
}

/// Passes standard input to the connection. Another thread reads it, since reading blocks.
fn carry(connection: &Connection<Handlers>) -> Result<(), CliError> {
    let input = read_stdin();
    while !connection.has_ended() {
        let timeout = connection.next_timeout().map_or(Duration::MAX, |due| due - now());
        match input.recv_timeout(timeout) {
            // No handler pauses reading, so bytes that are not taken follow the end of the connection.
            Ok(Ok(bytes)) => _ = connection.read_all(&bytes)?,
            Ok(Err(error)) => {
                connection.fatal_error()?;
                return Err(CliError::failed(format!("cannot read standard input: {error}")));
            }
            Err(RecvTimeoutError::Timeout) => connection.handle_timeout()?,
            Err(RecvTimeoutError::Disconnected) => {
                connection.eof()?;
                wait_for_the_end(connection)?;
            }
        }
    }
    Ok(())
}

/// Waits for the connection to end after the end of the input: only deadlines are left.
fn wait_for_the_end(connection: &Connection<Handlers>) -> Result<(), CliError> {
    while let Some(due) = connection.next_timeout().filter(|_| !connection.has_ended()) {
        thread::sleep(due - now());
        connection.handle_timeout()?;
    }
    Ok(())
}

/// A channel that receives the bytes of standard input. It is disconnected at the end of the input.
fn read_stdin() -> Receiver<io::Result<Vec<u8>>> {
    let (sender, input) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let failed = stdio::input().and_then(|stdin| read_all(stdin, &sender));
        if let Err(error) = failed {
            let _ = sender.send(Err(error)); // without a receiver the connection is over
        }
    });
    input
}

/// Sends what it reads, until the end of the input or until the receiver is dropped.
fn read_all(mut input: impl Read, sender: &SyncSender<io::Result<Vec<u8>>>) -> io::Result<()> {
    loop {
        let mut bytes = vec![0; MAX_READ];
        match input.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(n) => bytes.truncate(n),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if sender.send(Ok(bytes)).is_err() {
            return Ok(());
        }
    }
}

fn now() -> Instant {
    std::time::Instant::now().into()
}
