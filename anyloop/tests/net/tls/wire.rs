//! What is on the wire: handshakes that are slow, cut or none at all, and how the stream ends.

use std::sync::mpsc::channel;

use anyloop::prelude::*;
use anyloop::proto::{Cause, TransportError};
use anyloop::tls::rustls::{self, version};
use anyloop_testkit::frames;
use anyloop_testkit::peer::{Peer, serve};
use anyloop_testkit::tls::{Authority, Far, Raw, client_config};
use anyloop_testkit::wait::{PATIENCE, eventually};
use anyloop_testkit::watchdog::watchdog;

use super::peer::{TlsPeer, serving_config, trusting_config};
use super::{
    Kind, client_outcomes, client_tls, server_outcomes, server_tls, start, tls_client, tls_url,
};
use crate::setup::{Running, client_with, echo, millis, server, server_config, server_with};

const TLS_FAILED: Option<Cause> = Some(Cause::Transport(TransportError::Tls));

#[test]
fn plain_http_is_answered_with_a_plain_400() {
    let _watchdog = watchdog();
    let mut server = server();
    let outcomes = server_outcomes(&mut server);
    let running = start(server, &server_tls());
    let mut peer = Peer::connect(running.address);
    peer.write("GET /chat HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = String::from_utf8(peer.read_to_end()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "this port speaks TLS: use wss:// or https:// URIs\n");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    assert_eq!(
        head.lines().filter(|line| *line == "Content-Type: text/plain").count(),
        1,
        "{head}"
    );
    drop(peer);
    let outcome = outcomes.next();
    assert_eq!((outcome.cause, outcome.kind), (TLS_FAILED, Some(Kind::PlainHttp)));
}

/// A peer that does not end the stream is left alone after a second, not kept.
#[test]
fn a_peer_that_was_refused_is_not_waited_for_long() {
    let _watchdog = watchdog();
    let mut server = server();
    let outcomes = server_outcomes(&mut server);
    let running = start(server, &server_tls());
    let peer = Peer::connect(running.address);
    peer.write("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(outcomes.next().kind, Some(Kind::PlainHttp)); // while it is connected
    drop(peer);
}

#[test]
fn bytes_that_are_neither_are_refused() {
    let _watchdog = watchdog();
    let mut server = server();
    let outcomes = server_outcomes(&mut server);
    let running = start(server, &server_tls());
    for bytes in [&b"\0\0\0\0\0\0"[..], b"\x80\x2e\x01\x03\x01", b"\xff"] {
        let mut peer = Peer::connect(running.address);
        peer.write(bytes);
        assert!(peer.read_to_end().is_empty());
        let outcome = outcomes.next();
        assert_eq!((outcome.cause, outcome.kind), (TLS_FAILED, Some(Kind::ClientNotTls)));
        assert!(!outcome.error.unwrap().contains("use ws://"));
    }
}

#[test]
fn a_client_says_that_a_server_is_plain() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let mut client = tls_client();
    let outcomes = client_outcomes(&mut client);
    client.connect(tls_url(&running, "localhost").as_str()).unwrap();
    client.run();
    let outcome = outcomes.next();
    assert_eq!((outcome.cause, outcome.kind), (TLS_FAILED, Some(Kind::NotTls)));
    assert!(outcome.error.unwrap().contains("use ws://"));
}

/// What is injected into an open connection must not advise to do without TLS.
#[test]
fn a_server_that_spoke_tls_is_not_called_plain() {
    let _watchdog = watchdog();
    let (address, peer) = serve(|peer| {
        let mut peer = TlsPeer::over(peer, Far::server(serving_config()));
        peer.shake_hands();
        peer.read_head();
        peer.peer.write("HTTP/1.1 400 Bad Request\r\n\r\n");
        let answer = peer.peer.read_to_end();
        peer.far.receive(&answer).unwrap_err().to_string()
    });
    let mut client = tls_client();
    let outcomes = client_outcomes(&mut client);
    client.connect(format!("wss://localhost:{}/chat", address.port()).as_str()).unwrap();
    client.run();
    let outcome = outcomes.next();
    assert_eq!((outcome.cause, outcome.kind), (TLS_FAILED, Some(Kind::Protocol)));
    assert!(!outcome.error.unwrap().contains("ws://"));
    let alert = peer.join().unwrap();
    assert!(alert.contains("alert"), "{alert}");
}

