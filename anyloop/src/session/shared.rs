//! The state that a connection and its handles share.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool as UnmodelledBool, AtomicU64, AtomicUsize as UnmodelledUsize};
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use anyloop_proto::frame::MAX_CONTROL_PAYLOAD;
use anyloop_proto::handshake::http::Method;
use anyloop_proto::{CloseCode, Refused, State};

use super::deferred::OutgoingMessage;
use super::erased::{ErasedFn, Filter};
use super::error::{SendError, Sent};
use super::handler::Answer;
use super::limits::{Overflow, SendBufferLimits};
use super::phase::Phase;
use super::pieces::{MessageProgress, Piece};
use super::timers::TimerId;
use crate::stream::{Completion, report_unsent};
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use crate::sync::unmodelled::OnceLock;
use crate::sync::{Mutex, MutexGuard};

/// The id of a connection: a number that is unique in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The state that a connection and its handles share: a queue of commands, the size of the send buffer, and the state
/// of the connection. What holds *as of the last call* was published at the end of the driver's last call.
pub(crate) struct Shared {
    /// The id of the connection, or 0 before it was asked for. No model depends on it, so it is not modelled.
    id: AtomicU64,
    /// The number of [`HandleRef`]s.
    handles: AtomicUsize,
    /// Whether this may be freed with its last handle, which wakes the connection. False if the connection has made it:
    /// a handler may make a handle in each of its calls, and so many wake-ups would cost too much.
    temporary: bool,
    mailbox: Mutex<Mailbox>,
    waker: Waker,
    /// The limits of the endpoint.
    limits: SendBufferLimits,
    /// The limits of this connection, if it has its own. They are set before it is open, so they are not modelled.
    own_limits: OnceLock<SendBufferLimits>,
    /// Bytes that wait: the send buffer as of the last call, and messages that were accepted since. This is one number,
    /// so that a message that moves from the mailbox to the send buffer is always counted.
    waiting: AtomicUsize,
    /// The part of `waiting` that the connection holds: the send buffer as of the last call, and messages taken from
    /// the mailbox since. Only the connection changes it.
    held: AtomicUsize,
    /// Whether `held` was above 0 as of the last call.
    has_buffered: AtomicBool,
    /// The number of messages and pieces that the connection has deferred. It only bounds memory: an outdated number is
    /// harmless, so it is not modelled.
    deferred: UnmodelledUsize,
    /// Their payload bytes.
    deferred_bytes: UnmodelledUsize,
    /// The number of `MessageWriter`s that have begun their message, and neither completed nor abandoned it.
    unfinished: AtomicUsize,
    /// Whether a message in pieces was in progress as of the last call, or messages were deferred.
    held_up: AtomicBool,
    /// The connection was closed because its send buffer was full. Only the connection uses this.
    overflowed: UnmodelledBool,
    phase: AtomicU8,
}

/// Commands that were not run yet.
struct Mailbox {
    commands: VecDeque<Command>,
    /// A send has returned back-pressure, so `drained` must follow.
    reported_backpressure: bool,
    /// A command was queued after which no message can be sent: one that ends the connection, or a response.
    closing: bool,
    /// A handle has answered the request.
    answered: bool,
    /// The connection is over.
    gone: bool,
}

impl Mailbox {
    fn is_unused(&self) -> bool {
        self.commands.is_empty() && !self.reported_backpressure && !self.closing && !self.gone
    }
}

/// What each handle of a connection holds. The last one, when it is dropped, wakes the connection, so that a temporary
/// state is freed.
pub(crate) struct HandleRef(Arc<Shared>);

impl HandleRef {
    /// If there may be no other reference, make one only on the strand of the connection, or under the lock of the
    /// registry. There, `is_unused` is checked.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        shared.handles.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }

    /// The id of the connection.
    pub(super) fn id(&self) -> ConnectionId {
        self.0.id()
    }

