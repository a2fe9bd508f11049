//! What connections of an endpoint have in common.

use std::sync::Arc;

use anyloop_proto::handshake::{ClientOptions, ServerOptions};

/// How much may wait for a peer that reads slowly.
///
/// | setting | default |
/// |---|---|
/// | `low` | 64 KiB |
/// | `high` | 1 MiB |
/// | `cap` | 16 MiB |
/// | `overflow` | [`Overflow::Error`] |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BacklogLimits {
    /// When the backlog has fallen to this many bytes after it was above `high`,
    /// [`drained`](super::Handler::drained) is called.
    pub low: usize,
    /// Above this many bytes, sending reports [`Sent::Backpressure`](super::Sent::Backpressure).
    pub high: usize,
    /// A message that would make the backlog larger than this is not sent, unless nothing waits before
    /// it; see `overflow`.
    pub cap: usize,
    /// What becomes of such a message.
    pub overflow: Overflow,
}

impl Default for BacklogLimits {
    fn default() -> Self {
        Self { low: 64 << 10, high: 1 << 20, cap: 16 << 20, overflow: Overflow::Error }
    }
}

/// What becomes of a message for which the backlog has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// It is not sent, and the sender is told so by an error.
    #[default]
    Error,
    /// It is not sent, and the sender is told [`Sent::Dropped`](super::Sent::Dropped): for messages
    /// that the next one makes worthless.
    Drop,
    /// The connection is closed with 1008.
    Close,
}

/// Settings of the connections of a [`Server`](super::Server).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerSettings {
    /// The opening handshake, and the connection that comes out of it.
    pub handshake: Arc<ServerOptions>,
    /// How much may wait for a peer that reads slowly.
    pub backlog: BacklogLimits,
    /// Whether a connection remembers its request and response after they were exchanged. By default
    /// it does; a server with very many connections may not want it to.
    pub keep_handshake: bool,
}

impl From<ServerOptions> for ServerSettings {
    fn from(options: ServerOptions) -> Self {
        let backlog = BacklogLimits::default();
        Self { handshake: Arc::new(options), backlog, keep_handshake: true }
    }
}

/// Settings of the connections of a [`Client`](super::Client).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientSettings {
    /// The opening handshake, and the connection that comes out of it.
    pub handshake: Arc<ClientOptions>,
    /// How much may wait for a peer that reads slowly.
    pub backlog: BacklogLimits,
    /// Whether a connection remembers its response after it was received.
    pub keep_handshake: bool,
}

impl From<ClientOptions> for ClientSettings {
    fn from(options: ClientOptions) -> Self {
        let backlog = BacklogLimits::default();
        Self { handshake: Arc::new(options), backlog, keep_handshake: true }
    }
}

impl Default for ClientSettings {
    fn default() -> Self {
        ClientOptions::default().into()
    }
}

/// What every session of an endpoint looks up.
pub(super) struct Common {
    pub(super) limits: BacklogLimits,
    pub(super) keep_handshake: bool,
}
