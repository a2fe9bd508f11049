//! A peer that reads slowly: what sending returns, and what becomes of messages that do not fit.

use std::sync::{Arc, Mutex};

use anyloop::endpoint::Server;
use anyloop::prelude::*;
use anyloop::proto::Kind;

use crate::record::{Log, recording};
use crate::subject::{Subject, client_config, new_server, seconds, server_config};
use crate::transports::{Clock, End, TestTransport, over_each_transport};
use crate::wire::{self, ping, pong, text};

over_each_transport! {
    drained_is_not_called_after_the_end,
    a_piece_without_room_keeps_its_message_begun,
    what_the_mailbox_holds_counts,
    pitfall_what_was_accepted_is_sent_whatever_fills_the_send_buffer_before;
    not over TLS:
    sending_says_how_much_waits,
    what_is_not_above_the_high_mark_is_no_pressure,
    what_waits_for_the_opening_counts_while_it_opens,
    handles_say_how_much_waits,
    drained_is_not_called_without_a_high_mark_passed,
    one_message_larger_than_the_cap_may_go,
    a_full_send_buffer_is_an_error,
    a_full_send_buffer_drops,
    a_full_send_buffer_closes,
    a_connection_that_is_closing_says_that_first,
    a_connection_that_was_closed_for_its_send_buffer_says_so;
    neither:
    drained_is_called_at_the_low_mark_and_not_before,
    drained_may_send_again,
    pongs_are_held_while_it_is_blocked,
}

/// A low-water mark of 10 bytes, a high-water mark of 20, and at most 40.
fn limits(overflow: Overflow) -> ServerConfig {
    server_config().low_water_mark(10).high_water_mark(20).max_send_buffer(40).overflow(overflow)
}

/// A connection whose output is blocked. For each message it sends six bytes, and logs what sending
/// returns.
fn subject<C: TestTransport>(overflow: Overflow, log: &Log) -> Subject<C> {
    let mut handlers = recording(log);
    let reported = log.clone();
    handlers.on_message(move |_, context| {
        let sent = context.send("1234");
        reported.push(format!("{sent:?} {}", context.buffered_amount()));
    });
    let mut subject = Subject::<C>::server(limits(overflow), handlers).open();
    subject.end.block();
    log.take();
    subject
}

fn sending_says_how_much_waits<C: TestTransport>() {
    let log = Log::default();
    let mut subject = subject::<C>(Overflow::Error, &log);
    // The first is not known to have to wait before the batch is over.
    for reported in ["Ok(Sent) 6", "Ok(Buffered) 12", "Ok(Buffered) 18", "Ok(Buffered) 24"] {
        subject.receive(&[text("go")]);
        assert_eq!(log.take(), [reported]);
    }
    subject.receive(&[text("go")]);
    assert_eq!(log.take(), ["Ok(Backpressure) 30"]);
    subject.end.give_room(usize::MAX);
    assert_eq!(log.take(), ["drained"]);
    subject.receive(&[text("go")]);
    assert_eq!(log.take(), ["Ok(Sent) 6"]);
}

fn what_is_not_above_the_high_mark_is_no_pressure<C: TestTransport>() {
    let log = Log::default();
    let mut subject = subject::<C>(Overflow::Error, &log);
    let _ = subject.with_handle(|handle| handle.send(&[0; 18][..])).unwrap();
    subject.receive(&[text("go")]);
    assert_eq!(log.take(), ["Ok(Buffered) 26"], "20 waited, and the batch is not over");
}

fn handles_say_how_much_waits<C: TestTransport>() {
    let log = Log::default();
    let mut subject = subject::<C>(Overflow::Error, &log);
    let handle = subject.end.handle();
    assert_eq!(handle.buffered_amount(), 0);
    assert_eq!(handle.send("1234"), Ok(Sent::Sent));
    assert_eq!(handle.buffered_amount(), 4, "payload, while it is in the mailbox");
    subject.drain();
    assert_eq!(handle.buffered_amount(), 6, "bytes, when it is in the send buffer");
    assert_eq!(handle.send("1234"), Ok(Sent::Buffered));
    assert_eq!(handle.send("1234567890"), Ok(Sent::Buffered));
    assert_eq!(handle.send("1"), Ok(Sent::Backpressure));
    subject.end.give_room(usize::MAX);
    subject.drain();
    assert_eq!(handle.buffered_amount(), 0);
    assert_eq!(subject.sent().len(), 4);
}

