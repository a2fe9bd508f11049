//! Getters of the settings. Their names begin with `get_`, because the setters have the names of the settings.

use std::time::Duration;

use anyloop_proto::handshake::OriginPolicy;
use anyloop_proto::handshake::http::{HeaderMap, HeaderValue};

use super::{ClientConfig, Overflow, ServerConfig};
#[cfg(feature = "net")]
use crate::proxy::ProxyRules;

/// Getters, each as `setter, getter: type = expression`. The expression uses the configuration by the name `$this`.
macro_rules! getters {
    ($config:ident, $this:ident: $($setter:ident, $getter:ident: $type:ty = $value:expr;)*) => {
        impl $config {
            $(
                #[doc = concat!("The value of [`", stringify!($setter), "`](Self::", stringify!($setter), ").")]
                #[must_use]
                pub fn $getter(&self) -> $type {
                    let $this = self;
                    $value
                }
            )*
        }
    };
}

/// The getters that servers and clients have in common.
macro_rules! common_getters {
    ($config:ident) => {
        getters! { $config, this:
            max_message_size, get_max_message_size: u64 = this.handshake.connection.max_message_size;
            streaming, get_streaming: bool = this.handshake.connection.streaming;
            ping_interval, get_ping_interval: Option<Duration> = this.handshake.connection.ping_interval;
            pong_timeout, get_pong_timeout: Option<Duration> = this.handshake.connection.pong_timeout;
            idle_timeout, get_idle_timeout: Option<Duration> = this.handshake.connection.idle_timeout;
            data_idle_timeout, get_data_idle_timeout: Option<Duration> =
                this.handshake.connection.data_idle_timeout;
            close_timeout, get_close_timeout: Option<Duration> = this.handshake.connection.close_timeout;
            open_timeout, get_open_timeout: Option<Duration> = this.handshake.open_timeout;
            max_head_size, get_max_head_size: usize = this.handshake.max_head_size;
            max_fields, get_max_fields: usize = this.handshake.max_fields;
            max_body_size, get_max_body_size: usize = this.handshake.max_body_size;
            high_water_mark, get_high_water_mark: usize = this.send_buffer.high_water_mark;
            low_water_mark, get_low_water_mark: usize = this.send_buffer.low_water_mark;
            max_send_buffer, get_max_send_buffer: usize = this.send_buffer.max_send_buffer;
            overflow, get_overflow: Overflow = this.send_buffer.overflow;
            keep_handshake, get_keep_handshake: bool = this.keep_handshake;
        }

        #[cfg(feature = "net")]
        getters! { $config, this:
            tcp_nodelay, get_tcp_nodelay: bool = this.nodelay;
        }
    };
}

common_getters!(ServerConfig);
common_getters!(ClientConfig);

getters! { ServerConfig, this:
    answer_timeout, get_answer_timeout: Option<Duration> = this.handshake.answer_timeout;
    response_timeout, get_response_timeout: Option<Duration> = this.handshake.response_timeout;
}

impl ServerConfig {
    /// The web pages that may connect.
    #[must_use]
    pub fn get_origins(&self) -> &OriginPolicy {
        &self.handshake.origins
    }
}

#[cfg(feature = "net")]
getters! { ServerConfig, this:
    listen_backlog, get_listen_backlog: u32 = this.listen.backlog;
    reuse_address, get_reuse_address: bool = this.listen.reuse_address;
    reuse_port, get_reuse_port: bool = this.listen.reuse_port;
}

getters! { ClientConfig, this:
    subprotocols, get_subprotocols: &[String] = &this.handshake.subprotocols;
    headers, get_headers: &HeaderMap = &this.handshake.headers;
    origin, get_origin: Option<&HeaderValue> = this.handshake.origin.as_ref();
}

