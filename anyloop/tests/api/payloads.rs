//! What can be sent, listened on and connected to.

#![expect(clippy::needless_borrows_for_generic_args, reason = "both are tested")]

use std::borrow::Cow;
use std::sync::mpsc::channel;
use std::task::Waker;

use anyloop::bytes::{Bytes, BytesMut};
use anyloop::http::Response;
use anyloop::iostream;
use anyloop::net::{Client, Server};
use anyloop::prelude::*;
use anyloop::proto::handshake::{RequestError, UriError};
use anyloop::proto::{Instant, Role, Text};
use anyloop::transport::{self, stepping};
use anyloop_testkit::frames::{self, Frame};
use anyloop_testkit::requests::REQUEST;
use anyloop_testkit::watchdog::watchdog;

/// What a server sends after its response. Its handler sends texts and bytes of any type for each message.
fn sent(send: impl Fn(&iostream::Connection<Handlers>)) -> Vec<Frame> {
    let mut server = iostream::Server::new(ServerConfig::new(OriginPolicy::Any));
    server.on_message(|_, context| {
        for result in [
            context.send("a text"),
            context.send(String::from("a text")),
            context.send(&String::from("a text")),
            context.send(format!("a {}", "text")),
            context.send(Box::<str>::from("a text")),
            context.send(Cow::Borrowed("a text")),
            context.send(Text::from("a text")),
            context.send(b"bytes"),
            context.send(&b"bytes"[..]),
            context.send(*b"bytes"),
            context.send(vec![b'b', b'y', b't', b'e', b's']),
            context.send(Box::<[u8]>::from(*b"bytes")),
            context.send(&Bytes::from_static(b"bytes")),
            context.send(BytesMut::from(&b"bytes"[..])),
            context.send(Payload::from("a text")),
            context.send([1, 2, 3]),
        ] {
            assert_eq!(result, Ok(Sent::Sent));
        }
    });
    sent_by(&server, send)
}

fn sent_by(
    server: &iostream::Server,
    send: impl Fn(&iostream::Connection<Handlers>),
) -> Vec<Frame> {
    let connection = server.connection();
    connection.collect_output();
    connection.read_all(REQUEST.as_bytes()).unwrap();
    let mut output = Vec::new();
    connection.take_output(&mut output).unwrap();
    output.clear();
    send(&connection);
    connection.drive().unwrap();
    connection.take_output(&mut output).unwrap();
    frames::read_all(&output, Role::Server)
}

/// What all send: seven texts, seven binary messages, a text, and three bytes.
fn expected() -> Vec<Frame> {
    let (text, binary) = (frames::text("a text"), frames::binary("bytes"));
    let mut all = vec![text.clone(); 7];
    all.extend(vec![binary; 7]);
    all.extend([text, frames::binary([1, 2, 3])]);
    all
}

#[test]
fn a_handler_sends_texts_and_bytes_of_any_type() {
    let frames = sent(|connection| _ = connection.read_all(b"\x81\x80\0\0\0\0").unwrap());
    assert_eq!(frames, expected());
}

#[test]
fn a_handle_sends_texts_and_bytes_of_any_type() {
    let frames = sent(|connection| {
        let handle = connection.handle();
        for result in [
            handle.send("a text"),
            handle.send(String::from("a text")),
            handle.send(&String::from("a text")),
            handle.send(Message::from("a text")),
            handle.send(Box::<str>::from("a text")),
            handle.send(Cow::Borrowed("a text")),
            handle.send(Text::from("a text")),
            handle.send(b"bytes"),
            handle.send(&b"bytes"[..]),
            handle.send(*b"bytes"),
            handle.send(b"bytes".to_vec()),
            handle.send(Box::<[u8]>::from(*b"bytes")),
            handle.send(Bytes::from_static(b"bytes")),
            handle.send(BytesMut::from(&b"bytes"[..])),
            handle.send(&Payload::from("a text")),
            handle.send([1, 2, 3]),
        ] {
            assert_eq!(result, Ok(Sent::Sent));
        }
    });
    assert_eq!(frames, expected());
}

