//! Settings of single connections, by the answer to the request.

use anyloop::endpoint::Server;
use anyloop::prelude::*;
use anyloop::transport::Client;
use anyloop_testkit::requests::request;

use crate::record::{Log, recording};
use crate::subject::{Subject, client_config, new_server, seconds, server_config, target};
use crate::transports::{Clock, End, TestTransport, over_each_transport};
use crate::wire::{self, text};

over_each_transport! {
    an_answer_sets_the_largest_message,
    an_answer_turns_streaming_on,
    an_answer_limits_the_send_buffer,
    the_limits_of_the_send_buffer_hold_for_older_handles,
    the_marks_of_the_send_buffer_are_the_connections,
    a_deferred_answer_has_settings;
    not over sockets:
    an_answer_sets_timeouts,
    an_answer_turns_timeouts_off,
    an_answer_sets_the_close_timeout,
}

/// Accepts with these settings where the query is `own`, and with the server's elsewhere.
fn accepting(log: &Log, config: ConnectionConfig) -> Handlers {
    let mut handlers = recording(log);
    handlers.on_validate(move |request, _| match request.uri().query() {
        Some("own") => Answer::AcceptWith(Accept::new(), config.clone()),
        _ => Answer::accept(),
    });
    handlers
}

/// Two connections of one server: one with settings of its own, and one with the server's.
fn pair<C: TestTransport>(server: ServerConfig, handlers: Handlers) -> [Subject<C>; 2] {
    let clock = Clock::default();
    let server = new_server::<C, _>(server, handlers, &clock);
    ["/?own", "/"].map(|target| {
        let mut subject = Subject::<C>::of_server(&server, &clock);
        subject.receive_bytes(request(target));
        assert!(subject.sent_head().0.starts_with(wire::SWITCHING));
        subject
    })
}

fn an_answer_sets_the_largest_message<C: TestTransport>() {
    let log = Log::default();
    let handlers = accepting(&log, ConnectionConfig::new().max_message_size(5));
    let [mut own, mut other] = pair::<C>(server_config().max_message_size(3), handlers);
    log.take();
    own.receive(&[text("12345")]);
    other.receive(&[text("123")]);
    assert_eq!(log.take(), ["text 12345", "text 123"]);
    for (subject, message) in [(&mut own, "123456"), (&mut other, "1234")] {
        subject.receive(&[text(message)]);
        assert_eq!(subject.sent()[0].close_code(), Some(1009));
    }
}

fn an_answer_turns_streaming_on<C: TestTransport>() {
    let log = Log::default();
    let handlers = accepting(&log, ConnectionConfig::new().streaming(true));
    let [mut own, mut other] = pair::<C>(server_config(), handlers);
    log.take();
    own.receive(&[text("a")]);
    other.receive(&[text("a")]);
    assert_eq!(log.take(), ["chunk a true true", "text a"]);
}

fn an_answer_limits_the_send_buffer<C: TestTransport>() {
    let log = Log::default();
    let config = ConnectionConfig::new().max_send_buffer(10).overflow(Overflow::Drop);
    let mut handlers = accepting(&log, config);
    let reported = log.clone();
    handlers.on_message(move |_, context| reported.push(format!("{:?}", context.send("12345678"))));
    let [mut own, mut other] = pair::<C>(server_config().max_send_buffer(15), handlers);
    log.take();
    for (subject, expected) in [(&mut own, "Ok(Dropped)"), (&mut other, "Err(SendBufferFull")] {
        subject.end.block();
        subject.receive(&[text("go")]);
        subject.receive(&[text("go")]);
        let results = log.take();
        assert_eq!(results[0], "Ok(Sent)");
        assert!(results[1].starts_with(expected), "{results:?}");
        let refused = subject.end.handle().send("12345678");
        assert!(format!("{refused:?}").starts_with(expected), "{refused:?}");
    }
}

/// A handle that was created while the request was under way judges by the limits of the connection.
fn the_limits_of_the_send_buffer_hold_for_older_handles<C: TestTransport>() {
    let clock = Clock::default();
    let config = ConnectionConfig::new().max_send_buffer(10).overflow(Overflow::Drop);
    let handlers = accepting(&Log::default(), config);
    let server = new_server::<C, _>(server_config(), handlers, &clock);
    let mut subject = Subject::<C>::of_server(&server, &clock);
    let handle = server.handle().connections().remove(0);
    subject.receive_bytes(request("/?own"));
    assert_eq!(handle.send("12345678"), Ok(Sent::Sent));
    assert_eq!(handle.send("12345678"), Ok(Sent::Dropped));
    assert_eq!(server.handle().broadcast("12345678"), 0);
}

