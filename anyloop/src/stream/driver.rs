//! The driver: it runs a protocol over a transport.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use anyloop_proto::{Input, Instant, SendQueue, Shutdown, TransportError};

use super::buffers::Buffers;
use super::protocol::{Progress, StreamProtocol, Wants};
use super::queued::{End, Queued};
use super::transport::Transport;
use super::write_buffer::{WriteBuffer, WriteGuard};
use crate::cold::cold_path;

/// Runs the protocol of one connection over a [`Transport`], which is passed to each call. It writes the output, keeps
/// what the transport does not take, and ends the stream when the protocol requires that.
///
/// Report events by the methods that the table in [`Transport`] lists. Each of them calls handlers, and returns after
/// it has written what the handlers have sent.
///
/// # What to do next
///
/// After each call, until [`is_closed`](Self::is_closed):
///
/// | if | then |
/// |---|---|
/// | [`wants_input`](Self::wants_input) | receive; otherwise do not |
/// | [`wants_resume`](Self::wants_resume) | call [`resume`](Self::resume) after other connections were served |
/// | [`next_timeout`](Self::next_timeout) is `Some` | call [`handle_timeout`](Self::handle_timeout) at that time |
/// | [`buffered_amount`](Self::buffered_amount) is not 0 | when the stream takes more, call [`handle_writable`] |
///
/// [`handle_writable`]: Self::handle_writable
///
/// # Bounded handlers
///
/// An owner with other work sets a [`budget`](Buffers::budget) before each call. A call returns when the budget is
/// spent. If anything is left to do, `wants_resume` then holds; `receive` keeps the input that was not taken.
/// `resume` serves input, commands of handles and timers in turn. The end of the stream is reported last.
///
/// ```
/// # use std::io::{self, IoSlice};
/// # use std::task::Waker;
/// # use anyloop::transport::Server;
/// # use anyloop::prelude::*;
/// # use anyloop::proto::{Instant, Shutdown};
/// # use anyloop::transport::{Buffers, Transport};
/// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// # struct Nowhere;
/// # impl Transport for Nowhere {
/// #     fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
/// #         Ok(slices.iter().map(|slice| slice.len()).sum())
/// #     }
/// #     fn shutdown(&mut self, _: Shutdown) -> io::Result<()> {
/// #         Ok(())
/// #     }
/// # }
/// # let (mut transport, mut buffers, now) = (Nowhere, Buffers::default(), Instant::from_nanos(0));
/// # let server = Server::new(ServerConfig::new(OriginPolicy::Any));
/// # let mut driver = server.driver(Waker::noop(), now);
/// # driver.start(&mut transport, &mut buffers, now);
/// # driver.receive(&mut transport, &mut buffers, &mut REQUEST.to_vec(), now);
/// let mut three_messages = [0x81, 0x80, 0, 0, 0, 0].repeat(3);
/// buffers.budget.set(1, None);
/// driver.receive(&mut transport, &mut buffers, &mut three_messages, now);
/// let mut turns = 1;
/// while driver.wants_resume() {
///     // ... others have their turn
///     buffers.budget.set(1, None);
///     driver.resume(&mut transport, &mut buffers, now);
///     turns += 1;
/// }
/// assert_eq!(turns, 3);
/// ```
///
/// # Panics
///
/// A panic of a handler or of a completion fails the connection with 1011, and the call resumes the panic. The driver
/// remains usable, and its handler is still notified of the end.
///
/// The example of [`Transport`] uses a driver.
pub struct Driver<S> {
    pub(crate) protocol: S,
    /// The queues of either direction.
    pub(crate) queued: Option<Box<Queued>>,
    /// Nothing is queued, and the next step is to read: into any buffer, since `receive_buffer` lends none.
    on_fast_path: bool,
    started: bool,
    half_closed: bool,
    closed: bool,
}