    /// Whether both are of the same connection.
    pub(super) fn is_same_connection(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Hashes the connection: what [`is_same_connection`](Self::is_same_connection) compares.
    pub(super) fn hash_connection(&self, hasher: &mut impl Hasher) {
        Arc::as_ptr(&self.0).hash(hasher);
    }
}

impl Clone for HandleRef {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

impl Deref for HandleRef {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Drop for HandleRef {
    fn drop(&mut self) {
        let is_last = self.0.handles.fetch_sub(1, Ordering::AcqRel) == 1;
        if is_last && self.0.is_freed_with_handles() && self.0.state() != State::Ended {
            self.0.waker.wake_by_ref();
        }
    }
}

/// Commands that were taken from the mailbox. Completions of commands that are dropped are called with an error.
pub(super) struct Commands<'s> {
    shared: &'s Shared,
    queue: VecDeque<Command>,
}

impl Commands<'_> {
    /// The commands that have not run.
    pub(super) const fn unrun(&mut self) -> &mut VecDeque<Command> {
        &mut self.queue
    }

    /// Whether the next command calls a handler.
    pub(super) fn next_calls_handler(&self) -> bool {
        matches!(self.queue.front(), Some(Command::Interrupt | Command::Post(_)))
    }

    /// Puts back the commands that were not run, before those that were queued meanwhile. Does not wake the driver.
    pub(super) fn put_back(mut self) {
        let mut mailbox = self.shared.mailbox();
        if !mailbox.gone {
            self.queue.append(&mut mailbox.commands);
            std::mem::swap(&mut self.queue, &mut mailbox.commands);
        }
    }
}

impl Iterator for Commands<'_> {
    type Item = Command;

    fn next(&mut self) -> Option<Command> {
        let command = self.queue.pop_front()?;
        // Counted as waiting until the connection publishes its send buffer.
        self.shared.held.fetch_add(command.len(), Ordering::Relaxed);
        Some(command)
    }
}

impl Drop for Commands<'_> {
    fn drop(&mut self) {
        report_unsent(self.filter_map(Command::into_completion));
    }
}

/// A command, which runs on the strand of the connection.
pub(super) enum Command {
    /// A writer was dropped before the last piece of its message.
    AbandonMessage(Arc<MessageProgress>),
    /// The deferred answer to a request.
    Answer(Answer),
    CancelTimer(TimerId),
    Close(Option<CloseCode>, String),
    Interrupt,
    /// The send buffer had no room, so the connection is closed.
    Overflow,
    PauseReading,
    Piece(Arc<MessageProgress>, Piece),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Post(Box<ErasedFn>),
    ResumeReading,
    /// The message of a broadcast is for handlers that the filter accepts.
    Send(OutgoingMessage, Option<Filter>),
    Terminate,
}

impl Command {
    /// Whether it is sent before the Close of a handler. A message in pieces whose last piece is missing cannot be; and
    /// a filter cannot be applied while the handler is called.
    fn precedes_close(&self) -> bool {
        match self {
            Self::Send(_, filter) => filter.is_none(),
            Self::Piece(progress, _) => progress.is_finished(),
            Self::Ping(_) | Self::Pong(_) => true,
            _ => false,
        }
    }

    /// Payload bytes of the message or piece, or 0.
    fn len(&self) -> usize {
        match self {
            Self::Send(message, _) => message.payload.len(),
            Self::Piece(_, piece) => piece.payload.len(),
            _ => 0,
        }
    }

    /// Whether it is a message or a piece of one.
    const fn is_message(&self) -> bool {
        matches!(self, Self::Send(..) | Self::Piece(..))
    }

    /// Whether it cannot be sent after a Close (RFC 6455 §5.5.1).
    const fn cannot_follow_close(&self) -> bool {
        self.is_message() || matches!(self, Self::Ping(_) | Self::Pong(_) | Self::Overflow)
    }

    /// Whether it is a piece of the message in progress. Messages that wait for the end of that message must not hold
    /// up the piece.
    fn is_piece_in_progress(&self) -> bool {
        matches!(self, Self::Piece(progress, _) if progress.is_in_progress())
    }

    /// The completion of a message that will not be sent.
    fn into_completion(self) -> Option<Completion> {
        match self {
            Self::Send(message, _) => message.completion,
            Self::Piece(_, piece) => piece.completion,
            _ => None,
        }
    }

    /// Drops the command, and calls its completion with [`Unsent`](crate::stream::Unsent).
    fn report_unsent(self) {
        report_unsent(self.into_completion().into_iter());
    }
}

