//! A client over a blocking socket that encodes and parses frames without the library (RFC 6455 §5.2).

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use anyloop_testkit::frames::{BINARY, CLOSE, Header, PING, PONG, TEXT};
use anyloop_testkit::requests::{ACCEPT, SWITCHING, field, head_end, request};
use anyloop_testkit::wait::let_time_pass;
use rustix::net::sockopt::set_socket_linger;

use crate::Failure;
use crate::frames;
use crate::random::Random;

/// The timeout of a read or write, and the number of attempts: there are several, since time also passes while the
/// processes are stopped.
const PATIENCE: Duration = Duration::from_secs(15);
const TRIES: usize = 3;

/// A connection.
pub(crate) struct Wire {
    stream: TcpStream,
    input: Vec<u8>,
    /// The position of the next frame in the input.
    at: usize,
    random: Random,
    has_closed: bool,
    /// Whether to stop answering pings after sending a Close. RFC 6455 §5.5.2 requires answers until a Close
    /// is received.
    pub(crate) spares_pongs: bool,
}

/// A received message, control frame or end of the stream.
pub(crate) enum Incoming<'w> {
    Message(&'w [u8]),
    Close(u16, &'w str),
    Pong(&'w [u8]),
    End(End),
}

impl fmt::Debug for Incoming<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(payload) => write!(f, "a message of {} bytes", payload.len()),
            Self::Close(code, reason) => write!(f, "a Close with {code} {reason:?}"),
            Self::Pong(payload) => write!(f, "a pong of {} bytes", payload.len()),
            Self::End(end) => write!(f, "the end ({end:?})"),
        }
    }
}

/// How the stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Eof,
    /// Within a frame or the handshake.
    Cut,
    Reset,
}

