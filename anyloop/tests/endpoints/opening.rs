//! The opening handshake: which requests are accepted, when the answer is given, and what is
//! kept of it.

use std::sync::{Arc, Mutex};

use anyloop::endpoint::{Client, Server};
use anyloop::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use anyloop::prelude::*;
use anyloop::proto::handshake::AnswerError;
use anyloop::proto::{Shutdown, State};

use crate::record::{Log, recording};
use crate::subject::{
    Pair, Subject, client, client_config, new_client, new_server, open_client, seconds, server,
    server_config,
};
use crate::transports::{Clock, End, TestTransport, over_each_transport};
use crate::wire::{self, text};

over_each_transport! {
    a_subprotocol_is_agreed_on,
    an_accepted_request_gets_header_fields,
    a_refusal_reaches_the_client,
    a_refused_client_can_read_the_whole_response,
    a_server_that_refuses_knows_the_request,
    an_answer_can_be_deferred_and_accept,
    an_answer_can_be_deferred_and_refuse,
    only_the_first_answer_counts,
    an_answer_needs_a_request,
    a_client_that_ends_its_direction_still_reads_its_deferred_answer,
    an_answer_can_come_while_the_handler_is_called,
    an_answer_can_come_by_a_handle_of_the_endpoint,
    an_answer_that_cannot_be_given_is_500,
    an_answer_that_would_begin_a_tunnel_is_an_error_of_the_call,
    plain_http_is_answered,
    plain_http_can_be_answered_later,
    a_client_that_ends_its_direction_still_reads_its_answer,
    plain_http_cannot_be_accepted,
    frames_behind_the_request_are_kept_for_the_answer,
    frames_behind_the_response_are_not_lost,
    a_byte_at_a_time,
    facts_are_kept,
    facts_are_forgotten_where_it_is_set_so,
    nothing_can_be_sent_before_it_is_open,
    a_server_can_abandon_a_handshake,
    a_client_can_abandon_a_handshake,
    a_client_that_is_given_up_before_it_starts_says_nothing;
    not over sockets:
    a_deferred_answer_has_a_deadline,
    plain_http_that_nobody_answers_fails,
    a_client_whose_request_is_stuck_gives_up_in_time;
    not over TLS:
    a_client_that_leaves_while_an_answer_is_deferred_is_noticed;
    neither:
    a_client_made_during_a_shutdown_sends_nothing,
}

const REQUEST_CHAT: &str = "GET /chat HTTP/1.1\r\n\
    Host: localhost\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Protocol: v2, v1\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

const PLAIN: &str = "GET /page HTTP/1.1\r\nHost: a\r\n\r\n";

fn deferring(log: &Log) -> Handlers {
    let mut handlers = recording(log);
    let (validate, http) = (log.clone(), log.clone());
    handlers
        .on_validate(move |_, _| {
            validate.push("validate");
            Answer::Defer
        })
        .on_http(move |_, _| {
            http.push("http");
            Answer::Defer
        });
    handlers
}