fn what_waits_for_the_opening_counts_while_it_opens<C: TestTransport>() {
    let log = Log::default();
    let reported = log.clone();
    let mut handlers = Handlers::new();
    handlers.on_open(move |context| {
        let handle = context.handle();
        reported.push(format!("{} {}", context.buffered_amount(), handle.buffered_amount()));
        reported.push(format!("{:?}", handle.send("1")));
    });
    let config = client_config().max_send_buffer(40).overflow(Overflow::Error);
    let mut subject = Subject::<C>::client(config, handlers);
    let _ = subject.with_handle(|handle| handle.send(&[0; 40][..])).unwrap();
    subject.end.start();
    subject.end.take_output();
    subject.receive_bytes(wire::RESPONSE);
    let full = "Err(SendBufferFull { waiting: 40, message: 1, limit: 40, closes: false })";
    assert_eq!(log.take(), ["40 40", full]);
    assert_eq!(subject.sent(), [wire::binary([0; 40])]);
    assert_eq!(subject.with_handle(|handle| handle.buffered_amount()), 0);
}

fn drained_is_called_at_the_low_mark_and_not_before<C: TestTransport>() {
    let log = Log::default();
    let mut subject = subject::<C>(Overflow::Error, &log);
    let _ = subject.with_handle(|handle| handle.send("1234567890123456789")).unwrap();
    for _ in 0..10 {
        assert!(log.take().is_empty());
        subject.end.give_room(1); // 21 to 11
    }
    assert!(log.take().is_empty());
    subject.end.give_room(1);
    assert_eq!(log.take(), ["drained"]);
    subject.end.give_room(usize::MAX);
    assert!(log.take().is_empty(), "once");
}

fn drained_is_not_called_without_a_high_mark_passed<C: TestTransport>() {
    let log = Log::default();
    let mut subject = subject::<C>(Overflow::Error, &log);
    let _ = subject.with_handle(|handle| handle.send("123456789012345678")).unwrap();
    subject.end.give_room(usize::MAX);
    assert!(log.take().is_empty(), "20 is not above 20");
}

fn drained_may_send_again<C: TestTransport>() {
    let log = Log::default();
    let reported = log.clone();
    let mut handlers = recording(&log);
    let left = Mutex::new(3);
    handlers.on_drained(move |context| {
        reported.push(format!("drained {}", context.buffered_amount()));
        let mut left = left.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            let _ = context.send("1234567890123456789").unwrap();
        }
    });
    let mut subject = Subject::<C>::server(limits(Overflow::Error), handlers).open();
    log.take();
    subject.end.block();
    let _ = subject.with_handle(|handle| handle.send("1234567890123456789")).unwrap();
    subject.end.give_room(21);
    assert_eq!(log.take(), ["drained 0"]);
    subject.end.give_room(21);
    assert_eq!(log.take(), ["drained 0"]);
    subject.end.give_room(usize::MAX);
    assert_eq!(log.take(), ["drained 0"], "the next one left at once");
    assert_eq!(subject.sent().len(), 4);
}

fn drained_is_not_called_after_the_end<C: TestTransport>() {
    let log = Log::default();
    let mut subject = subject::<C>(Overflow::Error, &log);
    let _ = subject.with_handle(|handle| handle.send("1234567890123456789")).unwrap();
    subject.receive(&[wire::close(1000, "")]);
    subject.end.give_room(usize::MAX);
    subject.end_like_the_server();
    assert_eq!(log.take(), ["close clean by peer: 1000/1000"]);
}

fn one_message_larger_than_the_cap_may_go<C: TestTransport>() {
    let log = Log::default();
    let mut subject = subject::<C>(Overflow::Error, &log);
    let large = [0; 100];
    let handle = subject.end.handle();
    assert_eq!(handle.send(&large[..]), Ok(Sent::Backpressure));
    subject.drain();
    let full = SendError::SendBufferFull { waiting: 102, message: 1, limit: 40, closes: false };
    assert_eq!(handle.send("1"), Err(full));
    subject.end.give_room(usize::MAX);
    assert_eq!(subject.sent().len(), 1);
}

