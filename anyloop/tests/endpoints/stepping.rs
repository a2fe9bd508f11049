//! What the stepping transport itself promises: each thing happens when the test says so.

use anyloop::prelude::*;
use anyloop::proto::{Instant, Shutdown, State, TransportError};
use anyloop::transport::stepping::{self, Client, Connection, Operation, Server};

use crate::record::{Log, recording};
use crate::subject::{client_config, seconds, server_config, target};
use crate::wire::{self, text};

/// A server's end, before its handshake.
fn connection(config: ServerConfig, log: &Log) -> Connection<Handlers> {
    Server::with_factory(config, recording(log)).connection()
}

/// The same, open, and its record empty.
fn open(log: &Log) -> Connection<Handlers> {
    let mut connection = connection(server_config(), log);
    connection.receive(wire::REQUEST);
    connection.read_all();
    connection.accept(usize::MAX);
    connection.take_written();
    connection.take_operations();
    log.take();
    connection
}

fn client(log: &Log) -> Connection<Handlers> {
    let client = Client::with_factory(client_config(), recording(log));
    client.connection(target()).unwrap()
}

fn frames(frames: &[wire::Frame]) -> Vec<u8> {
    wire::stream(frames, anyloop::proto::Role::Client)
}

#[test]
fn nothing_is_read_before_the_test_says_so() {
    let log = Log::default();
    let mut connection = open(&log);
    let (one, two) = (frames(&[text("a"), text("b")]), frames(&[text("c")]));
    connection.receive(one.clone());
    connection.receive(two.clone());
    assert_eq!(connection.unread(), one.len() + two.len());
    assert!(log.take().is_empty());
    assert_eq!(connection.step_read(), one.len());
    assert_eq!(log.take(), ["text a", "text b"]);
    assert_eq!(connection.read_all(), two.len());
    assert_eq!(log.take(), ["text c"]);
    assert_eq!((connection.read_all(), connection.unread()), (0, 0));
}

#[test]
fn nothing_is_taken_before_there_is_room() {
    let log = Log::default();
    let mut connection = connection(server_config(), &log);
    connection.receive(wire::REQUEST);
    connection.read_all();
    assert_eq!(log.take(), ["validate GET /chat", "open"], "which does not wait for the response");
    let size = connection.buffered_amount();
    assert_eq!(connection.written(), b"");
    connection.accept(1);
    assert_eq!(connection.written(), b"H");
    connection.accept(size - 1 + 2);
    assert_eq!(connection.take_written().len(), size);
    // Two bytes of room are left, for what comes next.
    let _ = connection.handle().send("abc").unwrap();
    connection.take_operations();
    connection.drain();
    assert_eq!(connection.written(), b"\x81\x03");
    assert_eq!(connection.take_operations(), [Operation::Write { offered: 5, taken: 2 }]);
    connection.accept(3);
    assert_eq!(connection.take_written(), b"\x81\x03abc");
    assert_eq!(connection.take_operations(), [Operation::Write { offered: 3, taken: 3 }]);
    connection.accept(usize::MAX);
    connection.refuse();
    let _ = connection.handle().send("abc").unwrap();
    connection.drain();
    assert_eq!(connection.written(), b"");
}

#[test]
fn deadlines_are_visible_and_pass_when_the_test_says_so() {
    let log = Log::default();
    let mut connection = connection(server_config(), &log);
    let start = Instant::default();
    assert_eq!(connection.deadline(), Some(start + seconds(5)));
    assert_eq!(connection.take_operations(), [Operation::Deadline(Some(start + seconds(5)))]);
    connection.set_now(start + seconds(60));
    assert!(log.take().is_empty(), "nobody looks");
    connection.receive(wire::REQUEST);
    connection.read_all();
    assert_eq!(log.take(), ["validate GET /chat", "open"]);
    assert_eq!(connection.deadline(), Some(start + seconds(80)));
    assert!(connection.expire());
    assert_eq!(connection.now(), start + seconds(80));
    connection.accept(usize::MAX);
    connection.advance(seconds(30));
    assert_eq!(connection.now(), start + seconds(110));
    assert!(connection.has_ended(), "pong timeout at 100 s, close timeout at 105 s");
    assert_eq!(log.take().len(), 2);
    assert_eq!(connection.deadline(), None);
    assert!(!connection.expire());

    // One that is seen too late does not turn the clock back.
    let mut connection = self::connection(server_config(), &log);
    connection.set_now(start + seconds(60));
    assert!(connection.expire());
    assert_eq!(connection.now(), start + seconds(60));
}