/// The steps of [`Driver::resume`], which take turns: a budget can hold each of them back.
const STEPS: [Step; STEP_COUNT as usize] = [Step::Commands, Step::Input, Step::Timers];

const STEP_COUNT: u8 = 3;

#[derive(Clone, Copy)]
enum Step {
    Commands,
    Input,
    Timers,
}

impl<S: StreamProtocol> Driver<S> {
    /// A driver of a connection that was not [started](Self::start) yet.
    pub(crate) const fn new(protocol: S) -> Self {
        let (on_fast_path, started, half_closed, closed) = (false, false, false, false);
        Self { protocol, queued: None, on_fast_path, started, half_closed, closed }
    }

    /// The same connection, with its protocol inside another one that `wrap` returns. The connection must not be
    /// started yet.
    #[cfg(feature = "tls-core")]
    pub(crate) fn map<T: StreamProtocol>(self, wrap: impl FnOnce(S) -> T) -> Driver<T> {
        let Self { protocol, queued, on_fast_path, started, half_closed, closed } = self;
        Driver { protocol: wrap(protocol), queued, on_fast_path, started, half_closed, closed }
    }

    // Events.

    /// Reports that the stream exists: a client sends its request. If the target is a `wss` URI and the transport is
    /// not [secure](Transport::is_secure), the client sends nothing, and its handshake fails.
    pub fn start(&mut self, transport: &mut dyn Transport, buffers: &mut Buffers, now: Instant) {
        self.started = true;
        let secure = transport.is_secure();
        self.call(transport, buffers, |protocol, out, _| protocol.start(secure, out, now));
        self.finish_call(transport, buffers, now);
    }

    /// Reports received bytes. Those that the connection does not take yet are kept, and taken by
    /// [`resume`](Self::resume) or a later call.
    pub fn receive(
        &mut self,
        transport: &mut dyn Transport,
        buffers: &mut Buffers,
        bytes: &mut [u8],
        now: Instant,
    ) {
        if self.has_unread() {
            return self.receive_after_unread(transport, buffers, bytes, now);
        }
        let passed = self.pass_input(transport, buffers, bytes, now);
        if !self.is_complete(passed) {
            let (left, _) = passed;
            self.end_receive(transport, buffers, &bytes[bytes.len() - left..], None, now);
        }
    }

    /// Reports received bytes, without keeping any. Returns the number of bytes that were taken: all, unless reading is
    /// paused, an answer is awaited, the budget is spent, or the connection uses no input any more (after the peer's
    /// Close, a failure, or a response to plain HTTP). Drop the rest if [`discards_input`](Self::discards_input) holds.
    /// Otherwise pass it again when [`wants_input`](Self::wants_input) holds.
    pub fn receive_some(
        &mut self,
        transport: &mut dyn Transport,
        buffers: &mut Buffers,
        bytes: &mut [u8],
        now: Instant,
    ) -> usize {
        if !self.takes_input() {
            return 0;
        }
        let passed = self.pass_input(transport, buffers, bytes, now);
        if !self.is_complete(passed) {
            self.finish_call(transport, buffers, now);
        }
        bytes.len() - passed.0
    }

    /// Lends memory to receive the rest of a large message into; `None` if it has none to lend. Report with
    /// [`filled`](Self::filled) how much was received there, and call [`receive`](Self::receive) with the bytes that
    /// follow, or with none.
    pub fn receive_buffer(&mut self) -> Option<&mut [u8]> {
        match self.on_fast_path || self.has_unread() {
            true => None,
            false => self.protocol.receive_buffer(),
        }
    }

    /// Reports that the first `n` bytes of [`receive_buffer`](Self::receive_buffer) were filled.
    pub fn filled(&mut self, n: usize) {
        self.protocol.filled(n);
    }

    /// The number of bytes of the current frame that are still to come; 0 between frames.
    #[must_use]
    pub fn outstanding(&self) -> u64 {
        self.protocol.outstanding()
    }

