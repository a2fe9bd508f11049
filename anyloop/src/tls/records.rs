//! The records of one connection: the seam to rustls.

use std::any::Any;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, Error, ServerConfig};

use super::server_name;
use crate::stream::{RECORD, Seal};

/// What a record has beside its content, at most: header, nonce, content type and tag.
const OVERHEAD: usize = 64;

/// Opening stops when this much plaintext has gathered.
const PLAIN_LIMIT: usize = 64 * 1024;

/// The TLS protocol of one connection. It keeps neither input nor output.
pub(crate) struct Records {
    side: Side,
    /// The host that a client has asked for (RFC 6066 §3), as the server has got it.
    server_name: Option<Box<str>>,
    /// Output that the handshake must precede.
    early: Vec<u8>,
    /// Why output could not be sealed.
    failed: Option<Error>,
    /// The close_notify of the peer has arrived.
    closed: bool,
    /// Nothing can be sealed any more.
    stopped: bool,
    /// Opening has failed: rustls must not be given more.
    broken: bool,
}

enum Side {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// What [`Records::open`] has done.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    /// The input that was used, in bytes. The rest begins a record, or was not looked at because enough was opened.
    pub(super) used: usize,
    /// The peer sends nothing more: its close_notify has arrived.
    pub(super) closed: bool,
    /// Enough was opened, and there may be more.
    pub(super) more: bool,
}

/// What one call of rustls has done.
enum Step {
    /// Something: call again.
    Done,
    Closed,
    /// Nothing: it needs more input.
    Idle,
}

impl Records {
    pub(super) fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, Error> {
        let connection = UnbufferedClientConnection::new(config, name)?;
        Ok(Self::new(Side::Client(Box::new(connection))))
    }

    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let connection = UnbufferedServerConnection::new(config)?;
        Ok(Self::new(Side::Server(Box::new(connection))))
    }

    const fn new(side: Side) -> Self {
        Self {
            side,
            server_name: None,
            early: Vec::new(),
            failed: None,
            closed: false,
            stopped: false,
            broken: false,
        }
    }

    /// Opens the records in `cipher`, and appends their content to `plain`. Output of TLS itself is appended to `out`.
    ///
    /// The bytes that were not used may have changed: pass them again, with more after them.
    pub(super) fn open(
        &mut self,
        cipher: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Opened, Error> {
        let mut opened = Opened { used: 0, closed: self.closed, more: false };
        if self.is_over() {
            opened.used = cipher.len();
            return Ok(opened);
        }
        loop {
            let (used, step) = self.process(&mut cipher[opened.used..], plain, out);
            opened.used += used;
            match step.inspect_err(|_| self.broken = true)? {
                Step::Done if plain.len() >= PLAIN_LIMIT => opened.more = true,
                Step::Done => continue,
                Step::Closed => {
                    self.closed = true;
                    continue;
                }
                Step::Idle => {}
            }
            opened.closed = self.closed;
            return Ok(opened);
        }
    }

    /// Appends the alert that tells the peer of an error, if there is one (RFC 8446 §6.2).
    pub(super) fn alert(&mut self, out: &mut Vec<u8>) {
        let mut nothing = Vec::new();
        while let (_, Ok(Step::Done)) = self.process(&mut [], &mut nothing, out) {}
    }

    /// Appends a close_notify. Nothing can be sealed after it.
    pub(super) fn close_notify(&mut self, out: &mut Vec<u8>) {
        if let Err(error) = self.write(Content::CloseNotify, out) {
            crate::log::debug!("no close_notify is sent: {error}");
        }
    }

    /// TLS is over: nothing is sealed any more.
    pub(super) const fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether no more input can be opened: the peer has closed, or TLS has failed.
    pub(super) const fn is_over(&self) -> bool {
        self.closed || self.broken
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.common().is_handshaking()
    }

    /// Takes the output that has waited for the handshake.
    pub(super) fn take_early(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.early)
    }

    /// Why output could not be sealed, once.
    pub(super) const fn take_failure(&mut self) -> Option<Error> {
        self.failed.take()
    }

    pub(super) const fn is_client(&self) -> bool {
        matches!(self.side, Side::Client(_))
    }

    pub(super) fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    pub(super) fn common(&self) -> &CommonState {
        match &self.side {
            Side::Client(connection) => connection,
            Side::Server(connection) => connection,
        }
    }

    fn process(
        &mut self,
        cipher: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> (usize, Result<Step, Error>) {
        match &mut self.side {
            Side::Client(connection) => step(connection.process_tls_records(cipher), plain, out),
            Side::Server(connection) if connection.is_handshaking() => {
                let ((used, step), name) = server_name::record(|| {
                    step(connection.process_tls_records(cipher), plain, out)
                });
                if name.is_some() {
                    self.server_name = name;
                }
                (used, step)
            }
            Side::Server(connection) => step(connection.process_tls_records(cipher), plain, out),
        }
    }
}