#[cfg(feature = "net")]
getters! { ClientConfig, this:
    resolve_timeout, get_resolve_timeout: Option<Duration> = this.connect.resolve_timeout;
    connect_timeout, get_connect_timeout: Option<Duration> = this.connect.connect_timeout;
    total_timeout, get_total_timeout: Option<Duration> = this.connect.total_timeout;
    attempt_delay, get_attempt_delay: Duration = this.connect.attempt_delay;
    proxy, get_proxy: &ProxyRules = &this.proxies;
    redirects, get_redirects: u32 = this.redirects;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sets each setting to a value other than the default, and reads it.
    macro_rules! assert_read {
        ($default:expr; $($setter:ident($value:expr) $getter:ident $expected:expr;)*) => {
            $(
                assert_ne!($default.$getter(), $expected, stringify!($setter));
                assert_eq!($default.$setter($value).$getter(), $expected, stringify!($setter));
            )*
        };
    }

    macro_rules! assert_common_is_read {
        ($default:expr) => {
            let one_second = Some(Duration::from_secs(1));
            assert_read! { $default;
                max_message_size(1) get_max_message_size 1;
                streaming(true) get_streaming true;
                ping_interval(one_second) get_ping_interval one_second;
                pong_timeout(one_second) get_pong_timeout one_second;
                idle_timeout(one_second) get_idle_timeout one_second;
                data_idle_timeout(one_second) get_data_idle_timeout one_second;
                close_timeout(one_second) get_close_timeout one_second;
                open_timeout(one_second) get_open_timeout one_second;
                max_head_size(1) get_max_head_size 1;
                max_fields(1) get_max_fields 1;
                max_body_size(1) get_max_body_size 1;
                high_water_mark(1) get_high_water_mark 1;
                low_water_mark(1) get_low_water_mark 1;
                max_send_buffer(1) get_max_send_buffer 1;
                overflow(Overflow::Close) get_overflow Overflow::Close;
                keep_handshake(false) get_keep_handshake false;
            }
            #[cfg(feature = "net")]
            assert_read! { $default; tcp_nodelay(false) get_tcp_nodelay false; }
        };
    }

    #[test]
    fn what_is_set_can_be_read() {
        let server = || ServerConfig::new(OriginPolicy::Any);
        let one_second = Some(Duration::from_secs(1));
        assert_common_is_read!(server());
        assert_common_is_read!(ClientConfig::new());
        assert_eq!(server().get_origins(), &OriginPolicy::Any);
        assert_read! { server();
            answer_timeout(one_second) get_answer_timeout one_second;
            response_timeout(one_second) get_response_timeout one_second;
        }
        let origin = HeaderValue::from_static("http://a");
        assert_read! { ClientConfig::new();
            subprotocol("a") get_subprotocols ["a"];
            origin(origin.clone()) get_origin Some(&origin);
        }
        let config = ClientConfig::new();
        let config = config.header(anyloop_proto::handshake::http::header::COOKIE, origin);
        assert_eq!(config.get_headers().len(), 1);
        #[cfg(feature = "net")]
        {
            assert_read! { server();
                listen_backlog(1) get_listen_backlog 1;
                reuse_address(!cfg!(unix)) get_reuse_address !cfg!(unix);
                reuse_port(true) get_reuse_port true;
            }
            assert_read! { ClientConfig::new();
                resolve_timeout(one_second) get_resolve_timeout one_second;
                connect_timeout(one_second) get_connect_timeout one_second;
                total_timeout(one_second) get_total_timeout one_second;
                attempt_delay(Duration::ZERO) get_attempt_delay Duration::ZERO;
                redirects(5) get_redirects 5;
            }
            let proxy = crate::proxy::Proxy::http("a", 1);
            let target = "ws://chat.example/".parse().unwrap();
            let port = |config: &ClientConfig| Some(config.get_proxy().proxy_for(&target)?.port());
            assert_eq!(port(&ClientConfig::new()), None);
            assert_eq!(port(&ClientConfig::new().proxy(proxy)), Some(1));
        }
    }
}
