//! The budget bounds the number of handlers that a call runs, and nothing that it holds back is lost.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyloop_proto::handshake::Accept;
use anyloop_proto::{CloseCode, Instant, Shutdown, State, TransportError};

use super::*;

#[test]
fn events_of_one_read_are_delivered_one_by_one() {
    let mut subject = Subject::new();
    subject.allow(1);
    subject.feed([REQUEST.as_bytes(), &texts(b"abc"), CLOSE].concat());
    assert_eq!(subject.log(), ["validate"]);
    assert!(subject.driver.wants_resume());
    for event in ["open", "a", "b", "c"] {
        assert!(subject.driver.wants_resume());
        subject.allow(1);
        subject.resume();
        assert_eq!(subject.log(), [event]);
        assert_eq!(subject.buffers.budget.spent(), 1);
    }
    assert!(subject.memory.shutdowns.is_empty());
    subject.allow(1);
    subject.resume();
    assert_eq!(subject.memory.shutdowns, [Shutdown::HalfClose]);
    subject.allow(0);
    subject.eof();
    assert!(subject.log().is_empty());
    subject.allow(1);
    subject.resume();
    assert_eq!(subject.log(), ["close clean"]);
    assert_eq!(subject.memory.shutdowns, [Shutdown::HalfClose, Shutdown::Close]);
    assert!(subject.driver.is_closed() && !subject.driver.wants_resume());
}

#[test]
fn a_spent_budget_stops_everything() {
    let mut subject = Subject::new();
    subject.allow(0);
    subject.feed([REQUEST.as_bytes(), &texts(b"a")].concat());
    subject.resume();
    assert!(subject.log().is_empty() && subject.driver.wants_resume());
    subject.allow(100);
    subject.resume();
    assert_eq!(subject.log(), ["validate", "open", "a"]);
    assert!(!subject.driver.wants_resume() && !subject.driver.has_unread());
}

#[test]
fn a_client_opens_and_continues_with_the_events_after_that() {
    let mut subject = Subject::client();
    subject.allow(1);
    subject.feed(
        [RESPONSE.as_bytes(), b"\x81\x01a\x81\x01b\x89\x00\x8a\x00\x88\x02\x03\xe8"].concat(),
    );
    assert_eq!(subject.log(), ["open"]);
    assert_eq!(subject.the_rest_one_by_one(), ["a", "b", "ping", "pong"]);
    subject.allow(0);
    subject.eof();
    assert!(subject.log().is_empty() && subject.memory.shutdowns.is_empty());
    assert_eq!(subject.the_rest_one_by_one(), ["close clean"]);
    assert_eq!(subject.memory.shutdowns, [Shutdown::Close]);
}

#[test]
fn a_budget_of_one_delivers_one_of_a_thousand_messages() {
    let mut subject = Subject::open();
    subject.allow(1);
    subject.feed(texts(&[b'x'; 1000]));
    assert_eq!(subject.log(), ["x"]);
    assert_eq!(subject.the_rest_one_by_one().len(), 999);
}

#[test]
fn a_stop_within_a_handler_takes_effect_after_it() {
    let mut subject = Subject::open();
    subject.feed(texts(b"abScd"));
    assert_eq!(subject.log(), ["a", "b", "S"]);
    subject.resume();
    assert!(subject.log().is_empty());
    subject.recorder.stop.store(false, Ordering::Release);
    subject.resume();
    assert_eq!(subject.log(), ["c", "d"]);
}

#[test]
fn chunks_are_counted_too() {
    let mut subject = Subject::with_config(Recorder::new(), config().streaming(true)).opened();
    subject.allow(1);
    subject.feed(b"\x01\x82\0\0\0\0ab\x80\x81\0\0\0\0c");
    assert_eq!(subject.log(), ["chunk of 2"]);
    assert_eq!(subject.the_rest_one_by_one(), ["chunk of 1"]);
}

