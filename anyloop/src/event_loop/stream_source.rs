//! A stream in the loop: a socket, and the driver of its protocol.

use std::any::Any;
use std::io::{self, ErrorKind, IoSliceMut};
use std::ops::Range;

use anyloop_proto::{Instant, TransportError};

use super::buffers::RunnerBuffers;
use super::control::LoopControl;
use super::events::Events;
use super::socket::{Socket, SocketTransport};
use super::source::{FastPath, Next, Source, Turn};
use super::types::LoopTypes;
use crate::cold::cold_path;
use crate::stream::{Driver, StreamProtocol};

/// A turn ends after about this many bytes were read, so that other sources have their turns. It also ends after one
/// read if the loop has commands, so that what handlers have sent to other connections is written before more is read.
const READ_PER_TURN: usize = 1 << 20;

/// The most turns of sources with costly input between two polls, so that a storm of handshakes does not hold up open
/// connections. A handshake of TLS takes about 250 µs, and with RSA four times that.
const MAX_COSTLY_TURNS: u32 = 16;

/// The events of sockets.
const SOCKET_EVENTS: Events = Events::READABLE.or(Events::WRITABLE).or(Events::CLOSED);

/// A stream in the loop. An idle connection has this, its slot, and nothing else.
#[expect(unnameable_types, reason = "of the interface of the sealed `MakeSources`")]
pub struct StreamSource<S> {
    driver: Driver<S>,
    socket: Socket,
}

/// The outcome of a read.
enum ReadOutcome {
    /// This number of bytes; there may be more.
    MaybeMore(usize),
    /// This number of bytes, and there were no more.
    All(usize),
    WouldBlock,
    End,
}

impl<S: StreamProtocol> StreamSource<S> {
    pub(crate) const fn new(driver: Driver<S>, socket: Socket) -> Self {
        Self { driver, socket }
    }

    pub(crate) const fn driver(&self) -> &Driver<S> {
        &self.driver
    }

    /// The driver. The socket is closed.
    pub(crate) fn into_driver(self) -> Driver<S> {
        self.driver
    }
}

impl<K: LoopTypes, S: StreamProtocol> Source<K> for StreamSource<S> {
    fn run(&mut self, turn: &mut Turn<'_, K>) -> Next<K> {
        #[cfg_attr(not(feature = "tracing"), expect(clippy::let_unit_value))]
        let _span = crate::log::enter_connection_span(turn.state.token.index);
        turn.state.unconsumed = turn.state.events; // each is consumed when it is served
        if self.driver.is_costly() {
            if turn.buffers.for_driver.costly_turns >= MAX_COSTLY_TURNS {
                return Next::AfterPoll;
            }
            turn.buffers.for_driver.costly_turns += 1;
        }
        let first = turn.read_result.take();
        StreamTurn::new(self, turn).serve(first)
    }

    #[inline]
    fn fast_path(&mut self, events: Events) -> Option<FastPath<'_>> {
        let events = events.without(Events::WRITABLE);
        let reads = events == Events::READABLE && self.socket.short_read_is_all();
        if !((reads || events == Events::WOKEN) && self.driver.is_on_fast_path()) {
            return None;
        }
        let Self { driver, socket, .. } = self;
        Some(FastPath { socket, queued: &mut driver.queued, protocol: &mut driver.protocol })
    }

    fn end_fast_path(
        &mut self,
        turn: &mut Turn<'_, K>,
        left: Range<usize>,
        panic: Option<Box<dyn Any + Send>>,
    ) -> Next<K> {
        StreamTurn::new(self, turn).end_fast_path(left, panic)
    }
}

/// A stream during its turn.
struct StreamTurn<'t, S> {
    driver: &'t mut Driver<S>,
    transport: SocketTransport<'t>,
    buffers: &'t mut RunnerBuffers,
    control: &'t LoopControl,
    now: Instant,
}

