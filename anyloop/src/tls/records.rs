//! The records of one connection: the seam to rustls.

use std::any::Any;
use std::sync::Arc;

use anyloop_proto::Input;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, Error, ServerConfig};

use self::around::Around;
use super::server_name;
use crate::stream::{RECORD, Seal};

mod around;

/// What a record has beside its content, at most: header, nonce, content type and tag.
const OVERHEAD: usize = 64;

/// The most bytes of one message of the handshake that are kept until all of it has arrived.
const MAX_HELD: usize = 128 * 1024;

/// Opening stops when this much plaintext has gathered.
const PLAIN_LIMIT: usize = 64 * 1024;

/// The TLS protocol of one connection. It keeps no output, and of the input an incomplete record.
pub(crate) struct Records {
    side: Side,
    /// An incomplete record, or the records of an incomplete message of the handshake.
    ///
    /// rustls must get it with each call: it has ranges of it, and panics if they are missing.
    cipher: Vec<u8>,
    /// So many bytes of it rustls has looked at, and may have moved.
    looked_at: usize,
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
    /// The peer was told of an error.
    alerted: bool,
    /// The peer is a proxy, and not the end of the connection.
    of_proxy: bool,
    /// The records of a proxy, in which these travel.
    around: Option<Box<Around>>,
}