/// What is sealed.
#[derive(Clone, Copy)]
enum Content<'b> {
    Data(&'b [u8]),
    CloseNotify,
}

impl Records {
    /// Appends a record with `content` to `out`, after what TLS itself has to send.
    fn write(&mut self, content: Content<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        loop {
            let step = match &mut self.side {
                Side::Client(connection) => {
                    write(connection.process_tls_records(&mut []), content, out)
                }
                Side::Server(connection) => {
                    write(connection.process_tls_records(&mut []), content, out)
                }
            };
            match step? {
                Step::Done => {}
                Step::Closed => self.closed = true,
                Step::Idle => return Ok(()),
            }
        }
    }
}

impl Seal for Records {
    fn seal(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        if self.stopped {
            return false;
        }
        if self.is_handshaking() {
            self.early.extend_from_slice(bytes);
            return true;
        }
        match self.write(Content::Data(bytes), out) {
            Ok(()) => true,
            Err(error) => {
                (self.failed, self.stopped) = (Some(error), true);
                false
            }
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Does what rustls asks for. Returns the number of bytes of input that were used, and what was done.
fn step<D>(
    status: UnbufferedStatus<'_, '_, D>,
    plain: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { discard, state } = status;
    let mut used = discard;
    let step = match state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    used += record.discard;
                    plain.extend_from_slice(record.payload);
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Step::Done),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            append(OVERHEAD, out, |out| data.encode(out).map_err(Unsealed::from))
                .map(|()| Step::Done)
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Done)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::Closed),
        Ok(_) => Ok(Step::Idle),
        Err(error) => Err(error),
    };
    (used, step)
}

/// Does what rustls asks for before it seals, and then seals `content`: the step is idle when that is done.
fn write<D>(
    status: UnbufferedStatus<'_, '_, D>,
    content: Content<'_>,
    out: &mut Vec<u8>,
) -> Result<Step, Error> {
    match status.state? {
        ConnectionState::WriteTraffic(mut traffic) => {
            let len = match content {
                Content::Data(bytes) => bytes.len() + OVERHEAD * (1 + bytes.len() / RECORD),
                Content::CloseNotify => OVERHEAD,
            };
            append(len, out, |out| {
                let written = match content {
                    Content::Data(bytes) => traffic.encrypt(bytes, out),
                    Content::CloseNotify => traffic.queue_close_notify(out),
                };
                written.map_err(Unsealed::from)
            })
            .map(|()| Step::Idle)
        }
        state => {
            let status = UnbufferedStatus { discard: 0, state: Ok(state) };
            match step(status, &mut Vec::new(), out).1 {
                Ok(Step::Idle) => Err(Error::HandshakeNotComplete),
                step => step,
            }
        }
    }
}

/// Why rustls has not written a record.
enum Unsealed {
    /// It needs so many bytes.
    Room(usize),
    Failed,
}

impl From<EncodeError> for Unsealed {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::InsufficientSize(size) => Self::Room(size.required_size),
            EncodeError::AlreadyEncoded => Self::Failed,
        }
    }
}

impl From<EncryptError> for Unsealed {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(size) => Self::Room(size.required_size),
            EncryptError::EncryptExhausted => Self::Failed,
        }
    }
}

/// Appends what `f` writes, for which `len` bytes are probably enough.
fn append(
    mut len: usize,
    out: &mut Vec<u8>,
    mut f: impl FnMut(&mut [u8]) -> Result<usize, Unsealed>,
) -> Result<(), Error> {
    let start = out.len();
    loop {
        out.resize(start + len, 0);
        match f(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(Unsealed::Room(needed)) if needed > len => len = needed,
            Err(_) => {
                out.truncate(start);
                return Err(Error::EncryptError);
            }
        }
    }
}
