//! Handles of connections whose handlers have different types.

use std::fmt;
use std::hash::{Hash, Hasher};

use anyloop_proto::{CloseCode, Kind, Payload, Prepared, State, check_close};

use super::deferred::{OutgoingMessage, OutgoingPayload};
use super::error::{SendError, Sent};
use super::handle::Handle;
use super::handler::Handler;
use super::shared::{Command, ConnectionId, HandleRef};
use super::writer::MessageWriter;
use crate::stream::Unsent;

/// A [`Handle`] without the type of the handler: connections of different servers and clients fit in one list.
///
/// ```
/// use anyloop::endpoint::AnyHandle;
/// use anyloop::iostream;
/// use anyloop::prelude::*;
///
/// struct Quiet;
///
/// impl Handler for Quiet {}
///
/// let config = || ServerConfig::new(OriginPolicy::Any);
/// let with_closures = iostream::Server::new(config()).connection();
/// let with_handler = iostream::Server::with_factory(config(), || Quiet).connection();
///
/// let handles: [AnyHandle; 2] = [with_closures.handle().erase(), with_handler.handle().erase()];
/// for handle in &handles {
///     handle.send("to all")?;
/// }
/// let one: AnyHandle = with_closures.handle().into(); // the same
/// assert_eq!(one, handles[0]);
/// # Ok::<(), SendError>(())
/// ```
#[derive(Clone)]
pub struct AnyHandle(HandleRef);

impl<H: Handler> From<Handle<H>> for AnyHandle {
    fn from(handle: Handle<H>) -> Self {
        handle.erase()
    }
}

impl<H: Handler> From<&Handle<H>> for AnyHandle {
    fn from(handle: &Handle<H>) -> Self {
        handle.erase()
    }
}

impl<H: Handler> Handle<H> {
    /// A handle of the same connection without the handler's type.
    #[must_use]
    pub fn erase(&self) -> AnyHandle {
        AnyHandle(self.shared().clone())
    }
}

impl AnyHandle {
    /// Sends a message, as [`Handle::send`].
    ///
    /// # Errors
    ///
    /// As [`Handle::send`].
    pub fn send(&self, message: impl Into<Payload>) -> Result<Sent, SendError> {
        let payload = OutgoingPayload::Payload(message.into());
        self.0.send(OutgoingMessage { payload, completion: None })
    }

    /// Sends a message, and calls `completion` with what became of it, as [`Handle::send_then`].
    ///
    /// # Errors
    ///
    /// As [`Handle::send`].
    pub fn send_then(
        &self,
        message: impl Into<Payload>,
        completion: impl FnOnce(Result<(), Unsent>) + Send + 'static,
    ) -> Result<Sent, SendError> {
        let payload = OutgoingPayload::Payload(message.into());
        self.0.send(OutgoingMessage { payload, completion: Some(Box::new(completion)) })
    }

    /// Sends a message that was encoded for many connections.
    ///
    /// # Errors
    ///
    /// As [`Handle::send`].
    pub fn send_prepared(&self, message: &Prepared) -> Result<Sent, SendError> {
        let payload = OutgoingPayload::Prepared(message.clone());
        self.0.send(OutgoingMessage { payload, completion: None })
    }

    /// Returns a writer of one message that is sent in pieces, as [`Handle::begin`].
    pub fn begin(&self, kind: Kind) -> MessageWriter {
        MessageWriter::new(self.0.clone(), kind)
    }

    /// Sends a ping of at most 125 bytes, as [`Handle::ping`].
    ///
    /// # Errors
    ///
    /// As [`Handle::ping`].
    pub fn ping(&self, payload: impl AsRef<[u8]>) -> Result<(), SendError> {
        self.0.ping(payload.as_ref())
    }

    /// Sends a pong of at most 125 bytes, as [`Handle::pong`].
    ///
    /// # Errors
    ///
    /// As [`Handle::ping`].
    pub fn pong(&self, payload: impl AsRef<[u8]>) -> Result<(), SendError> {
        self.0.pong(payload.as_ref())
    }

    /// Begins the closing handshake, as [`Handle::close`].
    ///
    /// # Errors
    ///
    /// As [`Handle::close`].
    pub fn close(&self, code: impl Into<Option<CloseCode>>, reason: &str) -> Result<(), SendError> {
        let code = code.into();
        check_close(code, reason)?;
        self.0.push(Command::Close(code, reason.to_string()))
    }

    /// Ends the connection without a closing handshake, as [`Handle::terminate`].
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`].
    pub fn terminate(&self) -> Result<(), SendError> {
        self.0.push(Command::Terminate)
    }

    /// Requests a call of [`Handler::interrupt`] on the strand of the connection.
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`].
    pub fn interrupt(&self) -> Result<(), SendError> {
        self.0.push(Command::Interrupt)
    }

    /// Stops reading, as [`Handle::pause_reading`].
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`].
    pub fn pause_reading(&self) -> Result<(), SendError> {
        self.0.push(Command::PauseReading)
    }

    /// Resumes reading.
    ///
    /// # Errors
    ///
    /// [`SendError::Gone`].
    pub fn resume_reading(&self) -> Result<(), SendError> {
        self.0.push(Command::ResumeReading)
    }

    /// The number of bytes that the transport has not taken, as [`Handle::buffered_amount`].
    #[must_use]
    pub fn buffered_amount(&self) -> usize {
        self.0.buffered()
    }

    /// The id of the connection, unique in this process.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.0.id()
    }

    /// The state of the connection, as last published.
    #[must_use]
    pub fn state(&self) -> State {
        self.0.state()
    }
}

/// Handles of the same connection are equal.
impl PartialEq for AnyHandle {
    fn eq(&self, other: &Self) -> bool {
        self.0.is_same_connection(&other.0)
    }
}

impl Eq for AnyHandle {}

/// Hashes the identity of the connection, as [`Handle`] does.
impl Hash for AnyHandle {
    fn hash<S: Hasher>(&self, hasher: &mut S) {
        self.0.hash_connection(hasher);
    }
}

impl fmt::Debug for AnyHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyHandle").field("state", &self.state()).finish_non_exhaustive()
    }
}
