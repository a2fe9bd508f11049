//! What can be due.

/// Everything that can be due.
///
/// Where several are, they are served in this order: what ends the connection first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Timer {
    /// The closing handshake, and after it the byte stream, must have ended.
    Close,
    /// The pong for our ping must have arrived.
    Pong,
    /// Some frame must have arrived.
    Idle,
    /// Some data must have arrived.
    DataIdle,
    /// A ping is to be sent.
    Ping,
}
