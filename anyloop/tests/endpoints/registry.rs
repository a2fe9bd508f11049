//! The connections of an endpoint, taken together.

use std::io;
use std::sync::{Arc, Mutex};

use anyloop::endpoint::{Client as _, Counters, Server as _};
use anyloop::iostream::Server;
use anyloop::prelude::*;

use crate::record::{Log, recording};
use crate::subject::{
    Subject, client_config, new_client, new_server, open_client, seconds, server_config,
};
use crate::transports::{Clock, End, TestTransport, over_each_transport};
use crate::wire::{self, text};

over_each_transport! {
    a_broadcast_reaches_all_that_are_open,
    a_broadcast_skips_connections_with_a_full_send_buffer,
    clients_count_as_well;
    not over sockets:
    connections_come_and_go,
    all_can_be_closed,
    a_server_shuts_down_gracefully,
    a_client_endpoint_knows_its_connections,
    everything_is_counted_once,
}

fn connections_come_and_go<C: TestTransport>() {
    let clock = Clock::default();
    let server = new_server::<C, _>(server_config(), Handlers::new(), &clock);
    assert!(server.handle().connections().is_empty());
    // Enough of them for the list to be tidied on the way.
    for round in 0..3 {
        let mut subjects: Vec<_> =
            (0..40).map(|_| Subject::<C>::of_server(&server, &clock)).collect();
        assert_eq!(server.handle().connections().len(), 40, "those that are not open yet count");
        subjects = subjects.into_iter().map(Subject::open).collect();
        for subject in &mut subjects[..20] {
            subject.close_by_peer();
        }
        let there = server.handle().connections();
        assert_eq!(there.len(), 20, "round {round}");
        for subject in &mut subjects[20..] {
            let handle = subject.end.handle();
            assert_eq!(there.iter().filter(|other| **other == handle).count(), 1);
        }
        drop(subjects);
        assert!(server.handle().connections().is_empty());
    }
}

fn a_broadcast_reaches_all_that_are_open<C: TestTransport>() {
    let clock = Clock::default();
    let server = new_server::<C, _>(server_config(), Handlers::new(), &clock);
    let mut subjects: Vec<_> =
        (0..3).map(|_| Subject::<C>::of_server(&server, &clock).open()).collect();
    subjects[0].close_by_peer();
    subjects[0].sent();
    assert_eq!(server.handle().broadcast(Prepared::new("news")), 2);
    for (subject, expected) in subjects.iter_mut().zip([&[][..], &[text("news")], &[text("news")]])
    {
        subject.drain();
        assert_eq!(subject.sent(), expected);
    }

    let mut connecting = Subject::<C>::of_server(&server, &clock);
    assert_eq!(
        server.handle().broadcast(Prepared::new("news")),
        2,
        "nobody can read it in a handshake"
    );
    connecting.drain();
}

fn a_broadcast_skips_connections_with_a_full_send_buffer<C: TestTransport>() {
    for overflow in [Overflow::Error, Overflow::Drop] {
        let clock = Clock::default();
        let config = server_config().max_send_buffer(10).overflow(overflow);
        let server = new_server::<C, _>(config, Handlers::new(), &clock);
        let mut slow = Subject::<C>::of_server(&server, &clock).open();
        let mut quick = Subject::<C>::of_server(&server, &clock).open();
        slow.end.block();
        for expected in [2, 1] {
            assert_eq!(
                server.handle().broadcast(Prepared::new("12345678")),
                expected,
                "{overflow:?}"
            );
            slow.drain();
            quick.drain();
        }
        assert_eq!(quick.sent().len(), 2);
        slow.end.give_room(usize::MAX);
        assert_eq!(slow.sent().len(), 1);
    }
}

fn all_can_be_closed<C: TestTransport>() {
    let clock = Clock::default();
    let log = Log::default();
    let server = new_server::<C, _>(server_config(), recording(&log), &clock);
    let mut open = Subject::<C>::of_server(&server, &clock).open();
    let mut silent = Subject::<C>::of_server(&server, &clock).open();
    let mut connecting = Subject::<C>::of_server(&server, &clock);
    let mut ended = Subject::<C>::of_server(&server, &clock).open();
    ended.close_by_peer();
    log.take();
    assert_eq!(server.handle().close_all(CloseCode::GOING_AWAY, "good night"), Ok(3));
    for subject in [&mut open, &mut silent, &mut connecting] {
        subject.drain();
    }
    assert_eq!(log.take(), ["fail by local: opening handshake abandoned"]);
    assert_eq!(open.sent(), [wire::close(1001, "good night")]);
    open.receive(&[wire::close(1001, "")]);
    assert_eq!(log.take(), ["close clean by local: 1001/1001"]);
    assert_eq!(server.handle().connections().len(), 1);
    silent.advance(seconds(5));
    assert!(server.handle().connections().is_empty());
}

/// Open connections get a closing handshake, new ones are refused, and the slowest has the close timeout.
fn a_server_shuts_down_gracefully<C: TestTransport>() {
    let clock = Clock::default();
    let log = Log::default();
    let server = new_server::<C, _>(server_config(), recording(&log), &clock);
    let mut open = Subject::<C>::of_server(&server, &clock).open();
    let mut silent = Subject::<C>::of_server(&server, &clock).open();
    log.take();
    assert!(!server.handle().is_shutting_down());
    server.handle().shut_down();
    server.handle().shut_down();
    assert!(server.handle().is_shutting_down());
    for subject in [&mut open, &mut silent] {
        subject.drain();
        assert_eq!(subject.sent(), [wire::close(1001, "shutting down")]);
    }
    open.receive(&[wire::close(1001, "")]);
    assert_eq!(log.take(), ["close clean by local: 1001/1001"]);

    let mut late = Subject::<C>::of_server(&server, &clock);
    late.end.start();
    assert!(late.end.is_over());
    assert_eq!(log.take(), ["fail by local: opening handshake abandoned"]);

    assert_eq!(server.handle().connections().len(), 1);
    silent.advance(seconds(5));
    assert!(server.handle().connections().is_empty());
}

