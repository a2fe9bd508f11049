//! The 101 response: the client verifies each field (RFC 6455 §4.1).

use anyloop_proto::handshake::http::header;
use anyloop_proto::{Field, HandshakeError, Role, Shutdown, State};
use anyloop_testkit::requests::{SAMPLE_RESPONSE, replaced};

use crate::drive::{HELLO, answer, client, client_options};

/// The outcome of a response to a client that requested `chat` and `superchat`: the subprotocol or the error.
fn outcome_of(response: &str) -> Result<Option<String>, HandshakeError> {
    let mut options = client_options();
    options.subprotocols = vec!["chat".into(), "superchat".into()];
    let (mut client, _) = client(options);
    let (outcome, rest) = answer(&mut client, response.as_bytes());
    match outcome {
        Ok(Some(opened)) => {
            assert_eq!(client.shutdown(), Shutdown::None);
            Ok(opened.subprotocol)
        }
        Ok(None) => panic!("the response is not complete: {response:?}"),
        Err(error) => {
            // Pitfall: a client that has failed must not open at a later response.
            assert_eq!((client.shutdown(), rest.len()), (Shutdown::Abort, 0));
            let (again, rest) = answer(&mut client, SAMPLE_RESPONSE.as_bytes());
            assert!(again.unwrap().is_none());
            assert!(rest.is_empty());
            Err(error)
        }
    }
}

fn changed(from: &str, to: &str) -> Result<Option<String>, HandshakeError> {
    outcome_of(&replaced(SAMPLE_RESPONSE, from, to))
}

fn with(lines: &str) -> Result<Option<String>, HandshakeError> {
    changed("\r\n\r\n", &format!("\r\n{lines}\r\n"))
}

const CHAT: Result<Option<&str>, HandshakeError> = Ok(Some("chat"));

fn same(outcome: &Result<Option<String>, HandshakeError>) -> Result<Option<&str>, HandshakeError> {
    outcome.as_ref().map(Option::as_deref).map_err(|error| *error)
}

#[test]
fn rfc6455_1_2_the_sample_response() {
    let mut options = client_options();
    options.subprotocols = vec!["chat".into()];
    let (mut client, _) = client(options);
    let (outcome, rest) = answer(&mut client, &[SAMPLE_RESPONSE.as_bytes(), HELLO].concat());
    let opened = outcome.unwrap().unwrap();
    assert_eq!(rest, HELLO, "frames after the response are not consumed");
    assert_eq!(opened.connection.state(), State::Open);
    assert_eq!(opened.response.status(), 101);
    assert_eq!(opened.response.headers()[header::UPGRADE], "websocket");
    assert_eq!((client.poll_timeout(), client.failure()), (None, None));
    assert!(client.response().is_none());
    // After the handshake, it consumes no input.
    assert_eq!(answer(&mut client, HELLO).1, HELLO);
}

#[test]
fn any_chunking_gives_the_same_connection() {
    for size in 1..SAMPLE_RESPONSE.len() {
        let mut options = client_options();
        options.subprotocols = vec!["chat".into()];
        let (mut client, _) = client(options);
        let mut opened = None;
        for part in SAMPLE_RESPONSE.as_bytes().chunks(size) {
            assert!(opened.is_none());
            opened = answer(&mut client, part).0.unwrap();
        }
        assert_eq!(
            opened.unwrap().subprotocol.as_deref(),
            Some("chat"),
            "in reads of {size} bytes"
        );
    }
}

#[test]
fn rfc6455_4_1_2_upgrade_is_exactly_websocket() {
    let line = "Upgrade: websocket\r\n";
    let invalid = Err(HandshakeError::Invalid(Field::Upgrade));
    assert_eq!(same(&changed(line, "upgrade: WebSocket\r\n")), CHAT);
    assert_eq!(changed(line, ""), Err(HandshakeError::Missing(Field::Upgrade)));
    assert_eq!(with(line), Err(HandshakeError::Duplicate(Field::Upgrade)));
    for bad in [
        "",
        "websocket, h2c",
        "websocket, websocket",
        "xwebsocket",
        "websocket/13",
        "\"websocket\"",
    ] {
        assert_eq!(changed(line, &format!("Upgrade: {bad}\r\n")), invalid, "{bad}");
    }
}

