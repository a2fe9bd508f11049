//! The other end of a connection, as a plain socket that blocks.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyloop::proto::Role;
use socket2::{Domain, Socket, Type};

use crate::scene::LONG;
use crate::wire::{self, Frame};

/// A peer that speaks frames.
pub(crate) struct Peer<S = TcpStream> {
    pub(crate) stream: S,
    pub(crate) role: Role,
}

impl Peer {
    /// A client that has not said anything yet.
    pub(crate) fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, LONG).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, role: Role::Client }
    }

    /// The same, whose receive buffer is this small.
    pub(crate) fn narrow(address: SocketAddr, size: usize) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(size).unwrap();
        socket.connect(&address.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(LONG)).unwrap();
        Self { stream, role: Role::Client }
    }

    /// A client whose connection is open.
    pub(crate) fn open(address: SocketAddr) -> Self {
        let mut peer = Self::silent(address);
        peer.shake_hands();
        peer
    }

    /// Gone, not ended.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

impl Peer<UnixStream> {
    pub(crate) fn open_unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut peer = Self { stream, role: Role::Client };
        peer.shake_hands();
        peer
    }
}

impl<S: Read + Write> Peer<S> {
    pub(crate) fn shake_hands(&mut self) {
        self.write(wire::REQUEST);
        let head = self.read_head();
        assert!(head.starts_with(wire::SWITCHING), "{head}");
    }

    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    pub(crate) fn send(&mut self, frames: &[Frame]) {
        self.write(wire::stream(frames, self.role));
    }

    /// A head of HTTP, and nothing behind it.
    pub(crate) fn read_head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).expect("a whole head");
            head.extend_from_slice(&byte);
        }
        String::from_utf8(head).unwrap()
    }

    pub(crate) fn receive(&mut self) -> Frame {
        self.try_receive().expect("a frame")
    }

    /// A frame, unless the stream ends before it.
    pub(crate) fn try_receive(&mut self) -> Option<Frame> {
        let mut bytes = vec![0; 2];
        match self.stream.read_exact(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return None,
            result => result.unwrap(),
        }
        let extended = match bytes[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        self.read_more(&mut bytes, extended);
        let len = match extended {
            0 => u64::from(bytes[1] & 0x7f),
            2 => u64::from(u16::from_be_bytes(bytes[2..4].try_into().unwrap())),
            _ => u64::from_be_bytes(bytes[2..10].try_into().unwrap()),
        };
        let masked = if bytes[1] & 0x80 != 0 { 4 } else { 0 };
        self.read_more(&mut bytes, masked + usize::try_from(len).unwrap());
        let mut frames = wire::read(&bytes, wire::other(self.role));
        assert_eq!(frames.len(), 1);
        frames.pop()
    }

    fn read_more(&mut self, bytes: &mut Vec<u8>, count: usize) {
        let at = bytes.len();
        bytes.resize(at + count, 0);
        self.stream.read_exact(&mut bytes[at..]).expect("the rest of a frame");
    }

    /// Everything up to the end of the stream, which may be a reset.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return all,
                Ok(n) => all.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return all,
                Err(error) => panic!("the stream does not end: {error}"),
            }
        }
    }

    /// Sends a text and gets it back.
    pub(crate) fn echo(&mut self, text: &str) {
        self.send(&[wire::text(text)]);
        assert_eq!(self.receive(), wire::text(text));
    }

    /// Closes, as a client should.
    pub(crate) fn close(mut self) {
        self.send(&[wire::close(1000, "")]);
        assert_eq!(self.receive(), wire::close(1000, ""));
        assert!(self.read_to_end().is_empty());
    }
}

/// A server for one connection, on a thread, which does `f` with it.
pub(crate) fn serve<T: Send + 'static>(
    f: impl FnOnce(Peer) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_nodelay(true).unwrap();
        f(Peer { stream, role: Role::Server })
    });
    (address, thread)
}
