//! What becomes of messages that a handle sends when the connection cannot send them at once.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use anyloop::endpoint::Unsent;
use anyloop::iostream::{Connection, Server};
use anyloop::prelude::*;
use anyloop::proto::handshake::AnswerError;
use anyloop::proto::handshake::http::{HeaderName, header};
use anyloop::proto::{Cause, Random, Refused, Role};
use anyloop_testkit::frames::{self, Frame, continuation, text};
use anyloop_testkit::requests::{REQUEST, RESPONSE};

/// A server that begins a message in pieces for every text message, and ends it for every binary one.
fn server() -> Server {
    let mut server = Server::new(ServerConfig::new(OriginPolicy::Any).max_send_buffer(100));
    server.on_message(|message, context| {
        if message.as_text().is_some() {
            context.begin(Kind::Text).unwrap();
            context.piece(b"first", false).unwrap();
        } else {
            context.piece(b"last", true).unwrap();
        }
    });
    server
}

const BEGIN: &[u8] = b"\x81\x80\0\0\0\0";
const END: &[u8] = b"\x82\x80\0\0\0\0";

fn connection(server: &Server) -> Connection<Handlers> {
    let connection = server.connection();
    connection.collect_output();
    connection
}

fn opened(server: &Server) -> Connection<Handlers> {
    let connection = connection(server);
    connection.read_all(REQUEST.as_bytes()).unwrap();
    connection.take_output(&mut Vec::new()).unwrap();
    connection
}

fn output(connection: &Connection<Handlers>) -> Vec<Frame> {
    let mut output = Vec::new();
    connection.take_output(&mut output).unwrap();
    frames::read_all(&output, Role::Server)
}

/// Sends, and returns what becomes of the message.
fn send_then(handle: &Handle<Handlers>, message: &str) -> Receiver<Result<(), Unsent>> {
    let (sender, receiver) = channel();
    handle.send_then(message, move |result| sender.send(result).unwrap()).unwrap();
    receiver
}

