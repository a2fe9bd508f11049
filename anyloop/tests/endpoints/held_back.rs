//! TLS records that arrive while handlers are held back by the budget.

use std::io::{self, IoSlice};
use std::mem;
use std::sync::{Arc, Mutex};
use std::task::Waker;

use anyloop::endpoint::Session;
use anyloop::prelude::*;
use anyloop::proto::{Instant, Role, Shutdown, State};
use anyloop::tls::TlsStream;
use anyloop::transport::{Buffers, Driver, Server, Transport};
use anyloop_testkit::tls::Far;

use crate::record::Log;
use crate::subject::server_config;
use crate::tls::{SERVER, far_client};
use crate::wire::{self, text};

const NOW: Instant = Instant::from_nanos(0);

/// Collects what is written.
#[derive(Clone, Default)]
struct Collecting(Arc<Mutex<Vec<u8>>>);

impl Transport for Collecting {
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut written = self.0.lock().unwrap();
        let before = written.len();
        slices.iter().for_each(|slice| written.extend_from_slice(slice));
        Ok(written.len() - before)
    }

    fn shutdown(&mut self, _: Shutdown) -> io::Result<()> {
        Ok(())
    }
}

/// A server's connection, and the client at the other end.
struct Both {
    driver: Driver<TlsStream<Session<Handlers>>>,
    transport: Collecting,
    buffers: Buffers,
    far: Far,
}

impl Both {
    /// Passes bytes of the client to the server, and exchanges records until there are no more.
    fn receive(&mut self, bytes: &[u8]) {
        let mut records = self.far.send(bytes);
        while !records.is_empty() {
            self.driver.receive(&mut self.transport, &mut self.buffers, &mut records, NOW);
            let written = mem::take(&mut *self.transport.0.lock().unwrap());
            self.far.receive(&written).unwrap();
            records = self.far.send(&[]);
        }
    }
}

#[test]
fn records_that_arrive_while_functions_are_held_back_are_kept() {
    let log = Log::default();
    let mut handlers = Handlers::new();
    let messages = log.clone();
    handlers.on_message(move |message, _| messages.push(message.as_text().unwrap().to_string()));
    let server = Server::with_factory(server_config(), handlers);
    let mut both = Both {
        driver: server.over_tls(&SERVER).driver(Waker::noop(), NOW).unwrap(),
        transport: Collecting::default(),
        buffers: Buffers::new(1 << 16),
        far: far_client(),
    };
    both.driver.start(&mut both.transport, &mut both.buffers, NOW);
    both.receive(b"");
    both.receive(wire::REQUEST.as_bytes());
    assert_eq!(both.driver.state(), State::Open);

    let handle = both.driver.handle();
    for name in ["first", "second"] {
        let functions = log.clone();
        handle.post(move |_, _| functions.push(name.to_string())).unwrap();
    }
    both.buffers.budget.set(1, None);
    both.driver.handle_wake(&mut both.transport, &mut both.buffers, NOW);
    assert_eq!(log.take(), ["first"]);
    assert!(both.driver.wants_resume() && both.driver.wants_input());
    both.buffers.budget.set(u64::MAX, None);
    both.receive(&wire::stream(&[text("one")], Role::Client));
    while both.driver.wants_resume() {
        both.driver.resume(&mut both.transport, &mut both.buffers, NOW);
    }
    both.receive(&wire::stream(&[text("two")], Role::Client));
    assert_eq!(log.take(), ["second", "one", "two"]);
    assert_eq!(both.driver.state(), State::Open);
}
