//! How input is taken.

use std::io::{self, ErrorKind};

use anyloop::iostream::{CallError, MAX_READ};
use anyloop::prelude::*;
use anyloop::proto::{Role, State};

use super::{Parts, client, frames, open, server, server_with};
use crate::record::{Log, recording};
use crate::subject::{seconds, server_config};
use crate::transports::{Clock, Sink};
use crate::wire::{self, binary, text};

#[test]
fn read_some_returns_what_the_protocol_took() {
    let (connection, _) = open(&Handlers::new());
    let mut bytes = frames(&[wire::close(1000, "")]);
    assert_eq!(bytes.len(), 8);
    bytes.extend([0x81; 10]);
    assert_eq!(connection.read_some(&bytes).unwrap(), 8);
    assert_eq!(connection.read_some(&bytes[8..]).unwrap(), 0);
    connection.eof().unwrap();
    assert!(connection.has_ended());
}

#[test]
fn read_some_takes_a_chunk_at_most() {
    let log = Log::default();
    let (connection, _) = open(&recording(&log));
    log.take();
    let bytes = frames(&[binary(vec![7; 40_000])]);
    assert_eq!(bytes.len(), 40_008);
    for (from, taken) in
        [(0, MAX_READ), (MAX_READ, MAX_READ), (2 * MAX_READ, 40_008 - 2 * MAX_READ)]
    {
        assert!(log.take().is_empty());
        assert_eq!(connection.read_some(&bytes[from..]).unwrap(), taken);
    }
    assert_eq!(log.take(), ["binary of 40000"]);
    assert_eq!(connection.read_some(&[]).unwrap(), 0);
}

#[test]
fn read_some_mut_unmasks_in_place_and_takes_all() {
    let log = Log::default();
    let (connection, _) = open(&recording(&log));
    log.take();
    let mut bytes = frames(&[binary(vec![7; 40_000])]);
    assert_eq!(connection.read_some_mut(&mut bytes).unwrap(), 40_008);
    assert_eq!(log.take(), ["binary of 40000"]);
    assert_eq!(bytes[8..], [7; 40_000]);
}

#[test]
fn read_all_goes_on_until_all_is_taken_or_no_more_is() {
    let log = Log::default();
    let mut handlers = recording(&log);
    handlers.on_message(|message, context| {
        if message.as_bytes() == b"pause" {
            context.pause_reading();
        }
    });
    let (connection, _) = open(&handlers);
    let large = frames(&[binary(vec![7; 100_000])]);
    assert_eq!(connection.read_all(&large).unwrap(), large.len());
    let before = frames(&[binary(vec![7; 40_000]), text("pause")]);
    let all = [&before[..], &large].concat();
    assert_eq!(connection.read_all(&all).unwrap(), before.len());
    assert_eq!(connection.read_all(&large).unwrap(), 0);
    assert!(!connection.wants_input());
    connection.handle().resume_reading().unwrap();
    connection.drive().unwrap();
    assert!(connection.wants_input());
    let close = frames(&[wire::close(1000, ""), text("late")]);
    assert_eq!(connection.read_all(&close).unwrap(), 8);
}

#[test]
fn read_from_reads_once() {
    let log = Log::default();
    let (connection, _) = open(&recording(&log));
    log.take();
    let (one, two) = (frames(&[text("a"), text("b")]), frames(&[text("c")]));
    let mut reader = Parts(vec![Ok(one.clone()), Ok(two.clone())]);
    assert_eq!(connection.read_from(&mut reader).unwrap(), one.len());
    assert_eq!(log.take(), ["text a", "text b"]);
    assert_eq!(connection.read_from(&mut reader).unwrap(), two.len());
    assert_eq!(log.take(), ["text c"]);
}

#[test]
fn read_from_a_reader_at_its_end() {
    let log = Log::default();
    let (connection, _) = open(&recording(&log));
    log.take();
    assert_eq!(connection.read_from(&mut io::empty()).unwrap(), 0);
    let reported = "close unclean by peer: none/none, stream ended without a closing handshake";
    assert_eq!(log.take(), [reported]);
    assert!(connection.has_ended());
    assert_eq!(connection.read_from(&mut Parts(vec![])).unwrap(), 0, "which is not read any more");
}