/// The limit on the number of messages that wait is at least this, even if the limit in bytes is small.
const MIN_MESSAGES: usize = 1024;

/// What has sent a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SentBy {
    /// It sees the result: `drained` must follow [`Sent::Backpressure`].
    Handle,
    /// It sees no result of a single connection.
    Broadcast,
}

/// Why a command was not queued.
enum PushError {
    Refused(SendError),
    /// Too many messages wait.
    TooMany,
}

impl Shared {
    /// `waker` wakes the driver of the connection.
    pub(crate) fn new(waker: Waker, limits: SendBufferLimits, phase: Phase) -> Self {
        Self {
            id: AtomicU64::new(0),
            handles: AtomicUsize::new(0),
            temporary: false,
            mailbox: Mutex::new(Mailbox {
                commands: VecDeque::new(),
                reported_backpressure: false,
                closing: false,
                answered: false,
                gone: false,
            }),
            waker,
            limits,
            own_limits: OnceLock::new(),
            waiting: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            has_buffered: AtomicBool::new(false),
            deferred: UnmodelledUsize::new(0),
            deferred_bytes: UnmodelledUsize::new(0),
            unfinished: AtomicUsize::new(0),
            held_up: AtomicBool::new(false),
            overflowed: UnmodelledBool::new(false),
            phase: AtomicU8::new(phase.encode()),
        }
    }

    /// Like [`new`](Self::new), to be freed when it [is unused](Self::is_unused).
    pub(super) fn temporary(waker: Waker, limits: SendBufferLimits, phase: Phase) -> Self {
        Self { temporary: true, ..Self::new(waker, limits, phase) }
    }

    /// The shared state of a connection that is over.
    pub(super) fn gone(limits: SendBufferLimits) -> Self {
        let shared = Self::new(Waker::noop().clone(), limits, Phase::Ended);
        shared.mailbox().gone = true;
        shared
    }

    /// Wakes the driver.
    pub(super) const fn waker(&self) -> &Waker {
        &self.waker
    }