#[test]
fn commands_that_were_not_reached_stay_in_order() {
    let mut subject = Subject::open();
    let handle = subject.handle();
    for number in 0..5 {
        handle.post(move |recorder, _| recorder.log.push(format!("post {number}"))).unwrap();
        let _ = handle.send(format!("{number}").as_str()).unwrap();
    }
    let waiting = handle.buffered_amount();
    assert_eq!(waiting, 5);
    subject.allow(1);
    subject.wake();
    assert_eq!(subject.log(), ["post 0"]);
    assert_eq!(subject.memory.written, b"\x81\x010");
    assert_eq!(handle.buffered_amount(), 4); // commands that were put back are still counted
    handle.interrupt().unwrap(); // runs after those
    let rest = subject.the_rest_one_by_one();
    assert_eq!(rest, ["post 1", "post 2", "post 3", "post 4", "interrupt"]);
    assert_eq!(subject.memory.written, b"\x81\x010\x81\x011\x81\x012\x81\x013\x81\x014");
    assert_eq!(handle.buffered_amount(), 0);
}

#[test]
fn commands_wait_until_the_handler_is_notified_of_the_opening() {
    let mut recorder = Recorder::new();
    recorder.defers = true;
    let mut subject = Subject::with_config(recorder, config());
    subject.feed([REQUEST.as_bytes(), &texts(b"a")].concat());
    assert_eq!(subject.log(), ["validate"]);
    assert!(subject.driver.has_unread() && !subject.driver.wants_resume());
    let handle = subject.handle();
    handle.accept(Accept::new()).unwrap();
    let _ = handle.send("b").unwrap();
    handle.post(|recorder, _| recorder.log.push("post")).unwrap();
    subject.allow(0);
    subject.wake();
    assert!(subject.memory.written.ends_with(b"\r\n\r\n")); // open, but the handler is not notified yet
    assert_eq!(subject.the_rest_one_by_one(), ["open", "post", "a"]);
    assert!(subject.memory.written.ends_with(b"\r\n\r\n\x81\x01b"));
}

/// Each posted function posts another, without end.
#[test]
fn commands_timers_and_input_do_not_starve_each_other() {
    fn again(recorder: &mut Recorder, context: &mut Context<'_, Recorder>) {
        recorder.log.push("post");
        context.handle().post(again).unwrap();
        context.set_timer(Duration::ZERO, |recorder, _| recorder.log.push("timer"));
    }
    let mut subject = Subject::open();
    subject.handle().post(again).unwrap();
    subject.allow(0);
    subject.wake();
    subject.feed(texts(b"aaaaaaaaaa"));
    for _ in 0..30 {
        subject.allow(1);
        subject.resume();
    }
    let log = subject.log();
    for kind in ["post", "timer", "a"] {
        let turns = log.iter().filter(|event| *event == kind).count();
        assert!(turns >= 9, "{turns} of {kind}: {log:?}");
    }
}

#[test]
fn timers_that_are_due_stay_due() {
    let mut subject = Subject::open();
    subject
        .handle()
        .post(|_, context| {
            for number in 0..3 {
                context.set_timer(Duration::from_secs(1), move |recorder: &mut Recorder, _| {
                    recorder.log.push(format!("timer {number}"));
                });
            }
        })
        .unwrap();
    subject.wake();
    let due = subject.now + Duration::from_secs(1);
    assert_eq!(subject.driver.next_timeout(), Some(due));
    subject.advance(Duration::from_secs(1));
    subject.allow(1);
    subject.timeout();
    assert_eq!(subject.log(), ["timer 0"]);
    assert_eq!(subject.driver.next_timeout(), Some(due));
    subject.allow(1);
    subject.timeout();
    assert_eq!(subject.log(), ["timer 1"]);
    assert_eq!(subject.the_rest_one_by_one(), ["timer 2"]);
}

#[test]
fn a_pong_timeout_is_reported_when_the_budget_allows_it() {
    let mut subject = Subject::open();
    let due = |subject: &mut Subject| {
        subject.now = subject.driver.next_timeout().unwrap();
        subject.timeout();
    };
    while subject.memory.written.is_empty() {
        due(&mut subject);
    }
    assert!(subject.memory.written.starts_with(b"\x89")); // the keep-alive's ping
    subject.allow(0);
    due(&mut subject);
    assert!(subject.log().is_empty() && subject.driver.wants_resume());
    assert_eq!(subject.the_rest_one_by_one(), ["pong timeout"]);
    subject.allow(0);
    subject.eof();
    assert_eq!(subject.the_rest_one_by_one(), ["close"]);
}

