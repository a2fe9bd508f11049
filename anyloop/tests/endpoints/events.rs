//! Which events handlers get, how often, and in which order.

use anyloop::prelude::*;
use anyloop::proto::Shutdown;

use crate::record::{Log, Recorder, recording};
use crate::subject::{
    Pair, Subject, client, client_config, new_server, open_client, open_server, seconds, server,
    server_config,
};
use crate::transports::{Clock, End, TestTransport, over_each_transport};
use crate::wire::{self, binary, ping, pong, text};

over_each_transport! {
    a_client_reports_everything_in_order,
    chunks_instead_of_messages_where_it_is_set_to_stream,
    two_ends_over_one_stream,
    a_closed_connection_says_nothing_more,
    a_failed_handshake_says_fail_and_nothing_else,
    a_refused_client_says_fail_and_nothing_else,
    plain_http_neither_opens_nor_fails,
    no_handlers_at_all,
    a_handler_that_does_little,
    each_connection_has_a_handler_of_its_own,
    a_successor_takes_over_after_the_call,
    a_successor_can_be_named_before_the_connection_is_open,
    a_message_that_is_whole_before_a_bad_frame_is_delivered;
    not over sockets:
    a_server_reports_everything_in_order,
    closures_get_the_same_events,
}

/// Brings about every event of a server's connection, and checks the log.
fn server_scenario<C: TestTransport, H: Handler>(mut subject: Subject<C, H>, log: &Log) {
    subject.receive_bytes(wire::REQUEST);
    assert_eq!(log.take(), ["validate GET /chat", "open"]);

    subject.receive(&[text("a"), binary([1, 2]), ping("p"), pong("q"), text("b")]);
    let reported = log.take();
    assert_eq!(reported, ["text a", "binary [1, 2]", "ping p", "pong q", "text b"]);

    subject.with_handle(|handle| handle.interrupt()).unwrap();
    assert_eq!(log.take(), ["interrupt"]);

    subject.end.block();
    let _ = subject.with_handle(|handle| handle.send(&[0; 200][..])).unwrap();
    subject.end.give_room(usize::MAX);
    assert_eq!(log.take(), ["drained"]);

    subject.end.take_output();
    subject.advance(seconds(20));
    let keep_alive = subject.sent().remove(0);
    subject.clock.pass(seconds(1));
    subject.receive(&[pong(keep_alive.payload)]);
    assert_eq!(log.take(), ["pong after 1s"]);

    subject.advance(seconds(40));
    assert_eq!(log.take(), ["pong_timeout"]);
    subject.end.eof();
    let reported = log.take();
    let cause = "keep-alive ping not answered in time";
    assert_eq!(reported, [format!("close unclean by timer: 1011/none, {cause}")]);
    assert!(subject.end.is_over());
}

fn full_of_events() -> ServerConfig {
    server_config().low_water_mark(10).high_water_mark(100)
}

fn a_server_reports_everything_in_order<C: TestTransport>() {
    let log = Log::default();
    let factory = {
        let log = log.clone();
        move || Recorder(log.clone())
    };
    server_scenario(Subject::<C, Recorder>::server(full_of_events(), factory), &log);
}

fn closures_get_the_same_events<C: TestTransport>() {
    let log = Log::default();
    server_scenario(Subject::<C>::server(full_of_events(), recording(&log)), &log);
}

fn a_client_reports_everything_in_order<C: TestTransport>() {
    let log = Log::default();
    let mut subject = client::<C>(&recording(&log));
    subject.end.start();
    assert!(log.take().is_empty());
    subject.receive_bytes(wire::RESPONSE);
    assert_eq!(log.take(), ["open"]);
    subject.receive(&[text("a"), ping("p"), wire::close(1000, "bye")]);
    assert_eq!(log.take(), ["text a", "ping p"], "close is called when the stream has ended too");
    subject.end.eof();
    assert_eq!(log.take(), ["close clean by peer: 1000/1000"]);
}

fn chunks_instead_of_messages_where_it_is_set_to_stream<C: TestTransport>() {
    let log = Log::default();
    let config = server_config().streaming(true);
    let mut subject = Subject::<C>::server(config, recording(&log)).open();
    log.take();
    subject.receive(&[text("ab").more(), wire::frame(0, "c")]);
    assert_eq!(log.take(), ["chunk ab true false", "chunk c false true"]);
}