#[test]
fn a_broadcast_has_texts_and_bytes_of_any_type() {
    let server = iostream::Server::new(ServerConfig::new(OriginPolicy::Any));
    let bytes = Bytes::from_static(b"bytes");
    let frames = sent_by(&server, |_| {
        for count in [
            server.broadcast("a text"),
            server.broadcast(String::from("a text")),
            server.broadcast(&String::from("a text")),
            server.broadcast(Message::from("a text")),
            server.broadcast(Box::<str>::from("a text")),
            server.broadcast(Cow::Borrowed("a text")),
            server.broadcast(Text::from("a text")),
            server.broadcast(b"bytes"),
            server.broadcast(&b"bytes"[..]),
            server.broadcast(*b"bytes"),
            server.broadcast(b"bytes".to_vec()),
            server.broadcast_where(bytes.clone(), |_| true),
            server.broadcast(&bytes),
            server.handle().broadcast(BytesMut::from(&b"bytes"[..])),
            server.broadcast(&Payload::from("a text")),
            server.broadcast([1, 2, 3]),
        ] {
            assert_eq!(count, 1);
        }
    });
    assert_eq!(frames, expected());
}

/// The payloads of a message in pieces.
fn pieces(frames: &[Frame]) -> Vec<&[u8]> {
    frames.iter().map(|frame| &frame.payload[..]).collect()
}

const PIECES: [&[u8]; 9] =
    [b"a text", b"a text", b"a text", b"bytes", b"bytes", b"bytes", b"bytes", b"\x01", b"the last"];

#[test]
fn a_handler_sends_pieces_and_pings_of_any_type() {
    let mut server = iostream::Server::new(ServerConfig::new(OriginPolicy::Any));
    server.on_message(|message, context| {
        context.begin(Kind::Binary).unwrap();
        for result in [
            context.piece("a text", false),
            context.piece(String::from("a text"), false),
            context.piece(&String::from("a text"), false),
            context.piece(b"bytes", false),
            context.piece(*b"bytes", false),
            context.piece(vec![b'b', b'y', b't', b'e', b's'], false),
            context.piece(Bytes::from_static(b"bytes"), false),
            context.piece(&[1], false),
            context.piece(message, true),
        ] {
            assert_eq!(result, Ok(Sent::Sent));
        }
    });
    server.on_pong(|payload, _, context| {
        for result in [
            context.ping("a text"),
            context.ping(payload),
            context.pong(String::from("a text")),
            context.pong(&[1, 2]),
        ] {
            assert_eq!(result, Ok(()));
        }
    });
    let frames = sent_by(&server, |connection| {
        let message = b"\x82\x88\0\0\0\0the last";
        connection.read_all(message).unwrap();
    });
    assert_eq!(pieces(&frames), PIECES);
    let frames = sent_by(&server, |connection| {
        connection.read_all(b"\x8a\x81\0\0\0\0?").unwrap();
    });
    let pong = |payload: &[u8]| frames::pong(payload);
    let expected = [frames::ping("a text"), frames::ping("?"), pong(b"a text"), pong(&[1, 2])];
    assert_eq!(frames, expected);
}

#[test]
fn a_handle_sends_pieces_and_pings_of_any_type() {
    let server = iostream::Server::new(ServerConfig::new(OriginPolicy::Any));
    let frames = sent_by(&server, |connection| {
        let mut writer = connection.handle().begin(Kind::Binary);
        for result in [
            writer.piece("a text", false),
            writer.piece(String::from("a text"), false),
            writer.piece(&String::from("a text"), false),
            writer.piece(b"bytes", false),
            writer.piece(*b"bytes", false),
            writer.piece(&b"bytes".to_vec(), false),
            writer.piece(Bytes::from_static(b"bytes"), false),
            writer.piece([1], false),
            writer.piece(Message::from("the last"), true),
        ] {
            assert_eq!(result, Ok(Sent::Sent));
        }
    });
    assert_eq!(pieces(&frames), PIECES);
    let frames = sent_by(&server, |connection| {
        let handle = connection.handle();
        for result in [handle.ping("a text"), handle.ping(vec![1, 2]), handle.erase().ping([1, 2])]
        {
            assert_eq!(result, Ok(()));
        }
    });
    let binary = frames::ping([1, 2]);
    assert_eq!(frames, [frames::ping("a text"), binary.clone(), binary]);
}

#[test]
fn a_body_has_texts_and_bytes_of_any_type() {
    for body in [
        Body::from("a text"),
        Body::from(String::from("a text")),
        Body::from(&String::from("a text")),
        Body::from(Box::<str>::from("a text")),
        Body::from(Cow::Borrowed("a text")),
        Body::from(b"a text"),
        Body::from(*b"a text"),
        Body::from(b"a text".to_vec()),
        Body::from(&b"a text".to_vec()),
        Body::from(Box::<[u8]>::from(*b"a text")),
        Body::from(Cow::Borrowed(&b"a text"[..])),
        Body::from(&Bytes::from_static(b"a text")),
        Body::from(BytesMut::from(&b"a text"[..])),
        Body::from(Payload::from("a text")),
    ] {
        assert_eq!(body.content_length(), Some(6));
        assert_eq!(answer(body), "a text");
    }

    let (mut writer, body) = Body::channel(54);
    let text = String::from("a text");
    for result in [
        writer.send("a text"),
        writer.send(text.as_str()),
        writer.send(&text),
        writer.send(text),
        writer.send(b"a text"),
        writer.send(*b"a text"),
        writer.send(&b"a text".to_vec()),
        writer.send(Bytes::from_static(b"a text")),
        writer.send_then(&Bytes::from_static(b"a text"), |sent| sent.unwrap()),
    ] {
        assert_eq!(result, Ok(Sent::Buffered));
    }
    writer.finish().unwrap();
    assert_eq!(answer(body), "a text".repeat(9));
}

