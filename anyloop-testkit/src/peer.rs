//! The other end of a connection: a plain socket, whose bytes are the test's own.

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

/// A stream socket that blocks.
#[derive(Debug)]
pub enum Stream {
    /// A TCP connection.
    Tcp(TcpStream),
    /// A connection by a Unix socket.
    #[cfg(unix)]
    Unix(UnixStream),
}

/// Calls the same method of whichever socket it is.
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
    /// Ends one direction, or both.
    ///
    /// # Errors
    ///
    /// As the socket says.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        of_either!(self, socket => socket.shutdown(how))
    }

    /// The same socket once more.
    ///
    /// # Errors
    ///
    /// There is no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(socket.try_clone()?),
            #[cfg(unix)]
            Self::Unix(socket) => Self::Unix(socket.try_clone()?),
        })
    }

    /// How long a read waits: [`PATIENCE`], unless it is changed.
    ///
    /// # Errors
    ///
    /// The time is zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        of_either!(self, socket => socket.set_read_timeout(timeout))
    }

    /// How long a write waits: [`PATIENCE`], unless it is changed.
    ///
    /// # Errors
    ///
    /// The time is zero.
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
    /// The other end has ended its direction.
    Eof,
    /// The connection was reset.
    Reset,
}

/// One end of a connection. Its methods wait for at most [`PATIENCE`], except those called `poll_*`: they
/// take what has arrived, for tests whose own thread runs the code under test.
#[derive(Debug)]
pub struct Peer {
    /// The socket, for what this type has no method for. What was read early is in `input`.
    pub stream: Stream,
    /// The role in which it sends: a client masks its frames.
    pub role: Role,
    /// What has arrived and was not taken.
    pub input: Vec<u8>,
    end: Option<End>,
}

/// Making one.
impl Peer {
    /// A client that has connected and not sent anything.
    ///
    /// # Panics
    ///
    /// If nobody listens.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("it connects");
        Self::over(stream, Role::Client)
    }

    /// The same by a Unix socket.
    ///
    /// # Panics
    ///
    /// If nobody listens.
    #[cfg(unix)]
    #[track_caller]
    pub fn connect_unix(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).expect("it connects"), Role::Client)
    }

    /// A client whose opening handshake is done.
    ///
    /// # Panics
    ///
    /// If nobody listens, or the request is refused.
    #[track_caller]
    pub fn open(address: SocketAddr) -> Self {
        let mut peer = Self::connect(address);
        peer.shake_hands();
        peer
    }

    /// The same by a Unix socket.
    ///
    /// # Panics
    ///
    /// If nobody listens, or the request is refused.
    #[cfg(unix)]
    #[track_caller]
    pub fn open_unix(path: &Path) -> Self {
        let mut peer = Self::connect_unix(path);
        peer.shake_hands();
        peer
    }

    /// A server's end of the next connection. The request is not read.
    ///
    /// # Panics
    ///
    /// If nobody connects.
    #[track_caller]
    pub fn accept(listener: &TcpListener) -> Self {
        listener.set_nonblocking(true).expect("it is a socket");
        let mut stream = None;
        eventually("a connection to accept", || match listener.accept() {
            Ok((accepted, _)) => {
                stream = Some(accepted);
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("accepting: {error}"),
        });
        listener.set_nonblocking(false).expect("it is a socket");
        let stream = stream.expect("it was waited for");
        stream.set_nonblocking(false).expect("it is a socket"); // some systems inherit that
        Self::over(stream, Role::Server)
    }

    /// One end of a connection that exists.
    ///
    /// # Panics
    ///
    /// If the socket takes no options, since it is broken.
    #[track_caller]
    pub fn over(stream: impl Into<Stream>, role: Role) -> Self {
        let stream = stream.into();
        stream.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
        stream.set_write_timeout(Some(PATIENCE)).expect("it is not zero");
        if let Stream::Tcp(stream) = &stream {
            stream.set_nodelay(true).expect("it is TCP");
        }
        Self { stream, role, input: Vec::new(), end: None }
    }
}

/// Sending.
impl Peer {
    /// Sends bytes as they are.
    ///
    /// # Panics
    ///
    /// If they are not taken.
    #[track_caller]
    pub fn write(&self, bytes: impl AsRef<[u8]>) {
        (&self.stream).write_all(bytes.as_ref()).expect("the bytes are taken");
    }

