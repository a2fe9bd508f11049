//! What is sent: when it leaves, in how many writes, and what is reported of it.

use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};

use anyloop::endpoint::Unsent;
use anyloop::prelude::*;
use anyloop::proto::{Kind, Refused, Role};

use crate::record::{Log, recording};
use crate::subject::{Subject, client, open_client, open_server, seconds, server, server_config};
use crate::transports::{End, TestTransport, over_each_transport};
use crate::wire::{self, Frame, binary, frame, ping, pong, text};

over_each_transport! {
    large_messages_keep_their_place,
    messages_in_pieces,
    a_ping_is_answered_unless_the_handler_says_no,
    nothing_is_sent_after_a_close,
    completions_of_a_batch_are_called_in_order,
    a_message_that_is_refused_has_no_completion,
    a_message_that_is_dropped_calls_its_completion,
    a_mailed_message_calls_its_completion_in_any_case,
    a_mailed_message_that_has_no_room_calls_its_completion,
    dropping_the_connection_reports_what_was_not_sent;
    not over sockets:
    what_a_client_sends_from_open_leaves_after_it,
    a_batch_is_answered_in_one_write,
    pings_of_the_application,
    a_ping_can_be_answered_later,
    a_failed_write_reports_what_was_not_sent;
    neither:
    a_close_goes_out_behind_what_was_sent_before,
    a_completion_waits_behind_what_waits_already,
    a_completion_waits_for_the_last_byte,
    a_connection_that_ends_reports_what_was_not_sent,
    any_short_writes_give_the_same_bytes,
    completions_of_large_and_shared_messages,
    much_is_written_before_the_batch_is_over,
    what_open_sends_leaves_with_the_response,
}

type Results = Receiver<(u32, Result<(), Unsent>)>;
type Completions = Arc<dyn Fn(u32) -> Box<dyn FnOnce(Result<(), Unsent>) + Send> + Send + Sync>;

/// Completions by number, and their results. Being `FnOnce`, none is called twice.
fn completions() -> (Completions, Results) {
    let (sender, receiver) = mpsc::channel();
    let sender = Mutex::new(sender);
    let completion = move |number| -> Box<dyn FnOnce(Result<(), Unsent>) + Send> {
        let sender = sender.lock().unwrap().clone();
        Box::new(move |result| sender.send((number, result)).unwrap())
    };
    (Arc::new(completion), receiver)
}

fn all(reported: &Results) -> Vec<(u32, Result<(), Unsent>)> {
    reported.try_iter().collect()
}

fn what_open_sends_leaves_with_the_response<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_open(|context| {
        for message in ["a", "b"] {
            assert_eq!(context.send(message), Ok(Sent::Sent));
        }
        assert!(!C::BATCHES || context.buffered_amount() > 6, "it is not written yet");
    });
    let mut subject = server::<C>(&handlers);
    let frames = wire::stream(&[text("c")], Role::Client);
    subject.receive_bytes([wire::REQUEST.as_bytes(), &frames].concat());
    assert!(!C::BATCHES || subject.end.writes() == 1);
    let (head, frames) = subject.sent_head();
    assert!(head.starts_with(wire::SWITCHING));
    assert_eq!(frames, [text("a"), text("b")]);
}

fn what_a_client_sends_from_open_leaves_after_it<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_open(|context| {
        let _ = context.send("a").unwrap();
        let _ = context.send("b").unwrap();
    });
    let mut subject = client::<C>(&handlers);
    subject.end.start();
    subject.end.take_output();
    let before = subject.end.writes();
    subject.receive_bytes(wire::RESPONSE);
    assert_eq!(subject.end.writes(), before + 1);
    assert_eq!(subject.sent(), [text("a"), text("b")]);
}

