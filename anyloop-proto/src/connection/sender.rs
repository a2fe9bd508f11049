//! The sending half of a connection, and the closing state that both halves share.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::keepalive::{KeepAlive, PingDelay};
use crate::close::{CloseFrame, check_close, truncate_reason};
use crate::close_code::CloseCode;
use crate::cold::cold_path;
use crate::config::{Config, Role};
use crate::contexts::Contexts;
use crate::error::{Failure, Refused, State};
use crate::extension::{Decoder, Encoder};
use crate::frame::{FrameHeader, MAX_CONTROL_PAYLOAD, Opcode, Rsv, mask};
use crate::kind::Kind;
use crate::message::{Message, Prepared};
use crate::output::{LARGE_PAYLOAD, Output};
use crate::time::Instant;

/// The FIN bit of a frame that is the last of its message, as every control frame is.
const FIN: bool = true;

/// The sending half of a [`Connection`](super::Connection).
///
/// Each call appends whole frames to the output that it is given, in the order of the calls. Between the pieces of a
/// message only control frames can be sent. After its Close frame, only pongs can be sent, and nothing after the peer's
/// Close; other calls return an error and append nothing.
///
/// This example sends a message in pieces, with a ping between them:
///
/// ```
/// # use anyloop_proto::*;
/// # let now = Instant::from_nanos(0);
/// # let mut connection = Connection::new(Role::Server, Config::default().into(), now);
/// let sender = &mut connection.sender;
/// let mut out = Vec::new();
/// sender.begin(Kind::Text)?;
/// sender.piece(b"Hel", false, &mut out)?;
/// sender.ping(b"", &mut out)?;
/// assert_eq!(sender.send("no", &mut out), Err(Refused::MessageUnfinished));
/// sender.piece(b"lo", true, &mut out)?;
/// assert_eq!(out, b"\x01\x03Hel\x89\x00\x80\x02lo");
/// # Ok::<(), Refused>(())
/// ```
pub struct Sender {
    pub(super) config: Arc<Config>,
    /// State that an idle connection without extensions does not have.
    pub(super) cold: Option<Box<ColdState>>,
    // Not adjacent to `bytes`: the compiler would add to both as one vector, which takes more
    // instructions.
    messages: u64,
    /// Part of the keep-alive, as `ping_number` and `keep_alive`: see `keepalive.rs`.
    pub(super) ping_since: Instant,
    bytes: u64,
    pub(super) ping_number: u16,
    pub(super) keep_alive: KeepAlive,
    pub(super) role: Role,
    state: State,
    fragmentation: Fragmentation,
    /// Messages of fewer bytes take the fast path; 0 if none does. Derived from the fields above by
    /// `update_fast_path`: caching it saves instructions per message.
    fast_below: u16,
}

/// The progress of a message that is sent in pieces.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fragmentation {
    /// No message is begun.
    None,
    /// The next frame is the first of the message.
    First(Kind),
    /// The next frame is a continuation.
    Next,
}

/// State that few connections have at any given time.
#[derive(Default)]
pub(super) struct ColdState {
    encoder: Option<Box<dyn Encoder>>,
    /// The reserved bits of the message being sent in pieces, if it is encoded.
    piece_rsv: Option<Rsv>,
    pub(super) decoding: Option<Decoding>,
    /// Present from the first Close or failure on.
    closing: Option<Box<Closing>>,
    /// The payload of a pong that waits until the output is no longer blocked.
    held_pong: Option<Box<[u8]>>,
    /// Boxed, like `closing`, since connections with an extension keep this state while they are idle.
    pub(super) ping_delay: Option<Box<PingDelay>>,
}

/// The decoder of an extension, and the message that it decodes.
pub(super) struct Decoding {
    pub(super) decoder: Box<dyn Decoder>,
    /// Decoded bytes of the message so far.
    pub(super) size: u64,
    /// Whether the decoder has received the first part of the message.
    pub(super) begun: bool,
}

/// The progress of the closing handshake or of a failure.
#[derive(Default)]
pub(super) struct Closing {
    pub(super) sent: Option<CloseFrame>,
    pub(super) received: Option<CloseFrame>,
    /// The peer sent its Close before we sent ours.
    pub(super) received_first: bool,
    /// The peer has ended its direction of the byte stream after the closing handshake or a
    /// failure.
    pub(super) eof: bool,
    /// When the close timeout expires.
    pub(super) deadline: Option<Instant>,
    /// The first failure.
    pub(super) failure: Option<Failure>,
}

