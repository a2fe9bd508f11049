//! A handler that closes its connection: what handles and broadcasts have sent before comes first. Sockets are waited
//! for until nothing waits in the connection, so tests of what waits are not for them.

use std::sync::mpsc::{Receiver, channel};

use anyloop::endpoint::{Server, Unsent};
use anyloop::prelude::*;
use anyloop::proto::Refused;
use anyloop_testkit::frames::continuation;

use crate::record::Log;
use crate::subject::{Subject, new_server, open_client, open_server, server_config};
use crate::transports::{Clock, End, TestTransport, over_each_transport};
use crate::wire::{self, close, ping, pong, text};

over_each_transport! {
    what_was_sent_before_precedes_the_close_of_a_handler,
    what_was_sent_before_precedes_the_close_of_a_client,
    what_was_sent_before_precedes_the_close_of_a_posted_function,
    what_waits_for_the_opening_precedes_a_close_in_open,
    what_follows_a_late_answer_precedes_a_close_in_open,
    a_message_that_is_not_finished_holds_up_no_other,
    pings_and_pongs_precede_the_close_of_a_handler,
    a_close_that_is_refused_closes_nothing;
    not over sockets:
    the_last_piece_of_a_message_precedes_the_close,
    what_waits_for_a_message_that_is_not_finished_is_reported_unsent,
    what_waits_for_the_handlers_own_message_is_reported_unsent,
    other_commands_run_after_the_close,
    a_filter_is_not_called_while_the_handler_closes,
}

/// Sends a message, and returns where its outcome is reported.
fn send_then(handle: &Handle<Handlers>, message: &str) -> Receiver<Result<(), Unsent>> {
    let (sender, receiver) = channel();
    handle.send_then(message, move |result| sender.send(result).unwrap()).unwrap();
    receiver
}

fn piece_then(writer: &mut MessageWriter, payload: &str) -> Receiver<Result<(), Unsent>> {
    let (sender, receiver) = channel();
    writer.piece_then(payload, false, move |result| sender.send(result).unwrap()).unwrap();
    receiver
}

/// Sends in every way that does not leave at once, and closes.
fn send_and_close(context: &mut Context<'_, Handlers>) {
    let handle = context.handle();
    assert_eq!(handle.send("a"), Ok(Sent::Sent));
    assert_eq!(context.endpoint().broadcast("b"), 1);
    let mut writer = handle.begin(Kind::Text);
    writer.piece("c", false).unwrap();
    handle.send("d").unwrap();
    writer.piece("e", true).unwrap();
    context.send("first").unwrap();
    context.close(None, "").unwrap();
    assert_eq!(handle.send("late"), Err(SendError::Closing));
    assert_eq!(handle.begin(Kind::Text).piece("late", true), Err(SendError::Closing));
    assert_eq!(context.endpoint().broadcast("late"), 0);
    assert_eq!(context.close(None, ""), Err(SendError::Closing));
}

fn assert_all_were_sent<C: TestTransport>(subject: &mut Subject<C>) {
    subject.drain();
    let pieces = [text("c").more(), continuation("e")];
    let expected =
        [&[text("first"), text("a"), text("b")][..], &pieces, &[text("d"), wire::frame(8, "")]];
    assert_eq!(subject.sent(), expected.concat());
    assert_eq!(subject.end.handle().buffered_amount(), 0);
}

fn what_was_sent_before_precedes_the_close_of_a_handler<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_message(|_, context| send_and_close(context));
    let mut subject = open_server::<C>(&handlers);
    subject.receive(&[text("go")]);
    assert_all_were_sent(&mut subject);
}

fn what_was_sent_before_precedes_the_close_of_a_client<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_message(|_, context| send_and_close(context));
    let mut subject = open_client::<C>(&handlers);
    subject.receive(&[text("go")]);
    assert_all_were_sent(&mut subject);
}

fn what_was_sent_before_precedes_the_close_of_a_posted_function<C: TestTransport>() {
    let mut subject = open_server::<C>(&Handlers::new());
    let sent = subject.with_handle(|handle| {
        handle.send("a").unwrap();
        handle.post(|_, context| context.close(CloseCode::NORMAL, "").unwrap()).unwrap();
        send_then(handle, "b")
    });
    assert_eq!(subject.sent(), [text("a"), text("b"), close(1000, "")]);
    assert_eq!(sent.try_recv(), Ok(Ok(())));
}

