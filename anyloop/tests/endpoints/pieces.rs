//! Messages that handles send in pieces: what waits for them, what they wait for, and what becomes of those that are
//! not finished. Sockets are waited for until nothing waits in the connection, so tests of what waits are not for them.

use std::sync::mpsc::{Receiver, channel};

use anyloop::endpoint::{AnyHandle, Server, Unsent};
use anyloop::prelude::*;
use anyloop::proto::Refused;
use anyloop_testkit::frames::continuation;

use crate::record::{Log, recording};
use crate::subject::{Subject, new_server, open_client, open_server, server_config};
use crate::transports::{Clock, End, TestTransport, over_each_transport};
use crate::wire::{self, binary, close, ping, text};

over_each_transport! {
    pieces_of_a_handle_are_one_message,
    a_client_sends_pieces,
    a_handle_without_a_type_sends_pieces,
    the_handler_cannot_end_the_message_of_a_writer,
    a_writer_without_pieces_sends_nothing,
    a_writer_that_is_dropped_closes_the_connection,
    a_finished_writer_can_be_dropped,
    nothing_follows_the_last_piece,
    nothing_waits_for_a_message_of_the_handler_that_is_complete,
    pieces_that_follow_a_close_are_refused,
    a_message_that_cannot_be_finished_before_a_close_is_not_begun,
    a_piece_that_the_send_buffer_cannot_take_can_be_sent_again,
    a_piece_is_never_dropped_alone;
    not over sockets:
    rfc6455_5_4_other_messages_wait_for_the_last_piece,
    a_writer_waits_for_another,
    a_writer_waits_for_the_handlers_message,
    the_handlers_messages_wait_for_a_writer,
    pieces_wait_for_the_opening,
    a_waiting_writer_that_is_dropped_sends_nothing,
    pitfall_what_waits_for_a_message_does_not_stop_its_pieces,
    the_end_of_the_connection_is_reported,
    the_send_buffer_counts_what_waits_for_a_writer,
    a_context_and_its_handles_count_what_waits,
    what_waits_for_a_writer_does_not_make_the_peer_slow,
    what_the_mailbox_holds_waits_for_a_writer,
    what_waits_for_the_handlers_message_does_not_make_the_peer_slow,
    a_second_message_of_the_handler_does_not_make_the_peer_slow,
    before_the_opening_a_message_that_cannot_be_finished_is_not_begun;
    not over TLS:
    a_writer_closes_a_connection_whose_peer_is_slow,
}

fn piece_then(
    writer: &mut MessageWriter,
    payload: &str,
    last: bool,
) -> Receiver<Result<(), Unsent>> {
    let (sender, receiver) = channel();
    writer.piece_then(payload, last, move |result| sender.send(result).unwrap()).unwrap();
    receiver
}

fn pieces_of_a_handle_are_one_message<C: TestTransport>() {
    let mut subject = open_server::<C>(&Handlers::new());
    let handle = subject.end.handle();
    let mut writer = handle.begin(Kind::Text);
    assert_eq!(writer.piece("a", false), Ok(Sent::Sent));
    subject.drain();
    assert_eq!(subject.sent(), [text("a").more()]);
    writer.piece(b"b", false).unwrap();
    writer.piece("c".to_string(), true).unwrap();
    let taken = piece_then(&mut handle.begin(Kind::Binary), "d", true);
    subject.drain();
    assert_eq!(subject.sent(), [continuation("b").more(), continuation("c"), binary("d")]);
    assert_eq!(taken.try_recv(), Ok(Ok(())));
}

fn a_client_sends_pieces<C: TestTransport>() {
    let mut subject = open_client::<C>(&Handlers::new());
    let mut writer = subject.end.handle().begin(Kind::Text);
    writer.piece("a", false).unwrap();
    writer.piece("", true).unwrap();
    subject.drain();
    assert_eq!(subject.sent(), [text("a").more(), continuation("")]);
}

fn a_handle_without_a_type_sends_pieces<C: TestTransport>() {
    let mut subject = open_server::<C>(&Handlers::new());
    let handle: AnyHandle = subject.end.handle().erase();
    handle.begin(Kind::Binary).piece("a", true).unwrap();
    subject.drain();
    assert_eq!(subject.sent(), [binary("a")]);
}