impl<'t, S: StreamProtocol> StreamTurn<'t, S> {
    fn new<K: LoopTypes>(source: &'t mut StreamSource<S>, turn: &'t mut Turn<'_, K>) -> Self {
        let Turn { engine, state, buffers, .. } = turn;
        let StreamSource { driver, socket } = source;
        let now = state.now;
        let transport = SocketTransport::new(socket, state);
        Self { driver, transport, buffers, control: engine.control(), now }
    }

    /// Serves all events. `first` is the result of a read that the loop has already made.
    fn serve<K: LoopTypes>(mut self, first: Option<io::Result<usize>>) -> Next<K> {
        let first = first.map(|read| self.classify_read(self.buffers.read.len(), read));
        if !self.driver.is_on_fast_path()
            || self.transport.state.unconsumed.without(SOCKET_EVENTS) != Events::NONE
        {
            self.serve_others();
        }
        let reads = first.is_some() || self.transport.state.unconsumed.contains(Events::READABLE);
        let more = reads && self.read(first);
        self.finish(more)
    }

    #[cold]
    fn end_fast_path<K: LoopTypes>(
        mut self,
        left: Range<usize>,
        panic: Option<Box<dyn Any + Send>>,
    ) -> Next<K> {
        let Self { driver, transport, buffers, now, .. } = &mut self;
        let RunnerBuffers { read, for_driver } = &mut **buffers;
        driver.end_receive(transport, for_driver, &read[left], panic, *now);
        let more = false; // a short read has taken all, or the source was only woken
        self.finish(more)
    }

    /// What becomes of the stream after the turn. `more`: there may be more to read.
    fn finish<K: LoopTypes>(mut self, more: bool) -> Next<K> {
        if self.transport.state.unconsumed.contains(Events::CLOSED)
            && !(self.driver.wants_input() || self.driver.wants_resume() || self.driver.is_closed())
        {
            self.look_for_end();
        }
        let state = &mut *self.transport.state;
        state.unconsumed = state.unconsumed.only(Events::READABLE | Events::CLOSED);
        state.deadline = self.driver.next_timeout();
        match () {
            () if self.driver.is_closed() => Next::Done,
            () if self.driver.wants_resume() => Next::Again,
            () if more => Next::AfterPoll,
            () => Next::Wait,
        }
    }

    /// Serves all events but input. Before a deadline it reads the input that has arrived. WOKEN and DEADLINE are
    /// consumed before they are served: after a panic, the next turn has only the others.
    #[cold]
    fn serve_others(&mut self) {
        let events = self.transport.state.unconsumed;
        let now = self.now;
        if !self.driver.is_started() {
            self.driver.start(&mut self.transport, &mut self.buffers.for_driver, now);
        }
        if events.contains(Events::WOKEN) {
            self.consume_events(Events::WOKEN);
            self.driver.handle_wake(&mut self.transport, &mut self.buffers.for_driver, now);
        }
        if self.driver.wants_resume() {
            self.driver.resume(&mut self.transport, &mut self.buffers.for_driver, now);
        }
        if events.contains(Events::DEADLINE) {
            // Input that has arrived before the deadline counts, so it is read first.
            if self.transport.state.unconsumed.contains(Events::READABLE) {
                self.read(None);
            }
            self.consume_events(Events::DEADLINE);
            self.driver.handle_timeout(&mut self.transport, &mut self.buffers.for_driver, now);
        }
        if self.driver.buffered_amount() > 0
            && self.transport.state.unconsumed.contains(Events::WRITABLE)
        {
            self.driver.handle_writable(&mut self.transport, &mut self.buffers.for_driver, now);
        }
    }

    fn consume_events(&mut self, events: Events) {
        self.transport.state.unconsumed = self.transport.state.unconsumed.without(events);
    }

