//! Time, wake-ups, and what a connection knows of its stream.

use std::io;
use std::sync::{Mutex, mpsc};
use std::thread;

use anyloop::iostream::{CallError, Client, Connection, Server};
use anyloop::prelude::*;

use super::calls::{Slot, found};
use super::{client, echo, frames, open, or_hangs, sent, server, server_with};
use crate::record::{Log, recording};
use crate::subject::{client_config, seconds, server_config};
use crate::transports::{Clock, Sink};
use crate::wire::{self, text};

#[test]
fn every_timeout_goes_by_the_clock_of_the_endpoint() {
    let clock = Clock::default();
    let log = Log::default();
    let start = clock.now();
    let config = server_config().idle_timeout(seconds(100));
    let mut handlers = recording(&log);
    handlers.on_validate(|_, _| Answer::Defer);
    let connection = server_with(config, &handlers, &clock);
    let sink = Sink::default();
    connection.register_output(sink.clone());
    let until = |seconds_later| {
        assert_eq!(connection.next_timeout(), Some(start + seconds(seconds_later)));
        clock.set(start + seconds(seconds_later));
    };
    // The opening handshake has 5 s, and the answer 10.
    assert_eq!(connection.next_timeout(), Some(start + seconds(5)));
    clock.set(start + seconds(4));
    connection.handle_timeout().unwrap();
    connection.read_all(wire::REQUEST.as_bytes()).unwrap();
    assert_eq!(connection.next_timeout(), Some(start + seconds(14)));
    clock.set(start + seconds(10));
    let handle = connection.handle();
    handle.accept(Accept::new()).unwrap();
    connection.drive().unwrap();
    sink.take();
    // A ping after 20 s, its pong within 20 s.
    until(30);
    connection.handle_timeout().unwrap();
    let ping = sent(&sink).remove(0);
    until(50);
    connection.read_all(&frames(&[wire::pong(ping.payload)])).unwrap();
    // A timer of the application's own.
    let reported = log.clone();
    handle.set_timer(seconds(5), move |_, _| reported.push("timer")).unwrap();
    connection.drive().unwrap();
    until(55);
    connection.handle_timeout().unwrap();
    assert_eq!(log.take(), ["open", "pong after 20s", "timer"]);
    // Closing takes 5 s at most.
    handle.close(CloseCode::NORMAL, "").unwrap();
    connection.drive().unwrap();
    until(60);
    connection.handle_timeout().unwrap();
    let reported = "close unclean by timer: 1000/none, closing handshake timed out";
    assert_eq!(log.take(), [reported]);
}

#[test]
fn a_client_has_no_deadline_before_it_is_started() {
    let connection = client(&Handlers::new());
    assert_eq!(connection.next_timeout(), None);
    connection.register_output(io::sink());
    connection.start().unwrap();
    assert!(connection.next_timeout().is_some());
}

#[test]
fn handles_on_other_threads_wake() {
    let (connection, sink) = open(&Handlers::new());
    let (woken, wakes) = mpsc::channel();
    let woken = Mutex::new(woken);
    connection.set_wake(move || woken.lock().unwrap().send(thread::current().id()).unwrap());
    assert!(!connection.wants_drive());
    let handle = connection.handle();
    let other = thread::spawn(move || {
        let _ = handle.send("a").unwrap();
        let _ = handle.send("b").unwrap();
        handle.ping(b"p").unwrap();
        thread::current().id()
    });
    let other = other.join().unwrap();
    assert_eq!(wakes.try_iter().collect::<Vec<_>>(), [other], "once, until it is driven");
    assert!(connection.wants_drive());
    assert!(sink.take().is_empty());
    connection.drive().unwrap();
    assert!(!connection.wants_drive());
    assert_eq!(sent(&sink), [text("a"), text("b"), wire::ping("p")]);
    let _ = connection.handle().send("c").unwrap();
    assert_eq!(wakes.try_iter().count(), 1, "and again");
}

/// Or what was asked for waits for ever: nothing wakes for the second message in a mailbox.
#[test]
fn a_drive_that_is_refused_is_still_wanted() {
    or_hangs(|| {
        let slot = Slot::default();
        let own = slot.clone();
        let mut handlers = Handlers::new();
        handlers.on_message(move |_, context| {
            let _ = context.handle().send("mailed").unwrap();
            assert!(matches!(found(&own).drive(), Err(CallError::Busy)));
        });
        let (connection, sink) = open(&handlers);
        *slot.lock().unwrap() = Some(connection.clone());
        connection.read_all(&frames(&[text("go")])).unwrap();
        assert!(connection.wants_drive());
        connection.drive().unwrap();
        assert_eq!(sent(&sink), [text("mailed")]);
        slot.lock().unwrap().take();
    });
}

