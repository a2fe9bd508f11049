//! The records of one connection: all calls of rustls's connections are here.
//!
//! To *seal* bytes is to encrypt and authenticate them, as records: see [`Seal`].

use std::any::Any;
use std::sync::Arc;

use anyloop_proto::{Input, Role};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, Error, ServerConfig};

use self::outer::OuterTls;
use super::server_name;
use crate::stream::{MAX_RECORD_PLAINTEXT, Seal};

mod outer;

/// The most bytes that a record has beside its content: header, nonce, content type and tag.
const OVERHEAD: usize = 64;

/// The most bytes that are kept of an incomplete record, or of the records of an incomplete handshake message.
const MAX_INCOMPLETE: usize = 128 * 1024;

/// Decryption pauses when this much plaintext has gathered, in bytes.
const PLAINTEXT_LIMIT: usize = 64 * 1024;

/// The TLS protocol of one connection: rustls's unbuffered connection and its buffers. It keeps input that is
/// incomplete, and plaintext output until the handshake is complete.
pub(crate) struct Records {
    side: Side,
    /// An incomplete record, or the records of an incomplete message of the handshake.
    ///
    /// rustls must get these bytes with each call: it stores ranges of them, and panics if they are missing.
    ciphertext: Vec<u8>,
    /// How many bytes of `ciphertext`, from its start, rustls has inspected, and may have moved.
    inspected: usize,
    /// On a server, the host name that the client has asked for (RFC 6066 §3).
    server_name: Option<Box<str>>,
    /// Plaintext that was passed to `seal` before the end of the handshake.
    pending_output: Vec<u8>,
    /// Why output could not be sealed; `None` once it was taken.
    seal_error: Option<Error>,
    /// The close_notify of the peer has arrived.
    peer_closed: bool,
    /// Nothing is sealed any more: TLS has failed, or [`stop`](Self::stop) was called.
    stopped: bool,
    /// Decryption has failed, here or in the TLS with the proxy: rustls must not get more input.
    decryption_failed: bool,
    /// An alert about an error was appended to the output.
    alert_written: bool,
    /// The peer is a proxy, and not the WebSocket server.
    peer_is_proxy: bool,
    /// The TLS with a proxy: its records contain these records.
    outer: Option<Box<OuterTls>>,
}

/// The connection of rustls, by the role of this end.
enum Side {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// The peer's direction of the stream, after [`Records::receive`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// The peer may send more. If input is left, call again: one incomplete record was completed, or
    /// [`PLAINTEXT_LIMIT`] was reached.
    Open,
    /// The close_notify of the peer has arrived: it sends nothing more.
    Closed,
}

/// What [`Records::decrypt`] has done.
struct Decrypted {
    /// The number of bytes that were used.
    used: usize,
    /// Whether it has stopped because of [`PLAINTEXT_LIMIT`]. The input may have more records.
    is_limit_reached: bool,
}