#[test]
fn everything_asked_for_is_on_record() {
    let log = Log::default();
    let mut connection = open(&log);
    let handle = connection.handle();
    handle.pause_reading().unwrap();
    let _ = handle.send("a").unwrap();
    assert!(connection.is_woken());
    assert_eq!(connection.take_operations(), [Operation::Wake], "once");
    connection.drain();
    assert!(!connection.is_woken() && !connection.is_reading());
    let expected = [Operation::Write { offered: 3, taken: 3 }, Operation::Reading(false)];
    assert_eq!(connection.take_operations()[..2], expected);
    handle.resume_reading().unwrap();
    connection.drain();
    assert!(connection.is_reading());
    assert!(connection.take_operations().contains(&Operation::Reading(true)));
    connection.receive(frames(&[wire::close(1000, "")]));
    connection.read_all();
    let expected =
        [Operation::Write { offered: 4, taken: 4 }, Operation::Shutdown(Shutdown::HalfClose)];
    assert_eq!(connection.take_operations()[..2], expected);
    connection.eof();
    connection.read_all();
    assert_eq!(connection.take_operations(), [Operation::Shutdown(Shutdown::Close)]);
    assert_eq!(connection.last_shutdown(), Some(Shutdown::Close));
    assert_eq!(connection.state(), State::Ended);
}

#[test]
fn nothing_is_to_be_read_while_an_answer_is_awaited() {
    let mut server = Server::new(server_config());
    server.on_validate(|_, _| Answer::Defer);
    let mut connection = server.connection();
    connection.receive(wire::REQUEST);
    connection.read_all();
    assert!(connection.operations().contains(&Operation::Reading(false)));
    connection.handle().accept(Accept::new()).unwrap();
    connection.drain();
    assert!(connection.is_reading());
}

#[test]
fn the_stream_can_end_and_break() {
    let log = Log::default();
    let mut connection = open(&log);
    connection.eof();
    let reported = "close unclean by peer: none/none, stream ended without a closing handshake";
    assert_eq!(log.take(), [reported]);

    let mut connection = open(&log);
    connection.fail(TransportError::TimedOut);
    assert_eq!(log.take(), ["close unclean by transport: none/none, transport timed out"]);

    let mut connection = open(&log);
    connection.fail_write(TransportError::Other);
    assert!(!connection.has_ended());
    let _ = connection.handle().send("a").unwrap();
    connection.drain();
    assert_eq!(log.take(), ["close unclean by transport: none/none, transport failed"]);
    assert!(connection.operations().contains(&Operation::FailedWrite));
}

#[test]
fn what_nobody_will_take_is_thrown_away() {
    let log = Log::default();
    let mut connection = open(&log);
    connection.receive(frames(&[wire::frame(0x3, ""), text("a")]));
    connection.receive(frames(&[text("a")]));
    connection.read_all();
    assert_eq!(connection.state(), State::Failed);
    assert_eq!(connection.unread(), 0);
    assert!(log.take().is_empty());
}

#[test]
fn two_connections_can_be_joined() {
    let logs = (Log::default(), Log::default());
    let mut client = client(&logs.0);
    let mut server = connection(server_config(), &logs.1);
    client.start();
    stepping::exchange(&mut client, &mut server);
    assert_eq!(logs.0.take(), ["open"]);
    assert_eq!(logs.1.take(), ["validate GET /chat", "open"]);
    stepping::exchange_for(&mut client, &mut server, seconds(300));
    let (client_statistics, server_statistics) = (client.statistics(), server.statistics());
    assert_eq!(client.state(), State::Open);
    assert_eq!(client_statistics, server_statistics);
    logs.0.take();
    logs.1.take();
    client.handle().close(CloseCode::NORMAL, "").unwrap();
    stepping::exchange(&mut client, &mut server);
    assert_eq!(logs.0.take(), ["close clean by local: 1000/1000"]);
    assert_eq!(logs.1.take(), ["close clean by peer: 1000/1000"]);
}

/// A server that pauses keeps what it has not taken, and the end of the stream behind it.
#[test]
fn joined_connections_wait_for_one_that_pauses() {
    let log = Log::default();
    let mut handlers = recording(&log);
    handlers.on_open(|context| context.pause_reading());
    let mut server = Server::with_factory(server_config(), handlers).connection();
    let mut client = client(&Log::default());
    client.start();
    stepping::exchange(&mut client, &mut server);
    log.take();
    let _ = client.handle().send("a").unwrap();
    stepping::exchange(&mut client, &mut server);
    client.fail(TransportError::Reset);
    stepping::exchange(&mut client, &mut server);
    assert!(log.take().is_empty());
    server.handle().resume_reading().unwrap();
    stepping::exchange(&mut client, &mut server);
    let ended = "close unclean by peer: none/none, stream ended without a closing handshake";
    assert_eq!(log.take(), ["text a", ended]);
}