fn rfc6455_5_4_other_messages_wait_for_the_last_piece<C: TestTransport>() {
    let clock = Clock::default();
    let server = new_server::<C, _>(server_config(), Handlers::new(), &clock);
    let mut subject = Subject::<C>::of_server(&server, &clock).open();
    let handle = subject.end.handle();
    let mut writer = handle.begin(Kind::Text);
    writer.piece("a", false).unwrap();
    handle.send("second").unwrap();
    assert_eq!(server.handle().broadcast("third"), 1);
    handle.ping(b"now").unwrap();
    subject.drain();
    writer.piece("b", false).unwrap();
    subject.drain();
    assert_eq!(subject.sent(), [text("a").more(), ping("now"), continuation("b").more()]);
    writer.piece("c", true).unwrap();
    subject.drain();
    assert_eq!(subject.sent(), [continuation("c"), text("second"), text("third")]);
    assert_eq!(handle.buffered_amount(), 0);
}

fn a_writer_waits_for_another<C: TestTransport>() {
    let mut subject = open_server::<C>(&Handlers::new());
    let handle = subject.end.handle();
    let [mut first, mut second, mut third] = [0; 3].map(|_| handle.begin(Kind::Text));
    first.piece("1a", false).unwrap();
    second.piece("2a", false).unwrap();
    third.piece("3a", false).unwrap();
    handle.send("last").unwrap();
    subject.drain();
    third.piece("3b", true).unwrap();
    second.piece("2b", false).unwrap();
    subject.drain();
    assert_eq!(subject.sent(), [text("1a").more()]);
    first.piece("1b", true).unwrap();
    subject.drain();
    let expected = [continuation("1b"), text("2a").more(), continuation("2b").more()];
    assert_eq!(subject.sent(), expected);
    second.piece("2c", true).unwrap();
    subject.drain();
    let expected = [continuation("2c"), text("3a").more(), continuation("3b"), text("last")];
    assert_eq!(subject.sent(), expected);
    assert_eq!(handle.buffered_amount(), 0);
}

fn a_writer_waits_for_the_handlers_message<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_message(|message, context| match message.as_text() {
        Some("begin") => {
            context.begin(Kind::Text).unwrap();
            context.piece(b"a", false).unwrap();
        }
        _ => _ = context.piece(b"b", true).unwrap(),
    });
    let mut subject = open_server::<C>(&handlers);
    subject.receive(&[text("begin")]);
    let mut writer = subject.end.handle().begin(Kind::Text);
    writer.piece("c", false).unwrap();
    subject.drain();
    assert_eq!(subject.sent(), [text("a").more()]);
    subject.receive(&[text("end")]);
    writer.piece("d", true).unwrap();
    subject.drain();
    assert_eq!(subject.sent(), [continuation("b"), text("c").more(), continuation("d")]);
}

fn the_handlers_messages_wait_for_a_writer<C: TestTransport>() {
    let log = Log::default();
    let reported = log.clone();
    let mut handlers = Handlers::new();
    handlers.on_message(move |message, context| {
        let sent = context.send(message);
        let prepared = context.send_prepared(&Prepared::new("prepared"));
        let completed = reported.clone();
        let then = context.send_then("then", move |result| completed.push(format!("{result:?}")));
        reported.push(format!("{sent:?} {prepared:?} {then:?} {:?}", context.begin(Kind::Text)));
    });
    let mut subject = open_server::<C>(&handlers);
    let mut writer = subject.end.handle().begin(Kind::Text);
    writer.piece("a", false).unwrap();
    subject.drain();
    subject.receive(&[text("echo")]);
    let buffered = "Ok(Buffered) Ok(Buffered) Ok(Buffered) Err(Refused(MessageUnfinished))";
    assert_eq!(log.take(), [buffered]);
    assert_eq!(subject.end.handle().buffered_amount(), 16);
    writer.piece("b", true).unwrap();
    subject.drain();
    let expected =
        [text("a").more(), continuation("b"), text("echo"), text("prepared"), text("then")];
    assert_eq!(subject.sent(), expected);
    assert_eq!(log.take(), ["Ok(())"]);
}

fn the_handler_cannot_end_the_message_of_a_writer<C: TestTransport>() {
    let log = Log::default();
    let reported = log.clone();
    let mut handlers = Handlers::new();
    handlers.on_message(move |_, context| reported.push(format!("{:?}", context.piece(b"", true))));
    let mut subject = open_server::<C>(&handlers);
    let mut writer = subject.end.handle().begin(Kind::Text);
    writer.piece("a", false).unwrap();
    subject.drain();
    subject.receive(&[text("end")]);
    assert_eq!(log.take(), ["Err(Refused(NoMessageBegun))"]);
    writer.piece("b", true).unwrap();
    subject.drain();
    assert_eq!(subject.sent(), [text("a").more(), continuation("b")]);
}