/// What one call of rustls has done.
enum Step {
    /// Something was done: call again.
    CallAgain,
    PeerClosed,
    /// Nothing is left to do: rustls needs more input, or the content is written.
    Finished,
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
            ciphertext: Vec::new(),
            inspected: 0,
            server_name: None,
            pending_output: Vec::new(),
            seal_error: None,
            peer_closed: false,
            stopped: false,
            decryption_failed: false,
            alert_written: false,
            peer_is_proxy: false,
            outer: None,
        }
    }

    /// A client appends its ClientHello to `out`; a server does nothing.
    pub(super) fn start(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.with_output(out, |records, out| {
            records.decrypt(&mut [], &mut Vec::new(), out).map(|_| ())
        })
    }

    /// Decrypts the records in `input`, and appends their content to `plaintext`. Output of TLS itself is appended to
    /// `out`. `free_buffer` is free memory for an incomplete record.
    pub(super) fn receive(
        &mut self,
        input: &mut Input<'_>,
        plaintext: &mut Vec<u8>,
        out: &mut Vec<u8>,
        free_buffer: &mut Vec<u8>,
    ) -> Result<Received, Error> {
        if let Some(mut outer) = self.outer.take() {
            let received = outer.receive(self, input, plaintext, out, free_buffer);
            self.outer = Some(outer);
            return received;
        }
        if !self.ciphertext.is_empty()
            && !self.complete_record(input, plaintext, out, free_buffer)?
        {
            return Ok(Received::Open);
        }
        if self.ciphertext.is_empty() && !self.peer_closed {
            let bytes = input.take_all();
            let whole = bytes.len() - Tail::of(bytes).len; // read first: rustls may move what it inspects
            let Decrypted { used, is_limit_reached } = self.decrypt(bytes, plaintext, out)?;
            let rest = &mut bytes[used..];
            if is_limit_reached {
                input.put_back(rest);
            } else if !rest.is_empty() && !self.peer_closed {
                self.ciphertext = std::mem::take(free_buffer);
                self.ciphertext.extend_from_slice(rest);
                self.inspected = whole.saturating_sub(used);
            }
        }
        Ok(if self.peer_closed { Received::Closed } else { Received::Open })
    }

    /// Adds only the bytes that the incomplete record lacks, and decrypts it: the records after it are not copied.
    /// Returns false if there is not enough input.
    fn complete_record(
        &mut self,
        input: &mut Input<'_>,
        plaintext: &mut Vec<u8>,
        out: &mut Vec<u8>,
        free_buffer: &mut Vec<u8>,
    ) -> Result<bool, Error> {
        loop {
            let missing = match self.tail().missing {
                0 => HEADER_LEN, // a message of the handshake continues in another record
                missing => missing,
            };
            let bytes = input.take_all();
            let (first, rest) = bytes.split_at_mut(missing.min(bytes.len()));
            self.ciphertext.extend_from_slice(first);
            let is_enough = first.len() == missing;
            input.put_back(rest);
            if self.ciphertext.len() > MAX_INCOMPLETE {
                self.fail_decryption(out);
                return Err(Error::PeerSentOversizedRecord);
            }
            if !is_enough {
                return Ok(false);
            }
            if self.tail().missing == 0 {
                let mut ciphertext = std::mem::take(&mut self.ciphertext);
                let decrypted = self.decrypt(&mut ciphertext, plaintext, out);
                ciphertext.drain(..decrypted?.used);
                match ciphertext.is_empty() {
                    true => *free_buffer = ciphertext,
                    false => (self.inspected, self.ciphertext) = (ciphertext.len(), ciphertext),
                }
                return Ok(true);
            }
        }
    }

    /// The incomplete record at the end of what is kept.
    fn tail(&self) -> Tail {
        Tail::of(&self.ciphertext[self.inspected..])
    }

    /// Decrypts the records in `ciphertext`. Stops when [`PLAINTEXT_LIMIT`] is reached.
    fn decrypt(
        &mut self,
        ciphertext: &mut [u8],
        plaintext: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Decrypted, Error> {
        let mut used = 0;
        loop {
            let (now_used, step) = self.process(&mut ciphertext[used..], plaintext, out);
            used += now_used;
            match step.inspect_err(|_| self.fail_decryption(out))? {
                Step::CallAgain if plaintext.len() >= PLAINTEXT_LIMIT => {
                    return Ok(Decrypted { used, is_limit_reached: true });
                }
                Step::CallAgain => {}
                Step::PeerClosed => self.peer_closed = true,
                Step::Finished => return Ok(Decrypted { used, is_limit_reached: false }),
            }
        }
    }

    /// Decryption has failed: appends the alert. Nothing may follow it (RFC 8446 §6), and rustls must not get more
    /// input.
    #[cold]
    fn fail_decryption(&mut self, out: &mut Vec<u8>) {
        (self.decryption_failed, self.stopped) = (true, true);
        self.write_alert(out);
    }

    /// Appends the alert that tells the peer of an error, if there is one (RFC 8446 §6.2).
    pub(super) fn write_alert(&mut self, out: &mut Vec<u8>) {
        self.with_output(out, |records, out| {
            // rustls must not inspect input after an error. It does not while it has output.
            let before = out.len();
            while records.common().wants_write() {
                let _ = records.process(&mut [], &mut Vec::new(), out);
            }
            records.alert_written |= out.len() > before;
        });
    }

    /// Whether an alert about an error was appended, for the peer or for the proxy.
    pub(super) fn has_written_alert(&self) -> bool {
        self.alert_written
            || self.outer.as_deref().is_some_and(|outer| outer.records.has_written_alert())
    }

    /// Appends a close_notify, unless nothing is sealed any more or the handshake is not complete. Nothing can be
    /// sealed after it.
    pub(super) fn write_close_notify(&mut self, out: &mut Vec<u8>) {
        if self.stopped {
            return;
        }
        let written =
            self.with_output(out, |records, out| records.write(Content::CloseNotify, out));
        if let Err(error) = written {
            crate::log::debug!("no close_notify is sent: {error}");
        }
        if let Some(outer) = &mut self.outer {
            outer.records.write_close_notify(out);
        }
    }

    /// Seals nothing any more, and drops what is kept of the input.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
        self.ciphertext = Vec::new();
        if let Some(outer) = &mut self.outer {
            outer.records.stop();
        }
    }

    /// Whether no more input can be decrypted: the close_notify of the peer has arrived, or decryption has failed.
    pub(super) const fn is_input_over(&self) -> bool {
        self.peer_closed || self.decryption_failed
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.common().is_handshaking()
    }

    /// Takes the plaintext that waits for the end of the handshake.
    pub(super) fn take_pending_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pending_output)
    }

    /// Takes the error because of which output could not be sealed.
    pub(super) fn take_seal_error(&mut self) -> Option<Error> {
        self.seal_error.take().or_else(|| self.outer.as_deref_mut()?.records.take_seal_error())
    }

    /// The same records, marked: their peer is a proxy, and not the WebSocket server.
    #[cfg(feature = "net")]
    pub(super) fn with_proxy_as_peer(self) -> Self {
        Self { peer_is_proxy: true, ..self }
    }

    /// The role of this end.
    pub(super) const fn role(&self) -> Role {
        match self.side {
            Side::Client(_) => Role::Client,
            Side::Server(_) => Role::Server,
        }
    }

    pub(super) fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// What rustls knows about the connection in either role.
    pub(super) fn common(&self) -> &CommonState {
        match &self.side {
            Side::Client(connection) => connection,
            Side::Server(connection) => connection,
        }
    }

    /// Passes `ciphertext` to rustls, and does one thing that it requires. Returns the number of bytes that were used.
    fn process(
        &mut self,
        ciphertext: &mut [u8],
        plaintext: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> (usize, Result<Step, Error>) {
        match &mut self.side {
            Side::Client(connection) => {
                handle_state(connection.process_tls_records(ciphertext), plaintext, out)
            }
            Side::Server(connection) if connection.is_handshaking() => {
                let ((used, step), name) = server_name::capture(|| {
                    handle_state(connection.process_tls_records(ciphertext), plaintext, out)
                });
                if name.is_some() {
                    self.server_name = name;
                }
                (used, step)
            }
            Side::Server(connection) => {
                handle_state(connection.process_tls_records(ciphertext), plaintext, out)
            }
        }
    }
}