#[test]
fn handshakes_may_come_byte_by_byte() {
    let _watchdog = watchdog();
    for version in [&version::TLS12, &version::TLS13] {
        let running = start(echo(), &server_tls());
        let config = client_config(Authority::shared(), None, &[version]);
        let mut peer = TlsPeer::connect(running.address, config);
        while peer.far.is_handshaking() {
            for byte in peer.far.send(&[]) {
                peer.peer.write([byte]);
            }
            assert!(!peer.far.is_handshaking() || peer.read());
        }
        for byte in peer.far.send(anyloop_testkit::requests::REQUEST.as_bytes()) {
            peer.peer.write([byte]);
        }
        peer.read_head();
        for byte in peer.far.send(&frames::text("hello").bytes(peer.peer.role)) {
            peer.peer.write([byte]);
        }
        peer.expect(&frames::text("hello"));
    }
}

/// A record is no message: frames are cut anywhere.
#[test]
fn records_need_not_be_frames() {
    let _watchdog = watchdog();
    let running = start(echo(), &server_tls());
    let mut peer = TlsPeer::open(running.address);
    let message = frames::text("one message in many records");
    let records: Vec<u8> =
        message.bytes(peer.peer.role).iter().flat_map(|byte| peer.far.send(&[*byte])).collect();
    peer.peer.write(records);
    peer.expect(&message);
    let many: Vec<_> = (0..500).map(|number| frames::text(format!("{number}"))).collect();
    peer.send(&many);
    many.iter().for_each(|message| peer.expect(message));
}

#[test]
fn a_handshake_that_stalls_times_out_at_the_server() {
    let _watchdog = watchdog();
    let mut server = server_with(server_config().open_timeout(millis(150)));
    let outcomes = server_outcomes(&mut server);
    let running = start(server, &server_tls());
    // Nothing; a part of the first message; all of it, and nothing after the answer; no request.
    for part in 0..4 {
        let mut peer = TlsPeer::connect(running.address, trusting_config());
        match part {
            0 => {}
            1 => {
                let hello = peer.far.send(&[]);
                peer.peer.write(&hello[..hello.len() / 2]);
            }
            2 => {
                let hello = peer.far.send(&[]);
                peer.peer.write(hello);
            }
            _ => peer.shake_hands(),
        }
        assert_eq!(outcomes.next().cause, Some(Cause::OpenTimeout), "{part}");
    }
}

#[test]
fn a_handshake_that_stalls_times_out_at_the_client() {
    let _watchdog = watchdog();
    let (address, server) = serve(|mut peer| _ = peer.read_to_end());
    let config = ClientConfig::new().tls(client_tls()).open_timeout(millis(150));
    let mut client = client_with(config);
    let outcomes = client_outcomes(&mut client);
    client.connect(format!("wss://localhost:{}/", address.port()).as_str()).unwrap();
    client.run();
    assert_eq!(outcomes.next().cause, Some(Cause::OpenTimeout));
    server.join().unwrap();
}

#[test]
fn a_handshake_that_is_cut_is_told_from_one_that_is_refused() {
    let _watchdog = watchdog();
    for answer in [&[][..], &[22, 3, 3]] {
        let (address, server) = serve(move |mut peer| {
            let mut record = [0; 16];
            std::io::Read::read_exact(&mut peer, &mut record).unwrap();
            peer.write_last(answer); // nothing, or the beginning of a record
            peer.read_to_end();
        });
        let mut client = tls_client();
        let outcomes = client_outcomes(&mut client);
        client.connect(format!("wss://localhost:{}/", address.port()).as_str()).unwrap();
        client.run();
        let outcome = outcomes.next();
        assert_eq!((outcome.cause, outcome.kind), (TLS_FAILED, Some(Kind::Cut)));
        server.join().unwrap();
    }
}

