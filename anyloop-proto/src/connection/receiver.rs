//! The receiving half of a connection.

use alloc::boxed::Box;
use core::time::Duration;

use super::sender::Sender;
use crate::assembly::Assembly;
use crate::close::CloseFrame;
use crate::cold::cold_path;
use crate::config::Role;
use crate::contexts::Contexts;
use crate::error::{Cause, ExtensionError, Failure, State};
use crate::extension::Part;
use crate::frame::{
    DecodedHeader, FrameHeader, HeaderRules, MAX_HEADER_SIZE, Opcode, Rsv, mask, mask_small,
};
use crate::input::Input;
use crate::kind::Kind;
use crate::message::{Chunk, Event, Message, Text};
use crate::output::Output;
use crate::partial::{MessageState, Partial, Position, check_text};
use crate::pool::BufferPool;
use crate::time::Instant;
use crate::utf8::Utf8;

/// The receiving half of a [`Connection`](super::Connection).
///
/// This example receives most of a large message directly into its final memory:
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
/// assert_eq!(receiver.outstanding(), 6_000);
/// let buffer = receiver.receive_buffer().expect("half of the message is outstanding");
/// assert_eq!(buffer.len(), 6_000); // no more than is outstanding
/// buffer.fill(8); // as a socket would
/// receiver.filled(6_000);
/// assert_eq!(receiver.outstanding(), 0);
/// match receiver.next(sender, &mut Input::new(&mut []), now, &mut out)? {
///     Some(Event::Message(Message::Binary(payload))) => {
///         assert_eq!((payload.len(), payload[5_999], payload[6_000]), (12_000, 7, 8));
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Failure>(())
/// ```
pub struct Receiver {
    // Not adjacent to `bytes`: the compiler would add to both as one vector, which takes more
    // instructions.
    messages: u64,
    /// The arrival time of the last bytes that postpone the idle timeout.
    pub(super) last_frame: Instant,
    /// The arrival time of the last bytes of a data frame.
    pub(super) last_data: Instant,
    bytes: u64,
    /// The message or frame that has arrived in part; `None` between messages.
    partial: Option<Box<Partial>>,
    path: Path,
    streaming: bool,
}

/// How the next bytes are processed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Path {
    /// Between two messages, with nothing buffered: the fast path applies.
    Fast,
    /// Anywhere else, and everywhere in streaming mode: the general path applies.
    General,
    /// Nothing more is received.
    Closed,
}

