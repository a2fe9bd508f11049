//! What the threads of the command share: the connection, how much input waits, and why the command ends.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyloop::Handler;
use anyloop::endpoint::{Handle, MessageWriter, SendError, Unsent};
use anyloop::proto::Payload;

use super::outbox::Outbox;
use crate::error::CliError;

/// Reading of the input pauses while more than this many bytes are unsent.
const WINDOW: usize = 1 << 20;

/// After the last connection, the input has this time to end, or to show by another line that not all of it was sent.
const INPUT_GRACE: Duration = Duration::from_secs(1);

/// The state that the input thread, the handler and the command share: the connection with handler `H` that is open
/// now, if there is one, and the progress of input and output.
pub(super) struct Link<H: Handler> {
    state: Mutex<State<H>>,
    changed: Condvar,
}

struct State<H: Handler> {
    connection: Option<Handle<H>>,
    /// There was a connection, which may have ended.
    was_open: bool,
    /// There will be no further connection.
    is_finished: bool,
    /// Bytes of messages that were read and that the transport has not taken, plus one for each message or piece.
    waiting: usize,
    /// Messages, and pieces of messages, that were read and that no transport will ever take.
    lost: u64,
    /// Messages that a person has sent.
    outbox: Outbox,
    /// A connection has failed after messages were sent on it: nothing tells which of them have arrived.
    is_uncertain: bool,
    /// Messages that have arrived.
    received: u64,
    /// The input has ended.
    input_ended: bool,
    /// The program is closing the connection: it makes no other one.
    is_closing: bool,
    /// A signal has ended the command.
    is_interrupted: bool,
    /// The first failure of input or output.
    failure: Option<String>,
}