fn a_client_endpoint_knows_its_connections<C: TestTransport>() {
    let clock = Clock::default();
    let config = client_config().max_send_buffer(100);
    let client = new_client::<C, _>(config, Handlers::new(), &clock);
    let mut first = Subject::<C>::of_client(&client, &clock).open();
    let mut second = Subject::<C>::of_client(&client, &clock).open();
    assert_eq!(client.handle().connections().len(), 2);
    assert_eq!(client.handle().broadcast(Prepared::new("news")), 2);
    assert_eq!(client.handle().close_all(CloseCode::GOING_AWAY, ""), Ok(2));
    for subject in [&mut first, &mut second] {
        subject.drain();
        assert_eq!(subject.sent(), [text("news"), wire::close(1001, "")]);
    }
    drop((first, second));
    assert!(client.handle().connections().is_empty());
    open_client::<C>(&Handlers::new());
}

fn everything_is_counted_once<C: TestTransport>() {
    let clock = Clock::default();
    let mut handlers = Handlers::new();
    handlers.on_message(|message, context| _ = context.send(message));
    let server = new_server::<C, _>(server_config(), handlers, &clock);
    assert_eq!(server.handle().counters(), Counters::default());
    let subject = || Subject::<C>::of_server(&server, &clock);

    let mut open = subject().open();
    open.receive(&[text("abc"), wire::ping("no message"), text("de")]);
    let counters = server.handle().counters();
    assert_eq!((counters.started, counters.opened, counters.messages_received), (1, 1, 0));
    open.close_by_peer();

    let mut broken = subject().open();
    broken.receive(&[text("f")]);
    broken.end.reset();

    let mut plain = subject();
    plain.receive_bytes("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(server.handle().counters().http, 0); // the answer is still to be read
    plain.end.eof();
    subject().receive_bytes("nonsense\r\n\r\n"); // and dropped before its end
    subject().end.eof();

    let counters = server.handle().counters();
    assert_eq!((counters.started, counters.opened), (5, 2));
    assert_eq!((counters.closed, counters.http, counters.failed), (2, 1, 1));
    assert_eq!((counters.messages_received, counters.bytes_received), (3, 6));
    assert_eq!((counters.messages_sent, counters.bytes_sent), (3, 6));
}

fn clients_count_as_well<C: TestTransport>() {
    let clock = Clock::default();
    let client = new_client::<C, _>(client_config(), Handlers::new(), &clock);
    Subject::<C>::of_client(&client, &clock).open().close_by_peer();
    let mut refused = Subject::<C>::of_client(&client, &clock);
    refused.end.start();
    refused.receive_bytes("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    refused.end.eof();
    let counters = client.handle().counters();
    assert_eq!((counters.started, counters.opened), (2, 1));
    assert_eq!((counters.closed, counters.failed, counters.http), (1, 1, 0));
}

/// A frame for many slow readers is kept once: what each of them is offered lies in the same place.
#[test]
fn a_broadcast_to_slow_readers_is_kept_once() {
    // Small ones are copied where nothing waits before them.
    for (len, waits_already) in [(1000, true), (20_000, true), (20_000, false)] {
        let server = Server::new(ServerConfig::new(OriginPolicy::Any));
        let places = Arc::new(Mutex::new(Vec::new()));
        let payload = vec![7; len];
        let connections: Vec<_> = (0..3)
            .map(|_| {
                let connection = server.connection();
                connection.set_write_handler(|_| Ok(()));
                connection.read_all(wire::REQUEST.as_bytes()).unwrap();
                connection.register_output(Never);
                if waits_already {
                    let _ = connection.handle().send("before").unwrap();
                    connection.drive().unwrap();
                }
                connection
            })
            .collect();
        assert_eq!(server.handle().broadcast(Prepared::new(&payload[..])), 3);
        for connection in &connections {
            connection.drive().unwrap();
        }
        // Not before all have it: memory that was freed may be used again.
        for connection in &connections {
            let places = places.clone();
            connection.set_vectored_write_handler(move |slices| {
                let large = slices.iter().filter(|slice| slice.len() == len + 4);
                places.lock().unwrap().extend(large.map(|slice| slice.as_ptr() as usize));
                Ok(())
            });
        }
        let places = places.lock().unwrap();
        assert_eq!(places.len(), 3);
        assert!(places.iter().all(|place| *place == places[0]), "{places:x?}");
    }
}

/// A large frame is not copied for peers that read in time, either.
#[test]
fn a_large_broadcast_is_written_from_where_it_lies() {
    let server = Server::new(ServerConfig::new(OriginPolicy::Any));
    let places = Arc::new(Mutex::new(Vec::new()));
    let message = Prepared::new(&[7; 20_000][..]);
    for _ in 0..3 {
        let connection = server.connection();
        let places = places.clone();
        connection.set_write_handler(move |bytes| {
            if bytes.len() > 20_000 {
                places.lock().unwrap().push(bytes.as_ptr() as usize);
            }
            Ok(())
        });
        connection.read_all(wire::REQUEST.as_bytes()).unwrap();
        assert_eq!(server.handle().broadcast(&message), 1);
        connection.drive().unwrap();
    }
    let places = places.lock().unwrap();
    assert_eq!(places.len(), 3);
    assert!(places.iter().all(|place| *place == places[0]), "{places:x?}");
}

/// Takes nothing.
struct Never;

impl io::Write for Never {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