    /// Sends frames.
    ///
    /// # Panics
    ///
    /// If they are not taken.
    #[track_caller]
    pub fn send(&self, frames: &[Frame]) {
        self.write(frames::stream(frames, self.role));
    }

    /// Sends bytes and ends the sending direction.
    ///
    /// # Panics
    ///
    /// If they are not taken.
    #[track_caller]
    pub fn write_last(&self, bytes: impl AsRef<[u8]>) {
        self.write(bytes);
        self.finish();
    }

    /// Ends the sending direction, unless the other end has ended both.
    ///
    /// # Panics
    ///
    /// If the socket is broken in another way.
    #[track_caller]
    pub fn finish(&self) {
        match self.stream.shutdown(Shutdown::Write) {
            Err(error) if error.kind() != ErrorKind::NotConnected => panic!("{error}"),
            _ => {}
        }
    }

    /// The address of its own end.
    ///
    /// # Panics
    ///
    /// If it is not a TCP socket.
    #[must_use]
    #[track_caller]
    pub fn local_addr(&self) -> SocketAddr {
        match &self.stream {
            Stream::Tcp(socket) => socket.local_addr().expect("it is connected"),
            #[cfg(unix)]
            Stream::Unix(_) => panic!("a Unix socket has no address of this kind"),
        }
    }

    /// The socket once more, for another thread to write to. [`poll_end`](Self::poll_end) and its kin make
    /// it non-blocking for a moment.
    ///
    /// # Panics
    ///
    /// If there is no descriptor left.
    #[must_use]
    pub fn writer(&self) -> Stream {
        self.stream.try_clone().expect("a descriptor is left")
    }

    /// Sends [`REQUEST`](requests::REQUEST), and expects that it is accepted.
    ///
    /// # Panics
    ///
    /// If it is refused.
    #[track_caller]
    pub fn shake_hands(&mut self) {
        self.shake_hands_with(requests::REQUEST);
    }

    /// Sends a request, and expects that it is accepted. Returns the response.
    ///
    /// # Panics
    ///
    /// If it is refused, or the answer belongs to another key.
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

/// Receiving. No more is read from the socket than each method needs.
impl Peer {
    /// Reads a head of HTTP, and nothing behind it.
    ///
    /// # Panics
    ///
    /// If the stream ends before that.
    #[track_caller]
    pub fn read_head(&mut self) -> String {
        loop {
            if let Some(head) = self.take_head() {
                return head;
            }
            let wanted = self.input.len() + 1;
            assert!(self.fill(wanted).expect("a complete head"), "the stream ends in a head");
        }
    }

    /// The next frame.
    ///
    /// # Panics
    ///
    /// If none comes, or not one that the other role may send.
    #[track_caller]
    pub fn receive(&mut self) -> Frame {
        self.try_receive().expect("a frame, and not the end of the stream")
    }

    /// The next frame. `None` if the stream ends before it.
    ///
    /// # Panics
    ///
    /// If the stream ends within a frame or in another way, or nothing comes.
    #[track_caller]
    pub fn try_receive(&mut self) -> Option<Frame> {
        self.next_frame().expect("a frame, or the end of the stream")
    }

    /// The next frame, or `None` if the stream ends before it, of a stream that may break anywhere.
    ///
    /// # Errors
    ///
    /// The stream breaks, or ends within a frame.
    ///
    /// # Panics
    ///
    /// If the frame is not one that the other role may send.
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

    /// Expects that this frame is next.
    ///
    /// # Panics
    ///
    /// If another comes, or none.
    #[track_caller]
    pub fn expect(&mut self, frame: &Frame) {
        let received = self.receive();
        assert!(received == *frame, "{} came for {}", brief(&received), brief(frame));
    }

    /// Expects a Close frame with this code. Returns its reason.
    ///
    /// # Panics
    ///
    /// If something else comes, or the reason is not UTF-8.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) -> String {
        let frame = self.receive();
        assert_eq!(frame.close_code(), Some(code), "{} came for a Close", brief(&frame));
        String::from_utf8(frame.payload[2..].to_vec()).expect("a reason in UTF-8")
    }

