//! Peers that speak RFC 6455 byte by byte, and break its rules where a test wants it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

use anyloop::proto::handshake::http::StatusCode;
use anyloop::proto::handshake::{Accept, OriginPolicy, ServerHandshake, ServerOptions};
use anyloop::proto::{Input, Instant};

use crate::program::DEADLINE;

/// RFC 6455 §1.3: a key, and what answers it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// A byte stream.
trait Stream: Read + Write + Send {
    /// The same once more.
    fn duplicate(&self) -> io::Result<Box<dyn Stream>>;
}

impl Stream for TcpStream {
    fn duplicate(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.try_clone()?))
    }
}

impl Stream for UnixStream {
    fn duplicate(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.try_clone()?))
    }
}

/// One end of a connection.
pub(crate) struct Peer {
    stream: Box<dyn Stream>,
    /// A client masks, if only with zeros.
    masks: bool,
}

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
        let (stream, _) = self.0.accept().expect("somebody connects");
        Peer::new(stream, false)
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
        Self::new(TcpStream::connect(address).expect("somebody listens"), true)
    }

    /// The client's end of a connection that is open.
    pub(crate) fn client(address: SocketAddr, path: &str) -> Self {
        let mut peer = Self::dial(address);
        peer.ask(path);
        peer
    }

    /// The same over a Unix socket.
    pub(crate) fn unix(path: &std::path::Path) -> Self {
        let stream = UnixStream::connect(path).expect("somebody listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("it is not zero");
        let mut peer = Self { stream: Box::new(stream), masks: true };
        peer.ask("/");
        peer
    }

    /// The same end twice: one to read, and one to write.
    pub(crate) fn split(self) -> (Self, Self) {
        let stream = self.stream.duplicate().expect("there are descriptors");
        let masks = self.masks;
        (self, Self { stream, masks })
    }

    /// A client's end of a stream that is there.
    pub(crate) fn over(stream: TcpStream) -> Self {
        Self::new(stream, true)
    }

    fn new(stream: TcpStream, masks: bool) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).expect("it is not zero");
        stream.set_nodelay(true).expect("it is TCP");
        Self { stream: Box::new(stream), masks }
    }

    /// Asks for a WebSocket, and gets it.
    pub(crate) fn ask(&mut self, path: &str) {
        assert_eq!(self.request(path, ""), StatusCode::SWITCHING_PROTOCOLS);
    }

    /// Asks for a WebSocket, with these lines in the request. Returns the status of the answer.
    pub(crate) fn request(&mut self, path: &str, lines: &str) -> StatusCode {
        self.write(
            format!(
                "GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{lines}\r\n"
            )
            .as_bytes(),
        );
        let head = self.head();
        let accepted = field(&head, "Sec-WebSocket-Accept").is_none_or(|key| key == ACCEPT);
        assert!(accepted, "{head}");
        status(&head)
    }

    /// A request or a response, up to its empty line.
    pub(crate) fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).expect("a whole head");
            head.push(byte[0]);
        }
        String::from_utf8(head).expect("a head is ASCII")
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("it is taken");
    }

    /// Sends a frame.
    pub(crate) fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.write(&frame(opcode, payload, self.masks));
    }

    /// The next frame: opcode and payload. `None` at the end of the stream.
    pub(crate) fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        self.try_receive().expect("a whole frame")
    }

    /// The same of a stream that may be cut anywhere.
    pub(crate) fn try_receive(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        let mut header = [0; 2];
        match self.stream.read_exact(&mut header[..1]) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        }
        self.stream.read_exact(&mut header[1..])?;
        assert_eq!(header[0] & 0xf0, 0x80, "one frame, without extensions");
        assert_eq!(header[1] & 0x80 != 0, !self.masks, "a client masks, and a server does not");
        let len = match header[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes(self.bytes()?)),
            127 => u64::from_be_bytes(self.bytes()?),
            len => u64::from(len),
        };
        let mask: [u8; 4] = if self.masks { [0; 4] } else { self.bytes()? };
        let mut payload = vec![0; usize::try_from(len).expect("it fits")];
        self.stream.read_exact(&mut payload)?;
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        Ok(Some((header[0] & 15, payload)))
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
        if self.masks {
            self.expect_end();
        }
    }

    /// All that comes, up to the end.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).expect("it ends");
        bytes
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// A frame (RFC 6455 §5.2); masked with zeros, if it is to be.
pub(crate) fn frame(opcode: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    let mask = if masked { 0x80 } else { 0 };
    match payload.len() {
        len @ ..126 => frame.push(mask | len as u8),
        len @ ..0x1_0000 => {
            frame.push(mask | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(mask | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(&[0; 4][..if masked { 4 } else { 0 }]);
    frame.extend(payload);
    frame
}

/// The value of a header field.
pub(crate) fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
        .next()
}

fn status(head: &str) -> StatusCode {
    head.get(9..12).expect("a status line").parse().expect("a status")
}
