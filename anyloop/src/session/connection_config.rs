//! Settings of single connections.

use std::time::Duration;

use anyloop_proto::Config;

use super::limits::{Overflow, SendBufferLimits};

/// Settings of one connection of a server, given with the [answer](super::Answer::AcceptWith) to its request. A setting
/// that is not given is that of the server.
///
/// Each method changes one setting and returns the configuration. [`ServerConfig`](crate::ServerConfig) has methods of
/// the same names, which describe the settings.
///
/// A server that lets clients with a token send larger messages:
///
/// ```
/// use anyloop::iostream::Server;
/// use anyloop::prelude::*;
/// # use anyloop::http::header;
/// # use std::sync::mpsc;
/// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
/// #     Authorization: Bearer x\r\n\r\n";
///
/// let mut server = Server::new(ServerConfig::new(OriginPolicy::Any).max_message_size(2));
/// server.on_validate(|request, _| match request.headers().get(header::AUTHORIZATION) {
///     Some(_) => {
///         let config = ConnectionConfig::new().max_message_size(16 << 20).ping_interval(None);
///         Answer::AcceptWith(Accept::new(), config)
///     }
///     None => Answer::accept(),
/// });
/// # server.on_message(|message, context| _ = context.send(message));
/// # let connection = server.connection();
/// # let (to_client, at_client) = mpsc::channel();
/// # connection.set_write_handler(move |bytes| Ok(to_client.send(bytes.to_vec()).unwrap()));
/// # connection.read_all(REQUEST)?;
/// # at_client.try_recv()?;
/// # connection.read_all(b"\x81\x83\0\0\0\0abc")?;
/// # assert_eq!(at_client.try_recv()?, b"\x81\x03abc");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ConnectionConfig(Box<Overrides>);

#[derive(Clone, Debug, Default)]
struct Overrides {
    max_message_size: Option<u64>,
    streaming: Option<bool>,
    ping_interval: Option<Option<Duration>>,
    pong_timeout: Option<Option<Duration>>,
    idle_timeout: Option<Option<Duration>>,
    data_idle_timeout: Option<Option<Duration>>,
    close_timeout: Option<Option<Duration>>,
    high_water_mark: Option<usize>,
    low_water_mark: Option<usize>,
    max_send_buffer: Option<usize>,
    overflow: Option<Overflow>,
}

/// The setters, each with the type of its argument.
macro_rules! setters {
    ($($setting:ident($argument:ty)),* $(,)?) => {
        impl ConnectionConfig {
            /// A configuration that overrides nothing.
            pub fn new() -> Self {
                Self::default()
            }

            $(
                #[doc = concat!(
                    "As [`ServerConfig::", stringify!($setting), "`](crate::ServerConfig::",
                    stringify!($setting), ")."
                )]
                pub fn $setting(mut self, $setting: $argument) -> Self {
                    self.0.$setting = Some($setting.into());
                    self
                }
            )*
        }
    };
}

setters! {
    max_message_size(u64),
    streaming(bool),
    ping_interval(impl Into<Option<Duration>>),
    pong_timeout(impl Into<Option<Duration>>),
    idle_timeout(impl Into<Option<Duration>>),
    data_idle_timeout(impl Into<Option<Duration>>),
    close_timeout(impl Into<Option<Duration>>),
    high_water_mark(usize),
    low_water_mark(usize),
    max_send_buffer(usize),
    overflow(Overflow),
}

impl ConnectionConfig {
    /// Applies the overrides to the settings of the protocol.
    pub(super) fn apply_to(&self, config: &mut Config) {
        let overrides = &*self.0;
        set(&mut config.max_message_size, overrides.max_message_size);
        set(&mut config.streaming, overrides.streaming);
        set(&mut config.ping_interval, overrides.ping_interval);
        set(&mut config.pong_timeout, overrides.pong_timeout);
        set(&mut config.idle_timeout, overrides.idle_timeout);
        set(&mut config.data_idle_timeout, overrides.data_idle_timeout);
        set(&mut config.close_timeout, overrides.close_timeout);
    }

    /// Applies the overrides to the server's `limits` of the send buffer.
    pub(super) fn apply_to_limits(&self, mut limits: SendBufferLimits) -> SendBufferLimits {
        let overrides = &*self.0;
        set(&mut limits.high_water_mark, overrides.high_water_mark);
        set(&mut limits.low_water_mark, overrides.low_water_mark);
        set(&mut limits.max_send_buffer, overrides.max_send_buffer);
        set(&mut limits.overflow, overrides.overflow);
        limits
    }
}

fn set<T>(setting: &mut T, changed: Option<T>) {
    if let Some(changed) = changed {
        *setting = changed;
    }
}
