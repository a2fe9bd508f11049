//! The timers of a connection.

/// A timer of a connection.
///
/// If several are due at once, they are handled in this order: those that end the connection come
/// first.
///
/// ```
/// # use anyloop_proto::*;
/// # use std::time::Duration;
/// # let start = Instant::from_nanos(0);
/// # let mut out = Vec::new();
/// let mut config = Config::default();
/// config.ping_interval = Some(Duration::from_secs(20));
/// config.pong_timeout = Some(Duration::from_secs(10));
/// let mut connection = Connection::new(Role::Server, config.into(), start);
///
/// let due = connection.poll_timeout().expect("pings are on");
/// assert_eq!(due - start, Duration::from_secs(20));
/// assert_eq!(connection.handle_timeout(due, &mut out), Ok(Some(Timer::Ping)));
/// assert_eq!(connection.handle_timeout(due, &mut out), Ok(None));
///
/// let due = connection.poll_timeout().expect("the peer has to answer");
/// let failure = connection.handle_timeout(due, &mut out).unwrap_err();
/// assert_eq!(failure.cause(), Cause::PongTimeout);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Timer {
    /// The deadline for the closing handshake and the end of the byte stream.
    Close,
    /// The deadline for the pong that answers our ping.
    Pong,
    /// The deadline for the next frame.
    Idle,
    /// The deadline for the next data frame.
    DataIdle,
    /// The time to send a keep-alive ping.
    Ping,
}