/// RFC 8446 §6.1: a stream that ends without close_notify was cut off.
#[test]
fn truncation_is_told_from_a_clean_end() {
    let _watchdog = watchdog();
    let mut server = echo();
    let outcomes = server_outcomes(&mut server);
    let running = start(server, &server_tls());

    let mut peer = TlsPeer::open(running.address);
    peer.echo("a");
    peer.peer.finish();
    let outcome = outcomes.next();
    assert_eq!((outcome.cause, outcome.kind), (TLS_FAILED, Some(Kind::Truncated)));

    let mut peer = TlsPeer::open(running.address);
    peer.echo("a");
    let notify = peer.far.close();
    peer.peer.write(notify);
    let outcome = outcomes.next(); // although the stream goes on
    assert_eq!((outcome.cause, outcome.kind), (Some(Cause::EndOfStream), None));

    // What follows a close_notify does not count.
    let mut peer = TlsPeer::open(running.address);
    let behind = peer.far.send(&frames::text("last").bytes(peer.peer.role));
    let notify = peer.far.close();
    peer.peer.write([behind, notify, b"anything".to_vec()].concat());
    peer.expect(&frames::text("last"));
    assert_eq!(outcomes.next().cause, Some(Cause::EndOfStream));
}

/// After the closing handshake the server ends its direction, by close_notify and FIN, and so does the client.
#[test]
fn connections_are_closed_with_close_notify() {
    let _watchdog = watchdog();
    let mut server = echo();
    let at_server = server_outcomes(&mut server);
    let running = start(server, &server_tls());
    let mut peer = TlsPeer::open(running.address);
    peer.send(&[frames::close(1000, "")]);
    peer.expect(&frames::close(1000, ""));
    while !peer.closed {
        assert!(peer.read(), "the stream ends without close_notify");
    }
    let notify = peer.far.close();
    peer.peer.write_last(notify);
    let outcome = at_server.next();
    assert_eq!((outcome.cause, outcome.kind), (None, None));
    assert_eq!(peer.read_to_end(), (Vec::new(), true));

    let (address, peer) = serve(|peer| {
        let mut peer = TlsPeer::over(peer, Far::server(serving_config()));
        peer.shake_hands();
        let head = peer.read_head();
        assert!(head.starts_with("GET /chat "), "{head}");
        peer.write(anyloop_testkit::requests::RESPONSE);
        peer.expect(&frames::close(1000, ""));
        peer.send(&[frames::close(1000, "")]);
        let notify = peer.far.close();
        peer.peer.write(notify);
        peer.read_to_end()
    });
    let config = ClientConfig::new()
        .tls(client_tls())
        .random(std::sync::Arc::new(anyloop_testkit::requests::Zeros));
    let mut client = client_with(config);
    client.on_open(|context| _ = context.close(CloseCode::NORMAL, ""));
    let at_client = client_outcomes(&mut client);
    client.connect(format!("wss://localhost:{}/chat", address.port()).as_str()).unwrap();
    client.run();
    let outcome = at_client.next();
    assert_eq!((outcome.cause, outcome.kind), (None, None), "{outcome:?}");
    assert_eq!(peer.join().unwrap(), (Vec::new(), true));
}

/// What follows the closing handshake does not count, and rustls must not see it: in debug builds it panics.
#[test]
fn pitfall_an_error_after_close_notify() {
    let _watchdog = watchdog();
    let mut server = echo();
    let outcomes = server_outcomes(&mut server);
    let running = start(server, &server_tls());
    for records in [&GARBAGE[..], &GARBAGE[..7], b"no record", &[22, 3, 3, 0, 0]] {
        let mut peer = TlsPeer::open(running.address);
        peer.send(&[frames::close(1000, "")]);
        peer.expect(&frames::close(1000, ""));
        while !peer.closed {
            assert!(peer.read(), "the stream ends without close_notify");
        }
        peer.peer.write_last(records);
        let outcome = outcomes.next();
        assert_eq!((outcome.cause, outcome.kind), (None, None), "{records:?}");
        assert_eq!(peer.read_to_end(), (Vec::new(), true));
    }
    TlsPeer::open(running.address).echo("the loop goes on");
}