/// One write per frame costs fifteen times as much.
fn a_batch_is_answered_in_one_write<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_message(|message, context| {
        let _ = context.send(message).unwrap();
        let _ = context.send("and again").unwrap();
    });
    let mut subject = open_server::<C>(&handlers);
    let before = subject.end.writes();
    subject.receive(&[text("a"), ping("p"), binary("b"), text("c")]);
    assert!(!C::BATCHES || subject.end.writes() == before + 1);
    let again = || text("and again");
    let expected = [text("a"), again(), pong("p"), binary("b"), again(), text("c"), again()];
    assert_eq!(subject.sent(), expected);

    // The same for what comes from elsewhere.
    let before = subject.end.writes();
    subject.with_handle(|handle| {
        for _ in 0..10 {
            let _ = handle.send("x").unwrap();
        }
    });
    assert_eq!(subject.end.writes(), before + 1);
    assert_eq!(subject.sent(), [(); 10].map(|()| text("x")));
}

fn much_is_written_before_the_batch_is_over<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_message(|_, context| {
        for _ in 0..100 {
            let _ = context.send(&[0; 1000][..]).unwrap();
            assert!(context.buffered_amount() < 70_000);
        }
    });
    let mut subject = open_server::<C>(&handlers);
    let before = subject.end.writes();
    subject.receive(&[text("a")]);
    assert_eq!(subject.end.writes(), before + 2);
    assert_eq!(subject.sent().len(), 100);
}

fn large_messages_keep_their_place<C: TestTransport>() {
    let large = vec![7; 200_000];
    let prepared = Prepared::new(&vec![8; 100_000][..]);
    let small = Prepared::new("shared");
    let expected =
        [text("a"), binary(&large), text("b"), binary([8; 100_000]), text("shared"), text("c")];
    let mut handlers = Handlers::new();
    handlers.on_message(move |_, context| {
        let _ = context.send("a").unwrap();
        let _ = context.send(&large[..]).unwrap();
        let _ = context.send("b").unwrap();
        let _ = context.send_prepared(&prepared).unwrap();
        let _ = context.send_prepared(&small).unwrap();
        let _ = context.send("c").unwrap();
    });
    for mut subject in [open_server::<C>(&handlers), open_client::<C>(&handlers)] {
        subject.receive(&[text("go")]);
        assert_eq!(subject.sent(), expected);
        // And where it all has to wait.
        subject.end.block();
        subject.receive(&[text("go")]);
        assert!(subject.sent().is_empty());
        subject.end.give_room(usize::MAX);
        assert_eq!(subject.sent(), expected);
    }
}

fn messages_in_pieces<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_message(|_, context| {
        assert_eq!(context.piece(b"", true), Err(SendError::Refused(Refused::NoMessageBegun)));
        context.begin(Kind::Text).unwrap();
        assert_eq!(context.begin(Kind::Text), Err(Refused::MessageUnfinished.into()));
        assert_eq!(context.send("a"), Err(Refused::MessageUnfinished.into()));
        let _ = context.piece(b"one ", false).unwrap();
        context.ping(b"between").unwrap();
        let _ = context.piece(b"two", true).unwrap();
        let _ = context.send("a").unwrap();
    });
    let mut subject = open_server::<C>(&handlers);
    subject.receive(&[text("go")]);
    let pieces = [text("one ").more(), ping("between"), frame(0, "two"), text("a")];
    assert_eq!(subject.sent(), pieces);
}

fn pings_of_the_application<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_message(|_, context| {
        context.ping(b"a").unwrap();
        let refused = SendError::Refused(Refused::ControlTooLong(126));
        assert_eq!(context.ping([0; 126]), Err(refused.clone()));
        assert_eq!(context.handle().ping([0; 126]), Err(refused));
        context.handle().ping([0; 125]).unwrap();
    });
    let mut subject = open_server::<C>(&handlers);
    subject.receive(&[text("go")]);
    assert_eq!(subject.sent(), [ping("a")]);
    subject.drain();
    assert_eq!(subject.sent(), [ping([0; 125])]);
}

fn a_ping_is_answered_unless_the_handler_says_no<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_ping(|payload, _| payload != b"no");
    let mut subject = open_server::<C>(&handlers);
    subject.receive(&[ping("yes"), ping("no"), ping("")]);
    assert_eq!(subject.sent(), [pong("yes"), pong("")]);
}