impl Wire {
    /// Opens a connection without a handshake.
    pub(crate) fn connect(address: SocketAddr, seed: u64) -> Result<Self, Failure> {
        let mut tries = 0;
        let stream = loop {
            match TcpStream::connect(address) {
                // Connections that were just closed still use all ephemeral ports.
                Err(error) if error.kind() == ErrorKind::AddrNotAvailable && tries < 2000 => {
                    tries += 1;
                    let_time_pass(Duration::from_millis(5), "the system frees ports");
                }
                stream => break stream.map_err(|error| format!("connecting: {error}"))?,
            }
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let random = Random::new(seed);
        Ok(Self {
            stream,
            input: Vec::new(),
            at: 0,
            random,
            has_closed: false,
            spares_pongs: false,
        })
    }

    /// Opens a connection and completes the opening handshake.
    pub(crate) fn open(address: SocketAddr, path: &str, seed: u64) -> Result<Self, Failure> {
        let mut wire = Self::connect(address, seed)?;
        wire.send_raw(request(path).as_bytes())?;
        let head = wire.head()?;
        if head.starts_with(SWITCHING) && field(&head, "Sec-WebSocket-Accept") == Some(ACCEPT) {
            Ok(wire)
        } else {
            Err(format!("the handshake was answered with {head:?}").into())
        }
    }

    /// Reads the head of a response.
    fn head(&mut self) -> Result<String, Failure> {
        loop {
            if let Some(end) = head_end(&self.input) {
                self.at = end;
                return Ok(String::from_utf8(self.input[..end].to_vec())?);
            }
            if let Some(end) = self.read()? {
                return Err(format!("{end:?} in the handshake").into());
            }
        }
    }

    /// Sends all bytes.
    pub(crate) fn send_raw(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        let mut tries = 0;
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && tries < TRIES => tries += 1,
                Err(error) => return Err(format!("sending: {error}").into()),
            }
        }
        Ok(())
    }

    /// Appends a frame to `out`.
    pub(crate) fn put(&mut self, out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
        let key = (self.random.next() as u32).to_le_bytes();
        frames::put(out, opcode, payload, Some(key));
    }

    /// Sends a frame.
    pub(crate) fn send(&mut self, opcode: u8, payload: &[u8]) -> Result<(), Failure> {
        let mut frame = Vec::with_capacity(payload.len() + 14);
        self.put(&mut frame, opcode, payload);
        self.send_raw(&frame)
    }

    pub(crate) fn send_close(&mut self, code: u16) -> Result<(), Failure> {
        self.has_closed = true;
        self.send(CLOSE, &code.to_be_bytes())
    }

    /// Shuts down the sending direction.
    pub(crate) fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write); // fails if the connection has ended
    }

    /// Closes the socket with a reset.
    pub(crate) fn reset(self) {
        set_socket_linger(&self.stream, Some(Duration::ZERO))
            .expect("the linger time of a socket can be set");
    }

    /// Reads once. Returns how the stream has ended, if it has.
    fn read(&mut self) -> Result<Option<End>, Failure> {
        self.input.drain(..self.at);
        self.at = 0;
        let mut buffer = [0; 65536];
        for _ in 0..TRIES {
            match self.stream.read(&mut buffer) {
                Ok(0) if self.input.is_empty() => return Ok(Some(End::Eof)),
                Ok(0) => return Ok(Some(End::Cut)),
                Ok(n) => {
                    self.input.extend_from_slice(&buffer[..n]);
                    return Ok(None);
                }
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Ok(Some(End::Reset));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(format!("receiving: {error}").into()),
            }
        }
        Err("nothing comes".into())
    }

    /// Receives the next message, Close, pong or end of the stream. Answers pings.
    pub(crate) fn next(&mut self) -> Result<Incoming<'_>, Failure> {
        loop {
            let Some((opcode, start, end)) = self.complete_frame()? else {
                if let Some(end) = self.read()? {
                    return Ok(Incoming::End(end));
                }
                continue;
            };
            self.at = end;
            if opcode == PING {
                if !(self.has_closed && self.spares_pongs) {
                    let payload = self.input[start..end].to_vec();
                    let _ = self.send(PONG, &payload); // fails if the server has closed meanwhile
                }
                continue;
            }
            let payload = &self.input[start..end];
            return match opcode {
                TEXT | BINARY => Ok(Incoming::Message(payload)),
                PONG => Ok(Incoming::Pong(payload)),
                CLOSE => {
                    let (code, reason) =
                        payload.split_first_chunk().ok_or("a Close without a code")?;
                    Ok(Incoming::Close(u16::from_be_bytes(*code), str::from_utf8(reason)?))
                }
                opcode => Err(format!("a frame with opcode {opcode}").into()),
            };
        }
    }

    /// The next frame, if it is complete: its opcode, and the start and end of its payload in the input.
    fn complete_frame(&self) -> Result<Option<(u8, usize, usize)>, Failure> {
        let frame = &self.input[self.at..];
        let Some(header) = Header::parse(frame) else { return Ok(None) };
        let Header { fin, rsv, opcode, key, payload_len, size } = header;
        if !fin || rsv != 0 || key.is_some() {
            return Err(format!("a frame that no server may send: {header:x?}").into());
        }
        let length = usize::try_from(payload_len)?;
        let start = self.at + size;
        Ok((frame.len() - size >= length).then_some((opcode, start, start + length)))
    }

    /// Receives a pong, which must have this payload.
    pub(crate) fn expect_pong(&mut self, payload: &[u8]) -> Result<(), Failure> {
        match self.next()? {
            Incoming::Pong(came) if came == payload => Ok(()),
            other => Err(format!("{other:?} came for a pong").into()),
        }
    }

    /// Receives a message, which must have this payload.
    pub(crate) fn expect_message(&mut self, payload: &[u8]) -> Result<(), Failure> {
        match self.next()? {
            Incoming::Message(came) if came == payload => Ok(()),
            Incoming::Message(came) => {
                let same = came.iter().zip(payload).take_while(|(a, b)| a == b).count();
                let (came, sent) = (came.len(), payload.len());
                Err(format!("an echo of {came} bytes for {sent}, the first {same} the same").into())
            }
            other => Err(format!("{other:?} came for an echo").into()),
        }
    }

    /// Receives a Close, which must have this code. Returns its reason.
    pub(crate) fn expect_close(&mut self, code: u16) -> Result<String, Failure> {
        match self.next()? {
            Incoming::Close(came, reason) if came == code => Ok(reason.to_owned()),
            other => Err(format!("{other:?} came for a Close with {code}").into()),
        }
    }

    /// Receives the end of the stream, which must be an EOF between frames. Ends the sending direction.
    pub(crate) fn expect_eof(&mut self) -> Result<(), Failure> {
        match self.next()? {
            Incoming::End(End::Eof) => {
                self.finish(); // the server waits for it
                Ok(())
            }
            other => Err(format!("{other:?} came for the end").into()),
        }
    }

    /// Discards all input up to the end of the stream.
    pub(crate) fn exhaust(&mut self) -> Result<(), Failure> {
        loop {
            self.at = self.input.len();
            if self.read()?.is_some() {
                return Ok(());
            }
        }
    }
}