fn response(status: u16, body: &str) -> Response<Vec<u8>> {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

fn a_subprotocol_is_agreed_on<C: TestTransport>() {
    let mut server = Handlers::new();
    server.on_validate(|request, _| {
        assert_eq!(request.subprotocols(), ["v2", "v1"]);
        assert_eq!(request.host(), Some("localhost"));
        Accept::new().with_subprotocol("v1")
    });
    let agreed = Arc::new(Mutex::new(Vec::new()));
    let mut client = Handlers::new();
    for handlers in [&mut client, &mut server] {
        let agreed = agreed.clone();
        handlers.on_open(move |context| {
            agreed.lock().unwrap().push(context.handshake_info().unwrap().subprotocol.clone());
        });
    }
    let config = client_config().subprotocol("v2").subprotocol("v1");
    Pair::<C>::new((config, client), (server_config(), server)).run();
    assert_eq!(*agreed.lock().unwrap(), [Some("v1".to_string()), Some("v1".to_string())]);
}

fn an_accepted_request_gets_header_fields<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_validate(|_, _| {
        let mut headers = HeaderMap::new();
        headers.insert(header::SERVER, HeaderValue::from_static("anyloop"));
        Accept::new().with_headers(headers).with_header("X-Room", "lobby")
    });
    let mut subject = server::<C>(&handlers);
    subject.receive_bytes(wire::REQUEST);
    let (head, _) = subject.sent_head();
    assert!(head.starts_with(wire::SWITCHING), "{head}");
    assert!(head.contains("\r\nserver: anyloop\r\n"), "{head}");
    assert!(head.contains("\r\nx-room: lobby\r\n"), "{head}");
    assert!(head.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
}

fn a_refusal_reaches_the_client<C: TestTransport>() {
    let log = (Log::default(), Log::default());
    let mut handlers = recording(&log.1);
    handlers.on_validate(|_, _| Answer::status(StatusCode::FORBIDDEN, "not you"));
    let client = (client_config(), recording(&log.0));
    let mut pair = Pair::<C>::new(client, (server_config(), handlers));
    pair.run();
    assert_eq!(log.0.take(), ["fail by peer: handshake rejected with status 403"]);
    assert_eq!(log.1.take(), ["fail by local: request refused with status 403"]);
    assert!(pair.client.end.is_over() && pair.server.end.is_over());
}

/// The status of a refusing response is not enough for the client: a 401 has its challenge in a header field, an
/// error its text in the body.
fn a_refused_client_can_read_the_whole_response<C: TestTransport>() {
    let log = Log::default();
    let reported = log.clone();
    let mut handlers = Handlers::new();
    handlers.on_fail(move |_, context| {
        let response = context.handshake_info().unwrap().response.as_ref().unwrap();
        let challenge = response.headers()[header::WWW_AUTHENTICATE].to_str().unwrap();
        let body = String::from_utf8_lossy(response.body());
        reported.push(format!("{} {challenge} {body}", response.status()));
    });
    for keep_handshake in [true, false] {
        let config = client_config().keep_handshake(keep_handshake);
        let mut subject = Subject::<C>::client(config, handlers.clone());
        subject.end.start();
        subject.receive_bytes(
            "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 7\r\n\r\nnot you",
        );
        assert!(subject.end.is_over());
        assert_eq!(log.take(), ["401 Unauthorized Basic not you"]);
    }
}

fn a_server_that_refuses_knows_the_request<C: TestTransport>() {
    let log = Log::default();
    let reported = log.clone();
    let mut handlers = Handlers::new();
    handlers.on_validate(|_, _| Answer::status(StatusCode::FORBIDDEN, "not you"));
    handlers.on_fail(move |_, context| {
        let facts = context.handshake_info().unwrap();
        reported.push(facts.request.as_ref().map_or("no request", |request| request.uri().path()));
    });
    for (request, expected) in [(wire::REQUEST, "/chat"), ("nonsense", "no request")] {
        let mut subject = server::<C>(&handlers);
        subject.receive_bytes(request);
        subject.end.eof();
        subject.end.reset();
        assert_eq!(log.take(), [expected]);
    }
}

fn an_answer_can_be_deferred_and_accept<C: TestTransport>() {
    let log = Log::default();
    let mut subject = server::<C>(&deferring(&log));
    subject.receive_bytes(wire::REQUEST);
    assert_eq!(log.take(), ["validate"]);
    assert!(subject.end.take_output().is_empty());
    subject.with_handle(|handle| handle.accept(Accept::new())).unwrap();
    assert_eq!(log.take(), ["open"]);
    assert!(subject.sent_head().0.starts_with(wire::SWITCHING));
    subject.receive(&[text("a")]);
    assert_eq!(log.take(), ["text a"]);
}

fn an_answer_can_be_deferred_and_refuse<C: TestTransport>() {
    let log = Log::default();
    let mut subject = server::<C>(&deferring(&log));
    subject.receive_bytes(wire::REQUEST);
    subject.with_handle(|handle| handle.respond(response(429, "later"))).unwrap();
    let answer = subject.sent_response();
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.ends_with("\r\n\r\nlater"), "{answer}");
    subject.end.eof();
    assert_eq!(log.take(), ["validate", "fail by local: request refused with status 429"]);
}

