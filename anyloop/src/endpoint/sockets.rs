//! The socket settings of an endpoint. Documented at the methods of `ServerConfig` and `ClientConfig`.

use std::time::Duration;

/// The settings of listeners.
#[derive(Clone, Debug)]
pub(crate) struct ListenOptions {
    pub(crate) backlog: u32,
    pub(crate) reuse_address: bool,
    pub(crate) reuse_port: bool,
}

impl Default for ListenOptions {
    fn default() -> Self {
        // On Windows, `SO_REUSEADDR` would let another process take the address over.
        Self { backlog: 4096, reuse_address: cfg!(unix), reuse_port: false }
    }
}

/// The timeouts of the stages of connecting, and the delay between attempts.
#[derive(Clone, Debug)]
pub(crate) struct ConnectOptions {
    pub(crate) resolve_timeout: Option<Duration>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) total_timeout: Option<Duration>,
    pub(crate) attempt_delay: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            resolve_timeout: Some(Duration::from_secs(10)),
            connect_timeout: Some(Duration::from_secs(10)),
            total_timeout: None,
            attempt_delay: Duration::from_millis(250), // RFC 8305 §8
        }
    }
}
