//! The settings of a connection.

use alloc::sync::Arc;
use core::fmt;
use core::time::Duration;

use crate::random::Random;

/// The role of an endpoint.
///
/// ```
/// # use anyloop_proto::*;
/// # let now = Instant::from_nanos(0);
/// let mut frames = [Role::Client, Role::Server].map(|role| {
///     let mut out = Vec::new();
///     let mut connection = Connection::new(role, Config::default().into(), now);
///     connection.sender.send("Hello", &mut out).expect("it is open");
///     out
/// });
/// assert_eq!(frames[0].len(), 2 + 4 + 5); // header, masking key, payload
/// assert_eq!(frames[1], b"\x81\x05Hello");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "RFC 6455 knows two roles")]
pub enum Role {
    /// Connects, and masks what it sends (RFC 6455 §5.1).
    Client,
    /// Accepts connections, and closes the byte stream first (RFC 6455 §7.1.1).
    Server,
}

/// Settings of an open connection. One value, behind an `Arc`, serves all connections of an
/// endpoint.
///
/// | setting | default | turned off by |
/// |---|---|---|
/// | `max_message_size` | 16 MiB | `u64::MAX` |
/// | `streaming` | `false` | |
/// | `auto_pong` | `true` | `false` |
/// | `ping_interval` | 20 s | `None` |
/// | `pong_timeout` | 20 s | `None` |
/// | `idle_timeout` | none | `None` |
/// | `data_idle_timeout` | none | `None` |
/// | `close_timeout` | 5 s | `None` |
///
/// While the transport [does not read](crate::Connection::set_reading), the idle timeouts are suspended and no pings
/// are sent. The connection then fails if output waits and the peer reads none of it for `ping_interval` plus
/// `pong_timeout`.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use anyloop_proto::Config;
///
/// let mut config = Config::default();
/// config.max_message_size = 64 * 1024;
/// config.idle_timeout = Some(Duration::from_secs(300));
/// let config = Arc::new(config);
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// The largest message that is accepted, in bytes of payload, inclusive. With an extension, it
    /// applies to the decoded message. A header that announces more fails the connection with 1009.
    pub max_message_size: u64,
    /// If `true`, messages are returned in [`Chunk`](crate::Chunk)s as they arrive, even inside a
    /// frame, and are never gathered. A message that an extension has encoded may arrive in fewer, larger chunks.
    pub streaming: bool,
    /// If `true`, pings are answered before they are reported. If `false`, the application answers
    /// with [`Sender::pong`](crate::Sender::pong).
    pub auto_pong: bool,
    /// Time without received frames after which a ping is sent; less than 1 ms counts as 1 ms.
    pub ping_interval: Option<Duration>,
    /// Time in which the peer must answer a keep-alive ping with a pong of the same payload. Data
    /// that arrives meanwhile restarts it, because a pong cannot overtake data. With `None`, pings
    /// are sent and their answers are not awaited.
    pub pong_timeout: Option<Duration>,
    /// Time without received frames after which the connection is closed with 1001. Keep-alive
    /// pings and the pongs that answer them do not postpone it.
    pub idle_timeout: Option<Duration>,
    /// Time without received data frames after which the connection is closed with 1001. Control
    /// frames do not postpone it.
    pub data_idle_timeout: Option<Duration>,
    /// Total time for the closing handshake and the end of the byte stream, counted from our Close
    /// frame. Input does not prolong it.
    pub close_timeout: Option<Duration>,
    /// The source of masking keys.
    pub random: Arc<dyn Random>,
}

impl Config {
    /// The defaults, with `random` as the source of masking keys.
    #[must_use]
    pub fn new(random: Arc<dyn Random>) -> Self {
        Self {
            max_message_size: 16 << 20,
            streaming: false,
            auto_pong: true,
            ping_interval: Some(Duration::from_secs(20)),
            pong_timeout: Some(Duration::from_secs(20)),
            idle_timeout: None,
            data_idle_timeout: None,
            close_timeout: Some(Duration::from_secs(5)),
            random,
        }
    }
}

#[cfg(feature = "std")]
impl Default for Config {
    /// The defaults, with masking keys from the operating system.
    fn default() -> Self {
        Self::new(Arc::new(crate::random::OsRandom))
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("max_message_size", &self.max_message_size)
            .field("streaming", &self.streaming)
            .field("auto_pong", &self.auto_pong)
            .field("ping_interval", &self.ping_interval)
            .field("pong_timeout", &self.pong_timeout)
            .field("idle_timeout", &self.idle_timeout)
            .field("data_idle_timeout", &self.data_idle_timeout)
            .field("close_timeout", &self.close_timeout)
            .finish_non_exhaustive()
    }
}