#[test]
fn connections_of_other_transports_take_uris_in_the_usual_types() {
    let by_hand = iostream::Client::new(ClientConfig::new());
    let own = transport::Client::new(ClientConfig::new());
    let now = Instant::from_nanos(0);
    let target: Target = "ws://a.example/".parse().unwrap();
    let text = target.to_string();
    by_hand.connection("ws://a.example/").unwrap();
    by_hand.connection(&text).unwrap();
    by_hand.connection(&target).unwrap();
    by_hand.connection_configured(text.clone(), |config| config.subprotocol("chat")).unwrap();
    by_hand.connection_with(Handlers::new(), target.clone()).unwrap();
    stepping::Client::new(ClientConfig::new()).connection("ws://a.example/").unwrap();
    let waker = Waker::noop();
    drop(own.driver("ws://a.example/", waker, now).unwrap());
    drop(own.driver(&target, waker, now).unwrap());
    drop(own.driver_with(Handlers::new(), &text, waker, now).unwrap());
    drop(own.driver_configured(|config| config, text, waker, now).unwrap());

    let error = by_hand.connection("http://a.example/").unwrap_err();
    assert_eq!(error, RequestError::Uri(UriError::Scheme));
    assert_eq!(error.to_string(), "invalid URI: scheme is neither ws nor wss");
    let error = own.driver("ws://a.example/#b", waker, now).err();
    assert_eq!(error, Some(RequestError::Uri(UriError::Fragment)));
}

/// The body of an answer, as the client receives it.
fn answer(body: Body) -> String {
    let mut server = iostream::Server::new(ServerConfig::new(OriginPolicy::Any));
    let body = std::sync::Mutex::new(Some(body));
    server.on_http(move |_, _| Response::new(body.lock().unwrap().take().unwrap()));
    let connection = server.connection();
    connection.collect_output();
    connection.read_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    connection.drive().unwrap();
    let mut output = Vec::new();
    connection.take_output(&mut output).unwrap();
    let output = String::from_utf8(output).unwrap();
    output.split_once("\r\n\r\n").unwrap().1.to_string()
}

#[test]
fn a_payload_shares_what_it_was_made_from() {
    let owned = vec![7; 1000];
    let address = owned.as_ptr();
    let payload = Payload::from(owned);
    assert_eq!(payload.clone().into_bytes().as_ptr(), address);
    assert_eq!(payload.message().as_bytes().as_ptr(), address);
}

#[test]
fn addresses_and_uris_come_in_the_usual_types() {
    let _watchdog = watchdog();
    let event_loop = EventLoop::new().unwrap();
    let server = Server::on(&event_loop, ServerConfig::new(OriginPolicy::Any));
    let address = server.listen(("127.0.0.1", 0)).unwrap();
    let text = String::from("127.0.0.1:0");
    server.listen(&text).unwrap();
    server.listen(text).unwrap();
    server.listen((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
    let again = Server::on(&event_loop, ServerConfig::new(OriginPolicy::Any));
    let error = again.listen(&address).unwrap_err(); // it is in use
    assert!(error.to_string().contains(&address.to_string()), "{error}");

    server.start_accept().unwrap();
    let mut client = Client::on(&event_loop, ClientConfig::new());
    let (opened, opens) = channel();
    client.on_open(move |context| {
        opened.send(()).unwrap();
        context.close(CloseCode::NORMAL, "").unwrap();
    });
    let uri = format!("ws://{address}/");
    client.connect(&uri).unwrap();
    client.connect(uri.as_str()).unwrap();
    let target: Target = uri.parse().unwrap();
    client.connect(&target).unwrap();
    client.connect(target).unwrap();
    client.connect(uri).unwrap();
    for _ in 0..5 {
        while opens.try_recv().is_err() {
            event_loop.run_one();
        }
    }
    server.shut_down();
    event_loop.run();
}