fn a_deferred_answer_has_a_deadline<C: TestTransport>() {
    let log = Log::default();
    let mut subject = server::<C>(&deferring(&log));
    subject.receive_bytes(wire::REQUEST);
    subject.advance(seconds(9));
    assert!(subject.end.take_output().is_empty());
    subject.advance(seconds(1));
    assert!(subject.sent_response().starts_with("HTTP/1.1 503 "));
    assert_eq!(subject.end.handle().accept(Accept::new()), Err(SendError::NotAwaiting));
    subject.end.eof();
    assert_eq!(subject.end.handle().accept(Accept::new()), Err(SendError::Gone));
    assert_eq!(log.take(), ["validate", "fail by local: request not answered in time"]);
}

fn only_the_first_answer_counts<C: TestTransport>() {
    let log = Log::default();
    let mut subject = server::<C>(&deferring(&log));
    subject.receive_bytes(wire::REQUEST);
    subject.with_handle(|handle| {
        handle.accept(Accept::new()).unwrap();
        assert_eq!(handle.respond(response(403, "")), Err(SendError::NotAwaiting));
        assert_eq!(handle.accept(Accept::new()), Err(SendError::NotAwaiting));
    });
    let (head, frames) = subject.sent_head();
    assert!(head.starts_with(wire::SWITCHING) && frames.is_empty());
    assert_eq!(log.take(), ["validate", "open"]);

    let answered = subject.with_handle(|handle| handle.respond(response(403, "")));
    assert_eq!(answered, Err(SendError::NotAwaiting));
    subject.end.reset();
    let answered = subject.with_handle(|handle| handle.accept(Accept::new()));
    assert_eq!(answered, Err(SendError::Gone));
}

fn a_client_that_leaves_while_an_answer_is_deferred_is_noticed<C: TestTransport>() {
    let log = Log::default();
    let mut subject = server::<C>(&deferring(&log));
    subject.receive_bytes(wire::REQUEST);
    subject.end.eof();
    assert!(subject.end.is_over());
    let failed = "fail by peer: stream ended without a closing handshake";
    assert_eq!(log.take(), ["validate", failed]);
    let answered = subject.with_handle(|handle| handle.accept(Accept::new()));
    assert_eq!(answered, Err(SendError::Gone));
}

/// It is no failure with plain HTTP.
fn a_client_that_ends_its_direction_still_reads_its_deferred_answer<C: TestTransport>() {
    let log = Log::default();
    let mut subject = server::<C>(&deferring(&log));
    subject.receive_bytes(PLAIN);
    subject.end.eof();
    assert!(!subject.end.is_over());
    subject.with_handle(|handle| handle.respond(response(200, "here"))).unwrap();
    assert!(subject.sent_response().ends_with("\r\n\r\nhere"));
    assert!(subject.end.is_over());
    assert_eq!(log.take(), ["http"]);
}

/// One that comes before there is anything to judge does not count, and neither does that of a client.
fn an_answer_needs_a_request<C: TestTransport>() {
    let log = Log::default();
    let mut subject = server::<C>(&deferring(&log));
    let answered = subject.with_handle(|handle| handle.accept(Accept::new()));
    assert_eq!(answered, Err(SendError::NotAwaiting));
    subject.receive_bytes(wire::REQUEST);
    assert_eq!(log.take(), ["validate"]);
    subject.with_handle(|handle| handle.accept(Accept::new())).unwrap();
    assert_eq!(log.take(), ["open"]);

    let mut client = client::<C>(&Handlers::new());
    let answered = client.with_handle(|handle| handle.respond(response(403, "")));
    assert_eq!(answered, Err(SendError::NotAwaiting));
}

/// A thread may answer before the handler returns.
fn an_answer_can_come_while_the_handler_is_called<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_validate(|_, context| {
        context.handle().accept(Accept::new()).unwrap();
        Answer::Defer
    });
    let mut subject = server::<C>(&handlers);
    subject.receive_bytes(wire::REQUEST);
    subject.drain();
    assert!(subject.sent_head().0.starts_with(wire::SWITCHING));
}