impl<H: Handler> Default for Link<H> {
    fn default() -> Self {
        let state = State {
            connection: None,
            was_open: false,
            is_finished: false,
            waiting: 0,
            lost: 0,
            outbox: Outbox::default(),
            is_uncertain: false,
            received: 0,
            input_ended: false,
            is_closing: false,
            is_interrupted: false,
            failure: None,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl<H: Handler> Link<H> {
    /// A connection has opened.
    pub(super) fn opened(&self, connection: Handle<H>) {
        let mut state = self.state();
        (state.connection, state.was_open) = (Some(connection), true);
        drop(state);
        self.changed.notify_all();
    }

    /// The connection has ended.
    pub(super) fn ended(&self) {
        self.state().connection = None;
        self.changed.notify_all();
    }

    /// The connection has failed after this many messages were sent on it.
    pub(super) fn failed_after(&self, sent: u64) {
        self.state().is_uncertain |= sent > 0;
    }

    /// Fails if a connection has failed after messages were sent on it.
    pub(super) fn check_all_arrived(&self) -> Result<(), CliError> {
        match self.state().is_uncertain {
            false => Ok(()),
            true => Err(CliError::failed(
                "an earlier connection failed: what was sent on it may be lost",
            )),
        }
    }

    /// There will be no further connection.
    pub(super) fn finish(&self) {
        let mut state = self.state();
        state.is_finished = true;
        state.outbox.end();
        drop(state);
        self.changed.notify_all();
    }

    /// The connection that is open.
    pub(super) fn connection(&self) -> Option<Handle<H>> {
        self.state().connection.clone()
    }

    /// Waits for a connection that is open. `None` if there will be none.
    pub(super) fn await_connection(&self) -> Option<Handle<H>> {
        self.wait_until(|state| state.connection.is_some() || state.is_finished).connection.clone()
    }

    /// Waits until a connection has opened, which may have ended since. Returns false if none will.
    pub(super) fn await_opening(&self) -> bool {
        self.wait_until(|state| state.was_open || state.is_finished).was_open
    }

    /// Sends a message. It counts as waiting until its completion is called, and as lost if that reports an error.
    pub(super) fn send(
        self: &Arc<Self>,
        connection: &Handle<H>,
        message: impl Into<Payload>,
    ) -> Result<(), SendError> {
        let message = message.into();
        let completion = self.count_waiting(message.message().as_bytes().len());
        connection.send_then(message, completion).map(|_| ())
    }

    /// As [`send`](Self::send), for a text that a person has typed. [`take_losses`](Self::take_losses) names the text
    /// if it is not sent, or may be lost.
    pub(super) fn send_text(
        self: &Arc<Self>,
        connection: &Handle<H>,
        text: &str,
    ) -> Result<(), SendError> {
        let number = self.state().outbox.queue(text);
        let (link, completion) = (self.clone(), self.count_waiting(text.len()));
        let completion = move |result: Result<(), Unsent>| {
            link.state().outbox.resolve(number, result.is_ok());
            completion(result);
        };
        connection.send_then(text, completion).map(|_| ())
    }

    /// The screen shows a text of a person as sent.
    #[cfg_attr(not(unix), expect(dead_code, reason = "lines are not edited"))]
    pub(super) fn accept(&self, text: &str) {
        self.state().outbox.accept(text);
    }

    /// The line was executed: what was accepted has been sent, or is refused.
    pub(super) fn executed(&self) {
        self.state().outbox.withdraw();
    }

    /// A ping, a pong, a Close or a part of a message has arrived: texts that were sent before it do not count as lost.
    pub(super) fn heard(&self) {
        self.state().outbox.heard();
    }

    /// Sentences about texts of a person that were not sent, or may be lost with a connection that has ended. None is
    /// reported twice.
    pub(super) fn take_losses(&self) -> Vec<String> {
        let mut state = self.state();
        let may_be_lost = match state.connection {
            None => state.outbox.take_unanswered(),
            Some(_) => None,
        };
        may_be_lost.into_iter().chain(state.outbox.take_unsent()).collect()
    }

    /// As [`send`](Self::send), for a piece of a message.
    pub(super) fn send_piece(
        self: &Arc<Self>,
        writer: &mut MessageWriter,
        piece: Vec<u8>,
        last: bool,
    ) -> Result<(), SendError> {
        let completion = self.count_waiting(piece.len());
        writer.piece_then(piece, last, completion).map(|_| ())
    }

    /// Counts bytes as waiting, and returns their completion: it stops counting them, and counts an error as a loss.
    fn count_waiting<E>(
        self: &Arc<Self>,
        len: usize,
    ) -> impl FnOnce(Result<(), E>) + Send + 'static {
        let (link, len) = (self.clone(), len + 1); // so that an empty message counts
        self.state().waiting += len;
        move |result| {
            let mut state = link.state();
            state.waiting -= len;
            state.lost += u64::from(result.is_err());
            drop(state);
            link.changed.notify_all();
        }
    }

    /// A message was read for which there is no connection any more.
    pub(super) fn count_lost(&self) {
        self.state().lost += 1;
        self.changed.notify_all();
    }

    /// Messages, and pieces of messages, that were not sent and never will be.
    pub(super) fn lost(&self) -> u64 {
        self.state().lost
    }

    /// Waits until at most [`WINDOW`] bytes are unsent. Returns whether nothing was ever lost.
    pub(super) fn await_room(&self) -> bool {
        self.wait_until(|state| state.waiting <= WINDOW).lost == 0
    }

    /// Waits until all that was read is sent, or lost.
    pub(super) fn await_sent(&self) {
        drop(self.wait_until(|state| state.waiting == 0));
    }

    /// Bytes that are waiting to be sent, plus one for each message or piece.
    pub(super) fn waiting(&self) -> usize {
        self.state().waiting
    }

    /// The input has ended.
    pub(super) fn end_input(&self) {
        self.state().input_ended = true;
        self.changed.notify_all();
    }

    /// A message has arrived. Returns how many have.
    pub(super) fn count_received(&self) -> u64 {
        let mut state = self.state();
        state.received += 1;
        state.outbox.heard();
        state.received
    }

    /// How many messages have arrived.
    pub(super) fn received(&self) -> u64 {
        self.state().received
    }

    /// The program is closing the connection.
    pub(super) fn set_closing(&self) {
        self.state().is_closing = true;
    }

    /// Whether the program is closing the connection.
    pub(super) fn is_closing(&self) -> bool {
        self.state().is_closing
    }

    /// A signal ends the command.
    pub(super) fn interrupt(&self) {
        let mut state = self.state();
        (state.is_interrupted, state.is_closing) = (true, true);
    }

    /// Whether a signal ends the command.
    pub(super) fn is_interrupted(&self) -> bool {
        self.state().is_interrupted
    }

    /// Reports a failure of input or output, after which no other connection is made. Returns whether it is the first.
    pub(super) fn fail(&self, why: String) -> bool {
        let mut state = self.state();
        state.is_closing = true;
        let is_first = state.failure.is_none();
        state.failure.get_or_insert(why);
        is_first
    }

    /// Fails if input or output has failed, with the first reason.
    pub(super) fn check_failure(&self) -> Result<(), CliError> {
        self.state().failure.clone().map_or(Ok(()), |failure| Err(CliError::failed(failure)))
    }

    /// Fails if a message was not sent, whatever the reason. If none was lost and the input has not ended, waits up to
    /// [`INPUT_GRACE`] for one of the two.
    pub(super) fn check_all_sent(&self) -> Result<(), CliError> {
        let is_undecided = |state: &mut State<H>| !state.input_ended && state.lost == 0;
        let waited = self.changed.wait_timeout_while(self.state(), INPUT_GRACE, is_undecided);
        match waited.unwrap_or_else(PoisonError::into_inner).0.lost {
            0 => Ok(()),
            _ => Err(CliError::failed("the peer closed before all of the input was sent")),
        }
    }

    fn wait_until(&self, condition: impl Fn(&State<H>) -> bool) -> MutexGuard<'_, State<H>> {
        let waited = self.changed.wait_while(self.state(), |state| !condition(state));
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// A panic of another thread leaves the state consistent, so a poisoned lock is used.
    fn state(&self) -> MutexGuard<'_, State<H>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
