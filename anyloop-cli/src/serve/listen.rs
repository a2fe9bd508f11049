//! What a server is to listen on.

use std::str::FromStr;

use anyloop::net::Error;

use super::visitor::VisitorServer;
#[cfg(unix)]
use crate::stop::Stop;

/// A TCP address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Listen {
    /// A port of all addresses.
    Port(u16),
    /// One address, or the addresses of a host, as they were given.
    Address(String),
}

impl Listen {
    /// Has the server listen on it.
    pub(super) fn open(&self, server: &VisitorServer) -> Result<(), Error> {
        match self {
            Self::Port(port) => server.listen_port(*port).map(|_| ()),
            Self::Address(address) => server.listen(address.as_str()).map(|_| ()),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self::Address("127.0.0.1:9002".to_string())
    }
}

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        // A sign is not a digit, and `parse` would take it.
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|_| digits);
        let port = port.ok_or("there is no port, which is a number up to 65535, at its end")?;
        match host {
            "" => Ok(Self::Port(port)),
            _ if text.parse::<std::net::SocketAddr>().is_ok() => Ok(Self::Address(text.into())),
            _ if host.contains([':', '[', ']']) => {
                Err("the host is no IPv6 address in brackets, as in [::1]:9002")
            }
            _ => Ok(Self::Address(text.into())),
        }
    }
}

/// Has the server listen on the sockets that this process has inherited, in the way of systemd's socket
/// activation.
#[cfg(unix)]
pub(super) fn inherit(server: &VisitorServer) -> Result<(), Stop> {
    let mut inherited = listenfd::ListenFd::from_env();
    for place in 0..inherited.len() {
        if let Ok(Some(socket)) = inherited.take_tcp_listener(place) {
            server.listen_on(socket)?;
            continue;
        }
        match inherited.take_unix_listener(place) {
            Ok(Some(socket)) => _ = server.listen_on_unix(socket)?,
            Ok(None) => {}
            Err(_) => {
                let fd = 3 + place; // SD_LISTEN_FDS_START
                let why = format!("cannot listen on inherited descriptor {fd}: no stream socket");
                return Err(Stop::failed(why));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_ports() {
        for (text, expected) in [
            ("9002", Listen::Port(9002)),
            (":9002", Listen::Port(9002)),
            ("127.0.0.1:0", Listen::Address("127.0.0.1:0".into())),
            ("[::1]:9002", Listen::Address("[::1]:9002".into())),
            ("localhost:9002", Listen::Address("localhost:9002".into())),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in
            ["", ":", "localhost", "localhost:", "a:65536", "a:+1", "::1:9002", "[::1]", "a:b:1"]
        {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }
}