/// A handle that another thread has got from the endpoint.
fn an_answer_can_come_by_a_handle_of_the_endpoint<C: TestTransport>() {
    let clock = Clock::default();
    let server = new_server::<C, _>(server_config(), deferring(&Log::default()), &clock);
    let mut subject = Subject::<C>::of_server(&server, &clock);
    subject.receive_bytes(wire::REQUEST);
    let handle = server.handle().connections().remove(0);
    handle.respond(response(403, "not you")).unwrap();
    subject.drain();
    assert!(subject.sent_response().ends_with("\r\n\r\nnot you"));
    assert_eq!(handle.accept(Accept::new()), Err(SendError::NotAwaiting));
}

fn an_answer_that_cannot_be_given_is_500<C: TestTransport>() {
    let bad: [fn() -> Answer; 2] = [
        || Accept::new().with_subprotocol("not asked for").into(),
        || Answer::respond(response(101, "")),
    ];
    for answer in bad {
        let log = Log::default();
        let mut handlers = recording(&log);
        handlers.on_validate(move |_, _| answer());
        let mut subject = server::<C>(&handlers);
        subject.receive_bytes(wire::REQUEST);
        assert!(subject.sent_response().starts_with("HTTP/1.1 500 "));
        subject.end.eof();
        assert_eq!(log.take(), ["fail by local: request refused with status 500"]);
    }
    let mut subject = server::<C>(&deferring(&Log::default()));
    subject.receive_bytes(wire::REQUEST);
    let bad = Accept::new().with_subprotocol("not asked for");
    subject.with_handle(|handle| handle.accept(bad)).unwrap();
    assert!(subject.sent_response().starts_with("HTTP/1.1 500 "));
}

fn an_answer_that_would_begin_a_tunnel_is_an_error_of_the_call<C: TestTransport>() {
    let log = Log::default();
    let mut subject = server::<C>(&deferring(&log));
    subject.receive_bytes("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n");
    subject.with_handle(|handle| {
        let error = AnswerError::InvalidStatus(StatusCode::OK);
        assert_eq!(handle.respond(response(200, "")), Err(SendError::InvalidResponse(error)));
        handle.respond(response(405, "no tunnels")).unwrap();
    });
    let answer = subject.sent_response();
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.ends_with("no tunnels"), "{answer}");
    subject.end.eof();
    assert_eq!(log.take(), ["http"]);
}

fn plain_http_is_answered<C: TestTransport>() {
    let log = Log::default();
    let mut handlers = recording(&log);
    handlers.on_http(|request, _| Answer::respond(response(200, request.uri().path())));
    let mut subject = server::<C>(&handlers);
    subject.receive_bytes(PLAIN);
    let answer = subject.sent_response();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\nConnection: close\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n/page"), "{answer}");
    subject.end.assert_shut_down(&[Shutdown::HalfClose]);
    subject.end.eof();
    subject.end.assert_shut_down(&[Shutdown::HalfClose, Shutdown::Close]);
    assert!(log.take().is_empty());
}

fn plain_http_can_be_answered_later<C: TestTransport>() {
    let log = Log::default();
    let mut subject = server::<C>(&deferring(&log));
    subject.receive_bytes(PLAIN);
    assert!(subject.end.take_output().is_empty());
    subject.with_handle(|handle| {
        handle.respond(response(200, "here")).unwrap();
        assert_eq!(handle.respond(response(200, "again")), Err(SendError::NotAwaiting));
    });
    let answer = subject.sent_response();
    assert!(answer.ends_with("\r\n\r\nhere"), "{answer}");
    subject.end.eof();
    assert!(subject.end.is_over());
    assert_eq!(log.take(), ["http"]);
}

fn plain_http_that_nobody_answers_fails<C: TestTransport>() {
    let log = Log::default();
    let mut subject = server::<C>(&deferring(&log));
    subject.receive_bytes(PLAIN);
    subject.advance(seconds(10));
    assert!(subject.sent_response().starts_with("HTTP/1.1 503 "));
    subject.advance(seconds(5));
    subject.end.assert_shut_down(&[Shutdown::HalfClose, Shutdown::Abort]);
    assert_eq!(log.take(), ["http", "fail by local: request not answered in time"]);
}

