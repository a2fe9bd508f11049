//! Payloads that handles own are not copied: neither for peers that read, nor for those that do not.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Mutex};

use anyloop::iostream;
use anyloop::prelude::*;
use anyloop_testkit::requests::REQUEST;
use bytes::Bytes;

use super::heap::{allocated, in_use};
use super::{one_at_a_time, without_timeouts};

/// The size of a message.
const SIZE: usize = 1 << 20;

/// More than all other memory that a message needs, and much less than a copy.
const LITTLE: usize = SIZE / 16;

/// A peer that reads so many bytes, and then no more.
struct Reads(usize);

impl Write for Reads {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.0.min(bytes.len());
        self.0 -= n;
        if n > 0 { Ok(n) } else { Err(ErrorKind::WouldBlock.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open_server(output: impl Write + Send + 'static) -> iostream::Connection<Handlers> {
    let connection = iostream::Server::new(without_timeouts()).connection();
    connection.set_write_handler(|_| Ok(()));
    connection.read_all(REQUEST.as_bytes()).unwrap();
    connection.register_output(output);
    connection
}

#[test]
fn owned_payloads_are_not_copied_for_a_peer_that_reads() {
    let _alone = one_at_a_time();
    let connection = open_server(io::sink());
    let handle = connection.handle();
    let (vec, string, bytes) = (vec![7; SIZE], "a".repeat(SIZE), Bytes::from(vec![7; SIZE]));
    let piece = vec![7; SIZE];
    let before = allocated();
    handle.send(vec).unwrap();
    handle.send(string).unwrap();
    handle.send(bytes).unwrap();
    handle.begin(Kind::Binary).piece(piece, true).unwrap();
    connection.drive().unwrap();
    assert_eq!(connection.statistics().map(|it| it.bytes_sent), Some(4 * SIZE as u64));
    let needed = allocated() - before;
    assert!(needed < LITTLE, "{needed} bytes");
}

/// What they have not read is kept once for all of them.
#[test]
fn an_owned_payload_is_kept_once_for_peers_that_do_not_read() {
    const PEERS: usize = 3;
    let _alone = one_at_a_time();
    // One has read nothing, one the header and a part of the payload; before the last, another message waits.
    let peers = [0, 1000, 0].map(|reads| open_server(Reads(reads)));
    peers[PEERS - 1].handle().send("before").unwrap();
    peers[PEERS - 1].drive().unwrap();
    let bytes: Vec<u8> = (0..SIZE).map(|n| (n / 251) as u8).collect();
    let payload = Payload::from(bytes.clone());
    let before = allocated();
    for peer in &peers {
        peer.handle().send(&payload).unwrap();
        peer.handle().begin(Kind::Binary).piece(&payload, true).unwrap();
        peer.drive().unwrap();
        assert!(peer.handle().buffered_amount() > 2 * SIZE - 1000);
    }
    let needed = allocated() - before;
    assert!(needed < LITTLE, "{needed} bytes");
    drop(payload);
    for peer in &peers {
        let received = Arc::new(Mutex::new(Vec::new()));
        let reader = received.clone();
        peer.set_write_handler(move |bytes| {
            reader.lock().unwrap().extend_from_slice(bytes);
            Ok(())
        });
        let received = received.lock().unwrap();
        assert!(received.ends_with(&bytes) && received.len() > 2 * SIZE - 1000);
        assert_eq!(peer.handle().buffered_amount(), 0);
    }
}

/// The rest is copied: it must not keep all of the payload.
#[test]
fn a_payload_is_freed_when_little_of_it_waits() {
    let _alone = one_at_a_time();
    for left in [1000, 20_000] {
        let connection = open_server(Reads(SIZE - left));
        let handle = connection.handle();
        let before = in_use();
        handle.send(vec![7; SIZE]).unwrap();
        connection.drive().unwrap();
        let waiting = handle.buffered_amount();
        assert!(waiting > left && waiting < left + 100, "{waiting} bytes");
        assert!(in_use() < before + LITTLE);
    }
}
