//! Timers of the application, and timeouts of the protocol, by a clock that is a number.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyloop::endpoint::TimerId;
use anyloop::prelude::*;

use crate::record::{Log, recording};
use crate::subject::{
    Pair, Subject, client, client_config, open_client, open_server, seconds, server, server_config,
};
use crate::transports::{End, TestTransport, over_each_transport};
use crate::wire::{self, ping, pong, text};

over_each_transport! {
    a_cancelled_timer_is_dropped,
    a_timer_from_a_handle_can_be_cancelled,
    a_timer_is_dropped_at_the_end;
    not over sockets:
    timers_run_when_they_are_due,
    timers_due_together_run_in_the_order_they_were_set,
    a_timer_may_set_and_cancel_others,
    a_timer_from_a_handle_counts_from_its_turn,
    a_timer_sends,
    timers_before_the_connection_is_open,
    open_times_out_at_a_server,
    open_times_out_at_a_client,
    close_times_out,
    a_peer_that_goes_on_sending_does_not_prolong_the_close,
    the_end_of_the_stream_times_out_after_a_failure,
    keep_alive_pings_are_answered,
    a_pong_that_does_not_come,
    a_pong_of_another_payload_is_no_answer,
    an_idle_connection_is_closed,
    nothing_is_due_when_it_is_over,
    a_timer_that_sets_itself_again_waits_for_its_turn,
    a_timer_does_not_run_after_the_end,
    a_paused_connection_waits_for_no_pong,
    a_peer_that_reads_nothing_ends_a_paused_connection,
}

/// Sets a timer of so many seconds that logs its name.
fn set(context: &mut Context<'_, Handlers>, at: u64, log: &Log) -> TimerId {
    let log = log.clone();
    context.set_timer(seconds(at), move |_, _| log.push(format!("timer {at}")))
}

/// An open connection without keep-alive, and a clock whose time is logged in whole seconds since then.
fn quiet<C: TestTransport>(handlers: &Handlers) -> Subject<C> {
    let config = server_config().ping_interval(None);
    Subject::server(config, handlers.clone()).open()
}

fn timers_run_when_they_are_due<C: TestTransport>() {
    let log = Log::default();
    let reported = log.clone();
    let mut handlers = Handlers::new();
    handlers.on_open(move |context| {
        for at in [3, 1, 2] {
            set(context, at, &reported);
        }
    });
    let mut subject = quiet::<C>(&handlers);
    assert_eq!(subject.end.deadline(), Some(subject.clock.now() + seconds(1)));
    for at in 1..=3 {
        subject.advance(seconds(1) - Duration::from_nanos(1));
        assert!(log.take().is_empty());
        subject.advance(Duration::from_nanos(1));
        assert_eq!(log.take(), [format!("timer {at}")]);
    }
    assert_eq!(subject.end.deadline(), None);
}

fn timers_due_together_run_in_the_order_they_were_set<C: TestTransport>() {
    let log = Log::default();
    let reported = log.clone();
    let mut handlers = Handlers::new();
    handlers.on_open(move |context| {
        for name in ["a", "b", "c"] {
            let reported = reported.clone();
            context.set_timer(seconds(1), move |_, _| reported.push(name));
        }
    });
    let mut subject = quiet::<C>(&handlers);
    subject.clock.pass(seconds(10)); // nobody looked in time
    subject.end.handle_timeout();
    assert_eq!(log.take(), ["a", "b", "c"]);
}

fn a_timer_may_set_and_cancel_others<C: TestTransport>() {
    let log = Log::default();
    let reported = log.clone();
    let mut handlers = Handlers::new();
    handlers.on_open(move |context| {
        let reported = reported.clone();
        let victim = Arc::new(Mutex::new(None));
        let id = victim.clone();
        let first = reported.clone();
        context.set_timer(seconds(1), move |_, context| {
            first.push("first");
            assert!(context.cancel_timer(id.lock().unwrap().unwrap()));
            assert!(!context.cancel_timer(id.lock().unwrap().unwrap()), "once");
            set(context, 2, &first);
        });
        *victim.lock().unwrap() = Some(set(context, 1, &reported));
    });
    let mut subject = quiet::<C>(&handlers);
    subject.advance(seconds(1));
    assert_eq!(log.take(), ["first"]);
    subject.advance(seconds(2));
    assert_eq!(log.take(), ["timer 2"]);
}

