//! The other end of TLS, over a socket.

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::sync::Arc;

use anyloop::tls::rustls::{self, ClientConfig, ServerConfig};
use anyloop_testkit::frames::{self, Frame};
use anyloop_testkit::peer::Peer;
use anyloop_testkit::requests;
use anyloop_testkit::tls::{Authority, Far, client_config, server_config};

use super::IDENTITY;

/// A blocking end of a TLS connection.
pub(super) struct TlsPeer {
    pub(super) peer: Peer,
    pub(super) far: Far,
    /// Content that was not received.
    pub(super) plain: Vec<u8>,
    /// The other end has sent a close_notify.
    pub(super) closed: bool,
}

/// The configuration of a client that trusts the authority of the tests.
pub(super) fn trusting_config() -> Arc<ClientConfig> {
    client_config(Authority::shared(), None, rustls::ALL_VERSIONS)
}

/// The configuration of a server with the certificate of the tests.
pub(super) fn serving_config() -> Arc<ServerConfig> {
    server_config(&IDENTITY, None)
}

impl TlsPeer {
    /// A client that is connected, and whose handshake has not begun.
    pub(super) fn connect(address: SocketAddr, config: Arc<ClientConfig>) -> Self {
        Self::over(Peer::connect(address), Far::client(config))
    }

    /// A client whose connection is open.
    pub(super) fn open(address: SocketAddr) -> Self {
        let mut peer = Self::connect(address, trusting_config());
        peer.shake_hands();
        peer.upgrade();
        peer
    }

    pub(super) fn over(peer: Peer, far: Far) -> Self {
        Self { peer, far, plain: Vec::new(), closed: false }
    }

    /// Completes the handshake of TLS.
    pub(super) fn shake_hands(&mut self) {
        while self.far.is_handshaking() {
            let records = self.far.send(&[]);
            self.peer.write(records);
            if self.far.is_handshaking() {
                assert!(self.read(), "the stream ends inside the handshake");
            }
        }
        let rest = self.far.send(&[]);
        self.peer.write(rest);
    }

    /// Completes the opening handshake.
    pub(super) fn upgrade(&mut self) {
        self.write(requests::REQUEST);
        let head = self.read_head();
        assert!(head.starts_with(requests::SWITCHING), "{head}");
    }

    pub(super) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let records = self.far.send(bytes.as_ref());
        self.peer.write(records);
    }

    pub(super) fn send(&mut self, frames: &[Frame]) {
        let role = self.peer.role;
        self.write(frames::stream(frames, role));
    }

    pub(super) fn read_head(&mut self) -> String {
        loop {
            if let Some(end) = requests::head_end(&self.plain) {
                return String::from_utf8(self.plain.drain(..end).collect()).unwrap();
            }
            assert!(self.read(), "the stream ends before the head");
        }
    }

    /// The next frame; `None` if the stream ends before it.
    pub(super) fn receive(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, size)) = Frame::parse(&self.plain) {
                self.plain.drain(..size);
                return Some(frame);
            }
            if self.closed || !self.read() {
                return None;
            }
        }
    }

    /// The next frame if it has arrived.
    pub(super) fn poll_frame(&mut self) -> Option<Frame> {
        let _ = self.peer.poll_end();
        let records = std::mem::take(&mut self.peer.input);
        let (plain, closed) = self.far.receive(&records).expect("valid records");
        self.plain.extend(plain);
        self.closed |= closed;
        let (frame, size) = Frame::parse(&self.plain)?;
        self.plain.drain(..size);
        Some(frame)
    }

    pub(super) fn expect(&mut self, frame: &Frame) {
        let received = self.receive();
        assert!(received.as_ref() == Some(frame), "another frame, or none");
    }

    pub(super) fn echo(&mut self, text: &str) {
        self.send(&[frames::text(text)]);
        self.expect(&frames::text(text));
    }

    /// Reads once, and opens what was read. Returns false at the end of the stream.
    pub(super) fn read(&mut self) -> bool {
        let mut buffer = [0; 32 << 10];
        match self.peer.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(n) => {
                let (plain, closed) = self.far.receive(&buffer[..n]).expect("valid records");
                self.plain.extend(plain);
                self.closed |= closed;
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Reads up to the end of the stream. Returns the content that was not received, and whether a close_notify came.
    pub(super) fn read_to_end(mut self) -> (Vec<u8>, bool) {
        while self.read() {}
        (self.plain, self.closed)
    }
}