fn a_client_that_ends_its_direction_still_reads_its_answer<C: TestTransport>() {
    let log = Log::default();
    let mut subject = server::<C>(&deferring(&log));
    subject.receive_bytes(PLAIN);
    subject.end.eof();
    subject.with_handle(|handle| handle.respond(response(200, "here"))).unwrap();
    assert!(subject.sent_response().ends_with("here"));
    subject.end.assert_shut_down(&[Shutdown::Close]);
    assert_eq!(log.take(), ["http"]);
}

fn plain_http_cannot_be_accepted<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_http(|_, _| Accept::new());
    let mut subject = server::<C>(&handlers);
    subject.receive_bytes(PLAIN);
    assert!(subject.sent_response().starts_with("HTTP/1.1 500 "));
}

fn frames_behind_the_request_are_kept_for_the_answer<C: TestTransport>() {
    let log = Log::default();
    let mut subject = server::<C>(&recording(&log));
    let frames = wire::stream(&[text("a"), text("b")], wire::other(subject.role));
    let all = [wire::REQUEST.as_bytes(), &frames].concat();
    assert_eq!(subject.receive_bytes(&all), all.len());
    assert_eq!(log.take(), ["validate GET /chat", "open", "text a", "text b"]);

    let mut subject = server::<C>(&deferring(&log));
    C::assert_taken(subject.receive_bytes(&all), wire::REQUEST.len());
    assert_eq!(subject.read_on(), 0, "not before the answer");
    subject.with_handle(|handle| handle.accept(Accept::new())).unwrap();
    subject.read_on();
    assert_eq!(log.take(), ["validate", "open", "text a", "text b"]);
}

fn frames_behind_the_response_are_not_lost<C: TestTransport>() {
    let log = Log::default();
    let mut subject = client::<C>(&recording(&log));
    subject.end.start();
    let frames = wire::stream(&[text("a")], wire::other(subject.role));
    subject.receive_bytes([wire::RESPONSE.as_bytes(), &frames].concat());
    assert_eq!(log.take(), ["open", "text a"]);
}

fn a_byte_at_a_time<C: TestTransport>() {
    let log = Log::default();
    let mut handlers = recording(&log);
    handlers.on_message(|message, context| _ = context.send(message));
    let mut subject = server::<C>(&handlers);
    for byte in wire::REQUEST.bytes() {
        assert_eq!(subject.receive_bytes([byte]), 1);
    }
    assert!(subject.sent_head().0.starts_with(wire::SWITCHING));
    for byte in wire::stream(&[text("hello"), wire::close(1000, "")], wire::other(subject.role)) {
        subject.receive_bytes([byte]);
    }
    subject.end.eof();
    assert_eq!(subject.sent(), [text("hello"), wire::close(1000, "")]);
    let reported = log.take();
    assert_eq!(reported, ["validate GET /chat", "open", "close clean by peer: 1000/1000"]);
}