#[test]
fn rfc6455_4_1_3_connection_has_the_token_upgrade() {
    let line = "Connection: Upgrade\r\n";
    let invalid = Err(HandshakeError::Invalid(Field::Connection));
    assert_eq!(same(&changed(line, "connection: keep-alive, upgrade\r\n")), CHAT);
    assert_eq!(same(&changed(line, "Connection: x\r\nConnection: UPGRADE\r\n")), CHAT);
    assert_eq!(changed(line, ""), Err(HandshakeError::Missing(Field::Connection)));
    for bad in ["", "xUpgradey", "close", "keep-alive upgrade"] {
        assert_eq!(changed(line, &format!("Connection: {bad}\r\n")), invalid, "{bad}");
    }
}

#[test]
fn rfc6455_4_1_4_the_accept_value_matches_the_key() {
    let line = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    let field = Field::SecWebSocketAccept;
    assert_eq!(same(&changed(line, &line.replace(": ", ": \t").replace("=\r", "= \t\r"))), CHAT);
    assert_eq!(changed(line, ""), Err(HandshakeError::Missing(field)));
    assert_eq!(with(line), Err(HandshakeError::Duplicate(field)));
    for bad in [
        "",
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo",
        "S3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "dGhlIHNhbXBsZSBub25jZQ==",
    ] {
        let outcome = changed(line, &format!("Sec-WebSocket-Accept: {bad}\r\n"));
        assert_eq!(outcome, Err(HandshakeError::AcceptMismatch), "{bad}");
    }
}

#[test]
fn rfc6455_4_1_6_the_subprotocol_was_requested() {
    let line = "Sec-WebSocket-Protocol: chat\r\n";
    let field = Field::SecWebSocketProtocol;
    assert_eq!(changed(line, ""), Ok(None));
    assert_eq!(changed("chat\r\n", "superchat\r\n"), Ok(Some("superchat".into())));
    assert_eq!(with(line), Err(HandshakeError::Duplicate(field)));
    for bad in ["Chat", "other", "chat, superchat", "", "chat;q=1"] {
        let outcome = changed(line, &format!("Sec-WebSocket-Protocol: {bad}\r\n"));
        assert_eq!(outcome, Err(HandshakeError::Invalid(field)), "{bad}");
    }
    // The client has requested no subprotocol.
    let (mut client, _) = client(client_options());
    let (outcome, _) = answer(&mut client, SAMPLE_RESPONSE.as_bytes());
    assert_eq!(outcome.unwrap_err(), HandshakeError::Invalid(field));
}

#[test]
fn rfc6455_4_1_5_no_extension_was_offered() {
    let outcome = with("Sec-WebSocket-Extensions: permessage-deflate\r\n");
    assert_eq!(outcome, Err(HandshakeError::Invalid(Field::SecWebSocketExtensions)));
}

#[test]
fn rfc9112_6_3_a_1xx_response_has_no_body() {
    for lines in [
        "Content-Length: 0\r\n",
        "Content-Length: 5\r\n",
        "Content-Length: x\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\nContent-Length: 5\r\n",
    ] {
        let head = replaced(SAMPLE_RESPONSE, "\r\n\r\n", &format!("\r\n{lines}\r\n"));
        let interim = format!("HTTP/1.1 103 Early Hints\r\n{lines}\r\n");
        let mut options = client_options();
        options.subprotocols = vec!["chat".into()];
        let (mut client, _) = client(options);
        let response = [interim.as_bytes(), head.as_bytes(), HELLO].concat();
        let (outcome, rest) = answer(&mut client, &response);
        assert_eq!(outcome.unwrap().unwrap().subprotocol.as_deref(), Some("chat"), "{lines}");
        assert_eq!(rest, HELLO, "the bytes after the response are frames, with {lines}");
    }
}

