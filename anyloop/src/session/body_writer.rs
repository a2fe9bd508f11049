//! Bodies that a writer sends in pieces, from any thread.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::mem;
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use anyloop_proto::Payload;
use bytes::Bytes;

use super::error::{SendError, Sent};
use super::limits::SendBufferLimits;
use crate::running;
use crate::stream::{Completion, Unsent, report_unsent};
use crate::sync::unmodelled::{Condvar, Mutex, MutexGuard};

/// Sends the body of a response in pieces, from any thread. [`Body::channel`](crate::Body::channel) makes it.
///
/// Pieces can be sent before the response: they wait for it. The marks and the limit of the
/// [send buffer](crate::ServerConfig::max_send_buffer) apply to the bytes that wait. Before the response begins, their
/// defaults apply.
///
/// [`finish`](Self::finish) ends the body. A writer that is dropped before, as by a panic of its thread, abandons the
/// body: the byte stream is aborted, and the client sees that the end is missing: a chunked body has no last chunk, and
/// one with `Content-Length` has fewer bytes. (A client of HTTP/1.0 that got no `Content-Length` cannot see it.) Only
/// that connection fails, with [`ResponseError::Abandoned`](crate::proto::ResponseError::Abandoned).
///
/// The response has no timeout while it waits for its writer, only while it waits for the peer.
///
/// ```
/// # use anyloop::iostream::Server;
/// use anyloop::Body;
/// use anyloop::http::Response;
/// use anyloop::prelude::*;
///
/// # let mut server = Server::new(ServerConfig::new(OriginPolicy::Any));
/// # let (thread_sender, threads) = std::sync::mpsc::channel();
/// server.on_http(move |_, _| {
///     let (mut writer, body) = Body::channel(None);
///     let thread = std::thread::spawn(move || {
///         for line in ["a,b\n", "1,2\n"] {
///             writer.send(line)?;
///         }
///         writer.finish()
///     });
///     # thread_sender.send(thread).unwrap();
///     Response::new(body)
/// });
/// # let connection = server.connection();
/// # connection.collect_output();
/// # connection.read_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
/// # threads.try_recv()?.join().unwrap()?;
/// # connection.drive()?;
/// # let mut answer = Vec::new();
/// # connection.take_output(&mut answer)?;
/// # assert!(answer.ends_with(b"\r\n\r\n4\r\na,b\n\r\n4\r\n1,2\n\r\n0\r\n\r\n"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Blocking
///
/// As an [`io::Write`], it blocks until the buffered bytes are at or below the high-water mark, and the limit leaves
/// room; then it takes at most as many bytes as the mark. So about twice the mark is buffered at most, also by
/// `io::copy`. It fails with
/// [`ErrorKind::BrokenPipe`] when the connection is over. `flush` does nothing.
///
/// A thread that runs an event loop does not wait, since the connection may wait for it: there, a write fails with
/// [`ErrorKind::WouldBlock`]. Where the program drives the connection itself, as over [iostream](crate::iostream), do
/// not use the blocking `Write` on the thread that drives it.
#[must_use = "a writer that is dropped abandons its body"]
pub struct BodyWriter(Arc<Shared>);

/// The receiving half, which the connection holds.
pub(super) struct BodyReceiver(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Notified when less waits, when `attach` changes the limits, and when the connection is over.
    room: Condvar,
}

struct State {
    pieces: VecDeque<Piece>,
    /// Bytes of the pieces.
    waiting: usize,
    limits: SendBufferLimits,
    /// Bytes of all output of the connection that the transport has not taken.
    unsent_bytes: usize,
    /// Wakes the connection, once there is one.
    waker: Option<Waker>,
    end: End,
    /// The connection is over, or has no use for the body.
    gone: bool,
}

struct Piece {
    bytes: Bytes,
    completion: Option<Completion>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Finished,
    Abandoned,
}

/// What a connection has taken.
pub(super) enum Taken {
    Piece(Bytes, Option<Completion>),
    /// There is nothing yet.
    Nothing,
    Finished,
    Abandoned,
}

/// The limit on the number of pieces that wait is at least this, even if the limit in bytes is small.
const MIN_PIECES: usize = 1024;