    /// Reports that the peer has ended its direction of the stream.
    pub fn handle_eof(
        &mut self,
        transport: &mut dyn Transport,
        buffers: &mut Buffers,
        now: Instant,
    ) {
        if self.closed {
            return;
        }
        if self.protocol.wants().again || self.has_unread() {
            self.queued.get_or_insert_default().end.get_or_insert(End::Eof); // reported after the unread input
        } else {
            self.protocol.handle_eof();
        }
        self.finish_call(transport, buffers, now);
    }

    /// Reports that the stream has failed.
    pub fn handle_error(
        &mut self,
        transport: &mut dyn Transport,
        buffers: &mut Buffers,
        kind: TransportError,
        now: Instant,
    ) {
        let error = None; // only its kind is known
        self.fail(transport, buffers, kind, error, now);
    }

    /// Reports that the stream has failed with `error`, which the handler [gets](crate::endpoint::Context::error) when
    /// it is notified of the end.
    pub fn handle_error_with(
        &mut self,
        transport: &mut dyn Transport,
        buffers: &mut Buffers,
        kind: TransportError,
        error: Box<dyn Error + Send + Sync>,
        now: Instant,
    ) {
        self.fail(transport, buffers, kind, Some(error), now);
    }

    /// Reports that the stream takes more output.
    pub fn handle_writable(
        &mut self,
        transport: &mut dyn Transport,
        buffers: &mut Buffers,
        now: Instant,
    ) {
        self.call(transport, buffers, |protocol, out, _| {
            // `handle_writable` extends timeouts. It is not called if output waits and the transport took none of it.
            if out.queued() == 0 || out.flush_send_buffer() {
                protocol.handle_writable(out, now);
            }
        });
        self.finish_call(transport, buffers, now);
    }

    /// Reports that a deadline may have passed: handles what is due.
    pub fn handle_timeout(
        &mut self,
        transport: &mut dyn Transport,
        buffers: &mut Buffers,
        now: Instant,
    ) {
        self.run_timers(transport, buffers, now);
        self.finish_call(transport, buffers, now);
    }

    /// Reports that the waker was woken: runs the commands of [handles](crate::endpoint::Handle).
    pub fn handle_wake(
        &mut self,
        transport: &mut dyn Transport,
        buffers: &mut Buffers,
        now: Instant,
    ) {
        self.call(transport, buffers, |protocol, out, budget| {
            let _ = protocol.run_commands(out, budget, now); // `finish_call` checks what has changed
        });
        self.finish_call(transport, buffers, now);
    }

    /// Continues what the budget has held back, and passes on input that could not be taken before.
    pub fn resume(&mut self, transport: &mut dyn Transport, buffers: &mut Buffers, now: Instant) {
        self.call(transport, buffers, |protocol, out, budget| protocol.resume(out, budget, now));
        let first = self.queued.as_deref().map_or(0, |queued| queued.next_step);
        let steps = (first..first + STEP_COUNT).map(|step| step % STEP_COUNT);
        for step in steps {
            let before = buffers.budget.spent();
            if self.protocol.wants().again {
                break;
            }
            self.run_step(STEPS[usize::from(step)], transport, buffers, now);
            if self.protocol.wants().again {
                // A step that has called a handler comes last the next time, so that no step starves.
                let served = buffers.budget.spent() > before;
                self.queued.get_or_insert_default().next_step =
                    if served { (step + 1) % STEP_COUNT } else { step };
                break;
            }
        }
        self.finish_call(transport, buffers, now);
    }

    // What to do next.

