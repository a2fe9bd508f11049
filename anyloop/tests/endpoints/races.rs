//! Deadlines and what they wait for, both ways: whichever is seen first wins, and nothing happens
//! twice.

use anyloop::http::Response;
use anyloop::prelude::*;

use crate::record::{Log, recording};
use crate::subject::{Subject, client, open_client, open_server, seconds, server};
use crate::transports::{End, TestTransport, over_each_transport};
use crate::wire::{self, pong};

over_each_transport! {
    a_reset_against_the_end;
    not over sockets:
    the_request_against_its_deadline,
    the_response_against_its_deadline,
    the_answer_to_a_handshake_against_its_deadline,
    the_answer_to_http_against_its_deadline,
    the_close_against_its_deadline,
    the_end_of_the_stream_against_its_deadline,
    the_pong_against_its_deadline,
    a_timer_against_its_cancellation,
    the_close_of_each_side_against_the_other,
}

/// Does both things at an instant when the deadline is due, in one order.
fn both<C: TestTransport>(
    subject: &mut Subject<C>,
    deadline_first: bool,
    other: impl FnOnce(&mut Subject<C>),
) {
    let deadline = subject.end.deadline().expect("a deadline");
    subject.clock.set(deadline);
    if deadline_first {
        subject.end.handle_timeout();
        other(subject);
    } else {
        other(subject);
        subject.end.handle_timeout();
    }
}

/// Ends what may be left, and a long time passes.
fn end<C: TestTransport>(subject: &mut Subject<C>) {
    subject.end.eof();
    subject.end.reset();
    subject.advance(seconds(3600));
    assert!(subject.end.is_over());
}

fn the_request_against_its_deadline<C: TestTransport>() {
    for deadline_first in [true, false] {
        let log = Log::default();
        let mut subject = server::<C>(&recording(&log));
        let (most, last) = wire::REQUEST.split_at(wire::REQUEST.len() - 1);
        subject.receive_bytes(most);
        both(&mut subject, deadline_first, |subject| {
            subject.receive_bytes(last);
        });
        let output = String::from_utf8(subject.end.take_output()).unwrap();
        let status = if deadline_first { "HTTP/1.1 408 " } else { "HTTP/1.1 101 " };
        assert!(output.starts_with(status), "{output}");
        assert_eq!(output.matches("HTTP/1.1").count(), 1);
        end(&mut subject);
        match deadline_first {
            true => assert_eq!(log.take(), ["fail by timer: opening handshake timed out"]),
            false => assert_eq!(log.take()[..2], ["validate GET /chat", "open"]),
        }
    }
}

fn the_response_against_its_deadline<C: TestTransport>() {
    for deadline_first in [true, false] {
        let log = Log::default();
        let mut subject = client::<C>(&recording(&log));
        subject.end.start();
        both(&mut subject, deadline_first, |subject| {
            subject.receive_bytes(wire::RESPONSE);
        });
        end(&mut subject);
        let ended = "close unclean by peer: none/none, stream ended without a closing handshake";
        match deadline_first {
            true => assert_eq!(log.take(), ["fail by timer: opening handshake timed out"]),
            false => assert_eq!(log.take(), ["open", ended]),
        }
    }
}

fn the_answer_to_a_handshake_against_its_deadline<C: TestTransport>() {
    for deadline_first in [true, false] {
        let log = Log::default();
        let mut handlers = recording(&log);
        handlers.on_validate(|_, _| Answer::Defer);
        let mut subject = server::<C>(&handlers);
        subject.receive_bytes(wire::REQUEST);
        both(&mut subject, deadline_first, |subject| {
            let accepted = subject.with_handle(|handle| handle.accept(Accept::new()));
            assert_eq!(accepted, if deadline_first { Err(SendError::NotAwaiting) } else { Ok(()) });
        });
        let output = String::from_utf8(subject.end.take_output()).unwrap();
        assert_eq!(output.matches("HTTP/1.1").count(), 1);
        end(&mut subject);
        match deadline_first {
            true => assert_eq!(log.take(), ["fail by local: request not answered in time"]),
            false => assert_eq!(log.take()[0], "open"),
        }
    }
}

fn the_answer_to_http_against_its_deadline<C: TestTransport>() {
    for deadline_first in [true, false] {
        let log = Log::default();
        let mut handlers = recording(&log);
        handlers.on_http(|_, _| Answer::Defer);
        let mut subject = server::<C>(&handlers);
        subject.receive_bytes("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        both(&mut subject, deadline_first, |subject| {
            let response = Response::new(b"here".to_vec());
            let answered = subject.with_handle(|handle| handle.respond(response));
            assert_eq!(answered, if deadline_first { Err(SendError::NotAwaiting) } else { Ok(()) });
        });
        let output = String::from_utf8(subject.end.take_output()).unwrap();
        assert_eq!(output.matches("HTTP/1.1").count(), 1);
        end(&mut subject);
        match deadline_first {
            true => assert_eq!(log.take(), ["fail by local: request not answered in time"]),
            false => assert!(log.take().is_empty()),
        }
    }
}

