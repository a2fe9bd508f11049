//! The bytes that the two ends send: shorthands of `anyloop_testkit`.

use std::time::Duration;

use anyloop::proto::Role;
use anyloop_testkit::peer::Peer;
use anyloop_testkit::{frames, requests};
use socket2::SockRef;

/// A request for a WebSocket.
pub(crate) fn request(target: &str) -> Vec<u8> {
    requests::request(target).into_bytes()
}

/// A frame as a client sends it.
pub(crate) fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frames::frame(opcode, payload).bytes(Role::Client)
}

/// A frame as a server sends it.
pub(crate) fn unmasked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frames::frame(opcode, payload).bytes(Role::Server)
}

/// A text message, as a client sends it.
pub(crate) fn text(payload: impl AsRef<[u8]>) -> Vec<u8> {
    frames::text(payload).bytes(Role::Client)
}

/// The text messages `0`, `1`, ... one after the other, as a client sends them.
pub(crate) fn numbered(messages: usize) -> Vec<u8> {
    (0..messages).flat_map(|i| text(i.to_string())).collect()
}

/// A ping, as a client sends it.
pub(crate) fn ping(payload: &str) -> Vec<u8> {
    frames::ping(payload).bytes(Role::Client)
}

/// A Close, as a client sends it.
pub(crate) fn close(code: u16) -> Vec<u8> {
    frames::close(code, "").bytes(Role::Client)
}

/// Closes a socket so that the other end finds it reset.
pub(crate) fn reset(peer: Peer) {
    SockRef::from(&peer.stream).set_linger(Some(Duration::ZERO)).unwrap();
}