    /// Expects the end of the stream, and nothing before it.
    ///
    /// # Panics
    ///
    /// If something comes before it, or the stream ends in another way.
    #[track_caller]
    pub fn expect_eof(&mut self) {
        match self.next_frame() {
            Ok(None) => {}
            Ok(Some(frame)) => panic!("{} came for the end of the stream", brief(&frame)),
            Err(error) => panic!("the stream does not end: {error}"),
        }
    }

    /// Expects that the connection is reset, whatever comes before that.
    ///
    /// # Panics
    ///
    /// If it ends in another way, or not at all.
    #[track_caller]
    pub fn expect_reset(&mut self) {
        self.read_to_end();
        assert_eq!(self.end, Some(End::Reset));
    }

    /// Everything up to the end of the stream, which may be a reset.
    ///
    /// # Panics
    ///
    /// If the stream does not end.
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

    /// Sends a text and expects it back.
    ///
    /// # Panics
    ///
    /// If something else comes.
    #[track_caller]
    pub fn echo(&mut self, text: &str) {
        self.send(&[frames::text(text)]);
        self.expect(&frames::text(text));
    }

    /// Closes with code 1000, and expects the same and the end of the stream.
    ///
    /// # Panics
    ///
    /// If something else comes.
    #[track_caller]
    pub fn close(mut self) {
        self.send(&[frames::close(1000, "")]);
        self.expect(&frames::close(1000, ""));
        let rest = self.read_to_end();
        assert!(rest.is_empty(), "behind the Close: {rest:x?}");
    }

    /// Reads until there are so many bytes. `false` if the stream ends before the first.
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
        Some(String::from_utf8(self.input.drain(..end).collect()).expect("a head in ASCII"))
    }

    #[track_caller]
    fn take_frame(&mut self) -> Option<Frame> {
        let header = Header::parse(&self.input)?;
        header.check(frames::other(self.role));
        let (frame, size) = Frame::parse(&self.input)?;
        self.input.drain(..size);
        if self.input.is_empty() {
            self.input = Vec::new(); // tests that count memory count this, too
        }
        Some(frame)
    }
}

/// Taking what has arrived, without waiting.
impl Peer {
    /// The head of HTTP that has arrived, if it is complete.
    pub fn poll_head(&mut self) -> Option<String> {
        self.poll();
        self.take_head()
    }

    /// The next frame that has arrived, if it is complete.
    ///
    /// # Panics
    ///
    /// If it is not one that the other role may send.
    #[track_caller]
    pub fn poll_frame(&mut self) -> Option<Frame> {
        self.poll();
        self.take_frame()
    }

    /// All complete frames that have arrived.
    ///
    /// # Panics
    ///
    /// If one is not one that the other role may send.
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

    /// Whether the other end has ended the stream, in whatever way.
    pub fn is_over(&mut self) -> bool {
        self.poll_end().is_some()
    }

    fn poll(&mut self) {
        if self.end.is_some() {
            return;
        }
        self.stream.set_nonblocking(true).expect("it is a socket");
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
        self.stream.set_nonblocking(false).expect("it is a socket");
    }
}

/// Reads what has arrived early, then from the socket.
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

/// A frame for a message of an assertion: large payloads are cut short.
fn brief(frame: &Frame) -> String {
    let Frame { fin, rsv, opcode, payload } = frame;
    let shown = payload[..payload.len().min(64)].escape_ascii();
    let more = if payload.len() > 64 { "..." } else { "" };
    format!(
        "fin {fin}, rsv {rsv:#x}, opcode {opcode:#x}, {} bytes \"{shown}{more}\"",
        payload.len()
    )
}

/// Listens, and does `serve` with the first connection, on a thread.
///
/// # Panics
///
/// If there is no port.
pub fn serve<T: Send + 'static>(
    serve: impl FnOnce(Peer) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let address = listener.local_addr().expect("it is bound");
    let thread = thread::spawn(move || serve(Peer::accept(&listener)));
    (address, thread)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::{close, ping, text};

    const RESPONSE: &str = requests::SAMPLE_RESPONSE;

    #[test]
    fn two_peers_talk() {
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
    fn what_has_arrived_is_taken_without_waiting() {
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
    fn a_stream_that_breaks_is_not_one_that_ends() {
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
    #[should_panic(expected = "came for fin true")]
    fn another_frame_than_expected_fails_the_test() {
        let (address, _server) = serve(|peer| peer.send(&[text("a")]));
        Peer::connect(address).expect(&text("b"));
    }
}
