//! The receiving half of a connection.

use alloc::boxed::Box;
use core::time::Duration;

use super::sender::Sender;
use crate::assembly::Assembly;
use crate::close::CloseFrame;
use crate::config::Role;
use crate::error::{Cause, ExtensionError, Failure, State};
use crate::extension::Part;
use crate::frame::{FrameHeader, Head, Limits, MAX_HEADER_SIZE, Opcode, Rsv, mask, rotated};
use crate::input::Input;
use crate::message::{Chunk, Event, Kind, Message, Text};
use crate::output::Output;
use crate::time::Instant;
use crate::utf8::Utf8;

/// From this much outstanding payload on, in bytes, [`Receiver::want`] lends memory.
const WANT_AT_LEAST: usize = 4096;

/// A fragment is charged as this many bytes against the size limit of messages, but apart from the
/// payload: honest fragments of any size pass, endless empty ones do not.
const FRAGMENT_CHARGE: u64 = 16;

/// The number of fragments that is always allowed, whatever the size limit.
const FRAGMENTS_AT_LEAST: u64 = 1 << 16;

/// The receiving half of a [`Connection`](super::Connection).
///
/// A large message, most of which is received where it is to lie:
///
/// ```
/// # use anyloop_proto::*;
/// # let now = Instant::from_nanos(0);
/// # let mut out = Vec::new();
/// # let mut connection = Connection::new(Role::Client, Config::default().into(), now);
/// let Connection { receiver, sender } = &mut connection;
/// let mut bytes = [&b"\x82\x7e\x2e\xe0"[..], &[7; 6_000]].concat(); // half of 12,000 bytes
/// assert!(receiver.next(sender, &mut Input::new(&mut bytes), now, &mut out)?.is_none());
///
/// let room = receiver.want().expect("much is still to come");
/// assert_eq!(room.len(), 6_000); // no more than that
/// room.fill(8); // as a socket would
/// receiver.filled(6_000);
/// match receiver.next(sender, &mut Input::new(&mut []), now, &mut out)? {
///     Some(Event::Message(Message::Binary(payload))) => {
///         assert_eq!((payload.len(), payload[5_999], payload[6_000]), (12_000, 7, 8));
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Failure>(())
/// ```
pub struct Receiver {
    step: Step,
    /// Payload bytes of the message so far, as they came: encoded if an extension encodes.
    size: u64,
    /// The last frame that postpones the idle timeout.
    pub(super) last_frame: Instant,
    pub(super) last_data: Instant,
    messages: u64,
    bytes: u64,
    assembly: Option<Box<Assembly>>,
    utf8: Utf8,
    fragments: u32,
    message: Option<InMessage>,
    streaming: bool,
    /// An event borrows the assembly until the next call.
    lent: bool,
}

/// Where in the stream of frames the next byte stands.
enum Step {
    /// Between two messages, with nothing kept: the next frame may go the short way.
    Fresh,
    /// In a header, of which `len` bytes are known; or before it, where the short way is not open.
    Header { bytes: [u8; MAX_HEADER_SIZE], len: u8 },
    /// In a payload.
    Payload { remaining: u64, key: [u8; 4], opcode: Opcode, fin: bool },
    /// Nothing more is received.
    Finished,
}

const HEADER: Step = Step::Header { bytes: [0; MAX_HEADER_SIZE], len: 0 };

/// A message that has begun and not ended.
#[derive(Clone, Copy)]
struct InMessage {
    kind: Kind,
    encoded: bool,
    /// Streaming: no chunk has been lent yet.
    first: bool,
}