#[test]
fn a_drained_send_buffer_is_reported_when_the_budget_allows_it() {
    let mut subject = Subject::open();
    subject.memory.window = 1;
    let _ = subject.handle().send(vec![0; 2 << 20]).unwrap();
    subject.wake();
    subject.memory.window = 0;
    subject.allow(0);
    subject.writable();
    assert!(subject.log().is_empty() && subject.driver.wants_resume());
    assert_eq!(subject.the_rest_one_by_one(), ["drained"]);
}

/// The low-water mark may be set above the high one, by mistake.
#[test]
fn marks_in_the_wrong_order_report_each_crossing_once() {
    let recorder = Recorder::new();
    let config = config().low_water_mark(10_000).high_water_mark(1000);
    let server = Server::with_factory(config, recorder.clone());
    let mut subject = Subject::with_server(&server, &recorder).opened();
    subject.memory.window = 1;
    server.broadcast(anyloop_proto::Prepared::new(&[0; 5000][..]));
    subject.wake();
    assert_eq!(subject.log(), ["backpressure"]);
    subject.memory.window = 0;
    subject.writable();
    assert_eq!(subject.log(), ["drained"]);
}

#[test]
fn plain_http_takes_one_call_and_its_end_none() {
    let mut subject = Subject::new();
    subject.allow(0);
    subject.feed("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(subject.the_rest_one_by_one(), ["http"]);
    subject.allow(0);
    subject.eof();
    assert!(subject.driver.is_closed() && subject.log().is_empty());
}

#[test]
fn a_failure_is_reported_when_the_budget_allows_it() {
    let mut subject = Subject::new();
    subject.allow(0);
    subject.eof();
    assert!(!subject.driver.is_closed() && subject.memory.shutdowns.is_empty());
    assert_eq!(subject.the_rest_one_by_one(), ["fail"]);
    assert_eq!(subject.memory.shutdowns, [Shutdown::Abort]);
}

/// The end of the stream is reported after all earlier events, however they were held back.
#[test]
fn the_end_is_reported_last() {
    for error in [None, Some(TransportError::Reset)] {
        let mut subject = Subject::new();
        subject.allow(1);
        subject.feed([REQUEST.as_bytes(), &texts(b"ab")].concat());
        let handle = subject.handle();
        handle.post(|recorder, _| recorder.log.push("post")).unwrap();
        subject.allow(0);
        subject.wake();
        let Subject { driver, memory, buffers, now, .. } = &mut subject;
        match error {
            None => driver.handle_eof(memory, buffers, *now),
            Some(kind) => {
                driver.handle_error_with(memory, buffers, kind, Box::new(Broken(1)), *now);
            }
        }
        let mut log = subject.the_rest_one_by_one();
        let end = if error.is_some() { "close: on purpose, number 1" } else { "close" };
        assert_eq!(log.pop().unwrap(), end);
        log.sort();
        assert_eq!(log, ["a", "b", "open", "post", "validate"]);
        assert!(handle.send("late").is_err());
    }
}

/// Commands that are left in the mailbox run before the end is reported, even if the peer's Close arrives meanwhile.
#[test]
fn a_close_does_not_overtake_commands() {
    let mut subject = Subject::open();
    let handle = subject.handle();
    for number in 0..3 {
        handle.post(move |recorder, _| recorder.log.push(format!("post {number}"))).unwrap();
    }
    subject.allow(1);
    subject.wake();
    subject.allow(100);
    subject.feed(CLOSE);
    subject.eof();
    assert!(!subject.driver.is_closed());
    let rest = subject.the_rest_one_by_one();
    assert_eq!(rest, ["post 0", "post 1", "post 2", "close clean"]);
}

#[test]
fn open_and_close_are_both_reported_if_the_end_comes_before_open_was_reported() {
    let mut subject = Subject::new();
    subject.allow(1);
    subject.feed(REQUEST);
    subject.allow(0);
    subject.eof();
    assert_eq!(subject.the_rest_one_by_one(), ["validate", "open", "close"]);
}

#[test]
fn a_panic_passes_on_and_input_after_it_is_dropped() {
    let mut subject = Subject::open();
    subject.allow(1);
    subject.feed(texts(b"a!b"));
    subject.allow(1);
    assert!(catch_unwind(AssertUnwindSafe(|| subject.resume())).is_err());
    assert!(!subject.driver.has_unread() && !subject.driver.wants_resume());
    assert_eq!(subject.log(), ["a", "!"]);
    subject.allow(0);
    subject.eof();
    assert_eq!(subject.the_rest_one_by_one(), ["close"]);
}

/// It is unknown how much the transport has written, so the message counts as not sent.
#[test]
fn a_panic_of_the_transport_calls_completions() {
    let mut subject = Subject::open();
    let (report, reports) = std::sync::mpsc::channel();
    let completion = move |result| report.send(result).unwrap();
    let _ = subject.handle().send_then("abc", completion).unwrap();
    subject.memory.panics = true;
    assert!(catch_unwind(AssertUnwindSafe(|| subject.wake())).is_err());
    assert_eq!(reports.try_recv(), Ok(Err(crate::endpoint::Unsent)));
    assert_eq!(subject.memory.written[2..4], 1011_u16.to_be_bytes());
}

/// If one completion panics, the handler is still notified of the end.
#[test]
fn a_panic_of_a_completion_does_not_suppress_other_notifications() {
    let mut subject = Subject::open();
    subject.memory.window = 1;
    let handle = subject.handle();
    let _ = handle.send_then("abc", |_| panic!("on purpose")).unwrap();
    subject.wake();
    assert!(catch_unwind(AssertUnwindSafe(|| subject.eof())).is_err());
    assert_eq!(subject.log(), ["close"]);
    assert!(subject.driver.is_closed() && handle.interrupt().is_err());
}

#[test]
fn a_budget_changes_only_when_events_are_reported() {
    let run_within = |most: u64| {
        let mut subject = Subject::new();
        let handle = subject.handle();
        let mut log = Vec::new();
        let run = |subject: &mut Subject, log: &mut Vec<String>| {
            for _ in 0..1000 {
                if !subject.driver.wants_resume() {
                    break;
                }
                subject.allow(most);
                subject.resume();
            }
            log.extend(subject.log());
        };
        subject.allow(most);
        subject.feed([REQUEST.as_bytes(), &texts(b"ab"), b"\x89\x80\0\0\0\0"].concat());
        run(&mut subject, &mut log);
        handle.post(|recorder, _| recorder.log.push("post")).unwrap();
        handle.interrupt().unwrap();
        handle.close(CloseCode::NORMAL, "").unwrap();
        subject.allow(most);
        subject.wake();
        run(&mut subject, &mut log);
        subject.allow(most);
        subject.feed([&texts(b"cd"), CLOSE, b"garbage"].concat());
        run(&mut subject, &mut log);
        subject.allow(most);
        subject.eof();
        run(&mut subject, &mut log);
        (log, subject.memory.written, subject.memory.shutdowns)
    };
    let all = run_within(u64::MAX);
    assert_eq!(all.0.last().unwrap(), "close clean");
    for most in 1..8 {
        assert_eq!(run_within(most), all, "{most} at a time");
    }
}

#[test]
fn timers_count_from_the_time_of_the_transport() {
    let mut subject = Subject::open();
    subject.memory.now = Some(Instant::from_nanos(1_500_000_000));
    let set = |_: &mut Recorder, context: &mut Context<'_, Recorder>| {
        context.set_timer(Duration::from_secs(1), |recorder, _| recorder.log.push("timer"));
    };
    subject.handle().post(set).unwrap();
    subject.wake();
    assert_eq!(subject.driver.next_timeout(), Some(Instant::from_nanos(2_500_000_000)));
}

/// The handler may have taken any time before it panicked.
#[test]
fn the_close_timeout_after_a_panic_counts_from_the_panic() {
    let mut subject = Subject::open();
    let present = subject.now + Duration::from_secs(60);
    subject.memory.now = Some(present);
    catch_unwind(AssertUnwindSafe(|| subject.feed(texts(b"!")))).unwrap_err();
    assert_eq!(subject.driver.state(), State::Failed);
    assert_eq!(subject.driver.next_timeout(), Some(present + Duration::from_secs(5)));
}
