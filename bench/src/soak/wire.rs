//! A blocking socket, with WebSocket frames written by hand (RFC 6455 §5.2).

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

/// How long to wait for what must come; and how often, since the time goes on where a process is stopped.
const PATIENCE: Duration = Duration::from_secs(15);
const TRIES: usize = 3;

/// A connection.
pub(crate) struct Wire {
    stream: TcpStream,
    input: Vec<u8>,
    /// Where in the input the next frame starts.
    at: usize,
    random: Random,
    has_closed: bool,
    /// Whether to stop answering pings after sending a Close. RFC 6455 §5.5.2 requires answers until a Close
    /// is received.
    pub(crate) spares_pongs: bool,
}

/// What has come.
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
    /// In the midst of a frame, or of the handshake.
    Cut,
    Reset,
}

impl Wire {
    /// A connection without a handshake.
    pub(crate) fn connect(address: SocketAddr, seed: u64) -> Result<Self, Failure> {
        let mut tries = 0;
        let stream = loop {
            match TcpStream::connect(address) {
                // All ports are taken by connections that were just closed.
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

    /// The same with the opening handshake done.
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

    /// The head of a response.
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

    /// Sends bytes as they are, all of them.
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

    /// Ends the sending direction.
    pub(crate) fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write); // the other end may have ended both
    }

    /// Closes it so that the other end finds it reset.
    pub(crate) fn reset(self) {
        set_socket_linger(&self.stream, Some(Duration::ZERO)).expect("it is a socket");
    }

    /// Reads once. Says how the stream has ended, if it has.
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

    /// What comes next. Pings are answered.
    pub(crate) fn next(&mut self) -> Result<Incoming<'_>, Failure> {
        loop {
            let Some((opcode, start, end)) = self.whole()? else {
                if let Some(end) = self.read()? {
                    return Ok(Incoming::End(end));
                }
                continue;
            };
            self.at = end;
            if opcode == PING {
                if !(self.has_closed && self.spares_pongs) {
                    let payload = self.input[start..end].to_vec();
                    let _ = self.send(PONG, &payload); // the other end may have closed meanwhile
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

    /// The next frame, if it is whole: its opcode, and where its payload lies.
    fn whole(&self) -> Result<Option<(u8, usize, usize)>, Failure> {
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

    /// A pong with this payload must be next.
    pub(crate) fn expect_pong(&mut self, payload: &[u8]) -> Result<(), Failure> {
        match self.next()? {
            Incoming::Pong(came) if came == payload => Ok(()),
            other => Err(format!("{other:?} came for a pong").into()),
        }
    }

    /// This message must be next.
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

    /// A Close with this code must be next. Returns its reason.
    pub(crate) fn expect_close(&mut self, code: u16) -> Result<String, Failure> {
        match self.next()? {
            Incoming::Close(came, reason) if came == code => Ok(reason.to_owned()),
            other => Err(format!("{other:?} came for a Close with {code}").into()),
        }
    }

    /// The end must be next, and a proper one.
    pub(crate) fn expect_eof(&mut self) -> Result<(), Failure> {
        match self.next()? {
            Incoming::End(End::Eof) => {
                self.finish(); // which the server waits for
                Ok(())
            }
            other => Err(format!("{other:?} came for the end").into()),
        }
    }

    /// Reads whatever comes, to the end, which must come.
    pub(crate) fn exhaust(&mut self) -> Result<(), Failure> {
        loop {
            self.at = self.input.len();
            if self.read()?.is_some() {
                return Ok(());
            }
        }
    }
}