/// What was found, before it is lent: where it lies, so that nothing is borrowed while looking.
enum Found<'b> {
    Nothing,
    Whole(Kind, &'b [u8]),
    Gathered(Kind),
    Chunk { kind: Kind, payload: Option<&'b [u8]>, first: bool, last: bool },
    Control(Opcode, Option<&'b [u8]>),
}

impl Receiver {
    pub(super) fn new(streaming: bool, now: Instant) -> Self {
        Self {
            step: if streaming { HEADER } else { Step::Fresh },
            size: 0,
            last_frame: now,
            last_data: now,
            messages: 0,
            bytes: 0,
            assembly: None,
            utf8: Utf8::default(),
            fragments: 0,
            message: None,
            streaming,
            lent: false,
        }
    }

    /// Takes from `input` until there is an event to lend, or nothing more to take.
    ///
    /// The event borrows `input`'s bytes, or memory of this half, but not `sender`: what it holds
    /// can be sent on. What the protocol asks for in return (a pong, the answer to a Close, the
    /// Close that fails the connection) has been appended to `out` when this returns.
    ///
    /// `Ok(None)` means that all input was taken, or that the peer's Close has come, after which
    /// input is left where it is. Only then may [`want`](Self::want) be asked.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the connection, once. What came whole before it has been lent before.
    #[inline]
    pub fn next<'e, 'b: 'e, O: Output>(
        &'e mut self,
        sender: &mut Sender,
        input: &mut Input<'b>,
        now: Instant,
        out: &mut O,
    ) -> Result<Option<Event<'e>>, Failure> {
        if !matches!(self.step, Step::Fresh) {
            self.settle(input);
        }
        if matches!(self.step, Step::Fresh) {
            if let Some((kind, payload)) = self.next_whole(sender, input, now) {
                match kind {
                    Kind::Binary => return Ok(Some(Event::Message(Message::Binary(payload)))),
                    Kind::Text => match simdutf8::basic::from_utf8(payload) {
                        Ok(text) => return Ok(Some(Event::Message(Message::Text(text.into())))),
                        Err(_) => return Err(self.fail_text(payload, sender, now, out)),
                    },
                }
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
        // What the other ways find is lent from here, so that an event of the short way need not lie
        // in memory: that is worth a tenth of a small message.
        match self.next_any(sender, input, now, out) {
            Ok((found, round_trip)) => Ok(self.lend(found, round_trip)),
            Err(failure) => Err(failure),
        }
    }

    /// The short way: a whole message in one frame with a length of at most 16 bits, all of it in
    /// the input. Takes nothing where anything else comes.
    #[inline]
    fn next_whole<'b>(
        &mut self,
        sender: &Sender,
        input: &mut Input<'b>,
        now: Instant,
    ) -> Option<(Kind, &'b [u8])> {
        let head: &[u8; 4] = input.rest().first_chunk()?;
        let kind = match head[0] {
            0x81 => Kind::Text,
            0x82 => Kind::Binary,
            _ => return None,
        };
        let (header, len) = match head[1] & 0x7f {
            len @ ..126 => (2, usize::from(len)),
            126 => (4, usize::from(u16::from_be_bytes([head[2], head[3]]))),
            _ => return None,
        };
        if (header == 4 && len < 126) || len as u64 > sender.config.max_message_size {
            return None;
        }
        let masked = head[1] & 0x80 != 0;
        let payload = match sender.role {
            Role::Server if masked => {
                let frame = input.take_whole(header + 4 + len)?;
                let (key, payload) = frame[header..].split_first_chunk_mut()?;
                mask(payload, *key);
                payload
            }
            Role::Client if !masked => input.take_whole(header + len)?.split_at_mut(header).1,
            _ => return None,
        };
        (self.last_frame, self.last_data) = (now, now);
        self.messages += 1;
        self.bytes += len as u64;
        Some((kind, payload))
    }

    /// The text that came the short way is not UTF-8.
    #[cold]
    fn fail_text(
        &mut self,
        payload: &[u8],
        sender: &mut Sender,
        now: Instant,
        out: &mut dyn Output,
    ) -> Failure {
        self.messages -= 1; // it was not one after all
        let at = Utf8::default().check(payload).err().map_or(payload.len(), |error| error.valid);
        self.fail(Cause::InvalidUtf8 { at: at as u64 }, sender, now, out)
    }

    /// Every other way.
    fn next_any<'b>(
        &mut self,
        sender: &mut Sender,
        input: &mut Input<'b>,
        now: Instant,
        out: &mut dyn Output,
    ) -> Result<(Found<'b>, Option<Duration>), Failure> {
        let found = match self.find(sender, input, now) {
            Ok(found) => found,
            Err(cause) => return Err(self.fail(cause, sender, now, out)),
        };
        // The policy of control frames, while nothing is lent.
        let mut round_trip = None;
        if let Found::Control(opcode, ref in_place) = found {
            let payload = in_place.unwrap_or_else(|| self.control());
            match opcode {
                Opcode::Ping if sender.config.auto_pong => sender.pong_or_hold(payload, out),
                Opcode::Pong => {
                    round_trip = sender.pong_received(payload, now);
                    if round_trip.is_none() {
                        self.last_frame = now;
                    }
                }
                Opcode::Close => match CloseFrame::parse(payload) {
                    Ok(frame) => {
                        sender.close_received(&frame, now, out);
                        self.step = Step::Finished;
                    }
                    Err(cause) => return Err(self.fail(cause, sender, now, out)),
                },
                _ => {}
            }
        }
        self.lent = !matches!(found, Found::Nothing);
        Ok((found, round_trip))
    }

    /// Ends the loan of the last event and what was kept only for it, and opens the short way again
    /// where nothing is left. (An event that went the short way leaves nothing.)
    fn settle(&mut self, input: &mut Input<'_>) {
        if self.lent {
            self.lent = false;
            if let Some(assembly) = &mut self.assembly {
                assembly.clear_control();
                if self.streaming || self.message.is_none() {
                    assembly.clear_message();
                }
            }
        }
        let between =
            matches!(self.step, Step::Fresh | Step::Finished | Step::Header { len: 0, .. });
        if between && self.message.is_none() {
            if let Some(assembly) = self.assembly.take()
                && let Some(pool) = input.pool()
            {
                pool.put(assembly);
            }
            if !self.streaming && matches!(self.step, Step::Header { .. }) {
                self.step = Step::Fresh;
            }
        }
    }

    fn find<'b>(
        &mut self,
        sender: &mut Sender,
        input: &mut Input<'b>,
        now: Instant,
    ) -> Result<Found<'b>, Cause> {
        if let Some(found) = self.absorb_filled(sender, now)? {
            return Ok(found);
        }
        loop {
            match self.step {
                Step::Finished => return Ok(Found::Nothing),
                Step::Fresh | Step::Header { .. } => match self.header(sender, input)? {
                    Some(header) => self.begin_frame(header, sender, now)?,
                    None => return Ok(Found::Nothing),
                },
                Step::Payload { remaining, key, opcode, fin } => {
                    let most = usize::try_from(remaining).unwrap_or(usize::MAX);
                    let bytes = input.take(most);
                    if bytes.is_empty() && remaining > 0 {
                        return Ok(Found::Nothing);
                    }
                    if sender.role == Role::Server {
                        mask(bytes, key);
                    }
                    let rest = remaining - bytes.len() as u64;
                    let key = rotated(key, bytes.len());
                    self.step = Step::Payload { remaining: rest, key, opcode, fin };
                    let found = if opcode.is_control() {
                        self.control_part(opcode, bytes, rest == 0, input)
                    } else {
                        self.data_part(bytes, sender, input, now)?
                    };
                    if let Some(found) = found {
                        return Ok(found);
                    }
                }
            }
        }
    }

    /// Reads the header of the next frame, if all of it is there.
    fn header(
        &mut self,
        sender: &mut Sender,
        input: &mut Input<'_>,
    ) -> Result<Option<FrameHeader>, Cause> {
        let limits = Limits {
            masked: sender.role == Role::Server,
            rsv: sender.decoding().map_or(Rsv::NONE, |decoding| decoding.decoder.claims()),
            in_message: self.message.is_some(),
        };
        let (mut bytes, mut len) = match self.step {
            Step::Header { bytes, len } => (bytes, usize::from(len)),
            _ => ([0; MAX_HEADER_SIZE], 0),
        };
        if len == 0
            && let Head::Complete { header, size } = FrameHeader::decode(input.rest(), limits)?
        {
            input.take(size);
            return Ok(Some(header));
        }
        while let &mut [byte] = input.take(1) {
            bytes[len] = byte;
            len += 1;
            // A header of 14 bytes is complete, so there is always room for the next.
            if let Head::Complete { header, .. } = FrameHeader::decode(&bytes[..len], limits)? {
                return Ok(Some(header));
            }
        }
        if len > 0 {
            self.step = Step::Header { bytes, len: len as u8 };
        }
        Ok(None)
    }

    /// Judges a header by what has come before it.
    fn begin_frame(
        &mut self,
        header: FrameHeader,
        sender: &mut Sender,
        now: Instant,
    ) -> Result<(), Cause> {
        let FrameHeader { opcode, fin, rsv, mask, len } = header;
        match opcode {
            Opcode::Text | Opcode::Binary => {
                let kind = if opcode == Opcode::Text { Kind::Text } else { Kind::Binary };
                let encoded = !rsv.is_empty();
                self.message = Some(InMessage { kind, encoded, first: true });
                (self.size, self.fragments, self.utf8) = (0, 0, Utf8::default());
                if let Some(decoding) = sender.decoding() {
                    (decoding.size, decoding.begun) = (0, false);
                }
            }
            Opcode::Continuation => self.fragments = self.fragments.saturating_add(1),
            _ => {}
        }
        if !opcode.is_control() {
            self.last_data = now;
            self.check_size(len, sender.config.max_message_size)?;
        }
        if opcode != Opcode::Pong {
            self.last_frame = now; // a pong only when it turns out to be nobody's answer
        }
        let key = mask.unwrap_or_default();
        self.step = Step::Payload { remaining: len, key, opcode, fin };
        Ok(())
    }

    /// Whether a message may have `len` bytes more. Nothing is reserved for them.
    fn check_size(&self, len: u64, limit: u64) -> Result<(), Cause> {
        let encoded = self.message.is_some_and(|message| message.encoded);
        // What an encoded message becomes is limited where it is decoded. That it does not shrink
        // by much is all that can be said before.
        let most = if encoded { limit.saturating_add(limit / 16 + 1024) } else { limit };
        let size = self.size.checked_add(len).filter(|&size| size <= most);
        let Some(size) = size else { return Err(Cause::MessageTooBig { limit }) };
        if !self.streaming && usize::try_from(size).is_err() {
            return Err(Cause::LengthOverflow);
        }
        let charged = u64::from(self.fragments).saturating_mul(FRAGMENT_CHARGE);
        if charged > limit.max(FRAGMENTS_AT_LEAST * FRAGMENT_CHARGE) {
            return Err(Cause::TooManyFragments);
        }
        Ok(())
    }

    /// A part of a control frame, or all of it.
    fn control_part<'b>(
        &mut self,
        opcode: Opcode,
        bytes: &'b [u8],
        ends: bool,
        input: &mut Input<'_>,
    ) -> Option<Found<'b>> {
        let gathered = self.assembly.as_ref().is_some_and(|part| !part.control().is_empty());
        if ends {
            self.step = HEADER;
        }
        if ends && !gathered {
            return Some(Found::Control(opcode, Some(bytes)));
        }
        self.assembly(input, bytes.len()).append_control(bytes);
        ends.then_some(Found::Control(opcode, None))
    }

    /// A part of a message, unmasked; the step says how much of its frame is still to come.
    fn data_part<'b>(
        &mut self,
        bytes: &'b [u8],
        sender: &mut Sender,
        input: &mut Input<'_>,
        now: Instant,
    ) -> Result<Option<Found<'b>>, Cause> {
        let Some(message) = self.message else { return Ok(None) };
        let Step::Payload { remaining, fin, .. } = self.step else { return Ok(None) };
        let (ends_frame, last) = (remaining == 0, remaining == 0 && fin);
        let starts = self.size == 0;
        (self.last_frame, self.last_data) = (now, now);
        self.bytes += bytes.len() as u64;

        let mut payload = None;
        if message.encoded {
            self.decode(bytes, last, message.kind, sender, input)?;
        } else {
            self.check_text(message.kind, bytes, last)?;
            if self.streaming || (last && starts) {
                payload = Some(bytes);
            } else {
                self.assembly(input, bytes.len()).append(bytes);
            }
        }
        self.size += bytes.len() as u64;
        if ends_frame {
            self.step = HEADER;
        }
        Ok(self.message_part(message, payload, last))
    }

    /// What a part makes of its message: nothing yet, a chunk, or the whole.
    fn message_part<'b>(
        &mut self,
        message: InMessage,
        payload: Option<&'b [u8]>,
        last: bool,
    ) -> Option<Found<'b>> {
        if last {
            self.message = None;
            self.messages += 1;
        }
        let InMessage { kind, first, .. } = message;
        if self.streaming {
            let gathered = self.assembly.as_ref().map_or(0, |assembly| assembly.message().len());
            if payload.map_or(gathered, <[u8]>::len) == 0 && !last {
                return None;
            }
            self.message = self.message.map(|message| InMessage { first: false, ..message });
            return Some(Found::Chunk { kind, payload, first, last });
        }
        if !last {
            return None;
        }
        Some(payload.map_or(Found::Gathered(kind), |payload| Found::Whole(kind, payload)))
    }

    /// Decodes a part of a message into the assembly, and checks what it has become.
    fn decode(
        &mut self,
        bytes: &[u8],
        last: bool,
        kind: Kind,
        sender: &mut Sender,
        input: &mut Input<'_>,
    ) -> Result<(), Cause> {
        let limit = sender.config.max_message_size;
        let Some(decoding) = sender.decoding() else {
            return Err(Cause::Extension(ExtensionError::Internal)); // no bit without a decoder
        };
        let part = Part::new(bytes, !decoding.begun, last);
        decoding.begun = true;
        let assembly = self.assembly(input, bytes.len());
        let start = assembly.message().len();
        // In streaming mode the assembly begins anew with each chunk.
        let most = (limit - decoding.size).saturating_add(start as u64);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let result = assembly.append_with(|text| decoding.decoder.decode(part, most, text));
        let too_big = assembly.message().len() > most;
        let before = decoding.size;
        if let Some(assembly) = &self.assembly {
            let decoded = assembly.message().get(start..).unwrap_or_default();
            decoding.size += decoded.len() as u64;
            // What was decoded before an error came before it.
            if kind == Kind::Text {
                check_text(&mut self.utf8, decoded, before, last && result.is_ok())?;
            }
        }
        match result {
            Ok(()) if too_big => Err(Cause::Extension(ExtensionError::TooBig)),
            result => result.map_err(Cause::Extension),
        }
    }

    fn check_text(&mut self, kind: Kind, bytes: &[u8], last: bool) -> Result<(), Cause> {
        match kind {
            Kind::Binary => Ok(()),
            Kind::Text => check_text(&mut self.utf8, bytes, self.size, last),
        }
    }

    #[inline]
    fn lend<'e, 'b: 'e>(
        &'e self,
        found: Found<'b>,
        round_trip: Option<Duration>,
    ) -> Option<Event<'e>> {
        let gathered = || self.assembly.as_deref().map_or(&[][..], Assembly::message);
        Some(match found {
            Found::Nothing => return None,
            Found::Whole(kind, payload) => Event::Message(message(kind, payload)),
            Found::Gathered(kind) => Event::Message(message(kind, gathered())),
            Found::Chunk { kind, payload, first, last } => {
                let payload = payload.unwrap_or_else(gathered);
                Event::Chunk(Chunk { kind, payload, first, last })
            }
            Found::Control(opcode, payload) => {
                let payload = payload.unwrap_or_else(|| self.control());
                match opcode {
                    Opcode::Ping => Event::Ping(payload),
                    Opcode::Pong => Event::Pong { payload, round_trip },
                    // It was parsed when it was answered.
                    _ => Event::Close(CloseFrame::parse(payload).unwrap_or_default()),
                }
            }
        })
    }

    fn fail(
        &mut self,
        cause: Cause,
        sender: &mut Sender,
        now: Instant,
        out: &mut dyn Output,
    ) -> Failure {
        let failure = self.failure(cause, sender.state());
        self.finish();
        sender.fail(failure, now, out);
        failure
    }

    pub(super) const fn failure(&self, cause: Cause, state: State) -> Failure {
        Failure::new(cause, state, self.messages)
    }

    /// Counts the idle times from now.
    pub(super) const fn renew(&mut self, now: Instant) {
        (self.last_frame, self.last_data) = (now, now);
    }

    /// Receives nothing more.
    pub(super) fn finish(&mut self) {
        (self.step, self.message, self.assembly) = (Step::Finished, None, None);
    }

    pub(super) const fn received(&self) -> (u64, u64) {
        (self.messages, self.bytes)
    }

    fn control(&self) -> &[u8] {
        self.assembly.as_deref().map_or(&[], Assembly::control)
    }

    /// The place where this message, or control frame, is gathered, of which `arrived` bytes are
    /// the first.
    fn assembly(&mut self, input: &mut Input<'_>, arrived: usize) -> &mut Assembly {
        let pooled = || input.pool().map_or_else(Box::default, |pool| pool.get(arrived));
        self.assembly.get_or_insert_with(pooled)
    }
}