fn pieces_wait_for_the_opening<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_open(|context| _ = context.send("welcome").unwrap());
    let mut subject = Subject::<C>::server(server_config(), handlers);
    let handle = subject.end.handle();
    let mut writer = handle.begin(Kind::Text);
    assert_eq!(writer.piece("a", false), Ok(Sent::Buffered));
    writer.piece("b", false).unwrap();
    handle.send("second").unwrap();
    subject.drain();
    assert_eq!(handle.buffered_amount(), 8);
    subject.receive_bytes(wire::REQUEST);
    let (_, frames) = subject.sent_head();
    assert_eq!(frames, [text("welcome"), text("a").more(), continuation("b").more()]);
    writer.piece("c", true).unwrap();
    subject.drain();
    assert_eq!(subject.sent(), [continuation("c"), text("second")]);
}

fn a_writer_without_pieces_sends_nothing<C: TestTransport>() {
    let mut subject = open_server::<C>(&Handlers::new());
    let handle = subject.end.handle();
    let mut writer = handle.begin(Kind::Text);
    handle.send("first").unwrap();
    writer.piece("second", true).unwrap();
    drop(handle.begin(Kind::Text));
    subject.drain();
    assert_eq!(subject.sent(), [text("first"), text("second")]);
}

fn a_writer_that_is_dropped_closes_the_connection<C: TestTransport>() {
    let log = Log::default();
    let mut subject = open_server::<C>(&recording(&log));
    log.take();
    let handle = subject.end.handle();
    let mut writer = handle.begin(Kind::Text);
    writer.piece("a", false).unwrap();
    let (sender, result) = channel();
    handle.send_then("waits", move |result| sender.send(result).unwrap()).unwrap();
    drop(writer);
    subject.drain();
    let expected = [text("a").more(), close(1011, "a message was not finished")];
    assert_eq!(subject.sent(), expected);
    assert_eq!(result.try_recv(), Ok(Err(Unsent)));
    subject.close_by_peer();
    assert_eq!(log.take(), ["close clean by local: 1011/1000"]);
}

fn a_waiting_writer_that_is_dropped_sends_nothing<C: TestTransport>() {
    let mut subject = open_server::<C>(&Handlers::new());
    let handle = subject.end.handle();
    let mut first = handle.begin(Kind::Text);
    first.piece("a", false).unwrap();
    let mut second = handle.begin(Kind::Text);
    let results = ["b", "c"].map(|payload| piece_then(&mut second, payload, false));
    subject.drain();
    drop(second);
    subject.drain();
    assert_eq!(results.map(|result| result.try_recv()), [Ok(Err(Unsent)); 2]);
    assert_eq!(handle.send("third"), Ok(Sent::Buffered), "it waits for the first");
    first.piece("d", true).unwrap();
    subject.drain();
    assert_eq!(subject.sent(), [text("a").more(), continuation("d"), text("third")]);
    assert_eq!(handle.buffered_amount(), 0);
}

fn a_finished_writer_can_be_dropped<C: TestTransport>() {
    let mut subject = open_server::<C>(&Handlers::new());
    let handle = subject.end.handle();
    let mut writer = handle.begin(Kind::Text);
    writer.piece("a", true).unwrap();
    drop(writer);
    handle.send("b").unwrap();
    subject.drain();
    assert_eq!(subject.sent(), [text("a"), text("b")]);
}

fn nothing_follows_the_last_piece<C: TestTransport>() {
    let mut subject = open_server::<C>(&Handlers::new());
    let mut writer = subject.end.handle().begin(Kind::Text);
    writer.piece("a", true).unwrap();
    let refused = Err(SendError::Refused(Refused::NoMessageBegun));
    assert_eq!(writer.piece("b", false), refused);
    let (sender, result) = channel();
    let sent = writer.piece_then("b", true, move |result| sender.send(result).unwrap());
    assert_eq!(sent, refused);
    assert_eq!(result.try_recv(), Ok(Err(Unsent)));
}

