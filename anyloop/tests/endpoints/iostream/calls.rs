//! Which calls are allowed, from which thread, and when.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use anyloop::iostream::{CallError, Connection};
use anyloop::prelude::*;

use super::{Parts, echo, frames, open, or_hangs, sent, server_with};
use crate::record::{Log, recording};
use crate::subject::{seconds, server_config};
use crate::transports::{Clock, Sink};
use crate::wire::{self, text};

/// Every call that would work on the connection is refused, and takes nothing.
fn assert_busy<H: Handler>(connection: &Connection<H>, bytes: &[u8]) {
    let mut copy = bytes.to_vec();
    let calls = [
        connection.start().map(|()| 0),
        connection.read_some(bytes),
        connection.read_some_mut(&mut copy),
        connection.read_all(bytes),
        connection.read_from(&mut Parts(vec![])),
        connection.eof().map(|()| 0),
        connection.fatal_error().map(|()| 0),
        connection.handle_timeout().map(|()| 0),
        connection.drive().map(|()| 0),
    ];
    for call in calls {
        assert!(matches!(call, Err(CallError::Busy)), "{call:?}");
    }
    assert_eq!(copy, bytes);
    assert_eq!(connection.state(), None);
    assert_eq!(connection.statistics(), None);
    assert_eq!(connection.next_timeout(), None);
    assert!(!connection.wants_input() && !connection.has_ended());
}

/// Where the handlers of a connection find it.
pub(super) type Slot = Arc<Mutex<Option<Connection<Handlers>>>>;

pub(super) fn found(slot: &Slot) -> Connection<Handlers> {
    slot.lock().unwrap().clone().expect("it is there")
}

/// With WebSocket++ this hangs.
#[test]
fn a_handler_that_feeds_its_own_connection_is_refused() {
    or_hangs(|| {
        let log = Log::default();
        let (slot, reported) = (Slot::default(), log.clone());
        let mut handlers = Handlers::new();
        let own = slot.clone();
        handlers.on_message(move |message, context| {
            reported.message(message);
            assert_busy(&found(&own), &frames(&[text("from within")]));
            let _ = context.send(message);
        });
        let (connection, sink) = open(&handlers);
        *slot.lock().unwrap() = Some(connection.clone());
        connection.read_all(&frames(&[text("a"), text("b")])).unwrap();
        assert_eq!(log.take(), ["text a", "text b"]);
        assert_eq!(sent(&sink), [text("a"), text("b")]);
        slot.lock().unwrap().take();
    });
}

#[test]
fn a_second_thread_is_refused() {
    or_hangs(|| {
        let (at_work, is_at_work) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        let may_go_on = Mutex::new(may_go_on);
        let mut handlers = Handlers::new();
        handlers.on_message(move |message, context| {
            at_work.send(()).unwrap();
            may_go_on.lock().unwrap().recv().unwrap();
            let _ = context.send(message);
        });
        let (connection, sink) = open(&handlers);
        let first = connection.clone();
        let thread = thread::spawn(move || first.read_all(&frames(&[text("a")])).unwrap());
        is_at_work.recv().unwrap();
        assert_busy(&connection, &frames(&[text("from another thread")]));
        go_on.send(()).unwrap();
        assert_eq!(thread.join().unwrap(), frames(&[text("a")]).len());
        assert_eq!(sent(&sink), [text("a")]);
    });
}

/// What sets the connection up, or only asks for a handle, may come from a handler.
#[test]
fn a_handler_may_set_up_its_own_connection() {
    or_hangs(|| {
        let (slot, new) = (Slot::default(), Sink::default());
        let (own, output) = (slot.clone(), new.clone());
        let mut handlers = Handlers::new();
        handlers.on_message(move |message, context| {
            let connection = found(&own);
            connection.set_shutdown_handler(|_| ());
            connection.set_wake(|| ());
            connection.set_secure(true);
            connection.set_remote_endpoint("you");
            assert!(context.is_secure());
            assert_eq!(context.remote_endpoint(), "you");
            let _ = connection.handle().send("mailed").unwrap();
            let _ = context.send(message);
            connection.register_output(output.clone());
        });
        let (connection, old) = open(&handlers);
        *slot.lock().unwrap() = Some(connection.clone());
        connection.read_all(&frames(&[text("a")])).unwrap();
        assert!(sent(&old).is_empty());
        assert_eq!(sent(&new), [text("a")]);
        assert!(connection.wants_drive());
        connection.drive().unwrap();
        assert_eq!(sent(&new), [text("mailed")]);
        slot.lock().unwrap().take();
    });
}