fn what_waits_for_the_opening_precedes_a_close_in_open<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_open(|context| context.close(CloseCode::NORMAL, "").unwrap());
    let mut subject = Subject::<C>::server(server_config(), handlers);
    let handle = subject.end.handle();
    assert_eq!(handle.send("a"), Ok(Sent::Buffered));
    subject.drain();
    subject.receive_bytes(wire::REQUEST);
    let (_, frames) = subject.sent_head();
    assert_eq!(frames, [text("a"), close(1000, "")]);
}

fn what_follows_a_late_answer_precedes_a_close_in_open<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_validate(|_, _| Answer::Defer);
    handlers.on_open(|context| context.close(CloseCode::NORMAL, "").unwrap());
    let mut subject = Subject::<C>::server(server_config(), handlers);
    subject.receive_bytes(wire::REQUEST);
    subject.with_handle(|handle| {
        handle.accept(Accept::new()).unwrap();
        handle.send("a").unwrap();
    });
    let (_, frames) = subject.sent_head();
    assert_eq!(frames, [text("a"), close(1000, "")]);
}

fn a_message_that_is_not_finished_holds_up_no_other<C: TestTransport>() {
    let mut subject = open_server::<C>(&Handlers::new());
    let handle = subject.end.handle();
    let mut writer = handle.begin(Kind::Text);
    handle.post(|_, context| context.close(CloseCode::NORMAL, "").unwrap()).unwrap();
    let piece = piece_then(&mut writer, "never finished");
    handle.send("a").unwrap();
    subject.drain();
    assert_eq!(subject.sent(), [text("a"), close(1000, "")]);
    assert_eq!(piece.try_recv(), Ok(Err(Unsent)));
    assert_eq!(writer.piece("b", true), Err(SendError::Closing));
}

/// The function that closes runs within the batch of the commands behind it.
fn pings_and_pongs_precede_the_close_of_a_handler<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_message(|_, context| {
        let handle = context.handle();
        handle.ping("1").unwrap();
        handle.send("2").unwrap();
        handle.pong("3").unwrap();
        context.close(CloseCode::NORMAL, "").unwrap();
        assert_eq!(handle.ping("late"), Err(SendError::Closing));
        assert_eq!(handle.pong("late"), Err(SendError::Closing));
    });
    let expected = [ping("1"), text("2"), pong("3"), close(1000, "")];
    let mut subject = open_server::<C>(&handlers);
    subject.receive(&[text("go")]);
    subject.drain();
    assert_eq!(subject.sent(), expected);
    let mut subject = open_server::<C>(&handlers);
    subject.with_handle(|handle| {
        handle.post(|_, context| context.close(CloseCode::NORMAL, "").unwrap()).unwrap();
        handle.ping("1").unwrap();
        handle.send("2").unwrap();
        handle.pong("3").unwrap();
    });
    assert_eq!(subject.sent(), expected);
}

fn a_close_that_is_refused_closes_nothing<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_message(|_, context| {
        let refused = SendError::Refused(Refused::ReasonTooLong(124));
        assert_eq!(context.close(CloseCode::NORMAL, &"x".repeat(124)), Err(refused));
        context.handle().send("a").unwrap();
        assert_eq!(context.endpoint().broadcast("b"), 1);
    });
    let mut subject = open_server::<C>(&handlers);
    subject.receive(&[text("go")]);
    subject.drain();
    assert_eq!(subject.sent(), [text("a"), text("b")]);
}

