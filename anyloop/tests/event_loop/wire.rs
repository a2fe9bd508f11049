//! The other end of a connection: a plain socket, and frames built and read by hand (RFC 6455 §5.2).

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket2::Socket;

/// The masking key of RFC 6455 §5.7.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What the answer to [`request`] begins with.
pub(crate) const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\n";

/// A request for a WebSocket.
pub(crate) fn request(path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// A frame as a client sends it.
pub(crate) fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(opcode, payload.len(), 0x80);
    bytes.extend_from_slice(&KEY);
    bytes.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ KEY[i % 4]));
    bytes
}

/// A frame as a server sends it.
pub(crate) fn unmasked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(opcode, payload.len(), 0);
    bytes.extend_from_slice(payload);
    bytes
}

fn head(opcode: u8, len: usize, mask: u8) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match len {
        0..=125 => bytes.push(mask | len as u8),
        126..=0xffff => {
            bytes.push(mask | 126);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            bytes.push(mask | 127);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    bytes
}

/// A text message, as a client sends it.
pub(crate) fn text(payload: impl AsRef<[u8]>) -> Vec<u8> {
    masked(1, payload.as_ref())
}

/// The text messages `0`, `1`, ... one after the other, as a client sends them.
pub(crate) fn numbered(messages: usize) -> Vec<u8> {
    (0..messages).flat_map(|i| text(i.to_string())).collect()
}

/// A ping, as a client sends it.
pub(crate) fn ping(payload: &str) -> Vec<u8> {
    masked(9, payload.as_bytes())
}

/// A Close, as a client sends it.
pub(crate) fn close(code: u16) -> Vec<u8> {
    masked(8, &code.to_be_bytes())
}

/// How a stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Eof,
    Reset,
}

/// A frame, its payload unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn text(payload: &str) -> Self {
        Self { opcode: 1, payload: payload.as_bytes().to_vec() }
    }

    /// A Close without a reason.
    pub(crate) fn close(code: u16) -> Self {
        Self { opcode: 8, payload: code.to_be_bytes().to_vec() }
    }

    /// The code of a Close, if it is one.
    pub(crate) fn close_code(&self) -> Option<u16> {
        let code = self.payload.get(..2).filter(|_| self.opcode == 8)?;
        Some(u16::from_be_bytes(code.try_into().unwrap()))
    }
}

/// A plain socket. It never waits for input.
pub(crate) struct Peer {
    socket: Socket,
    /// What has come and was not taken.
    pub(crate) input: Vec<u8>,
    ended: Option<End>,
}

impl Peer {
    pub(crate) fn tcp(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::new(stream.into())
    }

    pub(crate) fn unix(path: &std::path::Path) -> Self {
        let socket = Socket::from(UnixStream::connect(path).unwrap());
        socket.set_send_buffer_size(1 << 20).unwrap(); // each write costs far more than its bytes
        Self::new(socket)
    }

    /// The server's end of what a client under test connects to.
    pub(crate) fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        Self::new(stream.into())
    }

    fn new(socket: Socket) -> Self {
        socket.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { socket, input: Vec::new(), ended: None }
    }

    /// Sends all of it; waits where there is no room.
    pub(crate) fn send(&self, bytes: impl AsRef<[u8]>) {
        (&self.socket).write_all(bytes.as_ref()).unwrap();
    }

    /// Sends the last that there is, up to a Close, and ends the sending direction.
    pub(crate) fn send_last(&self, bytes: impl AsRef<[u8]>) {
        self.send(bytes);
        self.finish();
    }

    /// Ends the sending direction, unless the other end has ended both.
    pub(crate) fn finish(&self) {
        match self.socket.shutdown(Shutdown::Write) {
            Err(error) if error.kind() != ErrorKind::NotConnected => panic!("{error}"),
            _ => {}
        }
    }

    /// Closes it so that the other end finds it reset.
    pub(crate) fn reset(self) {
        self.socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// The socket, for another thread to write to.
    pub(crate) fn writer(&self) -> Socket {
        self.socket.try_clone().unwrap()
    }

    /// Takes in what has come.
    fn look(&mut self) {
        if self.ended.is_some() {
            return;
        }
        self.socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 65536];
        loop {
            match (&self.socket).read(&mut buffer) {
                Ok(0) => break self.ended = Some(End::Eof),
                Ok(n) => self.input.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break self.ended = Some(End::Reset),
            }
        }
        self.socket.set_nonblocking(false).unwrap();
    }

    /// How the other end has ended the stream, if it has.
    pub(crate) fn end(&mut self) -> Option<End> {
        self.look();
        self.ended
    }

    /// Whether all has come that will.
    pub(crate) fn is_over(&mut self) -> bool {
        self.end().is_some()
    }

    /// The head of HTTP that has come, if it is whole.
    pub(crate) fn head(&mut self) -> Option<String> {
        self.look();
        let end = self.input.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        Some(String::from_utf8(self.input.drain(..end).collect()).unwrap())
    }

    /// The next frame that has come, if it is whole. It is not looked at who has masked it.
    pub(crate) fn frame(&mut self) -> Option<Frame> {
        self.look();
        let (&first, &second) = (self.input.first()?, self.input.get(1)?);
        let (len, mut at) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(self.input.get(2..4)?.try_into().unwrap())), 4),
            127 => (u64::from_be_bytes(self.input.get(2..10)?.try_into().unwrap()), 10),
            len => (u64::from(len), 2),
        };
        let mut key = [0; 4];
        if second & 0x80 != 0 {
            key = self.input.get(at..at + 4)?.try_into().unwrap();
            at += 4;
        }
        let end = at + len as usize;
        let mut payload = self.input.get(at..end)?.to_vec();
        if key != [0; 4] {
            payload.iter_mut().enumerate().for_each(|(i, byte)| *byte ^= key[i % 4]);
        }
        self.input.drain(..end);
        Some(Frame { opcode: first & 0x0f, payload })
    }

    /// All frames that have come.
    pub(crate) fn frames(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.frame()).collect()
    }
}

/// What opens a client whose nonce is all zeros.
pub(crate) const RESPONSE: &str = "HTTP/1.1 101 Switching Protocols\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n";
