//! `anyloop pipe`: iostream over standard input and output.

use std::io::{self, ErrorKind, Read};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use anyloop::proto::handshake::{ClientOptions, OriginPolicy, ServerOptions, Target};
use anyloop::proto::{Ending, Failure, Instant};
use anyloop::transport::iostream::{CHUNK, Connection, IoStream};
use anyloop::{Client, Handlers, Server};

use crate::stdio;
use crate::stop::Stop;

/// Echoes over standard input and output until the connection is over.
pub(crate) fn run(target: Option<&Target>) -> Result<(), Stop> {
    let (handlers, outcome) = echo();
    let connection = match target {
        // Who is at the other end of a pipe was let in by whoever made the pipe.
        None => Server::<IoStream>::with_factory(ServerOptions::new(OriginPolicy::Any), handlers)
            .connection(),
        Some(target) => Client::<IoStream>::with_factory(ClientOptions::default(), handlers)
            .connection(target)?,
    };
    connection.set_remote_endpoint("standard input and output");
    let output = stdio::output();
    let output = output.map_err(|error| format!("cannot write to standard output: {error}"));
    connection.register_output(output.map_err(Stop::failed)?);
    connection.start()?;
    carry(&connection)?;
    match outcome.try_recv() {
        Ok(None) => Ok(()),
        Ok(Some(failure)) => Err(failure.into()),
        Err(_) => Err(Stop::failed("there was no WebSocket: a plain HTTP request was answered")),
    }
}

/// Handlers that echo, and what tells how it ended: with `None` if it ended as it should.
fn echo() -> (Handlers, Receiver<Option<Failure>>) {
    let (tell, told) = mpsc::channel();
    let failed = tell.clone();
    let mut handlers = Handlers::new();
    handlers
        .on_message(|message, context| {
            let _ = context.send(message); // we may have begun to close
        })
        .on_fail(move |failure, _| _ = failed.send(Some(*failure)))
        .on_close(move |ending: &Ending<'_>, _| _ = tell.send(ending.failure));
    (handlers, told)
}

/// Carries standard input to the connection. A thread of its own reads it, and waits for it.
fn carry(connection: &Connection<Handlers>) -> Result<(), Stop> {
    let input = read_stdin();
    while !connection.is_over() {
        let timeout = connection.next_timeout().map_or(Duration::MAX, |due| due - now());
        match input.recv_timeout(timeout) {
            // Nothing here pauses reading, so what is not taken comes after the end.
            Ok(Ok(bytes)) => _ = connection.read_all(&bytes)?,
            Ok(Err(error)) => {
                connection.fatal_error()?;
                return Err(Stop::failed(format!("cannot read standard input: {error}")));
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

/// There is no more input: only time can end what is left.
fn wait_for_the_end(connection: &Connection<Handlers>) -> Result<(), Stop> {
    while let Some(due) = connection.next_timeout().filter(|_| !connection.is_over()) {
        thread::sleep(due - now());
        connection.handle_timeout()?;
    }
    Ok(())
}

/// What is read from standard input, until its end.
fn read_stdin() -> Receiver<io::Result<Vec<u8>>> {
    let (tell, told) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let failed = stdio::input().and_then(|stdin| read_all(stdin, &tell));
        if let Err(error) = failed {
            let _ = tell.send(Err(error)); // the connection may be over
        }
    });
    told
}

/// Hands on what is read, until its end or until nobody takes it.
fn read_all(mut input: impl Read, tell: &SyncSender<io::Result<Vec<u8>>>) -> io::Result<()> {
    loop {
        let mut bytes = vec![0; CHUNK];
        match input.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(n) => bytes.truncate(n),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if tell.send(Ok(bytes)).is_err() {
            return Ok(());
        }
    }
}

fn now() -> Instant {
    std::time::Instant::now().into()
}
