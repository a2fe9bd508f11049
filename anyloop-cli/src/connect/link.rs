//! What the thread of the input, the connection and the main thread share.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyloop::endpoint::{Handle, MessageWriter, SendError};
use anyloop::proto::Payload;

use super::handler::ConnectHandler;
use crate::error::CliError;

/// The input waits while more bytes than this are waiting to be sent.
const WINDOW: usize = 1 << 20;

/// A line that is available is read within this time.
const LAST_READ_TIMEOUT: Duration = Duration::from_secs(1);

/// The connection that is open now, if there is one, and how far the input is.
#[derive(Default)]
pub(super) struct Link {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
struct Progress {
    connection: Option<Handle<ConnectHandler>>,
    /// There was a connection, which may have ended.
    opened: bool,
    /// There will be no further connection.
    over: bool,
    /// Bytes of messages that were read and that the transport has not taken.
    waiting: usize,
    /// Messages that were read and that no transport will ever take.
    lost: u64,
    /// Messages that have arrived.
    received: u64,
    /// The input has ended.
    ended: bool,
    /// The program is closing the connection: it makes no other one.
    closing: bool,
    /// A signal has ended the command.
    interrupted: bool,
    /// The first failure of input or output.
    failure: Option<String>,
}

impl Link {
    /// A connection has opened.
    pub(super) fn opened(&self, connection: Handle<ConnectHandler>) {
        let mut progress = self.progress();
        (progress.connection, progress.opened) = (Some(connection), true);
        drop(progress);
        self.changed.notify_all();
    }

    /// The connection has ended.
    pub(super) fn ended(&self) {
        self.progress().connection = None;
        self.changed.notify_all();
    }

    /// There will be no further connection.
    pub(super) fn finish(&self) {
        self.progress().over = true;
        self.changed.notify_all();
    }

    /// The connection that is open.
    pub(super) fn connection(&self) -> Option<Handle<ConnectHandler>> {
        self.progress().connection.clone()
    }

    /// Waits for a connection that is open. `None` if there will be none.
    pub(super) fn await_connection(&self) -> Option<Handle<ConnectHandler>> {
        self.wait_until(|progress| progress.connection.is_some() || progress.over)
            .connection
            .clone()
    }

    /// Waits until a connection has opened, which may have ended since. Returns false if none will.
    pub(super) fn await_opening(&self) -> bool {
        self.wait_until(|progress| progress.opened || progress.over).opened
    }

    /// Sends a message. Its completion is counted in any case.
    pub(super) fn send(
        self: &Arc<Self>,
        connection: &Handle<ConnectHandler>,
        message: impl Into<Payload>,
    ) -> Result<(), SendError> {
        let message = message.into();
        let done = self.begin(message.message().as_bytes().len());
        connection.send_then(message, done).map(|_| ())
    }

    /// Sends a piece of a message. Its completion is counted in any case.
    pub(super) fn send_piece(
        self: &Arc<Self>,
        writer: &mut MessageWriter,
        piece: Vec<u8>,
        last: bool,
    ) -> Result<(), SendError> {
        let done = self.begin(piece.len());
        writer.piece_then(piece, last, done).map(|_| ())
    }

    /// Counts bytes as waiting, until the result is called.
    fn begin<E>(self: &Arc<Self>, len: usize) -> impl FnOnce(Result<(), E>) + Send + 'static {
        let (link, len) = (self.clone(), len + 1); // so that an empty message counts
        self.progress().waiting += len;
        move |result| {
            let mut progress = link.progress();
            progress.waiting -= len;
            progress.lost += u64::from(result.is_err());
            drop(progress);
            link.changed.notify_all();
        }
    }

    /// A message was read for which there is no connection any more.
    pub(super) fn lose(&self) {
        self.progress().lost += 1;
        self.changed.notify_all();
    }

    /// Waits until few bytes are waiting to be sent. Returns whether nothing was lost.
    pub(super) fn await_room(&self) -> bool {
        self.wait_until(|progress| progress.waiting <= WINDOW).lost == 0
    }

    /// Waits until all that was read is sent, or lost.
    pub(super) fn await_sent(&self) {
        drop(self.wait_until(|progress| progress.waiting == 0));
    }

    /// Bytes that are waiting to be sent.
    pub(super) fn waiting(&self) -> usize {
        self.progress().waiting
    }

    /// The input has ended.
    pub(super) fn end_input(&self) {
        self.progress().ended = true;
        self.changed.notify_all();
    }

    /// A message has arrived. Returns how many have.
    pub(super) fn count_received(&self) -> u64 {
        let mut progress = self.progress();
        progress.received += 1;
        progress.received
    }

    /// How many messages have arrived.
    pub(super) fn received(&self) -> u64 {
        self.progress().received
    }

    /// The program is closing the connection. Returns whether it was already.
    pub(super) fn set_closing(&self) -> bool {
        std::mem::replace(&mut self.progress().closing, true)
    }

    /// Whether the program is closing the connection.
    pub(super) fn is_closing(&self) -> bool {
        self.progress().closing
    }

    /// A signal ends the command.
    pub(super) fn interrupt(&self) {
        let mut progress = self.progress();
        (progress.interrupted, progress.closing) = (true, true);
    }

    /// Whether a signal ends the command.
    pub(super) fn is_interrupted(&self) -> bool {
        self.progress().interrupted
    }

    /// Reports a failure of input or output. Returns whether it is the first.
    pub(super) fn fail(&self, why: String) -> bool {
        let mut progress = self.progress();
        progress.closing = true;
        let first = progress.failure.is_none();
        progress.failure.get_or_insert(why);
        first
    }

    /// The first failure of input or output.
    pub(super) fn failure(&self) -> Result<(), CliError> {
        self.progress().failure.take().map_or(Ok(()), |failure| Err(CliError::failed(failure)))
    }

    /// Fails if a message was not sent because the peer closed. Waits up to [`LAST_READ_TIMEOUT`] for a line that is
    /// available but not read yet.
    pub(super) fn loss(&self) -> Result<(), CliError> {
        let more = |progress: &mut Progress| !progress.ended && progress.lost == 0;
        let waited = self.changed.wait_timeout_while(self.progress(), LAST_READ_TIMEOUT, more);
        match waited.unwrap_or_else(PoisonError::into_inner).0.lost {
            0 => Ok(()),
            _ => Err(CliError::failed("the peer closed before all of the input was sent")),
        }
    }

    fn wait_until(&self, condition: impl Fn(&Progress) -> bool) -> MutexGuard<'_, Progress> {
        let waited = self.changed.wait_while(self.progress(), |progress| !condition(progress));
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// A panic of another thread leaves the state consistent, so a poisoned lock is used.
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
