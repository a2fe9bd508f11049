//! The stream ends, breaks or cannot be written, in every state: exactly one end is reported, once.

use anyloop::prelude::*;
use anyloop::proto::Shutdown;

use crate::record::{Log, recording};
use crate::subject::{Subject, client, open_client, open_server, seconds, server};
use crate::transports::{End, TestTransport, over_each_transport};
use crate::wire::{self, text};

over_each_transport! {
    a_write_that_fails_in_every_state,
    an_ending_says_who_and_why,
    an_abort_does_not_wait_for_what_is_to_be_written;
    not over sockets:
    one_end_in_every_state,
    nothing_is_written_after_a_failed_write,
    a_write_that_fails_later,
    what_the_transport_failed_with_is_reported,
    a_failure_waits_for_its_close_to_be_written,
    nonsense_does_not_panic,
}

/// Makes a connection whose events are logged.
type Make<C> = Box<dyn Fn(&Log) -> Subject<C>>;

/// Each state that a connection can be in, and how it gets there.
fn states<C: TestTransport>() -> Vec<(&'static str, Make<C>)> {
    fn handlers(log: &Log, defer: bool) -> Handlers {
        let mut handlers = recording(log);
        if defer {
            handlers.on_validate(|_, _| Answer::Defer).on_http(|_, _| Answer::Defer);
        }
        handlers.on_message(|message, context| _ = context.send(message));
        handlers
    }
    fn new_server<C: TestTransport>(log: &Log, defer: bool) -> Subject<C> {
        server(&handlers(log, defer))
    }
    fn with<C: TestTransport>(
        mut subject: Subject<C>,
        f: impl FnOnce(&mut Subject<C>),
    ) -> Subject<C> {
        f(&mut subject);
        subject
    }
    const PLAIN: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    vec![
        ("server, nothing received", Box::new(|log| new_server(log, false))),
        ("server, part of a request", {
            Box::new(|log| with(new_server(log, false), |s| _ = s.receive_bytes("GET / H")))
        }),
        ("server, deferred", {
            Box::new(|log| with(new_server(log, true), |s| _ = s.receive_bytes(wire::REQUEST)))
        }),
        ("server, deferred http", {
            Box::new(|log| with(new_server(log, true), |s| _ = s.receive_bytes(PLAIN)))
        }),
        ("server, answered http", {
            Box::new(|log| with(new_server(log, false), |s| _ = s.receive_bytes(PLAIN)))
        }),
        ("server, refused", {
            Box::new(|log| with(new_server(log, false), |s| _ = s.receive_bytes("x\r\n\r\n")))
        }),
        ("server, open", Box::new(|log| open_server(&handlers(log, false)))),
        ("server, part of a message", {
            Box::new(|log| {
                with(open_server(&handlers(log, false)), |s| {
                    s.receive_bytes([0x81, 0x85, 0, 0, 0, 0, b'a']);
                })
            })
        }),
        ("server, close sent", {
            Box::new(|log| {
                with(open_server(&handlers(log, false)), |s| {
                    s.with_handle(|handle| handle.close(CloseCode::NORMAL, "")).unwrap();
                })
            })
        }),
        ("server, failed", {
            Box::new(|log| {
                with(open_server(&handlers(log, false)), |s| {
                    s.receive(&[wire::frame(0x3, "")]);
                })
            })
        }),
        ("client, started", {
            Box::new(|log| with(client(&handlers(log, false)), |s| s.end.start()))
        }),
        ("client, part of a response", {
            Box::new(|log| {
                with(client(&handlers(log, false)), |s| {
                    s.end.start();
                    s.receive_bytes(&wire::RESPONSE[..20]);
                })
            })
        }),
        ("client, part of a refusal", {
            Box::new(|log| {
                with(client(&handlers(log, false)), |s| {
                    s.end.start();
                    s.receive_bytes("HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nnot");
                })
            })
        }),
        ("client, open", Box::new(|log| open_client(&handlers(log, false)))),
        ("client, close sent", {
            Box::new(|log| {
                with(open_client(&handlers(log, false)), |s| {
                    s.with_handle(|handle| handle.close(CloseCode::NORMAL, "")).unwrap();
                })
            })
        }),
        ("client, closed", {
            Box::new(|log| {
                with(open_client(&handlers(log, false)), |s| {
                    s.receive(&[wire::close(1000, "")]);
                })
            })
        }),
        ("client, failed", {
            Box::new(|log| {
                with(open_client(&handlers(log, false)), |s| {
                    s.receive(&[wire::frame(0x3, "")]);
                })
            })
        }),
    ]
}