fn pieces_that_follow_a_close_are_refused<C: TestTransport>() {
    let mut subject = open_server::<C>(&Handlers::new());
    let handle = subject.end.handle();
    let mut writer = handle.begin(Kind::Text);
    writer.piece("a", false).unwrap();
    subject.drain();
    handle.close(CloseCode::NORMAL, "").unwrap();
    assert_eq!(writer.piece("b", false), Err(SendError::Closing));
    subject.drain();
    assert_eq!(writer.piece("b", true), Err(SendError::Closing));
    drop(writer);
    subject.drain();
    assert_eq!(subject.sent(), [text("a").more(), close(1000, "")]);
}

/// Its first piece, another message and the Close are run together.
fn a_message_that_cannot_be_finished_before_a_close_is_not_begun<C: TestTransport>() {
    let mut subject = open_server::<C>(&Handlers::new());
    let handle = subject.end.handle();
    let [mut unfinished, mut whole] = [0; 2].map(|_| handle.begin(Kind::Text));
    let unsent = piece_then(&mut unfinished, "never finished", false);
    whole.piece("a", false).unwrap();
    handle.send("c").unwrap();
    let sent = piece_then(&mut whole, "b", true);
    handle.close(CloseCode::NORMAL, "").unwrap();
    assert_eq!(unfinished.piece("late", true), Err(SendError::Closing));
    subject.drain();
    let expected = [text("a").more(), continuation("b"), text("c"), close(1000, "")];
    assert_eq!(subject.sent(), expected);
    assert_eq!(unsent.try_recv(), Ok(Err(Unsent)));
    assert_eq!(sent.try_recv(), Ok(Ok(())));
    assert_eq!(handle.buffered_amount(), 0);
}

fn the_end_of_the_connection_is_reported<C: TestTransport>() {
    let mut subject = open_server::<C>(&Handlers::new());
    let handle = subject.end.handle();
    let [mut first, mut second] = [0; 2].map(|_| handle.begin(Kind::Text));
    first.piece("a", false).unwrap();
    let waiting = piece_then(&mut second, "b", false);
    subject.drain();
    let in_mailbox = piece_then(&mut first, "c", false);
    subject.end.reset();
    assert_eq!(waiting.try_recv(), Ok(Err(Unsent)));
    assert_eq!(in_mailbox.try_recv(), Ok(Err(Unsent)));
    assert_eq!(first.piece("d", true), Err(SendError::Gone));
}

fn limits(overflow: Overflow) -> ServerConfig {
    server_config().low_water_mark(0).high_water_mark(20).max_send_buffer(20).overflow(overflow)
}

fn a_piece_that_the_send_buffer_cannot_take_can_be_sent_again<C: TestTransport>() {
    let config = limits(Overflow::Error);
    let mut subject = Subject::<C>::server(config, Handlers::new()).open();
    subject.end.block();
    let mut writer = subject.end.handle().begin(Kind::Text);
    writer.piece("0123456789", false).unwrap();
    subject.drain();
    let full = writer.piece("0123456789", true);
    assert!(
        matches!(full, Err(SendError::SendBufferFull { message: 10, limit: 20, .. })),
        "{full:?}"
    );
    subject.end.give_room(usize::MAX);
    assert_eq!(writer.piece("abc", true), Ok(Sent::Sent));
    subject.drain();
    assert_eq!(subject.sent(), [text("0123456789").more(), continuation("abc")]);
}

fn a_piece_is_never_dropped_alone<C: TestTransport>() {
    let config = limits(Overflow::Drop);
    let mut subject = Subject::<C>::server(config, Handlers::new()).open();
    subject.end.block();
    let handle = subject.end.handle();
    let mut writer = handle.begin(Kind::Text);
    writer.piece("0123456789", false).unwrap();
    subject.drain();
    assert!(matches!(writer.piece("0123456789", true), Err(SendError::SendBufferFull { .. })));
    assert_eq!(handle.send("0123456789"), Ok(Sent::Dropped));
}

fn the_send_buffer_counts_what_waits_for_a_writer<C: TestTransport>() {
    let log = Log::default();
    let reported = log.clone();
    let mut handlers = Handlers::new();
    handlers.on_message(move |_, context| reported.push(format!("{:?}", context.send("12345"))));
    let mut subject = Subject::<C>::server(limits(Overflow::Drop), handlers).open();
    let handle = subject.end.handle();
    let [mut first, mut second] = [0; 2].map(|_| handle.begin(Kind::Text));
    first.piece("", false).unwrap();
    handle.send("0123456789").unwrap();
    second.piece("01234", false).unwrap();
    subject.drain();
    assert_eq!(handle.buffered_amount(), 15);
    assert_eq!(handle.send("012345"), Ok(Sent::Dropped));
    assert!(matches!(second.piece("012345", true), Err(SendError::SendBufferFull { .. })));
    subject.receive(&[text("go"), text("go")]);
    assert_eq!(log.take(), ["Ok(Buffered)", "Ok(Dropped)"]);
}