fn two_ends_over_one_stream<C: TestTransport>() {
    let log = (Log::default(), Log::default());
    let mut handlers = recording(&log.1);
    handlers.on_message(|message, context| _ = context.send(message));
    let client = (client_config(), recording(&log.0));
    let mut pair = Pair::<C>::new(client, (server_config(), handlers));
    pair.run();
    assert_eq!(log.0.take(), ["open"]);
    assert_eq!(log.1.take(), ["validate GET /chat", "open"]);

    let handle = pair.client.end.handle();
    let large = vec![7; 100_000];
    let _ = handle.send("hello").unwrap();
    let _ = handle.send(&large[..]).unwrap();
    pair.run();
    assert_eq!(log.0.take(), ["text hello", "binary of 100000"]);

    handle.close(CloseCode::NORMAL, "").unwrap();
    pair.run();
    assert_eq!(log.0.take(), ["close clean by local: 1000/1000"]);
    assert_eq!(log.1.take(), ["close clean by peer: 1000/1000"]);
    pair.server.end.assert_shut_down(&[Shutdown::HalfClose, Shutdown::Close]);
    assert!(pair.client.end.is_over() && pair.server.end.is_over());
}

fn a_closed_connection_says_nothing_more<C: TestTransport>() {
    let log = Log::default();
    let mut subject = open_server::<C>(&recording(&log));
    subject.close_by_peer();
    assert_eq!(log.take(), ["validate GET /chat", "open", "close clean by peer: 1000/1000"]);
    C::assert_taken(subject.receive(&[text("late")]), 0);
    subject.end.eof();
    subject.end.reset();
    subject.end.drain();
    subject.end.start();
    subject.end.give_room(usize::MAX);
    subject.advance(seconds(3600));
    subject.end.handle_timeout();
    assert!(log.take().is_empty());
    subject.end.assert_shut_down(&[Shutdown::HalfClose, Shutdown::Close]);
}

fn a_failed_handshake_says_fail_and_nothing_else<C: TestTransport>() {
    for (request, cause) in [
        ("GET / HTTP/1.1\r\n\r\n", "missing header field Host"),
        ("\x16\x03\x01\0", {
            r#"not an HTTP request: the first bytes are "\x16\x03\x01\x00", a TLS record"#
        }),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n", "malformed HTTP"),
        (&wire::REQUEST.replace("13", "8"), "unsupported WebSocket version"),
        (&wire::REQUEST.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), {
            "invalid header field Sec-WebSocket-Key"
        }),
    ] {
        let log = Log::default();
        let mut subject = server::<C>(&recording(&log));
        subject.receive_bytes(request);
        subject.receive(&[text("a")]);
        assert!(log.take().is_empty(), "{cause}: reported when the stream has ended");
        subject.end.assert_shut_down(&[Shutdown::HalfClose]);
        assert!(subject.sent_response().starts_with("HTTP/1.1 4"), "{cause}");
        subject.end.eof();
        assert_eq!(log.take(), [format!("fail by peer: {cause}")]);
        subject.end.assert_shut_down(&[Shutdown::HalfClose, Shutdown::Close]);
        subject.end.eof();
        subject.end.reset();
        assert!(log.take().is_empty());
    }
}

/// Never `fail` and then `open`, as WebSocket++ does where extensions or subprotocols are wrong.
fn a_refused_client_says_fail_and_nothing_else<C: TestTransport>() {
    let subprotocol = wire::RESPONSE.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: x\r\n\r\n");
    let extension = wire::RESPONSE.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: x\r\n\r\n");
    for (response, cause) in [
        (
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
            "handshake rejected with status 403",
        ),
        (&subprotocol, "invalid header field Sec-WebSocket-Protocol"),
        (&extension, "invalid header field Sec-WebSocket-Extensions"),
        (&wire::RESPONSE.replace("ICX", "ICY"), "Sec-WebSocket-Accept does not fit the key"),
    ] {
        let log = Log::default();
        let mut subject = client::<C>(&recording(&log));
        subject.end.start();
        subject.receive_bytes(response);
        subject.receive(&[text("a")]);
        subject.end.eof();
        assert_eq!(log.take(), [format!("fail by peer: {cause}")]);
        subject.end.assert_shut_down(&[Shutdown::Abort]);
    }
}