#[test]
fn rfc9112_5_2_line_folding_is_read_as_spaces() {
    let upgrade = "Upgrade: websocket\r\n";
    for folded in [
        "Upgrade:\r\n websocket\r\n",
        "Upgrade: \t\r\n\t\t websocket\r\n",
        "Upgrade: websocket \r\n\t\r\n",
        "Upgrade:\r\n \r\n  \r\n\twebsocket\r\n \r\n",
    ] {
        assert_eq!(same(&changed(upgrade, folded)), CHAT, "{folded:?}");
    }
    // Folding in the last field, and in a field whose value is verified; in reads of any size.
    let value = "one \t\r\n\t two\r\n three";
    let response = replaced(SAMPLE_RESPONSE, "\r\n\r\n", &format!("\r\nX: {value}\r\n \r\n\r\n"));
    for size in 1..response.len() {
        let mut options = client_options();
        options.subprotocols = vec!["chat".into()];
        options.max_fields = 5; // as many as there are
        let (mut client, _) = client(options);
        let mut opened = None;
        for part in response.as_bytes().chunks(size) {
            assert!(opened.is_none());
            opened = answer(&mut client, part).0.unwrap();
        }
        let headers = opened.unwrap().response.into_parts().0.headers;
        assert_eq!((headers.len(), headers["x"].as_bytes()), (5, &b"one      two   three"[..]));
    }
    // The unfolded value is verified.
    let connection = changed("Connection: Upgrade\r\n", "Connection: Up\r\n grade\r\n");
    assert_eq!(connection, Err(HandshakeError::Invalid(Field::Connection)));
}

#[test]
fn only_http_1_1_upgrades() {
    assert_eq!(changed("HTTP/1.1", "HTTP/1.0"), Err(HandshakeError::HttpVersion));
    assert_eq!(changed("HTTP/1.1", "HTTP/1.2"), Err(HandshakeError::HttpVersion));
    assert_eq!(changed("HTTP/1.1", "HTTP/2"), Err(HandshakeError::HttpVersion));
}

#[test]
fn input_that_is_not_http_fails_immediately() {
    for bad in [
        "X",
        "\r\nX",
        "\nHTTX",
        " \r\n \r\n \r\n",
        "SSH-2.0-OpenSSH_9.6\r\n",
        "HTTX",
        "\0",
        "\u{15}\u{3}\u{1}",
    ] {
        let Err(HandshakeError::NotHttp { peer: Role::Server, first_bytes }) = outcome_of(bad)
        else {
            panic!("{bad:?}");
        };
        assert_eq!(first_bytes.as_bytes(), &bad.as_bytes()[..bad.len().min(6)]);
        assert_eq!(first_bytes.is_tls(), bad == "\u{15}\u{3}\u{1}");
    }
    for (from, to) in [
        ("websocket\r\n", "websocket\n"),
        ("101 Switching", "101\r\n Switching"),
        ("Protocols\r\n", "Protocols\r\n \r\n"),
        ("Upgrade: websocket\r\n", "Upgrade:\r\n\r websocket\r\n"),
        ("Upgrade: websocket\r\n", "Upgrade : websocket\r\n"),
        ("HTTP/1.1 101", "HTTP/1.1 1x1"),
        ("HTTP/1.1 101", "HTTP/1.1 001"),
        ("HTTP/1.1 101", "HTTP/1.1  101"),
    ] {
        assert_eq!(changed(from, to), Err(HandshakeError::Malformed), "{to:?}");
    }
}

#[test]
fn white_space_before_a_response_does_not_make_it_another_protocol() {
    for space in ["\r\n", "\n", " ", "\t\r\n"] {
        let response = format!("{space}{SAMPLE_RESPONSE}");
        assert_eq!(outcome_of(&response), Err(HandshakeError::Malformed), "{space:?}");
        let (mut client, _) = client(client_options());
        for byte in format!("{space}HTTP").into_bytes() {
            assert!(matches!(answer(&mut client, &[byte]).0, Ok(None)), "{space:?}");
        }
        assert_eq!(answer(&mut client, b"/").0.unwrap_err(), HandshakeError::Malformed);
    }
}

#[test]
fn a_server_that_has_sent_an_interim_response_speaks_http() {
    for next in ["\r\nHTTP/1.1 200 OK\r\n\r\n", "\r\n..", "garbage", "\u{16}\u{3}\u{1}"] {
        let response = format!("HTTP/1.1 103 Early Hints\r\n\r\n{next}");
        assert_eq!(outcome_of(&response), Err(HandshakeError::Malformed), "{next:?}");
    }
    let other = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/2 200\r\n";
    assert_eq!(outcome_of(other), Err(HandshakeError::HttpVersion));
}

#[test]
fn an_invalid_101_can_be_inspected() {
    let (mut client, _) = client(client_options());
    assert!(answer(&mut client, SAMPLE_RESPONSE.as_bytes()).0.is_err());
    let response = client.response().unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()[header::SEC_WEBSOCKET_PROTOCOL], "chat");
}