/// Exactly one of open, fail or an answer; close once for each open; never fail and open.
fn assert_one_end(reported: &[String], state: &str) {
    let count = |what: &str| reported.iter().filter(|line| line.starts_with(what)).count();
    let answered = usize::from(state.ends_with("answered http"));
    assert_eq!(count("open") + count("fail") + answered, 1, "{state}: {reported:?}");
    assert_eq!(count("open"), count("close"), "{state}: {reported:?}");
    if answered == 0 {
        let last = reported.last().unwrap();
        assert!(last.starts_with("close") || last.starts_with("fail"), "{state}: {reported:?}");
    }
}

fn one_end_in_every_state<C: TestTransport>() {
    type Ends<C> = (&'static str, fn(&mut Subject<C>));
    let ends: [Ends<C>; 6] = [
        ("end of stream", |subject| subject.end.eof()),
        ("reset", |subject| subject.end.reset()),
        ("both", |subject| {
            subject.end.eof();
            subject.end.reset();
        }),
        ("time", |subject| subject.advance(seconds(3600))),
        ("closed from elsewhere", |subject| {
            let _ = subject.with_handle(|handle| handle.close(CloseCode::GOING_AWAY, ""));
        }),
        ("closed from elsewhere, all at once", |subject| {
            let _ = subject.end.handle().close(CloseCode::GOING_AWAY, "");
            subject.end.eof();
            subject.drain();
        }),
    ];
    for (state, make) in states::<C>() {
        for (name, act) in &ends {
            let log = Log::default();
            let mut subject = make(&log);
            act(&mut subject);
            // Whatever is left of it.
            subject.end.eof();
            subject.advance(seconds(3600));
            assert!(subject.end.is_over(), "{state}, {name}");
            let shutdowns = subject.end.shutdowns();
            let last = shutdowns.last().expect("the stream was ended");
            assert_ne!(*last, Shutdown::HalfClose, "{state}, {name}");
            assert!(shutdowns.len() <= 2, "{state}, {name}: {shutdowns:?}");
            assert_one_end(&log.take(), state);
        }
    }
}

fn a_write_that_fails_in_every_state<C: TestTransport>() {
    for (state, make) in states::<C>() {
        let log = Log::default();
        let mut subject = make(&log);
        let before = log.take();
        subject.end.fail_write();
        // Something that may have to be answered.
        match state {
            _ if state.contains("nothing") => subject.receive_bytes(wire::REQUEST),
            _ if state.contains("part of a request") => {
                subject.receive_bytes("TTP/1.1\r\nHost: a\r\n\r\n")
            }
            _ => subject.receive(&[text("a"), text("b"), wire::close(1000, "")]),
        };
        let _ = subject.with_handle(|handle| handle.respond(anyloop::http::Response::new(())));
        let _ = subject.with_handle(|handle| handle.close(CloseCode::NORMAL, ""));
        subject.end.eof();
        subject.advance(seconds(3600));
        assert!(subject.end.is_over(), "{state}");
        let reported = [before, log.take()].concat();
        let count = |what: &str| reported.iter().filter(|line| line.starts_with(what)).count();
        assert_eq!(count("open"), count("close"), "{state}: {reported:?}");
        assert!(count("open") + count("fail") <= 1, "{state}: {reported:?}");
    }
}

fn nothing_is_written_after_a_failed_write<C: TestTransport>() {
    let large = vec![7; 100_000];
    let mut handlers = Handlers::new();
    handlers.on_message(move |_, context| {
        for _ in 0..3 {
            let _ = context.send(&large[..]);
            let _ = context.send("small");
        }
    });
    let mut subject = open_server::<C>(&handlers);
    let before = subject.end.writes();
    subject.end.fail_write();
    subject.receive(&[text("go"), text("go")]);
    assert!(subject.end.is_over());
    assert_eq!(subject.end.writes(), before);
    assert!(subject.end.take_output().is_empty());
    subject.end.assert_shut_down(&[Shutdown::Abort]);
}

fn a_write_that_fails_later<C: TestTransport>() {
    let log = Log::default();
    let mut subject = open_server::<C>(&recording(&log));
    log.take();
    subject.end.block();
    let _ = subject.with_handle(|handle| handle.send("a")).unwrap();
    subject.end.fail_write();
    subject.end.give_room(1);
    assert_eq!(log.take(), ["close unclean by transport: none/none, connection reset"]);
}

/// A handler can ask for it where its connection ends, and only there is it.
fn what_the_transport_failed_with_is_reported<C: TestTransport>() {
    let reported = |handlers: &mut Handlers, log: &Log| {
        let (closes, fails, hears) = (log.clone(), log.clone(), log.clone());
        handlers
            .on_message(move |_, context| hears.push(format!("{:?}", context.error().is_some())))
            .on_close(move |_, context| {
                closes.push(format!("close {:?}", context.error().is_some()))
            })
            .on_fail(move |_, context| fails.push(format!("fail {:?}", context.error().is_some())));
    };
    let log = Log::default();
    let mut handlers = Handlers::new();
    reported(&mut handlers, &log);
    let mut subject = open_server::<C>(&handlers);
    subject.receive(&[text("a")]);
    subject.end.fail_write();
    let _ = subject.end.handle().send("b").unwrap();
    subject.end.drain();
    assert_eq!(log.take(), ["false", "close true"]);

    let mut subject = client::<C>(&handlers);
    subject.end.fail_write();
    subject.end.start();
    assert_eq!(log.take(), ["fail true"]);

    // The transport reports only that it was reset.
    open_server::<C>(&handlers).end.reset();
    open_server::<C>(&handlers).end.eof();
    assert_eq!(log.take(), ["close false", "close false"]);
}

fn an_ending_says_who_and_why<C: TestTransport>() {
    let log = Log::default();
    for (state, ends, reported) in [
        ("server, open", "eof", "peer: none/none, stream ended without a closing handshake"),
        ("server, close sent", "eof", "peer: 1000/none, stream ended without a closing handshake"),
        ("client, open", "write", "transport: none/none, connection reset"),
        ("server, failed", "eof", "peer: 1002/none, reserved opcode 0x3"),
        ("client, failed", "reset", "peer: 1002/none, reserved opcode 0x3"),
    ] {
        let make = states::<C>().into_iter().find(|(name, _)| *name == state).unwrap().1;
        let mut subject = make(&log);
        log.take();
        match ends {
            "eof" => subject.end.eof(),
            "reset" => subject.end.reset(),
            _ => {
                subject.end.fail_write();
                let _ = subject.with_handle(|handle| handle.send("a")).unwrap();
            }
        }
        assert_eq!(log.take(), [format!("close unclean by {reported}")]);
    }
}

fn an_abort_does_not_wait_for_what_is_to_be_written<C: TestTransport>() {
    let log = Log::default();
    let mut subject = open_server::<C>(&recording(&log));
    log.take();
    subject.end.block();
    let _ = subject.with_handle(|handle| handle.send("a")).unwrap();
    subject.end.eof();
    subject.end.assert_shut_down(&[Shutdown::Abort]);
    assert_eq!(log.take().len(), 1);
}

fn a_failure_waits_for_its_close_to_be_written<C: TestTransport>() {
    let log = Log::default();
    let mut subject = open_server::<C>(&recording(&log));
    log.take();
    subject.end.block();
    let _ = subject.with_handle(|handle| handle.send("a")).unwrap();
    subject.receive(&[wire::frame(0x3, "")]);
    subject.end.assert_shut_down(&[]);
    subject.end.give_room(3);
    subject.end.assert_shut_down(&[]);
    subject.end.give_room(usize::MAX);
    subject.end.assert_shut_down(&[Shutdown::HalfClose]);
    subject.end.eof();
    subject.end.assert_shut_down(&[Shutdown::HalfClose, Shutdown::Close]);

    // But not for ever.
    let mut subject = open_server::<C>(&recording(&log));
    subject.end.block();
    subject.receive(&[wire::frame(0x3, "")]);
    subject.advance(seconds(5));
    subject.end.assert_shut_down(&[Shutdown::Abort]);
}

fn nonsense_does_not_panic<C: TestTransport>() {
    let mut state = 1_u64;
    let mut random = move || {
        // Knuth's MMIX generator: the high bits are the good ones.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for _ in 0..300 {
        let log = Log::default();
        let all = states::<C>();
        let (state, make) = &all[random() % all.len()];
        let mut subject = make(&log);
        for _ in 0..20 {
            match random() % 10 {
                0 => subject.end.block(),
                1 => subject.end.give_room(random() % 50),
                2 => subject.advance(seconds(random() as u64 % 10)),
                3 => _ = subject.receive(&[text("a"), wire::ping("p")]),
                4 => {
                    let bytes: Vec<u8> = (0..random() % 50).map(|_| random() as u8).collect();
                    subject.receive_bytes(bytes);
                }
                5 => _ = subject.with_handle(|handle| handle.send("message").is_ok()),
                6 => _ = subject.with_handle(|handle| handle.pause_reading()),
                7 => _ = subject.with_handle(|handle| handle.resume_reading()),
                8 if random() % 4 == 0 => subject.end.eof(),
                9 if random() % 4 == 0 => subject.end.fail_write(),
                _ => _ = subject.read_on(),
            }
        }
        subject.end.reset();
        assert!(subject.end.is_over(), "{state}");
        let reported = log.take();
        let count = |what: &str| reported.iter().filter(|line| line.starts_with(what)).count();
        assert_eq!(count("open"), count("close"), "{state}: {reported:?}");
        assert!(count("open") + count("fail") <= 1, "{state}: {reported:?}");
    }
}