fn a_context_and_its_handles_count_what_waits<C: TestTransport>() {
    let log = Log::default();
    let reported = log.clone();
    let mut handlers = Handlers::new();
    handlers.on_message(move |_, context| {
        let sent = context.send("12345678901");
        reported.push(format!("{sent:?} {}", context.buffered_amount()));
    });
    let mut subject = Subject::<C>::server(limits(Overflow::Error), handlers).open();
    let handle = subject.end.handle();
    let mut writer = handle.begin(Kind::Text);
    writer.piece("", false).unwrap();
    subject.drain();
    subject.receive(&[text("go"), text("go")]);
    let full = SendError::SendBufferFull { waiting: 11, message: 11, limit: 20, closes: false };
    assert_eq!(log.take(), ["Ok(Buffered) 11".to_string(), format!("Err({full:?}) 11")]);
    assert_eq!(handle.buffered_amount(), 11);
    writer.piece("", true).unwrap();
    subject.drain();
    assert_eq!(subject.sent().last(), Some(&text("12345678901")));
    assert_eq!(handle.buffered_amount(), 0);
}

fn what_waits_for_a_writer_does_not_make_the_peer_slow<C: TestTransport>() {
    let is_full = |sent| matches!(sent, Err(SendError::SendBufferFull { .. }));
    let log = Log::default();
    let reported = log.clone();
    let mut handlers = Handlers::new();
    handlers.on_message(move |_, context| {
        reported.push(format!("full: {}", is_full(context.send("refused"))));
    });
    let mut subject = Subject::<C>::server(limits(Overflow::Close), handlers).open();
    let handle = subject.end.handle();
    let mut writer = handle.begin(Kind::Text);
    assert_eq!(writer.piece("a", false), Ok(Sent::Sent));
    subject.drain();
    for accepted in ["01234567", "89012345"] {
        assert_eq!(handle.send(accepted), Ok(Sent::Buffered));
        subject.drain();
    }
    assert!(is_full(handle.send("refused")));
    assert!(is_full(handle.begin(Kind::Text).piece("refused", false)), "it waits, too");
    subject.receive(&[text("go")]);
    assert_eq!(log.take(), ["full: true"]);
    writer.piece("b", true).unwrap();
    assert!(is_full(handle.send("refused")), "the last piece is still in the mailbox");
    subject.drain();
    let message = [text("a").more(), continuation("b")];
    assert_eq!(subject.sent(), [&message[..], &[text("01234567"), text("89012345")]].concat());
    assert_eq!(handle.send("now"), Ok(Sent::Sent));
}

/// The connection has not seen the writer yet.
fn what_the_mailbox_holds_waits_for_a_writer<C: TestTransport>() {
    let mut subject = Subject::<C>::server(limits(Overflow::Close), Handlers::new()).open();
    let handle = subject.end.handle();
    let mut writer = handle.begin(Kind::Text);
    writer.piece("a", false).unwrap();
    assert_eq!(handle.send("0123456789"), Ok(Sent::Buffered));
    assert!(matches!(handle.send("0123456789"), Err(SendError::SendBufferFull { .. })));
    assert!(matches!(writer.piece("0123456789", true), Err(SendError::SendBufferFull { .. })));
    subject.drain();
    writer.piece("0123456789", true).unwrap();
    subject.drain();
    let message = [text("a").more(), continuation("0123456789")];
    assert_eq!(subject.sent(), [&message[..], &[text("0123456789")]].concat());
}

fn nothing_waits_for_a_message_of_the_handler_that_is_complete<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_message(|_, context| {
        context.begin(Kind::Text).unwrap();
        let _ = context.piece(b"a", true).unwrap();
    });
    let mut subject = open_server::<C>(&handlers);
    let handle = subject.end.handle();
    subject.receive(&[text("go")]);
    assert_eq!(handle.send("b"), Ok(Sent::Sent));
    subject.drain();
    assert_eq!(subject.sent(), [text("a"), text("b")]);
}

