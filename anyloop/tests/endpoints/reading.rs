//! Pausing and resuming, and what else is not taken.

use anyloop::proto::Shutdown;

use crate::record::{Log, recording};
use crate::subject::{Subject, client, open_client, open_server, seconds, server_config};
use crate::transports::{End, TestTransport, over_each_transport};
use crate::wire::{self, text};

over_each_transport! {
    a_pause_in_the_first_of_six_messages_stops_the_second,
    a_pause_in_open_stops_the_first,
    a_pause_from_elsewhere,
    to_pause_twice_is_to_pause_once,
    to_resume_without_a_pause_is_harmless,
    a_pause_that_is_taken_back_in_the_same_call_is_none,
    a_ping_behind_a_pause_waits,
    sending_goes_on_while_it_is_paused,
    what_follows_a_close_is_not_taken,
    a_client_takes_nothing_behind_a_close,
    what_follows_a_failure_is_not_taken,
    messages_are_received_after_our_own_close,
    messages_in_parts;
    not over sockets:
    a_paused_connection_can_end,
}

/// Pauses in each message "pause".
fn pausing<C: TestTransport>(log: &Log) -> Subject<C> {
    let mut handlers = recording(log);
    let reported = log.clone();
    handlers.on_message(move |message, context| {
        reported.message(message);
        if message.as_bytes() == b"pause" {
            context.pause_reading();
        }
    });
    let subject = open_server::<C>(&handlers);
    log.take();
    subject
}

/// WebSocket++ delivers all six.
fn a_pause_in_the_first_of_six_messages_stops_the_second<C: TestTransport>() {
    let log = Log::default();
    let mut subject = pausing::<C>(&log);
    let messages = ["pause", "2", "3", "4", "5", "6"].map(text);
    let first = messages[0].bytes(wire::other(subject.role)).len();
    C::assert_taken(subject.receive(&messages), first);
    assert_eq!(log.take(), ["text pause"]);
    C::assert_taken(subject.receive(&[text("7")]), 0);
    subject.with_handle(|handle| handle.resume_reading()).unwrap();
    subject.read_on();
    let reported = log.take();
    assert_eq!(reported, ["text 2", "text 3", "text 4", "text 5", "text 6", "text 7"]);
    assert!(subject.unread.is_empty());
}

fn a_pause_in_open_stops_the_first<C: TestTransport>() {
    let log = Log::default();
    let mut handlers = recording(&log);
    handlers.on_open(|context| context.pause_reading());
    let mut subject = client::<C>(&handlers);
    subject.end.start();
    let frames = wire::stream(&[text("a")], wire::other(subject.role));
    let taken = subject.receive_bytes([wire::RESPONSE.as_bytes(), &frames].concat());
    C::assert_taken(taken, wire::RESPONSE.len());
    assert!(log.take().is_empty());
    subject.with_handle(|handle| handle.resume_reading()).unwrap();
    subject.read_on();
    assert_eq!(log.take(), ["text a"]);
}

fn a_pause_from_elsewhere<C: TestTransport>() {
    let log = Log::default();
    let mut subject = pausing::<C>(&log);
    subject.with_handle(|handle| handle.pause_reading()).unwrap();
    C::assert_taken(subject.receive(&[text("a"), text("b")]), 0);
    subject.with_handle(|handle| handle.resume_reading()).unwrap();
    subject.read_on();
    assert_eq!(log.take(), ["text a", "text b"]);
}

fn to_pause_twice_is_to_pause_once<C: TestTransport>() {
    let log = Log::default();
    let mut subject = pausing::<C>(&log);
    subject.with_handle(|handle| {
        handle.pause_reading().unwrap();
        handle.pause_reading().unwrap();
        handle.resume_reading().unwrap();
    });
    subject.receive(&[text("a")]);
    assert_eq!(log.take(), ["text a"]);
}

/// With WebSocket++ this starts a second read, which ends the connection.
fn to_resume_without_a_pause_is_harmless<C: TestTransport>() {
    let log = Log::default();
    let mut subject = pausing::<C>(&log);
    subject.with_handle(|handle| {
        handle.resume_reading().unwrap();
        handle.resume_reading().unwrap();
    });
    subject.receive(&[text("a"), text("b")]);
    assert_eq!(log.take(), ["text a", "text b"]);
    subject.close_by_peer();
}

fn a_pause_that_is_taken_back_in_the_same_call_is_none<C: TestTransport>() {
    let log = Log::default();
    let mut handlers = recording(&log);
    let reported = log.clone();
    handlers.on_message(move |message, context| {
        reported.message(message);
        context.pause_reading();
        context.resume_reading();
    });
    let mut subject = open_client::<C>(&handlers);
    log.take();
    subject.receive(&[text("a"), text("b")]);
    assert_eq!(log.take(), ["text a", "text b"]);
}

