//! Peers that speak RFC 6455 byte by byte, and break its rules where a test wants it.

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

/// One end of a connection, of which tests see opcodes and payloads.
pub(crate) struct Peer(peer::Peer);

/// A server that takes one connection.
pub(crate) struct Host(TcpListener);

impl Host {
    pub(crate) fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").expect("there is a port"))
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/path?query", self.0.local_addr().expect("it has one"))
    }

    /// Accepts a connection, and nothing else.
    pub(crate) fn accept(self) -> Peer {
        Peer::new(peer::Peer::accept(&self.0))
    }

    /// Accepts a connection and its handshake; also returns the request.
    pub(crate) fn open(self) -> (Peer, String) {
        let mut peer = self.accept();
        let request = peer.head();
        let options = ServerOptions::new(OriginPolicy::Any);
        let (now, mut response) = (Instant::from_nanos(0), Vec::new());
        let mut handshake = ServerHandshake::new(options.into(), now);
        let mut bytes = request.clone().into_bytes();
        let asked = handshake.next(&mut Input::new(&mut bytes), now, &mut response);
        assert!(matches!(asked, Ok(Some(_))), "{asked:?}");
        handshake.accept(Accept::new(), now, &mut response).expect("it is a WebSocket's");
        peer.write(&response);
        (peer, request)
    }
}

impl Peer {
    /// A client's end that has said nothing yet.
    pub(crate) fn dial(address: SocketAddr) -> Self {
        Self::new(peer::Peer::connect(address))
    }

    /// The client's end of a connection that is open.
    pub(crate) fn client(address: SocketAddr, path: &str) -> Self {
        let mut peer = Self::dial(address);
        peer.ask(path);
        peer
    }

    /// The same over a Unix socket.
    pub(crate) fn unix(path: &std::path::Path) -> Self {
        let mut peer = Self::new(peer::Peer::connect_unix(path));
        peer.ask("/");
        peer
    }

    /// The same end twice: one to read, and one to write.
    pub(crate) fn split(self) -> (Self, Self) {
        let (stream, role) = (self.0.writer(), self.0.role);
        (self, Self::new(peer::Peer::over(stream, role)))
    }

    /// A client's end of a stream that is there.
    pub(crate) fn over(stream: TcpStream) -> Self {
        Self::new(peer::Peer::over(Stream::from(stream), Role::Client))
    }

    fn new(peer: peer::Peer) -> Self {
        peer.stream.set_read_timeout(Some(DEADLINE)).expect("it is not zero");
        Self(peer)
    }

    /// Asks for a WebSocket, and gets it.
    pub(crate) fn ask(&mut self, path: &str) {
        assert_eq!(self.request(path, ""), StatusCode::SWITCHING_PROTOCOLS);
    }

    /// Asks for a WebSocket, with these lines in the request. Returns the status of the answer.
    pub(crate) fn request(&mut self, path: &str, lines: &str) -> StatusCode {
        self.0.write(requests::with_lines(&requests::request(path), lines));
        let head = self.head();
        let accepted =
            field(&head, "Sec-WebSocket-Accept").is_none_or(|key| key == requests::ACCEPT);
        assert!(accepted, "{head}");
        StatusCode::from_u16(requests::status(&head)).expect("a status")
    }

    /// A request or a response, up to its empty line.
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

    /// The next frame: opcode and payload. `None` at the end of the stream.
    pub(crate) fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        self.try_receive().expect("a whole frame")
    }

    /// The same of a stream that may be cut anywhere.
    pub(crate) fn try_receive(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        let frame = self.0.next_frame()?;
        if let Some(frame) = &frame {
            assert_eq!((frame.fin, frame.rsv), (true, 0), "one frame, without extensions");
        }
        Ok(frame.map(|frame| (frame.opcode, frame.payload)))
    }

    /// The next frame is this one.
    #[track_caller]
    pub(crate) fn expect(&mut self, opcode: u8, payload: &[u8]) {
        let (received, bytes) = self.receive().expect("a frame");
        assert_eq!(
            (received, &*bytes.escape_ascii().to_string()),
            (opcode, &*payload.escape_ascii().to_string())
        );
    }

    /// The next frame is a Close with this code. Returns the reason.
    #[track_caller]
    pub(crate) fn expect_close(&mut self, code: u16) -> String {
        let (opcode, payload) = self.receive().expect("a frame");
        assert_eq!((opcode, &payload[..2]), (CLOSE, &code.to_be_bytes()[..]));
        String::from_utf8(payload[2..].to_vec()).expect("it is UTF-8")
    }

    /// The stream ends.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        assert_eq!(self.receive(), None);
    }

    /// Closes with this code, and waits for the answer and the end of the stream.
    #[track_caller]
    pub(crate) fn close(mut self, code: u16) {
        self.send(CLOSE, &code.to_be_bytes());
        self.expect_close(code);
        if self.0.role == Role::Client {
            self.expect_end();
        }
    }

    /// All that comes, up to the end.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        Read::read_to_end(&mut self.0, &mut bytes).expect("it ends");
        bytes
    }
}

/// A frame (RFC 6455 §5.2), masked or not.
pub(crate) fn frame(opcode: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let from = if masked { Role::Client } else { Role::Server };
    anyloop_testkit::frames::frame(opcode, payload).bytes(from)
}