    /// Whether to receive now.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        let wants = self.protocol.wants();
        let ended = self.queued.as_deref().is_some_and(|queued| queued.end.is_some());
        (wants.read || wants.discard) && !self.has_unread() && !ended && !self.closed
    }

    /// Whether to watch for the end of the stream even while [no input is wanted](Self::wants_input): a client may
    /// leave before its request is answered. Ignore this if the transport cannot detect the end without reading.
    #[must_use]
    pub fn wants_end(&self) -> bool {
        let ended = self.queued.as_deref().is_some_and(|queued| queued.end.is_some());
        self.protocol.wants().end && !self.has_unread() && !ended && !self.closed
    }

    /// Whether input is discarded: only the end of the stream still matters.
    #[must_use]
    pub fn discards_input(&self) -> bool {
        !self.on_fast_path && (self.closed || self.protocol.wants().discard)
    }

    /// Whether input would be taken now.
    #[must_use]
    pub fn takes_input(&self) -> bool {
        self.on_fast_path || (!self.closed && self.protocol.wants().read)
    }

    /// Whether to call [`resume`](Self::resume).
    #[must_use]
    pub fn wants_resume(&self) -> bool {
        if self.on_fast_path && !self.has_unread() {
            return false;
        }
        let wants = self.protocol.wants();
        !self.closed && (wants.again || (self.has_unread() && wants.read))
    }

    /// The time to call [`handle_timeout`](Self::handle_timeout); `None` if there is no deadline. Input can move the
    /// deadline to a later time. A call before the deadline handles no timeout.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.closed { None } else { self.protocol.deadline() }
    }

    /// Whether the stream is closed, and the handler was notified of it.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// The number of bytes that were sent and that the transport has not taken.
    #[must_use]
    pub fn buffered_amount(&self) -> usize {
        self.queued.as_deref().map_or(0, |queued| queued.output.len())
    }

    /// Whether [`start`](Self::start) was called.
    #[must_use]
    pub const fn is_started(&self) -> bool {
        self.started
    }

    /// Whether nothing is queued, and the next step is to read: into any buffer, since `receive_buffer` lends none.
    #[inline]
    pub(crate) const fn is_on_fast_path(&self) -> bool {
        self.on_fast_path
    }

    /// Whether the next input takes much time.
    pub(crate) fn is_costly(&self) -> bool {
        !self.closed && self.protocol.is_costly()
    }

    /// Whether input was received that could not be taken yet.
    pub(crate) fn has_unread(&self) -> bool {
        self.queued.as_deref().is_some_and(|queued| !queued.input.is_empty())
            || self.protocol.has_unread()
    }

    /// The address of the unread input, and the number of bytes of it that were taken.
    #[cfg(test)]
    pub(crate) fn unread_position(&self) -> Option<(*const u8, usize)> {
        self.queued.as_deref().map(|queued| queued.input.position())
    }

    /// Completes a `receive` that is not [complete](Self::is_complete) already. `left` are the bytes that were not
    /// taken. The event loop, which receives and sends with a [`WriteGuard`] of its own, also passes the panic of a
    /// handler.
    #[cold]
    #[inline(never)]
    pub(crate) fn end_receive(
        &mut self,
        transport: &mut dyn Transport,
        buffers: &mut Buffers,
        left: &[u8],
        panic: Option<Box<dyn Any + Send>>,
        now: Instant,
    ) {
        if let Some(panic) = panic {
            self.put_panic(panic);
            // The panic has left output in the send buffer although the socket has room: no event would lead to a
            // write.
            self.call(transport, buffers, |_, out, _| _ = out.flush_send_buffer());
        }
        self.keep(left);
        self.finish_call(transport, buffers, now);
    }

    // Implementation.

    /// Receives bytes while earlier ones wait.
    #[cold]
    fn receive_after_unread(
        &mut self,
        transport: &mut dyn Transport,
        buffers: &mut Buffers,
        bytes: &[u8],
        now: Instant,
    ) {
        self.queued.get_or_insert_default().input.push(bytes);
        self.pass_unread(transport, buffers, now);
        self.finish_call(transport, buffers, now);
    }

    /// Calls the protocol, and writes its output. A panic is kept for `finish_call`.
    fn call(
        &mut self,
        transport: &mut dyn Transport,
        buffers: &mut Buffers,
        f: impl FnOnce(&mut S, &mut WriteBuffer<'_>, &mut super::Budget),
    ) {
        if self.closed {
            return;
        }
        let Buffers { cork, budget, .. } = buffers;
        let mut out = WriteGuard::new(cork, &mut self.queued);
        let called = catch_unwind(AssertUnwindSafe(|| {
            f(&mut self.protocol, &mut out.buffer(transport), budget);
        }));
        let flushed = write_last_output(&self.protocol, out, transport);
        if let Err(panic) = called.and(flushed) {
            self.put_panic(panic);
        }
    }

    /// Passes input to the protocol. Returns the number of bytes that were not taken, and whether the wants may have
    /// changed.
    fn pass_input(
        &mut self,
        transport: &mut dyn Transport,
        buffers: &mut Buffers,
        bytes: &mut [u8],
        now: Instant,
    ) -> (usize, Progress) {
        if !self.takes_input() {
            return (bytes.len(), Progress::WantsChanged);
        }
        let Buffers { cork, budget, pool, .. } = buffers;
        let mut input = Input::with_pool(bytes, pool);
        let mut out = WriteGuard::new(cork, &mut self.queued);
        let called = catch_unwind(AssertUnwindSafe(|| {
            self.protocol.receive(&mut input, &mut out.buffer(transport), budget, now)
        }));
        let progress = *called.as_ref().unwrap_or(&Progress::WantsChanged);
        let flushed = match progress {
            Progress::SameWants => write_output(out, transport),
            Progress::WantsChanged => write_last_output(&self.protocol, out, transport),
        };
        let left = input.len();
        if let Err(panic) = called.and(flushed) {
            self.put_panic(panic);
        }
        (left, progress)
    }

    /// Whether a call with this result of [`pass_input`](Self::pass_input) is complete: all input was taken, all output
    /// was written, and the next step is to read again.
    fn is_complete(&self, (left, progress): (usize, Progress)) -> bool {
        left == 0 && progress == Progress::SameWants && self.queued.is_none()
    }

    /// Passes unread input to the protocol, which may also hold an event without further input.
    fn pass_unread(&mut self, transport: &mut dyn Transport, buffers: &mut Buffers, now: Instant) {
        let mut unread = match self.queued.as_deref_mut() {
            Some(queued) => std::mem::take(&mut queued.input),
            None => Default::default(),
        };
        let (left, _) = self.pass_input(transport, buffers, unread.rest(), now); // `finish_call` follows
        unread.keep_last(left);
        if left > 0 {
            self.queued.get_or_insert_default().input = unread;
        }
    }

    fn run_step(
        &mut self,
        step: Step,
        transport: &mut dyn Transport,
        buffers: &mut Buffers,
        now: Instant,
    ) {
        match step {
            Step::Commands => self.call(transport, buffers, |protocol, out, budget| {
                let _ = protocol.run_commands(out, budget, now); // `finish_call` checks what has changed
            }),
            Step::Input => self.pass_unread(transport, buffers, now),
            Step::Timers => {
                if self.protocol.deadline().is_some_and(|deadline| deadline <= now) {
                    self.run_timers(transport, buffers, now);
                }
            }
        }
    }

    fn run_timers(&mut self, transport: &mut dyn Transport, buffers: &mut Buffers, now: Instant) {
        let send_buffer = self.buffered_amount(); // the ping whose pong is late may wait behind this output
        let mut queue = || {
            let SendQueue { acknowledged, waiting } = transport.send_queue()?;
            Some(SendQueue { acknowledged, waiting: waiting.saturating_add(send_buffer) })
        };
        self.protocol.note_send_queue(&mut queue, now);
        self.call(transport, buffers, |protocol, out, budget| {
            protocol.handle_timeout(out, budget, now);
        });
    }

    /// Keeps received bytes until they can be taken. Bytes that are to be discarded are dropped.
    pub(crate) fn keep(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() && !self.discards_input() {
            self.queued.get_or_insert_default().input.push(bytes);
        }
    }

    fn fail(
        &mut self,
        transport: &mut dyn Transport,
        buffers: &mut Buffers,
        kind: TransportError,
        error: Option<Box<dyn Error + Send + Sync>>,
        now: Instant,
    ) {
        if self.closed {
            return;
        }
        // While input is discarded, only output is held back. The error must not wait for that: the body of a response
        // may have no end.
        if self.wants_resume() && !self.protocol.wants().discard {
            self.queued.get_or_insert_default().end = Some(End::Error(kind, error)); // reported after the unread input
        } else {
            self.protocol.handle_error(kind, error);
        }
        self.finish_call(transport, buffers, now);
    }

    /// Keeps a panic of application code, unless an earlier one is kept. `finish_call` resumes it.
    fn put_panic(&mut self, panic: Box<dyn Any + Send>) {
        self.queued.get_or_insert_default().panic.get_or_insert(panic);
    }

    fn take_panic(&mut self) -> Option<Box<dyn Any + Send>> {
        self.queued.as_deref_mut()?.panic.take()
    }

    /// Ends each call: reports the results of writing, and ends the stream if the protocol wants that.
    fn finish_call(&mut self, transport: &mut dyn Transport, buffers: &mut Buffers, now: Instant) {
        if self.closed {
            return;
        }
        self.report_output(transport, buffers, now);
        let panic = self.take_panic();
        if panic.is_some() {
            let now = transport.now().unwrap_or(now); // the handler may have taken any time
            self.call(transport, buffers, |protocol, out, _| protocol.handle_panic(out, now));
            self.report_write_error();
        }
        self.end_input();
        let end_panic = self.end_stream(transport, buffers, now);
        if self.queued.as_deref().is_some_and(Queued::is_empty) {
            self.queued = None;
        }
        if !self.closed {
            let waiting = self.buffered_amount();
            self.protocol.handle_written(waiting);
            self.protocol.end_call(waiting, now);
            let wants = self.protocol.wants();
            self.on_fast_path = self.queued.is_none()
                && wants.shutdown == Shutdown::None
                && (wants.read && !wants.again && !wants.slow_path);
        }
        if let Some(panic) = panic.or(end_panic).or_else(|| self.take_panic()) {
            cold_path();
            resume_unwind(panic);
        }
    }

    /// Reports write errors, and the level of the send buffer until the handler need not be notified of it.
    fn report_output(
        &mut self,
        transport: &mut dyn Transport,
        buffers: &mut Buffers,
        now: Instant,
    ) {
        loop {
            self.report_write_error();
            let panicked = self.queued.as_deref().is_some_and(|queued| queued.panic.is_some());
            if !self.protocol.handle_written(self.buffered_amount()) || panicked {
                return;
            }
            self.call(transport, buffers, |protocol, out, budget| {
                protocol.report_send_buffer(out, budget, now);
            });
            if self.protocol.wants().again {
                return;
            }
        }
    }

    /// Reports the error of a failed write, if there is one.
    fn report_write_error(&mut self) {
        let error = self.queued.as_deref_mut().and_then(|queued| queued.output.take_error());
        if let Some(error) = error {
            crate::log::debug!("cannot write to the byte stream: {error}");
            self.protocol.handle_error(TransportError::from(&error), Some(Box::new(error)));
        }
    }

    /// Drops input that is to be discarded. Reports the end of the stream, unless handler calls that were held back, or
    /// unread input, come before it. An error waits only for input that the protocol reads.
    fn end_input(&mut self) {
        let Some(queued) = self.queued.as_deref_mut() else { return };
        let Wants { read, discard, again, .. } = self.protocol.wants();
        if discard {
            queued.input = Default::default();
        }
        if !again {
            queued.next_step = 0;
        }
        let unread = !queued.input.is_empty() || self.protocol.has_unread();
        let waits = match queued.end {
            None => return,
            Some(End::Eof) => again || unread,
            Some(End::Error(..)) => !discard && (again || (unread && read)),
        };
        if waits {
            return;
        }
        match queued.end.take() {
            Some(End::Eof) => self.protocol.handle_eof(),
            Some(End::Error(kind, error)) => self.protocol.handle_error(kind, error),
            None => {}
        }
    }

    /// Half-closes or closes the stream, if the protocol wants that. Returns a panic of application code.
    fn end_stream(
        &mut self,
        transport: &mut dyn Transport,
        buffers: &mut Buffers,
        now: Instant,
    ) -> Option<Box<dyn Any + Send>> {
        let mut how = self.protocol.wants().shutdown;
        if how == Shutdown::None {
            return None;
        }
        if matches!(how, Shutdown::HalfClose | Shutdown::Close) {
            self.call(transport, buffers, |protocol, out, _| protocol.end_output(out));
            self.report_write_error();
            how = self.protocol.wants().shutdown;
        }
        let flushed = self.queued.as_deref().is_none_or(|queued| !queued.output.is_blocked());
        if how == Shutdown::HalfClose && flushed && !self.half_closed {
            if transport.can_half_close() {
                self.half_closed = true;
                self.protocol.note_peer(&mut || transport.peer());
                log_shutdown_error(transport.shutdown(how));
            } else {
                how = Shutdown::Close;
            }
        }
        let ends = how == Shutdown::Abort || (how == Shutdown::Close && flushed);
        if !ends || !self.protocol.prepare_close(&mut buffers.budget) {
            return None;
        }
        self.protocol.note_peer(&mut || transport.peer());
        log_shutdown_error(transport.shutdown(how));
        self.close(transport, buffers, now)
    }

    /// The stream is closed: frees the queues, and notifies the handler. Returns a panic of application code.
    fn close(
        &mut self,
        transport: &mut dyn Transport,
        buffers: &mut Buffers,
        now: Instant,
    ) -> Option<Box<dyn Any + Send>> {
        (self.closed, self.on_fast_path) = (true, false);
        if let Some(Queued { output, .. }) =
            self.queued.as_deref().filter(|queued| queued.output.is_blocked())
        {
            self.protocol.handle_lost_output(output.len(), output.failure());
        }
        // Completions are called now. A panic of one must not keep the handler from being notified.
        let queued = self.queued.take();
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(queued)));
        let mut nothing = None;
        let mut out = WriteGuard::new(&mut buffers.cork, &mut nothing);
        let notified = catch_unwind(AssertUnwindSafe(|| {
            self.protocol.handle_closed(&mut out.buffer(transport), now);
        }));
        dropped.and(notified).err()
    }
}

impl<S> fmt::Debug for Driver<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("closed", &self.closed).finish_non_exhaustive()
    }
}

/// Writes the output of a call. Returns the panic of a completion: completions are application code.
fn write_output(
    mut out: WriteGuard<'_>,
    transport: &mut dyn Transport,
) -> Result<(), Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(|| out.buffer(transport).flush()))
}

/// Writes the output of a call, which may be the last of the stream.
fn write_last_output<S: StreamProtocol>(
    protocol: &S,
    out: WriteGuard<'_>,
    transport: &mut dyn Transport,
) -> Result<(), Box<dyn Any + Send>> {
    if protocol.wants().shutdown == Shutdown::HalfClose {
        transport.expect_half_close();
    }
    write_output(out, transport)
}

/// Logs an error of shutting down the stream. The error has no other effect.
fn log_shutdown_error(result: std::io::Result<()>) {
    if let Err(error) = result {
        crate::log::debug!("cannot shut down the byte stream: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_adds_two_words() {
        assert!(size_of::<Driver<[u64; 16]>>() <= size_of::<[u64; 16]>() + 16);
    }
}