fn a_ping_behind_a_pause_waits<C: TestTransport>() {
    let log = Log::default();
    let mut subject = pausing::<C>(&log);
    subject.receive(&[text("pause"), wire::ping("p")]);
    assert!(subject.sent().is_empty());
    subject.with_handle(|handle| handle.resume_reading()).unwrap();
    subject.read_on();
    assert_eq!(log.take(), ["text pause", "ping p"]);
    assert_eq!(subject.sent(), [wire::pong("p")]);
}

fn sending_goes_on_while_it_is_paused<C: TestTransport>() {
    let log = Log::default();
    let mut subject = pausing::<C>(&log);
    subject.receive(&[text("pause")]);
    let _ = subject.with_handle(|handle| handle.send("a")).unwrap();
    assert_eq!(subject.sent(), [text("a")]);
}

/// WebSocket++ takes 18 of 18.
fn what_follows_a_close_is_not_taken<C: TestTransport>() {
    let log = Log::default();
    let mut subject = pausing::<C>(&log);
    let close = wire::close(1000, "").bytes(wire::other(subject.role));
    assert_eq!(close.len(), 8);
    C::assert_taken(subject.receive_bytes([&close[..], &[0x81; 10]].concat()), 8);
    C::assert_taken(subject.read_on(), 0);
    subject.end.assert_shut_down(&[Shutdown::HalfClose]);
    subject.end.eof();
    assert_eq!(log.take(), ["close clean by peer: 1000/1000"]);
}

fn a_client_takes_nothing_behind_a_close<C: TestTransport>() {
    let log = Log::default();
    let mut subject = open_client::<C>(&recording(&log));
    log.take();
    let close = wire::close(1000, "").bytes(wire::other(subject.role));
    let taken = subject.receive_bytes([&close[..], &[0x81; 10]].concat());
    C::assert_taken(taken, close.len());
    C::assert_taken(subject.read_on(), 0);
    subject.end.assert_shut_down(&[]);
    subject.end.eof();
    assert_eq!(log.take(), ["close clean by peer: 1000/1000"]);
}

fn what_follows_a_failure_is_not_taken<C: TestTransport>() {
    let log = Log::default();
    let mut subject = pausing::<C>(&log);
    subject.receive(&[wire::frame(0x3, "")]);
    subject.unread.clear();
    C::assert_taken(subject.receive(&[text("a")]), 0);
    subject.end.assert_shut_down(&[Shutdown::HalfClose]);
    assert!(log.take().is_empty());
}

fn messages_are_received_after_our_own_close<C: TestTransport>() {
    let log = Log::default();
    let mut subject = pausing::<C>(&log);
    let code = anyloop::proto::CloseCode::NORMAL;
    subject.with_handle(|handle| handle.close(code, "")).unwrap();
    subject.receive(&[text("a"), wire::close(1000, "")]);
    assert_eq!(log.take(), ["text a", "close clean by local: 1000/1000"]);
}

fn a_paused_connection_can_end<C: TestTransport>() {
    let log = Log::default();
    let mut subject = pausing::<C>(&log);
    subject.receive(&[text("pause"), wire::close(1000, "")]);
    let code = anyloop::proto::CloseCode::GOING_AWAY;
    subject.with_handle(|handle| handle.close(code, "")).unwrap();
    subject.advance(seconds(5));
    let reported = "close unclean by timer: 1001/none, closing handshake timed out";
    assert_eq!(log.take(), ["text pause", reported]);

    let mut subject = pausing::<C>(&log);
    subject.receive(&[text("pause")]);
    subject.end.eof();
    let reported = "close unclean by peer: none/none, stream ended without a closing handshake";
    assert_eq!(log.take(), ["text pause", reported]);
}

fn messages_in_parts<C: TestTransport>() {
    let log = Log::default();
    let config = server_config().max_message_size(100_000);
    let mut subject = Subject::<C>::server(config, recording(&log)).open();
    log.take();
    let large = vec![7; 100_000];
    let frames = [wire::binary(&large[..50_000]).more(), wire::frame(0, &large[50_000..])];
    let bytes = wire::stream(&frames, wire::other(subject.role));
    for chunk in bytes.chunks(1000) {
        assert_eq!(subject.receive_bytes(chunk), chunk.len());
    }
    assert_eq!(log.take(), ["binary of 100000"]);
    let mut frames = frames;
    frames[1].payload.push(7);
    subject.receive(&frames);
    subject.end.eof();
    let reported = "close unclean by peer: 1009/none, message too big: more than 100000 bytes";
    assert_eq!(log.take(), [reported]);
}
