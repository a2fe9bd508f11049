//! Peers that encode frames without the library, and can violate the protocol.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyloop::proto::handshake::http::StatusCode;
use anyloop::proto::handshake::{Accept, OriginPolicy, ServerHandshake, ServerOptions};
use anyloop::proto::{Input, Instant, Role};
pub(crate) use anyloop_testkit::frames::{BINARY, CLOSE, PING, PONG, TEXT};
use anyloop_testkit::peer::{self, Stream};
use anyloop_testkit::requests;
pub(crate) use anyloop_testkit::requests::field;

use crate::program::DEADLINE;

/// One end of a connection. Tests see frames as opcode and payload.
pub(crate) struct Peer(peer::Peer);

/// A server that accepts one connection.
pub(crate) struct Host(TcpListener);

impl Host {
    pub(crate) fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").expect("the system has a free port"))
    }

    /// A server that accepts a connection of this listener.
    pub(crate) const fn over(listener: TcpListener) -> Self {
        Self(listener)
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/path?query", self.0.local_addr().expect("the socket has an address"))
    }

    /// Accepts a connection without a handshake.
    pub(crate) fn accept(self) -> Peer {
        Peer::new(peer::Peer::accept(&self.0))
    }

    /// Accepts a connection and its opening handshake. Also returns the request.
    pub(crate) fn open(self) -> (Peer, String) {
        let mut peer = self.accept();
        let request = peer.head();
        let options = ServerOptions::new(OriginPolicy::Any);
        let (now, mut response) = (Instant::from_nanos(0), Vec::new());
        let mut handshake = ServerHandshake::new(options.into(), now);
        let mut bytes = request.clone().into_bytes();
        let incoming = handshake.next(&mut Input::new(&mut bytes), now, &mut response);
        assert!(matches!(incoming, Ok(Some(_))), "{incoming:?}");
        handshake
            .accept(Accept::new(), now, &mut response)
            .expect("the request is a WebSocket request");
        peer.write(&response);
        (peer, request)
    }
}

impl Peer {
    /// A client that is connected and has not sent its request.
    pub(crate) fn dial(address: SocketAddr) -> Self {
        Self::new(peer::Peer::connect(address))
    }

    /// A client that has completed its opening handshake.
    pub(crate) fn client(address: SocketAddr, path: &str) -> Self {
        let mut peer = Self::dial(address);
        peer.ask(path);
        peer
    }

    /// As `client`, over a Unix domain socket.
    pub(crate) fn unix(path: &std::path::Path) -> Self {
        let mut peer = Self::new(peer::Peer::connect_unix(path));
        peer.ask("/");
        peer
    }

    /// Two handles of the connection: one to read, and one to write.
    pub(crate) fn split(self) -> (Self, Self) {
        let (stream, role) = (self.0.writer(), self.0.role);
        (self, Self::new(peer::Peer::over(stream, role)))
    }

    /// A client over a connected stream.
    pub(crate) fn over(stream: TcpStream) -> Self {
        Self::new(peer::Peer::over(Stream::from(stream), Role::Client))
    }

    fn new(peer: peer::Peer) -> Self {
        peer.stream.set_read_timeout(Some(DEADLINE)).expect("the timeout is not zero");
        Self(peer)
    }

    /// Sends a WebSocket request, and asserts that it is accepted.
    pub(crate) fn ask(&mut self, path: &str) {
        assert_eq!(self.request(path, ""), StatusCode::SWITCHING_PROTOCOLS);
    }

    /// Sends a WebSocket request with these additional lines. Returns the status of the response.
    pub(crate) fn request(&mut self, path: &str, lines: &str) -> StatusCode {
        self.0.write(requests::with_lines(&requests::request(path), lines));
        let head = self.head();
        let accepted =
            field(&head, "Sec-WebSocket-Accept").is_none_or(|key| key == requests::ACCEPT);
        assert!(accepted, "{head}");
        StatusCode::from_u16(requests::status(&head)).expect("the status is valid")
    }

    /// Waits for input, and leaves it unread, so that the stream is reset when it is closed.
    pub(crate) fn await_input(&self) {
        let peeked = match &self.0.stream {
            Stream::Tcp(stream) => stream.peek(&mut [0]),
            Stream::Unix(_) => panic!("only TCP is reset"),
        };
        assert_eq!(peeked.expect("the stream is open"), 1);
    }

    /// Reads the head of a request or response.
    pub(crate) fn head(&mut self) -> String {
        self.0.read_head()
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// Sends a frame.
    pub(crate) fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.0.send(&[anyloop_testkit::frames::frame(opcode, payload)]);
    }

    /// Sends a frame of a message that has several: the opcode is 0 after the first one.
    pub(crate) fn send_part(&mut self, opcode: u8, payload: &[u8], is_last: bool) {
        let frame = anyloop_testkit::frames::frame(opcode, payload);
        self.0.send(&[if is_last { frame } else { frame.more() }]);
    }

    /// Receives the next frame: opcode and payload. `None` at the end of the stream.
    pub(crate) fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        self.try_receive().expect("a complete frame, or the end of the stream")
    }

    /// As `receive`, but returns errors of the stream.
    pub(crate) fn try_receive(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        let frame = self.0.next_frame()?;
        if let Some(frame) = &frame {
            assert_eq!(
                (frame.fin, frame.rsv),
                (true, 0),
                "the frame is not fragmented and has no reserved bits"
            );
        }
        Ok(frame.map(|frame| (frame.opcode, frame.payload)))
    }

    /// Receives a message that may have several frames.
    pub(crate) fn receive_parts(&mut self) -> (u8, Vec<u8>) {
        let mut message = (0, Vec::new());
        loop {
            let frame = self.0.next_frame().expect("a complete frame").expect("a frame");
            if frame.opcode != 0 {
                message.0 = frame.opcode;
            }
            message.1.extend(frame.payload);
            if frame.fin {
                return message;
            }
        }
    }

    /// Receives a frame, and asserts that it is this one.
    #[track_caller]
    pub(crate) fn expect(&mut self, opcode: u8, payload: &[u8]) {
        let (received, bytes) = self.receive().expect("a frame before the end of the stream");
        assert_eq!(
            (received, &*bytes.escape_ascii().to_string()),
            (opcode, &*payload.escape_ascii().to_string())
        );
    }

    /// Receives a frame, and asserts that it is a Close with this code. Returns the reason.
    #[track_caller]
    pub(crate) fn expect_close(&mut self, code: u16) -> String {
        let (opcode, payload) = self.receive().expect("a frame before the end of the stream");
        assert_eq!((opcode, &payload[..2]), (CLOSE, &code.to_be_bytes()[..]));
        String::from_utf8(payload[2..].to_vec()).expect("the reason is UTF-8")
    }

    /// Asserts that the stream ends.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        assert_eq!(self.receive(), None);
    }

    /// Sends a Close with this code, and asserts that the same Close and the end of the stream follow.
    #[track_caller]
    pub(crate) fn close(mut self, code: u16) {
        self.send(CLOSE, &code.to_be_bytes());
        self.expect_close(code);
        if self.0.role == Role::Client {
            self.expect_end();
        }
    }

    /// Reads all bytes up to the end of the stream.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        Read::read_to_end(&mut self.0, &mut bytes).expect("the stream ends");
        bytes
    }
}

/// The bytes of a frame with the FIN bit (RFC 6455 §5.2).
pub(crate) fn frame(opcode: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let from = if masked { Role::Client } else { Role::Server };
    anyloop_testkit::frames::frame(opcode, payload).bytes(from)
}