fn the_marks_of_the_send_buffer_are_the_connections<C: TestTransport>() {
    let log = Log::default();
    let config = ConnectionConfig::new().high_water_mark(15).low_water_mark(0);
    let [mut own, mut other] = pair::<C>(server_config(), accepting(&log, config));
    log.take();
    for (subject, expected) in [(&mut own, Sent::Backpressure), (&mut other, Sent::Buffered)] {
        subject.end.block();
        assert_eq!(subject.with_handle(|handle| handle.send("12345678")), Ok(Sent::Sent));
        assert_eq!(subject.with_handle(|handle| handle.send("12345678")), Ok(expected));
        subject.end.give_room(usize::MAX);
    }
    assert_eq!(log.take(), ["drained"]);
}

fn a_deferred_answer_has_settings<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_validate(|_, _| Answer::Defer);
    let mut subject = Subject::<C>::server(server_config(), handlers);
    subject.receive_bytes(wire::REQUEST);
    let config = ConnectionConfig::new().max_message_size(3);
    subject.with_handle(|handle| handle.accept_with(Accept::new(), config)).unwrap();
    assert!(subject.sent_head().0.starts_with(wire::SWITCHING));
    subject.receive(&[text("1234")]);
    assert_eq!(subject.sent()[0].close_code(), Some(1009));
}

fn an_answer_sets_timeouts<C: TestTransport>() {
    let config = ConnectionConfig::new().ping_interval(seconds(2)).pong_timeout(seconds(3));
    let [mut own, mut other] = pair::<C>(server_config(), accepting(&Log::default(), config));
    own.advance(seconds(2));
    assert_eq!(own.sent()[0].opcode, 9);
    own.advance(seconds(3));
    assert_eq!(own.sent()[0].close_code(), Some(1011));
    other.advance(seconds(5));
    assert_eq!(other.sent(), []);

    for config in [
        ConnectionConfig::new().idle_timeout(seconds(4)),
        ConnectionConfig::new().data_idle_timeout(seconds(4)),
    ] {
        let [mut own, mut other] = pair::<C>(server_config(), accepting(&Log::default(), config));
        own.advance(seconds(4));
        assert_eq!(own.sent()[0].close_code(), Some(1001));
        other.advance(seconds(4));
        assert_eq!(other.sent(), []);
    }
}

fn an_answer_turns_timeouts_off<C: TestTransport>() {
    let config = ConnectionConfig::new().ping_interval(None).idle_timeout(None);
    let server = server_config().ping_interval(seconds(1)).idle_timeout(seconds(9));
    let [mut own, _] = pair::<C>(server, accepting(&Log::default(), config));
    own.advance(seconds(1000));
    assert_eq!(own.sent(), []);
}

fn an_answer_sets_the_close_timeout<C: TestTransport>() {
    let config = ConnectionConfig::new().close_timeout(seconds(1));
    let pair = pair::<C>(server_config(), accepting(&Log::default(), config));
    for (mut subject, is_over) in pair.into_iter().zip([true, false]) {
        subject.with_handle(|handle| handle.close(CloseCode::NORMAL, "")).unwrap();
        subject.advance(seconds(1));
        assert_eq!(subject.end.is_over(), is_over);
    }
}

/// A client over iostream, as over sockets, has other settings for one connection.
#[test]
fn a_client_has_settings_for_one_connection() {
    let client = anyloop::iostream::Client::new(client_config().max_message_size(1));
    let change = |config: ClientConfig| config.max_message_size(3).max_send_buffer(10);
    let connection = client.connection_configured(target(), change).unwrap();
    connection.collect_output();
    let handle = connection.handle();
    assert_eq!(handle.send("12345678"), Ok(Sent::Buffered));
    assert!(matches!(handle.send("123"), Err(SendError::SendBufferFull { limit: 10, .. })));

    connection.start().unwrap();
    connection.read_all(wire::RESPONSE.as_bytes()).unwrap();
    connection.read_all(b"\x81\x03abc").unwrap();
    assert_eq!(connection.state(), Some(State::Open));
    connection.read_all(b"\x81\x04abcd").unwrap();
    assert_eq!(connection.state(), Some(State::Ended));
}

/// A client over a transport of the program's own.
#[test]
fn a_client_configures_one_driver() {
    let client = Client::with_factory(client_config(), Handlers::new());
    let change = |config: ClientConfig| config.max_send_buffer(10);
    let now = anyloop::proto::Instant::from_nanos(0);
    let waker = std::task::Waker::noop();
    let mut driver = client.driver_configured(change, target(), waker, now).unwrap();
    let handle = driver.handle();
    assert_eq!(handle.send("12345678"), Ok(Sent::Buffered));
    assert!(matches!(handle.send("123"), Err(SendError::SendBufferFull { limit: 10, .. })));
}