/// The length of the header of a record (RFC 8446 §5.1).
const HEADER_LEN: usize = 5;

/// The incomplete record at the end of some records, if there is one.
#[derive(Debug, PartialEq, Eq)]
struct Tail {
    /// Its length so far.
    len: usize,
    /// The number of bytes that its header or its body lacks; 0 if there is no such record.
    missing: usize,
}

impl Tail {
    fn of(records: &[u8]) -> Self {
        let mut rest = records;
        while let Some((header, body)) = rest.split_first_chunk::<HEADER_LEN>() {
            let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
            match body.get(len..) {
                Some(behind) => rest = behind,
                None => return Self { len: rest.len(), missing: len - body.len() },
            }
        }
        let missing = if rest.is_empty() { 0 } else { HEADER_LEN - rest.len() };
        Self { len: rest.len(), missing }
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
            let ciphertext = &mut self.ciphertext;
            let step = match &mut self.side {
                Side::Client(connection) => {
                    write_content(connection.process_tls_records(ciphertext), content, out)
                }
                Side::Server(connection) => {
                    write_content(connection.process_tls_records(ciphertext), content, out)
                }
            };
            match step? {
                Step::CallAgain => {}
                Step::PeerClosed => self.peer_closed = true,
                Step::Finished => return Ok(()),
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
            self.pending_output.extend_from_slice(bytes);
            return true;
        }
        match self.with_output(out, |records, out| records.write(Content::Data(bytes), out)) {
            Ok(()) => true,
            Err(error) => {
                (self.seal_error, self.stopped) = (Some(error), true);
                false
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped
    }

    fn encryption_state(&self) -> Option<&dyn Any> {
        if self.peer_is_proxy { None } else { Some(self) }
    }
}

/// Does what the state of rustls requires. Returns the number of bytes of input that were used, and what was done.
fn handle_state<D>(
    status: UnbufferedStatus<'_, '_, D>,
    plaintext: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { discard, state } = status;
    let mut used = discard;
    let step = match state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    used += record.discard;
                    plaintext.extend_from_slice(record.payload);
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Step::CallAgain),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            append_with(OVERHEAD, out, |out| data.encode(out).map_err(WriteError::from))
                .map(|()| Step::CallAgain)
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::CallAgain)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::PeerClosed),
        Ok(_) => Ok(Step::Finished),
        Err(error) => Err(error),
    };
    (used, step)
}

