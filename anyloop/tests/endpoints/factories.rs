//! What makes the handlers, and what it makes when it is changed.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyloop::endpoint::{Client, HandlerFactory, Server};
use anyloop::prelude::*;

use crate::record::{Log, recording};
use crate::subject::{Subject, client_config, new_client, new_server, server_config};
use crate::transports::{ByHand, Clock, End, TestTransport, over_each_transport};
use crate::wire::{self, text};

over_each_transport! {
    another_factory_holds_for_connections_made_afterwards,
    a_factory_may_use_its_own_endpoint,
    closures_of_one_thread_get_all_events,
    closures_of_one_thread_serve_clients,
}

/// All endpoints have the same setters of closures.
#[test]
fn a_closure_holds_for_connections_made_afterwards() {
    let clock = Clock::default();
    let mut server = new_server::<ByHand, _>(server_config(), Handlers::new(), &clock);
    server.on_message(|_, context| _ = context.send("first"));
    let mut old = Subject::<ByHand>::of_server(&server, &clock).open();
    server.on_message(|_, context| _ = context.send("second")).on_ping(|_, _| false);
    let mut new = Subject::<ByHand>::of_server(&server, &clock).open();
    for (subject, answers) in
        [(&mut old, &[text("first"), wire::pong("?")][..]), (&mut new, &[text("second")])]
    {
        subject.receive(&[text("a"), wire::ping("?")]);
        assert_eq!(subject.sent(), answers);
    }
}

fn another_factory_holds_for_connections_made_afterwards<C: TestTransport>() {
    let clock = Clock::default();
    let (first, second) = (Log::default(), Log::default());
    let mut server = new_server::<C, _>(server_config(), recording(&first), &clock);
    let mut old = Subject::<C>::of_server(&server, &clock).open();
    server.set_factory(recording(&second));
    let _new = Subject::<C>::of_server(&server, &clock).open();
    old.receive(&[text("a")]);
    assert_eq!(first.take().last().unwrap(), "text a");
    assert_eq!(second.take().last().unwrap(), "open");

    let mut client = new_client::<C, _>(client_config(), Handlers::new(), &clock);
    client.set_factory(recording(&second));
    let _client = Subject::<C>::of_client(&client, &clock).open();
    assert_eq!(second.take(), ["open"]);
}

/// Makes handlers that count those before them, by asking the counter's own endpoint.
struct Nested<C: TestTransport>(Arc<C::Server<Handlers>>, AtomicU64);

impl<C: TestTransport> HandlerFactory for Nested<C> {
    type Handler = Handlers;

    fn make(&self) -> Handlers {
        let number = self.1.fetch_add(1, Ordering::Relaxed) + self.0.handle().counters().started;
        let mut handlers = Handlers::new();
        handlers.on_open(move |context| _ = context.send(number.to_string().as_str()));
        handlers
    }
}

fn a_factory_may_use_its_own_endpoint<C: TestTransport>() {
    let clock = Clock::default();
    let other = Arc::new(new_server::<C, _>(server_config(), Handlers::new(), &clock));
    let server = new_server::<C, _>(server_config(), Nested::<C>(other, AtomicU64::new(7)), &clock);
    for number in ["7", "8"] {
        let mut subject = Subject::<C, _>::of_server(&server, &clock);
        subject.receive_bytes(wire::REQUEST);
        assert_eq!(subject.sent_head().1, [text(number)]);
    }
}

/// What must not leave its thread.
type Notes = Rc<RefCell<Vec<String>>>;

fn closures_of_one_thread_get_all_events<C: TestTransport>() {
    let clock = Clock::default();
    let notes = Notes::default();
    let note = || {
        let notes = notes.clone();
        move |what: &str| notes.borrow_mut().push(what.to_string())
    };
    let mut handlers = LocalHandlers::new();
    let (validate, http, open, message) = (note(), note(), note(), note());
    let (ping, pong, interrupt, drained) = (note(), note(), note(), note());
    let (close, fail) = (note(), note());
    handlers
        .on_validate(move |_, _| {
            validate("validate");
            Answer::Accept(Accept::new())
        })
        .on_http(move |_, _| {
            http("http");
            Answer::upgrade_required()
        })
        .on_open(move |_| open("open"))
        .on_message(move |_, _| message("message"))
        .on_ping(move |_, _| {
            ping("ping");
            false
        })
        .on_pong(move |_, _, _| pong("pong"))
        .on_interrupt(move |_| interrupt("interrupt"))
        .on_drained(move |_| drained("drained"))
        .on_close(move |_, _| close("close"))
        .on_fail(move |_, _| fail("fail"));
    let server = new_server::<C, _>(server_config(), handlers, &clock);
    let mut subject = Subject::<C, _>::of_server(&server, &clock).open();
    subject.receive(&[text("a"), wire::ping("?"), wire::pong("!")]);
    assert!(subject.sent().is_empty());
    let handle = subject.end.handle();
    handle.interrupt().unwrap();
    let _ = handle.send(vec![0; 2 << 20]).unwrap();
    subject.drain();
    subject.close_by_peer();
    let mut plain = Subject::<C, _>::of_server(&server, &clock);
    plain.receive_bytes("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    Subject::<C, _>::of_server(&server, &clock).end.eof();
    let reported = [
        "validate",
        "open",
        "message",
        "ping",
        "pong",
        "interrupt",
        "drained",
        "close",
        "http",
        "fail",
    ];
    assert_eq!(*notes.borrow(), reported);
}

fn closures_of_one_thread_serve_clients<C: TestTransport>() {
    let clock = Clock::default();
    let notes = Notes::default();
    let reported = notes.clone();
    let mut handlers = LocalHandlers::new();
    handlers.on_message(move |message, context| {
        reported.borrow_mut().push(format!("{} bytes", message.as_bytes().len()));
        let _ = context.close(CloseCode::NORMAL, "");
    });
    let client = new_client::<C, _>(client_config(), handlers, &clock);
    let mut subject = Subject::<C, _>::of_client(&client, &clock).open();
    subject.receive(&[text("abc")]);
    assert_eq!(*notes.borrow(), ["3 bytes"]);
    assert_eq!(subject.sent(), [wire::close(1000, "")]);
}
