//! What a connection over TLS keeps.

#[path = "../net/tls/peer.rs"]
#[allow(dead_code, reason = "shared")]
mod peer;

use std::io::{self, Read};
use std::sync::LazyLock;

use anyloop::http::Response;
use anyloop::prelude::*;
use anyloop::tls::ServerTls;
use anyloop_testkit::frames::binary;
use anyloop_testkit::tls::{Authority, Identity};
use anyloop_testkit::wait::eventually;
use anyloop_testkit::watchdog::watchdog;

use self::peer::{TlsPeer, trusting_config};
use super::heap::in_use;
use super::setup::{Running, server_with};
use super::{TOLERANCE, one_at_a_time, without_timeouts};

static IDENTITY: LazyLock<Identity> = LazyLock::new(|| Authority::shared().issue(&["localhost"]));

/// An idle connection has what rustls keeps, and no buffers: neither of records, nor of their content.
#[test]
fn idle_connections_over_tls_keep_no_buffers() {
    const COUNT: usize = 100;
    const MOST: usize = 8 << 10;
    let (_lock, _watchdog) = (one_at_a_time(), watchdog());
    let mut server = server_with(without_timeouts().keep_handshake(false));
    server.on_message(|message, context| _ = context.send(message));
    let tls = ServerTls::from_pem(IDENTITY.certificate.as_str(), IDENTITY.key.as_str()).unwrap();
    server.over_tls(&tls).listen("127.0.0.1:0").unwrap();
    let running = Running::start(server);
    let open = || {
        let mut peer = TlsPeer::open(running.address);
        let message = binary(vec![7; 50_000]);
        peer.send(std::slice::from_ref(&message));
        peer.expect(&message);
        peer.peer // what TLS needs at this end is freed
    };
    let _first = open(); // the thread has its buffers
    let before = in_use();
    let peers: Vec<_> = (0..COUNT).map(|_| open()).collect();
    eventually("they keep little", || in_use() < before + COUNT * MOST);
    assert_eq!(running.server.connections().len(), 1 + peers.len());
}

#[test]
fn a_body_over_tls_needs_no_memory() {
    const LEN: u64 = 64 << 20;
    let (_lock, _watchdog) = (one_at_a_time(), watchdog());
    let mut server = server_with(without_timeouts());
    let body = || Body::from_reader(io::repeat(7).take(LEN), LEN);
    server.on_http(move |_, _| Response::new(body()));
    let tls = ServerTls::from_pem(IDENTITY.certificate.as_str(), IDENTITY.key.as_str()).unwrap();
    server.over_tls(&tls).listen("127.0.0.1:0").unwrap();
    let running = Running::start(server);
    let mut peer = TlsPeer::connect(running.address, trusting_config());
    peer.shake_hands();
    let (base, mut most, mut received) = (in_use(), 0, 0);
    peer.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    while peer.read() {
        received += std::mem::take(&mut peer.plain).len() as u64;
        most = most.max(in_use());
    }
    assert!(peer.closed && received > LEN, "{received} bytes came");
    assert!(most < base + TOLERANCE, "{most} bytes, and before {base}");
}
