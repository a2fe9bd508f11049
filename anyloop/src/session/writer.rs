//! Messages that a handle sends in pieces.

use std::fmt;
use std::sync::Arc;

use anyloop_proto::{CloseCode, Kind, Payload, Refused};

use super::error::{SendError, Sent};
use super::flags::Flags;
use super::handler::{Context, Handler};
use super::pieces::{MessageProgress, MessageState, Piece};
use super::shared::{Command, HandleRef};
use crate::stream::{Completion, OwnedPayloadOutput, Unsent, report_unsent};

/// The reason of a Close when a writer is dropped within its message.
const UNFINISHED: &str = "a message was not finished";

/// Sends one message in pieces, from any thread: one frame each (RFC 6455 §5.4). A
/// [`Handle`](super::Handle::begin) or an [`AnyHandle`](super::AnyHandle::begin) makes it.
///
/// The message takes its place among the messages of the connection with its first piece. From then on, messages of
/// other handles, broadcasts and messages of the handler wait for its last piece, and so do the pieces of other
/// writers; pings, pongs and a Close do not wait. What waits counts for the
/// [send buffer](crate::ServerConfig::max_send_buffer), but not for the pieces of the message that it waits for: at
/// worst twice the limit waits. Sending what waits returns [`Sent::Buffered`], or [`Sent::Backpressure`] above the
/// high-water mark. If there is no room for it, the peer is not to blame: even with
/// [`Overflow::Close`](super::Overflow::Close), sending only returns [`SendError::SendBufferFull`], and the connection
/// remains open.
///
/// A message whose first piece is [`Uncompressed`](crate::proto::Uncompressed) is not compressed.
///
/// A writer that is dropped before its last piece leaves a message that the peer waits for. If a part of it has been
/// sent, the connection is closed with 1011. Otherwise the message is not sent at all.
///
/// ```
/// # use anyloop::iostream::Server;
/// # use anyloop::prelude::*;
/// # use std::sync::mpsc;
/// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// # let server = Server::new(ServerConfig::new(OriginPolicy::Any));
/// let connection = server.connection();
/// # let (to_client, at_client) = mpsc::channel();
/// # connection.set_write_handler(move |bytes| Ok(to_client.send(bytes.to_vec()).unwrap()));
/// connection.read_all(REQUEST)?;
/// # at_client.try_recv()?;
/// let handle = connection.handle();
/// std::thread::spawn(move || {
///     let mut writer = handle.begin(Kind::Text);
///     writer.piece("one, ", false)?;
///     handle.send("another message")?;
///     writer.piece("two", true)
/// })
/// .join()
/// .expect("no panic")?;
/// connection.drive()?;
/// assert_eq!(at_client.try_recv()?, b"\x01\x05one, \x80\x03two\x81\x0fanother message");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing is sent before the first piece"]
pub struct MessageWriter {
    shared: HandleRef,
    progress: Arc<MessageProgress>,
    /// A piece was accepted.
    begun: bool,
    /// The last piece was accepted.
    finished: bool,
}

impl MessageWriter {
    pub(super) fn new(shared: HandleRef, kind: Kind) -> Self {
        let progress = Arc::new(MessageProgress::new(kind));
        Self { shared, progress, begun: false, finished: false }
    }

    /// Sends the next piece, text or bytes, and with `last` ends the message. A piece may be empty. A payload that is
    /// owned is copied no more often than by [`send`](super::Handle::send).
    ///
    /// The pieces of a text are not checked. Together they must be UTF-8; a single piece may end inside a character.
    ///
    /// # Errors
    ///
    /// [`SendError::SendBufferFull`]: the piece is not sent. With [`Overflow::Error`](super::Overflow::Error) and
    /// [`Overflow::Drop`](super::Overflow::Drop) the message stays in progress, and the piece can be sent again when
    /// the peer has read more, or, if the message waits for another in pieces, after the last piece of that. With
    /// [`Overflow::Close`](super::Overflow::Close) the same holds, unless the peer itself is too slow: then the
    /// connection is closed with 1008, and sending again returns [`SendError::Closing`]. [`SendError::Closing`],
    /// [`SendError::Gone`]. [`SendError::Refused`] after the last piece.
    pub fn piece(&mut self, payload: impl Into<Payload>, last: bool) -> Result<Sent, SendError> {
        self.send(payload.into(), last, None)
    }

    /// Sends the next piece, and calls `completion` with its outcome: on the strand of the connection when the
    /// transport has taken all of it or never will, or within this call if the piece is refused.
    ///
    /// A thread that sends more than the send buffer can take waits for the completion of an earlier piece. A piece
    /// counts for the send buffer until the end of the [batch](super::Context) that has written it, which is shortly
    /// after its completion was called: leave room for twice as much as is in flight at a time.
    ///
    /// # Errors
    ///
    /// As [`piece`](Self::piece).
    pub fn piece_then(
        &mut self,
        payload: impl Into<Payload>,
        last: bool,
        completion: impl FnOnce(Result<(), Unsent>) + Send + 'static,
    ) -> Result<Sent, SendError> {
        self.send(payload.into(), last, Some(Box::new(completion)))
    }