/// Receiving large payloads without a copy.
impl Receiver {
    /// Lends memory to receive into, where a large payload is outstanding: what arrives there need
    /// not be copied. Say with [`filled`](Self::filled) how much was received, and call
    /// [`next`](Self::next), with the bytes that follow or none.
    ///
    /// The memory is at most as large as what has arrived of the message so far, unless it is there
    /// already from earlier messages ([`BufferPool`](crate::BufferPool)), and at most what is
    /// outstanding of the frame. `None` says to receive as usual.
    #[inline]
    pub fn want(&mut self) -> Option<&mut [u8]> {
        match self.step {
            Step::Payload { remaining, opcode, fin, .. } => {
                self.want_payload(remaining, opcode, fin)
            }
            _ => None,
        }
    }

    fn want_payload(&mut self, remaining: u64, opcode: Opcode, fin: bool) -> Option<&mut [u8]> {
        if self.streaming || opcode.is_control() || self.message?.encoded {
            return None;
        }
        let assembly = self.assembly.as_deref_mut()?;
        let outstanding = remaining.saturating_sub(assembly.raw() as u64);
        let outstanding = usize::try_from(outstanding).unwrap_or(usize::MAX);
        if outstanding < WANT_AT_LEAST || assembly.message().len() < WANT_AT_LEAST {
            return None;
        }
        Some(assembly.room(outstanding, fin))
    }

