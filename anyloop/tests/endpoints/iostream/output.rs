//! How output is given away.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use anyloop::iostream::{CallError, Connection};
use anyloop::prelude::*;
use anyloop::proto::{Role, Shutdown};

use super::{Parts, client, echo, frames, open, sent};
use crate::record::{Log, recording};
use crate::transports::Sink;
use crate::wire::{self, binary, text};

#[test]
fn without_an_output_nothing_is_lost() {
    let log = Log::default();
    let connection = client(&recording(&log));
    assert!(matches!(connection.start(), Err(CallError::NoOutput)));
    let response = wire::RESPONSE.as_bytes();
    assert!(matches!(connection.read_some(response), Err(CallError::NoOutput)));
    assert!(matches!(connection.read_all(response), Err(CallError::NoOutput)));
    assert!(matches!(connection.read_from(&mut Parts(vec![])), Err(CallError::NoOutput)));
    let sink = Sink::default();
    connection.register_output(sink.clone());
    let request = String::from_utf8(sink.take()).unwrap();
    assert!(request.starts_with("GET /chat HTTP/1.1\r\n") && request.ends_with("\r\n\r\n"));
    connection.read_all(response).unwrap();
    assert_eq!(log.take(), ["open"]);
}

#[test]
fn nothing_is_sent_before_a_client_is_started() {
    let (connection, sink) = (client(&Handlers::new()), Sink::default());
    connection.register_output(sink.clone());
    connection.drive().unwrap();
    assert!(sink.take().is_empty());
    connection.start().unwrap();
    assert!(!sink.take().is_empty());
    connection.start().unwrap();
    assert!(sink.take().is_empty(), "once");
}

#[test]
fn each_kind_of_output_is_called_as_documented() {
    let large = vec![7; 100_000];
    let expected = [text("a"), binary(&large), binary(&large), text("b")];
    let mut handlers = Handlers::new();
    handlers.on_message(move |_, context| {
        let _ = context.send("a").unwrap();
        let _ = context.send(&large[..]).unwrap();
        let _ = context.send(&large[..]).unwrap();
        let _ = context.send("b").unwrap();
    });
    let (connection, _) = open(&handlers);
    let taken = Arc::new(Mutex::new(Vec::<Vec<u8>>::new()));

    let buffers = taken.clone();
    connection.set_write_handler(move |bytes| {
        buffers.lock().unwrap().push(bytes.to_vec());
        Ok(())
    });
    connection.read_all(&frames(&[text("go")])).unwrap();
    let buffers = std::mem::take(&mut *taken.lock().unwrap());
    assert!(buffers.iter().all(|buffer| !buffer.is_empty()));
    assert_eq!(wire::read(&buffers.concat(), Role::Server), expected);

    let batches = taken.clone();
    connection.set_vectored_write_handler(move |slices| {
        batches.lock().unwrap().push(slices.iter().flat_map(|slice| slice.to_vec()).collect());
        Ok(())
    });
    connection.read_all(&frames(&[text("go")])).unwrap();
    let batches = std::mem::take(&mut *taken.lock().unwrap());
    assert_eq!(wire::read(&batches.concat(), Role::Server), expected);
    assert_eq!(batches.len(), 3, "with each large one, and behind them");

    let (flushed, sink) = (Arc::new(AtomicUsize::new(0)), Sink::default());
    connection.register_output(Flushing(sink.clone(), flushed.clone(), Ok(())));
    connection.read_all(&frames(&[text("go")])).unwrap();
    assert_eq!(sent(&sink), expected);
    assert!(flushed.load(Ordering::Relaxed) > 0);
    assert!(taken.lock().unwrap().is_empty(), "the one that was set last");
}

struct Flushing(Sink, Arc<AtomicUsize>, Result<(), ErrorKind>);

impl Write for Flushing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        std::mem::replace(&mut self.2, Ok(())).map_err(Into::into)
    }
}

/// A buffered writer over a full pipe takes everything and cannot pass it on.
#[test]
fn a_flush_that_would_block_is_tried_again() {
    let (connection, _) = open(&echo());
    let flushed = Arc::new(AtomicUsize::new(0));
    let blocked = Err(ErrorKind::WouldBlock);
    connection.register_output(Flushing(Sink::default(), flushed.clone(), blocked));
    connection.read_all(&frames(&[text("a")])).unwrap();
    assert_eq!(flushed.load(Ordering::Relaxed), 1);
    connection.drive().unwrap();
    assert_eq!(flushed.load(Ordering::Relaxed), 2);
}

