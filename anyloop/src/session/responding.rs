//! HTTP responses. Their bodies are sent as fast as the peer reads.

use anyloop_proto::handshake::AnswerError;
use anyloop_proto::handshake::http::Response;
use anyloop_proto::{Failure, Instant, Protocol, ResponseError};

use super::Session;
use super::body::{Body, MAX_PIECE, NextPiece};
use super::handler::Handler;
use crate::stream::{Budget, Completion, Unsent, WriteBuffer};

/// While this many bytes are unsent, no more of the body is read.
const HIGH_WATER: usize = MAX_PIECE;

/// After this many bytes the connection yields to others.
const TURN_BYTES: usize = 1 << 20;

/// A shorter piece is charged as this many bytes, so that many tiny reads end a turn too.
const MIN_PIECE_COST: usize = 256;

impl<H: Handler> Session<H> {
    /// Begins a response. Its body follows by [`send_body`](Self::send_body).
    pub(super) fn respond(
        &mut self,
        response: Response<Body>,
        out: &mut WriteBuffer<'_>,
        now: Instant,
    ) -> Result<(), AnswerError> {
        let Protocol::Server(handshake) = &mut self.protocol else { return Ok(()) };
        let length = response.body().content_length();
        let has_body = handshake.respond_head(&response, length, now, out)?;
        if has_body {
            let body = response.into_body();
            if let Some(channel) = body.as_channel() {
                let waker =
                    self.state.get_or_create_shared(out.queued(), self.state.phase).waker().clone();
                channel.attach(waker, self.state.limits());
            }
            self.state.set_body(body);
        }
        Ok(())
    }

    /// Sends as much of the body of a response as the stream takes, up to [`TURN_BYTES`].
    pub(super) fn send_body(
        &mut self,
        out: &mut WriteBuffer<'_>,
        budget: &mut Budget,
        now: Instant,
    ) {
        let Protocol::Server(handshake) = &mut self.protocol else { return };
        let Some(body) = self.state.body() else { return };
        let mut left = TURN_BYTES;
        // The handshake records the outcome; `fail` is called at the end of the stream.
        let error = loop {
            if !handshake.is_responding() {
                break None;
            }
            if out.buffered() >= HIGH_WATER {
                out.flush();
            }
            if out.queued() >= HIGH_WATER {
                return; // `handle_writable` follows
            }
            if left == 0 || budget.is_spent() {
                return self.state.request_resume();
            }
            let (sent, completion, len) = match body.next() {
                NextPiece::Borrowed(piece) => (handshake.body_piece(piece, out), None, piece.len()),
                NextPiece::Owned(piece, completion) => {
                    (handshake.body_piece(&piece, out), completion, piece.len())
                }
                NextPiece::NotYet => return,
                NextPiece::End => {
                    let _: Result<(), Failure> = handshake.end_body(now, out);
                    break None;
                }
                NextPiece::Abandoned => {
                    handshake.fail_body(ResponseError::Abandoned);
                    break None;
                }
                NextPiece::Failed(error) => {
                    crate::log::warn!("the body of a response cannot be read: {error}");
                    handshake.fail_body(ResponseError::Unreadable);
                    break Some(error);
                }
            };
            left = left.saturating_sub(len.max(MIN_PIECE_COST));
            complete_when_written(completion, sent.is_ok(), out);
        };
        let body = self.state.take_handshake_output();
        if let Some(error) = error {
            // Available as `Context::error` in `fail`.
            self.state.rare_mut().error.get_or_insert_with(|| Box::new(error));
        }
        drop(body); // application code
    }

    /// Reports to the writer of a body how many bytes of the connection's output are unsent.
    pub(super) fn report_unsent_to_writer(&mut self, unsent_bytes: usize) {
        if let Some(channel) = self.state.body().and_then(|body| body.as_channel()) {
            channel.set_unsent(unsent_bytes);
        }
    }

    /// Called when output was written: requests a resume if there is room, and the resume sends more of the body.
    pub(super) fn resume_body(&mut self, out: &WriteBuffer<'_>) {
        if out.queued() < HIGH_WATER && self.state.body().is_some() {
            self.state.request_resume();
        }
    }
}

/// Calls the completion of a piece when it was written, or never will be.
fn complete_when_written(completion: Option<Completion>, is_sent: bool, out: &mut WriteBuffer<'_>) {
    match completion {
        Some(completion) if is_sent => out.push_completion(completion),
        Some(completion) => completion(Err(Unsent)),
        None => {}
    }
}