/// A message is in progress; behind it wait one that is not finished, and one that is whole.
fn the_last_piece_of_a_message_precedes_the_close<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_message(|_, context| context.close(CloseCode::NORMAL, "").unwrap());
    let mut subject = open_server::<C>(&handlers);
    let handle = subject.end.handle();
    let [mut first, mut unfinished, mut third] = [0; 3].map(|_| handle.begin(Kind::Text));
    first.piece("1a", false).unwrap();
    let unsent = piece_then(&mut unfinished, "2a");
    third.piece("3a", false).unwrap();
    handle.send("4").unwrap();
    subject.drain();
    assert_eq!(subject.sent(), [text("1a").more()]);
    third.piece("3b", true).unwrap();
    first.piece("1b", true).unwrap();
    let sent = send_then(&handle, "5");
    subject.receive(&[text("close")]);
    subject.drain();
    let third = [text("3a").more(), continuation("3b")];
    let expected = [&[continuation("1b")][..], &third, &[text("4"), text("5"), close(1000, "")]];
    assert_eq!(subject.sent(), expected.concat());
    assert_eq!(sent.try_recv(), Ok(Ok(())));
    assert_eq!(unsent.try_recv(), Ok(Err(Unsent)));
    assert_eq!(handle.buffered_amount(), 0);
}

fn what_waits_for_a_message_that_is_not_finished_is_reported_unsent<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_message(|_, context| context.close(CloseCode::NORMAL, "").unwrap());
    let mut subject = open_server::<C>(&handlers);
    let handle = subject.end.handle();
    let mut writer = handle.begin(Kind::Text);
    writer.piece("a", false).unwrap();
    let deferred = send_then(&handle, "b");
    subject.drain();
    let results = [deferred, piece_then(&mut writer, "c"), send_then(&handle, "d")];
    subject.receive(&[text("close")]);
    subject.drain();
    assert_eq!(subject.sent(), [text("a").more(), close(1000, "")]);
    assert_eq!(results.map(|result| result.try_recv()), [Ok(Err(Unsent)); 3]);
    assert_eq!(handle.buffered_amount(), 0);
}

fn what_waits_for_the_handlers_own_message_is_reported_unsent<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_message(|_, context| {
        context.begin(Kind::Text).unwrap();
        context.piece(b"a", false).unwrap();
        context.close(CloseCode::NORMAL, "").unwrap();
    });
    let mut subject = open_server::<C>(&handlers);
    let handle = subject.end.handle();
    let unsent = send_then(&handle, "b");
    subject.receive(&[text("close")]);
    subject.drain();
    assert_eq!(subject.sent(), [text("a").more(), close(1000, "")]);
    assert_eq!(unsent.try_recv(), Ok(Err(Unsent)));
}

fn other_commands_run_after_the_close<C: TestTransport>() {
    let log = Log::default();
    let reported = log.clone();
    let mut handlers = Handlers::new();
    handlers.on_message(move |_, context| {
        let (first, second) = (reported.clone(), reported.clone());
        let handle = context.handle();
        handle.post(move |_, context| first.push(format!("{:?}", context.state()))).unwrap();
        handle.send("a").unwrap();
        handle.post(move |_, _| second.push("second")).unwrap();
        context.close(CloseCode::NORMAL, "").unwrap();
        handle.interrupt().unwrap();
        reported.push("closed");
    });
    let reported = log.clone();
    handlers.on_interrupt(move |_| reported.push("interrupt"));
    let mut subject = open_server::<C>(&handlers);
    subject.receive(&[text("go")]);
    assert_eq!(subject.sent(), [text("a"), close(1000, "")]);
    assert_eq!(log.take(), ["closed"]);
    assert!(subject.end.is_woken());
    subject.drain();
    assert_eq!(log.take(), ["CloseSent", "second", "interrupt"]);
    assert_eq!(subject.sent(), []);
}

/// The handler is in its call. So the message is not sent, whatever the filter would say; others are.
fn a_filter_is_not_called_while_the_handler_closes<C: TestTransport>() {
    let clock = Clock::default();
    let mut handlers = Handlers::new();
    handlers.on_message(|_, context| context.close(CloseCode::NORMAL, "").unwrap());
    let server = new_server::<C, _>(server_config(), handlers, &clock);
    let mut subject = Subject::<C>::of_server(&server, &clock).open();
    assert_eq!(server.handle().broadcast_where("a", |_| true), 1);
    assert_eq!(server.handle().broadcast("b"), 1);
    subject.receive(&[text("close")]);
    subject.drain();
    assert_eq!(subject.sent(), [text("b"), close(1000, "")]);
}