impl core::fmt::Debug for Sender {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Sender").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Sender {
    pub(super) fn new(role: Role, config: Arc<Config>, now: Instant) -> Self {
        Self {
            fast_below: if role == Role::Server { LARGE_PAYLOAD as u16 } else { 0 },
            config,
            cold: None,
            messages: 0,
            bytes: 0,
            ping_since: now,
            ping_number: 0,
            keep_alive: KeepAlive::Idle,
            role,
            state: State::Open,
            fragmentation: Fragmentation::None,
        }
    }

    /// Sends a whole message in one frame.
    ///
    /// An event's message can be sent back while it is borrowed:
    ///
    /// ```
    /// # use anyloop_proto::*;
    /// # fn echo(connection: &mut Connection, bytes: &mut [u8], now: Instant, out: &mut Vec<u8>)
    /// #     -> Result<(), Failure> {
    /// let Connection { receiver, sender } = connection;
    /// let mut input = Input::new(bytes);
    /// while let Some(event) = receiver.next(sender, &mut input, now, out)? {
    ///     if let Event::Message(message) = event {
    ///         _ = sender.send(message, out); // the peer may have begun to close
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Refused::NotOpen`] after a Close frame; [`Refused::MessageUnfinished`] between
    /// [`begin`](Self::begin) and the last [`piece`](Self::piece).
    #[inline(always)] // only the fast path is inlined
    pub fn send<'m, O: Output>(
        &mut self,
        message: impl Into<Message<'m>>,
        out: &mut O,
    ) -> Result<(), Refused> {
        let message = message.into();
        let (kind, payload) = (message.kind(), message.as_bytes());
        if payload.len() >= usize::from(self.fast_below) {
            cold_path();
            let compress = true;
            return self.send_general(kind, payload, compress, out);
        }
        // The fast path: an unmasked message that is neither large nor encoded.
        self.messages += 1;
        self.bytes += payload.len() as u64;
        let first = 0x80 | kind.opcode() as u8;
        if payload.len() > MAX_CONTROL_PAYLOAD {
            cold_path(); // what follows is not inlined
            append_medium(out.buffer(), first, payload);
        } else {
            append_small(out.buffer(), [first, payload.len() as u8], payload);
        }
        Ok(())
    }

    /// Sends a whole message in one frame, without the encoder of an extension.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_uncompressed<'m, O: Output>(
        &mut self,
        message: impl Into<Message<'m>>,
        out: &mut O,
    ) -> Result<(), Refused> {
        let (message, compress) = (message.into(), false);
        self.send_general(message.kind(), message.as_bytes(), compress, out)
    }

    /// Sends a message that was encoded once for many connections.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_prepared<O: Output>(
        &mut self,
        prepared: &Prepared,
        out: &mut O,
    ) -> Result<(), Refused> {
        let (message, compress) = (prepared.message(), prepared.is_compressible());
        let (kind, payload) = (message.kind(), message.as_bytes());
        if self.role == Role::Client {
            return self.send_general(kind, payload, compress, out);
        }
        self.check_can_begin()?;
        let frame = match self.begin_encoding(kind, Some(payload.len()), compress) {
            None => prepared.plain_frame(),
            Some(rsv) => match self.shared_frame(prepared, rsv, out) {
                Some(frame) => frame,
                None => {
                    self.count_message(payload);
                    self.append_encoded_frame(kind.opcode(), FIN, rsv, payload, out);
                    return Ok(());
                }
            },
        };
        self.count_message(payload);
        if !out.write_shared(frame) {
            out.buffer().extend_from_slice(frame);
        }
        Ok(())
    }

    /// Begins a message that is sent in pieces, one frame per piece (RFC 6455 §5.4). Nothing is
    /// sent before the first [`piece`](Self::piece).
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn begin(&mut self, kind: Kind) -> Result<(), Refused> {
        let compress = true;
        self.begin_general(kind, compress)
    }

    /// Begins a message that is sent in pieces, without the encoder of an extension.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn begin_uncompressed(&mut self, kind: Kind) -> Result<(), Refused> {
        let compress = false;
        self.begin_general(kind, compress)
    }

    /// Sends the next piece of the message; `last` ends the message. A piece may be empty.
    ///
    /// The pieces of a text are not checked. Together they must be UTF-8; a single piece may end
    /// inside a character.
    ///
    /// # Errors
    ///
    /// [`Refused::NotOpen`] after a Close frame; [`Refused::NoMessageBegun`] without
    /// [`begin`](Self::begin).
    pub fn piece<O: Output>(
        &mut self,
        payload: &[u8],
        last: bool,
        out: &mut O,
    ) -> Result<(), Refused> {
        self.check_open()?;
        let opcode = match self.fragmentation {
            Fragmentation::None => return Err(Refused::NoMessageBegun),
            Fragmentation::First(kind) => kind.opcode(),
            Fragmentation::Next => Opcode::Continuation,
        };
        let piece_rsv = self.cold.as_deref().and_then(|cold| cold.piece_rsv);
        self.set_fragmentation(if last { Fragmentation::None } else { Fragmentation::Next });
        self.bytes += payload.len() as u64;
        self.messages += u64::from(last);
        match piece_rsv {
            // RFC 7692 §6.1: the bit is on the first frame only.
            Some(rsv) => {
                let rsv = if opcode == Opcode::Continuation { Rsv::NONE } else { rsv };
                self.append_encoded_frame(opcode, last, rsv, payload, out);
            }
            None => self.append_frame(opcode, last, payload, out),
        }
        Ok(())
    }

    /// Sends a ping of the application. Keep-alive pings ([`ping_interval`](Config::ping_interval))
    /// are sent without a call.
    ///
    /// # Errors
    ///
    /// [`Refused::NotOpen`] after a Close frame; [`Refused::ControlTooLong`] above 125 bytes.
    pub fn ping<O: Output>(&mut self, payload: &[u8], out: &mut O) -> Result<(), Refused> {
        self.check_open()?;
        check_control_size(payload)?;
        self.append_frame(Opcode::Ping, FIN, payload, out);
        Ok(())
    }

    /// Sends a pong: the answer to a ping if [`auto_pong`](Config::auto_pong) is off, or an
    /// unsolicited one (RFC 6455 §5.5.3). While the output is blocked only the newest pong is kept.
    ///
    /// # Errors
    ///
    /// [`Refused::NotOpen`] after the peer's Close frame; [`Refused::ControlTooLong`] above 125
    /// bytes.
    pub fn pong<O: Output>(&mut self, payload: &[u8], out: &mut O) -> Result<(), Refused> {
        self.check_can_pong()?;
        check_control_size(payload)?;
        self.send_or_hold_pong(payload, out);
        Ok(())
    }

    /// Begins the closing handshake (RFC 6455 §7.1.2): sends a Close frame. Messages are still
    /// received until the peer's Close. `now` starts the [`close_timeout`](Config::close_timeout).
    ///
    /// A message begun in pieces stays unfinished. Without a code (`None`) the frame is empty, and the peer reports
    /// 1005; there can be no reason then (RFC 6455 §5.5.1).
    ///
    /// # Errors
    ///
    /// [`Refused::NotOpen`] after an earlier Close frame; [`Refused::ReasonTooLong`] above 123
    /// bytes (see [`truncate_reason`]); [`Refused::ReasonWithoutCode`].
    pub fn close<O: Output>(
        &mut self,
        code: impl Into<Option<CloseCode>>,
        reason: &str,
        now: Instant,
        out: &mut O,
    ) -> Result<(), Refused> {
        self.check_open()?;
        let code = code.into();
        check_close(code, reason)?;
        self.send_close(code, reason, now, out);
        self.set_state(State::CloseSent);
        Ok(())
    }

    /// The role of this end.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Whether a message [begun](Self::begin) in pieces is not complete: only its pieces and control frames can be
    /// sent (RFC 6455 §5.4).
    #[must_use]
    pub fn is_message_begun(&self) -> bool {
        self.fragmentation != Fragmentation::None
    }

    /// The state of the connection.
    #[inline]
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// The numbers of messages and of payload bytes sent.
    pub(super) const fn sent_counts(&self) -> (u64, u64) {
        (self.messages, self.bytes)
    }

    // Used by the receiver, the keep-alive and the timers.

    pub(super) fn set_state(&mut self, state: State) {
        self.state = state;
        self.update_fast_path();
    }

    pub(super) fn set_extension(&mut self, decoder: Box<dyn Decoder>, encoder: Box<dyn Encoder>) {
        let cold = self.cold_or_insert();
        cold.decoding = Some(Decoding { decoder, size: 0, begun: false });
        cold.encoder = Some(encoder);
        self.update_fast_path();
    }

    fn set_fragmentation(&mut self, fragmentation: Fragmentation) {
        self.fragmentation = fragmentation;
        self.update_fast_path();
    }

    /// Recomputes which whole messages can be sent without further checks.
    fn update_fast_path(&mut self) {
        let fast =
            self.role == Role::Server && self.state == State::Open && !self.is_message_begun();
        let threshold = self.encoder().map_or(LARGE_PAYLOAD, |encoder| encoder.threshold());
        self.fast_below = if fast { threshold.min(LARGE_PAYLOAD) as u16 } else { 0 };
    }

    /// The cold state; created if there is none.
    pub(super) fn cold_or_insert(&mut self) -> &mut ColdState {
        self.cold.get_or_insert_default()
    }

    pub(super) fn closing(&self) -> Option<&Closing> {
        self.cold.as_deref()?.closing.as_deref()
    }

    /// The closing state; created if there is none.
    pub(super) fn closing_or_insert(&mut self) -> &mut Closing {
        self.cold_or_insert().closing.get_or_insert_default()
    }

    pub(super) fn decoding(&mut self) -> Option<&mut Decoding> {
        self.cold.as_deref_mut()?.decoding.as_mut()
    }

    /// Sends a pong, or holds it while the output is blocked. Does nothing after the peer's Close.
    pub(super) fn send_or_hold_pong(&mut self, payload: &[u8], out: &mut dyn Output) {
        if self.check_can_pong().is_err() {
            return;
        }
        if out.is_blocked() {
            self.cold_or_insert().held_pong = Some(payload.into());
        } else {
            self.drop_held_pong(); // this one is newer
            self.append_frame(Opcode::Pong, FIN, payload, out);
        }
    }

    /// Sends the held pong, if the output is no longer blocked. Called when the peer has read
    /// something.
    pub(super) fn send_held_pong(&mut self, out: &mut dyn Output) {
        let Some(cold) = self.cold.as_deref_mut() else { return };
        if out.is_blocked() {
            return;
        }
        if let Some(payload) = cold.held_pong.take() {
            self.send_or_hold_pong(&payload, out);
        }
    }

    /// Drops the held pong.
    fn drop_held_pong(&mut self) {
        let Some(cold) = self.cold.as_deref_mut() else { return };
        cold.held_pong = None;
        self.free_cold_if_unused();
    }

    pub(super) fn ping_delay(&self) -> Option<PingDelay> {
        self.cold.as_deref()?.ping_delay.as_deref().copied()
    }

    pub(super) fn forget_ping_delay(&mut self) {
        let Some(cold) = self.cold.as_deref_mut() else { return };
        cold.ping_delay = None;
        self.free_cold_if_unused();
    }

    /// Frees the cold state if nothing needs it.
    fn free_cold_if_unused(&mut self) {
        let Some(cold) = self.cold.as_deref() else { return };
        let used = cold.encoder.is_some()
            || cold.decoding.is_some()
            || cold.held_pong.is_some()
            || cold.ping_delay.is_some();
        if self.state == State::Open && !used {
            self.cold = None;
        }
    }

    /// Handles the peer's Close. Answers with the same code and reason if we have not sent a Close
    /// (RFC 6455 §5.5.1); clients show the echoed reason to their users.
    pub(super) fn handle_close(
        &mut self,
        frame: &CloseFrame<&str>,
        now: Instant,
        out: &mut dyn Output,
    ) {
        let first = self.state == State::Open;
        if first {
            self.send_close(frame.code, frame.reason, now, out);
        }
        let closing = self.closing_or_insert();
        closing.received = Some(frame.to_owned());
        closing.received_first = first;
        self.set_state(State::Closed);
    }

    /// Fails the connection (RFC 6455 §7.1.7): sends a Close frame with the code of the cause, if it has one and no
    /// Close was sent already, and nothing more.
    pub(super) fn fail(&mut self, failure: Failure, now: Instant, out: &mut dyn Output) {
        if self.state == State::Open {
            if let Some(code) = failure.close_code() {
                self.send_close(Some(code), failure.cause().reason(), now, out);
            }
        }
        self.set_state(State::Failed);
        let timeout = self.config.close_timeout;
        let closing = self.closing_or_insert();
        closing.failure.get_or_insert(failure);
        if closing.deadline.is_none() {
            closing.deadline = timeout.map(|timeout| now + timeout);
        }
    }

    pub(super) fn send_control(&mut self, opcode: Opcode, payload: &[u8], out: &mut dyn Output) {
        self.append_frame(opcode, FIN, payload, out);
    }

    // Frames.

    /// The general path of `send`: any message, in any state.
    #[inline(never)]
    fn send_general(
        &mut self,
        kind: Kind,
        payload: &[u8],
        compress: bool,
        out: &mut dyn Output,
    ) -> Result<(), Refused> {
        self.check_can_begin()?;
        self.count_message(payload);
        match self.begin_encoding(kind, Some(payload.len()), compress) {
            Some(rsv) => self.append_encoded_frame(kind.opcode(), FIN, rsv, payload, out),
            None => self.append_frame(kind.opcode(), FIN, payload, out),
        }
        Ok(())
    }

    fn begin_general(&mut self, kind: Kind, compress: bool) -> Result<(), Refused> {
        self.check_can_begin()?;
        let rsv = self.begin_encoding(kind, None, compress);
        if self.has_encoder() {
            self.cold_or_insert().piece_rsv = rsv;
        }
        self.set_fragmentation(Fragmentation::First(kind));
        Ok(())
    }

    /// Begins a message in the encoder, if `compress` allows. Returns the reserved bits; `None` if the message is sent
    /// as it is.
    fn begin_encoding(&mut self, kind: Kind, len: Option<usize>, compress: bool) -> Option<Rsv> {
        let encoder = self.encoder().filter(|_| compress)?;
        if len.is_some_and(|len| len < encoder.threshold()) {
            return None;
        }
        encoder.begin(kind, len)
    }

    /// The frame of a prepared message, encoded once for all connections with the same share key. `None` if the encoder
    /// has no share key, or the message [keeps no frame](Prepared::encoded_frame) for this key.
    #[cfg(feature = "std")]
    fn shared_frame<'p>(
        &mut self,
        prepared: &'p Prepared,
        rsv: Rsv,
        out: &mut dyn Output,
    ) -> Option<&'p Arc<[u8]>> {
        let encoder = self.encoder()?;
        let key = encoder.share_key()?;
        let message = prepared.message();
        let encode = || {
            let mut own = Contexts::new();
            let (_, lent) = out.parts();
            let contexts = lent.unwrap_or(&mut own);
            let mut payload = Vec::new();
            encoder.encode_shared(message.as_bytes(), &mut payload, contexts);
            let opcode = message.kind().opcode();
            let header = FrameHeader { rsv, ..FrameHeader::new(opcode, FIN, payload.len() as u64) };
            let mut frame = Vec::with_capacity(header.size() + payload.len());
            header.encode(&mut frame);
            frame.extend_from_slice(&payload);
            frame
        };
        let frame = prepared.encoded_frame(key, encode)?;
        encoder.shared_sent(message.as_bytes());
        Some(frame)
    }

    #[cfg(not(feature = "std"))]
    fn shared_frame<'p>(
        &mut self,
        _: &'p Prepared,
        _: Rsv,
        _: &mut dyn Output,
    ) -> Option<&'p Arc<[u8]>> {
        None
    }

    /// Appends a frame, masked if this is a client.
    fn append_frame(&mut self, opcode: Opcode, fin: bool, payload: &[u8], out: &mut dyn Output) {
        let mut header = FrameHeader::new(opcode, fin, payload.len() as u64);
        header.mask = self.masking_key();
        let (bytes, size) = header.to_bytes();
        let bytes = &bytes[..size];
        if header.mask.is_none()
            && payload.len() >= LARGE_PAYLOAD
            && out.write_vectored(bytes, payload)
        {
            return;
        }
        let buffer = out.buffer();
        buffer.reserve(size + payload.len());
        buffer.extend_from_slice(bytes);
        let start = buffer.len();
        buffer.extend_from_slice(payload);
        if let Some(key) = header.mask {
            mask(&mut buffer[start..], key);
        }
    }

    /// Encodes `payload` directly into the output, after space for the longest header. Once the
    /// length is known, it writes the header and moves the payload up to it.
    fn append_encoded_frame(
        &mut self,
        opcode: Opcode,
        fin: bool,
        rsv: Rsv,
        payload: &[u8],
        out: &mut dyn Output,
    ) {
        let key = self.masking_key();
        let (buffer, lent) = out.parts();
        let mut own = Contexts::new();
        let contexts = lent.unwrap_or(&mut own);
        let start = buffer.len();
        let header_size =
            FrameHeader { mask: key, ..FrameHeader::new(opcode, fin, u64::MAX) }.size();
        buffer.resize(start + header_size, 0);
        if let Some(encoder) = self.encoder() {
            encoder.encode(payload, fin, buffer, contexts);
        }
        let payload_start = start + header_size;
        let len = buffer.len() - payload_start;
        if let Some(key) = key {
            mask(&mut buffer[payload_start..], key);
        }
        let mut header = FrameHeader::new(opcode, fin, len as u64);
        (header.rsv, header.mask) = (rsv, key);
        let (bytes, size) = header.to_bytes();
        buffer[start..start + size].copy_from_slice(&bytes[..size]);
        buffer.copy_within(payload_start.., start + size);
        buffer.truncate(start + size + len);
    }

    /// Appends our Close, with the reason cut to fit, and starts the close timeout.
    fn send_close(
        &mut self,
        code: Option<CloseCode>,
        reason: &str,
        now: Instant,
        out: &mut dyn Output,
    ) {
        let mut payload = [0; MAX_CONTROL_PAYLOAD];
        let mut len = 0;
        let reason = truncate_reason(reason);
        if let Some(code) = code {
            payload[..2].copy_from_slice(&code.get().to_be_bytes());
            len = 2 + reason.len();
            payload[2..len].copy_from_slice(reason.as_bytes());
        }
        self.append_frame(Opcode::Close, FIN, &payload[..len], out);
        let deadline = self.config.close_timeout.map(|timeout| now + timeout);
        let closing = self.closing_or_insert();
        closing.sent = Some(CloseFrame { code, reason: reason.into() });
        closing.deadline = deadline;
    }

    fn masking_key(&self) -> Option<[u8; 4]> {
        match self.role {
            Role::Client => Some(self.config.random.masking_key()),
            Role::Server => None,
        }
    }

    fn check_open(&self) -> Result<(), Refused> {
        match self.state {
            State::Open => Ok(()),
            state => Err(Refused::NotOpen(state)),
        }
    }

    /// RFC 6455 §5.5.2: a ping is answered "unless it already received a Close frame", so pongs are
    /// also sent after our own Close.
    fn check_can_pong(&self) -> Result<(), Refused> {
        match self.state {
            State::Open | State::CloseSent => Ok(()),
            state => Err(Refused::NotOpen(state)),
        }
    }

    fn check_can_begin(&self) -> Result<(), Refused> {
        self.check_open()?;
        if self.is_message_begun() { Err(Refused::MessageUnfinished) } else { Ok(()) }
    }

    fn count_message(&mut self, payload: &[u8]) {
        self.messages += 1;
        self.bytes += payload.len() as u64;
    }

    fn has_encoder(&self) -> bool {
        self.cold.as_deref().is_some_and(|cold| cold.encoder.is_some())
    }

    fn encoder(&mut self) -> Option<&mut (dyn Encoder + 'static)> {
        self.cold.as_deref_mut()?.encoder.as_deref_mut()
    }
}

/// Appends a frame with at most 125 bytes of payload.
///
/// If the payload was unmasked just now, its stores are still in the store buffer. A load is served from the store
/// buffer only if a single store covers all of it. `memcpy` loads up to 64 bytes at a time and would wait until all
/// stores have reached the cache; these copies load the sizes that `mask_small` stores.
#[inline(always)]
fn append_small(buffer: &mut Vec<u8>, header: [u8; 2], payload: &[u8]) {
    buffer.extend_from_slice(&header);
    let rest = append_first::<64>(buffer, payload);
    if rest.is_empty() {
        return;
    }
    let rest = append_first::<32>(buffer, rest);
    let rest = append_first::<16>(buffer, rest);
    let rest = append_first::<8>(buffer, rest);
    for byte in rest {
        buffer.push(*byte);
    }
}

/// Appends a frame with a 16-bit length.
#[inline(never)]
fn append_medium(buffer: &mut Vec<u8>, first: u8, payload: &[u8]) {
    let [high, low] = (payload.len() as u16).to_be_bytes();
    buffer.reserve(4 + payload.len());
    buffer.extend_from_slice(&[first, 126, high, low]);
    buffer.extend_from_slice(payload);
}

/// Appends the first `N` bytes if there are that many, and returns the rest.
#[inline(always)]
fn append_first<'b, const N: usize>(buffer: &mut Vec<u8>, bytes: &'b [u8]) -> &'b [u8] {
    match bytes.split_first_chunk::<N>() {
        Some((first, rest)) => {
            buffer.extend_from_slice(first);
            rest
        }
        None => bytes,
    }
}

fn check_control_size(payload: &[u8]) -> Result<(), Refused> {
    if payload.len() > MAX_CONTROL_PAYLOAD {
        return Err(Refused::ControlTooLong(payload.len()));
    }
    Ok(())
}