fn facts_are_kept<C: TestTransport>() {
    let log = Log::default();
    let reported = log.clone();
    let mut handlers = Handlers::new();
    handlers.on_validate(|_, _| Accept::new().with_subprotocol("v2"));
    handlers.on_message(move |_, context| {
        let facts = context.handshake_info().unwrap();
        let request = facts.request.as_ref().map(|request| request.uri().to_string());
        let (response, subprotocol) = (facts.response.as_ref(), facts.subprotocol.as_deref());
        reported.push(format!("{request:?} {} {subprotocol:?}", response.unwrap().status()));
        assert_eq!(facts.extension, None);
    });
    let mut subject = server::<C>(&handlers);
    subject.receive_bytes(REQUEST_CHAT);
    subject.receive(&[text("a")]);
    assert_eq!(log.take(), [r#"Some("/chat") 101 Switching Protocols Some("v2")"#]);

    let mut subject = open_client::<C>(&handlers);
    subject.receive(&[text("a")]);
    assert_eq!(log.take(), [r#"None 101 Switching Protocols None"#]);
}

fn facts_are_forgotten_where_it_is_set_so<C: TestTransport>() {
    let log = Log::default();
    let mut handlers = Handlers::new();
    let (open, message) = (log.clone(), log.clone());
    handlers
        .on_open(move |context| open.push(format!("{}", context.handshake_info().is_some())))
        .on_message(move |_, context| {
            message.push(format!("{}", context.handshake_info().is_some()))
        });

    let config = server_config().keep_handshake(false);
    let mut server = Subject::<C>::server(config, handlers.clone()).open();
    server.receive(&[text("a")]);
    let config = client_config().keep_handshake(false);
    let mut client = Subject::<C>::client(config, handlers).open();
    client.receive(&[text("a")]);
    assert_eq!(log.take(), ["true", "false", "true", "false"]);
}

fn nothing_can_be_sent_before_it_is_open<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_validate(|_, context| {
        let refused = SendError::NotOpen;
        assert_eq!(context.send("a"), Err(refused.clone()));
        assert_eq!(context.ping(b"a"), Err(refused.clone()));
        assert_eq!(context.close(CloseCode::NORMAL, ""), Err(refused));
        assert_eq!(context.state(), State::Connecting);
        assert_eq!(context.buffered_amount(), 0);
        Accept::new()
    });
    handlers.on_open(|context| assert_eq!(context.state(), State::Open));
    let mut subject = server::<C>(&handlers);
    subject.receive_bytes(wire::REQUEST);
    let (head, frames) = subject.sent_head();
    assert!(head.starts_with(wire::SWITCHING) && frames.is_empty());
}

fn a_server_can_abandon_a_handshake<C: TestTransport>() {
    for request in [&wire::REQUEST[..20], wire::REQUEST, PLAIN] {
        let log = Log::default();
        let mut subject = server::<C>(&deferring(&log));
        subject.receive_bytes(request);
        log.take();
        subject.with_handle(|handle| handle.close(CloseCode::GOING_AWAY, "")).unwrap();
        assert!(subject.sent_response().starts_with("HTTP/1.1 503 "));
        subject.end.eof();
        assert_eq!(log.take(), ["fail by local: opening handshake abandoned"]);
    }
    let log = Log::default();
    let mut subject = server::<C>(&recording(&log));
    subject.with_handle(|handle| handle.close(CloseCode::GOING_AWAY, "")).unwrap();
    assert!(subject.end.take_output().is_empty());
    assert_eq!(log.take(), ["fail by local: opening handshake abandoned"]);
    subject.end.assert_shut_down(&[Shutdown::Close]);
}

fn a_client_can_abandon_a_handshake<C: TestTransport>() {
    let log = Log::default();
    let mut subject = client::<C>(&recording(&log));
    subject.end.start();
    subject.with_handle(|handle| handle.close(CloseCode::GOING_AWAY, "")).unwrap();
    assert_eq!(log.take(), ["fail by local: opening handshake abandoned"]);
    subject.end.assert_shut_down(&[Shutdown::Abort]);
    subject.receive_bytes(wire::RESPONSE);
    assert!(log.take().is_empty());
}

fn a_client_that_is_given_up_before_it_starts_says_nothing<C: TestTransport>() {
    let log = Log::default();
    let mut subject = client::<C>(&recording(&log));
    subject.with_handle(|handle| handle.close(CloseCode::GOING_AWAY, "")).unwrap();
    assert!(subject.end.take_output().is_empty());
    assert_eq!(log.take(), ["fail by local: opening handshake abandoned"]);
    assert!(subject.end.is_over());
}

fn a_client_made_during_a_shutdown_sends_nothing<C: TestTransport>() {
    let (clock, log) = (Clock::default(), Log::default());
    let client = new_client::<C, _>(client_config(), recording(&log), &clock);
    client.handle().shut_down();
    let mut subject = Subject::<C>::of_client(&client, &clock);
    subject.end.start();
    assert!(subject.end.take_output().is_empty());
    assert_eq!(log.take(), ["fail by local: opening handshake abandoned"]);
    assert!(subject.end.is_over());
}

/// The request cannot leave, so nothing else will ever happen on this stream.
fn a_client_whose_request_is_stuck_gives_up_in_time<C: TestTransport>() {
    let log = Log::default();
    let mut subject = client::<C>(&recording(&log));
    subject.end.block();
    subject.end.start();
    subject.advance(seconds(3600));
    assert_eq!(log.take(), ["fail by timer: opening handshake timed out"]);
    assert!(subject.end.is_over());
}