fn a_full_send_buffer_is_an_error<C: TestTransport>() {
    let log = Log::default();
    let mut subject = subject::<C>(Overflow::Error, &log);
    let handle = subject.end.handle();
    let _ = handle.send(&[0; 34][..]).unwrap();
    subject.drain();
    let _ = handle.send("1234").unwrap();
    let full = SendError::SendBufferFull { waiting: 40, message: 1, limit: 40, closes: false };
    assert_eq!(handle.send("1"), Err(full), "of the mailbox");
    subject.drain();
    subject.receive(&[text("go")]);
    let full = "Err(SendBufferFull { waiting: 42, message: 4, limit: 40, closes: false }) 42";
    assert_eq!(log.take(), [full]);
    subject.end.give_room(usize::MAX);
    assert_eq!(log.take(), ["drained"], "nothing has happened to the connection");
    assert_eq!(subject.sent().len(), 2);
}

fn a_full_send_buffer_drops<C: TestTransport>() {
    let log = Log::default();
    let mut subject = subject::<C>(Overflow::Drop, &log);
    let handle = subject.end.handle();
    let _ = handle.send(&[0; 35][..]).unwrap();
    subject.drain();
    assert_eq!(handle.send("1234"), Ok(Sent::Dropped));
    subject.receive(&[text("go")]);
    assert_eq!(log.take(), ["Ok(Dropped) 37"]);
    subject.end.give_room(usize::MAX);
    assert_eq!(subject.sent().len(), 1);
}

fn a_full_send_buffer_closes<C: TestTransport>() {
    for from_handle in [false, true] {
        let log = Log::default();
        let mut subject = subject::<C>(Overflow::Close, &log);
        let handle = subject.end.handle();
        let _ = handle.send(&[0; 35][..]).unwrap();
        subject.drain();
        if from_handle {
            let full =
                SendError::SendBufferFull { waiting: 37, message: 4, limit: 40, closes: true };
            assert_eq!(handle.send("1234"), Err(full));
            for message in ["1234", "", "1"] {
                assert_eq!(handle.send(message), Err(SendError::Closing), "it has not run yet");
            }
            subject.drain();
        } else {
            subject.receive(&[text("go"), text("go")]);
            let lines = log.take();
            let full = "Err(SendBufferFull { waiting: 37, message: 4, limit: 40, closes: true }) ";
            assert!(lines[0].starts_with(full), "{lines:?}");
            assert!(lines[1].starts_with("Err(Closing) "), "{lines:?}");
        }
        assert_eq!(handle.send("1234"), Err(SendError::Closing));
        subject.end.give_room(usize::MAX);
        assert_eq!(subject.sent()[1..], [wire::close(1008, "too slow to read")]);
        subject.receive(&[wire::close(1008, "")]);
        assert_eq!(log.take(), ["close clean by local: 1008/1008"]);
    }
}

/// The Close was asked for, and not sent yet. What a full send buffer would do does not matter any more.
fn a_connection_that_is_closing_says_that_first<C: TestTransport>() {
    for overflow in [Overflow::Error, Overflow::Drop, Overflow::Close] {
        let log = Log::default();
        let mut subject = subject::<C>(overflow, &log);
        let handle = subject.end.handle();
        let _ = handle.send(&[0; 35][..]).unwrap();
        subject.drain();
        handle.close(CloseCode::NORMAL, "").unwrap();
        assert_eq!(handle.send("1234"), Err(SendError::Closing), "{overflow:?}");
        assert_eq!(handle.begin(Kind::Text).piece("1234", true), Err(SendError::Closing));
        subject.drain();
        subject.end.give_room(usize::MAX);
        assert_eq!(subject.sent()[1..], [wire::close(1000, "")], "{overflow:?}");
        subject.receive(&[wire::close(1000, "")]);
        assert_eq!(log.take(), ["close clean by local: 1000/1000"], "{overflow:?}");
    }
}

