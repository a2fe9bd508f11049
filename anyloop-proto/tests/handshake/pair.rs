//! A client and a server that exchange a handshake and then messages.

use std::sync::Arc;

use anyloop_proto::handshake::{
    Accept, ClientHandshake, Incoming, Opened, ServerHandshake, Target,
};
use anyloop_proto::{Connection, Event, Input, State};
use anyloop_testkit::requests::SAMPLE_REQUEST;

use crate::drive::{HELLO, MASKED_HELLO, at, client_options, server, server_options};

/// Receives the text messages in `input`.
fn messages(connection: &mut Connection, input: &mut Input<'_>) -> Vec<String> {
    let Connection { receiver, sender } = connection;
    let mut out = Vec::new();
    let mut messages = Vec::new();
    while let Some(event) = receiver.next(sender, input, at(0), &mut out).unwrap() {
        if let Event::Message(message) = event {
            messages.push(String::from_utf8(message.as_bytes().to_vec()).unwrap());
        }
    }
    messages
}

#[test]
fn pitfall_frames_in_the_segment_of_the_request_are_received() {
    let mut bytes = [SAMPLE_REQUEST.as_bytes(), MASKED_HELLO, MASKED_HELLO].concat();
    let mut input = Input::new(&mut bytes);
    let mut out = Vec::new();
    let mut server = server();
    let lent = server.next(&mut input, at(0), &mut out).unwrap();
    assert!(matches!(lent, Some(Incoming::Upgrade(_))));
    assert_eq!(input.len(), 2 * MASKED_HELLO.len());
    let mut opened = server.accept(Accept::new(), at(0), &mut out).unwrap();
    assert_eq!(messages(&mut opened.connection, &mut input), ["Hello", "Hello"]);
}

#[test]
fn a_client_and_a_server_open_a_connection() {
    let target: Target = "ws://localhost:9002/chat?x=y".parse().unwrap();
    for subprotocol in [None, Some("one"), Some("two")] {
        let mut options = client_options();
        options.subprotocols = vec!["one".into(), "two".into()];
        let mut wire = Vec::new();
        let mut client =
            ClientHandshake::new(&target, Arc::new(options), at(0), &mut wire).unwrap();

        let mut server = ServerHandshake::new(Arc::new(server_options()), at(0));
        let mut back = Vec::new();
        assert!(server.next(&mut Input::new(&mut wire), at(0), &mut back).unwrap().is_some());
        assert_eq!(server.request().unwrap().uri(), "/chat?x=y");
        assert_eq!(server.request().unwrap().host(), Some("localhost:9002"));
        let mut accept = Accept::new();
        accept.subprotocol = subprotocol.map(Into::into);
        let accepted = server.accept(accept, at(0), &mut back).unwrap();

        back.extend_from_slice(HELLO);
        let mut input = Input::new(&mut back);
        let opened = client.next(&mut input, at(0), &mut Vec::new()).unwrap().unwrap();
        let Opened { mut connection, response, subprotocol: agreed, .. } = opened;
        assert_eq!(agreed.as_deref(), subprotocol);
        assert_eq!(agreed, accepted.subprotocol);
        assert_eq!(response.headers(), accepted.response.headers());
        assert_eq!(connection.state(), State::Open);
        assert_eq!(messages(&mut connection, &mut input), ["Hello"]);
    }
}

#[test]
fn a_client_receives_the_complete_refusal() {
    let target: Target = "ws://localhost/".parse().unwrap();
    let mut wire = Vec::new();
    let options = Arc::new(client_options());
    let mut client = ClientHandshake::new(&target, options, at(0), &mut wire).unwrap();
    let wire = String::from_utf8(wire).unwrap().replace("Version: 13", "Version: 8");
    let mut wire = wire.into_bytes();
    let mut back = Vec::new();
    let mut server = server();
    assert!(server.next(&mut Input::new(&mut wire), at(0), &mut back).is_err());
    assert!(client.next(&mut Input::new(&mut back), at(0), &mut Vec::new()).is_err());
    let response = client.response().unwrap();
    assert_eq!(response.status(), 426);
    assert_eq!(response.headers()["sec-websocket-version"], "13");
    assert_eq!(response.body(), b"unsupported WebSocket version\n");
}