impl BodyWriter {
    /// Sends the next piece: text or bytes, of any type that a handle [sends](crate::Handle::send). One that is owned
    /// (`Vec<u8>`, `String`, [`Bytes`]) is not copied; static memory is not as [`Bytes::from_static`].
    ///
    /// [`Sent::Sent`] means that the response has begun, and that the transport had taken all output of the connection:
    /// the piece is written when the connection next runs. [`Sent::Dropped`] does not occur.
    ///
    /// # Errors
    ///
    /// [`SendError::SendBufferFull`]: the piece is not sent, and can be sent again when the peer has read more,
    /// whatever the [policy](crate::ServerConfig::overflow): a body cannot lack a piece. [`SendError::Gone`]: the
    /// connection is over, or the response has no body.
    pub fn send(&mut self, piece: impl Into<Payload>) -> Result<Sent, SendError> {
        self.push(Piece { bytes: piece.into().into_bytes(), completion: None })
    }

    /// Sends the next piece, and calls `completion` with its outcome: with `Ok` when the transport has taken all of it,
    /// with `Err` when it can no longer be sent. It is called on the thread of the connection; with `Err` also on the
    /// thread that drops the [`Body`](crate::Body), or within this call if the piece is refused.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_then(
        &mut self,
        piece: impl Into<Payload>,
        completion: impl FnOnce(Result<(), Unsent>) + Send + 'static,
    ) -> Result<Sent, SendError> {
        let bytes = piece.into().into_bytes();
        self.push(Piece { bytes, completion: Some(Box::new(completion)) })
    }

    /// Ends the body.
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`]: the connection is over, or the response has no body.
    pub fn finish(self) -> Result<(), SendError> {
        match self.end(End::Finished) {
            true => Ok(()),
            false => Err(SendError::Gone),
        }
    }

    /// The number of bytes that the transport has not taken: of the pieces, and, once the response has begun, of all
    /// output of the connection.
    #[must_use]
    pub fn buffered_amount(&self) -> usize {
        self.0.state().buffered()
    }

    fn push(&self, piece: Piece) -> Result<Sent, SendError> {
        let mut state = self.0.state();
        match state.admit(&piece) {
            Ok(sent) => {
                state.waiting += piece.bytes.len();
                state.pieces.push_back(piece);
                let waker = (state.pieces.len() == 1).then(|| state.waker.clone()).flatten();
                drop(state);
                wake(waker);
                Ok(sent)
            }
            Err(error) => {
                drop(state);
                report_unsent(piece.completion.into_iter());
                Err(error)
            }
        }
    }

    /// Waits until a write can send something. Returns how many bytes it may send. That is at least 1 even if the
    /// connection is over; `send` then fails.
    fn wait_for_room(&self) -> io::Result<usize> {
        let mut state = self.0.state();
        while !state.gone && state.writable() == 0 {
            if running::is_in_run_call() {
                let why = "the body's send buffer is full, and a thread that runs an event loop must not block";
                return Err(io::Error::new(ErrorKind::WouldBlock, why));
            }
            state = self.0.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(state.writable().max(1))
    }

    /// Sets the end. Returns false if the connection is over. If the end was set before, does nothing and returns true.
    fn end(&self, end: End) -> bool {
        let mut state = self.0.state();
        if state.end != End::Open {
            return true;
        }
        state.end = end;
        let (waker, gone) = (state.waker.clone(), state.gone);
        drop(state);
        wake(waker);
        !gone
    }
}

impl Drop for BodyWriter {
    fn drop(&mut self) {
        self.end(End::Abandoned);
    }
}

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let n = bytes.len().min(self.wait_for_room()?);
            match self.send(Bytes::copy_from_slice(&bytes[..n])) {
                Ok(_) => return Ok(n),
                // Try again: meanwhile `attach` has lowered the limits, or the connection has reported as unsent
                // (`set_unsent`) what it had taken (`take`) before.
                Err(SendError::SendBufferFull { .. }) => {}
                Err(error) => return Err(io::Error::new(ErrorKind::BrokenPipe, error)),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for BodyWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyWriter").field("buffered_amount", &self.buffered_amount()).finish()
    }
}

impl State {
    /// The result of sending a piece, which is refused if there is no room for it.
    fn admit(&self, piece: &Piece) -> Result<Sent, SendError> {
        let SendBufferLimits { high_water_mark: high, max_send_buffer: limit, .. } = self.limits;
        let (buffered, message) = (self.buffered(), piece.bytes.len());
        let sum = buffered.saturating_add(message);
        match () {
            () if self.gone => Err(SendError::Gone),
            () if (buffered > 0 && sum > limit) || self.free_pieces() == 0 => {
                Err(SendError::SendBufferFull { waiting: buffered, message, limit, closes: false })
            }
            () if sum > high => Ok(Sent::Backpressure),
            () if self.unsent_bytes > 0 || self.waker.is_none() => Ok(Sent::Buffered),
            () => Ok(Sent::Sent),
        }
    }

    const fn buffered(&self) -> usize {
        self.waiting.saturating_add(self.unsent_bytes)
    }

    /// The number of pieces that may still wait: their own memory is bounded as well.
    fn free_pieces(&self) -> usize {
        let most = (self.limits.max_send_buffer / size_of::<Piece>()).max(MIN_PIECES);
        most.saturating_sub(self.pieces.len())
    }

    /// How many bytes a blocking write may send now; with 0 it must wait.
    fn writable(&self) -> usize {
        let SendBufferLimits { high_water_mark: high, max_send_buffer: limit, .. } = self.limits;
        match self.buffered() {
            _ if self.free_pieces() == 0 => 0,
            0 => high.max(1),
            buffered if buffered > high => 0,
            buffered => high.min(limit.saturating_sub(buffered)),
        }
    }
}

impl BodyReceiver {
    pub(super) fn new() -> (BodyWriter, Self) {
        let state = State {
            pieces: VecDeque::new(),
            waiting: 0,
            limits: SendBufferLimits::default(),
            unsent_bytes: 0,
            waker: None,
            end: End::Open,
            gone: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), room: Condvar::new() });
        (BodyWriter(shared.clone()), Self(shared))
    }

    /// From now on, `waker` is woken when the writer has sent something, and `limits` apply.
    pub(super) fn attach(&self, waker: Waker, limits: SendBufferLimits) {
        let mut state = self.0.state();
        (state.waker, state.limits) = (Some(waker), limits);
        drop(state);
        self.0.room.notify_all();
    }

    /// Reports how many bytes of the connection's output the transport has not taken.
    pub(super) fn set_unsent(&self, unsent_bytes: usize) {
        let before = mem::replace(&mut self.0.state().unsent_bytes, unsent_bytes);
        if unsent_bytes < before {
            self.0.room.notify_all();
        }
    }

    /// Takes at most `most` bytes of the first piece, and with its last bytes the completion of the piece.
    pub(super) fn take(&self, most: usize) -> Taken {
        let mut state = self.0.state();
        let Some(piece) = state.pieces.front_mut() else {
            return match state.end {
                End::Open => Taken::Nothing,
                End::Finished => Taken::Finished,
                End::Abandoned => Taken::Abandoned,
            };
        };
        let bytes = piece.bytes.split_to(piece.bytes.len().min(most));
        let is_last = piece.bytes.is_empty();
        let completion = if is_last { piece.completion.take() } else { None };
        if is_last {
            state.pieces.pop_front();
        }
        state.waiting -= bytes.len();
        drop(state);
        self.0.room.notify_all();
        Taken::Piece(bytes, completion)
    }
}

impl Drop for BodyReceiver {
    fn drop(&mut self) {
        let mut state = self.0.state();
        let (pieces, waker) = (mem::take(&mut state.pieces), state.waker.take());
        (state.gone, state.waiting, state.unsent_bytes) = (true, 0, 0);
        drop(state); // completions and wakers are application code
        drop(waker);
        self.0.room.notify_all();
        report_unsent(pieces.into_iter().filter_map(|piece| piece.completion));
    }
}

impl Shared {
    /// A panic elsewhere leaves the state consistent, so poisoning is ignored.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the connection, if there is one: without the lock, since it may run application code.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