fn plain_http_neither_opens_nor_fails<C: TestTransport>() {
    let log = Log::default();
    let mut subject = server::<C>(&recording(&log));
    let request = "POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    subject.receive_bytes(request);
    assert_eq!(log.take(), ["http POST /form hello"]);
    let response = subject.sent_response();
    assert!(response.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{response}");
    assert!(response.contains("\r\nupgrade: websocket\r\n"), "{response}");
    subject.receive_bytes(request);
    subject.end.eof();
    assert!(subject.end.is_over());
    assert!(log.take().is_empty());
}

fn no_handlers_at_all<C: TestTransport>() {
    let (client, server) = (client_config(), server_config());
    let mut pair = Pair::<C>::new((client, Handlers::new()), (server, Handlers::new()));
    pair.run();
    let handle = pair.client.end.handle();
    let _ = handle.send("hello").unwrap();
    handle.ping(b"there").unwrap();
    handle.interrupt().unwrap();
    handle.close(CloseCode::NORMAL, "").unwrap();
    pair.run();
    assert!(pair.client.end.is_over() && pair.server.end.is_over());
}

struct Counter(u32);

impl Handler for Counter {
    fn message(&mut self, _: Message<'_>, context: &mut Context<'_, Self>) {
        self.0 += 1;
        let _ = context.send(self.0.to_string().as_str());
    }
}

fn a_handler_that_does_little<C: TestTransport>() {
    let server = || Subject::<C, _>::server(server_config(), || Counter(0));
    let mut subject = server();
    subject.receive_bytes("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(subject.sent_response().starts_with("HTTP/1.1 426 "));
    let mut subject = server().open();
    subject.receive(&[ping("p"), pong("q"), text("a"), wire::close(1000, "")]);
    assert_eq!(subject.sent(), [pong("p"), text("1"), wire::close(1000, "")]);
    assert!(subject.end.is_over());
}

fn each_connection_has_a_handler_of_its_own<C: TestTransport>() {
    let clock = Clock::default();
    let server = new_server::<C, _>(server_config(), || Counter(0), &clock);
    let mut first = Subject::<C, _>::of_server(&server, &clock).open();
    let mut second = Subject::<C, _>::of_server(&server, &clock).open();
    first.receive(&[text("a"), text("a")]);
    second.receive(&[text("a")]);
    assert_eq!(first.sent(), [text("1"), text("2")]);
    assert_eq!(second.sent(), [text("1")]);
}

fn a_successor_takes_over_after_the_call<C: TestTransport>() {
    let log = Log::default();
    let (reported, by) = (log.clone(), log.clone());
    let mut handlers = recording(&log);
    handlers.on_message(move |message, context| {
        reported.message(message);
        let mut successor = Handlers::new();
        let by = by.clone();
        successor.on_message(move |message, _| {
            by.push("the successor:");
            by.message(message);
        });
        context.set_handler(successor);
        reported.push("returns");
    });
    let mut subject = open_server::<C>(&handlers);
    log.take();
    subject.receive(&[text("a"), text("b")]);
    assert_eq!(log.take(), ["text a", "returns", "the successor:", "text b"]);

    // From elsewhere, too.
    let back = recording(&log);
    subject.with_handle(|handle| handle.post(|_, context| context.set_handler(back))).unwrap();
    subject.receive(&[text("c")]);
    subject.close_by_peer();
    assert_eq!(log.take(), ["text c", "close clean by peer: 1000/1000"]);
}

fn a_successor_can_be_named_before_the_connection_is_open<C: TestTransport>() {
    let log = Log::default();
    let mut handlers = Handlers::new();
    let successor = recording(&log);
    handlers
        .on_validate(move |_, context| {
            context.set_handler(successor.clone());
            Accept::new()
        })
        .on_open(|_| panic!("it was replaced"));
    open_server::<C>(&handlers);
    assert_eq!(log.take(), ["open"]);

    let log = Log::default();
    let successor = recording(&log);
    let mut handlers = Handlers::new();
    handlers.on_open(move |context| context.set_handler(successor.clone()));
    let mut subject = open_client::<C>(&handlers);
    subject.receive(&[text("a")]);
    assert_eq!(log.take(), ["text a"]);
}

fn a_message_that_is_whole_before_a_bad_frame_is_delivered<C: TestTransport>() {
    let log = Log::default();
    let mut subject = open_server::<C>(&recording(&log));
    log.take();
    subject.receive(&[text("a"), wire::frame(0x3, ""), text("b")]);
    assert_eq!(log.take(), ["text a"]);
    assert_eq!(subject.sent()[0].payload[..2], 1002_u16.to_be_bytes());
    subject.end.assert_shut_down(&[Shutdown::HalfClose]);
    subject.end.eof();
    assert_eq!(log.take(), ["close unclean by peer: 1002/none, reserved opcode 0x3"]);
}