/// An event that does not borrow the assembly yet. If the payload is `None`, or the variant has none, the payload is in
/// the assembly.
enum PendingEvent<'b> {
    None,
    InPlace(Kind, &'b [u8]),
    Assembled(Kind),
    Chunk { kind: Kind, payload: Option<&'b [u8]>, first: bool, last: bool },
    Control(Opcode, Option<&'b [u8]>),
}

impl core::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

impl Receiver {
    pub(super) fn new(streaming: bool, now: Instant) -> Self {
        Self {
            last_frame: now,
            last_data: now,
            messages: 0,
            bytes: 0,
            partial: None,
            path: if streaming { Path::General } else { Path::Fast },
            streaming,
        }
    }

    /// Processes `input` until there is an event to return or no more input.
    ///
    /// The event borrows bytes of `input` or memory of this half, but not `sender`, so its payload
    /// can be sent while it is borrowed. Before this returns, it appends the protocol's response (a
    /// pong, the answer to a Close, or the Close that fails the connection) to `out`.
    ///
    /// `Ok(None)` means that all input was taken, or that nothing more is received: the peer's Close has arrived, or
    /// the connection has failed or ended. In the second case input is left. Call
    /// [`receive_buffer`](Self::receive_buffer) only after `Ok(None)`.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the connection, once. Messages that were complete before the failure are
    /// returned first.
    #[inline(always)] // only the fast path is inlined
    pub fn next<'e, 'b: 'e, O: Output>(
        &'e mut self,
        sender: &mut Sender,
        input: &mut Input<'b>,
        now: Instant,
        out: &mut O,
    ) -> Result<Option<Event<'e>>, Failure> {
        if !matches!(self.path, Path::Fast) {
            cold_path();
            self.release_event(input);
        }
        if let Some(message) = self.next_message(sender, input, now, out)? {
            return Ok(Some(Event::Message(message)));
        }
        if matches!(self.path, Path::Fast) && input.is_empty() {
            return Ok(None);
        }
        cold_path();
        // Events of the general path are converted here, so that the compiler can keep an event of
        // the fast path in registers. This saves a tenth of the cost of a small message.
        match self.next_general(sender, input, now, out) {
            Ok((event, round_trip)) => Ok(self.to_event(event, round_trip)),
            Err(failure) => Err(failure),
        }
    }

    /// The fast path of [`next`](Self::next): returns the next message if [it applies](Self::is_on_fast_path), and the
    /// message is one frame, unencoded, with at most 65,535 bytes of payload, all of it in `input`. `Ok(None)` takes no
    /// input and means that [`next`](Self::next) must be called. At the end of the input, a server's message of
    /// less than two bytes gives `Ok(None)` as well.
    ///
    /// A loop over small messages that calls this first saves some 20 of 200 instructions per
    /// message.
    ///
    /// ```
    /// # use anyloop_proto::*;
    /// # let now = Instant::from_nanos(0);
    /// # let mut out = Vec::new();
    /// # let mut connection = Connection::new(Role::Client, Config::default().into(), now);
    /// let Connection { receiver, sender } = &mut connection;
    /// let mut bytes = *b"\x81\x05Hello\x89\x00"; // and a ping
    /// let mut input = Input::new(&mut bytes);
    /// let message = receiver.next_message(sender, &mut input, now, &mut out)?;
    /// assert_eq!(message, Some("Hello".into()));
    /// assert_eq!(receiver.next_message(sender, &mut input, now, &mut out)?, None);
    /// assert!(matches!(receiver.next(sender, &mut input, now, &mut out)?, Some(Event::Ping(b""))));
    /// # Ok::<(), Failure>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next), for a text that is not UTF-8.
    #[inline(always)]
    pub fn next_message<'b, O: Output>(
        &mut self,
        sender: &mut Sender,
        input: &mut Input<'b>,
        now: Instant,
        out: &mut O,
    ) -> Result<Option<Message<'b>>, Failure> {
        if !self.is_on_fast_path() {
            return Ok(None);
        }
        match self.next_fast(sender, input, now) {
            None => Ok(None),
            Some((Kind::Binary, payload)) => Ok(Some(Message::Binary(payload))),
            Some((Kind::Text, payload)) => match simdutf8::basic::from_utf8(payload) {
                Ok(text) => Ok(Some(Message::Text(text.into()))),
                Err(_) => Err(self.fail_text(payload, sender, now, out)),
            },
        }
    }

    /// Ends the borrow of the last event and returns its memory to the pool of `input`. Takes no input. Call it before
    /// you wait for more input: the memory is otherwise kept until [`next`](Self::next) is called.
    pub fn release(&mut self, input: &mut Input<'_>) {
        self.release_event(input);
    }

    /// Whether [`next_message`](Self::next_message) can return a message: the next byte begins a frame between two
    /// messages, and nothing is buffered, so [`receive_buffer`](Self::receive_buffer) returns `None`.
    ///
    /// After a message that arrived in parts this is `false` until [`next`](Self::next) or [`release`](Self::release)
    /// is called. It is always `false` in streaming mode, and after the peer's Close or a failure.
    #[inline]
    #[must_use]
    pub const fn is_on_fast_path(&self) -> bool {
        matches!(self.path, Path::Fast)
    }

    /// The fast path: a whole message in one frame with a length of at most 16 bits, all of it in the input, which has
    /// at least four bytes. Takes no input and returns `None` in any other case.
    #[inline(always)]
    fn next_fast<'b>(
        &mut self,
        sender: &Sender,
        input: &mut Input<'b>,
        now: Instant,
    ) -> Option<(Kind, &'b [u8])> {
        let head: &[u8; 4] = input.rest().first_chunk()?;
        // Two tests instead of one match: the compiler would turn the match into two branches, and
        // the processor would predict neither.
        if !matches!(head[0], 0x81 | 0x82) {
            return None;
        }
        let kind = if head[0] == 0x81 { Kind::Text } else { Kind::Binary };
        let (header_size, len) = match head[1] & 0x7f {
            len @ ..126 => (2, usize::from(len)),
            126 => (4, usize::from(u16::from_be_bytes([head[2], head[3]]))),
            _ => return None,
        };
        if (header_size == 4 && len < 126) || len as u64 > sender.config.max_message_size {
            return None;
        }
        let masked = head[1] & 0x80 != 0;
        let payload = match sender.role {
            Role::Server if masked => {
                let frame = input.take_whole(header_size + 4 + len)?;
                let (key, payload) = frame[header_size..].split_first_chunk_mut()?;
                mask_small(payload, *key);
                payload
            }
            Role::Client if !masked => {
                input.take_whole(header_size + len)?.split_at_mut(header_size).1
            }
            _ => return None,
        };
        // A data frame sets both times, so comparing one is enough. Frames of one batch have the same
        // time, so the stores are usually skipped.
        if self.last_data != now {
            (self.last_frame, self.last_data) = (now, now);
        }
        self.messages += 1;
        self.bytes += len as u64;
        Some((kind, payload))
    }

    /// Fails the connection because a text on the fast path is not UTF-8.
    #[cold]
    fn fail_text(
        &mut self,
        payload: &[u8],
        sender: &mut Sender,
        now: Instant,
        out: &mut dyn Output,
    ) -> Failure {
        self.messages -= 1; // undo the count: the message is not valid
        let at = Utf8::default().check(payload).err().map_or(payload.len(), |error| error.at);
        self.fail(Cause::InvalidUtf8 { at: at as u64 }, sender, now, out)
    }

    /// The general path of `next`.
    #[inline(never)]
    fn next_general<'b>(
        &mut self,
        sender: &mut Sender,
        input: &mut Input<'b>,
        now: Instant,
        out: &mut dyn Output,
    ) -> Result<(PendingEvent<'b>, Option<Duration>), Failure> {
        let event = match self.read_event(sender, input, now) {
            Ok(event) => event,
            Err(cause) => return Err(self.fail(cause, sender, now, out)),
        };
        // Control frames are handled here, before the event borrows anything.
        let mut round_trip = None;
        if let PendingEvent::Control(opcode, ref in_place) = event {
            let payload = in_place.unwrap_or_else(|| self.control_payload());
            match opcode {
                Opcode::Ping if sender.config.auto_pong => sender.send_or_hold_pong(payload, out),
                Opcode::Pong => {
                    round_trip = sender.handle_pong(payload, now);
                    if round_trip.is_none() {
                        self.last_frame = now;
                    }
                }
                Opcode::Close => match CloseFrame::parse(payload) {
                    Ok(frame) => {
                        sender.handle_close(&frame, now, out);
                        self.path = Path::Closed;
                    }
                    Err(cause) => return Err(self.fail(cause, sender, now, out)),
                },
                _ => {}
            }
        }
        if let Some(partial) = &mut self.partial {
            partial.borrowed = !matches!(event, PendingEvent::None);
        }
        Ok((event, round_trip))
    }

    /// Ends the borrow of the last event, frees the memory that only this event used, and switches
    /// to the fast path if nothing is buffered. Events of the fast path need no release.
    #[inline(never)]
    fn release_event(&mut self, input: &mut Input<'_>) {
        if let Some(partial) = self.partial.as_deref_mut() {
            if partial.borrowed {
                partial.borrowed = false;
                partial.assembly.clear_control();
                if self.streaming || partial.message.is_none() {
                    partial.assembly.clear_message();
                }
            }
            let between = partial.message.is_none()
                && matches!(partial.position, Position::Header { len: 0, .. });
            if !between && self.path != Path::Closed {
                return;
            }
            if let (Some(partial), Some(pool)) = (self.partial.take(), input.pool()) {
                pool.put(partial);
            }
        }
        if self.path == Path::General && !self.streaming {
            self.path = Path::Fast;
        }
    }

    /// Reads frames until one results in an event, or the input is used up.
    fn read_event<'b>(
        &mut self,
        sender: &mut Sender,
        input: &mut Input<'b>,
        now: Instant,
    ) -> Result<PendingEvent<'b>, Cause> {
        if self.path == Path::Closed {
            return Ok(PendingEvent::None);
        }
        if let Some(event) = self.process_filled(sender, now)? {
            return Ok(event);
        }
        loop {
            let position = self.partial.as_deref().map(|partial| partial.position);
            let event = if let Some(Position::Payload { remaining, key, opcode, fin }) = position {
                if input.is_empty() && remaining > 0 {
                    return Ok(PendingEvent::None);
                }
                let bytes = take_unmasked(input, remaining, key, sender.role);
                let rest = remaining - bytes.len() as u64;
                self.partial_or_insert(input).position =
                    Position::payload(rest, key, bytes.len(), opcode, fin);
                if opcode.is_control() {
                    self.handle_control_part(opcode, bytes, rest == 0)
                } else {
                    self.handle_data_part(bytes, rest == 0 && fin, sender, input, now)?
                }
            } else {
                let Some(header) = self.read_header(sender, input)? else {
                    return Ok(PendingEvent::None);
                };
                self.begin_frame(header, sender, input, now)?
            };
            if let Some(event) = event {
                return Ok(event);
            }
        }
    }

    /// Reads the header of the next frame; `None` if it is incomplete.
    fn read_header(
        &mut self,
        sender: &mut Sender,
        input: &mut Input<'_>,
    ) -> Result<Option<FrameHeader>, Cause> {
        let partial = self.partial.as_deref();
        let rules = HeaderRules {
            masked: sender.role == Role::Server,
            rsv: sender.decoding().map_or(Rsv::NONE, |decoding| decoding.decoder.claims()),
            in_message: partial.is_some_and(|partial| partial.message.is_some()),
        };
        let (mut bytes, mut len) = match partial.map(|partial| partial.position) {
            Some(Position::Header { bytes, len }) => (bytes, usize::from(len)),
            _ => ([0; MAX_HEADER_SIZE], 0),
        };
        if len == 0 {
            if let DecodedHeader::Complete { header, size } =
                FrameHeader::decode(input.rest(), rules)?
            {
                input.take(size);
                return Ok(Some(header));
            }
        }
        while let &mut [byte] = input.take(1) {
            bytes[len] = byte;
            len += 1;
            // A header of 14 bytes is complete, so the index stays in range.
            if let DecodedHeader::Complete { header, .. } =
                FrameHeader::decode(&bytes[..len], rules)?
            {
                self.partial_or_insert(input).position = Position::BETWEEN;
                return Ok(Some(header));
            }
        }
        if len > 0 {
            self.partial_or_insert(input).position = Position::Header { bytes, len: len as u8 };
        }
        Ok(None)
    }

    /// Checks a header against the state of the connection. Takes the payload at once if it is all
    /// in the input and nothing has to be buffered.
    fn begin_frame<'b>(
        &mut self,
        header: FrameHeader,
        sender: &mut Sender,
        input: &mut Input<'b>,
        now: Instant,
    ) -> Result<Option<PendingEvent<'b>>, Cause> {
        let FrameHeader { opcode, fin, rsv, mask, len } = header;
        let key = mask.unwrap_or_default();
        let whole = input.len() as u64 >= len;
        if opcode != Opcode::Pong {
            // `next_general` does this for a pong, unless it answers a keep-alive ping.
            self.last_frame = now;
        }
        if opcode.is_control() {
            if whole {
                let payload = take_unmasked(input, len, key, sender.role);
                return Ok(Some(PendingEvent::Control(opcode, Some(payload))));
            }
        } else {
            self.last_data = now;
            let message = self.begin_data_frame(opcode, rsv, len, sender)?;
            if whole && fin && opcode != Opcode::Continuation && !message.encoded {
                let payload = take_unmasked(input, len, key, sender.role);
                return self.handle_whole_message(message, payload).map(Some);
            }
            self.partial_or_insert(input).message = Some(message);
        }
        self.partial_or_insert(input).position =
            Position::Payload { remaining: len, key, opcode, fin };
        Ok(None)
    }

    /// Begins or continues a message with a data frame of `len` bytes of payload. Returns the new state of the message.
    fn begin_data_frame(
        &self,
        opcode: Opcode,
        rsv: Rsv,
        len: u64,
        sender: &mut Sender,
    ) -> Result<MessageState, Cause> {
        let in_progress = self.partial.as_deref().and_then(|partial| partial.message);
        let message = if let Some(message) = in_progress {
            MessageState { fragments: message.fragments.saturating_add(1), ..message }
        } else {
            if let Some(decoding) = sender.decoding() {
                (decoding.size, decoding.begun) = (0, false);
            }
            let kind = if opcode == Opcode::Text { Kind::Text } else { Kind::Binary };
            MessageState::new(kind, !rsv.is_empty())
        };
        message.check_limits(len, sender.config.max_message_size, self.streaming)?;
        Ok(message)
    }

    /// Handles a message in one frame, all of it in the input, outside the fast path.
    fn handle_whole_message<'b>(
        &mut self,
        mut message: MessageState,
        payload: &'b [u8],
    ) -> Result<PendingEvent<'b>, Cause> {
        self.bytes += payload.len() as u64;
        let last = true;
        message.check_part(payload, last)?;
        self.messages += 1;
        let kind = message.kind;
        Ok(if self.streaming {
            PendingEvent::Chunk { kind, payload: Some(payload), first: true, last }
        } else {
            PendingEvent::InPlace(kind, payload)
        })
    }

    /// Handles a part of a control frame, or all of it.
    fn handle_control_part<'b>(
        &mut self,
        opcode: Opcode,
        bytes: &'b [u8],
        last: bool,
    ) -> Option<PendingEvent<'b>> {
        let assembly = &mut self.partial.as_deref_mut()?.assembly;
        if last && assembly.control_payload().is_empty() {
            return Some(PendingEvent::Control(opcode, Some(bytes)));
        }
        assembly.append_control(bytes);
        last.then_some(PendingEvent::Control(opcode, None))
    }

    /// Handles an unmasked part of a message.
    fn handle_data_part<'b>(
        &mut self,
        bytes: &'b [u8],
        last: bool,
        sender: &mut Sender,
        input: &mut Input<'_>,
        now: Instant,
    ) -> Result<Option<PendingEvent<'b>>, Cause> {
        (self.last_frame, self.last_data) = (now, now);
        let Some(partial) = self.partial.as_deref_mut() else { return Ok(None) };
        let Some(message) = &mut partial.message else { return Ok(None) };
        let is_at_start = message.size == 0;
        let mut payload = None;
        if message.encoded {
            provide_buffer(&mut partial.assembly, input, bytes.len());
            let mut own = Contexts::new();
            let contexts = input.pool().map_or(&mut own, BufferPool::contexts_mut);
            let decoded = decode(bytes, last, message, &mut partial.assembly, sender, contexts)?;
            self.bytes += decoded as u64;
        } else {
            self.bytes += bytes.len() as u64;
            message.check_part(bytes, last)?;
            if self.streaming || (last && is_at_start) {
                payload = Some(bytes);
            } else if !bytes.is_empty() {
                provide_buffer(&mut partial.assembly, input, bytes.len());
                partial.assembly.append(bytes);
            }
        }
        message.size += bytes.len() as u64;
        Ok(self.advance_message(payload, last))
    }

    /// Updates the message after a part, and returns the event that results: none yet, a chunk, or
    /// the whole message.
    fn advance_message<'b>(
        &mut self,
        payload: Option<&'b [u8]>,
        last: bool,
    ) -> Option<PendingEvent<'b>> {
        let partial = self.partial.as_deref_mut()?;
        let message = partial.message.as_mut()?;
        let MessageState { kind, first, .. } = *message;
        let mut emits = last;
        if self.streaming {
            let len = payload.map_or_else(|| partial.assembly.message().len(), <[u8]>::len);
            emits |= len > 0;
            message.first &= !emits;
        }
        if last {
            partial.message = None;
            self.messages += 1;
        }
        if !emits {
            return None;
        }
        Some(match payload {
            _ if self.streaming => PendingEvent::Chunk { kind, payload, first, last },
            Some(payload) => PendingEvent::InPlace(kind, payload),
            None => PendingEvent::Assembled(kind),
        })
    }

    #[cold]
    fn to_event<'e, 'b: 'e>(
        &'e self,
        event: PendingEvent<'b>,
        round_trip: Option<Duration>,
    ) -> Option<Event<'e>> {
        let assembled = || self.partial.as_deref().map_or(&[][..], |part| part.assembly.message());
        Some(match event {
            PendingEvent::None => return None,
            PendingEvent::InPlace(kind, payload) => Event::Message(message(kind, payload)),
            PendingEvent::Assembled(kind) => Event::Message(message(kind, assembled())),
            PendingEvent::Chunk { kind, payload, first, last } => {
                let payload = payload.unwrap_or_else(assembled);
                Event::Chunk(Chunk { kind, payload, first, last })
            }
            PendingEvent::Control(opcode, payload) => {
                let payload = payload.unwrap_or_else(|| self.control_payload());
                match opcode {
                    Opcode::Ping => Event::Ping(payload),
                    Opcode::Pong => Event::Pong { payload, round_trip },
                    // The payload was parsed when the Close was answered.
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
        let failure = self.new_failure(cause, sender.state());
        self.stop();
        sender.fail(failure, now, out);
        failure
    }

    pub(super) const fn new_failure(&self, cause: Cause, state: State) -> Failure {
        Failure::new(cause, state, self.messages)
    }

    /// Restarts the idle timeouts at `now`.
    pub(super) const fn restart_idle_timeouts(&mut self, now: Instant) {
        (self.last_frame, self.last_data) = (now, now);
    }

    /// Stops receiving.
    pub(super) fn stop(&mut self) {
        (self.path, self.partial) = (Path::Closed, None);
    }

    /// The numbers of messages and of payload bytes received.
    pub(super) const fn received_counts(&self) -> (u64, u64) {
        (self.messages, self.bytes)
    }

    /// The payload of the control frame that has arrived in parts.
    fn control_payload(&self) -> &[u8] {
        self.partial.as_deref().map_or(&[], |partial| partial.assembly.control_payload())
    }

    /// The state of the partial message or frame; created if there is none.
    fn partial_or_insert(&mut self, input: &mut Input<'_>) -> &mut Partial {
        if self.path == Path::Fast {
            self.path = Path::General;
        }
        let pooled = || input.pool().map_or_else(Box::default, BufferPool::take);
        self.partial.get_or_insert_with(pooled)
    }
}

/// Receiving large payloads without a copy.
impl Receiver {
    /// Returns memory to receive into while a large payload is outstanding; bytes received there
    /// are not copied. Report the number of received bytes with [`filled`](Self::filled), then call
    /// [`next`](Self::next) with the bytes that follow, or with none.
    ///
    /// The size is at most what is outstanding of the frame. It is also at most what has arrived of the message so far,
    /// unless the buffer of the message, which may come from a [`BufferPool`], has more room. `None` means to receive
    /// into the usual buffer.
    #[inline]
    pub fn receive_buffer(&mut self) -> Option<&mut [u8]> {
        match self.path {
            Path::General if !self.streaming => self.partial.as_deref_mut()?.receive_buffer(),
            _ => None,
        }
    }

    /// The number of payload bytes of the current frame that are still to come; 0 between two
    /// frames. If [`receive_buffer`](Self::receive_buffer) returns less memory than this, receive into that memory
    /// alone: bytes received elsewhere after it must be copied.
    #[must_use]
    pub fn outstanding(&self) -> u64 {
        self.partial.as_deref().map_or(0, Partial::outstanding)
    }

    /// Reports that the first `n` bytes of the memory that [`receive_buffer`](Self::receive_buffer) returned were
    /// filled. A larger `n` counts as all of it. Does nothing if `receive_buffer` has returned no memory since the last
    /// call of [`next`](Self::next).
    pub fn filled(&mut self, n: usize) {
        if let Some(partial) = self.partial.as_deref_mut() {
            partial.assembly.filled(n);
        }
    }

    /// Unmasks and checks, in place, the bytes reported by `filled`.
    fn process_filled<'b>(
        &mut self,
        sender: &Sender,
        now: Instant,
    ) -> Result<Option<PendingEvent<'b>>, Cause> {
        let Some(partial) = self.partial.as_deref_mut() else { return Ok(None) };
        let Position::Payload { remaining, key, opcode, fin } = partial.position else {
            return Ok(None);
        };
        let Some(message) = &mut partial.message else { return Ok(None) };
        let bytes = partial.assembly.take_unprocessed();
        if bytes.is_empty() {
            return Ok(None);
        }
        if sender.role == Role::Server {
            mask(bytes, key);
        }
        (self.last_frame, self.last_data) = (now, now);
        let len = bytes.len();
        let rest = remaining - len as u64;
        let last = rest == 0 && fin;
        partial.position = Position::payload(rest, key, len, opcode, fin);
        message.check_part(bytes, last)?;
        message.size += len as u64;
        self.bytes += len as u64;
        Ok(self.advance_message(None, last))
    }
}