enum Side {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// What [`Records::receive`] has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// All input was used, or enough was decrypted.
    Some,
    /// The peer sends nothing more: its close_notify has arrived.
    Closed,
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
            cipher: Vec::new(),
            looked_at: 0,
            server_name: None,
            early: Vec::new(),
            failed: None,
            closed: false,
            stopped: false,
            broken: false,
            alerted: false,
            of_proxy: false,
            around: None,
        }
    }

    /// A client appends its first message to `out`; a server does nothing.
    pub(super) fn start(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.through(out, |records, out| records.decrypt(&mut [], &mut Vec::new(), out).map(|_| ()))
    }

    /// Decrypts the records in `input`, and appends their content to `plain`. Output of TLS itself is appended to
    /// `out`.
    /// `spare` is free memory, for an incomplete record.
    pub(super) fn receive(
        &mut self,
        input: &mut Input<'_>,
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
        spare: &mut Vec<u8>,
    ) -> Result<Received, Error> {
        if let Some(mut around) = self.around.take() {
            let received = around.receive(self, input, plain, out, spare);
            self.around = Some(around);
            return received;
        }
        if !self.cipher.is_empty() && !self.complete(input, plain, out, spare)? {
            return Ok(Received::Some);
        }
        if self.cipher.is_empty() && !self.closed {
            let bytes = input.take_all();
            let whole = bytes.len() - Tail::of(bytes).len; // rustls may move what it has looked at
            let (used, more) = self.decrypt(bytes, plain, out)?;
            let rest = &mut bytes[used..];
            if more {
                input.put_back(rest);
            } else if !rest.is_empty() && !self.closed {
                self.cipher = std::mem::take(spare);
                self.cipher.extend_from_slice(rest);
                self.looked_at = whole.saturating_sub(used);
            }
        }
        Ok(if self.closed { Received::Closed } else { Received::Some })
    }

    /// Adds what the incomplete record lacks, so that the records after it need no copy, and decrypts it. Returns false
    /// if there is not enough input.
    fn complete(
        &mut self,
        input: &mut Input<'_>,
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
        spare: &mut Vec<u8>,
    ) -> Result<bool, Error> {
        loop {
            let lacks = match self.tail().lacks {
                0 => HEADER, // a message of the handshake continues in another record
                lacks => lacks,
            };
            let bytes = input.take_all();
            let (first, rest) = bytes.split_at_mut(lacks.min(bytes.len()));
            self.cipher.extend_from_slice(first);
            let is_enough = first.len() == lacks;
            input.put_back(rest);
            if self.cipher.len() > MAX_HELD {
                self.break_off(out);
                return Err(Error::PeerSentOversizedRecord);
            }
            if !is_enough {
                return Ok(false);
            }
            if self.tail().lacks == 0 {
                let mut cipher = std::mem::take(&mut self.cipher);
                let decrypted = self.decrypt(&mut cipher, plain, out);
                let (used, _) = decrypted?;
                cipher.drain(..used);
                match cipher.is_empty() {
                    true => *spare = cipher,
                    false => (self.looked_at, self.cipher) = (cipher.len(), cipher),
                }
                return Ok(true);
            }
        }
    }

    /// The incomplete record at the end of what is kept.
    fn tail(&self) -> Tail {
        Tail::of(&self.cipher[self.looked_at..])
    }

    /// Decrypts the records in `cipher`. Returns the number of bytes that were used, and whether it has stopped because
    /// enough was decrypted.
    fn decrypt(
        &mut self,
        cipher: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(usize, bool), Error> {
        let mut used = 0;
        loop {
            let (now_used, step) = self.process(&mut cipher[used..], plain, out);
            used += now_used;
            match step.inspect_err(|_| self.break_off(out))? {
                Step::Done if plain.len() >= PLAIN_LIMIT => return Ok((used, true)),
                Step::Done => {}
                Step::Closed => self.closed = true,
                Step::Idle => return Ok((used, false)),
            }
        }
    }

    /// Opening has failed. Nothing may follow the alert (RFC 8446 §6), and rustls must not look at input any more.
    #[cold]
    fn break_off(&mut self, out: &mut Vec<u8>) {
        (self.broken, self.stopped) = (true, true);
        self.alert(out);
    }

    /// Appends the alert that tells the peer of an error, if there is one (RFC 8446 §6.2).
    pub(super) fn alert(&mut self, out: &mut Vec<u8>) {
        self.through(out, |records, out| {
            // rustls must not look at input after an error, and does not while it has output.
            let before = out.len();
            while records.common().wants_write() {
                let _ = records.process(&mut [], &mut Vec::new(), out);
            }
            records.alerted |= out.len() > before;
        });
    }

    /// Whether an alert has told the peer of an error.
    pub(super) fn has_alerted(&self) -> bool {
        self.alerted || self.around.as_deref().is_some_and(|around| around.records.has_alerted())
    }

    /// Appends a close_notify, unless TLS has failed. Nothing can be sealed after it.
    pub(super) fn close_notify(&mut self, out: &mut Vec<u8>) {
        if self.stopped {
            return;
        }
        let written = self.through(out, |records, out| records.write(Content::CloseNotify, out));
        if let Err(error) = written {
            crate::log::debug!("no close_notify is sent: {error}");
        }
        if let Some(around) = &mut self.around {
            around.records.close_notify(out);
        }
    }

    /// TLS is over: nothing is sealed any more.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
        self.cipher = Vec::new();
        if let Some(around) = &mut self.around {
            around.records.stop();
        }
    }

    /// Whether no more input can be decrypted: the peer has closed, or TLS has failed.
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
    pub(super) fn take_failure(&mut self) -> Option<Error> {
        self.failed.take().or_else(|| self.around.as_deref_mut()?.records.take_failure())
    }

    /// The same records, which lead to a proxy, and not to the end of the connection.
    pub(super) fn of_proxy(self) -> Self {
        Self { of_proxy: true, ..self }
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

/// The length of the header of a record (RFC 8446 §5.1).
const HEADER: usize = 5;

/// An incomplete record at the end of some records.
#[derive(Debug, PartialEq, Eq)]
struct Tail {
    /// Its length so far.
    len: usize,
    /// The number of bytes that its header or its body lacks; 0 if there is no such record.
    lacks: usize,
}

impl Tail {
    fn of(records: &[u8]) -> Self {
        let mut rest = records;
        while let Some((header, body)) = rest.split_first_chunk::<HEADER>() {
            let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
            match body.get(len..) {
                Some(behind) => rest = behind,
                None => return Self { len: rest.len(), lacks: len - body.len() },
            }
        }
        let lacks = if rest.is_empty() { 0 } else { HEADER - rest.len() };
        Self { len: rest.len(), lacks }
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
            let cipher = &mut self.cipher;
            let step = match &mut self.side {
                Side::Client(connection) => {
                    write(connection.process_tls_records(cipher), content, out)
                }
                Side::Server(connection) => {
                    write(connection.process_tls_records(cipher), content, out)
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
        match self.through(out, |records, out| records.write(Content::Data(bytes), out)) {
            Ok(()) => true,
            Err(error) => {
                (self.failed, self.stopped) = (Some(error), true);
                false
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped
    }

    fn as_any(&self) -> Option<&dyn Any> {
        if self.of_proxy { None } else { Some(self) }
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
