//! Reaching a connection from elsewhere, other threads included.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;

use anyloop::endpoint::AnyHandle;
use anyloop::http::Response;
use anyloop::prelude::*;
use anyloop::proto::{Refused, State};

use crate::record::{Log, recording};
use crate::subject::{client, open_client, open_server, seconds, server};
use crate::transports::{End, TestTransport, over_each_transport};
use crate::wire::{self, ping, text};

over_each_transport! {
    everything_from_another_thread,
    many_threads_lose_nothing,
    what_is_asked_for_is_done_in_order,
    a_closed_connection_is_gone,
    a_failed_connection_is_gone,
    answered_http_is_gone,
    a_dropped_connection_is_gone,
    in_close_it_is_gone_already,
    too_long_reasons_are_refused,
    handles_know_the_state,
    handles_of_one_connection_are_the_same;
    not over sockets:
    a_handler_reaches_itself,
    what_is_asked_for_while_draining_waits_for_the_next_time,
    what_was_posted_to_a_connection_that_ends_is_dropped,
}

fn assert_gone(handle: &Handle<Handlers>) {
    let prepared = Prepared::new("a");
    assert_eq!(handle.send("a"), Err(SendError::Gone));
    assert_eq!(handle.send_then("a", |_| ()), Err(SendError::Gone));
    assert_eq!(handle.send_prepared(&prepared), Err(SendError::Gone));
    assert_eq!(handle.ping(b""), Err(SendError::Gone));
    assert_eq!(handle.pong(b""), Err(SendError::Gone));
    assert_eq!(handle.close(CloseCode::NORMAL, ""), Err(SendError::Gone));
    assert_eq!(handle.interrupt(), Err(SendError::Gone));
    assert_eq!(handle.pause_reading(), Err(SendError::Gone));
    assert_eq!(handle.resume_reading(), Err(SendError::Gone));
    assert_eq!(handle.post(|_, _| panic!("gone")), Err(SendError::Gone));
    assert_eq!(handle.set_timer(seconds(1), |_, _| panic!("gone")), Err(SendError::Gone));
    assert_eq!(handle.accept(Accept::new()), Err(SendError::Gone));
    assert_eq!(handle.respond(Response::new(Vec::new())), Err(SendError::Gone));
    assert_eq!(handle.buffered_amount(), 0);
    assert_eq!(handle.state(), State::Ended);
}

fn everything_from_another_thread<C: TestTransport>() {
    let log = Log::default();
    let mut subject = open_server::<C>(&recording(&log));
    log.take();
    let handle = subject.end.handle();
    let reported = log.clone();
    assert!(!subject.end.is_woken());
    let other = thread::spawn(move || {
        let _ = handle.send("a").unwrap();
        let _ = handle.send(&[1][..]).unwrap();
        let _ = handle.send_prepared(&Prepared::new("b")).unwrap();
        handle.ping(b"p").unwrap();
        handle.pong("q").unwrap();
        handle.interrupt().unwrap();
        handle
            .post(move |_, context| {
                reported.push("posted");
                let _ = context.send("c").unwrap();
            })
            .unwrap();
        handle.close(CloseCode::NORMAL, "bye").unwrap();
    });
    other.join().unwrap();
    assert!(subject.end.is_woken());
    assert!(log.take().is_empty(), "nothing is done on the other thread");
    subject.drain();
    assert!(!subject.end.is_woken());
    assert_eq!(log.take(), ["interrupt", "posted"]);
    let sent = subject.sent();
    let close = wire::close(1000, "bye");
    let control = [ping("p"), wire::pong("q")];
    assert_eq!(sent[..3], [text("a"), wire::binary([1]), text("b")]);
    assert_eq!(sent[3..5], control);
    assert_eq!(sent[5..], [text("c"), close]);
}