fn a_ping_can_be_answered_later<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_ping(|payload, context| {
        let payload = payload.to_vec();
        context.set_timer(seconds(1), move |_, context| context.pong(&payload).unwrap());
        let refused = SendError::Refused(Refused::ControlTooLong(126));
        assert_eq!(context.pong([0; 126]), Err(refused));
        false
    });
    let mut subject = open_server::<C>(&handlers);
    subject.receive(&[ping("p")]);
    assert!(subject.sent().is_empty());
    subject.advance(seconds(1));
    assert_eq!(subject.sent(), [pong("p")]);
}

fn nothing_is_sent_after_a_close<C: TestTransport>() {
    let log = Log::default();
    let mut handlers = recording(&log);
    handlers.on_message(|_, context| {
        let _ = context.send("before").unwrap();
        context.close(CloseCode::NORMAL, "bye").unwrap();
        let refused = SendError::Closing;
        assert_eq!(context.send("after"), Err(refused.clone()));
        assert_eq!(context.ping(b""), Err(refused.clone()));
        assert_eq!(context.begin(Kind::Text), Err(refused.clone()));
        assert_eq!(context.close(CloseCode::NORMAL, ""), Err(refused));
    });
    let mut subject = open_server::<C>(&handlers);
    subject.receive(&[text("go")]);
    subject.with_handle(|handle| {
        assert_eq!(handle.send("later"), Err(SendError::Closing));
        handle.close(CloseCode::GOING_AWAY, "").unwrap();
        assert_eq!(handle.ping(b"later"), Err(SendError::Closing));
    });
    assert_eq!(subject.sent(), [text("before"), wire::close(1000, "bye")]);
    log.take();
    subject.receive(&[wire::close(1000, "")]);
    assert_eq!(log.take(), ["close clean by local: 1000/1000"]);
    assert!(subject.sent().is_empty());
}

fn a_close_goes_out_behind_what_was_sent_before<C: TestTransport>() {
    let mut subject = open_server::<C>(&Handlers::new());
    subject.end.block();
    subject.with_handle(|handle| {
        let _ = handle.send("a").unwrap();
        handle.close(CloseCode::NORMAL, "").unwrap();
    });
    subject.receive(&[wire::close(1000, "")]);
    assert!(!subject.end.is_over(), "our Close is still to be written");
    for _ in 0..7 {
        assert!(!subject.end.is_over());
        subject.end.assert_shut_down(&[]);
        subject.end.give_room(1);
    }
    subject.end_like_the_server();
    assert!(subject.end.is_over());
    assert_eq!(subject.sent(), [text("a"), wire::close(1000, "")]);
}

fn completions_of_a_batch_are_called_in_order<C: TestTransport>() {
    let (completion, reported) = completions();
    let mut handlers = Handlers::new();
    handlers.on_message(move |_, context| {
        for number in 0..3 {
            assert_eq!(context.send_then("abc", completion(number)), Ok(Sent::Sent));
        }
    });
    let mut subject = open_server::<C>(&handlers);
    subject.receive(&[text("go")]);
    assert_eq!(all(&reported), [(0, Ok(())), (1, Ok(())), (2, Ok(()))]);
}

fn a_completion_waits_for_the_last_byte<C: TestTransport>() {
    let (completion, reported) = completions();
    let mut handlers = Handlers::new();
    handlers.on_message(move |_, context| {
        for number in 0..3 {
            let _ = context.send_then("abc", completion(number)).unwrap();
        }
    });
    // Five bytes each. Whatever part of the first write is taken: all by then, and no more.
    for taken in 0..15 {
        let mut subject = open_server::<C>(&handlers);
        subject.end.block();
        subject.end.give_room(taken);
        subject.receive(&[text("go")]);
        let mut done = taken / 5;
        let mut expected: Vec<_> = (0..done as u32).map(|number| (number, Ok(()))).collect();
        assert_eq!(all(&reported), expected, "{taken} bytes taken");
        for more in taken + 1..=15 {
            subject.end.give_room(1);
            expected.clear();
            if more / 5 > done {
                expected.push((done as u32, Ok(())));
                done = more / 5;
            }
            assert_eq!(all(&reported), expected, "{taken} bytes taken, and then {more}");
        }
    }
}