    /// The id of the connection, assigned by the first call.
    fn id(&self) -> ConnectionId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let assign = |id| (id == 0).then(|| NEXT.fetch_add(1, Ordering::Relaxed));
        let (Ok(_) | Err(_)) = self.id.fetch_update(Ordering::Relaxed, Ordering::Relaxed, assign);
        ConnectionId(self.id.load(Ordering::Relaxed))
    }

    /// Whether it is freed with its last handle, or soon after. It is kept if the connection has limits of its own, or
    /// if the id was asked for: the connection would get another id.
    fn is_freed_with_handles(&self) -> bool {
        self.temporary && self.id.load(Ordering::Relaxed) == 0 && self.own_limits.get().is_none()
    }

    /// Whether it can be freed: no handle is left, and nothing in it has to be kept. The connection asks this, and then
    /// the registry under its lock.
    pub(super) fn is_unused(&self) -> bool {
        self.handles.load(Ordering::Acquire) == 0
            && self.is_freed_with_handles()
            && self.is_published(0, Phase::Open)
            && self.waiting.load(Ordering::Relaxed) == 0
            && !self.held_up.load(Ordering::Relaxed)
            && self.mailbox().is_unused()
    }

    /// The limits of the send buffer.
    pub(super) fn limits(&self) -> SendBufferLimits {
        self.own_limits.get().copied().unwrap_or(self.limits)
    }

    /// Gives the connection limits of its own. Only the first call has an effect.
    pub(super) fn set_limits(&self, limits: SendBufferLimits) {
        self.own_limits.get_or_init(|| limits);
    }

    /// Queues a message of a handle, unless the send buffer is full.
    pub(super) fn send(&self, message: OutgoingMessage) -> Result<Sent, SendError> {
        self.submit(Command::Send(message, None), SentBy::Handle)
    }

    /// Queues a message of a broadcast, unless the send buffer is full.
    pub(super) fn send_broadcast(
        &self,
        message: OutgoingMessage,
        filter: Option<Filter>,
    ) -> Result<Sent, SendError> {
        self.submit(Command::Send(message, filter), SentBy::Broadcast)
    }

    /// Queues a piece of a message, unless the send buffer is full.
    pub(super) fn send_piece(
        &self,
        progress: &Arc<MessageProgress>,
        piece: Piece,
    ) -> Result<Sent, SendError> {
        let message = piece.payload.len();
        match self.submit(Command::Piece(progress.clone(), piece), SentBy::Handle)? {
            // A message cannot lack a piece.
            Sent::Dropped => {
                let (waiting, limit) = (self.buffered(), self.limits().max_send_buffer);
                Err(SendError::SendBufferFull { waiting, message, limit, closes: false })
            }
            sent => Ok(sent),
        }
    }

    /// A writer has begun its message. It calls this before its first piece can be sent.
    pub(super) fn begin_writer(&self) {
        self.unfinished.fetch_add(1, Ordering::Relaxed);
    }

    /// The last piece of a writer was accepted, its first piece was refused, or the writer was dropped.
    pub(super) fn end_writer(&self) {
        self.unfinished.fetch_sub(1, Ordering::Release);
    }

    /// Whether a message waits for another that is sent in pieces. A piece does not wait for its own message.
    fn is_held_up(&self, is_piece: bool) -> bool {
        self.unfinished.load(Ordering::Acquire) > usize::from(is_piece)
            || self.held_up.load(Ordering::Acquire)
    }

    /// Queues a message or a piece, unless the send buffer is full.
    fn submit(&self, command: Command, sent_by: SentBy) -> Result<Sent, SendError> {
        let (limits, len) = (self.limits(), command.len());
        let (is_piece_in_progress, is_piece) =
            (command.is_piece_in_progress(), matches!(command, Command::Piece(..)));
        // Loaded before `waiting`: if nothing is held up, `waiting` does not include messages that were.
        let is_held_up = || !is_piece_in_progress && self.is_held_up(is_piece);
        let waits = is_held_up();
        let refuse = |waiting: usize| {
            let is_slow = !waits && !is_held_up() && (!is_piece || self.is_slow(len));
            self.refuse(waiting, len, is_slow)
        };
        let limit = match is_piece_in_progress {
            true => {
                limits.max_send_buffer.saturating_add(self.deferred_bytes.load(Ordering::Relaxed))
            }
            false => limits.max_send_buffer,
        };
        let phase = self.phase();
        let state = phase.state();
        let is_closing = matches!(state, State::CloseSent | State::Closed | State::Failed);
        if is_closing || phase == Phase::WillNotOpen {
            command.report_unsent();
            return Err(SendError::Closing);
        }
        // Checked and counted in one step, so that two senders cannot exceed the limit together.
        let charge = |waiting: usize| {
            let sum = waiting.saturating_add(len);
            (waiting == 0 || sum <= limit).then_some(sum)
        };
        let charged = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, charge);
        let waiting = match charged {
            Ok(before) => before + len,
            Err(waiting) => {
                command.report_unsent();
                return refuse(waiting);
            }
        };
        let sent = match state {
            _ if waiting > limits.high_water_mark => Sent::Backpressure,
            State::Open if !waits && !self.has_buffered.load(Ordering::Relaxed) => Sent::Sent,
            _ => Sent::Buffered,
        };
        let reports_backpressure = sent_by == SentBy::Handle && sent == Sent::Backpressure;
        let pushed = self.try_push(command, reports_backpressure);
        let Err(error) = pushed else { return Ok(sent) };
        let waiting = self.waiting.fetch_sub(len, Ordering::Relaxed) - len;
        match error {
            PushError::Refused(error) => Err(error),
            PushError::TooMany => refuse(waiting),
        }
    }

    /// Whether what waits for the peer leaves no room for a piece. Deferred messages are not counted: they wait for a
    /// message in pieces, not for the peer.
    fn is_slow(&self, len: usize) -> bool {
        let deferred = self.deferred_bytes.load(Ordering::Relaxed);
        let unread = self.held.load(Ordering::Relaxed).saturating_sub(deferred);
        unread.saturating_add(len) > self.limits().max_send_buffer
    }

    /// Applies the overflow policy to a message that would exceed the limit.
    fn refuse(&self, waiting: usize, message: usize, is_slow: bool) -> Result<Sent, SendError> {
        let SendBufferLimits { overflow, max_send_buffer: limit, .. } = self.limits();
        let closes = is_slow && overflow == Overflow::Close;
        if closes {
            self.push(Command::Overflow)?; // it is refused if the connection is closing already
        } else if self.mailbox().closing {
            return Err(SendError::Closing);
        }
        match overflow {
            Overflow::Drop => Ok(Sent::Dropped),
            _ => Err(SendError::SendBufferFull { waiting, message, limit, closes }),
        }
    }

    /// Queues the answer to a request, if one waits for an answer.
    pub(super) fn answer(&self, answer: Answer) -> Result<(), SendError> {
        self.awaiting_method()?;
        self.push(Command::Answer(answer))
    }

    /// HEAD or CONNECT if the request that waits for an answer has this method; otherwise GET, whose rules all others
    /// share. Fails if no request waits.
    pub(super) fn awaiting_method(&self) -> Result<Method, SendError> {
        match self.phase() {
            Phase::Requested => Ok(Method::GET),
            Phase::HeadRequested => Ok(Method::HEAD),
            Phase::ConnectRequested => Ok(Method::CONNECT),
            Phase::Ended => Err(SendError::Gone),
            _ => Err(SendError::NotAwaiting),
        }
    }

    /// Queues a ping, if the connection is open.
    pub(super) fn ping(&self, payload: &[u8]) -> Result<(), SendError> {
        self.push_control(payload, Command::Ping)
    }

    /// Queues a pong, if the connection is open.
    pub(super) fn pong(&self, payload: &[u8]) -> Result<(), SendError> {
        self.push_control(payload, Command::Pong)
    }

    fn push_control(
        &self,
        payload: &[u8],
        command: impl FnOnce(Vec<u8>) -> Command,
    ) -> Result<(), SendError> {
        if payload.len() > MAX_CONTROL_PAYLOAD {
            return Err(Refused::ControlTooLong(payload.len()).into());
        }
        match self.state() {
            State::Open => self.push(command(payload.to_vec())),
            state => Err(Refused::NotOpen(state).into()),
        }
    }

    /// Queues a command that is no message.
    pub(super) fn push(&self, command: Command) -> Result<(), SendError> {
        let reports_backpressure = false;
        self.try_push(command, reports_backpressure).map_err(|error| match error {
            PushError::Refused(error) => error,
            PushError::TooMany => SendError::Gone, // only messages are counted
        })
    }

    /// Queues a command, or drops it and returns why. If `reports_backpressure`, the caller learns that there is
    /// back-pressure.
    fn try_push(&self, command: Command, reports_backpressure: bool) -> Result<(), PushError> {
        let mut mailbox = self.mailbox();
        let is_message = command.is_message();
        let is_answer = matches!(command, Command::Answer(_));
        let refused = match () {
            () if mailbox.gone => Some(PushError::Refused(SendError::Gone)),
            () if command.cannot_follow_close() && mailbox.closing => {
                Some(PushError::Refused(SendError::Closing))
            }
            () if is_answer && mailbox.answered => Some(PushError::Refused(SendError::NotAwaiting)),
            () if is_message && mailbox.commands.len() >= self.max_commands(&command) => {
                Some(PushError::TooMany)
            }
            () => None,
        };
        if let Some(error) = refused {
            drop(mailbox);
            command.report_unsent();
            return Err(error);
        }
        mailbox.closing |=
            matches!(command, Command::Close(..) | Command::Overflow | Command::Terminate)
                || matches!(command, Command::Answer(Answer::Respond(_)));
        mailbox.answered |= is_answer;
        if let Command::Piece(progress, Piece { last: true, .. }) = &command {
            progress.set_finished();
        }
        mailbox.reported_backpressure |= reports_backpressure;
        mailbox.commands.push_back(command);
        let first = mailbox.commands.len() == 1;
        drop(mailbox);
        if first {
            self.waker.wake_by_ref();
        }
        Ok(())
    }

    /// Whether the last piece of a message was not accepted and cannot be any more, because the connection closes.
    pub(super) fn cannot_finish(&self, progress: &MessageProgress) -> bool {
        let mailbox = self.mailbox();
        mailbox.closing && !progress.is_finished()
    }

    /// The number of commands in the mailbox from which on a message is refused. It bounds the memory of the commands.
    fn max_commands(&self, command: &Command) -> usize {
        let most = (self.limits().max_send_buffer / size_of::<Command>()).max(MIN_MESSAGES);
        match command.is_piece_in_progress() {
            true => most,
            false => most.saturating_sub(self.deferred.load(Ordering::Relaxed)),
        }
    }

    /// Publishes how many messages and pieces the connection has deferred, and their payload bytes.
    pub(super) fn publish_deferred(&self, messages: usize, bytes: usize) {
        self.deferred.store(messages, Ordering::Relaxed);
        self.deferred_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Publishes whether a message in pieces is in progress, or messages are deferred: after the send buffer.
    pub(super) fn publish_held_up(&self, held_up: bool) {
        if self.held_up.load(Ordering::Relaxed) != held_up {
            self.held_up.store(held_up, Ordering::Release);
        }
    }

    /// The connection is closed because its send buffer is full. Returns whether this is new.
    pub(super) fn note_overflow(&self) -> bool {
        !self.overflowed.swap(true, Ordering::Relaxed)
    }

    pub(super) fn overflowed(&self) -> bool {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// Queues a message that was accepted before there was a shared state. Does not wake the driver.
    pub(super) fn queue_accepted(&self, command: Command) {
        self.waiting.fetch_add(command.len(), Ordering::Relaxed);
        self.mailbox().commands.push_back(command);
    }

    /// Takes the commands, and the flag whether a send has returned back-pressure.
    pub(super) fn take(&self) -> (Commands<'_>, bool) {
        let mut mailbox = self.mailbox();
        let queue = std::mem::take(&mut mailbox.commands);
        let reported_backpressure = std::mem::take(&mut mailbox.reported_backpressure);
        drop(mailbox);
        (Commands { shared: self, queue }, reported_backpressure)
    }

    /// The handler closes: takes the messages, pings and pongs that are sent before the Close, first those among
    /// `unrun`, which were taken from the mailbox before. Later ones are refused. Other commands are left.
    pub(super) fn take_before_close(&self, unrun: Option<&mut VecDeque<Command>>) -> Commands<'_> {
        let mut queue = VecDeque::new();
        let mut mailbox = self.mailbox();
        mailbox.closing = true;
        for commands in unrun.into_iter().chain([&mut mailbox.commands]) {
            let (taken, left): (VecDeque<_>, _) =
                std::mem::take(commands).into_iter().partition(Command::precedes_close);
            *commands = left;
            queue.extend(taken);
        }
        drop(mailbox);
        Commands { shared: self, queue }
    }

    /// Publishes `held` and the phase. Only the connection writes them, so it can compare first, and write only if one
    /// has changed.
    pub(crate) fn publish(&self, held: usize, phase: Phase) {
        if !self.is_published(held, phase) {
            let before = self.held.swap(held, Ordering::Relaxed);
            match held.checked_sub(before) {
                Some(more) => self.waiting.fetch_add(more, Ordering::Relaxed),
                None => self.waiting.fetch_sub(before - held, Ordering::Relaxed),
            };
            self.has_buffered.store(held > 0, Ordering::Relaxed);
            self.publish_phase(phase);
        }
    }

    /// Publishes the phase alone. The registry calls this, since the connection may not have adopted this shared state
    /// yet.
    pub(crate) fn publish_phase(&self, phase: Phase) {
        self.phase.store(phase.encode(), Ordering::Release);
    }

    /// Whether these values were published last.
    fn is_published(&self, held: usize, phase: Phase) -> bool {
        self.held.load(Ordering::Relaxed) == held
            && self.has_buffered.load(Ordering::Relaxed) == (held > 0)
            && self.phase.load(Ordering::Relaxed) == phase.encode()
    }

    /// Closes the mailbox when the connection is over: its commands are dropped, and further ones refused.
    pub(crate) fn close(&self) {
        self.publish(0, Phase::Ended);
        self.mailbox().gone = true;
        drop(self.take());
        self.publish(0, Phase::Ended); // what was in the mailbox does not wait any more
    }

    pub(super) fn buffered(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(super) fn state(&self) -> State {
        self.phase().state()
    }

    fn phase(&self) -> Phase {
        Phase::decode(self.phase.load(Ordering::Acquire))
    }

    /// A panic elsewhere leaves the mailbox consistent, so poisoning is ignored.
    fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