#[test]
fn read_from_tries_again_returns_and_fails() {
    let log = Log::default();
    let (connection, _) = open(&recording(&log));
    log.take();
    let message = frames(&[text("a")]);
    let interrupted = || Err(ErrorKind::Interrupted.into());
    let mut reader = Parts(vec![interrupted(), interrupted(), Ok(message.clone())]);
    assert_eq!(connection.read_from(&mut reader).unwrap(), message.len());
    assert_eq!(log.take(), ["text a"]);

    let mut reader = Parts(vec![Err(ErrorKind::WouldBlock.into())]);
    assert_eq!(connection.read_from(&mut reader).unwrap(), 0);
    assert_eq!(connection.state(), Some(State::Open), "no end of input");

    let mut reader = Parts(vec![Err(ErrorKind::PermissionDenied.into())]);
    let error = connection.read_from(&mut reader).unwrap_err();
    assert!(matches!(error, CallError::Read(error) if error.kind() == ErrorKind::PermissionDenied));
    assert_eq!(connection.state(), Some(State::Open), "what to make of it is the program's to say");
    assert!(log.take().is_empty());
}

/// What comes before the answer is for the connection that may come of it.
#[test]
fn read_from_waits_for_the_answer() {
    let log = Log::default();
    let mut handlers = recording(&log);
    handlers.on_validate(|_, _| Answer::Defer);
    let connection = server(&handlers);
    connection.register_output(io::sink());
    let message = frames(&[text("a")]);
    let mut reader = Parts(vec![Ok(wire::REQUEST.into())]);
    assert_eq!(connection.read_from(&mut reader).unwrap(), wire::REQUEST.len());
    assert!(!connection.wants_input());
    assert_eq!(connection.read_from(&mut reader).unwrap(), 0, "the reader is not asked");
    connection.handle().accept(Accept::new()).unwrap();
    connection.drive().unwrap();
    reader.0.push(Ok(message.clone()));
    assert_eq!(connection.read_from(&mut reader).unwrap(), message.len());
    assert_eq!(log.take(), ["open", "text a"]);
}

#[test]
fn read_from_keeps_what_a_pause_leaves() {
    let log = Log::default();
    let mut handlers = recording(&log);
    let reported = log.clone();
    handlers.on_message(move |message, context| {
        reported.message(message);
        context.pause_reading();
    });
    let (connection, _) = open(&handlers);
    log.take();
    let resume = || {
        connection.handle().resume_reading().unwrap();
        connection.drive().unwrap();
    };
    let (some, more) = (frames(&[text("a"), text("b"), text("c")]), frames(&[text("d")]));
    let mut reader = Parts(vec![Ok(some.clone()), Ok(more.clone())]);
    assert_eq!(connection.read_from(&mut reader).unwrap(), some.len());
    assert_eq!(connection.read_from(&mut reader).unwrap(), 0, "paused: the reader is not asked");
    assert_eq!(log.take(), ["text a"]);
    for reported in ["text b", "text c"] {
        resume();
        assert_eq!(connection.read_from(&mut reader).unwrap(), 0);
        assert_eq!(log.take(), [reported]);
    }
    resume();
    assert_eq!(connection.read_from(&mut reader).unwrap(), more.len());
    assert_eq!(log.take(), ["text d"]);
}

/// A program that waits for its input to be readable would wait for ever: what is left has been read.
#[test]
fn what_a_pause_leaves_comes_with_the_drive_that_resumes() {
    let log = Log::default();
    let mut handlers = recording(&log);
    handlers.on_open(|context| context.pause_reading());
    let (connection, sink) = (server(&handlers), Sink::default());
    connection.register_output(sink);
    let bytes = [wire::REQUEST.as_bytes(), &frames(&[text("a")])].concat();
    connection.read_from(&mut &bytes[..]).unwrap();
    log.take();
    connection.handle().resume_reading().unwrap();
    connection.drive().unwrap();
    assert_eq!(log.take(), ["text a"]);
}