fn a_cancelled_timer_is_dropped<C: TestTransport>() {
    let token = Arc::new(());
    let id = Arc::new(Mutex::new(None));
    let (held, set) = (token.clone(), id.clone());
    let mut handlers = Handlers::new();
    handlers.on_open(move |context| {
        let held = held.clone();
        *set.lock().unwrap() = Some(context.set_timer(seconds(1), move |_, _| drop(held)));
    });
    let mut subject = quiet::<C>(&handlers);
    let before = Arc::strong_count(&token);
    let id = id.lock().unwrap().unwrap();
    subject.with_handle(|handle| handle.cancel_timer(id)).unwrap();
    assert_eq!(Arc::strong_count(&token), before - 1);
    assert_eq!(subject.end.deadline(), None);
    subject.with_handle(|handle| handle.cancel_timer(id)).unwrap();
    subject.advance(seconds(10));
}

/// Before the connection has set it, and later, by a handle and by the handler.
fn a_timer_from_a_handle_can_be_cancelled<C: TestTransport>() {
    let mut handlers = Handlers::new();
    let (sender, timers) = std::sync::mpsc::channel::<TimerId>();
    let timers = Mutex::new(timers);
    handlers.on_message(move |_, context| {
        let timer = timers.lock().unwrap().try_recv().unwrap();
        assert!(context.cancel_timer(timer));
        assert!(!context.cancel_timer(timer), "once");
    });
    let mut subject = open_server::<C>(&handlers);
    let token = Arc::new(());
    let set = |handle: &Handle<Handlers>| {
        let held = token.clone();
        handle.set_timer(seconds(3600), move |_, _| panic!("{held:?}")).unwrap()
    };
    let (second, third) = subject.with_handle(|handle| {
        let first = set(handle);
        handle.cancel_timer(first).unwrap();
        (set(handle), set(handle))
    });
    assert_eq!(Arc::strong_count(&token), 3);
    subject.with_handle(|handle| handle.cancel_timer(second)).unwrap();
    assert_eq!(Arc::strong_count(&token), 2);
    sender.send(third).unwrap();
    subject.receive(&[text("cancel")]);
    assert_eq!(Arc::strong_count(&token), 1);
}

fn a_timer_is_dropped_at_the_end<C: TestTransport>() {
    let token = Arc::new(());
    let held = token.clone();
    let mut handlers = Handlers::new();
    handlers.on_open(move |context| {
        let held = held.clone();
        context.set_timer(seconds(60), move |_, _| panic!("{held:?}"));
    });
    let mut subject = quiet::<C>(&handlers);
    let before = Arc::strong_count(&token);
    subject.close_by_peer();
    assert_eq!(Arc::strong_count(&token), before - 1);
    subject.advance(seconds(60));
}

fn a_timer_from_a_handle_counts_from_its_turn<C: TestTransport>() {
    let log = Log::default();
    let reported = log.clone();
    let mut subject = quiet::<C>(&Handlers::new());
    let handle = subject.end.handle();
    handle.set_timer(seconds(2), move |_, _| reported.push("timer")).unwrap();
    subject.advance(seconds(1));
    subject.drain();
    assert_eq!(subject.end.deadline(), Some(subject.clock.now() + seconds(2)));
    subject.advance(seconds(2));
    assert_eq!(log.take(), ["timer"]);
}

fn a_timer_sends<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_open(|context| {
        context.set_timer(seconds(1), |_, context| {
            let _ = context.send("a").unwrap();
            let _ = context.send("b").unwrap();
        });
    });
    let mut subject = quiet::<C>(&handlers);
    let before = subject.end.writes();
    subject.advance(seconds(1));
    assert_eq!(subject.sent(), [text("a"), text("b")]);
    assert_eq!(subject.end.writes(), before + 1);
}

fn timers_before_the_connection_is_open<C: TestTransport>() {
    let log = Log::default();
    let reported = log.clone();
    let mut handlers = Handlers::new();
    handlers.on_validate(move |_, context| {
        set(context, 1, &reported);
        let handle = context.handle();
        context.set_timer(seconds(2), move |_, _| {
            handle.accept(Accept::new()).unwrap();
        });
        set(context, 3, &reported);
        Answer::Defer
    });
    let opened = log.clone();
    handlers.on_open(move |_| opened.push("open"));
    let mut subject = server::<C>(&handlers);
    subject.receive_bytes(wire::REQUEST);
    subject.advance(seconds(1));
    assert_eq!(log.take(), ["timer 1"]);
    subject.advance(seconds(1));
    subject.drain();
    assert_eq!(log.take(), ["open"]);
    subject.advance(seconds(1));
    assert_eq!(log.take(), ["timer 3"]);
}

