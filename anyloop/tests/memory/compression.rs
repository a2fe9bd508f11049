//! Memory of permessage-deflate.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Waker;
use std::time::Duration;

use anyloop::iostream;
use anyloop::prelude::*;
use anyloop::proto::extension::Contexts;
use anyloop::proto::handshake::{Negotiator, Params};
use anyloop::proto::{Instant, Kind, Role, Shutdown};
use anyloop::transport::{Buffers, Driver, Server, Transport};
use anyloop_testkit::frames::{Frame, binary, stream};
use anyloop_testkit::requests;

use super::heap::in_use;
use super::{one_at_a_time, without_timeouts};

const CONNECTIONS: usize = 200;

/// What a compressor and a decompressor hold at least.
const CONTEXTS: usize = 150 << 10;

/// A transport that writes nowhere, and counts.
#[derive(Default)]
struct Nowhere {
    written: usize,
}

impl Transport for Nowhere {
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let len = slices.iter().map(|slice| slice.len()).sum();
        self.written += len;
        Ok(len)
    }

    fn shutdown(&mut self, _: Shutdown) -> io::Result<()> {
        Ok(())
    }
}

fn now() -> Instant {
    Instant::from_nanos(100_000_000_000)
}

/// A message of 4 KiB as a client with a window of 1 KiB sends it, compressed.
fn message() -> Frame {
    let mut payload: Vec<u8> = Vec::new();
    while payload.len() < 4096 {
        payload.extend_from_slice(format!("{} bottles; ", payload.len()).as_bytes());
    }
    let offer = Params::new().with_value("server_max_window_bits", 10);
    let (_, mut codec) = Deflate::pooled().accept(&offer).unwrap();
    let mut compressed = Vec::new();
    let rsv = codec.encoder.begin(Kind::Binary, Some(payload.len()));
    assert!(rsv.is_some());
    codec.encoder.encode(&payload, true, &mut compressed, &mut Contexts::new());
    assert!(compressed.len() < 2048);
    binary(compressed).rsv(0x40)
}

/// The bytes that each of many open connections holds after a message, and what their thread holds beside.
fn measure(extensions: &str, frame: &Frame) -> (usize, usize) {
    let mut server =
        Server::new(without_timeouts().keep_handshake(false).deflate(Deflate::pooled()));
    server.on_message(|message, context| _ = context.send(message).unwrap());
    let request = requests::REQUEST.strip_suffix("\r\n").unwrap().to_string() + extensions + "\r\n";
    let frame = stream(std::slice::from_ref(frame), Role::Client);
    let (mut buffers, mut transport) = (Buffers::default(), Nowhere::default());
    let mut open = || -> Driver<_> {
        let mut driver = server.driver(Waker::noop(), now());
        driver.start(&mut transport, &mut buffers, now());
        for bytes in [request.as_bytes(), &frame, &frame] {
            let before = transport.written;
            driver.receive(&mut transport, &mut buffers, &mut bytes.to_vec(), now());
            assert!(transport.written > before, "it answers");
        }
        driver
    };
    let first = open();
    let mut connections = Vec::with_capacity(CONNECTIONS);
    let base = in_use();
    connections.extend((0..CONNECTIONS).map(|_| open()));
    let each = (in_use() - base) / CONNECTIONS;
    let before = in_use();
    for seconds in [2, 4] {
        buffers.trim(now() + Duration::from_secs(seconds));
    }
    let shared = before - in_use();
    drop((first, connections));
    (each, shared)
}

#[test]
fn a_pooled_connection_holds_its_histories_and_200_bytes() {
    let _alone = one_at_a_time();
    let plain = binary(vec![7; 4096]);
    let (plain, shared) = measure("", &plain);
    assert!(shared < CONTEXTS, "{shared} bytes");
    let extensions = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let (pooled, shared) = measure(extensions, &message());
    let histories = 2 * 1024;
    assert!(pooled > plain + histories, "the histories are full");
    assert!(pooled <= plain + histories + 200, "{pooled} bytes, and {plain} without");
    assert!(shared > CONTEXTS, "only {shared} bytes were freed");
}

#[test]
fn an_iostream_connection_frees_its_contexts() {
    let _alone = one_at_a_time();
    let config = without_timeouts().keep_handshake(false).deflate(Deflate::pooled());
    let mut server = iostream::Server::new(config);
    let time = Arc::new(AtomicU64::new(now().as_nanos()));
    let clock = time.clone();
    server.set_clock(move || Instant::from_nanos(clock.load(Relaxed)));
    server.on_message(|message, context| _ = context.send(message).unwrap());
    let connection = server.connection();
    connection.register_output(io::sink());
    let head = requests::REQUEST.strip_suffix("\r\n").unwrap();
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
    connection.read_all(format!("{head}{offer}").as_bytes()).unwrap();
    let base = in_use();
    connection.read_all(&stream(&[message()], Role::Client)).unwrap();
    assert!(in_use() > base + CONTEXTS);
    let begun = now();
    while let Some(due) = connection.next_timeout() {
        assert!(due - begun <= Duration::from_secs(2), "it has no other deadline");
        time.store(due.as_nanos(), Relaxed);
        connection.handle_timeout().unwrap();
    }
    assert!(in_use() < base + CONTEXTS / 4);
}
