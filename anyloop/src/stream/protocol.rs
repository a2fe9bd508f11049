//! The contract between a protocol and the driver of its byte stream.

use std::error::Error;

use anyloop_proto::{Input, Instant, SendQueue, Shutdown, TransportError};

use super::budget::Budget;
use super::transport::Peer;
use super::write_buffer::WriteBuffer;

/// A protocol over a byte stream, without I/O.
///
/// A *driver* ([`Driver`](super::Driver), or the fast path of the event loop) repeats three steps:
///
/// 1. It reports what happened: input, the end of the input, an error, a stream that takes more output, a deadline,
///    a wake-up. The protocol calls handlers, and appends its output to `out`.
/// 2. It writes `out`, and [reports](Self::handle_written) how much still waits.
/// 3. It calls [`wants`](Self::wants), does what the result requires, and [ends the call](Self::end_call).
///
/// [`Progress::SameWants`] means that the wants have not changed, and that the deadline has not moved to an earlier
/// time. A driver that has nothing queued, before and after it has written `out`, may then omit the rest of steps 2 and
/// 3.
///
/// A call stops early when the budget is spent. [`Wants::again`] then holds until
/// [`resume`](Self::resume).
pub trait StreamProtocol {
    /// The stream exists. A client appends its request. If the client needs a secure stream and `secure` is false, its
    /// handshake fails instead.
    fn start(&mut self, secure: bool, out: &mut WriteBuffer<'_>, now: Instant);

    /// Takes received bytes until `input` is empty, `budget` is spent, reading is paused, the application's answer is
    /// awaited, or the protocol receives nothing more, such as after the peer's Close. The driver keeps what is left in
    /// `input`, and passes it again, before newer bytes, while [`Wants::read`] holds.
    fn receive(
        &mut self,
        input: &mut Input<'_>,
        out: &mut WriteBuffer<'_>,
        budget: &mut Budget,
        now: Instant,
    ) -> Progress;

    /// Lends memory to receive the rest of a large message into; `None` if it has none to lend. Report with
    /// [`filled`](Self::filled) how much was received there, then call [`receive`](Self::receive).
    fn receive_buffer(&mut self) -> Option<&mut [u8]>;

    /// Reports that the first `n` bytes of [`receive_buffer`](Self::receive_buffer) were filled.
    fn filled(&mut self, n: usize);

    /// The number of bytes of the current frame that are still to come; 0 between frames.
    fn outstanding(&self) -> u64;

    /// Whether the protocol holds input that it could not take: call [`receive`](Self::receive) while [`Wants::read`]
    /// holds, also without new input. By default false.
    fn has_unread(&self) -> bool {
        false
    }

    /// Whether the next input takes much time, as a handshake of TLS does. An event loop takes little of such input
    /// before it serves others. By default false.
    fn is_costly(&self) -> bool {
        false
    }

    /// Whether the application has asked to end the connection at once. By default false.
    fn is_terminated(&self) -> bool {
        false
    }

    /// The peer has ended its direction of the stream, and all input before that was taken.
    fn handle_eof(&mut self);

    /// The stream has failed, with `error` if that is known.
    fn handle_error(&mut self, kind: TransportError, error: Option<Box<dyn Error + Send + Sync>>);

    /// The stream is closed, and `bytes` of output were not written, because of `error` if writing has failed.
    fn handle_lost_output(&mut self, bytes: usize, error: Option<TransportError>);

    /// The stream takes more output: it has taken bytes of the send buffer, or none waited.
    fn handle_writable(&mut self, out: &mut WriteBuffer<'_>, now: Instant);

    /// A deadline has passed, or may have.
    fn handle_timeout(&mut self, out: &mut WriteBuffer<'_>, budget: &mut Budget, now: Instant);

    /// Runs broadcasts and the commands of handles.
    fn run_commands(
        &mut self,
        out: &mut WriteBuffer<'_>,
        budget: &mut Budget,
        now: Instant,
    ) -> Progress;

    /// Calls the handlers that an earlier budget held back, and sends more of a response's body. The driver then offers
    /// commands, input and deadlines again.
    fn resume(&mut self, out: &mut WriteBuffer<'_>, budget: &mut Budget, now: Instant);

    /// A handler or a completion panicked: fails the connection.
    fn handle_panic(&mut self, out: &mut WriteBuffer<'_>, now: Instant);

    /// The output was written, except for `waiting` bytes. Returns whether the handler must be notified of the
    /// level of the send buffer: then call [`report_send_buffer`](Self::report_send_buffer).
    fn handle_written(&mut self, waiting: usize) -> bool;

    /// Notifies the handler that the send buffer has risen above its high-water mark, or fallen to its
    /// low-water mark.
    fn report_send_buffer(&mut self, out: &mut WriteBuffer<'_>, budget: &mut Budget, now: Instant);

    /// Stores the peer, if it is not stored yet. Called before the stream is ended, since the transport may not know
    /// the peer after that.
    fn note_peer(&mut self, peer: &mut dyn FnMut() -> Peer);

    /// Called before [`handle_timeout`](Self::handle_timeout). The protocol calls `queue` only if a deadline depends on
    /// how much of the written output the peer has acknowledged: that of a pong, or of a response.
    fn note_send_queue(&mut self, queue: &mut dyn FnMut() -> Option<SendQueue>, now: Instant);

    /// Appends the last output before the stream is ended in the way that [`Wants::shutdown`] requires: the
    /// close_notify of TLS, for example. By default it does nothing.
    fn end_output(&mut self, out: &mut WriteBuffer<'_>) {
        let _ = out;
    }

    /// Prepares to close the stream: spends `budget` for the handler call that reports the end, if there is such a
    /// call. Returns whether the stream may be closed now. It may not while a handler call is held back or if the
    /// budget is spent, and [`Wants::again`] holds then; nor while the owner of the driver follows a redirect.
    fn prepare_close(&mut self, budget: &mut Budget) -> bool;

    /// The stream is closed: notifies the handler, once. The driver catches a panic of the handler.
    fn handle_closed(&mut self, out: &mut WriteBuffer<'_>, now: Instant);

    /// What the driver must do after it has written the output.
    fn wants(&self) -> Wants;

    /// The time to call [`handle_timeout`](Self::handle_timeout); `None` if no timer runs. While the protocol reports
    /// [`Progress::SameWants`] the deadline only moves to later times.
    fn deadline(&self) -> Option<Instant>;

    /// Ends a call of the driver, which has done what the protocol wants: the output is written, except for `waiting`
    /// bytes. The protocol may free unused memory.
    fn end_call(&mut self, waiting: usize, now: Instant);
}

/// What a driver must do after it has written the output.
#[derive(Clone, Copy, Debug)]
#[must_use]
#[non_exhaustive]
pub struct Wants {
    /// Receive, and pass the input on.
    pub read: bool,
    /// Receive, and discard the input: only the end of the stream still matters.
    pub discard: bool,
    /// Report the end of the stream, even while nothing is received, if no input is before it.
    pub end: bool,
    /// Call [`resume`](StreamProtocol::resume): handler calls, commands, or a response's body wait for another turn.
    pub again: bool,
    /// Not on the fast path: ask for a [`receive_buffer`](StreamProtocol::receive_buffer) before each read.
    pub slow_path: bool,
    /// End the stream in this way.
    pub shutdown: Shutdown,
}

impl Wants {
    pub(crate) const fn new(shutdown: Shutdown) -> Self {
        Self { read: false, discard: false, end: false, again: false, slow_path: false, shutdown }
    }
}

/// Whether the driver must ask [`StreamProtocol::wants`] after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "either something has changed or not")]
pub enum Progress {
    /// All input was taken, the driver only has to receive more, and [`StreamProtocol::wants`] has not changed. The
    /// deadline may be later.
    SameWants,
    /// It may have changed: ask [`StreamProtocol::wants`].
    WantsChanged,
}