fn a_completion_waits_behind_what_waits_already<C: TestTransport>() {
    let (completion, reported) = completions();
    let mut subject = open_server::<C>(&Handlers::new());
    subject.end.block();
    let _ = subject.with_handle(|handle| handle.send("abc")).unwrap();
    let _ = subject.with_handle(|handle| handle.send_then("abc", completion(1))).unwrap();
    let _ = subject.with_handle(|handle| handle.send("abc")).unwrap();
    subject.end.give_room(9);
    assert!(all(&reported).is_empty());
    subject.end.give_room(1);
    assert_eq!(all(&reported), [(1, Ok(()))]);
    subject.end.give_room(5);
    assert_eq!(subject.sent(), [text("abc"), text("abc"), text("abc")]);
}

fn completions_of_large_and_shared_messages<C: TestTransport>() {
    let large = vec![7; 50_000];
    for room in [usize::MAX, 0, 10, 50_003, 50_004] {
        let (completion, reported) = completions();
        let (large, small) = (large.clone(), completion(2));
        let small = Mutex::new(Some(small));
        let mut handlers = Handlers::new();
        handlers.on_message(move |_, context| {
            let _ = context.send_then(&large[..], completion(1)).unwrap();
            let _ = context.send_then("abc", small.lock().unwrap().take().unwrap()).unwrap();
        });
        let mut subject = open_server::<C>(&handlers);
        if room < usize::MAX {
            subject.end.block();
            subject.end.give_room(room);
        }
        subject.receive(&[text("go")]);
        let done = match room {
            usize::MAX => 2,
            _ => room / 50_004,
        };
        // The rest is reported at the end, and not before. What was taken is reported as sent even then.
        let expected = [(1, Ok(())), (2, Ok(()))];
        assert_eq!(all(&reported), expected[..done], "room for {room}");
        subject.end.reset();
        let expected = [(1, Err(Unsent)), (2, Err(Unsent))];
        assert_eq!(all(&reported), expected[done..], "room for {room}");
    }
}

fn a_connection_that_ends_reports_what_was_not_sent<C: TestTransport>() {
    let (completion, reported) = completions();
    let mut subject = open_server::<C>(&Handlers::new());
    subject.end.block();
    subject.with_handle(|handle| {
        for number in 0..3 {
            let _ = handle.send_then("abc", completion(number)).unwrap();
        }
    });
    subject.end.give_room(7);
    assert_eq!(all(&reported), [(0, Ok(()))]);
    subject.end.reset();
    assert_eq!(all(&reported), [(1, Err(Unsent)), (2, Err(Unsent))]);
}

fn a_failed_write_reports_what_was_not_sent<C: TestTransport>() {
    let (completion, reported) = completions();
    let log = Log::default();
    let mut handlers = recording(&log);
    handlers.on_message(move |_, context| {
        assert_eq!(context.send_then("abc", completion(1)), Ok(Sent::Sent));
    });
    let mut subject = open_server::<C>(&handlers);
    log.take();
    subject.end.fail_write();
    subject.receive(&[text("go")]);
    assert_eq!(all(&reported), [(1, Err(Unsent))]);
    let cause = "close unclean by transport: none/none, connection reset";
    assert_eq!(log.take(), [cause]);
    assert!(subject.end.is_over());
}

fn a_message_that_is_refused_has_no_completion<C: TestTransport>() {
    let (completion, reported) = completions();
    let mut handlers = Handlers::new();
    handlers.on_message(move |_, context| {
        context.close(CloseCode::NORMAL, "").unwrap();
        assert!(context.send_then("abc", completion(1)).is_err());
    });
    let mut subject = open_server::<C>(&handlers);
    subject.receive(&[text("go")]);
    subject.end.reset();
    assert!(all(&reported).is_empty());
}