/// A wake function that drives at once, as a program with one thread may well set.
#[test]
fn a_wake_function_that_drives() {
    or_hangs(|| {
        let (connection, sink) = open(&echo());
        let weak = Mutex::new(connection.clone());
        connection.set_wake(move || _ = weak.lock().unwrap().drive());
        let _ = connection.handle().send("a").unwrap();
        assert_eq!(sent(&sink), [text("a")]);
    });
}

#[test]
fn who_is_at_the_other_end() {
    let log = Log::default();
    let reported = log.clone();
    let mut handlers = Handlers::new();
    handlers.on_validate(move |_, context| {
        reported.push(format!("{} {}", context.remote_endpoint(), context.is_secure()));
        Accept::new()
    });
    let mut endpoint = Server::with_factory(server_config(), handlers);
    let request = wire::REQUEST.as_bytes();
    let with_sink = |connection: Connection<Handlers>| {
        connection.register_output(io::sink());
        connection
    };
    with_sink(endpoint.connection()).read_all(request).unwrap();
    assert_eq!(log.take(), ["iostream transport false"]);
    let connection = with_sink(endpoint.connection());
    connection.set_secure(true);
    connection.set_remote_endpoint("192.0.2.1:4711");
    connection.read_all(request).unwrap();
    assert_eq!(log.take(), ["192.0.2.1:4711 true"]);
    endpoint.set_secure(true).set_remote_endpoint("a pipe");
    with_sink(endpoint.connection()).read_all(request).unwrap();
    assert_eq!(log.take(), ["a pipe true"]);
}

/// `wss://` over a stream that anybody can read must fail, and send nothing.
#[test]
fn a_secure_target_needs_a_secure_stream() {
    let log = Log::default();
    let client = Client::with_factory(client_config(), recording(&log));
    let target = "wss://localhost/";
    let connection = client.connection(target).unwrap();
    let sink = Sink::default();
    connection.register_output(sink.clone());
    connection.start().unwrap();
    assert!(sink.take().is_empty());
    assert!(connection.has_ended());
    let reported = log.take();
    assert!(reported.len() == 1 && reported[0].starts_with("fail by "), "{reported:?}");

    let connection = client.connection(target).unwrap();
    connection.register_output(sink.clone());
    connection.set_secure(true);
    connection.start().unwrap();
    assert!(sink.take().starts_with(b"GET / HTTP/1.1\r\n"));
}

#[test]
fn what_has_passed_through() {
    let (connection, _) = open(&echo());
    connection.read_all(&frames(&[text("abc"), text("d")])).unwrap();
    let statistics = connection.statistics().unwrap();
    assert_eq!((statistics.messages_received, statistics.bytes_received), (2, 4));
    assert_eq!((statistics.messages_sent, statistics.bytes_sent), (2, 4));
    let broken = connection.fatal_error();
    assert!(broken.is_ok() && connection.has_ended());
}

#[test]
fn two_ends_by_hand_a_byte_at_a_time() {
    let log = Log::default();
    let mut handlers = recording(&log);
    handlers.on_open(|context| _ = context.send("hello"));
    let (client, server) = (client(&handlers), server(&echo()));
    let (up, down) = (Sink::default(), Sink::default());
    client.register_output(up.clone());
    server.register_output(down.clone());
    client.start().unwrap();
    loop {
        let (to_server, to_client) = (up.take(), down.take());
        if to_server.is_empty() && to_client.is_empty() {
            break;
        }
        for byte in to_server {
            assert_eq!(server.read_all(&[byte]).unwrap(), 1);
        }
        for byte in to_client {
            assert_eq!(client.read_all(&[byte]).unwrap(), 1);
        }
    }
    assert_eq!(log.take(), ["text hello"]);
}

/// One connection of many may have another handler, which gets the statistics at the end.
#[test]
fn a_connection_can_have_a_handler_of_its_own() {
    let log = Log::default();
    let mut server = Server::new(server_config());
    server.on_message(|_, _| panic!("it is not asked"));
    let reported = log.clone();
    let mut own = Handlers::new();
    own.on_message(|message, context| _ = context.send(message));
    own.on_close(move |ending, _| reported.push(format!("{:?}", ending.statistics)));
    let connection = server.connection_with(own);
    let sink = Sink::default();
    connection.register_output(sink.clone());
    let other = server.connection();
    assert!(connection.handle().id() < other.handle().id());
    connection.read_all(wire::REQUEST.as_bytes()).unwrap();
    sink.take();
    connection.read_all(&frames(&[text("abc"), wire::close(1000, "")])).unwrap();
    connection.eof().unwrap();
    assert!(connection.has_ended());
    let reported =
        "Statistics { messages_received: 1, bytes_received: 3, messages_sent: 1, bytes_sent: 3 }";
    assert_eq!(log.take(), [reported]);
}