fn open_times_out_at_a_server<C: TestTransport>() {
    let log = Log::default();
    let mut subject = server::<C>(&recording(&log));
    assert_eq!(subject.end.deadline(), Some(subject.clock.now() + seconds(5)));
    subject.advance(seconds(4));
    subject.receive_bytes("GET / HTTP");
    subject.advance(seconds(1));
    assert!(subject.sent_response().starts_with("HTTP/1.1 408 "));
    subject.advance(seconds(5));
    assert_eq!(log.take(), ["fail by timer: opening handshake timed out"]);
    assert!(subject.end.is_over());

    let mut subject = server::<C>(&recording(&log));
    subject.advance(seconds(5));
    assert!(subject.end.take_output().is_empty(), "nobody has asked for anything");
    assert_eq!(log.take(), ["fail by timer: opening handshake timed out"]);
}

fn open_times_out_at_a_client<C: TestTransport>() {
    let log = Log::default();
    let mut subject = client::<C>(&recording(&log));
    subject.end.start();
    subject.advance(seconds(4));
    subject.receive_bytes(&wire::RESPONSE[..20]);
    subject.advance(seconds(1));
    assert_eq!(log.take(), ["fail by timer: opening handshake timed out"]);
    assert!(subject.end.is_over());
}

fn close_times_out<C: TestTransport>() {
    for open in [open_server::<C>, open_client::<C>] {
        let log = Log::default();
        let mut subject = open(&recording(&log));
        log.take();
        subject.with_handle(|handle| handle.close(CloseCode::NORMAL, "")).unwrap();
        subject.advance(seconds(5));
        let reported = "close unclean by timer: 1000/none, closing handshake timed out";
        assert_eq!(log.take(), [reported]);
        assert_eq!(subject.sent(), [wire::close(1000, "")]);
    }
    // The server does not end the stream.
    let log = Log::default();
    let mut subject = open_client::<C>(&recording(&log));
    log.take();
    subject.receive(&[wire::close(1000, "")]);
    subject.advance(seconds(5));
    assert_eq!(log.take(), ["close clean by peer: 1000/1000"]);
}

fn a_peer_that_goes_on_sending_does_not_prolong_the_close<C: TestTransport>() {
    let log = Log::default();
    let mut subject = open_server::<C>(&recording(&log));
    subject.with_handle(|handle| handle.close(CloseCode::NORMAL, "")).unwrap();
    for _ in 0..5 {
        assert!(!subject.end.is_over());
        subject.receive(&[text("a")]);
        subject.advance(seconds(1));
    }
    assert!(subject.end.is_over());
}

fn the_end_of_the_stream_times_out_after_a_failure<C: TestTransport>() {
    let log = Log::default();
    let mut subject = open_server::<C>(&recording(&log));
    log.take();
    subject.receive(&[wire::frame(0x3, "")]);
    subject.advance(seconds(5));
    assert_eq!(log.take(), ["close unclean by peer: 1002/none, reserved opcode 0x3"]);
    assert!(subject.end.is_over());
}

fn keep_alive_pings_are_answered<C: TestTransport>() {
    let log = (Log::default(), Log::default());
    let client = (client_config().ping_interval(None), recording(&log.0));
    let mut pair = Pair::<C>::new(client, (server_config(), recording(&log.1)));
    pair.run_for(seconds(70));
    assert_eq!(log.0.take(), ["open", "ping ka\0\u{1}", "ping ka\0\u{2}", "ping ka\0\u{3}"]);
    let pong = "pong after 0ns";
    assert_eq!(log.1.take(), ["validate GET /chat", "open", pong, pong, pong]);
}

fn a_pong_that_does_not_come<C: TestTransport>() {
    let log = Log::default();
    let mut handlers = recording(&log);
    let reported = log.clone();
    handlers.on_pong_timeout(move |context| {
        reported.push("pong_timeout");
        assert!(context.send("too late").is_err());
    });
    let mut subject = open_server::<C>(&handlers);
    log.take();
    subject.advance(seconds(20));
    assert_eq!(subject.sent().len(), 1);
    subject.advance(seconds(20));
    assert_eq!(log.take(), ["pong_timeout"]);
    assert_eq!(subject.sent()[0].payload[..2], 1011_u16.to_be_bytes());
    subject.advance(seconds(60));
    let cause = "keep-alive ping not answered in time";
    assert_eq!(log.take(), [format!("close unclean by timer: 1011/none, {cause}")]);
}

