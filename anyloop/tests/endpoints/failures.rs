//! Program code that panics, peers that stall, and calls that come at an unlucky moment.

use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::Waker;

use anyloop::endpoint::Unsent;
use anyloop::prelude::*;
use anyloop::proto::{Instant, Role, Shutdown, State};
use anyloop::transport::{Buffers, Server, Transport};

use crate::record::{Log, recording};
use crate::subject::{Subject, open_server, seconds, server, server_config};
use crate::transports::{End, TestTransport, over_each_transport};
use crate::wire::{self, close, text};

over_each_transport! {
    a_panic_of_a_handler_fails_its_connection,
    a_panic_of_a_completion_fails_its_connection,
    a_panic_in_drained_fails_its_connection,
    a_panic_before_it_is_open_fails_the_handshake,
    after_a_panic_in_a_posted_function_what_was_queued_behind_it_is_reported_unsent,
    a_pause_from_the_beginning_after_a_late_answer_kills_nobody,
    backpressure_is_followed_by_drained,
    a_connection_is_open_for_its_handles_when_open_is_called;
    not over sockets:
    after_a_panic_of_a_completion_the_other_pieces_are_reported_unsent,
    the_number_of_a_timer_is_given_out_once,
}

/// The panic reaches the caller that drives the connection, which can go on. The connection is closed with
/// 1011, and its end is reported once. Messages behind the one that panicked are not delivered.
fn a_panic_of_a_handler_fails_its_connection<C: TestTransport>() {
    let log = Log::default();
    let mut handlers = recording(&log);
    handlers.on_message(|message, context| {
        let _ = context.send("before");
        assert_ne!(message.as_bytes(), b"bad", "on purpose");
    });
    let mut subject = open_server::<C>(&handlers);
    log.take();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        subject.receive(&[text("good"), text("bad"), text("good")]);
    }));
    assert!(panicked.is_err());
    let sent = subject.sent();
    assert_eq!(sent, [text("before"), text("before"), close(1011, "the application failed")]);
    assert!(log.take().is_empty());
    subject.end.eof();
    assert_eq!(log.take(), ["close unclean by local: 1011/none, the application failed"]);
    assert!(subject.end.is_over());
}

/// The transport takes the message immediately, so the completion is called when the handler has returned.
fn a_panic_of_a_completion_fails_its_connection<C: TestTransport>() {
    let log = Log::default();
    let mut handlers = recording(&log);
    handlers.on_message(|_, context| {
        let _ = context.send_then("sent", |_| panic!("on purpose")).unwrap();
    });
    let mut subject = open_server::<C>(&handlers);
    log.take();
    let panicked = catch_unwind(AssertUnwindSafe(|| subject.receive(&[text("go")])));
    assert!(panicked.is_err());
    assert_eq!(subject.sent(), [text("sent"), close(1011, "the application failed")]);
    subject.end.eof();
    assert_eq!(log.take(), ["close unclean by local: 1011/none, the application failed"]);
    assert!(subject.end.is_over());
}

/// `drained` is called last, and a panic in it is handled as any other.
fn a_panic_in_drained_fails_its_connection<C: TestTransport>() {
    let log = Log::default();
    let mut handlers = recording(&log);
    handlers.on_drained(|_| panic!("on purpose"));
    let mut subject = open_server::<C>(&handlers);
    log.take();
    let _ = subject.end.handle().send(vec![0; 2 << 20]).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| subject.end.drain())).is_err());
    assert_eq!(subject.sent().last(), Some(&close(1011, "the application failed")));
    subject.end.eof();
    assert_eq!(log.take(), ["close unclean by local: 1011/none, the application failed"]);
}

fn a_panic_before_it_is_open_fails_the_handshake<C: TestTransport>() {
    let log = Log::default();
    let mut handlers = recording(&log);
    handlers.on_validate(|_, _| -> Answer { panic!("on purpose") });
    let mut subject = server::<C>(&handlers);
    let panicked = catch_unwind(AssertUnwindSafe(|| subject.receive_bytes(wire::REQUEST)));
    assert!(panicked.is_err());
    assert!(subject.sent_response().starts_with("HTTP/1.1 503 "));
    subject.end.eof();
    assert_eq!(log.take().last().unwrap(), "fail by local: opening handshake abandoned");
}

fn after_a_panic_in_a_posted_function_what_was_queued_behind_it_is_reported_unsent<
    C: TestTransport,
>() {
    let mut subject = open_server::<C>(&Handlers::new());
    let reported = Arc::new(Mutex::new(Vec::new()));
    let results = reported.clone();
    let handle = subject.end.handle();
    handle.post(|_, _| panic!("on purpose")).unwrap();
    let _ = handle.send_then("late", move |result| results.lock().unwrap().push(result)).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| subject.end.drain())).is_err());
    assert_eq!(*reported.lock().unwrap(), [Err(Unsent)]);
    assert_eq!(subject.sent(), [close(1011, "the application failed")]);
}