    /// Says that the first `n` bytes of what [`want`](Self::want) lent were filled. More than it
    /// lent counts as all of it; where it lent nothing since the last call of
    /// [`next`](Self::next), this does nothing.
    pub fn filled(&mut self, n: usize) {
        if let Some(assembly) = self.assembly.as_deref_mut() {
            assembly.filled(n);
        }
    }

    /// Takes in what was filled: unmasks and checks it where it lies.
    fn absorb_filled<'b>(
        &mut self,
        sender: &Sender,
        now: Instant,
    ) -> Result<Option<Found<'b>>, Cause> {
        let Step::Payload { remaining, key, opcode, fin } = self.step else { return Ok(None) };
        let (Some(assembly), Some(message)) = (self.assembly.as_deref_mut(), self.message) else {
            return Ok(None);
        };
        let bytes = assembly.take_raw();
        if bytes.is_empty() {
            return Ok(None);
        }
        if sender.role == Role::Server {
            mask(bytes, key);
        }
        (self.last_frame, self.last_data) = (now, now);
        let len = bytes.len();
        let remaining = remaining - len as u64;
        self.step = Step::Payload { remaining, key: rotated(key, len), opcode, fin };
        let last = remaining == 0 && fin;
        if message.kind == Kind::Text {
            check_text(&mut self.utf8, bytes, self.size, last)?;
        }
        self.size += len as u64;
        self.bytes += len as u64;
        if remaining == 0 {
            self.step = HEADER;
        }
        Ok(self.message_part(message, None, last))
    }
}

fn check_text(utf8: &mut Utf8, bytes: &[u8], before: u64, last: bool) -> Result<(), Cause> {
    let at = match utf8.check(bytes) {
        Err(error) => error.valid,
        Ok(()) if last && !utf8.is_complete() => bytes.len(),
        Ok(()) => return Ok(()),
    };
    Err(Cause::InvalidUtf8 { at: before + at as u64 })
}

fn message(kind: Kind, payload: &[u8]) -> Message<'_> {
    match kind {
        Kind::Binary => Message::Binary(payload),
        Kind::Text => Message::Text(Text::checked(payload)),
    }
}
