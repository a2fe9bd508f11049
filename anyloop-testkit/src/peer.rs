//! The other end of a connection: a blocking socket, on which a test reads and writes any bytes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
#[cfg(unix)]
use std::os::fd::{AsFd, BorrowedFd};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
#[cfg(unix)]
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyloop_proto::Role;

use crate::frames::{self, Frame, Header};
use crate::requests;
use crate::wait::{PATIENCE, eventually};

/// A blocking stream socket.
#[derive(Debug)]
pub enum Stream {
    /// A TCP connection.
    Tcp(TcpStream),
    /// A connection over a Unix domain socket.
    #[cfg(unix)]
    Unix(UnixStream),
}

/// Calls a method of the socket, of either kind.
macro_rules! of_either {
    ($stream:expr, $socket:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($socket) => $call,
            #[cfg(unix)]
            Stream::Unix($socket) => $call,
        }
    };
}

impl Stream {
    /// Shuts down one direction, or both.
    ///
    /// # Errors
    ///
    /// The error of the socket.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        of_either!(self, socket => socket.shutdown(how))
    }

    /// Another handle of the same socket.
    ///
    /// # Errors
    ///
    /// The process has no file descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(socket.try_clone()?),
            #[cfg(unix)]
            Self::Unix(socket) => Self::Unix(socket.try_clone()?),
        })
    }

    /// Sets how long a read waits. A new [`Peer`] sets [`PATIENCE`]; without a timeout a read waits without end.
    ///
    /// # Errors
    ///
    /// The timeout is zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        of_either!(self, socket => socket.set_read_timeout(timeout))
    }

    /// Sets how long a write waits. A new [`Peer`] sets [`PATIENCE`]; without a timeout a write waits without end.
    ///
    /// # Errors
    ///
    /// The timeout is zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        of_either!(self, socket => socket.set_write_timeout(timeout))
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        of_either!(self, socket => socket.set_nonblocking(nonblocking))
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        of_either!(self, socket => (&mut &*socket).read(buffer))
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&mut &*self).read(buffer)
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        of_either!(self, socket => (&mut &*socket).write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&mut &*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(unix)]
impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        of_either!(self, socket => socket.as_fd())
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

#[cfg(unix)]
impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

/// How a stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The other end has shut down its sending direction.
    Eof,
    /// The connection was reset, or failed in another way.
    Reset,
}

/// One end of a connection. Each read or write waits for at most [`PATIENCE`]. The methods `poll_*` do not wait:
/// they handle the bytes that have arrived, for tests that run the code under test on the same thread.
#[derive(Debug)]
pub struct Peer {
    /// The socket, for operations that this type has no method for. Bytes that were read but not consumed are in
    /// `input`.
    pub stream: Stream,
    /// The role of this end: a client masks its frames.
    pub role: Role,
    /// The bytes that were read from the socket and not consumed.
    pub input: Vec<u8>,
    end: Option<End>,
}