/// RFC 8446 §4.6.3.
#[test]
fn keys_can_be_updated() {
    let _watchdog = watchdog();
    let running = start(echo(), &server_tls());
    let mut peer = TlsPeer::open(running.address);
    for number in 0..5 {
        let update = peer.far.update_keys();
        peer.peer.write(update);
        peer.echo(&format!("{number}"));
    }
}

/// Each makes work: rustls takes 32 without a message between them.
#[test]
fn too_many_updates_of_keys_are_refused() {
    let _watchdog = watchdog();
    let mut server = echo();
    let outcomes = server_outcomes(&mut server);
    let running = start(server, &server_tls());
    let mut peer = TlsPeer::open(running.address);
    peer.echo("a");
    let updates: Vec<u8> = (0..33).flat_map(|_| peer.far.update_keys()).collect();
    peer.peer.write(updates);
    drop(peer);
    let outcome = outcomes.next();
    assert_eq!((outcome.cause, outcome.kind), (TLS_FAILED, Some(Kind::Protocol)));
    assert!(outcome.error.unwrap().contains("TooManyKeyUpdateRequests"));
}

#[test]
fn a_record_that_was_changed_ends_the_connection() {
    let _watchdog = watchdog();
    let mut server = server();
    let (sender, received) = channel();
    server.on_message(move |message, _| sender.send(message.as_bytes().to_vec()).unwrap());
    let outcomes = server_outcomes(&mut server);
    let running = start(server, &server_tls());
    let mut peer = TlsPeer::open(running.address);
    let good = peer.far.send(&frames::text("good").bytes(peer.peer.role));
    let mut bad = peer.far.send(&frames::text("bad").bytes(peer.peer.role));
    *bad.last_mut().unwrap() ^= 1;
    peer.peer.write([good, bad].concat());
    drop(peer);
    let outcome = outcomes.next();
    assert_eq!((outcome.cause, outcome.kind), (TLS_FAILED, Some(Kind::Protocol)));
    assert_eq!(received.try_recv().unwrap(), b"good"); // what came before it was authentic
    assert!(received.try_recv().is_err());
}

#[test]
fn both_versions_are_spoken() {
    let _watchdog = watchdog();
    let (sender, versions) = channel();
    let mut server = server();
    server.on_open(move |context| {
        let tls = context.tls().unwrap();
        assert!(context.is_secure() && tls.cipher_suite().is_some());
        sender.send(tls.protocol_version().unwrap()).unwrap();
    });
    let running = start(server, &server_tls());
    for version in [&version::TLS12, &version::TLS13] {
        let config = client_config(Authority::shared(), None, &[version]);
        let mut peer = TlsPeer::connect(running.address, config);
        peer.shake_hands();
        peer.upgrade();
        assert_eq!(versions.recv().unwrap(), version.version);
        peer.send(&[frames::close(1000, "")]);
        peer.expect(&frames::close(1000, ""));
        let (rest, closed) = peer.read_to_end();
        assert!(rest.is_empty() && closed, "{:?}", version.version);
    }
}

/// RFC 7301: a client that offers other protocols only is refused.
#[test]
fn a_client_of_another_protocol_is_refused() {
    let _watchdog = watchdog();
    let mut server = server();
    let outcomes = server_outcomes(&mut server);
    let running = start(server, &server_tls());
    let mut config = rustls::ClientConfig::clone(&trusting_config());
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut peer = TlsPeer::connect(running.address, config.into());
    let hello = peer.far.send(&[]);
    peer.peer.write(hello);
    let alert = peer.peer.read_to_end();
    let error = peer.far.receive(&alert).unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    drop(peer);
    assert_eq!(outcomes.next().kind, Some(Kind::Protocol));
}