/// Also from what the connection calls in the course of its work.
#[test]
fn an_output_may_reach_its_own_connection() {
    or_hangs(|| {
        let slot = Slot::default();
        let (connection, _) = open(&echo());
        *slot.lock().unwrap() = Some(connection.clone());
        let (own, sink) = (slot.clone(), Sink::default());
        let mut output = sink.clone();
        connection.set_write_handler(move |bytes| {
            assert_busy(&found(&own), bytes);
            let _ = found(&own).handle().buffered_amount();
            output.write_all(bytes)
        });
        let own = slot.clone();
        connection.set_shutdown_handler(move |_| {
            assert_busy(&found(&own), b"from within");
            found(&own).set_shutdown_handler(|_| ());
        });
        connection.read_all(&frames(&[text("a"), wire::close(1000, "")])).unwrap();
        assert_eq!(sent(&sink), [text("a"), wire::close(1000, "")]);
        slot.lock().unwrap().take();
    });
}

/// The old handler is dropped after its call. Its destructor may use the connection, too.
#[test]
fn a_replaced_shutdown_handler_may_reach_the_connection_when_it_is_dropped() {
    or_hangs(|| {
        let slot = Slot::default();
        let (connection, _) = open(&echo());
        *slot.lock().unwrap() = Some(connection.clone());
        let (sender, dropped) = mpsc::channel();
        let captured = UsesConnectionWhenDropped(slot.clone(), sender);
        connection.set_shutdown_handler(move |_| {
            found(&captured.0).set_shutdown_handler(|_| ());
        });
        connection.read_all(&frames(&[wire::close(1000, "")])).unwrap();
        assert_eq!(dropped.try_recv(), Ok(()));
        slot.lock().unwrap().take();
    });
}

struct UsesConnectionWhenDropped(Slot, mpsc::Sender<()>);

impl Drop for UsesConnectionWhenDropped {
    fn drop(&mut self) {
        let connection = found(&self.0);
        assert!(!connection.wants_output());
        connection.set_secure(true);
        connection.register_output(io::sink());
        self.1.send(()).unwrap();
    }
}

/// A handler panics; the program catches it. What was on its way goes on.
#[test]
fn a_panic_of_a_handler_loses_nothing_that_waits() {
    let mut handlers = echo();
    handlers.on_ping(|_, _| panic!("on purpose"));
    let (connection, sink) = open(&handlers);
    sink.set_room(Some(2));
    connection.read_all(&frames(&[text("abc")])).unwrap();
    let panicked =
        catch_unwind(AssertUnwindSafe(|| connection.read_all(&frames(&[wire::ping("p")]))));
    assert!(panicked.is_err());
    sink.set_room(None);
    connection.drive().unwrap();
    connection.read_all(&frames(&[text("d")])).unwrap();
    assert_eq!(sent(&sink)[0], text("abc"));
}

/// The wake function is set after the first request of a handle. It is called for that one, and for later
/// ones.
#[test]
fn a_wake_function_that_comes_late_is_called_at_once() {
    let (connection, _sink) = open(&echo());
    connection.handle().interrupt().unwrap();
    let (sender, receiver) = mpsc::channel();
    connection.set_wake(move || sender.send(()).unwrap());
    assert_eq!(receiver.try_recv(), Ok(()));
    connection.drive().unwrap();
    connection.handle().interrupt().unwrap();
    assert_eq!(receiver.try_recv(), Ok(()));
}

#[test]
fn a_wake_function_can_set_another() {
    or_hangs(|| {
        let (connection, _sink) = open(&echo());
        let other = connection.clone();
        connection.set_wake(move || other.set_wake(|| ()));
        connection.handle().interrupt().unwrap();
        connection.handle().interrupt().unwrap();
    });
}

/// Nothing was read by the peer, however often the connection is driven: the held ping's time runs out.
#[test]
fn a_dead_peer_is_found_also_when_it_is_driven() {
    let clock = Clock::default();
    let log = Log::default();
    let connection = server_with(server_config(), &recording(&log), &clock);
    let sink = Sink::default();
    connection.register_output(sink.clone());
    connection.read_all(wire::REQUEST.as_bytes()).unwrap();
    sink.set_room(Some(0));
    let _ = connection.handle().send("waits").unwrap();
    log.take();
    for _ in 0..100 {
        clock.pass(seconds(1));
        connection.drive().unwrap();
        connection.handle_timeout().unwrap();
    }
    assert!(connection.has_ended(), "{connection:?}");
    let reported = log.take();
    assert!(
        reported.iter().any(|line| line.contains("keep-alive ping not answered")),
        "{reported:?}"
    );
}

/// The dropped output reaches for the connection, as a writer of the program's may.
#[test]
fn an_output_that_is_replaced_can_reach_the_connection() {
    struct Reaches(Slot);

    impl Write for Reaches {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Drop for Reaches {
        fn drop(&mut self) {
            if let Some(connection) = self.0.lock().unwrap().take() {
                connection.set_secure(true);
            }
        }
    }

    or_hangs(|| {
        let (connection, _sink) = open(&echo());
        let slot = Slot::default();
        connection.register_output(Reaches(slot.clone()));
        *slot.lock().unwrap() = Some(connection.clone());
        connection.register_output(io::sink());
        assert!(slot.lock().unwrap().is_none());
    });
}
