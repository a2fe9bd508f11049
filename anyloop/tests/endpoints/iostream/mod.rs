//! What iostream promises beyond what every transport does: how input is taken, how output is given
//! away, and which calls are allowed when.

mod calls;
mod input;
mod local;
mod output;
mod surroundings;
#[cfg(feature = "tls-core")]
mod tls;

use std::io::{self, Read};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyloop::iostream::{Client, Connection, Server};
use anyloop::prelude::*;
use anyloop::proto::Role;

use crate::subject::{client_config, server_config, target};
use crate::transports::{Clock, Sink};
use crate::wire::{self, Frame};

pub(super) fn server_with(
    config: ServerConfig,
    handlers: &Handlers,
    clock: &Clock,
) -> Connection<Handlers> {
    let mut server = Server::with_factory(config, handlers.clone());
    let clock = clock.clone();
    server.set_clock(move || clock.now());
    server.connection()
}

pub(super) fn server(handlers: &Handlers) -> Connection<Handlers> {
    server_with(server_config(), handlers, &Clock::default())
}

pub(super) fn client(handlers: &Handlers) -> Connection<Handlers> {
    let client = Client::with_factory(client_config(), handlers.clone());
    client.connection(target()).unwrap()
}

/// A server's end, open, and where it writes.
pub(super) fn open(handlers: &Handlers) -> (Connection<Handlers>, Sink) {
    let (connection, sink) = (server(handlers), Sink::default());
    connection.register_output(sink.clone());
    connection.read_all(wire::REQUEST.as_bytes()).unwrap();
    sink.take();
    (connection, sink)
}

pub(super) fn echo() -> Handlers {
    let mut handlers = Handlers::new();
    handlers.on_message(|message, context| _ = context.send(message));
    handlers
}

pub(super) fn frames(frames: &[Frame]) -> Vec<u8> {
    wire::stream(frames, Role::Client)
}

pub(super) fn sent(sink: &Sink) -> Vec<Frame> {
    wire::read(&sink.take(), Role::Server)
}

/// A reader that returns one of these parts for each call.
pub(super) struct Parts(pub(super) Vec<io::Result<Vec<u8>>>);

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        assert!(!self.0.is_empty(), "read once more than it was to be");
        let part = self.0.remove(0)?;
        buffer[..part.len()].copy_from_slice(&part);
        Ok(part.len())
    }
}

/// A hang would be a defect, so it is made a failure: what happens on another thread has all the time
/// that a slow machine may want, and none of it is waited for when it works.
pub(super) fn or_hangs(f: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    let thread = thread::spawn(move || {
        f();
        done.send(()).unwrap();
    });
    match is_done.recv_timeout(Duration::from_secs(20)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => thread.join().unwrap(),
    }
}