/// Plain requests are answered over TLS as without it.
#[test]
fn plain_requests_over_tls() {
    let _watchdog = watchdog();
    let mut server = server();
    server.on_http(|request, context| {
        assert!(context.tls().is_some_and(|tls| tls.alpn_protocol().is_none()));
        Answer::status(anyloop::http::StatusCode::OK, request.uri().path())
    });
    let running = start(server, &server_tls());
    let mut peer = TlsPeer::connect(running.address, trusting_config());
    peer.shake_hands();
    peer.write("GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (answer, closed) = peer.read_to_end();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("/page\n"), "{answer}");
    assert!(closed);
}

/// rustls keeps ranges of what it has got of an incomplete message, and panics without those bytes.
#[test]
fn pitfall_output_inside_a_message_of_tls() {
    let _watchdog = watchdog();
    let mut server = server();
    let outcomes = server_outcomes(&mut server);
    let running = start(server, &server_tls());
    let mut config = rustls::ClientConfig::clone(&trusting_config());
    config.enable_secret_extraction = true;
    let mut peer = TlsPeer::connect(running.address, config.into());
    peer.shake_hands();
    peer.upgrade();
    let TlsPeer { mut peer, far, .. } = peer;
    let mut raw = far.into_raw();
    peer.write(raw.seal(rustls::ContentType::Handshake, &[24, 0])); // of a KeyUpdate
    for part in [&[0, 1][..], &[0]] {
        eventually("it is open", || running.server.broadcast("meanwhile") == 1);
        let mut record = [0; 64];
        assert!(std::io::Read::read(&mut peer, &mut record).unwrap() > 0);
        peer.write(raw.seal(rustls::ContentType::Handshake, part));
    }
    drop(peer);
    let outcome = outcomes.next();
    assert_eq!((outcome.cause, outcome.kind), (TLS_FAILED, Some(Kind::Truncated)));
    TlsPeer::open(running.address); // the loop goes on
}

/// A client whose connection is open, and which seals records of any type.
fn raw_client(running: &Running) -> (Peer, Raw) {
    let mut config = rustls::ClientConfig::clone(&trusting_config());
    config.enable_secret_extraction = true;
    let mut peer = TlsPeer::connect(running.address, config.into());
    peer.shake_hands();
    peer.upgrade();
    let TlsPeer { peer, far, .. } = peer;
    (peer, far.into_raw())
}

/// A record whose tag is wrong.
const GARBAGE: [u8; 37] = {
    let mut record = [b'x'; 37];
    (record[0], record[1], record[2], record[3], record[4]) = (23, 3, 3, 0, 32);
    record
};

/// What a record of an alert has, sealed: header, two bytes, the type and the tag (RFC 8446 §5.2).
const ALERT: usize = 5 + 2 + 1 + 16;

/// The lengths of some records.
fn lengths(mut records: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let [_, _, _, high, low, ..] = *records {
        lengths.push(5 + usize::from(u16::from_be_bytes([high, low])));
        records = &records[lengths[lengths.len() - 1]..];
    }
    lengths
}

/// A message before an error is not answered after the alert, and nothing is asked of rustls, which panics.
#[test]
fn pitfall_output_after_an_error_inside_a_message_of_tls() {
    use rustls::ContentType as T;

    let _watchdog = watchdog();
    let mut server = echo();
    let outcomes = server_outcomes(&mut server);
    let running = start(server, &server_tls());
    for ending in 0..4 {
        let (mut peer, mut raw) = raw_client(&running);
        let hello = frames::text("hello").bytes(peer.role);
        let mut records = raw.seal(T::ApplicationData, &hello);
        records.extend(raw.seal(T::Handshake, &[24, 0][..if ending == 1 { 1 } else { 2 }]));
        match ending {
            0 => records.extend(GARBAGE),
            1 => records.extend(raw.seal(T::ApplicationData, &hello)),
            2 => records.extend(raw.seal(T::Alert, &[1, 0])), // close_notify
            _ => {
                let close = frames::close(1000, "").bytes(peer.role);
                records =
                    [raw.seal(T::ApplicationData, &close), records, GARBAGE.to_vec()].concat();
            }
        }
        peer.write(records);
        let answer = lengths(&peer.read_to_end());
        assert!(answer.is_empty() || answer == [ALERT], "{ending}: {answer:?}");
        drop(peer);
        let outcome = outcomes.next();
        assert_eq!(outcome.kind, Some(Kind::Protocol), "{ending}: {outcome:?}");
    }
    TlsPeer::open(running.address).echo("the loop goes on");
}

/// The completion of a message says so if it was not sent, whatever its length.
#[test]
fn messages_after_an_error_of_tls_are_reported_as_unsent() {
    let _watchdog = watchdog();
    for len in [5, 1 << 20] {
        let (sender, results) = channel();
        let mut server = server();
        server.on_message(move |_, context| {
            let sender = sender.clone();
            let _ = context.send_then(vec![0; len], move |result| sender.send(result).unwrap());
        });
        let running = start(server, &server_tls());
        let (peer, mut raw) = raw_client(&running);
        let hello = frames::text("hello").bytes(peer.role);
        let hello = raw.seal(rustls::ContentType::ApplicationData, &hello);
        peer.write([hello, GARBAGE.to_vec()].concat());
        assert!(results.recv_timeout(PATIENCE).unwrap().is_err(), "{len}");
    }
}

/// Sequences of records that end in an error, each in one write or cut in two, cost their sender only.
#[test]
fn sequences_of_records_that_end_in_an_error() {
    use rustls::ContentType as T;

    let _watchdog = watchdog();
    let mut server = echo();
    let outcomes = server_outcomes(&mut server);
    let running = start(server, &server_tls());
    let mut state = 1_u32;
    let mut random = move |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % below
    };
    for round in 0..60 {
        let (mut peer, mut raw) = raw_client(&running);
        let mut records = Vec::new();
        for _ in 0..random(5) {
            let hello = frames::text("hello").bytes(peer.role);
            records.extend(match random(5) {
                0 | 1 => raw.seal(T::ApplicationData, &hello),
                2 => raw.seal(T::ApplicationData, &[]),
                3 => raw.seal(T::Handshake, &[24]),
                _ => raw.seal(T::Handshake, &[24, 0, 0]),
            });
        }
        records.extend(match random(4) {
            0 => GARBAGE.to_vec(),
            1 => raw.seal(T::Handshake, &[1, 0, 0, 0]), // a ClientHello
            2 => raw.seal(T::Unknown(99), b"unknown"),
            _ => [raw.seal(T::Handshake, &[24]), raw.seal(T::Alert, &[2, 40])].concat(),
        });
        let cut = random(u32::try_from(records.len()).unwrap()) as usize;
        let (first, second) = records.split_at(if round % 2 == 0 { 0 } else { cut });
        peer.write(first);
        peer.write(second);
        peer.read_to_end();
        drop(peer);
        let outcome = outcomes.next();
        assert_eq!((outcome.cause, outcome.kind), (TLS_FAILED, Some(Kind::Protocol)), "{round}");
    }
    TlsPeer::open(running.address).echo("the loop goes on");
}