    /// Reads until nothing is available or wanted, or the turn has read enough. `first` is the outcome of a read that
    /// was already made. Returns whether there may be more, for another turn.
    fn read(&mut self, mut first: Option<io::Result<ReadOutcome>>) -> bool {
        let now = self.now;
        let mut total = 0;
        while first.is_some() || self.driver.wants_input() {
            if total >= READ_PER_TURN || (total > 0 && self.control.has_commands()) {
                return true;
            }
            let (outcome, lent) = match first.take() {
                Some(outcome) => (outcome, 0),
                None => self.read_once(),
            };
            let Self { driver, transport, buffers, .. } = self;
            let RunnerBuffers { read, for_driver } = &mut **buffers;
            match outcome {
                Ok(ReadOutcome::MaybeMore(n) | ReadOutcome::All(n)) => {
                    total += n;
                    if lent > 0 {
                        driver.filled(n.min(lent));
                    }
                    driver.receive(transport, for_driver, &mut read[..n.saturating_sub(lent)], now);
                    if matches!(outcome, Ok(ReadOutcome::All(_))) {
                        return false;
                    }
                }
                Ok(ReadOutcome::WouldBlock) => return false,
                Ok(ReadOutcome::End) => {
                    driver.handle_eof(transport, for_driver, now);
                    return false;
                }
                Err(error) => {
                    let kind = TransportError::from(&error);
                    driver.handle_error_with(transport, for_driver, kind, Box::new(error), now);
                    return false;
                }
            }
        }
        false
    }

    /// Reads once. The rest of a large message is received into the message's own buffer, and only the bytes after
    /// it into the buffer of the thread. Returns the outcome, and how many bytes the message's buffer has lent: 0 if
    /// there is no large message.
    fn read_once(&mut self) -> (io::Result<ReadOutcome>, usize) {
        let outstanding = self.driver.outstanding();
        let read = &mut self.buffers.read;
        let (lent, len, result) = match self.driver.receive_buffer() {
            None => (0, read.len(), self.transport.socket.read(read)),
            Some(buffer) => {
                let lent = buffer.len();
                let rest = if lent as u64 == outstanding { &mut read[..] } else { &mut [] };
                let len = lent + rest.len();
                let mut slices = [IoSliceMut::new(buffer), IoSliceMut::new(rest)];
                (lent, len, self.transport.socket.read_vectored(&mut slices))
            }
        };
        (self.classify_read(len, result), lent)
    }

    /// Classifies the result of a read of at most `len` bytes, and consumes the events that it has served.
    fn classify_read(&mut self, len: usize, result: io::Result<usize>) -> io::Result<ReadOutcome> {
        let SocketTransport { socket, state, .. } = &mut self.transport;
        let input = Events::READABLE | Events::CLOSED;
        match result {
            Ok(0) => {
                cold_path();
                state.unconsumed = state.unconsumed.without(input);
                Ok(ReadOutcome::End)
            }
            // If the end of the stream was reported as well, no further event comes: read on to find it.
            Ok(n)
                if n < len
                    && socket.short_read_is_all()
                    && !state.unconsumed.contains(Events::CLOSED) =>
            {
                state.unconsumed = state.unconsumed.without(Events::READABLE);
                Ok(ReadOutcome::All(n))
            }
            Ok(n) => Ok(ReadOutcome::MaybeMore(n)),
            // The stream has not ended, although CLOSED may have been reported.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                cold_path();
                state.unconsumed = state.unconsumed.without(input);
                Ok(ReadOutcome::WouldBlock)
            }
            Err(error) => {
                cold_path();
                state.unconsumed = state.unconsumed.without(input);
                Err(error)
            }
        }
    }

    /// Handles CLOSED of a stream that is not being read. Unread input stays in the socket, and hides what follows it.
    /// Without unread input, an error is reported now, and the end of the input if the protocol asks for it.
    #[cold]
    fn look_for_end(&mut self) {
        let error = match self.transport.socket.peek_end() {
            Some(Ok(())) if self.driver.wants_end() => None,
            Some(Err(error)) => Some(error),
            Some(Ok(())) | None => return,
        };
        self.consume_events(Events::READABLE | Events::CLOSED);
        let Self { driver, transport, buffers, now, .. } = self;
        let Some(error) = error else {
            return driver.handle_eof(transport, &mut buffers.for_driver, *now);
        };
        let kind = TransportError::from(&error);
        driver.handle_error_with(transport, &mut buffers.for_driver, kind, Box::new(error), *now);
    }
}