fn a_connection_that_was_closed_for_its_send_buffer_says_so<C: TestTransport>() {
    type Overfill<C> = fn(&<C as TestTransport>::Server<Handlers>, &mut Subject<C>);
    let ways: [Overfill<C>; 4] = [
        |_, subject| {
            let refused = subject.end.handle().send("1234").unwrap_err();
            assert!(matches!(refused, SendError::SendBufferFull { closes: true, .. }));
        },
        |_, subject| _ = subject.receive(&[text("go")]),
        |server, _| assert_eq!(server.handle().broadcast("1234"), 0, "it is not reached"),
        |_, subject| subject.end.handle().close(CloseCode::POLICY_VIOLATION, "rude").unwrap(),
    ];
    for (number, overfill) in ways.into_iter().enumerate() {
        let (clock, log, overflows) = (Clock::default(), Log::default(), number < 3);
        let reported = log.clone();
        let mut handlers = Handlers::new();
        handlers.on_message(|_, context| _ = context.send("1234"));
        handlers.on_close(move |_, context| reported.push(context.overflowed().to_string()));
        let server = new_server::<C, _>(limits(Overflow::Close), handlers, &clock);
        let mut subject = Subject::<C>::of_server(&server, &clock).open();
        subject.end.block();
        let _ = subject.with_handle(|handle| handle.send(&[0; 35][..])).unwrap();
        assert_eq!(server.handle().counters().overflowed, 0);

        overfill(&server, &mut subject);
        subject.drain();
        subject.end.give_room(usize::MAX);
        subject.receive(&[wire::close(1008, "")]);
        assert_eq!(log.take(), [overflows.to_string()], "way {number}");
        let counters = server.handle().counters();
        assert_eq!((counters.overflowed, counters.closed), (u64::from(overflows), 1));
    }
}

fn a_piece_without_room_keeps_its_message_begun<C: TestTransport>() {
    let reported = Arc::new(Mutex::new(Vec::new()));
    let seen = reported.clone();
    let mut handlers = Handlers::new();
    handlers.on_message(move |message, context| {
        if message.as_bytes() == b"begin" {
            context.begin(Kind::Binary).unwrap();
        }
        seen.lock().unwrap().push(context.piece([0; 35], message.as_bytes() == b"end").is_ok());
    });
    let mut subject = Subject::<C>::server(limits(Overflow::Drop), handlers).open();
    subject.end.block();
    subject.receive(&[text("begin")]);
    subject.receive(&[text("end")]);
    assert_eq!(*reported.lock().unwrap(), [true, false]);
    subject.end.give_room(usize::MAX);
    subject.receive(&[text("end")]);
    assert_eq!(*reported.lock().unwrap(), [true, false, true]);
    let frames = subject.sent();
    assert_eq!(frames, [wire::binary([0; 35]).more(), wire::frame(0, [0; 35])]);
}

fn pongs_are_held_while_it_is_blocked<C: TestTransport>() {
    let log = Log::default();
    let mut subject = subject::<C>(Overflow::Error, &log);
    let _ = subject.with_handle(|handle| handle.send("1234")).unwrap();
    subject.receive(&[ping("a"), ping("b"), ping("c")]);
    assert_eq!(subject.with_handle(|handle| handle.buffered_amount()), 6);
    subject.end.give_room(5);
    subject.advance(seconds(1));
    assert_eq!(subject.with_handle(|handle| handle.buffered_amount()), 1, "not before the rest");
    subject.end.give_room(usize::MAX);
    assert_eq!(subject.sent(), [text("1234"), pong("c")], "the newest");
}

/// Whether there is room is decided once: when the message is accepted.
fn pitfall_what_was_accepted_is_sent_whatever_fills_the_send_buffer_before<C: TestTransport>() {
    let log = Log::default();
    let mut subject = subject::<C>(Overflow::Error, &log);
    let handle = subject.end.handle();
    let reported = log.clone();
    let sent = handle.send_then(&[0; 30][..], move |sent| reported.push(format!("{sent:?}")));
    assert_eq!(sent, Ok(Sent::Backpressure));
    for _ in 0..7 {
        subject.receive(&[text("go")]);
    }
    subject.drain();
    subject.end.give_room(usize::MAX);
    assert!(log.take().contains(&"Ok(())".to_string()));
    assert!(subject.sent().contains(&wire::binary([0; 30])));
}

fn what_the_mailbox_holds_counts<C: TestTransport>() {
    let mut subject = Subject::<C>::server(limits(Overflow::Error), Handlers::new()).open();
    let handle = subject.end.handle();
    assert_eq!(handle.send(&[0; 20][..]), Ok(Sent::Sent));
    assert_eq!(handle.send(&[0; 20][..]), Ok(Sent::Backpressure));
    let full = SendError::SendBufferFull { waiting: 40, message: 1, limit: 40, closes: false };
    assert_eq!(handle.send(&[0; 1][..]), Err(full));
    assert_eq!(handle.buffered_amount(), 40);
    subject.drain();
    assert_eq!(handle.buffered_amount(), 0);
    assert_eq!(handle.send("1"), Ok(Sent::Sent));
}