/// Seals `content` if rustls is ready for that: then returns [`Step::Finished`]. Otherwise does what its state
/// requires.
fn write_content<D>(
    status: UnbufferedStatus<'_, '_, D>,
    content: Content<'_>,
    out: &mut Vec<u8>,
) -> Result<Step, Error> {
    match status.state? {
        ConnectionState::WriteTraffic(mut traffic) => {
            let len = match content {
                Content::Data(bytes) => {
                    bytes.len() + OVERHEAD * (1 + bytes.len() / MAX_RECORD_PLAINTEXT)
                }
                Content::CloseNotify => OVERHEAD,
            };
            append_with(len, out, |out| {
                let written = match content {
                    Content::Data(bytes) => traffic.encrypt(bytes, out),
                    Content::CloseNotify => traffic.queue_close_notify(out),
                };
                written.map_err(WriteError::from)
            })
            .map(|()| Step::Finished)
        }
        state => {
            let status = UnbufferedStatus { discard: 0, state: Ok(state) };
            match handle_state(status, &mut Vec::new(), out).1 {
                Ok(Step::Finished) => Err(Error::HandshakeNotComplete),
                step => step,
            }
        }
    }
}

/// Why rustls has not written a record.
enum WriteError {
    /// It needs a buffer of this many bytes.
    BufferTooSmall(usize),
    Failed,
}

impl From<EncodeError> for WriteError {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::InsufficientSize(size) => Self::BufferTooSmall(size.required_size),
            EncodeError::AlreadyEncoded => Self::Failed,
        }
    }
}

impl From<EncryptError> for WriteError {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(size) => Self::BufferTooSmall(size.required_size),
            EncryptError::EncryptExhausted => Self::Failed,
        }
    }
}

/// Appends what `f` writes into a buffer of `len` bytes, or of as many as `f` requires.
fn append_with(
    mut len: usize,
    out: &mut Vec<u8>,
    mut f: impl FnMut(&mut [u8]) -> Result<usize, WriteError>,
) -> Result<(), Error> {
    let start = out.len();
    loop {
        out.resize(start + len, 0);
        match f(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(WriteError::BufferTooSmall(needed)) if needed > len => len = needed,
            Err(_) => {
                out.truncate(start);
                return Err(Error::EncryptError);
            }
        }
    }
}