/// Takes the next `max_len` bytes of a payload, or all if there are fewer, and unmasks them.
fn take_unmasked<'b>(
    input: &mut Input<'b>,
    max_len: u64,
    key: [u8; 4],
    role: Role,
) -> &'b mut [u8] {
    let bytes = input.take(usize::try_from(max_len).unwrap_or(usize::MAX));
    if role == Role::Server {
        mask(bytes, key);
    }
    bytes
}

/// Gives the message a buffer of the caller's pool, if it has none. `arrived` bytes are about to be appended.
fn provide_buffer(assembly: &mut Assembly, input: &mut Input<'_>, arrived: usize) {
    if let Some(pool) = input.pool() {
        pool.provide_buffer(assembly, arrived);
    }
}

/// Decodes a part of a message into its assembly, and checks the result. Returns how many bytes it has become.
fn decode(
    bytes: &[u8],
    last: bool,
    message: &mut MessageState,
    assembly: &mut Assembly,
    sender: &mut Sender,
    contexts: &mut Contexts,
) -> Result<usize, Cause> {
    let limit = sender.config.max_message_size;
    let Some(decoding) = sender.decoding() else {
        return Err(Cause::Extension(ExtensionError::Internal)); // only a decoder allows the bit
    };
    let part = Part::new(bytes, !decoding.begun, last);
    decoding.begun = true;
    let start = assembly.message().len();
    // In streaming mode the assembly restarts with each chunk.
    let max_len = (limit - decoding.size).saturating_add(start as u64);
    let max_len = usize::try_from(max_len).unwrap_or(usize::MAX);
    let result =
        assembly.append_with(|buffer| decoding.decoder.decode(part, max_len, buffer, contexts));
    let too_big = assembly.message().len() > max_len;
    let before = decoding.size;
    let decoded = assembly.message().get(start..).unwrap_or_default();
    let len = decoded.len();
    decoding.size += len as u64;
    // Bytes decoded before an error are checked first, because they precede it.
    if message.kind == Kind::Text {
        check_text(&mut message.utf8, decoded, before, last && result.is_ok())?;
    }
    match result {
        Ok(()) if too_big => Err(Cause::Extension(ExtensionError::TooBig)),
        result => result.map(|()| len).map_err(Cause::Extension),
    }
}

fn message(kind: Kind, payload: &[u8]) -> Message<'_> {
    match kind {
        Kind::Binary => Message::Binary(payload),
        Kind::Text => Message::Text(Text::from_validated(payload)),
    }
}