#[test]
fn output_that_would_block_waits_for_drive() {
    let (connection, sink) = open(&echo());
    sink.set_room(Some(2));
    connection.read_all(&frames(&[text("abc"), text("def")])).unwrap();
    assert_eq!(sink.take(), b"\x81\x03");
    assert_eq!(connection.handle().buffered_amount(), 8);
    connection.drive().unwrap();
    assert!(sink.take().is_empty());
    sink.set_room(None);
    connection.drive().unwrap();
    assert_eq!(sink.take(), b"abc\x81\x03def");
    assert_eq!(connection.handle().buffered_amount(), 0);
}

/// Output that waits goes first, also when there is room again and `drive` was not called yet.
#[test]
fn nothing_overtakes_what_waits() {
    let (connection, sink) = open(&echo());
    sink.set_room(Some(2));
    connection.read_all(&frames(&[text("abc")])).unwrap();
    sink.set_room(None);
    connection.read_all(&frames(&[text("def"), binary(vec![7; 50_000])])).unwrap();
    connection.drive().unwrap();
    assert_eq!(sent(&sink), [text("abc"), text("def"), binary(vec![7; 50_000])]);
}

#[test]
fn an_output_that_fails_ends_the_connection() {
    type Fail = fn(&Connection<Handlers>);
    let outputs: [(Fail, &str); 4] = [
        (
            |connection| {
                let sink = Sink::default();
                sink.fail(ErrorKind::BrokenPipe);
                connection.register_output(sink);
            },
            "connection reset",
        ),
        (|connection| connection.register_output(&mut [0_u8; 0][..]), "transport failed"),
        (
            |connection| connection.set_write_handler(|_| Err(ErrorKind::TimedOut.into())),
            "transport timed out",
        ),
        (
            |connection| connection.set_vectored_write_handler(|_| Err(ErrorKind::Other.into())),
            "transport failed",
        ),
    ];
    for (set, cause) in outputs {
        let log = Log::default();
        let (connection, _) = open(&recording(&log));
        let ended = Arc::new(Mutex::new(Vec::new()));
        let record = ended.clone();
        connection.set_shutdown_handler(move |how| record.lock().unwrap().push(how));
        log.take();
        set(&connection);
        connection.read_all(&frames(&[wire::ping("p")])).unwrap();
        let reported = format!("close unclean by transport: none/none, {cause}");
        assert_eq!(log.take(), ["ping p".to_string(), reported]);
        assert_eq!(*ended.lock().unwrap(), [Shutdown::Abort]);
    }
}

#[test]
fn interrupted_writes_are_tried_again() {
    let (connection, sink) = open(&echo());
    sink.fail(ErrorKind::Interrupted);
    connection.read_all(&frames(&[text("a")])).unwrap();
    assert_eq!(sent(&sink), [text("a")]);
}

#[test]
fn the_shutdown_handler_is_called_for_each_step() {
    let ended = Arc::new(Mutex::new(Vec::new()));
    let (connection, sink) = open(&Handlers::new());
    let (record, before) = (ended.clone(), sink.clone());
    connection.set_shutdown_handler(move |how| {
        record.lock().unwrap().push((how, before.take().len()));
    });
    connection.read_all(&frames(&[wire::frame(0x3, "")])).unwrap();
    let close = ended.lock().unwrap()[0].1;
    assert!(close > 4, "after all was written");
    connection.eof().unwrap();
    assert_eq!(*ended.lock().unwrap(), [(Shutdown::HalfClose, close), (Shutdown::Close, 0)]);
}

#[test]
fn without_a_shutdown_handler_the_connection_is_over_when_all_is_written() {
    for (last, cause) in [(wire::close(1000, ""), "clean"), (wire::frame(0x3, ""), "unclean")] {
        let log = Log::default();
        let (connection, sink) = open(&recording(&log));
        log.take();
        sink.set_room(Some(0));
        connection.read_all(&frames(&[last])).unwrap();
        assert!(!connection.has_ended(), "the Close is still to be written");
        sink.set_room(None);
        connection.drive().unwrap();
        assert_eq!(sent(&sink).last().unwrap().opcode, 8);
        assert!(connection.has_ended());
        assert!(log.take().last().unwrap().starts_with(&format!("close {cause}")));
    }
}