/// RFC 8446 §5.1: a message of the handshake may be in several records.
#[test]
fn a_message_of_the_handshake_in_many_records() {
    let _watchdog = watchdog();
    let running = start(echo(), &server_tls());
    for len in [1, 7, 45, 100, 1 << 20] {
        let mut config = rustls::ClientConfig::clone(&trusting_config());
        config.max_fragment_size = Some(40);
        let mut peer = TlsPeer::connect(running.address, config.into());
        let hello = peer.far.send(&[]);
        assert!(hello.len() > 200, "several records of 40 bytes");
        for part in hello.chunks(len) {
            peer.peer.write(part);
        }
        peer.shake_hands();
        peer.upgrade();
        peer.echo("in many records as well");
    }
}

/// What a peer may make this end keep before the handshake is bounded.
#[test]
fn a_message_of_the_handshake_that_is_too_large() {
    let _watchdog = watchdog();
    let mut server = server();
    let outcomes = server_outcomes(&mut server);
    let running = start(server, &server_tls());
    let peer = Peer::connect(running.address);
    let mut record = vec![22, 3, 1, 0x40, 0];
    record.extend([1, 0xff, 0xff, 0xff]); // a ClientHello of 16 MiB
    record.resize(5 + 0x4000, 0);
    let mut writer = peer.writer();
    for _ in 0..20 {
        if std::io::Write::write_all(&mut writer, &record).is_err() {
            break; // it was refused
        }
    }
    assert_eq!(outcomes.next().cause, TLS_FAILED);
}