fn the_close_against_its_deadline<C: TestTransport>() {
    for open in [open_server::<C>, open_client::<C>] {
        for deadline_first in [true, false] {
            let log = Log::default();
            let mut subject = open(&recording(&log));
            log.take();
            subject.with_handle(|handle| handle.close(CloseCode::NORMAL, "")).unwrap();
            both(&mut subject, deadline_first, |subject| {
                subject.receive(&[wire::close(1000, "")]);
            });
            assert_eq!(subject.sent(), [wire::close(1000, "")]);
            end(&mut subject);
            let reported = match deadline_first {
                true => "close unclean by timer: 1000/none, closing handshake timed out",
                false => "close clean by local: 1000/1000",
            };
            assert_eq!(log.take(), [reported]);
        }
    }
}

fn the_end_of_the_stream_against_its_deadline<C: TestTransport>() {
    for deadline_first in [true, false] {
        let log = Log::default();
        let mut subject = open_client::<C>(&recording(&log));
        log.take();
        subject.receive(&[wire::close(1000, "")]);
        both(&mut subject, deadline_first, |subject| subject.end.eof());
        assert_eq!(subject.end.shutdowns().len(), 1);
        end(&mut subject);
        assert_eq!(log.take(), ["close clean by peer: 1000/1000"]);
    }
}

fn the_pong_against_its_deadline<C: TestTransport>() {
    for deadline_first in [true, false] {
        let log = Log::default();
        let mut subject = open_server::<C>(&recording(&log));
        log.take();
        subject.advance(seconds(20));
        let ping = subject.sent().remove(0);
        both(&mut subject, deadline_first, |subject| {
            subject.receive(&[pong(ping.payload)]);
        });
        let reported = if deadline_first { "pong_timeout" } else { "pong after 20s" };
        assert_eq!(log.take(), [reported]);
        end(&mut subject);
        assert_eq!(log.take().len(), 1);
    }
}

fn a_timer_against_its_cancellation<C: TestTransport>() {
    for deadline_first in [true, false] {
        let log = Log::default();
        let reported = log.clone();
        let mut handlers = recording(&log);
        let id = std::sync::Arc::new(std::sync::Mutex::new(None));
        let set = id.clone();
        handlers.on_open(move |context| {
            let reported = reported.clone();
            let timer = context.set_timer(seconds(1), move |_, _| reported.push("timer"));
            *set.lock().unwrap() = Some(timer);
        });
        let mut subject = open_server::<C>(&handlers);
        log.take();
        let id = id.lock().unwrap().unwrap();
        both(&mut subject, deadline_first, |subject| {
            subject.with_handle(|handle| handle.cancel_timer(id)).unwrap();
        });
        let expected: &[&str] = if deadline_first { &["timer"] } else { &[] };
        assert_eq!(log.take(), expected);
    }
}

fn the_close_of_each_side_against_the_other<C: TestTransport>() {
    for ours_first in [true, false] {
        let log = Log::default();
        let mut subject = open_client::<C>(&recording(&log));
        log.take();
        let handle = subject.end.handle();
        handle.close(CloseCode::new(3000).unwrap(), "").unwrap();
        if ours_first {
            subject.drain();
            subject.receive(&[wire::close(3001, "")]);
        } else {
            subject.receive(&[wire::close(3001, "")]);
            subject.drain();
        }
        assert_eq!(subject.sent().len(), 1);
        subject.end.eof();
        let reported = match ours_first {
            true => "close clean by local: 3000/3001",
            false => "close clean by peer: 3001/3001",
        };
        assert_eq!(log.take(), [reported]);
    }
}

fn a_reset_against_the_end<C: TestTransport>() {
    for reset_first in [true, false] {
        let log = Log::default();
        let mut subject = open_server::<C>(&recording(&log));
        log.take();
        if reset_first {
            subject.end.reset();
            subject.end.eof();
            assert!(log.take()[0].starts_with("close unclean by transport: none/none, "));
        } else {
            subject.end.eof();
            subject.end.reset();
            assert!(log.take()[0].starts_with("close unclean by peer: none/none, "));
        }
        assert!(log.take().is_empty());
        assert_eq!(subject.end.shutdowns().len(), 1);
    }
}