fn a_pong_of_another_payload_is_no_answer<C: TestTransport>() {
    let log = Log::default();
    let mut subject = open_server::<C>(&recording(&log));
    log.take();
    subject.advance(seconds(20));
    subject.receive(&[pong("x")]);
    subject.advance(seconds(20));
    assert_eq!(log.take(), ["pong x", "pong_timeout"]);
}

fn an_idle_connection_is_closed<C: TestTransport>() {
    let log = Log::default();
    let config = server_config()
        .ping_interval(None)
        .idle_timeout(seconds(30))
        .data_idle_timeout(seconds(60));
    let mut subject = Subject::<C>::server(config, recording(&log)).open();
    log.take();
    for _ in 0..3 {
        subject.advance(seconds(20));
        subject.receive(&[ping("")]);
    }
    subject.sent();
    subject.receive(&[wire::close(1001, "")]);
    assert_eq!(log.take().last().unwrap(), "close unclean by timer: 1001/1001, no data in time");
}

fn nothing_is_due_when_it_is_over<C: TestTransport>() {
    for open in [open_server::<C>, open_client::<C>] {
        let mut subject = open(&Handlers::new());
        assert!(subject.end.deadline().is_some());
        subject.close_by_peer();
        assert_eq!(subject.end.deadline(), None);
    }
}

/// Or the loop that this runs in never does anything else.
fn a_timer_that_sets_itself_again_waits_for_its_turn<C: TestTransport>() {
    if !C::BATCHES {
        return; // the driver would resume it for ever
    }
    fn again(context: &mut Context<'_, Handlers>, log: &Log, left: u32) {
        let log = log.clone();
        context.set_timer(Duration::ZERO, move |_, context| {
            log.push("timer");
            assert!(left > 0, "it does not come to rest");
            again(context, &log, left - 1);
        });
    }
    let log = Log::default();
    let reported = log.clone();
    let mut handlers = Handlers::new();
    handlers.on_open(move |context| again(context, &reported, 100));
    let mut subject = quiet::<C>(&handlers);
    for _ in 0..3 {
        subject.end.handle_timeout();
        assert_eq!(log.take(), ["timer"]);
        assert_eq!(subject.end.deadline(), Some(subject.clock.now()));
    }
}

/// Deadlines were not handled for a while, and both are due: that of the end came first.
fn a_timer_does_not_run_after_the_end<C: TestTransport>() {
    let log = Log::default();
    let reported = log.clone();
    let mut handlers = recording(&log);
    handlers.on_open(move |context| {
        set(context, 6, &reported);
        context.close(CloseCode::NORMAL, "").unwrap();
    });
    let mut subject = open_server::<C>(&handlers);
    log.take();
    subject.clock.pass(seconds(10));
    subject.end.handle_timeout();
    let reported = "close unclean by timer: 1000/none, closing handshake timed out";
    assert_eq!(log.take(), [reported]);
}

/// An echo that pauses for a slow reader does not wait for ever.
fn a_peer_that_reads_nothing_ends_a_paused_connection<C: TestTransport>() {
    let log = Log::default();
    let mut subject = open_server::<C>(&recording(&log));
    log.take();
    subject.with_handle(|handle| handle.pause_reading()).unwrap();
    subject.end.block();
    subject.with_handle(|handle| handle.send("a")).unwrap();
    subject.advance(seconds(39));
    assert!(log.take().is_empty());
    subject.advance(seconds(1));
    assert_eq!(log.take()[0], "pong_timeout");
}

/// It does not read the answer because it does not want to.
fn a_paused_connection_waits_for_no_pong<C: TestTransport>() {
    let log = Log::default();
    let mut subject = open_server::<C>(&recording(&log));
    log.take();
    subject.with_handle(|handle| handle.pause_reading()).unwrap();
    subject.advance(seconds(300));
    assert!(log.take().is_empty());
    subject.with_handle(|handle| handle.resume_reading()).unwrap();
    subject.receive(&[text("a")]);
    assert_eq!(log.take(), ["text a"]);
    subject.advance(seconds(300));
    assert_eq!(log.take()[0], "pong_timeout");
}