/// Two messages in pieces wait for the handler's own one, which it does not end before it closes.
fn after_a_panic_of_a_completion_the_other_pieces_are_reported_unsent<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_message(|message, context| match message.as_text() {
        Some("begin") => {
            context.begin(Kind::Text).unwrap();
            context.piece("a", false).unwrap();
        }
        _ => context.close(CloseCode::NORMAL, "").unwrap(),
    });
    for finished in [true, false] {
        let mut subject = open_server::<C>(&handlers);
        subject.receive(&[text("begin")]);
        let handle = subject.end.handle();
        let [mut first, mut second] = [0; 2].map(|_| handle.begin(Kind::Text));
        first.piece_then("b", false, |_| panic!("on purpose")).unwrap();
        let (sender, results) = channel();
        for (writer, piece) in [(&mut first, "c"), (&mut second, "d")] {
            let sender = sender.clone();
            let report = move |result| sender.send((piece, result)).unwrap();
            writer.piece_then(piece, finished, report).unwrap();
        }
        subject.drain();
        let panicked = catch_unwind(AssertUnwindSafe(|| subject.receive(&[text("close")])));
        assert!(panicked.is_err());
        subject.end.eof();
        assert!(subject.end.is_over());
        let reported: Vec<_> = results.try_iter().collect();
        assert_eq!(reported, ["c", "d"].map(|piece| (piece, Err(Unsent))), "finished: {finished}");
    }
}

fn a_pause_from_the_beginning_after_a_late_answer_kills_nobody<C: TestTransport>() {
    let log = Log::default();
    let mut handlers = recording(&log);
    handlers.on_validate(|_, _| Answer::Defer);
    handlers.on_open(|context| context.pause_reading());
    let mut subject = server::<C>(&handlers);
    subject.receive_bytes(wire::REQUEST);
    subject.end.handle().accept(Accept::new()).unwrap();
    subject.drain();
    log.take();
    subject.advance(seconds(500));
    assert!(log.take().is_empty());
    assert_eq!(subject.end.handle().state(), State::Open);
}

/// The transport takes the whole message at once, so the send buffer itself is never above the mark.
fn backpressure_is_followed_by_drained<C: TestTransport>() {
    let log = Log::default();
    let reported = log.clone();
    let mut handlers = Handlers::new();
    handlers.on_drained(move |_| reported.push("drained"));
    let mut subject = open_server::<C>(&handlers);
    let large = vec![0; 2 << 20];
    assert_eq!(subject.end.handle().send(&large), Ok(Sent::Backpressure));
    subject.drain();
    assert_eq!(log.take(), ["drained"]);
}

/// A broadcast goes to connections whose handles report them as open, and `open` may send one.
fn a_connection_is_open_for_its_handles_when_open_is_called<C: TestTransport>() {
    let log = Log::default();
    let reported = log.clone();
    let mut handlers = Handlers::new();
    handlers.on_open(move |context| reported.push(format!("{:?}", context.handle().state())));
    let mut subject = open_server::<C>(&handlers);
    assert_eq!(log.take(), ["Open"]);
    subject.close_by_peer();
}

fn the_number_of_a_timer_is_given_out_once<C: TestTransport>() {
    let log = Log::default();
    let reported = log.clone();
    let first = Mutex::new(None);
    let mut handlers = Handlers::new();
    handlers.on_open(move |context| {
        let timer = context.set_timer(seconds(1), |_, _| ());
        assert!(context.cancel_timer(timer));
        *first.lock().unwrap() = Some(timer);
        let old = *first.lock().unwrap();
        let reported = reported.clone();
        let later = context.handle();
        later
            .post(move |_, context| {
                let reported = reported.clone();
                context.set_timer(seconds(1), move |_, _| reported.push("timer"));
                assert!(!context.cancel_timer(old.unwrap()), "it is another one's number now");
            })
            .unwrap();
    });
    let config = server_config().keep_handshake(false);
    let mut subject = Subject::<C>::server(config, handlers).open();
    subject.drain();
    subject.advance(seconds(1));
    assert_eq!(log.take(), ["timer"]);
}

/// A transport that takes everything, except that it panics at one write.
#[derive(Default)]
struct Fragile {
    written: Vec<u8>,
    panics: bool,
}

impl Transport for Fragile {
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        assert!(!std::mem::take(&mut self.panics), "on purpose");
        slices.iter().for_each(|slice| self.written.extend_from_slice(slice));
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }

    fn shutdown(&mut self, _: Shutdown) -> io::Result<()> {
        Ok(())
    }
}

/// All connections of a thread gather what they send in the same memory, one after the other.
#[test]
fn what_a_panic_of_the_transport_leaves_is_not_sent_to_another() {
    let mut handlers = Handlers::new();
    handlers.on_message(|message, context| _ = context.send(message));
    let server = Server::with_factory(server_config(), handlers);
    let (mut buffers, now) = (Buffers::default(), Instant::from_nanos(0));
    let open = |buffers: &mut Buffers| {
        let (mut driver, mut transport) = (server.driver(Waker::noop(), now), Fragile::default());
        driver.start(&mut transport, buffers, now);
        driver.receive(&mut transport, buffers, &mut wire::REQUEST.as_bytes().to_vec(), now);
        transport.written.clear();
        (driver, transport)
    };
    let (mut broken, mut breaks) = open(&mut buffers);
    let (mut other, mut holds) = open(&mut buffers);
    breaks.panics = true;
    let mut secret = wire::stream(&[text("secret")], Role::Client);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        broken.receive(&mut breaks, &mut buffers, &mut secret, now);
    }));
    assert!(panicked.is_err());
    // Nobody knows how much of it was written, so it is not tried again.
    let left = wire::read(&breaks.written, Role::Server);
    assert_eq!(left, [close(1011, "the application failed")]);
    let mut public = wire::stream(&[text("public")], Role::Client);
    other.receive(&mut holds, &mut buffers, &mut public, now);
    assert_eq!(wire::read(&holds.written, Role::Server), [text("public")]);
}
