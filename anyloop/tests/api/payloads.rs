//! What can be sent, listened on and connected to.

#![expect(clippy::needless_borrows_for_generic_args, reason = "both are tested")]

use std::sync::mpsc::channel;

use anyloop::bytes::Bytes;
use anyloop::iostream;
use anyloop::net::{Client, Server};
use anyloop::prelude::*;
use anyloop::proto::Role;
use anyloop_testkit::frames::{self, Frame};
use anyloop_testkit::requests::REQUEST;
use anyloop_testkit::watchdog::watchdog;

/// What a server sends after its response.
fn sent(send: impl Fn(&iostream::Connection<Handlers>)) -> Vec<Frame> {
    let mut server = iostream::Server::new(ServerConfig::new(OriginPolicy::Any));
    server.on_message(|_, context| {
        for result in [
            context.send("a text"),
            context.send(String::from("a text")),
            context.send(&String::from("a text")),
            context.send(format!("a {}", "text")),
            context.send(b"bytes"),
            context.send(&b"bytes"[..]),
            context.send(vec![b'b', b'y', b't', b'e', b's']),
            context.send(&Bytes::from_static(b"bytes")),
            context.send(Payload::from("a text")),
        ] {
            assert_eq!(result, Ok(Sent::Sent));
        }
    });
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

/// What both send: four texts, four binary messages, and a text.
fn expected() -> Vec<Frame> {
    let (text, binary) = (frames::text("a text"), frames::binary("bytes"));
    let texts = [&text, &text, &text, &text];
    let binaries = [&binary, &binary, &binary, &binary];
    texts.into_iter().chain(binaries).chain([&text]).cloned().collect()
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
            handle.send(b"bytes"),
            handle.send(&b"bytes"[..]),
            handle.send(b"bytes".to_vec()),
            handle.send(Bytes::from_static(b"bytes")),
            handle.send(&Payload::from("a text")),
        ] {
            assert_eq!(result, Ok(Sent::Sent));
        }
    });
    assert_eq!(frames, expected());
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