fn a_message_that_is_dropped_calls_its_completion<C: TestTransport>() {
    let (completion, reported) = completions();
    let config = server_config().max_send_buffer(10).overflow(Overflow::Drop);
    let mut handlers = Handlers::new();
    handlers.on_message(move |_, context| {
        assert_eq!(context.send_then("12345678", completion(1)), Ok(Sent::Dropped));
    });
    let mut subject = Subject::<C>::server(config, handlers).open();
    subject.end.block();
    let _ = subject.with_handle(|handle| handle.send("12345678")).unwrap();
    subject.receive(&[text("go")]);
    assert_eq!(all(&reported), [(1, Err(Unsent))]);
}

fn a_mailed_message_calls_its_completion_in_any_case<C: TestTransport>() {
    let (completion, reported) = completions();
    let mut subject = open_server::<C>(&Handlers::new());
    let handle = subject.end.handle();
    let _ = handle.send_then("a", completion(1)).unwrap();
    handle.close(CloseCode::NORMAL, "").unwrap();
    assert_eq!(handle.send_then("b", completion(2)), Err(SendError::Closing));
    assert_eq!(all(&reported), [(2, Err(Unsent))]);
    subject.drain();
    assert_eq!(all(&reported), [(1, Ok(()))]);

    // What is still in the mailbox when the connection ends.
    let mut subject = open_server::<C>(&Handlers::new());
    let _ = subject.end.handle().send_then("a", completion(3)).unwrap();
    subject.end.reset();
    assert_eq!(all(&reported), [(3, Err(Unsent))]);

    // "Or on this one if it cannot be sent at all."
    let handle = subject.end.handle();
    assert_eq!(handle.send_then("a", completion(4)), Err(SendError::Gone));
    assert_eq!(all(&reported), [(4, Err(Unsent))]);
}

fn a_mailed_message_that_has_no_room_calls_its_completion<C: TestTransport>() {
    for overflow in [Overflow::Drop, Overflow::Error, Overflow::Close] {
        let (completion, reported) = completions();
        let config = server_config().max_send_buffer(10).overflow(overflow);
        let mut subject = Subject::<C>::server(config, Handlers::new()).open();
        subject.end.block();
        let handle = subject.end.handle();
        let _ = handle.send_then("12345678", completion(1)).unwrap();
        subject.drain();
        let _ = handle.send_then("12345678", completion(2));
        subject.drain();
        assert_eq!(all(&reported), [(2, Err(Unsent))], "{overflow:?}");
    }
}

fn dropping_the_connection_reports_what_was_not_sent<C: TestTransport>() {
    let (completion, reported) = completions();
    let mut subject = open_server::<C>(&Handlers::new());
    subject.end.block();
    let handle = subject.end.handle();
    let _ = handle.send_then("a", completion(1)).unwrap();
    subject.drain();
    let _ = handle.send_then("b", completion(2)).unwrap();
    drop(subject);
    let mut reported = all(&reported);
    reported.sort_by_key(|&(number, _)| number);
    assert_eq!(reported, [(1, Err(Unsent)), (2, Err(Unsent))]);
    assert_eq!(handle.send("c"), Err(SendError::Gone));
}

fn any_short_writes_give_the_same_bytes<C: TestTransport>() {
    let shared = Prepared::new("shared");
    let mut handlers = Handlers::new();
    handlers.on_message(move |message, context| {
        let _ = context.send(message).unwrap();
        let _ = context.send_prepared(&shared).unwrap();
    });
    let expected: [Frame; 4] = [text("abc"), text("shared"), binary("defgh"), text("shared")];
    for step in 1..20 {
        let mut subject = open_server::<C>(&handlers);
        subject.end.block();
        subject.receive(&[text("abc")]);
        subject.end.give_room(step);
        subject.receive(&[binary("defgh")]);
        for _ in 0..30 {
            subject.end.give_room(step);
        }
        assert_eq!(subject.sent(), expected, "{step} bytes at a time");
    }
}