/// Constructors.
impl Peer {
    /// A client that is connected and has not sent its request.
    ///
    /// # Panics
    ///
    /// If the connection is refused.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the peer connects");
        Self::over(stream, Role::Client)
    }

    /// As [`connect`](Self::connect), over a Unix domain socket.
    ///
    /// # Panics
    ///
    /// If the connection is refused.
    #[cfg(unix)]
    #[track_caller]
    pub fn connect_unix(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).expect("the peer connects"), Role::Client)
    }

    /// A client that has completed its opening handshake.
    ///
    /// # Panics
    ///
    /// If the connection or the request is refused.
    #[track_caller]
    pub fn open(address: SocketAddr) -> Self {
        let mut peer = Self::connect(address);
        peer.shake_hands();
        peer
    }

    /// As [`open`](Self::open), over a Unix domain socket.
    ///
    /// # Panics
    ///
    /// If the connection or the request is refused.
    #[cfg(unix)]
    #[track_caller]
    pub fn open_unix(path: &Path) -> Self {
        let mut peer = Self::connect_unix(path);
        peer.shake_hands();
        peer
    }

    /// Accepts the next connection. The request is not read.
    ///
    /// # Panics
    ///
    /// If there is no connection within [`PATIENCE`].
    #[track_caller]
    pub fn accept(listener: &TcpListener) -> Self {
        listener.set_nonblocking(true).expect("the mode of a socket can be set");
        let mut stream = None;
        eventually("a connection to accept", || match listener.accept() {
            Ok((accepted, _)) => {
                stream = Some(accepted);
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("accepting: {error}"),
        });
        listener.set_nonblocking(false).expect("the mode of a socket can be set");
        let stream = stream.expect("a connection was accepted");
        stream.set_nonblocking(false).expect("the mode of a socket can be set"); // some systems inherit it
        Self::over(stream, Role::Server)
    }

    /// Wraps a connected socket.
    ///
    /// # Panics
    ///
    /// If a socket option cannot be set.
    #[track_caller]
    pub fn over(stream: impl Into<Stream>, role: Role) -> Self {
        let stream = stream.into();
        stream.set_read_timeout(Some(PATIENCE)).expect("the timeout is not zero");
        stream.set_write_timeout(Some(PATIENCE)).expect("the timeout is not zero");
        if let Stream::Tcp(stream) = &stream {
            stream.set_nodelay(true).expect("a TCP socket has this option");
        }
        Self { stream, role, input: Vec::new(), end: None }
    }
}

/// Sending.
impl Peer {
    /// Sends bytes.
    ///
    /// # Panics
    ///
    /// If they cannot be written.
    #[track_caller]
    pub fn write(&self, bytes: impl AsRef<[u8]>) {
        (&self.stream).write_all(bytes.as_ref()).expect("the bytes are written");
    }

    /// Sends frames.
    ///
    /// # Panics
    ///
    /// If they cannot be written.
    #[track_caller]
    pub fn send(&self, frames: &[Frame]) {
        self.write(frames::stream(frames, self.role));
    }

    /// Sends bytes and shuts down the sending direction.
    ///
    /// # Panics
    ///
    /// If they cannot be written.
    #[track_caller]
    pub fn write_last(&self, bytes: impl AsRef<[u8]>) {
        self.write(bytes);
        self.finish();
    }

    /// Shuts down the sending direction, unless the connection has already ended.
    ///
    /// # Panics
    ///
    /// If that fails for another reason.
    #[track_caller]
    pub fn finish(&self) {
        match self.stream.shutdown(Shutdown::Write) {
            Err(error) if error.kind() != ErrorKind::NotConnected => panic!("{error}"),
            _ => {}
        }
    }

    /// The local address.
    ///
    /// # Panics
    ///
    /// If it is not a TCP socket.
    #[must_use]
    #[track_caller]
    pub fn local_addr(&self) -> SocketAddr {
        match &self.stream {
            Stream::Tcp(socket) => socket.local_addr().expect("the socket is connected"),
            #[cfg(unix)]
            Stream::Unix(_) => panic!("a Unix socket has no IP address"),
        }
    }

    /// Another handle of the socket, for another thread that writes. The methods `poll_*` make the socket
    /// non-blocking while they run.
    ///
    /// # Panics
    ///
    /// If the process has no file descriptor left.
    #[must_use]
    pub fn writer(&self) -> Stream {
        self.stream.try_clone().expect("the process has a file descriptor left")
    }

    /// Sends [`REQUEST`](requests::REQUEST), and asserts that it is accepted.
    ///
    /// # Panics
    ///
    /// If it is refused.
    #[track_caller]
    pub fn shake_hands(&mut self) {
        self.shake_hands_with(requests::REQUEST);
    }

    /// Sends a request, and asserts that it is accepted. Returns the response.
    ///
    /// # Panics
    ///
    /// If it is refused, or the accept value does not match [`ACCEPT`](requests::ACCEPT).
    #[track_caller]
    pub fn shake_hands_with(&mut self, request: &str) -> String {
        self.write(request);
        let head = self.read_head();
        assert!(head.starts_with(requests::SWITCHING), "{head}");
        let accept = requests::field(&head, "Sec-WebSocket-Accept");
        assert_eq!(accept, Some(requests::ACCEPT), "{head}");
        head
    }
}

