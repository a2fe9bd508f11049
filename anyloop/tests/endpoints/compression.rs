//! permessage-deflate, as endpoints use it. The codec itself is tested in the core.

use anyloop::endpoint::Server;
use anyloop::prelude::*;
use anyloop::proto::Kind;

use crate::record::{Log, recording};
use crate::subject::{Pair, Subject, client_config, new_server, server_config};
use crate::transports::{Clock, End, TestTransport, over_each_transport};
use crate::wire::{self, Frame};

over_each_transport! {
    messages_are_compressed_in_both_directions,
    messages_of_a_handle_are_compressed_or_not,
    pieces_are_compressed_or_not,
    a_broadcast_is_compressed_once_for_all,
    a_broadcast_that_is_exempt_is_not_compressed,
    short_messages_are_not_compressed,
    peers_that_do_not_compress_are_served,
    rfc7692_8_a_message_that_inflates_beyond_the_limit_fails_with_1009,
    rfc7692_7_2_2_a_message_that_is_corrupt_fails_with_1007;
    not over sockets:
    pieces_of_a_handle_are_compressed_or_not,
    the_handler_is_told_what_was_agreed,
}

/// Larger than the threshold, and repetitive.
fn long(word: &str) -> String {
    format!("{word} ").repeat(50)
}

fn deflating_server() -> ServerConfig {
    server_config().deflate(Deflate::pooled())
}

/// An open server whose client has offered to compress.
fn open_server<C: TestTransport>(config: ServerConfig, handlers: &Handlers) -> Subject<C> {
    let mut subject = Subject::server(config, handlers.clone());
    open(&mut subject);
    subject
}

/// Opens a connection whose client offers to compress. Returns the response.
fn open<C: TestTransport>(subject: &mut Subject<C>) -> String {
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
    let request = wire::REQUEST.strip_suffix("\r\n").unwrap().to_string() + offer;
    subject.receive_bytes(request);
    subject.sent_head().0
}

/// The frame has the bit of a compressed message (RFC 7692 §6).
fn is_compressed(frame: &Frame) -> bool {
    frame.rsv == 0x40
}

fn messages_are_compressed_in_both_directions<C: TestTransport>() {
    let (log, mut echo) = (Log::default(), Handlers::new());
    echo.on_message(|message, context| _ = context.send(message));
    let client = client_config().deflate(Deflate::pooled());
    let mut pair = Pair::<C>::new((client, recording(&log)), (deflating_server(), echo));
    pair.run();
    log.take();
    for word in ["alpha", "beta", "alpha"] {
        pair.client.with_handle(|handle| handle.send(long(word)).unwrap());
        let bytes = pair.client.end.take_output();
        assert!(bytes.len() < 50, "{} bytes from the client", bytes.len());
        pair.server.receive_bytes(bytes);
        let bytes = pair.server.end.take_output();
        assert!(bytes.len() < 50, "{} bytes from the server", bytes.len());
        pair.client.receive_bytes(bytes);
        assert_eq!(log.take(), [format!("text {}", long(word))]);
    }
}

fn messages_of_a_handle_are_compressed_or_not<C: TestTransport>() {
    let mut subject = open_server::<C>(deflating_server(), &Handlers::new());
    subject.with_handle(|handle| {
        handle.send(long("a")).unwrap();
        handle.send(Uncompressed(long("a"))).unwrap();
        handle.send_prepared(&Prepared::from(long("a"))).unwrap();
        handle.send_prepared(&Prepared::from(Uncompressed(long("a").as_str()))).unwrap();
    });
    let sent: Vec<_> = subject.sent().iter().map(is_compressed).collect();
    assert_eq!(sent, [true, false, true, false]);
}

fn pieces_are_compressed_or_not<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_message(|message, context| {
        match message.as_text() {
            Some("plain") => context.begin_uncompressed(Kind::Text).unwrap(),
            _ => context.begin(Kind::Text).unwrap(),
        }
        context.piece(b"one, ", false).unwrap();
        context.piece(b"two", true).unwrap();
        context.send(Uncompressed(long("a"))).unwrap();
        context.send(long("a")).unwrap();
    });
    let mut subject = open_server::<C>(deflating_server(), &handlers);
    subject.receive(&[wire::text("deflate"), wire::text("plain")]);
    let sent: Vec<_> = subject.sent().iter().map(is_compressed).collect();
    // The bit is on the first frame of a message only (RFC 7692 §6.1).
    assert_eq!(sent, [true, false, false, true, false, false, false, true]);
}

fn pieces_of_a_handle_are_compressed_or_not<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_message(|_, context| {
        // These wait for the last piece of the writer.
        context.send_then(Uncompressed(long("b")), |_| ()).unwrap();
        context.send_then(long("c"), |_| ()).unwrap();
    });
    let mut subject = open_server::<C>(deflating_server(), &handlers);
    let mut writer = subject.end.handle().begin(Kind::Text);
    writer.piece(Uncompressed(long("a")), false).unwrap();
    subject.drain();
    subject.receive(&[wire::text("send")]);
    writer.piece("end", true).unwrap();
    subject.drain();
    let sent: Vec<_> = subject.sent().iter().map(is_compressed).collect();
    assert_eq!(sent, [false, false, false, true]);

    let mut writer = subject.end.handle().begin(Kind::Text);
    writer.piece(long("a"), true).unwrap();
    subject.drain();
    assert!(is_compressed(&subject.sent()[0]));
}