fn many_threads_lose_nothing<C: TestTransport>() {
    let mut subject = open_server::<C>(&Handlers::new());
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let handle = subject.end.handle();
            thread::spawn(move || {
                for number in 0..250 {
                    let _ = handle.send(format!("{thread} {number}").as_str()).unwrap();
                }
            })
        })
        .collect();
    let mut received = Vec::new();
    while threads.iter().any(|thread| !thread.is_finished()) || subject.end.is_woken() {
        subject.drain();
        received.extend(subject.sent());
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    subject.drain();
    received.extend(subject.sent());
    assert_eq!(received.len(), 1000);
    for thread in 0..4 {
        let prefix = format!("{thread} ");
        let of_one = received.iter().filter(|frame| frame.payload.starts_with(prefix.as_bytes()));
        for (number, frame) in of_one.enumerate() {
            assert_eq!(*frame, text(format!("{thread} {number}")));
        }
    }
}

fn what_is_asked_for_is_done_in_order<C: TestTransport>() {
    let log = Log::default();
    let mut subject = open_server::<C>(&recording(&log));
    log.take();
    subject.with_handle(|handle| {
        for number in 0..5 {
            let reported = log.clone();
            handle.post(move |_, _| reported.push(format!("{number}"))).unwrap();
            handle.interrupt().unwrap();
        }
    });
    let expected = ["0", "1", "2", "3", "4"].map(|number| [number, "interrupt"]).concat();
    assert_eq!(log.take(), expected);
}

fn a_handler_reaches_itself<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_message(|_, context| {
        let handle = context.handle();
        let _ = handle.send("mailed").unwrap();
        let _ = context.send("at once").unwrap();
        assert_eq!(handle.state(), State::Open);
    });
    let mut subject = open_server::<C>(&handlers);
    subject.receive(&[text("go")]);
    assert_eq!(subject.sent(), [text("at once")]);
    assert!(subject.end.is_woken());
    subject.drain();
    assert_eq!(subject.sent(), [text("mailed")]);
}

fn what_is_asked_for_while_draining_waits_for_the_next_time<C: TestTransport>() {
    let mut subject = open_server::<C>(&Handlers::new());
    let handle = subject.end.handle();
    subject
        .with_handle(|handle| {
            handle.post(|_, context| {
                context
                    .handle()
                    .post(|_, context| {
                        let _ = context.send("second").unwrap();
                    })
                    .unwrap()
            })
        })
        .unwrap();
    assert!(subject.sent().is_empty());
    assert!(subject.end.is_woken(), "it must not wait for something else to happen");
    subject.drain();
    assert_eq!(subject.sent(), [text("second")]);
    assert_eq!(handle.buffered_amount(), 0);
}

fn a_closed_connection_is_gone<C: TestTransport>() {
    for open in [open_server::<C>, open_client::<C>] {
        let mut subject = open(&Handlers::new());
        let handle = subject.end.handle();
        subject.close_by_peer();
        assert_gone(&handle);
        assert_gone(&subject.end.handle());
    }
}

fn a_failed_connection_is_gone<C: TestTransport>() {
    let mut subject = server::<C>(&Handlers::new());
    let handle = subject.end.handle();
    subject.receive_bytes("nonsense\r\n\r\n");
    subject.end.eof();
    assert_gone(&handle);

    let mut subject = client::<C>(&Handlers::new());
    let handle = subject.end.handle();
    subject.end.start();
    subject.end.eof();
    assert_gone(&handle);
}