/// Receiving. Each method reads no more from the socket than it needs.
impl Peer {
    /// Reads the head of a request or response, and nothing after it.
    ///
    /// # Panics
    ///
    /// If the stream ends or a read times out before the head is complete.
    #[track_caller]
    pub fn read_head(&mut self) -> String {
        loop {
            if let Some(head) = self.take_head() {
                return head;
            }
            let wanted = self.input.len() + 1;
            assert!(self.fill(wanted).expect("a complete head"), "the stream ends before the head");
        }
    }

    /// Receives the next frame.
    ///
    /// # Panics
    ///
    /// If there is none within [`PATIENCE`], the stream ends, or the other role must not send such a frame.
    #[track_caller]
    pub fn receive(&mut self) -> Frame {
        self.try_receive().expect("a frame before the end of the stream")
    }

    /// Receives the next frame. `None` if the stream ends before it.
    ///
    /// # Panics
    ///
    /// If the stream ends within a frame or by an error, or no byte arrives within [`PATIENCE`].
    #[track_caller]
    pub fn try_receive(&mut self) -> Option<Frame> {
        self.next_frame().expect("a frame, or the end of the stream")
    }

    /// As [`try_receive`](Self::try_receive), but returns errors of the stream.
    ///
    /// # Errors
    ///
    /// The error of the socket; [`ErrorKind::UnexpectedEof`] if the stream ends within a frame.
    ///
    /// # Panics
    ///
    /// If the other role must not send such a frame.
    #[track_caller]
    pub fn next_frame(&mut self) -> io::Result<Option<Frame>> {
        let mut wanted = 2;
        loop {
            if !self.fill(wanted)? {
                return Ok(None);
            }
            if let Some(frame) = self.take_frame() {
                return Ok(Some(frame));
            }
            wanted = match Header::parse(&self.input) {
                Some(header) => header.size + header.payload_len as usize,
                None => self.input.len() + 1,
            };
        }
    }

    /// Receives a frame, and asserts that it is this one.
    ///
    /// # Panics
    ///
    /// If there is another frame, or none.
    #[track_caller]
    pub fn expect(&mut self, frame: &Frame) {
        let received = self.receive();
        assert!(received == *frame, "received {}, expected {}", brief(&received), brief(frame));
    }

