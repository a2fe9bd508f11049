//! What can be due.

/// Everything that can be due.
///
/// Where several are, they are served in this order: what ends the connection first.
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