/// The same where it is a timer that resumes, and what is left comes first in any case.
#[test]
fn what_a_pause_leaves_comes_with_the_timer_that_resumes() {
    let log = Log::default();
    let mut handlers = recording(&log);
    let reported = log.clone();
    handlers.on_message(move |message, context| {
        reported.message(message);
        context.pause_reading();
        context.set_timer(seconds(1), |_, context| context.resume_reading());
    });
    let clock = Clock::default();
    let connection = server_with(server_config(), &handlers, &clock);
    connection.register_output(io::sink());
    let messages = frames(&[text("a"), text("b"), text("c")]);
    let bytes = [wire::REQUEST.as_bytes(), &messages].concat();
    connection.read_from(&mut &bytes[..]).unwrap();
    log.take();
    clock.pass(seconds(1));
    connection.handle_timeout().unwrap();
    assert_eq!(log.take(), ["text b"]);
    assert_eq!(connection.read_some(&frames(&[text("d")])).unwrap(), 0);
    clock.pass(seconds(1));
    connection.handle_timeout().unwrap();
    clock.pass(seconds(1));
    connection.handle_timeout().unwrap();
    connection.read_some(&frames(&[text("d")])).unwrap();
    assert_eq!(log.take(), ["text c", "text d"]);
}

/// What a pause has left comes before the end of input.
#[test]
fn the_end_of_input_comes_behind_what_a_pause_leaves() {
    let log = Log::default();
    let mut handlers = recording(&log);
    handlers.on_open(|context| context.pause_reading());
    let (connection, sink) = (server(&handlers), Sink::default());
    connection.register_output(sink);
    let bytes = [wire::REQUEST.as_bytes(), &frames(&[text("a"), wire::close(1000, "")])].concat();
    let mut reader = &bytes[..];
    connection.read_from(&mut reader).unwrap();
    log.take();
    connection.handle().resume_reading().unwrap();
    connection.drive().unwrap();
    for _ in 0..3 {
        connection.read_from(&mut reader).unwrap();
    }
    assert_eq!(log.take(), ["text a", "close clean by peer: 1000/1000"]);
}

/// The loop in the documentation: read until it is over. After a failure the peer's end of the stream
/// is what is waited for, and it comes by the reader; so it must be read for that, also past bytes that
/// nobody wants.
#[test]
fn read_from_until_it_is_over() {
    let failing = [frames(&[wire::frame(0x3, "")]), frames(&[text("ignored")])].concat();
    let request = [wire::REQUEST.as_bytes(), &failing].concat();
    let refused = b"nonsense\r\n\r\nmore of it".to_vec();
    for bytes in [request, refused] {
        let connection = server(&Handlers::new());
        connection.register_output(io::sink());
        let mut reader = Parts(vec![Ok(bytes), Ok(frames(&[text("ignored")])), Ok(Vec::new())]);
        for _ in 0..10 {
            if !connection.has_ended() {
                connection.read_from(&mut reader).unwrap();
            }
        }
        assert!(connection.has_ended());
    }

    // A client waits for the server to end the stream.
    let connection = client(&Handlers::new());
    connection.register_output(io::sink());
    connection.start().unwrap();
    let response = [wire::RESPONSE.as_bytes(), &wire::close(1000, "").bytes(Role::Server)].concat();
    let mut reader = Parts(vec![Ok(response), Ok(Vec::new())]);
    for _ in 0..10 {
        if !connection.has_ended() {
            connection.read_from(&mut reader).unwrap();
        }
    }
    assert!(connection.has_ended());
}

/// A program that reads only while input is wanted sees the end of the stream, also after the closing handshake.
#[test]
fn input_is_wanted_until_the_stream_ends() {
    let log = Log::default();
    let connection = client(&recording(&log));
    connection.register_output(io::sink());
    connection.start().unwrap();
    let close = wire::close(1000, "").bytes(Role::Server);
    let mut reader = Parts(vec![Ok(wire::RESPONSE.into()), Ok(close), Ok(Vec::new())]);
    for _ in 0..2 {
        assert!(connection.wants_input() && !connection.has_ended());
        connection.read_from(&mut reader).unwrap();
    }
    assert!(connection.wants_input() && !connection.has_ended());
    assert_eq!(connection.read_some(b"late").unwrap(), 0, "it is discarded");
    connection.read_from(&mut reader).unwrap();
    assert!(connection.has_ended() && !connection.wants_input());
    assert_eq!(log.take().last().unwrap(), "close clean by peer: 1000/1000");
}