    /// Receives a frame, and asserts that it is a Close with this code. Returns its reason.
    ///
    /// # Panics
    ///
    /// If there is another frame, or none, or the reason is not UTF-8.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) -> String {
        let frame = self.receive();
        assert_eq!(frame.close_code(), Some(code), "received {}, expected a Close", brief(&frame));
        String::from_utf8(frame.payload[2..].to_vec()).expect("the reason is UTF-8")
    }

    /// Asserts that the stream ends, with nothing before the end.
    ///
    /// # Panics
    ///
    /// If there is a frame before the end, or the stream ends by an error.
    #[track_caller]
    pub fn expect_eof(&mut self) {
        match self.next_frame() {
            Ok(None) => {}
            Ok(Some(frame)) => panic!("received {}, expected the end of the stream", brief(&frame)),
            Err(error) => panic!("the stream does not end: {error}"),
        }
    }

    /// Asserts that the connection is reset. Discards the bytes before that.
    ///
    /// # Panics
    ///
    /// If the stream ends without a reset, or no byte arrives within [`PATIENCE`].
    #[track_caller]
    pub fn expect_reset(&mut self) {
        self.read_to_end();
        assert_eq!(self.end, Some(End::Reset));
    }

    /// Reads all bytes up to the end of the stream, which may be a reset.
    ///
    /// # Panics
    ///
    /// If no byte arrives within [`PATIENCE`], or the stream fails otherwise than by a reset.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut buffer = [0; 4096];
        while self.end.is_none() {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.end = Some(End::Eof),
                Ok(n) => self.input.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    self.end = Some(End::Reset);
                }
                Err(error) => panic!("the stream does not end: {error}"),
            }
        }
        std::mem::take(&mut self.input)
    }

    /// Sends a text message, and asserts that the next frame is the same.
    ///
    /// # Panics
    ///
    /// If something else is received.
    #[track_caller]
    pub fn echo(&mut self, text: &str) {
        self.send(&[frames::text(text)]);
        self.expect(&frames::text(text));
    }

    /// Sends a Close with code 1000, and asserts that the same Close and the end of the stream follow.
    ///
    /// # Panics
    ///
    /// If something else is received.
    #[track_caller]
    pub fn close(mut self) {
        self.send(&[frames::close(1000, "")]);
        self.expect(&frames::close(1000, ""));
        let rest = self.read_to_end();
        assert!(rest.is_empty(), "received after the Close: {rest:x?}");
    }

    /// Passes bytes on between this client and a server in both directions, as a proxy does, until both have ended.
    ///
    /// # Panics
    ///
    /// If the server refuses the connection, or bytes of the client were read and not consumed.
    pub fn relay(self, server: SocketAddr) {
        assert!(self.input.is_empty(), "the client has sent more than was expected");
        let server = TcpStream::connect_timeout(&server, PATIENCE).expect("the server accepts");
        let mut from_server = server.try_clone().expect("the process has a file descriptor left");
        let (mut from_client, mut to_client, mut to_server) =
            (self.writer(), self.writer(), server);
        let upwards = thread::spawn(move || {
            let _ = io::copy(&mut from_client, &mut to_server); // either end may reset
            let _ = to_server.shutdown(Shutdown::Write);
        });
        let _ = io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Write);
        upwards.join().expect("the thread does not panic");
    }

    /// Reads until `input` has `wanted` bytes. Returns `false` if the stream ends while `input` is empty.
    fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        while self.input.len() < wanted {
            let have = self.input.len();
            self.input.resize(wanted.min(have + 65536), 0);
            let result = self.stream.read(&mut self.input[have..]);
            self.input.truncate(have + *result.as_ref().unwrap_or(&0));
            match result {
                Ok(0) => {
                    self.end = Some(End::Eof);
                    return if have == 0 {
                        Ok(false)
                    } else {
                        Err(ErrorKind::UnexpectedEof.into())
                    };
                }
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
        Ok(true)
    }

    fn take_head(&mut self) -> Option<String> {
        let end = requests::head_end(&self.input)?;
        Some(String::from_utf8(self.input.drain(..end).collect()).expect("the head is UTF-8"))
    }

    #[track_caller]
    fn take_frame(&mut self) -> Option<Frame> {
        let header = Header::parse(&self.input)?;
        header.check(frames::other(self.role));
        let (frame, size) = Frame::parse(&self.input)?;
        self.input.drain(..size);
        if self.input.is_empty() {
            self.input = Vec::new(); // freed, since tests that measure memory measure this process
        }
        Some(frame)
    }
}

/// Receiving without waiting.
impl Peer {
    /// The head of a request or response, if it has arrived completely.
    pub fn poll_head(&mut self) -> Option<String> {
        self.poll();
        self.take_head()
    }

    /// The next frame, if it has arrived completely.
    ///
    /// # Panics
    ///
    /// If the other role must not send such a frame.
    #[track_caller]
    pub fn poll_frame(&mut self) -> Option<Frame> {
        self.poll();
        self.take_frame()
    }

    /// All complete frames that have arrived.
    ///
    /// # Panics
    ///
    /// If the other role must not send such a frame.
    #[track_caller]
    pub fn poll_frames(&mut self) -> Vec<Frame> {
        self.poll();
        let mut frames = Vec::new();
        while let Some(frame) = self.take_frame() {
            frames.push(frame);
        }
        frames
    }

    /// How the other end has ended the stream, if it has.
    pub fn poll_end(&mut self) -> Option<End> {
        self.poll();
        self.end
    }