    fn send(
        &mut self,
        payload: Payload,
        last: bool,
        completion: Option<Completion>,
    ) -> Result<Sent, SendError> {
        let compressible = payload.is_compressible();
        let piece = Piece { payload: payload.into_bytes(), compressible, last, completion };
        if self.finished {
            piece.report_unsent();
            return Err(SendError::Refused(Refused::NoMessageBegun));
        }
        if !self.begun {
            self.shared.begin_writer();
        }
        let sent = self.shared.send_piece(&self.progress, piece);
        if sent.is_ok() {
            (self.begun, self.finished) = (true, last);
        }
        if !self.begun || self.finished {
            self.shared.end_writer();
        }
        sent
    }
}

impl Drop for MessageWriter {
    fn drop(&mut self) {
        if self.begun && !self.finished {
            // A connection that is over needs no Close.
            let _: Result<(), SendError> =
                self.shared.push(Command::AbandonMessage(self.progress.clone()));
            self.shared.end_writer();
        }
    }
}

impl fmt::Debug for MessageWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageWriter")
            .field("kind", &self.progress.kind)
            .field("finished", &self.finished)
            .finish_non_exhaustive()
    }
}

impl<H: Handler> Context<'_, H> {
    /// Sends a piece that a handle has accepted, or defers it until its message is in progress.
    pub(super) fn send_piece_or_defer(&mut self, progress: &Arc<MessageProgress>, piece: Piece) {
        if progress.is_in_progress() {
            self.send_piece(progress, piece);
            if self.state.flags.has(Flags::DEFERRED) {
                self.send_deferred();
            }
        } else if progress.is_over() {
            piece.report_unsent();
        } else if progress.has_queued() || self.must_defer() {
            self.state.defer_piece(progress, piece);
        } else {
            self.send_pieces(progress, [piece]);
        }
    }

    /// Begins a message in pieces, and sends the pieces that were accepted. A message that cannot be finished is not
    /// begun: those that follow it would wait for its last piece until the Close.
    pub(super) fn send_pieces(
        &mut self,
        progress: &Arc<MessageProgress>,
        pieces: impl IntoIterator<Item = Piece>,
    ) {
        let cannot_finish = || self.state.shared().is_some_and(|it| it.cannot_finish(progress));
        // It is over if it was abandoned while it waited.
        if progress.is_over() || cannot_finish() {
            progress.set_state(MessageState::Over);
            return report_unsent(pieces.into_iter().filter_map(|piece| piece.completion));
        }
        let mut pieces = pieces.into_iter().peekable();
        let compress = pieces.peek().is_none_or(|first| first.compressible);
        let begun = self.sender.as_mut().is_some_and(|sender| match compress {
            true => sender.begin(progress.kind).is_ok(),
            false => sender.begin_uncompressed(progress.kind).is_ok(),
        });
        progress.set_state(if begun { MessageState::InProgress } else { MessageState::Over });
        self.state.set_writer_message(begun.then(|| progress.clone()));
        for piece in pieces {
            self.send_piece(progress, piece);
        }
    }

    /// Sends a piece of the message that is in progress, and calls its completion in any case.
    fn send_piece(&mut self, progress: &MessageProgress, piece: Piece) {
        let Piece { payload, last, completion, .. } = piece;
        let sender = self.sender.as_mut().filter(|_| progress.is_in_progress());
        let is_sent = sender.is_some_and(|sender| {
            let mut out = OwnedPayloadOutput { out: &mut self.out, payload: &payload };
            let sent = sender.piece(&payload, last, &mut out);
            sent.inspect_err(|error| crate::log::debug!("a piece is not sent: {error}")).is_ok()
        });
        self.out.flush_if_large();
        if last || !is_sent {
            progress.set_state(MessageState::Over);
            self.state.set_writer_message(None);
        }
        match completion {
            Some(completion) if is_sent => self.out.push_completion(completion),
            completion => report_unsent(completion.into_iter()),
        }
    }

    /// A writer was dropped before its last piece.
    pub(super) fn abandon(&mut self, progress: &MessageProgress) {
        let is_in_progress = progress.is_in_progress();
        let waiting = self.state.take_pieces(progress);
        progress.set_state(MessageState::Over);
        drop(waiting); // calls their completions with an error
        if is_in_progress {
            self.state.set_writer_message(None);
            // The connection may be closing already.
            let _: Result<(), SendError> = self.close(CloseCode::INTERNAL_ERROR, UNFINISHED);
        }
    }
}
