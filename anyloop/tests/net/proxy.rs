//! Clients behind a proxy, which is a thread of the test.

mod failures;
#[cfg(feature = "tls-core")]
mod over_tls;
mod tunnels;

use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;

use anyloop::net::Proxy;
use anyloop_testkit::peer::{Peer, serve};

/// The answer of an HTTP proxy that opens a tunnel.
const ESTABLISHED: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

/// The replies of a SOCKS5 proxy without authentication that has connected.
const NO_AUTHENTICATION: &[u8] = b"\x05\x00";
const CONNECTED: &[u8] = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50";

/// An HTTP proxy that answers one client with `answer`, and passes its bytes on to `server`. It returns the request.
fn http_proxy(server: SocketAddr, answer: &'static str) -> (Proxy, JoinHandle<String>) {
    let (address, thread) = serve(move |mut peer| {
        let head = peer.read_head();
        peer.write(answer);
        peer.relay(server);
        head
    });
    (Proxy::http(address.ip().to_string(), address.port()), thread)
}

/// A SOCKS5 proxy without authentication that passes the bytes of one client on to `server`. It returns the request.
fn socks_proxy(server: SocketAddr) -> (SocketAddr, JoinHandle<Vec<u8>>) {
    serve(move |mut peer| {
        assert_eq!(read(&mut peer, 3), b"\x05\x01\x00");
        peer.write(NO_AUTHENTICATION);
        let request = read_socks_request(&mut peer);
        peer.write(CONNECTED);
        peer.relay(server);
        request
    })
}

fn read_socks_request(peer: &mut Peer) -> Vec<u8> {
    let mut request = read(peer, 5);
    let rest = match request[3] {
        1 => 4 + 2 - 1,
        3 => usize::from(request[4]) + 2,
        4 => 16 + 2 - 1,
        other => panic!("address type {other}"),
    };
    request.extend(read(peer, rest));
    request
}

/// Reads this many bytes.
#[track_caller]
fn read(peer: &mut Peer, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    io::Read::read_exact(&mut peer.stream, &mut bytes).expect("as many bytes");
    bytes
}