    /// Whether the other end has ended the stream, or the connection has failed.
    pub fn is_over(&mut self) -> bool {
        self.poll_end().is_some()
    }

    fn poll(&mut self) {
        if self.end.is_some() {
            return;
        }
        self.stream.set_nonblocking(true).expect("the mode of a socket can be set");
        let mut buffer = [0; 65536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break self.end = Some(End::Eof),
                Ok(n) => self.input.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break self.end = Some(End::Reset),
            }
        }
        self.stream.set_nonblocking(false).expect("the mode of a socket can be set");
    }
}

/// Reads from `input` until it is empty, and then from the socket.
impl Read for Peer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return self.stream.read(buffer);
        }
        let count = buffer.len().min(self.input.len());
        buffer[..count].copy_from_slice(&self.input[..count]);
        self.input.drain(..count);
        Ok(count)
    }
}

/// A frame in the message of an assertion: large payloads are truncated.
fn brief(frame: &Frame) -> String {
    let Frame { fin, rsv, opcode, payload } = frame;
    let shown = payload[..payload.len().min(64)].escape_ascii();
    let more = if payload.len() > 64 { "..." } else { "" };
    format!(
        "fin {fin}, rsv {rsv:#x}, opcode {opcode:#x}, {} bytes \"{shown}{more}\"",
        payload.len()
    )
}

/// Listens on 127.0.0.1, and calls `serve` with the first connection on another thread.
///
/// # Panics
///
/// If the system has no free port.
pub fn serve<T: Send + 'static>(
    serve: impl FnOnce(Peer) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the system has a free port");
    let address = listener.local_addr().expect("the listener is bound");
    let thread = thread::spawn(move || serve(Peer::accept(&listener)));
    (address, thread)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::{close, ping, text};

    const RESPONSE: &str = requests::SAMPLE_RESPONSE;

    #[test]
    fn two_peers_exchange_messages() {
        let (address, server) = serve(|mut peer| {
            assert_eq!(peer.read_head(), requests::REQUEST);
            peer.write([RESPONSE.as_bytes(), &ping("early").bytes(Role::Server)].concat());
            peer.expect(&text("hi"));
            peer.send(&[text("hi")]);
            peer.expect(&close(1000, ""));
            peer.send(&[close(1000, "")]);
        });
        let mut client = Peer::open(address);
        assert_eq!(client.receive(), ping("early"));
        client.echo("hi");
        client.close();
        server.join().unwrap();
    }

    #[test]
    fn arrived_bytes_are_received_without_waiting() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = Peer::connect(listener.local_addr().unwrap());
        let server = Peer::accept(&listener);
        assert_eq!(
            (client.poll_head(), client.poll_frame(), client.poll_end()),
            (None, None, None)
        );
        server.write(RESPONSE);
        server.send(&[text("a"), text("b")]);
        server.write_last(b"\x81\x05Hel");
        eventually("the end", || client.is_over());
        assert_eq!(client.poll_head().as_deref(), Some(RESPONSE));
        assert_eq!(client.poll_frames(), [text("a"), text("b")]);
        assert_eq!((client.poll_end(), client.input.len()), (Some(End::Eof), 5));
    }

    #[test]
    fn an_incomplete_frame_and_a_reset_are_errors() {
        let (address, server) = serve(|peer| peer.write(b"\x81\x05Hel"));
        let mut client = Peer::connect(address);
        assert_eq!(client.next_frame().unwrap_err().kind(), ErrorKind::UnexpectedEof);
        server.join().unwrap();
        // A socket that is closed with unread input resets the connection.
        let (address, server) = serve(|mut peer| _ = peer.read(&mut [0]).unwrap());
        let mut client = Peer::connect(address);
        client.write("two");
        client.expect_reset();
        server.join().unwrap();
    }

    #[test]
    #[should_panic(expected = "expected fin true")]
    fn expect_fails_for_another_frame() {
        let (address, _server) = serve(|peer| peer.send(&[text("a")]));
        Peer::connect(address).expect(&text("b"));
    }
}