fn what_waits_for_the_handlers_message_does_not_make_the_peer_slow<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_message(|message, context| match message.as_text() {
        Some("begin") => {
            context.begin(Kind::Text).unwrap();
            context.piece(b"a", false).unwrap();
        }
        _ => _ = context.piece(b"b", true).unwrap(),
    });
    let mut subject = Subject::<C>::server(limits(Overflow::Close), handlers).open();
    let handle = subject.end.handle();
    subject.receive(&[text("begin")]);
    assert_eq!(handle.send("0123456789"), Ok(Sent::Buffered));
    assert!(matches!(handle.send("0123456789 "), Err(SendError::SendBufferFull { .. })));
    subject.drain();
    subject.receive(&[text("end")]);
    assert_eq!(subject.sent(), [text("a").more(), continuation("b"), text("0123456789")]);
    assert_eq!(handle.send("now"), Ok(Sent::Sent));
}

fn a_writer_closes_a_connection_whose_peer_is_slow<C: TestTransport>() {
    let mut subject = Subject::<C>::server(limits(Overflow::Close), Handlers::new()).open();
    subject.end.block();
    let mut writer = subject.end.handle().begin(Kind::Text);
    writer.piece("0123456789", false).unwrap();
    subject.drain();
    assert!(matches!(writer.piece("0123456789", true), Err(SendError::SendBufferFull { .. })));
    assert_eq!(writer.piece("", true), Err(SendError::Closing));
    subject.end.give_room(usize::MAX);
    subject.drain();
    assert_eq!(subject.sent(), [text("0123456789").more(), close(1008, "too slow to read")]);
}

/// They may be what it waits for.
fn pitfall_what_waits_for_a_message_does_not_stop_its_pieces<C: TestTransport>() {
    let mut subject = Subject::<C>::server(limits(Overflow::Error), Handlers::new()).open();
    let handle = subject.end.handle();
    let mut writer = handle.begin(Kind::Text);
    writer.piece("a", false).unwrap();
    handle.send("01234567890123456").unwrap();
    subject.drain();
    assert!(matches!(handle.send("0123456789"), Err(SendError::SendBufferFull { .. })));
    writer.piece("0123456789", false).unwrap();
    subject.drain();
    writer.piece("0123456789", true).unwrap();
    subject.drain();
    assert_eq!(subject.sent().last(), Some(&text("01234567890123456")));
}

/// Neither the message behind it nor the Close waits for it.
fn before_the_opening_a_message_that_cannot_be_finished_is_not_begun<C: TestTransport>() {
    let mut subject = crate::subject::client::<C>(&Handlers::new());
    subject.end.start();
    let handle = subject.end.handle();
    let mut writer = handle.begin(Kind::Text);
    let unsent = piece_then(&mut writer, "never finished", false);
    let sent = piece_then(&mut handle.begin(Kind::Text), "a", true);
    handle.close(CloseCode::NORMAL, "").unwrap();
    assert_eq!(writer.piece("late", true), Err(SendError::Closing));
    subject.drain();
    subject.end.take_output();
    subject.receive_bytes(wire::RESPONSE);
    assert_eq!(subject.sent(), [text("a"), close(1000, "")]);
    assert_eq!(unsent.try_recv(), Ok(Err(Unsent)));
    assert_eq!(sent.try_recv(), Ok(Ok(())));
}

/// The second message begins and ends in the same call, before the size of the send buffer is published.
fn a_second_message_of_the_handler_does_not_make_the_peer_slow<C: TestTransport>() {
    let (sender, results) = channel();
    let mut handlers = Handlers::new();
    handlers.on_message(move |message, context| match message.as_text() {
        Some("begin") => {
            context.begin(Kind::Text).unwrap();
            context.piece(b"a", false).unwrap();
        }
        _ => {
            let handle = context.handle();
            for (piece, begins) in [("b", false), ("c", true)] {
                if begins {
                    context.begin(Kind::Text).unwrap();
                }
                context.piece(piece.as_bytes(), true).unwrap();
                sender.send(handle.send("0123456789 ")).unwrap();
            }
        }
    });
    let mut subject = Subject::<C>::server(limits(Overflow::Close), handlers).open();
    let handle = subject.end.handle();
    subject.receive(&[text("begin")]);
    assert_eq!(handle.send("0123456789"), Ok(Sent::Buffered));
    subject.drain();
    subject.receive(&[text("end")]);
    assert_eq!(
        subject.sent(),
        [text("a").more(), continuation("b"), text("0123456789"), text("c")]
    );
    for result in results.try_iter() {
        assert!(
            matches!(result, Err(SendError::SendBufferFull { closes: false, .. })),
            "{result:?}"
        );
    }
}