#[test]
fn a_message_waits_for_the_opening() {
    let mut server = server();
    server.on_open(|context| _ = context.send("welcome"));
    let connection = connection(&server);
    let handle = connection.handle();
    assert_eq!(handle.send("early"), Ok(Sent::Buffered));
    connection.drive().unwrap();
    assert_eq!(handle.send("later"), Ok(Sent::Buffered));
    assert_eq!(handle.buffered_amount(), 10);
    connection.drive().unwrap();
    connection.read_all(REQUEST.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    connection.take_output(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert_eq!(
        frames::read_all(&bytes[end..], Role::Server),
        [text("welcome"), text("early"), text("later")]
    );
    assert_eq!(handle.buffered_amount(), 0);
}

#[test]
fn what_waits_for_the_opening_is_bounded() {
    let server = server();
    let connection = connection(&server);
    let handle = connection.handle();
    for _ in 0..10 {
        handle.send([0; 10]).unwrap();
        connection.drive().unwrap();
    }
    assert!(matches!(handle.send("one more"), Err(SendError::SendBufferFull { waiting: 100, .. })));
}

#[test]
fn a_message_of_a_handshake_that_fails_is_reported_as_unsent() {
    let server = server();
    let connection = connection(&server);
    let result = send_then(&connection.handle(), "early");
    connection.drive().unwrap();
    assert!(result.try_recv().is_err());
    connection.fatal_error().unwrap();
    assert_eq!(result.try_recv(), Ok(Err(Unsent)));
}

#[test]
fn rfc6455_5_4_a_message_waits_for_the_last_piece_of_another() {
    let server = server();
    let connection = opened(&server);
    connection.read_all(BEGIN).unwrap();
    let handle = connection.handle();
    handle.send("second").unwrap();
    connection.drive().unwrap();
    handle.send("third").unwrap();
    handle.ping(b"control frames need not wait").unwrap();
    connection.drive().unwrap();
    assert_eq!(
        output(&connection),
        [text("first").more(), frames::ping("control frames need not wait")]
    );
    connection.read_all(END).unwrap();
    assert_eq!(output(&connection), [continuation("last"), text("second"), text("third")]);
}

#[test]
fn a_broadcast_waits_for_the_last_piece_of_a_message() {
    let server = server();
    let connections = [opened(&server), opened(&server)];
    connections[0].read_all(BEGIN).unwrap();
    assert_eq!(server.broadcast(Prepared::new("to all")), 2);
    for connection in &connections {
        connection.drive().unwrap();
    }
    assert_eq!(output(&connections[1]), [text("to all")]);
    connections[0].read_all(END).unwrap();
    let expected = [text("first").more(), continuation("last"), text("to all")];
    assert_eq!(output(&connections[0]), expected);
}

#[test]
fn a_message_that_waits_when_the_connection_closes_is_reported_as_unsent() {
    let server = server();
    let connection = opened(&server);
    connection.read_all(BEGIN).unwrap();
    let handle = connection.handle();
    let result = send_then(&handle, "never");
    handle.close(CloseCode::NORMAL, "").unwrap();
    connection.drive().unwrap();
    assert_eq!(result.try_recv(), Ok(Err(Unsent)));
    assert_eq!(handle.send("too late"), Err(SendError::Closing));
    assert_eq!(output(&connection), [text("first").more(), frames::close(1000, "")]);
}

/// A waiting message is sent between two messages in pieces, even if one call ends the first and begins the second.
#[test]
fn messages_wait_for_one_message_in_pieces_and_not_for_the_next() {
    let server = server();
    let connection = opened(&server);
    connection.read_all(BEGIN).unwrap();
    connection.handle().send("between").unwrap();
    connection.drive().unwrap();
    connection.read_all(&[END, BEGIN].concat()).unwrap();
    let expected =
        [text("first").more(), continuation("last"), text("between"), text("first").more()];
    assert_eq!(output(&connection), expected);
}

/// What waits for the end of a message in pieces cannot be written, so it must not keep `drained` from being called,
/// which may be what the next piece waits for.
#[test]
fn pitfall_a_message_that_waits_does_not_stop_the_message_it_waits_for() {
    let config = ServerConfig::new(OriginPolicy::Any).low_water_mark(0).high_water_mark(10);
    let mut server = Server::new(config);
    server.on_message(|_, context| {
        context.begin(Kind::Text).unwrap();
        context.piece([b'a'; 100_000], false).unwrap();
    });
    server.on_drained(|context| _ = context.piece(b"last", true).unwrap());
    let connection = opened(&server);
    connection.read_all(BEGIN).unwrap();
    connection.handle().send("waits").unwrap();
    connection.drive().unwrap();
    let frames = output(&connection);
    assert_eq!(frames[1..], [continuation("last"), text("waits")]);
}

#[test]
fn a_message_that_follows_a_close_of_a_handle_is_refused() {
    let server = server();
    for end in [0, 1] {
        let connection = opened(&server);
        let handle = connection.handle();
        match end {
            0 => handle.close(CloseCode::NORMAL, "").unwrap(),
            _ => handle.terminate().unwrap(),
        }
        assert_eq!(handle.send("too late"), Err(SendError::Closing));
        let expected = SendError::Refused(Refused::ReasonWithoutCode);
        assert_eq!(server.close_all(None, "why"), Err(expected));
    }
}

#[test]
fn empty_messages_are_bounded_too() {
    let server = server();
    for drives in [false, true] {
        let connection = connection(&server);
        let handle = connection.handle();
        let accepted = (0..10_000)
            .take_while(|_| {
                let accepted = handle.send("").is_ok();
                if drives {
                    connection.drive().unwrap();
                }
                accepted
            })
            .count();
        assert_eq!(accepted, 1024);
    }
}

#[test]
fn a_completion_that_panics_does_not_keep_others_from_being_called() {
    let server = server();
    let connection = connection(&server);
    let handle = connection.handle();
    handle.send_then("first", |_| panic!("deliberate")).unwrap();
    let second = send_then(&handle, "second");
    connection.drive().unwrap();
    let end = std::panic::AssertUnwindSafe(|| connection.fatal_error());
    assert!(std::panic::catch_unwind(end).is_err());
    assert_eq!(second.try_recv(), Ok(Err(Unsent)));
    assert_eq!(handle.send("too late"), Err(SendError::Gone));
}

#[test]
fn a_completion_that_panics_does_not_keep_others_of_its_batch_from_being_called() {
    let mut server = server();
    let (sender, results) = channel();
    server.on_message(move |message, context| {
        context.send_then(message, |_| panic!("deliberate")).unwrap();
        let sender = sender.clone();
        context.send_then("second", move |result| sender.send(result).unwrap()).unwrap();
    });
    let connection = opened(&server);
    let end = std::panic::AssertUnwindSafe(|| connection.read_all(BEGIN));
    assert!(std::panic::catch_unwind(end).is_err());
    assert_eq!(results.try_recv(), Ok(Ok(())));
}

#[test]
fn a_close_before_the_opening_follows_the_messages_before_it() {
    let mut client = anyloop::iostream::Client::new(ClientConfig::new().random(Arc::new(Zeros)));
    let (sender, calls) = channel();
    client.on_close(move |ending, _| sender.send(ending.clean).unwrap());
    let connection = client.connection("ws://a/").unwrap();
    connection.collect_output();
    let handle = connection.handle();
    handle.send("hello").unwrap();
    handle.close(CloseCode::NORMAL, "").unwrap();
    assert_eq!(handle.send("too late"), Err(SendError::Closing));
    connection.start().unwrap();
    connection.drive().unwrap();
    connection.take_output(&mut Vec::new()).unwrap(); // the request
    connection.read_all(RESPONSE.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    connection.take_output(&mut bytes).unwrap();
    assert_eq!(frames::read_all(&bytes, Role::Client), [text("hello"), frames::close(1000, "")]);
    connection.read_all(&frames::close(1000, "").bytes(Role::Server)).unwrap();
    connection.eof().unwrap();
    assert_eq!(calls.try_recv(), Ok(true));
}

/// The program keeps what `read_some` has not taken, so the end of the stream does not wait for it.
#[test]
fn the_end_of_the_stream_does_not_wait_for_a_paused_reader() {
    let (sender, calls) = channel();
    let mut server = Server::new(ServerConfig::new(OriginPolicy::Any));
    let messages = sender.clone();
    server.on_message(move |message, context| {
        messages.send(message.as_text().unwrap_or_default().to_owned()).unwrap();
        context.pause_reading();
    });
    server.on_close(move |_, _| sender.send("close".into()).unwrap());
    let connection = opened(&server);
    let bytes = [text("first"), text("second")].map(|frame| frame.bytes(Role::Client));
    assert_eq!(connection.read_all(&bytes.concat()).unwrap(), bytes[0].len());
    connection.eof().unwrap();
    assert_eq!(calls.try_iter().collect::<Vec<_>>(), ["first", "close"]);
    assert_eq!(connection.read_all(&bytes[1]).unwrap(), 0);
}

/// RFC 6455 §7.1.4: what was accepted and not written makes an ending unclean, even if the peer's Close has arrived. A
/// peer that is gone after its Close had no use for our answer alone.
#[test]
fn pitfall_an_ending_is_not_clean_if_messages_or_our_close_are_lost() {
    let echo = [text("hi").bytes(Role::Client), frames::close(1000, "bye").bytes(Role::Client)];
    let [_, close] = &echo;
    for (input, error, clean) in [
        (echo.concat(), ErrorKind::BrokenPipe, false),
        (echo.concat(), ErrorKind::StorageFull, false),
        (close.clone(), ErrorKind::BrokenPipe, true),
        (close.clone(), ErrorKind::StorageFull, false),
    ] {
        let mut server = Server::new(ServerConfig::new(OriginPolicy::Any));
        server.on_message(|message, context| _ = context.send(message).unwrap());
        let (sender, endings) = channel();
        server.on_close(move |ending, _| {
            let cause = ending.failure.map(|failure| failure.cause());
            sender.send((ending.clean, cause)).unwrap();
        });
        let connection = opened(&server);
        connection.set_write_handler(move |_| Err(error.into()));
        connection.read_all(&input).unwrap();
        let cause = (!clean).then_some(Cause::OutputLost);
        assert_eq!(endings.try_recv(), Ok((clean, cause)), "{error}");
    }
}

/// A client whose handle sends and closes before it is open, and whose `open` sends a message in pieces, the last of
/// them `at_once` or later.
fn closes_before_open(at_once: bool) {
    let mut client = anyloop::iostream::Client::new(ClientConfig::new().random(Arc::new(Zeros)));
    client.on_open(move |context| {
        context.begin(Kind::Text).unwrap();
        context.piece(b"in", false).unwrap();
        if at_once {
            context.piece(b"pieces", true).unwrap();
        }
    });
    let connection = client.connection("ws://a/").unwrap();
    connection.collect_output();
    let handle = connection.handle();
    handle.send("hello").unwrap();
    handle.close(CloseCode::NORMAL, "the first").unwrap();
    handle.close(CloseCode::GOING_AWAY, "the second").unwrap();
    connection.start().unwrap();
    connection.drive().unwrap();
    connection.take_output(&mut Vec::new()).unwrap(); // the request
    connection.read_all(RESPONSE.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    if !at_once {
        connection.take_output(&mut bytes).unwrap();
        assert_eq!(frames::read_all(&bytes, Role::Client), [text("in").more()]);
        handle.post(|_, context| _ = context.piece(b"pieces", true).unwrap()).unwrap();
        connection.drive().unwrap();
    }
    connection.take_output(&mut bytes).unwrap();
    let last = continuation("pieces");
    let expected = [text("in").more(), last, text("hello"), frames::close(1000, "the first")];
    assert_eq!(frames::read_all(&bytes, Role::Client), expected);
}

#[test]
fn a_close_before_the_opening_follows_what_open_sends_in_pieces() {
    closes_before_open(true);
    closes_before_open(false);
}

#[test]
fn a_shutdown_does_not_wait_for_messages_that_wait_for_the_opening() {
    for closes in [false, true] {
        let mut client = anyloop::iostream::Client::new(ClientConfig::new());
        let (sender, calls) = channel();
        client.on_fail(move |_, _| sender.send(()).unwrap());
        let connection = client.connection("ws://a/").unwrap();
        connection.collect_output();
        let handle = connection.handle();
        let result = send_then(&handle, "never");
        if closes {
            handle.close(CloseCode::NORMAL, "").unwrap();
        }
        connection.start().unwrap();
        connection.drive().unwrap();
        client.shut_down();
        connection.drive().unwrap();
        assert_eq!(calls.try_recv(), Ok(()));
        assert_eq!(result.try_recv(), Ok(Err(Unsent)));
    }
}

/// Makes the nonce to which `RESPONSE` is the answer.
struct Zeros;

impl Random for Zeros {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

/// A request that cannot be accepted as the handler says is answered with 500, and `fail` can ask why.
#[test]
fn the_reason_of_a_500_is_in_the_failure() {
    for deferred in [false, true] {
        let mut server = Server::new(ServerConfig::new(OriginPolicy::Any));
        let wrong = || Accept::new().with_subprotocol("nobody asked for it");
        server.on_validate(move |_, _| if deferred { Answer::Defer } else { wrong().into() });
        let (sender, errors) = channel();
        server.on_fail(move |_, context| {
            let error = context.error().and_then(|error| error.downcast_ref::<AnswerError>());
            sender.send(error.cloned()).unwrap();
        });
        let connection = connection(&server);
        connection.read_all(REQUEST.as_bytes()).unwrap();
        if deferred {
            connection.handle().accept(wrong()).unwrap();
            connection.drive().unwrap();
        }
        let mut bytes = Vec::new();
        connection.take_output(&mut bytes).unwrap();
        assert!(bytes.starts_with(b"HTTP/1.1 500 "));
        connection.eof().unwrap();
        assert_eq!(errors.try_recv(), Ok(Some(AnswerError::SubprotocolNotOffered)));
    }
}

#[test]
fn fields_that_cannot_be_sent_are_an_error_of_accept() {
    let mut server = Server::new(ServerConfig::new(OriginPolicy::Any));
    server.on_validate(|_, _| Answer::Defer);
    let connection = connection(&server);
    let handle = connection.handle();
    let name = || Accept::new().with_header("two words", "x");
    assert_eq!(handle.accept(name()), Err(SendError::NotAwaiting));
    connection.read_all(REQUEST.as_bytes()).unwrap();
    let value = Accept::new().with_header("x-a", "\n");
    let reserved = Accept::new().with_header("Upgrade", "x");
    for (accept, error) in [
        (name(), AnswerError::InvalidHeaderName("two words".into())),
        (value, AnswerError::InvalidHeaderValue(HeaderName::from_static("x-a"))),
        (reserved, AnswerError::ReservedHeader(header::UPGRADE)),
    ] {
        let error = Err(SendError::InvalidResponse(error));
        assert_eq!(handle.accept(accept.clone()), error);
        assert_eq!(handle.accept_with(accept, ConnectionConfig::new()), error);
    }
    handle.accept(Accept::new().with_header("x-a", "b")).unwrap();
    connection.drive().unwrap();
    let mut bytes = Vec::new();
    connection.take_output(&mut bytes).unwrap();
    assert!(bytes.starts_with(b"HTTP/1.1 101 "));
    assert_eq!(handle.accept(name()), Err(SendError::NotAwaiting));
}

#[test]
fn a_ping_is_answered_later_by_a_handle() {
    let mut server = server();
    let (sender, handles) = channel();
    server.on_ping(move |_, context| {
        sender.send(context.handle()).unwrap();
        false
    });
    let connection = connection(&server);
    let early = connection.handle();
    assert_eq!(early.pong(b"early"), Err(SendError::NotOpen));
    connection.read_all(REQUEST.as_bytes()).unwrap();
    connection.take_output(&mut Vec::new()).unwrap();
    connection.read_all(&frames::ping("?").bytes(Role::Client)).unwrap();
    assert_eq!(output(&connection), []);
    let handle = handles.try_recv().unwrap();
    let too_long = SendError::Refused(Refused::ControlTooLong(126));
    assert_eq!(handle.pong([0; 126]), Err(too_long));
    handle.pong("?").unwrap();
    handle.erase().pong(b"").unwrap();
    handle.close(CloseCode::NORMAL, "").unwrap();
    assert_eq!(handle.pong(b"late"), Err(SendError::Closing));
    connection.drive().unwrap();
    let expected = [frames::pong("?"), frames::pong(""), frames::close(1000, "")];
    assert_eq!(output(&connection), expected);
}

#[test]
fn a_ping_does_not_wait() {
    let server = server();
    let connection = connection(&server);
    let handle = connection.handle();
    assert_eq!(handle.ping(b"early"), Err(SendError::NotOpen));
    connection.read_all(REQUEST.as_bytes()).unwrap();
    connection.take_output(&mut Vec::new()).unwrap();
    handle.ping(b"now").unwrap();
    handle.close(CloseCode::NORMAL, "").unwrap();
    assert_eq!(handle.ping(b"late"), Err(SendError::Closing));
    connection.drive().unwrap();
    assert_eq!(handle.erase().ping(b"late"), Err(SendError::Closing));
    assert_eq!(output(&connection), [frames::ping("now"), frames::close(1000, "")]);
    connection.fatal_error().unwrap();
    assert_eq!(handle.ping(b"too late"), Err(SendError::Gone));
}