fn a_broadcast_is_compressed_once_for_all<C: TestTransport>() {
    let clock = Clock::default();
    let server = new_server::<C, _>(deflating_server(), Handlers::new(), &clock);
    let mut subjects: Vec<_> = (0..3).map(|_| Subject::<C>::of_server(&server, &clock)).collect();
    for subject in &mut subjects {
        open(subject);
    }
    // Connections with different histories get the same bytes.
    subjects[1].with_handle(|handle| handle.send(long("beta")).unwrap());
    subjects[1].sent();
    assert_eq!(server.handle().broadcast(long("news")), 3);
    let mut frames = Vec::new();
    for subject in &mut subjects {
        subject.drain();
        frames.extend(subject.sent());
    }
    assert_eq!(frames.len(), 3);
    assert!(is_compressed(&frames[0]));
    assert!(frames.iter().all(|frame| *frame == frames[0]));
}

fn a_broadcast_that_is_exempt_is_not_compressed<C: TestTransport>() {
    let clock = Clock::default();
    let server = new_server::<C, _>(deflating_server(), Handlers::new(), &clock);
    let mut subject = Subject::<C>::of_server(&server, &clock);
    open(&mut subject);
    server.handle().broadcast(Uncompressed(long("news")));
    subject.drain();
    assert_eq!(subject.sent(), [wire::text(long("news"))]);
}

fn short_messages_are_not_compressed<C: TestTransport>() {
    let mut echo = Handlers::new();
    echo.on_message(|message, context| _ = context.send(message));
    let mut subject = open_server::<C>(deflating_server(), &echo);
    for (len, compressed) in [(0, false), (63, false), (64, true), (20_000, true)] {
        let text = "a".repeat(len);
        subject.receive(&[wire::text(&text)]);
        let sent = subject.sent();
        assert_eq!(is_compressed(&sent[0]), compressed, "{len} bytes");
    }
}

fn peers_that_do_not_compress_are_served<C: TestTransport>() {
    let mut echo = Handlers::new();
    echo.on_message(|message, context| _ = context.send(message));
    let mut subject = Subject::<C>::server(deflating_server(), echo).open();
    subject.receive(&[wire::text(long("a"))]);
    assert_eq!(subject.sent(), [wire::text(long("a"))]);
}

/// A message as it could have been compressed: with the bit, and this payload.
fn compressed(payload: &[u8]) -> Frame {
    Frame { rsv: 0x40, ..wire::binary(payload) }
}

fn rfc7692_8_a_message_that_inflates_beyond_the_limit_fails_with_1009<C: TestTransport>() {
    let log = Log::default();
    let config = deflating_server().max_message_size(100_000);
    let mut subject = open_server::<C>(config, &recording(&log));
    log.take();
    subject.receive(&[compressed(&bomb())]);
    assert!(log.take().is_empty(), "nothing was delivered");
    assert_eq!(subject.sent(), [wire::close(1009, "decoded message too big")]);
}

/// A compressed message of 1 MB, in about 1 KB.
fn bomb() -> Vec<u8> {
    let mut subject =
        open_server::<crate::transports::ByHand>(deflating_server(), &Handlers::new());
    subject.with_handle(|handle| handle.send(vec![0; 1_000_000]).unwrap());
    let frame = subject.sent().remove(0);
    assert!(is_compressed(&frame) && frame.payload.len() < 2_000);
    frame.payload
}

fn rfc7692_7_2_2_a_message_that_is_corrupt_fails_with_1007<C: TestTransport>() {
    let mut subject = open_server::<C>(deflating_server(), &Handlers::new());
    subject.receive(&[compressed(&[0xff; 10])]);
    assert_eq!(subject.sent(), [wire::close(1007, "extension cannot decode the message")]);
}

fn the_handler_is_told_what_was_agreed<C: TestTransport>() {
    let log = Log::default();
    let (mut handlers, told) = (Handlers::new(), log.clone());
    handlers.on_open(move |context| {
        let info = context.handshake_info().unwrap();
        told.push(format!("{:?}", info.extension));
    });
    let mut subject = Subject::<C>::server(deflating_server(), handlers.clone());
    let agreed = "permessage-deflate; client_max_window_bits=10";
    let response = open(&mut subject);
    assert!(
        response.contains(&format!("\r\nSec-WebSocket-Extensions: {agreed}\r\n")),
        "{response}"
    );
    assert_eq!(log.take(), [format!("{:?}", Some(agreed))]);

    let mut without = Subject::<C>::server(server_config(), handlers);
    assert!(!open(&mut without).contains("Extensions"));
    assert_eq!(log.take(), ["None"]);
}