fn answered_http_is_gone<C: TestTransport>() {
    let mut subject = server::<C>(&Handlers::new());
    let handle = subject.end.handle();
    subject.receive_bytes("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    subject.end.eof();
    assert_gone(&handle);
}

fn a_dropped_connection_is_gone<C: TestTransport>() {
    let mut subject = open_server::<C>(&Handlers::new());
    let handle = subject.end.handle();
    handle.post(|_, _| panic!("dropped")).unwrap();
    drop(subject);
    assert_gone(&handle);
}

fn in_close_it_is_gone_already<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_close(|_, context| {
        assert_eq!(context.state(), State::Ended);
        assert!(context.send("a").is_err());
        assert!(context.close(CloseCode::NORMAL, "").is_err());
        assert!(context.handshake_info().is_some(), "it still knows who it was");
        context.set_timer(seconds(1), |_, _| panic!("never"));
        context.pause_reading();
        assert_eq!(context.handle().send("a"), Err(SendError::Gone));
    });
    let mut subject = open_server::<C>(&handlers);
    subject.close_by_peer();
    subject.advance(seconds(10));
}

fn what_was_posted_to_a_connection_that_ends_is_dropped<C: TestTransport>() {
    let mut subject = open_server::<C>(&Handlers::new());
    let token = Arc::new(());
    let held = token.clone();
    subject.end.handle().post(move |_, _| panic!("{held:?}")).unwrap();
    subject.end.reset();
    assert_eq!(Arc::strong_count(&token), 1);
    subject.drain();
}

fn too_long_reasons_are_refused<C: TestTransport>() {
    let mut handlers = Handlers::new();
    let long = "x".repeat(124);
    let reason = long.clone();
    handlers.on_message(move |_, context| {
        let refused = SendError::Refused(Refused::ReasonTooLong(124));
        assert_eq!(context.close(CloseCode::NORMAL, &reason), Err(refused));
    });
    let mut subject = open_server::<C>(&handlers);
    subject.receive(&[text("go")]);
    let handle = subject.end.handle();
    let refused = SendError::Refused(Refused::ReasonTooLong(124));
    assert_eq!(handle.close(CloseCode::NORMAL, &long), Err(refused));
    handle.close(CloseCode::NORMAL, &long[1..]).unwrap();
    subject.drain();
    assert_eq!(subject.sent(), [wire::close(1000, &long[1..])]);
}

fn handles_know_the_state<C: TestTransport>() {
    let mut subject = server::<C>(&Handlers::new());
    let handle = subject.end.handle();
    assert_eq!(handle.state(), State::Connecting);
    subject.receive_bytes(wire::REQUEST);
    assert_eq!(handle.state(), State::Open);
    subject.with_handle(|handle| handle.close(CloseCode::NORMAL, "")).unwrap();
    assert_eq!(handle.state(), State::CloseSent);
    subject.receive(&[wire::close(1000, "")]);
    assert_eq!(handle.state(), State::Ended);

    let mut subject = open_client::<C>(&Handlers::new());
    let handle = subject.end.handle();
    subject.receive(&[wire::close(1000, "")]);
    assert_eq!(handle.state(), State::Closed);
    let mut subject = open_client::<C>(&Handlers::new());
    let handle = subject.end.handle();
    subject.receive(&[wire::frame(0x3, "")]);
    assert_eq!(handle.state(), State::Failed);
}

#[expect(clippy::mutable_key_type, reason = "the hash is that of the identity")]
fn handles_of_one_connection_are_the_same<C: TestTransport>() {
    let mut first = open_server::<C>(&Handlers::new());
    let mut second = open_server::<C>(&Handlers::new());
    let handle = first.end.handle();
    assert_eq!(handle, handle.clone());
    assert_eq!(handle, first.end.handle());
    assert_ne!(handle, second.end.handle());
    let (one, other) = (AnyHandle::from(&handle), AnyHandle::from(second.end.handle()));
    assert_eq!((&one, one != other), (&handle.erase(), true));
    let handles: HashSet<_> = [handle.clone(), second.end.handle(), first.end.handle()].into();
    assert_eq!(handles, HashSet::from([handle.clone(), second.end.handle()]));
    assert_eq!(HashSet::from([one.clone(), other, one]).len(), 2);
    let ids: HashSet<_> = [first.end.handle(), second.end.handle(), handle].map(|h| h.id()).into();
    assert_eq!(ids.len(), 2);
}
